//! What is usual for one destination.

use serde::{Deserialize, Serialize};

use crate::{
    detector::{Detector, Deviation, Observation, Question, Rarity, Rate, Spread},
    evidence::EValues,
    stats::{ETable, Exposure},
};

/// What was seen of one destination since the last summary.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Received {
    /// Calls.
    pub calls: f64,
    /// Of these, those that were made within the minute before they were told of.
    pub made: f64,
    /// Trusted share of the calls, as a number of them.
    pub weight: f64,
    /// Callers that had not called before.
    pub first_contacts: f64,
}

/// What is usual for one destination, whoever calls it. Lives in the mesh's summaries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DestinationBaseline {
    rarity: Rarity,
    rate: Rate<60>,
    fan_in: Spread<600>,
}

impl DestinationBaseline {
    /// Asks all questions about the destination, with the calls `made` and the `first_contacts` of this shard since the
    /// last summary, this event among them.
    #[inline]
    pub fn score(
        &self,
        seen: &Observation,
        made: f64,
        first_contacts: f64,
        answer: &mut impl FnMut(Question, Deviation),
    ) {
        if let Some(deviation) = self.rarity.score_one(seen) {
            answer(Question::RareDestination, deviation);
        }
        answer(Question::DestinationRate, self.rate.score_made(seen, made));
        let contacts = Observation { more: first_contacts, first_contact: true, ..*seen };
        if let Some(deviation) = self.fan_in.score_one(&contacts) {
            answer(Question::FanIn, deviation);
        }
    }

    /// As [`EdgeBaseline::usual`](super::EdgeBaseline::usual).
    pub fn usual(&self, question: Question) -> Option<(f64, f64)> {
        match question {
            Question::DestinationRate => Some(self.rate.counts().usual()),
            Question::FanIn => Some(self.fan_in.counts().usual()),
            _ => None,
        }
    }

    /// Closes the windows that have ended at `exposure`.
    pub fn turn(&mut self, exposure: Exposure) {
        self.rarity.turn(exposure);
        self.rate.turn(exposure);
        self.fan_in.turn(exposure);
    }

    /// The answers of [`score`](Self::score) as e-values, of a baseline as it stands now ([`turn`](Self::turn)), without
    /// the reasons.
    #[inline]
    pub fn judge(&mut self, made: f64, first_contacts: f64, tables: &[ETable], values: &mut EValues) {
        let table = |question: Question| &tables[question as usize];
        values.set(Question::RareDestination, self.rarity.e(table(Question::RareDestination)));
        values.set(Question::DestinationRate, self.rate.e_of(made, table(Question::DestinationRate)));
        values.set(Question::FanIn, self.fan_in.e(first_contacts, table(Question::FanIn)));
    }

    /// Learns what all shards saw since the last summary.
    pub fn learn(&mut self, seen: &Observation, received: Received, sample: &mut impl FnMut(Question, f64)) {
        let Received { calls, made, weight, first_contacts } = received;
        let mut take = |question, closed: Option<f64>| {
            if let Some(x) = closed {
                sample(question, x);
            }
        };
        let share = if calls > 0.0 { weight / calls } else { 0.0 };
        take(Question::RareDestination, self.rarity.learn_one(&Observation { more: calls, weight: share, ..*seen }));
        take(Question::DestinationRate, self.rate.learn_one(&Observation { more: made, ..*seen }));
        self.rate.learn_past((calls - made) * share);
        let contacts = Observation { more: first_contacts, first_contact: true, ..*seen };
        take(Question::FanIn, self.fan_in.learn_one(&contacts));
    }

    /// Trusted volume of calls.
    pub fn volume(&self) -> f64 {
        self.rarity.total()
    }
}
