//! What one shard adds to the next summary.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use qualm_model::{
    baseline::SiblingRate,
    detector::Question,
    evidence::{Climb, Pace},
    level::Level,
    stats::Bins,
};
use serde::{Deserialize, Serialize};

use super::{Arrival, SourceKey};
use crate::tide::Lap;

/// How much a minute of an identity that is at least watched weighs in the histogram of minutes: enough to adapt,
/// too little for an attacker to raise the bar.
const WATCHED_WEIGHT: f64 = 0.02;
/// Of each kind, what one shard adds to a summary at most: of a flood, a sample is enough.
const SAMPLES: usize = 16_384;
const MINUTES: usize = 1024;

/// A destination as a shard can name it: by where it stands in the mesh, or, where it is new, by its text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Called {
    Known(u32),
    New(Arc<str>),
}

/// What one shard saw of one destination since the last summary.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DestinationDelta {
    pub(crate) called: Called,
    pub(crate) calls: f64,
    /// Of these, those that did not begin long before.
    pub(crate) made: f64,
    pub(crate) weight: f64,
    pub(crate) first_contacts: f64,
    pub(crate) reported: bool,
}

/// What one shard adds to the next summary.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Delta {
    pub(super) samples: Vec<(Question, u16)>,
    pub(super) minutes: Vec<(f64, f64)>,
    pub(super) climbs: Vec<(Pace, Climb)>,
    /// Those of evidence that may lead beyond *watched*. In a snapshot it stands beside what else is in the air.
    #[serde(skip)]
    pub(crate) acting: Vec<(Pace, Climb)>,
    pub(super) context: Vec<(SourceKey, i64, f64)>,
    pub(super) siblings: HashMap<Arc<str>, SiblingRate, FixedState>,
    pub(super) laps: Vec<Lap>,
    pub(super) operations: Vec<(u64, f64)>,
    pub(super) arrivals: Vec<Arrival>,
    pub(crate) destinations: Vec<DestinationDelta>,
    pub(crate) new_identities: u64,
}

impl Delta {
    #[inline]
    pub(crate) fn sample(&mut self, question: Question, x: f64) {
        if self.samples.len() < SAMPLES {
            self.samples.push((question, Bins::locate(x).0 as u16));
        }
    }

    /// The best bits of an identity's minute; `watched` where its level is above *trusted*.
    pub(crate) fn minute(&mut self, bits: f64, level: Level) {
        if self.minutes.len() < MINUTES {
            self.minutes.push((bits, if level >= Level::Watched { WATCHED_WEIGHT } else { 1.0 }));
        }
    }

    /// An episode has climbed, by evidence that may lead as far as `reach`.
    pub(crate) fn climb(&mut self, pace: Pace, climb: Climb, reach: Level) {
        if reach >= Level::Watched && self.climbs.len() < MINUTES {
            self.climbs.push((pace, climb));
        }
        if reach > Level::Watched && self.acting.len() < MINUTES {
            self.acting.push((pace, climb));
        }
    }

    pub(crate) fn context(&mut self, source: SourceKey, minute: i64, bits: f64) {
        if self.context.len() < MINUTES {
            self.context.push((source, minute, bits));
        }
    }

    /// What some minutes of a source say about the tide.
    pub(crate) fn lap(&mut self, lap: Option<Lap>) {
        if self.laps.len() < MINUTES {
            self.laps.extend(lap);
        }
    }

    /// Trusted calls of an operation.
    pub(crate) fn operation(&mut self, operation: u64, weight: f64) {
        if self.operations.len() < SAMPLES {
            self.operations.push((operation, weight));
        }
    }

    /// An identity has a new address.
    pub(crate) fn arrival(&mut self, arrival: Arrival) {
        if self.arrivals.len() < MINUTES {
            self.arrivals.push(arrival);
        }
    }

    /// Lets go of what everybody would learn of it; what is called goes on being counted.
    pub(super) fn forget(&mut self) {
        self.samples.clear();
        self.minutes.clear();
        self.climbs.clear();
        self.acting.clear();
        self.laps.clear();
        self.operations.clear();
        self.arrivals.clear();
        self.siblings.clear();
    }

    /// Whether there is nothing to add, as of most shards in a calm minute.
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
            && self.destinations.is_empty()
            && self.minutes.is_empty()
            && self.climbs.is_empty()
            && self.context.is_empty()
            && self.laps.is_empty()
            && self.operations.is_empty()
            && self.arrivals.is_empty()
            && self.siblings.is_empty()
            && self.new_identities == 0
    }

    pub(crate) fn siblings(&mut self, namespace: &Arc<str>) -> &mut SiblingRate {
        self.siblings.entry(namespace.clone()).or_default()
    }
}
