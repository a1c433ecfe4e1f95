//! Reading a journal back: every record is checked against its hash and the record before it.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use super::{
    JournalError,
    record::{Digest, FRAME, Flaw, Head, Kind, Record, Seq},
    seal::{self, CUT, LATEST, MOST_UNSIGNED, PublicKey, Seal},
    segment::{Line, Lines, Segment},
};

/// No record is longer than this, whatever the configured limit: the bound of the reader's memory.
pub(super) const LONGEST_LINE: usize = super::LONGEST_PAYLOAD + FRAME;

/// A last line that was still being written when the process or the machine died. It was never reported as durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub path: PathBuf,
    /// Where the line begins.
    pub offset: u64,
    /// How much of it there is.
    pub bytes: u64,
}

/// What [`verify`](super::verify) found in a sound journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files.
    pub segments: usize,
    /// Records.
    pub records: u64,
    /// Number of the first record still there; above 1 when older files were taken away.
    pub first: Option<Seq>,
    /// Where the chain ends. Only a copy of this kept elsewhere shows that records were cut off its end.
    pub head: Head,
    /// Records that the disk refused when they were due; each stretch is stated by a record of its own.
    pub unwritten: u64,
    /// The torn last line, if there is one.
    pub torn: Option<Torn>,
    /// Who has signed, in the order in which they began to.
    pub signers: Vec<PublicKey>,
    /// Signed checkpoints.
    pub seals: u64,
    /// Records after the last of them.
    pub unsigned: u64,
}

/// The records of a journal in order. After an error it ends.
#[derive(Debug)]
pub struct Records {
    segments: VecDeque<Segment>,
    current: Option<(Segment, Lines)>,
    from: Seq,
    head: Option<Head>,
    line: Vec<u8>,
    torn: Option<Torn>,
    failed: bool,
}

impl Records {
    pub(super) fn new(mut segments: VecDeque<Segment>, from: Seq) -> Self {
        while segments.get(1).is_some_and(|second| second.first <= from) {
            segments.pop_front();
        }
        Self { segments, current: None, from, head: None, line: Vec::new(), torn: None, failed: false }
    }

    /// The torn last line, known once the end was reached.
    pub fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    /// A flaw of the record that was read last.
    fn flaw(&self, flaw: Flaw) -> JournalError {
        match &self.current {
            Some((segment, lines)) => JournalError::flaw(&segment.path, lines.number, flaw),
            None => JournalError::flaw(Path::new(""), 0, flaw),
        }
    }

    /// Where the chain stands after what was read so far.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    fn advance(&mut self) -> Result<Option<Record>, JournalError> {
        loop {
            let Some((segment, lines)) = &mut self.current else {
                let Some(segment) = self.segments.pop_front() else { return Ok(None) };
                let lines = match Lines::open(&segment.path, LONGEST_LINE) {
                    Ok(lines) => lines,
                    // Whoever writes has removed it since it was listed, as the oldest: what follows begins anew.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !self.segments.is_empty() => {
                        self.head = None;
                        continue;
                    }
                    Err(error) => return Err(JournalError::io(&segment.path, error)),
                };
                self.current = Some((segment, lines));
                continue;
            };
            let read = lines.next(&mut self.line).map_err(|error: io::Error| JournalError::io(&segment.path, error))?;
            let is_last = self.segments.is_empty();
            let checked = match read {
                Line::End => {
                    self.current = None;
                    continue;
                }
                Line::Whole => check(&self.line, lines.number, segment, self.head.as_ref()).map(Some),
                Line::TooLong => Err(Flaw::TooLong(LONGEST_LINE)),
                Line::Torn if is_last => check_torn(&self.line).map(|()| None),
                Line::Torn => Err(Flaw::Cut),
            };
            let record = checked.map_err(|flaw| JournalError::flaw(&segment.path, lines.number, flaw))?;
            match &record {
                Some(record) => self.head = Some(record.head()),
                None => {
                    let (path, offset) = (segment.path.clone(), lines.offset);
                    self.torn = Some(Torn { path, offset, bytes: self.line.len() as u64 });
                }
            }
            return Ok(record);
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed && self.torn.is_none() {
            match self.advance() {
                Ok(Some(record)) if record.seq < self.from => {}
                Ok(record) => return record.map(Ok),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// Checks every record, that every seal is signed, by `key` where one is given, and that the chain reaches to the
/// latest seal that was written beside it.
pub(super) fn verify(directory: &Path, key: Option<&PublicKey>) -> Result<Verified, JournalError> {
    let segments = Segment::list(directory)?;
    let mut verified = Verified { segments: segments.len(), ..Verified::default() };
    let (cut, latest) = (directory.join(CUT), directory.join(LATEST));
    let read = |file: &PathBuf| seal::latest(file).map_err(|error| JournalError::io(file, error));
    let expected = read(&cut)?.map(|seal| (cut, seal)).or(read(&latest)?.map(|seal| (latest, seal)));
    if let Some((file, seal)) = &expected {
        signed(seal, key).map_err(|flaw| JournalError::flaw(file, 1, flaw))?;
    }
    let mut is_met = expected.is_none();
    let mut records = Records::new(segments.into(), Seq(0));
    while let Some(record) = records.next() {
        let record = record?;
        if record.kind == Kind::Gap {
            verified.unwritten += record.payload::<super::Gap>().map_or(0, |gap| gap.last.0 - gap.first.0 + 1);
        }
        verified.records += 1;
        verified.first.get_or_insert(record.seq);
        verified.head = record.head();
        verified.unsigned += 1;
        is_met |= expected.as_ref().is_some_and(|(_, seal)| seal.of == verified.head);
        if record.kind == Kind::Seal {
            let seal = record.payload::<Seal>().map_err(|_| Flaw::Seal("a seal without a signature".to_owned()));
            let checked = seal.and_then(|seal| signed(&seal, key).map(|()| seal));
            let seal = checked.map_err(|flaw| records.flaw(flaw))?;
            verified.seals += 1;
            verified.unsigned = 0;
            if !verified.signers.contains(&seal.key) {
                verified.signers.push(seal.key);
            }
        }
    }
    if let Some((file, seal)) = expected.filter(|_| !is_met) {
        return Err(JournalError::Cut { file, sealed: seal.of.seq, head: verified.head.seq });
    }
    if key.is_some() && verified.unsigned > MOST_UNSIGNED {
        return Err(JournalError::Unsigned { records: verified.unsigned, sealed: verified.seals });
    }
    verified.torn = records.torn;
    Ok(verified)
}

/// Whether a seal is sound, and of the key.
fn signed(seal: &Seal, key: Option<&PublicKey>) -> Result<(), Flaw> {
    if let Some(key) = key.filter(|key| **key != seal.key) {
        return Err(Flaw::Seal(format!("its seal is of {}, and not of {key}", seal.key)));
    }
    if seal.is_sound() {
        return Ok(());
    }
    Err(Flaw::Seal(format!(
        "its signature is not of {} over record {}: somebody else has written it",
        seal.key, seal.of.seq
    )))
}

/// A record at its place: after `before`, or first in its file.
fn check(line: &[u8], number: u64, segment: &Segment, before: Option<&Head>) -> Result<Record, Flaw> {
    let record = Record::decode(line)?;
    if number == 1 && record.seq != segment.first {
        return Err(Flaw::Number { found: record.seq, expected: segment.first });
    }
    match before {
        Some(before) => {
            record.follows(before)?;
            // It signs what is right before it.
            if record.kind == Kind::Seal && record.payload::<Seal>().is_ok_and(|seal| seal.of != *before) {
                return Err(Flaw::Seal("its seal is about another record than the one before it".to_owned()));
            }
        }
        // Older files may have been taken away, but nothing can stand before the first record.
        None if record.seq == Seq(1) && record.prev != Digest::default() => return Err(Flaw::Link),
        None => {}
    }
    Ok(record)
}

/// A torn line holds less than a record. A whole record with something else in place of its line feed was changed.
fn check_torn(line: &[u8]) -> Result<(), Flaw> {
    match line.split_last() {
        Some((_, record)) if Record::decode(record).is_ok() => {
            Err(Flaw::Layout("its line feed was changed".to_owned()))
        }
        _ => Ok(()),
    }
}
