//! A verdict: one identity's step on the ladder of trust, with its grounds.

use std::sync::Arc;

use qualm_model::{
    detector::Question,
    evidence::Pace,
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    carriers::Carrier,
    familiar::Familiar,
    grounds::Kept,
    guard::HeldBy,
    incidents::Incident,
    operator::{InShadow, Override, announced::Announcement},
    table::{Object, Subject, TrustEntry},
};

/// Why: one question's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The question.
    pub detector: Question,
    /// `log2` of its e-value.
    pub bits: f64,
    /// What was seen.
    pub observed: f64,
    /// What was expected.
    pub expected: f64,
    /// How much the expectation rests on.
    pub n: f64,
    /// Between which values what is usual lies, where it is a quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<(f64, f64)>,
    /// Whom the event called.
    pub destination: String,
    /// What it asked.
    pub operation: Option<String>,
    /// How often what it did was seen before: of itself, of its peers, of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub familiar: Option<Familiar>,
}

/// What moved the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Evidence crossed a threshold.
    Evidence,
    /// The lease was extended because the evidence still stands.
    Renewed,
    /// The lease ended and the evidence had decayed.
    Lease,
    /// The operator's configuration lets it act, or no longer; the level and its lease stand as they were.
    Operator,
    /// Too many have come to be limited at once, or its siblings are gone: it is held back from now on, with the same
    /// lease.
    Held,
    /// It would act on others who share the principal, or the address: a shadow from now on, with the same lease.
    Shared,
    /// What held it back has passed: it acts from now on, with the same lease.
    Freed,
    /// An operator's own entry: set by hand, told anew, or at its end. It says nothing of where evidence has led.
    Ordered,
    /// An operator has ended what stood on evidence.
    Lifted,
}

/// By whose hand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// The SPIFFE ID of whoever has asked for it.
    pub by: String,
    /// Why, in the operator's words.
    pub why: String,
    /// Whether it acts also where the mode is shadow.
    #[serde(default)]
    pub in_shadow: InShadow,
    /// What it disregards.
    #[serde(default)]
    pub overrides: Vec<Override>,
}

/// Who calls a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependants {
    /// How many identities did within a day.
    pub count: usize,
    /// Who they are: the busiest first, up to 16.
    pub names: Vec<String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Event time of what caused it.
    pub time: Timestamp,
    /// Wall time at which it was decided.
    pub decided: Timestamp,
    /// Name of the identity: the principal, with `@cluster` where there are several.
    pub identity: String,
    /// Namespace of the identity, where it has one.
    pub namespace: Option<String>,
    /// Whom the entry is about; narrowed to one instance where the evidence is about one.
    pub subject: Subject,
    /// What it is about.
    pub object: Object,
    /// The level entered.
    pub level: Level,
    /// The level left.
    pub previous: Level,
    /// What moved it.
    pub cause: Cause,
    /// The clock that crossed.
    pub pace: Option<Pace>,
    /// Evidence, `log2(N · 1440 / rate(M))`.
    pub evidence_bits: f64,
    /// The same of the threshold.
    pub threshold_bits: f64,
    /// How often a day such evidence occurs by chance.
    pub per_day: f64,
    /// State of the machine: evidence and threshold of the clock as they were compared.
    pub m: f64,
    /// The threshold that `m` was compared with.
    pub threshold: f64,
    /// Length of the lease.
    pub lease: Option<Span>,
    /// End of the lease, wall time.
    pub expires: Option<Timestamp>,
    /// The decision's id.
    pub decision: String,
    /// Begin of the episode.
    pub episode: Timestamp,
    /// Decided on events too old to act on.
    pub historic: bool,
    /// Whether enforcement points are to act, or to mark only.
    pub enforce: bool,
    /// Why it does not act as it says although the mode lets it: protected, blast radius, the last healthy replica. But
    /// for the first and the circuit breaker it acts at a lower level meanwhile.
    pub held: Option<String>,
    /// Which bound that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
    /// Who calls the identity's service, where its calls come to be limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependants: Option<Dependants>,
    /// Instances of the identity that are live.
    pub instances: Vec<String>,
    /// The workloads that share the principal, where several do. Then only what is narrowed to an instance is enforced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub co_owners: Vec<String>,
    /// Why, strongest first.
    pub reasons: Vec<Reason>,
    /// The records that carried the evidence, strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried_by: Vec<Carrier>,
    /// The deployment that was announced meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<Announcement>,
    /// The incident that its episode belongs to; said where the episode begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<Incident>,
    /// The operator behind it, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Ordered>,
    /// All enforcement is paused: whatever it asks for is a shadow until that ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// What it was decided from, so that it can be recomputed; an operator's follows from the instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grounds: Option<Arc<Kept>>,
}

impl Verdict {
    /// Whether it is a shadow, whatever the mode, because it is about more than one instance of a principal that several
    /// workloads share: to enforce it would be to cut off the others.
    pub fn is_beyond_scope(&self) -> bool {
        !self.co_owners.is_empty() && self.subject.instance.is_none()
    }

    /// What vouches for it: `operator`, `verified` (certificates at the called's proxy, or both reports), `claimed`
    /// (records that may lead to *watched* only); `None` for what moves no clock.
    pub fn provenance(&self) -> Option<&'static str> {
        if self.order.is_some() {
            return Some("operator");
        }
        let is_claimed = self.grounds.as_ref()?.inputs.is_claimed()?;
        Some(if is_claimed { "claimed" } else { "verified" })
    }

    /// The line of the trust table that this verdict asks for; `None` where nothing is to stand.
    pub fn entry(&self) -> Option<TrustEntry> {
        if self.level == Level::Trusted || self.historic {
            return None;
        }
        Some(TrustEntry {
            decision: self.decision.clone(),
            subject: self.subject.clone(),
            object: self.object.clone(),
            level: self.level,
            enforce: self.enforce,
            decided: self.decided,
            expires: self.expires?,
            evidence_bits: self.evidence_bits,
            co_owners: self.co_owners.clone(),
            reason: self.reasons.first().map_or_else(String::new, |reason| reason.detector.name().to_owned()),
            known: None,
        })
    }
}

/// The id of a decision: a hash of identity, scope, level, begin of the episode and ordinal, so that re-reading the
/// same events re-issues nothing. 128 bits, hex.
pub(crate) fn decision_id(subject: &Subject, level: Level, episode: Timestamp, ordinal: u32) -> String {
    let mut hash = Sha256::new();
    let parts = [
        subject.principal.as_str(),
        subject.cluster.as_deref().unwrap_or_default(),
        subject.instance.as_deref().unwrap_or_default(),
        level.as_str(),
    ];
    // Where there is no workload, ids are as they have always been.
    for part in parts.into_iter().chain(subject.workload.as_deref()) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(episode.0.to_le_bytes());
    hash.update(ordinal.to_le_bytes());
    const_hex::encode(&hash.finalize()[..16])
}
