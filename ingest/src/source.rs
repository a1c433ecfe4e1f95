//! What every input is: batches of events with their positions.

use std::{future::Future, sync::Arc};

use qualm_model::event::{EventBatch, Position, Positions};
use tokio::sync::oneshot;

use crate::parse::Format;

/// An input. One task owns it; nothing is read ahead of what its queue may hold.
pub trait Source: Send {
    /// The next thing that happened. Cancel-safe: a dropped future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Incoming, SourceError>> + Send;

    /// Tells the origin that everything before `positions` is covered by a snapshot. Inputs that keep no
    /// positions ignore it.
    fn commit(&mut self, positions: &Positions) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Ends it, once the origin has been told what was committed, or cannot be told within a few seconds.
    fn close(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async {}
    }
}

/// What a source has to say.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one value a batch of thousands of events")]
pub enum Incoming {
    /// Records, in the order of their positions.
    Batch(Batch),
    /// Partitions were assigned; the source waits for the positions to start from. A partition that is not in the
    /// answer starts where the group last committed, or else at the configured start of history.
    Assigned(Vec<(u16, i32)>, oneshot::Sender<Positions>),
    /// Partitions are being taken away. The answer is what a snapshot covers by now: it is committed, and they are let
    /// go. Dropping the sender lets them go as they are.
    Revoking(Vec<(u16, i32)>, oneshot::Sender<Positions>),
    /// The input has ended for good.
    End,
}

/// Records read together.
#[derive(Debug)]
pub struct Batch {
    /// What could be understood.
    pub events: EventBatch,
    /// What could not, or is no event of its own; ordered by position.
    pub rejected: Vec<Rejected>,
    /// Where to go on after this batch, for the partitions it touches.
    pub positions: Positions,
    /// Records that the origin says are still to be read, where it can say.
    pub lag: Option<u64>,
    /// Where reporters say that they lost records before they could write them: gaps in what they report.
    pub lost: Vec<Loss>,
    /// Records of which certificates are not believed: a proxy's log that no proxy wrote. They are events all the same.
    pub unvouched: Vec<Unvouched>,
    /// Which format the records were read as, by topic or file. What peers push has but one.
    pub read: Vec<ReadAs>,
}

/// A record of which certificates are not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unvouched {
    /// Where it stood.
    pub position: Position,
    /// The container that wrote it; empty where that is one of a proxy, or an issuer, of another namespace than it says.
    pub container: Arc<str>,
}

/// Records of one topic or file that were of one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAs {
    /// Index of the topic or file in the configuration.
    pub source: u16,
    /// Their format.
    pub format: Format,
    /// How many.
    pub records: u64,
}

/// A reporter's word that it lost records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Where it says so.
    pub position: Position,
    /// How many.
    pub records: u64,
}

/// A record that became no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    /// Where it stood.
    pub position: Position,
    /// Why.
    pub why: Rejection,
}

/// Why a record became no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// It could not be understood.
    Invalid(Invalid),
    /// It is plainly no access log: an application line, a proxy's own diagnostics.
    Foreign,
    /// Its record id was seen before.
    Duplicate,
    /// One of several lines of one event, not the last of them.
    Part,
}

/// What is wrong with an invalid record; the label of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invalid {
    /// Not UTF-8.
    Encoding,
    /// Longer than the configured bound.
    TooLong,
    /// Not well-formed (JSON, CSV, text layout), truncated, or nested too deeply.
    Syntax,
    /// A field has another type than the format says.
    WrongType,
    /// A required field is missing.
    MissingField,
    /// No identity of the caller.
    MissingIdentity,
    /// A date that does not exist.
    ImpossibleTime,
    /// More than 5 minutes ahead of its arrival.
    FutureTime,
    /// Longer ago, when it arrived, than the source accepts.
    PastTime,
    /// A reporter that may not report this call.
    NotItsOwn,
    /// Pieces of a line whose end never came.
    Unfinished,
    /// A schema id stands in front of it, and no schema registry is configured.
    NoRegistry,
    /// The registry has no schema of its id, or none that records can be read by.
    UnknownSchema,
    /// The registry has given no answer for longer than records wait.
    RegistryUnavailable,
}

impl Invalid {
    /// The label of its counter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::TooLong => "too_long",
            Self::Syntax => "syntax",
            Self::WrongType => "wrong_type",
            Self::MissingField => "missing_field",
            Self::MissingIdentity => "missing_identity",
            Self::ImpossibleTime => "impossible_time",
            Self::FutureTime => "future_time",
            Self::PastTime => "past_time",
            Self::NotItsOwn => "not_its_own",
            Self::Unfinished => "unfinished",
            Self::NoRegistry => "no_registry",
            Self::UnknownSchema => "unknown_schema",
            Self::RegistryUnavailable => "registry_unavailable",
        }
    }

    /// What to do about it, for whoever mends the records' origin.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Encoding => "write the log as UTF-8, or name the input's `format` if it is binary",
            Self::TooLong => "raise `max_record_bytes`, or log shorter fields",
            Self::Syntax => "look whether the shipper cuts lines off, or name the input's `format` and `envelope`",
            Self::WrongType => "write the field as the format's sample in `qualm formats` has it",
            Self::MissingField => "add the field to the log's format; `qualm wire` prints it for Envoy and Istio",
            Self::MissingIdentity => {
                "log who calls: a certificate's identity or the caller's address; `qualm wire` prints the lines"
            }
            Self::ImpossibleTime => "look at the clock and the time format of whoever writes the log",
            Self::FutureTime => "set the clock of whoever writes the log: it is more than 5 minutes ahead",
            Self::PastTime => "raise `[history] oldest`, or leave out such old records",
            Self::NotItsOwn => "look who writes to this input: the reporter is no party to the call",
            Self::Unfinished => "look why the shipper sends the begin of a line without its end",
            Self::NoRegistry => "name the schema registry of the topic: `registry` in its [[kafka]] section",
            Self::UnknownSchema => "register the schema, or look which registry the writer uses; the log says why",
            Self::RegistryUnavailable => "bring the schema registry back, or raise `patience_s`",
        }
    }
}

impl Rejection {
    /// The word of the `detector` column of `scores.parquet`, and the label of its counter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Foreign => "foreign",
            Self::Duplicate => "duplicate",
            Self::Part => "part",
        }
    }
}

/// A source that cannot go on. What is wrong with single records is never an error.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {problem}; {remedy}")]
pub struct SourceError {
    /// File, topic or address.
    pub origin: String,
    /// What happened.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}
