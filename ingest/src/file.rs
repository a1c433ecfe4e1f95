//! Files and standard input, plain or packed, once or followed.
//!
//! A record's position is its row over all files in their order; blank lines, comments and headers are no records.
//! Of a followed file it is the row in the file that is in its place at the time, and above it, how many there were
//! before: so it is known after a restart how much of the present one is read.
//!
//! # Layout
//! - this file: [`FileReader`], the plain form
//! - `source`: the same on a thread of its own; `following`: one path through rotation
//! - `remaining`: how much is still to be read
//! - `look`: what is at a path

mod following;
mod look;
mod remaining;
mod source;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use qualm_model::{event::Position, time::Clock};

use self::remaining::Counted;
pub use self::{
    look::{Look, look},
    remaining::Remaining,
    source::{FileSource, Follow},
};
use crate::{
    gathering::Gathering,
    lines::{Line, Lines, NoLines, unpacked},
    parse::{Origin, Parser, mapped::InvalidHeader},
    source::{Batch, Invalid, SourceError},
};

/// Records a batch at most.
const BATCH_RECORDS: usize = 4096;

/// Reads files one after the other, blocking; the plain form of this source, as `backtest` uses it.
#[derive(Debug)]
pub struct FileReader {
    paths: std::vec::IntoIter<PathBuf>,
    open: Option<Open>,
    rows: Rows,
    remaining: Remaining,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    lines: Lines,
}

/// What becomes of lines.
#[derive(Debug)]
struct Rows {
    parser: Parser,
    gathering: Gathering,
    source: u16,
    /// Row of the next record.
    next: i64,
    skip_until: i64,
    clock: Option<Clock>,
}

impl FileReader {
    /// A reader of `paths`, `-` being standard input. All records have the position's source index `source`.
    pub fn new(paths: Vec<PathBuf>, parser: Parser, source: u16) -> Self {
        let rows = Rows { parser, gathering: Gathering::default(), source, next: 0, skip_until: 0, clock: None };
        Self { paths: paths.into_iter(), open: None, rows, remaining: Remaining::default() }
    }

    /// Checks records against the time of their arrival.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.rows.clock = Some(clock);
        self
    }

    /// Steps over the records before `row`.
    pub fn start_at(&mut self, row: i64) {
        self.rows.skip_until = row;
    }

    /// Records read so far, over all files.
    pub fn rows(&self) -> i64 {
        self.rows.next
    }

    /// The next records, `None` when all files have ended. Does not wait for more while it holds some.
    ///
    /// Errors: a file that cannot be opened, read or unpacked; a header that lacks a mapped column.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, SourceError> {
        loop {
            let Some(open) = &mut self.open else {
                match self.paths.next() {
                    Some(path) => {
                        let input = open_input(&path, &self.remaining).map_err(|error| unreadable(&path, &error))?;
                        self.begin(path, input);
                    }
                    None => return Ok(self.rows.some_batch()),
                }
                continue;
            };
            if self.rows.take_buffered(open)? {
                return Ok(self.rows.some_batch());
            }
            if !open.refill()? {
                self.finish_file()?;
            }
        }
    }

    fn begin(&mut self, path: PathBuf, input: Box<dyn Read + Send>) {
        self.rows.parser.begin_input();
        self.open = Some(Open { lines: Lines::new(input, self.rows.parser.max_record_bytes()), path });
    }

    /// The last line may lack its end.
    fn finish_file(&mut self) -> Result<(), SourceError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        self.rows.take(&open.path, open.lines.rest())
    }
}

impl Open {
    fn refill(&mut self) -> Result<bool, SourceError> {
        self.lines.refill().map_err(|error| unreadable(&self.path, &error))
    }
}

impl Rows {
    fn some_batch(&mut self) -> Option<Batch> {
        (self.gathering.records() > 0).then(|| self.gathering.finish(None))
    }

    /// Parses what is buffered. Whether there is a batch: it is full, or more would have to be waited for.
    fn take_buffered(&mut self, open: &mut Open) -> Result<bool, SourceError> {
        if let Some(clock) = &self.clock {
            self.parser.arrive(clock.now());
        }
        while self.gathering.records() < BATCH_RECORDS {
            match open.lines.next_buffered() {
                Line::Starved => return Ok(self.gathering.records() > 0),
                line => self.take(&open.path, line)?,
            }
        }
        Ok(true)
    }

    /// One line, if it is a record.
    fn take(&mut self, path: &Path, line: Line<'_>) -> Result<(), SourceError> {
        let line = match line {
            Line::End | Line::Starved => return Ok(()),
            Line::Whole(line) => Some(line),
            Line::TooLong => None,
        };
        if let Some(line) = line
            && !self.parser.is_record(line).map_err(|error| wrong_header(path, &error))?
        {
            return Ok(());
        }
        let position = Position { source: self.source, partition: 0, offset: self.next };
        self.next += 1;
        if position.offset < self.skip_until {
            return Ok(());
        }
        match line {
            Some(line) => {
                self.gathering.record(&mut self.parser, line, position, &Origin::default());
            }
            None => self.gathering.reject(position, Invalid::TooLong.into()),
        }
        Ok(())
    }
}

fn wrong_header(path: &Path, error: &InvalidHeader) -> SourceError {
    SourceError {
        origin: path.display().to_string(),
        problem: error.to_string(),
        remedy: "correct the mapping, or name the right file".to_owned(),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> SourceError {
    SourceError {
        origin: path.display().to_string(),
        problem: format!("cannot be read: {error}"),
        remedy: match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "make it readable for the user that runs qualm",
            _ if error.get_ref().is_some_and(|inner| inner.is::<NoLines>()) => {
                "`-` is standard input for `backtest` too"
            }
            _ => "it may be damaged or cut off; unpack it by hand to see",
        }
        .to_owned(),
    }
}

fn open_input(path: &Path, remaining: &Remaining) -> io::Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        return unpacked(Box::new(io::stdin()));
    }
    unpacked(Box::new(Counted { input: File::open(path)?, remaining: remaining.clone() }))
}

#[cfg(test)]
mod tests;
