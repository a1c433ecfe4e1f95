//! Who shares credentials, and where: a credential that is used outside of the set of those who share it.
//!
//! Many estates hand one SVID to all pods of a node, put gateways and translated addresses between, relay a user's token
//! along a chain of calls, or let the replicas of a service share one. So a second place of a credential says something
//! only where nothing of that is known of whoever holds it: the earlier credentials of the same holder were each used at
//! one place alone, the place is no one that many show their credentials at, it is not on the same node (a /24), and it
//! is not known to belong to the same workload.

use qualm_model::{
    detector::Question,
    event::Event,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::{
    Broken, Ground, Shown,
    custom::Counted,
    hashed,
    issuer::{Invariant, Issuer},
    kept::Kept,
    network,
    usage::Used,
};
use crate::estate::addresses::Addresses;

/// Holders and addresses remembered.
const HOLDERS: usize = 1 << 14;
const CROWDS: usize = 1 << 15;
/// Places kept of one credential.
const PLACES: usize = 8;
/// So many show their credentials at an address that is a gateway's.
const CROWD: usize = 3;
/// Credentials of a holder that must have had one place each before a second place says anything, and before it says all.
const ALONE: u32 = 2;
/// A holder of certificates is known for so long before one of them is enough.
const SETTLED: Span = Span(6 * Span::HOUR.0);
/// A pod that was heard at its address so lately is still there.
const STILL_THERE: Span = Span(2 * Span::MINUTE.0);

/// What is known of those who hold credentials.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Sharing {
    holders: Kept<Holder, HOLDERS>,
    crowds: Kept<Vec<u64>, CROWDS>,
}

/// Who holds credentials of one kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Holder {
    /// When the first one was shown.
    since: Option<Timestamp>,
    /// Credentials of its that were used.
    credentials: u32,
    /// Of these, those that had more places than one, with nothing said against that.
    spread: u32,
    /// Of a pod, where it was heard last.
    pod: Option<(Place, Box<str>)>,
}

/// Where a credential was used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    address: u64,
    network: u64,
    /// Whose the address is, where that is known.
    owner: Option<u64>,
    principal: u64,
    is_v6: bool,
    pub(super) last: Timestamp,
    is_outside: bool,
}

/// Who else shows credentials at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crowd {
    None,
    Many,
}

impl Place {
    /// Whether it is the same place of the same identity.
    fn is_again(&self, other: &Self) -> bool {
        self.address == other.address && self.principal == other.principal
    }

    pub(super) fn is_at(&self, address: &str) -> bool {
        self.address == hashed(address)
    }

    /// Whether two places are one for all that is asked here.
    fn is_same(&self, other: &Self, is_certificate: bool) -> bool {
        let is_near = self.address == other.address || is_certificate && self.network == other.network;
        let is_of_one = self.owner.is_some() && self.owner == other.owner && !is_certificate;
        self.principal == other.principal && (is_near || is_of_one)
    }
}

impl Sharing {
    /// Looks where a credential is used.
    pub(super) fn look(
        &mut self,
        shown: &Shown,
        event: Event<'_>,
        used: &mut Used,
        issuer: &mut Issuer,
        (ground, addresses): (&Ground, &Addresses),
    ) -> Option<Broken> {
        let (address, instance) = (event.source().ip(), event.source().instance());
        if address.is_empty() || address.starts_with("127.") {
            return None;
        }
        let mut place = Place {
            address: hashed(address),
            network: network(address),
            owner: ground.owner.as_deref().map(hashed),
            principal: shown.principal,
            is_v6: address.contains(':'),
            last: event.report(),
            is_outside: false,
        };
        if let Some(known) = used.places.iter_mut().find(|known| known.is_again(&place)) {
            known.last = known.last.max(place.last);
            known.owner = place.owner.or(known.owner);
            place.is_outside = known.is_outside;
            // Where many show theirs it was the first of a gateway.
            place.is_outside &= self.crowds.get(place.address).is_none_or(|seen| seen.len() < CROWD);
        } else {
            let is_elsewhere = used.places.is_empty() && self.is_elsewhere(shown, instance, &place, addresses);
            let crowd = self.crowd(&place);
            let is_outside = self.is_outside(shown, &place, used, issuer, crowd);
            place.is_outside = crowd == Crowd::None && (is_elsewhere || is_outside);
            if used.places.len() == PLACES {
                used.places.remove(1);
            }
            used.places.push(place);
        }
        if !place.is_outside {
            self.hear_pod(shown, instance, (place, address));
            return None;
        }
        let places = used.places.len() as f64;
        Some(used.breaks(issuer, Invariant::Shared, Question::OutsideSharing, places))
    }

    /// Whether a place that is new to a credential is outside of those who share it; where it is not, its holder shares.
    fn is_outside(&mut self, shown: &Shown, place: &Place, used: &mut Used, issuer: &mut Issuer, crowd: Crowd) -> bool {
        let holder = self.holders.at(hashed((shown.issuer, shown.principal)), place.last);
        let since = *holder.since.get_or_insert(place.last);
        if used.places.is_empty() {
            holder.credentials = holder.credentials.saturating_add(1);
            issuer.custom(Invariant::Shared).hold();
            return false;
        }
        if used.places.iter().any(|known| known.is_same(place, shown.is_certificate)) {
            return false;
        }
        // Of certificates it is enough that nobody in the estate shares any, and that this has lasted.
        let is_settled = shown.is_certificate && place.last - since >= SETTLED;
        let is_used_to = holder.credentials > ALONE || is_settled && issuer.custom(Invariant::Shared).is_firm();
        if crowd == Crowd::None && is_used_to && holder.spread == 0 {
            return true;
        }
        holder.spread = holder.spread.saturating_add(1);
        if used.count(Invariant::Shared) == Counted::Now {
            issuer.custom(Invariant::Shared).break_one();
        }
        false
    }

    /// Whether many show their credentials at the address: a gateway, or a network behind one address.
    fn crowd(&mut self, place: &Place) -> Crowd {
        let seen = self.crowds.at(place.address, place.last);
        if !seen.contains(&place.principal) && seen.len() < CROWD {
            seen.push(place.principal);
        }
        if seen.len() >= CROWD { Crowd::Many } else { Crowd::None }
    }

    /// Whether the pod that the credential is bound to has just been heard at another address of the same family. The pods
    /// of a StatefulSet come back under their names.
    fn is_elsewhere(&self, shown: &Shown, pod: &str, place: &Place, addresses: &Addresses) -> bool {
        let is_unique = pod.rsplit('-').next().is_some_and(|last| !last.bytes().all(|c| c.is_ascii_digit()));
        let holder = self.holders.get(pod_key(shown, pod));
        let known = holder.and_then(|holder| holder.pod.as_ref()).filter(|_| is_unique && !pod.is_empty());
        known.is_some_and(|(known, address)| {
            // It need not have shown a token there: any call of its will do.
            let heard = addresses.heard(address).max(Some(known.last));
            let is_still_there = heard.is_some_and(|heard| place.last - heard <= STILL_THERE);
            known.address != place.address && known.is_v6 == place.is_v6 && is_still_there
        })
    }

    /// Notes where a pod is.
    fn hear_pod(&mut self, shown: &Shown, pod: &str, (place, address): (Place, &str)) {
        if !pod.is_empty() {
            self.holders.at(pod_key(shown, pod), place.last).pod = Some((place, address.into()));
        }
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let pods = self.holders.values().filter(|holder| holder.pod.is_some()).count();
        self.holders.bytes()
            + 48 * pods
            + self.crowds.bytes()
            + self.crowds.values().map(|seen| 8 * seen.capacity()).sum::<usize>()
    }
}

/// A pod as the holder of a credential.
fn pod_key(shown: &Shown, pod: &str) -> u64 {
    hashed((shown.issuer, shown.principal, pod))
}
