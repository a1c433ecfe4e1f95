//! Which workload makes a call, where several share one principal: all pods of a namespace that name no service account
//! of their own have `sa/default`.
//!
//! Who sits at an address is known from whoever reports its own end, or from the orchestrator ([`Tenancies`]). A principal
//! under whose name two services have called side by side in [`TOGETHER`] distinct hours is *shared*: from then on each
//! of them is judged on its own. Versions of one service, replicas, Jobs and what replaces one another never come that
//! far. Calls from an address of which nothing is known stay the principal's own: nothing is guessed.
//!
//! # Layout
//! - this file: the caller of an event, and what the rest of the scorer asks
//! - `seats`: which pod is at which address
//! - `owners`: which services call under a principal's name, and since when side by side
//! - `memo`: what is known of an event without being looked up again

mod memo;
mod owners;
mod seats;

use std::{fmt::Write as _, sync::Arc};

use qualm_model::{
    baseline::CallRates,
    detector::Observation,
    event::{Event, PartyView, Reporter},
    identity::{service_of_workload, workload_of_pod},
    stats::Exposure,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use self::{
    memo::{Memo, Sight},
    owners::{News, Principals},
    seats::{Claimed, Seats},
};
use crate::estate::{Resolved, Sitting, Tenancies};

/// Hours in which services have to be heard side by side: a whole day of each, so that what a rollout, a canary or a
/// change of colours takes is less, and every hour of the day is counted in what is usual for them.
const TOGETHER: u16 = 24;
/// Begins the principals that are looked at: those that a mesh gives to service accounts.
const ACCOUNT: &str = "spiffe://";
/// Stands between the name of an identity and that of the workload; no SPIFFE ID has it.
const MARK: char = '#';

/// Everything that is known; in the snapshot under a key of its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Workloads {
    seats: Seats,
    principals: Principals,
    /// Whether an address of which is known whose it is has become another's since that was last asked.
    moved: bool,
    /// Whether it is not as the last snapshot has it.
    #[serde(skip)]
    pub(crate) is_changed: bool,
    #[serde(skip)]
    memo: Memo,
}

/// Who makes a call, beyond its principal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    /// The workload, where it is judged on its own.
    pub(crate) workload: Option<Arc<str>>,
    /// The principal and the place of the workload among its owners, where its calls are being counted.
    counted: Option<(Arc<str>, usize)>,
}

/// What the same sight of a caller would show again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Nothing,
    Perhaps,
}

/// A service that is to be judged on its own from now on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// Name of the shared identity.
    pub(crate) identity: Arc<str>,
    pub(crate) workload: Arc<str>,
    /// Since when its calls were counted, and how many they were.
    pub(crate) since: Timestamp,
    pub(crate) rates: CallRates,
}

/// How many principals are shared, and by how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharedPrincipals {
    /// Principals under which several workloads call.
    pub principals: usize,
    /// Workloads that are judged on their own because of that.
    pub workloads: usize,
    /// Calls of workloads for which there was no room; they stay the principal's own.
    pub beyond: u64,
    /// Addresses and principals forgotten for want of room.
    pub forgotten: u64,
}

/// The name of an identity as outputs give it: `<principal>[@<cluster>][#<workload>]`.
pub(crate) fn write_name(text: &mut String, principal: &str, cluster: &str, workload: Option<&str>) {
    text.clear();
    text.push_str(principal);
    // Writing to a string cannot fail.
    if !cluster.is_empty() {
        let _ = write!(text, "@{cluster}");
    }
    if let Some(workload) = workload {
        let _ = write!(text, "{MARK}{workload}");
    }
}

/// What `write_name` gives.
pub(crate) fn name(principal: &str, cluster: Option<&str>, workload: Option<&str>) -> String {
    let mut text = String::new();
    write_name(&mut text, principal, cluster.unwrap_or_default(), workload);
    text
}

/// The workload in the name of an identity of this principal and cluster.
pub(crate) fn workload_in<'a>(name: &'a str, principal: &str, cluster: Option<&str>) -> Option<&'a str> {
    let rest = name.strip_prefix(principal)?;
    let rest = match cluster {
        Some(cluster) => rest.strip_prefix('@')?.strip_prefix(cluster)?,
        None => rest,
    };
    rest.strip_prefix(MARK)
}

/// The name of an identity without any workload: parts of a principal are kept where it is.
pub(crate) fn of_principal(name: &str) -> &str {
    if !name.starts_with(ACCOUNT) {
        return name;
    }
    name.rsplit_once(MARK).map_or(name, |(principal, _)| principal)
}

impl Workloads {
    /// Forgets what keys of the batch before meant.
    pub(crate) fn open(&mut self) {
        self.memo.open();
    }

    /// Learns from an event who sits where and who calls under which name, and says who calls.
    #[inline]
    pub(crate) fn caller(&mut self, event: Event<'_>, resolved: &Resolved, tenancies: &Tenancies) -> Caller {
        self.take_seat(event);
        if self.seats.is_empty() && tenancies.is_empty() {
            return Caller::default();
        }
        if let Some(resolved) = &resolved.source {
            return self.look(event, resolved, tenancies).0;
        }
        let sight = Sight::of_caller(event);
        if self.memo.holds(&sight) {
            return Caller::default();
        }
        let (caller, again) = self.look(event, event.source().principal(), tenancies);
        if again == Again::Nothing {
            self.memo.note(sight);
        }
        caller
    }

    /// Whoever reports its own end sits at the address that it has.
    #[inline]
    fn take_seat(&mut self, event: Event<'_>) {
        let Some(sight) = Sight::of_own_end(event) else { return };
        if self.memo.holds(&sight) {
            return;
        }
        let own = if sight.is_source() { event.source() } else { event.destination() };
        let ip = own.ip();
        if ip.is_empty() || ip.starts_with("127.") || ip == "::1" {
            return;
        }
        let (place, now) = (place(ip, own.cluster()), event.report());
        match self.seats.claim(&place, own.instance(), || service_of(own), now) {
            Claimed::Late => return,
            Claimed::Again => {}
            claimed => {
                self.is_changed = true;
                self.moved |= claimed == Claimed::Other;
                self.memo.forget();
            }
        }
        self.memo.note(sight);
    }

    /// Who calls, and what the same sight again would show.
    fn look(&mut self, event: Event<'_>, principal: &str, tenancies: &Tenancies) -> (Caller, Again) {
        let party = event.source();
        if !principal.starts_with(ACCOUNT) || principal.contains(MARK) || party.cluster().contains(MARK) {
            return (Caller::default(), Again::Nothing);
        }
        let own_word = says_itself(event).then(|| service_of(party)).filter(|service| !service.is_empty());
        let workload: Option<Arc<str>> = match own_word {
            Some(service) => Some(Arc::from(service)),
            None => self.sitting_at(party.ip(), party.cluster(), event.start(), principal, tenancies),
        };
        let identity = name(principal, Some(party.cluster()).filter(|cluster| !cluster.is_empty()), None);
        // A bare name shows nobody to share anything, unless its own proxy says it of itself.
        let is_shown = party.provenance().may_enforce() || own_word.is_some();
        let heard = match is_shown {
            true => self.principals.hear(&identity, workload.as_ref(), event.report()),
            false => self.principals.known(&identity, workload.as_ref()),
        };
        self.is_changed |= heard.news != News::None;
        if heard.news == News::Others {
            self.memo.forget();
        }
        // Where it is not known who sits there, a call that began at another time may show more.
        let is_settled = !heard.is_several && (workload.is_some() || !is_shown);
        let again = if is_settled { Again::Nothing } else { Again::Perhaps };
        let Some((identity, place)) = heard.owner else { return (Caller::default(), again) };
        let workload = self.principals.judged(&identity, place);
        let counted = workload.is_none().then_some((identity, place));
        (Caller { workload, counted }, again)
    }

    /// The service at an address then, as far as that is known.
    fn sitting_at(
        &self,
        ip: &str,
        cluster: &str,
        at: Timestamp,
        principal: &str,
        tenancies: &Tenancies,
    ) -> Option<Arc<str>> {
        if ip.is_empty() {
            return None;
        }
        let place = place(ip, cluster);
        match tenancies.sitting(&place, at, principal) {
            Sitting::Untold => self.seats.holder(&place, at).cloned(),
            Sitting::Nobody => None,
            Sitting::Workload(workload) => Some(Arc::from(service_of_workload(workload, ""))),
        }
    }

    /// The service that was at an address when it was last heard from there, however long ago that is.
    pub(crate) fn last_at(
        &self,
        (ip, cluster): (&str, &str),
        last: Timestamp,
        principal: &str,
        tenancies: &Tenancies,
    ) -> Option<Arc<str>> {
        let place = place(ip, cluster);
        match tenancies.sitting(&place, last, principal) {
            Sitting::Untold => self.seats.last_holder(&place, last).cloned(),
            Sitting::Nobody => None,
            Sitting::Workload(workload) => Some(Arc::from(service_of_workload(workload, ""))),
        }
    }

    /// Whether a workload is still at an address, as far as is known.
    pub(crate) fn is_at(
        &self,
        (ip, cluster): (&str, &str),
        now: Timestamp,
        (principal, workload): (&str, &str),
        tenancies: &Tenancies,
    ) -> bool {
        let place = place(ip, cluster);
        match tenancies.sitting(&place, now, principal) {
            Sitting::Untold => self.seats.holder(&place, now).is_none_or(|known| **known == *workload),
            Sitting::Nobody => false,
            Sitting::Workload(known) => service_of_workload(known, "") == workload,
        }
    }

    /// An orchestrator has told of pods: some may have left.
    pub(crate) fn note_moved(&mut self) {
        self.moved = true;
        self.is_changed = true;
    }

    /// Counts a call that is judged, of a workload that may be judged on its own some day.
    pub(crate) fn count(&mut self, caller: &Caller, seen: Observation) {
        if let Some((identity, place)) = &caller.counted {
            self.principals.count(identity, *place, seen);
            self.is_changed = true;
        }
    }

    /// Those that are to be judged on their own from now on, by name.
    pub(crate) fn take_due(&mut self) -> Vec<Part> {
        let due = self.principals.take_due();
        if !due.is_empty() {
            self.is_changed = true;
            self.memo.forget();
        }
        due
    }

    /// Whether somebody may sit where another sat when this was asked last.
    pub(crate) fn take_moved(&mut self) -> bool {
        let moved = std::mem::take(&mut self.moved) && self.principals.is_any_shared();
        self.is_changed |= moved;
        moved
    }

    /// The workloads that share a principal, by name; none where it is one's own.
    pub(crate) fn co_owners(&self, principal: &str, cluster: Option<&str>) -> Vec<String> {
        if !self.principals.is_any_shared() {
            return Vec::new();
        }
        self.principals.co_owners(&name(principal, cluster, None))
    }

    /// Whether several workloads share a principal.
    pub(crate) fn is_shared(&self, principal: &str, cluster: Option<&str>) -> bool {
        !self.co_owners(principal, cluster).is_empty()
    }

    /// Since when a workload's calls were counted, where it is judged on its own.
    pub(crate) fn since(&self, principal: &str, cluster: Option<&str>, workload: &str) -> Option<Timestamp> {
        self.principals.since(&name(principal, cluster, None), workload)
    }

    /// The part that calls from an address with the name of an identity, as that is known now.
    pub(crate) fn part_at(&self, identity: &str, ip: &str, at: Timestamp, tenancies: &Tenancies) -> Option<Arc<str>> {
        if !self.principals.is_any_shared() || ip.is_empty() {
            return None;
        }
        let (principal, cluster) = identity.rsplit_once('@').unwrap_or((identity, ""));
        let workload = self.sitting_at(ip, cluster, at, principal, tenancies)?;
        self.principals.since(identity, &workload).map(|_| workload)
    }

    /// How many are shared.
    pub(crate) fn shared(&self) -> SharedPrincipals {
        let (principals, workloads) = self.principals.shared();
        let forgotten = self.seats.forgotten + self.principals.forgotten;
        SharedPrincipals { principals, workloads, beyond: self.principals.beyond, forgotten }
    }

    /// Bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.seats.bytes() + self.principals.bytes()
    }
}

impl Caller {
    /// Whether its calls are being counted.
    #[inline]
    pub(crate) fn is_counted(&self) -> bool {
        self.counted.is_some()
    }
}

/// The part of an exposure that is a workload's own: it was not looked at before it was counted.
pub(crate) fn exposure_since(since: Timestamp, exposure: Exposure) -> Exposure {
    Exposure { birth: since.max(exposure.birth), ..exposure }
}

/// Whether the event is the caller's own proxy's word, or that of its node's ztunnel, which stands for its pods.
fn says_itself(event: Event<'_>) -> bool {
    matches!(event.reporter(), Reporter::Source | Reporter::Ztunnel)
}

/// The service that a party names by its pod; empty where it names none.
fn service_of<'a>(party: PartyView<'a>) -> &'a str {
    service_of_workload(workload_of_pod(party.instance()), party.version())
}

/// What an address is in its cluster.
fn place(ip: &str, cluster: &str) -> String {
    let mut place = ip.to_owned();
    if !cluster.is_empty() {
        let _ = write!(place, "@{cluster}");
    }
    place
}

/// The hour of a time.
fn hour(time: Timestamp) -> i64 {
    time.window(Span::HOUR)
}
