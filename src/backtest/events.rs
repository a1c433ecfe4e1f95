//! `events.parquet`: what was read, in the order of report times, for `lab features`.

use std::{fs::File, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use arrow::{
    array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use qualm_model::event::{Event, EventBatch, Outcome};

/// The file while it is written.
pub(super) struct Events {
    writer: ArrowWriter<File>,
    schema: Arc<Schema>,
}

impl Events {
    /// An empty file.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{}: cannot be written", path.display()))?;
        let schema = schema();
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        Ok(Self { writer: ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?, schema })
    }

    /// Adds a batch; Qualm's own denials are no calls.
    pub(super) fn push(&mut self, batch: &EventBatch) -> Result<()> {
        let events: Vec<Event<'_>> = batch.events().filter(|event| event.decision_id().is_empty()).collect();
        let text = |of: fn(&Event<'_>) -> String| -> ArrayRef {
            Arc::new(
                events.iter().map(|event| Some(of(event)).filter(|text| !text.is_empty())).collect::<StringArray>(),
            )
        };
        let bytes = |of: fn(&Event<'_>) -> Option<u64>| -> ArrayRef {
            Arc::new(events.iter().map(of).collect::<UInt64Array>())
        };
        let times = TimestampNanosecondArray::from_iter_values(events.iter().map(|event| event.report().0));
        let seconds = |event: &Event<'_>| event.duration_ns().map(|lasted| lasted as f64 / 1e9);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(times.with_timezone("UTC")),
            text(|event| event.source().principal().to_owned()),
            text(|event| event.destination().principal().to_owned()),
            text(|event| event.operation().to_owned()),
            text(|event| word(event.outcome()).to_owned()),
            bytes(|event| event.bytes_in()),
            bytes(|event| event.bytes_out()),
            Arc::new(events.iter().map(seconds).collect::<Float64Array>()),
        ];
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.writer.write(&rows).context("events.parquet; is the disk full?")
    }

    /// Ends the file.
    pub(super) fn finish(self) -> Result<()> {
        self.writer.close().context("events.parquet; is the disk full?")?;
        Ok(())
    }
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unknown => "",
        Outcome::Success => "success",
        Outcome::Failure => "failure",
        Outcome::Refused => "refused",
    }
}

fn schema() -> Arc<Schema> {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        Field::new("time", time, false),
        text("source"),
        text("destination"),
        text("operation"),
        text("outcome"),
        Field::new("bytes_in", DataType::UInt64, true),
        Field::new("bytes_out", DataType::UInt64, true),
        Field::new("duration_s", DataType::Float64, true),
    ]))
}
