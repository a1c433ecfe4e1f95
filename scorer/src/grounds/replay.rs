//! A decision of the journal recomputed from the inputs in its record.

use serde_json::{Map, Value};

use super::{Kept, VERSION, model};
use crate::{
    operator::{Ask, Instruction, orders},
    table::Subject,
    verdict::{Cause, Ordered, Verdict},
};

/// What the recomputation of a decision has shown.
#[derive(Debug, Clone, PartialEq)]
pub enum Replayed {
    /// The same to the last bit.
    Identical,
    /// Something else follows from the inputs, or they are not what they were.
    Differs(Vec<Difference>),
    /// Its record has no inputs: a release before kept none, or it was set by an operator and the instruction is not
    /// at hand.
    NoInputs,
    /// A later release has kept the inputs in a way that this one does not know.
    Newer(u32),
}

/// One field of a decision that is not what follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The field's name in the record.
    pub field: String,
    /// What the record says, JSON.
    pub recorded: String,
    /// What follows from the inputs, JSON.
    pub recomputed: String,
}

/// Recomputes a decision from the inputs in its record.
pub fn replay(verdict: &Verdict) -> Replayed {
    let Some(kept) = verdict.grounds.as_deref() else { return Replayed::NoInputs };
    if kept.inputs.version > VERSION {
        return Replayed::Newer(kept.inputs.version);
    }
    let mut differences = Vec::new();
    if !kept.is_whole() {
        differences.push(Difference {
            field: "grounds".to_owned(),
            recorded: format!("digest {}", kept.digest),
            recomputed: format!("digest {}: an input was changed", Kept::of(kept.inputs.clone()).digest),
        });
    }
    match kept.inputs.verdict() {
        Some(follows) => differences.extend(compared(verdict, &follows)),
        None => differences.push(Difference {
            field: "level".to_owned(),
            recorded: verdict.level.to_string(),
            recomputed: "no decision follows".to_owned(),
        }),
    }
    of(differences)
}

/// Recomputes what an operator's instruction has brought about. What it ended was decided otherwise: of that only whose
/// word it was, and when, follows from it.
pub fn replay_order(instruction: &Instruction, verdict: &Verdict) -> Replayed {
    let by = Ordered { by: instruction.by.clone(), why: instruction.why.clone(), ..Ordered::default() };
    let mut follows = Verdict { decided: instruction.at, ..verdict.clone() };
    match &instruction.ask {
        Ask::Set { identity, instance, level, lease, in_shadow, overrides } => {
            let subject = Subject { instance: instance.clone(), ..verdict.subject.clone() };
            follows.identity.clone_from(identity);
            (follows.time, follows.episode) = (instruction.event, instruction.event);
            (follows.level, follows.cause) = (*level, Cause::Ordered);
            (follows.lease, follows.expires) = (Some(*lease), Some(instruction.at + *lease));
            follows.decision = orders::decision_id(&subject, *level, instruction);
            follows.subject = subject;
            follows.order = Some(Ordered { in_shadow: *in_shadow, overrides: overrides.clone(), ..by });
        }
        Ask::Lift { identity, .. } => {
            follows.identity.clone_from(identity);
            follows.level = qualm_model::level::Level::Trusted;
            (follows.lease, follows.expires, follows.enforce) = (None, None, false);
            let before = verdict.order.clone().unwrap_or_default();
            follows.order = Some(Ordered { in_shadow: before.in_shadow, overrides: before.overrides, ..by });
        }
        _ => return Replayed::NoInputs,
    }
    of(compared(verdict, &follows))
}

/// Whether this release judges as the one that kept these inputs.
pub fn is_of_this_model(verdict: &Verdict) -> bool {
    verdict.grounds.as_deref().is_none_or(|kept| kept.inputs.model == model())
}

fn of(differences: Vec<Difference>) -> Replayed {
    if differences.is_empty() { Replayed::Identical } else { Replayed::Differs(differences) }
}

/// The fields that differ; numbers by every digit that tells them from their neighbours.
fn compared(recorded: &Verdict, follows: &Verdict) -> Vec<Difference> {
    let (recorded, follows) = (fields(recorded), fields(follows));
    let names = recorded.keys().chain(follows.keys().filter(|name| !recorded.contains_key(*name)));
    let told = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    names
        .filter(|name| recorded.get(*name) != follows.get(*name))
        .map(|name| Difference {
            field: name.clone(),
            recorded: told(recorded.get(name)),
            recomputed: told(follows.get(name)),
        })
        .collect()
}

fn fields(verdict: &Verdict) -> Map<String, Value> {
    // What is told to people beside the decision does not follow from its inputs.
    let bare = Verdict {
        grounds: None,
        carried_by: Vec::new(),
        incident: None,
        announced: None,
        dependants: None,
        ..verdict.clone()
    };
    match serde_json::to_value(bare) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}
