//! What is usual for one operation on one edge.

use serde::{Deserialize, Serialize};

use super::Turned;
use crate::{
    detector::{Detector, Deviation, Observation, Question, Rate},
    evidence::EValues,
    stats::{ETable, Exposure},
};

/// What is usual for one operation that one source uses at one destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationBaseline {
    rate: Rate<600>,
    #[serde(skip)]
    turned: Turned,
}

impl OperationBaseline {
    /// Asks all questions about the operation.
    #[inline]
    pub fn score(&self, seen: &Observation, answer: &mut impl FnMut(Question, Deviation)) {
        if let Some(deviation) = self.rate.score_one(seen) {
            answer(Question::OperationRate, deviation);
        }
    }

    /// Closes the windows that have ended; see [`SourceBaseline::turn`](super::SourceBaseline::turn).
    #[inline]
    pub fn turn(&mut self, exposure: Exposure, sample: &mut impl FnMut(Question, f64)) {
        if !self.turned.is_due(exposure) {
            return;
        }
        if let Some(x) = self.rate.turn(exposure) {
            sample(Question::OperationRate, x);
        }
    }

    /// The answers of [`score`](Self::score) as e-values, after [`turn`](Self::turn), without the reasons.
    #[inline]
    pub fn judge(&mut self, seen: &Observation, tables: &[ETable], values: &mut EValues) {
        values.set(Question::OperationRate, self.rate.e(seen.more, &tables[Question::OperationRate as usize]));
    }

    /// Learns the event, after [`turn`](Self::turn).
    #[inline]
    pub fn learn(&mut self, seen: &Observation) {
        self.rate.learn_open(seen.more);
    }
}
