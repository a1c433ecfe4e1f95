//! Streams that last for hours: a call counts once, its bytes once, and many that end together are no flood of calls.

mod mesh;
mod reopened;

use mesh::{START, calls, mixed};
use qualm_model::{
    event::{Activity, EventBuilder, EventDraft, Kind, Outcome, Party, Position, Reporter},
    identity::Provenance,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Mode, ScorerConfig},
    scorer::{Observed, Scorer},
    snapshot::{Covered, Snapshots},
    verdict::{Cause, Verdict},
};
use reopened::reopened;

const WORKER: &str = "spiffe://mesh.test/ns/shop/sa/worker";
const BROKER: &str = "spiffe://mesh.test/ns/shop/sa/broker";
/// Streams that are open at any time.
const OPEN: u64 = 500;
const PERIOD: Span = Span(30 * Span::MINUTE.0);
/// When the broker is restarted.
const RESTART: Timestamp = Timestamp(START + 2 * Span::DAY.0 + 15 * Span::HOUR.0);

/// Whether proxies tell of streams before they end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    AtTheEnd,
    Meanwhile,
}

/// A record in the making.
#[derive(Clone)]
struct Record {
    activity: Activity,
    start: Timestamp,
    report: Timestamp,
    source: String,
    destination: String,
    place: u64,
    id: String,
    bytes: u64,
    outcome: Outcome,
}

/// Calls of the other services, which are short.
fn others() -> Vec<Record> {
    let short = |(i, call): (usize, mesh::Call)| Record {
        activity: Activity::Whole,
        start: call.time,
        report: call.time + Span(3_000_000),
        source: call.source,
        destination: call.destination,
        place: i as u64 % 2,
        id: String::new(),
        bytes: call.bytes,
        outcome: call.outcome,
    };
    let mut calm = calls();
    calm.truncate(54_000);
    calm.into_iter().enumerate().map(short).collect()
}

/// One stream, from its begin to its end.
fn stream(place: u64, number: u64, (start, end): (Timestamp, Timestamp), told: Told) -> Vec<Record> {
    let by = |report: Timestamp| 1000 * ((report - start).0 / Span::SECOND.0) as u64;
    let record = |activity, report: Timestamp| Record {
        activity,
        start,
        report,
        source: WORKER.to_owned(),
        destination: BROKER.to_owned(),
        place,
        id: format!("stream-{place}-{number}"),
        bytes: by(report),
        outcome: if activity.goes_on() { Outcome::Unknown } else { Outcome::Success },
    };
    if told == Told::AtTheEnd {
        return vec![record(Activity::Whole, end)];
    }
    let mut records = vec![record(Activity::Open, start)];
    records.extend(
        (1..).map(|i| start + Span(i * PERIOD.0)).take_while(|at| *at < end).map(|at| record(Activity::Traffic, at)),
    );
    records.push(record(Activity::Close, end));
    records
}

/// Streams of about six hours one after the other at each place, until the broker is restarted and all end.
fn streams(told: Told) -> Vec<Record> {
    let mut records = Vec::new();
    for place in 0..OPEN {
        let mut start = Timestamp(START) + Span((mixed(place, 51) % (6 * 3600)) as i64 * Span::SECOND.0);
        for number in 0.. {
            let lasts = Span((340 + mixed(place * 100 + number, 52) % 40) as i64 * Span::MINUTE.0);
            let cut = Span((mixed(place, 53) % 2_000_000_000) as i64);
            let end = (start + lasts).min(RESTART + cut);
            records.extend(stream(place, number, (start, end), told));
            if end >= RESTART {
                break;
            }
            start = end + Span::SECOND;
        }
    }
    records.extend((0..400).filter(|_| told == Told::Meanwhile).map(open_again));
    records
}

/// A stream that is open again after the restart, at one place after the other: the worker does not fall silent.
fn open_again(place: u64) -> Record {
    let start = RESTART + Span((10 + 100 * place as i64) * Span::SECOND.0);
    let mut opened = stream(place, 1000, (start, start + Span::SECOND), Told::Meanwhile);
    opened.swap_remove(0)
}

fn in_order(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by_key(|record| record.report);
    records
}

/// A scorer that reads records.
struct Reading {
    scorer: Scorer,
    observed: Vec<Observed>,
    verdicts: Vec<Verdict>,
}

fn config() -> ScorerConfig {
    ScorerConfig {
        enforce: EnforceConfig { mode: Mode::Enforce, ..EnforceConfig::default() },
        ..ScorerConfig::default()
    }
}

impl Reading {
    fn of(scorer: Scorer) -> Self {
        Self { scorer, observed: Vec::new(), verdicts: Vec::new() }
    }

    fn read(&mut self, records: &[Record]) {
        let mut builder = EventBuilder::new();
        for chunk in records.chunks(1000) {
            for record in chunk {
                push(&mut builder, record);
            }
            let batch = builder.finish();
            self.scorer.open(&batch);
            for event in batch.events() {
                self.scorer.tick(event.report(), &mut self.verdicts);
                let observed = self.scorer.observe(event, event.report(), &mut self.verdicts);
                self.observed.push(observed);
            }
        }
    }

    fn scored(&self) -> usize {
        self.observed.iter().filter(|observed| matches!(observed, Observed::Scored { .. })).count()
    }

    /// What was held against the worker or the broker since the restart.
    fn held_against_streams(&self) -> Vec<&Verdict> {
        let is_about = |verdict: &&Verdict| {
            [WORKER, BROKER].contains(&&*verdict.identity)
                && verdict.cause == Cause::Evidence
                && verdict.time >= RESTART
        };
        self.verdicts.iter().filter(is_about).collect()
    }
}

fn push(builder: &mut EventBuilder, record: &Record) {
    let from = format!("10.0.{}.{}", record.place / 50, record.place % 50);
    let party = |principal| Party { principal, provenance: Provenance::Certificate, ..Party::default() };
    builder.push(&EventDraft {
        start: record.start,
        report: record.report,
        kind: Kind::Connection,
        activity: record.activity,
        reporter: Reporter::Destination,
        record_id: &record.id,
        source: Party { ip: &from, port: 4000, ..party(&record.source) },
        destination: Party { ip: "10.1.1.1", port: 9092, ..party(&record.destination) },
        bytes_in: Some(record.bytes),
        outcome: record.outcome,
        duration_ns: (!record.activity.goes_on()).then_some((record.report - record.start).0),
        position: Position::default(),
        ..EventDraft::default()
    });
}

#[test]
fn five_hundred_streams_that_end_with_the_restart_of_a_broker_are_no_flood_of_calls() {
    for told in [Told::AtTheEnd, Told::Meanwhile] {
        let mut records = others();
        let end = records.iter().map(|record| record.report).max().unwrap();
        records.extend(streams(told).into_iter().filter(|record| record.report <= end));
        let mut reading = Reading::of(Scorer::new(config()));
        reading.read(&in_order(records));
        assert!(reading.held_against_streams().is_empty(), "{told:?}: {:#?}", reading.held_against_streams());
    }
}

#[test]
fn five_hundred_calls_made_at_once_where_there_were_streams_are_a_flood() {
    let mut records = others();
    records.extend(streams(Told::AtTheEnd));
    let mut made = in_order(records);
    made.retain(|record| record.report < RESTART);
    made.extend((0..OPEN).map(|i| {
        let at = RESTART + Span(i as i64 * 4_000_000);
        Record {
            activity: Activity::Whole,
            start: at,
            ..stream(i, 0, (at, at + Span(1_000_000)), Told::AtTheEnd).remove(0)
        }
    }));
    let mut reading = Reading::of(Scorer::new(config()));
    reading.read(&made);
    let held = reading.held_against_streams();
    assert!(held.iter().any(|verdict| verdict.reasons.iter().any(|reason| reason.detector.counts())), "{held:#?}");
}

#[test]
fn the_bytes_of_a_stream_count_once_however_often_it_is_told_of() {
    let at = |minutes: i64| Timestamp(START) + Span(minutes * Span::MINUTE.0);
    let whole = stream(0, 0, (at(0), at(100)), Told::Meanwhile);
    let mut told = whole.clone();
    // A shipper that was killed sends the last two again, in another order.
    told.extend([whole[3].clone(), whole[2].clone()]);
    told.push(whole[4].clone());
    let mut reading = Reading::of(Scorer::new(config()));
    reading.read(&told);
    // Begin, three that go on, the end; all that came again adds nothing.
    assert_eq!(reading.scored(), 5);
    assert!(
        reading.observed[5..].iter().all(|observed| matches!(observed, Observed::Duplicate)),
        "{:?}",
        reading.observed
    );
}

#[test]
fn a_restart_in_the_middle_of_streams_changes_nothing() {
    let records = in_order(streams(Told::Meanwhile)).into_iter().take(4000).collect::<Vec<_>>();
    let mut whole = Reading::of(Scorer::new(config()));
    whole.read(&records);
    for restart in [1, 700, 2500] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut snapshots, _) = Snapshots::open(directory.path(), config()).expect("a new one");
        let mut first = Reading::of(Scorer::new(config()));
        first.read(&records[..restart]);
        snapshots.save(first.scorer.changes(Covered::default()));
        snapshots.finish().expect("it was being written").expect("it can be written");
        drop(snapshots);
        let (_snapshots, loaded) = reopened(directory.path(), &config());
        let mut rest = Reading { scorer: loaded.expect("a snapshot").scorer, ..first };
        rest.read(&records[restart..]);
        assert!(rest.observed == whole.observed, "restart at {restart}");
    }
}
