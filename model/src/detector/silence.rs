//! Too few? Asked when a window has ended, never by an event.

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation, window};
use crate::stats::WindowCount;

const TEN_MINUTES: i64 = 600;

/// Calls of a source in ten minutes, looked at from below when the window ends (lower Chernoff tail of the same
/// negative binomial as [`Rate`](super::Rate)).
///
/// [`score_one`](Detector::score_one) is asked with `more = 0` at the last moment of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Silence(WindowCount);

impl From<WindowCount> for Silence {
    /// The ten-minute counts of a source, looked at from below.
    fn from(counts: WindowCount) -> Self {
        Self(counts)
    }
}

impl Silence {
    /// Where fewer calls than this are expected in ten minutes, their absence means nothing.
    pub(crate) const LEAST_EXPECTED: f64 = 20.0;

    /// The calls in ten minutes that the baseline expects.
    pub fn expected(&self) -> f64 {
        self.0.mean()
    }

    /// The counts themselves.
    pub fn counts(&self) -> &WindowCount {
        &self.0
    }
}

impl Detector for Silence {
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        if self.0.mean() < Self::LEAST_EXPECTED {
            return None;
        }
        let mut ended = self.0;
        ended.add(seen.exposure, window(TEN_MINUTES), 0.0);
        let age = (seen.exposure.now - seen.exposure.birth).0 / window(TEN_MINUTES).0;
        Some(Deviation { x: 1.0 + ended.too_few(), observed: ended.count(), expected: ended.mean(), n: age as f64 })
    }

    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        self.0.add(seen.exposure, window(TEN_MINUTES), seen.more);
        None
    }
}
