//! What the state of the generated mesh takes.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    sync::Arc,
};

use qualm_datasets::{AccessLog, MeshConfig, Millis, Scenario, Traffic};
use qualm_ingest::parse::{Format, Parser};
use qualm_model::event::{EventBatch, EventBuilder, EventDraft, Party, Position};
use qualm_scorer::{config::ScorerConfig, scorer::Scorer};
use serde::{Deserialize, Serialize};

use crate::resident::{fill_what_is_free, resident};

const BATCH: usize = 4096;

/// Two meshes whose difference is what edges take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// As it is.
    Whole,
    /// Everybody calls one destination in one way, as often as before.
    OneEdgeEach,
}

/// What is held, and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) events: u64,
    pub(crate) identities: u64,
    pub(crate) edges: u64,
    /// Resident bytes, beyond those before the first event.
    pub(crate) bytes: u64,
    /// Bytes that the scorer counts for itself.
    pub(crate) claimed: u64,
}

/// Writes the log of a generated mesh of so many services.
pub(crate) fn write_log(file: &Path, services: usize, days: f64) {
    let config = MeshConfig { seed: 5, services, calls_per_second: 20.0 };
    let scenario = Arc::new(Scenario::quiet(config, Millis(1_790_000_000_000), days).unwrap());
    let log = AccessLog::new(scenario.mesh());
    let mut out = zstd::Encoder::new(File::create(file).unwrap(), 1).unwrap();
    let mut line = Vec::new();
    for call in Traffic::new(Arc::clone(&scenario)) {
        line.clear();
        log.push_inbound(&call, &mut line);
        line.push(b'\n');
        out.write_all(&line).unwrap();
    }
    out.finish().unwrap();
}

impl Shape {
    /// What the state takes after the log of `file`.
    pub(crate) fn measure(self, file: &Path) -> State {
        // What reading needs for itself is there before the count begins.
        let mut events = 0;
        self.read(file, Some(100_000), |batch| events += batch.len());
        let _ballast = fill_what_is_free();
        let before = resident();
        let mut scorer = Scorer::new(ScorerConfig::default());
        let mut verdicts = Vec::new();
        events = 0;
        self.read(file, None, |batch| {
            scorer.open(batch);
            for event in batch.events() {
                scorer.observe(event, event.report(), &mut verdicts);
                verdicts.clear();
            }
            scorer.forget_changes();
            events += batch.len();
        });
        let tally = scorer.tally();
        State {
            events: events as u64,
            identities: tally.identities,
            edges: tally.edges,
            bytes: resident() - before,
            claimed: tally.bytes,
        }
    }

    fn read(self, file: &Path, most: Option<usize>, mut each: impl FnMut(&EventBatch)) {
        let mut lines = BufReader::new(zstd::Decoder::new(File::open(file).unwrap()).unwrap());
        let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
        let (mut line, mut builder, mut offset) = (Vec::new(), EventBuilder::new(), 0);
        while most.is_none_or(|most| offset < most) && lines.read_until(b'\n', &mut line).unwrap() > 0 {
            let position = Position { offset: offset as i64, ..Position::default() };
            parser.parse(&line[..line.len() - 1], position, &mut builder).unwrap();
            line.clear();
            offset += 1;
            if builder.len() == BATCH {
                let batch = builder.finish();
                each(&if self == Self::Whole { batch } else { one_edge_each(&batch) });
            }
        }
    }
}

fn one_edge_each(batch: &EventBatch) -> EventBatch {
    let mut builder = EventBuilder::new();
    for event in batch.events() {
        let source = event.source();
        builder.push(&EventDraft {
            start: event.report(),
            report: event.report(),
            source: Party {
                principal: source.principal(),
                ip: source.ip(),
                provenance: source.provenance(),
                ..Party::default()
            },
            destination: Party { principal: "spiffe://mesh.test/ns/shop/sa/everybodys", ..Party::default() },
            operation: "GET /",
            outcome: event.outcome(),
            bytes_in: event.bytes_in(),
            bytes_out: event.bytes_out(),
            duration_ns: event.duration_ns(),
            position: event.position(),
            ..EventDraft::default()
        });
    }
    builder.finish()
}
