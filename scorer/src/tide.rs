//! How much busier than usual the whole mesh is: a campaign, the hours of the day. What everybody does says nothing
//! against one of them.

use qualm_model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::mesh::SUMMARY;

/// Bins of the ratio of calls to the expected ones, eight to a factor of `e`, from `e^−3` to `e^3`.
const PER_NAT: f64 = 8.0;
const NATS: f64 = 3.0;
const BINS: usize = 2 * (PER_NAT * NATS) as usize;
/// Fewer expected calls say nothing about a rise: minutes of a calm source are taken together until there are so many.
const LEAST_EXPECTED: f64 = 2.0;
/// Minutes that are taken together at most: what was longer ago is no part of the present.
const MOST_MINUTES: i64 = 30;
/// Who calls much weighs no more than so many calls: the tide is what most do, not what the greatest do.
const MOST_WEIGHT: f64 = 10.0;
/// Weight that a median rests on: some three minutes of half a dozen lively sources or more of calmer ones.
const LEAST_WEIGHT: f64 = 100.0;
/// What was seen counts half after so many seconds.
const HALF_LIFE: f64 = 120.0;
/// A smaller rise is left to the dispersion of the counts.
const LEAST_TIDE: f64 = 1.25;
/// No honest rise of everybody is greater.
const MOST_TIDE: f64 = 4.0;
/// Before, expectations are too young to be exceeded.
const SETTLED: Span = Span::DAY;

/// Weighted counts of ratios in the last minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tide {
    bins: Vec<f64>,
    height: f64,
}

impl Default for Tide {
    fn default() -> Self {
        Self { bins: vec![0.0; BINS], height: 1.0 }
    }
}

/// Some minutes of one source: what they weigh, and in which bin.
pub(crate) type Lap = (u16, f64);

/// The calls of one source beside those expected, from minute to minute until they say something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Round {
    /// The first minute that is not in it.
    minute: i64,
    minutes: i64,
    calls: f64,
    expected: f64,
}

impl Round {
    /// Takes in the minute that was closed with so many `calls`, and the silent ones between it and `minute`, which is
    /// open now; `usual` are the expected calls a minute. Returns what they say once enough was expected.
    pub(crate) fn add(&mut self, minute: i64, calls: f64, usual: f64) -> Option<Lap> {
        let elapsed = minute - self.minute;
        if self.minutes + elapsed > MOST_MINUTES {
            *self = Self { minute, ..Self::default() };
            // A source that was silent for long begins anew; a lively one has its minute counted.
            return if elapsed == 1 { self.add(minute, calls, usual) } else { None };
        }
        self.minute = minute;
        self.minutes += elapsed.max(1);
        self.calls += calls;
        self.expected += usual * elapsed.max(1) as f64;
        if self.expected < LEAST_EXPECTED {
            return None;
        }
        let Self { calls, expected, .. } = std::mem::replace(self, Self { minute, ..Self::default() });
        // Half a call more: a round without any is far below what is usual, not infinitely far.
        let place = (libm::log((calls + 0.5) / (expected + 0.5)) + NATS) * PER_NAT;
        Some((place.clamp(0.0, (BINS - 1) as f64) as u16, expected.min(MOST_WEIGHT)))
    }
}

impl Tide {
    pub(crate) fn add(&mut self, (bin, weight): Lap) {
        self.bins[usize::from(bin)] += weight;
    }

    /// A summary has closed, `elapsed` after the one before: forgets a little, and reads the height anew.
    pub(crate) fn close(&mut self, birth: Timestamp, now: Timestamp, elapsed: Span) {
        // What was added belongs to the first summary after the one before; the rest was silence.
        self.forget(Span(elapsed.0 - SUMMARY.0));
        self.height = if now - birth >= SETTLED { self.median_rise() } else { 1.0 };
        self.forget(SUMMARY);
    }

    fn forget(&mut self, elapsed: Span) {
        let keep = libm::exp2(-elapsed.as_seconds().max(0.0) / HALF_LIFE);
        self.bins.iter_mut().for_each(|weight| *weight *= keep);
    }

    /// How much busier than usual the mesh is; 1 where it is not.
    #[inline]
    pub(crate) fn height(&self) -> f64 {
        self.height
    }

    /// Half of all sources, by weight, have risen by at least this. Nobody who holds fewer can raise it.
    fn median_rise(&self) -> f64 {
        let total: f64 = self.bins.iter().sum();
        if total < LEAST_WEIGHT {
            return 1.0;
        }
        let mut below = 0.0;
        let bin = self.bins.iter().position(|weight| {
            below += weight;
            2.0 * below >= total
        });
        let rise = libm::exp(bin.unwrap_or_default() as f64 / PER_NAT - NATS);
        if rise < LEAST_TIDE { 1.0 } else { rise.min(MOST_TIDE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIRTH: Timestamp = Timestamp(0);
    const LATER: Timestamp = Timestamp(Span::DAY.0 * 2);

    fn lap(calls: f64, expected: f64) -> Option<Lap> {
        Round::default().add(1, calls, expected)
    }

    fn after(laps: impl IntoIterator<Item = (f64, f64)>) -> f64 {
        let mut tide = Tide::default();
        laps.into_iter().filter_map(|(calls, expected)| lap(calls, expected)).for_each(|lap| tide.add(lap));
        tide.close(BIRTH, LATER, SUMMARY);
        tide.height()
    }

    #[test]
    fn it_rises_when_most_are_busier_and_only_then() {
        assert_eq!(after((0..40).map(|_| (10.0, 10.0))), 1.0);
        let risen = after((0..40).map(|_| (25.0, 10.0)));
        assert!((2.2..=2.5).contains(&risen), "{risen}");
        assert_eq!(after((0..40).map(|i| if i < 15 { (400.0, 10.0) } else { (10.0, 10.0) })), 1.0);
    }

    #[test]
    fn a_rise_is_forgotten_over_a_silence_as_over_so_many_summaries() {
        let risen = |tide: &mut Tide| (0..40).filter_map(|_| lap(25.0, 10.0)).for_each(|lap| tide.add(lap));
        let silence = Span(10 * Span::MINUTE.0);
        let (mut at_once, mut in_steps) = (Tide::default(), Tide::default());
        for tide in [&mut at_once, &mut in_steps] {
            risen(tide);
            tide.close(BIRTH, LATER, SUMMARY);
            assert!(tide.height() > 2.0, "{}", tide.height());
        }
        at_once.close(BIRTH, LATER + silence, silence);
        (0..silence.0 / SUMMARY.0).for_each(|_| in_steps.close(BIRTH, LATER + silence, SUMMARY));
        assert_eq!((at_once.height(), in_steps.height()), (1.0, 1.0));
        let total = |tide: &Tide| tide.bins.iter().sum::<f64>();
        assert!((total(&at_once) - total(&in_steps)).abs() < 1e-6, "{} {}", total(&at_once), total(&in_steps));
    }

    #[test]
    fn minutes_of_a_calm_source_are_taken_together_silent_ones_among_them() {
        let mut round = Round { minute: 10, ..Round::default() };
        assert_eq!(round.add(11, 1.0, 0.5), None);
        assert_eq!(round.add(12, 1.0, 0.5), None);
        let (bin, weight) = round.add(14, 0.0, 0.5).expect("two calls were expected in four minutes");
        assert_eq!((weight, i64::from(bin)), (2.0, (PER_NAT * NATS) as i64), "as many as expected");
        assert_eq!(round, Round { minute: 14, ..Round::default() });
    }

    #[test]
    fn what_came_after_a_long_silence_is_not_laid_beside_the_silence() {
        let mut round = Round { minute: 10, ..Round::default() };
        assert_eq!(round.add(500, 3.0, 1.0), None);
        assert!(round.add(501, 3.0, 3.0).is_some());
    }

    #[test]
    fn one_great_source_is_not_the_mesh() {
        assert_eq!(after((0..40).map(|i| if i == 0 { (90_000.0, 9_000.0) } else { (10.0, 10.0) })), 1.0);
    }

    #[test]
    fn a_handful_of_sources_or_a_young_mesh_has_no_tide() {
        assert_eq!(after((0..9).map(|_| (30.0, 10.0))), 1.0);
        let mut tide = Tide::default();
        (0..40).filter_map(|_| lap(30.0, 10.0)).for_each(|lap| tide.add(lap));
        tide.close(BIRTH, BIRTH + Span::HOUR, SUMMARY);
        assert_eq!(tide.height(), 1.0);
    }
}
