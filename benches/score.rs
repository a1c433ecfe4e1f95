//! What judging costs, in process CPU time, side by side in one run; read the ratios, not the times.
//!
//! - `edges/*`: scoring of edge streams, beside a MIDAS-R-like count-min scorer as the yardstick of minimal work
//! - `json/*`: Envoy JSON lines, parsed alone, and parsed and judged
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    hash::{BuildHasher, Hasher},
    hint::black_box,
    io::Read,
    path::Path,
    sync::Arc,
};

use criterion::{
    BatchSize, Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use qualm_datasets::{AccessLog, MeshConfig, Scenario, Traffic};
use qualm_ingest::parse::{Format, Parser};
use qualm_model::{
    event::{EventBatch, EventBuilder, Position, builder::plain},
    identity::Provenance,
    time::Timestamp,
};
use qualm_scorer::{config::ScorerConfig, scorer::Scorer};

const BATCH: usize = 4096;
const EDGES: usize = 1_000_000;
const LINES: usize = 100_000;

/// CPU time of this process: what other processes of the machine do does not count.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = f64;
    type Value = f64;

    fn start(&self) -> f64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    }

    fn end(&self, start: f64) -> f64 {
        self.start() - start
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// darpa-edges in time order where `../shared/data` is there, else edges of the generated mesh.
fn edges() -> Vec<EventBatch> {
    let rows = darpa().unwrap_or_else(generated);
    let mut builder = EventBuilder::new();
    rows.chunks(BATCH)
        .map(|chunk| {
            for (time, source, destination) in chunk {
                let mut draft = plain(*time, source, destination);
                draft.source.provenance = Provenance::Declared;
                builder.push(&draft);
            }
            builder.finish()
        })
        .collect()
}

type Row = (Timestamp, String, String);

fn darpa() -> Option<Vec<Row>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/darpa-edges/darpa_original.csv.zst");
    let mut decoder = zstd::Decoder::new(std::fs::File::open(path).ok()?).ok()?;
    decoder.window_log_max(27).ok()?;
    let mut text = String::new();
    decoder.read_to_string(&mut text).ok()?;
    let mut rows: Vec<Row> = text.lines().filter_map(darpa_row).collect();
    rows.sort_by_key(|row| row.0);
    rows.truncate(EDGES);
    Some(rows)
}

/// `src,dst,MM/DD/YYYY-HH:MM,label`; a day is a day, wherever it lies: only the order matters here.
fn darpa_row(line: &str) -> Option<Row> {
    let mut fields = line.split(',');
    let (source, destination, time) = (fields.next()?, fields.next()?, fields.next()?);
    let number = |range: std::ops::Range<usize>| time.get(range)?.parse::<i64>().ok();
    let minutes = ((number(0..2)? * 31 + number(3..5)?) * 24 + number(11..13)?) * 60 + number(14..16)?;
    Some((Timestamp::from_seconds(minutes * 60), source.to_owned(), destination.to_owned()))
}

fn scenario() -> Arc<Scenario> {
    let config = MeshConfig { seed: 1, services: 60, calls_per_second: 4.0 };
    Arc::new(Scenario::quiet(config, qualm_datasets::Millis(1_790_000_000_000), 2.0).unwrap())
}

/// The generator's calls as they are logged, reduced to who called whom.
fn generated() -> Vec<Row> {
    let mut rows = Vec::new();
    parse(&lines(), |batch| {
        let row = |event: qualm_model::event::Event<'_>| {
            (event.report(), event.source().principal().to_owned(), event.destination().principal().to_owned())
        };
        rows.extend(batch.events().map(row));
    });
    rows
}

fn judge(batches: &[EventBatch]) -> f64 {
    let mut scorer = Scorer::new(ScorerConfig::default());
    let mut verdicts = Vec::new();
    for batch in batches {
        scorer.open(batch);
        for event in batch.events() {
            black_box(scorer.observe(event, event.report(), &mut verdicts));
        }
    }
    verdicts.len() as f64
}

/// MIDAS-R (Bhatia et al., AAAI 2020), as small as it can be: current and total counts of edge, source and
/// destination in count-min sketches of 2 × 1024, decay ½ at each tick, the largest chi-squared statistic.
struct CountMin {
    current: [[f32; 2048]; 3],
    total: [[f32; 2048]; 3],
    tick: i64,
}

impl CountMin {
    fn observe(&mut self, tick: i64, source: u64, destination: u64) -> f32 {
        if tick > self.tick {
            self.tick = tick;
            self.current.iter_mut().flatten().for_each(|count| *count *= 0.5);
        }
        let keys = [source ^ destination.rotate_left(17), source, destination];
        let mut worst = 0.0_f32;
        for (sketch, key) in keys.into_iter().enumerate() {
            let (mut least, mut least_total) = (f32::MAX, f32::MAX);
            for row in 0..2_u64 {
                let hash = (key ^ row).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
                let slot = (row * 1024 + hash) as usize;
                self.current[sketch][slot] += 1.0;
                self.total[sketch][slot] += 1.0;
                least = least.min(self.current[sketch][slot]);
                least_total = least_total.min(self.total[sketch][slot]);
            }
            let t = tick.max(1) as f32;
            let difference = least - least_total / t;
            worst = worst.max(difference * difference * t * t / (least_total * (t - 1.0).max(1.0)));
        }
        worst
    }
}

fn yardstick(batches: &[EventBatch]) -> f32 {
    let mut sketch = Box::new(CountMin { current: [[0.0; 2048]; 3], total: [[0.0; 2048]; 3], tick: 0 });
    let hash = |text: &str| {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        hasher.write(text.as_bytes());
        hasher.finish()
    };
    let first = batches[0].event(0).report().0 / 60_000_000_000;
    let mut worst = 0.0_f32;
    for batch in batches {
        // Names become numbers once a batch, as in the scorer.
        let hashes = |names: &qualm_model::event::Names| -> Vec<u64> {
            (0..names.distinct()).map(|key| hash(names.text(key))).collect()
        };
        let (sources, destinations) = (hashes(&batch.source.principal), hashes(&batch.destination.principal));
        for event in batch.events() {
            let source = sources[batch.source.principal.key(event.row).unwrap()];
            let destination = destinations[batch.destination.principal.key(event.row).unwrap()];
            let tick = event.report().0 / 60_000_000_000 - first + 1;
            worst = worst.max(black_box(sketch.observe(tick, source, destination)));
        }
    }
    worst
}

fn lines() -> Vec<Vec<u8>> {
    let scenario = scenario();
    let log = AccessLog::new(scenario.mesh());
    Traffic::new(Arc::clone(&scenario))
        .take(LINES)
        .map(|call| {
            let mut line = Vec::with_capacity(1200);
            log.push_inbound(&call, &mut line);
            line
        })
        .collect()
}

fn parse(lines: &[Vec<u8>], mut each: impl FnMut(&EventBatch)) {
    let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
    let mut builder = EventBuilder::new();
    for (offset, line) in lines.iter().enumerate() {
        let position = Position { offset: offset as i64, ..Position::default() };
        parser.parse(line, position, &mut builder).unwrap();
        if builder.len() == BATCH {
            each(&builder.finish());
        }
    }
    each(&builder.finish());
}

fn scoring(criterion: &mut Criterion<CpuTime>) {
    let batches = edges();
    let rows = batches.iter().map(EventBatch::len).sum::<usize>();
    let mut group = criterion.benchmark_group("edges");
    group.sample_size(10).throughput(Throughput::Elements(rows as u64));
    group.bench_function("count-min-yardstick", |bencher| {
        bencher.iter_batched(|| (), |()| yardstick(&batches), BatchSize::PerIteration);
    });
    group.bench_function("qualm", |bencher| {
        bencher.iter_batched(|| (), |()| judge(&batches), BatchSize::PerIteration);
    });
    group.finish();
}

fn reading(criterion: &mut Criterion<CpuTime>) {
    let lines = lines();
    let mut group = criterion.benchmark_group("json");
    group.sample_size(10).throughput(Throughput::Elements(lines.len() as u64));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            parse(&lines, |batch| {
                black_box(batch.len());
            });
        });
    });
    group.bench_function("bytes-to-verdict", |bencher| {
        bencher.iter(|| {
            let mut scorer = Scorer::new(ScorerConfig::default());
            let mut verdicts = Vec::new();
            parse(&lines, |batch| {
                scorer.open(batch);
                for event in batch.events() {
                    black_box(scorer.observe(event, event.report(), &mut verdicts));
                }
            });
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = scoring, reading
}
criterion_main!(benches);
