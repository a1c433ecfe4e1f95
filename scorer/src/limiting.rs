//! What each limited subject may still do: filled into the table, and the same for as long as a decision stands, so that
//! what proxies hold changes only where something has been decided.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use qualm_model::time::Timestamp;

use crate::{
    mesh::SourceKey,
    scorer::Scorer,
    standing::Standing,
    table::{Known, Reachable, Subject, TrustEntry},
};

/// What was known of each subject when its decision was first told, by the decision's id.
#[derive(Debug, Default)]
pub(crate) struct Knowns(Mutex<BTreeMap<String, Arc<Known>>>);

impl Scorer {
    /// Says of every entry that limits its subject what the subject was known for when the episode began.
    pub(crate) fn tell_known(&self, entries: &mut [TrustEntry], begun: impl Fn(&TrustEntry) -> Timestamp) {
        let mut knowns = self.knowns.0.lock().unwrap_or_else(PoisonError::into_inner);
        let limited = |entry: &TrustEntry| entry.level.limits();
        knowns.retain(|decision, _| entries.iter().any(|entry| entry.decision == *decision));
        for entry in entries.iter_mut().filter(|entry| limited(entry)) {
            let decision = entry.decision.clone();
            let known = knowns.entry(decision).or_insert_with(|| Arc::new(self.known_of(&entry.subject, begun(entry))));
            entry.known = Some(self.with_fallbacks(known, &entry.subject));
        }
    }

    /// Whether the calls of an identity are limited in number, by evidence or by an operator.
    pub(crate) fn is_throttled(&self, key: SourceKey) -> bool {
        // What a bound holds back is limited at a lower level.
        let by_evidence = self.standings.get(&key).is_some_and(Standing::limits) || self.waiting.contains_key(&key);
        by_evidence || {
            let identity = self.identity_of(key);
            self.orders.about(identity).any(|order| order.enforce && order.level.limits())
        }
    }

    fn known_of(&self, subject: &Subject, before: Timestamp) -> Known {
        let key = self.key_of(&subject.identity());
        key.map_or_else(Known::default, |(shard, source)| {
            self.shards[usize::from(shard)].known_of(source, before, self.calls_a_record)
        })
    }

    fn with_fallbacks(&self, known: &Arc<Known>, subject: &Subject) -> Arc<Known> {
        let declared: Vec<_> = self.config.enforce.fallbacks_of(&subject.principal).collect();
        if declared.is_empty() {
            return Arc::clone(known);
        }
        Arc::new(Known { declared, ..Known::clone(known) })
    }

    /// What stays open to everybody at every level.
    pub fn reachable(&self) -> Reachable {
        let enforce = &self.config.enforce;
        Reachable { destinations: enforce.reachable.clone(), paths: enforce.reachable_paths.clone() }
    }
}
