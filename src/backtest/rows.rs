//! What each record is called, in the order of rows: kept aside while the events are sorted and scored.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use arrow::{
    array::{ArrayRef, RecordBatch, UInt8Array, UInt32Array},
    compute::take,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use qualm_ingest::source::{Batch, Rejected};
use qualm_model::event;
use std::sync::Arc;

use super::{
    spill::{SpillReader, SpillWriter},
    word::Word,
};

const COLUMNS: [&str; 3] = ["time", "src_endpoint_uid", "dst_endpoint_uid"];

/// Names and times of all records, in order.
pub(super) struct Rows {
    folder: PathBuf,
    schema: SchemaRef,
    columns: Vec<usize>,
    held: Vec<RecordBatch>,
    spilled: Option<SpillWriter>,
    count: i64,
}

/// The same, read from the begin.
pub(super) struct RowReader {
    held: std::vec::IntoIter<RecordBatch>,
    spilled: Option<SpillReader>,
}

impl Rows {
    /// None yet; `folder` is for those that do not fit.
    pub(super) fn new(folder: &Path) -> Self {
        let events = event::schema();
        let columns: Vec<usize> = COLUMNS.iter().filter_map(|name| events.index_of(name).ok()).collect();
        let nullable = |&at: &usize| events.field(at).clone().with_nullable(true);
        let mut fields: Vec<Field> = columns.iter().map(nullable).collect();
        fields.push(Field::new("word", DataType::UInt8, false));
        let schema = Arc::new(Schema::new(fields));
        Self { folder: folder.to_owned(), schema, columns, held: Vec::new(), spilled: None, count: 0 }
    }

    /// Takes in what was read.
    pub(super) fn push(&mut self, batch: &Batch) -> Result<()> {
        let rows = self.in_order(batch)?;
        self.count += rows.num_rows() as i64;
        match &mut self.spilled {
            Some(writer) => writer.write(&rows),
            None => {
                self.held.push(rows);
                Ok(())
            }
        }
    }

    /// Moves everything to disk, now and from now on.
    pub(super) fn spill(&mut self) -> Result<()> {
        if self.spilled.is_some() {
            return Ok(());
        }
        let mut writer = SpillWriter::new(&self.folder, &self.schema)?;
        for rows in self.held.drain(..) {
            writer.write(&rows)?;
        }
        self.spilled = Some(writer);
        Ok(())
    }

    /// Begins to read.
    pub(super) fn read(self) -> Result<RowReader> {
        let spilled = self.spilled.map(SpillWriter::read).transpose()?;
        Ok(RowReader { held: self.held.into_iter(), spilled })
    }

    fn in_order(&self, batch: &Batch) -> Result<RecordBatch> {
        let events = &batch.events;
        let mut places = Vec::with_capacity(events.len() + batch.rejected.len());
        let mut words = Vec::with_capacity(places.capacity());
        let mut rejected = batch.rejected.iter().peekable();
        let mut row = self.count;
        // Several entries of one record share its row: an event names it, or else the first that became none.
        let mut refuse = |places: &mut Vec<Option<u32>>, words: &mut Vec<u8>, before: i64, row: &mut i64| {
            while let Some(Rejected { why, position }) = rejected.next_if(|next| next.position.offset < before) {
                if position.offset < *row {
                    continue;
                }
                places.push(None);
                words.push(Word::Rejected(*why).code());
                *row += 1;
            }
        };
        for event in events.events() {
            let offset = event.position().offset;
            refuse(&mut places, &mut words, offset, &mut row);
            if offset + 1 == row && places.last().is_some_and(Option::is_some) {
                continue;
            }
            ensure!(offset == row, "row {row} is missing from what was read");
            places.push(Some(event.row as u32));
            words.push(Word::NONE);
            row += 1;
        }
        refuse(&mut places, &mut words, i64::MAX, &mut row);
        let places = (!batch.rejected.is_empty()).then(|| UInt32Array::from(places));
        let column = |&at: &usize| {
            let column = events.as_record_batch().column(at);
            places.as_ref().map_or_else(|| Ok(Arc::clone(column)), |places| take(column, places, None))
        };
        let mut columns = self.columns.iter().map(column).collect::<Result<Vec<ArrayRef>, _>>()?;
        columns.push(Arc::new(UInt8Array::from(words)));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl RowReader {
    /// The next rows: time, source, destination, and the code of a [`Word`] where the record became no event.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        match &mut self.spilled {
            Some(reader) => reader.next(),
            None => Ok(self.held.next()),
        }
    }
}
