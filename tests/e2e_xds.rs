//! A real Envoy under the scorer's xDS: what a table says is what its callers get, on connections that are open.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{net::Ipv4Addr, path::Path};

use qualm_model::{level::Level, time::Span};
use qualm_scorer::{
    enforce::xds::policy::{DENY_PREFIX, SHADOW_PREFIX},
    table::{Enforcement, Object, Subject, TrustEntry},
};
use serde_json::Value;
use support::{
    authority::{Authority, spiffe_id},
    caller::{Caller, Connection},
    discovery::{Discovery, now, table},
    envoy::{Envoy, QualmPorts, Sidecar, Slot},
    parts::{Part, present},
    ports,
    wait::{PATIENCE, until_true},
};

const FIRST_REPLICA: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND_REPLICA: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Longer than any test.
const LONG: Span = Span::MINUTE;

/// One Envoy before `orders`, and the xDS server it subscribes to.
struct Mesh {
    authority: Authority,
    qualm: QualmPorts,
    discovery: Discovery,
    orders: Envoy,
    folder: tempfile::TempDir,
}

impl Mesh {
    fn start(entries: Vec<TrustEntry>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let qualm = QualmPorts { id: spiffe_id("security", "qualm"), xds: ports::free(), als: None };
        let mut discovery = Discovery::start(&authority, &qualm.id, qualm.xds, table(1, entries));
        let orders = start_orders(folder.path(), &authority, &qualm);
        discovery.acknowledged(&orders.sidecar().node, 1);
        Self { authority, qualm, discovery, orders, folder }
    }

    fn caller(&self, account: &str, source: Ipv4Addr) -> Caller {
        Caller::new(&self.authority, &spiffe_id("shop", account), source, &spiffe_id("shop", "orders"))
    }

    /// A connection to the HTTP listener on which one call has been served.
    fn open(&self, account: &str, source: Ipv4Addr) -> Connection {
        let mut connection = self.caller(account, source).connect(self.orders.http()).unwrap();
        assert_eq!(status(&mut connection), 200);
        connection
    }

    /// Sets the table and waits until Envoy has acknowledged it.
    fn enforce(&mut self, version: u64, entries: Vec<TrustEntry>) {
        self.discovery.set(version, entries);
        self.discovery.acknowledged(&self.orders.sidecar().node, version);
    }

    /// Kills the xDS server and starts another in its place.
    fn restart_discovery(&mut self, version: u64, entries: Vec<TrustEntry>) {
        self.kill_discovery();
        self.discovery = Discovery::start(&self.authority, &self.qualm.id, self.qualm.xds, table(version, entries));
    }

    /// Kills the xDS server; what is there instead listens elsewhere.
    fn kill_discovery(&mut self) {
        let elsewhere = Discovery::start(&self.authority, &self.qualm.id, ports::free(), table(0, Vec::new()));
        drop(std::mem::replace(&mut self.discovery, elsewhere));
    }
}

fn start_orders(folder: &Path, authority: &Authority, qualm: &QualmPorts) -> Envoy {
    Envoy::start(folder, authority, Sidecar::new("orders", 0, Some(qualm.clone())))
}

fn status(connection: &mut Connection) -> u16 {
    connection.get("/v1/orders/42").unwrap().status
}

/// Waits until calls on this connection are answered so, and sees that they stay so. Envoy acknowledges when its main
/// thread has taken the filter over; its worker follows within microseconds, which a loaded machine may stretch.
fn comes_to(connection: &mut Connection, expected: u16) {
    until_true(&format!("calls are answered {expected}"), PATIENCE, || status(connection) == expected);
    for _ in 0..10 {
        assert_eq!(status(connection), expected);
    }
}

/// A quarantine of `account`, at one of its instances or all.
fn quarantine(account: &str, instance: Option<Ipv4Addr>, lease: Span) -> TrustEntry {
    let decided = now();
    TrustEntry {
        decision: format!("{account}-decision"),
        subject: Subject {
            principal: spiffe_id("shop", account),
            cluster: None,
            workload: None,
            instance: instance.map(|address| address.to_string()),
        },
        object: Object::Any,
        level: Level::Quarantined,
        enforce: true,
        decided,
        expires: decided + lease,
        evidence_bits: 40.0,
        co_owners: Vec::new(),
        reason: "a test".to_owned(),
        known: None,
    }
}

#[test]
fn a_quarantined_identity_is_denied_on_its_open_connection_and_nobody_else_is() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Vec::new());
    let mut cart = mesh.open("cart", FIRST_REPLICA);
    let mut web = mesh.open("web", SECOND_REPLICA);

    mesh.enforce(2, vec![quarantine("cart", None, LONG)]);

    comes_to(&mut cart, 403);
    assert_eq!(status(&mut web), 200);
    let denied = mesh.orders.logged("the denial", |line| line["response_code"] == 403);
    assert_eq!(
        denied["response_code_details"],
        format!("rbac_access_denied_matched_policy[{DENY_PREFIX}cart-decision]")
    );
    assert_eq!(denied["downstream_peer_uri_san"], spiffe_id("shop", "cart"));

    mesh.enforce(3, Vec::new());
    comes_to(&mut cart, 200);
}

#[test]
fn one_replica_is_denied_without_its_sibling() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Vec::new());
    let mut deviating = mesh.open("cart", FIRST_REPLICA);
    let mut sibling = mesh.open("cart", SECOND_REPLICA);

    mesh.enforce(2, vec![quarantine("cart", Some(FIRST_REPLICA), LONG)]);

    comes_to(&mut deviating, 403);
    assert_eq!(status(&mut sibling), 200);
    assert_eq!(status(&mut mesh.open("web", FIRST_REPLICA)), 200, "another identity at the denied address");
}

#[test]
fn a_shadowed_quarantine_is_served_and_shows_in_the_mesh_s_own_log() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Vec::new());
    let mut cart = mesh.open("cart", FIRST_REPLICA);

    mesh.enforce(2, vec![TrustEntry { enforce: false, ..quarantine("cart", None, LONG) }]);

    let policy = format!("{SHADOW_PREFIX}cart-decision");
    let rbac = |line: &Value| line["dynamic_metadata"]["envoy.filters.http.rbac"].clone();
    until_true("a call is marked", PATIENCE, || {
        assert_eq!(status(&mut cart), 200);
        mesh.orders.log_lines().iter().any(|line| rbac(line)["qualm_shadow_effective_policy_id"] == policy)
    });
    let marked = mesh.orders.logged("the shadow verdict", |line| rbac(line).is_object());
    assert_eq!(marked["response_code"], 200);
    assert_eq!(rbac(&marked)["qualm_shadow_engine_result"], "denied");
}

#[test]
fn a_tcp_caller_is_denied_on_its_next_connection() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Vec::new());
    let tcp = mesh.orders.tcp();
    let cart = mesh.caller("cart", FIRST_REPLICA);
    assert_eq!(cart.connect(tcp).unwrap().exchange(b"ping").unwrap(), b"ping");

    mesh.enforce(2, vec![quarantine("cart", None, LONG)]);

    until_true("a new connection is refused", PATIENCE, || {
        cart.connect(tcp).and_then(|mut connection| connection.exchange(b"ping")).is_err()
    });
    let web = mesh.caller("web", FIRST_REPLICA);
    assert_eq!(web.connect(tcp).unwrap().exchange(b"ping").unwrap(), b"ping");
    mesh.orders.logged("the denial", |line| {
        line["connection_termination_details"]
            == format!("rbac_access_denied_matched_policy[{DENY_PREFIX}cart-decision]")
    });
}

#[test]
fn a_lease_that_ends_gives_access_back() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Vec::new());
    let mut cart = mesh.open("cart", FIRST_REPLICA);

    let entry = quarantine("cart", None, Span::seconds(10));
    mesh.enforce(2, vec![entry.clone()]);
    comes_to(&mut cart, 403);

    until_true("the lease ends", PATIENCE, || status(&mut cart) == 200);
    assert!(now() >= entry.expires, "not before its end");
}

#[test]
fn a_denial_outlives_a_killed_server_and_the_next_one_takes_it_over() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Vec::new());
    let mut cart = mesh.open("cart", FIRST_REPLICA);
    let entry = quarantine("cart", None, LONG);
    mesh.enforce(2, vec![entry.clone()]);
    comes_to(&mut cart, 403);

    mesh.kill_discovery();
    assert_eq!(status(&mut cart), 403);

    mesh.restart_discovery(2, vec![entry]);
    let node = mesh.orders.sidecar().node.clone();
    mesh.discovery.acknowledged(&node, 2);
    assert_eq!(status(&mut cart), 403);

    mesh.enforce(3, Vec::new());
    comes_to(&mut cart, 200);
}

#[test]
fn a_denial_ends_by_itself_when_no_server_comes_back() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Vec::new());
    let mut cart = mesh.open("cart", FIRST_REPLICA);
    let entry = quarantine("cart", None, Span::seconds(12));
    mesh.enforce(2, vec![entry.clone()]);
    comes_to(&mut cart, 403);

    mesh.kill_discovery();
    assert_eq!(status(&mut cart), 403);

    until_true("the time to live ends", PATIENCE, || status(&mut cart) == 200);
    assert!(now() >= entry.expires, "not before the lease");
}

#[test]
fn a_proxy_born_under_a_quarantine_denies_from_its_first_call() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mesh = Mesh::start(vec![quarantine("cart", None, LONG)]);
    let mut born = mesh.caller("cart", FIRST_REPLICA).connect(mesh.orders.http()).unwrap();
    assert_eq!(status(&mut born), 403);
}

#[test]
fn what_envoy_refuses_is_reported_in_its_own_words() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Vec::new());
    let sidecar = Sidecar { slot: Slot::OtherFilter, ..Sidecar::new("payments", 0, Some(mesh.qualm.clone())) };
    let node = sidecar.node.clone();
    let _payments = Envoy::start(mesh.folder.path(), &mesh.authority, sidecar);

    mesh.discovery.heard(
        &node,
        "refuses",
        |report| matches!(&report.what, Enforcement::Rejected(why) if why.contains("RBAC")),
    );
}
