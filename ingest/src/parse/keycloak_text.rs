//! Keycloak's events in its text console log: `time level [org.keycloak.events] (thread) type="…", realmId="…", …`.
//!
//! The times have no zone. Where the envelope tells when the line was written that is its time; else it is read as UTC.

use super::{
    Row,
    keycloak::{Ending, KeycloakEvent},
    keycloak_json::LOGGER,
    time::zoneless,
};
use crate::source::{Invalid, Rejection};

/// Reads lines of Keycloak's text log.
#[derive(Debug, Default)]
pub struct KeycloakText;

impl KeycloakText {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let line = line.trim_ascii();
        let (head, rest) = line.split_once(" [").ok_or(Rejection::Foreign)?;
        let Some(rest) = rest.strip_prefix(LOGGER).and_then(|rest| rest.strip_prefix("] (")) else {
            return Err(Rejection::Foreign);
        };
        // Thread names hold no brackets of their own.
        let (_thread, pairs) = rest.split_once(") ").ok_or(Invalid::Syntax)?;
        // `2026-11-22 15:10:33,568 WARN `
        let head = head.trim_ascii_end();
        let time = head.rsplit_once(' ').map_or(head, |(time, _level)| time).trim_ascii_end();
        let read = zoneless(time)?;
        KeycloakEvent::from_pairs(pairs, Ending::Open)?.push(row.origin().time.unwrap_or(read), row)
    }
}
