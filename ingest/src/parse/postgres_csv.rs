//! PostgreSQL's csvlog (`log_destination = 'csvlog'`, releases 9.0 to 17) with pgaudit's records in it: logins, failed
//! ones, what was asked, and what was not permitted.
//!
//! A record may have line feeds in its statement: its lines are joined within a bound. A line that is a whole record is
//! one, whatever was open before it: PostgreSQL doubles the quotes of what its users write, so that no statement can
//! hold such a line. A login is one event, `connection authorized`; the lines around it are parts of it.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
};

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    time::{Span, Timestamp},
};

use super::{Row, access::host_and_port, clip, statement, time::zoned, typed};
use crate::source::{Invalid, Rejection};

/// Columns of 9.0 to 12, of 13 and of 14 to 17. Only those before `application_name`, which all have, are read.
const COLUMNS: [usize; 3] = [23, 24, 26];
const USER: usize = 1;
const DATABASE: usize = 2;
const CONNECTION_FROM: usize = 4;
const SESSION_ID: usize = 5;
const SESSION_LINE: usize = 6;
const SEVERITY: usize = 11;
const SQL_STATE: usize = 12;
const MESSAGE: usize = 13;
const DETAIL: usize = 14;
const QUERY: usize = 19;
/// Longer records are given up.
const MAX_JOINED_BYTES: usize = 64 * 1024;
/// Sessions that have authenticated and are not yet authorised; the oldest is forgotten first.
const MAX_SESSIONS: usize = 4096;
/// A longer duration is a fault of the record.
const MAX_MILLISECONDS: f64 = 31_536_000_000.0;

/// Reads lines of csvlog.
#[derive(Debug, Default)]
pub struct PostgresCsv {
    open: String,
    methods: HashMap<String, String>,
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Field<'a> {
    text: Cow<'a, str>,
    is_quoted: bool,
}

/// How a text splits into fields.
#[derive(Debug)]
enum Split<'a> {
    Whole(Vec<Field<'a>>),
    /// It ends within quotes; so many fields came before them.
    Open(usize),
    Malformed,
}

/// What is read of a record.
#[derive(Debug)]
struct Record<'a> {
    fields: Vec<Field<'a>>,
    time: Timestamp,
}

/// What a record says happened.
#[derive(Debug, Default)]
struct Told {
    kind: Kind,
    outcome: Outcome,
    operation: String,
    reason: String,
    duration: Option<Span>,
    tls_version: String,
    auth_method: String,
    /// The name is not of a user that exists.
    is_nobody: bool,
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

impl Record<'_> {
    fn get(&self, column: usize) -> &str {
        self.fields.get(column).map_or("", |field| &field.text)
    }
}

/// pgaudit's `SESSION,1,1,READ,SELECT,TABLE,public.users,"SELECT …",<none>`. It is told once it was permitted.
fn audited(audit: &str) -> Result<Told, Rejection> {
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
fn asked(message: &str) -> Result<Option<Told>, Rejection> {
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
fn failed(record: &Record<'_>) -> Option<Told> {
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

/// Whether the fields are those of a record: as many as one has, and those that hold what users write in quotes.
fn is_record(fields: &[Field<'_>]) -> bool {
    let is_quoted_or_empty = |column: usize| fields[column].is_quoted || fields[column].text.is_empty();
    COLUMNS.contains(&fields.len())
        && begins_record(&fields[0].text)
        && fields[MESSAGE].is_quoted
        && [USER, DATABASE, CONNECTION_FROM, QUERY].into_iter().all(is_quoted_or_empty)
        && fields[SQL_STATE].text.len() == 5
}

/// `2026-09-12 23:10:56.412 UTC` up to a comma: PostgreSQL's other log has more words there.
fn begins_record(line: &str) -> bool {
    if line.split(',').next().is_some_and(|field| field.split(' ').count() > 3) {
        return false;
    }
    line.as_bytes().first_chunk::<19>().is_some_and(|head| {
        let separators = [head[4], head[7], head[10], head[13], head[16]];
        separators == *b"-- ::" && head[0].is_ascii_digit()
    })
}

/// Splits as PostgreSQL writes: a field is quoted as a whole, with its quotes doubled, or not at all.
fn split(text: &str) -> Split<'_> {
    let mut fields = Vec::with_capacity(COLUMNS[2]);
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Split::Malformed;
            }
            fields.push(Field { text: Cow::Borrowed(&rest[..end]), is_quoted: false });
            if end == rest.len() {
                return Split::Whole(fields);
            }
            rest = &rest[end + 1..];
            continue;
        };
        let mut end = 0;
        loop {
            let Some(at) = quoted[end..].find('"') else { return Split::Open(fields.len()) };
            end += at;
            if !quoted[end + 1..].starts_with('"') {
                break;
            }
            end += 2;
        }
        let inner = &quoted[..end];
        let inner = if inner.contains('"') { Cow::Owned(inner.replace("\"\"", "\"")) } else { Cow::Borrowed(inner) };
        fields.push(Field { text: inner, is_quoted: true });
        rest = &quoted[end + 1..];
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None if rest.is_empty() => return Split::Whole(fields),
            None => return Split::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, Position};

    use super::*;

    fn parse(format: &mut PostgresCsv, line: &str) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        format.parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    fn record(state: &str, severity: &str, message: &str, query: &str) -> String {
        let message = message.replace('"', "\"\"");
        let query = if query.is_empty() { String::new() } else { format!("\"{query}\"") };
        format!(
            "2026-09-12 23:10:56.412 UTC,\"cart\",\"shop\",59,\"10.0.0.7:51000\",6aa5dc00.3b,3,\"SELECT\",2026-09-12 23:10:56 UTC,1/2,0,{severity},{state},\"{message}\",,,,,,{query},,,\"psql\",\"client backend\",,0"
        )
    }

    #[test]
    fn a_failed_login_is_a_refusal_of_who_exists() {
        let line = record("28P01", "FATAL", "password authentication failed for user \"cart\"", "");
        let batch = parse(&mut PostgresCsv::default(), &line).expect("an event");
        let event = batch.event(0);
        assert_eq!(
            (event.kind(), event.outcome(), event.auth_method()),
            (Kind::Authentication, Outcome::Refused, "password")
        );
        assert_eq!((event.source().principal(), event.source().ip()), ("cart", "10.0.0.7"));
        let nobody = record("28000", "FATAL", "role \"cart\" does not exist", "");
        let batch = parse(&mut PostgresCsv::default(), &nobody).expect("an event");
        assert_eq!(batch.event(0).source().principal(), "10.0.0.7");
        let hidden = line.replace(",,,,,,,,,\"psql\"", ",\"Role \"\"cart\"\" does not exist.\",,,,,,,,\"psql\"");
        assert_ne!(hidden, line);
        let batch = parse(&mut PostgresCsv::default(), &hidden).expect("an event");
        assert_eq!(batch.event(0).source().principal(), "10.0.0.7");
    }

    #[test]
    fn a_statement_over_several_lines_is_one_record() {
        let mut format = PostgresCsv::default();
        let line =
            record("42501", "ERROR", "permission denied for table orders", "SELECT *\nFROM orders\nWHERE x = 'y'");
        let mut lines = line.split('\n');
        let mut next = || parse(&mut format, lines.next().expect("three lines"));
        assert_eq!((next().err(), next().err()), (Some(Rejection::Part), Some(Rejection::Part)));
        let batch = next().expect("an event");
        assert_eq!((batch.event(0).operation(), batch.event(0).outcome()), ("SELECT orders", Outcome::Refused));
        assert_eq!(batch.event(0).denial_reason(), "42501 permission denied for table orders");
    }

    #[test]
    fn a_statement_cannot_forge_a_record() {
        let mut format = PostgresCsv::default();
        let forged =
            record("28P01", "FATAL", "password authentication failed for user \"bank\"", "").replace('"', "\"\"");
        let line = record("42601", "ERROR", "syntax error", &format!("SELECT 1\n{forged}\n"));
        let outcomes: Vec<_> = line.split('\n').map(|line| parse(&mut format, line).map(|batch| batch.len())).collect();
        assert_eq!(outcomes, [Err(Rejection::Part), Err(Rejection::Part), Ok(1)]);
    }

    #[test]
    fn a_record_that_never_ends_is_given_up() {
        let mut format = PostgresCsv::default();
        let line = record("42601", "ERROR", "syntax error", "SELECT 1\n2");
        let (begin, _) = line.split_once('\n').expect("two lines");
        assert_eq!(parse(&mut format, begin).err(), Some(Rejection::Part));
        let last =
            (0..100).map(|_| parse(&mut format, &"x".repeat(1000)).err()).find(|why| *why != Some(Rejection::Part));
        assert_eq!(last, Some(Some(Invalid::TooLong.into())));
        assert!(format.open.is_empty());
        assert_eq!(
            parse(&mut format, &record("42601", "ERROR", "syntax error", "SELECT 1")).map(|batch| batch.len()),
            Ok(1)
        );
    }

    #[test]
    fn no_literal_of_a_statement_is_told() {
        for line in [
            record("00000", "LOG", "AUDIT: SESSION,1,1,WRITE,INSERT,,,INSERT INTO users VALUES ('hunter2'),<none>", ""),
            record("00000", "LOG", "duration: 12.345 ms  statement: SELECT 'hunter2' FROM users", ""),
            record("22P02", "ERROR", "invalid input syntax for type integer: \"hunter2\"", "SELECT 'hunter2'"),
        ] {
            let batch = parse(&mut PostgresCsv::default(), &line).expect("an event");
            assert!(!format!("{:?}", batch.as_record_batch()).contains("hunter2"), "{line}");
        }
    }
}
