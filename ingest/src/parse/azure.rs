//! Azure's diagnostic logs: the sign-ins of Entra ID (people, service principals, managed identities) and Key Vault's
//! `AuditEvent`. One record, or a batch `{"records":[…]}` as Event Hubs carries them. Other categories are foreign.
//!
//! Who signs in is known by the object id, in both logs: names change and may be e-mail addresses.

use std::borrow::Cow;

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    time::Timestamp,
};
use serde_json::Value;

use super::{Row, access::host_and_port, clip, time::rfc3339, typed};
use crate::source::{Invalid, Rejection};

/// Where a Key Vault token's claims have the caller: its object, or else its application.
const CLAIMS: [&str; 4] = [
    "/identity/claim/http:~1~1schemas.microsoft.com~1identity~1claims~1objectidentifier",
    "/identity/claim/oid",
    "/identity/claim/appid",
    "/properties/clientId",
];
/// Sign-ins that stop to ask the person for more, and are none yet: keep me signed in, a second factor, a session that
/// must be chosen. See the sign-in error codes of Entra ID.
const INTERRUPTIONS: [&str; 6] = ["50140", "50074", "50076", "50072", "50058", "16000"];

/// Reads Azure's diagnostic logs.
#[derive(Debug, Default)]
pub struct Azure;

impl Azure {
    /// Reads one record.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        typed::entries(line, "records", row, |record, row| match typed::at(record, "/category") {
            "AuditEvent" => push_vault_call(record, row),
            category if category.ends_with("SignInLogs") => push_sign_in(record, category, row),
            _ => Err(Rejection::Foreign),
        })
    }
}

fn push_sign_in(record: &Value, category: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
    let at = |pointer| typed::at(record, pointer);
    // The time of the envelope is the batch's, and in some exports in the writing of the tenant's country.
    let time = moment([at("/properties/createdDateTime"), at("/time")])?;
    let ip = typed::address(typed::first([at("/properties/ipAddress"), at("/callerIpAddress")]));
    let is_person = matches!(category, "SignInLogs" | "NonInteractiveUserSignInLogs" | "ADFSSignInLogs");
    let named = if is_person {
        [at("/properties/userId"), at("/properties/appId")]
    } else {
        [at("/properties/servicePrincipalId"), at("/properties/appId")]
    };
    let code = sign_in_code(record);
    let mut reason = String::new();
    if code != "0" {
        reason.push_str(clip(&code));
        reason.push(' ');
        let words = typed::first([at("/properties/status/failureReason"), at("/resultDescription")]);
        fold::append_text(clip(words), &mut reason);
    }
    let mut operation = "sign-in".to_owned();
    let resource = at("/properties/resourceDisplayName");
    if !resource.is_empty() {
        operation.push_str(" to ");
        fold::append_text(clip(resource), &mut operation);
    }
    row.push(EventDraft {
        start: time,
        report: time,
        kind: Kind::Authentication,
        reporter: Reporter::Issuer,
        record_id: clip(typed::first([at("/properties/id"), at("/correlationId")])),
        source: Party { principal: typed::first([named[0], named[1], ip]), ip, ..Party::default() },
        destination: Party { principal: "entra-id", ..Party::default() },
        hostname: clip(at("/tenantId")),
        operation: &operation,
        outcome: match &*code {
            "0" => Outcome::Success,
            code if INTERRUPTIONS.contains(&code) => Outcome::Failure,
            "" => Outcome::Unknown,
            _ => Outcome::Refused,
        },
        denial_reason: clip(reason.trim_ascii_end()),
        credential: clip(at("/properties/uniqueTokenIdentifier")),
        auth_method: clip(typed::first([
            at("/properties/clientCredentialType"),
            at("/properties/authenticationRequirement"),
            at("/properties/clientAppUsed"),
        ])),
        ..EventDraft::default()
    })
}

/// The error code, `0` for none: a number in the properties, a text or a number beside them.
fn sign_in_code(record: &Value) -> Cow<'_, str> {
    let found = record.pointer("/properties/status/errorCode").or_else(|| record.get("resultType"));
    match found {
        Some(Value::String(code)) => Cow::Borrowed(code),
        Some(Value::Number(code)) => Cow::Owned(code.to_string()),
        _ => Cow::Borrowed(""),
    }
}

fn push_vault_call(record: &Value, row: &mut Row<'_>) -> Result<(), Rejection> {
    let at = |pointer| typed::at(record, pointer);
    let name = at("/operationName");
    if name.is_empty() {
        return Err(Invalid::MissingField.into());
    }
    let time = moment([at("/time")])?;
    let caller = typed::first(CLAIMS.map(at));
    let ip = typed::address(host_and_port(at("/callerIpAddress")).0);
    let status = record.pointer("/properties/httpStatusCode").and_then(Value::as_u64);
    let status = status.and_then(|status| u16::try_from(status).ok());
    let (vault, object) = called(typed::first([at("/properties/id"), at("/properties/requestUri")]));
    let by_resource = at("/resourceId").rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let mut operation = clip(name).to_owned();
    if !object.is_empty() {
        operation.push(' ');
        fold::append_path(object, &mut operation);
    }
    let signature = at("/resultSignature");
    row.push(EventDraft {
        start: time,
        report: time,
        kind: Kind::Request,
        reporter: Reporter::Issuer,
        record_id: clip(at("/correlationId")),
        source: Party { principal: typed::first([caller, ip]), ip, ..Party::default() },
        destination: Party { principal: typed::first([&by_resource, vault, "key-vault"]), ..Party::default() },
        hostname: clip(vault),
        operation: &operation,
        status,
        outcome: match (status, signature) {
            // Clients ask once without a token, to learn where to get one.
            (Some(401), _) | (None, "Unauthorized") if caller.is_empty() => Outcome::Failure,
            (Some(status), _) => Outcome::of_http(status, None),
            (None, "Unauthorized" | "Forbidden") => Outcome::Refused,
            (None, _) if at("/resultType") == "Success" => Outcome::Success,
            (None, _) => Outcome::Failure,
        },
        denial_reason: if status.is_some_and(|status| status < 400) { "" } else { clip(signature) },
        duration_ns: duration(record),
        credential: clip(at("/identity/claim/uti")),
        ..EventDraft::default()
    })
}

fn duration(record: &Value) -> Option<i64> {
    let milliseconds = match record.get("durationMs")? {
        Value::String(text) => text.parse::<u32>().ok()?,
        number => u32::try_from(number.as_u64()?).ok()?,
    };
    Some(i64::from(milliseconds) * 1_000_000)
}

/// Host and object of `https://shop.vault.azure.net/secrets/db/0123?api-version=7.4`.
fn called(uri: &str) -> (&str, &str) {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.split_once('/').unwrap_or((rest, ""))
}

fn moment<const N: usize>(texts: [&str; N]) -> Result<Timestamp, Invalid> {
    match typed::first(texts) {
        "" => Err(Invalid::MissingField),
        time => rfc3339(time),
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, Position};

    use super::*;

    fn parse(line: &str) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        Azure.parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    fn sign_in(code: &str) -> String {
        format!(
            r#"{{"time":"2026-11-22T15:00:00Z","category":"ServicePrincipalSignInLogs","resultType":"{code}","callerIpAddress":"10.0.0.7","properties":{{"servicePrincipalId":"sp-1","appId":"app-1","clientCredentialType":"clientSecret","uniqueTokenIdentifier":"uti-1"}}}}"#
        )
    }

    #[test]
    fn a_service_principal_signs_in_as_its_object() {
        let batch = parse(&sign_in("0")).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.source().principal(), event.credential()), ("sp-1", "uti-1"));
        assert_eq!((event.outcome(), event.auth_method()), (Outcome::Success, "clientSecret"));
    }

    #[test]
    fn a_sign_in_that_asks_for_a_second_factor_is_no_refusal() {
        let outcome = |code: &str| parse(&sign_in(code)).expect("an event").event(0).outcome();
        assert_eq!((outcome("7000215"), outcome("50074")), (Outcome::Refused, Outcome::Failure));
    }

    #[test]
    fn a_vault_that_asks_for_a_token_refuses_nobody() {
        let call = r#"{"time":"2026-11-22T15:00:00Z","category":"AuditEvent","operationName":"SecretGet","resultType":"Success","resultSignature":"Unauthorized","callerIpAddress":"10.0.0.7","properties":{"id":"https://shop.vault.azure.net/secrets/db/0123456789abcdef0123456789abcdef?x=1","httpStatusCode":401}}"#;
        let batch = parse(call).expect("an event");
        assert_eq!(
            (batch.event(0).outcome(), batch.event(0).operation()),
            (Outcome::Failure, "SecretGet secrets/db/{hex}")
        );
        let named = call.replace(r#""properties""#, r#""identity":{"claim":{"oid":"sp-1"}},"properties""#);
        assert_eq!(parse(&named).expect("an event").event(0).outcome(), Outcome::Refused);
    }
}
