//! `lab features`: a history as a table of identities and windows, one row each.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result, ensure};
use polars::prelude::{DataFrame, DataType, Expr, IntoLazy as _, LazyFrame, SortMultipleOptions, TimeUnit, col, lit};
use polars_io::{
    SerReader as _,
    parquet::{read::ParquetReader, write::ParquetWriter},
};
use qualm_model::peers::{WINDOW, WindowSums};

use crate::{
    cli::FeaturesArgs,
    history::{self, SUMS},
    scores::begin_of,
};

/// Rows of partial sums that are held before they are added up.
const HELD: usize = 4 << 20;
/// What a partial sum is about.
const KEYS: [&str; 4] = ["identity", "window", "destination", "operation"];

/// Sums by identity, window, destination and operation, of which the same may still stand in several parts.
#[derive(Debug, Default)]
struct Sums {
    parts: Vec<DataFrame>,
    rows: usize,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) identity: String,
    pub(crate) sums: WindowSums,
}

/// Runs the command, and says what to print.
///
/// # Errors
/// The history cannot be read, or the table cannot be written.
pub(crate) fn run(args: &FeaturesArgs) -> Result<String> {
    let mut sums = Sums::default();
    let none = history::read(&args.inputs, &mut |calls| sums.add(calls))?;
    let mut table = sums.table()?;
    ensure!(
        table.height() > 0,
        "no calls in it, and {none} lines that are none; a call needs `time` and `source`, and `qualm backtest --events` makes a table of logs in any format"
    );
    let identities = table.column("identity")?.n_unique()?;
    let file = File::create(&args.out).with_context(|| format!("{}: cannot be written", args.out.display()))?;
    ParquetWriter::new(file).finish(&mut table)?;
    let rows = table.height();
    Ok(format!("{}: {rows} windows of {identities} identities; {none} lines were no calls", args.out.display()))
}

impl Sums {
    fn add(&mut self, calls: DataFrame) -> Result<()> {
        let part = added_up(calls.lazy().with_column(begin_of(WINDOW).alias("window"))).collect()?;
        self.rows += part.height();
        self.parts.push(part);
        if self.rows > HELD { self.compact() } else { Ok(()) }
    }

    fn compact(&mut self) -> Result<()> {
        let mut parts = std::mem::take(&mut self.parts).into_iter();
        let Some(mut whole) = parts.next() else { return Ok(()) };
        for part in parts {
            whole.vstack_mut(&part)?;
        }
        let whole = added_up(whole.lazy()).collect()?;
        self.rows = whole.height();
        self.parts.push(whole);
        Ok(())
    }

    /// One row an identity and window: destinations, and operations by destination, are counted once each.
    fn table(mut self) -> Result<DataFrame> {
        self.compact()?;
        let Some(whole) = self.parts.pop() else { return Ok(DataFrame::default()) };
        let mut of_window: Vec<Expr> = SUMS.iter().map(|&name| col(name).sum()).collect();
        of_window.push(col("destination").n_unique().cast(DataType::Float64).alias("peers"));
        of_window.push(col("operation").neq(lit("")).sum().cast(DataType::Float64).alias("operations"));
        let begin = col("window").cast(DataType::Datetime(TimeUnit::Nanoseconds, None));
        let table = whole
            .lazy()
            .group_by([col("identity"), col("window")])
            .agg(of_window)
            .sort(["identity", "window"], SortMultipleOptions::default())
            .with_column(begin.alias("window"));
        Ok(table.collect()?)
    }
}

fn added_up(rows: LazyFrame) -> LazyFrame {
    let sums: Vec<Expr> = SUMS.iter().map(|&name| col(name).sum()).collect();
    rows.group_by(KEYS.map(col)).agg(sums)
}

/// Reads a table that `lab features` wrote: windows of one identity stand together, in their order.
///
/// # Errors
/// It is something else.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>> {
    let file =
        File::open(path).with_context(|| format!("{}: cannot be read; `lab features` writes it", path.display()))?;
    let table = ParquetReader::new(file).finish();
    let table = table.with_context(|| format!("{}: no Parquet; `lab features` writes it", path.display()))?;
    let foreign = |name: &str| format!("{}: no column `{name}` as `lab features` writes it", path.display());
    let numbers = |name: &str| -> Result<Vec<f64>> {
        let column = table.column(name).and_then(|column| column.f64()).with_context(|| foreign(name))?;
        Ok(column.iter().map(|value| value.unwrap_or(0.0)).collect())
    };
    let identities = table.column("identity").and_then(|column| column.str()).with_context(|| foreign("identity"))?;
    let columns: Vec<Vec<f64>> = SUMS.iter().map(|name| numbers(name)).collect::<Result<_>>()?;
    let (peers, operations) = (numbers("peers")?, numbers("operations")?);
    let row = |(at, identity): (usize, Option<&str>)| Row {
        identity: identity.unwrap_or_default().to_owned(),
        sums: WindowSums {
            calls: columns[0][at],
            failed: columns[1][at],
            refused: columns[2][at],
            bytes: columns[3][at],
            sized: columns[4][at],
            lasted_ms: columns[5][at],
            timed: columns[6][at],
            peers: peers[at],
            operations: operations[at],
        },
    };
    Ok(identities.iter().enumerate().map(row).collect())
}
