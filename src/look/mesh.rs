//! Who calls whom, each call counted once: by the called's report where its proxy tells of calls, else by the caller's; a
//! stream once, however often it is told of; a record that was delivered again not at all.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use qualm_model::{
    event::{Activity, Event, EventBatch, Names, PartyColumns, Reporter},
    identity::{Provenance, service_of_workload, workload_of_pod},
    time::Timestamp,
};
use qualm_scorer::scorer::{Clocks, WrongClock};

/// Names kept of each kind; what is beyond is counted together.
pub(super) const NAMES: usize = 50_000;
/// Records, calls and streams that are known again.
const KNOWN: usize = 1_000_000;
/// Workloads of one principal that are told apart.
const WORKLOADS: usize = 64;

/// What is known of one identity.
#[derive(Debug, Default, Clone)]
pub(super) struct Identity {
    pub(super) calls: u64,
    pub(super) called: u64,
    pub(super) verified: bool,
}

/// Whose report it is, as far as that matters for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    /// It counts by itself.
    Called,
    /// It counts where the called does not tell.
    Caller,
    /// It tells for whom a call is made that the called's report counts as the gateway's.
    Gateway,
}

/// What reports agree on, before it is known who else has told.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Told {
    source: String,
    destination: String,
    side: Side,
    /// Where it was received, if the report is not the called's own.
    place: String,
}

/// The first report of a call.
#[derive(Debug)]
struct Half {
    is_called: bool,
    at: Timestamp,
    places: [u32; 2],
}

/// Everything counted; [`settle`](Self::settle) it before it is read.
#[derive(Debug, Default)]
pub(super) struct Mesh {
    pub(super) identities: HashMap<String, Identity>,
    pub(super) edges: HashMap<(String, String), u64>,
    /// Calls of those for whose names there was no room.
    pub(super) beyond: u64,
    pub(super) calls: u64,
    /// Calls whose caller is proven by a certificate.
    pub(super) verified: u64,
    /// Reports that tell of a call that another has counted.
    pub(super) confirming: u64,
    /// Records of streams after the first of each.
    pub(super) going_on: u64,
    pub(super) repeated: u64,
    pub(super) clocks: Clocks,
    told: HashMap<Told, (u64, bool)>,
    /// Addresses whose own proxies tell of calls.
    reporting: HashSet<String>,
    /// The workloads that have said of a principal that it is theirs.
    holders: HashMap<String, BTreeSet<String>>,
    salt: RandomState,
    records: HashSet<u64>,
    streams: HashSet<u64>,
    halves: HashMap<u64, Half>,
    /// Reports of callers that could be laid beside another, by where they went, and how many were.
    keyed: HashMap<u32, u64>,
    joined: HashMap<u32, u64>,
    addresses: HashMap<Arc<str>, u32>,
    by_number: Vec<Arc<str>>,
}

/// Who said that a principal is theirs: principal, pod and version by their places in a batch, on the caller's side or
/// not.
#[derive(Default)]
struct Holders {
    all: HashSet<(bool, [Option<usize>; 3])>,
    /// What each pod said last, on either side: mostly what it says again.
    latest: [Vec<[Option<usize>; 3]>; 2],
}

impl Holders {
    fn note(&mut self, is_source: bool, keys: [Option<usize>; 3]) {
        let Some(pod) = keys[1] else { return };
        let latest = &mut self.latest[usize::from(is_source)];
        if latest.len() <= pod {
            latest.resize(pod + 1, [None; 3]);
        }
        if latest[pod] != keys {
            latest[pod] = keys;
            self.all.insert((is_source, keys));
        }
    }
}

impl Mesh {
    /// Takes in what was understood.
    pub(super) fn note(&mut self, batch: &EventBatch) {
        let mut ends: HashMap<[Option<usize>; 7], (u64, Event<'_>)> = HashMap::new();
        let mut holders = Holders::default();
        for event in batch.events() {
            if !self.is_new(event) {
                continue;
            }
            let (source, destination) = (&batch.source, &batch.destination);
            let row = event.row;
            let keys =
                [&source.principal, &source.cluster, &destination.principal, &destination.cluster, &batch.hostname];
            let [who, in_cluster, whom, to_cluster, host] = keys.map(|names| names.key(row));
            let side = side(event.reporter());
            let place = if side == Side::Called { None } else { destination.ip.key(row) };
            let keys = [who, in_cluster, whom, to_cluster, host, place, Some(side as usize)];
            let (calls, shown) = ends.entry(keys).or_insert((0, event));
            *calls += 1;
            if event.source().provenance() < shown.source().provenance() {
                *shown = event;
            }
            let own = match event.reporter() {
                Reporter::Source => Some((true, source)),
                Reporter::Destination => Some((false, destination)),
                _ => None,
            };
            if let Some((is_source, own)) = own {
                holders.note(is_source, [&own.principal, &own.instance, &own.version].map(|names| names.key(row)));
            }
        }
        for (calls, event) in ends.into_values() {
            self.note_edge(event, calls);
        }
        for (is_source, keys) in holders.all {
            self.note_holder(if is_source { &batch.source } else { &batch.destination }, keys);
        }
    }

    /// Whether a record tells of a call of which none of its reporter's has told before.
    fn is_new(&mut self, event: Event<'_>) -> bool {
        let (id, at) = (event.record_id(), event.destination());
        let times = (event.start().0, event.report().0);
        if !id.is_empty() {
            let told = (id, event.reporter() as u8, times, event.source().port(), at.ip());
            let record = self.salt.hash_one((told, event.bytes_in(), event.bytes_out()));
            if self.records.contains(&record) {
                self.repeated += 1;
                return false;
            }
            if self.records.len() < KNOWN {
                self.records.insert(record);
            }
        }
        if event.reporter().is_of_destination() && self.reporting.len() < NAMES && !self.reporting.contains(at.ip()) {
            self.reporting.insert(at.ip().to_owned());
        }
        let Some(call) = self.call_of(event) else { return true };
        if event.activity() != Activity::Whole {
            let stream = self.salt.hash_one((call, event.start().0, side(event.reporter())));
            if !self.streams.contains(&stream) && self.streams.len() < KNOWN {
                self.streams.insert(stream);
            } else {
                self.going_on += 1;
                return false;
            }
        }
        if !event.activity().goes_on() {
            self.join(event, call);
        }
        true
    }

    /// What both reports of a call have in common: the request id at the place where it was received, or else the two
    /// ends of the connection.
    fn call_of(&self, event: Event<'_>) -> Option<u64> {
        let (source, at) = (event.source(), event.destination());
        match event.record_id() {
            "" if source.port() == 0 || at.port() == 0 || at.ip().is_empty() => None,
            "" => Some(self.salt.hash_one((source.ip(), source.port(), at.ip(), at.port()))),
            id => Some(self.salt.hash_one((id, at.ip(), at.port()))),
        }
    }

    /// Lays the two reports of a call side by side.
    fn join(&mut self, event: Event<'_>, call: u64) {
        let is_called = match event.reporter() {
            Reporter::Destination => true,
            Reporter::Source => false,
            _ => return,
        };
        let places = [event.source().ip(), event.destination().ip()].map(|address| self.number(address));
        if !is_called {
            *self.keyed.entry(places[1]).or_default() += 1;
        }
        let Some(half) = self.halves.get(&call) else {
            if self.halves.len() < KNOWN {
                self.halves.insert(call, Half { is_called, at: event.report(), places });
            }
            return;
        };
        if half.is_called == is_called {
            return;
        }
        let half = self.halves.remove(&call).expect("it is there");
        let (called, caller) = if is_called { (event.report(), half.at) } else { (half.at, event.report()) };
        // As the called saw it.
        let [from, to] = if is_called { places } else { half.places };
        *self.joined.entry(to).or_default() += 1;
        let [from, to] = [from, to].map(|number| &self.by_number[number as usize]);
        self.clocks.compare(from, to, caller - called);
    }

    /// The number of an address; those for which there is no room share the first.
    fn number(&mut self, address: &str) -> u32 {
        if let Some(&number) = self.addresses.get(address) {
            return number;
        }
        if self.by_number.is_empty() {
            self.by_number.push(Arc::from(""));
        }
        if address.is_empty() || self.by_number.len() >= NAMES {
            return 0;
        }
        let number = u32::try_from(self.by_number.len()).unwrap_or(0);
        let address: Arc<str> = Arc::from(address);
        self.by_number.push(Arc::clone(&address));
        self.addresses.insert(address, number);
        number
    }

    fn note_edge(&mut self, event: Event<'_>, calls: u64) {
        let named = |principal: &str, cluster: &str| match cluster {
            "" => principal.to_owned(),
            cluster => format!("{principal}@{cluster}"),
        };
        let source = named(event.source().principal(), event.source().cluster());
        let destination = match event.destination().principal() {
            "" => event.hostname(),
            principal => principal,
        };
        let destination = named(destination, event.destination().cluster());
        let side = side(event.reporter());
        let place = if side == Side::Called { String::new() } else { event.destination().ip().to_owned() };
        let told = Told { source, destination, side, place };
        let is_verified = event.source().provenance() == Provenance::Certificate;
        if let Some((sum, verified)) = self.told.get_mut(&told) {
            (*sum, *verified) = (*sum + calls, *verified || is_verified);
        } else if self.told.len() < NAMES {
            self.told.insert(told, (calls, is_verified));
        } else {
            self.beyond += calls;
            self.calls += calls;
        }
    }

    fn note_holder(&mut self, party: &PartyColumns, keys: [Option<usize>; 3]) {
        let text = |names: &Names, key: Option<usize>| key.map_or("", |key| names.text(key)).to_owned();
        let [principal, pod, version] =
            [text(&party.principal, keys[0]), text(&party.instance, keys[1]), text(&party.version, keys[2])];
        let service = service_of_workload(workload_of_pod(&pod), &version).to_owned();
        if principal.is_empty() || service.is_empty() {
            return;
        }
        if !self.holders.contains_key(&principal) && self.holders.len() >= NAMES {
            return;
        }
        let services = self.holders.entry(principal).or_default();
        if services.len() < WORKLOADS {
            services.insert(service);
        }
    }

    /// Decides which reports count, once all are there.
    pub(super) fn settle(&mut self) {
        let mut told: Vec<_> = std::mem::take(&mut self.told).into_iter().collect();
        // The order of a map is nobody's business.
        told.sort_by(|(a, _), (b, _)| {
            (&a.source, &a.destination, &a.place).cmp(&(&b.source, &b.destination, &b.place))
        });
        for (told, (calls, verified)) in told {
            let called_tells = self.reporting.contains(&told.place);
            let counted = match told.side {
                Side::Caller if called_tells => {
                    self.confirming += calls;
                    continue;
                }
                Side::Gateway if called_tells => {
                    self.confirming += calls;
                    0
                }
                _ => calls,
            };
            self.calls += counted;
            self.verified += if verified { counted } else { 0 };
            if let Some(identity) = place_for(&mut self.identities, &told.source) {
                identity.calls += calls;
                identity.verified |= verified;
            }
            if let Some(identity) = place_for(&mut self.identities, &told.destination) {
                identity.called += counted;
            }
            *self.edges.entry((told.source, told.destination)).or_default() += calls;
        }
    }

    /// Of the calls that callers' proxies report to destinations whose proxies report too: how many, and the share that
    /// these have reported. `None` where that cannot be told.
    pub(super) fn confirmed(&self) -> Option<(u64, f64)> {
        let is_reporting = |number: u32| self.reporting.contains(&*self.by_number[number as usize]);
        let sum = |of: &HashMap<u32, u64>| -> u64 {
            of.iter().filter(|&(&place, _)| place != 0 && is_reporting(place)).map(|(_, calls)| calls).sum()
        };
        let (calls, joined) = (sum(&self.keyed), sum(&self.joined));
        (calls > 0 && self.halves.len() < KNOWN).then(|| (calls, joined as f64 / calls as f64))
    }

    /// Reporters whose clocks differ from those of all others, the worst first.
    pub(super) fn wrong_clocks(&self) -> Vec<WrongClock> {
        self.clocks.wrong()
    }

    /// Principals that several workloads have, each with them.
    pub(super) fn shared(&self) -> Vec<(&str, &BTreeSet<String>)> {
        let shared = self.holders.iter().filter(|(_, services)| services.len() > 1);
        let mut shared: Vec<_> = shared.map(|(principal, services)| (principal.as_str(), services)).collect();
        shared.sort_by_key(|&(principal, services)| (std::cmp::Reverse(services.len()), principal));
        shared
    }
}

fn side(reporter: Reporter) -> Side {
    match reporter {
        Reporter::Source => Side::Caller,
        Reporter::Gateway => Side::Gateway,
        Reporter::Destination | Reporter::Ztunnel | Reporter::Waypoint | Reporter::Issuer => Side::Called,
    }
}

fn place_for<'a>(identities: &'a mut HashMap<String, Identity>, name: &str) -> Option<&'a mut Identity> {
    if name.is_empty() || (!identities.contains_key(name) && identities.len() >= NAMES) {
        return None;
    }
    Some(identities.entry(name.to_owned()).or_default())
}
