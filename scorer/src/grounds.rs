//! All that a step on the ladder of trust was decided from, and the step that follows: the loop decides by
//! [`Grounds::verdict`], and `qualm replay` recomputes with it, so that the two cannot drift apart.
//!
//! What is kept are the inputs of the state machine: the answers of the event and the ranks that made e-values of
//! them, both clocks with the running minute in them, the thresholds, who stands where, what the configuration lets
//! happen, and the times. What was looked up in a curve or a histogram is kept as the number that was read, not as
//! the curve.
//!
//! # Layout
//! - this file: the inputs
//! - `step`: the verdict that follows from them
//! - `gather`: the inputs taken from the scorer
//! - [`replay`]: a decision of the journal recomputed, and how it differs
//!
//! **Invariant:** `step` reads nothing but the grounds: no scorer, no clock, no map.

mod gather;
pub mod replay;
mod step;

pub(crate) use self::step::NARROW_SHARE;

use std::sync::LazyLock;

use qualm_model::{
    detector::Question,
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    config::{Leases, Mode},
    guard::{HeldBy, Replicas, Traffic},
    mesh::Thresholds,
    papers::Invariant,
    snapshot,
    standing::{Evidence, Other, Standing},
    verdict::{Cause, Reason},
};

/// The version of what is kept; a later one is not recomputed by this release.
pub const VERSION: u32 = 2;

/// The inputs of one decision. In the journal beside the decision, with a digest of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grounds {
    /// [`VERSION`] of the release that kept them.
    pub version: u32,
    /// Hash of the configuration in force.
    pub config: String,
    /// Hash of the model: which questions were asked, by which release.
    pub model: String,
    /// Event time of what caused it.
    pub(crate) now: Timestamp,
    /// Wall time at which it was decided.
    pub(crate) wall: Timestamp,
    pub(crate) who: Who,
    /// Where the identity stood on evidence.
    pub(crate) before: Option<Standing>,
    /// Evidence against it; `None` where nothing of it is known any more.
    pub(crate) own: Option<Track>,
    /// Evidence from records that may not lead above *watched*.
    pub(crate) claimed: Option<Track>,
    /// How much of its own is of another kind than more of the same; version 1 kept none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) other: Option<Other>,
    pub(crate) thresholds: Thresholds,
    /// Identities of the mesh.
    pub(crate) identities: u64,
    pub(crate) rate: Rate,
    pub(crate) policy: Policy,
    /// The number of the decision within its episode.
    pub(crate) ordinal: u32,
    pub(crate) step: Step,
}

/// Whom it is about, and who else may be meant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Who {
    pub(crate) principal: String,
    pub(crate) cluster: Option<String>,
    pub(crate) workload: Option<String>,
    pub(crate) namespace: Option<String>,
    /// Its instances, in the order in which they are kept.
    pub(crate) instances: Vec<Seen>,
    /// Several workloads have the principal.
    pub(crate) is_shared: bool,
    pub(crate) co_owners: Vec<String>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) address: String,
    /// Sum of `2^bits` of its odd events in the running episode.
    pub(crate) odds: f64,
    pub(crate) is_live: bool,
}

/// Clocks, the running minute in them, and the e-value that the mesh gives to such a minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Track {
    pub(crate) evidence: Evidence,
    /// By the rank of the minute's best event among all minutes; 1 where there is no running minute.
    pub(crate) e: f64,
}

/// How often a day evidence is reached by chance, as the curve says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    /// Such evidence as this.
    pub(crate) of_evidence: f64,
    /// The threshold.
    pub(crate) of_threshold: f64,
}

/// What the operator lets happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Policy {
    pub(crate) mode: Mode,
    pub(crate) lease: Leases,
    pub(crate) max_age: Span,
    pub(crate) is_protected: bool,
    /// Other identities that are denied, and how many may be; where it was asked for.
    pub(crate) reach: Option<(usize, usize)>,
    pub(crate) is_paused: bool,
    /// How many have come to be limited lately, where these are too many and it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) crowd: Option<usize>,
    /// The replicas of the service, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replicas: Option<Replicas>,
    /// Shares of the mesh's calls, where others are denied and it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traffic: Option<Traffic>,
    /// Records are missing from the last ten minutes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_blind: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Evidence reached a level.
    Reached(Box<Weighed>),
    /// The lease of what stood has ended.
    LeaseEnded,
    /// What stands may do something else from now on; `before` is how it stands then.
    Mandate {
        cause: Cause,
        held: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held_by: Option<HeldBy>,
    },
}

/// The event, or what did not happen, and how much of it counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Weighed {
    pub(crate) of: Of,
    /// The e-value of every question that had an answer.
    pub(crate) answers: Vec<(Question, f64)>,
    /// How high the habit of this hour is; 0 is none.
    pub(crate) habit: f64,
    /// Evidence of the neighbours.
    pub(crate) context: f64,
    /// The highest level that it may lead to.
    pub(crate) most: Level,
    /// Whether the clocks show more than before; an invariant acts also where they do not.
    pub(crate) has_moved: bool,
    /// A broken invariant that acts at once.
    pub(crate) invariant: Option<Invariant>,
    /// What the answers rest on, strongest first; the bits follow from the answers.
    pub(crate) reasons: Vec<Reason>,
}

/// What the answers are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Of {
    Event,
    Absence,
}

/// Grounds as they stand in a record: with a digest, so that any input that was changed is found, also one that would
/// have led to the same verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// SHA-256 of the inputs' JSON, hex.
    pub digest: String,
    /// The inputs.
    pub inputs: Grounds,
}

impl Kept {
    pub(crate) fn of(inputs: Grounds) -> Self {
        Self { digest: digest(&inputs), inputs }
    }

    /// Whether the inputs are those that the digest was made of.
    pub fn is_whole(&self) -> bool {
        digest(&self.inputs) == self.digest
    }
}

fn digest(inputs: &Grounds) -> String {
    const_hex::encode(Sha256::digest(serde_json::to_vec(inputs).unwrap_or_default()))
}

/// Hash of what this release judges by: its version, the version of its state, and the questions that it asks.
pub fn model() -> &'static str {
    static MODEL: LazyLock<String> = LazyLock::new(|| {
        let mut hash = Sha256::new_with_prefix(env!("CARGO_PKG_VERSION"));
        hash.update(snapshot::VERSION.to_le_bytes());
        for question in Question::ALL {
            hash.update(question.name());
            hash.update([0]);
        }
        const_hex::encode(&hash.finalize()[..16])
    });
    &MODEL
}
