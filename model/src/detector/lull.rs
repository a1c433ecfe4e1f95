//! Has it been silent for longer than it ever was? Asked when ten minutes have ended, never by an event.

use serde::{Deserialize, Serialize};

use super::Deviation;
use crate::time::{Span, Timestamp};

/// What is usual on no day of the week is not usual.
const WEEK: Span = Span(7 * Span::DAY.0);
/// Who has been known for less has not shown its nights.
const KNOWN_FOR_HOURS: i64 = 48;
/// Fewer calls than this say nothing about their gaps.
const LEAST_CALLS: f64 = 100.0;
/// Who has been silent for so long is gone, which was told when it began.
const GONE_AFTER: Span = Span::DAY;
/// Shorter gaps are not told apart: nodes ship their logs in turns.
const LEAST_GAP: Span = Span::MINUTE;

/// The longest silences of this week and of the last.
///
/// Of `N` calls at random times the longest gap `g` is `ln N` mean gaps, and one that lasts `r` times as long has the
/// probability `N^(1-r)`: the surprise is `(r - 1) ln N` nats. Whoever rests at night or over the weekend has shown how
/// long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Lull {
    /// The hour since which it is known; 0 is never.
    since: i32,
    week: i32,
    /// Seconds.
    longest: [i32; 2],
}

impl Lull {
    /// Learns that it calls after `rest`.
    #[inline]
    pub fn learn(&mut self, now: Timestamp, rest: Span) {
        // As nearly all calls of whoever is lively: no gap that would ever be asked about.
        if rest.0 > LEAST_GAP.0 || self.since == 0 {
            self.learn_gap(now, rest);
        }
    }

    #[inline(never)]
    fn learn_gap(&mut self, now: Timestamp, rest: Span) {
        let week = now.window(WEEK) as i32;
        if self.since == 0 {
            self.since = now.window(Span::HOUR) as i32;
        }
        if week > self.week {
            self.longest = [0, if week == self.week + 1 { self.longest[0] } else { 0 }];
            self.week = week;
        }
        let seconds = (rest.0 / Span::SECOND.0).clamp(0, i64::from(i32::MAX)) as i32;
        self.longest[0] = self.longest[0].max(seconds);
    }

    /// What it means that it has been silent for `rest` until `now`, with so many calls before; `None` where too little is
    /// known of it, and where it is gone.
    pub fn score(&self, now: Timestamp, rest: Span, calls: f64) -> Option<Deviation> {
        let known = now.window(Span::HOUR) - i64::from(self.since);
        if self.since == 0 || known < KNOWN_FOR_HOURS || calls < LEAST_CALLS || rest > GONE_AFTER {
            return None;
        }
        let longest = match (now - rest).window(WEEK) - i64::from(self.week) {
            ..=0 => self.longest[0].max(self.longest[1]),
            1 => self.longest[0],
            _ => 0,
        };
        let longest = f64::from(longest).max(LEAST_GAP.as_seconds());
        let seconds = rest.as_seconds();
        let surprise = (seconds / longest - 1.0).max(0.0) * libm::log(calls);
        Some(Deviation { x: 1.0 + surprise, observed: seconds, expected: longest, n: calls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The begin of a week.
    const BEGIN: i64 = 2_800 * WEEK.0;

    fn at(hours: f64) -> Timestamp {
        Timestamp(BEGIN + (hours * Span::HOUR.0 as f64) as i64)
    }

    /// A week of a call every six minutes by day, and none from midnight until six.
    fn by_day() -> (Lull, Timestamp) {
        let (mut lull, mut last) = (Lull::default(), at(6.0));
        for call in
            (0..7 * 240).map(|call| at(f64::from(call) * 0.1)).filter(|call| call.0 % Span::DAY.0 >= 6 * Span::HOUR.0)
        {
            lull.learn(call, call - last);
            last = call;
        }
        (lull, last)
    }

    fn x(lull: &Lull, rest: Span, age: Span, calls: f64) -> Option<f64> {
        lull.score(Timestamp(BEGIN) + age, rest, calls).map(|deviation| deviation.x)
    }

    #[test]
    fn a_silence_as_long_as_a_night_is_none_and_one_twice_as_long_is_a_surprise() {
        let (lull, _) = by_day();
        let x = |hours: f64| x(&lull, at(hours) - at(0.0), WEEK, 1_260.0);
        assert_eq!(x(6.0), Some(1.0));
        assert!(x(12.0).is_some_and(|x| x > 7.0), "{:?}", x(12.0));
    }

    #[test]
    fn who_is_known_for_a_day_or_has_hardly_called_is_not_asked_about() {
        let (lull, _) = by_day();
        let long = Span(23 * Span::HOUR.0);
        assert_eq!(x(&lull, long, Span::DAY, 1_260.0), None);
        assert_eq!(x(&lull, long, WEEK, 99.0), None);
        assert!(x(&lull, long, WEEK, 1_260.0).is_some_and(|x| x > 10.0));
    }

    #[test]
    fn who_is_gone_is_not_asked_about_for_ever() {
        let (lull, _) = by_day();
        assert_eq!(x(&lull, Span(Span::DAY.0 + 1), WEEK, 1_260.0), None);
    }

    #[test]
    fn what_was_the_longest_is_forgotten_after_two_weeks() {
        let (mut lull, last) = by_day();
        let days = |days: i64| Span(days * Span::DAY.0);
        lull.learn(last + WEEK, Span(2 * Span::MINUTE.0));
        assert_eq!(x(&lull, Span::HOUR, days(14), 1_260.0), Some(1.0));
        // Whoever calls all the time has no gap to tell of, and two weeks are over all the same.
        assert!(x(&lull, Span::HOUR, days(21), 1_260.0).is_some_and(|x| x > 10.0));
        lull.learn(last + Span(2 * WEEK.0), Span(2 * Span::MINUTE.0));
        assert!(x(&lull, Span::HOUR, days(20), 1_260.0).is_some_and(|x| x > 10.0));
    }
}
