//! How an event enters a shard: place is made for what is new in it, it is noted that it was seen, and all that it is
//! judged by is found, each once.

use std::{borrow::Cow, hash::BuildHasher, net::IpAddr, sync::Arc};

use foldhash::{fast, quality};
use hashbrown::{HashMap, hash_map::Entry};
use qualm_model::{
    baseline::{FirstTimes, SourceBaseline},
    detector::Observation,
    event::Event,
    identity::Hierarchy,
    peers::WINDOW,
    stats::Exposure,
    time::{Span, Timestamp},
};

use super::{
    Attribute, Changed, EDGE_BYTES, Edge, INSTANCE_BYTES, KNOWN_BYTES, Link, OPERATION_BYTES, OPERATIONS_AN_EDGE,
    OTHER, Operation, SETTLED, SOURCE_BYTES, Seen, Shard, Source, Users, judging::Place,
};
use crate::{
    door::Ids,
    estate::Share,
    forgotten::Forgotten,
    mesh::{Arrival, Delta, FOREIGN, Mesh, operation_key},
    names::Names,
    scorer::{Case, FirstInWindow},
    workloads::workload_in,
};

/// How long an adopted edge, recognised as the service's own change, is excused from being new.
const ADOPTED_FOR: Span = Span::DAY;

/// What was seen of a shard's sources, and where the keys of it are noted.
struct Attributes<'a> {
    known: &'a mut HashMap<Attribute, Seen, fast::FixedState>,
    changed: &'a mut Changed,
    forgotten: &'a Forgotten,
    names: &'a Names,
}

/// Seconds over which the calls of a destination are counted.
const MINUTE_S: i64 = 60;

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
            let name = names.text(ids.source);
            Box::new(new_source((caller, event.source().cluster(), name), forgotten, mesh, exposure))
        });
        changed.touch_source(ids.source, source);
        let instances = source.instances.len();
        let (place, is_new_address) = source.instance(ids.address, now);
        let network = if is_new_address {
            address_of(event).and_then(|address| arrive(source, address, mesh, exposure, delta))
        } else {
            Some((false, 1.0))
        };
        let mut owned = (source.instances.len() - instances) * INSTANCE_BYTES;
        let rest = now - source.last;
        source.last = source.last.max(now);
        let key = (ids.source, ids.destination);
        let window = now.window(WINDOW);
        let mut in_window = FirstInWindow { peer: true, operation: false };
        let (edge, link, first_contact) = match edges.entry(key) {
            Entry::Occupied(entry) => {
                let edge = &mut **entry.into_mut();
                changed.touch_edge(key, edge);
                in_window.peer = edge.last.window(WINDOW) < window;
                edge.used_by(place, source, now);
                (edge, links.entry(ids.destination).or_default(), false)
            }
            Entry::Vacant(entry) => {
                let (caller, destination) = (names.text(ids.source), names.text(ids.destination));
                let returned = forgotten.holds((4_u8, caller, destination));
                let link = links.entry(ids.destination).or_insert_with(|| Link::to(destination, mesh));
                changed.edges.push(key);
                owned += EDGE_BYTES;
                let users = Users::new(place, source, exposure.birth, now);
                let edge = Edge { last: now, users, returned, stamp: changed.epoch, ..Edge::default() };
                (&mut **entry.insert(Box::new(edge)), link, !returned)
            }
        };
        if event.source().provenance().may_enforce() {
            source.vouched = source.vouched.max(Some(now));
        }
        let attributes = Attributes { known, changed, forgotten, names };
        let (first, operation, taken) = attributes.first_times(ids, (edge, source, place), exposure, &mut in_window);
        owned += taken;
        source.owned += owned;
        let adopted = edge.adopted.filter(|&since| now - since <= ADOPTED_FOR);
        let seen = Observation {
            outcome: event.outcome(),
            first_contact: first_contact && adopted.is_none(),
            bytes: share.bytes,
            more: share.calls,
            duration_ns: event.duration_ns(),
            ..Observation::at(exposure)
        };
        let case = Case {
            event,
            ids,
            seen,
            received: share.received,
            made: share.received * made_in_minute(&seen, mesh.closed()),
            edge_since: edge.adopted.map_or(exposure.birth, |adopted| mesh.lived_since(adopted)),
            // An operation on an edge that is itself new says nothing of its own.
            first: FirstTimes { operation: first.operation.filter(|_| !first_contact), network, ..first },
            edge_is_excused: edge.returned || adopted.is_some(),
            in_window: Some(in_window),
            rest,
            broken: None,
        };
        (case, Place { source, edge: Some(edge), operation, link, views, delta, touched }, bytes + owned)
    }
}

/// How many calls of the destination's open minute the event tells of. What comes out of order is of a minute that has
/// ended, and a node that makes up for several of them is no flood.
#[inline]
fn made_in_minute(seen: &Observation, closed: Timestamp) -> f64 {
    let minute = |time: Timestamp| time.window(Span::MINUTE);
    if minute(seen.exposure.now) < minute(closed) { 0.0 } else { seen.made_within(MINUTE_S) }
}

impl Edge {
    /// Notes that the instance at `place` of its source used it, and whether that shows a change of the service.
    #[inline]
    fn used_by(&mut self, place: usize, source: &mut Source, now: Timestamp) {
        let is_new_user = self.users.add(place);
        self.last = self.last.max(now);
        let first = self.users.first();
        let is_young = self.adopted.is_none() && now - first <= SETTLED;
        if is_young
            && (is_new_user && self.is_change_of(source, now)
                || now - first <= Span::HOUR && source.was_succeeded(first, now))
        {
            source.baseline.withdraw_contact(first);
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

impl<'a> Attributes<'a> {
    /// What the event shows for the first time, its operation, and the bytes that this took. `user` is the edge, its
    /// source, and the place of the instance that calls.
    #[inline]
    fn first_times(
        self,
        ids: Ids,
        user: (&mut Edge, &Source, usize),
        exposure: Exposure,
        in_window: &mut FirstInWindow,
    ) -> (FirstTimes, Option<&'a mut Operation>, usize) {
        let Self { known, changed, forgotten, names } = self;
        let now = exposure.now;
        let Ids { source, destination, .. } = ids;
        let (edge, caller, place) = user;
        let mut taken = 0;
        let mut first_time = |attribute| {
            if let Some(seen) = known.get_mut(&attribute) {
                changed.touch_known(attribute, seen);
                seen.count_one(now);
                return Some(false);
            }
            let returned = forgotten.holds(attribute.mark(names));
            if !exposure.is_learned() {
                // It is as new at its next call, and after the pause.
                return (!returned).then_some(true);
            }
            known.insert(attribute, Seen { last: now, count: 1, operation: None, stamp: changed.epoch });
            changed.known.push(attribute);
            taken += KNOWN_BYTES;
            (!returned).then_some(true)
        };
        let credential = ids.credential.and_then(|credential| first_time(Attribute::Credential { source, credential }));
        let fingerprint =
            ids.fingerprint.and_then(|fingerprint| first_time(Attribute::Fingerprint { source, fingerprint }));
        let Some(mut operation) = ids.operation else {
            return (FirstTimes { credential, fingerprint, ..FirstTimes::default() }, None, taken);
        };
        let of = |operation| Attribute::Operation { source, destination, operation };
        let mut is_new = !known.contains_key(&of(operation));
        if is_new && !exposure.is_learned() {
            let first = (!forgotten.holds(of(operation).mark(names))).then_some(true);
            return (FirstTimes { operation: first, credential, fingerprint, network: None }, None, taken);
        }
        if is_new && edge.operations >= OPERATIONS_AN_EDGE {
            operation = OTHER;
            is_new = !known.contains_key(&of(OTHER));
        } else if is_new {
            edge.operations += 1;
        }
        let mut first = Some(is_new);
        if is_new {
            first = (!forgotten.holds(of(operation).mark(names))).then_some(true);
            changed.known.push(of(operation));
            taken += KNOWN_BYTES + OPERATION_BYTES;
        }
        let seen = known.entry(of(operation)).or_insert_with(|| Seen { stamp: changed.epoch, ..Seen::default() });
        changed.touch_known(of(operation), seen);
        in_window.operation = seen.last.window(WINDOW) < now.window(WINDOW);
        seen.count_one(now);
        let used = seen.operation.get_or_insert_with(|| {
            let in_mesh =
                operation_key(names.text(destination), if operation == OTHER { "…" } else { names.text(operation) });
            Box::new(Operation::new(in_mesh, Users::new(place, caller, exposure.birth, now)))
        });
        used.used_by(place, caller, now);
        // What exceeds the cap is of many kinds and has no usual rate; on an edge that is itself new an operation says
        // nothing of its own.
        let is_asked = operation != OTHER && now - edge.users.first() > SETTLED;
        let used = is_asked.then_some(&mut **used);
        (FirstTimes { operation: first, credential, fingerprint, network: None }, used, taken)
    }
}

impl Seen {
    #[inline]
    fn count_one(&mut self, now: Timestamp) {
        self.last = self.last.max(now);
        self.count = self.count.saturating_add(1);
    }
}

/// Tells the mesh of a new address of the source. Returns whether its network is new, and how rare that is among new
/// addresses.
fn arrive(source: &Source, address: IpAddr, mesh: &Mesh, exposure: Exposure, delta: &mut Delta) -> Option<(bool, f64)> {
    let Exposure { birth, now, .. } = exposure;
    let distance = mesh.networks().distance(address, now)?;
    let identity = quality::FixedState::with_seed(3).hash_one(&*source.principal);
    delta.arrival(Arrival::new(address, identity, distance, now));
    let rarity = mesh.networks().rarity(distance, birth, now)?;
    Some((distance >= FOREIGN, rarity))
}

/// Where the call came from, if that is an address.
#[inline]
fn address_of(event: Event<'_>) -> Option<IpAddr> {
    event.source().ip().parse().ok()
}

/// A source of this name that was not seen before, or was folded away.
fn new_source(
    (principal, cluster, name): (&str, &str, &str),
    forgotten: &Forgotten,
    mesh: &Mesh,
    exposure: Exposure,
) -> Source {
    let namespace = Hierarchy::of(principal).namespace.map(Arc::<str>::from);
    let settled = exposure.now - exposure.birth >= SETTLED;
    let siblings = namespace.as_deref().filter(|_| settled).and_then(|namespace| mesh.siblings(namespace));
    let cluster = Some(cluster).filter(|cluster| !cluster.is_empty());
    let source = Source {
        principal: Arc::from(principal),
        cluster: cluster.map(Arc::from),
        workload: workload_in(name, principal, cluster).map(Arc::from),
        baseline: siblings.map_or_else(SourceBaseline::default, |rate| SourceBaseline::inheriting(exposure, rate)),
        namespace,
        first: exposure.now,
        last: exposure.now,
        ..Source::default()
    };
    Source { returned: forgotten.holds(source.mark()), ..source }
}

impl Source {
    /// Its key in the filter of forgotten things.
    pub(super) fn mark(&self) -> (u8, Cow<'_, str>, &str) {
        let whole = Cow::Borrowed(&*self.principal);
        let named = self.workload.as_ref().map_or(whole, |_| Cow::Owned(self.identity()));
        (3, named, self.cluster.as_deref().unwrap_or_default())
    }
}
