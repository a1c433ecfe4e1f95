//! What the counts say.

use std::collections::BTreeMap;

use qualm_model::{
    event::Filter,
    level::Level,
    time::{Span, Timestamp},
};
use serde::Serialize;

use super::{
    Reading,
    questions::{self, Asked},
    schemas::Schema,
    survey::{Survey, Tally},
};

/// Edges, identities and skewed reporters that are named.
const NAMED: usize = 8;
/// A reporter whose records seem to arrive so long before they were written has a clock that is ahead.
const SKEW: Span = Span::seconds(1);
/// A reporter is compared by no fewer records.
const COMPARED: u64 = 20;
/// Fewer events say nothing about a filter.
const TELLING: u64 = 1000;
/// Below this share of successes only failures seem to be logged.
const FEW_SUCCESSES: f64 = 0.05;
/// If hardly any call is shorter than this, short ones seem to be left out.
const SHORT: Span = Span(5_000_000);
/// Share of the calls of a caller's proxy that the called's reports too, where none is left out.
const CONFIRMED: f64 = 0.95;

/// Everything that is told.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) elapsed_s: f64,
    /// Whether all records of the files were read.
    pub(super) complete: bool,
    pub(super) topic: Option<Stored>,
    pub(super) events: u64,
    pub(super) parts: u64,
    pub(super) formats: Vec<Share>,
    /// The shipped mapping that reads it.
    pub(super) mapping: Option<String>,
    pub(super) foreign: Refused,
    pub(super) invalid: BTreeMap<&'static str, Refused>,
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
    pub(super) span_s: f64,
    pub(super) identities: usize,
    pub(super) verified_identities: usize,
    pub(super) verified_share: f64,
    pub(super) destinations: usize,
    pub(super) edges: usize,
    pub(super) busiest: Vec<Edge>,
    pub(super) rarest: Vec<Edge>,
    pub(super) reporters: BTreeMap<&'static str, u64>,
    pub(super) kinds: BTreeMap<&'static str, u64>,
    pub(super) clusters_named: bool,
    pub(super) delay_s: Option<Quantiles>,
    pub(super) skewed: Vec<Skew>,
    pub(super) suspicions: Vec<String>,
    /// What seems to be left out before the records come here.
    pub(super) filter: Filter,
    pub(super) questions: Vec<Asked>,
    pub(super) armed_with_history: Vec<&'static str>,
}

/// What a topic holds.
#[derive(Debug, Serialize)]
pub(super) struct Stored {
    pub(super) partitions: usize,
    pub(super) records: u64,
    /// From its oldest to its newest record.
    pub(super) history_s: Option<f64>,
    /// The schemas whose ids stand in front of its records.
    pub(super) schemas: Vec<Schema>,
}

/// A share of the records.
#[derive(Debug, Serialize)]
pub(super) struct Share {
    pub(super) name: String,
    pub(super) share: f64,
}

/// Records that became no events.
#[derive(Debug, Serialize)]
pub(super) struct Refused {
    pub(super) count: u64,
    pub(super) share: f64,
    pub(super) example: String,
}

/// Who calls whom, how often.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Edge {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) calls: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// A reporter whose clock is ahead.
#[derive(Debug, Serialize)]
pub(super) struct Skew {
    pub(super) reporter: String,
    pub(super) ahead_s: f64,
}

impl Summary {
    pub(super) fn of(survey: &Survey, reading: &Reading) -> Self {
        let share = |count: u64| count as f64 / survey.records.max(1) as f64;
        let refused =
            |tally: &Tally| Refused { count: tally.count, share: share(tally.count), example: tally.example.clone() };
        let callers = survey.identities.values().filter(|identity| identity.calls > 0);
        let edges = edges(survey);
        let (filter, suspicions) = suspicions(survey);
        let span = survey.span.map_or(Span::default(), |(first, last)| last - first);
        let stored = reading.topic.as_ref().map(|topic| Stored {
            partitions: topic.partitions,
            records: topic.records,
            history_s: topic.oldest.zip(topic.newest).map(|(oldest, newest)| (newest - oldest).as_seconds()),
            schemas: topic.schemas.clone(),
        });
        let history = stored.as_ref().and_then(|stored| stored.history_s).unwrap_or(span.as_seconds());
        Self {
            name: reading.name.clone(),
            records: survey.records,
            bytes: survey.bytes,
            elapsed_s: reading.elapsed.as_secs_f64(),
            complete: reading.complete,
            topic: stored,
            events: survey.events,
            parts: survey.parts,
            formats: survey
                .formats()
                .into_iter()
                .map(|(format, count)| Share { name: format.to_string(), share: share(count) })
                .collect(),
            mapping: reading.shipped.map(|shipped| format!("datasets/mappings/{}", shipped.file())),
            foreign: refused(&survey.foreign),
            invalid: survey.invalid.iter().map(|(&why, tally)| (why, refused(tally))).collect(),
            first: survey.span.and_then(|(first, _)| rfc3339(first)),
            last: survey.span.and_then(|(_, last)| rfc3339(last)),
            span_s: span.as_seconds(),
            identities: callers.clone().count(),
            verified_identities: callers.filter(|identity| identity.verified).count(),
            verified_share: survey.present.verified as f64 / survey.events.max(1) as f64,
            destinations: survey.identities.values().filter(|identity| identity.called > 0).count(),
            edges: edges.len(),
            busiest: edges.iter().take(NAMED).cloned().collect(),
            rarest: edges.iter().rev().take(3).cloned().collect(),
            reporters: survey.reporters.clone(),
            kinds: survey.kinds.clone(),
            clusters_named: survey.present.cluster > 0,
            delay_s: quantiles(survey),
            skewed: skewed(survey),
            suspicions,
            filter,
            questions: questions::ask(survey),
            armed_with_history: armed(history),
        }
    }
}

/// All edges, the busiest first.
fn edges(survey: &Survey) -> Vec<Edge> {
    let edge = |((source, destination), &calls): (&(String, String), &u64)| Edge {
        source: source.clone(),
        destination: destination.clone(),
        calls,
    };
    let mut edges: Vec<Edge> = survey.edges.iter().map(edge).collect();
    edges.sort_by(|a, b| {
        b.calls.cmp(&a.calls).then_with(|| (&a.source, &a.destination).cmp(&(&b.source, &b.destination)))
    });
    edges
}

fn quantiles(survey: &Survey) -> Option<Quantiles> {
    let seconds = |share| survey.delays.quantile(share).map(|delay| Span(delay).as_seconds());
    Some(Quantiles { p50: seconds(0.5)?, p99: seconds(0.99)? })
}

fn skewed(survey: &Survey) -> Vec<Skew> {
    let is_ahead =
        |&(_, delay): &(&String, &super::survey::Delay)| delay.count >= COMPARED && delay.least < Span(-SKEW.0);
    let skew = |(reporter, delay): (&String, &super::survey::Delay)| Skew {
        reporter: reporter.clone(),
        ahead_s: -delay.least.as_seconds(),
    };
    let mut skewed: Vec<Skew> = survey.by_reporter.iter().filter(is_ahead).map(skew).collect();
    skewed.sort_by(|a, b| b.ahead_s.total_cmp(&a.ahead_s).then_with(|| a.reporter.cmp(&b.reporter)));
    skewed.truncate(NAMED);
    skewed
}

/// What seems to be left out before the records come here, the gravest first, and in words.
fn suspicions(survey: &Survey) -> (Filter, Vec<String>) {
    let (mut filter, mut found) = (Filter::None, Vec::new());
    if survey.events < TELLING {
        return (filter, found);
    }
    if (survey.successes as f64) < FEW_SUCCESSES * survey.present.outcome as f64 {
        filter = Filter::Errors;
        found.push(
            "nearly all calls are failures: only errors seem to be logged. Questions about failures, rates and silence \
             cannot be answered; take the filter out of the proxies' access log"
                .to_owned(),
        );
    }
    if survey.durations.quantile(0.001).is_some_and(|shortest| shortest > SHORT.0) {
        filter = if filter == Filter::None { Filter::Slow } else { filter };
        found.push(
            "hardly any call is shorter than 5 ms: a filter on the duration may leave out short ones. Rates and silence \
             would be wrong"
                .to_owned(),
        );
    }
    if let Some((calls, share)) =
        survey.confirmed().filter(|&(calls, share)| calls as u64 >= TELLING / 10 && share < CONFIRMED)
    {
        filter = if filter == Filter::None { Filter::Sampled } else { filter };
        found.push(format!(
            "of {calls} calls that the callers' proxies report, the called's own proxies report {:.0} %: they may be \
             sampled or lost on the way",
            100.0 * share
        ));
    }
    (filter, found)
}

/// Levels that could be entered after reading so much history: contracts, section 2.
fn armed(history_s: f64) -> Vec<&'static str> {
    let after = [
        (Level::Watched, Span::HOUR),
        (Level::Throttled, Span::DAY),
        (Level::Restricted, Span(6 * Span::DAY.0)),
        (Level::Quarantined, Span(6 * Span::DAY.0)),
    ];
    after.iter().filter(|(_, needs)| history_s >= needs.as_seconds()).map(|(level, _)| level.as_str()).collect()
}

fn rfc3339(time: Timestamp) -> Option<String> {
    Some(jiff::Timestamp::from_nanosecond(time.0.into()).ok()?.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
