//! What the metadata of a pod said before. A shipper writes the same object with every line of a pod: it is recognised
//! as a whole instead of being read again.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::object::{PLACES, Places};
use crate::parse::json::Stretch;

/// Pods whose metadata is kept: each in the one slot that its beginning leads to.
const SLOTS: usize = 256;
/// Longer metadata is read each time.
const MAX_BYTES: usize = 4096;
/// What leads to a slot. The name of the pod is among the first keys with all shippers.
const BEGINNING: usize = 192;

/// Metadata objects as they were written, and where in them the places stand.
#[derive(Debug, Default)]
pub(super) struct Memo {
    slots: Vec<Remembered>,
    /// Room for the path of a key.
    pub(super) path: String,
}

#[derive(Debug, Default)]
struct Remembered {
    text: String,
    places: Places,
}

impl Memo {
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
