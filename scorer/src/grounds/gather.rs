//! Grounds taken from the scorer, and the verdict that they lead to.

use std::sync::Arc;

use qualm_model::{level::Level, time::Timestamp};

use super::{Grounds, Kept, Policy, Rate, Seen, Step, Track, VERSION, Who, model};
use crate::{
    mesh::{Mesh, SourceKey},
    scorer::Scorer,
    shard::Source,
    standing::{Evidence, Reached, Standing},
    table::Subject,
    verdict::Verdict,
};

impl Scorer {
    /// Says which configuration decides from now on, by its hash: it stands in what decisions are replayed from.
    pub fn name_config(&mut self, hash: &str) {
        hash.clone_into(&mut self.config_hash);
    }

    /// What a step of one identity is decided from, with the standing that it had, or has from now on.
    pub(crate) fn grounds(
        &self,
        key: SourceKey,
        (now, wall): (Timestamp, Timestamp),
        before: Option<Standing>,
        step: Step,
    ) -> Grounds {
        let source = self.shards[usize::from(key.0)].sources.get(&key.1);
        let track = |evidence: &Evidence| Track::of(&self.mesh, evidence);
        let ordinal = before.as_ref().map_or(0, |before| before.ordinal);
        Grounds {
            version: VERSION,
            config: self.config_hash.clone(),
            model: model().to_owned(),
            now,
            wall,
            who: self.who(key, source.map(|source| &**source), before.as_ref(), now),
            own: source.map(|source| track(&source.evidence)),
            claimed: source.and_then(|source| source.claimed.as_deref()).map(track),
            other: source.map(|source| source.other),
            before,
            thresholds: *self.mesh.thresholds(),
            identities: self.mesh.identities(),
            rate: Rate::default(),
            policy: Policy {
                is_protected: source.is_some_and(|source| self.config.enforce.protects(&source.principal)),
                ..self.policy("")
            },
            ordinal,
            step,
        }
    }

    /// Looks up how often such evidence occurs, and, where it would deny, how many are denied. Returns the level that
    /// follows; `None` where no decision does.
    pub(crate) fn look_up(&self, grounds: &mut Grounds) -> Option<Level> {
        let reached = grounds.weigh()?;
        grounds.rate = Rate {
            of_evidence: self.mesh.per_day(reached.pace, reached.m),
            of_threshold: self.mesh.per_day(reached.pace, reached.threshold),
        };
        self.tell_reach(grounds, reached.level);
        Some(reached.level)
    }

    /// What the operator lets happen to a principal, before it is asked how far that would reach.
    pub(crate) fn policy(&self, principal: &str) -> Policy {
        Policy {
            mode: self.config.enforce.mode,
            lease: self.config.lease.clone(),
            max_age: self.config.enforce.max_age.0,
            is_protected: self.config.enforce.protects(principal),
            reach: None,
            is_paused: self.orders.is_paused(),
            crowd: None,
            replicas: None,
            traffic: None,
            is_blind: false,
        }
    }

    fn who(&self, key: SourceKey, source: Option<&Source>, before: Option<&Standing>, now: Timestamp) -> Who {
        let Some(source) = source else {
            let subject = before.map(|before| before.subject.clone());
            return Who {
                principal: subject.as_ref().map(|subject| subject.principal.clone()).unwrap_or_default(),
                cluster: subject.as_ref().and_then(|subject| subject.cluster.clone()),
                workload: subject.as_ref().and_then(|subject| subject.workload.clone()),
                namespace: None,
                instances: Vec::new(),
                is_shared: subject.as_ref().is_some_and(|subject| !self.co_owners(subject).is_empty()),
                co_owners: subject.map(|subject| self.co_owners(&subject)).unwrap_or_default(),
            };
        };
        let (names, live) = (&self.shards[usize::from(key.0)].names, source.live(now));
        let seen = |(place, instance): (usize, &crate::shard::Instance)| Seen {
            address: names.text(instance.address).to_owned(),
            odds: instance.odds,
            is_live: live & (1 << place) != 0,
        };
        Who {
            principal: source.principal.to_string(),
            cluster: source.cluster.as_deref().map(str::to_owned),
            workload: source.workload.as_deref().map(str::to_owned),
            namespace: source.namespace.as_deref().map(str::to_owned),
            instances: source.instances.iter().enumerate().map(seen).collect(),
            is_shared: self.workloads.is_shared(&source.principal, source.cluster.as_deref()),
            co_owners: self.workloads.co_owners(&source.principal, source.cluster.as_deref()),
        }
    }
}

impl Track {
    fn of(mesh: &Mesh, evidence: &Evidence) -> Self {
        Self { evidence: evidence.with_ordinals(), e: evidence.best().map_or(1.0, |best| mesh.e_of_minute(best)) }
    }
}

impl Grounds {
    /// Whom the step is about.
    pub(crate) fn subject(&self) -> Subject {
        match (&self.step, &self.before) {
            (Step::LeaseEnded | Step::Mandate { .. }, Some(before)) => self.who.as_before(before),
            _ => self.who.subject(),
        }
    }

    /// An invariant may have led to a level while the clocks stood still.
    pub(crate) fn settle(&mut self, by: Reached) {
        if self.weigh() != Some(by)
            && let Step::Reached(weighed) = &mut self.step
        {
            weighed.has_moved = false;
        }
    }

    /// The verdict that follows, with its grounds beside it.
    pub(crate) fn decide(self) -> Option<Verdict> {
        let verdict = self.verdict()?;
        Some(Verdict { grounds: Some(Arc::new(Kept::of(self))), ..verdict })
    }
}
