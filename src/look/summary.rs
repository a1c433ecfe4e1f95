//! What the counts say.

use std::collections::{BTreeMap, BTreeSet};

use qualm_ingest::envelope::Passed;
use qualm_model::{
    event::Filter,
    identity::Class,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::scorer::WrongClock;
use serde::Serialize;

use super::{
    Reading,
    mesh::Mesh,
    questions::{self, Asked},
    schemas::Schema,
    survey::{Survey, Tally},
    words,
};

/// Edges, identities and skewed reporters that are named.
const NAMED: usize = 8;
/// Sources in the picture of the mesh, and edges of each.
const CALLERS: usize = 8;
const CALLED: usize = 4;
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

/// Services that are named, of those that the mesh has, and shared principals.
const SERVICES: usize = 12;

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
    /// Calls, each counted once, and the records that tell of one that another has counted: the other end's, later ones of
    /// a stream, and those that were delivered again.
    pub(super) calls: u64,
    pub(super) confirming: u64,
    pub(super) going_on: u64,
    pub(super) repeated: u64,
    pub(super) parts: u64,
    pub(super) parts_share: f64,
    pub(super) formats: Vec<Share>,
    /// What understood records were wrapped in, from the outside in.
    pub(super) envelopes: Vec<Share>,
    /// Where in each record the line stands, if that must be said.
    pub(super) envelope: Option<String>,
    /// The shipped mapping that reads it.
    pub(super) mapping: Option<String>,
    pub(super) foreign: Refused,
    pub(super) invalid: BTreeMap<&'static str, Refused>,
    /// Entries of records of several that cannot be read.
    pub(super) entries_refused: BTreeMap<&'static str, u64>,
    /// Records of which certificates are not believed, by the container that wrote them.
    pub(super) strangers: BTreeMap<String, u64>,
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
    pub(super) span_s: f64,
    pub(super) identities: usize,
    pub(super) verified_identities: usize,
    pub(super) verified_share: f64,
    pub(super) destinations: usize,
    pub(super) edges: usize,
    /// The busiest services, and how many there are.
    pub(super) services: Vec<String>,
    pub(super) services_in_all: usize,
    /// Principals that several workloads share.
    pub(super) shared: Vec<Shared>,
    /// The sources that call most, with whom.
    pub(super) graph: Vec<Caller>,
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
    /// For how long, and in how many bytes a partition, the broker keeps records; below 0: for ever.
    pub(super) retention_s: Option<f64>,
    pub(super) retention_bytes: Option<i64>,
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

/// A principal that several workloads share.
#[derive(Debug, Serialize)]
pub(super) struct Shared {
    pub(super) principal: String,
    pub(super) workloads: Vec<String>,
}

/// Whom one calls, the busiest edges first.
#[derive(Debug, Serialize)]
pub(super) struct Caller {
    pub(super) source: String,
    pub(super) calls: u64,
    pub(super) edges: Vec<Edge>,
    /// Edges that are not shown, and their calls.
    pub(super) more: (usize, u64),
}

#[derive(Debug, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// A reporter whose clock is wrong.
#[derive(Debug, Serialize)]
pub(super) struct Skew {
    pub(super) reporter: String,
    /// Below 0 where it is behind.
    pub(super) ahead_s: f64,
    /// Whether both ends' reports of the same calls say so, or the records' arrival, which bounds it from below.
    pub(super) by_both_ends: bool,
}

impl Summary {
    pub(super) fn of(survey: &Survey, reading: &Reading) -> Self {
        let share = |count: u64| count as f64 / survey.records.max(1) as f64;
        let refused =
            |tally: &Tally| Refused { count: tally.count, share: share(tally.count), example: tally.example.clone() };
        let mesh = &survey.mesh;
        let callers = mesh.identities.values().filter(|identity| identity.calls > 0);
        let edges = edges(mesh);
        let services = services(mesh);
        let (filter, suspicions) = suspicions(survey);
        let span = survey.span.map_or(Span::default(), |(first, last)| last - first);
        let stored = reading.read.topic.as_ref().map(|topic| Stored {
            partitions: topic.partitions,
            records: topic.records,
            history_s: topic.oldest.zip(topic.newest).map(|(oldest, newest)| (newest - oldest).as_seconds()),
            retention_s: topic.retention.map(|retention| retention.time.as_seconds()),
            retention_bytes: topic.retention.map(|retention| retention.bytes),
            schemas: topic.schemas.clone(),
        });
        let history = stored.as_ref().and_then(|stored| stored.history_s).unwrap_or(span.as_seconds());
        Self {
            name: reading.name.clone(),
            records: survey.records,
            bytes: survey.bytes,
            elapsed_s: reading.elapsed.as_secs_f64(),
            complete: reading.read.complete,
            topic: stored,
            events: survey.events,
            calls: mesh.calls,
            confirming: mesh.confirming,
            going_on: mesh.going_on,
            repeated: mesh.repeated,
            parts: survey.parts,
            parts_share: share(survey.parts),
            formats: survey
                .formats()
                .into_iter()
                .map(|(format, count)| Share { name: format.to_string(), share: share(count) })
                .collect(),
            envelopes: envelopes(survey),
            envelope: reading.found.envelope.clone().map(String::from),
            mapping: reading.found.shipped.map(|shipped| format!("datasets/mappings/{}", shipped.file())),
            foreign: refused(&survey.foreign),
            invalid: survey.invalid.iter().map(|(&why, tally)| (why, refused(tally))).collect(),
            entries_refused: survey.refused.clone(),
            strangers: survey.strangers.iter().map(|(name, &count)| (name.to_string(), count)).collect(),
            first: survey.span.and_then(|(first, _)| rfc3339(first)),
            last: survey.span.and_then(|(_, last)| rfc3339(last)),
            span_s: span.as_seconds(),
            identities: callers.clone().count(),
            verified_identities: callers.filter(|identity| identity.verified).count(),
            verified_share: mesh.verified as f64 / mesh.calls.max(1) as f64,
            destinations: mesh.identities.values().filter(|identity| identity.called > 0).count(),
            edges: edges.len(),
            services_in_all: services.len(),
            services: services.into_iter().take(SERVICES).collect(),
            shared: shared(mesh),
            graph: graph(&edges),
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
fn edges(mesh: &Mesh) -> Vec<Edge> {
    let edge = |((source, destination), &calls): (&(String, String), &u64)| Edge {
        source: source.clone(),
        destination: destination.clone(),
        calls,
    };
    let mut edges: Vec<Edge> = mesh.edges.iter().map(edge).collect();
    edges.sort_by(|a, b| {
        b.calls.cmp(&a.calls).then_with(|| (&a.source, &a.destination).cmp(&(&b.source, &b.destination)))
    });
    edges
}

/// Namespace and service of all identities, the busiest first.
fn services(mesh: &Mesh) -> Vec<String> {
    let mut calls: BTreeMap<String, u64> = BTreeMap::new();
    for (name, identity) in &mesh.identities {
        let principal =
            name.split_once('@').filter(|_| name.starts_with("spiffe://")).map_or(name.as_str(), |(of, _)| of);
        if Class::of(principal) == Class::Workload && !is_address(principal) {
            *calls.entry(words::short(principal)).or_default() += identity.calls + identity.called;
        }
    }
    let mut services: Vec<_> = calls.into_iter().collect();
    services.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    services.into_iter().map(|(service, _)| service).collect()
}

/// Whether a name is an address, in whatever way it is written.
fn is_address(name: &str) -> bool {
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    name.parse::<std::net::IpAddr>().is_ok() || host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn shared(mesh: &Mesh) -> Vec<Shared> {
    let shared = |(principal, workloads): (&str, &BTreeSet<String>)| Shared {
        principal: principal.to_owned(),
        workloads: workloads.iter().cloned().collect(),
    };
    mesh.shared().into_iter().take(NAMED).map(shared).collect()
}

/// The sources that call most, with their busiest edges; `edges` come the busiest first.
fn graph(edges: &[Edge]) -> Vec<Caller> {
    let mut callers: BTreeMap<&str, Caller> = BTreeMap::new();
    for edge in edges {
        let new = || Caller { source: edge.source.clone(), calls: 0, edges: Vec::new(), more: (0, 0) };
        let caller = callers.entry(&edge.source).or_insert_with(new);
        caller.calls += edge.calls;
        if caller.edges.len() < CALLED {
            caller.edges.push(edge.clone());
        } else {
            caller.more = (caller.more.0 + 1, caller.more.1 + edge.calls);
        }
    }
    let mut callers: Vec<_> = callers.into_values().collect();
    callers.sort_by_key(|caller| std::cmp::Reverse(caller.calls));
    callers.truncate(CALLERS);
    callers
}

/// What understood records came in, the most frequent first.
fn envelopes(survey: &Survey) -> Vec<Share> {
    let understood = survey.envelopes.values().sum::<u64>().max(1) as f64;
    let mut envelopes: Vec<_> = survey.envelopes.iter().map(|(passed, &records)| (passed, records)).collect();
    envelopes.sort_by_key(|&(passed, records)| (std::cmp::Reverse(records), passed));
    let named = |(passed, records): (&Passed, u64)| {
        let names: Vec<&str> = passed.names().collect();
        let name = if names.is_empty() { "none".to_owned() } else { names.join(", within it ") };
        Share { name, share: records as f64 / understood }
    };
    let mut shares: Vec<Share> = envelopes.into_iter().map(named).collect();
    if survey.headed > 0 {
        shares.push(Share { name: "headers of Kafka".to_owned(), share: survey.headed as f64 / understood });
    }
    shares
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
        by_both_ends: false,
    };
    let by_both =
        |wrong: WrongClock| Skew { reporter: wrong.reporter, ahead_s: wrong.ahead.as_seconds(), by_both_ends: true };
    let mut skewed: Vec<Skew> = survey.by_reporter.iter().filter(is_ahead).map(skew).collect();
    skewed.extend(survey.mesh.wrong_clocks().into_iter().map(by_both));
    skewed.sort_by(|a, b| b.ahead_s.abs().total_cmp(&a.ahead_s.abs()).then_with(|| a.reporter.cmp(&b.reporter)));
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
        survey.mesh.confirmed().filter(|&(calls, share)| calls >= TELLING / 10 && share < CONFIRMED)
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
