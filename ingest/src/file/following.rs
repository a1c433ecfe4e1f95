//! One path, followed through rotation and truncation.

use std::{
    fs::{File, Metadata},
    io,
    path::Path,
    thread,
    time::Duration,
};

use super::{
    FileReader,
    remaining::Counted,
    source::{Sender, ask_start, send},
    unreadable,
};
use crate::{counters::SourceCounters, source::SourceError};

/// Positions that each file of a followed path has for its rows.
pub(super) const ROWS_OF_A_FILE: i64 = 1 << 40;
/// How often a followed file is looked at again.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// Follows one plain file through rotation. After a restart, a file that has fewer records than were read is another
/// one, and is read from its beginning.
pub(super) fn read_on(
    reader: &mut FileReader,
    path: &Path,
    sender: &Sender,
    counters: &SourceCounters,
) -> Result<(), SourceError> {
    let Some(start) = ask_start(reader.rows.source, sender) else { return Ok(()) };
    reader.start_at(start);
    reader.rows.next = start - start % ROWS_OF_A_FILE;
    let mut followed = None;
    loop {
        if followed.is_none() {
            match File::open(path) {
                Ok(file) => {
                    followed = Some(Inode::of(&file.metadata().map_err(|error| unreadable(path, &error))?));
                    let remaining = reader.remaining.clone();
                    reader.begin(path.to_owned(), Box::new(Counted { input: file, remaining }));
                }
                // Between the two steps of a rotation there is no file.
                Err(error) if error.kind() == io::ErrorKind::NotFound && (reader.rows.next > 0 || start > 0) => {}
                Err(error) => return Err(unreadable(path, &error)),
            }
        }
        let mut replaced = is_replaced(path, followed, reader);
        // What was written before the file was moved away is still read.
        if !read_to_present_end(reader, sender, counters)? {
            return Ok(());
        }
        reader.remaining.end();
        // It was replaced while nobody was looking.
        replaced |= followed.is_some() && reader.rows.next < reader.rows.skip_until;
        if replaced {
            reader.finish_file()?;
            followed = None;
            let files = reader.rows.next / ROWS_OF_A_FILE + 1;
            (reader.rows.next, reader.rows.skip_until) = (files * ROWS_OF_A_FILE, 0);
        } else if !pause(sender) {
            return Ok(());
        }
    }
}

/// `false`: nobody listens.
fn read_to_present_end(
    reader: &mut FileReader,
    sender: &Sender,
    counters: &SourceCounters,
) -> Result<bool, SourceError> {
    loop {
        let Some(open) = &mut reader.open else { return Ok(true) };
        if reader.rows.take_buffered(open)? {
            if !send(reader.rows.gathering.finish(None), sender, counters) {
                return Ok(false);
            }
        } else if !open.refill()? {
            return Ok(true);
        }
    }
}

/// Waits a little. `false`: nobody listens.
fn pause(sender: &Sender) -> bool {
    thread::sleep(FOLLOW_EVERY);
    !sender.is_closed()
}

/// Which file a path led to when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    number: u64,
    device: u64,
}

impl Inode {
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { number: metadata.ino(), device: metadata.dev() }
    }
}

/// Whether the path leads to another file now, or to one that is shorter than what was read of it.
fn is_replaced(path: &Path, followed: Option<Inode>, reader: &FileReader) -> bool {
    let (Ok(metadata), Some(followed), Some(open)) = (std::fs::metadata(path), followed, &reader.open) else {
        return false;
    };
    Inode::of(&metadata) != followed || metadata.len() < open.lines.bytes_read()
}
