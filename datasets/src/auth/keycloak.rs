//! Keycloak's events in its JSON console log.

use std::io::Write as _;

use super::{
    AuthRecord, Deed,
    text::{micros, uuid},
};
use crate::mesh::Mesh;

/// The realm of all clients and users.
pub(super) const REALM: &str = "mesh";

pub(super) fn push(record: &AuthRecord, mesh: &Mesh, out: &mut Vec<u8>) {
    let client = &mesh.service(record.service).name;
    let service_account = uuid(u64::from(record.service.0) ^ 0x7361);
    let token = uuid(record.token);
    let (action, user, details) = match record.deed {
        Deed::Login => (
            "CLIENT_LOGIN",
            service_account,
            format!(
                r#", token_id=\"trrtcc:{token}\", grant_type=\"client_credentials\", scope=\"email profile\", client_auth_method=\"client-secret\", username=\"service-account-{client}\""#
            ),
        ),
        Deed::Introspect => (
            "INTROSPECT_TOKEN",
            service_account,
            format!(r#", token_id=\"trrtcc:{token}\", token_type=\"Bearer\", client_auth_method=\"client-secret\""#),
        ),
        Deed::Exchange => (
            "TOKEN_EXCHANGE",
            service_account,
            format!(
                r#", token_id=\"trrtte:{token}\", grant_type=\"urn:ietf:params:oauth:grant-type:token-exchange\", client_auth_method=\"client-secret\""#
            ),
        ),
        Deed::UserLogin { user } => (
            "LOGIN",
            uuid(u64::from(user) ^ 0x0075_7365_7200),
            format!(r#", token_id=\"onrtro:{token}\", grant_type=\"password\", auth_method=\"openid-connect\""#),
        ),
        _ => return,
    };
    let failed = match record.deed {
        Deed::UserLogin { .. } => r#", error=\"invalid_user_credentials\", grant_type=\"password\""#,
        _ => r#", error=\"invalid_client_credentials\", grant_type=\"client_credentials\""#,
    };
    let (suffix, level) = if record.granted { ("", "DEBUG") } else { ("_ERROR", "WARN") };
    let is_person = matches!(record.deed, Deed::UserLogin { .. });
    let user = if record.granted || is_person { user.as_str() } else { "null" };
    let details = if record.granted { details.as_str() } else { failed };
    let _ = writeln!(
        out,
        r#"{{"timestamp":"{time}","sequence":{sequence},"loggerClassName":"org.jboss.logging.Logger","loggerName":"org.keycloak.events","level":"{level}","message":"type=\"{action}{suffix}\", realmId=\"707b65fb-681e-4140-816e-5dc2f77d0db8\", realmName=\"{REALM}\", clientId=\"{client}\", userId=\"{user}\", ipAddress=\"{address}\"{details}","threadName":"executor-thread-2","threadId":39,"mdc":{{}},"ndc":"","hostName":"keycloak-0","processName":"java","processId":17643}}"#,
        time = micros(record.at, record.id),
        sequence = record.at.0 % 1_000_000,
        address = record.address,
    );
}
