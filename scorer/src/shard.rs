//! One virtual shard: the sources whose canonical service hashes to it, and all that is kept of them.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::{fast, quality};
use hashbrown::{HashMap, HashSet};
use qualm_model::{
    baseline::{DestinationBaseline, EdgeBaseline, SiblingRate, SourceBaseline},
    detector::{Deviation, Observation, Question},
    event::Reporter,
    evidence::EValues,
    level::Level,
    stats::Exposure,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use crate::{
    door::Ids,
    forgotten::Forgotten,
    mesh::{Delta, DestinationDelta, Mesh},
    names::Names,
    pending::{Gone, Pending},
    scorer::Case,
    standing::{Evidence, Reached},
    standings::Standings,
};

/// Number of virtual shards: the unit of snapshot, memory and hand-over, independent of Kafka's partitions.
pub(crate) const SHARDS: usize = 64;
/// More instances than this of one identity share the last place.
const INSTANCES: usize = 64;
/// How long newcomers may come one after the other, and how often that may be.
const GRACE: Span = Span(30 * Span::MINUTE.0);
const GRACE_EVERY: Span = Span(2 * Span::HOUR.0);
/// What a release does not explain, and from which e-value on.
const UNEXPLAINED: [Question; 7] = [
    Question::NewFingerprint,
    Question::Failing,
    Question::Refused,
    Question::Rate1m,
    Question::Rate10m,
    Question::Bigger,
    Question::Longer,
];
const ALARMING: f64 = 64.0;
/// A newcomer is one who came at most this long before what is new.
const SUCCESSION: Span = Span(10 * Span::MINUTE.0);
/// Those who were there before are gone when they have been silent for this long and for so many calls.
const SUCCEEDED_AFTER: Span = Span(2 * Span::MINUTE.0);
const SUCCEEDED_CALLS: f64 = 10.0;
/// Calls a minute of an instance whose silence is soon noticed.
const LIVELY: f64 = 3.0;
/// An instance counts as live this long after its last call.
const LIVE: Span = Span(10 * Span::MINUTE.0);
/// Distinct operations kept for one edge; further ones are one operation.
const OPERATIONS_AN_EDGE: u16 = 256;
/// Calls after which an edge is an established one.
const ESTABLISHED: f64 = 100.0;
/// Names of nothing that a shard may hold before it sweeps.
const IDLE_NAMES: usize = 256;
/// Destinations that a shard tells the mesh of in one summary; what more are called is judged, and not learned.
const TOUCHED: usize = 4096;
/// The canonical id of what exceeds a cap.
const OTHER: u32 = u32::MAX;

/// The shard of a source service: a fixed hash, so that every instance of Qualm agrees.
pub(crate) fn shard_of(identity: &str) -> u8 {
    (quality::FixedState::with_seed(1).hash_one(identity) % SHARDS as u64) as u8
}

/// One place from which an identity calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) address: u32,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    /// Sum of `2^bits` of its odd events in the running episode: what weighs is how odd, not only how many.
    pub(crate) odds: f64,
}

/// Everything kept of one identity as a caller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) principal: Arc<str>,
    pub(crate) cluster: Option<Arc<str>>,
    pub(crate) namespace: Option<Arc<str>>,
    pub(crate) baseline: SourceBaseline,
    pub(crate) evidence: Evidence,
    /// Evidence from records that may not lead above *watched*, kept apart.
    pub(crate) claimed: Option<Box<Evidence>>,
    pub(crate) instances: Vec<Instance>,
    /// Episode that the instances' bits are about.
    pub(crate) episode: Option<Timestamp>,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    /// Bytes of its edges and known attributes.
    pub(crate) owned: usize,
    /// Whether it came back after it was folded away.
    pub(crate) returned: bool,
    /// Evidence last computed, for `identity_bits`.
    pub(crate) shown_bits: f64,
    /// Episode of the latest decision, and how many decisions it has led to.
    pub(crate) decided: (Timestamp, u32),
    /// When it was last seen with an identity that may lead to a denial.
    pub(crate) vouched: Option<Timestamp>,
    /// When the last newcomers began to come.
    pub(crate) newcomers_since: Timestamp,
    #[serde(skip)]
    pub(crate) stamp: u32,
}

/// Everything kept of one edge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Edge {
    pub(crate) baseline: EdgeBaseline,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    /// Instances that used it, by their place in the source's list.
    pub(crate) users: u64,
    /// When it was recognised as a change of the service rather than of one replica.
    pub(crate) adopted: Option<Timestamp>,
    pub(crate) operations: u16,
    pub(crate) returned: bool,
    #[serde(skip)]
    pub(crate) stamp: u32,
}

/// An attribute of a source: an operation at a destination, a credential, a TLS fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Attribute {
    Operation { source: u32, destination: u32, operation: u32 },
    Credential { source: u32, credential: u32 },
    Fingerprint { source: u32, fingerprint: u32 },
}

/// When an attribute was seen, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) last: Timestamp,
    pub(crate) count: u32,
    #[serde(skip)]
    pub(crate) stamp: u32,
}

/// A destination as this shard knows it: where it stands in the mesh, and what was seen since the last summary.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) mesh: Option<u32>,
    pub(crate) calls: f64,
    pub(crate) weight: f64,
    pub(crate) first_contacts: f64,
    pub(crate) reported: bool,
    /// Its place among the shard's views.
    #[serde(skip)]
    view: usize,
}

/// A destination's baseline as it stands in one minute after one summary.
#[derive(Debug, Clone)]
struct View {
    of: (u32, Timestamp, i64),
    baseline: DestinationBaseline,
}

/// The shard.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) names: Names,
    /// In boxes, as edges are: a map that grows holds up to three places for one entry.
    pub(crate) sources: HashMap<u32, Box<Source>, fast::FixedState>,
    pub(crate) edges: HashMap<(u32, u32), Box<Edge>, fast::FixedState>,
    pub(crate) known: HashMap<Attribute, Seen, fast::FixedState>,
    pub(crate) links: HashMap<u32, Link, fast::FixedState>,
    pub(crate) forgotten: Forgotten,
    pub(crate) delta: Delta,
    /// Destinations called since the last summary.
    pub(crate) touched: Vec<u32>,
    /// Those of them that the mesh has not named yet.
    pub(crate) unresolved: Vec<u32>,
    /// Destinations that were asked about since the last summary.
    views: Vec<View>,
    /// Names held after the last sweep.
    swept: usize,
    /// What changed since the last snapshot.
    pub(crate) changed: Changed,
}

impl Default for Changed {
    fn default() -> Self {
        // Stamps of fresh states are 0: the first epoch must differ.
        Self {
            epoch: 1,
            pending: Pending::default(),
            gone: Vec::new(),
            sources: Vec::new(),
            edges: Vec::new(),
            known: Vec::new(),
            names_from: 0,
            names_gone: Vec::new(),
            forgotten: false,
        }
    }
}

/// Keys that changed since the last snapshot: each once, by the stamp that its state carries.
#[derive(Debug)]
pub(crate) struct Changed {
    /// Number of the snapshot to come.
    pub(crate) epoch: u32,
    /// What the snapshot that is being taken has still to collect.
    pub(crate) pending: Pending,
    /// What was folded away, of what the last snapshot has.
    pub(crate) gone: Vec<Gone>,
    pub(crate) sources: Vec<u32>,
    pub(crate) edges: Vec<(u32, u32)>,
    pub(crate) known: Vec<Attribute>,
    pub(crate) names_from: u32,
    pub(crate) names_gone: Vec<u32>,
    pub(crate) forgotten: bool,
}

impl Changed {
    /// From here on: nothing of what has changed, and all that will.
    pub(crate) fn forget(&mut self, names_from: u32) {
        self.sources.clear();
        self.edges.clear();
        self.known.clear();
        self.names_gone.clear();
        self.gone.clear();
        (self.epoch, self.names_from, self.forgotten) = (self.epoch + 1, names_from, false);
    }
}

/// Bytes of a name: its text and what leads to it, as it is between two doublings of a map.
const NAME_BYTES: usize = 64 + 24 + 2 * (size_of::<u32>() + size_of::<Arc<str>>());
/// Bytes of an entry of each kind: what the allocator takes for it, its places in maps, its names, and what its baseline
/// grows to. `tests/memory.rs` holds them to what the system counts.
pub(crate) const SOURCE_BYTES: usize = size_of::<Source>() + 48 + 640 + 2 * NAME_BYTES;
pub(crate) const EDGE_BYTES: usize = size_of::<Edge>() + 48 + 208 + 2 * size_of::<Link>() + NAME_BYTES;
pub(crate) const KNOWN_BYTES: usize = 2 * (size_of::<Attribute>() + size_of::<Seen>()) + NAME_BYTES;
pub(crate) const INSTANCE_BYTES: usize = 2 * size_of::<Instance>() + NAME_BYTES;

impl Source {
    /// The number of the next decision of an episode: a level entered twice in one episode is two decisions.
    pub(crate) fn next_ordinal(&mut self, episode: Timestamp) -> u32 {
        let ordinal = if self.decided.0 == episode { self.decided.1 } else { 0 };
        self.decided = (episode, ordinal + 1);
        ordinal
    }

    /// The place of an instance in the list, added where it is new.
    pub(crate) fn instance(&mut self, address: u32, now: Timestamp) -> usize {
        if let Some(place) = self.instances.iter().position(|instance| instance.address == address) {
            self.instances[place].last = self.instances[place].last.max(now);
            return place;
        }
        if now - self.newcomers_since > GRACE_EVERY {
            self.newcomers_since = now;
        }
        let instance = Instance { address, first: now, last: now, odds: 0.0 };
        if self.instances.len() < INSTANCES {
            self.instances.push(instance);
            return self.instances.len() - 1;
        }
        // The one not heard of for longest has gone; its place is free.
        let oldest = (0..INSTANCES).min_by_key(|&place| self.instances[place].last).unwrap_or_default();
        self.instances[oldest] = instance;
        oldest
    }

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
    fn is_releasing(&self, case: &Case<'_>) -> bool {
        let now = case.seen.exposure.now;
        now - self.newcomers_since <= GRACE && now - self.first > GRACE
    }

    /// How far what an instance does for the first time may lead: a replica that came just now and speaks as its
    /// siblings do is as likely a new version as a stranger, which the next minutes show (the edge is
    /// [shared](Edge::is_shared_by), its predecessor is [gone](Self::was_succeeded), or neither). Until then novelty
    /// alone leads to *watched* only. What a release does not explain counts at once.
    pub(crate) fn newcomer_may_reach(&self, address: u32, now: Timestamp, values: &EValues) -> Level {
        let instance = self.instances.iter().find(|instance| instance.address == address);
        let is_newcomer = instance.is_some_and(|instance| now - instance.first <= SUCCESSION);
        // Who is new as an identity has no siblings to speak like.
        let has_siblings = now - self.first > SUCCESSION;
        let alarming = UNEXPLAINED.iter().any(|&question| values.answer(question).is_some_and(|e| e >= ALARMING));
        // A release is over soon, and is not repeated at once; who changes addresses for ever is no newcomer.
        let in_grace = now - self.newcomers_since <= GRACE && self.instances.len() < INSTANCES;
        if is_newcomer && in_grace && has_siblings && !alarming { Level::Watched } else { Level::Quarantined }
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

impl Edge {
    /// Whether enough live replicas use the edge for it to be the service's change: at least two, and at least
    /// half. One odd replica cannot bring this about.
    pub(crate) fn is_shared_by(&self, live: u64) -> bool {
        let (users, live) = ((self.users & live).count_ones(), live.count_ones());
        users >= 2 && 2 * users >= live
    }
}

impl Shard {
    /// Whether the attribute is new for its source, and notes that it was seen. `None` where the novelty cannot be
    /// judged because it may have been folded away.
    pub(crate) fn first_time(&mut self, mut attribute: Attribute, now: Timestamp) -> (Option<bool>, usize) {
        if let Some(seen) = self.known.get_mut(&attribute) {
            let before = *seen;
            seen.last = seen.last.max(now);
            seen.count = seen.count.saturating_add(1);
            self.changed.touch_known(attribute, seen, before);
            return (Some(false), 0);
        }
        if let Attribute::Operation { source, destination, .. } = attribute {
            match self.edges.get_mut(&(source, destination)) {
                Some(edge) if edge.operations >= OPERATIONS_AN_EDGE => {
                    attribute = Attribute::Operation { source, destination, operation: OTHER };
                    if let Some(seen) = self.known.get_mut(&attribute) {
                        let before = *seen;
                        seen.last = now;
                        self.changed.touch_known(attribute, seen, before);
                        return (Some(false), 0);
                    }
                }
                Some(edge) => edge.operations += 1,
                None => {}
            }
        }
        let returned = self.forgotten.holds(self.mark_of(attribute));
        self.known.insert(attribute, Seen { last: now, count: 1, stamp: self.changed.epoch });
        self.changed.known.push(attribute);
        ((!returned).then_some(true), KNOWN_BYTES)
    }

    /// A key of the filter of forgotten things: by text, since ids end with what they name.
    pub(crate) fn mark_of(&self, attribute: Attribute) -> (u8, &str, &str, &str) {
        let text = |id| if id == OTHER { "…" } else { self.names.text(id) };
        match attribute {
            Attribute::Operation { source, destination, operation } => {
                (0, text(source), text(destination), text(operation))
            }
            Attribute::Credential { source, credential } => (1, text(source), text(credential), ""),
            Attribute::Fingerprint { source, fingerprint } => (2, text(source), text(fingerprint), ""),
        }
    }

    /// Moves what was seen of destinations since the last summary into the delta.
    pub(crate) fn gather_destinations(&mut self) {
        self.views.clear();
        for id in self.touched.drain(..) {
            let Some(link) = self.links.get_mut(&id) else { continue };
            self.delta.destinations.push(DestinationDelta {
                name: self.names.shared(id),
                calls: std::mem::take(&mut link.calls),
                weight: std::mem::take(&mut link.weight),
                first_contacts: std::mem::take(&mut link.first_contacts),
                reported: std::mem::take(&mut link.reported),
            });
            if link.mesh.is_none() {
                self.unresolved.push(id);
            }
        }
    }

    /// The link to a destination, found in the mesh where it is new to this shard.
    pub(crate) fn link(&mut self, destination: u32, mesh: &Mesh) -> &mut Link {
        let names = &self.names;
        self.links
            .entry(destination)
            .or_insert_with(|| Link { mesh: mesh.destination_id(names.text(destination)), ..Link::default() })
    }

    /// Lets go of where destinations stood that the mesh has let go of.
    pub(crate) fn unresolve(&mut self, mesh: &Mesh) {
        for (&id, link) in &mut self.links {
            if link.mesh.is_some_and(|known| mesh.destination(known).is_none()) {
                link.mesh = None;
                self.unresolved.push(id);
            }
        }
        // The order of a map is nobody's business.
        self.unresolved.sort_unstable();
        self.unresolved.dedup();
    }

    /// Finds where destinations first called since the last summary stand in the mesh.
    pub(crate) fn resolve(&mut self, mesh: &Mesh) {
        for id in self.unresolved.drain(..) {
            if let Some(link) = self.links.get_mut(&id) {
                link.mesh = mesh.destination_id(self.names.text(id));
            }
        }
    }

    /// Removes sources with all their edges and attributes; returns the bytes freed.
    pub(crate) fn fold_sources(&mut self, ids: &HashSet<u32, fast::FixedState>) -> usize {
        self.collect_pending();
        let saved = self.changed.names_from;
        let mut freed = 0;
        for &id in ids {
            let Some(source) = self.sources.remove(&id) else { continue };
            self.forgotten.mark((3_u8, &*source.principal, source.cluster.as_deref().unwrap_or_default()));
            if id < saved {
                self.changed.gone.push(Gone::Source(id));
            }
            freed += SOURCE_BYTES + source.owned;
        }
        let changed = &mut self.changed;
        changed.forgotten = true;
        self.edges.retain(|key, _| {
            let stays = !ids.contains(&key.0);
            if !stays && key.0.max(key.1) < saved {
                changed.gone.push(Gone::Edge(*key));
            }
            stays
        });
        self.known.retain(|&attribute, _| {
            let stays = !ids.contains(&owner(attribute));
            if !stays && attribute.youngest() < saved {
                changed.gone.push(Gone::Known(attribute));
            }
            stays
        });
        freed
    }

    /// Folds the least known half of what one source owns; returns the bytes freed and the keys folded.
    pub(crate) fn fold_half_of(&mut self, id: u32) -> (usize, u64) {
        self.collect_pending();
        let saved = self.changed.names_from;
        let mut edges: Vec<(f64, Timestamp, (u32, u32))> = self
            .edges
            .iter()
            .filter(|((from, _), _)| *from == id)
            .map(|(&key, edge)| (edge.baseline.volume(), edge.last, key))
            .collect();
        edges.sort_by(|a, b| {
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then_with(|| self.names.text(a.2.1).cmp(self.names.text(b.2.1)))
        });
        let mut known: Vec<(u32, Timestamp, Attribute)> = self
            .known
            .iter()
            .filter(|(attribute, _)| owner(**attribute) == id)
            .map(|(&attribute, seen)| (seen.count, seen.last, attribute))
            .collect();
        known.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| self.mark_of(a.2).cmp(&self.mark_of(b.2))));
        let (edges, known) = (&edges[..edges.len().div_ceil(2)], &known[..known.len().div_ceil(2)]);
        self.changed.forgotten = true;
        let freed = edges.len() * EDGE_BYTES + known.len() * KNOWN_BYTES;
        for &(.., key) in edges {
            let mark = (4_u8, self.names.shared(key.0), self.names.shared(key.1));
            self.forgotten.mark((mark.0, &*mark.1, &*mark.2));
            self.edges.remove(&key);
            if key.0.max(key.1) < saved {
                self.changed.gone.push(Gone::Edge(key));
            }
        }
        for &(.., attribute) in known {
            let (kind, a, b, c) = self.mark_of(attribute);
            let mark = (kind, a.to_owned(), b.to_owned(), c.to_owned());
            self.forgotten.mark((mark.0, &*mark.1, &*mark.2, &*mark.3));
            self.known.remove(&attribute);
            if attribute.youngest() < saved {
                self.changed.gone.push(Gone::Known(attribute));
            }
            if let Attribute::Operation { source, destination, .. } = attribute
                && let Some(edge) = self.edges.get_mut(&(source, destination))
            {
                self.changed.touch_edge((source, destination), edge);
                edge.operations = edge.operations.saturating_sub(1);
            }
        }
        if let Some(source) = self.sources.get_mut(&id) {
            self.changed.touch_source(id, source);
            source.owned = source.owned.saturating_sub(freed);
        }
        (freed, (edges.len() + known.len()) as u64)
    }

    /// Whether there are so many more names than after the last sweep that it is worth to look which are of things that
    /// are not kept: templates beyond a cap, parties of folded edges.
    pub(crate) fn has_idle_names(&self) -> bool {
        self.names.len() > self.swept + self.swept / 4 + IDLE_NAMES
    }

    /// Lets go of names, links and attributes that nothing refers to any more.
    pub(crate) fn sweep(&mut self, standing: impl Iterator<Item = u32>) {
        let mut used: HashSet<u32, fast::FixedState> = HashSet::default();
        used.extend(self.sources.keys());
        // Whoever stands is named, though folded away.
        used.extend(standing);
        for source in self.sources.values() {
            used.extend(source.instances.iter().map(|instance| instance.address));
        }
        used.extend(self.edges.keys().map(|&(_, destination)| destination));
        for &attribute in self.known.keys() {
            match attribute {
                Attribute::Operation { destination, operation, .. } => used.extend([destination, operation]),
                Attribute::Credential { credential, .. } => used.extend([credential]),
                Attribute::Fingerprint { fingerprint, .. } => used.extend([fingerprint]),
            }
        }
        used.extend(&self.touched);
        self.links.retain(|id, _| used.contains(id));
        self.links.shrink_to(2 * self.links.len());
        let saved = self.changed.names_from;
        self.changed.names_gone.extend(self.names.keep(&used).into_iter().filter(|id| *id < saved));
        self.changed.sources.retain(|id| self.sources.contains_key(id));
        self.changed.edges.retain(|key| self.edges.contains_key(key));
        self.changed.known.retain(|key| self.known.contains_key(key));
        self.swept = self.names.len();
    }
}

impl Attribute {
    /// The latest of the names in it: what is younger than the last snapshot is in none.
    pub(crate) fn youngest(self) -> u32 {
        match self {
            Self::Operation { source, destination, operation: OTHER } => source.max(destination),
            Self::Operation { source, destination, operation } => source.max(destination).max(operation),
            Self::Credential { source, credential: other } | Self::Fingerprint { source, fingerprint: other } => {
                source.max(other)
            }
        }
    }
}

fn owner(attribute: Attribute) -> u32 {
    match attribute {
        Attribute::Operation { source, .. }
        | Attribute::Credential { source, .. }
        | Attribute::Fingerprint { source, .. } => source,
    }
}

/// How a shard comes back from a snapshot.
impl Shard {
    /// Takes back what was in the air; sources, edges, attributes and names are there already.
    pub(crate) fn restore(
        &mut self,
        delta: Delta,
        touched: Vec<(u32, Link)>,
        unresolved: Vec<u32>,
        next_name: u32,
        mesh: &Mesh,
    ) {
        self.delta = delta;
        self.unresolved = unresolved;
        self.names.go_on_from(next_name);
        self.changed.names_from = next_name;
        let destinations: Vec<u32> = self.edges.keys().map(|&(_, destination)| destination).collect();
        for destination in destinations {
            self.link(destination, mesh);
        }
        for (id, link) in touched {
            self.links.insert(id, link);
            self.touched.push(id);
        }
    }
}

/// How one shard asks and learns.
impl Shard {
    /// Makes an edge and the link to its destination.
    pub(crate) fn new_edge(&mut self, key: (u32, u32), now: Timestamp, users: u64, returned: bool, mesh: &Mesh) {
        self.link(key.1, mesh);
        let edge = Edge { first: now, last: now, users, returned, stamp: self.changed.epoch, ..Edge::default() };
        self.edges.insert(key, Box::new(edge));
        self.changed.edges.push(key);
    }

    /// Asks every question about a case; returns how far it is to be learned. What is answered counts as far as
    /// [`Shard::blame`] lets it.
    #[inline]
    pub(crate) fn ask(&self, mesh: &Mesh, case: &Case<'_>, answer: &mut impl FnMut(Question, Deviation)) -> f64 {
        let Ids { source: source_id, destination, .. } = case.ids;
        let source = &self.sources[&source_id];
        let weight = source.baseline.score(&case.seen, case.first, &mut |question, deviation| {
            if !(question == Question::RareSource && source.returned) {
                answer(question, deviation);
            }
        });
        let mut sized = false;
        if let Some(edge) = self.edges.get(&(source_id, destination)) {
            edge.baseline.score(&case.edge_seen, &mut |question, deviation| {
                sized |= question == Question::Bigger;
                answer(question, deviation);
            });
        }
        if !sized && let Some(deviation) = source.baseline.score_size(&case.seen) {
            answer(Question::Bigger, deviation);
        }
        let link = self.links.get(&destination);
        let (calls, contacts) = link.map_or((0.0, 0.0), |link| (link.calls, link.first_contacts));
        let contacts = contacts + f64::from(u8::from(case.seen.first_contact));
        let known = link.and_then(|link| link.mesh).and_then(|id| mesh.destination(id));
        let baseline = known.map_or_else(DestinationBaseline::default, |(baseline, _)| *baseline);
        baseline.score(&case.seen, calls + 1.0, contacts, answer);
        weight
    }

    /// Lets the answers count as far as the edge is to blame.
    pub(crate) fn blame(&self, case: &Case<'_>, values: &mut EValues) {
        if let Some(edge) = self.edges.get(&(case.ids.source, case.ids.destination)) {
            let is_release = self.sources.get(&case.ids.source).is_some_and(|source| source.is_releasing(case));
            edge.blame((case.edge_is_excused, is_release), values);
        }
    }

    /// All that one event is judged by and teaches, found once.
    #[inline]
    pub(crate) fn place(&mut self, ids: Ids) -> Option<Place<'_>> {
        Some(Place {
            source: self.sources.get_mut(&ids.source)?,
            edge: self.edges.get_mut(&(ids.source, ids.destination)).map(|edge| &mut **edge),
            link: self.links.entry(ids.destination).or_default(),
            views: &mut self.views,
            delta: &mut self.delta,
            touched: &mut self.touched,
        })
    }
}

/// What of a shard one event is about.
pub(crate) struct Place<'a> {
    pub(crate) source: &'a mut Source,
    edge: Option<&'a mut Edge>,
    link: &'a mut Link,
    views: &'a mut Vec<View>,
    delta: &'a mut Delta,
    touched: &'a mut Vec<u32>,
}

impl Place<'_> {
    /// Judges a case that is going to be learned: the answers of [`Shard::ask`] as e-values; returns how far it is to
    /// be learned. Windows that have ended are closed first.
    #[inline]
    pub(crate) fn answer(&mut self, mesh: &Mesh, case: &Case<'_>, values: &mut EValues) -> f64 {
        let (seen, tables) = (&case.seen, mesh.tables());
        let Self { source, edge, link, views, delta, .. } = self;
        let mut minute = SiblingRate::default();
        source.baseline.turn(seen.exposure, &mut minute, &mut |question, x| delta.sample(question, x));
        if minute.windows > 0.0 {
            delta.lap(minute.sum, source.baseline.calls_a_minute());
            if let Some(namespace) = &source.namespace {
                delta.siblings(namespace).merge(&minute);
            }
        }
        let weight = source.baseline.judge(seen, case.first, tables, values);
        if source.returned {
            values.unset(Question::RareSource);
        }
        if let Some(edge) = edge {
            edge.baseline.turn(case.edge_seen.exposure, &mut |question, x| delta.sample(question, x));
            edge.baseline.judge(&case.edge_seen, tables, values);
        }
        if values.answer(Question::Bigger).is_none()
            && let Some(deviation) = source.baseline.score_size(seen)
        {
            values.set(Question::Bigger, mesh.e(Question::Bigger, deviation.x));
        }
        let contacts = link.first_contacts + f64::from(u8::from(seen.first_contact));
        let calls = link.calls + 1.0;
        link.view(views, mesh, case.ids.destination, seen.exposure).judge(calls, contacts, tables, values);
        if let Some(edge) = edge {
            edge.blame((case.edge_is_excused, source.is_releasing(case)), values);
        }
        weight
    }

    /// Adds the bits of a case to the evidence against its source. Returns the level that it reaches, where that has
    /// moved.
    #[inline]
    pub(crate) fn weigh(
        &mut self,
        known: (&Mesh, &Standings),
        case: &Case<'_>,
        told: (f64, Option<Question>),
        most: Level,
    ) -> Option<Reached> {
        self.source.weigh(self.delta, known, case, told, most)
    }

    /// Learns a case that was judged; `raw` are its bits before habit.
    #[inline]
    pub(crate) fn learn(&mut self, case: &Case<'_>, weight: f64, raw: f64) {
        let Self { source, edge, link, delta, touched, .. } = self;
        let seen = Observation { weight, ..case.seen };
        source.baseline.habit.learn(seen.exposure.now, raw);
        let mut minute = SiblingRate::default();
        source.baseline.learn(&seen, case.first, &mut minute, &mut |question, x| delta.sample(question, x));
        if let (Some(namespace), true) = (&source.namespace, minute.windows > 0.0) {
            delta.siblings(namespace).merge(&minute);
        }
        if let Some(edge) = edge {
            let seen = Observation { weight, ..case.edge_seen };
            edge.baseline.learn(&seen, &mut |question, x| delta.sample(question, x));
        }
        if link.calls == 0.0 {
            if touched.len() == TOUCHED {
                return;
            }
            touched.push(case.ids.destination);
        }
        link.calls += 1.0;
        link.weight += weight;
        link.first_contacts += f64::from(u8::from(seen.first_contact));
        link.reported |= case.event.reporter() == Reporter::Destination;
    }
}

impl Link {
    /// The destination as it stands now.
    #[inline]
    fn view<'a>(
        &mut self,
        views: &'a mut Vec<View>,
        mesh: &Mesh,
        id: u32,
        exposure: Exposure,
    ) -> &'a mut DestinationBaseline {
        let of = (id, mesh.closed(), exposure.now.window(Span::MINUTE));
        if views.get(self.view).is_none_or(|view| view.of != of) {
            let known = self.mesh.and_then(|id| mesh.destination(id));
            let baseline = known.map_or_else(DestinationBaseline::default, |(baseline, _)| *baseline);
            let view = View { of, baseline: baseline.at(exposure) };
            // So many destinations at once that there is no place for one more take turns at the last.
            let is_own = views.get(self.view).is_some_and(|before| before.of.0 == id);
            if !is_own && views.len() < TOUCHED {
                self.view = views.len();
                views.push(view);
            } else {
                self.view = if is_own { self.view } else { TOUCHED - 1 };
                views[self.view] = view;
            }
        }
        &mut views[self.view].baseline
    }
}

impl Edge {
    /// What others do to a destination is not held against a call on a usual edge beyond what is odd on that edge; nor is
    /// what newcomers of a release do elsewhere.
    fn blame(&self, (is_excused, is_release): (bool, bool), values: &mut EValues) {
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
    }
}
