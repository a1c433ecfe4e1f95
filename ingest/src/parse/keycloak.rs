//! What Keycloak's events mean, in whatever form they come.
//!
//! A client that logs in by itself, or that has a token introspected, is the caller; a person's login is that of the
//! user's id, never of the name, which may be an e-mail address. Names hold within their realm, so that `mesh/cart`
//! is the principal: the same client in two realms is two identities.

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    identity::Provenance,
    time::Timestamp,
};

use super::{Row, clip, typed};
use crate::source::{Invalid, Rejection};

/// Whether the last value of a text can be one that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The text was closed by what it stood in.
    Closed,
    /// The text ends where the line does.
    Open,
}

/// One event of a user or an administrator. An empty text is absent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeycloakEvent<'a> {
    pub(super) event_type: &'a str,
    pub(super) operation_type: &'a str,
    pub(super) resource_type: &'a str,
    pub(super) resource_path: &'a str,
    pub(super) realm: &'a str,
    pub(super) realm_id: &'a str,
    pub(super) client: &'a str,
    pub(super) user: &'a str,
    pub(super) session: &'a str,
    pub(super) address: &'a str,
    pub(super) error: &'a str,
    pub(super) record_id: &'a str,
    pub(super) token: &'a str,
    pub(super) refresh_token: &'a str,
    pub(super) refresh_token_subject: &'a str,
    pub(super) grant_type: &'a str,
    pub(super) auth_method: &'a str,
    pub(super) client_auth_method: &'a str,
}

impl<'a> KeycloakEvent<'a> {
    /// Reads `k=v, k="v"`, as the `jboss-logging` listener writes it: older releases without quotes. Where a key comes
    /// twice the first holds, because what a caller can put into a value comes last.
    pub(super) fn from_pairs(text: &'a str, ending: Ending) -> Result<Self, Invalid> {
        let mut event = Self::default();
        let mut rest = text.trim_ascii_end();
        let mut keys = 0;
        while !rest.is_empty() {
            let (key, tail) = rest.split_once('=').ok_or(Invalid::Syntax)?;
            if key.is_empty() || !key.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c)) {
                return Err(Invalid::Syntax);
            }
            let (value, tail) = value_of(tail, ending)?;
            event.set(key, value);
            let is_of_all = matches!(key, "type" | "operationType" | "clientId" | "ipAddress" | "resourcePath");
            keys += usize::from(is_of_all && !value.is_empty());
            rest = tail;
        }
        // All of these stand before the details; without them, or with the last without its value, the line was cut off.
        let needed = if event.operation_type.is_empty() { 3 } else { 4 };
        if keys < needed { Err(Invalid::MissingField) } else { Ok(event) }
    }

    fn set(&mut self, key: &str, value: &'a str) {
        let slot = match key {
            "type" => &mut self.event_type,
            "operationType" => &mut self.operation_type,
            "resourceType" => &mut self.resource_type,
            "resourcePath" => &mut self.resource_path,
            "realmName" => &mut self.realm,
            "realmId" => &mut self.realm_id,
            "clientId" => &mut self.client,
            "userId" => &mut self.user,
            "sessionId" => &mut self.session,
            "ipAddress" => &mut self.address,
            "error" => &mut self.error,
            "token_id" => &mut self.token,
            "refresh_token_id" => &mut self.refresh_token,
            "refresh_token_sub" => &mut self.refresh_token_subject,
            "grant_type" => &mut self.grant_type,
            "auth_method" => &mut self.auth_method,
            "client_auth_method" => &mut self.client_auth_method,
            _ => return,
        };
        if slot.is_empty() && value != "null" {
            *slot = value;
        }
    }

    /// Pushes what happened at `time`.
    pub(super) fn push(&self, time: Timestamp, row: &mut Row<'_>) -> Result<(), Rejection> {
        let action = self.event_type.strip_suffix("_ERROR").unwrap_or(self.event_type);
        let has_failed = action.len() < self.event_type.len() || !self.error.is_empty();
        let kind = kind_of(action);
        let is_client_login = action == "CLIENT_LOGIN";
        // All three are told of every client's login; without them the line was cut off.
        if is_client_login && !has_failed && [self.token, self.grant_type, self.client_auth_method].contains(&"") {
            return Err(Invalid::MissingField.into());
        }
        // Nor is it known whose token it was, where neither that is told nor what comes after it.
        let whose = [self.user, self.refresh_token_subject, self.client_auth_method];
        if action == "REFRESH_TOKEN" && typed::first(whose).is_empty() {
            return Err(Invalid::MissingField.into());
        }
        let realm = typed::first([self.realm, self.realm_id]);
        let principal = match (self.caller(action), realm) {
            ("", _) => self.address.to_owned(),
            (name, "") => name.to_owned(),
            (name, realm) => format!("{realm}/{name}"),
        };
        let methods = if is_client_login {
            [self.client_auth_method, self.grant_type, self.auth_method]
        } else {
            [self.grant_type, self.auth_method, self.client_auth_method]
        };
        row.push(EventDraft {
            start: time,
            report: time,
            kind,
            reporter: Reporter::Issuer,
            record_id: clip(self.record_id),
            source: Party {
                principal: &principal,
                ip: clip(self.address),
                provenance: Provenance::Name,
                ..Party::default()
            },
            destination: Party { principal: "keycloak", ..Party::default() },
            hostname: clip(realm),
            operation: &self.operation(action)?,
            outcome: if has_failed { Outcome::Refused } else { Outcome::Success },
            denial_reason: &typed::reason(self.error),
            credential: clip(self.credential(action)),
            auth_method: if kind == Kind::Authentication { clip(typed::first(methods)) } else { "" },
            ..EventDraft::default()
        })
    }

    fn caller(&self, action: &str) -> &'a str {
        // The name of a client that there is not is whatever somebody sent.
        if self.error == "client_not_found" {
            return "";
        }
        let by_client = ["CLIENT_", "INTROSPECT_", "TOKEN_EXCHANGE", "REVOKE_", "PUSHED_"];
        if by_client.iter().any(|prefix| action.starts_with(prefix)) {
            return typed::first([self.client, self.user]);
        }
        typed::first([self.user, self.refresh_token_subject, self.client])
    }

    /// The caller's own: a token that is introspected is not the one of the server that asks.
    fn credential(&self, action: &str) -> &'a str {
        if action.starts_with("INTROSPECT_") {
            return "";
        }
        typed::first([self.token, self.refresh_token, self.session])
    }

    fn operation(&self, action: &str) -> Result<String, Invalid> {
        if !self.event_type.is_empty() {
            return Ok(clip(action).to_owned());
        }
        if self.operation_type.is_empty() {
            return Err(Invalid::MissingField);
        }
        let mut operation = format!("{} {}", clip(self.operation_type), clip(self.resource_type));
        if !self.resource_path.is_empty() {
            operation.push(' ');
            fold::append_path(self.resource_path, &mut operation);
        }
        Ok(operation)
    }
}

fn kind_of(action: &str) -> Kind {
    let authenticates = ["LOGIN", "CLIENT_LOGIN", "CODE_TO_TOKEN", "REFRESH_TOKEN", "TOKEN_EXCHANGE", "IMPERSONATE"];
    let begins =
        ["OAUTH2_DEVICE_CODE_TO_TOKEN", "FEDERATED_IDENTITY_LINK", "IDENTITY_PROVIDER_LOGIN", "AUTHREQID_TO_TOKEN"];
    let matches = authenticates.contains(&action) || begins.contains(&action);
    if matches { Kind::Authentication } else { Kind::Request }
}

/// A value and what follows the separator after it.
fn value_of(text: &str, ending: Ending) -> Result<(&str, &str), Invalid> {
    let Some(quoted) = text.strip_prefix('"') else {
        return Ok(match text.split_once(", ") {
            Some(parts) => parts,
            // What may have been cut off is not believed.
            None if ending == Ending::Open => ("", ""),
            None => (text, ""),
        });
    };
    let mut is_escaped = false;
    let is_end = |c: char| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    };
    let end = quoted.find(is_end).ok_or(Invalid::Syntax)?;
    let rest = &quoted[end + 1..];
    match rest.strip_prefix(", ") {
        Some(next) if !next.is_empty() => Ok((&quoted[..end], next)),
        None if rest.is_empty() => Ok((&quoted[..end], "")),
        _ => Err(Invalid::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, Position};

    use super::*;

    fn parse(text: &str, ending: Ending) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        let event = KeycloakEvent::from_pairs(text, ending)?;
        event.push(Timestamp(0), &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    #[test]
    fn a_secret_in_the_error_is_folded_and_the_codes_of_keycloak_are_not() {
        let secret = "hvs.CAESIJ3Nc8Qw1x0vE7kq5mZt9Lr2Yb6UuFh";
        for (error, told) in [
            ("invalid_user_credentials", "invalid_user_credentials"),
            (&format!("invalid_{secret}ntials"), "{token}"),
            ("expired_code", "expired_code"),
        ] {
            let batch = parse(&OLD.replace("invalid_user_credentials", error), Ending::Open).expect("an event");
            assert_eq!(batch.event(0).denial_reason(), told);
        }
    }

    const OLD: &str = "type=LOGIN_ERROR, realmId=shop, clientId=dashboard, userId=null, ipAddress=203.0.113.44, error=invalid_user_credentials, auth_method=openid-connect, username=jdoe";

    #[test]
    fn a_failed_login_of_an_older_release_is_a_refusal_of_the_client() {
        let batch = parse(OLD, Ending::Open).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.source().principal(), event.source().ip()), ("shop/dashboard", "203.0.113.44"));
        assert_eq!((event.outcome(), event.denial_reason()), (Outcome::Refused, "invalid_user_credentials"));
    }

    #[test]
    fn a_value_at_the_end_of_a_line_may_be_cut_off_and_is_not_believed() {
        let cut = &OLD[..OLD.find("_user_cred").expect("the error")];
        assert_eq!(parse(cut, Ending::Open).expect("an event").event(0).denial_reason(), "");
        assert_eq!(parse(cut, Ending::Closed).expect("an event").event(0).denial_reason(), "invalid");
        assert_eq!(parse(&OLD[..60], Ending::Open).err(), Some(Invalid::MissingField.into()));
    }

    #[test]
    fn a_client_that_there_is_not_is_an_address() {
        let unknown = OLD.replace("invalid_user_credentials", "client_not_found");
        let batch = parse(&unknown, Ending::Open).expect("an event");
        assert_eq!(batch.event(0).source().principal(), "external:203.0.113.0/24");
    }

    #[test]
    fn a_user_name_cannot_forge_the_fields_before_it() {
        let forged = OLD.replace("jdoe", "x, userId=admin, clientId=bank, error=none, x=y");
        let batch = parse(&forged.replace("userId=null", "userId=u1"), Ending::Open).expect("an event");
        assert_eq!(batch.event(0).source().principal(), "shop/u1");
        let quoted = r#"type="LOGIN", realmName="mesh", clientId="cart", userId="u1", ipAddress="10.0.0.7", username="x\", userId=\"admin""#;
        assert_eq!(parse(quoted, Ending::Open).expect("an event").event(0).source().principal(), "mesh/u1");
    }
}
