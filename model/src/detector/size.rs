//! Is it bigger or longer than usual on this edge?

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation};
use crate::{event::Outcome, stats::SizeTail};

/// A call judged this far from trustworthy by its source's rate is not learned.
const LEAST_WEIGHT: f64 = 0.5;

/// Bytes of both directions of one call. See [`SizeTail`] for the formula.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bigger(SizeTail);

/// Duration of one call, microseconds. See [`SizeTail`] for the formula.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Longer(SizeTail);

#[inline]
fn score(tail: &SizeTail, value: f64) -> Option<Deviation> {
    let at = tail.at(value)?;
    Some(Deviation { x: at.x, observed: value, expected: at.median, n: f64::from(at.n) })
}

/// Learns and returns how odd it was; what is a sample of it, the caller decides.
#[inline]
fn learn(tail: &mut SizeTail, value: f64, weight: f64) -> Option<f64> {
    let sample = tail.at(value).map(|at| at.x);
    if weight >= LEAST_WEIGHT {
        tail.learn(value);
    }
    sample
}

impl Bigger {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

impl Longer {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

impl Detector for Bigger {
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        score(&self.0, seen.bytes? as f64)
    }

    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        learn(&mut self.0, seen.bytes? as f64, seen.weight)
    }
}

/// A call that failed lasts as long as somebody's timeout: that it failed is said already.
#[inline]
fn microseconds(seen: &Observation) -> Option<f64> {
    if seen.outcome == Outcome::Failure {
        return None;
    }
    seen.duration_ns.map(|ns| ns as f64 / 1000.0)
}

impl Detector for Longer {
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        score(&self.0, microseconds(seen)?)
    }

    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        learn(&mut self.0, microseconds(seen)?, seen.weight)
    }
}
