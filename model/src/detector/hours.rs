//! Does it call at an hour at which it never calls?

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation};
use crate::time::Span;

const HOURS: usize = 24;
/// Fewer days with calls are no ground for an opinion.
const LEAST_DAYS: u16 = 5;
/// After so many days all counts are halved: what was usual two months ago is half forgotten.
const HALVE_AT: u16 = 64;

/// The hours of the day (UTC) in which a source calls, over the days on which it did.
///
/// With calls in `k` of `n` such days within this hour or a neighbouring one, `x = (n + 1)/(k + 1)`, Laplace's rule. The
/// neighbours keep a shift by daylight saving, and a job that is late, from being news. A day counts when it has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    day: i64,
    /// A bit for every hour of that day with calls.
    today: u32,
    days: u16,
    active: [u8; HOURS],
}

impl Hours {
    fn x(&self, seen: &Observation) -> Option<f64> {
        if self.days < LEAST_DAYS {
            return None;
        }
        let hour = seen.exposure.now.window(Span::HOUR).rem_euclid(HOURS as i64) as usize;
        let around = [hour + HOURS - 1, hour, hour + 1].map(|hour| self.active[hour % HOURS]);
        let usual = around.into_iter().max().unwrap_or_default();
        Some((f64::from(self.days) + 1.0) / (f64::from(usual) + 1.0))
    }

    fn end_day(&mut self) {
        for (hour, days) in self.active.iter_mut().enumerate() {
            *days += u8::from(self.today & (1 << hour) != 0);
        }
        self.days += 1;
        if self.days >= HALVE_AT {
            self.days /= 2;
            self.active.iter_mut().for_each(|days| *days /= 2);
        }
    }
}

impl Detector for Hours {
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        let x = self.x(seen)?;
        Some(Deviation { x: x.max(1.0), observed: 1.0, expected: 1.0 / x.max(1.0), n: f64::from(self.days) })
    }

    /// Learns a minute with calls; its surprise is the sample.
    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        let sample = self.x(seen).map(|x| x.max(1.0));
        let day = seen.exposure.now.window(Span::DAY);
        if day > self.day {
            if self.today != 0 {
                self.end_day();
            }
            (self.day, self.today) = (day, 0);
        }
        self.today |= 1 << seen.exposure.now.window(Span::HOUR).rem_euclid(HOURS as i64);
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{stats::Exposure, time::Timestamp};

    fn at(day: i64, hour: i64) -> Observation {
        let now = Timestamp(day * Span::DAY.0 + hour * Span::HOUR.0);
        Observation::at(Exposure { birth: Timestamp(0), now, tide: 1.0 })
    }

    fn nightly_job(days: i64) -> Hours {
        let mut hours = Hours::default();
        for day in 1..=days {
            hours.learn_one(&at(day, 2));
        }
        hours
    }

    #[test]
    fn a_nightly_job_at_noon_is_news_and_an_hour_late_it_is_not() {
        let hours = nightly_job(14);
        let x = |hour| hours.score_one(&at(15, hour)).expect("two weeks are known").x;
        assert_eq!((x(2), x(3), x(1)), (1.0, 1.0, 1.0));
        assert_eq!(x(12), 14.0);
    }

    #[test]
    fn there_is_no_opinion_before_five_days() {
        assert_eq!(nightly_job(5).score_one(&at(6, 12)), None, "the fifth day has not ended");
        assert!(nightly_job(6).score_one(&at(7, 12)).is_some());
    }

    #[test]
    fn counts_are_bounded() {
        let hours = nightly_job(10_000);
        assert!(hours.days < HALVE_AT && hours.active.iter().all(|&days| u16::from(days) <= hours.days));
    }
}
