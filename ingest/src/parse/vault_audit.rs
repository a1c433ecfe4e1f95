//! Vault's audit device: two lines a call, `request` and `response`, joined by `request.id`.
//!
//! The event carries the position of the response. A response whose request is not in the window (another file, a
//! restart in between) is an event too: all it lacks is the duration. Secrets and accessors are HMACs already.

use std::collections::{HashMap, VecDeque};

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    identity::Provenance,
    time::{Span, Timestamp},
};

use super::{
    Row, clip,
    json::{Lexer, Stretch, Value, unescape},
    time::rfc3339,
};
use crate::source::{Invalid, Rejection};

/// Requests that wait for their response; the oldest is forgotten first, and was counted as a part.
const MAX_WAITING: usize = 4096;
/// Vault's request ids are UUIDs; longer ones are not kept.
const MAX_ID_BYTES: usize = 64;

#[derive(Debug, Clone, Copy)]
enum Key {
    Type,
    Time,
    Error,
    EntityId,
    DisplayName,
    RoleName,
    Accessor,
    TokenIssueTime,
    TokenTtl,
    RequestId,
    Operation,
    Path,
    MountPoint,
    MountType,
    RemoteAddress,
    RemotePort,
    ClientTokenAccessor,
    RevokedAccessor,
    IssuedAccessor,
}

const KEYS: usize = Key::IssuedAccessor as usize + 1;

/// Where a key stands: in the line's object, or in one of those within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Line,
    Auth,
    AuthMetadata,
    Request,
    RequestData,
    Response,
    ResponseAuth,
}

fn key_of(within: Within, name: &str) -> Option<Key> {
    Some(match (within, name) {
        (Within::Line, "type") => Key::Type,
        (Within::Line, "time") => Key::Time,
        (Within::Line, "error") => Key::Error,
        (Within::Auth, "entity_id") => Key::EntityId,
        (Within::Auth, "display_name") => Key::DisplayName,
        (Within::Auth, "accessor") => Key::Accessor,
        (Within::Auth, "token_issue_time") => Key::TokenIssueTime,
        (Within::Auth, "token_ttl") => Key::TokenTtl,
        (Within::AuthMetadata, "role_name" | "role") => Key::RoleName,
        (Within::Request, "id") => Key::RequestId,
        (Within::Request, "operation") => Key::Operation,
        (Within::Request, "path") => Key::Path,
        (Within::Request, "mount_point") => Key::MountPoint,
        (Within::Request, "mount_type") => Key::MountType,
        (Within::Request, "remote_address") => Key::RemoteAddress,
        (Within::Request, "remote_port") => Key::RemotePort,
        (Within::Request, "client_token_accessor") => Key::ClientTokenAccessor,
        (Within::RequestData, "accessor") => Key::RevokedAccessor,
        (Within::ResponseAuth, "accessor") => Key::IssuedAccessor,
        _ => return None,
    })
}

fn object_of(within: Within, name: &str) -> Option<Within> {
    match (within, name) {
        (Within::Line, "auth") => Some(Within::Auth),
        (Within::Line, "request") => Some(Within::Request),
        (Within::Auth, "metadata") => Some(Within::AuthMetadata),
        (Within::Request, "data") => Some(Within::RequestData),
        (Within::Line, "response") => Some(Within::Response),
        (Within::Response, "auth") => Some(Within::ResponseAuth),
        _ => None,
    }
}

impl Within {
    fn is_free(self) -> bool {
        matches!(self, Self::RequestData | Self::Response | Self::ResponseAuth)
    }
}

/// Requests that wait for their response, the oldest first.
#[derive(Debug, Default)]
struct Waiting {
    times: HashMap<String, Timestamp>,
    order: VecDeque<String>,
}

impl Waiting {
    fn insert(&mut self, id: &str, time: Timestamp) {
        if self.times.insert(id.to_owned(), time).is_some() {
            return;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > MAX_WAITING
            && let Some(oldest) = self.order.pop_front()
        {
            self.times.remove(&oldest);
        }
    }
}

/// Reads lines of Vault's audit log.
#[derive(Debug, Default)]
pub struct VaultAudit {
    found: [Option<Stretch>; KEYS],
    text: String,
    waiting: Waiting,
    operation: String,
    reason: String,
}

impl VaultAudit {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        if !line.trim_ascii_start().starts_with('{') {
            return Err(Rejection::Foreign);
        }
        self.found = [None; KEYS];
        self.text.clear();
        let mut lexer = Lexer::new(line);
        lexer.begin()?;
        self.read_object(&mut lexer, line, Within::Line)?;
        lexer.end()?;
        let kind = self.get(Key::Type);
        if !matches!(kind, "request" | "response") {
            return Err(Rejection::Foreign);
        }
        let is_request = kind == "request";
        let time = self.get(Key::Time);
        let time = if time.is_empty() { Err(Invalid::MissingField) } else { rfc3339(time) }?;
        if self.get(Key::RequestId).is_empty() || self.get(Key::Path).is_empty() {
            return Err(Invalid::MissingField.into());
        }
        if is_request {
            self.wait(time);
            return Err(Rejection::Part);
        }
        let start = self.waiting.times.get(self.get(Key::RequestId)).copied().unwrap_or(time).min(time);
        self.write_operation();
        row.push(self.draft(start, time)?)
    }

    fn read_object(&mut self, lexer: &mut Lexer<'_>, line: &str, within: Within) -> Result<(), Invalid> {
        while let Some(name) = lexer.key()? {
            match (lexer.value()?, object_of(within, name), key_of(within, name)) {
                (Value::Object, Some(inner), _) => self.read_object(lexer, line, inner)?,
                (Value::Null, ..) => {}
                // What a secret engine is asked and answers has any form.
                (Value::Array, Some(inner), _) if inner.is_free() => lexer.skip_rest()?,
                (_, Some(inner), _) if inner.is_free() => {}
                (Value::Object | Value::Array, None, Some(_)) if within.is_free() => lexer.skip_rest()?,
                (Value::Bool(_), None, Some(_)) if within.is_free() => {}
                (_, Some(_), _) => return Err(Invalid::WrongType),
                (Value::Object | Value::Array, None, None) => lexer.skip_rest()?,
                (_, None, None) => {}
                (Value::Text(text) | Value::Number(text), None, Some(key)) => {
                    self.note(key, |out| {
                        out.push_str(text.of(line));
                        Ok(())
                    })?;
                }
                (Value::Escaped(text), None, Some(key)) => self.note(key, |out| unescape(text.of(line), out))?,
                (_, None, Some(_)) => return Err(Invalid::WrongType),
            }
        }
        Ok(())
    }

    fn note(&mut self, key: Key, write: impl FnOnce(&mut String) -> Result<(), Invalid>) -> Result<(), Invalid> {
        let start = self.text.len();
        write(&mut self.text)?;
        self.found[key as usize] = Some(Stretch::new(start, self.text.len()));
        Ok(())
    }

    fn get(&self, key: Key) -> &str {
        self.found[key as usize].map_or("", |stretch| stretch.of(&self.text))
    }

    fn wait(&mut self, time: Timestamp) {
        let id = self.found[Key::RequestId as usize].map_or("", |stretch| stretch.of(&self.text));
        if id.len() <= MAX_ID_BYTES {
            self.waiting.insert(id, time);
        }
    }

    fn write_operation(&mut self) {
        let (mut operation, mut reason) = (std::mem::take(&mut self.operation), std::mem::take(&mut self.reason));
        operation.clear();
        operation.push_str(clip(self.get(Key::Operation)));
        operation.push(' ');
        fold::append_path(self.get(Key::Path), &mut operation);
        reason.clear();
        let error = self.get(Key::Error).trim();
        let error = error.split_once("* ").map_or(error, |(_, first)| first);
        fold::append_text(clip(error.lines().next().unwrap_or_default()), &mut reason);
        (self.operation, self.reason) = (operation, reason);
    }

    fn draft(&self, start: Timestamp, report: Timestamp) -> Result<EventDraft<'_>, Invalid> {
        let issued = match self.get(Key::TokenIssueTime) {
            "" => None,
            time => Some(rfc3339(time)?),
        };
        let lifetime = match self.get(Key::TokenTtl) {
            "" | "0" => None,
            seconds => Some(Span::seconds(seconds.parse::<u32>().map_err(|_| Invalid::WrongType)?.into())),
        };
        let is_login = self.get(Key::Path).starts_with("auth/") && self.get(Key::Path).contains("/login");
        let is_granted = self.get(Key::Error).is_empty();
        let present = |keys: [Key; 2]| keys.map(|key| self.get(key)).into_iter().find(|text| !text.is_empty());
        Ok(EventDraft {
            start,
            report,
            kind: if is_login { Kind::Authentication } else { Kind::Request },
            reporter: Reporter::Issuer,
            record_id: clip(self.get(Key::RequestId)),
            source: self.caller()?,
            destination: Party { principal: "vault", ..Party::default() },
            hostname: clip(self.get(Key::MountPoint)),
            operation: &self.operation,
            outcome: if self.get(Key::Error).is_empty() { Outcome::Success } else { Outcome::Refused },
            denial_reason: &self.reason,
            duration_ns: Some((report - start).0),
            credential: clip(present([Key::Accessor, Key::ClientTokenAccessor]).unwrap_or_default()),
            not_before: issued,
            not_after: issued.zip(lifetime).map(|(issued, lifetime)| issued + lifetime),
            auth_method: if is_login { clip(self.get(Key::MountType)) } else { "" },
            issued: if is_granted { clip(self.get(Key::IssuedAccessor)) } else { "" },
            revoked: if is_granted { clip(self.revoked()) } else { "" },
            ..EventDraft::default()
        })
    }

    /// The accessor of the token that was taken back: as it was asked for, or the caller's own. Of a token that is named
    /// itself the accessor is not told.
    fn revoked(&self) -> &str {
        match self.get(Key::Path) {
            "auth/token/revoke-accessor" => self.get(Key::RevokedAccessor),
            "auth/token/revoke-self" => match self.get(Key::Accessor) {
                "" => self.get(Key::ClientTokenAccessor),
                accessor => accessor,
            },
            _ => "",
        }
    }

    /// The entity that Vault knows, or else what it calls the token, or else only an address.
    fn caller(&self) -> Result<Party<'_>, Invalid> {
        let ip = clip(self.get(Key::RemoteAddress));
        let names = [Key::EntityId, Key::RoleName, Key::DisplayName].map(|key| self.get(key));
        let principal = names.into_iter().find(|name| !name.is_empty()).unwrap_or(ip);
        let port = match self.get(Key::RemotePort) {
            "" => 0,
            port => port.parse().map_err(|_| Invalid::WrongType)?,
        };
        Ok(Party { principal, ip, port, provenance: Provenance::Name, ..Party::default() })
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, Position};

    use super::*;

    fn line(kind: &str, second: u32, extra: &str) -> String {
        format!(
            r#"{{{extra}"request":{{"client_token_accessor":"hmac-sha256:c8","id":"ea1ce0e9","mount_point":"secret/","mount_type":"kv","namespace":{{"id":"root"}},"operation":"read","path":"secret/data/cart/8127","remote_address":"10.0.0.7","remote_port":44748}},"time":"2026-11-22T15:22:{second:02}Z","type":"{kind}"}}"#
        )
    }

    const AUTH: &str = r#""auth":{"accessor":"hmac-sha256:d7","display_name":"approle","entity_id":"fd57-07","metadata":{"role_name":"cart"},"policies":["app"],"token_issue_time":"2026-11-22T15:00:00Z","token_ttl":1200},"#;

    fn parse(format: &mut VaultAudit, line: &str) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        format.parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    #[test]
    fn request_and_response_make_one_event() {
        let mut format = VaultAudit::default();
        assert_eq!(parse(&mut format, &line("request", 1, AUTH)).err(), Some(Rejection::Part));
        let batch = parse(&mut format, &line("response", 3, AUTH)).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.source().principal(), event.credential()), ("fd57-07", "hmac-sha256:d7"));
        assert_eq!((event.operation(), event.outcome()), ("read secret/data/cart/{id}", Outcome::Success));
        assert_eq!(event.report() - event.start(), Span::seconds(2));
        let (begin, end) = event.validity();
        assert_eq!(end.zip(begin).map(|(end, begin)| end - begin), Some(Span::seconds(1200)));
    }

    #[test]
    fn a_response_alone_is_an_event_without_duration() {
        let batch = parse(&mut VaultAudit::default(), &line("response", 3, AUTH)).expect("an event");
        assert_eq!(batch.event(0).report(), batch.event(0).start());
    }

    #[test]
    fn an_error_is_a_refusal_of_whoever_came_from_the_address() {
        let refused = line("response", 3, r#""error":"1 error occurred:\n\t* permission denied\n\n","#);
        let batch = parse(&mut VaultAudit::default(), &refused).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.outcome(), event.denial_reason()), (Outcome::Refused, "permission denied"));
        assert_eq!((event.source().principal(), event.credential()), ("10.0.0.7", "hmac-sha256:c8"));
    }

    #[test]
    fn it_is_told_which_token_was_given_out_and_which_was_taken_back() {
        let login = line("response", 3, r#""response":{"auth":{"accessor":"hmac-sha256:d7"}},"#);
        let taken_back = line("response", 4, AUTH)
            .replace("secret/data/cart/8127", "auth/token/revoke-accessor")
            .replace(r#""id":"ea1ce0e9""#, r#""data":{"accessor":"hmac-sha256:d7"},"id":"ea1ce0e9""#);
        let events = |line: &str| parse(&mut VaultAudit::default(), line).expect("an event");
        assert_eq!((events(&login).event(0).issued(), events(&login).event(0).revoked()), ("hmac-sha256:d7", ""));
        assert_eq!(events(&taken_back).event(0).revoked(), "hmac-sha256:d7");
        let refused = taken_back.replace(r#""request":"#, r#""error":"permission denied","request":"#);
        assert_eq!(events(&refused).event(0).revoked(), "");
        let own = taken_back.replace("revoke-accessor", "revoke-self");
        assert_eq!(events(&own).event(0).revoked(), "hmac-sha256:d7");
        for free in [
            r#""data":[1,{"accessor":2}]"#,
            r#""data":"x""#,
            r#""data":{"accessor":{"a":1}}"#,
            r#""data":{"accessor":true}"#,
        ] {
            assert_eq!(
                events(&taken_back.replace(r#""data":{"accessor":"hmac-sha256:d7"}"#, free)).event(0).revoked(),
                ""
            );
        }
    }

    #[test]
    fn a_login_is_an_authentication() {
        let login = line("response", 3, AUTH)
            .replace("secret/data/cart/8127", "auth/approle/login")
            .replace(r#""kv""#, r#""approle""#);
        let batch = parse(&mut VaultAudit::default(), &login).expect("an event");
        assert_eq!((batch.event(0).kind(), batch.event(0).auth_method()), (Kind::Authentication, "approle"));
    }

    #[test]
    fn requests_without_a_response_are_forgotten_oldest_first() {
        let mut waiting = Waiting::default();
        for number in 0..MAX_WAITING + 10 {
            waiting.insert(&number.to_string(), Timestamp(0));
        }
        assert_eq!((waiting.times.len(), waiting.order.len()), (MAX_WAITING, MAX_WAITING));
        assert!(!waiting.times.contains_key("9") && waiting.times.contains_key("10"));
    }
}
