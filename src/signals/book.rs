//! Streams and what is owed to them, in a file that is written anew with each change: what was accepted survives
//! `kill -9`.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// Tokens that may wait for one receiver; beyond, the oldest are dropped and counted.
pub(crate) const MOST_WAITING: usize = 1_000;
/// Streams at once.
pub(crate) const MOST_STREAMS: usize = 64;
/// The version of the file.
const VERSION: u32 = 1;

/// Whether a stream is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Tokens are made and delivered.
    #[default]
    Enabled,
    /// Tokens are made and wait.
    Paused,
    /// None are made.
    Disabled,
}

/// A token that was not acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) jti: String,
    pub(crate) token: String,
}

/// A receiver's stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stream {
    pub(crate) id: String,
    pub(crate) audience: String,
    /// Types of events that are delivered.
    pub(crate) delivered: Vec<String>,
    /// Types that its receiver has asked for.
    pub(crate) requested: Vec<String>,
    /// Where tokens are pushed to; `None`: they are polled.
    pub(crate) push: Option<Push>,
    pub(crate) description: Option<String>,
    pub(crate) status: Status,
    pub(crate) why: Option<String>,
    /// When it was last verified, seconds since 1970.
    pub(crate) verified: Option<i64>,
    pub(crate) waiting: VecDeque<Waiting>,
    /// Tokens that were dropped, or that the receiver has refused.
    pub(crate) lost: u64,
}

/// Where a stream's tokens are pushed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Push {
    pub(crate) url: String,
    pub(crate) authorization: Option<String>,
}

/// Every stream, by its receiver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Book {
    version: u32,
    /// The journal's records up to this one were told.
    pub(crate) told: u64,
    pub(crate) streams: BTreeMap<String, Stream>,
    #[serde(skip)]
    file: PathBuf,
}

impl Book {
    /// Reads `file`; an empty book where there is none.
    pub(crate) fn open(file: PathBuf) -> Result<Self> {
        let book: Self = match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text).with_context(|| {
                format!("{}: cannot be read; move it aside to begin without streams", file.display())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self { version: VERSION, ..Self::default() },
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        if book.version > VERSION {
            bail!(
                "{}: has version {}, this release reads up to {VERSION}; start the release that wrote it",
                file.display(),
                book.version
            );
        }
        Ok(Self { file, ..book })
    }

    /// Writes it whole beside the one before, and puts it in its place.
    pub(crate) fn save(&self) -> io::Result<()> {
        let new = self.file.with_extension("new");
        // What proves us to receivers is in it.
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        out.write_all(&serde_json::to_vec(self)?)?;
        out.sync_data()?;
        fs::rename(&new, &self.file)
    }
}

impl Stream {
    /// Queues a token; whether one was dropped for it.
    pub(crate) fn queue(&mut self, jti: String, token: String) -> bool {
        if self.waiting.iter().any(|waiting| waiting.jti == jti) {
            return false;
        }
        let is_full = self.waiting.len() >= MOST_WAITING;
        if is_full {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back(Waiting { jti, token });
        is_full
    }

    /// Takes a token that was delivered, or refused for good, off the queue.
    pub(crate) fn settle(&mut self, jti: &str) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.jti != jti);
        before != self.waiting.len()
    }
}
