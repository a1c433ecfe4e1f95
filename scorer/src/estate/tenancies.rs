//! Whose address was it when a call began, by what an orchestrator's interface says of its pods.
//!
//! Addresses are used again as soon as a pod has ended. So each is a row of stays, and a record is resolved by its start:
//! a late one goes to whoever was there then. Between two stays, and in a second that two claim, it is nobody's; a node's
//! address is never a workload's. A workload whose certificate was verified at one of its addresses is known by that
//! principal, unless it shares its account with everything that has none of its own. What is resolved like this never
//! leads above *watched*.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
};

use foldhash::fast::FixedState;
use qualm_model::{
    event::PartyView,
    identity::{Provenance, Tenancy, Tenant, service_of_workload},
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use crate::{scorer::Scorer, table::Subject};

/// Addresses kept; those that were left longest ago are forgotten first.
const KEPT: usize = 1 << 16;
/// Stays at one address.
const STAYS: usize = 8;
/// Addresses looked at to find one that nobody has, before one that somebody has is forgotten.
const LOOKED_AT: usize = 64;
/// Accounts whose principals are kept.
const ACCOUNTS: usize = 1 << 14;
/// Kubernetes tells times to the second, cut off.
const PRECISION: Span = Span::SECOND;
/// The account of all pods that name none.
const SHARED_ACCOUNT: &str = "/sa/default";

/// One stay at an address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stay {
    pod: Arc<str>,
    tenant: Tenant,
    since: Timestamp,
    until: Option<Timestamp>,
}

/// A pod that has not ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Open {
    cluster: Arc<str>,
    places: Vec<Arc<str>>,
}

/// The map.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tenancies {
    /// By the address and its cluster; the earliest stay first.
    stays: HashMap<Arc<str>, Vec<Stay>, FixedState>,
    /// In the order in which they were first told.
    order: VecDeque<Arc<str>>,
    /// Pods that have not ended, by their ids.
    open: HashMap<Arc<str>, Open, FixedState>,
    /// Principals by cluster and account.
    principals: HashMap<Arc<str>, Arc<str>, FixedState>,
    forgotten: u64,
    /// Whether it is not as the last snapshot has it.
    #[serde(skip)]
    pub(crate) is_changed: bool,
}

/// What is known of an address at a time.
#[derive(Debug, PartialEq)]
enum Holder<'a> {
    /// Nothing: nobody was told to have it by then.
    Untold,
    /// This one has it.
    Known(&'a Tenant),
    /// Nobody is known to, after this one.
    Left(&'a Tenant),
    /// One of two, or all pods of a node.
    Several,
}

/// The workload at an address, as far as an orchestrator has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sitting<'a> {
    /// Nobody was told to have it.
    Untold,
    /// One of several, one that has left, or one of another account.
    Nobody,
    /// This one, without its namespace.
    Workload(&'a str),
}

/// How many addresses are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodAddresses {
    /// Addresses that are kept.
    pub kept: usize,
    /// Pods that have not ended.
    pub pods: usize,
    /// Addresses forgotten for want of room.
    pub forgotten: u64,
}

impl Tenancies {
    /// Takes what was told of a pod; whether that is news.
    fn take(&mut self, told: &Tenancy) -> bool {
        let places: Vec<Arc<str>> = told.addresses.iter().map(|ip| place(ip, &told.cluster).into()).collect();
        let is_pod = !told.pod.is_empty();
        let before = self.open.get(&told.pod).map(|open| open.places.clone()).unwrap_or_default();
        let mut is_news = false;
        // It has ended, or has another address since its network was made anew.
        for left in before.iter().filter(|before| told.until.is_some() || !places.contains(before)) {
            is_news |= self.leave(left, &told.pod, told.until.unwrap_or(told.told));
        }
        for place in &places {
            // An address that a running pod did not have before is not its own since it was started.
            let moved = !before.is_empty() && !before.contains(place) && told.until.is_none();
            let since = if moved { told.since.max(told.told) } else { told.since };
            let (pod, tenant) = (Arc::clone(&told.pod), told.tenant.clone());
            is_news |= self.stay(place, Stay { pod, tenant, since, until: told.until });
        }
        if is_pod && told.until.is_some() {
            self.open.remove(&told.pod);
        } else if is_pod && !places.is_empty() && is_news {
            self.open.insert(Arc::clone(&told.pod), Open { cluster: Arc::clone(&told.cluster), places });
        }
        self.is_changed |= is_news;
        is_news
    }

    /// Puts a stay among those at its address.
    fn stay(&mut self, place: &Arc<str>, stay: Stay) -> bool {
        if !self.stays.contains_key(place) {
            self.order.push_back(Arc::clone(place));
            self.make_room();
        }
        let stays = self.stays.entry(Arc::clone(place)).or_default();
        if let Some(known) = stays.iter_mut().find(|known| known.pod == stay.pod && known.tenant == stay.tenant) {
            return known.ends(stay.until);
        }
        let at = stays.partition_point(|known| known.since <= stay.since);
        stays.insert(at, stay);
        if stays.len() > STAYS {
            stays.remove(0);
        }
        true
    }

    fn leave(&mut self, place: &str, pod: &str, until: Timestamp) -> bool {
        let mut stays = self.stays.get_mut(place).into_iter().flatten();
        stays.find(|stay| *stay.pod == *pod).is_some_and(|stay| stay.ends(Some(until)))
    }

    /// Forgets an address, where there are too many: if it can be one that nobody has.
    fn make_room(&mut self) {
        if self.order.len() <= KEPT {
            return;
        }
        for _ in 0..LOOKED_AT {
            let Some(oldest) = self.order.pop_front() else { return };
            let is_left = |stays: &Vec<Stay>| stays.iter().all(|stay| stay.until.is_some());
            if self.stays.get(&oldest).is_none_or(is_left) {
                self.forget(&oldest);
                return;
            }
            self.order.push_back(oldest);
        }
        if let Some(oldest) = self.order.pop_front() {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, place: &str) {
        for stay in self.stays.remove(place).into_iter().flatten() {
            self.open.remove(&stay.pod);
        }
        self.forgotten += 1;
    }

    /// The pods of a cluster that have not ended and are not among those that it has, as they are to be told of.
    fn absent(&self, cluster: &str, listed: &BTreeSet<&str>, until: Timestamp) -> Vec<Tenancy> {
        let gone = self.open.iter().filter(|(pod, open)| *open.cluster == *cluster && !listed.contains(&***pod));
        let mut gone: Vec<Tenancy> = gone
            .filter_map(|(pod, open)| {
                let stays = self.stays.get(open.places.first()?)?;
                let stay = stays.iter().find(|stay| stay.pod == *pod)?;
                let (until, tenant) = (Some(until.max(stay.since)), stay.tenant.clone());
                let (cluster, pod) = (Arc::clone(&open.cluster), Arc::clone(pod));
                let (since, addresses) = (stay.since, Vec::new());
                Some(Tenancy { cluster, pod, tenant, addresses, since, until, told: until? })
            })
            .collect();
        gone.sort_by(|a, b| a.pod.cmp(&b.pod));
        gone
    }

    fn holder(&self, place: &str, at: Timestamp) -> Holder<'_> {
        let stays = self.stays.get(place).map(Vec::as_slice).unwrap_or_default();
        // The next one's begin is the end of a stay whose end was not told.
        let before = &stays[..stays.partition_point(|stay| stay.since <= at)];
        let Some((stay, earlier)) = before.split_last() else { return Holder::Untold };
        if stay.tenant == Tenant::Node {
            return Holder::Several;
        }
        let is_other = |other: &&Stay| other.tenant != stay.tenant;
        let is_there = |other: &&Stay| other.until.is_none_or(|until| until >= stay.since);
        let overlaps = at < stay.since + PRECISION && earlier.last().filter(is_other).is_some_and(|it| is_there(&it));
        if overlaps {
            return Holder::Several;
        }
        let has_ended = stay.until.is_some_and(|until| at > until);
        if has_ended { Holder::Left(&stay.tenant) } else { Holder::Known(&stay.tenant) }
    }

    /// Who it is by its address at `at`, where the record has nothing else; `learned` is what the stream itself says.
    pub(super) fn resolve(
        &mut self,
        party: &PartyView<'_>,
        at: Timestamp,
        learned: Option<Arc<str>>,
    ) -> Option<Arc<str>> {
        if self.stays.is_empty() || party.provenance() != Provenance::Name {
            return learned;
        }
        let principal = party.principal();
        let ip = principal.strip_prefix("probe:").unwrap_or(principal);
        if ip.parse::<IpAddr>().is_err() {
            return learned;
        }
        let (name, account) = match self.holder(&place(ip, party.cluster()), at) {
            Holder::Untold => return learned,
            Holder::Several => return None,
            // Whoever has verified itself there since may not have been told of yet.
            Holder::Left(tenant) => return learned.filter(|who| !is_account(tenant, who)),
            Holder::Known(Tenant::Node) => return None,
            Holder::Known(Tenant::Workload { name, account, .. }) => (Arc::clone(name), Arc::clone(account)),
        };
        if account.ends_with(SHARED_ACCOUNT) {
            return Some(name);
        }
        let account_there = place(&account, party.cluster());
        if let Some(known) = self.principals.get(&*account_there) {
            return Some(Arc::clone(known));
        }
        let Some(verified) = learned.filter(|who| who.ends_with(&*account)) else { return Some(name) };
        if self.principals.len() < ACCOUNTS {
            self.principals.insert(account_there.into(), Arc::clone(&verified));
            self.is_changed = true;
        }
        Some(verified)
    }

    /// Whether nobody has told of any pod.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.stays.is_empty()
    }

    /// The workload at `place` at a time, where `principal` is that of its account.
    pub(crate) fn sitting(&self, place: &str, at: Timestamp, principal: &str) -> Sitting<'_> {
        match self.holder(place, at) {
            Holder::Untold => Sitting::Untold,
            Holder::Known(Tenant::Workload { name, account, .. }) if principal.ends_with(&**account) => {
                Sitting::Workload(name.rsplit_once('.').map_or(name, |(workload, _)| workload))
            }
            Holder::Known(_) | Holder::Left(_) | Holder::Several => Sitting::Nobody,
        }
    }

    /// Whether the pod that had an address at `then` does not have it any more at `now`. Where nobody is known to have had
    /// it, nothing is known to have changed.
    pub(crate) fn has_left(&self, ip: &str, cluster: &str, then: Timestamp, now: Timestamp) -> bool {
        let stays = self.stays.get(&*place(ip, cluster)).map(Vec::as_slice).unwrap_or_default();
        let before = stays.partition_point(|stay| stay.since <= then);
        let Some((had, later)) = stays[..before].last().map(|had| (had, &stays[before..])) else { return false };
        let has_ended = had.until.is_some_and(|until| until <= now);
        had.tenant != Tenant::Node && (has_ended || later.iter().any(|next| next.pod != had.pod && next.since <= now))
    }

    /// Addresses of the pods of a subject's account that have not ended; of its workload's alone, where it has one.
    pub(crate) fn addresses_of(&self, subject: &Subject) -> BTreeSet<&str> {
        let cluster = subject.cluster.as_deref().unwrap_or_default();
        let is_of = |tenant: &Tenant| match tenant {
            Tenant::Workload { name, account, .. } => {
                let workload = name.rsplit_once('.').map_or(&**name, |(workload, _)| workload);
                subject.principal.ends_with(&**account)
                    && subject.workload.as_deref().is_none_or(|of| service_of_workload(workload, "") == of)
            }
            Tenant::Node => false,
        };
        let mut addresses = BTreeSet::new();
        for (pod, open) in self.open.iter().filter(|(_, open)| *open.cluster == *cluster) {
            for at in &open.places {
                let stays = self.stays.get(at).map(Vec::as_slice).unwrap_or_default();
                if stays.iter().any(|stay| stay.pod == *pod && is_of(&stay.tenant)) {
                    addresses.insert(at.rsplit_once('@').map_or(&**at, |(ip, _)| ip));
                }
            }
        }
        addresses
    }

    /// Bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let stays = self.order.len() * (2 * size_of::<Stay>() + 256);
        stays + self.open.len() * (size_of::<Open>() + 96) + self.principals.len() * 224
    }
}

impl Stay {
    /// It ended then. Whether that is news: the first word on it counts, as an ended pod does not come back.
    fn ends(&mut self, until: Option<Timestamp>) -> bool {
        let is_news = self.until.is_none() && until.is_some();
        if is_news {
            self.until = until.map(|until| until.max(self.since));
        }
        is_news
    }
}

impl Scorer {
    /// Takes what an orchestrator says of its pods. What of it was news comes back, for the journal: a pod that is told
    /// of again as it was moves nothing. That a pod has ended ends what
    /// acts on its address: [`spare_addresses`](Scorer::spare_addresses).
    pub fn take_tenancies(&mut self, told: Vec<Tenancy>) -> Vec<Tenancy> {
        let news: Vec<Tenancy> = told.into_iter().filter(|tenancy| self.tenancies.take(tenancy)).collect();
        if !news.is_empty() {
            self.workloads.note_moved();
        }
        news
    }

    /// The same, of all pods that a cluster has: those it does not have any more ended by `unseen` at the latest.
    pub fn take_all_tenancies(&mut self, cluster: &str, told: Vec<Tenancy>, unseen: Timestamp) -> Vec<Tenancy> {
        let listed = told.iter().map(|tenancy| &*tenancy.pod).collect();
        let mut all = self.tenancies.absent(cluster, &listed, unseen);
        all.extend(told);
        self.take_tenancies(all)
    }

    /// How many addresses of pods are known.
    pub fn pod_addresses(&self) -> PodAddresses {
        let Tenancies { order, open, forgotten, .. } = &self.tenancies;
        PodAddresses { kept: order.len(), pods: open.len(), forgotten: *forgotten }
    }
}

/// Whether a principal is that of a tenant's account.
fn is_account(tenant: &Tenant, who: &str) -> bool {
    matches!(tenant, Tenant::Workload { account, .. } if who.ends_with(&**account))
}

/// What a text is in its cluster.
fn place(text: &str, cluster: &str) -> String {
    let mut place = text.to_owned();
    if !cluster.is_empty() {
        let _ = write!(place, "@{cluster}");
    }
    place
}

#[cfg(test)]
mod tests;
