//! Is it failing, or refused, unlike before?

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation, window};
use crate::{
    event::Outcome,
    stats::{Exposure, trust},
    time::Timestamp,
};

const MINUTE: i64 = 60;
/// Correlation of outcomes within a minute: calls of one minute share their cause, so that a thousand failures of
/// one outage are the evidence of `1/ρ = 20`, not of a thousand.
const WITHIN: f64 = 0.05;

/// Calls of a minute that is busy.
const BUSY: f64 = 1000.0;
/// Surprise that one minute of twenty exceeds, `ln 20`.
const USUAL: f64 = 2.995_732_273_553_991;

/// Bad outcomes among the calls of a minute.
///
/// With a trusted share `π = (F + ½)/(N + 1)` and `f` bad of `m` calls so far this minute, the surprise is
/// `m' · KL(f/m ‖ π)` nats (Chernoff's bound of the binomial tail) with the effective number of calls
/// `m' = m/(1 + ρ(m − 1))`, Kish's design effect for clustered samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct BadShare {
    minute: i64,
    calls: f32,
    bad: f32,
    all_calls: f64,
    all_bad: f64,
}

impl BadShare {
    #[inline]
    fn share(&self) -> f64 {
        (self.all_bad + 0.5) / (self.all_calls + 1.0)
    }

    #[inline]
    fn surprise(&self, calls: f64, bad: f64) -> f64 {
        let expected = self.share();
        let observed = bad / calls;
        if calls < 1.0 || observed <= expected {
            return 0.0;
        }
        let ratio = |p: f64, q: f64| if p > 0.0 { p * libm::log(p / q) } else { 0.0 };
        let divergence = ratio(observed, expected) + ratio(1.0 - observed, 1.0 - expected);
        calls / (1.0 + WITHIN * (calls - 1.0)) * divergence
    }

    /// Up to which share of the calls of a busy minute are usually bad: at most one minute of twenty has more.
    fn usual(&self) -> (f64, f64) {
        let (mut usual, mut odd) = (self.share(), 1.0);
        for _ in 0..30 {
            let middle = 0.5 * (usual + odd);
            // As many calls as weigh most: `1/ρ`, together with the limit of the design effect.
            let surprise = self.surprise(BUSY, BUSY * middle);
            if surprise <= USUAL { usual = middle } else { odd = middle }
        }
        (0.0, usual)
    }

    #[inline]
    fn open(&self, exposure: Exposure) -> (f64, f64) {
        if exposure.now.window(window(MINUTE)) > self.minute {
            return (0.0, 0.0);
        }
        (f64::from(self.calls), f64::from(self.bad))
    }

    #[inline]
    fn score(&self, seen: &Observation, bad: Outcome) -> Option<Deviation> {
        if seen.outcome == Outcome::Unknown {
            return None;
        }
        let (calls, open_bad) = self.open(seen.exposure);
        let (calls, bad) = (calls + 1.0, open_bad + f64::from(u8::from(seen.outcome == bad)));
        let surprise = if bad > 0.0 { self.surprise(calls, bad) } else { 0.0 };
        Some(Deviation { x: 1.0 + surprise, observed: bad / calls, expected: self.share(), n: self.all_calls })
    }

    #[inline]
    fn learn(&mut self, seen: &Observation, bad: Outcome) -> Option<f64> {
        if seen.outcome == Outcome::Unknown {
            return None;
        }
        let minute = seen.exposure.now.window(window(MINUTE));
        let mut sample = None;
        if minute > self.minute {
            if self.calls > 0.0 && seen.exposure.learns_since(Timestamp(self.minute * window(MINUTE).0)) {
                let (calls, bad) = (f64::from(self.calls), f64::from(self.bad));
                let surprise = if bad > 0.0 { self.surprise(calls, bad) } else { 0.0 };
                let weight = trust(surprise);
                self.all_calls += weight * calls;
                self.all_bad += weight * bad;
                sample = Some(1.0 + surprise);
            }
            (self.calls, self.bad, self.minute) = (0.0, 0.0, minute);
        }
        self.calls += 1.0;
        self.bad += if seen.outcome == bad { 1.0 } else { 0.0 };
        sample
    }
}

/// Failures: 4xx other than refusals, 5xx, resets, TLS failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Failing(BadShare);

/// Refusals: 401, 403, gRPC 7 and 16, RBAC denials that are not ours, failed logins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Refused(BadShare);

impl Failing {
    /// Between which shares the failures of a busy minute usually lie.
    pub fn usual(&self) -> (f64, f64) {
        self.0.usual()
    }
}

impl Refused {
    /// Between which shares the refusals of a busy minute usually lie.
    pub fn usual(&self) -> (f64, f64) {
        self.0.usual()
    }
}

impl Detector for Failing {
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        self.0.score(seen, Outcome::Failure)
    }

    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        self.0.learn(seen, Outcome::Failure)
    }
}

impl Detector for Refused {
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        self.0.score(seen, Outcome::Refused)
    }

    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        self.0.learn(seen, Outcome::Refused)
    }
}
