//! Both proxies report a call, and each call counts once: whatever comes first, and whatever is lost.

mod mesh;
mod reopened;

use mesh::{START, mixed};
use qualm_model::{
    detector::Question,
    event::{EventBuilder, EventDraft, Kind, Outcome, Party, Position, Reporter},
    identity::Provenance,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Mode, ScorerConfig},
    scorer::{Observed, Scorer},
    snapshot::{Covered, Snapshots},
    verdict::{Cause, Verdict},
};
use reopened::reopened;

const SERVICES: u64 = 12;
const BEAT: Span = Span(600_000_000);
const DAYS: i64 = 3;
/// Somebody begins to call everybody, in the last ten minutes.
const ATTACKER: u64 = 5;

/// How the caller's proxy names the destination.
#[derive(Clone, Copy, PartialEq)]
enum Outbound {
    /// By the certificate it verified.
    Certificate,
    /// By its host name.
    Host,
}

/// A report in the making.
#[derive(Clone)]
struct Report {
    by: Reporter,
    at: Timestamp,
    start: Timestamp,
    call: u64,
    attempt: u64,
    from: u64,
    to: u64,
    named: Outbound,
    /// Where the caller is, unless where it always is.
    place: Option<&'static str>,
}

fn identity(service: u64) -> String {
    format!("spiffe://mesh.test/ns/shop/sa/s{service}")
}

fn address(service: u64) -> String {
    format!("10.0.0.{service}")
}

/// Who calls whom at a beat.
fn ends(i: u64, last: u64) -> (u64, u64) {
    let from = mixed(i, 1) % SERVICES;
    let looks_around = mixed(i, 6).is_multiple_of(3000);
    let peers = if looks_around { SERVICES / 2 } else { 3 };
    if last - i < 1000 && i.is_multiple_of(5) {
        return (ATTACKER, (ATTACKER + 1 + mixed(i, 9) % (SERVICES - 1)) % SERVICES);
    }
    (from, (from + 1 + mixed(i, 2) % peers) % SERVICES)
}

/// All calls as both proxies report them: the called's a millisecond before the caller's.
fn reports(named: Outbound) -> Vec<Report> {
    let last = (DAYS * Span::DAY.0 / BEAT.0) as u64;
    let both = |i: u64| {
        let (from, to) = ends(i, last);
        let start = Timestamp(START) + Span(i as i64 * BEAT.0);
        let duration = Span(2_000_000 + (mixed(i, 3) % 3_000_000) as i64);
        let report = |by, after: i64| Report {
            by,
            at: start + duration + Span(after),
            start,
            call: i,
            attempt: 0,
            from,
            to,
            named,
            place: None,
        };
        [report(Reporter::Destination, 0), report(Reporter::Source, 1_000_000)]
    };
    (0..last).flat_map(both).collect()
}

fn push(builder: &mut EventBuilder, report: &Report, offset: i64) {
    let (source, destination) = (identity(report.from), identity(report.to));
    let from = report.place.map_or_else(|| address(report.from), str::to_owned);
    let (to, id) = (address(report.to), format!("request-{}", report.call));
    let host = format!("s{}.shop.svc.cluster.local", report.to);
    let outbound = report.by == Reporter::Source;
    let called = match (outbound, report.named) {
        (true, Outbound::Host) => (host.as_str(), Provenance::Name),
        _ => (destination.as_str(), Provenance::Certificate),
    };
    let operation = format!("GET /{}", mixed(report.call, 4) % 3);
    builder.push(&EventDraft {
        start: report.start,
        report: report.at,
        kind: Kind::Request,
        reporter: report.by,
        reporter_id: if outbound { &source } else { &destination },
        record_id: &id,
        source: Party {
            principal: &source,
            ip: &from,
            port: 30_000 + report.attempt as u16 + (report.call % 20_000) as u16,
            provenance: if outbound { Provenance::Name } else { Provenance::Certificate },
            ..Party::default()
        },
        destination: Party { principal: called.0, ip: &to, port: 8080, provenance: called.1, ..Party::default() },
        operation: &operation,
        outcome: Outcome::Success,
        status: Some(200),
        bytes_in: Some(300),
        bytes_out: Some(500 + mixed(report.call, 5) % 100),
        duration_ns: Some((report.at - report.start).0),
        position: Position { source: 0, partition: 0, offset },
        ..EventDraft::default()
    });
}

/// What became of a stream of reports.
struct Judged {
    counted: u64,
    duplicates: u64,
    edges: u64,
    /// Who entered which level on evidence.
    entries: Vec<(String, Level)>,
}

impl Judged {
    /// A dozen calls of the first seconds under another name may decide who of those that only look around enters a
    /// level, and whether the attacker enters one on its way to the highest, and no more.
    fn entries_that_matter(&self, named: Outbound) -> Vec<&(String, Level)> {
        if named == Outbound::Certificate {
            return self.entries.iter().collect();
        }
        let attacker = identity(ATTACKER);
        self.entries.iter().filter(|(who, _)| *who == attacker).max_by_key(|(_, level)| *level).into_iter().collect()
    }
}

/// A scorer that reads reports.
struct Reading {
    scorer: Scorer,
    builder: EventBuilder,
    verdicts: Vec<Verdict>,
    minute: i64,
    observed: Vec<Observed>,
}

impl Reading {
    fn of(scorer: Scorer) -> Self {
        Self { scorer, builder: EventBuilder::new(), verdicts: Vec::new(), minute: 0, observed: Vec::new() }
    }

    fn read(&mut self, reports: &[Report]) {
        for chunk in reports.chunks(1000) {
            for (row, report) in chunk.iter().enumerate() {
                push(&mut self.builder, report, (self.observed.len() + row) as i64);
            }
            let batch = self.builder.finish();
            self.scorer.open(&batch);
            for event in batch.events() {
                let wall = event.report();
                if self.minute != wall.window(Span::MINUTE) {
                    self.minute = wall.window(Span::MINUTE);
                    self.scorer.tick(wall, &mut self.verdicts);
                }
                let observed = self.scorer.observe(event, wall, &mut self.verdicts);
                self.observed.push(observed);
            }
        }
    }

    fn judged(&self) -> Judged {
        let count = |of: fn(&Observed) -> bool| self.observed.iter().filter(|observed| of(observed)).count() as u64;
        let entered = self.verdicts.iter().filter(|verdict| verdict.cause == Cause::Evidence);
        let mut entries: Vec<_> = entered.map(|verdict| (verdict.identity.clone(), verdict.level)).collect();
        entries.sort();
        entries.dedup();
        Judged {
            counted: count(|observed| matches!(observed, Observed::Scored { .. })),
            duplicates: count(|observed| matches!(observed, Observed::Duplicate)),
            edges: self.scorer.tally().edges,
            entries,
        }
    }
}

fn config() -> ScorerConfig {
    let enforce = EnforceConfig { mode: Mode::Enforce, ..EnforceConfig::default() };
    ScorerConfig { enforce, ..ScorerConfig::default() }
}

fn judged(reports: &[Report]) -> Judged {
    let mut reading = Reading::of(Scorer::new(config()));
    reading.read(reports);
    reading.judged()
}

fn only(reports: &[Report], by: Reporter) -> Vec<Report> {
    reports.iter().filter(|report| report.by == by).cloned().collect()
}

/// In the order in which several shippers would deliver them: up to two seconds late.
fn shuffled(reports: &[Report]) -> Vec<Report> {
    let mut late = reports.to_vec();
    late.sort_by_key(|report| report.at + Span((mixed(report.call, 21 + report.by as u64) % 2_000_000_000) as i64));
    late
}

fn without_one_in_a_hundred(reports: &[Report]) -> Vec<Report> {
    let kept = |(i, _): &(usize, &Report)| !mixed(*i as u64, 22).is_multiple_of(100);
    reports.iter().enumerate().filter(kept).map(|(_, report)| report.clone()).collect()
}

#[test]
fn each_call_counts_once_whoever_reports_it() {
    for named in [Outbound::Certificate, Outbound::Host] {
        let both = reports(named);
        let calls = both.len() as u64 / 2;
        // By its host name a destination is known until a first call has shown who that is.
        let named_otherwise = if named == Outbound::Host { SERVICES } else { 0 };
        let inbound = judged(&only(&both, Reporter::Destination));
        assert_eq!((inbound.counted, inbound.duplicates), (calls, 0));
        assert!(inbound.entries.contains(&(identity(ATTACKER), Level::Throttled)), "{:?}", inbound.entries);

        let outbound = judged(&only(&both, Reporter::Source));
        assert_eq!((outbound.counted, outbound.edges), (calls, inbound.edges), "the caller's reports stand in");

        let together = judged(&both);
        assert_eq!((together.counted, together.edges), (calls, inbound.edges));
        assert_eq!(together.entries, inbound.entries);

        let mixed_up = judged(&shuffled(&both));
        assert_eq!(mixed_up.counted, calls);
        assert!((inbound.edges..=inbound.edges + named_otherwise).contains(&mixed_up.edges), "{}", mixed_up.edges);
        let reference = judged(&shuffled(&only(&both, Reporter::Destination)));
        assert_eq!(mixed_up.entries_that_matter(named), reference.entries_that_matter(named));

        let lossy = without_one_in_a_hundred(&shuffled(&both));
        let reported = judged(&only(&lossy, Reporter::Destination));
        let lossy = judged(&lossy);
        assert!((inbound.edges..=inbound.edges + named_otherwise).contains(&lossy.edges), "{}", lossy.edges);
        // Those of the first seconds that only the caller reported.
        assert!((reported.counted..reported.counted + 5).contains(&lossy.counted), "{}", lossy.counted);
        assert_eq!(lossy.entries_that_matter(named), reported.entries_that_matter(named));
    }
}

/// The order of arrival where one node's shipper, which ships for the proxies of a third of the services, is so late.
fn with_a_slow_node(reports: &[Report], late: Span) -> Vec<Report> {
    let own = |report: &Report| if report.by == Reporter::Source { report.from } else { report.to };
    let arrives = |report: &Report| report.at + if own(report) % 3 == 0 { late } else { Span(0) };
    let mut arriving = reports.to_vec();
    arriving.sort_by_key(arrives);
    arriving
}

#[test]
fn each_call_counts_once_however_late_one_node_ships() {
    let both = &reports(Outbound::Certificate)[..144_000];
    let calls = both.len() as u64 / 2;
    for minutes in [2, 4, 10, 40] {
        let judged = judged(&with_a_slow_node(both, Span(minutes * Span::MINUTE.0)));
        assert_eq!((judged.counted, judged.duplicates), (calls, calls), "{minutes} minutes late");
    }
}

#[test]
fn a_node_that_stood_for_twenty_minutes_and_makes_up_for_them_counts_no_call_again() {
    let both = &reports(Outbound::Certificate)[..144_000];
    let calls = both.len() as u64 / 2;
    let stood = Timestamp(START + 6 * Span::HOUR.0)..Timestamp(START + 6 * Span::HOUR.0) + Span(20 * Span::MINUTE.0);
    let own = |report: &Report| if report.by == Reporter::Source { report.from } else { report.to };
    let mut arriving = both.to_vec();
    arriving.sort_by_key(|report| {
        let waits = own(report) % 3 == 0 && stood.contains(&report.at);
        (if waits { stood.end } else { report.at }, report.at)
    });
    let judged = judged(&arriving);
    assert_eq!((judged.counted, judged.duplicates), (calls, calls));
}

#[test]
fn attempts_of_one_request_are_calls_of_their_own() {
    let mut calls = only(&reports(Outbound::Certificate)[..2000], Reporter::Destination);
    let again: Vec<_> = calls
        .iter()
        .filter(|report| report.call.is_multiple_of(10))
        .map(|report| Report {
            attempt: 1,
            start: report.start + Span(1_000_000),
            at: report.at + Span(1_000_000),
            ..report.clone()
        })
        .collect();
    calls.extend(again);
    calls.sort_by_key(|report| report.at);
    let judged = judged(&calls);
    assert_eq!((judged.counted, judged.duplicates), (1100, 0));
}

#[test]
fn a_record_that_is_delivered_twice_counts_once() {
    let once = only(&reports(Outbound::Certificate)[..4000], Reporter::Destination);
    let mut twice = once.clone();
    // A shipper that was killed sends the last half again.
    twice.extend(once[1000..].iter().cloned());
    let judged = judged(&twice);
    assert_eq!((judged.counted, judged.duplicates), (2000, 1000));
}

#[test]
fn a_restart_forgets_no_report() {
    let mut reports = shuffled(&reports(Outbound::Host)[..40_000]);
    let again = reports[10_000..30_000].iter().step_by(7).cloned();
    reports.extend(again.collect::<Vec<_>>());
    let mut whole = Reading::of(Scorer::new(config()));
    whole.read(&reports);
    for restart in [3, 777, 20_001, 41_000] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut snapshots, _) = Snapshots::open(directory.path(), config()).expect("a new one");
        let mut first = Reading::of(Scorer::new(config()));
        first.read(&reports[..restart]);
        snapshots.save(first.scorer.changes(Covered::default()));
        snapshots.finish().expect("it was being written").expect("it can be written");
        drop(snapshots);
        let (_snapshots, loaded) = reopened(directory.path(), &config());
        let mut rest = Reading { scorer: loaded.expect("a snapshot").scorer, ..first };
        rest.read(&reports[restart..]);
        assert!(rest.observed == whole.observed, "restart at {restart}");
    }
}

/// Who holds another's credential calls from elsewhere: what the called's proxies see, no caller's proxy tells of.
const ELSEWHERE: &str = "10.0.9.9";

/// The last hour, in which one call in twenty of one service is made with its credential somewhere else.
fn borrowed(reports: &[Report]) -> Vec<Report> {
    let last = reports[reports.len() - 1].call;
    let is_borrowed =
        |report: &Report| last - report.call < 6000 && report.from == 3 && mixed(report.call, 31).is_multiple_of(20);
    let told = reports.iter().filter(|report| !(is_borrowed(report) && report.by == Reporter::Source));
    let place = |report: &Report| if is_borrowed(report) { Some(ELSEWHERE) } else { None };
    told.map(|report| Report { place: place(report), ..report.clone() }).collect()
}

fn unwitnessed(reports: &[Report]) -> Vec<Verdict> {
    let mut reading = Reading::of(Scorer::new(config()));
    reading.read(reports);
    let is_about = |verdict: &Verdict| verdict.reasons.iter().any(|reason| reason.detector == Question::Unwitnessed);
    reading.verdicts.into_iter().filter(is_about).collect()
}

#[test]
fn a_credential_used_where_no_proxy_of_its_owner_tells_of_it_is_noticed_there() {
    let calls = reports(Outbound::Certificate);
    let found = unwitnessed(&borrowed(&calls));
    assert!(!found.is_empty());
    for verdict in &found {
        assert_eq!(verdict.identity, identity(3));
        assert_eq!(verdict.subject.instance.as_deref(), Some(ELSEWHERE), "{verdict:?}");
    }
    assert!(unwitnessed(&calls).is_empty(), "nobody disagrees");
    assert!(unwitnessed(&without_one_in_a_hundred(&calls)).is_empty(), "what is lost now and then says nothing");
}

#[test]
fn where_callers_reports_are_sampled_nothing_is_missed() {
    let is_kept = |report: &&Report| report.by == Reporter::Destination || mixed(report.call, 41).is_multiple_of(10);
    let sampled: Vec<Report> = borrowed(&reports(Outbound::Certificate)).iter().filter(is_kept).cloned().collect();
    assert!(unwitnessed(&sampled).is_empty());
}
