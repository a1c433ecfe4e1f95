//! AWS CloudTrail: who was given which role's credentials (STS, console logins), and what they were used for (IAM,
//! Secrets Manager and every other service). One event a record, a file's `{"Records":[…]}`, or EventBridge's `detail`.
//!
//! The caller is the role, not its session: sessions come and go with their instances. Access key ids name a
//! credential and are no secret; what STS issues is remembered, so that its end is known when it is used.

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    time::Timestamp,
};
use serde_json::Value;

use super::{
    Row, clip,
    issued::{Issue, IssuedCredentials},
    time::rfc3339,
    typed,
};
use crate::source::{Invalid, Rejection};

/// Error codes of a refusal begin so, or end so.
const REFUSAL_BEGINS: [&str; 9] = [
    "AccessDenied",
    "Unauthorized",
    "Client.Unauthorized",
    "NotAuthorized",
    "InvalidClientTokenId",
    "ExpiredToken",
    "SignatureDoesNotMatch",
    "InvalidIdentityToken",
    "IDPRejectedClaim",
];
const REFUSAL_ENDS: [&str; 3] = ["AccessDenied", "UnauthorizedOperation", "Forbidden"];
const SERVICE_DOMAIN: &str = ".amazonaws.com";

/// Reads CloudTrail's events.
#[derive(Debug, Default)]
pub struct Cloudtrail {
    issued: IssuedCredentials,
}

impl Cloudtrail {
    /// Reads one record.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        typed::entries(line, "Records", row, |record, row| {
            let inner = record.get("detail").filter(|detail| detail.get("eventName").is_some());
            self.push(inner.unwrap_or(record), row)
        })
    }

    fn push(&mut self, record: &Value, row: &mut Row<'_>) -> Result<(), Rejection> {
        let (service, name) = (typed::at(record, "/eventSource"), typed::at(record, "/eventName"));
        if service.is_empty() || name.is_empty() {
            return Err(Rejection::Foreign);
        }
        let time = match typed::at(record, "/eventTime") {
            "" => return Err(Invalid::MissingField.into()),
            time => rfc3339(time)?,
        };
        let kind = if issues(service, name) { Kind::Authentication } else { Kind::Request };
        let ip = typed::address(typed::at(record, "/sourceIPAddress"));
        let caller = Caller::of(record);
        let operation = operation(record, name);
        let error = typed::at(record, "/errorCode");
        if kind == Kind::Authentication && error.is_empty() {
            self.remember(record, time);
        }
        // A failed console login has words and no code.
        let mut reason = clip(error).to_owned();
        if reason.is_empty() {
            fold::append_text(clip(typed::at(record, "/errorMessage")), &mut reason);
        }
        let issue = self.issued.of(caller.credential);
        let begin = rfc3339(typed::at(record, "/userIdentity/sessionContext/attributes/creationDate")).ok();
        row.push(EventDraft {
            start: time,
            report: time,
            kind,
            reporter: Reporter::Issuer,
            record_id: clip(typed::at(record, "/eventID")),
            source: Party {
                principal: typed::first([caller.principal, ip]),
                instance: clip(caller.session),
                ip,
                ..Party::default()
            },
            destination: Party {
                principal: service.strip_suffix(SERVICE_DOMAIN).unwrap_or(service),
                ..Party::default()
            },
            hostname: clip(typed::at(record, "/tlsDetails/clientProvidedHostHeader")),
            operation: &operation,
            outcome: outcome(record, error),
            denial_reason: &reason,
            tls_version: clip(typed::at(record, "/tlsDetails/tlsVersion")),
            credential: clip(caller.credential),
            not_before: begin.or_else(|| issue.and_then(|issue| issue.not_before)),
            not_after: issue.and_then(|issue| issue.not_after),
            auth_method: if kind == Kind::Authentication { clip(typed::at(record, "/userIdentity/type")) } else { "" },
            ..EventDraft::default()
        })
    }

    /// The credentials of a role that STS has just given away.
    fn remember(&mut self, record: &Value, now: Timestamp) {
        let given = |key| typed::at(record, key);
        let end = expiration(given("/responseElements/credentials/expiration"));
        let issue = Issue { not_before: Some(now), not_after: end, bound_to: String::new() };
        self.issued.insert(given("/responseElements/credentials/accessKeyId"), issue);
    }
}

/// Who calls, by what AWS knows of the kind of identity.
#[derive(Debug, Clone, Copy, Default)]
struct Caller<'a> {
    principal: &'a str,
    session: &'a str,
    credential: &'a str,
}

impl<'a> Caller<'a> {
    fn of(record: &'a Value) -> Self {
        let Some(identity) = record.get("userIdentity") else { return Self::default() };
        let at = |pointer| typed::at(identity, pointer);
        let arn = at("/arn");
        let (principal, session) = match at("/type") {
            "AssumedRole" => {
                // `arn:aws:sts::123456789012:assumed-role/role/session`
                let (role, session) = arn.rsplit_once('/').unwrap_or((arn, ""));
                (typed::first([at("/sessionContext/sessionIssuer/arn"), role, at("/principalId")]), session)
            }
            "AWSService" => (at("/invokedBy"), ""),
            "WebIdentityUser" | "SAMLUser" => (typed::first([at("/userName"), at("/principalId")]), ""),
            "IdentityCenterUser" => (typed::first([at("/onBehalfOf/userId"), at("/principalId")]), ""),
            _ => (typed::first([arn, at("/principalId"), at("/userName"), at("/accountId")]), ""),
        };
        Self { principal, session, credential: at("/accessKeyId") }
    }
}

fn issues(service: &str, name: &str) -> bool {
    match service {
        "sts.amazonaws.com" => {
            name.starts_with("AssumeRole") || matches!(name, "GetSessionToken" | "GetFederationToken" | "AssumeRoot")
        }
        "signin.amazonaws.com" => true,
        "sso.amazonaws.com" => matches!(name, "Authenticate" | "Federate" | "GetRoleCredentials" | "CreateToken"),
        _ => false,
    }
}

/// The name of the call, with the role or the secret it asks for.
fn operation(record: &Value, name: &str) -> String {
    let mut operation = clip(name).to_owned();
    let asked = ["/requestParameters/secretId", "/requestParameters/roleArn"].map(|key| typed::at(record, key));
    let asked = typed::first(asked);
    // Of an ARN only the last part: `…:secret:prod/db-a1B2c3`, `…:role/cart`.
    let object = if asked.starts_with("arn:") { asked.rsplit(':').next().unwrap_or_default() } else { asked };
    let object = if asked.contains(":secret:") { without_suffix(object) } else { object };
    if !object.is_empty() {
        operation.push(' ');
        fold::append_path(object, &mut operation);
    }
    operation
}

/// A secret's name without the six random characters that its ARN ends with: it is asked for by either.
fn without_suffix(name: &str) -> &str {
    let is_random = |suffix: &str| {
        suffix.len() == 6
            && suffix.bytes().all(|c| c.is_ascii_alphanumeric())
            && suffix.bytes().any(|c| !c.is_ascii_lowercase())
    };
    name.rsplit_once('-').filter(|(_, suffix)| is_random(suffix)).map_or(name, |(name, _)| name)
}

fn outcome(record: &Value, error: &str) -> Outcome {
    let login = typed::at(record, "/responseElements/ConsoleLogin");
    let begins = REFUSAL_BEGINS.iter().any(|code| error.starts_with(code));
    if login == "Failure" || begins || REFUSAL_ENDS.iter().any(|code| error.ends_with(code)) {
        return Outcome::Refused;
    }
    if error.is_empty() { Outcome::Success } else { Outcome::Failure }
}

/// `Nov 22, 2026, 4:02:24 PM` as STS writes it, or RFC 3339.
fn expiration(text: &str) -> Option<Timestamp> {
    if let Ok(time) = rfc3339(text) {
        return Some(time);
    }
    let civil = jiff::civil::DateTime::strptime("%b %d, %Y, %I:%M:%S %p", text).ok()?;
    let time = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    super::time::sensible(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, Position};

    use super::*;

    fn parse(format: &mut Cloudtrail, line: &str) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        format.parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    const ISSUE: &str = r#"{"eventTime":"2026-11-22T15:02:24Z","eventSource":"sts.amazonaws.com","eventName":"AssumeRole","sourceIPAddress":"ec2.amazonaws.com","userIdentity":{"type":"AWSService","invokedBy":"ec2.amazonaws.com"},"requestParameters":{"roleArn":"arn:aws:iam::123456789012:role/cart"},"responseElements":{"credentials":{"accessKeyId":"ASIAEXAMPLE","sessionToken":"secret","expiration":"Nov 22, 2026, 4:02:24 PM"}}}"#;
    const USE: &str = r#"{"eventTime":"2026-11-22T15:10:00Z","eventSource":"secretsmanager.amazonaws.com","eventName":"GetSecretValue","sourceIPAddress":"10.0.0.7","errorCode":"AccessDeniedException","userIdentity":{"type":"AssumedRole","arn":"arn:aws:sts::123456789012:assumed-role/cart/i-0abc","accessKeyId":"ASIAEXAMPLE"},"requestParameters":{"secretId":"arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-a1B2c3"}}"#;

    #[test]
    fn the_credentials_of_a_role_have_the_end_they_were_issued_with() {
        let mut format = Cloudtrail::default();
        let batch = parse(&mut format, ISSUE).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.operation(), event.source().principal()), ("AssumeRole role/cart", "ec2.amazonaws.com"));
        assert_eq!((event.source().ip(), event.credential()), ("", ""));
        let batch = parse(&mut format, USE).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.operation(), event.outcome()), ("GetSecretValue prod/db", Outcome::Refused));
        assert_eq!(
            (event.source().principal(), event.source().instance()),
            ("arn:aws:sts::123456789012:assumed-role/cart", "i-0abc")
        );
        assert_eq!(event.validity().1, rfc3339("2026-11-22T16:02:24Z").ok());
    }

    #[test]
    fn a_file_is_read_record_by_record() {
        let file = format!(r#"{{"Records":[{ISSUE},{{"eventName":7}},{USE}]}}"#);
        assert_eq!(parse(&mut Cloudtrail::default(), &file).expect("a batch").len(), 2);
        let bridged = format!(r#"{{"detail-type":"AWS API Call via CloudTrail","detail":{USE}}}"#);
        assert_eq!(parse(&mut Cloudtrail::default(), &bridged).expect("an event").len(), 1);
    }

    #[test]
    fn refusals_are_known_by_their_codes() {
        for (code, expected) in [
            ("AccessDenied", Outcome::Refused),
            ("Client.UnauthorizedOperation", Outcome::Refused),
            ("ResourceNotFoundException", Outcome::Failure),
        ] {
            let line = USE.replace("AccessDeniedException", code);
            assert_eq!(
                parse(&mut Cloudtrail::default(), &line).expect("an event").event(0).outcome(),
                expected,
                "{code}"
            );
        }
    }
}
