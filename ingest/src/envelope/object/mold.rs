//! Envelopes that differ from one before in digits alone: what was found in that one stands at the same places in this
//! one, and nothing of it need be read again. A shipper's envelopes are like that: times, offsets and counts change, and
//! the rest of a pod's is the same for as long as it lives. No key that is known has a digit in it.

use std::{collections::BTreeMap, hash::BuildHasher as _};

use foldhash::fast::FixedState;

use super::{Object, Text};
use crate::parse::json::Stretch;

/// Beginnings that are kept which are shorter than [`BEGINNING`]: few, since they name no pod.
const HEADS: usize = 8;
/// Ends that are kept, of all beginnings: about one for each pod whose lines come this way.
const TAILS: usize = 1024;
/// Longer ones are read each time.
const MAX_BYTES: usize = 4096;
/// After so many more that found no room all are let go: pods have ended.
const MISSED: usize = 16 * TAILS;
/// What of a text leads to those that are like it. The name of the pod is in there with all shippers.
const BEGINNING: usize = 192;
/// Bytes that are compared at once where digits may differ.
const BLOCK: usize = 64;
/// The same where mostly nothing differs.
const STRETCH: usize = 256;

/// Envelopes as they were, around records that stood in them as escaped objects.
#[derive(Debug, Default)]
pub(in crate::envelope) struct Molds {
    short: Vec<Head>,
    long: BTreeMap<u64, Head>,
    kept: usize,
    missed: usize,
}

#[derive(Debug)]
struct Head {
    /// Up to the quote that opens the record.
    text: String,
    /// What it says.
    object: Object,
    tails: BTreeMap<u64, Tail>,
}

#[derive(Debug)]
struct Tail {
    /// From the quote that closes the record.
    text: String,
    /// What both say, where the record ended at `at`.
    object: Object,
    at: usize,
}

/// A beginning that fits.
#[derive(Debug, Clone, Copy)]
pub(in crate::envelope) struct Fitting {
    place: Place,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Short(usize),
    Long(u64),
}

impl Fitting {
    /// Where the record begins.
    pub(in crate::envelope) fn record(self) -> usize {
        self.bytes
    }
}

impl Molds {
    /// The beginning that `text` has, if its record is an escaped object.
    #[inline]
    pub(in crate::envelope) fn begin(&self, text: &str) -> Option<Fitting> {
        let bytes = text.as_bytes();
        let fits = |head: &Head| {
            let begun = bytes.get(..head.text.len());
            begun.is_some_and(|begun| is_alike(head.text.as_bytes(), begun))
                && bytes[head.text.len()..].starts_with(b"{\\\"")
        };
        if let Some(place) = self.short.iter().position(fits) {
            return Some(Fitting { place: Place::Short(place), bytes: self.short[place].text.len() });
        }
        if self.long.is_empty() {
            return None;
        }
        let key = begin_of(bytes.get(..BEGINNING)?);
        let head = self.long.get(&key).filter(|head| fits(head))?;
        Some(Fitting { place: Place::Long(key), bytes: head.text.len() })
    }

    fn head(&self, of: Fitting) -> Option<&Head> {
        match of.place {
            Place::Short(place) => self.short.get(place),
            Place::Long(key) => self.long.get(&key),
        }
    }

    /// What the beginning says.
    pub(in crate::envelope) fn begun(&self, of: Fitting) -> Object {
        self.head(of).map(|head| head.object.clone()).unwrap_or_default()
    }

    /// What the whole envelope says, of which the record ends before byte `end` of `text`; `None` where it ends like none
    /// before, or the line goes on.
    #[inline]
    pub(in crate::envelope) fn finish(&self, of: Fitting, text: &str, end: usize) -> Option<Object> {
        let at = end + line_end(text.get(end..)?);
        let rest = &text.as_bytes()[at..];
        let key = begin_of(&rest[..rest.len().min(BEGINNING)]);
        let tail = self.head(of)?.tails.get(&key).filter(|tail| is_alike(tail.text.as_bytes(), rest))?;
        let mut object = tail.object.moved(tail.at, at);
        object.record = Some(Text::Escaped(Stretch::new(of.bytes, at)));
        (!object.is_piece(text)).then_some(object)
    }

    /// Keeps what was found in `text`: what it says up to its record, and what it says as a whole.
    pub(in crate::envelope) fn keep(&mut self, text: &str, begun: &Object, whole: Object) {
        let Some(Text::Escaped(record)) = whole.record else { return };
        let (start, end) = record.bounds();
        if start > MAX_BYTES || text.len() - end > MAX_BYTES || !self.has_room() {
            return;
        }
        let (begin, rest) = (&text[..start], &text[end..]);
        let new = || Head { text: begin.to_owned(), object: begun.clone(), tails: BTreeMap::new() };
        let head = if start >= BEGINNING {
            let head = self.long.entry(begin_of(&begin.as_bytes()[..BEGINNING])).or_insert_with(new);
            if !is_alike(head.text.as_bytes(), begin.as_bytes()) {
                self.kept -= head.tails.len();
                *head = new();
            }
            head
        } else {
            let known = self.short.iter().position(|head| is_alike(head.text.as_bytes(), begin.as_bytes()));
            let place = known.unwrap_or(self.short.len());
            if place >= HEADS {
                self.missed += 1;
                return;
            }
            if place == self.short.len() {
                self.short.push(new());
            }
            &mut self.short[place]
        };
        let key = begin_of(&rest.as_bytes()[..rest.len().min(BEGINNING)]);
        let tail = Tail { text: rest.to_owned(), object: whole, at: end };
        self.kept += usize::from(head.tails.insert(key, tail).is_none());
    }

    /// Whether one more may be kept.
    pub(in crate::envelope) fn has_room(&mut self) -> bool {
        if self.missed >= MISSED {
            *self = Self::default();
        }
        let has_room = self.kept < TAILS && self.long.len() < TAILS;
        self.missed += usize::from(!has_room);
        has_room
    }
}

/// What leads to texts that begin so, but for digits.
#[inline]
fn begin_of(text: &[u8]) -> u64 {
    let mut plain = [0; BEGINNING];
    for (plain, &byte) in plain.iter_mut().zip(text) {
        *plain = if byte.wrapping_sub(b'0') < 10 { b'0' } else { byte };
    }
    FixedState::default().hash_one(&plain[..text.len()])
}

/// Bytes of the line's own end, which a record may have behind it.
pub(in crate::envelope) fn line_end(after: &str) -> usize {
    let rest = after.strip_prefix("\\r").unwrap_or(after);
    let rest = rest.strip_prefix("\\n").unwrap_or(rest);
    after.len() - rest.len()
}

/// Whether two texts are equal but for digits in the place of digits.
#[inline]
fn is_alike(kept: &[u8], seen: &[u8]) -> bool {
    if kept.len() != seen.len() {
        return false;
    }
    // Most stretches are equal to the byte, which is seen sooner.
    let mut stretches = kept.chunks(STRETCH).zip(seen.chunks(STRETCH));
    stretches.all(|(kept, seen)| {
        kept == seen || kept.chunks(BLOCK).zip(seen.chunks(BLOCK)).all(|(kept, seen)| differ_in_digits(kept, seen))
    })
}

/// Whether two texts of one length differ in digits alone.
#[inline]
fn differ_in_digits(kept: &[u8], seen: &[u8]) -> bool {
    // Numbers instead of truth values, so that many bytes are compared at once.
    let differ = kept.iter().zip(seen).fold(0, |differ, (&kept, &seen)| {
        let digits = u8::from(kept.wrapping_sub(b'0') < 10) & u8::from(seen.wrapping_sub(b'0') < 10);
        differ | (u8::from(kept != seen) & (digits ^ 1))
    });
    differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_alike_where_only_digits_differ() {
        let long = "x".repeat(100);
        for (kept, seen, alike) in [
            ("", "", true),
            ("12:00:59", "23:11:04", true),
            ("12:00", "12:0a", false),
            ("a1", "aa", false),
            ("stdout", "stderr", false),
            ("1", "12", false),
            (&format!("{long}7\u{e9}"), &format!("{long}8\u{e9}"), true),
            (&format!("{long}7"), &format!("{long}/"), false),
            (&format!("{long}7"), &format!("{long}:"), false),
        ] {
            assert_eq!(is_alike(kept.as_bytes(), seen.as_bytes()), alike, "{kept} {seen}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut molds = Molds::default();
        for number in 0..10_000 {
            let (many, few) = ("x".repeat(number % 100), "y".repeat(number % 17 * (1 + number % 90)));
            let text = format!("{{\"{few}\":\"{{\\\"\",\"{many}\":1}}");
            let start = few.len() + 5;
            let record = Some(Text::Escaped(Stretch::new(start, start + 3)));
            molds.keep(&text, &Object::default(), Object { record, ..Object::default() });
            assert!(molds.short.len() <= HEADS && molds.long.len() <= TAILS && molds.kept <= TAILS);
            let tails = |head: &Head| head.tails.len();
            let all: usize = molds.short.iter().chain(molds.long.values()).map(tails).sum();
            assert_eq!(all, molds.kept);
        }
        assert!(molds.kept > HEADS);
    }
}
