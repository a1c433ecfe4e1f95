//! How an event enters a shard: place is made for what is new in it, it is noted that it was seen, and all that it is
//! judged by is found, each once.

use std::sync::Arc;

use foldhash::fast;
use hashbrown::{HashMap, hash_map::Entry};
use qualm_model::{
    baseline::{FirstTimes, SourceBaseline},
    detector::Observation,
    event::Event,
    identity::Hierarchy,
    stats::Exposure,
    time::{Span, Timestamp},
};

use super::{
    Attribute, Changed, EDGE_BYTES, Edge, INSTANCE_BYTES, KNOWN_BYTES, Link, OPERATIONS_AN_EDGE, OTHER, SOURCE_BYTES,
    Seen, Shard, Source, judging::Place,
};
use crate::{door::Ids, estate::Share, forgotten::Forgotten, mesh::Mesh, names::Names, scorer::Case};

/// A service of the mesh inherits from its siblings, and its edges may be adopted, once the mesh is this old;
/// before, everything is new and everything is learned.
const SETTLED: Span = Span::DAY;
/// How long an adopted edge, recognised as the service's own change, is excused from being new.
const ADOPTED_FOR: Span = Span::DAY;

/// What was seen of a shard's sources, and where the keys of it are noted.
struct Attributes<'a> {
    known: &'a mut HashMap<Attribute, Seen, fast::FixedState>,
    changed: &'a mut Changed,
    forgotten: &'a Forgotten,
    names: &'a Names,
}

impl Shard {
    /// Makes place for what is new in the event. Returns also the bytes that this took.
    #[inline]
    pub(crate) fn admit<'s, 'e>(
        &'s mut self,
        mesh: &Mesh,
        (event, caller): (Event<'e>, &str),
        (ids, share): (Ids, Share),
        exposure: Exposure,
    ) -> (Case<'e>, Place<'s>, usize) {
        let Self { names, sources, edges, known, links, forgotten, delta, touched, views, changed, .. } = self;
        let now = exposure.now;
        let mut bytes = 0;
        let source = sources.entry(ids.source).or_insert_with(|| {
            bytes += SOURCE_BYTES;
            delta.new_identities += 1;
            Box::new(new_source((caller, event.source().cluster()), forgotten, mesh, exposure))
        });
        changed.touch_source(ids.source, source);
        let instances = source.instances.len();
        let place = source.instance(ids.address, now);
        let mut owned = (source.instances.len() - instances) * INSTANCE_BYTES;
        source.last = source.last.max(now);
        let key = (ids.source, ids.destination);
        let (edge, link, first_contact) = match edges.entry(key) {
            Entry::Occupied(entry) => {
                let edge = &mut **entry.into_mut();
                changed.touch_edge(key, edge);
                edge.used_by(place, source, now);
                (edge, links.entry(ids.destination).or_default(), false)
            }
            Entry::Vacant(entry) => {
                let (source, destination) = (names.text(ids.source), names.text(ids.destination));
                let returned = forgotten.holds((4_u8, source, destination));
                let link = links.entry(ids.destination).or_insert_with(|| Link::to(destination, mesh));
                changed.edges.push(key);
                owned += EDGE_BYTES;
                let users = 1 << place;
                let edge = Edge { first: now, last: now, users, returned, stamp: changed.epoch, ..Edge::default() };
                (&mut **entry.insert(Box::new(edge)), link, !returned)
            }
        };
        if event.source().provenance().may_enforce() {
            source.vouched = source.vouched.max(Some(now));
        }
        let mut attributes = Attributes { known, changed, forgotten, names };
        let (first, taken) = attributes.first_times(ids, edge, now);
        owned += taken;
        source.owned += owned;
        let adopted = edge.adopted.filter(|&since| now - since <= ADOPTED_FOR);
        let case = Case {
            event,
            ids,
            seen: Observation {
                outcome: event.outcome(),
                first_contact: first_contact && adopted.is_none(),
                bytes: share.bytes,
                more: share.calls,
                duration_ns: event.duration_ns(),
                ..Observation::at(exposure)
            },
            edge_since: edge.adopted.unwrap_or(exposure.birth),
            // An operation on an edge that is itself new says nothing of its own.
            first: FirstTimes { operation: first.operation.filter(|_| !first_contact), ..first },
            edge_is_excused: edge.returned || adopted.is_some(),
        };
        (case, Place { source, edge: Some(edge), link, views, delta, touched }, bytes + owned)
    }
}

impl Edge {
    /// Notes that the instance at `place` of its source used it, and whether that shows a change of the service.
    #[inline]
    fn used_by(&mut self, place: usize, source: &mut Source, now: Timestamp) {
        let is_new_user = self.users & (1 << place) == 0;
        self.users |= 1 << place;
        self.last = self.last.max(now);
        let is_young = self.adopted.is_none() && now - self.first <= SETTLED;
        if is_young
            && (is_new_user && self.is_shared_by(source.serving(now))
                || now - self.first <= Span::HOUR && source.was_succeeded(self.first, now))
        {
            source.baseline.withdraw_contact(self.first);
            self.adopt(now);
        }
    }
}

impl Link {
    /// The link to a destination, found in the mesh by its name.
    pub(super) fn to(destination: &str, mesh: &Mesh) -> Self {
        Self { mesh: mesh.destination_id(destination), ..Self::default() }
    }
}

impl Attributes<'_> {
    /// What the event shows for the first time, and the bytes that this took.
    #[inline]
    fn first_times(&mut self, ids: Ids, edge: &mut Edge, now: Timestamp) -> (FirstTimes, usize) {
        let Ids { source, destination, .. } = ids;
        let mut taken = 0;
        let mut first_time = |attribute| {
            let (first, bytes) = self.first_time(attribute, edge, now);
            taken += bytes;
            first
        };
        let operation =
            ids.operation.and_then(|operation| first_time(Attribute::Operation { source, destination, operation }));
        let credential = ids.credential.and_then(|credential| first_time(Attribute::Credential { source, credential }));
        let fingerprint =
            ids.fingerprint.and_then(|fingerprint| first_time(Attribute::Fingerprint { source, fingerprint }));
        (FirstTimes { operation, credential, fingerprint }, taken)
    }

    /// Whether the attribute is new for its source, and notes that it was seen. `None` where the novelty cannot be
    /// judged because it may have been folded away.
    fn first_time(&mut self, mut attribute: Attribute, edge: &mut Edge, now: Timestamp) -> (Option<bool>, usize) {
        if let Some(seen) = self.known.get_mut(&attribute) {
            let before = *seen;
            seen.last = seen.last.max(now);
            seen.count = seen.count.saturating_add(1);
            self.changed.touch_known(attribute, seen, before);
            return (Some(false), 0);
        }
        if let Attribute::Operation { source, destination, .. } = attribute {
            if edge.operations >= OPERATIONS_AN_EDGE {
                attribute = Attribute::Operation { source, destination, operation: OTHER };
                if let Some(seen) = self.known.get_mut(&attribute) {
                    let before = *seen;
                    seen.last = now;
                    self.changed.touch_known(attribute, seen, before);
                    return (Some(false), 0);
                }
            } else {
                edge.operations += 1;
            }
        }
        let returned = self.forgotten.holds(attribute.mark(self.names));
        self.known.insert(attribute, Seen { last: now, count: 1, stamp: self.changed.epoch });
        self.changed.known.push(attribute);
        ((!returned).then_some(true), KNOWN_BYTES)
    }
}

fn new_source((principal, cluster): (&str, &str), forgotten: &Forgotten, mesh: &Mesh, exposure: Exposure) -> Source {
    let namespace = Hierarchy::of(principal).namespace.map(Arc::<str>::from);
    let settled = exposure.now - exposure.birth >= SETTLED;
    let siblings = namespace.as_deref().filter(|_| settled).and_then(|namespace| mesh.siblings(namespace));
    let mark = (3_u8, principal, cluster);
    Source {
        principal: Arc::from(principal),
        cluster: (!cluster.is_empty()).then(|| Arc::from(cluster)),
        baseline: siblings.map_or_else(SourceBaseline::default, |rate| SourceBaseline::inheriting(exposure, rate)),
        namespace,
        first: exposure.now,
        last: exposure.now,
        returned: forgotten.holds(mark),
        ..Source::default()
    }
}
