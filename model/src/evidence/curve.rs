//! The measured curve of episodes: how often evidence of a height occurs by chance in this mesh.
//!
//! Multiplying over minutes is not valid for service traffic, which is autocorrelated (it missed the budget by up
//! to 4,600 times in the prototype). So thresholds are not computed from a theorem but read where the measured
//! rate of episodes equals the budget.

use std::{collections::VecDeque, sync::LazyLock};

use serde::{Deserialize, Serialize};

use super::Climb;
use crate::{
    stats::Bins,
    time::{Span, Timestamp},
};

const STEP: f64 = 0.04;
const LEVELS: usize = 200;
const DAYS: usize = 21;
/// A day counts at most twice the median day plus this, so that an attack does not buy the attacker room.
const DAY_SLACK: f64 = 4.0;
const DAYS_BEFORE_CAPPING: usize = 4;
/// The curve is read directly where it rests on this many episodes.
const READABLE: f64 = 10.0;
/// Beyond, a Hill tail, stretched by this: the estimate from ten episodes is uncertain, and to one side costly.
const CAUTION: f64 = 1.25;
/// How many episodes a day the identities that had one may stand for on average: the budget counts entries, and an
/// identity may enter again on the same day, but one noisy tenant must not steer the curve.
const MOST_REPEATS: f64 = 2.0;
/// No threshold is lower, whatever a contaminated curve says.
const LEAST_THRESHOLD: f64 = 2.0;

/// Level of the curve that evidence `m` reaches: steps of 0.04 in `ln(1 + m)`; 0 is none. Looked up: it is asked of every
/// event that moves the evidence.
#[inline]
pub fn level_of(m: f64) -> u16 {
    if m.is_nan() || m <= 0.0 {
        return 0;
    }
    let ladder = &*LADDER;
    let mut level = usize::from(ladder.begin[Bins::locate(1.0 + m).0]);
    while level + 1 < LEVELS && m >= ladder.edges[level + 1] {
        level += 1;
    }
    level as u16
}

/// Where the levels begin.
struct Ladder {
    /// The least evidence of each level.
    edges: Vec<f64>,
    /// By the bin of `1 + m`: a level that is reached, at most a few below the highest.
    begin: Vec<u8>,
}

static LADDER: LazyLock<Ladder> = LazyLock::new(|| {
    let level = |m: f64| ((libm::log1p(m) / STEP) as usize).min(LEVELS - 1);
    let edges = (0..LEVELS).map(|reached| least(|m| level(m) >= reached)).collect();
    // `1 + m` may have been rounded up into its bin: one level below is reached in any case.
    let begin = (0..Bins::COUNT).map(|bin| level(Bins::edge(bin) - 1.0).saturating_sub(1) as u8).collect();
    Ladder { edges, begin }
});

/// The least number from 0 on for which `holds`, which goes on to hold from there. The bits of positive numbers are in
/// their order.
fn least(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut below, mut found) = (0, f64::MAX.to_bits());
    while below < found {
        let middle = below + (found - below) / 2;
        (below, found) = if holds(f64::from_bits(middle)) { (below, middle) } else { (middle + 1, found) };
    }
    f64::from_bits(found)
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Day {
    index: i64,
    /// Identities with an episode of each height.
    reached: Vec<u32>,
    /// Episodes of each height.
    episodes: Vec<u32>,
}

/// Episodes by the height they reached, day by day, over the last 21 days.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EpisodeCurve {
    days: VecDeque<Day>,
    #[serde(skip)]
    read: Read,
}

/// The episodes by height as they were read last, so that only heights with a new one are read again.
#[derive(Debug, Clone, Default)]
struct Read {
    /// The first day, and how many.
    of: Option<(i64, usize)>,
    episodes: Vec<f64>,
    /// Heights from here on are as they were.
    fresh_from: usize,
}

impl PartialEq for Read {
    /// What was read follows from the days.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The curve as it reads at one time: entries a day by height.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    per_day: Vec<f64>,
    episodes: Vec<f64>,
    days: f64,
    readable: usize,
    excess: f64,
}

impl EpisodeCurve {
    /// Counts the levels that an episode newly passed.
    pub fn add(&mut self, climb: Climb) {
        let position = self.days.iter().position(|day| day.index >= climb.day).unwrap_or(self.days.len());
        if self.days.get(position).is_none_or(|day| day.index != climb.day) {
            self.days.insert(position, Day { index: climb.day, reached: vec![0; LEVELS], episodes: vec![0; LEVELS] });
        }
        let day = &mut self.days[position];
        let upto = usize::from(climb.upto);
        day.reached[usize::from(climb.after) + 1..=upto].iter_mut().for_each(|count| *count += 1);
        day.episodes[usize::from(climb.begun) + 1..=upto].iter_mut().for_each(|count| *count += 1);
        self.read.fresh_from = self.read.fresh_from.max(upto + 1);
        while self.days.len() > DAYS + 1 {
            self.days.pop_front();
            self.read.of = None;
        }
    }

    /// The curve at `now` for a mesh born at `birth`.
    pub fn rates(&mut self, birth: Timestamp, now: Timestamp) -> Rates {
        let first = (now.window(Span::DAY) - DAYS as i64 + 1).max(birth.window(Span::DAY));
        let since = birth.max(Timestamp(first * Span::DAY.0));
        let days = ((now - since).0 as f64 / Span::DAY.0 as f64).max(1.0 / 24.0);
        let counted: Vec<&Day> = self.days.iter().filter(|day| day.index >= first).collect();
        let spanned = (now.window(Span::DAY) - first + 1).max(1) as usize;
        if self.read.of != Some((first, spanned)) {
            self.read = Read { of: Some((first, spanned)), episodes: vec![0.0; LEVELS], fresh_from: LEVELS };
        }
        let mut counts = Vec::with_capacity(spanned.max(counted.len()));
        let mut sum = |level: usize, of: fn(&Day) -> &Vec<u32>| {
            counts.clear();
            counts.extend(counted.iter().map(|day| of(day)[level]));
            capped_sum(&mut counts, spanned)
        };
        for level in 0..self.read.fresh_from {
            self.read.episodes[level] =
                sum(level, |day| &day.episodes).min(MOST_REPEATS * sum(level, |day| &day.reached));
        }
        self.read.fresh_from = 0;
        let episodes = self.read.episodes.clone();
        let per_day = episodes.iter().map(|count| count / days).collect();
        let readable = (1..LEVELS).rev().find(|&level| episodes[level] >= READABLE).unwrap_or(0);
        let beyond: f64 = episodes[readable + 1..].iter().sum();
        let excess = if readable == 0 { 0.0 } else { CAUTION * STEP * (beyond / episodes[readable] + 0.5) };
        Rates { per_day, episodes, days, readable, excess }
    }
}

/// The sum of a level's counts, each day capped at twice the median day plus four once there are four days.
fn capped_sum(counts: &mut Vec<u32>, spanned: usize) -> f64 {
    let sum: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    // No cap is below the slack.
    if spanned < DAYS_BEFORE_CAPPING || counts.iter().all(|&count| f64::from(count) <= DAY_SLACK) {
        return sum as f64;
    }
    counts.resize(spanned.max(counts.len()), 0);
    let middle = counts.len() / 2;
    let idle = counts.iter().filter(|&&count| count == 0).count();
    let median = if idle > middle { 0 } else { *counts.select_nth_unstable(middle).1 };
    let cap = 2.0 * f64::from(median) + DAY_SLACK;
    counts.iter().map(|&count| f64::from(count).min(cap)).sum()
}

impl Rates {
    /// Whether ten episodes were seen at all, so that a threshold can be read.
    pub fn is_readable(&self) -> bool {
        self.readable > 0
    }

    /// Evidence `m` that is reached `budget` times a day by chance; `None` where the curve cannot be read.
    pub fn threshold(&self, budget: f64) -> Option<f64> {
        if !self.is_readable() || budget.is_nan() || budget <= 0.0 {
            return None;
        }
        let y = match (1..=self.readable).find(|&level| self.per_day[level] <= budget) {
            Some(level) => level as f64 * STEP,
            None => {
                let from = self.per_day[self.readable];
                (self.readable as f64 * STEP) + self.excess * libm::log(from / budget)
            }
        };
        Some(libm::expm1(y).max(LEAST_THRESHOLD))
    }

    /// How often a day evidence `m` is reached by chance; half an episode over the whole time where nothing is known.
    pub fn per_day(&self, m: f64) -> f64 {
        let level = usize::from(level_of(m));
        if !self.is_readable() {
            return self.episodes.get(level).map_or(0.5, |count| count.max(0.5)) / self.days.max(1.0 / 24.0);
        }
        if level <= self.readable {
            return self.per_day[level.max(1)];
        }
        let beyond = libm::log1p(m) - self.readable as f64 * STEP;
        self.per_day[self.readable] * libm::exp(-beyond / self.excess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIRTH: Timestamp = Timestamp(0);

    fn day(index: i64) -> Timestamp {
        Timestamp(index * Span::DAY.0)
    }

    /// `n` episodes a day at each of the heights given, for `days` days.
    fn curve(days: i64, heights: &[(f64, u32)]) -> EpisodeCurve {
        let mut curve = EpisodeCurve::default();
        for index in 0..days {
            for &(height, n) in heights {
                for _ in 0..n {
                    curve.add(Climb { day: index, begun: 0, after: 0, upto: level_of(height) });
                }
            }
        }
        curve
    }

    #[test]
    fn the_threshold_is_where_the_curve_equals_the_budget() {
        let rates = curve(10, &[(3.0, 50), (8.0, 10), (20.0, 1)]).rates(BIRTH, day(10));
        let threshold = rates.threshold(10.0).expect("readable");
        assert!(threshold > 3.0 && threshold <= 8.5, "{threshold}");
        assert!(rates.per_day(threshold) <= 11.1);
    }

    #[test]
    fn a_rarer_budget_never_has_a_lower_threshold() {
        let rates = curve(10, &[(3.0, 50), (8.0, 10), (20.0, 1)]).rates(BIRTH, day(10));
        let thresholds: Vec<_> = [10.0, 1.0, 1.0 / 7.0, 1.0 / 30.0].iter().map(|&b| rates.threshold(b)).collect();
        assert!(thresholds.is_sorted(), "{thresholds:?}");
    }

    #[test]
    fn a_curve_read_again_is_the_one_read_for_the_first_time() {
        let mut curve = EpisodeCurve::default();
        for step in 0_u16..400 {
            let index = i64::from(step / 40);
            curve.add(Climb { day: index, begun: 0, after: step % 3, upto: 3 + step * 7 % 90 });
            let mut anew = EpisodeCurve { days: curve.days.clone(), ..EpisodeCurve::default() };
            assert_eq!(curve.rates(BIRTH, day(index)), anew.rates(BIRTH, day(index)));
        }
    }

    #[test]
    fn a_level_begins_where_its_logarithm_does() {
        let by_logarithm = |m: f64| ((libm::log1p(m) / STEP) as usize).min(LEVELS - 1) as u16;
        for edge in &LADDER.edges {
            for m in [edge.next_down(), *edge, edge.next_up(), 1.01 * edge, 0.99 * edge] {
                assert_eq!(level_of(m), if m > 0.0 { by_logarithm(m) } else { 0 }, "{m:e}");
            }
        }
        for exponent in -60..60 {
            let m = libm::exp2(f64::from(exponent));
            assert_eq!(level_of(m), by_logarithm(m), "{m:e}");
            assert_eq!(level_of(m.next_down()), by_logarithm(m.next_down()), "{m:e}");
        }
        assert_eq!((level_of(f64::INFINITY), level_of(f64::NAN), level_of(-1.0)), (199, 0, 0));
    }

    #[test]
    fn what_cannot_be_read_has_no_threshold() {
        let rates = curve(1, &[(3.0, 9)]).rates(BIRTH, day(1));
        assert_eq!(rates.threshold(1.0), None);
    }

    #[test]
    fn one_wild_day_does_not_buy_the_attacker_room() {
        let mut calm = curve(10, &[(3.0, 12)]);
        let mut wild = calm.clone();
        for _ in 0..500 {
            wild.add(Climb { day: 9, begun: 0, after: 0, upto: level_of(30.0) });
        }
        let (calm, wild) = (calm.rates(BIRTH, day(10)), wild.rates(BIRTH, day(10)));
        let (before, after) = (calm.threshold(1.0).expect("readable"), wild.threshold(1.0).expect("readable"));
        assert!(after < 4.0 * before, "{before} {after}");
    }
}
