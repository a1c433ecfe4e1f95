//! What became of a job.

use qualm_model::time::{Span, Timestamp};
use serde_json::Value;

use super::{Job, Ledger, What};
use crate::{
    effect::{End, Key, State, Stored},
    hook::{Effect, Failure, Found, Repeat, Undone, WhenGone},
};

/// The first and the longest pause between two tries; each is twice the one before, less up to half by chance.
const PAUSES: (Span, Span) = (Span(Span::SECOND.0 / 2), Span::MINUTE);
/// A refusal is asked about again so much later: somebody may have mended it.
const REFUSED: Span = Span::MINUTE;
/// The longest time that a called may ask to be left alone, seconds.
const LONGEST: i64 = 600;
/// The other effect on the same thing is waited for.
const OTHER: Span = Span::SECOND;
/// Characters of a problem that are kept.
const WORDS: usize = 500;

/// What became of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// What was found.
    Read(Result<Found, Failure>),
    /// It was acted, and seen to be in effect at that time; what survives.
    Acted(Result<(Timestamp, String), Failure>),
    /// Whether it is in effect.
    Looked(Result<Effect, Failure>),
    /// It was undone.
    Undone(Result<Undone, Failure>),
}

impl Ledger {
    /// Takes in what became of a job.
    pub fn outcome(&mut self, job: &Job, outcome: Outcome, now: Timestamp) {
        self.busy.remove(&job.key.hook);
        let Some(effect) = self.effects.get(&job.key) else { return };
        // Its order may have ended meanwhile, and a new one begun.
        let is_same = effect.id == job.effect.id;
        let is_expected = match job.what {
            What::Read => effect.state == State::Reading,
            What::Act { .. } => effect.state == State::Acting,
            What::Look => effect.state == State::InEffect,
            What::Undo => effect.state == State::Undoing,
        };
        if !is_same || !is_expected {
            return;
        }
        match outcome {
            Outcome::Read(Ok(Found::Nothing(why))) => {
                self.say(&job.key, &why);
                self.enter(&job.key, State::Ended(End::NothingThere), now);
            }
            Outcome::Read(Ok(Found::Target { name, before })) => self.found(&job.key, name, before, now),
            Outcome::Acted(Ok((at, survives))) => self.acted(&job.key, at, survives, now),
            Outcome::Looked(Ok(seen)) => self.looked(&job.key, &seen, now),
            Outcome::Undone(Ok(undone)) => self.undone(&job.key, undone, now),
            Outcome::Read(Err(failure))
            | Outcome::Acted(Err(failure))
            | Outcome::Looked(Err(failure))
            | Outcome::Undone(Err(failure)) => self.failed(&job.key, &failure, now),
        }
        if !self.wanted.contains(&job.key) {
            self.end_order(&job.key, now);
        }
    }

    fn found(&mut self, key: &Key, name: String, before: Value, now: Timestamp) {
        let same =
            |other: &&Stored| other.key.hook == key.hook && other.key != *key && other.target.as_ref() == Some(&name);
        let other = self.effects.values().filter(same).find(|other| other.state.may_be_in_effect());
        let other = other.map(|other| (other.state.clone(), other.before.clone()));
        let dry_run = self.rules.get(&key.hook).is_none_or(|rules| rules.dry_run);
        let Some(effect) = self.effects.get_mut(key) else { return };
        let before = match other {
            Some((State::Undoing, _)) => {
                effect.next = now + OTHER;
                return;
            }
            // How it was before that one, not how that one has left it.
            Some((_, Some(first))) => first,
            _ => before,
        };
        (effect.target, effect.before, effect.problem) = (Some(name), Some(before), None);
        self.enter(key, if dry_run { State::Dry } else { State::Acting }, now);
    }

    fn acted(&mut self, key: &Key, at: Timestamp, survives: String, now: Timestamp) {
        let every = self.every(key);
        let Some(effect) = self.effects.get_mut(key) else { return };
        (effect.problem, effect.survives, effect.unsure) = (None, survives, false);
        effect.times.effective = Some(at);
        self.enter(key, State::InEffect, now);
        if let Some(effect) = self.effects.get_mut(key) {
            effect.next = now + every;
        }
    }

    fn looked(&mut self, key: &Key, seen: &Effect, now: Timestamp) {
        let every = self.every(key);
        let when_gone = self.rules.get(&key.hook).map(|rules| rules.nature.when_gone);
        let Some(effect) = self.effects.get_mut(key) else { return };
        effect.next = now + every;
        match (seen, when_gone) {
            (Effect::Absent, Some(WhenGone::TellAgain(_))) | (Effect::Partial, _) => {
                // It is a new call, and its time is measured anew.
                effect.times.sent = Some(now);
                let why = match seen {
                    Effect::Partial => "something that came later is not covered: it is brought about there too",
                    _ => "it has forgotten, or the order has changed: it is told again",
                };
                self.say(key, why);
                self.enter(key, State::Acting, now);
            }
            (Effect::Absent, _) => {
                if self.say(key, "somebody has taken it back; Qualm does not fight: only a new decision does it again")
                {
                    self.tell(key, None);
                }
            }
            (Effect::InPlace, _) => effect.problem = None,
            (Effect::Unknown, _) => {}
        }
    }

    fn undone(&mut self, key: &Key, undone: Undone, now: Timestamp) {
        let end = match undone {
            Undone::Restored => {
                if let Some(effect) = self.effects.get_mut(key) {
                    effect.problem = None;
                }
                End::Undone
            }
            Undone::Nothing(why) => {
                self.say(key, &why);
                End::Undone
            }
            Undone::Foreign(why) => {
                self.say(key, &why);
                End::Foreign
            }
        };
        self.enter(key, State::Ended(end), now);
    }

    fn failed(&mut self, key: &Key, failure: &Failure, now: Timestamp) {
        let repeat = self.rules.get(&key.hook).map_or(Repeat::Never, |rules| rules.nature.repeat);
        let chance = (self.jitter)().clamp(0.0, 1.0);
        let Some(effect) = self.effects.get_mut(key) else { return };
        let is_change = matches!(effect.state, State::Acting | State::Undoing);
        if matches!(failure, Failure::Uncertain(_)) && repeat == Repeat::Never && is_change {
            self.say(
                key,
                &format!("{failure}; it must not be called twice: look there, and undo it here if it was done"),
            );
            return self.enter(key, State::Ended(End::Uncertain), now);
        }
        let (first, longest) = PAUSES;
        let doubled = first.0.saturating_mul(1_i64 << effect.tries.min(20)).min(longest.0);
        let pause = Span((doubled as f64 * (1.0 - chance / 2.0)) as i64);
        let pause = match failure {
            Failure::Again { after_s: Some(after), .. } => {
                pause.max(Span::seconds(i64::try_from(*after).unwrap_or(LONGEST).min(LONGEST)))
            }
            Failure::Refused(_) => REFUSED,
            _ => pause,
        };
        effect.unsure &= matches!(failure, Failure::Uncertain(_));
        effect.tries = effect.tries.saturating_add(1);
        effect.next = now + pause;
        if self.say(key, &failure.to_string()) {
            self.tell(key, None);
        }
    }

    /// Notes what is wrong; whether it is news.
    fn say(&mut self, key: &Key, words: &str) -> bool {
        let words: String = words.chars().take(WORDS).collect();
        let Some(effect) = self.effects.get_mut(key) else { return false };
        let is_news = effect.problem.as_ref() != Some(&words);
        effect.problem = Some(words);
        if is_news {
            self.dirty.insert(key.clone());
        }
        is_news
    }

    fn every(&self, key: &Key) -> Span {
        match self.rules.get(&key.hook).map(|rules| rules.nature.when_gone) {
            Some(WhenGone::TellAgain(every) | WhenGone::Say(every)) => Span::seconds(i64::from(every.max(1))),
            None => Span::MINUTE,
        }
    }
}
