//! A new rhythm: are the gaps between the calls equal?

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation, window};
use crate::time::{Span, Timestamp};

/// Calls that begin within this of the one before are retries, and merged with it.
const RETRY: Span = Span::SECOND;
/// Gaps that are remembered.
const GAPS: usize = 23;
/// Gaps that an opinion needs.
const LEAST: usize = 6;
/// Every call, every second and every third one: a connection that is tried again after some seconds has gaps in turns.
const STRIDES: usize = 3;
/// Gaps are equal when they differ by no more than this part.
const EQUAL: f64 = 0.1;
/// Share of the gaps of calls without any rhythm (a Poisson process) that are equal to the most frequent one: at most
/// `max x · f(x) · 2 · EQUAL`, of every third call (Erlang 3, at x = 3) 0.134; of the others less.
const BY_CHANCE: f64 = 0.14;
/// Shorter periods are loops, not rhythms.
const SHORTEST: f64 = 2.0;
/// A period is told from others only if it is so many times the unit of the clock that wrote the times.
const UNITS: f64 = 10.0;
/// `x` from which on the gaps count as equal: two nats.
const RHYTHMIC: f64 = 3.0;
/// The gaps between the latest calls on a new edge to a rare peer, by when they began.
///
/// Of `n` gaps, `k` are equal to the most frequent one. By chance a gap is so with probability `q = 0.14` at most, and
/// the one that the others are compared with was chosen, so that the surprise is the Chernoff bound
/// `s = (n−1) · KL((k−1)/(n−1) ‖ q) − ln 3n`, less the choice of one of `n` gaps and of three strides (Bonferroni); the
/// greatest of the strides counts. Rhythm alone says little, since machines are rhythmic: it is asked only where the
/// edge is new and the peer rare, and ranked among such edges. Below two nats it is no opinion.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rhythm {
    latest: Option<Timestamp>,
    /// In seconds, the latest last.
    gaps: Vec<f32>,
    /// The greatest of 60 s, 1 s and nothing that all begins are multiples of.
    unit: Unit,
    /// The open minute, and the most that was seen in it; 0 without any opinion.
    minute: i64,
    most: f64,
}

/// How fine the clock is by which the calls were written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Unit {
    #[default]
    Minute,
    Second,
    Fine,
}

impl Unit {
    fn with(self, begun: Timestamp) -> Self {
        let is_whole = |span: Span| begun.0 % span.0 == 0;
        match self {
            Self::Minute if is_whole(Span::MINUTE) => Self::Minute,
            Self::Minute | Self::Second if is_whole(Span::SECOND) => Self::Second,
            _ => Self::Fine,
        }
    }

    fn seconds(self) -> f64 {
        match self {
            Self::Minute => 60.0,
            Self::Second => 1.0,
            Self::Fine => 0.0,
        }
    }
}

impl Rhythm {
    /// Bytes that one takes on the heap when it is full.
    pub const HEAP_BYTES: usize = size_of::<Self>() + GAPS.next_power_of_two() * size_of::<f32>();

    /// What a rhythm counts for, of rank `e` among those of the mesh: it never speaks for its caller. Where rhythms are
    /// common, or where it is not known yet how common, it names what goes on, and adds nothing.
    #[inline]
    pub fn at_least_named(e: f64) -> f64 {
        e.max(1.0)
    }

    fn surprise(&self, seen: &Observation) -> Option<Deviation> {
        let begun = begun(seen)?;
        let gap = self.gap(begun)?;
        let shortest = SHORTEST.max(UNITS * self.unit.with(begun).seconds());
        let backwards = || std::iter::once(gap).chain(self.gaps.iter().rev().copied()).take(GAPS);
        (1..=STRIDES).filter_map(|stride| equal(&strided(backwards(), stride), shortest)).max_by(by_x)
    }

    /// The gap that a call would add; `None` of the first call, of a retry, and of what began before the latest.
    fn gap(&self, begun: Timestamp) -> Option<f32> {
        let gap = begun - self.latest?;
        (gap >= RETRY).then(|| (gap.0 as f64 / Span::SECOND.0 as f64) as f32)
    }
}

impl Detector for Rhythm {
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        self.surprise(seen).filter(|deviation| deviation.x >= RHYTHMIC)
    }

    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        let begun = begun(seen)?;
        let answer = self.surprise(seen);
        let minute = begun.window(window(60));
        let mut sample = None;
        if minute > self.minute {
            sample = (self.most > 0.0).then_some(self.most);
            (self.minute, self.most) = (minute, 0.0);
        }
        if let Some(deviation) = answer {
            self.most = self.most.max(deviation.x);
        }
        if self.latest.is_none() {
            (self.latest, self.unit) = (Some(begun), Unit::Minute.with(begun));
        } else if let Some(gap) = self.gap(begun) {
            if self.gaps.len() == GAPS {
                self.gaps.remove(0);
            }
            self.gaps.push(gap);
            (self.latest, self.unit) = (Some(begun), self.unit.with(begun));
        }
        sample
    }
}

/// When the call began; `None` of what only goes on.
fn begun(seen: &Observation) -> Option<Timestamp> {
    let lasted = Span(seen.duration_ns.unwrap_or(0).max(0));
    (seen.more > 0.0).then(|| seen.exposure.now - lasted)
}

/// Gaps between every `stride`th call, from the latest backwards.
fn strided(gaps: impl Iterator<Item = f32>, stride: usize) -> Vec<f64> {
    let gaps: Vec<f64> = gaps.map(f64::from).collect();
    gaps.chunks_exact(stride).map(|together| together.iter().sum()).collect()
}

/// How odd it is that so many of the gaps are equal. Gaps of a period that is too short are equal to none.
fn equal(gaps: &[f64], shortest: f64) -> Option<Deviation> {
    if gaps.len() < LEAST {
        return None;
    }
    let mates = |of: f64| gaps.iter().filter(|gap| (**gap - of).abs() <= EQUAL * of).count();
    let telling = gaps.iter().copied().filter(|&gap| gap >= shortest);
    let most = telling.map(|gap| (mates(gap), gap)).fold((0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
    let n = gaps.len() as f64;
    let (equal, period) = (most.0 as f64, most.1);
    let share = (equal - 1.0) / (n - 1.0);
    let choice = libm::log(STRIDES as f64 * n);
    let surprise = if share > BY_CHANCE { (n - 1.0) * divergence(share, BY_CHANCE) - choice } else { 0.0 };
    Some(Deviation { x: 1.0 + surprise.max(0.0), observed: period, expected: 0.0, n })
}

/// `KL(p ‖ q)` of two coins, in nats.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |p: f64, q: f64| if p > 0.0 { p * libm::log(p / q) } else { 0.0 };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

fn by_x(a: &Deviation, b: &Deviation) -> std::cmp::Ordering {
    a.x.total_cmp(&b.x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Exposure;

    fn at(milliseconds: i64) -> Observation {
        let now = Timestamp(milliseconds * 1_000_000);
        Observation::at(Exposure::since(Timestamp::from_seconds(0), now))
    }

    /// The answers to calls at these milliseconds, one after the other.
    fn answers(begins: impl IntoIterator<Item = i64>) -> Vec<Option<Deviation>> {
        let mut rhythm = Rhythm::default();
        let answer = |begin| {
            let answer = rhythm.score_one(&at(begin));
            rhythm.learn_one(&at(begin));
            answer
        };
        begins.into_iter().map(answer).collect()
    }

    fn first_rhythmic(answers: &[Option<Deviation>]) -> Option<(usize, Deviation)> {
        let is_rhythmic = |d: &Deviation| d.x >= RHYTHMIC;
        answers.iter().enumerate().find_map(|(i, answer)| answer.filter(is_rhythmic).map(|d| (i, d)))
    }

    /// Milliseconds that look like chance and are the same on every machine: exponential gaps of 20 s on average.
    fn by_chance(calls: u64, salt: u64) -> Vec<i64> {
        let mut at = 7;
        let uniform = |i: u64| {
            let mut x = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03);
            x ^= x >> 31;
            x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((x ^ (x >> 29)) >> 11) as f64 / (1_u64 << 53) as f64
        };
        let gap = |i| 1_000 + (-20_000.0 * libm::log(1.0 - uniform(i))) as i64;
        (0..calls)
            .map(|i| {
                at += gap(i);
                at
            })
            .collect()
    }

    #[test]
    fn equal_gaps_are_a_rhythm_after_six_periods_and_never_before() {
        let answers = answers((0..20).map(|i| 137 + i * 9_000 + i % 3 * 200));
        assert!(answers[..6].iter().all(Option::is_none));
        let (place, deviation) = first_rhythmic(&answers).expect("a rhythm");
        assert_eq!(place, 6);
        assert!((deviation.observed - 9.0).abs() < 0.5 && deviation.n == 6.0, "{deviation:?}");
    }

    #[test]
    fn a_connection_that_is_tried_again_after_some_seconds_keeps_its_rhythm() {
        // NjRAT without a server: a connection every 23 s, and each tried once more after 9 s.
        let answers = answers((0..30).map(|i| 274 + i / 2 * 23_000 + i % 2 * 9_000));
        let (place, deviation) = first_rhythmic(&answers).expect("a rhythm");
        assert!(place <= 20, "within ten periods: call {place}");
        assert!((deviation.observed - 23.0).abs() < 1.0, "{deviation:?}");
    }

    #[test]
    fn retries_within_a_second_are_one_call() {
        let answers = answers((0..45).map(|i| 137 + i / 3 * 30_000 + i % 3 * 250));
        let (place, deviation) = first_rhythmic(&answers).expect("a rhythm");
        assert_eq!((place, deviation.n), (18, 6.0), "the first call of the seventh");
    }

    #[test]
    fn calls_by_chance_have_no_rhythm() {
        let rhythmic = (0..200).filter(|&salt| first_rhythmic(&answers(by_chance(40, salt))).is_some()).count();
        assert!(rhythmic <= 20, "{rhythmic} of 200 edges with 33 opinions each");
    }

    #[test]
    fn a_clock_of_whole_minutes_makes_no_rhythm() {
        assert_eq!(first_rhythmic(&answers((0..60).map(|i| i * 60_000))), None);
        assert_eq!(first_rhythmic(&answers((0..60).map(|i| i * 3_000))), None, "nor one of whole seconds");
        assert!(first_rhythmic(&answers((0..60).map(|i| i * 1_200_000))).is_some(), "20 minutes can be told");
        assert!(first_rhythmic(&answers((0..60).map(|i| i * 30_000))).is_some());
    }

    #[test]
    fn what_only_goes_on_or_began_before_is_no_call_of_the_rhythm() {
        let mut rhythm = Rhythm::default();
        for i in 0..10 {
            rhythm.learn_one(&at(137 + i * 9_000));
        }
        let before = rhythm.clone();
        let goes_on = Observation { more: 0.0, ..at(200_000) };
        let long = Observation { duration_ns: Some(190_000_000_000), ..at(200_000) };
        for seen in [goes_on, long] {
            assert_eq!(rhythm.score_one(&seen), None);
        }
        rhythm.learn_one(&goes_on);
        assert_eq!(rhythm, before);
    }

    #[test]
    fn gaps_that_are_not_equal_are_no_opinion_and_a_sample_all_the_same() {
        let mut rhythm = Rhythm::default();
        let calls = by_chance(60, 3);
        assert!(calls.iter().all(|&call| rhythm.score_one(&at(call)).is_none()));
        let samples: Vec<f64> = calls.iter().filter_map(|&call| rhythm.learn_one(&at(call))).collect();
        assert!(samples.len() > 5 && samples.iter().all(|x| (1.0..RHYTHMIC).contains(x)), "{samples:?}");
    }
}
