//! Calls that have counted by their callers' reports, and of which the called's may still come: a node whose shipper
//! stood for longer than anybody waits makes up for it later, and its reports are not to count the same calls again.

use std::{collections::VecDeque, sync::Arc};

use foldhash::fast;
use qualm_model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// Calls in one generation, which lasts no longer than [`GENERATION`].
const CALLS: usize = 1 << 17;
const GENERATION: Span = Span(15 * Span::MINUTE.0);
/// Generations beside the one that is being filled: a call is known for an hour or half a million calls at least,
/// whichever is less.
const GENERATIONS: usize = 4;

/// How many calls of each key, as attempts of one request have the same.
type Generation = hashbrown::HashMap<u64, u32, fast::FixedState>;

/// The calls of the last hour, by what both reports have in common.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct StoodIn {
    young: Generation,
    /// When `young` was begun.
    since: Timestamp,
    /// The latest first; shared with the snapshot that is being written.
    old: VecDeque<Arc<Generation>>,
}

impl StoodIn {
    /// Takes note of so many calls of one key, the last at `at`.
    pub(super) fn add(&mut self, call: u64, calls: u32, at: Timestamp) {
        if self.young.is_empty() {
            self.since = self.since.max(at);
        }
        if self.young.len() >= CALLS || at - self.since > GENERATION {
            self.old.push_front(Arc::new(std::mem::take(&mut self.young)));
            self.old.truncate(GENERATIONS);
            self.since = self.since.max(at);
        }
        *self.young.entry(call).or_default() += calls;
    }

    /// Whether a call of this key has counted; it is known no more.
    pub(super) fn take(&mut self, call: u64) -> bool {
        if take(&mut self.young, call) {
            return true;
        }
        let known = self.old.iter_mut().find(|generation| generation.contains_key(&call));
        known.is_some_and(|generation| take(Arc::make_mut(generation), call))
    }

    /// Bytes it takes, as tables are between two doublings.
    pub(super) fn bytes(&self) -> usize {
        let calls = self.young.len() + self.old.iter().map(|generation| generation.len()).sum::<usize>();
        2 * calls * size_of::<(u64, u32)>()
    }
}

fn take(generation: &mut Generation, call: u64) -> bool {
    let Some(calls) = generation.get_mut(&call) else { return false };
    *calls -= 1;
    if *calls == 0 {
        generation.remove(&call);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_met_once_within_the_hour() {
        let mut stood_in = StoodIn::default();
        let at = |minute: i64| Timestamp::from_seconds(60 * minute);
        stood_in.add(7, 2, at(0));
        (0..60).for_each(|minute| stood_in.add(1000 + minute, 1, at(minute as i64)));
        assert_eq!([7, 7, 7].map(|call| stood_in.take(call)), [true, true, false]);
        assert!(stood_in.take(1003), "an hour later");
        assert!(!stood_in.take(9), "it was never told of");
        (60..200).for_each(|minute| stood_in.add(1000 + minute, 1, at(minute as i64)));
        assert!(!stood_in.take(1004), "it is forgotten");
    }

    #[test]
    fn a_flood_of_calls_stays_within_the_bound() {
        let mut stood_in = StoodIn::default();
        (0..6 * CALLS as u64).for_each(|call| stood_in.add(call, 1, Timestamp::from_seconds(1)));
        let kept = stood_in.young.len() + stood_in.old.iter().map(|generation| generation.len()).sum::<usize>();
        assert!(kept <= (GENERATIONS + 1) * CALLS, "{kept}");
        assert!(stood_in.take(6 * CALLS as u64 - 1) && !stood_in.take(0));
    }
}
