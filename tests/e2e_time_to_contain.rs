//! How long from a request on the wire to its caller being denied before three Envoys, one of them far away, and to the
//! proof of it; what happens at one that is down meanwhile and comes back; what 10,000 restrictions weigh. Prints figures
//! and asserts none that a loaded machine could spoil. `tests/run --long` runs it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "the figures are what it is for")]

mod support;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    enforce::xds::policy::{Policies, View},
    table::{Known, Object, Operations, Subject, TrustEntry, TrustTable},
};
use serde_json::Value;
use support::{
    authority::{Authority, spiffe_id},
    caller::{Caller, Connection},
    discovery::{Discovery, now},
    envoy::{Envoy, QualmPorts, Sidecar},
    measure::at_share,
    mesh::{BYSTANDER, DEVIATING, Mesh, Settings},
    operator::{Person, journalled},
    parts::{Part, long_run, present},
    ports, relay,
    wait::{PATIENCE, until_true},
};

/// Times that the identity is denied.
const RUNS: usize = 60;
/// How much later what it says reaches the Envoy that is far away, and back.
const FAR: Duration = Duration::from_millis(150);
/// Between two calls of one connection: what is found out is so exact.
const PAUSE: Duration = Duration::from_millis(5);
/// Calls after which nothing more is expected.
const MOST: usize = 6_000;
/// A few odd calls lead to a quarantine: what is timed is what follows from the last of them.
const BUDGET: &str = "[budget]\nquarantined_per_month = 3000";

/// What one run has shown at one Envoy, wall time.
#[derive(Debug, Clone)]
struct Shown {
    /// The first answer 403.
    denied: Timestamp,
    /// When calls began that were served before.
    served: Vec<Timestamp>,
}

/// One run: from when until when the identity strayed, and what each Envoy has shown.
struct Run {
    began: Timestamp,
    ended: Timestamp,
    shown: Vec<Shown>,
}

#[test]
fn from_the_request_on_the_wire_to_its_denial_before_three_envoys_and_to_the_proof() {
    if !long_run() || !present(&[Part::Envoy]) {
        return;
    }
    let mesh = Mesh::start(Settings { lease: "20m", judgement: BUDGET, ..Settings::default() });
    let far = relay::delayed(mesh.ports.xds, FAR);
    let far = QualmPorts { xds: far, als: Some(far), ..mesh.ports.clone() };
    let replica = |number, ports| {
        Envoy::start(mesh.folder.path(), &mesh.authority, Sidecar::before(&mesh.pair.called, number, Some(ports)))
    };
    let (far, mut third) = (replica(7, far), replica(8, mesh.ports.clone()));
    let caller = mesh.caller(DEVIATING).clone();
    let open = |envoy: &Envoy| caller.connect(envoy.http()).unwrap();
    let mut connections = [open(&mesh.sidecar), open(&far), open(&third)];
    let otto = Person::new(&mesh.authority, "otto", mesh.qualm.folder());
    let is_over = Arc::new(AtomicBool::new(false));
    let bystander = keep_calling(&mesh, &is_over);

    let mut runs = Vec::new();
    for run in 0..RUNS {
        settle(&mesh, &mut connections);
        runs.push(stray(&mesh, connections.iter_mut().collect(), run));
        until_true("it is proven", PATIENCE, || {
            // Whoever is denied goes on trying.
            connections.iter_mut().for_each(|open| assert_eq!(mesh.usual(DEVIATING, open), 403));
            mesh.qualm.metric("qualm_not_contained") == Some(0.0)
        });
        otto.done(&["lift", &mesh.pair.caller, "--reason", "the next run"]);
    }
    tell_runs(&runs, &proven(&mesh));

    // One is down while the identity comes to be denied.
    settle(&mesh, &mut connections);
    let sidecar = third.sidecar().clone();
    third.kill();
    let [first, second, _] = &mut connections;
    stray(&mesh, vec![&mut *first, &mut *second], RUNS);
    until_true("its end is seen", PATIENCE, || {
        assert_eq!(mesh.usual(DEVIATING, first), 403);
        mesh.qualm.metric("qualm_enforcement_nodes{enforcer=\"xds\"}") == Some(3.0)
    });
    let coverage = |of: &str| mesh.qualm.metric(&format!("qualm_proxies_{of}")).unwrap_or(f64::NAN);
    until_true("coverage says so", PATIENCE, || coverage("enforcing") < coverage("reporting"));
    eprintln!("while one is down: {} proxies report, {} enforce", coverage("reporting"), coverage("enforcing"));
    let begun = Instant::now();
    let back = Envoy::start(mesh.folder.path(), &mesh.authority, sidecar);
    let live = begun.elapsed();
    let mut connection = caller.connect(back.http()).unwrap();
    let mut served = 0;
    until_true("the one that is back denies", PATIENCE, || {
        let is_denied = mesh.usual(DEVIATING, &mut connection) == 403;
        served += usize::from(!is_denied);
        is_denied
    });
    let denies = begun.elapsed();
    eprintln!("back: live after {live:.0?}, denies after {denies:.0?}, {served} calls served meanwhile");
    is_over.store(true, Ordering::Release);
    bystander.join().unwrap();
    mesh.qualm.check_metrics();
}

/// Somebody else's calls, so that other proxies are heard.
fn keep_calling(mesh: &Mesh, is_over: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let caller = mesh.caller(BYSTANDER).clone();
    let (port, is_over) = (mesh.neighbour.http(), Arc::clone(is_over));
    let (method, path) = mesh.bystander.usual[0].clone();
    thread::spawn(move || {
        let mut open = caller.connect(port).unwrap();
        // Its Envoy goes first where the test fails.
        while !is_over.load(Ordering::Acquire) && open.request(&method, &path).is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
    })
}

/// Waits until every Envoy serves it.
fn settle(mesh: &Mesh, connections: &mut [Connection]) {
    for connection in connections {
        until_true("it is served", PATIENCE, || mesh.usual(DEVIATING, connection) == 200);
    }
}

/// Makes odd calls at the first Envoy, and calls as ever at the others, until each denies.
fn stray(mesh: &Mesh, connections: Vec<&mut Connection>, run: usize) -> Run {
    let (method, path) = mesh.pair.usual[0].clone();
    let began = now();
    let shown = thread::scope(|scope| {
        let each = connections.into_iter().enumerate().map(|(number, connection)| {
            let (method, path) = (&method, &path);
            scope.spawn(move || {
                let mut served = Vec::new();
                for attempt in 0.. {
                    let at = now();
                    let status = match number {
                        0 => connection.request("POST", &odd(run, attempt)),
                        _ => connection.request(method, path),
                    };
                    if status.unwrap().status == 403 {
                        return Shown { denied: now(), served };
                    }
                    assert!(attempt < MOST, "it strays in vain");
                    served.push(at);
                    thread::sleep(PAUSE);
                }
                unreachable!("it is denied, or strays in vain")
            })
        });
        let each: Vec<_> = each.collect();
        each.into_iter().map(|one| one.join().unwrap()).collect()
    });
    Run { began, ended: now(), shown }
}

/// What nobody has ever asked for, every time another one.
fn odd(run: usize, attempt: usize) -> String {
    let word = |n: usize| ["users", "cards", "keys", "audit", "tokens", "backups", "ledgers", "secrets"][n % 8];
    let root = if attempt.is_multiple_of(2) { "internal" } else { "fail" };
    format!("/{root}/{}/{}/{}/export", word(run), word(run / 8 + attempt), word(attempt / 8))
}

/// Of each decision that was proven: when its event was written, and when it was proven.
fn proven(mesh: &Mesh) -> Vec<(Timestamp, Timestamp)> {
    let records = journalled(mesh.qualm.folder(), &mesh.pair.caller);
    let told = records.iter().map(|record| &record["payload"]["timeline"]).filter(|of| of["moment"] == "contained");
    let time = |of: &Value, key: &str| of[key].as_i64().map(Timestamp);
    told.filter_map(|of| Some((time(of, "event")?, time(of, "contained")?))).collect()
}

fn tell_runs(runs: &[Run], proven: &[(Timestamp, Timestamp)]) {
    let (mut denied, mut served) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    let mut verified = Vec::new();
    for run in runs {
        // The decision by which it was denied, and not a lower one before.
        let within = |(event, _): &&(Timestamp, Timestamp)| *event >= run.began && *event <= run.ended;
        let Some((event, contained)) = proven.iter().rfind(within) else { continue };
        for (number, shown) in run.shown.iter().enumerate() {
            denied[number].push(span(shown.denied - *event));
            served[number].push(shown.served.iter().filter(|began| **began > *event).count());
        }
        verified.push(span(*contained - *event));
    }
    let names = ["the Envoy of the odd call", "an Envoy 150 ms away", "a third Envoy"];
    for ((name, denied), mut served) in names.into_iter().zip(&mut denied).zip(served) {
        quantiles(&format!("denied before {name}"), denied);
        served.sort_unstable();
        let at = |share| at_share(&served, share);
        eprintln!("  calls served after the event: p50 {}, p99 {}, most {}", at(0.5), at(0.99), at(1.0));
    }
    quantiles("denied, all three", &mut denied.into_iter().flatten().collect());
    quantiles("verified before all three", &mut verified);
}

fn span(span: Span) -> Duration {
    Duration::from_nanos(u64::try_from(span.0).unwrap_or(0))
}

fn quantiles(what: &str, took: &mut Vec<Duration>) {
    took.sort_unstable();
    assert!(took.len() >= 50, "{what}: too few for a percentile: {}", took.len());
    let at = |share| at_share(took, share);
    let n = took.len();
    eprintln!("{what}: p50 {:.1?}, p90 {:.1?}, p99 {:.1?}, most {:.1?}, n {n}", at(0.5), at(0.9), at(0.99), at(1.0));
}

/// One that is known at `orders` for three operations.
fn restricted(number: usize) -> TrustEntry {
    let operations = ["GET /v1/orders/{id}", "POST /v1/orders", "GET /v1/orders/{id}/items"];
    let only = Operations::Only(operations.map(str::to_owned).into());
    let peers = BTreeMap::from([(spiffe_id("shop", "orders"), only)]);
    let decided = now();
    TrustEntry {
        decision: format!("{number:032x}"),
        subject: Subject {
            principal: spiffe_id("shop", &format!("cart-{number}")),
            cluster: None,
            workload: None,
            instance: None,
        },
        object: Object::Any,
        level: Level::Restricted,
        enforce: true,
        decided,
        expires: decided + Span::HOUR,
        evidence_bits: 20.0,
        co_owners: Vec::new(),
        reason: "a measurement".to_owned(),
        known: Some(Arc::new(Known { calls_a_minute: 1 << 20, peers, ..Known::default() })),
    }
}

#[test]
fn ten_thousand_restrictions_are_pushed_and_one_more() {
    if !long_run() || !present(&[Part::Envoy]) {
        return;
    }
    const RULES: usize = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let qualm = QualmPorts { id: spiffe_id("security", "qualm"), xds: ports::free(), als: None };
    let mut discovery = Discovery::start(&authority, &qualm.id, qualm.xds, TrustTable::default());
    let orders = Envoy::start(folder.path(), &authority, Sidecar::new("orders", 0, Some(qualm)));
    let node = orders.sidecar().node.clone();
    let call = |number: usize| {
        let id = spiffe_id("shop", &format!("cart-{number}"));
        let caller = Caller::new(&authority, &id, Ipv4Addr::new(127, 0, 0, 2), &orders.sidecar().id);
        caller.connect(orders.http()).unwrap()
    };
    for (version, count) in [(1, 100), (2, 1_000), (3, RULES)] {
        let entries: Vec<TrustEntry> = (0..count).map(restricted).collect();
        let mut policies = Policies::default();
        entries.iter().for_each(|entry| assert!(policies.add(entry)));
        let sizes = policies
            .resources(&View::Of(spiffe_id("shop", "orders")))
            .map(|(name, body)| format!("{name} {} KiB", body.value.len() / 1024));
        let begun = Instant::now();
        discovery.set(version, entries);
        discovery.acknowledged(&node, version);
        eprintln!("{count} restricted: {}; set to acknowledged {:.0?}", sizes.join(", "), begun.elapsed());
    }
    // One more, on a connection that is open, among ten thousand.
    let (mut known, mut took) = (call(17), Vec::new());
    for run in 0..10 {
        let number = RULES + run;
        let mut open = call(number);
        assert_eq!(open.request("GET", "/admin").unwrap().status, 200);
        let begun = Instant::now();
        discovery.set(4 + run as u64, (0..=number).map(restricted).collect());
        until_true("it is denied", PATIENCE, || open.request("GET", "/admin").unwrap().status == 403);
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    eprintln!("one more of 10,000: set to denied p50 {:.0?}, most {:.0?}", at_share(&took, 0.5), at_share(&took, 1.0));
    let mut served: Vec<Duration> = (0..500)
        .map(|n| {
            let begun = Instant::now();
            assert_eq!(known.request("GET", &format!("/v1/orders/{n}/items")).unwrap().status, 200);
            begun.elapsed()
        })
        .collect();
    assert_eq!(known.request("DELETE", "/v1/orders/1").unwrap().status, 403);
    quantiles("a call that is let through, among 10,000", &mut served);
    let mut other: Vec<Duration> = {
        let mut stranger = call(RULES + 100);
        let timed = |open: &mut Connection| {
            let begun = Instant::now();
            assert_eq!(open.request("GET", "/admin").unwrap().status, 200);
            begun.elapsed()
        };
        (0..500).map(|_| timed(&mut stranger)).collect()
    };
    quantiles("a call of somebody of whom nothing stands, among 10,000", &mut other);
}
