//! What a release looks like: newcomers, replicas that took over, edges that are the service's own.

use qualm_model::{
    baseline::EdgeBaseline,
    detector::Question,
    evidence::EValues,
    level::Level,
    time::{Span, Timestamp},
};

use super::{Edge, INSTANCES, Instance, SETTLED, Source};
use crate::{grounds::NARROW_SHARE, scorer::Case};

/// How long newcomers may come one after the other.
const GRACE: Span = Span(30 * Span::MINUTE.0);
/// What a release does not explain, and from which e-value on.
const UNEXPLAINED: [Question; 14] = [
    Question::NewFingerprint,
    Question::NewNetwork,
    Question::Failing,
    Question::Refused,
    Question::Rate1m,
    Question::Rate10m,
    Question::Bigger,
    Question::Longer,
    Question::AfterRevocation,
    Question::AfterExpiry,
    Question::BeforeIssuance,
    Question::OutsideSharing,
    Question::NoCertificate,
    Question::LoginElsewhere,
];
/// What not even a deployment that was announced explains.
const UNANNOUNCED: [Question; 7] = [
    Question::NewNetwork,
    Question::AfterRevocation,
    Question::AfterExpiry,
    Question::BeforeIssuance,
    Question::OutsideSharing,
    Question::NoCertificate,
    Question::LoginElsewhere,
];
const ALARMING: f64 = 64.0;
/// A newcomer is one who came at most this long before what is new.
pub(super) const SUCCESSION: Span = Span(10 * Span::MINUTE.0);
/// Those who were there before are gone when they have been silent for this long and for so many calls.
const SUCCEEDED_AFTER: Span = Span(2 * Span::MINUTE.0);
const SUCCEEDED_CALLS: f64 = 10.0;
/// Calls a minute of an instance whose silence is soon noticed.
const LIVELY: f64 = 3.0;
/// An instance counts as live this long after its last call.
const LIVE: Span = Span(10 * Span::MINUTE.0);
/// Calls after which an edge is an established one.
const ESTABLISHED: f64 = 100.0;

impl Source {
    /// Places of the instances that called within the last ten minutes.
    pub(crate) fn live(&self, now: Timestamp) -> u64 {
        self.heard_within(LIVE, now)
    }

    /// Places of the instances that carry the service now: where each calls several times a minute, two minutes of
    /// silence tell that it is gone.
    pub(crate) fn serving(&self, now: Timestamp) -> u64 {
        let lively = self.baseline.calls_a_minute() >= LIVELY * f64::from(self.live(now).count_ones());
        self.heard_within(if lively { SUCCEEDED_AFTER } else { LIVE }, now)
    }

    fn heard_within(&self, span: Span, now: Timestamp) -> u64 {
        let mut live = 0;
        for (place, instance) in self.instances.iter().enumerate() {
            if now - instance.last <= span {
                live |= 1 << place;
            }
        }
        live
    }

    /// Whether newcomers came lately.
    pub(super) fn is_releasing(&self, case: &Case<'_>) -> bool {
        let now = case.seen.exposure.now;
        now - self.newcomers_since <= GRACE && now - self.first > GRACE
    }

    /// How far what an instance does for the first time may lead: a replica that came just now and speaks as its
    /// siblings do is as likely a new version as a stranger, which the next minutes show (the edge is
    /// [shared](Edge::is_change_of), its predecessor is [gone](Self::was_succeeded), or neither). Until then novelty
    /// alone leads to *watched* only. What a release does not explain counts at once.
    pub(crate) fn newcomer_may_reach(&self, address: u32, now: Timestamp, values: &EValues) -> Level {
        let unexplained = if self.is_announced(now) { &UNANNOUNCED[..] } else { &UNEXPLAINED[..] };
        let is_alarming = || unexplained.iter().any(|&question| values.answer(question).is_some_and(|e| e >= ALARMING));
        // That a service is new says no more against it, or a crowd of them would fill the table.
        if now - self.first <= SUCCESSION {
            return if is_alarming() { Level::Quarantined } else { Level::Watched };
        }
        // A release is over soon, and is not repeated at once; who changes addresses for ever is no newcomer.
        let in_grace = now - self.newcomers_since <= GRACE && self.instances.len() < INSTANCES;
        if !in_grace && !self.is_announced(now) {
            return Level::Quarantined;
        }
        let instance = self.instances.iter().find(|instance| instance.address == address);
        let is_newcomer = instance.is_some_and(|instance| now - instance.first <= SUCCESSION);
        if is_newcomer && !is_alarming() { Level::Watched } else { Level::Quarantined }
    }

    /// Whether a deployment was announced that lasts.
    #[inline]
    pub(super) fn is_announced(&self, now: Timestamp) -> bool {
        self.announced.is_some_and(|(since, until)| (since..=until).contains(&now))
    }

    /// How far an announced deployment lets evidence lead that is not one replica's: to *watched*. Where all of it was one
    /// replica's so far, or there is but one, it counts in full.
    #[inline]
    pub(crate) fn announced_may_reach(&self, now: Timestamp) -> Level {
        if !self.is_announced(now) {
            return Level::Quarantined;
        }
        let total: f64 = self.instances.iter().map(|instance| instance.odds).sum();
        let most = self.instances.iter().map(|instance| instance.odds).fold(0.0, f64::max);
        let is_shared = total > 0.0 && most < NARROW_SHARE * total;
        if is_shared { Level::Watched } else { Level::Quarantined }
    }

    /// Whether newcomers alone have carried the service since `since`: all who were there before have been silent from
    /// then on, although by now they should have called often. Then what is new since is a new version's, as with a
    /// service of one replica that is deployed. Whoever only borrows the identity does not silence its owner.
    pub(crate) fn was_succeeded(&self, since: Timestamp, now: Timestamp) -> bool {
        let earlier = |instance: &&Instance| since - instance.first > SUCCESSION;
        let Some(gone) = self.instances.iter().filter(earlier).map(|owner| owner.last).max() else { return false };
        // Whoever called a moment ago is not gone: it is the silence since the last call of theirs that must be long.
        let silent = now - gone.max(since);
        let expected = self.baseline.calls_a_minute() * silent.0 as f64 / Span::MINUTE.0 as f64;
        expected >= SUCCEEDED_CALLS
            && silent >= SUCCEEDED_AFTER
            && since - gone <= SUCCESSION
            && gone <= since + SUCCEEDED_AFTER
    }
}

/// Whether what these replicas of a source use is a change of the source: at least two of those that serve do, and at least
/// half, or any two where a deployment was announced.
pub(super) fn is_change(users: u64, source: &Source, now: Timestamp) -> bool {
    let serving = source.serving(now);
    is_shared(users, serving) || source.is_announced(now) && (users & serving).count_ones() >= 2
}

/// Whether of the `live` instances at least two, and at least half, are among the `users`.
pub(super) fn is_shared(users: u64, live: u64) -> bool {
    let (users, live) = ((users & live).count_ones(), live.count_ones());
    users >= 2 && 2 * users >= live
}

impl Edge {
    /// Whether enough replicas use the edge, now that one more does, for it to be the service's change: at least two, and at
    /// least half of those that serve; any two where a deployment was announced. One odd replica cannot bring this about.
    pub(super) fn is_change_of(&self, source: &Source, now: Timestamp) -> bool {
        is_change(self.users.places(), source, now)
    }

    /// What others do to a destination is not held against a call on a usual edge beyond what is odd on that edge; nor is
    /// what newcomers of a release do elsewhere.
    pub(super) fn blame(&self, (is_excused, is_release): (bool, bool), values: &mut EValues) {
        if is_excused {
            // As old as its recognition, it has no usual rate.
            values.unset(Question::RarePeer);
            values.unset(Question::EdgeRate);
        } else if self.baseline.volume() < ESTABLISHED {
            return;
        }
        let own = values.answer(Question::EdgeRate).map_or(1.0, |e| e.max(1.0));
        values.limit(Question::DestinationRate, own);
        values.limit(Question::FanIn, own);
        if is_release {
            values.limit(Question::Spread10m, own);
            values.limit(Question::Spread1h, own);
        }
    }

    /// Recognises the edge as a change of the service: from now on it is as old as this.
    pub(crate) fn adopt(&mut self, now: Timestamp) {
        self.adopted = Some(now);
        self.baseline = EdgeBaseline::default();
        self.rhythm = None;
    }

    /// Keeps the rhythm of an edge that is new, with a peer that hardly anybody else calls; lets go of it otherwise.
    /// `received` is the trusted volume of everybody's calls to that peer.
    #[inline]
    pub(super) fn keep_time(&mut self, received: f64, now: Timestamp) {
        let is_new = self.adopted.is_none() && !self.returned && now - self.users.first() <= SETTLED;
        let volume = self.baseline.volume();
        if !is_new || received - volume >= ESTABLISHED {
            self.rhythm = None;
        } else if self.rhythm.is_none() && volume > 0.0 {
            // Most new edges are called but once.
            self.rhythm = Some(Box::default());
        }
    }
}
