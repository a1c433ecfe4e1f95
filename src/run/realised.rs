//! Entries into each level as they were decided, counted over the last seven days: what the budget has come to, beside what
//! the measured curve says of it. The journal has all of them, so that a restart counts on from there.

use std::collections::VecDeque;

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::verdict::{Cause, Verdict};

/// Over which it is counted; hour by hour, so that it is bounded.
pub(crate) const WINDOW: Span = Span(7 * Span::DAY.0);
/// A shorter time says nothing about a day.
const LEAST: Span = Span::HOUR;
/// As many entries as this are by chance in 95 of 100 windows.
const BY_CHANCE: f64 = 0.95;
/// Greatest number of expected entries whose quantile is summed up; beyond, the normal distribution is as good.
const SUMMED: f64 = 500.0;

/// One hour's entries into each level.
#[derive(Debug, Clone, Copy)]
struct Hour {
    hour: i64,
    entries: [u32; Level::ALL.len()],
}

/// Entries by hour of wall time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Realised {
    hours: VecDeque<Hour>,
    /// The earliest that is known of.
    since: Option<Timestamp>,
}

/// What it has come to for one level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Counted {
    /// Entries in the window.
    pub(crate) entries: u64,
    /// How much of it is known.
    pub(crate) window: Span,
}

impl Realised {
    /// It is known from then on what was decided.
    pub(crate) fn known_since(&mut self, time: Timestamp) {
        self.since = Some(self.since.map_or(time, |since| since.min(time)));
    }

    /// Counts a decision, where evidence has led to a higher level: an entry into it, and into all that were passed. What
    /// was decided on history is none, nor what an operator has set.
    pub(crate) fn note(&mut self, verdict: &Verdict) {
        if verdict.cause != Cause::Evidence || verdict.historic || verdict.level <= verdict.previous {
            return;
        }
        self.known_since(verdict.decided);
        let hour = verdict.decided.window(Span::HOUR);
        let place = match self.hours.iter().rposition(|of| of.hour <= hour) {
            Some(place) if self.hours[place].hour == hour => place,
            // A clock that was set back makes an hour before others.
            place => {
                let place = place.map_or(0, |place| place + 1);
                self.hours.insert(place, Hour { hour, entries: [0; Level::ALL.len()] });
                place
            }
        };
        for level in Level::BY_BEHAVIOUR.into_iter().filter(|of| (verdict.previous..=verdict.level).contains(of)) {
            if level > verdict.previous {
                self.hours[place].entries[level as usize] += 1;
            }
        }
        let oldest = verdict.decided.window(Span::HOUR) - WINDOW.0 / Span::HOUR.0;
        while self.hours.front().is_some_and(|of| of.hour < oldest) {
            self.hours.pop_front();
        }
    }

    /// Entries into a level within the last seven days at `now`, or since anything is known; `None` before an hour has
    /// passed.
    pub(crate) fn of(&self, level: Level, now: Timestamp) -> Option<Counted> {
        let known = Span((now - self.since?).0.min(WINDOW.0));
        if known < LEAST {
            return None;
        }
        let oldest = (now - WINDOW).window(Span::HOUR);
        let within = self.hours.iter().filter(|of| of.hour > oldest);
        let entries = within.map(|of| u64::from(of.entries[level as usize])).sum();
        Some(Counted { entries, window: known })
    }
}

impl Counted {
    /// The time in days.
    fn days(self) -> f64 {
        self.window.as_seconds() / Span::DAY.as_seconds()
    }

    /// Entries a day.
    pub(crate) fn per_day(self) -> f64 {
        self.entries as f64 / self.days()
    }

    /// The greatest number of entries that chance explains at a budget of so many a day: the 95 % quantile of the Poisson
    /// distribution of `budget × days`.
    pub(crate) fn by_chance(self, budget: f64) -> u64 {
        let mean = budget * self.days();
        if mean > SUMMED {
            // 1.645 standard deviations, and half a step.
            return (mean + 1.645 * mean.sqrt() + 0.5).floor() as u64;
        }
        let (mut k, mut term) = (0, (-mean).exp());
        let mut sum = term;
        while sum < BY_CHANCE {
            k += 1;
            term *= mean / k as f64;
            sum += term;
        }
        k
    }

    /// What it has come to, for people; whether it is more than the budget explains.
    pub(crate) fn told(self, level: Level, budget: f64) -> (String, bool) {
        let most = self.by_chance(budget);
        let (entries, days, per_day) = (self.entries, self.days(), self.per_day());
        let text = format!(
            "{level}: {entries} entries in the last {days:.1} days, {per_day:.2} a day; the budget is {budget:.3} a day"
        );
        match entries > most {
            false => (text, false),
            true => {
                let why = "attacks, a change that nobody announced, or a budget that is not kept: `qualm list` and `qualm \
                           explain` say which";
                (format!("{text}, which explains {most} at most (95 %): {why}"), true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::tests::verdict;

    fn at(hours: i64) -> Timestamp {
        Timestamp(hours * Span::HOUR.0)
    }

    fn entry(hour: i64, previous: Level, level: Level, cause: Cause) -> Verdict {
        Verdict { decided: at(hour), ..verdict(1, previous, level, cause) }
    }

    #[test]
    fn an_entry_counts_for_its_level_and_those_that_were_passed_and_renewals_for_none() {
        let mut realised = Realised::default();
        realised.note(&entry(0, Level::Trusted, Level::Throttled, Cause::Evidence));
        realised.note(&entry(1, Level::Throttled, Level::Quarantined, Cause::Evidence));
        realised.note(&entry(2, Level::Quarantined, Level::Quarantined, Cause::Renewed));
        realised.note(&entry(3, Level::Quarantined, Level::Trusted, Cause::Lease));
        realised.note(&entry(3, Level::Trusted, Level::Watched, Cause::Ordered));
        realised.note(&Verdict { historic: true, ..entry(3, Level::Trusted, Level::Watched, Cause::Evidence) });
        let entries = Level::BY_BEHAVIOUR.map(|level| realised.of(level, at(48)).map(|of| (of.entries, of.days())));
        assert_eq!(entries, [Some((1, 2.0)); 4]);
    }

    #[test]
    fn what_is_older_than_a_week_counts_no_more_and_the_first_hour_says_nothing() {
        let mut realised = Realised::default();
        realised.note(&entry(0, Level::Trusted, Level::Watched, Cause::Evidence));
        assert_eq!(realised.of(Level::Watched, at(0)), None);
        let of = |realised: &Realised, hours| realised.of(Level::Watched, at(hours)).map(|of| (of.entries, of.days()));
        assert_eq!(of(&realised, 24 * 7 - 1).map(|of| of.0), Some(1));
        assert_eq!(of(&realised, 24 * 7 + 1), Some((0, 7.0)));
        (0..10_000).for_each(|n| realised.note(&entry(n, Level::Trusted, Level::Watched, Cause::Evidence)));
        assert!(realised.hours.len() <= 24 * 7 + 1, "{}", realised.hours.len());
        assert_eq!(of(&realised, 10_000), Some((24 * 7 - 1, 7.0)));
    }

    #[test]
    fn more_entries_than_the_budget_explains_are_told() {
        let of = |entries, days: f64| Counted { entries, window: Span((days * Span::DAY.0 as f64) as i64) };
        assert_eq!((of(0, 7.0).by_chance(0.01), of(0, 7.0).by_chance(1.0), of(0, 7.0).by_chance(10.0)), (1, 12, 84));
        assert_eq!(of(0, 7.0).by_chance(1000.0), 7138);
        assert!(!of(84, 7.0).told(Level::Watched, 10.0).1);
        let (text, is_more) = of(85, 7.0).told(Level::Watched, 10.0);
        assert!(
            is_more && text.contains("85 entries in the last 7.0 days, 12.14 a day") && text.contains("84 at most"),
            "{text}"
        );
    }
}
