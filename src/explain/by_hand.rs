//! What operators have brought about, by the journal: their entries, and a pause of everything.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Result;
use qualm_model::time::Timestamp;
use qualm_scorer::{
    journal::{Kind, Record},
    notify::plain,
    operator::{
        Ask, Instruction,
        orders::{Kept, Order, Pause},
    },
    table::Subject,
    verdict::Verdict,
};
use serde::Deserialize;

use super::rfc3339;

/// What stands by hand.
#[derive(Debug, Default)]
pub(super) struct ByHand {
    orders: BTreeMap<Subject, Order>,
    pause: Option<Pause>,
}

/// An operator's command of the journal.
#[derive(Deserialize)]
struct Told {
    instruction: Instruction,
    verdicts: Vec<Verdict>,
}

impl ByHand {
    /// Takes in a record, where it is an operator's; the verdicts in it.
    pub(super) fn take(&mut self, record: &Record) -> Result<Vec<Verdict>, serde_json::Error> {
        if record.kind != Kind::Command || !record.json().starts_with(r#"{"command":"operator""#) {
            return Ok(Vec::new());
        }
        let Told { instruction, verdicts } = record.payload()?;
        match instruction.ask {
            Ask::Pause { lease } => {
                let (since, until) = (instruction.at, instruction.at + lease);
                self.pause = Some(Pause { by: instruction.by, why: instruction.why, since, until });
            }
            Ask::Resume => self.pause = None,
            Ask::Set { .. } | Ask::Lift { .. } | Ask::Announce { .. } | Ask::Accept { .. } => {}
        }
        Ok(verdicts)
    }

    /// Takes in a verdict about an operator's entry.
    pub(super) fn note(&mut self, verdict: &Verdict) {
        match Order::of(verdict) {
            Some(order) => self.orders.insert(order.subject.clone(), order),
            None => self.orders.remove(&verdict.subject),
        };
    }

    /// Takes what a checkpoint has kept in the place of all before it.
    pub(super) fn carry(&mut self, kept: Vec<Kept>) {
        *self = Self::default();
        for part in kept {
            match part {
                Kept::Order(order) => {
                    self.orders.insert(order.subject.clone(), order);
                }
                Kept::Pause(pause) => self.pause = Some(pause),
                Kept::Hold(_) | Kept::Answered(_) | Kept::Announced(_) | Kept::Accepted(_) => {}
            }
        }
    }

    /// Whether nothing stands by hand.
    pub(super) fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Those about whom something stands by hand, whose name contains `part`.
    pub(super) fn identities(&self, part: &str) -> Vec<String> {
        self.orders.keys().map(Subject::identity).filter(|identity| identity.contains(part)).collect()
    }

    /// What there is to say of an identity, before all else.
    pub(super) fn told(&self, identity: &str, now: Timestamp) -> Result<String> {
        let mut text = String::new();
        if let Some(pause) = self.pause.as_ref().filter(|pause| pause.until > now) {
            let (by, why) = (plain(&pause.by), plain(&pause.why));
            writeln!(text, "All enforcement is paused until {} by {by}: {why}", rfc3339(pause.until))?;
        }
        for order in self.orders.values().filter(|of| of.subject.identity() == identity && of.expires > now) {
            let whom = order.subject.instance.as_ref().map_or_else(String::new, |of| format!(" at {}", plain(of)));
            let effect = if order.enforce { "enforced" } else { "in shadow only" };
            writeln!(
                text,
                "By hand: {} is {}{whom}, {effect}, until {}, by {}: {} (decision {})",
                plain(identity),
                order.level,
                rfc3339(order.expires),
                plain(&order.by.by),
                plain(&order.by.why),
                order.decision
            )?;
        }
        if !text.is_empty() {
            text.push_str("\nOn evidence:\n");
        }
        Ok(text)
    }
}
