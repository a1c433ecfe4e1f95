//! What the state of the generated mesh takes.

use std::sync::Arc;

use qualm_datasets::{AccessLog, MeshConfig, Millis, Scenario, Traffic};
use qualm_ingest::parse::{Format, Parser};
use qualm_model::event::{EventBatch, EventBuilder, EventDraft, Party, Position};
use qualm_scorer::{config::ScorerConfig, scorer::Scorer};
use serde::{Deserialize, Serialize};

use crate::resident::resident;

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

impl Shape {
    pub(crate) fn measure(self, days: f64) -> State {
        let config = MeshConfig { seed: 5, services: 2_000, calls_per_second: 20.0 };
        let scenario = Arc::new(Scenario::quiet(config, Millis(1_790_000_000_000), days).unwrap());
        let log = AccessLog::new(scenario.mesh());
        let mut feed = Feed::new(ScorerConfig::default());
        let mut calls = Traffic::new(Arc::clone(&scenario));
        // What generator and parser need for themselves is there before the count begins.
        let warm_up: Vec<_> = calls.by_ref().take(50_000).collect();
        let before = resident();
        let (mut line, mut parser, mut builder, mut events) =
            (Vec::new(), Parser::for_format(Format::IstioJson, None).unwrap(), EventBuilder::new(), 0);
        for call in warm_up.into_iter().chain(calls) {
            line.clear();
            log.push_inbound(&call, &mut line);
            parser.parse(&line, Position { offset: events, ..Position::default() }, &mut builder).unwrap();
            events += 1;
            if builder.len() == BATCH {
                let batch = builder.finish();
                feed.observe(&if self == Self::Whole { batch } else { one_edge_each(&batch) });
            }
        }
        let tally = feed.scorer.tally();
        State {
            events: events as u64,
            identities: tally.identities,
            edges: tally.edges,
            bytes: resident() - before,
            claimed: tally.bytes,
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

/// A scorer that is fed.
pub(crate) struct Feed {
    pub(crate) scorer: Scorer,
    pub(crate) verdicts: Vec<qualm_scorer::verdict::Verdict>,
}

impl Feed {
    pub(crate) fn new(config: ScorerConfig) -> Self {
        Self { scorer: Scorer::new(config), verdicts: Vec::new() }
    }

    /// Everything is read when it happens. Verdicts are left out.
    fn observe(&mut self, batch: &EventBatch) {
        self.scorer.open(batch);
        for event in batch.events() {
            self.scorer.observe(event, event.report(), &mut self.verdicts);
            self.verdicts.clear();
        }
    }
}
