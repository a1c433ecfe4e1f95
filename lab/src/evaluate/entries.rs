//! Who was decided upon, and whether that was an attack: `trust.jsonl` beside the labels.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use qualm_model::{level::Level, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    labels::{GRACE, Labels, time},
    table::{figure, table},
};

/// A step up the ladder on evidence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) time: Timestamp,
    pub(crate) identity: String,
    pub(crate) level: Level,
    /// The question with the most bits.
    pub(crate) detector: Option<String>,
}

/// What became of the labels, and how many entries belong to none. An entry into a level counts for all below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entries {
    pub(crate) labels: usize,
    pub(crate) found: BTreeMap<Level, usize>,
    pub(crate) outside: BTreeMap<Level, usize>,
    pub(crate) by_kind: BTreeMap<String, OfKind>,
}

/// The labels of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OfKind {
    pub(crate) labels: usize,
    pub(crate) found: BTreeMap<Level, usize>,
    /// Median of the seconds from the begin of a label to the first entry, of those that were found.
    pub(crate) delay_s: Option<f64>,
    /// The first reason of the entry that found it, and how often it was that.
    pub(crate) reasons: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Line {
    time: String,
    identity: String,
    level: Level,
    previous: Level,
    cause: String,
    #[serde(default)]
    reasons: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    detector: String,
    bits: f64,
}

/// Steps up on evidence in a `trust.jsonl`.
///
/// # Errors
/// It cannot be read, or a line is none that `backtest` writes.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read; name the directory that backtest wrote", path.display()))?;
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{}, line {}", path.display(), number + 1);
        let line: Line = serde_json::from_str(line).with_context(place)?;
        if line.level <= line.previous || line.cause != "evidence" {
            continue;
        }
        let strongest = line.reasons.into_iter().max_by(|a, b| a.bits.total_cmp(&b.bits));
        entries.push(Entry {
            time: time(&line.time).with_context(place)?,
            identity: line.identity,
            level: line.level,
            detector: strongest.map(|reason| reason.detector),
        });
    }
    Ok(entries)
}

impl Entries {
    /// Lays entries and labels side by side.
    pub(crate) fn of(entries: &[Entry], labels: &Labels) -> Self {
        // Of each label: the first entry into each level.
        let mut first: Vec<[Option<&Entry>; 4]> = vec![[None; 4]; labels.all.len()];
        let mut outside: BTreeMap<Level, usize> = Level::BY_BEHAVIOUR.into_iter().map(|level| (level, 0)).collect();
        for entry in entries {
            let levels = Level::BY_BEHAVIOUR.into_iter().enumerate().filter(|(_, level)| *level <= entry.level);
            let mut is_outside = true;
            for label in labels.about(&entry.identity, entry.time, GRACE) {
                is_outside = false;
                for (place, _) in levels.clone() {
                    first[label][place].get_or_insert(entry);
                }
            }
            if is_outside {
                levels.for_each(|(_, level)| *outside.entry(level).or_default() += 1);
            }
        }
        let mut by_kind: BTreeMap<String, (OfKind, Vec<f64>)> = BTreeMap::new();
        for (label, first) in labels.all.iter().zip(&first) {
            let (of, delays) = by_kind.entry(label.kind.clone()).or_default();
            of.labels += 1;
            for (level, _) in Level::BY_BEHAVIOUR.into_iter().zip(first).filter(|(_, entry)| entry.is_some()) {
                *of.found.entry(level).or_default() += 1;
            }
            if let Some(entry) = first[0] {
                delays.push((entry.time - label.start).as_seconds());
                if let Some(detector) = &entry.detector {
                    *of.reasons.entry(detector.clone()).or_default() += 1;
                }
            }
        }
        let found = |place: usize| first.iter().filter(|first| first[place].is_some()).count();
        Self {
            labels: labels.all.len(),
            found: Level::BY_BEHAVIOUR.into_iter().enumerate().map(|(place, level)| (level, found(place))).collect(),
            outside,
            by_kind: by_kind.into_iter().map(|(kind, (of, delays))| (kind, of.with(delays))).collect(),
        }
    }

    /// As a table.
    pub(crate) fn told(&self) -> String {
        let counts = |of: &BTreeMap<Level, usize>| {
            Level::BY_BEHAVIOUR.map(|level| of.get(&level).copied().unwrap_or(0).to_string()).to_vec()
        };
        let line = |name: &str, labels: String, of: &BTreeMap<Level, usize>, delay: Option<f64>, reason: &str| {
            let mut line = vec![name.to_owned(), labels];
            line.extend(counts(of));
            line.extend([figure(delay, 0), reason.to_owned()]);
            line
        };
        let mut lines: Vec<Vec<String>> = Vec::new();
        for (kind, of) in &self.by_kind {
            let reason = of.reasons.iter().max_by_key(|(_, count)| **count).map_or("–", |(name, _)| name);
            lines.push(line(kind, of.labels.to_string(), &of.found, of.delay_s, reason));
        }
        lines.push(line("all", self.labels.to_string(), &self.found, None, ""));
        lines.push(line("entries outside of all", String::new(), &self.outside, None, ""));
        let heading =
            ["label", "in all", "watched", "throttled", "restricted", "quarantined", "median delay s", "first reason"];
        table(&heading, &lines)
    }
}

impl OfKind {
    fn with(self, mut delays: Vec<f64>) -> Self {
        delays.sort_unstable_by(f64::total_cmp);
        let middle = delays.len() / 2;
        let delay_s = match delays.len() {
            0 => None,
            even if even % 2 == 0 => Some((delays[middle - 1] + delays[middle]) / 2.0),
            _ => Some(delays[middle]),
        };
        Self { delay_s, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Label;

    fn entry(at: &str, identity: &str, level: Level) -> Entry {
        Entry { time: time(at).unwrap(), identity: identity.to_owned(), level, detector: Some("new-peer".to_owned()) }
    }

    #[test]
    fn an_entry_into_a_level_counts_for_all_below_and_for_its_label_until_five_minutes_after_it() {
        let label = Label {
            start: time("2026-01-05T00:00:00Z").unwrap(),
            end: time("2026-01-05T00:10:00Z").unwrap(),
            kind: "scan".to_owned(),
            identities: vec!["a".to_owned()],
        };
        let labels = Labels::new(vec![label]);
        let entries = [
            entry("2026-01-05T00:01:00Z", "a", Level::Watched),
            entry("2026-01-05T00:14:00Z", "a", Level::Restricted),
            entry("2026-01-05T00:16:00Z", "a", Level::Watched),
            entry("2026-01-05T00:01:00Z", "b", Level::Throttled),
        ];
        let found = Entries::of(&entries, &labels);
        let counts = |of: &BTreeMap<Level, usize>| Level::BY_BEHAVIOUR.map(|level| of[&level]);
        assert_eq!(counts(&found.found), [1, 1, 1, 0]);
        assert_eq!(counts(&found.outside), [2, 1, 0, 0]);
        assert_eq!(found.by_kind["scan"].delay_s, Some(60.0));
        assert_eq!(found.by_kind["scan"].reasons["new-peer"], 1);
    }
}
