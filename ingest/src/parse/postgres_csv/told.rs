//! What a record says happened: a statement, one that pgaudit told, or what failed.

use qualm_model::{
    event::{Kind, Outcome},
    fold,
    time::Span,
};

use super::record::{DETAIL, MESSAGE, QUERY, Record, SEVERITY, SQL_STATE, USER};
use crate::{
    parse::{clip, statement},
    source::{Invalid, Rejection},
};

/// A longer duration is a fault of the record.
const MAX_MILLISECONDS: f64 = 31_536_000_000.0;

/// What a record says happened.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) kind: Kind,
    pub(super) outcome: Outcome,
    pub(super) operation: String,
    pub(super) reason: String,
    pub(super) duration: Option<Span>,
    pub(super) tls_version: String,
    pub(super) auth_method: String,
    /// The name is not of a user that exists.
    pub(super) is_nobody: bool,
}

/// pgaudit's `SESSION,1,1,READ,SELECT,TABLE,public.users,"SELECT …",<none>`. It is told once it was permitted.
pub(super) fn audited(audit: &str) -> Result<Told, Rejection> {
    let mut fields = audit.splitn(8, ',').skip(4);
    let (Some(command), Some(_type), Some(object), Some(rest)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(Invalid::Syntax.into());
    };
    let mut operation = String::new();
    if object.is_empty() {
        statement::append(rest.trim_start_matches('"'), &mut operation);
    } else {
        // `SELECT`, `CREATE TABLE`: the first word, as statements are named.
        operation.push_str(clip(command.split(' ').next().unwrap_or_default()));
        operation.push(' ');
        fold::append_path(clip(object.trim_matches('"')), &mut operation);
    }
    Ok(Told { outcome: Outcome::Success, operation, ..Told::default() })
}

/// `duration: 12.345 ms  statement: …`, `execute <unnamed>: …`, `statement: …`.
pub(super) fn asked(message: &str) -> Result<Option<Told>, Rejection> {
    let (duration, rest) = match message.strip_prefix("duration: ") {
        Some(rest) => match rest.split_once(" ms") {
            Some((milliseconds, rest)) => (Some(milliseconds), rest.trim_start()),
            None => return Err(Invalid::Syntax.into()),
        },
        None => (None, message),
    };
    let sql = rest.strip_prefix("statement: ").or_else(|| {
        let (_name, sql) = rest.strip_prefix("execute ")?.split_once(": ")?;
        Some(sql)
    });
    let Some(sql) = sql else {
        // How long a statement took that was told before, or was only prepared.
        return if duration.is_some() { Err(Rejection::Part) } else { Ok(None) };
    };
    let duration = duration.map(|text| text.parse::<f64>().map_err(|_| Invalid::WrongType)).transpose()?;
    if duration.is_some_and(|milliseconds| !(0.0..MAX_MILLISECONDS).contains(&milliseconds)) {
        return Err(Invalid::WrongType.into());
    }
    let mut operation = String::new();
    statement::append(sql, &mut operation);
    let duration = duration.map(|milliseconds| Span((milliseconds * 1e6) as i64));
    Ok(Some(Told { outcome: Outcome::Success, operation, duration, ..Told::default() }))
}

/// A failed login (class 28), one for which there was no place, or a statement that failed.
pub(super) fn failed(record: &Record<'_>) -> Option<Told> {
    let (severity, state, message) = (record.get(SEVERITY), record.get(SQL_STATE), record.get(MESSAGE));
    let is_refused = state.starts_with("28");
    if severity == "FATAL" && (is_refused || matches!(state, "3D000" | "53300" | "53400" | "42501")) {
        // Up to the first name: `password authentication failed for user "`.
        let words = message.split('"').next().unwrap_or_default().trim_end();
        let mut reason = String::new();
        fold::append_text(clip(words), &mut reason);
        return Some(Told {
            kind: Kind::Authentication,
            outcome: if is_refused || state == "42501" { Outcome::Refused } else { Outcome::Failure },
            operation: "connect".to_owned(),
            auth_method: words.split_once(" authentication failed").map_or("", |(method, _)| method).to_owned(),
            is_nobody: names_nobody(message, record.get(DETAIL)),
            reason,
            ..Told::default()
        });
    }
    let query = record.get(QUERY);
    if severity != "ERROR" || query.is_empty() || record.get(USER).is_empty() {
        return None;
    }
    let mut told = Told { outcome: Outcome::Failure, reason: clip(state).to_owned(), ..Told::default() };
    if state == "42501" {
        told.outcome = Outcome::Refused;
        told.reason.push(' ');
        fold::append_text(clip(message), &mut told.reason);
    }
    statement::append(query, &mut told.operation);
    Some(told)
}

/// Whether the name of a refused user is whatever the client says: of no role, or of none that was asked to prove it.
fn names_nobody(message: &str, detail: &str) -> bool {
    let is_missing = |text: &str| text.split_once("ole \"").is_some_and(|(_, rest)| rest.contains("\" does not exist"));
    is_missing(message) || is_missing(detail) || message.contains("pg_hba.conf")
}
