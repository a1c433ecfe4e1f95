//! The ledger: what is wanted, what was done, what is next. It does nothing itself: time comes in, jobs go out, and
//! outcomes come back.
//!
//! # Layout
//! - [`want`](Ledger::want), [`turn`](Ledger::turn): orders in, jobs out
//! - `outcome`: what became of a job
//! - `word`: what people say: approve, reject, undo
//!
//! **Invariants:** nothing is acted before how things were is on disk; what is stored of that is never replaced while
//! the effect may stand; nothing without a way back is acted without an approver's word; no effect outlives its order.

mod outcome;
#[cfg(test)]
mod tests;
mod word;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use qualm_model::time::{Span, Timestamp};
use serde::Serialize;

pub use self::{outcome::Outcome, word::Refusal};
use crate::{
    effect::{End, Key, State, Stored},
    hook::{Call, Nature, Reach, WayBack},
    order::Order,
    outbox::{Kept, Outbox, OutboxError},
};

/// Effects that are over are kept so long, and so many of them, for `qualm hooks list`; the journal has all.
const KEEP: Span = Span(7 * Span::DAY.0);
const KEEP_ENDED: usize = 2_000;
/// Effects that are not over, of all hooks; what is beyond is told and not begun.
const MOST: usize = 20_000;
/// An order that was not told again is over so long after its lease: the loop renews leases right after their end.
const GRACE: Span = Span::seconds(30);
/// What the disk has refused is tried again so much later.
const DISK: Span = Span::SECOND;

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
    pub fn effects(&self) -> impl Iterator<Item = &Stored> {
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
            let until = (wanted.order.expires + GRACE).min(wanted.until.unwrap_or(Timestamp(i64::MAX)));
            if until <= now || !self.rules.contains_key(&wanted.hook) {
                continue;
            }
            let key = Key { hook: wanted.hook.clone(), subject: wanted.order.subject.clone() };
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
                _ => self.begin(key, wanted, until, now),
            }
        }
        let over: Vec<Key> = self.effects.keys().filter(|key| !keys.contains(key)).cloned().collect();
        self.wanted = keys;
        for key in over {
            self.end_order(&key, now);
        }
    }

    /// Ends what has reached its time.
    fn expire(&mut self, now: Timestamp) {
        let is_over = |effect: &&Stored| !effect.state.is_ended() && effect.until <= now;
        let over: Vec<Key> = self.effects.values().filter(is_over).map(|effect| effect.key.clone()).collect();
        for key in over {
            self.wanted.remove(&key);
            self.end_order(&key, now);
        }
    }

    fn begin(&mut self, key: Key, wanted: Wanted, until: Timestamp, now: Timestamp) {
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
        self.released.remove(&key);
        self.effects.insert(key.clone(), effect);
        self.dirty.insert(key.clone());
        self.tell(&key, None);
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

    /// What is to be done now: one job a hook, those with the fastest effect first. What it is about is on disk.
    pub fn turn(&mut self, outbox: &Outbox, now: Timestamp) -> Vec<Job> {
        self.expire(now);
        self.prune(now);
        let mut hooks: Vec<(u32, String)> =
            self.rules.iter().map(|(name, rules)| (rules.nature.latency_ms, name.clone())).collect();
        hooks.sort();
        let free = hooks.into_iter().map(|(_, hook)| hook).filter(|hook| !self.busy.contains_key(hook));
        let free: Vec<String> = free.collect();
        let chosen: Vec<(Key, What)> = free.iter().filter_map(|hook| self.next_of(hook, now)).collect();
        match self.write(outbox) {
            Ok(()) => self.disk = None,
            Err(error) => {
                let news = self.disk.is_none();
                self.disk = Some(error.to_string());
                if news {
                    tracing::error!(%error, "hooks do nothing new until the outbox can be written");
                }
            }
        }
        // Without a disk nothing is changed anywhere: a crash would forget how to take it back.
        let may_act = self.disk.is_none();
        let changes = |what: &What| matches!(what, What::Act { .. } | What::Undo);
        let mut jobs = Vec::new();
        for (key, what) in chosen {
            let Some(effect) = self.effects.get_mut(&key) else { continue };
            if changes(&what) && !may_act {
                effect.next = now + DISK;
                continue;
            }
            let call = Call { key: effect.call_key(), now };
            jobs.push(Job { key: key.clone(), what, effect: effect.clone(), call });
            self.busy.insert(key.hook.clone(), key);
        }
        jobs
    }

    /// When there may be something to do next.
    pub fn next(&self) -> Option<Timestamp> {
        let open = self.effects.values().filter(|effect| !effect.state.is_ended());
        let due = |effect: &Stored| match effect.state {
            State::Awaiting | State::Dry => effect.until,
            _ if self.busy.contains_key(&effect.key.hook) => effect.until,
            _ => effect.next.min(effect.until),
        };
        open.map(due).min()
    }

    fn next_of(&mut self, hook: &str, now: Timestamp) -> Option<(Key, What)> {
        let is_due = |effect: &&Stored| effect.key.hook == hook && effect.next <= now;
        // Undoing first, then acting; what is only looked at last.
        let rank = |effect: &Stored| match effect.state {
            State::Undoing => Some(0),
            State::Acting => Some(1),
            State::Capped => Some(2),
            State::Reading => Some(3),
            State::InEffect => Some(4),
            State::Awaiting | State::Dry | State::Ended(_) => None,
        };
        let due = self.effects.values().filter(is_due).filter_map(|effect| Some((rank(effect)?, effect.next, &effect.key)));
        let (_, _, key) = due.min()?;
        let key = key.clone();
        let what = match self.effects[&key].state {
            State::Reading => What::Read,
            State::InEffect => What::Look,
            State::Undoing => return self.to_undo(key, now),
            _ => return self.to_act(key, now),
        };
        Some((key, what))
    }

    /// Undoes, unless somebody else stands on the same thing.
    fn to_undo(&mut self, key: Key, now: Timestamp) -> Option<(Key, What)> {
        let target = self.effects[&key].target.clone();
        let stands = |other: &Stored| {
            other.key.hook == key.hook
                && other.key != key
                && other.target == target
                && matches!(other.state, State::Acting | State::InEffect)
        };
        if target.is_some() && self.effects.values().any(stands) {
            self.enter(&key, State::Ended(End::HandedOver), now);
            return None;
        }
        Some((key, What::Undo))
    }

    /// Acts, where the cap allows it.
    fn to_act(&mut self, key: Key, now: Timestamp) -> Option<(Key, What)> {
        let rules = self.rules.get(&key.hook)?;
        let effect = self.effects.get_mut(&key)?;
        if effect.times.sent.is_some() {
            let begun = std::mem::replace(&mut effect.unsure, true);
            self.dirty.insert(key.clone());
            return Some((key, What::Act { begun }));
        }
        let acts = self.acts.entry(key.hook.clone()).or_default();
        // A clock that was set back must not free the cap, nor hold it for ever.
        while acts.front().is_some_and(|first| *first + rules.window <= now || *first > now + rules.window) {
            acts.pop_front();
        }
        if acts.len() >= rules.cap as usize {
            let frees = acts.front().copied().unwrap_or(now) + rules.window;
            let was = std::mem::replace(&mut effect.state, State::Capped);
            effect.next = frees;
            effect.problem = Some(format!("{} acts within {:.0} s are all that [[hook]] `cap` allows", rules.cap, rules.window.as_seconds()));
            self.dirty.insert(key.clone());
            if was != State::Capped {
                self.tell(&key, None);
            }
            return None;
        }
        acts.push_back(now);
        (effect.state, effect.problem) = (State::Acting, None);
        (effect.times.sent, effect.unsure) = (Some(now), true);
        self.acts_dirty.insert(key.hook.clone());
        self.dirty.insert(key.clone());
        Some((key, What::Act { begun: false }))
    }

    fn write(&mut self, outbox: &Outbox) -> Result<(), OutboxError> {
        if self.dirty.is_empty() && self.gone.is_empty() {
            return Ok(());
        }
        let changed = self.dirty.iter().filter_map(|key| self.effects.get(key));
        let acts = self.acts.iter().filter(|(hook, _)| self.acts_dirty.contains(*hook));
        let acts = acts.map(|(hook, times)| (hook.clone(), times.clone())).collect();
        outbox.write(changed, &self.gone, &acts)?;
        self.dirty.clear();
        self.gone.clear();
        self.acts_dirty.clear();
        Ok(())
    }

    /// Lets go of what has been over for long.
    fn prune(&mut self, now: Timestamp) {
        let mut ended: Vec<(Timestamp, Key)> = self
            .effects
            .values()
            .filter(|effect| effect.state.is_ended() && !self.wanted.contains(&effect.key))
            .map(|effect| (effect.times.ended.unwrap_or_default(), effect.key.clone()))
            .collect();
        ended.sort();
        let beyond = ended.len().saturating_sub(KEEP_ENDED);
        let old = ended.iter().position(|(at, _)| *at + KEEP > now).unwrap_or(ended.len());
        for (_, key) in ended.into_iter().take(beyond.max(old)) {
            self.effects.remove(&key);
            self.released.remove(&key);
            self.dirty.remove(&key);
            self.gone.push(key);
        }
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
