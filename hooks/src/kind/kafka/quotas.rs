//! Quotas of a user lowered, also those of single client ids, which go before the user's own.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Kafka, USER,
    wire::{Change, Quotas, alter_quotas, altered_quotas, describe_quotas, described_quotas},
};
use crate::{
    hook::{Effect, Failure, Found, Undone},
    order::Order,
};

/// Entities that one order changes at most.
const MOST: usize = 256;
/// A user that nobody is: what would be allowed is asked about it.
const NOBODY: &str = "qualm-asks-whether-it-may";

type Entity = Vec<(String, Option<String>)>;

/// One quota of one entity: as it was, and as it is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Lowered {
    entity: Entity,
    key: String,
    was: Option<f64>,
    is: f64,
}

impl Kafka {
    pub(super) fn read_quotas(&self, order: &Order) -> Result<Found, Failure> {
        let principal = self.principal_of(order)?;
        let user = principal.strip_prefix(USER).unwrap_or(&principal).to_owned();
        let mut entities = self.brokers.call(&describe_quotas(&user), described_quotas)?;
        let own: Entity = vec![("user".to_owned(), Some(user.clone()))];
        if !entities.iter().any(|of| of.entity == own) {
            entities.push(Quotas { entity: own, values: Vec::new() });
        }
        if entities.len() > MOST {
            return Ok(Found::Nothing(format!("{user} has quotas of {} client ids: too many", entities.len())));
        }
        let mut lowered = Vec::new();
        for of in entities {
            for (key, rate) in self.rates {
                let was = quota(&of.values, key);
                if was.is_none_or(|was| was > rate) {
                    lowered.push(Lowered { entity: of.entity.clone(), key: key.to_owned(), was, is: rate });
                }
            }
        }
        if lowered.is_empty() {
            return Ok(Found::Nothing(format!("{user} has quotas as low as that already")));
        }
        Ok(Found::Target { name: principal, before: json!({ "user": user, "lowered": lowered }) })
    }

    pub(super) fn lower(&self, before: &Value) -> Result<(), Failure> {
        let changes = lowered(before).into_iter().map(|of| (of.entity, of.key, Some(of.is)));
        self.brokers.call(&alter_quotas(&gathered(changes), false), altered_quotas)
    }

    pub(super) fn look_at_quotas(&self, before: &Value) -> Result<Effect, Failure> {
        let are = self.are(before)?;
        let holds = |of: &Lowered| current(&are, of) == Some(of.is);
        Ok(if lowered(before).iter().all(holds) { Effect::InPlace } else { Effect::Absent })
    }

    pub(super) fn raise_again(&self, before: &Value) -> Result<Undone, Failure> {
        let are = self.are(before)?;
        let (mut changes, mut foreign) = (Vec::new(), Vec::new());
        for of in lowered(before) {
            match current(&are, &of) {
                Some(is) if is == of.is => changes.push((of.entity, of.key, of.was)),
                // As one that was given back before a kill looks.
                is if is == of.was => {}
                _ => foreign.push(of.key),
            }
        }
        if !changes.is_empty() {
            self.brokers.call(&alter_quotas(&gathered(changes.into_iter()), false), altered_quotas)?;
        }
        if foreign.is_empty() {
            return Ok(Undone::Restored);
        }
        foreign.dedup();
        Ok(Undone::Foreign(format!("{} was set by somebody else meanwhile, and is left", foreign.join(", "))))
    }

    fn are(&self, before: &Value) -> Result<Vec<Quotas>, Failure> {
        let user = before["user"].as_str().unwrap_or_default();
        self.brokers.call(&describe_quotas(user), described_quotas)
    }

    /// Asks for the quotas of nobody, and whether they might be changed.
    pub(super) fn probe_quotas(&self) -> Result<(), Failure> {
        self.brokers.call(&describe_quotas(NOBODY), described_quotas)?;
        let entity = vec![("user".to_owned(), Some(NOBODY.to_owned()))];
        let change = Change { entity, values: vec![("producer_byte_rate".to_owned(), None)] };
        self.brokers.call(&alter_quotas(&[change], true), altered_quotas)
    }
}

fn lowered(before: &Value) -> Vec<Lowered> {
    serde_json::from_value(before["lowered"].clone()).unwrap_or_default()
}

fn quota(values: &[(String, f64)], key: &str) -> Option<f64> {
    values.iter().find(|(of, _)| of == key).map(|(_, value)| *value)
}

fn current(are: &[Quotas], of: &Lowered) -> Option<f64> {
    are.iter().find(|is| is_same(&is.entity, &of.entity)).and_then(|is| quota(&is.values, &of.key))
}

/// Brokers name the parts of an entity in any order.
fn is_same(one: &Entity, other: &Entity) -> bool {
    one.len() == other.len() && one.iter().all(|part| other.contains(part))
}

/// One change an entity, as brokers take no entity twice.
fn gathered(quotas: impl Iterator<Item = (Entity, String, Option<f64>)>) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for (entity, key, value) in quotas {
        match changes.iter_mut().find(|change| change.entity == entity) {
            Some(change) => change.values.push((key, value)),
            None => changes.push(Change { entity, values: vec![(key, value)] }),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_of_one_entity_go_in_one_change_whatever_their_order() {
        let user = ("user".to_owned(), Some("cart".to_owned()));
        let client = ("client-id".to_owned(), None);
        let [whole, narrow] = [vec![user.clone()], vec![user.clone(), client.clone()]];
        let quotas = [(whole.clone(), "a", Some(1.0)), (narrow.clone(), "a", None), (whole, "b", None)];
        let changes = gathered(quotas.into_iter().map(|(entity, key, value)| (entity, key.to_owned(), value)));
        assert_eq!((changes.len(), changes[0].values.len(), changes[1].values.len()), (2, 2, 1));
        assert!(is_same(&narrow, &vec![client, user]));
    }
}
