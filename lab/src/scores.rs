//! `scores.parquet`, as `qualm backtest --scores` writes it, laid beside what is known of its rows.

use std::{collections::BTreeMap, fs::File, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use polars::prelude::{Column, DataFrame, Expr, IntoLazy as _, SortMultipleOptions, col, lit};
use polars_io::{SerReader as _, parquet::read::ParquetReader};
use qualm_model::time::{Span, Timestamp};

use crate::{
    cli::Per,
    labels::{Label, Labels},
};

const COLUMNS: [&str; 5] = ["time", "source", "destination", "score_bits", "identity_bits"];
/// The column of the kind of attack that a row belongs to: a place in [`Scores::kinds`].
const KIND: &str = "kind";
/// Rows of one attack on rows alone: two of one source and one kind that lie no further apart are one attack. As long as
/// *watched* lasts.
const ONE_ATTACK: Span = Span(30 * Span::MINUTE.0);

/// The rows of a run that were scored, in their order.
#[derive(Debug)]
pub(crate) struct Scores {
    /// `time` (nanoseconds), `source`, `destination`, `score_bits`, `identity_bits`, `kind`.
    rows: DataFrame,
    /// Kinds of attack; the first is none.
    pub(crate) kinds: Vec<String>,
    /// Records in all, those that were not scored among them.
    pub(crate) records: usize,
}

/// Kinds as they are named.
#[derive(Debug)]
struct Kinds {
    names: Vec<String>,
    places: BTreeMap<String, u32>,
}

/// One scored row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) time: Timestamp,
    pub(crate) source: &'a str,
    /// Evidence against its source with this row in it, in bits.
    pub(crate) evidence: f64,
    /// A place in [`Scores::kinds`]; 0 is harmless.
    pub(crate) kind: u32,
}

/// A score, and the kind of attack that it belongs to (0: none).
pub(crate) type Item = (f64, u32);

impl Scores {
    /// Reads a run whose labels are by identity and time.
    ///
    /// # Errors
    /// The file is not what `backtest` writes.
    pub(crate) fn by_time(path: &Path, labels: &Labels) -> Result<Self> {
        let rows = read(path)?;
        let mut kinds = Kinds::default();
        let places: Vec<u32> = labels.all.iter().map(|label| kinds.place(&label.kind)).collect();
        let of = |source: Option<&str>, time: Option<i64>| {
            let mut about = labels.about(source?, Timestamp(time?), Span(0));
            about.next().map(|label| places[label])
        };
        let (sources, times) = (rows.column("source")?.str()?, rows.column("time")?.i64()?);
        let of_rows: Vec<u32> =
            sources.iter().zip(times.iter()).map(|(source, time)| of(source, time).unwrap_or(0)).collect();
        Self::new(rows, kinds, of_rows)
    }

    /// Reads a run of which every row has a label, the empty one where it is harmless.
    ///
    /// # Errors
    /// The file is not what `backtest` writes, or the labels are not as many as its rows.
    pub(crate) fn by_row(path: &Path, label: impl FnOnce(&mut dyn FnMut(&str)) -> Result<()>) -> Result<Self> {
        let rows = read(path)?;
        let mut kinds = Kinds::default();
        let mut of_rows = Vec::with_capacity(rows.height());
        label(&mut |name| of_rows.push(kinds.place(name)))?;
        ensure!(
            of_rows.len() == rows.height(),
            "{} labels for the {} records of {}: give --row-labels the inputs of the backtest, all of them and in their \
             order",
            of_rows.len(),
            rows.height(),
            path.display()
        );
        Self::new(rows, kinds, of_rows)
    }

    fn new(mut rows: DataFrame, kinds: Kinds, of_rows: Vec<u32>) -> Result<Self> {
        let records = rows.height();
        rows.with_column(Column::new(KIND.into(), of_rows))?;
        let rows = rows.lazy().filter(col("score_bits").is_not_null()).collect()?;
        if rows.height() == 0 {
            bail!("none of its {records} records was scored: see `rejected` in report.json");
        }
        Ok(Self { rows, kinds: kinds.names, records })
    }

    /// Leaves out the rows of these kinds of attack.
    ///
    /// # Errors
    /// There is no such kind.
    pub(crate) fn without(mut self, kinds: &[String]) -> Result<Self> {
        for kind in kinds {
            let place = self.kinds.iter().position(|name| name == kind).with_context(|| {
                format!("--without {kind}: there is no such kind, but {}", self.kinds[1..].join(", "))
            })?;
            self.rows = self.rows.lazy().filter(col(KIND).neq(lit(place as u32))).collect()?;
        }
        Ok(self)
    }

    /// Rows that were scored.
    pub(crate) fn len(&self) -> usize {
        self.rows.height()
    }

    /// Every scored row by itself.
    pub(crate) fn items(&self) -> Result<Vec<Item>> {
        items(&self.rows)
    }

    /// One item a source (and destination) and window: the highest score, and the kind of attack if any row has one.
    pub(crate) fn collapsed(&self, per: Per, window: Span) -> Result<Vec<Item>> {
        let mut keys = vec![begin_of(window).alias("window"), col("source")];
        if per == Per::Edge {
            keys.push(col("destination"));
        }
        let items_of = [col("score_bits").max(), col(KIND).max()];
        items(&self.rows.clone().lazy().group_by(keys).agg(items_of).collect()?)
    }

    /// All rows, source by source and in the order of time; each is given to `see`.
    pub(crate) fn by_source(&self, see: &mut impl FnMut(Row<'_>)) -> Result<()> {
        let order = SortMultipleOptions::default().with_maintain_order(true);
        let columns = [col("source"), col("time"), col("identity_bits"), col(KIND)];
        let rows = self.rows.clone().lazy().select(columns).sort(["source", "time"], order).collect()?;
        let (sources, times) = (rows.column("source")?.str()?, rows.column("time")?.i64()?);
        let (evidence, kinds) = (rows.column("identity_bits")?.f64()?, rows.column(KIND)?.u32()?);
        let columns = sources.iter().zip(times.iter()).zip(evidence.iter()).zip(kinds.iter());
        for (((source, time), evidence), kind) in columns {
            if let (Some(source), Some(time), Some(evidence), Some(kind)) = (source, time, evidence, kind) {
                see(Row { time: Timestamp(time), source, evidence, kind });
            }
        }
        Ok(())
    }

    /// The attacks that rows with labels of their own make up.
    pub(crate) fn attacks(&self) -> Result<Vec<Label>> {
        let mut attacks: Vec<Label> = Vec::new();
        // The latest attack of each kind by the source at hand.
        let mut latest: BTreeMap<u32, usize> = BTreeMap::new();
        let mut at_hand = String::new();
        self.by_source(&mut |row| {
            if row.source != at_hand {
                row.source.clone_into(&mut at_hand);
                latest.clear();
            }
            if row.kind == 0 {
                return;
            }
            let going_on = latest.get(&row.kind).copied().filter(|&place| row.time - attacks[place].end <= ONE_ATTACK);
            let place = going_on.unwrap_or_else(|| {
                attacks.push(Label {
                    start: row.time,
                    end: row.time,
                    kind: self.kinds[row.kind as usize].clone(),
                    identities: vec![row.source.to_owned()],
                });
                attacks.len() - 1
            });
            attacks[place].end = row.time;
            latest.insert(row.kind, place);
        })?;
        Ok(attacks)
    }
}

impl Default for Kinds {
    fn default() -> Self {
        Self { names: vec![String::new()], places: BTreeMap::from([(String::new(), 0)]) }
    }
}

impl Kinds {
    fn place(&mut self, name: &str) -> u32 {
        if let Some(&place) = self.places.get(name) {
            return place;
        }
        let place = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.places.insert(name.to_owned(), place);
        place
    }
}

/// When the window of a row's `time` began, in nanoseconds since 1970.
pub(crate) fn begin_of(window: Span) -> Expr {
    col("time") - col("time") % lit(window.0)
}

fn items(rows: &DataFrame) -> Result<Vec<Item>> {
    let (scores, kinds) = (rows.column("score_bits")?.f64()?, rows.column(KIND)?.u32()?);
    Ok(scores.iter().zip(kinds.iter()).filter_map(|(score, kind)| Some((score?, kind?))).collect())
}

fn read(path: &Path) -> Result<DataFrame> {
    let file = File::open(path)
        .with_context(|| format!("{}: cannot be read; run `qualm backtest` with --scores", path.display()))?;
    let columns = COLUMNS.iter().map(|&name| name.to_owned()).collect();
    let rows = ParquetReader::new(file).with_columns(Some(columns)).finish();
    let rows = rows.with_context(|| format!("{}: not as `qualm backtest --scores` writes it", path.display()))?;
    Ok(rows.lazy().with_column(col("time").to_physical()).collect()?)
}
