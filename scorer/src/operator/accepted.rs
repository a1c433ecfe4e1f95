//! What an operator has accepted: behaviour of one identity that was too odd to be learned, and is its own all the same.
//!
//! What was accepted stands beside the baseline for as long as the acceptance lasts, as the statistics that were withheld
//! ([`Withheld`]): an answer to the same question about the same object counts for nothing as long as its surprise is no
//! greater than what was accepted, and in full beyond that. Surprises are compared and not bits: bits are ranks, and once
//! something odd is one of many, what is much odder has the same. Meanwhile such events are learned in full, so that at
//! the end of the acceptance the baseline knows them by itself.
//!
//! **Invariants:** nothing is accepted that was not seen; what does not add up of a credential never is
//! ([`Question::is_invariant`]); no acceptance outlasts its time, and each says what it has hidden.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use qualm_model::{
    detector::Question,
    evidence::EValues,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::{Ask, Instruction, Refusal};
use crate::{door::Ids, names::Names, scorer::Scorer, withheld::Withheld};

/// Acceptances that stand at once, and of one identity.
const MOST: usize = 512;
const OF_ONE: usize = 16;
/// A surprise that is greater by no more than a tenth and one bit is the same again: no job is of the same size twice.
const AGAIN: (f64, f64) = (1.1, std::f64::consts::LN_2);

/// What is accepted of one question about one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The question.
    pub question: Question,
    /// Whom it calls; empty where that does not matter.
    pub object: String,
    /// The oddest answer that was withheld, in thousandths of a bit.
    pub most_millibits: u32,
    /// Its surprise, in thousandths.
    pub most_x_milli: u64,
    /// Events that were withheld.
    pub events: u64,
}

/// An acceptance. Its times are event times, as it is events that it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Full name of the identity.
    pub identity: String,
    /// Only this question, where one was named.
    pub question: Option<Question>,
    /// Only this object, where one was named.
    pub object: Option<String>,
    /// Who has accepted it.
    pub by: String,
    /// Why.
    pub why: String,
    /// From when on.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// What was accepted.
    pub parts: Vec<Part>,
    /// Events of which it has hidden something.
    pub hid_events: u64,
    /// Bits of answers that it has hidden.
    pub hid_bits: f64,
    /// The last of these events.
    pub hid_last: Option<Timestamp>,
}

/// What an acceptance would have hidden in the last 21 days.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// Full name of the identity.
    pub identity: String,
    /// What was withheld, the oddest first.
    pub withheld: Vec<Withheld>,
    /// Names of the inputs, by the numbers in the positions.
    pub inputs: Vec<String>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Acceptances {
    of: HashMap<String, Vec<Acceptance>, FixedState>,
    /// Events of which something was hidden, of acceptances that have ended too.
    hidden: u64,
}

/// What of one event's answers is accepted.
#[derive(Debug)]
pub(crate) struct Excuse {
    who: Arc<str>,
    parts: Vec<(Question, f64)>,
    /// Which of the identity's acceptances they are of.
    of: Vec<usize>,
}

impl Excuse {
    /// Whether an answer counts that may be accepted.
    pub(crate) fn may_hide(&self, values: &EValues) -> bool {
        self.parts.iter().any(|(question, _)| values.answer(*question).is_some_and(|e| e > 1.0))
    }

    /// Takes off the answers what is accepted, by the surprises that they are of; the bits that are hidden.
    pub(crate) fn take_off(&self, values: &mut EValues, surprises: &[(Question, f64)]) -> f64 {
        let mut hidden = 0.0;
        for &(question, accepted) in &self.parts {
            let x = surprises.iter().find(|(asked, _)| *asked == question).map_or(f64::INFINITY, |(_, x)| *x);
            let bits = values.answer(question).map_or(0.0, libm::log2);
            if bits > 0.0 && x <= accepted * AGAIN.0 + AGAIN.1 {
                hidden += bits;
                values.limit(question, 1.0);
            }
        }
        hidden
    }
}

impl Acceptances {
    /// Those of one identity, or of all, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Acceptance> {
        let mut all: Vec<&Acceptance> = self.of.values().flatten().collect();
        all.sort_by(|a, b| (&a.identity, a.since).cmp(&(&b.identity, b.since)));
        all.into_iter()
    }

    /// What of an event's answers is accepted at `now`.
    #[inline]
    pub(crate) fn excuse(&self, names: &Names, ids: Ids, now: Timestamp) -> Option<Excuse> {
        if self.of.is_empty() {
            return None;
        }
        let of = self.of.get(names.text(ids.source))?;
        let whom = names.text(ids.destination);
        let mut excuse = Excuse { who: names.shared(ids.source), parts: Vec::new(), of: Vec::new() };
        for (index, acceptance) in of.iter().enumerate().filter(|(_, of)| (of.since..=of.until).contains(&now)) {
            let parts = acceptance.parts.iter().filter(|part| part.object.is_empty() || part.object == whom);
            let before = excuse.parts.len();
            excuse.parts.extend(parts.map(|part| (part.question, part.most_x_milli as f64 / 1000.0)));
            if excuse.parts.len() > before {
                excuse.of.push(index);
            }
        }
        (!excuse.parts.is_empty()).then_some(excuse)
    }

    /// Counts what was hidden of an event.
    pub(crate) fn note(&mut self, excuse: &Excuse, bits: f64, at: Timestamp) {
        self.hidden += 1;
        let Some(all) = self.of.get_mut(&*excuse.who) else { return };
        for &index in &excuse.of {
            if let Some(of) = all.get_mut(index) {
                (of.hid_events, of.hid_bits) = (of.hid_events + 1, of.hid_bits + bits);
                of.hid_last = of.hid_last.max(Some(at));
            }
        }
    }

    /// Puts one in the place of the one before about the same.
    pub(super) fn put(&mut self, new: Acceptance) -> Result<(), Refusal> {
        let standing: usize = self.of.values().map(Vec::len).sum();
        let all = self.of.entry(new.identity.clone()).or_default();
        let before = all.len();
        all.retain(|of| !of.is_about(new.question, new.object.as_deref()));
        if all.len() == before && standing >= MOST {
            self.of.retain(|_, all| !all.is_empty());
            return Err(Refusal::TooMany(MOST));
        }
        if all.len() >= OF_ONE {
            return Err(Refusal::TooMany(OF_ONE));
        }
        all.push(new);
        Ok(())
    }

    /// Takes back the one about this; whether there was one.
    fn withdraw(&mut self, who: &str, question: Option<Question>, object: Option<&str>) -> bool {
        let Some(all) = self.of.get_mut(who) else { return false };
        let before = all.len();
        all.retain(|of| !of.is_about(question, object));
        let was_there = all.len() < before;
        self.of.retain(|_, all| !all.is_empty());
        was_there
    }

    /// Lets go of those that have ended.
    pub(crate) fn end(&mut self, now: Timestamp) {
        if self.of.values().flatten().all(|of| of.until >= now) {
            return;
        }
        self.of.values_mut().for_each(|all| all.retain(|of| of.until >= now));
        self.of.retain(|_, all| !all.is_empty());
    }

    /// Events of which something was hidden so far.
    pub(crate) fn hidden(&self) -> u64 {
        self.hidden
    }
}

impl Acceptance {
    fn is_about(&self, question: Option<Question>, object: Option<&str>) -> bool {
        self.question == question && self.object.as_deref() == object
    }
}

/// Whether a question can be accepted.
pub(super) fn check(question: Option<Question>) -> Result<(), Refusal> {
    match question.filter(|question| question.is_invariant()) {
        Some(question) => Err(Refusal::Invalid(format!(
            "`{}` says that a credential does not add up, which no habit explains: mend what the issuer's log says, or \
             keep the identity out for a time with `lift --hold`",
            question.name()
        ))),
        None => Ok(()),
    }
}

impl Scorer {
    /// What an acceptance would have hidden; `None` where nobody is called so.
    pub fn preview(&self, identity: &str, question: Option<Question>, object: Option<&str>) -> Option<Preview> {
        self.key_of(identity)?;
        let withheld = self.withheld.of(identity, question, object).into_iter().cloned().collect();
        Some(Preview { identity: identity.to_owned(), withheld, inputs: self.inputs.clone() })
    }

    /// Puts into an instruction what it is about, so that its record says all that follows from it.
    pub fn complete(&self, of: &mut Instruction) {
        let Ask::Accept { identity, question, object, lasts: Some(_), parts } = &mut of.ask else { return };
        let part = |of: &Withheld| Part {
            question: of.question,
            object: of.object.clone(),
            // Rounded up, so that the oddest itself is within.
            most_millibits: (of.most_bits * 1000.0).ceil() as u32,
            most_x_milli: (of.most_x * 1000.0).ceil() as u64,
            events: of.events,
        };
        *parts = self.withheld.of(identity, *question, object.as_deref()).into_iter().map(part).collect();
    }

    /// Accepts what an instruction says, or takes an acceptance back; what the caller should know besides.
    pub(super) fn accept(&mut self, of: &Instruction) -> Result<Vec<String>, Refusal> {
        let Ask::Accept { identity, question, object, lasts, parts } = &of.ask else { return Ok(Vec::new()) };
        let Some(lasts) = lasts else {
            return match self.accepted.withdraw(identity, *question, object.as_deref()) {
                true => Ok(Vec::new()),
                false => Err(Refusal::NothingAccepted(identity.clone())),
            };
        };
        if parts.is_empty() {
            return Err(Refusal::NothingWithheld(identity.clone()));
        }
        self.accepted.put(Acceptance {
            identity: identity.clone(),
            question: *question,
            object: object.clone(),
            by: of.by.clone(),
            why: of.why.clone(),
            since: of.event,
            until: of.event + *lasts,
            parts: parts.clone(),
            hid_events: 0,
            hid_bits: 0.0,
            hid_last: None,
        })?;
        let stands = self.lines().into_iter().find(|line| line.subject().identity() == *identity);
        let note = stands.map(|line| {
            format!("it stands at {} by what it did before, until that ends; `lift` ends it now", line.entry.level)
        });
        Ok(note.into_iter().collect())
    }

    /// Acceptances that stand.
    pub fn acceptances(&self) -> impl Iterator<Item = &Acceptance> {
        self.accepted.iter()
    }

    /// Events of which acceptances have hidden something so far, and answers that there was no room to remember.
    pub fn hidden(&self) -> (u64, u64) {
        (self.accepted.hidden(), self.withheld.left_out())
    }
}

/// The shortest and the longest time for which something is accepted.
pub const LASTS: (Span, Span) = (Span::HOUR, Span(30 * Span::DAY.0));
