//! What envelopes said before. A shipper writes the same metadata with every line of a pod: it is recognised as a whole
//! instead of being read again. And it writes its keys in the same order: that of the record before is looked for first.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::object::{Key, PLACES, Places};
use crate::parse::json::Stretch;

/// Pods whose metadata is kept: each in the one slot that its beginning leads to.
const SLOTS: usize = 1024;
/// Longer metadata is read each time.
const MAX_BYTES: usize = 4096;
/// What leads to a slot. The name of the pod is among the first keys with all shippers.
const BEGINNING: usize = 192;

/// Keys of an envelope whose place is remembered; later ones are looked up.
const MAX_KEYS: usize = 32;

/// Metadata objects as they were written, and where in them the places stand.
#[derive(Debug, Default)]
pub(super) struct Memo {
    slots: Vec<Remembered>,
    order: Vec<RememberedKey>,
    /// Room for the path of a key.
    pub(super) path: String,
}

/// Where a key stood in the record before: `"key":`, and what it is.
#[derive(Debug)]
struct RememberedKey {
    quoted: String,
    key: Option<Key>,
}

#[derive(Debug, Default)]
struct Remembered {
    text: String,
    places: Places,
}

impl Memo {
    /// The key that stood at this place of the record before, as it was written with quotes and colon.
    #[inline]
    pub(super) fn key_at(&self, place: usize) -> Option<(&str, Option<Key>)> {
        self.order.get(place).map(|remembered| (remembered.quoted.as_str(), remembered.key))
    }

    /// Remembers a key that stands at this place now.
    pub(super) fn keep_key(&mut self, place: usize, name: &str, key: Option<Key>) {
        let remembered = RememberedKey { quoted: format!("\"{name}\":"), key };
        if let Some(slot) = self.order.get_mut(place) {
            *slot = remembered;
        } else if place == self.order.len() && place < MAX_KEYS {
            self.order.push(remembered);
        }
    }

    /// The length of the object that `rest` begins with, and what is where in it.
    #[inline]
    pub(super) fn find(&self, rest: &str) -> Option<(usize, &Places)> {
        let remembered = self.slots.get(slot(rest))?;
        let is_same = !remembered.text.is_empty() && rest.as_bytes().starts_with(remembered.text.as_bytes());
        is_same.then_some((remembered.text.len(), &remembered.places))
    }

    /// Keeps an object of `bytes` at the beginning of `rest`, which begins `offset` bytes into its text.
    pub(super) fn keep(&mut self, rest: &str, bytes: usize, places: &Places, offset: usize) {
        if bytes > MAX_BYTES {
            return;
        }
        self.slots.resize_with(SLOTS, Remembered::default);
        let remembered = &mut self.slots[slot(rest)];
        remembered.text.clear();
        remembered.text.push_str(&rest[..bytes]);
        remembered.places = [Stretch::default(); PLACES];
        for (kept, found) in remembered.places.iter_mut().zip(places) {
            let (start, end) = found.bounds();
            if start >= offset && end <= offset + bytes {
                *kept = Stretch::new(start - offset, end - offset);
            }
        }
    }
}

fn slot(rest: &str) -> usize {
    let beginning = &rest.as_bytes()[..rest.len().min(BEGINNING)];
    // The remainder of a 64-bit hash fits.
    (FixedState::default().hash_one(beginning) % SLOTS as u64) as usize
}
