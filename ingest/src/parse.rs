//! From the bytes of one record to one row of the event batch, or to the reason why not.
//!
//! # Layout
//! - [`mod@format`]: the formats by name; [`row`]: where events go to, and what holds for every format
//! - [`json`]: a pull lexer over one line; `typed`: JSON of low volume through serde; [`time`]: times in logs
//! - [`access`]: what Envoy's access logs mean, in whatever form they come
//! - [`auto`]: whichever format understands a record; `blame`: for which field one was refused
//! - one format a file, in the table of [`mod@format`]; what two of them share beside them: `keycloak`, `issued`
//!   (credentials from their issue to their use), `statement` (SQL as a name)

pub mod access;
pub mod auto;
pub mod azure;
mod blame;
pub mod cloudtrail;
pub mod consul;
pub mod consul_audit;
pub mod format;
pub mod gcp_audit;
pub mod hubble;
mod issued;
pub mod istio_json;
pub mod istio_text;
pub mod json;
pub mod kafka_authorizer;
mod keycloak;
pub mod keycloak_json;
pub mod keycloak_text;
pub mod kubernetes_audit;
pub mod linkerd;
pub mod mapped;
mod number;
pub mod opa_decision;
pub mod otlp_spans;
pub mod postgres_csv;
pub mod row;
pub mod spire_agent;
pub mod spire_server;
pub mod sshd;
mod statement;
pub mod time;
mod typed;
mod url;
pub mod vault_audit;
pub mod zeek;
pub mod ztunnel;

use std::sync::Arc;

use qualm_model::{
    event::{EventBuilder, Position},
    time::{Span, Timestamp},
};

pub(crate) use self::row::clip;
use self::{
    format::Grammar,
    json::Stretch,
    mapped::{InvalidHeader, Mapping},
};
pub use self::{
    format::{Format, InvalidFormat},
    row::{MAX_AHEAD, Origin, Row},
};
use crate::{
    envelope::{Contents, Envelope, Envelopes, Passed, SyslogHeader, Wrapping, foreign::Marks},
    source::{Invalid, Rejection},
};

/// Records longer than this are [`Invalid::TooLong`] unless configured otherwise.
///
/// As much as Kafka takes by default: a collector sends the entries of a second or two as one record.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 1024 * 1024;

/// Reads records of one format, in whatever envelope they come. One parser serves one input: it may keep what joins
/// several lines.
#[derive(Debug)]
pub struct Parser {
    format: Format,
    grammar: Grammar,
    envelopes: Envelopes,
    setting: Envelope,
    cluster: String,
    marks: Marks,
    max_record_bytes: usize,
    arrival: Option<Timestamp>,
    stored: Option<Timestamp>,
    refused: Vec<Rejection>,
    lost: u64,
    unvouched: u64,
    stranger: Arc<str>,
    proxies: Vec<String>,
    max_age: Option<Span>,
}

/// A format that cannot be read as configured.
#[derive(Debug, thiserror::Error)]
#[error("format `mapped` needs a mapping file, and no other format takes one; set `mapping`, or name another format")]
pub struct InvalidParser;

impl Parser {
    /// A parser of `format`; `mapping` for [`Format::Mapped`] and for no other.
    pub fn for_format(format: Format, mapping: Option<Mapping>) -> Result<Self, InvalidParser> {
        let grammar = Grammar::of(format, mapping)?;
        let setting = Envelope::default();
        Ok(Self {
            format,
            grammar,
            envelopes: Envelopes::new(&setting, DEFAULT_MAX_RECORD_BYTES),
            setting,
            cluster: String::new(),
            marks: Marks::beside(format),
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
            arrival: None,
            stored: None,
            refused: Vec::new(),
            lost: 0,
            unvouched: 0,
            stranger: Arc::default(),
            proxies: Vec::new(),
            max_age: None,
        })
    }

    /// The same parser with another bound on the length of a record.
    #[must_use]
    pub fn with_max_record_bytes(self, max_record_bytes: usize) -> Self {
        Self { max_record_bytes, envelopes: Envelopes::new(&self.setting, max_record_bytes), ..self }
    }

    /// The same parser of records in other envelopes than those that are found by themselves.
    #[must_use]
    pub fn with_envelope(self, setting: Envelope) -> Self {
        Self { envelopes: Envelopes::new(&setting, self.max_record_bytes), setting, ..self }
    }

    /// The same parser of records that were written in `cluster`, whatever they say themselves. Empty: they say it.
    #[must_use]
    pub fn with_cluster(self, cluster: String) -> Self {
        Self { cluster, ..self }
    }

    /// The same parser, which believes logs of proxies of these containers too, beside those that meshes are known to have.
    #[must_use]
    pub fn with_proxies(self, proxies: Vec<String>) -> Self {
        Self { proxies, ..self }
    }

    /// The same parser, for which records older than `max_age` on arrival are [`Invalid::PastTime`].
    #[must_use]
    pub fn with_max_age(self, max_age: Span) -> Self {
        Self { max_age: Some(max_age), ..self }
    }

    /// The bound on the length of a record.
    pub fn max_record_bytes(&self) -> usize {
        self.max_record_bytes
    }

    /// Whether the first line of an input must be a header.
    pub fn expects_header(&self) -> bool {
        matches!(&self.grammar, Grammar::Mapped(mapped) if mapped.expects_header())
    }

    /// Says when the records that follow arrived. Without it (`backtest`) no time is too far ahead.
    pub fn arrive(&mut self, now: Timestamp) {
        self.arrival = Some(now);
    }

    /// Says when the topic stored the record that follows.
    pub fn store(&mut self, stored: Option<Timestamp>) {
        self.stored = stored;
    }

    /// A new file begins: what stood in the head of the one before is forgotten.
    pub fn begin_input(&mut self) {
        self.envelopes.begin_input();
        match &mut self.grammar {
            Grammar::Mapped(mapped) => mapped.begin_input(),
            Grammar::ZeekTsv(zeek) => zeek.begin_input(),
            Grammar::Auto(auto) => auto.begin_input(),
            _ => {}
        }
    }

    /// Whether a line is a record, rather than blank, a comment or the header (which is read here).
    pub fn is_record(&mut self, line: &[u8]) -> Result<bool, InvalidHeader> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(false);
        }
        match &mut self.grammar {
            Grammar::Mapped(mapped) => mapped.is_record(line),
            Grammar::ZeekTsv(zeek) => Ok(zeek.is_record(line)),
            _ => Ok(true),
        }
    }

    /// Reads one record and pushes its events: one, or as many as a record of several entries has. Nothing is pushed
    /// when the record is rejected as a whole; single entries that were are told by [`refused`](Self::refused).
    #[inline]
    pub fn parse(&mut self, record: &[u8], position: Position, builder: &mut EventBuilder) -> Result<(), Rejection> {
        self.parse_from(&Origin::default(), record, position, builder)
    }

    /// As [`parse`](Self::parse), with what is known of the record's origin from outside of it: it is believed before
    /// what the record says.
    pub fn parse_from(
        &mut self,
        origin: &Origin<'_>,
        record: &[u8],
        position: Position,
        builder: &mut EventBuilder,
    ) -> Result<(), Rejection> {
        self.refused.clear();
        (self.lost, self.unvouched) = (0, 0);
        if record.len() > self.max_record_bytes {
            return Err(Invalid::TooLong.into());
        }
        let mut outer = Wrapping { origin: *origin, partition: position.partition, ..Wrapping::default() };
        if !self.cluster.is_empty() {
            outer.origin.cluster = &self.cluster;
        }
        let (arrival, stored, marks) = (self.arrival, self.stored, self.marks);
        let mut reading = Reading {
            grammar: &mut self.grammar,
            refused: &mut self.refused,
            lost: &mut self.lost,
            unvouched: &mut self.unvouched,
            stranger: &mut self.stranger,
            proxies: &self.proxies,
            builder,
            position,
            arrival,
            stored,
            max_age: self.max_age,
            marks,
        };
        self.envelopes.open(record, &outer, &mut reading)
    }

    /// Records that the reporter says it lost, as the record just read tells.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Events of the record just read whose certificates are not believed: a proxy's log that no proxy wrote.
    pub fn unvouched(&self) -> u64 {
        self.unvouched
    }

    /// The container that wrote the latest record whose certificates are not believed; empty where it is one of a proxy, or
    /// an issuer, of another namespace than it says.
    pub fn stranger(&self) -> Arc<str> {
        Arc::clone(&self.stranger)
    }

    /// The envelopes that the record just read came in.
    pub fn passed(&self) -> Passed {
        self.envelopes.passed()
    }

    /// The format that the last record that was understood is of.
    pub fn read_as(&self) -> Format {
        if let Grammar::Auto(auto) = &self.grammar { auto.latest() } else { self.format }
    }

    /// The formats that records were of so far, most frequent first; empty where the format was named.
    pub fn found(&self) -> Vec<(Format, u64)> {
        if let Grammar::Auto(auto) = &self.grammar { auto.found() } else { Vec::new() }
    }

    /// The format that it was made for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// For which field a record was refused, its keys joined by dots, where that can be found out: it is read again many
    /// times, so only a sample should be asked about.
    pub fn blame(&self, record: &[u8], why: Invalid) -> Option<String> {
        let mapping = if let Grammar::Mapped(mapped) = &self.grammar { Some(mapped.mapping().clone()) } else { None };
        let fresh = || Self {
            grammar: Grammar::of(self.format, mapping.clone()).expect("as it was made before"),
            envelopes: Envelopes::new(&self.setting, self.max_record_bytes),
            setting: self.setting.clone(),
            cluster: self.cluster.clone(),
            refused: Vec::new(),
            stranger: Arc::default(),
            proxies: self.proxies.clone(),
            ..*self
        };
        blame::field(&fresh, self.format.sample(), record, why)
    }

    /// Why entries of the record just read became no events, and pieces of lines that were given up meanwhile.
    pub fn refused(&self) -> &[Rejection] {
        &self.refused
    }
}

/// One record in the reading: what is in its envelopes goes to the format.
struct Reading<'a> {
    grammar: &'a mut Grammar,
    refused: &'a mut Vec<Rejection>,
    lost: &'a mut u64,
    unvouched: &'a mut u64,
    stranger: &'a mut Arc<str>,
    proxies: &'a [String],
    builder: &'a mut EventBuilder,
    position: Position,
    arrival: Option<Timestamp>,
    stored: Option<Timestamp>,
    max_age: Option<Span>,
    marks: Marks,
}

impl Contents for Reading<'_> {
    #[inline]
    fn take_knowing(&mut self, record: &str, origin: &Origin<'_>, known: Stretch) -> Result<(), Rejection> {
        let mut row = Row::new(self.builder, self.position, self.arrival)
            .with_max_age(self.max_age)
            .stored_at(self.stored)
            .believing(self.proxies)
            .written_at(*origin)
            .knowing(known);
        let outcome = self.grammar.parse(record, &mut row);
        *self.lost += row.lost();
        if row.unvouched() > 0 {
            *self.unvouched += row.unvouched();
            note(row.stranger(), self.stranger);
        }
        match outcome {
            Ok(()) => self.refused.append(&mut row.into_refused()),
            Err(Rejection::Invalid(_)) if self.marks.are_on(record) => return Err(Rejection::Foreign),
            Err(_) => {}
        }
        outcome
    }

    #[inline]
    fn take_escaped<'o>(
        &mut self,
        head: &str,
        origin_after: &mut dyn FnMut(usize) -> Option<Origin<'o>>,
    ) -> Option<()> {
        let mut row = Row::new(self.builder, self.position, self.arrival)
            .with_max_age(self.max_age)
            .stored_at(self.stored)
            .believing(self.proxies);
        let outcome = self.grammar.parse_escaped(head, &mut row, origin_after);
        if row.unvouched() > 0 {
            *self.unvouched += row.unvouched();
            note(row.stranger(), self.stranger);
        }
        outcome
    }

    fn refuse(&mut self, why: Rejection) {
        self.refused.push(why);
    }

    fn syslog_header(&self) -> SyslogHeader {
        match self.grammar {
            Grammar::Sshd(_) => SyslogHeader::Kept,
            Grammar::Auto(_) => SyslogHeader::Either,
            _ => SyslogHeader::Added,
        }
    }
}

/// Notes a name, which mostly is that of the record before.
fn note(name: &str, noted: &mut Arc<str>) {
    if **noted != *name {
        *noted = Arc::from(name);
    }
}

impl From<Invalid> for Rejection {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}
