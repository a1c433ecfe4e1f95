//! Envelopes that differ from one before in digits alone: what was found in that one stands at the same places in this
//! one, and nothing of it need be read again. A shipper's envelopes are like that: times, offsets and counts change, and
//! the rest of a pod's is the same for as long as it lives. No key that is known has a digit in it.

use super::{Object, Text};
use crate::parse::json::Stretch;

/// Beginnings that are kept, up to a record.
const HEADS: usize = 8;
/// Ends that are kept of each, from a record's closing quote on: one for each pod with a name of another length.
const TAILS: usize = 64;
/// Longer ones are read each time.
const MAX_BYTES: usize = 4096;
/// Where all room is taken, one of so many that do not fit takes the place of another.
const REPLACED: usize = 16;
/// Bytes that are compared at once.
const BLOCK: usize = 64;

/// Envelopes as they were, around records that stood in them as escaped objects.
#[derive(Debug, Default)]
pub(in crate::envelope) struct Molds {
    heads: Vec<Head>,
    latest: usize,
    missed: usize,
}

#[derive(Debug)]
struct Head {
    /// Up to the quote that opens the record.
    text: String,
    /// What it says.
    object: Object,
    tails: Vec<Tail>,
    latest: usize,
    missed: usize,
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
    place: usize,
    bytes: usize,
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
    pub(in crate::envelope) fn begin(&mut self, text: &str) -> Option<Fitting> {
        let fits = |head: &Head| {
            let begun = text.as_bytes().get(..head.text.len());
            begun.is_some_and(|begun| is_alike(head.text.as_bytes(), begun))
                && text.as_bytes()[head.text.len()..].starts_with(b"{\\\"")
        };
        let first = self.heads.get(self.latest).is_some_and(fits).then_some(self.latest);
        let place = first.or_else(|| self.heads.iter().position(fits))?;
        self.latest = place;
        Some(Fitting { place, bytes: self.heads[place].text.len() })
    }

    /// What the beginning says.
    pub(in crate::envelope) fn begun(&self, of: Fitting) -> Object {
        self.heads[of.place].object.clone()
    }

    /// What the whole envelope says, of which the record ends before byte `end` of `text`; `None` where it ends like none
    /// before, or the line goes on.
    #[inline]
    pub(in crate::envelope) fn finish(&mut self, of: Fitting, text: &str, end: usize) -> Option<Object> {
        let at = end + line_end(text.get(end..)?);
        let rest = &text.as_bytes()[at..];
        let head = &mut self.heads[of.place];
        let fits = |tail: &Tail| is_alike(tail.text.as_bytes(), rest);
        let first = head.tails.get(head.latest).is_some_and(fits).then_some(head.latest);
        let place = first.or_else(|| head.tails.iter().position(fits))?;
        head.latest = place;
        let tail = &head.tails[place];
        let mut object = tail.object.moved(tail.at, at);
        object.record = Some(Text::Escaped(Stretch::new(of.bytes, at)));
        (!object.is_piece(text)).then_some(object)
    }

    /// Keeps what was found in `text`: what it says up to its record, and what it says as a whole.
    pub(in crate::envelope) fn keep(&mut self, text: &str, begun: &Object, whole: Object) {
        let Some(Text::Escaped(record)) = whole.record else { return };
        let (start, end) = record.bounds();
        if start > MAX_BYTES || text.len() - end > MAX_BYTES {
            return;
        }
        let place = match self.heads.iter().position(|head| is_alike(head.text.as_bytes(), &text.as_bytes()[..start])) {
            Some(place) => place,
            None => {
                let (tails, text) = (Vec::new(), text[..start].to_owned());
                let head = Head { text, object: begun.clone(), tails, latest: 0, missed: 0 };
                let Some(place) = room(&mut self.heads, head, HEADS, &mut self.missed) else { return };
                place
            }
        };
        let head = &mut self.heads[place];
        let tail = Tail { text: text[end..].to_owned(), object: whole, at: end };
        room(&mut head.tails, tail, TAILS, &mut head.missed);
    }
}

/// Puts one more where there is room for so many, or now and then in another's place.
fn room<T>(kept: &mut Vec<T>, one: T, most: usize, missed: &mut usize) -> Option<usize> {
    if kept.len() < most {
        kept.push(one);
        return Some(kept.len() - 1);
    }
    *missed += 1;
    if !missed.is_multiple_of(REPLACED) {
        return None;
    }
    let place = *missed / REPLACED % most;
    kept[place] = one;
    Some(place)
}

/// Bytes of the line's own end, which a record may have behind it.
pub(super) fn line_end(after: &str) -> usize {
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
    let same = |(kept, seen): (&[u8], &[u8])| {
        // Numbers instead of truth values, so that many bytes are compared at once.
        let differ = kept.iter().zip(seen).fold(0, |differ, (&kept, &seen)| {
            let digits = u8::from(kept.wrapping_sub(b'0') < 10) & u8::from(seen.wrapping_sub(b'0') < 10);
            differ | (u8::from(kept != seen) & (digits ^ 1))
        });
        differ == 0
    };
    kept.chunks(BLOCK).zip(seen.chunks(BLOCK)).all(same)
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
            let (many, few) = ("x".repeat(number % 100), "y".repeat(number % 17));
            let text = format!("{{\"{few}\":\"{{\\\"\",\"{many}\":1}}");
            let start = few.len() + 5;
            let record = Some(Text::Escaped(Stretch::new(start, start + 3)));
            molds.keep(&text, &Object::default(), Object { record, ..Object::default() });
        }
        assert_eq!(molds.heads.len(), HEADS);
        assert!(molds.heads.iter().all(|head| head.tails.len() <= TAILS));
    }
}
