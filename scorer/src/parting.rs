//! When workloads that share a principal become sources of their own, and what may be done to one of them: never anything
//! to the principal as a whole, since that would cut off those who did nothing.

use std::collections::{BTreeMap, BTreeSet};

use qualm_model::time::Timestamp;

pub use crate::workloads::SharedPrincipals;
use crate::{
    mesh::SourceKey,
    operator::orders::Order,
    scorer::Scorer,
    shard::{Parting, Split, shard_of},
    table::Subject,
    verdict::{Cause, Verdict},
    workloads::{self, Part},
};

impl Scorer {
    /// Makes sources of the workloads that have been seen side by side for long enough by now.
    pub(crate) fn part_workloads(&mut self, now: Timestamp, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let parts = self.workloads.take_due();
        let mut shared = BTreeSet::new();
        for part in parts {
            self.part(&part, now);
            shared.insert(part.identity);
        }
        if !shared.is_empty() {
            if !self.announced.is_empty() {
                self.tell_sources_what_is_announced();
            }
            let is_whole = |subject: &Subject| {
                let identity = workloads::name(&subject.principal, subject.cluster.as_deref(), None);
                subject.instance.is_none() && shared.contains(&*identity)
            };
            let whole = self.acting(is_whole);
            verdicts.extend(whole.into_iter().filter_map(|key| self.spare(key, wall)));
        }
        if self.workloads.take_moved() {
            self.spare_successors(now, wall, verdicts);
        }
    }

    fn part(&mut self, part: &Part, now: Timestamp) {
        let index = usize::from(shard_of(&part.identity));
        let shard = &mut self.shards[index];
        let whole = shard.names.id(&part.identity);
        let Some(source) = shard.sources.get(&whole) else { return };
        let mut split = Split::default();
        for (place, instance) in source.instances.iter().enumerate() {
            let at = (shard.names.text(instance.address), source.cluster.as_deref().unwrap_or_default());
            let of = self.workloads.last_at(at, instance.last, &source.principal, &self.tenancies);
            split.note(place, of.as_deref(), &part.workload);
        }
        let name = workloads::name(&source.principal, source.cluster.as_deref(), Some(&part.workload));
        let parting = Parting {
            whole,
            part: shard.names.id(&name),
            workload: part.workload.clone(),
            since: part.since,
            rates: part.rates,
            split,
        };
        self.used += shard.part(&parting, now);
    }

    /// An address that entries are narrowed to may be another workload's by now: those are shadows from here on.
    fn spare_successors(&mut self, now: Timestamp, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let has_left = |subject: &Subject| {
            let (Some(workload), Some(ip)) = (&subject.workload, &subject.instance) else { return false };
            let at = (&**ip, subject.cluster.as_deref().unwrap_or_default());
            !self.workloads.is_at(at, now, (&subject.principal, workload), &self.tenancies)
        };
        let left = self.acting(has_left);
        verdicts.extend(left.into_iter().filter_map(|key| self.spare(key, wall)));
    }

    /// Makes shadows of what acts on the address of a pod that has ended by `wall`: whoever has the address next has done
    /// nothing. It stays a shadow until its lease ends.
    pub fn spare_addresses(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let is_gone = |subject: &Subject, since: Timestamp| {
            let cluster = subject.cluster.as_deref().unwrap_or_default();
            subject.instance.as_deref().is_some_and(|ip| self.tenancies.has_left(ip, cluster, since, wall))
        };
        let standings = self.standings.iter().filter(|(_, standing)| standing.enforce);
        let gone = standings.filter(|(_, standing)| is_gone(&standing.subject, standing.decided));
        let mut gone: Vec<SourceKey> = gone.map(|(key, _)| *key).collect();
        gone.sort_by(|a, b| self.identity_of(*a).cmp(self.identity_of(*b)));
        let orders = self.orders.iter().filter(|order| order.enforce && is_gone(&order.subject, order.decided));
        let orders: Vec<Order> = orders.map(|order| Order { enforce: false, ..order.clone() }).collect();
        verdicts.extend(gone.into_iter().filter_map(|key| self.spare(key, wall)));
        for order in orders {
            verdicts.push(self.ordered(&order, order.level, wall));
            self.orders.iter_mut().filter(|of| of.subject == order.subject).for_each(|of| of.enforce = false);
        }
    }

    /// Whoever is acted on and is such a subject, by name.
    fn acting(&self, is_such: impl Fn(&Subject) -> bool) -> Vec<SourceKey> {
        let such = self.standings.iter().filter(|(_, standing)| standing.enforce && is_such(&standing.subject));
        let mut keys: Vec<SourceKey> = such.map(|(key, _)| *key).collect();
        keys.sort_by(|a, b| self.identity_of(*a).cmp(self.identity_of(*b)));
        keys
    }

    /// Makes a shadow of what stands.
    fn spare(&mut self, key: SourceKey, wall: Timestamp) -> Option<Verdict> {
        let mut standing = self.standings.remove(&key)?;
        (standing.enforce, standing.held) = (false, false);
        let told = self.mandated(key, &standing, (Cause::Shared, None), wall);
        self.standings.insert(key, standing);
        told
    }

    /// Whether what stands against a subject may act on it and on nobody else.
    pub(crate) fn is_enforceable(&self, subject: &Subject) -> bool {
        subject.instance.is_some() || !self.workloads.is_shared(&subject.principal, subject.cluster.as_deref())
    }

    /// The workloads that share the principal of a subject, by name; none where it has it alone.
    pub(crate) fn co_owners(&self, subject: &Subject) -> Vec<String> {
        self.workloads.co_owners(&subject.principal, subject.cluster.as_deref())
    }

    /// Principals that several workloads share.
    pub fn shared_principals(&self) -> SharedPrincipals {
        self.workloads.shared()
    }

    /// Principals that several workloads share, each with the workloads that are judged on their own.
    pub fn parted(&self) -> BTreeMap<String, Vec<String>> {
        let mut parted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for source in self.shards.iter().flat_map(|shard| shard.sources.values()) {
            if let Some(workload) = &source.workload {
                let principal = workloads::name(&source.principal, source.cluster.as_deref(), None);
                parted.entry(principal).or_default().push(workload.to_string());
            }
        }
        parted.values_mut().for_each(|workloads| workloads.sort());
        parted
    }

    /// Gives to sources and standings of a snapshot what is in their names alone.
    pub(crate) fn name_workloads(&mut self) {
        for shard in &mut self.shards {
            for (id, source) in &mut shard.sources {
                let (principal, cluster) = (&*source.principal, source.cluster.as_deref());
                let Some(workload) = workloads::workload_in(shard.names.text(*id), principal, cluster) else {
                    continue;
                };
                source.since = self.workloads.since(principal, cluster, workload);
                source.workload = Some(workload.into());
            }
        }
        let names = |key: SourceKey| self.shards[usize::from(key.0)].names.text(key.1);
        self.standings.for_each(|key, standing| {
            let Subject { principal, cluster, .. } = &standing.subject;
            let workload = workloads::workload_in(names(key), principal, cluster.as_deref());
            standing.subject.workload = workload.map(str::to_owned);
        });
    }
}
