//! Of what nothing is learned: for so long exposure stands still.

use std::collections::VecDeque;

use qualm_model::time::{Span, Timestamp};

use super::Mesh;
use crate::config::LearningConfig;

/// Stretches of which nothing was learned that are kept apart.
const STRETCHES: usize = 64;

impl Mesh {
    /// Since when something has been exposed that was there at `since`: time of which nothing is learned is none in which
    /// anything could have been seen.
    #[inline]
    pub(crate) fn lived_since(&self, since: Timestamp) -> Timestamp {
        let stood = self.stood_still.iter().map(|&(from, until)| (until - from.max(since)).0.max(0)).sum();
        since + Span(stood)
    }

    /// Takes over of what nothing is to be learned from here on.
    pub(crate) fn set_learning(&mut self, learning: &LearningConfig) {
        self.learning = learning.clone();
    }

    /// The stretches of which nothing was learned.
    pub(crate) fn stood_still(&self) -> &VecDeque<(Timestamp, Timestamp)> {
        &self.stood_still
    }

    pub(crate) fn restore_stood_still(&mut self, stood_still: VecDeque<(Timestamp, Timestamp)>) {
        self.stood_still = stood_still;
    }

    /// Lets the time from `before` until now stand still as far as nothing is learned of it.
    pub(super) fn stand_still(&mut self, before: Timestamp) {
        for pause in &self.learning.pauses {
            let (from, until) = (pause.since.max(before), pause.until.min(self.closed));
            // What two pauses have in common stands still once.
            let from = self.stood_still.back().map_or(from, |&(_, stood)| from.max(stood));
            if from >= until {
                continue;
            }
            match self.stood_still.back_mut() {
                Some((_, stood)) if *stood == from => *stood = until,
                _ => self.stood_still.push_back((from, until)),
            }
        }
        while self.stood_still.len() > STRETCHES {
            // What is that old has begun before nearly everything that is known: it is as if everything had.
            let Some((from, until)) = self.stood_still.pop_front() else { break };
            self.birth = self.birth.map(|birth| birth + (until - from));
        }
    }

    /// The pauses that have ended between `before` and now.
    pub(crate) fn pauses_ended_since(&self, before: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let pauses = self.learning.pauses.iter().map(|pause| (pause.since, pause.until));
        pauses.filter(|&(_, until)| before < until && until <= self.closed).collect()
    }
}
