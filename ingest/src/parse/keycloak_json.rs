//! Keycloak's events as JSON: the console log with the event in its message, and the events of the admin API and of
//! listeners that send them to a topic.

use serde::Deserialize;

use super::{
    Row,
    keycloak::{Ending, KeycloakEvent},
    time::{epoch, rfc3339},
    typed::{self, Text},
};
use crate::source::{Invalid, Rejection};

/// The logger of the events; everything else in the console log is Keycloak's own diagnostics.
pub(super) const LOGGER: &str = "org.keycloak.events";

/// A line of the console log, or an event by itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Line<'a> {
    #[serde(borrow)]
    timestamp: Text<'a>,
    logger_name: Text<'a>,
    message: Text<'a>,
    time: Text<'a>,
    id: Text<'a>,
    r#type: Text<'a>,
    operation_type: Text<'a>,
    resource_type: Text<'a>,
    resource_path: Text<'a>,
    realm_id: Text<'a>,
    realm_name: Text<'a>,
    client_id: Text<'a>,
    user_id: Text<'a>,
    session_id: Text<'a>,
    ip_address: Text<'a>,
    error: Text<'a>,
    details: Option<Details<'a>>,
    auth_details: Option<AuthDetails<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details<'a> {
    #[serde(borrow)]
    token_id: Text<'a>,
    refresh_token_id: Text<'a>,
    refresh_token_sub: Text<'a>,
    grant_type: Text<'a>,
    auth_method: Text<'a>,
    client_auth_method: Text<'a>,
}

/// Who acted, in the event of an administrator.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthDetails<'a> {
    #[serde(borrow)]
    realm_id: Text<'a>,
    client_id: Text<'a>,
    user_id: Text<'a>,
    ip_address: Text<'a>,
}

/// Reads Keycloak's events as JSON.
#[derive(Debug, Default)]
pub struct KeycloakJson;

impl KeycloakJson {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let line: Line<'_> = typed::object(line)?;
        if &*line.logger_name == LOGGER {
            let time = rfc3339(&line.timestamp)?;
            return KeycloakEvent::from_pairs(&line.message, Ending::Closed)?.push(time, row);
        }
        let is_event = !line.r#type.is_empty() || !line.operation_type.is_empty();
        if !line.logger_name.is_empty() || !is_event || line.realm_id.is_empty() && line.auth_details.is_none() {
            return Err(Rejection::Foreign);
        }
        if line.time.is_empty() {
            return Err(Invalid::MissingField.into());
        }
        line.event().push(epoch(&line.time, 3)?, row)
    }
}

impl Line<'_> {
    fn event(&self) -> KeycloakEvent<'_> {
        let mut event = KeycloakEvent {
            event_type: &self.r#type,
            operation_type: &self.operation_type,
            resource_type: &self.resource_type,
            resource_path: &self.resource_path,
            realm: &self.realm_name,
            realm_id: &self.realm_id,
            client: &self.client_id,
            user: &self.user_id,
            session: &self.session_id,
            address: &self.ip_address,
            error: &self.error,
            record_id: &self.id,
            ..KeycloakEvent::default()
        };
        if let Some(details) = &self.details {
            event.token = &details.token_id;
            event.refresh_token = &details.refresh_token_id;
            event.refresh_token_subject = &details.refresh_token_sub;
            event.grant_type = &details.grant_type;
            event.auth_method = &details.auth_method;
            event.client_auth_method = &details.client_auth_method;
        }
        if let Some(by) = &self.auth_details {
            (event.client, event.user, event.address) = (&by.client_id, &by.user_id, &by.ip_address);
            // The realm of the administrator, who is the caller; the event's own is the realm that was changed.
            event.realm_id = if by.realm_id.is_empty() { event.realm_id } else { &by.realm_id };
        }
        event
    }
}
