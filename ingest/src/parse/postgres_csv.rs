//! PostgreSQL's csvlog (`log_destination = 'csvlog'`, releases 9.0 to 17) with pgaudit's records in it: logins, failed
//! ones, what was asked, and what was not permitted.
//!
//! A record may have line feeds in its statement: its lines are joined within a bound. A line that is a whole record is
//! one, whatever was open before it: PostgreSQL doubles the quotes of what its users write, so that no statement can
//! hold such a line. A login is one event, `connection authorized`; the lines around it are parts of it.

mod record;
mod told;

use std::collections::{HashMap, VecDeque};

use qualm_model::event::{EventDraft, Kind, Outcome, Party, Reporter};

use self::{
    record::{
        CONNECTION_FROM, DATABASE, Field, MESSAGE, Record, SESSION_ID, SESSION_LINE, Split, USER, begins_record,
        is_record, split,
    },
    told::{Told, asked, audited, failed},
};
use super::{Row, access::host_and_port, clip, time::zoned, typed};
use crate::source::{Invalid, Rejection};

/// Longer records are given up.
const MAX_JOINED_BYTES: usize = 64 * 1024;
/// Sessions that have authenticated and are not yet authorised; the oldest is forgotten first.
const MAX_SESSIONS: usize = 4096;
/// Reads lines of csvlog.
#[derive(Debug, Default)]
pub struct PostgresCsv {
    open: String,
    methods: HashMap<String, String>,
    order: VecDeque<String>,
}

impl PostgresCsv {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        match split(line) {
            Split::Whole(fields) if is_record(&fields) => {
                self.open.clear();
                return self.push(fields, row);
            }
            _ if !self.open.is_empty() => {}
            Split::Open(fields) if begins_record(line) && fields > CONNECTION_FROM => {
                self.open.push_str(line);
                return Err(Rejection::Part);
            }
            _ if begins_record(line) => return Err(Invalid::Syntax.into()),
            _ => return Err(Rejection::Foreign),
        }
        let mut joined = std::mem::take(&mut self.open);
        if joined.len() + line.len() >= MAX_JOINED_BYTES {
            return Err(Invalid::TooLong.into());
        }
        joined.push('\n');
        joined.push_str(line);
        match split(&joined) {
            Split::Whole(fields) if is_record(&fields) => self.push(fields, row),
            Split::Open(_) => {
                self.open = joined;
                Err(Rejection::Part)
            }
            _ => Err(Invalid::Syntax.into()),
        }
    }

    fn push(&mut self, fields: Vec<Field<'_>>, row: &mut Row<'_>) -> Result<(), Rejection> {
        let time = zoned(&fields[0].text)?;
        let record = Record { fields, time };
        let told = self.told(&record)?;
        let (ip, port) = host_and_port(record.get(CONNECTION_FROM));
        let ip = typed::address(ip);
        let user = if told.is_nobody { "" } else { record.get(USER) };
        let record_id = format!("{}/{}", record.get(SESSION_ID), record.get(SESSION_LINE));
        row.push(EventDraft {
            start: record.time - told.duration.unwrap_or_default(),
            report: record.time,
            kind: told.kind,
            reporter: Reporter::Destination,
            record_id: clip(&record_id),
            source: Party { principal: typed::first([user, ip]), ip, port, ..Party::default() },
            destination: Party { principal: "postgresql", ..Party::default() },
            hostname: clip(record.get(DATABASE)),
            operation: &told.operation,
            outcome: told.outcome,
            denial_reason: clip(&told.reason),
            duration_ns: told.duration.map(|duration| duration.0),
            tls_version: clip(&told.tls_version),
            auth_method: clip(&told.auth_method),
            ..EventDraft::default()
        })
    }

    fn told(&mut self, record: &Record<'_>) -> Result<Told, Rejection> {
        let message = record.get(MESSAGE);
        if let Some(told) = self.login(record, message)? {
            return Ok(told);
        }
        if let Some(audit) = message.strip_prefix("AUDIT: ") {
            return audited(audit);
        }
        if let Some(told) = asked(message)? {
            return Ok(told);
        }
        failed(record).ok_or(Rejection::Foreign)
    }

    /// The lines of a login.
    fn login(&mut self, record: &Record<'_>, message: &str) -> Result<Option<Told>, Rejection> {
        let parts = ["connection received: ", "disconnection: "];
        if parts.iter().any(|part| message.starts_with(part)) {
            return Err(Rejection::Part);
        }
        if message.starts_with("connection authenticated: ") {
            let method = message.rsplit_once(" method=").map_or("", |(_, method)| method);
            self.remember(record.get(SESSION_ID), method.split(' ').next().unwrap_or_default());
            return Err(Rejection::Part);
        }
        let authorised = ["connection authorized: ", "replication connection authorized: "];
        if let Some(rest) = authorised.iter().find_map(|begin| message.strip_prefix(begin)) {
            let tls = rest.split_once("SSL enabled (protocol=").map_or("", |(_, rest)| rest);
            let tls = tls.split([',', ')']).next().unwrap_or_default();
            return Ok(Some(Told {
                kind: Kind::Authentication,
                outcome: Outcome::Success,
                operation: if message.starts_with('r') { "replicate" } else { "connect" }.to_owned(),
                tls_version: tls.to_owned(),
                auth_method: self.methods.get(record.get(SESSION_ID)).cloned().unwrap_or_default(),
                ..Told::default()
            }));
        }
        Ok(None)
    }

    fn remember(&mut self, session: &str, method: &str) {
        if self.methods.insert(clip(session).to_owned(), clip(method).to_owned()).is_some() {
            return;
        }
        self.order.push_back(clip(session).to_owned());
        if self.order.len() > MAX_SESSIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.methods.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
