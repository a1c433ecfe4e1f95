//! An evidence pack: what of a journal is about one thing, as one signed file that proves by itself where it is from.
//!
//! # Layout
//! Lines of JSON. First what the pack is about. Then stretches of the chain: `{"from":"<hash>"}`, the hash of the record
//! before; the records that are shown, as they stand in the journal; of every other one between
//! `{"hidden":<number>,"content":"<SHA-256>"}`, by which the chain goes on without telling what it says; and at the end
//! the seal that signs them all. The last stretch may have no seal yet. Then which records are shown, and at last the
//! signature over `"qualm evidence pack 1\0"` and the SHA-256 of all lines before.
//!
//! Who has the public key needs nothing else to verify it: neither the journal nor Qualm's machine.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, Read, Write},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    read::LONGEST_LINE,
    record::{Digest, Kind, Record, Seq, linked},
    seal::{PublicKey, Seal, Signature, SigningKey},
};

const DOMAIN: &[u8] = b"qualm evidence pack 1\0";
/// The version of the layout.
const VERSION: u32 = 1;
/// Records that one pack shows at most.
pub const MOST_SHOWN: usize = 20_000;

/// What a pack is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Version of the layout.
    pub qualm_pack: u32,
    /// What was asked for.
    pub about: String,
    /// The identities that it names.
    pub identities: Vec<String>,
    /// When it was made, RFC 3339.
    pub made: String,
    /// Whose signature is at its end.
    pub key: PublicKey,
}

impl About {
    /// A pack made now, in this release's layout.
    pub fn new(about: &str, identities: Vec<String>, made: String, key: PublicKey) -> Self {
        Self { qualm_pack: VERSION, about: about.to_owned(), identities, made, key }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    /// Numbers of the records that are shown.
    shown: Vec<Seq>,
    /// How many of them no signed checkpoint covers yet.
    unsealed: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    from: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hidden {
    hidden: Seq,
    content: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    signature: Signature,
}

/// Writes a pack, record by record of the journal, in order.
#[derive(Debug)]
pub struct PackWriter<W> {
    out: W,
    hash: Sha256,
    /// The stretch that is under way: its lines, and the shown ones among them.
    stretch: Vec<String>,
    open: Vec<Seq>,
    shown: Vec<Seq>,
}

impl<W: Write> PackWriter<W> {
    /// Begins a pack.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(out: W, about: &About) -> io::Result<Self> {
        let mut pack = Self { out, hash: Sha256::new(), stretch: Vec::new(), open: Vec::new(), shown: Vec::new() };
        pack.put(&serde_json::to_string(about)?)?;
        Ok(pack)
    }

    /// Takes the next record of the journal, which is shown or not.
    ///
    /// # Errors
    /// When it cannot be written, or more than [`MOST_SHOWN`] are to be shown.
    pub fn take(&mut self, record: &Record, is_shown: bool) -> io::Result<()> {
        if self.stretch.is_empty() {
            if !is_shown {
                return Ok(());
            }
            self.stretch.push(serde_json::to_string(&Begin { from: record.prev })?);
        }
        if is_shown {
            if self.shown.len() + self.open.len() >= MOST_SHOWN {
                return Err(io::Error::other(format!(
                    "more than {MOST_SHOWN} records; name a decision or an incident instead"
                )));
            }
            self.open.push(record.seq);
        }
        let is_seal = record.kind == Kind::Seal;
        // The hash of the first version is over what a record says itself.
        let line = if is_shown || is_seal || record.version < 2 {
            record.line()
        } else {
            serde_json::to_string(&Hidden { hidden: record.seq, content: record.content_digest() })?
        };
        self.stretch.push(line);
        if is_seal {
            self.end_stretch()?;
        }
        Ok(())
    }

    /// How many of the records taken no checkpoint covers so far.
    pub fn unsealed(&self) -> usize {
        self.open.len()
    }

    /// Signs the whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, key: &SigningKey) -> io::Result<usize> {
        let unsealed = self.open.len();
        self.end_stretch()?;
        let shown = std::mem::take(&mut self.shown);
        let count = shown.len();
        self.put(&serde_json::to_string(&Shown { shown, unsealed })?)?;
        let signature = key.sign(&message(self.hash.clone()));
        self.put(&serde_json::to_string(&Signed { signature })?)?;
        self.out.flush()?;
        Ok(count)
    }

    fn end_stretch(&mut self) -> io::Result<()> {
        for line in std::mem::take(&mut self.stretch) {
            self.put(&line)?;
        }
        self.shown.append(&mut self.open);
        Ok(())
    }

    fn put(&mut self, line: &str) -> io::Result<()> {
        for part in [line.as_bytes(), b"\n"] {
            self.hash.update(part);
            self.out.write_all(part)?;
        }
        Ok(())
    }
}

fn message(hash: Sha256) -> Vec<u8> {
    [DOMAIN, &hash.finalize()].concat()
}

/// A pack that was verified.
#[derive(Debug)]
pub struct Pack {
    /// What it is about.
    pub about: About,
    /// The records that it shows, in order.
    pub records: Vec<Record>,
    /// Signed checkpoints in it.
    pub seals: usize,
    /// How many of its records, the last ones, no checkpoint covers: the signature of the pack alone vouches for them.
    pub unsealed: usize,
}

/// What is wrong with a pack.
#[derive(Debug, thiserror::Error)]
#[error("evidence pack, line {line}: {flaw}")]
pub struct PackFlaw {
    /// Its line, from 1.
    pub line: u64,
    /// What is wrong.
    pub flaw: String,
}

/// Verifies a pack by the public key alone.
///
/// # Errors
/// At the first line that is not what was signed.
pub fn verify_pack(mut from: impl BufRead, key: &PublicKey) -> Result<Pack, PackFlaw> {
    let mut reading = Reading::default();
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        let flaw = |flaw: String| PackFlaw { line: number, flaw };
        let read = (&mut from).take(2 * LONGEST_LINE as u64).read_until(b'\n', &mut line);
        read.map_err(|error| flaw(error.to_string()))?;
        if line.is_empty() {
            return reading.ended().map_err(flaw);
        }
        if line.pop() != Some(b'\n') {
            return Err(flaw("it is cut off: the file is not whole".to_owned()));
        }
        reading.take(&line, key).map_err(flaw)?;
    }
}

#[derive(Default)]
struct Reading {
    hash: Sha256,
    about: Option<About>,
    /// The hash of the last record of the stretch.
    at: Option<Digest>,
    records: Vec<Record>,
    /// Records since the last seal.
    open: usize,
    seals: usize,
    shown: Option<Shown>,
    is_signed: bool,
}

impl Reading {
    fn take(&mut self, line: &[u8], key: &PublicKey) -> Result<(), String> {
        if self.is_signed {
            return Err("something follows the signature".to_owned());
        }
        let before = self.hash.clone();
        self.hash.update(line);
        self.hash.update(b"\n");
        if self.about.is_none() {
            let about: About = read(line)?;
            if about.qualm_pack > VERSION {
                return Err(format!("it has version {}, this release reads up to {VERSION}", about.qualm_pack));
            }
            if about.key != *key {
                return Err(format!("it is signed by {}, and not by {key}", about.key));
            }
            self.about = Some(about);
            return Ok(());
        }
        if let Some(shown) = &self.shown {
            let Signed { signature } = read(line)?;
            if !key.has_signed(&message(before), &signature) {
                return Err("the signature is not over these lines: something was changed".to_owned());
            }
            let numbers: BTreeSet<Seq> = self.records.iter().map(|record| record.seq).collect();
            let (told, found) = (shown.shown.len(), shown.shown.iter().filter(|seq| numbers.contains(seq)).count());
            if told != found || shown.unsealed > told {
                return Err(format!("{told} records are said to be shown, and {found} of them are"));
            }
            self.is_signed = true;
            return Ok(());
        }
        self.take_link(line, key)
    }

    fn take_link(&mut self, line: &[u8], key: &PublicKey) -> Result<(), String> {
        if line.starts_with(b"{\"shown\"") {
            self.shown = Some(read(line)?);
            return Ok(());
        }
        if line.starts_with(b"{\"from\"") {
            if self.at.is_some() {
                return Err("a stretch begins before the one before has a signed checkpoint".to_owned());
            }
            self.at = Some(read::<Begin>(line)?.from);
            return Ok(());
        }
        let Some(at) = self.at else { return Err("no stretch of the chain has begun".to_owned()) };
        if line.starts_with(b"{\"hidden\"") {
            self.at = Some(linked(&at, &read::<Hidden>(line)?.content));
            return Ok(());
        }
        let record = Record::decode(line).map_err(|flaw| flaw.to_string())?;
        if record.prev != at {
            return Err(
                "its record does not follow the one before: something was changed, taken out or moved".to_owned()
            );
        }
        self.at = Some(record.hash);
        if record.kind != Kind::Seal {
            self.open += 1;
            self.records.push(record);
            return Ok(());
        }
        let seal: Seal = record.payload().map_err(|error| error.to_string())?;
        if seal.key != *key || seal.of.hash != record.prev || !seal.is_sound() {
            return Err(format!("its checkpoint is not signed by {key} over the record before it"));
        }
        (self.at, self.open, self.seals) = (None, 0, self.seals + 1);
        Ok(())
    }

    fn ended(self) -> Result<Pack, String> {
        let (Some(about), Some(shown), true) = (self.about, self.shown, self.is_signed) else {
            return Err("it ends before its signature: the file is not whole".to_owned());
        };
        if shown.unsealed > self.open {
            return Err("fewer records than it says are without a signed checkpoint".to_owned());
        }
        // Records of version 1 between those that are shown are in it too.
        let is_shown: BTreeSet<Seq> = shown.shown.iter().copied().collect();
        let records = self.records.into_iter().filter(|record| is_shown.contains(&record.seq)).collect();
        Ok(Pack { about, records, seals: self.seals, unsealed: shown.unsealed })
    }
}

fn read<T: for<'a> Deserialize<'a>>(line: &[u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| format!("not what should stand here: {error}"))
}
