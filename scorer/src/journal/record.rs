//! One line of the journal: its layout, its hash, and the link to the line before it.

use std::fmt;

use qualm_model::time::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// The version of the layout that this release writes; it reads no newer one.
pub const VERSION: u32 = 2;

/// A record's place in the journal; the first is 1. Numbers are missing only where a [`Kind::Gap`] record says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A SHA-256, shown as 64 lower-case hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256: expected 64 lower-case hex digits")]
pub struct InvalidDigest;

/// The last record of a chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number; 0 before the first record.
    pub seq: Seq,
    /// Its hash; zeros before the first record.
    pub hash: Digest,
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A verdict, with everything the state machine decided it from.
    Decision,
    /// Whatever else entered the loop: enforcement reports, config reloads, gaps of telemetry, clock steps.
    Command,
    /// An alert that is due, or was delivered.
    Alert,
    /// What of older records is still needed, so that they may go.
    Checkpoint,
    /// Records that could not be written; payload [`Gap`]. It bears the number of the last of them.
    Gap,
    /// The signature of the record before it, and so of all before; payload [`Seal`](super::Seal).
    Seal,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Command => "command",
            Self::Alert => "alert",
            Self::Checkpoint => "checkpoint",
            Self::Gap => "gap",
            Self::Seal => "seal",
        }
    }
}

/// Payload of a [`Kind::Gap`] record: the records that the disk refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first number that has no record.
    pub first: Seq,
    /// The last one, whose place this record takes.
    pub last: Seq,
    /// What the disk said.
    pub error: String,
}

/// A record whose hash was right when it was read.
#[derive(Debug, Clone)]
pub struct Record {
    /// The version of its layout.
    pub version: u32,
    /// Its place.
    pub seq: Seq,
    /// When it was appended.
    pub wall: Timestamp,
    /// Event time it belongs to.
    pub event: Timestamp,
    /// What it is about.
    pub kind: Kind,
    /// Hash of the record before it; zeros for the first.
    pub prev: Digest,
    /// Its own hash.
    pub hash: Digest,
    payload: Box<RawValue>,
}

/// Why a line is no record of this journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Written by a later release.
    #[error("journal version {0}, this release reads up to {VERSION}")]
    Newer(u32),
    /// Not laid out as a record.
    #[error("not a record: {0}")]
    Layout(String),
    /// A seal that nobody has signed, or not the right one.
    #[error("{0}")]
    Seal(String),
    /// The hash does not fit the bytes.
    #[error("its hash does not fit its bytes: the record was changed")]
    Hash,
    /// The record does not follow the one before it.
    #[error("its `prev` is not the hash of the record before it: a record was changed, removed or moved")]
    Link,
    /// The number does not follow the one before it.
    #[error("has number {found} where {expected} is due: a record is missing or moved")]
    Number {
        /// What it says.
        found: Seq,
        /// What should be there.
        expected: Seq,
    },
    /// A segment other than the last ends within a line.
    #[error("the file ends within a record, and it is not the last one")]
    Cut,
    /// The line is longer than any record may be.
    #[error("longer than {0} bytes")]
    TooLong(usize),
}

impl Digest {
    /// Its 32 bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 lower-case hex digits.
    ///
    /// # Errors
    /// On any other text: one digest has one spelling.
    pub fn from_hex(hex: &[u8]) -> Result<Self, InvalidDigest> {
        let hex: &[u8; 64] = hex.try_into().map_err(|_| InvalidDigest)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_chunks::<2>().0) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        Self::from_hex(text.as_bytes())
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl Record {
    /// The payload as what was appended.
    ///
    /// # Errors
    /// When the payload is of another type.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.payload.get())
    }

    /// The payload as the JSON text that was hashed.
    pub fn json(&self) -> &str {
        self.payload.get()
    }

    /// SHA-256 of what it says: with that of every record between, a record is shown to be part of a chain without
    /// showing the others. Records of version 1 have to be shown whole.
    pub fn content_digest(&self) -> Digest {
        Digest(Sha256::digest(self.content()).into())
    }

    /// Its line, without the line feed.
    pub fn line(&self) -> String {
        format!("{}{PREV}{}{HASH}{}{END}", self.content(), self.prev, self.hash)
    }

    fn content(&self) -> String {
        let Self { version, seq, wall, event, kind, payload, .. } = self;
        content(*version, *seq, (*wall, *event), *kind, payload.get())
    }

    /// Where the chain stands after this record.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }

    /// Reads one line without its line feed and checks its hash, not yet its link.
    pub(super) fn decode(line: &[u8]) -> Result<Self, Flaw> {
        let version = check_version(line)?;
        let (content, prev, hash) = split_tail(line).ok_or_else(|| layout("`prev` and `hash` are not at its end"))?;
        if digest(version, &prev, content) != hash {
            return Err(Flaw::Hash);
        }
        let mut object = content.to_vec();
        object.push(b'}');
        let Content { seq, wall, event, kind, payload, .. } =
            serde_json::from_slice(&object).map_err(|error| layout(&error.to_string()))?;
        Ok(Self { version, seq, wall, event, kind, prev, hash, payload })
    }

    /// Checks that this record may stand right after `before`.
    pub(super) fn follows(&self, before: &Head) -> Result<(), Flaw> {
        if self.prev != before.hash {
            return Err(Flaw::Link);
        }
        let expected = before.seq.next();
        let starts = match self.kind {
            Kind::Gap => self.payload::<Gap>().ok().filter(|gap| gap.last == self.seq && gap.first <= gap.last),
            _ => None,
        }
        .map_or(self.seq, |gap| gap.first);
        if starts != expected {
            return Err(Flaw::Number { found: starts, expected });
        }
        Ok(())
    }
}

/// A record before it is chained.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) seq: Seq,
    pub(super) wall: Timestamp,
    pub(super) event: Timestamp,
    pub(super) kind: Kind,
    pub(super) payload: String,
}

impl Draft {
    /// Writes the line after `prev` to `out` and returns its hash.
    pub(super) fn encode(&self, prev: &Digest, out: &mut Vec<u8>) -> Digest {
        let Self { seq, wall, event, kind, payload } = self;
        let content = content(VERSION, *seq, (*wall, *event), *kind, payload);
        let hash = digest(VERSION, prev, content.as_bytes());
        out.extend_from_slice(content.as_bytes());
        out.extend_from_slice(format!("{PREV}{prev}{HASH}{hash}{END}\n").as_bytes());
        hash
    }
}

/// A line before its `prev`: what is hashed.
fn content(version: u32, seq: Seq, (wall, event): (Timestamp, Timestamp), kind: Kind, payload: &str) -> String {
    let (wall, event, kind) = (wall.0, event.0, kind.as_str());
    format!(r#"{{"v":{version},"seq":{seq},"wall":{wall},"event":{event},"kind":"{kind}","payload":{payload}"#)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(rename = "v")]
    _version: u32,
    seq: Seq,
    wall: Timestamp,
    event: Timestamp,
    kind: Kind,
    payload: Box<RawValue>,
}

const START: &[u8] = b"{\"v\":";
const PREV: &str = ",\"prev\":\"";
const HASH: &str = "\",\"hash\":\"";
const END: &str = "\"}";
const HEX: usize = 64;
/// Bytes that a line has beyond its payload, at most.
pub(super) const FRAME: usize = 512;

/// The hash of a record: SHA-256 over the 32 bytes of `prev` and, in version 2, the 32 bytes of the SHA-256 of the line's
/// bytes before `,"prev"`; in version 1 those bytes themselves.
fn digest(version: u32, prev: &Digest, content: &[u8]) -> Digest {
    if version == 1 {
        return Digest(Sha256::new().chain_update(prev.0).chain_update(content).finalize().into());
    }
    linked(prev, &Digest(Sha256::digest(content).into()))
}

/// The hash of a record of version 2 that follows `prev`, by the digest of its content.
pub fn linked(prev: &Digest, content: &Digest) -> Digest {
    Digest(Sha256::new().chain_update(prev.0).chain_update(content.0).finalize().into())
}

/// Before anything else is looked at: a later layout may differ in everything but its beginning.
fn check_version(line: &[u8]) -> Result<u32, Flaw> {
    let rest = line.strip_prefix(START).ok_or_else(|| layout("it does not begin with a version"))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let version = std::str::from_utf8(&rest[..digits]).ok().and_then(|digits| digits.parse::<u32>().ok());
    match version {
        Some(version @ 1..=VERSION) => Ok(version),
        Some(version) if version > VERSION => Err(Flaw::Newer(version)),
        _ => Err(layout("its version is no number from 1 upwards")),
    }
}

/// Splits a line into hashed content, `prev` and `hash`, whose places are fixed from its end.
fn split_tail(line: &[u8]) -> Option<(&[u8], Digest, Digest)> {
    let (rest, hash) = line.strip_suffix(END.as_bytes())?.split_last_chunk::<HEX>()?;
    let (rest, prev) = rest.strip_suffix(HASH.as_bytes())?.split_last_chunk::<HEX>()?;
    let content = rest.strip_suffix(PREV.as_bytes())?;
    Some((content, Digest::from_hex(prev).ok()?, Digest::from_hex(hash).ok()?))
}

fn layout(why: &str) -> Flaw {
    Flaw::Layout(why.to_owned())
}

fn nibble(digit: u8) -> Result<u8, InvalidDigest> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidDigest),
    }
}
