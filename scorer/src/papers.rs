//! What a credential that does not add up leads to.

use qualm_model::{
    event::{Event, Kind},
    evidence::Pace,
    identity::Provenance,
    level::Level,
};
use serde::{Deserialize, Serialize};

use crate::{
    estate::{Broken, Ground},
    mesh::{Mesh, Thresholds, threshold_of},
    scorer::Scorer,
    standing::Reached,
};

impl Scorer {
    /// Whether the credential that an event shows adds up, and what the event tells of others.
    #[inline]
    pub(crate) fn look_at_credential(&mut self, event: Event<'_>, caller: &str) -> Option<Broken> {
        if event.credential().is_empty()
            && event.issued().is_empty()
            && event.kind() != Kind::Authentication
            && (!event.reporter().is_of_destination() || event.source().provenance() == Provenance::Declared)
        {
            return None;
        }
        let ground = Ground {
            birth: self.mesh.birth().unwrap_or(event.report()),
            lost: None,
            filter: self.filter(event),
            by_input: self.most_of_input(event),
            most: self.most(event),
            owner: None,
        };
        self.estate.look_at_credential(event, caller, &ground)
    }
}

/// What is reached where a broken invariant acts at once: it needs no arming, and no threshold.
#[inline]
pub(crate) fn at_once(mesh: &Mesh, broken: Option<&Broken>, most: Level, reached: Option<Reached>) -> Option<Reached> {
    invariant(mesh.thresholds(), Invariant::of(broken, most), reached)
}

/// A broken invariant that acts at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Invariant {
    /// Its e-value, which is set by policy.
    pub(crate) e: f64,
    /// The level that it leads to.
    pub(crate) level: Level,
}

impl Invariant {
    /// What of a credential that does not add up acts at once, up to `most`.
    #[inline]
    pub(crate) fn of(broken: Option<&Broken>, most: Level) -> Option<Self> {
        broken.and_then(|broken| Some(Self { e: broken.deviation.x, level: broken.level(most)? }))
    }
}

/// What is reached by evidence, or by an invariant where that leads further.
#[inline]
pub(crate) fn invariant(
    thresholds: &Thresholds,
    broken: Option<Invariant>,
    reached: Option<Reached>,
) -> Option<Reached> {
    let Some(Invariant { e, level }) = broken else { return reached };
    if reached.is_some_and(|reached| reached.level >= level) {
        return reached;
    }
    let threshold = threshold_of(thresholds, level).slow.unwrap_or(0.0);
    let m = reached.map_or(0.0, |reached| reached.m).max(threshold).max(libm::log2(e));
    Some(Reached { level, pace: Pace::Slow, m, threshold })
}
