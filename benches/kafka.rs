//! From the bytes of Envoy JSON lines to verdicts: read from a real Kafka (Apache Kafka 4.1, which `tests/run` installs)
//! through the real source, beside the same bytes from memory. CPU time of this process alone: the broker is another.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

#[path = "support/lines.rs"]
mod lines;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{collections::BTreeMap, hint::black_box, time::Duration};

use prometheus::Registry;
use qualm_ingest::{
    config::{KafkaConfig, TopicConfig},
    counters::IngestCounters,
    kafka::{Joining, KafkaSource},
    parse::{Format, Parser},
    source::{Incoming, Source},
};
use qualm_model::{
    event::{EventBatch, EventBuilder, Position},
    time::{Clock, Timestamp},
};
use qualm_scorer::{config::ScorerConfig, scorer::Scorer, verdict::Verdict};
use support::{
    kafka::Kafka,
    measure::process_cpu,
    parts::{self, Part},
};

const LINES: usize = 400_000;
const BATCH: usize = 4096;
const ROUNDS: usize = 5;
const TOPIC: &str = "mesh-access-log";

/// Scores, or only reads.
struct Judge {
    scorer: Option<Scorer>,
    verdicts: Vec<Verdict>,
}

impl Judge {
    fn new(judges: bool) -> Self {
        Self { scorer: judges.then(|| Scorer::new(ScorerConfig::default())), verdicts: Vec::new() }
    }

    fn observe(&mut self, batch: &EventBatch) {
        let Some(scorer) = &mut self.scorer else {
            black_box(batch.len());
            return;
        };
        scorer.open(batch);
        for event in batch.events() {
            black_box(scorer.observe(event, event.report(), &mut self.verdicts));
        }
    }
}

fn from_memory(lines: &[Vec<u8>], judges: bool) -> Duration {
    let begun = process_cpu();
    let mut judge = Judge::new(judges);
    let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
    let mut builder = EventBuilder::new();
    for (offset, line) in (0..).zip(lines) {
        parser.parse(line, Position { offset, ..Position::default() }, &mut builder).unwrap();
        if builder.len() == BATCH {
            judge.observe(&builder.finish());
        }
    }
    judge.observe(&builder.finish());
    process_cpu() - begun
}

fn from_kafka(kafka: &Kafka, group: &str, judges: bool) -> Duration {
    let config = KafkaConfig {
        brokers: kafka.bootstrap(),
        group: group.to_owned(),
        topics: vec![TopicConfig::new(TOPIC, Format::IstioJson)],
        properties: BTreeMap::from([("broker.address.family".to_owned(), "v4".to_owned())]),
        ..KafkaConfig::default()
    };
    let counters = IngestCounters::register(&Registry::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // After the last of the lines, which are of the future of a clock that is behind.
    let clock = Clock::new(|| Timestamp::from_seconds(1_800_000_000));
    let begun = process_cpu();
    let mut source = KafkaSource::start(&config, 0, clock, &counters, Joining::default()).unwrap();
    let mut judge = Judge::new(judges);
    let mut events = 0;
    let spent = runtime.block_on(async {
        while events < LINES {
            match source.next().await.unwrap() {
                Incoming::Batch(batch) => {
                    assert!(batch.rejected.is_empty());
                    events += batch.events.len();
                    judge.observe(&batch.events);
                }
                Incoming::Assigned(_, answer) => answer.send(BTreeMap::new()).unwrap(),
                Incoming::Revoking(_, done) => done.send(BTreeMap::new()).unwrap(),
                Incoming::End => break,
            }
        }
        let spent = process_cpu() - begun;
        source.close().await;
        spent
    });
    assert_eq!(events, LINES);
    spent
}

fn main() {
    if !parts::present(&[Part::Kafka]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(folder.path());
    kafka.create_topic(TOPIC, 1);
    let lines = lines::of_quiet_mesh(LINES);
    kafka.produce(TOPIC, Some(0), lines.iter().map(|line| ("", line.as_slice())));
    let bytes: usize = lines.iter().map(Vec::len).sum();
    println!("{LINES} lines of {} bytes; microseconds of CPU a line, the least of {ROUNDS} rounds", bytes / LINES);
    for (what, judges) in [("bytes to events ", false), ("bytes to verdict", true)] {
        let (mut memory, mut broker) = (Duration::MAX, Duration::MAX);
        for round in 0..ROUNDS {
            memory = memory.min(from_memory(&lines, judges));
            broker = broker.min(from_kafka(&kafka, &format!("bench-{judges}-{round}"), judges));
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / LINES as f64;
        println!(
            "{what}   from memory {:.3}   from Kafka {:.3}   memory : Kafka {:.2}",
            each(memory),
            each(broker),
            each(memory) / each(broker),
        );
    }
}
