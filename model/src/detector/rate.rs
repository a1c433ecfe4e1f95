//! Too many? Calls of a key in a window against its own past.

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation, window};
use crate::stats::{ETable, Exposure, WindowCount};

/// Calls that were made in windows of `SECONDS`; one that has lasted longer was made before, and is expected once it is
/// known. See [`WindowCount`] for the formula.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate<const SECONDS: i64>(WindowCount);

impl<const SECONDS: i64> From<WindowCount> for Rate<SECONDS> {
    /// Goes on from counts kept in windows of the same length.
    fn from(counts: WindowCount) -> Self {
        Self(counts)
    }
}

impl<const SECONDS: i64> Rate<SECONDS> {
    /// The counts themselves.
    #[inline]
    pub fn counts(&self) -> &WindowCount {
        &self.0
    }

    /// Closes the windows that have ended, as learning does. Returns the sample where one was closed.
    pub fn turn(&mut self, exposure: Exposure) -> Option<f64> {
        self.0.add(exposure, window(SECONDS), 0.0).map(|s| 1.0 + s)
    }

    /// How many of the calls are of the open window: what comes out of order, of a window that has ended, no more belongs
    /// there than what has lasted longer.
    #[inline]
    fn timely(&self, seen: &Observation) -> f64 {
        if seen.exposure.now.window(window(SECONDS)) < self.0.window() { 0.0 } else { seen.made_within(SECONDS) }
    }

    /// The e-value of what was seen, after [`turn`](Self::turn).
    #[inline]
    pub fn e(&mut self, seen: &Observation, table: &ETable) -> f64 {
        self.e_of(self.timely(seen), table)
    }

    /// The e-value of so many calls, all made within the window.
    #[inline]
    pub fn e_of(&mut self, made: f64, table: &ETable) -> f64 {
        self.0.e(made, table)
    }

    /// What so many calls mean, all made within the open window.
    #[inline]
    pub fn score_made(&self, seen: &Observation, made: f64) -> Deviation {
        let surprise = self.0.too_many(seen.exposure, window(SECONDS), made);
        deviation(&self.0, seen, SECONDS, made, surprise)
    }

    /// Learns what was seen, after [`turn`](Self::turn).
    #[inline]
    pub fn learn_open(&mut self, seen: &Observation) {
        let made = self.timely(seen);
        self.0.add_open(made);
        self.learn_past((seen.more - made) * seen.weight);
    }

    /// Learns so many, all made within the window, after [`turn`](Self::turn).
    #[inline]
    pub fn learn_made(&mut self, made: f64) {
        self.0.add_open(made);
    }

    /// Learns calls that were made long before they were told of.
    #[inline]
    pub fn learn_past(&mut self, calls: f64) {
        if calls > 0.0 {
            self.0.learn_past(calls);
        }
    }
}

impl<const SECONDS: i64> Detector for Rate<SECONDS> {
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        Some(self.score_made(seen, self.timely(seen)))
    }

    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        let made = self.timely(seen);
        let closed = self.0.add(seen.exposure, window(SECONDS), made).map(|s| 1.0 + s);
        self.learn_past((seen.more - made) * seen.weight);
        closed
    }
}

/// The deviation of a count that stands in its own window.
#[inline]
pub(super) fn deviation(count: &WindowCount, seen: &Observation, seconds: i64, more: f64, surprise: f64) -> Deviation {
    let open = seen.exposure.now.window(window(seconds)) <= count.window();
    let age = (seen.exposure.now - seen.exposure.birth).0 / window(seconds).0;
    Deviation {
        x: 1.0 + surprise,
        observed: if open { count.telling(more) } else { more },
        expected: count.mean(),
        n: age as f64,
    }
}
