//! How traffic breathes: the day, the week, and a rate that wanders.

use core::f64::consts::TAU;

use crate::{
    calendar::{DAY, Millis},
    mesh::Kind,
    random::Stream,
};

/// Rate of a weekend day relative to a working day, for traffic that follows people.
const WEEKEND: f64 = 0.65;
/// Correlation of the logarithm of the rate from one minute to the next; bursts last about 20 minutes.
const MEMORY: f64 = 0.95;

/// Factor on the mean rate of what a service of `kind` calls at `time`; its mean over a week is 1.
///
/// The day is a sine with its peak at 14:00 UTC and a second harmonic that sharpens the night.
pub(crate) fn rhythm(kind: Kind, time: Millis) -> f64 {
    let depth = match kind {
        Kind::Gateway => 0.65,
        Kind::Api => 0.6,
        Kind::Worker => 0.4,
        _ => return 1.0,
    };
    let angle = TAU * time.of_day() as f64 / DAY as f64;
    let day = 1.0 + depth * libm::sin(angle - TAU * 8.0 / 24.0) + 0.2 * depth * libm::sin(2.0 * angle);
    let week = if time.weekday() >= 5 { WEEKEND } else { 1.0 } * 7.0 / (5.0 + 2.0 * WEEKEND);
    day * week
}

/// A log-AR(1) factor of mean 1: counts that follow it are over-dispersed and autocorrelated, as in real meshes.
#[derive(Debug)]
pub(crate) struct Wander {
    level: f64,
    sigma: f64,
}

impl Wander {
    /// Starts in the stationary distribution; `sigma` is the standard deviation of the factor's logarithm.
    pub(crate) fn new(stream: &mut Stream, sigma: f64) -> Self {
        Self { level: sigma * stream.normal(), sigma }
    }

    /// Moves on by one minute.
    pub(crate) fn step(&mut self, stream: &mut Stream) {
        self.level = MEMORY * self.level + (1.0 - MEMORY * MEMORY).sqrt() * self.sigma * stream.normal();
    }

    /// Logarithm of the factor now.
    pub(crate) fn log_factor(&self) -> f64 {
        self.level - self.sigma * self.sigma / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{calendar::MINUTE, random::Purpose};

    #[test]
    fn rhythm_has_mean_one_over_a_week_and_a_night() {
        let minutes = 7 * 24 * 60;
        let mean = (0..minutes).map(|m| rhythm(Kind::Gateway, Millis(m * MINUTE))).sum::<f64>() / minutes as f64;
        assert!((mean - 1.0).abs() < 1e-9, "{mean}");
        let hour = |h: i64| rhythm(Kind::Gateway, Millis((4 * 24 + h) * 60 * MINUTE));
        assert!(hour(14) > 3.0 * hour(2), "{} {}", hour(14), hour(2));
    }

    #[test]
    fn a_wandering_rate_has_mean_one() {
        let mut stream = Stream::new(3, Purpose::Edge, 0);
        let mut wander = Wander::new(&mut stream, 0.5);
        let mut sum = 0.0;
        for _ in 0..400_000 {
            wander.step(&mut stream);
            sum += libm::exp(wander.log_factor());
        }
        assert!((sum / 400_000.0 - 1.0).abs() < 0.05, "{}", sum / 400_000.0);
    }
}
