//! Is it bigger or longer than usual on this edge?

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation};
use crate::{event::Outcome, stats::SizeTail};

/// Bytes that fit one packet of Ethernet with TCP's and IP's headers.
const PACKET: u64 = 1_460;
/// Bytes beyond which an answer is no error page.
const ERROR_PAGE: u64 = 64 * 1024;
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
    /// Between which sizes nineteen of twenty calls lie.
    pub fn usual(&self) -> Option<(f64, f64)> {
        self.0.usual()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

impl Longer {
    /// Between which durations nineteen of twenty calls lie, microseconds.
    pub fn usual(&self) -> Option<(f64, f64)> {
        self.0.usual()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// Bytes of a call that may be too big, if it is at all. A packet carries nothing away, whatever is usual; and an error
/// page has its own size: that the call failed is said already.
#[inline]
fn telling_bytes(seen: &Observation) -> Option<f64> {
    let least = if seen.outcome.is_error() { ERROR_PAGE } else { PACKET };
    seen.bytes.filter(|&bytes| bytes >= least).map(|bytes| bytes as f64)
}

impl Detector for Bigger {
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        score(&self.0, telling_bytes(seen)?)
    }

    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        let telling = telling_bytes(seen);
        if telling.is_none() && seen.outcome.is_error() {
            return None;
        }
        let sample = learn(&mut self.0, seen.bytes? as f64, seen.weight);
        sample.filter(|_| telling.is_some())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{stats::Exposure, time::Timestamp};

    fn seen(bytes: u64, outcome: Outcome) -> Observation {
        let exposure = Exposure::since(Timestamp(0), Timestamp(1));
        Observation { bytes: Some(bytes), outcome, ..Observation::at(exposure) }
    }

    #[test]
    fn what_fits_a_packet_and_an_error_page_are_never_too_big_and_much_more_is() {
        let mut bigger = Bigger::default();
        for _ in 0..500 {
            bigger.learn_one(&seen(8, Outcome::Success));
            // Nor does an error page make a big answer usual.
            bigger.learn_one(&seen(40_000, Outcome::Failure));
        }
        let x = |bytes, outcome| bigger.score_one(&seen(bytes, outcome)).map(|deviation| deviation.x);
        assert_eq!(x(1_400, Outcome::Success), None);
        assert_eq!(x(40_000, Outcome::Refused), None);
        assert!(x(40_000, Outcome::Success).is_some_and(|x| x > 100.0));
        assert!(x(200_000, Outcome::Failure).is_some_and(|x| x > 100.0));
    }
}
