//! What is to be done now.

use qualm_model::time::{Span, Timestamp};

use super::{Job, Ledger, What};
use crate::{
    effect::{End, Key, State, Stored},
    hook::Call,
    outbox::{Outbox, OutboxError},
};

/// Effects that are over are kept so long, and so many of them, for `qualm hooks list`; the journal has all.
const KEEP: Span = Span(7 * Span::DAY.0);
const KEEP_ENDED: usize = 2_000;
/// What the disk has refused is tried again so much later.
const DISK: Span = Span::SECOND;

impl Ledger {
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
        let due =
            self.effects.values().filter(is_due).filter_map(|effect| Some((rank(effect)?, effect.next, &effect.key)));
        let (_, _, key) = due.min()?;
        let key = key.clone();
        let what = match self.effects[&key].state {
            State::Reading => What::Read,
            State::InEffect => What::Look,
            State::Undoing => return self.undoing(key, now),
            _ => return self.acting(key, now),
        };
        Some((key, what))
    }

    /// Undoes, unless somebody else stands on the same thing.
    fn undoing(&mut self, key: Key, now: Timestamp) -> Option<(Key, What)> {
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
    fn acting(&mut self, key: Key, now: Timestamp) -> Option<(Key, What)> {
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
            effect.problem = Some(format!(
                "{} acts within {:.0} s are all that [[hook]] `cap` allows",
                rules.cap,
                rules.window.as_seconds()
            ));
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

    /// Ends what has reached its time.
    fn expire(&mut self, now: Timestamp) {
        let is_over = |effect: &&Stored| !effect.state.is_ended() && effect.until <= now;
        let over: Vec<Key> = self.effects.values().filter(is_over).map(|effect| effect.key.clone()).collect();
        for key in over {
            self.wanted.remove(&key);
            self.end_order(&key, now);
        }
    }
}
