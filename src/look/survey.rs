//! What a sample of records says about the mesh: counted as they come, in bounded memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use qualm_ingest::{
    counters::reason,
    envelope::Passed,
    parse::{Format, Origin, Parser},
    registry::schema_id,
    source::{Invalid, Rejection},
};
use qualm_model::{
    event::{Event, EventBuilder, Kind, Outcome, Position, Reporter},
    fold,
    identity::Provenance,
    time::{Span, Timestamp},
};

use super::mesh::{Mesh, NAMES};

/// Measurements kept to read quantiles from.
const SAMPLES: usize = 20_000;
/// Bytes shown of an example.
const EXAMPLE: usize = 200;
/// Records kept as they came, to find out what they are.
pub(super) const KEPT: usize = 256;
/// And no more bytes of them.
const KEPT_BYTES: u64 = 1 << 20;
/// Containers that are named which wrote what is not believed of them.
const STRANGERS: usize = 16;
/// Records between two looks at what was understood.
const BATCH: usize = 4096;

/// How many, and the first of them.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) example: String,
}

/// In how many events a field is there.
#[derive(Debug, Default, Clone)]
pub(super) struct Present {
    /// By a certificate, or by whoever wrote the mapping.
    pub(super) vouched: u64,
    pub(super) operation: u64,
    pub(super) outcome: u64,
    pub(super) bytes: u64,
    pub(super) duration: u64,
    pub(super) fingerprint: u64,
    pub(super) credential: u64,
    pub(super) record_id: u64,
    pub(super) address: u64,
    pub(super) cluster: u64,
}

/// What one reporter's clock and shipper show.
#[derive(Debug, Clone)]
pub(super) struct Delay {
    pub(super) count: u64,
    pub(super) least: Span,
}

/// Measurements of which a bounded number is kept, evenly.
#[derive(Debug, Default)]
pub(super) struct Sample {
    kept: Vec<i64>,
    seen: u64,
    every: u64,
}

/// Everything counted.
#[derive(Debug)]
pub(super) struct Survey {
    parser: Parser,
    builder: EventBuilder,
    arrivals: Vec<Option<Timestamp>>,
    kept: Vec<Vec<u8>>,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) events: u64,
    pub(super) parts: u64,
    pub(super) foreign: Tally,
    pub(super) invalid: BTreeMap<&'static str, Tally>,
    /// Entries of records of several that could not be read, and pieces of lines that were given up.
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// Records whose certificates are not believed, by the container that wrote them.
    pub(super) strangers: BTreeMap<Arc<str>, u64>,
    /// Records that were understood, by their envelopes.
    pub(super) envelopes: BTreeMap<Passed, u64>,
    /// Records whose Kafka headers say where they were written.
    pub(super) headed: u64,
    read_as: BTreeMap<Format, u64>,
    pub(super) span: Option<(Timestamp, Timestamp)>,
    pub(super) mesh: Mesh,
    pub(super) reporters: BTreeMap<&'static str, u64>,
    pub(super) kinds: BTreeMap<&'static str, u64>,
    pub(super) present: Present,
    pub(super) successes: u64,
    pub(super) durations: Sample,
    pub(super) delays: Sample,
    pub(super) by_reporter: HashMap<String, Delay>,
}

impl Sample {
    fn add(&mut self, value: i64) {
        self.every = self.every.max(1);
        if self.seen.is_multiple_of(self.every) {
            self.kept.push(value);
        }
        self.seen += 1;
        if self.kept.len() == SAMPLES {
            let mut place = 0;
            self.kept.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.every *= 2;
        }
    }

    /// The value below which a share of them lies.
    pub(super) fn quantile(&self, share: f64) -> Option<i64> {
        let mut sorted = self.kept.clone();
        sorted.sort_unstable();
        let place = ((sorted.len() as f64 * share) as usize).min(sorted.len().checked_sub(1)?);
        Some(sorted[place])
    }
}

impl Survey {
    /// Nothing yet; records are read by `parser`.
    pub(super) fn new(parser: Parser) -> Self {
        Self {
            parser,
            builder: EventBuilder::new(),
            arrivals: Vec::new(),
            kept: Vec::new(),
            records: 0,
            bytes: 0,
            events: 0,
            parts: 0,
            foreign: Tally::default(),
            invalid: BTreeMap::new(),
            refused: BTreeMap::new(),
            strangers: BTreeMap::new(),
            envelopes: BTreeMap::new(),
            headed: 0,
            read_as: BTreeMap::new(),
            span: None,
            mesh: Mesh::default(),
            reporters: BTreeMap::new(),
            kinds: BTreeMap::new(),
            present: Present::default(),
            successes: 0,
            durations: Sample::default(),
            delays: Sample::default(),
            by_reporter: HashMap::new(),
        }
    }

    /// The parser, to begin a file with.
    pub(super) fn parser(&mut self) -> &mut Parser {
        &mut self.parser
    }

    /// The first records, as they came.
    pub(super) fn kept(&self) -> &[Vec<u8>] {
        &self.kept
    }

    /// The records that were kept, read by another parser.
    pub(super) fn again(self, parser: Parser) -> Self {
        let mut again = Self::new(parser);
        for record in &self.kept {
            if again.parser.is_record(record).unwrap_or(true) {
                again.take(record, (0, &Origin::default()), None);
            }
        }
        again.end();
        again
    }

    /// The share of the records that were understood; of those that are none of a proxy's or server's log nothing is said.
    pub(super) fn understood(&self) -> f64 {
        let read: u64 = self.read_as.values().sum::<u64>() + self.parts;
        read as f64 / self.records.max(1) as f64
    }

    /// The formats that were found, most frequent first, with the records that were understood as each.
    pub(super) fn formats(&self) -> Vec<(Format, u64)> {
        let mut formats: Vec<_> = self.read_as.iter().map(|(&format, &records)| (format, records)).collect();
        formats.sort_by_key(|&(format, records)| (std::cmp::Reverse(records), format));
        formats
    }

    /// Takes in one record of a partition, which was written at `origin` as far as is known from outside, and arrived in
    /// the topic at `arrived`.
    pub(super) fn take(&mut self, record: &[u8], (partition, origin): (i32, &Origin<'_>), arrived: Option<Timestamp>) {
        self.records += 1;
        self.bytes += record.len() as u64;
        if self.kept.len() < KEPT && self.bytes <= KEPT_BYTES {
            self.kept.push(record.to_vec());
        }
        let before = self.builder.len();
        let position = Position { partition, ..Position::default() };
        match self.parser.parse_from(origin, record, position, &mut self.builder) {
            Ok(()) => *self.read_as.entry(self.parser.read_as()).or_default() += 1,
            Err(why) => self.reject(record, why),
        }
        for why in self.parser.refused() {
            *self.refused.entry(reason(*why)).or_default() += 1;
        }
        if self.builder.len() > before {
            self.note_way(origin);
        }
        self.arrivals.resize(self.arrivals.len() + self.builder.len() - before, arrived);
        if self.builder.len() >= BATCH {
            self.finish();
        }
    }

    /// How an understood record came here.
    fn note_way(&mut self, origin: &Origin<'_>) {
        *self.envelopes.entry(self.parser.passed()).or_default() += 1;
        self.headed += u64::from(*origin != Origin::default());
        if self.parser.unvouched() > 0 {
            let container = self.parser.stranger();
            if self.strangers.len() < STRANGERS || self.strangers.contains_key(&container) {
                *self.strangers.entry(container).or_default() += 1;
            }
        }
    }

    /// Takes in a record behind a schema id that cannot be read. What is in it is not shown: nobody knows what of it is
    /// a secret.
    pub(super) fn refuse(&mut self, record: &[u8], why: Invalid) {
        self.records += 1;
        self.bytes += record.len() as u64;
        let tally = self.invalid.entry(why.as_str()).or_default();
        tally.count += 1;
        if tally.example.is_empty() {
            let id = schema_id(record).map_or_else(String::new, |id| format!(" of schema {id}"));
            tally.example = format!("{} bytes{id}", record.len());
        }
    }

    /// A record that was too long to be read.
    pub(super) fn too_long(&mut self) {
        self.records += 1;
        self.invalid.entry("too_long").or_default().count += 1;
    }

    fn reject(&mut self, record: &[u8], why: Rejection) {
        let tally = match why {
            Rejection::Part => {
                self.parts += 1;
                return;
            }
            Rejection::Invalid(invalid) => self.invalid.entry(invalid.as_str()).or_default(),
            _ => &mut self.foreign,
        };
        tally.count += 1;
        if tally.example.is_empty() {
            tally.example = example(record);
        }
    }

    /// Looks at what was understood since the last time, for the last time.
    pub(super) fn end(&mut self) {
        self.finish();
        self.mesh.settle();
    }

    fn finish(&mut self) {
        let batch = self.builder.finish();
        let arrivals = std::mem::take(&mut self.arrivals);
        self.mesh.note(&batch);
        for (event, arrived) in batch.events().zip(arrivals) {
            self.note(event, arrived);
        }
    }

    fn note(&mut self, event: Event<'_>, arrived: Option<Timestamp>) {
        self.events += 1;
        let (begin, end) = self.span.unwrap_or((event.report(), event.report()));
        self.span = Some((begin.min(event.report()), end.max(event.report())));
        *self.reporters.entry(reporter(event.reporter())).or_default() += 1;
        *self.kinds.entry(kind(event.kind())).or_default() += 1;
        self.note_presence(event);
        if let Some(duration) = event.duration_ns() {
            self.durations.add(duration);
        }
        if let Some(arrived) = arrived {
            self.note_delay(event, arrived - event.report());
        }
    }

    fn note_presence(&mut self, event: Event<'_>) {
        let (source, present) = (event.source(), &mut self.present);
        let note = |count: &mut u64, is_there: bool| *count += u64::from(is_there);
        note(&mut present.vouched, matches!(source.provenance(), Provenance::Certificate | Provenance::Declared));
        note(&mut present.operation, !event.operation().is_empty() || event.kind() == Kind::Connection);
        note(&mut present.outcome, event.outcome() != Outcome::Unknown);
        note(&mut present.bytes, event.bytes_in().or(event.bytes_out()).is_some());
        note(&mut present.duration, event.duration_ns().is_some());
        note(&mut present.fingerprint, !event.fingerprint().is_empty());
        note(&mut present.credential, !event.credential().is_empty());
        note(&mut present.record_id, !event.record_id().is_empty());
        note(&mut present.address, !source.ip().is_empty());
        note(&mut present.cluster, !source.cluster().is_empty() || !event.destination().cluster().is_empty());
        self.successes += u64::from(event.outcome() == Outcome::Success);
    }

    fn note_delay(&mut self, event: Event<'_>, delay: Span) {
        self.delays.add(delay.0);
        let reporter = match event.reporter_id() {
            "" => event.destination().principal(),
            id => id,
        };
        if let Some(known) = self.by_reporter.get_mut(reporter) {
            (known.count, known.least) = (known.count + 1, known.least.min(delay));
        } else if self.by_reporter.len() < NAMES {
            self.by_reporter.insert(reporter.to_owned(), Delay { count: 1, least: delay });
        }
    }
}

/// The begin of a record, with everything folded that could be a secret.
fn example(record: &[u8]) -> String {
    let text = String::from_utf8_lossy(&record[..record.len().min(4 * EXAMPLE)]);
    let mut folded = String::new();
    fold::append_sample(&text, &mut folded);
    let end = folded.floor_char_boundary(EXAMPLE.min(folded.len()));
    let cut = if end < folded.len() || record.len() > 4 * EXAMPLE { " …" } else { "" };
    let printable = folded[..end].chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.collect::<String>() + cut
}

fn reporter(reporter: Reporter) -> &'static str {
    match reporter {
        Reporter::Destination => "destination",
        Reporter::Source => "source",
        Reporter::Gateway => "gateway",
        Reporter::Waypoint => "waypoint",
        Reporter::Ztunnel => "ztunnel",
        Reporter::Issuer => "issuer",
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Request => "requests",
        Kind::Connection => "connections",
        Kind::Authentication => "authentications",
    }
}
