//! The files of a journal: named by the number of their first record, read line by line.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use super::{JournalError, record::Seq};

const EXTENSION: &str = "jsonl";

/// One file of the journal.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) first: Seq,
    pub(super) path: PathBuf,
}

impl Segment {
    /// The file that begins with `first`.
    pub(super) fn new(directory: &Path, first: Seq) -> Self {
        Self { first, path: directory.join(format!("{:020}.{EXTENSION}", first.0)) }
    }

    /// All files of the journal, in order. Files with other names are not its own and are passed over.
    pub(super) fn list(directory: &Path) -> Result<Vec<Self>, JournalError> {
        let failed = |source| JournalError::io(directory, source);
        let mut segments = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let first = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if let Some(first) = first {
                segments.push(Self { first: Seq(first), path });
            }
        }
        segments.sort_unstable_by_key(|segment| segment.first);
        Ok(segments)
    }
}

/// What stands next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line that ends in a line feed, which is not in the buffer.
    Whole,
    /// The file ends without a line feed.
    Torn,
    /// More bytes than a record may have.
    TooLong,
    /// Nothing.
    End,
}

/// Reads lines of bounded length and knows where they began.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    longest: usize,
    /// Number of the line last read; the first is 1.
    pub(super) number: u64,
    /// Where the line last read began.
    pub(super) offset: u64,
    next_offset: u64,
}

impl Lines {
    pub(super) fn open(path: &Path, longest: usize) -> io::Result<Self> {
        let reader = BufReader::with_capacity(1 << 16, File::open(path)?);
        Ok(Self { reader, longest, number: 0, offset: 0, next_offset: 0 })
    }

    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Line> {
        line.clear();
        self.offset = self.next_offset;
        let read = (&mut self.reader).take(self.longest as u64 + 1).read_until(b'\n', line)?;
        self.next_offset += read as u64;
        if read == 0 {
            return Ok(Line::End);
        }
        self.number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
            return Ok(Line::Whole);
        }
        Ok(if read > self.longest { Line::TooLong } else { Line::Torn })
    }
}
