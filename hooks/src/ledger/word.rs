//! What people say: approve, reject, undo.

use qualm_model::time::Timestamp;

use super::Ledger;
use crate::{
    effect::{End, Key, State, Stored, Word},
    hook::WayBack,
};

/// Why a word is not followed; says what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing has this id.
    #[error("`{0}` is no effect of a hook; `qualm hooks list` shows them with their ids")]
    Unknown(String),
    /// Several begin so.
    #[error("`{0}` may be several effects; write the id whole")]
    Several(String),
    /// It is not in a state for that.
    #[error("{id} is {state}: {why}")]
    State {
        /// Which.
        id: String,
        /// What it is.
        state: &'static str,
        /// Why it cannot be done, and what can.
        why: &'static str,
    },
    /// Somebody else is to say so.
    #[error("{0}")]
    NotYou(String),
}

impl Ledger {
    /// The effect that has this id, or whose id begins so.
    fn named(&self, id: &str) -> Result<Key, Refusal> {
        // An empty text begins every id.
        let mut fits = self.effects.values().filter(|effect| !id.is_empty() && effect.id.starts_with(id));
        match (fits.next(), fits.next()) {
            (Some(effect), None) => Ok(effect.key.clone()),
            (None, _) => Err(Refusal::Unknown(id.chars().take(64).collect())),
            (Some(_), Some(_)) => Err(Refusal::Several(id.chars().take(64).collect())),
        }
    }

    /// Lets an effect be done that waits for it.
    ///
    /// # Errors
    /// It does not wait, or this is not who may say so.
    pub fn approve(&mut self, id: &str, word: Word, now: Timestamp) -> Result<Stored, Refusal> {
        let key = self.named(id)?;
        self.awaiting(&key, &word)?;
        if self.effects[&key].order.by.as_deref() == Some(word.by.as_str()) {
            let why = format!("{} has ordered it, and somebody else must approve it", word.by);
            return Err(Refusal::NotYou(why));
        }
        Ok(self.follow(&key, word, State::Reading, now))
    }

    /// Keeps an effect from being done that waits.
    ///
    /// # Errors
    /// It does not wait, or this is not who may say so.
    pub fn reject(&mut self, id: &str, word: Word, now: Timestamp) -> Result<Stored, Refusal> {
        let key = self.named(id)?;
        self.awaiting(&key, &word)?;
        Ok(self.follow(&key, word, State::Ended(End::Rejected), now))
    }

    fn awaiting(&self, key: &Key, word: &Word) -> Result<(), Refusal> {
        let effect = &self.effects[key];
        if effect.state != State::Awaiting {
            let why = "it does not wait for approval";
            return Err(Refusal::State { id: effect.id.clone(), state: effect.state.as_str(), why });
        }
        if !effect.approvers.is_empty() && !effect.approvers.contains(&word.by) {
            let who = effect.approvers.join(", ");
            return Err(Refusal::NotYou(format!("the response policy lets only {who} say so, not {}", word.by)));
        }
        Ok(())
    }

    /// Has an effect undone now. It is not done again by the same decision.
    ///
    /// # Errors
    /// Nothing was done, or it has no way back.
    pub fn undo(&mut self, id: &str, word: Word, now: Timestamp) -> Result<Stored, Refusal> {
        let key = self.named(id)?;
        let effect = &self.effects[&key];
        let refused = |why| Err(Refusal::State { id: effect.id.clone(), state: effect.state.as_str(), why });
        let way_back = self.rules.get(&key.hook).map(|rules| rules.nature.way_back);
        let state = match (&effect.state, way_back) {
            (_, None) => return refused("its hook is not configured any more; put its [[hook]] back"),
            (State::Awaiting | State::Capped | State::Dry | State::Reading, _) => State::Ended(End::Lapsed),
            (State::Undoing, _) => return refused("it is being undone already"),
            (State::Acting | State::InEffect, Some(WayBack::Exact)) => State::Undoing,
            (State::Ended(End::Uncertain), Some(WayBack::Exact)) if effect.before.is_some() => State::Undoing,
            (State::Acting | State::InEffect, Some(WayBack::None)) => {
                return refused("it has no way back; docs/hooks.md says what to do by hand");
            }
            (State::Ended(_), _) => return refused("there is nothing to undo"),
        };
        Ok(self.follow(&key, word, state, now))
    }

    fn follow(&mut self, key: &Key, word: Word, state: State, now: Timestamp) -> Stored {
        if let Some(effect) = self.effects.get_mut(key) {
            (effect.word, effect.problem) = (Some(word), None);
        }
        self.enter(key, state, now);
        self.effects[key].clone()
    }
}
