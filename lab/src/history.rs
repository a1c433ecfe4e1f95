//! What was recorded, as a table of calls: Parquet, as `qualm backtest --events` writes it, or JSON lines with the
//! same names.
//!
//! Both come in stretches of bounded length, so that no history has to fit into memory.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use polars::prelude::{Column, DataFrame, DataType, Expr, IntoLazy as _, LazyFrame, TimeUnit, col, lit};
use polars_io::{SerReader as _, parquet::read::ParquetReader};
use serde::Deserialize;

use crate::{labels::time, rows::open};

/// Calls in one stretch.
const STRETCH: usize = 1 << 20;

/// Sums: calls, of these failed, refused, with a size, with a length; bytes and milliseconds.
pub(crate) const SUMS: [&str; 7] = ["calls", "failed", "refused", "bytes", "sized", "lasted_ms", "timed"];

/// A call as a line of JSON tells of it.
#[derive(Debug, Deserialize)]
struct Line {
    time: Time,
    source: String,
    #[serde(default)]
    destination: Option<String>,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    bytes_in: Option<f64>,
    #[serde(default)]
    bytes_out: Option<f64>,
    #[serde(default)]
    duration_s: Option<f64>,
}

/// RFC 3339, or seconds since 1970.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Time {
    Text(String),
    Seconds(f64),
}

/// Calls in columns, on their way into a stretch.
#[derive(Debug, Default)]
struct Columns {
    identity: Vec<String>,
    time: Vec<i64>,
    destination: Vec<String>,
    operation: Vec<String>,
    failed: Vec<f64>,
    refused: Vec<f64>,
    bytes: Vec<f64>,
    sized: Vec<f64>,
    lasted_ms: Vec<f64>,
    timed: Vec<f64>,
}

/// Gives all calls of some files to `take`, stretch by stretch; returns how many lines were none.
///
/// # Errors
/// A file cannot be read, or is not what it is said to be.
pub(crate) fn read(inputs: &[PathBuf], take: &mut impl FnMut(DataFrame) -> Result<()>) -> Result<u64> {
    let mut none = 0;
    for path in inputs {
        let is_table = path.extension().is_some_and(|ending| ending == "parquet");
        let done = if is_table { read_table(path, take).map(|()| 0) } else { read_lines(path, take) };
        none += done.with_context(|| path.display().to_string())?;
    }
    Ok(none)
}

fn read_lines(path: &Path, take: &mut impl FnMut(DataFrame) -> Result<()>) -> Result<u64> {
    let lines = BufReader::new(open(path).context("cannot be read; check the path")?).lines();
    let (mut columns, mut none) = (Columns::default(), 0);
    for line in lines {
        let line = line.context("no text")?;
        if line.trim().is_empty() {
            continue;
        }
        match columns.push(&line) {
            Some(()) => {}
            None => none += 1,
        }
        if columns.time.len() >= STRETCH {
            take(std::mem::take(&mut columns).into_frame()?)?;
        }
    }
    if !columns.time.is_empty() {
        take(columns.into_frame()?)?;
    }
    Ok(none)
}

impl Columns {
    /// Takes in a line; `None` where it is no call.
    fn push(&mut self, line: &str) -> Option<()> {
        let call: Line = serde_json::from_str(line).ok().filter(|call: &Line| !call.source.is_empty())?;
        let at = match call.time {
            Time::Text(text) => time(&text).ok()?.0,
            Time::Seconds(seconds) if seconds.abs() < 9.2e9 => (seconds * 1e9) as i64,
            Time::Seconds(_) => return None,
        };
        let ended = |word: &str| f64::from(u8::from(call.outcome.as_deref() == Some(word)));
        let told = |known: bool| f64::from(u8::from(known));
        self.time.push(at);
        self.failed.push(ended("failure"));
        self.refused.push(ended("refused"));
        self.bytes.push(call.bytes_in.unwrap_or(0.0) + call.bytes_out.unwrap_or(0.0));
        self.sized.push(told(call.bytes_in.is_some() || call.bytes_out.is_some()));
        self.lasted_ms.push(call.duration_s.unwrap_or(0.0) * 1000.0);
        self.timed.push(told(call.duration_s.is_some()));
        self.identity.push(call.source);
        self.destination.push(call.destination.unwrap_or_default());
        self.operation.push(call.operation.unwrap_or_default());
        Some(())
    }

    fn into_frame(self) -> Result<DataFrame> {
        let calls = vec![1.0; self.time.len()];
        let columns = vec![
            Column::new("identity".into(), self.identity),
            Column::new("time".into(), self.time),
            Column::new("destination".into(), self.destination),
            Column::new("operation".into(), self.operation),
            Column::new("calls".into(), calls),
            Column::new("failed".into(), self.failed),
            Column::new("refused".into(), self.refused),
            Column::new("bytes".into(), self.bytes),
            Column::new("sized".into(), self.sized),
            Column::new("lasted_ms".into(), self.lasted_ms),
            Column::new("timed".into(), self.timed),
        ];
        Ok(DataFrame::new_infer_height(columns)?)
    }
}

/// Columns of a table of one's own that are understood; `time` and `source` it must have. `scores.parquet` is one.
const UNDERSTOOD: [&str; 9] =
    ["time", "source", "destination", "operation", "outcome", "bytes_in", "bytes_out", "duration_s", "score_bits"];

fn read_table(path: &Path, take: &mut impl FnMut(DataFrame) -> Result<()>) -> Result<()> {
    let open = || File::open(path).context("cannot be read; check the path");
    let mut reader = ParquetReader::new(open()?);
    let schema = reader.schema().context("no Parquet")?;
    let rows = reader.num_rows()?;
    let has = |name: &str| schema.contains(name);
    ensure!(has("time") && has("source"), "a table needs the columns `time` and `source`; it may have {UNDERSTOOD:?}");
    let columns: Vec<String> = UNDERSTOOD.iter().filter(|name| has(name)).map(|&name| name.to_owned()).collect();
    let mut from = 0;
    while from < rows {
        let slice = ParquetReader::new(open()?).with_columns(Some(columns.clone())).with_slice(Some((from, STRETCH)));
        let frame = slice.finish()?;
        if frame.height() == 0 {
            bail!("it ends after {from} of {rows} rows");
        }
        from += frame.height();
        let to_ns = nanoseconds(frame.column("time")?.dtype())?;
        take(as_calls(frame.lazy(), to_ns, &has).collect()?)?;
    }
    Ok(())
}

/// What a number of the column `time` is multiplied by.
fn nanoseconds(of: &DataType) -> Result<i64> {
    match of {
        DataType::Datetime(TimeUnit::Nanoseconds, _) => Ok(1),
        DataType::Datetime(TimeUnit::Microseconds, _) => Ok(1_000),
        DataType::Datetime(TimeUnit::Milliseconds, _) => Ok(1_000_000),
        other => bail!("its column `time` is {other:?}, but must be a timestamp"),
    }
}

/// Rows of a table as calls.
fn as_calls(rows: LazyFrame, to_ns: i64, has: &impl Fn(&str) -> bool) -> LazyFrame {
    // What `backtest` did not score is no call.
    let rows = if has("score_bits") { rows.filter(col("score_bits").is_not_null()) } else { rows };
    let text = |name: &str| if has(name) { col(name).cast(DataType::String).fill_null(lit("")) } else { lit("") };
    let number = |name: &str| {
        if has(name) { col(name).cast(DataType::Float64).fill_null(lit(0.0)) } else { lit(0.0) }
    };
    let told = |name: &str| if has(name) { col(name).is_not_null() } else { lit(false) };
    let ended = |word: &str| text("outcome").eq(lit(word.to_owned())).cast(DataType::Float64);
    let as_number = |of: Expr| of.cast(DataType::Float64);
    rows.filter(col("time").is_not_null().and(col("source").is_not_null())).select([
        text("source").alias("identity"),
        (col("time").to_physical() * lit(to_ns)).alias("time"),
        text("destination").alias("destination"),
        text("operation").alias("operation"),
        lit(1.0).alias("calls"),
        ended("failure").alias("failed"),
        ended("refused").alias("refused"),
        (number("bytes_in") + number("bytes_out")).alias("bytes"),
        as_number(told("bytes_in").or(told("bytes_out"))).alias("sized"),
        (number("duration_s") * lit(1000.0)).alias("lasted_ms"),
        as_number(told("duration_s")).alias("timed"),
    ])
}
