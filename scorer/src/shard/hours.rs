//! Calls of an edge in each of the last 24 hours: what a rule would have met.

use qualm_model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// Hours that are kept, with the one that is open.
const HOURS: usize = 24;
/// Steps of the logarithm in which the count of a past hour is kept: one byte says it to five per cent.
const STEP: f64 = 0.095_310_179_804_324_87;

/// Calls by the hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hours {
    /// The open hour.
    hour: i64,
    open: u32,
    /// Of the hours before, each at its number modulo 24, `ln(1 + calls)` in steps.
    past: [u8; HOURS],
}

impl Hours {
    /// Counts calls. What comes late counts into the open hour.
    #[inline]
    pub(crate) fn note(&mut self, now: Timestamp, calls: f64) {
        let hour = now.window(Span::HOUR);
        if hour > self.hour {
            self.turn(hour);
        }
        // Streams that go on are no further call, which is 0.
        self.open = self.open.saturating_add(calls as u32);
    }

    fn turn(&mut self, hour: i64) {
        self.past[place(self.hour)] = encoded(self.open);
        let since = (hour - self.hour).min(HOURS as i64);
        for idle in (hour - since + 1)..=hour {
            self.past[place(idle)] = 0;
        }
        (self.hour, self.open) = (hour, 0);
    }

    /// Calls of each of the last 24 hours up to `now`, the open one first.
    pub(crate) fn counts(&self, now: Timestamp) -> Vec<f64> {
        let mut turned = *self;
        let hour = now.window(Span::HOUR);
        if hour > turned.hour {
            turned.turn(hour);
        }
        let past = (1..HOURS as i64).map(|ago| decoded(turned.past[place(turned.hour - ago)]));
        [f64::from(turned.open)].into_iter().chain(past).collect()
    }
}

fn place(hour: i64) -> usize {
    hour.rem_euclid(HOURS as i64) as usize
}

fn encoded(calls: u32) -> u8 {
    (libm::log1p(f64::from(calls)) / STEP).round() as u8
}

fn decoded(code: u8) -> f64 {
    libm::expm1(f64::from(code) * STEP).round()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(hour: i64) -> Timestamp {
        Timestamp(hour * Span::HOUR.0 + 1)
    }

    #[test]
    fn each_hour_is_kept_to_five_per_cent_for_a_day() {
        let mut hours = Hours::default();
        for n in 0..30 {
            (0..10 * (n + 1)).for_each(|_| hours.note(hour(1000 + n), 1.0));
        }
        let counts = hours.counts(hour(1029));
        assert_eq!((counts.len(), counts[0]), (24, 300.0));
        for (ago, count) in counts.iter().enumerate() {
            let expected = 10.0 * (30.0 - ago as f64);
            assert!((count - expected).abs() <= 0.051 * expected, "{ago}: {count} for {expected}");
        }
    }

    #[test]
    fn silent_hours_count_nothing_and_what_is_older_than_a_day_is_gone() {
        let mut hours = Hours::default();
        hours.note(hour(5), 7.0);
        assert_eq!(hours.counts(hour(8))[..4], [0.0, 0.0, 0.0, 7.0]);
        hours.note(hour(8), 1.0);
        assert_eq!(hours.counts(hour(8)).iter().sum::<f64>(), 8.0);
        assert_eq!(hours.counts(hour(60)).iter().sum::<f64>(), 0.0);
    }

    #[test]
    fn small_counts_are_exact() {
        (0..10).for_each(|calls| assert_eq!(decoded(encoded(calls)), f64::from(calls)));
        assert!(decoded(encoded(u32::MAX)) > 4e9);
    }
}
