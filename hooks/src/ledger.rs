//! The ledger: what is wanted, what was done, what is next. It does nothing itself: time comes in, jobs go out, and
//! outcomes come back.
//!
//! # Layout
//! - [`want`](Ledger::want): orders in; `turn`: jobs out
//! - `outcome`: what became of a job
//! - `word`: what people say: approve, reject, undo
//!
//! **Invariants:** nothing is acted before how things were is on disk; what is stored of that is never replaced while
//! the effect may stand; nothing without a way back is acted without an approver's word; no effect outlives its order.

mod outcome;
#[cfg(test)]
mod tests;
mod turn;
mod word;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use qualm_model::time::{Span, Timestamp};
use serde::Serialize;

pub use self::{outcome::Outcome, word::Refusal};
use crate::{
    effect::{End, Key, State, Stored},
    hook::{Call, Nature, Reach, WayBack},
    order::Order,
    outbox::Kept,
};

/// Effects that are not over, of all hooks; what is beyond is told and not begun.
const MOST: usize = 20_000;
/// An order that was not told again is over so long after its lease: the loop renews leases right after their end.
pub(crate) const GRACE: Span = Span::seconds(30);

/// What holds for a hook.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The kind's word.
    pub kind: &'static str,
    /// What kind of hook it is.
    pub nature: Nature,
    /// Nothing is done; what would be done is told.
    pub dry_run: bool,
    /// Every act needs approval.
    pub approval: bool,
    /// Acts within `window` at most.
    pub cap: u32,
    /// Length of that window.
    pub window: Span,
}

/// That an order is to have an effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The hook's name.
    pub hook: String,
    /// The order.
    pub order: Order,
    /// Why it needs approval, where the response policy says so.
    pub needs: Option<String>,
    /// Who may approve; empty means every approver.
    pub approvers: Vec<String>,
    /// When it is to be undone even while the order stands.
    pub until: Option<Timestamp>,
}

/// What is to be done by a hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Which effect.
    pub key: Key,
    /// What.
    pub what: What,
    /// The effect as it is.
    pub effect: Stored,
    /// What goes with the call.
    pub call: Call,
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

/// What a hook is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Read how things are.
    Read,
    /// Act. Where a call may have arrived already, of this process or of one that was killed, it is looked first.
    Act {
        /// Whether one may have.
        begun: bool,
    },
    /// Look whether it still is in effect.
    Look,
    /// Undo.
    Undo,
}

/// Something that has happened, for journal, log and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The hook's name.
    pub hook: String,
    /// Its kind.
    pub kind: &'static str,
    /// The effect's short id.
    pub id: String,
    /// The decision that asks for it.
    pub decision: String,
    /// Whom it is about.
    pub subject: String,
    /// Its name at the called.
    pub target: Option<String>,
    /// What it is now.
    pub state: &'static str,
    /// What there is to say.
    pub words: String,
    /// What it cuts.
    pub cuts: &'static str,
    /// What survives it, and until when.
    pub survives: String,
    /// From the call until it was seen to be in effect, or undone.
    pub took_ms: Option<u64>,
}

/// What is wanted, was done, and is next.
pub struct Ledger {
    rules: BTreeMap<String, Rules>,
    effects: BTreeMap<Key, Stored>,
    acts: BTreeMap<String, VecDeque<Timestamp>>,
    wanted: BTreeSet<Key>,
    /// Not on disk as they are.
    dirty: BTreeSet<Key>,
    gone: Vec<Key>,
    acts_dirty: BTreeSet<String>,
    /// What each hook is doing.
    busy: BTreeMap<String, Key>,
    /// Ended effects whose order has been gone since.
    released: BTreeSet<Key>,
    told: Vec<Told>,
    /// A number from 0 to 1, another one each time.
    jitter: Box<dyn FnMut() -> f64 + Send>,
    /// What the disk said the last time.
    disk: Option<String>,
    /// Wanted effects for which there was no room.
    beyond: u64,
}

impl Ledger {
    /// A ledger of these hooks that goes on from what was kept.
    pub fn new(rules: BTreeMap<String, Rules>, kept: Kept, jitter: Box<dyn FnMut() -> f64 + Send>) -> Self {
        Self {
            rules,
            effects: kept.effects,
            acts: kept.acts,
            wanted: BTreeSet::new(),
            dirty: BTreeSet::new(),
            gone: Vec::new(),
            acts_dirty: BTreeSet::new(),
            busy: BTreeMap::new(),
            released: BTreeSet::new(),
            told: Vec::new(),
            jitter,
            disk: None,
            beyond: 0,
        }
    }

    /// All effects.
    pub fn effects(&self) -> impl Iterator<Item = &Stored> + Clone {
        self.effects.values()
    }

    /// The rules of a hook.
    pub fn rules(&self, hook: &str) -> Option<&Rules> {
        self.rules.get(hook)
    }

    /// What the disk said, where it refused.
    pub fn disk(&self) -> Option<&str> {
        self.disk.as_deref()
    }

    /// Effects for which there was no room so far.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    /// What has happened since the last time.
    pub fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Everything that is wanted now. What is not, and was, ends.
    pub fn want(&mut self, wanted: Vec<Wanted>, now: Timestamp) {
        let mut keys = BTreeSet::new();
        for wanted in wanted {
            let stands_until = wanted.order.expires + GRACE;
            let until = stands_until.min(wanted.until.unwrap_or(Timestamp(i64::MAX)));
            let key = Key { hook: wanted.hook.clone(), subject: wanted.order.subject.clone() };
            if until <= now || !self.rules.contains_key(&wanted.hook) {
                // What has ended by the policy's lease is remembered for as long as the order stands: it has been done.
                if stands_until > now && self.effects.get(&key).is_some_and(|effect| effect.state.is_ended()) {
                    keys.insert(key);
                }
                continue;
            }
            keys.insert(key.clone());
            match self.effects.get_mut(&key) {
                Some(effect) if !effect.state.is_ended() => {
                    // Under the decision that has asked first: by it the called knows the act, and people the effect.
                    let order = Order { decision: effect.order.decision.clone(), ..wanted.order };
                    if effect.order != order || effect.until != until {
                        if effect.order.level != order.level && effect.state == State::InEffect {
                            effect.next = now;
                        }
                        (effect.order, effect.until) = (order, until);
                        self.dirty.insert(key);
                    }
                }
                Some(effect) if !is_news(effect, &wanted.order, self.released.contains(&key)) => {}
                _ => self.begin(&key, wanted, until, now),
            }
        }
        let over: Vec<Key> = self.effects.keys().filter(|key| !keys.contains(key)).cloned().collect();
        self.wanted = keys;
        for key in over {
            self.end_order(&key, now);
        }
    }

    fn begin(&mut self, key: &Key, wanted: Wanted, until: Timestamp, now: Timestamp) {
        let open = self.effects.values().filter(|effect| !effect.state.is_ended()).count();
        if open >= MOST {
            self.beyond += 1;
            return;
        }
        let Some(rules) = self.rules.get(&key.hook) else { return };
        let subject = &wanted.order.subject;
        let is_whole = subject.instance.is_none() || rules.nature.reach == Reach::Principal;
        let others = wanted.order.co_owners.iter().filter(|owner| subject.workload.as_ref() != Some(owner)).count();
        let needs = if rules.nature.way_back == WayBack::None {
            Some("it cannot be undone".to_owned())
        } else if subject.instance.is_some() && is_whole {
            Some(format!("the evidence is about {subject} alone, and this hook acts on all instances"))
        } else if rules.approval {
            Some("[[hook]] `approval` says so".to_owned())
        } else {
            wanted.needs
        };
        let dry_run = rules.dry_run;
        let mut effect = Stored::new(key.clone(), wanted.order, until, now);
        (effect.needs, effect.approvers) = (needs, wanted.approvers);
        if is_whole && (others > 0 || effect.order.subject.workload.is_some()) {
            effect.state = State::Ended(End::BeyondScope);
            effect.times.ended = Some(now);
            effect.problem = Some(format!(
                "{} is shared by {}: to act on it would be to act on all of them; give each a principal of its own",
                effect.order.subject.principal,
                effect.order.co_owners.join(", ")
            ));
        } else if effect.needs.is_some() && !dry_run {
            effect.state = State::Awaiting;
        }
        self.released.remove(key);
        self.effects.insert(key.clone(), effect);
        self.dirty.insert(key.clone());
        self.tell(key, None);
    }

    /// The order of an effect is over.
    fn end_order(&mut self, key: &Key, now: Timestamp) {
        let Some(effect) = self.effects.get_mut(key) else { return };
        if effect.state.is_ended() {
            self.released.insert(key.clone());
            return;
        }
        let is_busy = self.busy.get(&key.hook) == Some(key);
        let way_back = self.rules.get(&key.hook).map_or(WayBack::Exact, |rules| rules.nature.way_back);
        let state = match (&effect.state, way_back) {
            (State::Undoing | State::Ended(_), _) => return,
            // Its outcome decides.
            (State::Acting, _) if is_busy => return,
            (State::Acting, _) if effect.times.sent.is_none() => State::Ended(End::Lapsed),
            (State::Acting | State::InEffect, WayBack::Exact) => State::Undoing,
            (State::Acting, WayBack::None) => State::Ended(End::Uncertain),
            (State::InEffect, WayBack::None) => State::Ended(End::Final),
            _ => State::Ended(End::Lapsed),
        };
        self.released.insert(key.clone());
        self.enter(key, state, now);
    }

    /// Moves an effect on, tells of it, and has it written.
    fn enter(&mut self, key: &Key, state: State, now: Timestamp) {
        let Some(effect) = self.effects.get_mut(key) else { return };
        (effect.state, effect.tries, effect.next) = (state, 0, now);
        if effect.state.is_ended() {
            effect.times.ended = Some(now);
        }
        self.dirty.insert(key.clone());
        let took = match &self.effects[key].state {
            State::InEffect => self.effects[key].times.effective.zip(self.effects[key].times.sent),
            _ => None,
        };
        self.tell(key, took.map(|(effective, sent)| effective - sent));
    }

    fn tell(&mut self, key: &Key, took: Option<Span>) {
        let (Some(effect), Some(rules)) = (self.effects.get(key), self.rules.get(&key.hook)) else { return };
        let words = match (&effect.state, &effect.needs, &effect.problem, &effect.word) {
            (State::Awaiting, Some(needs), ..) => needs.clone(),
            (_, _, Some(problem), _) => problem.clone(),
            (_, _, None, Some(word)) => format!("{}: {}", word.by, word.why),
            _ => String::new(),
        };
        self.told.push(Told {
            hook: key.hook.clone(),
            kind: rules.kind,
            id: effect.id.clone(),
            decision: effect.order.decision.clone(),
            subject: effect.order.subject.to_string(),
            target: effect.target.clone(),
            state: effect.state.as_str(),
            words,
            cuts: rules.nature.cuts,
            survives: effect.survives.clone(),
            took_ms: took.map(|took| u64::try_from(took.0 / 1_000_000).unwrap_or(0)),
        });
    }
}

/// Whether an order is to have a new effect where one has ended.
fn is_news(ended: &Stored, order: &Order, released: bool) -> bool {
    let is_same = ended.order.decision == order.decision;
    // What a person has ended is not begun again by the same decision.
    if is_same && ended.word.is_some() {
        return false;
    }
    released || (!is_same && order.level > ended.order.level)
}
