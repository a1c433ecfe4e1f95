//! A flood of distinct names beside a mesh that goes on as always: what it takes, and what it does to the others.

use std::sync::Arc;

use qualm_datasets::{AccessLog, Call, MeshConfig, Millis, Scenario, Traffic};
use qualm_ingest::parse::{Format, Parser};
use qualm_model::{
    event::{EventBatch, EventBuilder, EventDraft, Outcome, Party, Position},
    identity::Provenance,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{MemoryConfig, ScorerConfig},
    scorer::{Observed, Scorer},
    snapshot::{Changes, Covered},
    verdict::{Cause, Verdict},
};
use serde::{Deserialize, Serialize};

use crate::{
    resident::{forget_peak, peak, resident},
    support::measure::{at_share, process_cpu},
};

const BATCH: usize = 4096;
const START: Millis = Millis(1_790_000_000_000);
const HOUR: i64 = 3_600_000;
/// The flood comes in the hour after the first day, when the mesh has settled, and another hour follows.
const FROM: Millis = Millis(START.0 + 24 * HOUR);
/// Whom flooders call: somebody the others call too.
const VICTIM: usize = 7;

/// What there is so much of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// One caller asks one service for another path each time.
    Paths,
    /// One caller calls another peer each time.
    Peers,
    /// Another caller each time, of a namespace that others live in.
    Identities,
}

/// How the flood arrives; the others' calls are always log lines.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Form {
    Events,
    Lines,
}

/// Over how long the flood is spread in event time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Pace {
    Hour,
    /// All within one summary of the mesh: nothing closes meanwhile.
    Moment,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Flood {
    pub(crate) kind: Kind,
    pub(crate) many: u64,
    pub(crate) form: Form,
    pub(crate) pace: Pace,
    pub(crate) bound_mib: usize,
}

/// What a flood did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Flooded {
    /// Resident MiB at the most while it lasted, beyond those before the first event.
    pub(crate) peak_mib: f64,
    /// The same before the flood, after the settled day.
    pub(crate) before_mib: f64,
    pub(crate) claimed_mib: f64,
    pub(crate) identities: u64,
    pub(crate) edges: u64,
    pub(crate) folded: u64,
    pub(crate) verdicts_on_flooders: usize,
    pub(crate) cpu_seconds: f64,
    pub(crate) others: Others,
}

/// The others' events of the flooded hour and of the one after it, beside the same events without a flood.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Others {
    pub(crate) events: usize,
    /// Differences of the bits of an event: median, 99 of 100, the greatest.
    pub(crate) bits_apart: [f64; 3],
    /// Share of events whose bits are more than one apart, upwards and downwards.
    pub(crate) higher: f64,
    pub(crate) lower: f64,
    /// Entries into each level, without and with the flood.
    pub(crate) entries: [Vec<String>; 2],
}

/// One run: the others' bits in the hours that count, and their entries.
struct Run {
    bits: Vec<f64>,
    entries: Vec<String>,
    verdicts_on_flooders: usize,
}

impl Flood {
    pub(crate) fn measure(self) -> Flooded {
        let config = MeshConfig { seed: 3, services: 40, calls_per_second: 2.0 };
        let scenario = Arc::new(Scenario::quiet(config, START, 26.0 / 24.0).unwrap());
        let mut mesh = Traffic::new(Arc::clone(&scenario)).collect::<Vec<_>>();
        mesh.sort_by_key(Call::report);
        let before = resident();
        let begun = process_cpu();
        let mut feed = Feed::new(&scenario, self.bound_mib);
        let flooded_from = mesh.partition_point(|call| call.report() < FROM);
        mesh[..flooded_from].iter().for_each(|call| feed.call(call));
        feed.flush();
        let settled = resident();
        forget_peak();
        let mut flood = 0;
        for call in &mesh[flooded_from..] {
            let due = self.due(call.report());
            (flood..due).for_each(|number| self.push(number, &scenario, &mut feed));
            flood = due;
            feed.call(call);
        }
        assert_eq!(flood, self.many);
        feed.flush();
        let (peak, cpu_seconds) = (peak(), (process_cpu() - begun).as_secs_f64());
        let tally = feed.scorer.tally();
        let flooded = feed.run;
        let mut feed = Feed::new(&scenario, 1024);
        mesh.iter().for_each(|call| feed.call(call));
        feed.flush();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Flooded {
            peak_mib: mib(peak - before),
            before_mib: mib(settled - before),
            claimed_mib: mib(tally.bytes),
            identities: tally.identities,
            edges: tally.edges,
            folded: tally.folded,
            verdicts_on_flooders: flooded.verdicts_on_flooders,
            cpu_seconds,
            others: Others::between(feed.run, flooded),
        }
    }

    /// How many have come by then.
    fn due(&self, now: Millis) -> u64 {
        match self.pace {
            Pace::Hour => ((now.0 - FROM.0).clamp(0, HOUR) as f64 / HOUR as f64 * self.many as f64) as u64,
            Pace::Moment => {
                if now.0 > FROM.0 + 60_000 {
                    self.many
                } else {
                    0
                }
            }
        }
    }

    fn at(&self, number: u64) -> Millis {
        match self.pace {
            Pace::Hour => Millis(FROM.0 + (number as f64 / self.many as f64 * HOUR as f64) as i64),
            Pace::Moment => Millis(FROM.0 + 60_000),
        }
    }

    fn push(&self, number: u64, scenario: &Scenario, feed: &mut Feed<'_>) {
        let victim = &scenario.mesh().services[VICTIM];
        let word = word(number);
        let text = |wanted, text: &str| if self.kind == wanted { format!("{text}{word}") } else { text.to_owned() };
        let source = text(Kind::Identities, &format!("spiffe://mesh.test/ns/{}/sa/flooder", victim.namespace));
        let destination = match self.kind {
            Kind::Peers => format!("spiffe://mesh.test/ns/{}/sa/{word}", victim.namespace),
            _ => victim.spiffe_id.clone(),
        };
        let path = text(Kind::Paths, "/flood/");
        match self.form {
            Form::Events => feed.draft(&EventDraft {
                start: nanoseconds(self.at(number)),
                report: nanoseconds(self.at(number)),
                source: Party {
                    principal: &source,
                    ip: "10.9.9.9",
                    provenance: Provenance::Certificate,
                    ..Party::default()
                },
                destination: Party { principal: &destination, provenance: Provenance::Certificate, ..Party::default() },
                operation: &format!("GET {path}"),
                status: Some(200),
                outcome: Outcome::Success,
                bytes_in: Some(100),
                bytes_out: Some(900),
                ..EventDraft::default()
            }),
            Form::Lines => feed.line(line(self.at(number), &source, &destination, &path, number).as_bytes()),
        }
        feed.flooders.push(feed.rows);
    }
}

impl Others {
    fn between(calm: Run, flooded: Run) -> Self {
        assert_eq!(calm.bits.len(), flooded.bits.len());
        let mut apart: Vec<f64> = calm.bits.iter().zip(&flooded.bits).map(|(a, b)| b - a).collect();
        let events = apart.len();
        let share = |count: usize| count as f64 / events as f64;
        let (higher, lower) = (apart.iter().filter(|d| **d > 1.0).count(), apart.iter().filter(|d| **d < -1.0).count());
        apart.iter_mut().for_each(|d| *d = d.abs());
        apart.sort_by(f64::total_cmp);
        Self {
            events,
            bits_apart: [0.5, 0.99, 1.0].map(|share| at_share(&apart, share)),
            higher: share(higher),
            lower: share(lower),
            entries: [calm.entries, flooded.entries],
        }
    }
}

/// Log lines and drafts on their way into a scorer, as they happen.
struct Feed<'a> {
    scorer: Scorer,
    log: AccessLog<'a>,
    parser: Parser,
    builder: EventBuilder,
    buffer: Vec<u8>,
    /// Rows of this batch that are the flood's.
    flooders: Vec<usize>,
    rows: usize,
    offset: i64,
    verdicts: Vec<Verdict>,
    run: Run,
    next_snapshot: Timestamp,
    changes: Option<Changes>,
}

impl<'a> Feed<'a> {
    fn new(scenario: &'a Scenario, baselines_mib: usize) -> Self {
        let config = ScorerConfig { memory: MemoryConfig { baselines_mib }, ..ScorerConfig::default() };
        Self {
            scorer: Scorer::new(config),
            log: AccessLog::new(scenario.mesh()),
            parser: Parser::for_format(Format::IstioJson, None).unwrap(),
            builder: EventBuilder::new(),
            buffer: Vec::new(),
            flooders: Vec::new(),
            rows: 0,
            offset: 0,
            verdicts: Vec::new(),
            run: Run { bits: Vec::new(), entries: Vec::new(), verdicts_on_flooders: 0 },
            next_snapshot: Timestamp(0),
            changes: None,
        }
    }

    fn call(&mut self, call: &Call) {
        let mut line = std::mem::take(&mut self.buffer);
        line.clear();
        self.log.push_inbound(call, &mut line);
        self.line(&line);
        self.buffer = line;
    }

    fn line(&mut self, line: &[u8]) {
        self.make_room();
        let position = Position { offset: self.offset, ..Position::default() };
        self.parser.parse(line, position, &mut self.builder).unwrap();
    }

    fn draft(&mut self, draft: &EventDraft<'_>) {
        self.make_room();
        self.builder.push(draft);
    }

    fn make_room(&mut self) {
        if self.builder.len() == BATCH {
            self.flush();
        }
        self.rows = self.builder.len();
        self.offset += 1;
    }

    fn flush(&mut self) {
        let batch = self.builder.finish();
        let flooders = std::mem::take(&mut self.flooders);
        self.observe(&batch, &flooders);
    }

    fn observe(&mut self, batch: &EventBatch, flooders: &[usize]) {
        let last = batch.events().next_back().map_or(Timestamp(0), |event| event.report());
        if last >= self.next_snapshot {
            // As `run` does: what changed is held as bytes until it is written.
            self.next_snapshot = last + Span::seconds(10);
            self.changes = None;
            self.changes = Some(self.scorer.changes(Covered::default()));
        }
        self.scorer.open(batch);
        let mut flooders = flooders.iter().peekable();
        for event in batch.events() {
            let floods = flooders.next_if(|row| **row == event.row).is_some();
            let observed = self.scorer.observe(event, event.report(), &mut self.verdicts);
            if event.row % 64 == 0 {
                self.scorer.tick(event.report(), &mut self.verdicts);
            }
            if !floods && event.report() >= nanoseconds(FROM) {
                let Observed::Scored { bits, .. } = observed else { panic!("{observed:?}") };
                self.run.bits.push(bits);
            }
            for verdict in self.verdicts.drain(..).filter(|verdict| verdict.cause == Cause::Evidence) {
                let floods = verdict.identity.contains("/sa/flooder");
                self.run.verdicts_on_flooders += usize::from(floods);
                if !floods && verdict.time >= nanoseconds(FROM) && verdict.level > Level::Trusted {
                    self.run.entries.push(format!("{} {}", verdict.level, verdict.identity));
                }
            }
        }
    }
}

/// A number as letters: no placeholder stands for a short word.
fn word(mut number: u64) -> String {
    let mut word = String::from("x");
    while number > 0 {
        word.push(char::from(b'a' + (number % 26) as u8));
        number /= 26;
    }
    word
}

fn nanoseconds(time: Millis) -> Timestamp {
    Timestamp(time.0 * 1_000_000)
}

fn line(time: Millis, source: &str, destination: &str, path: &str, number: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(time.0).unwrap().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    format!(
        r#"{{"authority":"victim:8080","bytes_received":100,"bytes_sent":900,"downstream_local_address":"10.0.4.1:8080","downstream_local_uri_san":"{destination}","downstream_peer_uri_san":"{source}","downstream_remote_address":"10.9.9.9:4444","duration":0,"method":"GET","path":"{path}","protocol":"HTTP/1.1","request_id":"80f862cd-fe22-4f4a-8c46-{number:012x}","response_code":200,"response_code_details":"via_upstream","response_flags":"-","route_name":"default","start_time":"{time}","upstream_cluster":"inbound|8080||","upstream_host":"10.0.4.1:8080","user_agent":"flood"}}"#
    )
}
