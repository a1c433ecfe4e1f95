//! Evidence over time: two clocks an identity.

use serde::{Deserialize, Serialize};

use super::level_of;
use crate::time::{Span, Timestamp};

/// Bits a minute that the slow clock takes at most: one wild minute alone quarantines nobody.
pub const SLOW_CEILING: f64 = 8.0;
/// An episode runs from here until the clock has fallen below again.
const EPISODE_FLOOR: f64 = 0.5;

/// Which of the two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pace {
    /// The greatest minute, half-life 5 minutes: for *watched* and *throttled*.
    Fast,
    /// The sum of minutes, at most 8 bits each, half-life 30 minutes: alone may lead further.
    Slow,
}

impl Pace {
    fn half_life(self) -> Span {
        match self {
            Self::Fast => Span(5 * Span::MINUTE.0),
            Self::Slow => Span(30 * Span::MINUTE.0),
        }
    }

    /// What evidence `m` becomes with a minute's `z` bits in it.
    #[inline]
    pub fn advance(self, m: f64, z: f64) -> f64 {
        match self {
            Self::Fast => m.max(z),
            Self::Slow => (m + z.min(SLOW_CEILING)).max(0.0),
        }
    }
}

/// Levels of the episode curve that an episode newly passed: `begun < level ≤ upto`, and for the first time that day
/// `after < level ≤ upto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Climb {
    /// Day of the passing (days since 1970).
    pub day: i64,
    /// Highest level that this episode passed before.
    pub begun: u16,
    /// Highest level that the identity passed before on that day, this episode or another; at most `upto`.
    pub after: u16,
    /// Highest level passed now.
    pub upto: u16,
}

/// Evidence of one identity at one pace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    m: f64,
    at: Timestamp,
    episode_since: Option<Timestamp>,
    peak: u16,
    day: i64,
    /// The highest level that an episode of today passed.
    counted_today: u16,
}

impl Clock {
    /// Evidence at `now`, decayed.
    pub fn at(&self, pace: Pace, now: Timestamp) -> f64 {
        if self.m <= 0.0 {
            return 0.0;
        }
        let halves = (now - self.at).0.max(0) as f64 / pace.half_life().0 as f64;
        self.m * libm::exp2(-halves)
    }

    /// Takes in the `z` bits of a minute that has ended.
    pub fn commit(&mut self, pace: Pace, now: Timestamp, z: f64) {
        self.m = pace.advance(self.at(pace, now), z);
        self.at = now.max(self.at);
    }

    /// Follows the episode to the height `m` that the running minute has reached, from `before`, which is the evidence
    /// at `now` without it; returns the levels it newly passed, for the curve.
    pub fn follow(&mut self, now: Timestamp, before: f64, m: f64) -> Option<Climb> {
        // An episode that had died away between two calls is over: what comes now is a new one. The clock is without the
        // running minute, so an episode that began in it has not died.
        let minute = Timestamp(now.window(Span::MINUTE) * Span::MINUTE.0);
        let began_before = self.episode_since.is_some_and(|since| since < minute);
        if began_before && before < EPISODE_FLOOR {
            self.episode_since = None;
            self.peak = 0;
        }
        if m < EPISODE_FLOOR {
            return None;
        }
        self.episode_since.get_or_insert(now);
        let level = level_of(m);
        if level <= self.peak {
            return None;
        }
        let day = now.window(Span::DAY);
        if day != self.day {
            (self.day, self.counted_today) = (day, 0);
        }
        let begun = self.peak;
        let after = begun.max(self.counted_today).min(level);
        self.peak = level;
        self.counted_today = self.counted_today.max(level);
        Some(Climb { day, begun, after, upto: level })
    }

    /// When the running episode began.
    pub fn episode_since(&self) -> Option<Timestamp> {
        self.episode_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(0);

    fn minutes(n: i64) -> Timestamp {
        NOW + Span(n * Span::MINUTE.0)
    }

    #[test]
    fn the_slow_clock_takes_at_most_eight_bits_a_minute_and_the_fast_one_takes_the_greatest() {
        let (mut slow, mut fast) = (Clock::default(), Clock::default());
        slow.commit(Pace::Slow, NOW, 40.0);
        fast.commit(Pace::Fast, NOW, 40.0);
        assert_eq!((slow.at(Pace::Slow, NOW), fast.at(Pace::Fast, NOW)), (8.0, 40.0));
        assert_eq!(slow.at(Pace::Slow, minutes(30)), 4.0);
        assert_eq!(fast.at(Pace::Fast, minutes(5)), 20.0);
    }

    #[test]
    fn evidence_decays_in_event_time_and_never_grows_by_waiting() {
        let mut clock = Clock::default();
        clock.commit(Pace::Slow, minutes(10), 5.0);
        assert_eq!(clock.at(Pace::Slow, NOW), 5.0, "time before the commit does not raise it");
        assert!(clock.at(Pace::Slow, minutes(100)) < 1.0);
    }

    #[test]
    fn a_second_episode_of_a_day_is_told_from_the_first() {
        let mut clock = Clock::default();
        let follow = |clock: &mut Clock, now, m| clock.follow(now, clock.at(Pace::Fast, now), m);
        let first = follow(&mut clock, NOW, 6.0).expect("a first climb");
        assert_eq!((first.begun, first.after, first.upto), (0, 0, level_of(6.0)));
        assert_eq!(follow(&mut clock, NOW + Span::SECOND, 5.0), None, "the same episode, within its minute");
        clock.commit(Pace::Fast, NOW, 6.0);
        assert_eq!(follow(&mut clock, minutes(1), 5.0), None);
        // The episode dies, a second one of the same day rises as high.
        let second = follow(&mut clock, minutes(200), 6.0).expect("a second climb");
        assert_eq!((second.begun, second.after, second.upto), (0, level_of(6.0), level_of(6.0)));
        let tomorrow = NOW + Span::DAY + Span::HOUR;
        assert_eq!(follow(&mut clock, tomorrow, 6.0).map(|climb| climb.after), Some(0));
    }
}
