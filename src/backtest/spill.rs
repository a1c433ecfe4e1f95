//! Batches in a nameless file under the output directory: gone when it is closed, even by a crash.

use std::{
    fs::File,
    io::{BufReader, Seek, SeekFrom},
    path::Path,
    sync::{Arc, LazyLock},
};

use anyhow::{Context as _, Result};
use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array},
    datatypes::SchemaRef,
};
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use qualm_model::event::{EventBatch, schema};

/// The longest batch whose absent columns share one array.
const SHARED_ROWS: usize = 8192;

/// One absent column of each type, shared by all batches that lack it.
static ABSENT: LazyLock<Vec<ArrayRef>> =
    LazyLock::new(|| schema().fields().iter().map(|field| new_null_array(field.data_type(), SHARED_ROWS)).collect());

/// A file of batches in the making.
pub(super) struct SpillWriter {
    writer: StreamWriter<std::io::BufWriter<File>>,
}

/// What a [`SpillWriter`] wrote, from the begin.
pub(super) struct SpillReader {
    reader: StreamReader<BufReader<File>>,
}

impl SpillWriter {
    /// A new file in `folder` for batches of `schema`.
    pub(super) fn new(folder: &Path, schema: &SchemaRef) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).with_context(|| unwritable(folder))?;
        Ok(Self { writer: StreamWriter::try_new_buffered(file, schema)? })
    }

    /// Appends a batch.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).context("a spill file cannot be written; is the disk of --out full?")
    }

    /// Begins to read what was written.
    pub(super) fn read(mut self) -> Result<SpillReader> {
        self.writer.finish().context("a spill file cannot be written; is the disk of --out full?")?;
        let mut file = self.writer.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(SpillReader { reader: StreamReader::try_new_buffered(file, None)? })
    }
}

impl SpillReader {
    /// The next batch.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        self.reader.next().transpose().context("a spill file cannot be read back")
    }
}

pub(super) fn unwritable(folder: &Path) -> String {
    format!("{}: cannot be written to; name another directory with --out", folder.display())
}

/// Which columns of the event schema these batches fill at all.
pub(super) fn filled<'a>(batches: impl IntoIterator<Item = &'a EventBatch>) -> Vec<usize> {
    let mut filled = vec![false; schema().fields().len()];
    for batch in batches {
        for (at, column) in batch.as_record_batch().columns().iter().enumerate() {
            filled[at] |= column.null_count() < column.len();
        }
    }
    (0..filled.len()).filter(|&at| filled[at]).collect()
}

/// The same batch, its absent columns shared with all others: what a format does not say takes no memory.
pub(super) fn compact(batch: &EventBatch) -> EventBatch {
    let rows = batch.len();
    if rows > SHARED_ROWS {
        return batch.clone();
    }
    let columns =
        batch.as_record_batch().columns().iter().zip(ABSENT.iter()).map(|(column, absent)| {
            if column.null_count() == rows { absent.slice(0, rows) } else { Arc::clone(column) }
        });
    assemble(columns.collect(), rows)
}

/// Bytes that a compact batch holds, buffers that its columns share counted once.
pub(super) fn held_bytes(batch: &EventBatch) -> usize {
    let mut seen = std::collections::HashSet::new();
    let mut bytes = 0;
    for column in batch.as_record_batch().columns().iter().filter(|column| column.null_count() < column.len()) {
        let held = column.to_data();
        let parts = [&held].into_iter().chain(held.child_data());
        for buffer in parts.flat_map(|part| part.buffers()) {
            if seen.insert(buffer.as_ptr()) {
                bytes += buffer.capacity();
            }
        }
    }
    bytes
}

/// The batch with all columns of the event schema from one with those that are `filled`.
pub(super) fn widen(batch: &RecordBatch, filled: &[usize]) -> EventBatch {
    let rows = batch.num_rows();
    let mut columns: Vec<ArrayRef> = if rows <= SHARED_ROWS {
        ABSENT.iter().map(|absent| absent.slice(0, rows)).collect()
    } else {
        schema().fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect()
    };
    for (column, &at) in batch.columns().iter().zip(filled) {
        columns[at] = Arc::clone(column);
    }
    assemble(columns, rows)
}

fn assemble(columns: Vec<ArrayRef>, rows: usize) -> EventBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(schema(), columns, &options).expect("types are those of the schema");
    EventBatch::try_from(batch).expect("the schema is that of events")
}
