//! What is usual on one edge.

use serde::{Deserialize, Serialize};

use super::Turned;
use crate::{
    detector::{Bigger, Detector, Deviation, Longer, Observation, Oversized, Question, Rarity, Rate},
    evidence::EValues,
    stats::{ETable, Exposure},
};

/// What is usual on one edge, from one source to one destination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeBaseline {
    rarity: Rarity,
    rate: Rate<600>,
    bigger: Bigger,
    oversized: Oversized,
    longer: Longer,
    #[serde(skip)]
    turned: Turned,
}

impl EdgeBaseline {
    /// Asks all questions about the edge.
    #[inline]
    pub fn score(&self, seen: &Observation, answer: &mut impl FnMut(Question, Deviation)) {
        if let Some(deviation) = self.rarity.score_one(seen) {
            answer(Question::RarePeer, deviation);
        }
        if let Some(deviation) = self.rate.score_one(seen) {
            answer(Question::EdgeRate, deviation);
        }
        if let Some(deviation) = self.bigger.score_one(seen) {
            answer(Question::Bigger, seen.amid_crowd(deviation));
            if Oversized::is_big(deviation.x)
                && let Some(deviation) = self.oversized.score_one(seen)
            {
                answer(Question::Oversized, deviation);
            }
        }
        if let Some(deviation) = self.longer.score_one(seen) {
            answer(Question::Longer, seen.amid_crowd(deviation));
        }
    }

    /// Closes the windows that have ended; see [`SourceBaseline::turn`](super::SourceBaseline::turn).
    #[inline]
    pub fn turn(&mut self, exposure: Exposure, sample: &mut impl FnMut(Question, f64)) {
        if !self.turned.is_due(exposure) {
            return;
        }
        if let Some(x) = self.rarity.turn(exposure) {
            sample(Question::RarePeer, x);
        }
        if let Some(x) = self.rate.turn(exposure) {
            sample(Question::EdgeRate, x);
        }
        if let Some(x) = self.oversized.turn(exposure) {
            sample(Question::Oversized, x);
        }
    }

    /// The answers of [`score`](Self::score) as e-values, after [`turn`](Self::turn), without the reasons.
    #[inline]
    pub fn judge(&mut self, seen: &Observation, tables: &[ETable], values: &mut EValues) {
        let table = |question: Question| &tables[question as usize];
        values.set(Question::RarePeer, self.rarity.e(table(Question::RarePeer)));
        values.set(Question::EdgeRate, self.rate.e(seen, table(Question::EdgeRate)));
        if let Some(deviation) = self.bigger.score_one(seen) {
            values.set(Question::Bigger, table(Question::Bigger).e(seen.amid_crowd(deviation).x));
            if Oversized::is_big(deviation.x) {
                values.set(Question::Oversized, self.oversized.e(table(Question::Oversized)));
            }
        }
        if let Some(deviation) = self.longer.score_one(seen) {
            values.set(Question::Longer, table(Question::Longer).e(seen.amid_crowd(deviation).x));
        }
    }

    /// As [`SourceBaseline::count`](super::SourceBaseline::count).
    #[inline]
    pub fn count(&mut self, seen: &Observation) {
        self.rate.learn_open(seen);
        if self.bigger.score_one(seen).is_some_and(|deviation| Oversized::is_big(deviation.x)) {
            self.oversized.learn_open();
        }
    }

    /// Learns the event, after [`turn`](Self::turn); `remark` takes how big and how long the call was, `1 + surprise`,
    /// for [`SourceBaseline::remark`](super::SourceBaseline::remark).
    #[inline]
    pub fn learn(&mut self, seen: &Observation, remark: &mut impl FnMut(Question, f64)) {
        self.rarity.learn_open(seen.weight * seen.more);
        self.rate.learn_open(seen);
        if let Some(x) = self.bigger.learn_one(seen) {
            if Oversized::is_big(x) {
                self.oversized.learn_open();
            }
            remark(Question::Bigger, x / seen.crowd.max(1.0));
        }
        if let Some(x) = self.longer.learn_one(seen) {
            remark(Question::Longer, x / seen.crowd.max(1.0));
        }
    }

    /// Where what is usual for the answer to a question lies, in the unit of that answer; `None` where it is no quantity,
    /// or nothing is known.
    pub fn usual(&self, question: Question) -> Option<(f64, f64)> {
        match question {
            Question::EdgeRate => Some(self.rate.counts().usual()),
            Question::Oversized => Some(self.oversized.usual()),
            Question::Bigger => self.bigger.usual(),
            Question::Longer => self.longer.usual(),
            _ => None,
        }
    }

    /// Trusted volume of calls.
    pub fn volume(&self) -> f64 {
        self.rarity.total()
    }

    /// Expected calls a day, without any tide.
    pub fn calls_a_day(&self) -> f64 {
        const WINDOWS: f64 = 144.0;
        self.rate.counts().calm_mean() * WINDOWS
    }

    /// The most calls that an hour usually has: six times what ten minutes have.
    pub fn most_an_hour(&self) -> f64 {
        6.0 * self.rate.counts().usual().1
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bigger.heap_bytes() + self.longer.heap_bytes()
    }
}
