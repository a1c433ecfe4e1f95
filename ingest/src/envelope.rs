//! Envelopes: what shippers put around a record. They are opened before any format reads it, record by record, and
//! nested ones up to [`MAX_DEPTH`] deep; what they say of the origin is kept.
//!
//! # Layout
//! - this file: what goes in and what comes out
//! - `setting`: the key `envelope`
//! - `opener`: the order in which envelopes are tried
//! - `object`: one pass over a JSON record, or none where it is like one before, in the words of `docker`, `fluent`,
//!   `vector`, `beats` and `otlp`
//! - `cri`, `syslog`: prefixes of a line; `pointer`: a place named in the configuration
//! - `passed`: which envelopes a record came in
//! - `partial`: pieces of one line, joined; `memo`: what a pod's metadata said before; `path`: the pod by its log file
//! - `foreign`: what is plainly no access log
//!
//! Who writes a record may write anything into it, an envelope as well. So an outer envelope is believed before an
//! inner one, and the configuration and Kafka's headers before both.

mod beats;
mod cri;
mod docker;
mod fluent;
pub(crate) mod foreign;
mod memo;
mod object;
mod opener;
mod otlp;
mod partial;
mod passed;
mod path;
mod pointer;
mod setting;
mod syslog;
mod vector;

pub(crate) use self::otlp::header;
use self::{opener::Opener, pointer::Pointer};
pub use self::{
    passed::Passed,
    setting::{Envelope, InvalidEnvelope},
};
use crate::{
    parse::{Origin, json::Stretch},
    source::{Invalid, Rejection},
};

/// Envelopes within envelopes.
pub const MAX_DEPTH: u32 = 4;

/// What becomes of what is in an envelope.
pub(crate) trait Contents {
    /// Reads a record.
    fn take(&mut self, record: &str, origin: &Origin<'_>) -> Result<(), Rejection> {
        self.take_knowing(record, origin, Stretch::default())
    }

    /// Reads a record of which one value, the metadata that a shipper added, was read already.
    fn take_knowing(&mut self, record: &str, origin: &Origin<'_>, known: Stretch) -> Result<(), Rejection>;

    /// Reads a record that stands in a JSON string, as it was written there: `head` begins with it, and what follows its
    /// last byte says where it was written, if it was one. `None`: it must be unescaped first.
    fn take_escaped<'o>(&mut self, head: &str, origin_after: &mut dyn FnMut(usize) -> Option<Origin<'o>>)
    -> Option<()>;

    /// Counts one that was found beside others, or before.
    fn refuse(&mut self, why: Rejection);

    /// Whose a header of syslog is. A reader that joins lines must not be shown one that is not of its records.
    fn syslog_header(&self) -> SyslogHeader;
}

/// Whose a header of syslog is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyslogHeader {
    /// The records have it by themselves, as sshd's do.
    Kept,
    /// The shipper put it there.
    Added,
    /// Either.
    Either,
}

/// What the envelopes around a record say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wrapping<'a> {
    pub(crate) origin: Origin<'a>,
    /// The partition of a topic: pieces of one line come through one.
    pub(crate) partition: i32,
    pub(crate) file: &'a str,
    pub(crate) stream: &'a str,
}

/// Whether a format could make something of a record.
fn is_taken(outcome: Result<(), Rejection>) -> bool {
    !matches!(outcome, Err(Rejection::Foreign | Rejection::Invalid(_)))
}

/// Opens the envelopes of one input.
#[derive(Debug)]
pub(crate) struct Envelopes {
    pointer: Option<Pointer>,
    is_opening: bool,
    opener: Opener,
}

impl Envelopes {
    pub(crate) fn new(setting: &Envelope, max_record_bytes: usize) -> Self {
        let pointer = if let Envelope::Pointer(pointer) = setting { Some(Pointer::new(pointer)) } else { None };
        Self { pointer, is_opening: *setting != Envelope::None, opener: Opener::new(max_record_bytes) }
    }

    /// Another file begins: no line of the one before goes on in it.
    pub(crate) fn begin_input(&mut self) {
        self.opener.partials.clear();
    }

    /// The envelopes of the record just read.
    pub(crate) fn passed(&self) -> Passed {
        self.opener.passed
    }

    /// Reads one record of the input, in its envelopes.
    #[inline]
    pub(crate) fn open(
        &mut self,
        record: &[u8],
        outer: &Wrapping<'_>,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        self.opener.passed.clear();
        if self.is_opening && otlp::may_be_protobuf(record) {
            return self.opener.open_protobuf(record, outer, contents);
        }
        let text = str::from_utf8(record).map_err(|_| Invalid::Encoding)?;
        match &self.pointer {
            _ if !self.is_opening => contents.take(text, &outer.origin),
            None => self.opener.open(text, outer, 0, contents),
            Some(pointer) => self.opener.open_at(pointer, text, outer, contents),
        }
    }
}
