//! Whether bits mean what they say, on what is harmless.
//!
//! - `score_bits` are the logarithm of an e-value: by Markov's inequality at most `2^-b` of the usual events may have `b`
//!   bits or more.
//! - `identity_bits` are `log2(N · 1440 / rate)`: with `N` identities, evidence of `b` bits is to be reached anew
//!   `N · 1440 · 2^-b` times a day by each of the two clocks, of which the column shows the further one: so often, and at
//!   most twice as often. What is shown of no evidence at all is a bound from below, and nothing is said of what lies under
//!   it.
//! - A budget is what the operator was promised.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::Entry;
use crate::{
    labels::{GRACE, Labels},
    ranking::Usual,
    scores::{Row, Scores},
    table::{figure, table},
};

/// Bits at which events are looked at.
const EVENT_BITS: [u32; 9] = [1, 2, 4, 6, 8, 10, 12, 16, 20];
/// Bits at which evidence is looked at.
const EVIDENCE_BITS: [u32; 8] = [8, 10, 12, 14, 16, 18, 20, 24];
/// Evidence that was as high so shortly before is not reached anew.
const ANEW: Span = Span(30 * Span::MINUTE.0);

/// What was expected, and what was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// Share of harmless events with so many `score_bits` or more.
    pub(crate) events: Vec<Point>,
    /// How often a day `identity_bits` of harmless sources reach so many.
    pub(crate) evidence: Vec<Point>,
    /// Entries a day that belong to no label.
    pub(crate) budget: Vec<OfLevel>,
}

/// One point of a calibration curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) bits: u32,
    pub(crate) expected: f64,
    pub(crate) seen: f64,
}

/// One level and its budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OfLevel {
    pub(crate) level: Level,
    pub(crate) armed: bool,
    pub(crate) budget_per_day: f64,
    pub(crate) entries_per_day: f64,
}

/// The part of `report.json` that is read.
#[derive(Deserialize)]
struct Report {
    days: f64,
    levels: Vec<ReportLevel>,
}

#[derive(Deserialize)]
struct ReportLevel {
    level: Level,
    armed: bool,
    budget_per_day: f64,
}

/// How often the evidence on harmless sources has reached so many bits.
#[derive(Debug, Default)]
struct Reached {
    source: String,
    /// When the source at hand was last at so many bits or above.
    last: [Option<Timestamp>; EVIDENCE_BITS.len()],
    counts: [u64; EVIDENCE_BITS.len()],
    /// The least evidence shown.
    least: Option<f64>,
    /// When each source was first seen.
    firsts: Vec<Timestamp>,
    begin: Option<Timestamp>,
    end: Option<Timestamp>,
}

impl Calibration {
    /// Of one run.
    ///
    /// # Errors
    /// `report.json` is missing or not `backtest`'s.
    pub(crate) fn of(scores: &Scores, usual: &Usual, labels: &Labels, out: &Path, entries: &[Entry]) -> Result<Self> {
        let mut reached = Reached::default();
        scores.by_source(&mut |row| reached.see(row, labels))?;
        let events = EVENT_BITS.map(|bits| Point {
            bits,
            expected: 0.5_f64.powi(bits as i32),
            seen: usual.share_from(f64::from(bits)),
        });
        let path = out.join("report.json");
        let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let report: Report =
            serde_json::from_str(&text).with_context(|| format!("{}: not a report of backtest", path.display()))?;
        let is_outside = |entry: &&Entry| labels.about(&entry.identity, entry.time, GRACE).next().is_none();
        let outside: Vec<&Entry> = entries.iter().filter(is_outside).collect();
        let per_day = |level: Level| {
            let count = outside.iter().filter(|entry| entry.level >= level).count();
            count as f64 / report.days.max(f64::MIN_POSITIVE)
        };
        let budget = report.levels.iter().map(|of| OfLevel {
            level: of.level,
            armed: of.armed,
            budget_per_day: of.budget_per_day,
            entries_per_day: per_day(of.level),
        });
        Ok(Self { events: events.to_vec(), evidence: reached.points(), budget: budget.collect() })
    }

    /// As tables.
    pub(crate) fn told(&self) -> String {
        let share = |value: f64| format!("{value:.2e}");
        let points = |of: &[Point]| -> Vec<Vec<String>> {
            of.iter().map(|p| vec![p.bits.to_string(), share(p.expected), share(p.seen)]).collect()
        };
        let levels: Vec<Vec<String>> = self
            .budget
            .iter()
            .map(|of| {
                let ratio = of.armed.then(|| of.entries_per_day / of.budget_per_day);
                let rates = [figure(Some(of.budget_per_day), 3), figure(Some(of.entries_per_day), 3)];
                [of.level.to_string()].into_iter().chain(rates).chain([figure(ratio, 2)]).collect()
            })
            .collect();
        [
            table(&["harmless events from … bits", "at most", "share seen"], &points(&self.events)),
            table(&["evidence reaching … bits", "expected a day", "seen"], &points(&self.evidence)),
            table(&["level", "budget a day", "entries outside of labels", "ratio"], &levels),
        ]
        .join("\n\n")
    }
}

impl Reached {
    fn see(&mut self, row: Row<'_>, labels: &Labels) {
        if row.source != self.source {
            row.source.clone_into(&mut self.source);
            self.last = Default::default();
            self.firsts.push(row.time);
        }
        self.begin = Some(self.begin.map_or(row.time, |begin| begin.min(row.time)));
        self.end = self.end.max(Some(row.time));
        self.least = Some(self.least.map_or(row.evidence, |least| least.min(row.evidence)));
        let places = EVIDENCE_BITS.iter().take_while(|&&bits| row.evidence >= f64::from(bits)).count();
        let is_new = |last: &Option<Timestamp>| last.is_none_or(|last| row.time - last > ANEW);
        // Only where one is reached anew the labels are asked.
        let is_harmless = self.last[..places].iter().any(is_new)
            && row.kind == 0
            && labels.about(row.source, row.time, GRACE).next().is_none();
        for (last, count) in self.last.iter_mut().zip(&mut self.counts).take(places) {
            *count += u64::from(is_harmless && is_new(last));
            *last = Some(row.time);
        }
    }

    /// Expected is what the identities known at each time make it.
    fn points(&self) -> Vec<Point> {
        let (Some(begin), Some(end)) = (self.begin, self.end) else { return Vec::new() };
        let days = ((end - begin).as_seconds() / 86_400.0).max(f64::MIN_POSITIVE);
        let known_days: f64 = self.firsts.iter().map(|&first| (end - first).as_seconds() / 86_400.0).sum();
        let known = known_days / days;
        let point = |(&bits, &count): (&u32, &u64)| Point {
            bits,
            expected: known * 1440.0 * 0.5_f64.powi(bits as i32),
            seen: count as f64 / days,
        };
        let is_told = |(bits, _): &(&u32, &u64)| self.least.is_some_and(|least| f64::from(**bits) > least);
        EVIDENCE_BITS.iter().zip(&self.counts).filter(is_told).map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_that_stays_high_is_reached_once() {
        let mut reached = Reached::default();
        let labels = Labels::default();
        for (minute, evidence) in [(0, 9.0), (10, 12.5), (20, 9.0), (80, 9.0), (1440, 0.0)] {
            let row = Row { time: Timestamp(Span::MINUTE.0 * minute), source: "a", evidence, kind: 0 };
            reached.see(row, &labels);
        }
        let points = reached.points();
        assert_eq!((points[0].bits, points[0].seen), (8, 2.0));
        assert_eq!((points[2].bits, points[2].seen), (12, 1.0));
        // One identity for a day: 1,440 minutes, one in 256 of them.
        assert!((points[0].expected - 1440.0 / 256.0).abs() < 1e-9);
    }

    #[test]
    fn evidence_on_an_attack_is_not_counted() {
        let mut reached = Reached::default();
        reached.see(Row { time: Timestamp(0), source: "a", evidence: 30.0, kind: 1 }, &Labels::default());
        assert!(reached.counts.iter().all(|&count| count == 0));
    }
}
