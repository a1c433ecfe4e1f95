//! What is usual for one operation on one edge.

use serde::{Deserialize, Serialize};

use super::Turned;
use crate::{
    detector::{Detector, Deviation, Observation, Question, Rarity, Rate},
    evidence::EValues,
    stats::{ETable, Exposure},
};

/// What is usual for one operation that one source uses at one destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationBaseline {
    rate: Rate<600>,
    /// How much everybody together uses it, as of the begin of the minute; `None` where that is not known.
    rarity: Option<Rarity>,
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
        if let Some(deviation) = self.rarity.as_ref().and_then(|rarity| rarity.score_one(seen)) {
            answer(Question::RareOperation, deviation);
        }
    }

    /// As [`EdgeBaseline::usual`](super::EdgeBaseline::usual).
    pub fn usual(&self, question: Question) -> Option<(f64, f64)> {
        (question == Question::OperationRate).then(|| self.rate.counts().usual())
    }

    /// Trusted calls.
    pub fn volume(&self) -> f64 {
        self.rate.counts().total()
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
        if let Some(rarity) = &mut self.rarity {
            values.set(Question::RareOperation, rarity.e(&tables[Question::RareOperation as usize]));
        }
        values.set(Question::OperationRate, self.rate.e(seen, &tables[Question::OperationRate as usize]));
    }

    /// Takes note of the trusted calls of everybody that the mesh knows of; `None` where it knows nothing. Returns the
    /// sample for the mesh's histogram.
    pub fn set_volume_in_mesh(&mut self, volume: Option<f64>) -> Option<f64> {
        self.rarity = volume.map(Rarity::of_volume);
        self.rarity.as_ref().map(Rarity::x)
    }

    /// Learns the event, after [`turn`](Self::turn).
    #[inline]
    pub fn learn(&mut self, seen: &Observation) {
        self.rate.learn_open(seen);
    }
}
