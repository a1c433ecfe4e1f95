//! The thread that writes: chains what has gathered, writes it in one go, syncs once.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    JournalError,
    queue::Shared,
    record::{Draft, Gap, Head, Kind},
    segment::Segment,
};

#[derive(Debug)]
pub(super) struct Writer {
    directory: PathBuf,
    segment_bytes: u64,
    file: Option<OpenSegment>,
    /// The last record on disk.
    head: Head,
    /// The records right after `head` that the disk refused; they end with the number here.
    lost: Option<Gap>,
}

#[derive(Debug)]
struct OpenSegment {
    file: File,
    path: PathBuf,
    /// Bytes that are written and synced.
    synced: u64,
    /// Whether there may be more bytes than that, of a write that failed.
    is_dirty: bool,
}

impl Writer {
    pub(super) fn new(
        directory: &Path,
        segment: Option<Segment>,
        head: Head,
        segment_bytes: u64,
    ) -> Result<Self, JournalError> {
        let file = match segment {
            Some(segment) => {
                Some(OpenSegment::reopen(&segment).map_err(|error| JournalError::io(&segment.path, error))?)
            }
            None => None,
        };
        Ok(Self { directory: directory.to_owned(), segment_bytes, file, head, lost: None })
    }

    /// Writes until the journal is closed and nothing is left.
    pub(super) fn run(mut self, shared: &Shared) {
        let _gone = TellGone(shared);
        while let Some(drafts) = shared.take() {
            self.write(drafts, shared);
        }
    }

    /// Writes a group; what the disk refuses is reported, and the next group is tried anew.
    fn write(&mut self, drafts: Vec<Draft>, shared: &Shared) {
        let Some(last) = drafts.last().map(|draft| draft.seq) else { return };
        let mut drafts = drafts.into_iter().peekable();
        while let Some(next) = drafts.peek() {
            let begun = Instant::now();
            let mut head = self.head;
            let mut lines = Vec::new();
            if let Some(lost) = &self.lost {
                head = chain(&gap_before(next, lost), head, &mut lines);
            }
            // At least one record, then as many as the file still takes.
            let room = self.file.as_ref().map_or(self.segment_bytes, |open| open.room(self.segment_bytes));
            let first = drafts.next_if(|_| true).map(|draft| (draft.seq, chain(&draft, head, &mut lines)));
            let Some((first, chained)) = first else { return };
            head = chained;
            let starts_file = lines.len() as u64 > room;
            let room = if starts_file { self.segment_bytes } else { room };
            while let Some(draft) = drafts.peek() {
                let before = lines.len();
                let chained = chain(draft, head, &mut lines);
                if lines.len() as u64 > room {
                    lines.truncate(before);
                    break;
                }
                head = chained;
                drafts.next();
            }
            let name = self.lost.as_ref().map_or(first, |lost| lost.last);
            if let Err(error) = self.put(&lines, starts_file, &Segment::new(&self.directory, name)) {
                tracing::error!(%error, "the journal cannot be written");
                let first = self.head.seq.next();
                self.lost = Some(Gap { first, last, error: error.to_string() });
                shared.refused(first, last, error.to_string());
                return;
            }
            self.lost = None;
            self.head = head;
            shared.written(head, begun.elapsed());
        }
    }

    /// Appends the lines to the file, or to `next` where they begin one, and syncs.
    fn put(&mut self, lines: &[u8], starts_file: bool, next: &Segment) -> io::Result<()> {
        if let Some(open) = &mut self.file {
            open.clean()?;
        }
        let open = match &mut self.file {
            Some(open) if !starts_file => open,
            file => file.insert(OpenSegment::create(&self.directory, next)?),
        };
        let done = open.append(lines);
        if done.is_err() && open.synced == 0 {
            // A file without records must not stand where the next one, with another name, will be.
            fs::remove_file(&open.path)?;
            self.file = None;
        }
        done
    }
}

impl OpenSegment {
    fn create(directory: &Path, segment: &Segment) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(&segment.path)?;
        File::open(directory)?.sync_all()?;
        Ok(Self { file, path: segment.path.clone(), synced: 0, is_dirty: false })
    }

    fn reopen(segment: &Segment) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).open(&segment.path)?;
        // What the last process wrote may not be synced yet; from here on it counts as durable.
        file.sync_all()?;
        let synced = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, path: segment.path.clone(), synced, is_dirty: false })
    }

    fn room(&self, segment_bytes: u64) -> u64 {
        segment_bytes.saturating_sub(self.synced)
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.is_dirty = true;
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.synced += lines.len() as u64;
                self.is_dirty = false;
                Ok(())
            }
            Err(error) => {
                // Where even this fails it is tried again before the next write.
                let _ = self.clean();
                Err(error)
            }
        }
    }

    /// Cuts off what a failed write has left: after a failed sync nobody knows what is on disk.
    fn clean(&mut self) -> io::Result<()> {
        if self.is_dirty {
            self.file.set_len(self.synced)?;
            self.file.seek(SeekFrom::Start(self.synced))?;
            self.is_dirty = false;
        }
        Ok(())
    }
}

/// Tells everyone who waits that nobody writes any more, also when the thread panics.
struct TellGone<'a>(&'a Shared);

impl Drop for TellGone<'_> {
    fn drop(&mut self) {
        self.0.writer_gone();
    }
}

fn chain(draft: &Draft, head: Head, lines: &mut Vec<u8>) -> Head {
    Head { seq: draft.seq, hash: draft.encode(&head.hash, lines) }
}

/// States what is missing before `next`, at its times.
fn gap_before(next: &Draft, lost: &Gap) -> Draft {
    let payload = serde_json::to_string(lost).expect("a gap is plain JSON");
    Draft { seq: lost.last, wall: next.wall, event: next.event, kind: Kind::Gap, payload }
}
