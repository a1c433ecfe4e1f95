//! What the scorer tells: of one event, and of itself.

use qualm_model::{detector::Question, event::Filter, evidence::Pace, level::Level, time::Timestamp};
use serde::{Deserialize, Serialize};

use super::Scorer;
use crate::{
    config::ScorerConfig,
    estate::{LeftOut, WrongClock},
    shard::Shard,
};

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Observed {
    /// It was scored.
    Scored {
        /// Bits of the event: the one number by which events are ranked. Finite, never clipped.
        bits: f64,
        /// Evidence against its source with this event in it.
        identity_bits: f64,
        /// The question with the strongest answer.
        leading: Option<Question>,
    },
    /// It shows an action of Qualm: used to verify, never scored or learned.
    OwnAction,
    /// The destination's own report of this call is the one that counts.
    Duplicate,
    /// A stream goes on, and nothing has come since its last record.
    Part,
    /// It names no source.
    NoSource,
}

/// Counts that operators see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Identities held.
    pub identities: u64,
    /// Edges held.
    pub edges: u64,
    /// Bytes of baselines, summaries, filters and standings, as they count towards the bound.
    pub bytes: u64,
    /// Keys folded away to stay within the bound.
    pub folded: u64,
    /// Events too far behind the watermark to be learned.
    pub late: u64,
    /// Events that showed Qualm's own actions.
    pub own_actions: u64,
    /// Readings that would have led into *watched* while the table was full.
    pub unlisted: u64,
    /// Records that were lost on the way.
    pub lost: u64,
    /// Steps up the ladder that an operator's hold has kept identities from.
    #[serde(skip)]
    pub held_back: u64,
}

/// Of one source, the records that count for nothing new, since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Came {
    /// Later than its `lateness_s`: judged, and not learned.
    pub late: u64,
    /// Delivered again.
    pub repeated: u64,
    /// The other end's report of a call that has counted, or will by its own.
    pub confirming: u64,
}

impl Scorer {
    /// What inputs of which nothing is said seem to leave out: questions that this makes meaningless are not asked.
    pub fn left_out(&self) -> Vec<LeftOut> {
        let is_said = |of: &LeftOut| self.filters.get(usize::from(of.source)).is_some_and(|said| *said != Filter::None);
        self.estate.left_out().into_iter().filter(|of| !is_said(of)).collect()
    }

    /// Reporters whose clocks are wrong, by both ends' reports of the same calls; the worst first.
    pub fn wrong_clocks(&self) -> Vec<WrongClock> {
        self.estate.wrong_clocks()
    }

    /// What the operator decided.
    pub fn config(&self) -> &ScorerConfig {
        &self.config
    }

    /// Calls that a destination of this name has received, as of the last summary; those that were odd count less.
    pub fn received(&self, destination: &str) -> f64 {
        let known = self.mesh.destination_id(destination).and_then(|id| self.mesh.destination(id));
        known.map_or(0.0, |(baseline, _)| baseline.volume())
    }

    /// How far event time has come.
    pub fn watermark(&self) -> Option<Timestamp> {
        self.watermark.now()
    }

    /// The first watermark.
    pub fn birth(&self) -> Option<Timestamp> {
        self.mesh.birth()
    }

    /// Levels that can be entered now.
    pub fn armed(&self) -> Vec<Level> {
        self.mesh.armed()
    }

    /// Entries a day into a level, as the measured curve has them at its threshold; 0 where it is not armed.
    pub fn realised_per_day(&self, level: Level) -> f64 {
        let threshold = self.mesh.threshold(level);
        let rate = |pace, m: Option<f64>| m.map_or(0.0, |m| self.mesh.per_day(pace, m));
        rate(Pace::Fast, threshold.fast) + rate(Pace::Slow, threshold.slow)
    }

    /// Counts for operators.
    pub fn tally(&self) -> Tally {
        let sum = |count: fn(&Shard) -> usize| self.shards.iter().map(count).sum::<usize>() as u64;
        Tally {
            identities: sum(|shard| shard.sources.len()),
            edges: sum(|shard| shard.edges.len()),
            bytes: (self.used + self.beside()) as u64,
            ..self.tally
        }
    }

    /// Of each source, by its index, the records that counted for nothing new since the process began.
    pub fn came(&self) -> impl Iterator<Item = (u16, Came)> {
        self.came.iter().map(|(&source, &came)| (source, came))
    }
}
