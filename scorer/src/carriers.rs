//! Which records carried the evidence of an episode: the odd events of one identity, in a few runs of positions.
//!
//! An episode may rest on one event or on thousands. Events with the same question about the same destination that come one
//! after the other are one run; where there are too many runs, two are joined, so that whatever was odd is in one of them,
//! and a run may then be of several destinations. To take all of them away is to take the evidence away
//! (`tests/explanation.rs`).

use qualm_model::{
    detector::Question,
    event::Position,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use crate::{names::Names, verdict::Verdict};

/// Runs kept of one episode.
const RUNS: usize = 8;
/// Odd events with more between them are two runs.
const APART: Span = Span(10 * Span::MINUTE.0);
/// A destination of which there are several.
const SEVERAL: u32 = u32::MAX;

/// Records of one identity that carried evidence, as they are told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carrier {
    /// The input: `topic mesh-access of kafka:9092`, `file /var/log/access.json`.
    pub input: String,
    /// Kafka's partition; 0 for files, below 0 for what a peer has pushed.
    pub partition: i32,
    /// Position of the first of them: Kafka's offset, or the row.
    pub first: i64,
    /// Position of the last of them. Between the two are records of others too.
    pub last: i64,
    /// How many odd events there are.
    pub events: u32,
    /// Event time of the first.
    pub since: Timestamp,
    /// Event time of the last.
    pub until: Timestamp,
    /// Bits of the oddest event.
    pub bits: f64,
    /// What was oddest in that.
    pub detector: Option<Question>,
    /// Whom they called, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// One odd event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Odd {
    pub(crate) position: Position,
    pub(crate) at: Timestamp,
    pub(crate) bits: f64,
    pub(crate) question: Option<Question>,
    pub(crate) destination: u32,
}

/// A run of odd events.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Run {
    input: u16,
    partition: i32,
    first: i64,
    last: i64,
    since: Timestamp,
    until: Timestamp,
    bits: f64,
    events: u32,
    question: u8,
    destination: u32,
}

/// The odd events of a running episode.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Carriers {
    runs: Vec<Run>,
}

impl Run {
    fn of(odd: &Odd) -> Self {
        Self {
            input: odd.position.source,
            partition: odd.position.partition,
            first: odd.position.offset,
            last: odd.position.offset,
            since: odd.at,
            until: odd.at,
            bits: odd.bits,
            events: 1,
            question: odd.question.map_or(u8::MAX, |question| question as u8),
            destination: odd.destination,
        }
    }

    fn is_of(&self, other: &Self) -> bool {
        (self.input, self.partition) == (other.input, other.partition)
    }

    /// What both are of, together.
    fn joined(self, other: Self) -> Self {
        let stronger = if other.bits > self.bits { other } else { self };
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            since: self.since.min(other.since),
            until: self.until.max(other.until),
            events: self.events.saturating_add(other.events),
            destination: if self.destination == other.destination { self.destination } else { SEVERAL },
            ..stronger
        }
    }

    /// How far apart in time two runs are.
    fn distance(&self, other: &Self) -> i64 {
        (other.since.0 - self.until.0).max(self.since.0 - other.until.0).max(0)
    }
}

impl Carriers {
    /// From here on another episode.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Takes in an odd event.
    pub(crate) fn note(&mut self, odd: &Odd) {
        let new = Run::of(odd);
        let alike = |run: &&mut Run| {
            run.is_of(&new)
                && (run.question, run.destination) == (new.question, new.destination)
                && run.distance(&new) <= APART.0
        };
        if let Some(run) = self.runs.iter_mut().find(alike) {
            *run = run.joined(new);
            return;
        }
        self.runs.push(new);
        if self.runs.len() > RUNS {
            self.join_nearest();
        }
    }

    /// Joins the two runs of one partition that are nearest; where each has a partition of its own, the weakest goes.
    fn join_nearest(&mut self) {
        let mut nearest: Option<(i64, usize, usize)> = None;
        for (a, run) in self.runs.iter().enumerate() {
            for (b, other) in self.runs.iter().enumerate().skip(a + 1).filter(|(_, other)| run.is_of(other)) {
                let apart = run.distance(other);
                if nearest.is_none_or(|(least, ..)| apart < least) {
                    nearest = Some((apart, a, b));
                }
            }
        }
        match nearest {
            Some((_, a, b)) => {
                let other = self.runs.remove(b);
                self.runs[a] = self.runs[a].joined(other);
            }
            None => {
                let weakest = (0..self.runs.len()).min_by(|&a, &b| self.runs[a].bits.total_cmp(&self.runs[b].bits));
                weakest.map(|place| self.runs.remove(place));
            }
        }
    }

    /// Gives the inputs their numbers of now; of one that is no longer read nothing is kept.
    pub(crate) fn renumber(&mut self, number: impl Fn(u16) -> Option<u16>) {
        self.runs.retain_mut(|run| number(run.input).map(|now| run.input = now).is_some());
    }

    /// As they are told, strongest first.
    pub(crate) fn told(&self, names: &Names, inputs: &[String]) -> Vec<Carrier> {
        let mut runs = self.runs.clone();
        runs.sort_by(|a, b| b.bits.total_cmp(&a.bits).then((a.since, a.first).cmp(&(b.since, b.first))));
        let told = |run: &Run| Carrier {
            input: inputs.get(usize::from(run.input)).map_or_else(|| format!("input {}", run.input), String::clone),
            partition: run.partition,
            first: run.first,
            last: run.last,
            events: run.events,
            since: run.since,
            until: run.until,
            bits: run.bits,
            detector: Question::ALL.into_iter().find(|&question| question as u8 == run.question),
            destination: (run.destination != SEVERAL).then(|| names.text(run.destination).to_owned()),
        };
        runs.iter().map(told).collect()
    }

    /// The names in it, which must not be let go of.
    pub(crate) fn names(&self) -> impl Iterator<Item = u32> {
        self.runs.iter().map(|run| run.destination).filter(|&destination| destination != SEVERAL)
    }
}

impl Verdict {
    /// Whether an event of the identity at this position, to this destination, is among those that carried the evidence.
    pub fn is_carried_by(&self, input: &str, position: Position, destination: &str) -> bool {
        self.carried_by.iter().any(|run| {
            run.input == input
                && run.partition == position.partition
                && (run.first..=run.last).contains(&position.offset)
                && run.destination.as_deref().is_none_or(|of| of == destination)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd(minute: i64, offset: i64, partition: i32, destination: u32, bits: f64) -> Odd {
        Odd {
            position: Position { source: 0, partition, offset },
            at: Timestamp(minute * Span::MINUTE.0),
            bits,
            question: Some(Question::RarePeer),
            destination,
        }
    }

    #[test]
    fn odd_events_of_one_kind_are_one_run_and_a_pause_begins_another() {
        let mut carriers = Carriers::default();
        for offset in 0..100 {
            carriers.note(&odd(offset / 10, 7 * offset, 0, 1, 5.0));
        }
        carriers.note(&odd(40, 9_000, 0, 1, 9.0));
        let runs: Vec<_> = carriers.runs.iter().map(|run| (run.first, run.last, run.events)).collect();
        assert_eq!(runs, [(0, 693, 100), (9_000, 9_000, 1)]);
    }

    #[test]
    fn however_many_there_are_each_odd_event_is_in_a_run() {
        let mut carriers = Carriers::default();
        for n in 0..500 {
            carriers.note(&odd(n, 100 * n, 0, u32::try_from(n).expect("small"), 3.0));
        }
        assert_eq!(carriers.runs.len(), RUNS);
        let covers = |offset| carriers.runs.iter().any(|run| (run.first..=run.last).contains(&offset));
        assert!((0..500).all(|n| covers(100 * n)));
        assert_eq!(carriers.runs.iter().map(|run| run.events).sum::<u32>(), 500);
    }

    #[test]
    fn of_more_partitions_than_runs_the_weakest_goes() {
        let mut carriers = Carriers::default();
        for n in 0..20 {
            carriers.note(&odd(0, 1, n, 1, f64::from(n)));
        }
        assert_eq!(carriers.runs.len(), RUNS);
        assert!(carriers.runs.iter().all(|run| run.bits >= 12.0));
    }
}
