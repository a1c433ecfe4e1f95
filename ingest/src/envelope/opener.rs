//! The order in which envelopes are tried.

use memchr::memmem::Finder;

use super::{
    Contents, MAX_DEPTH, SyslogHeader, Wrapping, cri, is_taken,
    memo::Memo,
    object::{Molds, Object, Reading, Text},
    otlp,
    partial::{Joined, Partials},
    passed::{Kind, Passed},
    pointer::{self, Pointer},
    syslog,
};
use crate::{
    parse::{Origin, json::unescape},
    source::{Invalid, Rejection},
};

/// First keys of envelopes that are remembered.
const MAX_LEARNED: usize = 8;

/// What opening needs from one record to the next.
#[derive(Debug)]
pub(super) struct Opener {
    /// First keys of JSON records that were envelopes: of those the envelope is tried first.
    learned: Vec<String>,
    kubernetes: Finder<'static>,
    pub(super) memo: Memo,
    molds: Molds,
    /// Of OTLP's requests of one record.
    pub(super) otlp_molds: Molds,
    pub(super) partials: Partials,
    /// The envelopes of the record in the reading.
    pub(super) passed: Passed,
    /// Room for unescaped texts, one a depth.
    room: Vec<String>,
}

impl Opener {
    pub(super) fn new(max_record_bytes: usize) -> Self {
        Self {
            learned: Vec::new(),
            kubernetes: Finder::new("\"kubernetes"),
            memo: Memo::default(),
            molds: Molds::default(),
            otlp_molds: Molds::default(),
            partials: Partials::new(max_record_bytes),
            passed: Passed::default(),
            room: Vec::new(),
        }
    }

    /// Reads a text that may be an envelope. What is none costs a look at its first byte, and a search where that is
    /// a brace.
    #[inline]
    pub(super) fn open(
        &mut self,
        text: &str,
        outer: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        let start = text.trim_ascii_start();
        match start.as_bytes().first() {
            _ if depth >= MAX_DEPTH => contents.take(text, &outer.origin),
            Some(b'{') => self.open_object(start, outer, depth, contents),
            Some(b'0'..=b'9') => self.open_cri(text, outer, depth, contents),
            Some(b'<' | b'A'..=b'S') => self.open_syslog(text, outer, depth, contents),
            _ => contents.take(text, &outer.origin),
        }
    }

    #[inline]
    fn open_object(
        &mut self,
        text: &str,
        outer: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        if otlp::is_json(text) {
            return self.open_otlp_json(text, outer, depth, contents);
        }
        let is_learned = self.is_learned(text);
        let metadata = if is_learned { None } else { self.kubernetes.find(text.as_bytes()) };
        if is_learned && self.partials.is_empty() && self.open_in_place(text, outer, contents).is_some() {
            return Ok(());
        }
        if is_learned || metadata.is_some() {
            // Keys that were lifted beside metadata that is known: nothing else need be looked for.
            if let Some((object, known)) = metadata.and_then(|at| Object::of_known(text, &text[at..], &self.memo))
                && contents.take_knowing(text, &object.wrapping(text, outer).origin, known).is_ok()
            {
                self.passed.note(Kind::Lifted);
                return Ok(());
            }
            let Ok(object) = Object::read(text, &mut self.memo) else {
                // It was cut off.
                return if is_learned { Err(Invalid::Syntax.into()) } else { contents.take(text, &outer.origin) };
            };
            let opened = self.open_read(text, &object, outer, depth, contents);
            if object.record.is_some() && object.is_certain() {
                self.learn(text);
            }
            return opened.unwrap_or_else(|| contents.take(text, &outer.origin));
        }
        let plain = contents.take(text, &outer.origin);
        if is_taken(plain) { plain } else { self.open_unknown(text, outer, depth, contents, plain) }
    }

    /// Reads a record that stands escaped in an envelope in one pass: the envelope's keys before it, the record, the
    /// keys after it. `None` where it must be gone through in steps.
    fn open_in_place(&mut self, text: &str, outer: &Wrapping<'_>, contents: &mut impl Contents) -> Option<()> {
        let fitting = self.molds.begin(text);
        let mut reading = match fitting {
            Some(fitting) => Reading::resume(text, fitting, &self.molds, &mut self.memo),
            None => Reading::begin(text, &mut self.memo)?,
        };
        let head = reading.head()?;
        let (molds, start) = (&self.molds, text.len() - head.len());
        let (mut kind, mut is_new) = (Kind::Unnamed, false);
        let begun = fitting.is_none().then(|| reading.begun());
        let mut whole = Object::default();
        contents.take_escaped(head, &mut |end| {
            match fitting.and_then(|fitting| molds.finish(fitting, text, start + end)) {
                Some(object) => whole = object,
                None => (whole, is_new) = (reading.finish(end)?.clone(), true),
            }
            kind = whole.kind();
            Some(whole.wrapping(text, outer).origin)
        })?;
        if is_new {
            let begun = begun.or_else(|| fitting.map(|fitting| self.molds.begun(fitting))).unwrap_or_default();
            self.molds.keep(text, &begun, whole);
        }
        self.passed.note(kind);
        Some(())
    }

    /// Reads an object that no format could read: it may be an envelope that is not known yet.
    #[cold]
    fn open_unknown(
        &mut self,
        text: &str,
        outer: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
        plain: Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        let Ok(object) = Object::read(text, &mut self.memo) else { return plain };
        let Some(opened) = self.open_read(text, &object, outer, depth, contents) else { return plain };
        if object.is_certain() {
            self.learn(text);
            return opened;
        }
        if is_taken(opened) { opened } else { plain }
    }

    fn is_learned(&self, text: &str) -> bool {
        self.learned.iter().any(|key| text.starts_with(key.as_str()))
    }

    /// Remembers the first key of `text`, from its brace to the closing quote.
    fn learn(&mut self, text: &str) {
        let mut quotes = memchr::memchr_iter(b'"', text.as_bytes());
        let Some(end) = quotes.nth(1) else { return };
        if self.learned.len() < MAX_LEARNED && !self.is_learned(text) {
            self.learned.push(text[..=end].to_owned());
        }
    }

    /// What is in an object that was read: a text, an object, several records, or the object itself where the record's
    /// keys were lifted into it. `None`: it is no envelope.
    fn open_read(
        &mut self,
        text: &str,
        object: &Object,
        outer: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Option<Result<(), Rejection>> {
        if object.holds_otlp {
            return Some(self.open_otlp_json(text, outer, depth, contents));
        }
        let within = object.wrapping(text, outer);
        let opened = self.open_within(text, object, &within, depth, contents);
        if opened.is_some_and(is_taken) {
            self.passed.note(object.kind());
        }
        opened
    }

    fn open_within(
        &mut self,
        text: &str,
        object: &Object,
        within: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Option<Result<(), Rejection>> {
        let mut outcome = None;
        if let Some(record) = object.record {
            outcome = Some(self.open_piece(text, record, object, within, depth, contents));
        }
        if let Some(nested) = object.nested
            && outcome.is_none_or(|outcome| !is_taken(outcome))
        {
            let found = self.open(nested.of(text), within, depth + 1, contents);
            outcome = outcome.filter(|_| !is_taken(found)).or(Some(found));
        }
        if object.is_placed && outcome.is_none_or(|outcome| !is_taken(outcome)) {
            let found = contents.take(text, &within.origin);
            outcome = outcome.filter(|_| !is_taken(found)).or(Some(found));
        }
        outcome
    }

    /// A text in an object: all of a line, or a piece of one.
    fn open_piece(
        &mut self,
        text: &str,
        record: Text,
        object: &Object,
        within: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        let is_piece = object.is_piece(text);
        let (stretch, is_escaped) = match record {
            Text::Plain(stretch) => (stretch, false),
            Text::Escaped(stretch) => (stretch, true),
        };
        let written = stretch.of(text);
        if !is_escaped {
            return self.open_line(written, is_piece, within, depth, contents);
        }
        let line = without_line_end(written);
        if !is_piece
            && self.partials.is_empty()
            && line.starts_with("{\\\"")
            && contents.take_escaped(line, &mut |end| (end == line.len()).then_some(within.origin)).is_some()
        {
            return Ok(());
        }
        let mut room = self.room.pop().unwrap_or_default();
        room.clear();
        let outcome = match unescape(line, &mut room) {
            Ok(()) => self.open_line(&room, is_piece, within, depth, contents),
            Err(invalid) => Err(invalid.into()),
        };
        self.room.push(room);
        outcome
    }

    fn open_cri(
        &mut self,
        text: &str,
        outer: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        let Some(line) = cri::line(text) else { return contents.take(text, &outer.origin) };
        let origin = Origin { time: Some(line.time), ..outer.origin };
        let within = Wrapping { origin, stream: line.stream, ..*outer };
        let opened = self.open_line(line.content, line.is_piece, &within, depth, contents);
        if is_taken(opened) {
            self.passed.note(Kind::Cri);
        }
        opened
    }

    /// A line, once all of its pieces are here.
    #[inline]
    pub(super) fn open_line(
        &mut self,
        piece: &str,
        is_piece: bool,
        within: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        if !is_piece && self.partials.is_empty() {
            return self.open(piece, within, depth + 1, contents);
        }
        let joined = self.partials.join(within, depth, piece, is_piece);
        for _ in 0..self.partials.take_forgotten() {
            contents.refuse(Invalid::Unfinished.into());
        }
        match joined {
            Joined::Waiting => Err(Rejection::Part),
            Joined::Alone => self.open(piece, within, depth + 1, contents),
            Joined::Whole(line) => self.open(&line, within, depth + 1, contents),
            Joined::TooLong => Err(Invalid::TooLong.into()),
        }
    }

    fn open_syslog(
        &mut self,
        text: &str,
        outer: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        let Some(message) = syslog::message(text) else { return contents.take(text, &outer.origin) };
        let within = Wrapping { origin: message.origin(&outer.origin), ..*outer };
        let of_record = contents.syslog_header();
        let mut outcome = None;
        if of_record == SyslogHeader::Kept {
            let found = contents.take(text, &outer.origin);
            if is_taken(found) {
                return found;
            }
            outcome = Some(found);
        }
        let found = self.open(message.content, &within, depth + 1, contents);
        if is_taken(found) {
            self.passed.note(Kind::Syslog);
            return found;
        }
        outcome = outcome.filter(|outcome| *outcome != Err(Rejection::Foreign)).or(Some(found));
        if of_record == SyslogHeader::Either {
            let found = contents.take(text, &outer.origin);
            outcome = outcome.filter(|_| !is_taken(found)).or(Some(found));
        }
        outcome.unwrap_or(Err(Rejection::Foreign))
    }

    /// The value at a configured place. A record that has none there is foreign.
    pub(super) fn open_at(
        &mut self,
        pointer: &Pointer,
        text: &str,
        outer: &Wrapping<'_>,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        let text = text.trim_ascii_start();
        if !text.starts_with(['{', '[']) {
            return Err(Rejection::Foreign);
        }
        let found = pointer.find(text)?;
        let object = if text.starts_with('{') { Object::read(text, &mut self.memo)? } else { Object::default() };
        let within = object.wrapping(text, outer);
        self.passed.note(Kind::Pointer);
        match found {
            None => Err(Rejection::Foreign),
            Some(pointer::Found::Object(stretch)) => self.open(stretch.of(text), &within, 1, contents),
            Some(pointer::Found::Text(record)) => self.open_piece(text, record, &object, &within, 0, contents),
        }
    }
}

/// An escaped text without the line end that it may have.
fn without_line_end(escaped: &str) -> &str {
    let line = escaped.strip_suffix("\\n").unwrap_or(escaped);
    let line = line.strip_suffix("\\r").unwrap_or(line);
    // The backslash of the line end may be one that was escaped itself.
    let backslashes = line.bytes().rev().take_while(|&byte| byte == b'\\').count();
    if backslashes % 2 == 0 { line } else { escaped }
}
