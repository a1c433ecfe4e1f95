//! One decision that acts, and what is known of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use qualm_model::{level::Level, time::Timestamp};

use super::{
    Outcome, Sighting,
    node::{Heard, Node, Seen, State, UNOBSERVED, state},
    timeline::{Moment, Timeline},
};
use crate::table::{Operations, Reachable, Subject, TrustEntry};

/// Proxies at which calls of one subject are told apart.
const SEEN: usize = 1_024;
/// Open streams and destinations that are named.
pub(super) const NAMED: usize = 32;
/// Changes of one case that are told; a case that goes to and fro is told no further.
const TOLD: u32 = 32;

#[derive(Debug)]
pub(super) struct Case {
    pub(super) decision: String,
    pub(super) subject: Subject,
    pub(super) level: Level,
    entry: TrustEntry,
    /// The first table that has it.
    pub(super) version: u64,
    /// When the event that led to it was written, event time.
    pub(super) event: Option<Timestamp>,
    pub(super) pushed: Timestamp,
    /// When it first went out, also by a process before this one.
    first_pushed: Timestamp,
    pub(super) acknowledged: BTreeMap<String, Timestamp>,
    pub(super) first_acknowledged: Option<Timestamp>,
    pub(super) last_acknowledged: Option<Timestamp>,
    pub(super) seen: BTreeMap<String, Seen>,
    pub(super) first_denied: Option<Timestamp>,
    pub(super) last_served: Option<Timestamp>,
    /// Calls that were served, and should not have been, and began after the decision.
    pub(super) served: u64,
    pub(super) denied: u64,
    /// Destinations of streams that were open before and go on.
    pub(super) surviving: BTreeSet<String>,
    pub(super) state: State,
    pub(super) contained: Option<Timestamp>,
    told: u32,
    is_alarmed: bool,
    /// It has leaked.
    pub(super) is_escalated: bool,
}

/// What is known of all proxies.
pub(super) type Proxies<'a> = (&'a BTreeMap<String, Node>, &'a HashMap<String, Heard>);

impl Case {
    pub(super) fn new(entry: &TrustEntry, version: u64, pushed: Timestamp) -> Self {
        Self {
            decision: entry.decision.clone(),
            subject: entry.subject.clone(),
            level: entry.level,
            entry: entry.clone(),
            version,
            event: None,
            pushed,
            first_pushed: pushed,
            acknowledged: BTreeMap::new(),
            first_acknowledged: None,
            last_acknowledged: None,
            seen: BTreeMap::new(),
            first_denied: None,
            last_served: None,
            served: 0,
            denied: 0,
            surviving: BTreeSet::new(),
            state: State::Pushed,
            contained: None,
            told: 0,
            is_alarmed: false,
            is_escalated: false,
        }
    }

    /// Goes on where a process before this one was. What it had proven is proven anew.
    pub(super) fn resume(&mut self, before: &Timeline) {
        self.event = before.event;
        self.first_pushed = before.pushed;
        self.first_acknowledged = before.first_acknowledged;
        self.last_acknowledged = before.last_acknowledged;
        self.first_denied = before.first_denied;
        self.last_served = before.last_served;
        (self.denied, self.served) = (before.denied, before.served);
        (self.contained, self.state) = (before.contained, before.state);
        self.is_alarmed = matches!(before.moment, Moment::Leaking | Moment::Unobserved);
        self.is_escalated = before.escalated;
    }

    /// When evidence crossed the threshold, or an operator decided, wall time.
    pub(super) fn crossed(&self) -> Timestamp {
        self.entry.decided
    }

    pub(super) fn acknowledged(&mut self, node: &str, at: Timestamp) {
        if self.acknowledged.contains_key(node) {
            return;
        }
        self.acknowledged.insert(node.to_owned(), at);
        self.first_acknowledged.get_or_insert(at);
        self.last_acknowledged = self.last_acknowledged.max(Some(at));
    }

    pub(super) fn forget(&mut self, node: &str) {
        self.acknowledged.remove(node);
    }

    pub(super) fn is_about(&self, sighting: &Sighting<'_>) -> bool {
        let instance = self.subject.instance.as_deref();
        self.subject.cluster.as_deref().unwrap_or_default() == sighting.cluster
            && instance.is_none_or(|address| address == sighting.address)
    }

    /// A call was refused by this decision.
    pub(super) fn denied(&mut self, sighting: &Sighting<'_>, began: Timestamp) {
        self.denied += 1;
        self.first_denied.get_or_insert(began);
        if let Some(seen) = self.seen_at(sighting.reporter) {
            seen.denied = seen.denied.max(Some(began));
        }
    }

    /// A call of the subject was not refused by this decision.
    pub(super) fn passed(&mut self, sighting: &Sighting<'_>, began: Timestamp, reachable: &Reachable) {
        if !self.is_to_be_denied(sighting, reachable) {
            return;
        }
        if began <= self.crossed() {
            if sighting.outcome == Outcome::Open && sighting.reported > self.pushed && self.surviving.len() < NAMED {
                self.surviving.insert(sighting.destination.to_owned());
            }
            return;
        }
        if sighting.outcome == Outcome::Refused {
            return;
        }
        self.served += 1;
        self.last_served = self.last_served.max(Some(began));
        if let Some(seen) = self.seen_at(sighting.reporter) {
            seen.served = seen.served.max(Some(began));
        }
    }

    fn seen_at(&mut self, reporter: &str) -> Option<&mut Seen> {
        if !self.seen.contains_key(reporter) {
            if self.seen.len() >= SEEN {
                return None;
            }
            self.seen.insert(reporter.to_owned(), Seen::default());
        }
        self.seen.get_mut(reporter)
    }

    /// Whether the decision refuses such a call.
    fn is_to_be_denied(&self, call: &Sighting<'_>, reachable: &Reachable) -> bool {
        let path = call.operation.split_once(' ').map_or(call.operation, |(_, path)| path);
        if reachable.covers(call.destination) || reachable.paths.iter().any(|open| open == path) {
            return false;
        }
        match self.level {
            Level::Restricted => match self.entry.known.as_ref().and_then(|known| known.at(call.destination)) {
                None => true,
                Some(Operations::Any) => false,
                Some(Operations::Only(only)) => !call.operation.is_empty() && !only.contains(call.operation),
            },
            level => level.denies(),
        }
    }

    /// Destinations that the subject was known to call.
    fn peers(&self) -> impl Iterator<Item = &str> {
        let known = self.entry.known.iter().flat_map(|known| known.peers.keys());
        known.map(String::as_str)
    }

    /// Where it stands before each of the proxies that matter: those before destinations of its baseline, those that have
    /// told of its calls, and those before other replicas of whom these stand before.
    pub(super) fn states(&self, (nodes, heard): Proxies<'_>, wall: Timestamp) -> BTreeMap<String, State> {
        let mut states = BTreeMap::new();
        let is_peer = |identity: &str| {
            let known = self.entry.known.as_ref();
            known.is_some_and(|known| known.at(identity).is_some())
        };
        let called: BTreeSet<&str> =
            self.seen.keys().filter_map(|reporter| nodes.get(reporter)?.identity.as_deref()).collect();
        for (name, node) in nodes.iter().filter(|(_, node)| node.connected) {
            let identity = node.identity.as_deref();
            // A log names a proxy by its node id, or by the identity that all replicas have.
            let by_name = self.seen.get(name);
            let seen = by_name.or_else(|| identity.and_then(|identity| self.seen.get(identity)));
            if seen.is_none() && !identity.is_some_and(|identity| called.contains(identity) || is_peer(identity)) {
                continue;
            }
            let heard = heard.get(name).or_else(|| identity.and_then(|identity| heard.get(identity)));
            let acknowledged = self.acknowledged.get(name).copied();
            states.insert(
                name.clone(),
                state((acknowledged, self.pushed), seen.copied().unwrap_or_default(), heard, wall),
            );
        }
        let identities: BTreeSet<&str> = nodes.values().filter_map(|node| node.identity.as_deref()).collect();
        for (reporter, seen) in &self.seen {
            let is_node = nodes.get(reporter).is_some_and(|node| node.connected);
            if !is_node && !identities.contains(reporter.as_str()) {
                states.insert(reporter.clone(), state((None, self.pushed), *seen, heard.get(reporter), wall));
            }
        }
        states
    }

    /// Where it stands as a whole: as its worst proxy.
    fn overall(&self, proxies: Proxies<'_>, wall: Timestamp) -> State {
        let states = self.states(proxies, wall);
        if let Some(worst) = states.values().max() {
            return *worst;
        }
        // Nobody stands before anything that it calls.
        let is_overdue = wall - self.pushed > UNOBSERVED;
        match self.first_acknowledged {
            _ if is_overdue => State::Unobserved,
            Some(_) => State::Acknowledged,
            None => State::Pushed,
        }
    }

    /// Works out where it stands; what is to be told of it.
    pub(super) fn settle(&mut self, proxies: Proxies<'_>, wall: Timestamp) -> Option<Moment> {
        let overall = self.overall(proxies, wall);
        let before = std::mem::replace(&mut self.state, overall);
        self.is_escalated |= overall == State::Leaking;
        let is_first_contained = self.state.is_contained() && self.contained.is_none();
        if is_first_contained {
            self.contained = Some(wall);
        }
        let moment = match self.state {
            state if is_first_contained || (state.is_contained() && self.is_alarmed) => Moment::Contained,
            State::Leaking if before != State::Leaking => Moment::Leaking,
            // What is not proven for a minute is for people to look at.
            State::Unobserved | State::Pushed if !self.is_alarmed && self.is_overdue(wall) => Moment::Unobserved,
            _ => return None,
        };
        self.is_alarmed = moment != Moment::Contained;
        self.told += 1;
        (self.told <= TOLD).then_some(moment)
    }

    fn is_overdue(&self, wall: Timestamp) -> bool {
        wall - self.pushed > UNOBSERVED
    }

    /// What of the subject's calls is not cut, in words.
    pub(super) fn not_cut(&self, (nodes, _): Proxies<'_>) -> Vec<String> {
        let identities: BTreeSet<&str> =
            nodes.values().filter(|node| node.connected).filter_map(|node| node.identity.as_deref()).collect();
        let named = |peer: &str| {
            let short = |identity: &str| {
                identity.rsplit_once("/sa/").is_some_and(|(rest, account)| {
                    let namespace = rest.rsplit_once("/ns/").map_or("", |(_, namespace)| namespace);
                    peer == format!("{account}.{namespace}")
                })
            };
            identities.contains(peer) || identities.iter().any(|identity| short(identity))
        };
        let open = self.peers().filter(|peer| !named(peer));
        let mut words: Vec<String> = open.map(|peer| format!("{peer}: no proxy there enforces")).take(NAMED).collect();
        words.extend(self.surviving.iter().map(|to| format!("a stream to {to} that was open before goes on")));
        if self.level == Level::Throttled {
            words.push("TCP connections: Envoy has no rate limit by caller for them".to_owned());
        }
        words.push("what it calls outside of the mesh, and from the node's own network".to_owned());
        words
    }

    pub(super) fn timeline(&self, moment: Moment, proxies: Proxies<'_>, wall: Timestamp) -> Timeline {
        let states = self.states(proxies, wall);
        let mut counts = BTreeMap::new();
        states.values().for_each(|state| *counts.entry(*state).or_default() += 1);
        let worse = |state: State| move |(_, of): &(&String, &State)| **of == state;
        let worst: Vec<String> =
            states.iter().filter(worse(self.state)).map(|(name, _)| name.clone()).take(NAMED).collect();
        Timeline {
            moment,
            decision: self.decision.clone(),
            identity: self.subject.identity(),
            instance: self.subject.instance.clone(),
            level: self.level,
            state: self.state,
            nodes: counts,
            worst: if self.state.is_contained() { Vec::new() } else { worst },
            at: wall,
            event: self.event,
            crossed: self.crossed(),
            pushed: self.first_pushed,
            first_acknowledged: self.first_acknowledged,
            last_acknowledged: self.last_acknowledged,
            first_denied: self.first_denied,
            last_served: self.last_served,
            denied: self.denied,
            served: self.served,
            contained: self.contained,
            escalated: self.is_escalated,
            not_cut: self.not_cut(proxies),
        }
    }
}
