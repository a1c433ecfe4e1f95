//! What judging costs, in process CPU time, side by side in one run; read the ratios, not the times.
//!
//! - `edges/*`: judging alone, of edges that lie in memory as events, beside a MIDAS-R-like count-min scorer as the
//!   yardstick of minimal work; both take names by the dictionary keys of a batch
//! - `csv/*`: the whole job, from CSV bytes to a score, with one reader for both; and that reader alone
//! - `json/*`: Envoy JSON lines, parsed alone, and parsed and judged
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/lines.rs"]
mod lines;
#[path = "../tests/support/measure.rs"]
mod measure;

use std::{
    hash::{BuildHasher, Hasher},
    hint::black_box,
    io::Read,
    path::Path,
};

use criterion::{
    BatchSize, Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use measure::process_cpu;
use qualm_ingest::parse::{Format, Parser};
use qualm_model::event::{EventBatch, EventBuilder, Names, Position};
use qualm_scorer::{config::ScorerConfig, scorer::Scorer, verdict::Verdict};

const BATCH: usize = 4096;
const EDGES: usize = 1_000_000;
const LINES: usize = 100_000;

/// CPU time of this process: what other processes of the machine do does not count.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = f64;
    type Value = f64;

    fn start(&self) -> f64 {
        process_cpu().as_nanos() as f64
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

/// CSV lines of darpa-edges in time order where `../shared/data` is there, else of the generated mesh.
fn edge_lines() -> Vec<String> {
    let mut lines = darpa().unwrap_or_else(generated);
    lines.truncate(EDGES);
    lines
}

fn darpa() -> Option<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/darpa-edges/darpa_original.csv.zst");
    let mut decoder = zstd::Decoder::new(std::fs::File::open(path).ok()?).ok()?;
    decoder.window_log_max(27).ok()?;
    let mut text = String::new();
    decoder.read_to_string(&mut text).ok()?;
    // `src,dst,MM/DD/YYYY-HH:MM,label`: within one year the text of the time is in the order of time. Ten lines are
    // dated 07/32 and last: they are not among the first million.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| line.split(',').nth(2));
    Some(lines.into_iter().map(str::to_owned).collect())
}

/// Reads edges by the mapping of darpa-edges.
fn read(lines: &[String], mut each: impl FnMut(&EventBatch)) {
    let mapping = include_str!("../datasets/mappings/darpa-edges.toml").parse().unwrap();
    let mut parser = Parser::for_format(Format::Mapped, Some(mapping)).unwrap();
    let mut builder = EventBuilder::new();
    for (offset, line) in lines.iter().enumerate() {
        let position = Position { offset: offset as i64, ..Position::default() };
        parser.parse(line.as_bytes(), position, &mut builder).unwrap();
        if builder.len() == BATCH {
            each(&builder.finish());
        }
    }
    each(&builder.finish());
}

/// The generator's calls as they are logged, reduced to who called whom and when.
fn generated() -> Vec<String> {
    let mut rows = Vec::new();
    parse(&lines::of_quiet_mesh(LINES), |batch| {
        rows.extend(batch.events().map(|event| {
            let time = jiff::Timestamp::from_nanosecond(event.report().0.into()).unwrap();
            let (source, destination) = (event.source().principal(), event.destination().principal());
            format!("{source},{destination},{},-", time.strftime("%m/%d/%Y-%H:%M"))
        }));
    });
    rows
}

/// Scores batches one after the other.
struct Judge {
    scorer: Scorer,
    verdicts: Vec<Verdict>,
}

impl Judge {
    fn new() -> Self {
        Self { scorer: Scorer::new(ScorerConfig::default()), verdicts: Vec::new() }
    }

    fn observe(&mut self, batch: &EventBatch) {
        self.scorer.open(batch);
        for event in batch.events() {
            black_box(self.scorer.observe(event, event.report(), &mut self.verdicts));
        }
    }
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

/// The yardstick over batches: names become numbers once a batch, as in the scorer.
struct Yardstick {
    sketch: Box<CountMin>,
    first: Option<i64>,
}

impl Yardstick {
    fn new() -> Self {
        let sketch = CountMin { current: [[0.0; 2048]; 3], total: [[0.0; 2048]; 3], tick: 0 };
        Self { sketch: Box::new(sketch), first: None }
    }

    fn observe(&mut self, batch: &EventBatch) {
        let hash = |text: &str| {
            let mut hasher = foldhash::fast::FixedState::default().build_hasher();
            hasher.write(text.as_bytes());
            hasher.finish()
        };
        let hashes = |names: &Names| -> Vec<u64> { (0..names.distinct()).map(|key| hash(names.text(key))).collect() };
        let (sources, destinations) = (hashes(&batch.source.principal), hashes(&batch.destination.principal));
        for event in batch.events() {
            let source = sources[batch.source.principal.key(event.row).unwrap()];
            let destination = destinations[batch.destination.principal.key(event.row).unwrap()];
            let minute = event.report().0 / 60_000_000_000;
            let tick = minute - *self.first.get_or_insert(minute) + 1;
            black_box(self.sketch.observe(tick, source, destination));
        }
    }
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

fn judging(criterion: &mut Criterion<CpuTime>) {
    let lines = edge_lines();
    let mut batches = Vec::new();
    read(&lines, |batch| batches.push(batch.clone()));
    let mut group = criterion.benchmark_group("edges");
    group.sample_size(10).throughput(Throughput::Elements(lines.len() as u64));
    group.bench_function("count-min-yardstick", |bencher| {
        let observe = |mut yardstick: Yardstick| batches.iter().for_each(|batch| yardstick.observe(batch));
        bencher.iter_batched(Yardstick::new, observe, BatchSize::PerIteration);
    });
    group.bench_function("qualm", |bencher| {
        let observe = |mut judge: Judge| batches.iter().for_each(|batch| judge.observe(batch));
        bencher.iter_batched(Judge::new, observe, BatchSize::PerIteration);
    });
    group.finish();
}

fn whole_job(criterion: &mut Criterion<CpuTime>) {
    let lines = edge_lines();
    let mut group = criterion.benchmark_group("csv");
    group.sample_size(10).throughput(Throughput::Elements(lines.len() as u64));
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            read(&lines, |batch| {
                black_box(batch.len());
            });
        });
    });
    group.bench_function("count-min-yardstick", |bencher| {
        let observe = |mut yardstick: Yardstick| read(&lines, |batch| yardstick.observe(batch));
        bencher.iter_batched(Yardstick::new, observe, BatchSize::PerIteration);
    });
    group.bench_function("qualm", |bencher| {
        let observe = |mut judge: Judge| read(&lines, |batch| judge.observe(batch));
        bencher.iter_batched(Judge::new, observe, BatchSize::PerIteration);
    });
    group.finish();
}

fn reading(criterion: &mut Criterion<CpuTime>) {
    let lines = lines::of_quiet_mesh(LINES);
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
            let mut judge = Judge::new();
            parse(&lines, |batch| judge.observe(batch));
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = judging, whole_job, reading
}
criterion_main!(benches);
