//! Scores by row. They come in the order of time and are asked for in the order of rows: scattered over files by
//! stretches of rows where there are too many to hold.

use std::{
    fs::File,
    io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{spill::unwritable, word::Word};

/// Rows a stretch; one stretch is held at a time, 17 bytes a row.
pub(super) const STRETCH: usize = 1 << 23;
/// Place within the stretch, two numbers, a code.
const RECORD: usize = 4 + 8 + 8 + 1;

/// What became of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    /// Bits of the event; meaningless where it was not scored.
    pub(super) bits: f64,
    /// Evidence against its source.
    pub(super) identity_bits: f64,
    /// Code of a [`Word`].
    pub(super) code: u8,
}

/// Collects outcomes.
pub(super) struct Outcomes {
    stretch: usize,
    rows: usize,
    to: Collected,
}

enum Collected {
    Held(Vec<Outcome>),
    Scattered(Vec<BufWriter<File>>),
}

/// The outcomes of all rows, stretch by stretch.
pub(super) struct OutcomeReader {
    stretch: usize,
    rows: usize,
    from: Remaining,
}

enum Remaining {
    Held(Option<Vec<Outcome>>),
    Scattered(std::vec::IntoIter<BufWriter<File>>),
}

const UNKNOWN: Outcome = Outcome { bits: 0.0, identity_bits: 0.0, code: Word::NONE };

impl Outcome {
    fn or_higher(self, other: Self) -> Self {
        if self.code != Word::NONE && self.bits > other.bits { self } else { other }
    }
}

impl Outcomes {
    /// For `rows` rows; in files in `folder` where that is more than a `stretch`.
    pub(super) fn new(folder: &Path, rows: usize, stretch: usize) -> Result<Self> {
        let to = if rows <= stretch {
            Collected::Held(vec![UNKNOWN; rows])
        } else {
            let file = |_| tempfile::tempfile_in(folder).map(|file| BufWriter::with_capacity(1 << 16, file));
            let files: std::io::Result<Vec<_>> = (0..rows.div_ceil(stretch)).map(file).collect();
            Collected::Scattered(files.with_context(|| unwritable(folder))?)
        };
        Ok(Self { stretch, rows, to })
    }

    /// Notes the outcome of an event of a row; of several the highest stands.
    pub(super) fn note(&mut self, row: usize, outcome: Outcome) -> Result<()> {
        match &mut self.to {
            Collected::Held(outcomes) => {
                if let Some(place) = outcomes.get_mut(row) {
                    *place = place.or_higher(outcome);
                }
                Ok(())
            }
            Collected::Scattered(files) => {
                let mut record = [0; RECORD];
                record[..4].copy_from_slice(&((row % self.stretch) as u32).to_le_bytes());
                record[4..12].copy_from_slice(&outcome.bits.to_le_bytes());
                record[12..20].copy_from_slice(&outcome.identity_bits.to_le_bytes());
                record[20] = outcome.code;
                files[row / self.stretch]
                    .write_all(&record)
                    .context("scores cannot be kept; is the disk of --out full?")
            }
        }
    }

    /// Begins to give them out in the order of rows.
    pub(super) fn read(self) -> OutcomeReader {
        let from = match self.to {
            Collected::Held(outcomes) => Remaining::Held(Some(outcomes)),
            Collected::Scattered(files) => Remaining::Scattered(files.into_iter()),
        };
        OutcomeReader { stretch: self.stretch, rows: self.rows, from }
    }
}

impl OutcomeReader {
    /// The outcomes of the next stretch of rows.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Outcome>>> {
        let files = match &mut self.from {
            Remaining::Held(outcomes) => return Ok(outcomes.take()),
            Remaining::Scattered(files) => files,
        };
        let Some(writer) = files.next() else { return Ok(None) };
        let mut file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        let rows = self.rows.min(self.stretch);
        self.rows -= rows;
        let mut outcomes = vec![UNKNOWN; rows];
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut record = [0; RECORD];
        loop {
            match reader.read_exact(&mut record) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Some(outcomes)),
                Err(error) => return Err(error).context("scores cannot be read back"),
            }
            let [place, bits, identity] = [&record[..4], &record[4..12], &record[12..20]];
            let place = place.try_into().map_or(usize::MAX, |bytes| u32::from_le_bytes(bytes) as usize);
            let number = |bytes: &[u8]| bytes.try_into().map_or(f64::NAN, f64::from_le_bytes);
            if let Some(outcome) = outcomes.get_mut(place) {
                let read = Outcome { bits: number(bits), identity_bits: number(identity), code: record[20] };
                *outcome = outcome.or_higher(read);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_come_back_in_the_order_of_rows_held_or_scattered() {
        let folder = tempfile::tempdir().expect("a folder");
        let outcome =
            |row: usize| Outcome { bits: row as f64 / 3.0, identity_bits: -(row as f64), code: row as u8 | 1 };
        for stretch in [1_000, 64] {
            let mut outcomes = Outcomes::new(folder.path(), 1_000, stretch).expect("room");
            for row in (0..1_000).rev().filter(|row| row % 10 != 3) {
                outcomes.note(row, outcome(row)).expect("room");
                // Another entry of the same record, that is less unusual.
                outcomes.note(row, Outcome { bits: -1.0, identity_bits: 0.0, code: 1 }).expect("room");
            }
            let mut reader = outcomes.read();
            let mut all = Vec::new();
            while let Some(some) = reader.next().expect("readable") {
                all.extend(some);
            }
            let expected = (0..1_000).map(|row| if row % 10 == 3 { UNKNOWN } else { outcome(row) });
            assert_eq!(all, expected.collect::<Vec<_>>());
        }
    }
}
