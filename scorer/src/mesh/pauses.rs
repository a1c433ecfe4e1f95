//! Of what nothing is learned: for so long exposure stands still.

use std::collections::VecDeque;

use qualm_model::time::{Span, Timestamp};

use crate::config::{LearningConfig, Pause};

/// Stretches of which nothing was learned that are kept apart.
const STRETCHES: usize = 64;

/// What the operator says of it, and what has come of that.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pauses {
    said: LearningConfig,
    /// The stretches of which nothing was learned, oldest first.
    stood_still: VecDeque<(Timestamp, Timestamp)>,
}

impl Pauses {
    /// Takes over of what nothing is to be learned from here on.
    pub(crate) fn set(&mut self, said: &LearningConfig) {
        self.said = said.clone();
    }

    /// Until when nothing is learned that began before, as of `now`.
    #[inline]
    pub(super) fn unlearned_until(&self, now: Timestamp) -> Timestamp {
        self.said.unlearned_until(now)
    }

    /// Since when something has been exposed that was there at `since`: time of which nothing is learned is none in which
    /// anything could have been seen.
    #[inline]
    pub(super) fn lived_since(&self, since: Timestamp) -> Timestamp {
        let stood = self.stood_still.iter().map(|&(from, until)| (until - from.max(since)).0.max(0)).sum();
        since + Span(stood)
    }

    /// Lets the time from `before` until `now` stand still as far as nothing is learned of it. Returns how much of it is
    /// known no more as a stretch of its own: so old that it is as if everything had begun so much later.
    pub(super) fn stand_still(&mut self, before: Timestamp, now: Timestamp) -> Span {
        for pause in &self.said.pauses {
            let (from, until) = (pause.since.max(before), pause.until.min(now));
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
        let beyond = self.stood_still.len().saturating_sub(STRETCHES);
        Span(self.stood_still.drain(..beyond).map(|(from, until)| (until - from).0).sum())
    }

    /// The pauses that have ended after `before`, until `now`.
    pub(super) fn ended(&self, before: Timestamp, now: Timestamp) -> Vec<Pause> {
        let ended = self.said.pauses.iter().filter(|pause| before < pause.until && pause.until <= now);
        ended.cloned().collect()
    }

    /// What a snapshot has of it.
    pub(crate) fn kept(&self) -> &VecDeque<(Timestamp, Timestamp)> {
        &self.stood_still
    }

    /// Takes over what a snapshot has of it.
    pub(crate) fn restore(&mut self, kept: VecDeque<(Timestamp, Timestamp)>) {
        self.stood_still = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp(minute * Span::MINUTE.0)
    }

    fn pauses(of: &[(i64, i64)]) -> Pauses {
        let pause = |&(since, until)| Pause { since: at(since), until: at(until), why: "game day".to_owned() };
        let mut pauses = Pauses::default();
        pauses.set(&LearningConfig { pauses: of.iter().map(pause).collect() });
        pauses
    }

    #[test]
    fn what_two_pauses_have_in_common_stands_still_once() {
        let mut pauses = pauses(&[(10, 20), (15, 30), (40, 50)]);
        for minute in 0..60 {
            assert_eq!(pauses.stand_still(at(minute), at(minute + 1)), Span(0));
        }
        assert_eq!(pauses.lived_since(at(0)), at(30), "20 minutes and 10");
        assert_eq!(pauses.lived_since(at(45)), at(50), "of the last, what came after it was there");
        assert_eq!(pauses.lived_since(at(55)), at(55));
    }

    #[test]
    fn what_is_too_old_to_be_kept_apart_is_handed_on_and_not_lost() {
        let mut pauses = Pauses::default();
        let mut handed = 0;
        for n in 0..STRETCHES as i64 + 3 {
            let since = 10 * n;
            let said = Pause { since: at(since), until: at(since + 1), why: String::new() };
            pauses.set(&LearningConfig { pauses: vec![said] });
            handed += pauses.stand_still(at(since), at(since + 10)).0;
        }
        assert_eq!((Span(handed), pauses.kept().len()), (Span(3 * Span::MINUTE.0), STRETCHES));
    }
}
