//! Is it spreading? First contacts in a window: new peers of a source, new callers of a destination.

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation, rate::deviation, window};
use crate::{
    stats::{ETable, Exposure, WindowCount},
    time::Timestamp,
};

/// First contacts in windows of `SECONDS`. See [`WindowCount`] for the formula.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread<const SECONDS: i64>(WindowCount);

impl<const SECONDS: i64> Spread<SECONDS> {
    /// The counts themselves.
    #[inline]
    pub fn counts(&self) -> &WindowCount {
        &self.0
    }

    /// Takes back a first contact that was made at `since`: it was recognised as an honest change.
    pub fn withdraw(&mut self, since: Timestamp) {
        self.0.withdraw(since, window(SECONDS));
    }

    /// Closes the windows that have ended, as learning does. Returns the sample where one was closed.
    pub fn turn(&mut self, exposure: Exposure) -> Option<f64> {
        self.0.add(exposure.calm(), window(SECONDS), 0.0).map(|s| 1.0 + s)
    }

    /// The e-value of `contacts` first contacts, after [`turn`](Self::turn).
    #[inline]
    pub fn e(&mut self, contacts: f64, table: &ETable) -> f64 {
        self.0.e(contacts, table)
    }

    /// Learns `contacts` first contacts, after [`turn`](Self::turn).
    #[inline]
    pub fn learn_open(&mut self, contacts: f64) {
        self.0.add_open(contacts);
    }
}

#[inline]
fn contacts(seen: &Observation) -> f64 {
    if seen.first_contact { seen.more } else { 0.0 }
}

impl<const SECONDS: i64> Detector for Spread<SECONDS> {
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        let surprise = self.0.too_many(seen.exposure.calm(), window(SECONDS), contacts(seen));
        Some(deviation(&self.0, seen, SECONDS, contacts(seen), surprise))
    }

    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        self.0.add(seen.exposure.calm(), window(SECONDS), contacts(seen)).map(|s| 1.0 + s)
    }
}
