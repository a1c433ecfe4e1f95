//! From the bytes of one record to one row of the event batch, or to the reason why not.
//!
//! # Layout
//! - [`json`]: a pull lexer over one line; [`time`]: what times look like in logs
//! - [`access`]: what Envoy's access logs mean, in whatever form they come
//! - one format a file: [`istio_json`], [`istio_text`], [`vault_audit`], [`mapped`]

pub mod access;
pub mod istio_json;
pub mod istio_text;
pub mod json;
pub mod mapped;
pub mod time;
pub mod vault_audit;

use std::{fmt, str::FromStr};

use qualm_model::{
    event::{EventBuilder, EventDraft, Position},
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use self::{
    istio_json::IstioJson,
    istio_text::IstioText,
    mapped::{InvalidHeader, Mapped, Mapping},
    vault_audit::VaultAudit,
};
use crate::source::{Invalid, Rejection};

/// Records longer than this are [`Invalid::TooLong`] unless configured otherwise.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 64 * 1024;
/// How far ahead of its arrival a record may be.
pub const MAX_AHEAD: Span = Span(5 * Span::MINUTE.0);
/// The longest SPIFFE ID; no longer text is an identity.
const MAX_IDENTITY_BYTES: usize = 2048;
/// Host names, reasons, fingerprints are cut here.
const MAX_NAME_BYTES: usize = 256;

/// A log format, by the name it has in the configuration and after `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Envoy's access log as JSON with Istio's 24 keys, and lower-case Envoy operators beside them.
    IstioJson,
    /// Istio's default text format of 22 fields.
    IstioText,
    /// Vault's audit device: request and response lines.
    VaultAudit,
    /// Any CSV or JSON lines, read through a mapping file.
    Mapped,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::IstioJson, Self::IstioText, Self::VaultAudit, Self::Mapped];

    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IstioJson => "istio_json",
            Self::IstioText => "istio_text",
            Self::VaultAudit => "vault_audit",
            Self::Mapped => "mapped",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no format.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a format; one of istio_json, istio_text, vault_audit, mapped")]
pub struct InvalidFormat(String);

impl FromStr for Format {
    type Err = InvalidFormat;

    fn from_str(word: &str) -> Result<Self, InvalidFormat> {
        Self::ALL.into_iter().find(|format| format.as_str() == word).ok_or_else(|| InvalidFormat(word.to_owned()))
    }
}

/// Reads records of one format. One parser serves one input: it may keep what joins several lines.
#[derive(Debug)]
pub struct Parser {
    grammar: Grammar,
    max_record_bytes: usize,
    arrival: Option<Timestamp>,
    max_age: Option<Span>,
}

#[derive(Debug)]
enum Grammar {
    IstioJson(Box<IstioJson>),
    IstioText(IstioText),
    VaultAudit(Box<VaultAudit>),
    Mapped(Box<Mapped>),
}

/// A format that cannot be read as configured.
#[derive(Debug, thiserror::Error)]
#[error("format `mapped` needs a mapping file, and no other format takes one; set `mapping`, or name another format")]
pub struct InvalidParser;

impl Parser {
    /// A parser of `format`; `mapping` for [`Format::Mapped`] and for no other.
    pub fn for_format(format: Format, mapping: Option<Mapping>) -> Result<Self, InvalidParser> {
        let grammar = match (format, mapping) {
            (Format::IstioJson, None) => Grammar::IstioJson(Box::default()),
            (Format::IstioText, None) => Grammar::IstioText(IstioText::default()),
            (Format::VaultAudit, None) => Grammar::VaultAudit(Box::default()),
            (Format::Mapped, Some(mapping)) => Grammar::Mapped(Box::new(Mapped::new(mapping))),
            _ => return Err(InvalidParser),
        };
        Ok(Self { grammar, max_record_bytes: DEFAULT_MAX_RECORD_BYTES, arrival: None, max_age: None })
    }

    /// The same parser with another bound on the length of a record.
    #[must_use]
    pub fn with_max_record_bytes(self, max_record_bytes: usize) -> Self {
        Self { max_record_bytes, ..self }
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

    /// Reads one record and pushes at most one event. Nothing is pushed when it is rejected.
    pub fn parse(&mut self, record: &[u8], position: Position, builder: &mut EventBuilder) -> Result<(), Rejection> {
        if record.len() > self.max_record_bytes {
            return Err(Invalid::TooLong.into());
        }
        let text = str::from_utf8(record).map_err(|_| Invalid::Encoding)?;
        let mut row = Row { builder, position, arrival: self.arrival, max_age: self.max_age };
        match &mut self.grammar {
            Grammar::IstioJson(format) => format.parse(text, &mut row),
            Grammar::IstioText(format) => format.parse(text, &mut row),
            Grammar::VaultAudit(format) => format.parse(text, &mut row),
            Grammar::Mapped(format) => format.parse(text, &mut row),
        }
    }
}

impl From<Invalid> for Rejection {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// The place a record's event goes to.
#[derive(Debug)]
pub struct Row<'a> {
    builder: &'a mut EventBuilder,
    position: Position,
    arrival: Option<Timestamp>,
    max_age: Option<Span>,
}

impl<'a> Row<'a> {
    /// The row of the record at `position`, which arrived at `arrival`.
    pub fn new(builder: &'a mut EventBuilder, position: Position, arrival: Option<Timestamp>) -> Self {
        Self { builder, position, arrival, max_age: None }
    }

    /// The same row, which takes nothing that was older than `max_age` on arrival.
    #[must_use]
    pub fn with_max_age(self, max_age: Option<Span>) -> Self {
        Self { max_age, ..self }
    }

    /// Checks what holds for every format, and pushes.
    pub fn push(&mut self, mut draft: EventDraft<'_>) -> Result<(), Rejection> {
        if draft.source.principal.is_empty() {
            return Err(Invalid::MissingIdentity.into());
        }
        if draft.source.principal.len().max(draft.destination.principal.len()) > MAX_IDENTITY_BYTES {
            return Err(Invalid::TooLong.into());
        }
        if self.arrival.is_some_and(|arrival| draft.report > arrival + MAX_AHEAD) {
            return Err(Invalid::FutureTime.into());
        }
        if let (Some(arrival), Some(max_age)) = (self.arrival, self.max_age)
            && arrival - draft.report > max_age
        {
            return Err(Invalid::PastTime.into());
        }
        draft.position = self.position;
        self.builder.push(&draft);
        Ok(())
    }
}

/// At most [`MAX_NAME_BYTES`] of a text.
#[inline]
pub(crate) fn clip(text: &str) -> &str {
    if text.len() <= MAX_NAME_BYTES { text } else { &text[..text.floor_char_boundary(MAX_NAME_BYTES)] }
}
