//! The evidence of neighbours in the graph.

use foldhash::{fast::FixedState, quality};
use std::hash::BuildHasher;
use hashbrown::HashMap;
use qualm_model::time::{Span, Timestamp};

use super::SourceKey;

/// Neighbours' evidence counts for ten minutes and up to this many bits.
const MINUTES: i64 = 10;
const MOST: f64 = 8.0;
/// Parties whose neighbours are remembered, and how many of each: far more than it takes for the most that counts.
const PARTIES: usize = 10_000;
const EACH: usize = 32;

/// A party of the graph, by its name.
pub(crate) fn party(name: &str) -> u64 {
    quality::FixedState::with_seed(5).hash_one(name)
}

/// Who was odd in calls from or to each party in the last ten minutes, and by how much.
#[derive(Debug, Clone, Default)]
pub(super) struct Neighbours {
    odd: HashMap<u64, Vec<(SourceKey, i64, f64)>, FixedState>,
    minute: i64,
}

impl Neighbours {
    pub(super) fn add(&mut self, source: SourceKey, ends: [u64; 2], minute: i64, bits: f64) {
        for end in ends {
            if self.odd.len() >= PARTIES && !self.odd.contains_key(&end) {
                continue;
            }
            let of_end = self.odd.entry(end).or_default();
            if let Some((.., best)) = of_end.iter_mut().find(|(other, at, _)| *other == source && *at == minute) {
                *best = best.max(bits);
            } else if of_end.len() < EACH * MINUTES as usize {
                of_end.push((source, minute, bits));
            }
        }
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        let minute = now.window(Span::MINUTE);
        if minute == self.minute {
            return;
        }
        self.minute = minute;
        self.odd.retain(|_, of_end| {
            of_end.retain(|&(_, at, _)| at > minute - MINUTES);
            !of_end.is_empty()
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.odd.is_empty()
    }

    /// The best bits of each *other* source in calls from or to one of these, at most eight in all.
    pub(super) fn of_others(&self, source: SourceKey, ends: [u64; 2]) -> f64 {
        let mut total = 0.0;
        let mut of = |end: &u64, but: Option<&Vec<(SourceKey, i64, f64)>>| {
            let Some(of_end) = self.odd.get(end) else { return };
            for (place, &(other, _, _)) in of_end.iter().enumerate() {
                let is_counted = other == source
                    || of_end[..place].iter().any(|&(before, ..)| before == other)
                    || but.is_some_and(|but| but.iter().any(|&(before, ..)| before == other));
                if is_counted {
                    continue;
                }
                let best = of_end.iter().filter(|&&(who, ..)| who == other).map(|&(.., bits)| bits).fold(0.0, f64::max);
                total += best;
                if total >= MOST {
                    return;
                }
            }
        };
        of(&ends[0], None);
        if ends[1] != ends[0] {
            of(&ends[1], self.odd.get(&ends[0]));
        }
        total.min(MOST)
    }
}
