//! Whose address is it, and who answers to a host name: a time-bounded map learned from the stream itself.
//!
//! A proxy that reports its own end, and a certificate that was verified at a direct address, claim that address for
//! their identity. The latest claim holds: addresses are used again when pods have ended. Where two claim one address
//! in turns (a node's address, a translating gateway) it is nobody's, and where nobody has claimed it for an hour it is
//! not known any more. What is resolved in this way never leads above *watched*.

use std::{
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
        let (source, destination) = (event.source(), event.destination());
        match event.reporter() {
            // A gateway's address is no workload's, and what it forwards comes from others.
            Reporter::Gateway | Reporter::Waypoint | Reporter::Issuer => {}
            Reporter::Destination => {
                self.claim(&source, event.report());
                self.claim(&destination, event.report());
            }
            Reporter::Source | Reporter::Ztunnel => self.claim(&source, event.report()),
        }
    }

    #[inline]
    fn claim(&mut self, party: &PartyView<'_>, now: Timestamp) {
        let (ip, who) = (party.ip(), party.principal());
        let is_named = party.provenance() == Provenance::Certificate || who.starts_with("spiffe://");
        if !is_named || ip.is_empty() || ip.starts_with("127.") {
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

    /// Who it is, where the record has but an address, or a name that is another's.
    #[inline]
    pub(super) fn resolve(&self, party: &PartyView<'_>, now: Timestamp) -> Option<&Arc<str>> {
        if party.provenance() != Provenance::Name {
            return None;
        }
        let principal = party.principal();
        if principal.parse::<IpAddr>().is_err() {
            return self.names.holder(principal, now);
        }
        match party.cluster() {
            "" => self.addresses.holder(principal, now),
            cluster => self.addresses.holder(&format!("{principal}@{cluster}"), now),
        }
    }
}
