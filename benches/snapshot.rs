//! How long the loop stands still for a snapshot of a large state: when it is begun, and each time a little more of it is
//! collected, beside taking all of it at once.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/support/measure.rs"]
mod measure;

use measure::thread_cpu;
use qualm_model::{
    event::{EventBuilder, EventDraft, Outcome, Party, Position},
    identity::Provenance,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    scorer::Scorer,
    snapshot::{Changes, Covered},
};

const IDENTITIES: usize = 20_000;
const EDGES_EACH: usize = 5;
/// As `run` collects between two batches.
const KEYS_A_TURN: usize = 2_000;
const ROUNDS: usize = 5;

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = thread_cpu();
    let done = work();
    (done, (thread_cpu() - begun).as_secs_f64() * 1e3)
}

/// A mesh in which the first so many identities call all their peers in a minute.
struct Estate {
    scorer: Scorer,
    minute: i64,
    offset: i64,
}

impl Estate {
    fn call(&mut self, identities: usize) {
        self.minute += 1;
        let time = Timestamp::from_seconds(1_790_000_000) + Span(self.minute * Span::MINUTE.0);
        let mut builder = EventBuilder::new();
        let mut verdicts = Vec::new();
        for number in 0..identities * EDGES_EACH {
            let (source, peer) = (number / EDGES_EACH, number % EDGES_EACH);
            self.offset += 1;
            let party =
                |principal, ip| Party { principal, ip, provenance: Provenance::Certificate, ..Party::default() };
            builder.push(&EventDraft {
                start: time,
                report: time,
                source: party(&format!("spiffe://mesh.test/ns/n{}/sa/s{source}", source % 100), "10.0.0.1"),
                destination: party(
                    &format!("spiffe://mesh.test/ns/shop/sa/d{}", (source * 7 + peer * 131) % 2_000),
                    "",
                ),
                operation: "GET /v1/items/{id}",
                outcome: Outcome::Success,
                bytes_in: Some(500 + number as u64 % 700),
                duration_ns: Some(3_000_000),
                position: Position { offset: self.offset, ..Position::default() },
                ..EventDraft::default()
            });
            if builder.len() == 4096 || number + 1 == identities * EDGES_EACH {
                let batch = builder.finish();
                self.scorer.open(&batch);
                for event in batch.events() {
                    self.scorer.observe(event, event.report(), &mut verdicts);
                }
                verdicts.clear();
            }
        }
    }

    fn changes(&mut self) -> Changes {
        self.scorer.changes(Covered::default())
    }
}

fn main() {
    let mut estate = Estate { scorer: Scorer::new(ScorerConfig::default()), minute: 0, offset: 0 };
    (0..30).for_each(|_| estate.call(IDENTITIES));
    drop(estate.changes());
    let tally = estate.scorer.tally();
    println!(
        "{} identities, {} edges, {} MiB; milliseconds of CPU, the worst of {ROUNDS}",
        tally.identities,
        tally.edges,
        tally.bytes >> 20
    );
    println!(
        "changed since the last snapshot   begin   longest turn   turns   all at once   longest stand : all at once"
    );
    for share in [1, 10, 100] {
        let changed = IDENTITIES * share / 100;
        let (mut begin, mut turn, mut turns, mut whole) = (0.0_f64, 0.0_f64, 0, 0.0_f64);
        for _ in 0..ROUNDS {
            estate.call(changed);
            begin = begin.max(timed(|| estate.scorer.begin_snapshot(Covered::default())).1);
            turns = 0;
            loop {
                let (changes, took) = timed(|| estate.scorer.collect(KEYS_A_TURN));
                turn = turn.max(took);
                turns += 1;
                if changes.is_some() {
                    break;
                }
            }
            estate.call(changed);
            whole = whole.max(timed(|| estate.changes()).1);
        }
        println!(
            "{:9} edges {share:3} %             {begin:7.2}   {turn:12.2}   {turns:5}   {whole:11.2}   {:.3}",
            changed * EDGES_EACH,
            begin.max(turn) / whole,
        );
    }
}
