//! Which instances of a source use an edge or an operation, since when, and whether one of them does so alone.

use qualm_model::{
    detector::{Deviation, Lone},
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::{
    SETTLED, Source,
    parting::{Split, Use},
    release::SUCCESSION,
};

/// The users of something that a source does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Users {
    /// By their place in the source's list.
    places: u64,
    first: Timestamp,
    /// Asked while it is young and one instance alone has done it, which was there before.
    lone: Option<Lone>,
    /// Whether it was ever asked, and the minute that is a sample already.
    asked: bool,
    minute: i64,
}

impl Users {
    /// The instance at `place` is the first. What a newcomer begins is a new version's as likely as not, and what
    /// everybody begins in the first day says nothing.
    pub(super) fn new(place: usize, source: &Source, birth: Timestamp, now: Timestamp) -> Self {
        let was_there = now - source.instances[place].first > SUCCESSION;
        let lone = (was_there && now - birth >= SETTLED).then(Lone::default);
        Self { places: 1 << place, first: now, lone, asked: lone.is_some(), minute: 0 }
    }

    /// One more call by the instance at `place`: whether it is a new user.
    #[inline]
    pub(super) fn add(&mut self, place: usize) -> bool {
        let is_new = self.places & (1 << place) == 0;
        if is_new {
            self.places |= 1 << place;
            self.lone = None;
        }
        is_new
    }

    /// Those of them that a part of the source has, at their places there; `None` where only others are known to use it.
    pub(super) fn of_part(&self, split: &Split) -> Option<(Self, Use)> {
        let (own, others) = (self.places & split.own(), self.places & split.others);
        if own == 0 && others != 0 {
            return None;
        }
        let lone = self.lone.filter(|_| self.places == own);
        let shared = if others == 0 { Use::Alone } else { Use::WithOthers };
        Some((Self { places: split.moved(self.places), lone, ..*self }, shared))
    }

    pub(super) fn places(&self) -> u64 {
        self.places
    }

    /// Whether the instance at `place` is one of them.
    pub(crate) fn has(&self, place: usize) -> bool {
        self.places & (1 << place) != 0
    }

    pub(crate) fn first(&self) -> Timestamp {
        self.first
    }

    /// Whether one replica alone has used it so far, and that is worth a question.
    #[inline]
    pub(super) fn is_lone(&self) -> bool {
        self.lone.is_some()
    }

    /// Whether one replica alone does what is new, of those that serve.
    #[inline]
    pub(super) fn score_lone(&self, source: &Source, now: Timestamp) -> Option<Deviation> {
        let lone = self.lone.filter(|_| now - self.first <= SETTLED)?;
        lone.score(source.serving(now).count_ones())
    }

    /// Learns one more call, after it was [asked](Self::score_lone) with this answer. Returns the sample for the mesh's
    /// histogram: one a minute, of what several replicas do too.
    #[inline]
    pub(super) fn learn(&mut self, answer: Option<Deviation>, now: Timestamp) -> Option<f64> {
        if !self.asked || now - self.first > SETTLED {
            return None;
        }
        if let Some(lone) = &mut self.lone {
            lone.learn();
        }
        let minute = now.window(Span::MINUTE);
        let is_sample = minute > self.minute;
        self.minute = self.minute.max(minute);
        is_sample.then(|| answer.map_or(1.0, |deviation| deviation.x))
    }
}
