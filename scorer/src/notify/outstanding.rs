//! Which alerts are still owed: folded from the journal, so that a restart sends them again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{deliver::Delivery, finding::Finding};
use crate::journal::{Kind, Record, Seq};

/// So many episodes may be owed; beyond, the oldest is given up and counted.
const OWED: usize = 10_000;

/// Payload of a journal record of kind [`Kind::Alert`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertRecord {
    /// This is to be told. Written by releases before; since then it follows from the decision, with which it stands or
    /// falls.
    Due(Box<Finding>),
    /// A sink has it.
    Delivered(Delivery),
}

/// The alerts that not every sink has, by episode: folded from the decisions of the journal, and from what it says was
/// delivered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outstanding {
    owed: BTreeMap<String, Owed>,
    given_up: u64,
}

/// An alert that not every sink has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Owed {
    seq: Seq,
    finding: Finding,
    /// Sinks that do not have it.
    missing: BTreeSet<String>,
    /// Whether a sink has it.
    told: bool,
}

impl Outstanding {
    /// Takes in what the journal says; other kinds of records are passed over.
    ///
    /// `sinks` are the names of those to which what is due is owed, [`AlertsConfig::sinks`](super::AlertsConfig::sinks).
    ///
    /// # Errors
    /// When the record is of kind alert and of another shape.
    pub fn replay(&mut self, record: &Record, sinks: &[&str]) -> Result<(), serde_json::Error> {
        if record.kind != Kind::Alert {
            return Ok(());
        }
        match record.payload()? {
            AlertRecord::Due(finding) => self.raised(record.seq, *finding, sinks),
            AlertRecord::Delivered(delivery) => self.delivered(&delivery),
        }
        Ok(())
    }

    /// What a checkpoint of the journal says is owed, as far as it is to one of `sinks`.
    pub fn carried(owed: impl IntoIterator<Item = Owed>, sinks: &[&str]) -> Self {
        let mut outstanding = Self::default();
        for mut owed in owed {
            owed.missing.retain(|sink| sinks.contains(&sink.as_str()));
            if !owed.missing.is_empty() {
                outstanding.owed.insert(owed.finding.uid.clone(), owed);
            }
        }
        outstanding
    }

    /// All that is owed.
    pub fn owed(&self) -> impl Iterator<Item = &Owed> {
        self.owed.values()
    }

    /// An alert is owed to `sinks`; `seq` is the journal record that it follows from.
    pub fn raised<S: AsRef<str>>(&mut self, seq: Seq, finding: Finding, sinks: &[S]) {
        if sinks.is_empty() {
            return;
        }
        let finding = match self.owed.remove(&finding.uid) {
            Some(older) if !older.told => finding.superseding(&older.finding),
            _ => finding,
        };
        if self.owed.len() >= OWED {
            let oldest = self.owed.iter().min_by_key(|(_, owed)| owed.seq).map(|(uid, _)| uid.clone());
            oldest.and_then(|uid| self.owed.remove(&uid));
            self.given_up += 1;
        }
        let missing = sinks.iter().map(|sink| sink.as_ref().to_owned()).collect();
        self.owed.insert(finding.uid.clone(), Owed { seq, finding, missing, told: false });
    }

    /// A sink has taken an alert. An earlier state than the one owed does not count.
    pub fn delivered(&mut self, delivery: &Delivery) {
        let Some(owed) = self.owed.get_mut(&delivery.uid).filter(|owed| delivery.seq >= owed.seq) else { return };
        owed.missing.remove(&delivery.sink);
        owed.told = true;
        if owed.missing.is_empty() {
            self.owed.remove(&delivery.uid);
        }
    }

    /// What is to be sent again after a restart, oldest first: to every sink, as each may get an alert twice.
    pub fn undelivered(&self) -> Vec<(Seq, Finding)> {
        let mut owed: Vec<_> = self.owed.values().map(|owed| (owed.seq, owed.finding.clone())).collect();
        owed.sort_unstable_by_key(|(seq, _)| *seq);
        owed
    }

    /// Episodes of which the outside was never told, because too many were owed.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }
}
