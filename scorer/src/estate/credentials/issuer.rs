//! What an issuer has told of: which credentials it gave out and took back, and how far its log has come.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use qualm_model::{
    detector::Question,
    event::Event,
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::{
    Ground, SKEW, Shown, Unissued,
    custom::{Counted, Custom},
    hashed, issuer_at, issuer_of_domain,
    kept::Kept,
};

/// Issues and revocations remembered.
const ISSUES: usize = 1 << 16;
const REVOCATIONS: usize = 1 << 14;
/// Issuers, and their partitions.
const ISSUERS: usize = 256;
const PARTITIONS: usize = 256;
/// Uses of one issuer's credentials that wait for its log.
const WAITING: usize = 4096;
/// Records of one log may be out of order by so much.
const OUT_OF_ORDER: Span = Span(10 * Span::MINUTE.0);
/// A partition of an issuer's log that is behind the others by more than this has ended.
const ENDED: Span = Span::DAY;
/// How long a credential lives where no record has told of any.
const LIFETIME: Span = Span::DAY;

/// All of them, with what they told of.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Issuers {
    by: Kept<Issuer, ISSUERS>,
    issued: Kept<Timestamp, ISSUES>,
    revoked: Kept<Option<Revocation>, REVOCATIONS>,
}

/// When a credential was taken back, and how far that record may lead.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Revocation {
    pub(super) at: Timestamp,
    pub(super) by_input: Level,
}

/// What is asked of the credentials of an issuer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Invariant {
    Revoked,
    Expired,
    Premature,
    Issued,
    Shared,
}

const INVARIANTS: usize = Invariant::Shared as usize + 1;

/// One issuer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Issuer {
    customs: [Custom; INVARIANTS],
    /// Since when it tells of what it gives out.
    since: Option<Timestamp>,
    /// How far each partition of its log has come.
    heard: BTreeMap<(u16, i32), Timestamp>,
    /// The longest life of a credential of its.
    longest: Option<Span>,
    waiting: VecDeque<Pending>,
}

/// The first use of a credential of which its issuer has not told yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    keys: [Option<u64>; 2],
    at: Timestamp,
    /// Its begin, where that is told.
    not_before: Option<Timestamp>,
    identity: Arc<str>,
    from: Arc<str>,
    to: Arc<str>,
    most: Level,
}

impl Pending {
    pub(super) fn of(shown: &Shown, event: Event<'_>, identity: &str, ground: &Ground) -> Self {
        Self {
            keys: [Some(shown.key), shown.by_end],
            at: shown.at,
            not_before: shown.not_before,
            identity: Arc::from(identity),
            from: Arc::from(event.source().ip()),
            to: Arc::from(event.destination().principal()),
            most: ground.most,
        }
    }
}

impl Issuers {
    /// Takes in a record of an issuer.
    pub(super) fn hear(&mut self, event: Event<'_>, ground: &Ground, unissued: &mut Vec<Unissued>) {
        let now = event.report();
        let Some(id) = issuer_that_tells(event) else { return };
        if !event.issued().is_empty() {
            let key = match event.issued().rsplit_once(' ').map(|(whose, end)| (whose, end.parse::<i64>())) {
                Some((whose, Ok(end))) => hashed((id, whose, end)),
                _ => hashed((id, event.issued())),
            };
            // Of several certificates of one end the first is the issue.
            let is_known = self.issued.holds(key);
            let at = self.issued.at(key, now);
            *at = if is_known { (*at).min(now) } else { now };
            let issuer = self.by.at(id, now);
            issuer.since = Some(issuer.since.map_or(now, |since| since.min(now)));
        }
        if !event.revoked().is_empty() {
            let revocation = self.revoked.at(hashed((id, event.revoked())), now);
            *revocation = revocation.or(Some(Revocation { at: now, by_input: ground.by_input }));
        }
        let issuer = self.by.at(id, now);
        issuer.hear_until(event, now);
        let missing = self.issued.forgotten().max(ground.lost);
        for pending in issuer.due() {
            unissued.extend(issuer.judge(pending, &self.issued, missing));
        }
    }

    /// Whether it has told of anything that it gave out.
    pub(super) fn knows(&self, issuer: u64) -> bool {
        self.by.get(issuer).is_some_and(|issuer| issuer.since.is_some())
    }

    pub(super) fn at(&mut self, issuer: u64, now: Timestamp) -> &mut Issuer {
        self.by.at(issuer, now)
    }

    /// When a credential was given out.
    pub(super) fn issued(&self, shown: &Shown) -> Option<Timestamp> {
        [Some(shown.key), shown.by_end].into_iter().flatten().find_map(|key| self.issued.get(key)).copied()
    }

    /// When a credential was taken back.
    pub(super) fn revoked(&self, shown: &Shown) -> Option<Revocation> {
        self.revoked.get(shown.key).copied().flatten()
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let waiting: usize = self.by.values().map(|issuer| issuer.waiting.len() * (size_of::<Pending>() + 256)).sum();
        self.by.bytes() + self.issued.bytes() + self.revoked.bytes() + waiting
    }
}

impl Issuer {
    pub(super) fn custom(&mut self, invariant: Invariant) -> &mut Custom {
        &mut self.customs[invariant as usize]
    }

    /// A credential that is used was given out before.
    pub(super) fn note_joined(&mut self) {
        self.custom(Invariant::Issued).hold();
    }

    /// Takes note of how long a credential lives.
    pub(super) fn note_life(&mut self, life: Span) {
        self.longest = self.longest.max(Some(life));
    }

    /// A credential was used of whose issue nothing is known yet. Only where its issuer tells of issues that can become so.
    pub(super) fn wait(&mut self, pending: Pending) {
        if self.since.is_some() && self.waiting.len() < WAITING {
            self.waiting.push_back(pending);
        }
    }

    fn hear_until(&mut self, event: Event<'_>, now: Timestamp) {
        let at = (event.position().source, event.position().partition);
        if self.heard.len() < PARTITIONS || self.heard.contains_key(&at) {
            let reached = self.heard.entry(at).or_insert(now);
            *reached = (*reached).max(now);
        }
    }

    /// Up to when its log has told everything: the least of the partitions that have not ended.
    fn told(&self) -> Option<Timestamp> {
        let foremost = self.heard.values().max()?;
        self.heard.values().filter(|reached| *foremost - **reached <= ENDED).min().copied()
    }

    /// What the log has passed.
    fn due(&mut self) -> Vec<Pending> {
        let Some(told) = self.told() else { return Vec::new() };
        let mut due = Vec::new();
        while self.waiting.front().is_some_and(|first| told - first.at > OUT_OF_ORDER) {
            due.extend(self.waiting.pop_front());
        }
        due
    }

    /// What it means that the log has passed a use.
    fn judge(
        &mut self,
        pending: Pending,
        issued: &Kept<Timestamp, ISSUES>,
        missing: Option<Timestamp>,
    ) -> Option<Unissued> {
        let when = pending.keys.into_iter().flatten().find_map(|key| issued.get(key)).copied();
        let (question, observed) = match when {
            Some(when) => {
                self.note_joined();
                // It was told of after the use: only now is it known that it was not before it.
                let early = when - pending.at;
                if early <= SKEW {
                    return None;
                }
                (Question::BeforeIssuance, early.0 as f64 / Span::SECOND.0 as f64)
            }
            None if !self.would_know(&pending, missing) => return None,
            None => (Question::NeverIssued, 1.0),
        };
        let invariant = if question == Question::NeverIssued { Invariant::Issued } else { Invariant::Premature };
        // It was not taken to hold before.
        self.custom(invariant).hold();
        let broken = self.custom(invariant).answer(question, Counted::Now, observed);
        let Pending { identity, from, to, at, most, .. } = pending;
        Some(Unissued { identity, from, to, at, most, broken })
    }

    /// Whether an issue must have been told of: the log tells of issues since before the credential can have been given
    /// out, and nothing is missing since.
    fn would_know(&self, pending: &Pending, missing: Option<Timestamp>) -> bool {
        let life = self.longest.unwrap_or(LIFETIME);
        let earliest = pending.not_before.map_or(pending.at - life, |begin| begin - SKEW) - SKEW;
        self.since.is_some_and(|since| since <= earliest) && missing.is_none_or(|missing| missing < earliest)
    }
}

/// Which issuer a record is of: of certificates it is the trust domain's.
fn issuer_that_tells(event: Event<'_>) -> Option<u64> {
    if let Some(rest) = event.issued().strip_prefix("spiffe://") {
        return Some(issuer_of_domain(rest.split('/').next().unwrap_or_default()));
    }
    match (event.destination().principal(), event.batch.source.trust_domain.get(event.row)) {
        ("", _) => None,
        ("spire-server" | "spire-agent", "") => None,
        ("spire-server" | "spire-agent", domain) => Some(issuer_of_domain(domain)),
        (itself, _) => Some(issuer_at(itself)),
    }
}
