//! One question a file, all through [`Detector`].
//!
//! A detector is the state of one question about one key (a source, an edge, a destination). It answers with a
//! surprise; the mesh-wide [`Calibration`](crate::stats::Calibration) of its question turns that into a p-value,
//! and nothing else crosses the border, so that a new detector needs no re-tuning of the others.

mod failing;
mod lone;
mod lull;
mod novelty;
mod oversized;
mod rarity;
mod rate;
mod rhythm;
mod silence;
mod size;
mod spread;
mod unlike;

pub use failing::{Failing, Refused};
pub use lone::Lone;
pub use lull::Lull;
pub use novelty::Novelty;
pub use oversized::Oversized;
pub use rarity::Rarity;
pub use rate::Rate;
pub use rhythm::Rhythm;
pub use silence::Silence;
pub use size::{Bigger, Longer};
pub use spread::Spread;
pub use unlike::Unlike;

use serde::{Deserialize, Serialize};

use crate::{event::Outcome, stats::Exposure, time::Span};

/// What the detectors see of one event.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// The event's report time and the birth of the mesh.
    pub exposure: Exposure,
    /// How far the event is to be learned, 0 to 1: [`trust`](crate::stats::trust) of its source's running rate.
    pub weight: f64,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether this source and this destination meet for the first time.
    pub first_contact: bool,
    /// Whether the attribute that a [`Novelty`] detector looks at is new; `None` where the event has none.
    pub novel: Option<bool>,
    /// Bytes in both directions.
    pub bytes: Option<u64>,
    /// Duration in nanoseconds.
    pub duration_ns: Option<i64>,
    /// How often like this has been seen before, by the counts kept outside (trusted volume).
    pub more: f64,
    /// Calls of its source that a minute has: among so many the most remarkable one is remarkable by chance.
    pub crowd: f64,
}

impl Observation {
    /// An observation of nothing but a time.
    #[inline]
    pub fn at(exposure: Exposure) -> Self {
        Self {
            exposure,
            weight: 1.0,
            outcome: Outcome::Unknown,
            first_contact: false,
            novel: None,
            bytes: None,
            duration_ns: None,
            more: 1.0,
            crowd: 1.0,
        }
    }

    /// How many calls it adds to a window of so many seconds: what has lasted for longer than that was made before the
    /// window began, so that streams that end together are no flood of calls.
    #[inline]
    pub fn made_within(&self, seconds: i64) -> f64 {
        let is_older = self.duration_ns.is_some_and(|lasted| lasted > Span::seconds(seconds).0);
        if is_older { 0.0 } else { self.more }
    }

    /// What is left of the surprise of a single call among so many in a minute (Bonferroni): whoever calls a thousand
    /// times a minute has a call among the biggest of a thousand in every one of them.
    #[inline]
    pub fn amid_crowd(&self, call: Deviation) -> Deviation {
        Deviation { x: (call.x / self.crowd.max(1.0)).max(1.0), ..call }
    }
}

/// What a detector has to say about one event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// `1 + surprise`, at least 1; its rank over the mesh is the p-value.
    pub x: f64,
    /// What was seen.
    pub observed: f64,
    /// What was expected.
    pub expected: f64,
    /// How much the expectation rests on: windows, calls or observations.
    pub n: f64,
}

/// One question about one key.
pub trait Detector {
    /// What this event would mean if it were the next. Changes nothing. `None` is "no opinion yet", which is not
    /// "normal".
    fn score_one(&self, seen: &Observation) -> Option<Deviation>;

    /// Learns the event. Returns `1 + surprise` of the window that this event closed, if it closed one: a sample
    /// for the mesh's histogram, odd ones included.
    fn learn_one(&mut self, seen: &Observation) -> Option<f64>;
}

/// The questions, in the order of the chain *who · to whom · what · how · how much*; what came later stands at the end,
/// since snapshots know them by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Question {
    /// Does this caller call at all, as a rule?
    RareSource,
    /// Is this peer new or rare for this caller?
    RarePeer,
    /// Is this destination rarely called by anybody?
    RareDestination,
    /// Does this caller use operations that it did not use before?
    NewOperation,
    /// Is this operation rarely used by anybody?
    RareOperation,
    /// Does it show a credential not seen before?
    NewCredential,
    /// Does it speak with a TLS stack not seen before?
    NewFingerprint,
    /// Does it call from a network not seen before?
    NewNetwork,
    /// Does one replica alone do what is new, of several?
    LoneReplica,
    /// Do its calls fail unlike before?
    Failing,
    /// Is it refused (401, 403) unlike before?
    Refused,
    /// Calls of this source in a minute.
    Rate1m,
    /// Calls of this source in ten minutes.
    Rate10m,
    /// Calls of this source in an hour.
    Rate1h,
    /// Calls on this edge in ten minutes.
    EdgeRate,
    /// Calls of this operation on this edge in ten minutes.
    OperationRate,
    /// Calls of this destination in a minute.
    DestinationRate,
    /// New peers of this source in ten minutes.
    Spread10m,
    /// New peers of this source in an hour.
    Spread1h,
    /// New callers of this destination in ten minutes.
    FanIn,
    /// Is the call bigger than usual on this edge?
    Bigger,
    /// Are there more big calls than usual on this edge?
    Oversized,
    /// Does it last longer than usual on this edge?
    Longer,
    /// Has this caller fallen silent?
    Silence,
    /// Did only one of the two proxies of a call report it, where both report as a rule?
    Unwitnessed,
    /// Do calls come at equal gaps on a new edge to a rare peer?
    Rhythm,
    /// Is a credential used after it was taken back?
    AfterRevocation,
    /// Is a credential used after its end?
    AfterExpiry,
    /// Is a credential used before its begin, or before it was given out?
    BeforeIssuance,
    /// Is a credential used that its issuer never gave out?
    NeverIssued,
    /// Is a credential used outside of those who share it?
    OutsideSharing,
    /// Is no certificate shown where there always was one?
    NoCertificate,
    /// Did logins fail, and then one succeed from elsewhere?
    LoginElsewhere,
    /// Were ten minutes as a whole unlike its own, as far as its peers' vary?
    UnlikePeers,
    /// Does it meet somebody new, which it hardly ever does when it is active?
    StrangePeer,
    /// Has it been silent for longer than it ever was?
    Lull,
}

impl Question {
    /// All questions, in order.
    pub const ALL: [Self; 36] = [
        Self::RareSource,
        Self::RarePeer,
        Self::RareDestination,
        Self::NewOperation,
        Self::RareOperation,
        Self::NewCredential,
        Self::NewFingerprint,
        Self::NewNetwork,
        Self::LoneReplica,
        Self::Failing,
        Self::Refused,
        Self::Rate1m,
        Self::Rate10m,
        Self::Rate1h,
        Self::EdgeRate,
        Self::OperationRate,
        Self::DestinationRate,
        Self::Spread10m,
        Self::Spread1h,
        Self::FanIn,
        Self::Bigger,
        Self::Oversized,
        Self::Longer,
        Self::Silence,
        Self::Unwitnessed,
        Self::Rhythm,
        Self::AfterRevocation,
        Self::AfterExpiry,
        Self::BeforeIssuance,
        Self::NeverIssued,
        Self::OutsideSharing,
        Self::NoCertificate,
        Self::LoginElsewhere,
        Self::UnlikePeers,
        Self::StrangePeer,
        Self::Lull,
    ];

    /// Whether its answer is that there are more of something in a window than usual.
    pub const fn counts(self) -> bool {
        matches!(
            self,
            Self::Rate1m
                | Self::Rate10m
                | Self::Rate1h
                | Self::EdgeRate
                | Self::OperationRate
                | Self::Oversized
                | Self::DestinationRate
                | Self::Spread10m
                | Self::Spread1h
                | Self::FanIn
        )
    }

    /// Whether it is about an invariant of a credential: what its answer is worth is set by policy and not ranked.
    pub const fn is_invariant(self) -> bool {
        matches!(
            self,
            Self::AfterRevocation
                | Self::AfterExpiry
                | Self::BeforeIssuance
                | Self::NeverIssued
                | Self::OutsideSharing
                | Self::NoCertificate
                | Self::LoginElsewhere
        )
    }

    /// The question of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|question| question.name() == name)
    }

    /// The name in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RareSource => "rare-source",
            Self::RarePeer => "new-peer",
            Self::RareDestination => "rare-destination",
            Self::NewOperation => "new-operation",
            Self::RareOperation => "rare-operation",
            Self::NewCredential => "new-credential",
            Self::NewFingerprint => "new-fingerprint",
            Self::NewNetwork => "new-network",
            Self::LoneReplica => "lone-replica",
            Self::Failing => "failing",
            Self::Refused => "refused",
            Self::Rate1m => "rate-1m",
            Self::Rate10m => "rate-10m",
            Self::Rate1h => "rate-1h",
            Self::EdgeRate => "edge-rate",
            Self::OperationRate => "operation-rate",
            Self::DestinationRate => "destination-rate",
            Self::Spread10m => "spread-10m",
            Self::Spread1h => "spread-1h",
            Self::FanIn => "fan-in",
            Self::Bigger => "bigger",
            Self::Oversized => "oversized",
            Self::Longer => "longer",
            Self::Silence => "silence",
            Self::Unwitnessed => "unwitnessed",
            Self::Rhythm => "rhythm",
            Self::AfterRevocation => "after-revocation",
            Self::AfterExpiry => "after-expiry",
            Self::BeforeIssuance => "before-issuance",
            Self::NeverIssued => "never-issued",
            Self::OutsideSharing => "outside-sharing",
            Self::NoCertificate => "no-certificate",
            Self::LoginElsewhere => "login-elsewhere",
            Self::UnlikePeers => "unlike-peers",
            Self::StrangePeer => "strange-peer",
            Self::Lull => "lull",
        }
    }
}

/// The windows that counting detectors use.
#[inline]
pub(crate) const fn window(seconds: i64) -> Span {
    Span::seconds(seconds)
}

#[cfg(test)]
mod conformance;
