//! One virtual shard: the sources whose canonical service hashes to it, and all that is kept of them.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::{fast, quality};
use hashbrown::HashMap;
use qualm_model::{
    baseline::{DestinationBaseline, EdgeBaseline, SourceBaseline},
    detector::{Lull, Novelty, Rhythm, Unlike},
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use crate::{
    carriers::Carriers,
    forgotten::Forgotten,
    mesh::{Called, Delta, DestinationDelta, Mesh},
    names::Names,
    pending::{Gone, Pending},
    standing::{Evidence, Other},
    tide::Round,
    workloads,
};

mod admitting;
mod folding;
mod hours;
mod judging;
mod known;
mod operation;
mod parting;
mod release;
mod users;

pub(crate) use self::{
    hours::Hours,
    operation::Operation,
    parting::{Parting, Split},
};
use self::{release::is_change, users::Users};

/// Number of virtual shards: the unit of snapshot, memory and hand-over, independent of Kafka's partitions.
pub(crate) const SHARDS: usize = 64;
/// More instances than this of one identity share the last place.
const INSTANCES: usize = 64;
/// Newcomers after so long without any begin another release.
const GRACE_EVERY: Span = Span(2 * Span::HOUR.0);
/// Distinct operations kept for one edge; further ones are one operation.
const OPERATIONS_AN_EDGE: u16 = 256;
/// A service of the mesh inherits from its siblings, and its edges may be adopted, once the mesh is this old;
/// before, everything is new and everything is learned.
const SETTLED: Span = Span::DAY;
/// Destinations that a shard tells the mesh of in one summary; what more are called is judged, and not learned.
const TOUCHED: usize = 4096;
/// The canonical id of what exceeds a cap.
const OTHER: u32 = u32::MAX;

/// The shard of a source service: a fixed hash, so that every instance of Qualm agrees. All workloads that share a
/// principal are in one.
pub(crate) fn shard_of(identity: &str) -> u8 {
    (quality::FixedState::with_seed(1).hash_one(workloads::of_principal(identity)) % SHARDS as u64) as u8
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
    /// The workload, where it is one of several that share the principal. In a snapshot it is in the name alone.
    #[serde(skip)]
    pub(crate) workload: Option<Arc<str>>,
    /// Since when its calls were counted, where that is later than the birth of the mesh; known of workloads alone.
    #[serde(skip)]
    pub(crate) since: Option<Timestamp>,
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
    /// When it was last seen in an input that leaves something out.
    pub(crate) filtered: Option<Timestamp>,
    /// Its minutes beside those expected, for the tide.
    pub(crate) round: Round,
    /// When the last newcomers began to come.
    pub(crate) newcomers_since: Timestamp,
    /// The odd events of the running episode: version 2 of the snapshot saved none.
    pub(crate) carriers: Option<Box<Carriers>>,
    /// How much of the evidence is of another kind than more of the same: version 3 saved none.
    pub(crate) other: Other,
    /// Its windows beside its peers': version 3 saved none.
    pub(crate) unlike: Option<Box<Unlike>>,
    /// What it is known by over days. The last of what is saved: version 4 saved none.
    pub(crate) slow: Slow,
    /// From when until when a deployment of it was announced; it follows from the announcements.
    #[serde(skip)]
    pub(crate) announced: Option<(Timestamp, Timestamp)>,
    #[serde(skip)]
    pub(crate) stamp: u32,
}

/// What a source is known by over days: whether it meets anybody new, and how long it rests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slow {
    /// In how many of its minutes it met somebody new.
    pub(crate) meetings: Novelty,
    pub(crate) lull: Lull,
}

/// Everything kept of one edge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Edge {
    pub(crate) baseline: EdgeBaseline,
    pub(crate) last: Timestamp,
    pub(crate) users: Users,
    /// When it was recognised as a change of the service rather than of one replica.
    pub(crate) adopted: Option<Timestamp>,
    pub(crate) operations: u16,
    pub(crate) returned: bool,
    /// Asked while it is young and its destination rare. Version 1 of the snapshot saved none.
    pub(crate) rhythm: Option<Box<Rhythm>>,
    /// Calls of the last 24 hours. The last of what is saved: version 2 saved none.
    pub(crate) hours: Hours,
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

/// When an attribute was seen, and how often; of an operation, also what is usual.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) last: Timestamp,
    pub(crate) count: u32,
    pub(crate) operation: Option<Box<Operation>>,
    #[serde(skip)]
    pub(crate) stamp: u32,
}

/// A destination as this shard knows it: where it stands in the mesh, and what was seen since the last summary.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) mesh: Option<u32>,
    pub(crate) calls: f64,
    /// Of these, those that did not begin long before.
    pub(crate) made: f64,
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
pub(crate) const SOURCE_BYTES: usize =
    size_of::<Source>() + 48 + 640 + ODD_BYTES + size_of::<Unlike>() + 16 + 2 * NAME_BYTES;
/// What is kept of the odd events of a source: a fifth of them have some, in two runs.
const ODD_BYTES: usize = 48;
/// What the baseline of an edge grows to; while it is young that is its rhythm.
const GROWN_BYTES: usize = if Rhythm::HEAP_BYTES > 208 { Rhythm::HEAP_BYTES } else { 208 };
pub(crate) const EDGE_BYTES: usize = size_of::<Edge>() + 48 + GROWN_BYTES + 2 * size_of::<Link>() + NAME_BYTES;
pub(crate) const KNOWN_BYTES: usize = 2 * (size_of::<Attribute>() + size_of::<Seen>()) + NAME_BYTES;
pub(crate) const OPERATION_BYTES: usize = size_of::<Operation>() + 16;
pub(crate) const INSTANCE_BYTES: usize = 2 * size_of::<Instance>() + NAME_BYTES;

impl Source {
    /// Its name in every output: the principal, with `@cluster` where there are several, and with `#workload` where it
    /// is one of several that share the principal.
    pub(crate) fn identity(&self) -> String {
        workloads::name(&self.principal, self.cluster.as_deref(), self.workload.as_deref())
    }

    /// The number of the next decision of an episode: a level entered twice in one episode is two decisions.
    pub(crate) fn next_ordinal(&mut self, episode: Timestamp) -> u32 {
        let ordinal = if self.decided.0 == episode { self.decided.1 } else { 0 };
        self.decided = (episode, ordinal + 1);
        ordinal
    }

    /// The place of an instance in the list, added where it is new, and whether it was.
    pub(crate) fn instance(&mut self, address: u32, now: Timestamp) -> (usize, bool) {
        if let Some(place) = self.instances.iter().position(|instance| instance.address == address) {
            self.instances[place].last = self.instances[place].last.max(now);
            return (place, false);
        }
        if now - self.newcomers_since > GRACE_EVERY {
            self.newcomers_since = now;
        }
        let instance = Instance { address, first: now, last: now, odds: 0.0 };
        if self.instances.len() < INSTANCES {
            self.instances.push(instance);
            return (self.instances.len() - 1, true);
        }
        // The one not heard of for longest has gone; its place is free.
        let oldest = (0..INSTANCES).min_by_key(|&place| self.instances[place].last).unwrap_or_default();
        self.instances[oldest] = instance;
        (oldest, true)
    }
}

impl Shard {
    /// Moves what was seen of destinations since the last summary into the delta.
    pub(crate) fn gather_destinations(&mut self) {
        self.views.clear();
        for id in self.touched.drain(..) {
            let Some(link) = self.links.get_mut(&id) else { continue };
            self.delta.destinations.push(DestinationDelta {
                called: link.mesh.map_or_else(|| Called::New(self.names.shared(id)), Called::Known),
                calls: std::mem::take(&mut link.calls),
                made: std::mem::take(&mut link.made),
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
        self.links.entry(destination).or_insert_with(|| Link::to(names.text(destination), mesh))
    }

    /// Notes that the destination's own proxy reports.
    pub(crate) fn hear(&mut self, destination: u32, mesh: &Mesh) {
        let is_full = self.touched.len() == TOUCHED;
        let link = self.link(destination, mesh);
        let is_touched = link.is_touched();
        if is_touched || !is_full {
            link.reported = true;
        }
        if !is_touched && !is_full {
            self.touched.push(destination);
        }
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
}

impl Link {
    /// Whether the summary to come tells of it.
    fn is_touched(&self) -> bool {
        self.calls > 0.0 || self.reported
    }
}

impl Attribute {
    /// A key of the filter of forgotten things: by text, since ids end with what they name.
    pub(crate) fn mark(self, names: &Names) -> (u8, &str, &str, &str) {
        let text = |id| if id == OTHER { "…" } else { names.text(id) };
        match self {
            Self::Operation { source, destination, operation } => (0, text(source), text(destination), text(operation)),
            Self::Credential { source, credential } => (1, text(source), text(credential), ""),
            Self::Fingerprint { source, fingerprint } => (2, text(source), text(fingerprint), ""),
        }
    }

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
