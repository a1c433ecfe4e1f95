//! How much of the mesh may be denied on behaviour: never the last healthy replica of a service, not more than a share of
//! its replicas, of the mesh's traffic, of all identities; and nothing new while records are missing.
//!
//! What is held back for one of these is no lesser suspicion, so it is not let go either: it acts as the highest level
//! that the bound allows ([`HeldBy::instead`]), and is weighed again every few seconds. A person's word disregards all of
//! it but `max_share` and `protected`.

mod traffic;

use std::collections::BTreeSet;

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::traffic::{Traffic, Usual};
use crate::{
    breaker,
    config::Mode,
    grounds::{Grounds, Policy, Step},
    mesh::SourceKey,
    scorer::Scorer,
    shard::{Instance, Source},
    standing::Standing,
    table::{Subject, TrustEntry, short_name},
    verdict::{Cause, Dependants, Verdict},
};

/// A replica is healthy this long after its last call, where nobody tells of pods.
const HEALTHY: Span = Span(10 * Span::MINUTE.0);
/// What acts is not held back before its siblings have been silent for so long: one that calls now and then is no reason
/// to go to and fro.
const GONE: Span = Span(20 * Span::MINUTE.0);
/// Two that were heard side by side for so long are replicas of one service, and not a pod and its successor.
const SIDE_BY_SIDE: Span = Span(30 * Span::MINUTE.0);
/// What is held back is weighed again no more often than this.
const EVERY: Span = Span::seconds(5);
/// Dependants that are named.
const NAMED: usize = 16;

/// Why an entry does not act as it says although the mode lets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBy {
    /// The operator protects it.
    Protected,
    /// Too many came to be limited at once.
    CircuitBreaker,
    /// As many identities are denied as may be.
    MaxShare,
    /// It is the last healthy replica of a service that had several.
    LastReplica,
    /// Too many replicas of its service would be denied.
    ReplicaShare,
    /// Too much of the mesh's traffic would be denied.
    TrafficShare,
    /// Records are missing.
    Gap,
}

impl HeldBy {
    /// The level at which the entry acts meanwhile; `None` where it is a shadow until its lease is renewed.
    pub fn instead(self) -> Option<Level> {
        match self {
            Self::Protected | Self::CircuitBreaker => None,
            // What *restricted* leaves of a service is what it is known for.
            Self::ReplicaShare => Some(Level::Restricted),
            Self::MaxShare | Self::LastReplica | Self::TrafficShare | Self::Gap => Some(Level::Throttled),
        }
    }
}

/// Which bound holds an entry back, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Withheld {
    pub(crate) by: HeldBy,
    pub(crate) why: String,
}

/// The replicas of one service, and what an entry would leave of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Replicas {
    /// That were heard side by side within a day, or are there now.
    pub(crate) known: usize,
    /// That are healthy.
    pub(crate) healthy: usize,
    /// Healthy ones that are denied already, by a person.
    pub(crate) denied: usize,
    /// Healthy ones that would be let through.
    pub(crate) left: usize,
    /// The share of the healthy that may be denied.
    pub(crate) most: f64,
}

impl Replicas {
    /// Whether the one that would be denied is the last healthy one of several.
    fn is_last(self) -> bool {
        self.left == 0 && self.known >= 2 && self.healthy.saturating_sub(self.denied) == 1
    }

    fn is_too_many(self) -> bool {
        let denied = self.healthy - self.left;
        denied >= 2 && denied as f64 > self.most * self.healthy as f64
    }
}

impl Policy {
    /// Why an entry at `level` is not to act as it says; `is_denied` where its identity is denied already, so that no
    /// more of the mesh would be.
    pub(crate) fn withheld(&self, level: Level, is_denied: bool) -> Option<Withheld> {
        let held = |by, why| Some(Withheld { by, why });
        if !level.limits() || self.mode == Mode::Shadow {
            return None;
        }
        if self.is_protected {
            return held(HeldBy::Protected, "protected by the operator".to_owned());
        }
        if let Some(crowd) = self.crowd {
            return held(HeldBy::CircuitBreaker, breaker::why(crowd));
        }
        if !level.denies() {
            return None;
        }
        if self.replicas.is_some_and(Replicas::is_last) {
            let why = "it is the last healthy replica of its service: throttled until a sibling is healthy, or an \
                       operator denies it";
            return held(HeldBy::LastReplica, why.to_owned());
        }
        if let Some(of) = self.replicas.filter(|of| level >= Level::Quarantined && of.is_too_many()) {
            let (denied, most) = (of.healthy - of.left, of.most * 100.0);
            let why = format!(
                "{denied} of {} healthy replicas of its service would be denied, at most {most:.0} % may be \
                 ([enforce] max_replica_share): restricted meanwhile",
                of.healthy
            );
            return held(HeldBy::ReplicaShare, why);
        }
        if is_denied {
            return None;
        }
        if self.is_blind {
            let why =
                "records are missing from the last ten minutes: throttled until nothing has been lost for so long";
            return held(HeldBy::Gap, why.to_owned());
        }
        if let Some((denied, most)) = self.reach.filter(|(denied, most)| denied >= most) {
            let why = format!("blast radius: {denied} of at most {most} identities are denied already: throttled");
            return held(HeldBy::MaxShare, why);
        }
        let of = self.traffic.filter(|of| of.denied > 0.0 && of.denied + of.own > of.most)?;
        let why = format!(
            "blast radius: {:.0} % of the mesh's usual calls are denied already, with its own it would be {:.0} %, at \
             most {:.0} % may be ([enforce] max_traffic_share): throttled",
            of.denied * 100.0,
            (of.denied + of.own) * 100.0,
            of.most * 100.0
        );
        held(HeldBy::TrafficShare, why)
    }
}

impl Scorer {
    /// Says in the grounds of a step how far it would reach.
    pub(crate) fn tell_reach(&self, grounds: &mut Grounds, level: Level) {
        let is_asked = match &grounds.step {
            Step::Reached(_) => true,
            // What was held back is weighed anew.
            Step::LeaseEnded => grounds.before.as_ref().is_some_and(|before| before.held),
            Step::Mandate { .. } => false,
        };
        if is_asked && self.config.enforce.mode == Mode::Enforce && level.limits() {
            let (subject, times) = (grounds.subject(), (grounds.now, grounds.wall));
            self.bound(&mut grounds.policy, &subject, level, times, &Usual::default());
        }
    }

    fn bound(
        &self,
        policy: &mut Policy,
        subject: &Subject,
        level: Level,
        (now, wall): (Timestamp, Timestamp),
        usual: &Usual,
    ) {
        policy.crowd = self.crowd_with(&subject.principal, (now, wall));
        if !level.denies() {
            return;
        }
        let identity = subject.identity();
        let denied: BTreeSet<String> = self.denied().into_iter().filter(|other| *other != identity).collect();
        policy.reach = Some((denied.len(), self.most_denied(now)));
        policy.is_blind = self.estate.is_blind(now);
        let Some(key) = self.key_of(&identity) else { return };
        policy.replicas = self.replicas(key, subject, now, HEALTHY);
        policy.traffic = self.traffic((key, subject), &denied, now, usual);
    }

    /// Why what stands would not act as it says, were it decided now.
    pub(crate) fn held(&self, standing: &Standing, times: (Timestamp, Timestamp), usual: &Usual) -> Option<Withheld> {
        let mut policy = self.policy(&standing.subject.principal);
        self.bound(&mut policy, &standing.subject, standing.level, times, usual);
        policy.withheld(standing.level, standing.denies())
    }

    /// Replicas of the service of `subject`, where a sibling that was not heard `within` so long is not healthy.
    fn replicas(&self, key: SourceKey, subject: &Subject, now: Timestamp, within: Span) -> Option<Replicas> {
        let shard = &self.shards[usize::from(key.0)];
        let source = shard.sources.get(&key.1)?;
        let pods = self.tenancies.addresses_of(subject);
        let calling = source.instances.iter().filter(|instance| now - instance.last <= within);
        let mut healthy: BTreeSet<&str> = if pods.is_empty() {
            // Whoever is denied is not heard, and is none the less there.
            calling.map(|instance| shard.names.text(instance.address)).chain(subject.instance.as_deref()).collect()
        } else {
            pods
        };
        // Who has no address cannot be told from the others.
        healthy.remove("");
        let identity = subject.identity();
        let by_hand = || self.orders.about(&identity).filter(|order| order.denies()).map(|order| &order.subject);
        let is_denied = |of: &str| by_hand().any(|by| by.instance.as_deref().is_none_or(|instance| instance == of));
        let denied = healthy.iter().filter(|of| is_denied(of)).count();
        let is_left = |of: &str| subject.instance.as_deref().is_some_and(|instance| instance != of) && !is_denied(of);
        Some(Replicas {
            known: side_by_side(source, now).max(healthy.len()),
            denied,
            left: healthy.iter().filter(|of| is_left(of)).count(),
            healthy: healthy.len(),
            most: self.config.enforce.max_replica_share,
        })
    }

    /// Who calls the service of a subject: whom it hurts where that can no longer call.
    pub(crate) fn dependants(&self, subject: &Subject, now: Timestamp) -> Dependants {
        let short = short_name(&subject.principal);
        let mut calling: Vec<(f64, &str)> = Vec::new();
        for shard in &self.shards {
            let names = [Some(subject.principal.as_str()), short.as_deref()].into_iter().flatten();
            let ids: Vec<u32> = names.filter_map(|name| shard.names.known(name)).collect();
            if ids.is_empty() {
                continue;
            }
            let edges = shard.edges.iter();
            let edges = edges.filter(|((_, to), edge)| ids.contains(to) && now - edge.last <= Span::DAY);
            calling.extend(edges.map(|((from, _), edge)| (edge.baseline.calls_a_day(), shard.names.text(*from))));
        }
        calling.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        let mut seen = BTreeSet::new();
        let named: Vec<&str> = calling.into_iter().map(|(_, name)| name).filter(|name| seen.insert(*name)).collect();
        Dependants { count: named.len(), names: named.into_iter().take(NAMED).map(str::to_owned).collect() }
    }

    /// Notes which bound holds back what a verdict has left standing.
    pub(crate) fn note_held(&mut self, key: SourceKey, by: Option<HeldBy>) {
        match by.filter(|by| by.instead().is_some()) {
            Some(by) => drop(self.waiting.insert(key, by)),
            None => drop(self.waiting.remove(&key)),
        }
    }

    /// The line of the table of what stands: where a bound holds it back, at the highest level that this allows.
    pub(crate) fn entry_of(&self, key: SourceKey, standing: &Standing) -> Option<TrustEntry> {
        let entry = standing.entry()?;
        let instead = self.waiting.get(&key).and_then(|by| by.instead()).filter(|_| standing.held);
        match instead.filter(|level| *level < entry.level) {
            Some(level) => Some(TrustEntry { level, enforce: standing.enforce, ..entry }),
            None => Some(entry),
        }
    }

    /// Weighs again what a bound holds back, and whether what acts has come to be all that is left of its service.
    pub(crate) fn weigh_held(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        if self.weighed.is_some_and(|last| (Span(0)..EVERY).contains(&(wall - last))) {
            return;
        }
        self.weighed = Some(wall);
        let Self { waiting, standings, .. } = self;
        waiting.retain(|key, _| standings.get(key).is_some_and(|standing| standing.held));
        let now = self.watermark.now().unwrap_or(wall);
        // Without telemetry of today nobody knows who is healthy.
        if wall - now > self.config.enforce.max_age.0 || self.config.enforce.mode == Mode::Shadow {
            return;
        }
        self.free(now, wall, verdicts);
        self.spare_last(now, wall, verdicts);
    }

    fn free(&mut self, now: Timestamp, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let usual = Usual::default();
        for (key, reading) in self.strongest_first(self.waiting.keys().copied().collect()) {
            let Some(standing) = self.standings.get(&key) else { continue };
            let stands = standing.expires > wall
                && !standing.historic
                && self.is_enforceable(&standing.subject)
                && standing.supported(self.mesh.thresholds(), reading) == standing.level;
            if !stands {
                continue;
            }
            let (held, standing) = (self.held(standing, (now, wall), &usual), standing.clone());
            match held {
                None => {
                    let freed = Standing { held: false, ..standing };
                    self.waiting.remove(&key);
                    verdicts.extend(self.mandated(key, &freed, (Cause::Freed, None), wall));
                    self.standings.insert(key, freed);
                }
                // Another bound may allow more: with a sibling back all of a service is *restricted*.
                Some(other) if other.by.instead().is_some() && self.waiting.get(&key) != Some(&other.by) => {
                    self.note_held(key, Some(other.by));
                    verdicts.extend(self.mandated(key, &standing, (Cause::Held, Some(other)), wall));
                }
                Some(_) => {}
            }
        }
    }

    /// Holds back what denies one replica whose siblings have gone since.
    fn spare_last(&mut self, now: Timestamp, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let acts = |standing: &Standing| standing.denies() && standing.subject.instance.is_some();
        let acting = self.standings.iter().filter(|(_, standing)| acts(standing));
        let is_last = |(key, standing): &(&SourceKey, &Standing)| {
            self.replicas(**key, &standing.subject, now, GONE).is_some_and(Replicas::is_last)
        };
        let last: Vec<SourceKey> = acting.filter(is_last).map(|(key, _)| *key).collect();
        for (key, _) in self.strongest_first(last) {
            let Some(standing) = self.standings.get(&key) else { continue };
            let why = "its siblings are gone, it is the last healthy replica of its service: throttled until one is \
                       healthy, or an operator denies it";
            let held = Standing { held: true, ..standing.clone() };
            self.note_held(key, Some(HeldBy::LastReplica));
            let withheld = Withheld { by: HeldBy::LastReplica, why: why.to_owned() };
            verdicts.extend(self.mandated(key, &held, (Cause::Held, Some(withheld)), wall));
            self.standings.insert(key, held);
        }
    }
}

/// How many instances of the last day were heard beside another one for long enough to be its sibling.
fn side_by_side(source: &Source, now: Timestamp) -> usize {
    let recent: Vec<&Instance> = source.instances.iter().filter(|instance| now - instance.last <= Span::DAY).collect();
    let beside = |one: &Instance, other: &Instance| {
        one.address != other.address && one.last.min(other.last) - one.first.max(other.first) >= SIDE_BY_SIDE
    };
    recent.iter().filter(|one| recent.iter().any(|other| beside(one, other))).count()
}

#[cfg(test)]
mod tests;
