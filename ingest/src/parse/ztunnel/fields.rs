//! The fields of one line, whether text or JSON.

use super::Subject;
use crate::{
    parse::json::{Lexer, Stretch, Value, unescape},
    source::{Invalid, Rejection},
};

macro_rules! fields {
    ($($field:ident $name:literal)+) => {
        /// The fields that are read. The text form has no keys for the first two.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field {
            $(#[doc = $name] $field),+
        }

        fn field_of(key: &str) -> Option<Field> {
            match key {
                $($name => Some(Field::$field),)+
                _ => None,
            }
        }

        const FIELDS: usize = [$($name),+].len();
    };
}

fields! {
    Time "time"
    Level "level"
    Scope "scope"
    Message "message"
    SourceAddress "src.addr"
    SourceWorkload "src.workload"
    SourceNamespace "src.namespace"
    SourceIdentity "src.identity"
    DestinationAddress "dst.addr"
    DestinationTunnelled "dst.hbone_addr"
    DestinationService "dst.service"
    DestinationWorkload "dst.workload"
    DestinationNamespace "dst.namespace"
    DestinationIdentity "dst.identity"
    Direction "direction"
    BytesSent "bytes_sent"
    BytesReceived "bytes_recv"
    Duration "duration"
    Error "error"
    Method "method"
    Path "path"
    ResponseCode "response_code"
    Host "host"
    RequestId "request_id"
}

/// Where a value stands: in the line, or in the text of values that had escapes.
#[derive(Debug, Clone, Copy, Default)]
enum Place {
    #[default]
    Absent,
    Line(Stretch),
    Built(Stretch),
}

/// The fields of the line last read.
#[derive(Debug, Default)]
pub(super) struct Fields {
    places: [Place; FIELDS],
    built: String,
    json: bool,
}

impl Fields {
    /// Reads a line; what it is about.
    pub(super) fn read(&mut self, line: &str) -> Result<Subject, Rejection> {
        self.places = [Place::Absent; FIELDS];
        self.built.clear();
        self.json = line.trim_ascii_start().starts_with('{');
        if self.json { self.read_json(line) } else { self.read_text(line) }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Of a text line: whether its level is that of an error.
    pub(super) fn is_error(&self) -> bool {
        matches!(self.places[Field::Level as usize], Place::Built(level) if level.of(&self.built).eq_ignore_ascii_case("error"))
    }

    pub(super) fn has(&self, field: Field) -> bool {
        !matches!(self.places[field as usize], Place::Absent)
    }

    pub(super) fn get<'a>(&'a self, field: Field, line: &'a str) -> &'a str {
        match self.places[field as usize] {
            Place::Absent => "",
            Place::Line(stretch) => stretch.of(line),
            Place::Built(stretch) => stretch.of(&self.built),
        }
    }

    fn read_json(&mut self, line: &str) -> Result<Subject, Rejection> {
        let mut lexer = Lexer::new(line);
        lexer.begin()?;
        while let Some(key) = lexer.key()? {
            let Some(field) = field_of(key) else {
                lexer.skip_value()?;
                continue;
            };
            let place = match lexer.value()? {
                Value::Null => Place::Absent,
                Value::Text(text) | Value::Number(text) => Place::Line(text),
                Value::Escaped(text) => {
                    let start = self.built.len();
                    unescape(text.of(line), &mut self.built)?;
                    Place::Built(Stretch::new(start, self.built.len()))
                }
                Value::Bool(_) => return Err(Invalid::WrongType.into()),
                Value::Object | Value::Array => {
                    lexer.skip_rest()?;
                    return Err(Invalid::WrongType.into());
                }
            };
            self.note(field, place);
        }
        lexer.end()?;
        subject_of(self.get(Field::Scope, line), self.get(Field::Message, line)).ok_or(Rejection::Foreign)
    }

    fn read_text(&mut self, line: &str) -> Result<Subject, Rejection> {
        let at = line.find("src.addr=").ok_or(Rejection::Foreign)?;
        let mut head = line[..at].split_ascii_whitespace();
        let (Some(time), Some(level)) = (head.next(), head.next()) else { return Err(Rejection::Foreign) };
        let subject = match (head.next(), head.next(), head.next(), head.next(), head.next()) {
            (Some(scope), Some("connection"), Some(last), None, None) => subject_of(scope, last),
            (Some("http"), Some("access"), Some("request"), Some("complete"), None) => Some(Subject::Request),
            _ => None,
        };
        let subject = subject.ok_or(Rejection::Foreign)?;
        for (field, text) in [(Field::Time, time), (Field::Level, level)] {
            let start = self.built.len();
            self.built.push_str(text);
            self.places[field as usize] = Place::Built(Stretch::new(start, self.built.len()));
        }
        self.read_pairs(line, at)?;
        Ok(subject)
    }

    /// `key=value` and `key="value"` from byte `at` on.
    fn read_pairs(&mut self, line: &str, mut at: usize) -> Result<(), Invalid> {
        let bytes = line.as_bytes();
        loop {
            at += bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if at == bytes.len() {
                return Ok(());
            }
            let key_end = at + memchr::memchr(b'=', &bytes[at..]).ok_or(Invalid::Syntax)?;
            let key = &line[at..key_end];
            let (place, end) = self.read_value(line, key_end + 1)?;
            if let Some(field) = field_of(key) {
                self.note(field, place);
            }
            at = end;
        }
    }

    fn read_value(&mut self, line: &str, start: usize) -> Result<(Place, usize), Invalid> {
        let bytes = line.as_bytes();
        if bytes.get(start) != Some(&b'"') {
            let length = bytes[start..].iter().take_while(|byte| !byte.is_ascii_whitespace()).count();
            if length == 0 {
                return Err(Invalid::Syntax);
            }
            return Ok((Place::Line(Stretch::new(start, start + length)), start + length));
        }
        let (start, from) = (start + 1, self.built.len());
        let (mut at, mut escaped) = (start, false);
        loop {
            match bytes.get(at).ok_or(Invalid::Syntax)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        // A blank or the end must follow, or the quote was not the last.
        if bytes.get(at + 1).is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return Err(Invalid::Syntax);
        }
        if !escaped {
            return Ok((Place::Line(Stretch::new(start, at)), at + 1));
        }
        unescape_debug(&line[start..at], &mut self.built);
        Ok((Place::Built(Stretch::new(from, self.built.len())), at + 1))
    }

    /// The first of a name stands: what comes later may be the caller's words.
    fn note(&mut self, field: Field, place: Place) {
        if !self.has(field) {
            self.places[field as usize] = place;
        }
    }
}

/// By scope and message, the latter whole (JSON) or its last word (text).
fn subject_of(scope: &str, message: &str) -> Option<Subject> {
    match (scope.trim_end_matches(':'), message) {
        ("access", "connection opened" | "opened") => Some(Subject::Begin),
        ("access", "connection complete" | "complete") => Some(Subject::Connection),
        ("access", "connection failed" | "failed") => Some(Subject::Refused),
        ("http access", "request complete") => Some(Subject::Request),
        _ => None,
    }
}

/// Rust's escapes in texts: quotes and backslashes are resolved, others (`\u{1b}`) stay as they are written.
fn unescape_debug(escaped: &str, out: &mut String) {
    let mut rest = escaped;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let next = &rest[at + 1..];
        let resolved = next.starts_with(['"', '\\', '\'']);
        out.push_str(if resolved { &next[..1] } else { "\\" });
        rest = if resolved { &next[1..] } else { next };
    }
    out.push_str(rest);
}
