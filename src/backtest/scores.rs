//! `scores.parquet`: one row a record, in the order of rows.

use std::{fs::File, path::Path, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use arrow::{
    array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Field, Schema, TimeUnit, UInt8Type},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
    schema::types::ColumnPath,
};

use super::{
    outcomes::{Outcome, OutcomeReader},
    rows::RowReader,
    word::{Word, is_scored, word},
};

/// The outcomes of rows that follow each other, however they are stored.
struct InOrder {
    reader: OutcomeReader,
    stretch: Vec<Outcome>,
    next: usize,
}

/// Lays names and outcomes side by side.
pub(super) fn write(path: &Path, mut rows: RowReader, outcomes: OutcomeReader) -> Result<()> {
    let file = File::create(path).with_context(|| format!("{}: cannot be written", path.display()))?;
    let schema = schema();
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties()))?;
    let mut outcomes = InOrder { reader: outcomes, stretch: Vec::new(), next: 0 };
    let mut first = 0_i64;
    while let Some(rows) = rows.next()? {
        let count = rows.num_rows();
        let outcomes = outcomes.take(count)?;
        let unscored = rows.column(3).as_primitive::<UInt8Type>();
        let codes: Vec<u8> = outcomes
            .iter()
            .zip(unscored.values())
            .map(|(o, &why)| if why == Word::NONE { o.code } else { why })
            .collect();
        let scored = |value: fn(&Outcome) -> f64| -> ArrayRef {
            let values = outcomes.iter().zip(&codes).map(|(outcome, &code)| is_scored(code).then(|| value(outcome)));
            Arc::new(values.collect::<Float64Array>())
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(first..first + count as i64)),
            Arc::clone(rows.column(0)),
            cast(rows.column(1), &DataType::Utf8)?,
            cast(rows.column(2), &DataType::Utf8)?,
            Arc::new(StringArray::from_iter_values(codes.iter().map(|&code| word(code)))),
            scored(|outcome| outcome.bits),
            scored(|outcome| outcome.identity_bits),
        ];
        writer
            .write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)
            .context("scores.parquet; is the disk full?")?;
        first += count as i64;
    }
    writer.close().context("scores.parquet; is the disk full?")?;
    Ok(())
}

impl InOrder {
    fn take(&mut self, count: usize) -> Result<Vec<Outcome>> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            if self.next == self.stretch.len() {
                let stretch = self.reader.next()?;
                ensure!(stretch.is_some(), "fewer scores than records");
                (self.stretch, self.next) = (stretch.unwrap_or_default(), 0);
            }
            let some = (count - taken.len()).min(self.stretch.len() - self.next);
            taken.extend_from_slice(&self.stretch[self.next..self.next + some]);
            self.next += some;
        }
        Ok(taken)
    }
}

fn schema() -> Arc<Schema> {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("row", DataType::Int64, false),
        Field::new("time", time, true),
        Field::new("source", DataType::Utf8, true),
        Field::new("destination", DataType::Utf8, true),
        Field::new("detector", DataType::Utf8, false),
        Field::new("score_bits", DataType::Float64, true),
        Field::new("identity_bits", DataType::Float64, true),
    ]))
}

fn properties() -> WriterProperties {
    let mut properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    for column in ["row", "score_bits", "identity_bits"] {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
    }
    properties.build()
}
