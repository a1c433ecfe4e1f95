//! What operators have set and stands: their entries, holds, the pause, and which of their calls were answered.

use std::collections::{BTreeMap, VecDeque};

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Instruction, Override, Refusal, accepted::Acceptance, announced::Announcement};
use crate::{
    table::{Object, Subject, TrustEntry},
    verdict::{Ordered, Verdict},
};

/// Entries and holds of operators at once, each.
const MOST: usize = 1_024;
/// Entries about one identity, its instances among them.
const OF_ONE_IDENTITY: usize = 64;
/// Calls of which it is known that they were answered, and for how long.
const ANSWERED: (usize, Span) = (4_096, Span::DAY);

/// An entry that an operator has set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The decision's id.
    pub decision: String,
    /// Whom it is about.
    pub subject: Subject,
    /// The level.
    pub level: Level,
    /// When it was set, wall time.
    pub decided: Timestamp,
    /// When it ends, wall time.
    pub expires: Timestamp,
    /// When it was set, event time.
    pub event: Timestamp,
    /// Whether enforcement points act on it, but for a pause.
    pub enforce: bool,
    /// By whom and why.
    pub by: Ordered,
}

/// An identity that enters no level on behaviour: for a time, or but for what it did before it was lifted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Full name of the identity.
    pub identity: String,
    /// Who has asked for it.
    pub by: String,
    /// Why.
    pub why: String,
    /// What happened until then, event time, was lifted.
    pub lifted: Timestamp,
    /// Until then, wall time, nothing counts.
    pub until: Timestamp,
    /// The highest level that it has kept the identity from.
    pub kept_from: Level,
    /// Known from the journal: events of before it may have been read again since.
    pub is_retold: bool,
}

/// A pause of all enforcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who has asked for it.
    pub by: String,
    /// Why.
    pub why: String,
    /// Since when, wall time.
    pub since: Timestamp,
    /// When it ends by itself, wall time.
    pub until: Timestamp,
}

/// A call that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    by: String,
    key: String,
    digest: [u8; 16],
    at: Timestamp,
    /// Number of its record in the journal.
    record: u64,
}

/// All of it. Ordered by subject and by name, so that nothing depends on when it came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Orders {
    set: BTreeMap<Subject, Order>,
    holds: BTreeMap<String, Hold>,
    pub(super) pause: Option<Pause>,
    answered: VecDeque<Answered>,
}

/// One part of it, as a checkpoint of the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// An entry.
    Order(Order),
    /// A hold.
    Hold(Hold),
    /// The pause.
    Pause(Pause),
    /// An answered call.
    Answered(Answered),
    /// A deployment that was announced.
    Announced(Announcement),
    /// Odd behaviour that was accepted.
    Accepted(Acceptance),
}

impl Order {
    /// Its line of the trust table. Reasons of people stay here: enforcement points are told that it was one.
    pub(crate) fn entry(&self) -> TrustEntry {
        TrustEntry {
            decision: self.decision.clone(),
            subject: self.subject.clone(),
            object: Object::Any,
            level: self.level,
            enforce: self.enforce,
            decided: self.decided,
            expires: self.expires,
            evidence_bits: 0.0,
            reason: "set by an operator".to_owned(),
            // A person may mean all who share a principal.
            co_owners: Vec::new(),
            known: None,
        }
    }

    /// Whether enforcement points deny because of it, but for a pause.
    pub(crate) fn denies(&self) -> bool {
        self.enforce && self.level.denies()
    }

    /// Whether it disregards this.
    pub(crate) fn overrides(&self, what: Override) -> bool {
        self.by.overrides.contains(&what)
    }

    /// What a verdict of the journal says of it; `None` where it says that it has ended.
    pub fn of(verdict: &Verdict) -> Option<Self> {
        (verdict.level > Level::Trusted).then_some(())?;
        Some(Self {
            decision: verdict.decision.clone(),
            subject: verdict.subject.clone(),
            level: verdict.level,
            decided: verdict.decided,
            expires: verdict.expires?,
            event: verdict.episode,
            enforce: verdict.enforce,
            by: verdict.order.clone().unwrap_or_default(),
        })
    }
}

impl Orders {
    /// Every entry, in the order of subjects.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Order> {
        self.set.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Order> {
        self.set.values_mut()
    }

    pub(crate) fn get(&self, subject: &Subject) -> Option<&Order> {
        self.set.get(subject)
    }

    /// Those about an identity, all of its instances or the one.
    pub(crate) fn about<'a>(&'a self, identity: &'a str) -> impl Iterator<Item = &'a Order> {
        self.set.values().filter(move |order| order.subject.identity() == identity)
    }

    /// Puts an entry in the place of what stood for its subject.
    ///
    /// # Errors
    /// The table is full.
    pub(super) fn put(&mut self, order: Order) -> Result<(), Refusal> {
        let is_new = !self.set.contains_key(&order.subject);
        if is_new && self.set.len() >= MOST {
            return Err(Refusal::TooMany(MOST));
        }
        // All of them are lifted in one record.
        if is_new && self.about(&order.subject.identity()).count() >= OF_ONE_IDENTITY {
            return Err(Refusal::TooMany(OF_ONE_IDENTITY));
        }
        self.set.insert(order.subject.clone(), order);
        Ok(())
    }

    pub(super) fn remove(&mut self, subject: &Subject) -> Option<Order> {
        self.set.remove(subject)
    }

    /// Takes over what a verdict of the journal says of an entry.
    pub(crate) fn take_over(&mut self, verdict: &Verdict) {
        match Order::of(verdict) {
            Some(order) => {
                self.set.insert(order.subject.clone(), order);
            }
            None => {
                self.set.remove(&verdict.subject);
            }
        }
    }

    /// Entries whose lease has ended by `wall`: they are gone.
    pub(super) fn end(&mut self, wall: Timestamp) -> Vec<Order> {
        if self.set.values().all(|order| order.expires > wall) {
            return Vec::new();
        }
        let ended = self.set.extract_if(.., |_, order| order.expires <= wall);
        ended.map(|(_, order)| order).collect()
    }

    pub(crate) fn hold(&self, identity: &str) -> Option<&Hold> {
        self.holds.get(identity)
    }

    pub(crate) fn hold_mut(&mut self, identity: &str) -> Option<&mut Hold> {
        self.holds.get_mut(identity)
    }

    pub(crate) fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// Puts a hold in the place of the one before; where there are too many, in that of the one that ends first.
    pub(super) fn put_hold(&mut self, hold: Hold) {
        if self.holds.len() >= MOST && !self.holds.contains_key(&hold.identity) {
            let first = self.holds.values().min_by_key(|hold| hold.until).map(|hold| hold.identity.clone());
            first.map(|identity| self.holds.remove(&identity));
        }
        self.holds.insert(hold.identity.clone(), hold);
    }

    /// Whether there is room for one more hold.
    pub(super) fn has_room_for_hold(&self, identity: &str, wall: Timestamp) -> bool {
        let lasting = self.holds.values().filter(|hold| hold.until > wall).count();
        lasting < MOST || self.holds.get(identity).is_some_and(|hold| hold.until > wall)
    }

    /// Forgets holds that nothing depends on any more.
    pub(super) fn end_holds(&mut self, wall: Timestamp) {
        // What was read before a crash may be read again for a while after it.
        self.holds.retain(|_, hold| hold.until + Span::DAY > wall);
    }

    /// Whether all enforcement is paused.
    pub(crate) const fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// The record of the same call, if it was carried out before.
    ///
    /// # Errors
    /// The key was used for another call.
    pub(crate) fn answered(&self, instruction: &Instruction) -> Result<Option<u64>, Refusal> {
        let of = |answered: &&Answered| answered.key == instruction.key && answered.by == instruction.by;
        match self.answered.iter().find(of) {
            Some(answered) if answered.digest == instruction.digest() => Ok(Some(answered.record)),
            Some(_) => Err(Refusal::KeyUsed(instruction.key.clone())),
            None => Ok(None),
        }
    }

    /// Takes note that a call was carried out.
    pub(crate) fn answer(&mut self, instruction: &Instruction, record: u64) {
        let oldest = instruction.at - ANSWERED.1;
        while self.answered.len() >= ANSWERED.0 || self.answered.front().is_some_and(|first| first.at < oldest) {
            self.answered.pop_front();
        }
        self.answered.push_back(Answered {
            by: instruction.by.clone(),
            key: instruction.key.clone(),
            digest: instruction.digest(),
            at: instruction.at,
            record,
        });
    }

    /// All of it, part by part.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        let orders = self.set.values().cloned().map(Kept::Order);
        let holds = self.holds.values().cloned().map(Kept::Hold);
        let pause = self.pause.iter().cloned().map(Kept::Pause);
        orders.chain(holds).chain(pause).chain(self.answered.iter().cloned().map(Kept::Answered)).collect()
    }

    /// What a checkpoint has kept.
    pub(crate) fn of(kept: Vec<Kept>) -> Self {
        let mut orders = Self::default();
        for part in kept {
            match part {
                Kept::Order(order) => {
                    orders.set.insert(order.subject.clone(), order);
                }
                Kept::Hold(hold) => {
                    orders.holds.insert(hold.identity.clone(), Hold { is_retold: true, ..hold });
                }
                Kept::Pause(pause) => orders.pause = Some(pause),
                Kept::Answered(answered) => orders.answered.push_back(answered),
                // They are no orders.
                Kept::Announced(_) | Kept::Accepted(_) => {}
            }
        }
        orders
    }
}

/// The id of an operator's decision: of subject, level, caller, key and time. 128 bits, hex.
pub(crate) fn decision_id(subject: &Subject, level: Level, of: &Instruction) -> String {
    let mut hash = Sha256::new();
    let parts = [
        "operator",
        subject.principal.as_str(),
        subject.cluster.as_deref().unwrap_or_default(),
        subject.instance.as_deref().unwrap_or_default(),
        level.as_str(),
        of.by.as_str(),
        of.key.as_str(),
    ];
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(of.at.0.to_le_bytes());
    const_hex::encode(&hash.finalize()[..16])
}
