//! Too few? Asked when ten minutes or an hour have ended, never by an event.

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation, window};
use crate::{
    stats::{Exposure, WindowCount},
    time::Span,
};

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

    /// What it means that the open window, of this length, ends with the calls that it has. `None` where too few are
    /// expected for their absence to mean anything.
    pub(crate) fn at_end(&self, exposure: Exposure, length: Span) -> Option<Deviation> {
        if self.0.mean() < Self::LEAST_EXPECTED {
            return None;
        }
        let mut ended = self.0;
        ended.add(exposure, length, 0.0);
        let age = (exposure.now - exposure.birth).0 / length.0;
        Some(Deviation { x: 1.0 + ended.too_few(), observed: ended.count(), expected: ended.mean(), n: age as f64 })
    }

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
        self.at_end(seen.exposure, window(TEN_MINUTES))
    }

    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        self.0.add(seen.exposure, window(TEN_MINUTES), seen.more);
        None
    }
}
