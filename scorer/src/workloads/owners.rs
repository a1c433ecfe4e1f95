//! Which services call under the name of a principal, and since when they do so side by side.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::FixedState;
use qualm_model::{baseline::CallRates, detector::Observation, time::Timestamp};
use serde::{Deserialize, Serialize};

use super::{Part, TOGETHER, exposure_since, hour};

/// Principals kept; of those that one service has, the oldest are forgotten first.
const KEPT: usize = 1 << 14;
/// Principals looked at to find one that is not shared.
const LOOKED_AT: usize = 64;
/// Services kept of one principal; the calls of further ones stay the principal's own.
const OWNERS: usize = 32;
/// Hours after which a service that is not heard any more is none of them: of those that are not judged on their own, and
/// of those that are.
const LEFT: i64 = 7 * 24;
const LEFT_FOR_LONG: i64 = 21 * 24;

/// All principals under whose names services of which is known who they are have called.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Principals {
    by: HashMap<Arc<str>, Owners, FixedState>,
    /// In the order in which they were first heard.
    order: VecDeque<Arc<str>>,
    /// Those of whose owners some are to be judged on their own.
    due: Vec<Arc<str>>,
    /// How many are shared.
    shared: usize,
    pub(super) beyond: u64,
    pub(super) forgotten: u64,
}

/// The services of one principal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Owners {
    /// The latest hour in which one was heard.
    hour: i64,
    list: Vec<Owner>,
    is_shared: bool,
}

/// A service that calls under the name of a principal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Owner {
    service: Arc<str>,
    /// The hour in which it was last heard.
    heard: i64,
    /// Hours in which another was heard too, and the last of them.
    together: u16,
    counted: i64,
    /// Since when its calls are counted.
    since: Timestamp,
    rates: Option<Box<CallRates>>,
    is_judged: bool,
}

/// What a call shows of those who have its principal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heard {
    /// The principal and the place of the caller among its owners, where there are several and it is one of them.
    pub(super) owner: Option<(Arc<str>, usize)>,
    /// Whether there are several.
    pub(super) is_several: bool,
    pub(super) news: News,
}

/// How far it is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It was known.
    None,
    /// It was not heard in this hour before.
    Heard,
    /// There are others than before.
    Others,
}

impl Heard {
    const NOTHING: Self = Self { owner: None, is_several: false, news: News::None };
}

impl Owner {
    fn new(service: &Arc<str>, now: Timestamp) -> Self {
        Self {
            service: Arc::clone(service),
            heard: hour(now) - 1,
            together: 0,
            counted: i64::MIN,
            since: now,
            rates: None,
            is_judged: false,
        }
    }
}

impl Owners {
    /// The place of a service, made where there is room for it.
    fn place(&mut self, service: &Arc<str>, now: Timestamp, news: &mut News) -> Option<usize> {
        if let Some(place) = self.list.iter().position(|owner| owner.service == *service) {
            return Some(place);
        }
        if self.list.len() == OWNERS {
            let may_go = |owner: &&Owner| !owner.is_judged && hour(now) - owner.heard > 1;
            let least = self.list.iter().filter(may_go);
            let least = least.min_by(|a, b| (a.together, a.heard, &a.service).cmp(&(b.together, b.heard, &b.service)));
            let gone = Arc::clone(&least?.service);
            self.list.retain(|owner| owner.service != gone);
        }
        self.list.push(Owner::new(service, now));
        *news = News::Others;
        // From now on there is something to be told apart.
        if let [first, _] = self.list.as_mut_slice()
            && !first.is_judged
        {
            first.since = now;
        }
        Some(self.list.len() - 1)
    }

    /// Lets go of those that are not heard any more.
    fn begin(&mut self, hour: i64, news: &mut News) {
        self.hour = hour;
        let before = self.list.len();
        self.list.retain(|owner| hour - owner.heard <= if owner.is_judged { LEFT_FOR_LONG } else { LEFT });
        if self.list.len() < 2 {
            self.list.iter_mut().for_each(|owner| owner.rates = None);
        }
        if self.list.len() < before {
            *news = News::Others;
        }
    }

    /// Whether the one at `place`, not heard in this hour before, or another has been beside others for long enough now.
    fn hear(&mut self, place: usize) -> bool {
        let hour = self.hour;
        self.list[place].heard = hour;
        if self.list.iter().filter(|owner| owner.heard == hour).count() < 2 {
            return false;
        }
        for owner in self.list.iter_mut().filter(|owner| owner.heard == hour && owner.counted < hour) {
            owner.counted = hour;
            owner.together = owner.together.saturating_add(1);
        }
        let is_proven = |owner: &&Owner| owner.together >= TOGETHER;
        let proven = self.list.iter().filter(is_proven).count();
        proven >= 2 && self.list.iter().filter(is_proven).any(|owner| !owner.is_judged)
    }
}

impl Principals {
    /// A call under the name of `identity`, by `service` where that is known.
    pub(super) fn hear(&mut self, identity: &str, service: Option<&Arc<str>>, now: Timestamp) -> Heard {
        let Some(service) = service else { return self.known(identity, None) };
        let mut news = News::None;
        if !self.by.contains_key(identity) && !self.make(identity, &mut news) {
            return Heard::NOTHING;
        }
        let key = self.by.get_key_value(identity).map(|(key, _)| Arc::clone(key));
        let Some((key, owners)) = key.zip(self.by.get_mut(identity)) else { return Heard::NOTHING };
        if hour(now) > owners.hour {
            owners.begin(hour(now), &mut news);
        }
        let Some(place) = owners.place(service, now, &mut news) else {
            self.beyond += 1;
            return Heard { owner: None, is_several: true, news };
        };
        // What comes late shows nothing of who is there now.
        if hour(now) == owners.hour && owners.list[place].heard < owners.hour {
            if owners.hear(place) && !self.due.contains(&key) {
                self.due.push(Arc::clone(&key));
            }
            news = if news == News::None { News::Heard } else { news };
        }
        let is_several = owners.list.len() >= 2 || owners.is_shared;
        Heard { owner: is_several.then_some((key, place)), is_several, news }
    }

    /// The same of a call that shows nothing.
    pub(super) fn known(&self, identity: &str, service: Option<&Arc<str>>) -> Heard {
        let Some((key, owners)) = self.by.get_key_value(identity) else { return Heard::NOTHING };
        let is_several = owners.list.len() >= 2 || owners.is_shared;
        let place = service.and_then(|service| owners.list.iter().position(|owner| owner.service == *service));
        let owner = place.filter(|_| is_several).map(|place| (Arc::clone(key), place));
        Heard { owner, is_several, news: News::None }
    }

    /// Makes a place for a principal. Whether there was room.
    fn make(&mut self, identity: &str, news: &mut News) -> bool {
        if self.order.len() >= KEPT {
            let mut looked_at = 0;
            loop {
                let Some(oldest) = self.order.pop_front() else { return false };
                if self.by.get(&oldest).is_none_or(|owners| !owners.is_shared) {
                    self.by.remove(&oldest);
                    self.forgotten += 1;
                    *news = News::Others;
                    break;
                }
                self.order.push_back(oldest);
                looked_at += 1;
                if looked_at == LOOKED_AT {
                    self.beyond += 1;
                    return false;
                }
            }
        }
        let identity: Arc<str> = Arc::from(identity);
        self.order.push_back(Arc::clone(&identity));
        self.by.insert(identity, Owners { hour: i64::MIN, ..Owners::default() });
        true
    }

    /// Counts a call of one of several.
    pub(super) fn count(&mut self, identity: &str, place: usize, seen: Observation) {
        let owner = self.by.get_mut(identity).and_then(|owners| owners.list.get_mut(place));
        let Some(owner) = owner.filter(|owner| !owner.is_judged) else { return };
        let exposure = exposure_since(owner.since, seen.exposure);
        owner.rates.get_or_insert_default().learn(&Observation { exposure, ..seen });
    }

    /// The service at a place among the owners, where it is judged on its own.
    pub(super) fn judged(&self, identity: &str, place: usize) -> Option<Arc<str>> {
        let owner = self.by.get(identity)?.list.get(place)?;
        owner.is_judged.then(|| Arc::clone(&owner.service))
    }

    /// Those that are judged on their own from now on, by name.
    pub(super) fn take_due(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        for identity in std::mem::take(&mut self.due) {
            let Some(owners) = self.by.get_mut(&identity) else { continue };
            let proven = owners.list.iter_mut().filter(|owner| owner.together >= TOGETHER && !owner.is_judged);
            for owner in proven {
                owner.is_judged = true;
                let rates = owner.rates.take().map(|rates| *rates).unwrap_or_default();
                let (identity, workload) = (Arc::clone(&identity), Arc::clone(&owner.service));
                parts.push(Part { identity, workload, since: owner.since, rates });
            }
            self.shared += usize::from(!owners.is_shared);
            owners.is_shared = true;
        }
        parts.sort_by(|a, b| (&a.identity, &a.workload).cmp(&(&b.identity, &b.workload)));
        parts
    }

    pub(super) fn is_any_shared(&self) -> bool {
        self.shared > 0
    }

    /// The owners of a shared principal that are judged on their own, by name; none where all but one have left.
    pub(super) fn co_owners(&self, identity: &str) -> Vec<String> {
        let Some(owners) = self.by.get(identity).filter(|owners| owners.is_shared) else { return Vec::new() };
        let judged = owners.list.iter().filter(|owner| owner.is_judged);
        let mut names: Vec<String> = judged.map(|owner| owner.service.to_string()).collect();
        names.sort_unstable();
        if names.len() < 2 { Vec::new() } else { names }
    }

    /// Since when the calls of a service were counted, where it is judged on its own.
    pub(super) fn since(&self, identity: &str, service: &str) -> Option<Timestamp> {
        let mut judged = self.by.get(identity)?.list.iter().filter(|owner| owner.is_judged);
        judged.find(|owner| *owner.service == *service).map(|owner| owner.since)
    }

    /// Principals that are shared, and services that are judged on their own.
    pub(super) fn shared(&self) -> (usize, usize) {
        let shared = self.by.values().filter(|owners| owners.is_shared);
        let judged = |owners: &Owners| owners.list.iter().filter(|owner| owner.is_judged).count();
        (self.shared, shared.map(judged).sum())
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let owners: usize = self.by.values().map(|owners| owners.list.len()).sum();
        let several: usize = self.by.values().filter(|owners| owners.list.len() >= 2).map(|it| it.list.len()).sum();
        self.by.len() * (2 * size_of::<Owners>() + 192)
            + owners * (size_of::<Owner>() + 64)
            + several * (size_of::<CallRates>() + 16)
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::time::Span;

    use super::*;

    const SHARED: &str = "spiffe://mesh.test/ns/shop/sa/default";

    fn at(hours: i64) -> Timestamp {
        Timestamp(1_700_000_000_000_000_000 + hours * Span::HOUR.0)
    }

    fn hear(principals: &mut Principals, service: &str, hours: i64) -> Heard {
        principals.hear(SHARED, Some(&Arc::from(service)), at(hours))
    }

    #[test]
    fn two_services_that_call_side_by_side_for_a_day_share_their_principal() {
        let mut principals = Principals::default();
        for hours in 0..i64::from(TOGETHER) {
            assert!(principals.take_due().is_empty(), "not before {hours} hours");
            hear(&mut principals, "cart", hours);
            hear(&mut principals, "report", hours);
        }
        let parts: Vec<_> = principals.take_due().into_iter().map(|part| part.workload).collect();
        assert_eq!(parts, [Arc::from("cart"), Arc::from("report")]);
        assert_eq!(principals.co_owners(SHARED), ["cart", "report"]);
        // One more is heard for as long before it is judged on its own.
        for hours in 30..30 + i64::from(TOGETHER) {
            assert!(principals.take_due().is_empty());
            hear(&mut principals, "cart", hours);
            let (_, place) = hear(&mut principals, "mail", hours).owner.expect("one of three");
            assert_eq!(principals.judged(SHARED, place), None);
        }
        assert_eq!(principals.take_due().len(), 1);
        assert_eq!(principals.shared(), (1, 3));
        // Whoever remains when the others have left has it alone.
        for hours in [300, 60 + LEFT_FOR_LONG] {
            hear(&mut principals, "cart", hours);
        }
        assert_eq!((principals.co_owners(SHARED).len(), principals.shared()), (0, (1, 1)));
    }

    #[test]
    fn what_replaces_another_service_shares_nothing_with_it() {
        let mut principals = Principals::default();
        for hours in 0..400 {
            // One comes every hundred hours, and takes ten to replace the one before.
            hear(&mut principals, &format!("s{}", hours / 100), hours);
            if hours % 100 < 10 && hours > 100 {
                hear(&mut principals, &format!("s{}", hours / 100 - 1), hours);
            }
        }
        assert!(principals.take_due().is_empty());
        hear(&mut principals, "s3", 310 + LEFT);
        assert_eq!(principals.by[SHARED].list.len(), 1, "who has left is let go of");
    }

    #[test]
    fn late_words_show_nobody_side_by_side() {
        let mut principals = Principals::default();
        for hours in 0..100 {
            hear(&mut principals, "cart", hours);
        }
        for hours in 0..99 {
            hear(&mut principals, "report", hours);
        }
        assert!(principals.take_due().is_empty());
    }

    #[test]
    fn made_up_names_are_bounded_and_do_not_drive_out_whoever_is_judged() {
        let mut principals = Principals::default();
        for hours in 0..i64::from(TOGETHER) {
            hear(&mut principals, "cart", hours);
            hear(&mut principals, "report", hours);
        }
        principals.take_due();
        for n in 0..10_000 {
            hear(&mut principals, &format!("made-up-{n}"), 30 + n / 100);
        }
        assert_eq!(principals.by[SHARED].list.len(), OWNERS);
        assert!(principals.beyond > 0);
        assert_eq!(principals.co_owners(SHARED), ["cart", "report"]);
        for n in 0..KEPT + 5 {
            principals.hear(&format!("spiffe://mesh.test/ns/x/sa/s{n}"), Some(&Arc::from("cart")), at(300));
        }
        assert_eq!(principals.by.len(), KEPT);
        assert_eq!(principals.co_owners(SHARED).len(), 2, "and a shared principal is not forgotten for them");
    }
}
