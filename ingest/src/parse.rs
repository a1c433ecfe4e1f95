//! From the bytes of one record to one row of the event batch, or to the reason why not.
//!
//! # Layout
//! - [`format`]: the formats by name; [`row`]: where events go to, and what holds for every format
//! - [`json`]: a pull lexer over one line; [`typed`]: JSON of low volume through serde; [`time`]: times in logs
//! - [`access`]: what Envoy's access logs mean, in whatever form they come
//! - one format a file, in the table of [`format`]; what two of them share beside them: `keycloak`, `issued`
//!   (credentials from their issue to their use), `statement` (SQL as a name)

pub mod access;
pub mod azure;
pub mod cloudtrail;
pub mod format;
pub mod gcp_audit;
mod issued;
pub mod istio_json;
pub mod istio_text;
pub mod json;
pub mod kafka_authorizer;
mod keycloak;
pub mod keycloak_json;
pub mod keycloak_text;
pub mod kubernetes_audit;
pub mod mapped;
pub mod opa_decision;
pub mod postgres_csv;
pub mod row;
pub mod spire_agent;
pub mod spire_server;
pub mod sshd;
mod statement;
pub mod time;
mod typed;
pub mod vault_audit;

use qualm_model::{
    event::{EventBuilder, Position},
    time::Timestamp,
};

pub(crate) use self::row::clip;
use self::{
    format::Grammar,
    mapped::{InvalidHeader, Mapping},
};
pub use self::{
    format::{Format, InvalidFormat},
    row::{MAX_AHEAD, Origin, Row},
};
use crate::source::{Invalid, Rejection};

/// Records longer than this are [`Invalid::TooLong`] unless configured otherwise.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 64 * 1024;

/// Reads records of one format. One parser serves one input: it may keep what joins several lines.
#[derive(Debug)]
pub struct Parser {
    grammar: Grammar,
    max_record_bytes: usize,
    arrival: Option<Timestamp>,
    refused: Vec<Rejection>,
}

/// A format that cannot be read as configured.
#[derive(Debug, thiserror::Error)]
#[error("format `mapped` needs a mapping file, and no other format takes one; set `mapping`, or name another format")]
pub struct InvalidParser;

impl Parser {
    /// A parser of `format`; `mapping` for [`Format::Mapped`] and for no other.
    pub fn for_format(format: Format, mapping: Option<Mapping>) -> Result<Self, InvalidParser> {
        let grammar = Grammar::of(format, mapping)?;
        Ok(Self { grammar, max_record_bytes: DEFAULT_MAX_RECORD_BYTES, arrival: None, refused: Vec::new() })
    }

    /// The same parser with another bound on the length of a record.
    #[must_use]
    pub fn with_max_record_bytes(self, max_record_bytes: usize) -> Self {
        Self { max_record_bytes, ..self }
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

    /// A new file begins: what stood in the head of the one before is forgotten.
    pub fn begin_input(&mut self) {
        if let Grammar::Mapped(mapped) = &mut self.grammar {
            mapped.begin_input();
        }
    }

    /// Whether a line is a record, rather than blank, a comment or the header (which is read here).
    pub fn is_record(&mut self, line: &[u8]) -> Result<bool, InvalidHeader> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(false);
        }
        match &mut self.grammar {
            Grammar::Mapped(mapped) => mapped.is_record(line),
            _ => Ok(true),
        }
    }

    /// Reads one record and pushes its events: one, or as many as a record of several entries has. Nothing is pushed
    /// when the record is rejected as a whole; single entries that were are told by [`refused`](Self::refused).
    pub fn parse(&mut self, record: &[u8], position: Position, builder: &mut EventBuilder) -> Result<(), Rejection> {
        self.refused.clear();
        if record.len() > self.max_record_bytes {
            return Err(Invalid::TooLong.into());
        }
        let text = str::from_utf8(record).map_err(|_| Invalid::Encoding)?;
        let mut row = Row::new(builder, position, self.arrival);
        self.grammar.parse(text, &mut row)?;
        self.refused = row.into_refused();
        Ok(())
    }

    /// Why entries of the record just read became no events.
    pub fn refused(&self) -> &[Rejection] {
        &self.refused
    }
}

impl From<Invalid> for Rejection {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}
