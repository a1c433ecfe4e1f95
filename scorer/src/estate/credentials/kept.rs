//! What is kept by key, as far as there is room: what was touched longest ago goes first.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use qualm_model::time::Timestamp;
use serde::{Deserialize, Serialize};

/// At most `MOST` values with the time at which each was last touched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept<T, const MOST: usize> {
    by: HashMap<u64, (Timestamp, T), FixedState>,
    /// The latest time of what had to go.
    forgotten: Option<Timestamp>,
}

impl<T, const MOST: usize> Default for Kept<T, MOST> {
    fn default() -> Self {
        Self { by: HashMap::default(), forgotten: None }
    }
}

impl<T: Default, const MOST: usize> Kept<T, MOST> {
    #[inline]
    pub(super) fn get(&self, key: u64) -> Option<&T> {
        self.by.get(&key).map(|(_, value)| value)
    }

    pub(super) fn holds(&self, key: u64) -> bool {
        self.by.contains_key(&key)
    }

    /// The value of a key, touched at `now`; made where there is none.
    #[inline]
    pub(super) fn at(&mut self, key: u64, now: Timestamp) -> &mut T {
        if self.by.len() >= MOST && !self.by.contains_key(&key) {
            self.make_room();
        }
        let (last, value) = self.by.entry(key).or_insert_with(|| (now, T::default()));
        *last = (*last).max(now);
        value
    }

    /// Up to when something had to go that was last touched then.
    pub(super) fn forgotten(&self) -> Option<Timestamp> {
        self.forgotten
    }

    /// Bytes it takes, as a table is between two doublings, without what values hold themselves.
    pub(super) fn bytes(&self) -> usize {
        2 * self.by.len() * (size_of::<(u64, Timestamp, T)>() + 1)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.by.values().map(|(_, value)| value)
    }

    /// Lets go of the eighth that was touched longest ago.
    fn make_room(&mut self) {
        let mut ages: Vec<(Timestamp, u64)> = self.by.iter().map(|(&key, &(last, _))| (last, key)).collect();
        let going = MOST.div_ceil(8).min(ages.len());
        // By key where times are equal: the order of a map is nobody's business.
        ages.sort_unstable();
        for &(_, key) in &ages[..going] {
            self.by.remove(&key);
        }
        self.forgotten = self.forgotten.max(going.checked_sub(1).map(|last| ages[last].0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_it_is_known_up_to_when() {
        let mut kept = Kept::<u32, 16>::default();
        for key in 0..16 {
            *kept.at(key, Timestamp(100 + key as i64)) = key as u32;
        }
        kept.at(0, Timestamp(500));
        assert_eq!(kept.forgotten(), None);
        kept.at(99, Timestamp(600));
        assert_eq!(kept.forgotten(), Some(Timestamp(102)));
        assert!(kept.holds(0) && !kept.holds(1) && !kept.holds(2) && kept.holds(3) && kept.holds(99));
        assert!(kept.bytes() > 0 && kept.values().count() == 15);
    }
}
