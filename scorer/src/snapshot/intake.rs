//! What became of the records of an input. Nothing is judged by it: it is kept beside the state, so that it can be told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts of one topic, file or port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intake {
    /// Events that records became.
    pub events: u64,
    /// Records that are none by themselves: pieces of lines, entries from before a call was on its way.
    pub parts: u64,
    /// Records that are plainly no access logs.
    pub foreign: u64,
    /// Records that could not be read, by reason.
    pub invalid: BTreeMap<String, u64>,
    /// Records of which certificates are not believed, by the container that wrote them.
    pub unvouched: BTreeMap<String, u64>,
    /// Records that reporters say they lost, or that the origin no longer had.
    pub lost: u64,
    /// Events that were delivered again.
    pub repeated: u64,
    /// Reports of calls that the other end's reports count.
    pub confirming: u64,
    /// Events that came too late to be learned.
    pub late: u64,
    /// Events that name the cluster of one of their ends.
    pub clustered: u64,
}

impl Intake {
    /// Records in all.
    pub fn records(&self) -> u64 {
        self.events + self.parts + self.foreign + self.unread()
    }

    /// Records that could not be read.
    pub fn unread(&self) -> u64 {
        self.invalid.values().sum()
    }

    /// Adds what another stretch had.
    pub fn add(&mut self, other: &Self) {
        let Self { events, parts, foreign, invalid, unvouched, lost, repeated, confirming, late, clustered } = other;
        let sums = [
            (&mut self.events, events),
            (&mut self.parts, parts),
            (&mut self.foreign, foreign),
            (&mut self.lost, lost),
            (&mut self.repeated, repeated),
            (&mut self.confirming, confirming),
            (&mut self.late, late),
            (&mut self.clustered, clustered),
        ];
        sums.into_iter().for_each(|(sum, more)| *sum = sum.saturating_add(*more));
        for (sums, more) in [(&mut self.invalid, invalid), (&mut self.unvouched, unvouched)] {
            for (name, count) in more {
                *sums.entry(name.clone()).or_default() += count;
            }
        }
    }
}
