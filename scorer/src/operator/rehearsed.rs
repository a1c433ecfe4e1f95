//! The last 24 hours of one identity through a level's rule: what it would have denied, whom that would have hit, and who
//! would be left to serve. Read from the state as it is, changing nothing.
//!
//! What the rules are: *watched* and *throttled* deny nothing for good (*throttled* puts off what is beyond the hour's usual
//! calls, which is told as denied), *restricted* lets through what the identity was known for before, *quarantined* denies
//! every new call.

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};

use super::look::PeerCalls;
use crate::{
    mesh::SourceKey,
    operator::orders::Order,
    scorer::Scorer,
    shard::{Edge, Source},
};

/// Destinations and callers that are told, each.
const TOLD: usize = 100;
/// What is at least so old is what an identity is known for.
const KNOWN_AFTER: Span = Span::DAY;

/// What would have been.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsal {
    /// The identity's full name.
    pub identity: String,
    /// The level.
    pub level: Level,
    /// Calls that it made.
    pub calls: f64,
    /// Of these, those that would have been denied.
    pub denied: f64,
    /// From when on calls were counted, event time.
    pub since: Timestamp,
    /// Whom it would have called in vain, the most first.
    pub destinations: Vec<Denied>,
    /// Of these, those left out for want of room.
    pub destinations_left_out: usize,
    /// Who calls it, the most first; `calls_a_day` are those of the last 24 hours.
    pub callers: Vec<PeerCalls>,
    /// Of these, those left out for want of room.
    pub callers_left_out: usize,
    /// Its replicas that called within ten minutes.
    pub instances: Vec<String>,
    /// Of these, those that would still be let through.
    pub instances_left: Vec<String>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// Calls to one destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Denied {
    /// The destination.
    pub destination: String,
    /// Calls of the last 24 hours.
    pub calls: f64,
    /// Of these, those that would have been denied.
    pub denied: f64,
    /// The last call, event time.
    pub last: Timestamp,
}

impl Scorer {
    /// Rehearses a level for an identity that is known by its full name, or for one instance of it; `None` where it has
    /// made no call that was read.
    pub fn rehearse(&self, identity: &str, instance: Option<&str>, level: Level) -> Option<Rehearsal> {
        let key = self.key_of(identity)?;
        let shard = &self.shards[usize::from(key.0)];
        let source = shard.sources.get(&key.1)?;
        let now = self.watermark.now()?;
        let place = instance
            .and_then(|instance| source.instances.iter().position(|of| shard.names.text(of.address) == instance));
        let mut destinations: Vec<Denied> = shard
            .edges
            .iter()
            .filter(|((from, _), edge)| *from == key.1 && now - edge.last <= Span::DAY)
            .filter(|(_, edge)| instance.is_none() || place.is_some_and(|place| edge.users.has(place)))
            .map(|((_, to), edge)| met(edge, shard.names.text(*to), level, now))
            .collect();
        let (calls, denied) =
            destinations.iter().fold((0.0, 0.0), |(calls, denied), of| (calls + of.calls, denied + of.denied));
        destinations.retain(|of| of.denied > 0.0);
        destinations.sort_by(|a, b| b.denied.total_cmp(&a.denied).then_with(|| a.destination.cmp(&b.destination)));
        let mut callers = self.callers_of(&source.principal, now);
        let (destinations_left_out, callers_left_out) =
            (destinations.len().saturating_sub(TOLD), callers.len().saturating_sub(TOLD));
        destinations.truncate(TOLD);
        callers.truncate(TOLD);
        let instances = self.live_instances(key.0, source, now);
        let instances_left = self.left(key, (instance, level), &instances);
        let notes = self.notes_on_rehearsal(source, (instance, level), (&instances, &instances_left), place.is_some());
        Some(Rehearsal {
            identity: identity.to_owned(),
            level,
            calls,
            denied,
            since: (now - Span::DAY).max(self.mesh.birth().unwrap_or(now)),
            destinations,
            destinations_left_out,
            callers,
            callers_left_out,
            instances,
            instances_left,
            notes,
        })
    }

    /// Whoever calls a principal, by the calls of the last 24 hours.
    fn callers_of(&self, principal: &str, now: Timestamp) -> Vec<PeerCalls> {
        let mut callers = Vec::new();
        for shard in &self.shards {
            let Some(to) = shard.names.known(principal) else { continue };
            let edges = shard.edges.iter().filter(|((_, of), edge)| *of == to && now - edge.last <= Span::DAY);
            callers.extend(edges.map(|((from, _), edge)| PeerCalls {
                destination: shard.names.text(*from).to_owned(),
                calls_a_day: edge.hours.counts(now).iter().sum(),
                last: edge.last,
            }));
        }
        callers.sort_by(|a: &PeerCalls, b| {
            b.calls_a_day.total_cmp(&a.calls_a_day).then_with(|| a.destination.cmp(&b.destination))
        });
        callers
    }

    /// Replicas that would still be let through: not the one meant, nor any that is denied already.
    fn left(&self, key: SourceKey, (instance, level): (Option<&str>, Level), live: &[String]) -> Vec<String> {
        if level < Level::Quarantined {
            return live.to_vec();
        }
        let identity = self.identity_of(key);
        let standing = self.standings.get(&key).filter(|standing| standing.denies()).map(|of| &of.subject);
        let orders = self.orders.about(identity).filter(|order| order.denies()).map(|order: &Order| &order.subject);
        let denied: Vec<Option<&str>> =
            standing.into_iter().chain(orders).map(|subject| subject.instance.as_deref()).chain([instance]).collect();
        let is_left = |address: &&String| denied.iter().all(|of| of.is_some_and(|of| of != address.as_str()));
        live.iter().filter(is_left).cloned().collect()
    }

    fn notes_on_rehearsal(
        &self,
        source: &Source,
        (instance, level): (Option<&str>, Level),
        (live, left): (&[String], &[String]),
        is_known: bool,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        if level >= Level::Quarantined && !live.is_empty() && left.is_empty() {
            notes.push(format!(
                "no healthy replica would be left: all {} that called within ten minutes would be denied, or are",
                live.len()
            ));
        }
        if let Some(instance) = instance {
            notes.push(match is_known {
                true => format!(
                    "calls are counted by identity: these are of all replicas, on the edges that {instance} uses"
                ),
                false => format!("it has not been seen to call from {instance}"),
            });
        }
        if self.config.enforce.protects(&source.principal) {
            notes.push("it is protected by [enforce] `protected`: nothing of this would be denied".to_owned());
        }
        if level == Level::Restricted || level == Level::Throttled {
            notes.push("Envoy marks this level and denies nothing; the trust stream's clients act on it".to_owned());
        }
        notes
    }
}

/// One edge through the rule.
fn met(edge: &Edge, destination: &str, level: Level, now: Timestamp) -> Denied {
    let counts = edge.hours.counts(now);
    let calls: f64 = counts.iter().sum();
    let denied = match level {
        Level::Quarantined | Level::Revoked => calls,
        Level::Restricted if now - edge.users.first() <= KNOWN_AFTER && edge.adopted.is_none() => calls,
        Level::Throttled => counts.iter().map(|count| (count - edge.baseline.most_an_hour()).max(0.0)).sum(),
        _ => 0.0,
    };
    Denied { destination: destination.to_owned(), calls, denied, last: edge.last }
}
