//! The journal: every decision and everything that led to one, append-only and hash-chained.
//!
//! # Layout of a record (version 1)
//! One line of JSON, its members in this order and without white space between them:
//! `{"v":1,"seq":7,"wall":<ns>,"event":<ns>,"kind":"decision","payload":{…},"prev":"<hex>","hash":"<hex>"}`.
//! `hash` is SHA-256 over the 32 raw bytes of `prev` followed by the line's bytes before `,"prev"`; `prev` is the
//! `hash` of the record before, across files, and zeros in the very first record. Files are named by the number of
//! their first record. Where the disk refused records, the next one that fits is preceded by a `gap` record that
//! bears the number of the last one lost, so that no number is ever missing without a word.
//!
//! The oldest files are removed once there are more than `retain_bytes` in all and whoever appends has said that they
//! are no longer needed ([`Journal::release`]): it has then appended again what of them is. The chain goes on from the
//! first file that is left.
//!
//! # Layout of the module
//! - `record`: one line, its hash and its link
//! - `segment`, `read`: files and the checked way back through them
//! - `queue`, `write`: the way in, and the thread that writes and syncs whatever has gathered
//!
//! **Invariant:** what [`Journal::durable`] has confirmed is on disk and stays in the chain.

mod queue;
mod read;
mod record;
mod segment;
#[cfg(test)]
mod tests;
mod write;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use qualm_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use self::{
    queue::Shared,
    record::{Draft, FRAME},
    segment::Segment,
    write::Writer,
};
pub use self::{
    read::{Records, Torn, Verified},
    record::{Digest, Flaw, Gap, Head, InvalidDigest, Kind, Record, Seq, VERSION},
};

/// The file whose lock says that a process writes this journal.
const LOCK: &str = "LOCK";

/// No payload is longer than this, bytes.
pub const LONGEST_PAYLOAD: usize = 1 << 20;

/// Sizes of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalLimits {
    /// A file is closed and the next begun when it would exceed this many bytes.
    pub segment_bytes: u64,
    /// Bytes that may wait for the disk; beyond, appending waits.
    pub queue_bytes: usize,
    /// All files together have about so many bytes: beyond, the oldest are to go.
    pub retain_bytes: u64,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, queue_bytes: 8 << 20, retain_bytes: 1 << 30 }
    }
}

impl JournalLimits {
    /// Limits of a journal of about `bytes`, in files small enough for the oldest to go one at a time.
    pub fn of_bytes(bytes: u64) -> Self {
        let default = Self::default();
        Self { segment_bytes: (bytes / 16).min(default.segment_bytes), retain_bytes: bytes, ..default }
    }
}

/// How the journal is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalStatus {
    /// The last number given out.
    pub appended: Seq,
    /// Where the chain ends on disk, synced.
    pub durable: Head,
    /// Records that the disk refused since the journal was opened.
    pub unwritten: u64,
    /// What the disk says, while it refuses: nothing above *throttled* may be enforced until this is `None`.
    pub failing: Option<String>,
    /// How often appending had to wait for the disk.
    pub waits: u64,
    /// How long the last sync took.
    pub last_sync: Duration,
    /// Bytes of all files.
    pub bytes: u64,
    /// Where they are too many: the files that have only records before this number are to be released.
    pub excess: Option<Seq>,
}

/// A journal that cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("journal {}: {source}; check that the path exists and is writable by this user", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("journal {} is in use by another process; stop it, or give this one a state directory of its own", .0.display())]
    InUse(PathBuf),
    /// A record is not what was written.
    #[error(
        "journal {} line {line}: {flaw}; put the file back from a copy, or move the whole directory aside to begin a \
         new journal (decisions in it are then no longer known)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong.
        flaw: Flaw,
    },
    /// A later release wrote it.
    #[error(
        "journal {} line {line} has version {version}, this release reads up to {VERSION}; start the release that \
         wrote it, or move the whole directory aside to begin a new journal",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// The version it has.
        version: u32,
    },
}

/// A record that is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The payload is no JSON.
    #[error("journal payload: {0}")]
    Payload(#[from] serde_json::Error),
    /// The payload is too long.
    #[error("journal payload has {0} bytes, more than {LONGEST_PAYLOAD}; name fewer reasons or inputs in one record")]
    TooLong(usize),
    /// The payload holds raw JSON with a line feed in it.
    #[error("journal payload is not on one line; append the value, not text that was formatted for people")]
    NotOneLine,
    /// The disk refused it.
    #[error("journal record {seq} could not be written: {error}; free space or mend the disk, writing is tried again")]
    Unwritten {
        /// Its number.
        seq: Seq,
        /// What the disk said.
        error: String,
    },
    /// The writing thread has ended.
    #[error("the journal is closed")]
    Closed,
}

/// What was found when a journal was opened.
#[derive(Debug)]
pub struct Opened {
    /// The journal, ready to append.
    pub journal: Journal,
    /// Where its chain ended; number 0 when it is new.
    pub head: Head,
    /// The last line, when it was torn: it has been cut off.
    pub torn: Option<Torn>,
}

/// The journal, open for appending. Clones share it; the last one to go waits until everything is written.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Held for as long as the journal is open.
    _lock: File,
}

impl Journal {
    /// Opens the journal in `directory`, which is made if it is not there.
    ///
    /// The whole last file is verified; a torn last line, as `kill -9` leaves it, is cut off. [`verify`] checks the
    /// files before.
    ///
    /// # Errors
    /// When another process has it open, a record is damaged or newer, or the disk refuses.
    pub fn open(directory: &Path, limits: &JournalLimits) -> Result<Opened, JournalError> {
        fs::create_dir_all(directory).map_err(|error| JournalError::io(directory, error))?;
        let lock = lock(directory)?;
        let (segment, head, torn) = mend(directory)?;
        let shared = Arc::new(Shared::new(head, limits.queue_bytes));
        let writer = Writer::new(directory, segment, head, limits)?;
        writer.tell_size(&shared);
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn({
                let shared = shared.clone();
                move || writer.run(&shared)
            })
            .map_err(|error| JournalError::io(directory, error))?;
        let inner = Inner { shared, thread: Some(thread), _lock: lock };
        Ok(Opened { journal: Self { inner: Arc::new(inner) }, head, torn })
    }

    /// Appends a record and returns its number. It is written soon after, together with what gathers meanwhile.
    ///
    /// Waits (and counts it) while more than `queue_bytes` wait for the disk. Numbers that are not finite become
    /// `null`, as JSON has none.
    ///
    /// # Errors
    /// When the payload is no JSON or too long, or the journal is closed. What the disk says is in [`Self::status`].
    pub fn append<T: Serialize + ?Sized>(
        &self,
        kind: Kind,
        event: Timestamp,
        wall: Timestamp,
        payload: &T,
    ) -> Result<Seq, AppendError> {
        let payload = serde_json::to_string(payload)?;
        if payload.len() > LONGEST_PAYLOAD {
            return Err(AppendError::TooLong(payload.len()));
        }
        if payload.contains(['\n', '\r']) {
            return Err(AppendError::NotOneLine);
        }
        self.inner.shared.push(Draft { seq: Seq(0), wall, event, kind, payload })
    }

    /// Appends a record and waits until it is on disk: for decisions that are pushed only once they are durable.
    ///
    /// # Errors
    /// As [`Self::append`], and when the disk refuses the record.
    pub async fn append_synced<T: Serialize + ?Sized>(
        &self,
        kind: Kind,
        event: Timestamp,
        wall: Timestamp,
        payload: &T,
    ) -> Result<Seq, AppendError> {
        let seq = self.append(kind, event, wall, payload)?;
        self.durable(seq).await?;
        Ok(seq)
    }

    /// Waits until the record is on disk.
    ///
    /// # Errors
    /// When the disk refused it, or the journal is closed without having written it.
    pub async fn durable(&self, seq: Seq) -> Result<(), AppendError> {
        self.inner.shared.settled(seq).await
    }

    /// [`Self::durable`] for threads without a runtime.
    ///
    /// # Errors
    /// As [`Self::durable`].
    pub fn wait_durable(&self, seq: Seq) -> Result<(), AppendError> {
        self.inner.shared.wait_settled(seq)
    }

    /// Lets go of the files that have only records before number `before`: what of them is needed stands, synced, in a
    /// later record. They are removed before the next record is written.
    pub fn release(&self, before: Seq) {
        self.inner.shared.release(before);
    }

    /// How it is doing.
    pub fn status(&self) -> JournalStatus {
        self.inner.shared.status()
    }

    /// Adds the journal's metrics to the registry.
    ///
    /// # Errors
    /// When they are there already.
    pub fn register(&self, registry: &prometheus::Registry) -> prometheus::Result<()> {
        self.inner.shared.metrics.register(registry)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported there, and every waiter was told.
            let _ = thread.join();
        }
    }
}

impl JournalError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    fn flaw(path: &Path, line: u64, flaw: Flaw) -> Self {
        let path = path.to_owned();
        match flaw {
            Flaw::Newer(version) => Self::Newer { path, line, version },
            flaw => Self::Damaged { path, line, flaw },
        }
    }
}

/// The records from number `from` on, each checked; also of a journal that another process is writing.
///
/// # Errors
/// When the directory cannot be read.
pub fn read_from(directory: &Path, from: Seq) -> Result<Records, JournalError> {
    Ok(Records::new(Segment::list(directory)?.into(), from))
}

/// Checks every record of every file.
///
/// # Errors
/// At the first record that was changed, is missing, or stands elsewhere; file and line are named.
pub fn verify(directory: &Path) -> Result<Verified, JournalError> {
    read::verify(Segment::list(directory)?)
}

/// Whether another process writes the journal in `directory` now. Takes nothing and makes nothing.
pub fn is_in_use(directory: &Path) -> bool {
    // A shared lock for this moment: it fails only while the writer holds its own.
    File::open(directory.join(LOCK)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn lock(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join(LOCK);
    let failed = |error| JournalError::io(&path, error);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Verifies the last file and cuts off a torn line. A file without any record is removed, and the one before it is
/// the last.
fn mend(directory: &Path) -> Result<(Option<Segment>, Head, Option<Torn>), JournalError> {
    let mut torn = None;
    let mut segments = Segment::list(directory)?;
    while let Some(segment) = segments.pop() {
        let failed = |error| JournalError::io(&segment.path, error);
        let mut records = Records::new([segment.clone()].into(), Seq(0));
        records.try_for_each(|record| record.map(drop))?;
        if let Some(found) = records.torn().cloned() {
            let file = OpenOptions::new().write(true).open(&segment.path).map_err(failed)?;
            file.set_len(found.offset).and_then(|()| file.sync_all()).map_err(failed)?;
            torn = Some(found);
        }
        if let Some(head) = records.head() {
            return Ok((Some(segment), head, torn));
        }
        fs::remove_file(&segment.path).map_err(failed)?;
    }
    Ok((None, Head::default(), torn))
}

/// A line, with everything around its payload.
const fn line_bytes(payload: usize) -> usize {
    payload + FRAME
}
