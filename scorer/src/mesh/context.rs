//! The evidence of neighbours.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use qualm_model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::SourceKey;

/// Neighbours' evidence counts for ten minutes and up to this many bits.
const CONTEXT_MINUTES: i64 = 10;
const CONTEXT_MOST: f64 = 8.0;
/// Sources whose evidence counts for their neighbours: far more than it takes for the most that counts.
const CONTEXT_SOURCES: usize = 10_000;

/// Best bits of every source in each of the last ten minutes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Context {
    best: HashMap<SourceKey, Vec<(i64, f64)>, FixedState>,
    total: f64,
    minute: i64,
}

impl Context {
    pub(super) fn add(&mut self, source: SourceKey, minute: i64, bits: f64) {
        if self.best.len() >= CONTEXT_SOURCES && !self.best.contains_key(&source) {
            return;
        }
        let minutes = self.best.entry(source).or_default();
        match minutes.iter_mut().find(|(at, _)| *at == minute) {
            Some((_, best)) => *best = best.max(bits),
            None => minutes.push((minute, bits)),
        }
        self.minute = i64::MIN;
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        let minute = now.window(Span::MINUTE);
        if minute == self.minute {
            return;
        }
        self.minute = minute;
        self.best.retain(|_, minutes| {
            minutes.retain(|&(at, _)| at > minute - CONTEXT_MINUTES);
            !minutes.is_empty()
        });
        // Summed in the order of size, so that the sum does not depend on the order of the map.
        let mut all: Vec<f64> = self.best.values().map(|minutes| most(minutes)).collect();
        all.sort_by(f64::total_cmp);
        self.total = all.iter().sum();
    }

    pub(super) fn of_others(&self, source: SourceKey, _now: Timestamp) -> f64 {
        if self.total <= 0.0 {
            return 0.0;
        }
        let own = self.best.get(&source).map_or(0.0, |minutes| most(minutes));
        (self.total - own).clamp(0.0, CONTEXT_MOST)
    }
}

fn most(minutes: &[(i64, f64)]) -> f64 {
    minutes.iter().map(|&(_, bits)| bits).fold(0.0, f64::max)
}
