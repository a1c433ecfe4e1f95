//! What a sample of records says about the mesh: counted as they come, in bounded memory.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
};

use qualm_ingest::{
    parse::{Format, Parser},
    registry::schema_id,
    source::{Invalid, Rejection},
};
use qualm_model::{
    event::{Event, EventBatch, EventBuilder, Kind, Outcome, Position, Reporter},
    fold,
    identity::Provenance,
    time::{Span, Timestamp},
};

/// Names kept of each kind; what is beyond is counted together.
const NAMES: usize = 50_000;
/// Calls that both ends' reports are looked for.
const CALLS: usize = 500_000;
/// Measurements kept to read quantiles from.
const SAMPLES: usize = 20_000;
/// Bytes shown of an example.
const EXAMPLE: usize = 200;
/// Records kept as they came, to find out what they are.
pub(super) const KEPT: usize = 256;
/// And no more bytes of them.
const KEPT_BYTES: u64 = 1 << 20;
/// Records between two looks at what was understood.
const BATCH: usize = 4096;

/// How many, and the first of them.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) example: String,
}

/// What is known of one identity.
#[derive(Debug, Default, Clone)]
pub(super) struct Identity {
    pub(super) calls: u64,
    pub(super) called: u64,
    pub(super) verified: bool,
}

/// In how many events a field is there.
#[derive(Debug, Default, Clone)]
pub(super) struct Present {
    pub(super) verified: u64,
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
    named: Format,
    builder: EventBuilder,
    arrivals: Vec<Option<Timestamp>>,
    salt: RandomState,
    kept: Vec<Vec<u8>>,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) events: u64,
    pub(super) parts: u64,
    pub(super) foreign: Tally,
    pub(super) invalid: BTreeMap<&'static str, Tally>,
    pub(super) span: Option<(Timestamp, Timestamp)>,
    pub(super) identities: HashMap<String, Identity>,
    pub(super) edges: HashMap<(String, String), u64>,
    pub(super) beyond: u64,
    pub(super) reporters: BTreeMap<&'static str, u64>,
    pub(super) kinds: BTreeMap<&'static str, u64>,
    pub(super) present: Present,
    pub(super) successes: u64,
    pub(super) durations: Sample,
    pub(super) delays: Sample,
    pub(super) by_reporter: HashMap<String, Delay>,
    by_destination: HashSet<u64>,
    by_source: HashSet<u64>,
    reporting: HashSet<String>,
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
    /// Nothing yet; records are read by `parser`, which reads `named`.
    pub(super) fn new(parser: Parser, named: Format) -> Self {
        Self {
            parser,
            named,
            builder: EventBuilder::new(),
            arrivals: Vec::new(),
            salt: RandomState::new(),
            kept: Vec::new(),
            records: 0,
            bytes: 0,
            events: 0,
            parts: 0,
            foreign: Tally::default(),
            invalid: BTreeMap::new(),
            span: None,
            identities: HashMap::new(),
            edges: HashMap::new(),
            beyond: 0,
            reporters: BTreeMap::new(),
            kinds: BTreeMap::new(),
            present: Present::default(),
            successes: 0,
            durations: Sample::default(),
            delays: Sample::default(),
            by_reporter: HashMap::new(),
            by_destination: HashSet::new(),
            by_source: HashSet::new(),
            reporting: HashSet::new(),
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
        let mut again = Self::new(parser, Format::Mapped);
        for record in &self.kept {
            if again.parser.is_record(record).unwrap_or(true) {
                again.take(record, None);
            }
        }
        again.finish();
        again
    }

    /// The formats that were found, most frequent first.
    pub(super) fn formats(&self) -> Vec<(Format, u64)> {
        match self.named {
            Format::Auto => self.parser.found(),
            _ if self.events == 0 => Vec::new(),
            named => vec![(named, self.events + self.parts)],
        }
    }

    /// Takes in one record, which arrived in the topic at `arrived`.
    pub(super) fn take(&mut self, record: &[u8], arrived: Option<Timestamp>) {
        self.records += 1;
        self.bytes += record.len() as u64;
        if self.kept.len() < KEPT && self.bytes <= KEPT_BYTES {
            self.kept.push(record.to_vec());
        }
        let before = self.builder.len();
        if let Err(why) = self.parser.parse(record, Position::default(), &mut self.builder) {
            self.reject(record, why);
        }
        self.arrivals.resize(self.arrivals.len() + self.builder.len() - before, arrived);
        if self.builder.len() >= BATCH {
            self.finish();
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

    /// Looks at what was understood since the last time.
    pub(super) fn finish(&mut self) {
        let batch = self.builder.finish();
        let arrivals = std::mem::take(&mut self.arrivals);
        self.note_ends(&batch);
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
        self.note_call(event);
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
        note(&mut present.verified, source.provenance() == Provenance::Certificate);
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

    /// Who calls whom: by the batch's dictionary keys, so that names are looked at once a batch and not once an event.
    fn note_ends(&mut self, batch: &EventBatch) {
        let mut ends: HashMap<[Option<usize>; 5], (u64, Event<'_>)> = HashMap::new();
        for event in batch.events() {
            let (source, destination) = (&batch.source, &batch.destination);
            let keys =
                [&source.principal, &source.cluster, &destination.principal, &destination.cluster, &batch.hostname];
            let (calls, shown) = ends.entry(keys.map(|names| names.key(event.row))).or_insert((0, event));
            *calls += 1;
            if event.source().provenance() < shown.source().provenance() {
                *shown = event;
            }
        }
        for (calls, event) in ends.into_values() {
            self.note_edge(event, calls);
        }
    }

    fn note_edge(&mut self, event: Event<'_>, calls: u64) {
        let named = |principal: &str, cluster: &str| match cluster {
            "" => principal.to_owned(),
            cluster => format!("{principal}@{cluster}"),
        };
        let source = named(event.source().principal(), event.source().cluster());
        let destination = match event.destination().principal() {
            "" => event.hostname(),
            principal => principal,
        };
        let destination = named(destination, event.destination().cluster());
        if let Some(identity) = place_for(&mut self.identities, &source) {
            identity.calls += calls;
            identity.verified |= event.source().provenance() == Provenance::Certificate;
        } else {
            self.beyond += calls;
        }
        if let Some(identity) = place_for(&mut self.identities, &destination) {
            identity.called += calls;
        }
        let edge = (source, destination);
        if let Some(known) = self.edges.get_mut(&edge) {
            *known += calls;
        } else if self.edges.len() < NAMES {
            self.edges.insert(edge, calls);
        }
    }

    /// Whether both ends report their calls, and how many of the caller's reports the called's proxy has no part in.
    fn note_call(&mut self, event: Event<'_>) {
        let (id, at) = (event.record_id(), event.destination());
        if id.is_empty() || at.ip().is_empty() {
            return;
        }
        let call = self.salt.hash_one((id, at.ip(), at.port()));
        let calls = match event.reporter() {
            Reporter::Destination => {
                if !self.reporting.contains(at.ip()) && self.reporting.len() < NAMES {
                    self.reporting.insert(at.ip().to_owned());
                }
                &mut self.by_destination
            }
            Reporter::Source if self.reporting.contains(at.ip()) => &mut self.by_source,
            _ => return,
        };
        if calls.len() < CALLS {
            calls.insert(call);
        }
    }

    /// Of the calls that a caller's proxy reports to a destination whose proxy reports too: how many, and the share that
    /// the destination's proxy has reported.
    pub(super) fn confirmed(&self) -> Option<(usize, f64)> {
        let both = self.by_source.intersection(&self.by_destination).count();
        (!self.by_source.is_empty()).then(|| (self.by_source.len(), both as f64 / self.by_source.len() as f64))
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

fn place_for<'a>(identities: &'a mut HashMap<String, Identity>, name: &str) -> Option<&'a mut Identity> {
    if name.is_empty() || (!identities.contains_key(name) && identities.len() >= NAMES) {
        return None;
    }
    Some(identities.entry(name.to_owned()).or_default())
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
