//! The operator's interface on the gRPC port: who stands where and why, and what a person decides by hand.
//!
//! # Layout
//! - [`desk`]: the service: who may ask for what, and when it is answered
//! - [`rest`]: the same as JSON over HTTP, from the same definition
//! - [`allowance`]: how much one caller may ask for
//! - [`effects`]: what hooks have done, and what people say to it
//! - [`wire`]: the same in the words of `qualm.operator.v1`
//!
//! What is decided is decided in the loop (`run/pipeline/operator.rs`), by `qualm_scorer::operator`.

pub(crate) mod allowance;
pub(crate) mod desk;
mod effects;
pub(crate) mod rest;
pub(crate) mod wire;

use qualm_model::{detector::Question, level::Level};
use qualm_scorer::{
    config::Mode,
    containment::Timeline,
    journal::Seq,
    operator::{
        Ask, Refusal,
        accepted::{Acceptance, Preview},
        announced::Announcement,
        look::{Line, Shown},
        orders::{Hold, Pause},
        rehearsed::Rehearsal,
    },
    verdict::Verdict,
};
use tokio::sync::oneshot;

pub(crate) use self::{desk::Desk, rest::Rest};

/// What an acceptance would hide, with the decisions that it would have hidden.
pub(crate) type Foreseen = (Preview, Vec<Verdict>);

/// What is asked of the loop.
#[derive(Debug)]
pub(crate) enum Call {
    /// The table as it stands.
    Table(oneshot::Sender<Table>),
    /// One identity, by its name or a part of it.
    Show { part: String, answer: oneshot::Sender<Result<Box<Portrait>, NotOne>> },
    /// A level, as it would have been for an identity, or for one instance of it.
    Rehearse {
        part: String,
        instance: Option<String>,
        level: Level,
        answer: oneshot::Sender<Result<Box<Rehearsal>, NotOne>>,
    },
    /// What an acceptance would hide, with the decisions that it would have hidden.
    Preview {
        part: String,
        question: Option<Question>,
        object: Option<String>,
        answer: oneshot::Sender<Result<Box<Foreseen>, NotOne>>,
    },
    /// Something is to be done.
    Do(Box<Request>, oneshot::Sender<Result<Done, Refusal>>),
    /// An effect of a hook is to be approved, rejected or taken back: it is journalled before the hooks hear of it.
    Word { by: String, call: &'static str, effect: String, why: String, answer: oneshot::Sender<Option<Seq>> },
    /// Somebody has asked for what they may not, or too often.
    Refused { by: String, call: &'static str, identity: Option<String>, why: String },
}

/// Something that is to be done, before it has a time.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) by: String,
    pub(crate) why: String,
    pub(crate) key: String,
    pub(crate) ask: Ask,
}

/// What holds for all entries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InForce {
    pub(crate) mode: Mode,
    pub(crate) pause: Option<Pause>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) lines: Vec<Line>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) announcements: Vec<Announcement>,
    pub(crate) acceptances: Vec<Acceptance>,
    pub(crate) in_force: InForce,
}

/// One identity.
#[derive(Debug)]
pub(crate) struct Portrait {
    pub(crate) shown: Shown,
    pub(crate) decisions: Vec<Verdict>,
    pub(crate) acceptances: Vec<Acceptance>,
    pub(crate) contained: Vec<Timeline>,
    pub(crate) in_force: InForce,
}

/// A name that means nobody, or several; says who may be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotOne {
    #[error("`{part}` is not known: none of {known} identities is called so; the nearest:\n{nearest}")]
    Nobody { part: String, known: u64, nearest: String },
    #[error("`{part}` may be any of these; name one:\n{listed}")]
    Several { part: String, listed: String },
}

/// Something that was done, once its record is on disk.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its record; `None` where it could not be appended.
    pub(crate) record: Option<Seq>,
    /// It had been done before.
    pub(crate) repeated: bool,
    /// Entries that it has ended.
    pub(crate) ended: usize,
    /// What the caller should know.
    pub(crate) notes: Vec<String>,
    /// What stands now about whom it was about.
    pub(crate) lines: Vec<Line>,
    pub(crate) in_force: InForce,
}
