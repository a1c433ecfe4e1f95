//! A real Envoy that asks Qualm about every request: the answers of the ladder, the level told to the workload and the
//! log, and what happens when Qualm does not answer.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says what it measured"
)]

mod support;

use std::{
    collections::BTreeMap,
    io::{BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use qualm_model::{level::Level, time::Span};
use qualm_scorer::{
    enforce::xds::policy::{DENY_PREFIX, THROTTLE_PREFIX},
    table::{Known, Object, Operations, Subject, TrustEntry},
};
use serde_json::Value;
use support::{
    authority::{Authority, spiffe_id},
    caller::{Caller, Connection, read_response},
    discovery::{Discovery, now, table},
    envoy::{Envoy, QualmPorts, Sidecar, Slot},
    measure::at_share,
    parts::{Part, present},
    ports,
    wait::{PATIENCE, until_true},
};

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Calls a minute of whoever is throttled.
const A_MINUTE: u32 = 20;
const ORDER: &str = "/v1/orders/8123";

/// An Envoy before `orders` that asks.
struct Mesh {
    authority: Authority,
    discovery: Option<Discovery>,
    qualm: QualmPorts,
    orders: Envoy,
    version: u64,
    _folder: tempfile::TempDir,
}

impl Mesh {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let qualm = QualmPorts { id: spiffe_id("security", "qualm"), xds: ports::free(), als: None };
        let discovery = Some(Discovery::start(&authority, &qualm.id, qualm.xds, table(0, Vec::new())));
        let sidecar = Sidecar { slot: Slot::ExtAuthz, ..Sidecar::new("orders", 0, Some(qualm.clone())) };
        let orders = Envoy::start(folder.path(), &authority, sidecar);
        Self { authority, discovery, qualm, orders, version: 0, _folder: folder }
    }

    fn enforce(&mut self, entries: Vec<TrustEntry>) {
        self.version += 1;
        self.discovery.as_ref().unwrap().set(self.version, entries);
    }

    fn call(&self, account: &str, from: Ipv4Addr) -> Connection {
        let caller = Caller::new(&self.authority, &spiffe_id("shop", account), from, &self.orders.sidecar().id);
        caller.connect(self.orders.http()).unwrap()
    }

    fn logged(&self, status: u16) -> Value {
        self.orders.logged("such an answer", |line| line["response_code"] == status)
    }
}

fn at(level: Level, instance: Option<Ipv4Addr>) -> TrustEntry {
    let operations = Operations::Only(["GET /v1/orders/{id}".to_owned()].into());
    let peers = BTreeMap::from([(spiffe_id("shop", "orders"), operations)]);
    let known = Known { calls_a_minute: A_MINUTE, peers, ..Known::default() };
    let instance = instance.map(|address| address.to_string());
    TrustEntry {
        decision: format!("{level}-decision"),
        subject: Subject { principal: spiffe_id("shop", "cart"), cluster: None, workload: None, instance },
        object: Object::Any,
        level,
        enforce: true,
        decided: now(),
        expires: now() + Span::HOUR,
        evidence_bits: 40.0,
        co_owners: Vec::new(),
        reason: "a test".to_owned(),
        known: Some(Arc::new(known)),
    }
}

/// Qualm compiles a table on a task of its own: the answer follows within moments.
fn settles(connection: &mut Connection, (method, path): (&str, &str), expected: u16) {
    until_true(&format!("{method} {path} is answered {expected}"), PATIENCE, || {
        connection.request(method, path).unwrap().status == expected
    });
}

#[test]
fn each_level_is_answered_as_the_filters_would_and_told_to_the_workload_and_the_log() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start();
    let (mut cart, mut sibling, mut web) =
        (mesh.call("cart", FIRST), mesh.call("cart", SECOND), mesh.call("web", FIRST));
    // What a caller says of its own trust is replaced.
    let forged = [("x-qualm-trust-level", "revoked")];
    assert_eq!(web.send("GET", ORDER, &forged, "").unwrap().status, 200);
    assert_eq!(mesh.logged(200)["trust_level"], "trusted");

    for level in [Level::Restricted, Level::Quarantined] {
        mesh.enforce(vec![at(level, Some(FIRST))]);
        settles(&mut cart, ("GET", "/admin"), 403);
        let known = if level == Level::Restricted { 200 } else { 403 };
        assert_eq!(cart.request("GET", ORDER).unwrap().status, known, "{level}");
        assert_eq!(cart.request("GET", "/v1/orders/..%2Fadmin").unwrap().status, 403, "{level}");
        for other in [&mut sibling, &mut web] {
            assert_eq!(other.request("DELETE", "/admin").unwrap().status, 200, "{level}");
        }
        let denied = mesh.orders.logged("the denial", |line| {
            line["dynamic_metadata"]["envoy.filters.http.ext_authz"]["level"] == level.as_str()
                && line["response_code"] == 403
        });
        let told = &denied["dynamic_metadata"]["envoy.filters.http.ext_authz"];
        assert_eq!(told["enforced_effective_policy_id"], format!("{DENY_PREFIX}{level}-decision"), "{told}");
        assert_eq!(
            (&told["enforced_engine_result"], &told["decision"]),
            (&"denied".into(), &format!("{level}-decision").into())
        );
        assert_eq!(denied["response_code_details"], "ext_authz_denied");
    }

    mesh.enforce(vec![at(Level::Throttled, None)]);
    settles(&mut sibling, ("GET", ORDER), 429);
    let limited = mesh.logged(429);
    let told = &limited["dynamic_metadata"]["envoy.filters.http.ext_authz"];
    assert_eq!(told["enforced_effective_policy_id"], format!("{THROTTLE_PREFIX}throttled-decision"), "{told}");
    // A token comes every three seconds, and the workload is told.
    settles(&mut cart, ("GET", ORDER), 200);
    mesh.orders.logged("the level", |line| line["trust_level"] == "throttled" && line["response_code"] == 200);

    // Who has shown no certificate is nobody of whom anything stands, and a shadow is only noted.
    mesh.enforce(vec![TrustEntry { enforce: false, ..at(Level::Quarantined, None) }]);
    settles(&mut cart, ("GET", "/admin"), 200);
    let plain = TcpStream::connect((Ipv4Addr::LOCALHOST, mesh.orders.plain()[0])).unwrap();
    (&plain).write_all(b"GET /admin HTTP/1.1\r\nhost: orders\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut BufReader::new(plain)).unwrap().status, 200);
    mesh.orders.logged("the note", |line| {
        line["dynamic_metadata"]["envoy.filters.http.ext_authz"]["noted"] == "quarantined-decision"
    });
}

#[test]
fn a_qualm_that_is_gone_or_hangs_holds_nobody_up() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start();
    let mut cart = mesh.call("cart", FIRST);
    mesh.enforce(vec![at(Level::Quarantined, None)]);
    settles(&mut cart, ("GET", ORDER), 403);
    mesh.discovery = None;
    settles(&mut cart, ("GET", ORDER), 200);
    let gone = waited(&mut cart);
    // Something takes connections there and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, mesh.qualm.xds)).unwrap();
    let hung = waited(&mut cart);
    drop(silent);
    println!("ext_authz fails open: Qualm gone {gone:?}, hung {hung:?}");
    assert!(gone < Duration::from_secs(2) && hung < Duration::from_secs(2), "{gone:?} {hung:?}");
    assert_eq!(cart.request("GET", ORDER).unwrap().status, 200);
}

/// How long most of a few served calls took.
fn waited(connection: &mut Connection) -> Duration {
    let mut took: Vec<Duration> = (0..11)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(connection.request("GET", ORDER).unwrap().status, 200);
            begun.elapsed()
        })
        .collect();
    took.sort();
    at_share(&took, 0.5)
}
