//! What was folded away to save memory: a fixed-size filter, so that what returns is not taken for new.

use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use foldhash::quality::FixedState;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

const BITS: usize = 1 << 19;
const PROBES: u64 = 4;
/// Past this many marks a generation answers yes too often (about 1 % at 4 probes) and is replaced by the next.
const MARKS_A_GENERATION: u32 = 55_000;

/// A Bloom filter of two generations: a mark is found for at least one generation after it was made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Forgotten {
    young: Bits,
    old: Bits,
    marks: u32,
}

/// Saved as they lie, and shared with the snapshot that is being written: they are what changes most in a flood.
#[derive(Debug, Clone, Default)]
struct Bits(Arc<Vec<u8>>);

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        if !bytes.is_empty() && bytes.len() != BITS / 8 {
            return Err(D::Error::invalid_length(bytes.len(), &"a filter of 65536 bytes"));
        }
        Ok(Self(Arc::new(bytes.to_vec())))
    }
}

impl Bits {
    fn set(&mut self, bit: usize) {
        Arc::make_mut(&mut self.0)[bit / 8] |= 1 << (bit % 8);
    }

    fn has(&self, bit: usize) -> bool {
        self.0[bit / 8] & (1 << (bit % 8)) != 0
    }
}

impl Forgotten {
    /// Marks a key.
    pub(crate) fn mark(&mut self, key: impl Hash) {
        if self.marks >= MARKS_A_GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.marks = 0;
        }
        if self.young.0.is_empty() {
            self.young.0 = Arc::new(vec![0; BITS / 8]);
        }
        for bit in probes(key) {
            self.young.set(bit);
        }
        self.marks += 1;
    }

    /// Bytes of the filter.
    pub(crate) fn bytes(&self) -> usize {
        self.young.0.len() + self.old.0.len()
    }

    /// Whether the key was marked; wrongly yes in about one of a hundred cases when full.
    pub(crate) fn holds(&self, key: impl Hash) -> bool {
        if self.young.0.is_empty() && self.old.0.is_empty() {
            return false;
        }
        let probed = probes(key).collect::<Vec<_>>();
        let all = |bits: &Bits| !bits.0.is_empty() && probed.iter().all(|&bit| bits.has(bit));
        all(&self.young) || all(&self.old)
    }
}

fn probes(key: impl Hash) -> impl Iterator<Item = usize> {
    let hash = FixedState::with_seed(0x0071_75a1).hash_one(key);
    let (a, b) = (hash, hash.rotate_left(32) | 1);
    (0..PROBES).map(move |i| a.wrapping_add(i.wrapping_mul(b)) as usize % BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_marked_is_found_and_most_else_is_not() {
        let mut forgotten = Forgotten::default();
        (0..20_000).for_each(|key| forgotten.mark(key));
        assert!((0..20_000).all(|key| forgotten.holds(key)));
        let wrong = (20_000..120_000).filter(|key| forgotten.holds(key)).count();
        assert!(wrong < 1_000, "{wrong} of 100,000");
    }

    #[test]
    fn a_flood_of_marks_keeps_the_filter_usable() {
        let mut forgotten = Forgotten::default();
        (0..1_000_000).for_each(|key| forgotten.mark(key));
        let wrong = (2_000_000..2_100_000).filter(|key| forgotten.holds(key)).count();
        assert!(wrong < 5_000, "{wrong} of 100,000");
    }
}
