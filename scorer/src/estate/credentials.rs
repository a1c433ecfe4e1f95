//! Does the credential add up? What is known of each credential, joined from the issuers' records and from those of the
//! calls in which it was shown, whichever comes first.
//!
//! An invariant that does not hold is *broken* only where the logs could have shown that it holds; otherwise it is not
//! observable, and nothing is said (`docs/credentials.md` tells which log shows what). How much a break says follows from
//! how the credentials of the same issuer behave: see [`Custom`].
//!
//! # Layout
//! - this file: a record comes in, an answer goes out
//! - `custom`: how often an invariant holds among an issuer's credentials
//! - `issuer`: what an issuer has told of, and what was used without
//! - `usage`: one credential in use: its validity, its end, its places
//! - `sharing`: who shares credentials, and where
//! - `logins`: failures, and then a success from elsewhere
//! - `wards`: who is called with a certificate by everybody
//! - `kept`: what is kept, by age

mod custom;
mod issuer;
mod kept;
mod logins;
mod sharing;
mod usage;
mod wards;

use std::{hash::Hash, net::IpAddr, sync::Arc};

use foldhash::quality::FixedState;
use qualm_model::{
    detector::{Deviation, Question},
    event::{Event, Filter, Kind, Outcome, Reporter},
    identity::Provenance,
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::custom::Weight;
use self::{
    issuer::{Issuers, Pending},
    logins::Logins,
    sharing::Sharing,
    usage::Usage,
    wards::Wards,
};
use super::addresses::Addresses;

/// How far the clocks of those who write the logs may be apart.
const SKEW: Span = Span(5 * Span::MINUTE.0);
/// The highest level that a broken invariant leads to by itself.
const AT_ONCE: Level = Level::Restricted;

/// A credential does not add up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Broken {
    /// In which way.
    pub(crate) question: Question,
    /// `x` is the e-value: it is set by policy, and not ranked.
    pub(crate) deviation: Deviation,
    pub(crate) weight: Weight,
}

impl Broken {
    /// The level that it leads to at once, of those up to `most`.
    pub(crate) fn level(&self, most: Level) -> Option<Level> {
        (self.weight == Weight::Firm && most >= Level::Watched).then_some(most.min(AT_ONCE))
    }
}

/// What of the world around an event its credential is judged by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ground {
    /// When the first event came.
    pub(crate) birth: Timestamp,
    /// When records were last known to be missing.
    pub(crate) lost: Option<Timestamp>,
    /// What is left out of the input.
    pub(crate) filter: Filter,
    /// The highest level that records of the input may lead to.
    pub(crate) by_input: Level,
    /// The highest level that this event may lead to.
    pub(crate) most: Level,
    /// Whose the caller's address is, as far as that is known.
    pub(crate) owner: Option<Arc<str>>,
}

/// A use of a credential that its issuer never gave out, or gave out later.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unissued {
    /// Name of the identity that showed it.
    pub(crate) identity: Arc<str>,
    pub(crate) from: Arc<str>,
    pub(crate) to: Arc<str>,
    /// When it was shown.
    pub(crate) at: Timestamp,
    pub(crate) most: Level,
    pub(crate) broken: Broken,
}

/// What is known of credentials.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Credentials {
    issuers: Issuers,
    usage: Usage,
    sharing: Sharing,
    logins: Logins,
    wards: Wards,
    #[serde(skip)]
    unissued: Vec<Unissued>,
}

impl Credentials {
    /// Takes in a record: what it tells of credentials, and whether the one that it shows adds up.
    #[inline]
    pub(super) fn look(
        &mut self,
        event: Event<'_>,
        identity: &str,
        (ground, addresses): (&Ground, &Addresses),
    ) -> Option<Broken> {
        if event.reporter() == Reporter::Issuer || !event.issued().is_empty() {
            self.issuers.hear(event, ground, &mut self.unissued);
        }
        if event.kind() == Kind::Authentication {
            return self.logins.look(event);
        }
        if event.credential().is_empty() {
            return self.wards.look(event, ground);
        }
        let broken = if is_use(event) { self.used(event, identity, (ground, addresses)) } else { None };
        broken.or_else(|| self.wards.look(event, ground))
    }

    fn used(&mut self, event: Event<'_>, identity: &str, (ground, addresses): (&Ground, &Addresses)) -> Option<Broken> {
        let shown = Shown::of(event, &self.issuers);
        let issued = self.issuers.issued(&shown);
        let revoked = self.issuers.revoked(&shown);
        let issuer = self.issuers.at(shown.issuer, event.report());
        let (used, is_first) = self.usage.of(&shown, event, issuer);
        let broken = used.after_revocation(&shown, revoked, issuer, ground);
        let broken = broken.or_else(|| used.after_expiry(&shown, event, issuer, ground));
        let broken = broken.or_else(|| used.before_issuance(&shown, event, issued, issuer));
        let outside = self.sharing.look(&shown, event, used, issuer, (ground, addresses));
        if is_first {
            match issued {
                Some(_) => issuer.note_joined(),
                None => issuer.wait(Pending::of(&shown, event, identity, ground)),
            }
        }
        broken.or(outside)
    }

    /// Uses of credentials that were found to be nobody's issue since the last time.
    pub(crate) fn unissued(&mut self) -> Vec<Unissued> {
        std::mem::take(&mut self.unissued)
    }

    /// Whether there are any.
    #[inline]
    pub(crate) fn has_unissued(&self) -> bool {
        !self.unissued.is_empty()
    }

    /// Bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.issuers.bytes() + self.usage.bytes() + self.sharing.bytes() + self.logins.bytes() + self.wards.bytes()
    }
}

/// A credential as an event shows it.
#[derive(Debug, Clone, Copy)]
struct Shown {
    /// Who issues credentials of its kind.
    issuer: u64,
    /// The credential.
    key: u64,
    /// The same by whose it is and when it ends, where that can be told.
    by_end: Option<u64>,
    /// Who shows it.
    principal: u64,
    is_certificate: bool,
    /// When it was shown.
    at: Timestamp,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
}

impl Shown {
    fn of(event: Event<'_>, issuers: &Issuers) -> Self {
        let source = event.source();
        let domain = event.batch.source.trust_domain.get(event.row);
        let is_certificate = source.provenance() == Provenance::Certificate && !domain.is_empty();
        let (not_before, not_after) = event.validity();
        let at_itself = issuer_at(event.destination().principal());
        let issuer = match () {
            () if is_certificate => issuer_of_domain(domain),
            // A client's certificate at a server whose issues are tokens.
            () if event.credential().starts_with("X509SHA256=") => hashed(("x509", event.destination().principal())),
            () if event.reporter() == Reporter::Issuer || issuers.knows(at_itself) => at_itself,
            () => hashed("declared"),
        };
        let end = not_after.filter(|_| is_certificate).map(seconds);
        Self {
            issuer,
            key: hashed((issuer, event.credential())),
            by_end: end.map(|end| hashed((issuer, source.principal(), end))),
            principal: hashed(source.principal()),
            is_certificate,
            at: event.start(),
            not_before,
            not_after,
        }
    }
}

/// Whether the credential of a record was used. What an issuer refuses was not; what the caller's side says of itself
/// proves nothing; and Keycloak tells of sessions, of its tokens' uses those know at whom they are shown.
fn is_use(event: Event<'_>) -> bool {
    event.reporter() != Reporter::Source
        && event.outcome() != Outcome::Refused
        && event.destination().principal() != "keycloak"
}

fn hashed(what: impl Hash) -> u64 {
    use std::hash::BuildHasher as _;
    FixedState::default().hash_one(what)
}

fn issuer_of_domain(trust_domain: &str) -> u64 {
    hashed(("x509", trust_domain))
}

fn issuer_at(destination: &str) -> u64 {
    hashed(("at", destination))
}

fn seconds(time: Timestamp) -> i64 {
    time.0.div_euclid(Span::SECOND.0)
}

/// The network of an address: its /24, or its /64. What is no address is a place of its own.
fn network(address: &str) -> u64 {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => hashed(("v4", &address.octets()[..3])),
        Ok(IpAddr::V6(address)) => hashed(("v6", &address.segments()[..4])),
        Err(_) => hashed(address),
    }
}
