//! What of the journal is still needed, said again at its end, so that its oldest files may go.
//!
//! A checkpoint is a run of records: a beginning, every decision that stands, every alert that is owed, an end that
//! says how many there were. What is read before it does not count any more; one without its end, or with a gap, is
//! none.

use std::collections::BTreeMap;

use qualm_model::level::Level;
use qualm_scorer::{
    containment::Timeline,
    journal::{Kind, Record, Seq},
    notify::Owed,
    operator::orders::Kept,
    verdict::{Cause, Verdict},
};
use serde::{Deserialize, Serialize};

/// Payload of a record of kind [`Kind::Checkpoint`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "checkpoint")]
pub(crate) enum Carried {
    /// The first one: configuration and sinks of the process.
    Begin { config: String, sinks: Vec<String> },
    /// A decision, and the number of its first record.
    Decision { seq: Seq, verdict: Box<Verdict> },
    /// An alert that not every sink has.
    Alert { owed: Box<Owed> },
    /// What an operator has brought about.
    Operator { kept: Box<Kept> },
    /// How far a decision has come.
    Containment { timeline: Box<Timeline> },
    /// The last one: how many records there are between it and the first.
    End { records: usize },
}

/// The decisions from which follows where everybody stands and what is told of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Decisions {
    /// Of each identity above *trusted*: the first of its episode, the latest on evidence, the latest.
    by_identity: BTreeMap<String, Vec<(Seq, Verdict)>>,
}

impl Decisions {
    /// Takes in the decision of record `seq`.
    pub(crate) fn note(&mut self, seq: Seq, verdict: &Verdict) {
        // An operator's own entries are carried apart.
        if verdict.cause == Cause::Ordered {
            return;
        }
        if verdict.level == Level::Trusted {
            self.by_identity.remove(&verdict.identity);
            return;
        }
        let known = self.by_identity.entry(verdict.identity.clone()).or_default();
        known.push((seq, verdict.clone()));
        let evidence = known.iter().rposition(|(_, verdict)| verdict.cause == Cause::Evidence);
        let last = known.len() - 1;
        let mut place = 0..;
        known.retain(|_| place.next().is_some_and(|at| at == 0 || at == last || Some(at) == evidence));
    }

    /// Those of one identity, in their order.
    pub(crate) fn of(&self, identity: &str) -> &[(Seq, Verdict)] {
        self.by_identity.get(identity).map_or(&[], Vec::as_slice)
    }

    /// All of them, those of one identity in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Seq, Verdict)> {
        self.by_identity.values().flatten()
    }
}

/// A checkpoint that was read whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Checkpoint {
    /// Names of the sinks that were configured.
    pub(crate) sinks: Vec<String>,
    pub(crate) decisions: Vec<(Seq, Verdict)>,
    pub(crate) owed: Vec<Owed>,
    pub(crate) kept: Vec<Kept>,
    pub(crate) contained: Vec<Timeline>,
}

/// The records of a checkpoint.
pub(crate) fn records(
    config: &str,
    sinks: &[&str],
    decisions: &Decisions,
    (owed, kept, contained): (Vec<Owed>, Vec<Kept>, Vec<Timeline>),
) -> Vec<Carried> {
    let sinks = sinks.iter().map(|&sink| sink.to_owned()).collect();
    let mut records = vec![Carried::Begin { config: config.to_owned(), sinks }];
    let decision =
        |(seq, verdict): &(Seq, Verdict)| Carried::Decision { seq: *seq, verdict: Box::new(verdict.clone()) };
    records.extend(decisions.iter().map(decision));
    records.extend(owed.into_iter().map(|owed| Carried::Alert { owed: Box::new(owed) }));
    records.extend(kept.into_iter().map(|kept| Carried::Operator { kept: Box::new(kept) }));
    let told = contained.into_iter().map(|timeline| Carried::Containment { timeline: Box::new(timeline) });
    records.extend(told);
    records.push(Carried::End { records: records.len() - 1 });
    records
}

/// Puts checkpoints together while a journal is read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    open: Option<Checkpoint>,
}

impl Reading {
    /// Takes in a record of any kind; the checkpoint, where it was the last of one.
    ///
    /// # Errors
    /// The record is of kind checkpoint and of another shape.
    pub(crate) fn take(&mut self, record: &Record) -> Result<Option<Checkpoint>, serde_json::Error> {
        if record.kind != Kind::Checkpoint {
            return Ok(None);
        }
        match record.payload()? {
            Carried::Begin { sinks, .. } => self.open = Some(Checkpoint { sinks, ..Checkpoint::default() }),
            Carried::Decision { seq, verdict } => {
                if let Some(open) = &mut self.open {
                    open.decisions.push((seq, *verdict));
                }
            }
            Carried::Alert { owed } => {
                if let Some(open) = &mut self.open {
                    open.owed.push(*owed);
                }
            }
            Carried::Operator { kept } => {
                if let Some(open) = &mut self.open {
                    open.kept.push(*kept);
                }
            }
            Carried::Containment { timeline } => {
                if let Some(open) = &mut self.open {
                    open.contained.push(*timeline);
                }
            }
            Carried::End { records } => {
                let parts =
                    |open: &Checkpoint| open.decisions.len() + open.owed.len() + open.kept.len() + open.contained.len();
                return Ok(self.open.take().filter(|open| parts(open) == records));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::tests::verdict;

    #[test]
    fn of_an_episode_its_beginning_its_latest_evidence_and_its_latest_lease_are_needed() {
        let mut decisions = Decisions::default();
        let steps = [
            (1, verdict(1, Level::Trusted, Level::Watched, Cause::Evidence)),
            (2, verdict(2, Level::Watched, Level::Watched, Cause::Renewed)),
            (3, verdict(3, Level::Watched, Level::Throttled, Cause::Evidence)),
            (4, verdict(4, Level::Throttled, Level::Quarantined, Cause::Evidence)),
            (5, verdict(5, Level::Quarantined, Level::Quarantined, Cause::Renewed)),
            (6, verdict(6, Level::Quarantined, Level::Quarantined, Cause::Renewed)),
        ];
        steps.iter().for_each(|(seq, verdict)| decisions.note(Seq(*seq), verdict));
        assert_eq!(decisions.iter().map(|(seq, _)| seq.0).collect::<Vec<_>>(), [1, 4, 6]);
        decisions.note(Seq(7), &verdict(7, Level::Quarantined, Level::Trusted, Cause::Lease));
        assert_eq!(decisions.iter().count(), 0, "what has ended is not needed");
    }
}
