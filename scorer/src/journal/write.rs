//! The thread that writes: chains what has gathered, writes it in one go, syncs once.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    JournalError, JournalLimits,
    queue::Shared,
    record::{Draft, Gap, Head, Kind, Seq},
    seal::{Seal, SigningKey, remember},
    segment::Segment,
};

#[derive(Debug)]
pub(super) struct Writer {
    directory: PathBuf,
    segment_bytes: u64,
    retain_bytes: u64,
    /// Files before the one that is open, oldest first, with their bytes.
    closed: VecDeque<(Segment, u64)>,
    file: Option<OpenSegment>,
    signer: Option<SigningKey>,
    /// The last record on disk.
    head: Head,
    /// The records right after `head` that the disk refused; they end with the number here.
    lost: Option<Gap>,
}

#[derive(Debug)]
struct OpenSegment {
    file: File,
    segment: Segment,
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
        (limits, signer): (&JournalLimits, Option<SigningKey>),
    ) -> Result<Self, JournalError> {
        let mut closed = VecDeque::new();
        for segment in Segment::list(directory)? {
            let bytes = fs::metadata(&segment.path).map_err(|error| JournalError::io(&segment.path, error))?.len();
            closed.push_back((segment, bytes));
        }
        // The last one is the one that is open.
        closed.pop_back();
        let JournalLimits { segment_bytes, retain_bytes, .. } = *limits;
        let file = match segment {
            Some(segment) => {
                Some(OpenSegment::reopen(&segment).map_err(|error| JournalError::io(&segment.path, error))?)
            }
            None => None,
        };
        let directory = directory.to_owned();
        Ok(Self { directory, segment_bytes, retain_bytes, closed, file, signer, head, lost: None })
    }

    /// Writes until the journal is closed and nothing is left.
    pub(super) fn run(mut self, shared: &Shared) {
        let _gone = TellGone(shared);
        while let Some(drafts) = shared.take() {
            self.remove_before(shared.released());
            self.write(drafts, shared);
            self.tell_size(shared);
        }
    }

    /// Tells how much the files hold, and from where on they would hold an eighth less than they may.
    pub(super) fn tell_size(&self, shared: &Shared) {
        let open = self.file.as_ref().map_or(0, |open| open.synced);
        let bytes = open + self.closed.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let mut left = bytes;
        let mut excess = None;
        if bytes > self.retain_bytes {
            for (place, (_, bytes)) in self.closed.iter().enumerate() {
                if left <= self.retain_bytes - self.retain_bytes / 8 {
                    break;
                }
                left -= bytes;
                excess = self.first_after(place);
            }
        }
        shared.holds(bytes, excess);
    }

    /// The first record after the closed file at `place`.
    fn first_after(&self, place: usize) -> Option<Seq> {
        let next = self.closed.get(place + 1).map(|(segment, _)| segment.first);
        next.or_else(|| self.file.as_ref().map(|open| open.segment.first))
    }

    /// Removes the files that have only records before `released`, oldest first: the chain has no hole.
    fn remove_before(&mut self, released: Seq) {
        while self.first_after(0).is_some_and(|next| next <= released) {
            let Some((segment, _)) = self.closed.front() else { return };
            if let Err(error) = fs::remove_file(&segment.path) {
                tracing::warn!(%error, file = %segment.path.display(), "an old file of the journal cannot be removed");
                return;
            }
            self.closed.pop_front();
        }
    }

    /// Writes a group; what the disk refuses is reported, and the next group is tried anew.
    fn write(&mut self, drafts: Vec<Draft>, shared: &Shared) {
        let Some(last) = drafts.last().map(|draft| draft.seq) else { return };
        let mut drafts = drafts.into_iter().peekable();
        while let Some(next) = drafts.peek() {
            let begun = Instant::now();
            let mut head = self.head;
            let (mut lines, mut sealed) = (Vec::new(), None);
            if let Some(lost) = &self.lost {
                head = chain(&gap_before(next, lost), head, &mut lines);
            }
            // At least one record, then as many as the file still takes.
            let room = self.file.as_ref().map_or(self.segment_bytes, |open| open.room(self.segment_bytes));
            let first =
                drafts.next_if(|_| true).map(|draft| (draft.seq, self.chain(&draft, head, &mut lines, &mut sealed)));
            let Some((first, chained)) = first else { return };
            head = chained;
            let starts_file = lines.len() as u64 > room;
            let room = if starts_file { self.segment_bytes } else { room };
            while let Some(draft) = drafts.peek() {
                let before = (lines.len(), sealed);
                let chained = self.chain(draft, head, &mut lines, &mut sealed);
                if lines.len() as u64 > room {
                    lines.truncate(before.0);
                    sealed = before.1;
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
            if let Some(seal) = sealed {
                shared.metrics.sealed(&seal);
                if let Err(error) = remember(&self.directory, &seal) {
                    tracing::warn!(%error, "the journal's latest seal cannot be written beside it");
                }
            }
        }
    }

    /// Chains a draft; a seal says who has signed what is before it.
    fn chain(&self, draft: &Draft, head: Head, lines: &mut Vec<u8>, sealed: &mut Option<Seal>) -> Head {
        let (Kind::Seal, Some(signer)) = (draft.kind, &self.signer) else { return chain(draft, head, lines) };
        let seal = Seal::sign(signer, head);
        *sealed = Some(seal);
        let payload = serde_json::to_string(&seal).expect("a seal is plain JSON");
        let &Draft { seq, wall, event, kind, .. } = draft;
        chain(&Draft { seq, wall, event, kind, payload }, head, lines)
    }

    /// Appends the lines to the file, or to `next` where they begin one, and syncs.
    fn put(&mut self, lines: &[u8], starts_file: bool, next: &Segment) -> io::Result<()> {
        if let Some(open) = &mut self.file {
            open.clean()?;
        }
        let open = match &mut self.file {
            Some(open) if !starts_file => open,
            file => {
                let created = OpenSegment::create(&self.directory, next)?;
                if let Some(full) = file.replace(created) {
                    self.closed.push_back((full.segment, full.synced));
                }
                file.as_mut().expect("it was just put there")
            }
        };
        let done = open.append(lines);
        if done.is_err() && open.synced == 0 {
            // A file without records must not stand where the next one, with another name, will be.
            fs::remove_file(&open.segment.path)?;
            self.file = None;
        }
        done
    }
}

impl OpenSegment {
    fn create(directory: &Path, segment: &Segment) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(&segment.path)?;
        File::open(directory)?.sync_all()?;
        Ok(Self { file, segment: segment.clone(), synced: 0, is_dirty: false })
    }

    fn reopen(segment: &Segment) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).open(&segment.path)?;
        // What the last process wrote may not be synced yet; from here on it counts as durable.
        file.sync_all()?;
        let synced = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, segment: segment.clone(), synced, is_dirty: false })
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
