//! Whose address is it, and who answers to a host name: a time-bounded map learned from the stream itself.
//!
//! A proxy that reports its own end, by its certificate or else by its pod, and a certificate that was verified at a direct
//! address, claim that address for their identity. The latest claim holds: addresses are used again when pods have ended. Where two claim one address
//! in turns (a node's address, a translating gateway) it is nobody's, and where nobody has claimed it for an hour it is
//! not known any more. What is resolved in this way never leads above *watched*.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use foldhash::fast::FixedState;
use qualm_model::{
    event::{Event, PartyView, Reporter},
    identity::Provenance,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

/// A claim holds for so long after it was last made.
const HOLDS: Span = Span::HOUR;
/// Whoever claims again within this time what another has claimed meanwhile shares it.
const TURNS: Span = Span(10 * Span::MINUTE.0);
/// Addresses are learned for so long after a record that had nothing but one.
const WANTED: Span = Span::DAY;
/// Begins the principals that certificates show.
const VERIFIED: &str = "spiffe://";
/// Addresses and names kept; the oldest are forgotten first.
const KEPT: usize = 1 << 16;

/// Whose an address or a name is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Claim {
    who: Arc<str>,
    since: Timestamp,
    last: Timestamp,
    /// Who had it before.
    before: Option<Arc<str>>,
    /// Until when it is nobody's.
    shared_until: Timestamp,
}

/// A map from text to who claims it, in the order of their first claims.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Claims {
    by: HashMap<Arc<str>, Claim, FixedState>,
    order: VecDeque<Arc<str>>,
}

/// The map.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Addresses {
    addresses: Claims,
    names: Claims,
    /// When a record last had but an address: without any, nobody needs the map.
    wanted: Option<Timestamp>,
    /// The address that the latest record has given a name, of which nothing was known before.
    #[serde(skip)]
    named: Option<Box<str>>,
}

impl Claim {
    fn again(&mut self, who: &str, now: Timestamp) {
        if *self.who == *who {
            self.last = self.last.max(now);
            return;
        }
        if now <= self.since {
            // An older report of whoever had it then.
            return;
        }
        if self.before.as_deref() == Some(who) && now - self.since <= TURNS {
            self.shared_until = now + HOLDS;
        }
        self.before = Some(std::mem::replace(&mut self.who, Arc::from(who)));
        (self.since, self.last) = (now, now);
    }

    fn holder(&self, now: Timestamp) -> Option<&Arc<str>> {
        let is_known = now >= self.since && now - self.last <= HOLDS && now >= self.shared_until;
        is_known.then_some(&self.who)
    }
}

impl Claims {
    fn claim(&mut self, what: &str, who: &str, now: Timestamp) {
        if let Some(claim) = self.by.get_mut(what) {
            claim.again(who, now);
            return;
        }
        let what: Arc<str> = Arc::from(what);
        let claim =
            Claim { who: Arc::from(who), since: now, last: now, before: None, shared_until: Timestamp(i64::MIN) };
        self.order.push_back(Arc::clone(&what));
        self.by.insert(what, claim);
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.by.remove(&oldest);
        }
    }

    fn holder(&self, what: &str, now: Timestamp) -> Option<&Arc<str>> {
        self.by.get(what)?.holder(now)
    }
}

impl Addresses {
    /// Takes note of whose addresses the record shows.
    #[inline]
    pub(super) fn learn(&mut self, event: Event<'_>) {
        if self.wanted.is_none_or(|last| event.report() - last > WANTED) {
            return;
        }
        let (source, destination) = (event.source(), event.destination());
        match event.reporter() {
            // A gateway's address is no workload's, and what it forwards comes from others.
            Reporter::Gateway | Reporter::Waypoint | Reporter::Issuer => {}
            Reporter::Destination => {
                self.claim(&source, event.report());
                self.claim(&destination, event.report());
                self.claim_own(&destination, event.report());
            }
            Reporter::Source | Reporter::Ztunnel => {
                self.claim(&source, event.report());
                self.claim_own(&source, event.report());
            }
        }
    }

    /// Where no certificate is logged, a reporter that names its own pod claims its address for the workload; a principal
    /// that was verified there goes before.
    #[inline]
    fn claim_own(&mut self, party: &PartyView<'_>, now: Timestamp) {
        let (ip, who) = (party.ip(), party.principal());
        let is_named = party.provenance() == Provenance::Name && !party.instance().is_empty() && who != ip;
        if !is_named || ip.is_empty() || ip.starts_with("127.") || who.parse::<IpAddr>().is_ok() {
            return;
        }
        let place = match party.cluster() {
            "" => Cow::Borrowed(ip),
            cluster => Cow::Owned(format!("{ip}@{cluster}")),
        };
        let known = self.addresses.holder(&place, now);
        if known.is_some_and(|known| known.starts_with(VERIFIED)) {
            return;
        }
        if known.is_none() {
            self.named = Some(place.as_ref().into());
        }
        self.addresses.claim(&place, who, now);
    }

    /// The address that the latest record has given a name, of which nothing was known before.
    #[inline]
    pub(super) fn take_named(&mut self) -> Option<Box<str>> {
        self.named.take()
    }

    #[inline]
    fn claim(&mut self, party: &PartyView<'_>, now: Timestamp) {
        let (ip, who) = (party.ip(), party.principal());
        if party.provenance() != Provenance::Certificate || ip.is_empty() || ip.starts_with("127.") {
            return;
        }
        match party.cluster() {
            "" => self.addresses.claim(ip, who, now),
            cluster => self.addresses.claim(&format!("{ip}@{cluster}"), who, now),
        }
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let kept = self.addresses.by.len() + self.names.by.len();
        kept * (2 * size_of::<Claim>() + 3 * size_of::<Arc<str>>() + 96)
    }

    /// Takes note that both ends' reports of one call name the destination differently.
    pub(super) fn alias(&mut self, alias: &str, name: &str, now: Timestamp) {
        self.names.claim(alias, name, now);
    }

    /// Whose the address of a party is that has a name of another kind.
    pub(super) fn owner(&mut self, party: &PartyView<'_>, now: Timestamp) -> Option<&Arc<str>> {
        self.wanted = self.wanted.max(Some(now));
        match party.cluster() {
            "" => self.addresses.holder(party.ip(), now),
            cluster => self.addresses.holder(&format!("{}@{cluster}", party.ip()), now),
        }
    }

    /// When somebody verified was last heard at an address.
    pub(super) fn heard(&self, address: &str) -> Option<Timestamp> {
        self.addresses.by.get(address).map(|claim| claim.last)
    }

    /// Who it is, where the record has but an address, or a name that is another's.
    #[inline]
    pub(super) fn resolve(&mut self, party: &PartyView<'_>, now: Timestamp) -> Option<&Arc<str>> {
        if party.provenance() != Provenance::Name {
            return None;
        }
        let principal = party.principal();
        // Whoever is known to be a workload is none of the probes.
        let principal = principal.strip_prefix("probe:").unwrap_or(principal);
        if principal.parse::<IpAddr>().is_err() {
            return self.names.holder(principal, now);
        }
        self.wanted = self.wanted.max(Some(now));
        match party.cluster() {
            "" => self.addresses.holder(principal, now),
            cluster => self.addresses.holder(&format!("{principal}@{cluster}"), now),
        }
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, EventDraft, Party};

    use super::*;

    const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";
    const BANK: &str = "spiffe://mesh.test/ns/bank/sa/ledger";
    const IP: &str = "10.1.2.3";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + seconds)
    }

    fn call(time: Timestamp, source: Party<'_>) -> EventBatch {
        let mut builder = EventBuilder::new();
        builder.push(&EventDraft { start: time, report: time, source, ..EventDraft::default() });
        builder.finish()
    }

    /// A map that somebody has asked already.
    fn wanted() -> Addresses {
        Addresses { wanted: Some(at(0)), ..Addresses::default() }
    }

    fn verified(addresses: &mut Addresses, seconds: i64, principal: &str) {
        let party = Party { principal, ip: IP, provenance: Provenance::Certificate, ..Party::default() };
        addresses.learn(call(at(seconds), party).event(0));
    }

    /// Who calls from the address, by a record that knows no more than it.
    fn found(addresses: &mut Addresses, seconds: i64) -> Option<String> {
        let batch = call(at(seconds), Party { principal: IP, ip: IP, ..Party::default() });
        addresses.resolve(&batch.event(0).source(), at(seconds)).map(ToString::to_string)
    }

    #[test]
    fn a_bare_address_is_whose_certificate_was_verified_there_last() {
        let mut addresses = wanted();
        assert_eq!(found(&mut addresses, 0), None);
        verified(&mut addresses, 0, CART);
        assert_eq!(found(&mut addresses, 30).as_deref(), Some(CART));
        // The pod has ended, and within a minute another one has its address.
        verified(&mut addresses, 45, BANK);
        assert_eq!(found(&mut addresses, 46).as_deref(), Some(BANK));
        assert_eq!(found(&mut addresses, 40), None, "what is told late is not the newcomer's");
        verified(&mut addresses, 44, CART);
        assert_eq!(found(&mut addresses, 50).as_deref(), Some(BANK), "a late report of the first takes nothing back");
    }

    #[test]
    fn an_address_that_several_use_in_turns_is_nobodys() {
        let mut addresses = wanted();
        for (seconds, who) in [(0, CART), (10, BANK), (20, CART), (30, BANK)] {
            verified(&mut addresses, seconds, who);
        }
        assert_eq!(found(&mut addresses, 31), None);
    }

    #[test]
    fn an_address_that_nobody_has_claimed_for_an_hour_is_not_known() {
        let mut addresses = wanted();
        verified(&mut addresses, 0, CART);
        assert_eq!(found(&mut addresses, 3600).as_deref(), Some(CART));
        assert_eq!(found(&mut addresses, 3601), None);
    }

    #[test]
    fn nothing_is_kept_while_every_record_names_who_calls() {
        let mut addresses = Addresses::default();
        verified(&mut addresses, 0, CART);
        assert!(addresses.addresses.by.is_empty());
        assert_eq!(found(&mut addresses, 1), None);
        verified(&mut addresses, 2, CART);
        assert_eq!(found(&mut addresses, 3).as_deref(), Some(CART));
    }

    #[test]
    fn whoever_says_its_own_name_and_address_is_believed_by_its_certificate_only() {
        let mut addresses = wanted();
        let party = Party { principal: "cart", ip: IP, ..Party::default() };
        addresses.learn(call(at(0), party).event(0));
        assert_eq!(found(&mut addresses, 1), None);
    }

    #[test]
    fn addresses_of_two_clusters_are_not_mixed_up() {
        let mut addresses = wanted();
        let party =
            Party { principal: CART, ip: IP, cluster: "east", provenance: Provenance::Certificate, ..Party::default() };
        addresses.learn(call(at(0), party).event(0));
        assert_eq!(found(&mut addresses, 1), None);
    }

    #[test]
    fn a_flood_of_addresses_stays_within_the_bound() {
        let mut claims = Claims::default();
        for number in 0..KEPT + 10 {
            claims.claim(&number.to_string(), CART, at(0));
        }
        assert_eq!((claims.by.len(), claims.order.len()), (KEPT, KEPT));
        assert!(claims.holder("9", at(1)).is_none() && claims.holder("10", at(1)).is_some());
    }

    #[test]
    fn a_reporter_that_names_its_own_pod_claims_its_address_unless_somebody_was_verified_there() {
        let own = |seconds, reporter| {
            let mut builder = EventBuilder::new();
            let pod = Party {
                principal: "cart.shop",
                ip: IP,
                instance: "cart-7d6c6c7775-49tpt",
                provenance: Provenance::Name,
                ..Party::default()
            };
            let time = at(seconds);
            builder.push(&EventDraft { start: time, report: time, reporter, source: pod, ..EventDraft::default() });
            builder.finish()
        };
        let mut addresses = wanted();
        addresses.learn(own(0, Reporter::Destination).event(0));
        assert_eq!(found(&mut addresses, 1), None, "another's word of it proves nothing");
        addresses.learn(own(2, Reporter::Source).event(0));
        assert_eq!(found(&mut addresses, 3).as_deref(), Some("cart.shop"));
        verified(&mut addresses, 10, BANK);
        addresses.learn(own(20, Reporter::Source).event(0));
        assert_eq!(found(&mut addresses, 30).as_deref(), Some(BANK));
    }
}
