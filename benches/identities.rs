//! What an event costs to judge while a thousand, ten thousand, a hundred thousand and a million identities are known
//! (the last with `QUALM_LONG=1`; it takes some 10 GB). Callers are drawn by Zipf's law, so the most of them call
//! seldom; how many calls a minute has is the same for all sizes. CPU time; read the ratios.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/support/measure.rs"]
mod measure;

use std::{env, time::Duration};

use measure::thread_cpu;
use qualm_model::{
    event::{EventBatch, EventBuilder, EventDraft, Outcome, Party, Position},
    identity::Provenance,
    time::{Span, Timestamp},
};
use qualm_scorer::{config::ScorerConfig, scorer::Scorer};

const BATCH: usize = 4096;
/// As many calls as a mesh of some hundred requests a second has.
const CALLS_A_MINUTE: u64 = 20_000;
/// Calls by Zipf's law before it is measured, so that the tables of what is usual have settled.
const BEFORE: u64 = 1_000_000;
const MEASURED: u64 = 2_000_000;
/// Room for a million: nothing is folded away for want of it, which would be another measurement.
const MIB: usize = 16 << 10;

struct Estate {
    identities: u64,
    scorer: Scorer,
    random: u64,
    calls: u64,
}

impl Estate {
    fn new(identities: u64) -> Self {
        let mut config = ScorerConfig::default();
        config.memory.baselines_mib = MIB;
        Self { identities, scorer: Scorer::new(config), random: 7, calls: 0 }
    }

    /// SplitMix64, in [0, 1).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A caller by Zipf's law with exponent 1: the logarithm of its rank is uniform.
    fn popular(&mut self) -> u64 {
        let rank = (self.identities as f64).powf(self.draw());
        (rank as u64).min(self.identities) - 1
    }

    fn batch(&mut self, callers: &mut dyn FnMut(&mut Self) -> Option<u64>) -> EventBatch {
        let mut builder = EventBuilder::new();
        while builder.len() < BATCH {
            let Some(caller) = callers(self) else { break };
            let peer = (self.draw() * self.draw() * 3.0) as u64;
            self.calls += 1;
            let since = Span((self.calls as i64) * Span::MINUTE.0 / CALLS_A_MINUTE as i64);
            let time = Timestamp::from_seconds(1_790_000_000) + since;
            let party = |principal| Party { principal, provenance: Provenance::Certificate, ..Party::default() };
            builder.push(&EventDraft {
                start: time,
                report: time,
                source: party(&format!("spiffe://mesh.test/ns/n{}/sa/s{caller}", caller % 100)),
                destination: party(&format!("spiffe://mesh.test/ns/shop/sa/d{}", (caller * 7 + peer * 131) % 2_000)),
                operation: "GET /v1/items/{id}",
                outcome: Outcome::Success,
                bytes_in: Some(500 + self.calls % 700),
                duration_ns: Some(3_000_000),
                position: Position { offset: self.calls as i64, ..Position::default() },
                ..EventDraft::default()
            });
        }
        builder.finish()
    }

    /// Has so many calls judged; what that took.
    fn call(&mut self, calls: u64, caller: impl Fn(&mut Self, u64) -> u64) -> Duration {
        let (mut took, mut verdicts, mut made) = (Duration::ZERO, Vec::new(), 0);
        while made < calls {
            let batch = self.batch(&mut |estate| {
                made += 1;
                (made <= calls).then(|| caller(estate, made - 1))
            });
            let begun = thread_cpu();
            self.scorer.open(&batch);
            for event in batch.events() {
                self.scorer.observe(event, event.report(), &mut verdicts);
            }
            took += thread_cpu() - begun;
            verdicts.clear();
        }
        took
    }
}

fn main() {
    let most = if env::var_os("QUALM_LONG").is_some() { 1_000_000 } else { 100_000 };
    println!("identities     edges   MiB   µs an event   against a thousand");
    let mut least = None;
    for identities in [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|of| *of <= most) {
        let mut estate = Estate::new(identities);
        // Each is there before it is measured.
        estate.call(identities, |_, number| number);
        estate.call(BEFORE, |estate, _| estate.popular());
        let took = estate.call(MEASURED, |estate, _| estate.popular());
        let tally = estate.scorer.tally();
        let each = took.as_secs_f64() * 1e6 / MEASURED as f64;
        let first = *least.get_or_insert(each);
        println!("{:10} {:9} {:5} {each:13.2} {:20.2}", tally.identities, tally.edges, tally.bytes >> 20, each / first);
    }
}
