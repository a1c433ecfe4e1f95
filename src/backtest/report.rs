//! `report.json`, and the lines a person reads.

use std::{collections::BTreeMap, fs, path::PathBuf};

use qualm_model::{
    detector::Question,
    event::Event,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{Budget, arms_at},
    notify::plain,
    scorer::Tally,
    verdict::Verdict,
};
use serde::Serialize;

use super::{incidents::Told as Incidents, labels::Evaluation, trust::rfc3339};

/// So many of the oddest events are named.
const TOP: usize = 20;
/// Ticks of the CPU clock a second in `/proc`, on every Linux there is.
const TICKS: f64 = 100.0;

/// Entries by level, lowest first: one into a level counts for that level and all below.
pub(super) type Entries = [u64; 4];

/// `report.json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) config_hash: String,
    pub(super) inputs: Vec<PathBuf>,
    pub(super) format: String,
    pub(super) records: u64,
    pub(super) scored: u64,
    pub(super) rejected: BTreeMap<&'static str, u64>,
    #[serde(skip)]
    pub(super) none_read: Option<FirstUnread>,
    pub(super) first_time: Option<String>,
    pub(super) last_time: Option<String>,
    pub(super) days: f64,
    pub(super) levels: Vec<OfLevel>,
    /// Principals that several workloads share, each with those that are judged on their own.
    pub(super) shared_principals: BTreeMap<String, Vec<String>>,
    pub(super) namespaces: BTreeMap<String, BTreeMap<Level, u64>>,
    pub(super) incidents: Incidents,
    pub(super) top_deviations: Vec<TopDeviation>,
    pub(super) labels: Option<Evaluation>,
    pub(super) memory: Memory,
    pub(super) throughput: Throughput,
}

/// The first record that could not be read, where none could.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstUnread {
    pub(super) row: i64,
    pub(super) reason: &'static str,
}

/// One level: whether it could be entered, and how often it was.
#[derive(Debug, Serialize)]
pub(super) struct OfLevel {
    pub(super) level: Level,
    pub(super) armed: bool,
    pub(super) armed_at: Option<String>,
    pub(super) arms_not_before: Option<String>,
    pub(super) entries: u64,
    pub(super) entries_per_day: Option<f64>,
    pub(super) budget_per_day: f64,
    /// Realised ÷ configured.
    pub(super) ratio: Option<f64>,
}

/// One of the oddest events.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TopDeviation {
    pub(super) row: i64,
    pub(super) time: String,
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) operation: String,
    pub(super) detector: Option<&'static str>,
    pub(super) score_bits: f64,
}

/// What it took.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) identities: u64,
    pub(super) edges: u64,
    pub(super) baseline_bytes: u64,
    pub(super) folded: u64,
    pub(super) late: u64,
    pub(super) peak_resident_bytes: Option<u64>,
    pub(super) spilled: bool,
}

/// How fast it was.
#[derive(Debug, Serialize)]
pub(super) struct Throughput {
    pub(super) seconds: f64,
    pub(super) records_per_second: f64,
    pub(super) cpu_seconds: Option<f64>,
}

impl OfLevel {
    /// All levels, with the times at which they were seen to arm.
    pub(super) fn all(
        entries: Entries,
        armed: &BTreeMap<Level, Timestamp>,
        birth: Option<Timestamp>,
        days: f64,
        budget: &Budget,
    ) -> Vec<Self> {
        let of = |(level, entries): (Level, u64)| {
            let budget_per_day = budget.per_day(level);
            let entries_per_day = (days > 0.0).then(|| entries as f64 / days);
            Self {
                level,
                armed: armed.contains_key(&level),
                armed_at: armed.get(&level).copied().map(rfc3339),
                arms_not_before: birth.map(|birth| rfc3339(arms_at(level, birth))),
                entries,
                entries_per_day,
                budget_per_day,
                ratio: entries_per_day.map(|rate| rate / budget_per_day),
            }
        };
        Level::BY_BEHAVIOUR.into_iter().zip(entries).map(of).collect()
    }
}

impl Memory {
    /// Of the scorer and the process.
    pub(super) fn of(tally: Tally, spilled: Spilled) -> Self {
        Self {
            identities: tally.identities,
            edges: tally.edges,
            baseline_bytes: tally.bytes,
            folded: tally.folded,
            late: tally.late,
            peak_resident_bytes: peak_resident_bytes(),
            spilled: spilled == Spilled::Yes,
        }
    }
}

/// Whether events had to be written to disk to be sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spilled {
    Yes,
    No,
}

/// Counts entries.
pub(super) fn count(entries: &mut Entries, verdict: &Verdict) {
    for (level, count) in Level::BY_BEHAVIOUR.into_iter().zip(entries) {
        *count += u64::from(level <= verdict.level);
    }
}

/// The oddest events, one of each kind between the same two.
#[derive(Debug, Default)]
pub(super) struct Top(Vec<TopDeviation>);

impl Top {
    /// Takes in an event where it is odd enough.
    #[inline]
    pub(super) fn see(&mut self, event: Event<'_>, bits: f64, leading: Option<Question>) {
        if self.0.len() == TOP && self.0.last().is_some_and(|least| bits <= least.score_bits) {
            return;
        }
        self.insert(event, bits, leading.map(Question::name));
    }

    fn insert(&mut self, event: Event<'_>, bits: f64, detector: Option<&'static str>) {
        let (source, destination) = (event.source().principal(), event.destination().principal());
        let alike = |other: &TopDeviation| {
            (other.source.as_str(), other.destination.as_str(), other.detector) == (source, destination, detector)
        };
        if let Some(place) = self.0.iter().position(alike) {
            if self.0[place].score_bits >= bits {
                return;
            }
            self.0.remove(place);
        }
        let place = self.0.partition_point(|other| other.score_bits >= bits);
        let deviation = TopDeviation {
            row: event.position().offset,
            time: rfc3339(event.report()),
            source: source.to_owned(),
            destination: destination.to_owned(),
            operation: event.operation().to_owned(),
            detector,
            score_bits: bits,
        };
        self.0.insert(place, deviation);
        self.0.truncate(TOP);
    }

    /// Strongest first.
    pub(super) fn into_deviations(self) -> Vec<TopDeviation> {
        self.0
    }
}

impl Report {
    /// What a person reads.
    pub(super) fn summary(&self) -> String {
        let rejected: u64 = self.rejected.values().sum();
        let mut text = format!("{} records over {:.1} days, {} scored", self.records, self.days, self.scored);
        if rejected > 0 {
            let reasons: Vec<String> =
                self.rejected.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            text.push_str(&format!(", {rejected} not: {}", reasons.join(", ")));
        }
        if self.scored == 0 {
            text.push_str(
                "\nnothing could be scored: do --format or --mapping fit, and does a record name its caller?",
            );
        }
        for of in &self.levels {
            let state = match (&of.armed_at, &of.arms_not_before) {
                (Some(at), _) => format!("armed since {at}"),
                (None, Some(at)) => format!("never armed; not before {at}, and not before its curve can be read"),
                (None, None) => "never armed".to_owned(),
            };
            let rate = of
                .entries_per_day
                .map_or_else(String::new, |rate| format!(" ({rate:.3} a day; budget {:.3})", of.budget_per_day));
            text.push_str(&format!("\n{:<12} {} entries{rate}, {state}", of.level.as_str(), of.entries));
        }
        let several = self.incidents.of_several.len();
        text.push_str(&format!("\n{} alerts", self.incidents.alerts));
        if several > 0 {
            text.push_str(&format!(", {several} of them about several identities with one cause"));
        }
        for (principal, workloads) in &self.shared_principals {
            text.push_str(&format!(
                "\n{} is shared by {}: each is judged on its own, and nothing would be enforced on all of them",
                plain(principal),
                plain(&workloads.join(", "))
            ));
        }
        if let Some(labels) = &self.labels {
            text.push_str(&format!("\n{}", labels.sentence()));
        }
        let Throughput { seconds, records_per_second, cpu_seconds } = &self.throughput;
        let cpu = cpu_seconds.map_or_else(String::new, |cpu| format!(", {cpu:.1} s of CPU"));
        text.push_str(&format!("\n{seconds:.1} s{cpu}, {records_per_second:.0} records a second"));
        text
    }
}

/// Days between two times.
pub(super) fn days(first: Option<Timestamp>, last: Option<Timestamp>) -> f64 {
    match (first, last) {
        (Some(first), Some(last)) => (last - first).as_seconds() / Span::DAY.as_seconds(),
        _ => 0.0,
    }
}

/// CPU seconds of this process so far, where the system tells.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold anything; user and system time are the
    // twelfth and thirteenth behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

fn peak_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
