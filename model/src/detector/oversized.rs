//! Are there more big calls than usual on this edge?

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation, Rate};
use crate::stats::{ETable, Exposure};

/// A call is big when at most one of so many on its edge is as big.
const BIG: f64 = 64.0;

/// Big calls in windows of ten minutes. One big call is chance, in a mesh of many; call after call of them is not. See
/// [`WindowCount`](crate::stats::WindowCount) for the formula.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Oversized(Rate<600>);

impl Oversized {
    /// Whether a call of this surprise counts as a big one.
    #[inline]
    pub fn is_big(x: f64) -> bool {
        x >= BIG
    }

    /// How many big calls ten minutes usually have.
    pub fn usual(&self) -> (f64, f64) {
        self.0.counts().usual()
    }

    /// Closes the windows that have ended. Returns the sample where one was closed.
    pub fn turn(&mut self, exposure: Exposure) -> Option<f64> {
        self.0.turn(exposure)
    }

    /// The e-value of one more big call, after [`turn`](Self::turn).
    #[inline]
    pub fn e(&mut self, table: &ETable) -> f64 {
        self.0.e_of(1.0, table)
    }

    /// Learns one more big call, after [`turn`](Self::turn).
    #[inline]
    pub fn learn_open(&mut self) {
        self.0.learn_made(1.0);
    }
}

impl Detector for Oversized {
    /// What one more big call would mean.
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        self.0.score_one(&one(seen))
    }

    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        self.0.learn_one(&one(seen))
    }
}

/// One big call, which counts when it is told of: however long it took, and be it the latest part of a stream, this is
/// when its bytes are known.
#[inline]
fn one(seen: &Observation) -> Observation {
    Observation { more: 1.0, duration_ns: None, ..*seen }
}
