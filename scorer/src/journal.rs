//! The journal: every decision and everything that led to one, append-only and hash-chained.
//!
//! # Layout of a record (version 2)
//! One line of JSON, its members in this order and without white space between them:
//! `{"v":2,"seq":7,"wall":<ns>,"event":<ns>,"kind":"decision","payload":{…},"prev":"<hex>","hash":"<hex>"}`.
//! `hash` is SHA-256 over the 32 raw bytes of `prev` followed by the 32 of the SHA-256 of the line's bytes before
//! `,"prev"` (in version 1, which is still read, by those bytes themselves); `prev` is the `hash` of the record before,
//! across files, and zeros in the very first record. After at most 256 records, and within a minute, a `seal` signs the
//! record before it, and with it all before. Files are named by the number of their first record. Where the disk refused records, the next one that fits is preceded by a `gap` record that
//! bears the number of the last one lost, so that no number is ever missing without a word.
//!
//! The oldest files are removed once there are more than `retain_bytes` in all and whoever appends has said that they
//! are no longer needed ([`Journal::release`]): it has then appended again what of them is. The chain goes on from the
//! first file that is left.
//!
//! # Layout of the module
//! - `record`: one line, its hash and its link
//! - `segment`, `read`: files and the checked way back through them
//! - `seal`: the key that signs, and what it has signed
//! - `pack`: what is about one thing, as one signed file
//! - `queue`, `write`: the way in, and the thread that writes and syncs whatever has gathered
//!
//! **Invariant:** what [`Journal::durable`] has confirmed is on disk and stays in the chain.

mod pack;
mod queue;
mod read;
mod record;
mod seal;
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

pub use self::{
    pack::{About, MOST_SHOWN, Pack, PackFlaw, PackWriter, verify_pack},
    read::{Records, Torn, Verified},
    record::{Digest, Flaw, Gap, Head, InvalidDigest, Kind, Record, Seq, VERSION, linked},
    seal::{KeyError, MOST_UNSIGNED, PublicKey, SEAL_EVERY, Seal, Signature, SigningKey, Unreadable},
};
use self::{
    queue::Shared,
    record::{Draft, FRAME},
    segment::Segment,
    write::Writer,
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
    /// It ends before what was signed last.
    #[error(
        "journal: it ends at record {head} or was written anew, while {} says that record {sealed} was signed: records \
         were cut off its end; put its files back from a copy. If that is known and past, remove {}",
        file.display(), file.display()
    )]
    Cut {
        /// The file with the seal.
        file: PathBuf,
        /// The record that it has signed.
        sealed: Seq,
        /// The last record.
        head: Seq,
    },
    /// Seals are missing.
    #[error(
        "journal: {records} records follow the last of {sealed} signed checkpoints, and there is one after {SEAL_EVERY} \
         at most: they were taken away, or nobody has signed"
    )]
    Unsigned {
        /// Records after the last seal.
        records: u64,
        /// Seals.
        sealed: u64,
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
    /// What was signed last, where the chain does not reach to it: records were cut off. [`verify`] says so until the
    /// file with that seal is removed.
    pub cut: Option<Seal>,
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
        Self::open_with(directory, limits, None)
    }

    /// [`Self::open`], where what is appended is signed by `key`: after 256 records at most, and, with
    /// [`Self::seal_if_due`], within a minute.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_signed(directory: &Path, limits: &JournalLimits, key: SigningKey) -> Result<Opened, JournalError> {
        Self::open_with(directory, limits, Some(key))
    }

    fn open_with(directory: &Path, limits: &JournalLimits, key: Option<SigningKey>) -> Result<Opened, JournalError> {
        fs::create_dir_all(directory).map_err(|error| JournalError::io(directory, error))?;
        let lock = lock(directory)?;
        let Mended { segment, head, torn, unsealed } = mend(directory)?;
        let cut = missing(directory, head)?;
        let shared = Arc::new(Shared::new(head, limits.queue_bytes, key.is_some().then_some(unsealed)));
        let writer = Writer::new(directory, segment, head, (limits, key))?;
        writer.tell_size(&shared);
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn({
                let shared = shared.clone();
                move || writer.run(&shared)
            })
            .map_err(|error| JournalError::io(directory, error))?;
        let inner = Inner { shared, thread: Some(thread), _lock: lock };
        Ok(Opened { journal: Self { inner: Arc::new(inner) }, head, torn, cut })
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

    /// Has what was appended signed, where it was so a minute ago. To be called every so often.
    pub fn seal_if_due(&self, wall: Timestamp) {
        self.inner.shared.seal_if_due(wall);
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

/// Checks every record of every file, and that every seal is signed by whomever it names.
///
/// # Errors
/// At the first record that was changed, is missing, or stands elsewhere; file and line are named. When the chain does
/// not reach to what was signed last.
pub fn verify(directory: &Path) -> Result<Verified, JournalError> {
    read::verify(directory, None)
}

/// [`verify`], where every seal has to be of `key`, and the end of the chain under one.
///
/// # Errors
/// As [`verify`], and at a seal of another key, or where there are too many records without one.
pub fn verify_signed(directory: &Path, key: &PublicKey) -> Result<Verified, JournalError> {
    read::verify(directory, Some(key))
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

/// The end of a journal.
struct Mended {
    segment: Option<Segment>,
    head: Head,
    torn: Option<Torn>,
    /// Records of the last file that no seal follows.
    unsealed: u64,
}

/// Verifies the last file and cuts off a torn line. A file without any record is removed, and the one before it is
/// the last.
fn mend(directory: &Path) -> Result<Mended, JournalError> {
    let mut torn = None;
    let mut segments = Segment::list(directory)?;
    while let Some(segment) = segments.pop() {
        let failed = |error| JournalError::io(&segment.path, error);
        let mut records = Records::new([segment.clone()].into(), Seq(0));
        let mut unsealed = 0;
        records.try_for_each(|record| {
            unsealed = if record?.kind == Kind::Seal { 0 } else { unsealed + 1 };
            Ok(())
        })?;
        if let Some(found) = records.torn().cloned() {
            let file = OpenOptions::new().write(true).open(&segment.path).map_err(failed)?;
            file.set_len(found.offset).and_then(|()| file.sync_all()).map_err(failed)?;
            torn = Some(found);
        }
        if let Some(head) = records.head() {
            return Ok(Mended { segment: Some(segment), head, torn, unsealed });
        }
        fs::remove_file(&segment.path).map_err(failed)?;
    }
    Ok(Mended { segment: None, head: Head::default(), torn, unsealed: 0 })
}

/// The latest seal, where the chain ends before it. It is put aside, as the next one takes its place.
fn missing(directory: &Path, head: Head) -> Result<Option<Seal>, JournalError> {
    let file = directory.join(seal::LATEST);
    let Ok(Some(latest)) = seal::latest(&file) else { return Ok(None) };
    if latest.of.seq <= head.seq {
        return Ok(None);
    }
    fs::rename(&file, directory.join(seal::CUT)).map_err(|error| JournalError::io(&file, error))?;
    Ok(Some(latest))
}

/// A line, with everything around its payload.
const fn line_bytes(payload: usize) -> usize {
    payload + FRAME
}
