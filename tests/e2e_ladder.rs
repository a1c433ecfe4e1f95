//! Each level of the ladder at a real Envoy: what a request gets, for the identity, for a sibling replica, for others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::BTreeMap,
    io::{BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::Arc,
};

use qualm_model::{level::Level, time::Span};
use qualm_scorer::{
    enforce::xds::policy::{DENY_PREFIX, THROTTLE_PREFIX},
    table::{Known, Object, Operations, Reachable, Subject, TrustEntry, TrustTable},
};
use support::{
    authority::{Authority, spiffe_id},
    caller::{Caller, Connection, read_response},
    discovery::{Discovery, now},
    envoy::{Envoy, QualmPorts, Sidecar},
    parts::{Part, present},
    ports,
    wait::{PATIENCE, until_true},
};

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Calls a minute of whoever is throttled.
const A_MINUTE: u32 = 20;

/// Envoys before `orders`, which cart is known to call, and before `mail`, which it is not.
struct Mesh {
    authority: Authority,
    discovery: Discovery,
    orders: Envoy,
    mail: Envoy,
    version: u64,
    _folder: tempfile::TempDir,
}

impl Mesh {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let qualm = QualmPorts { id: spiffe_id("security", "qualm"), xds: ports::free(), als: None };
        let discovery = Discovery::start(&authority, &qualm.id, qualm.xds, TrustTable::default());
        let before = |app| Envoy::start(folder.path(), &authority, Sidecar::new(app, 0, Some(qualm.clone())));
        let (orders, mail) = (before("orders"), before("mail"));
        Self { authority, discovery, orders, mail, version: 0, _folder: folder }
    }

    /// Has the table hold these entries, and waits until both have it.
    fn enforce(&mut self, entries: Vec<TrustEntry>) {
        self.version += 1;
        let reachable =
            Reachable { destinations: vec![spiffe_id("spire", "agent")], paths: vec!["/healthz".to_owned()] };
        let table = TrustTable { version: self.version, entries, reachable, ..TrustTable::default() };
        self.discovery.set_table(table);
        for envoy in [&self.orders, &self.mail] {
            self.discovery.acknowledged(&envoy.sidecar().node, self.version);
        }
    }

    fn call(&self, account: &str, from: Ipv4Addr, to: &Envoy) -> Connection {
        let caller = Caller::new(&self.authority, &spiffe_id("shop", account), from, &to.sidecar().id);
        caller.connect(to.http()).unwrap()
    }
}

/// What calls on one connection are answered.
fn answers(connection: &mut Connection, method: &str, path: &str, calls: usize) -> BTreeMap<u16, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..calls {
        *answers.entry(connection.request(method, path).unwrap().status).or_default() += 1;
    }
    answers
}

fn at(level: Level, instance: Option<Ipv4Addr>) -> TrustEntry {
    // Of one method there are patterns alone.
    let operations =
        ["GET /v1/orders/{id}", "GET /v1/orders", "POST /v1/orders", "GET /v1/{text}/stock", "PATCH /v1/orders/{id}"];
    let operations = Operations::Only(operations.map(str::to_owned).into());
    let peers = BTreeMap::from([(spiffe_id("shop", "orders"), operations)]);
    let known = Known { calls_a_minute: A_MINUTE, peers, ..Known::default() };
    let decided = now();
    TrustEntry {
        decision: format!("{level}-decision"),
        subject: Subject {
            principal: spiffe_id("shop", "cart"),
            cluster: None,
            workload: None,
            instance: instance.map(|address| address.to_string()),
        },
        object: Object::Any,
        level,
        enforce: true,
        decided,
        expires: decided + Span::HOUR,
        evidence_bits: 40.0,
        co_owners: Vec::new(),
        reason: "a test".to_owned(),
        known: Some(Arc::new(known)),
    }
}

/// The status that nearly all of a few calls get, once the proxy's worker has what its main thread has acknowledged.
fn settles(connection: &mut Connection, (method, path): (&str, &str), expected: u16) {
    until_true(&format!("{method} {path} is answered {expected}"), PATIENCE, || {
        connection.request(method, path).unwrap().status == expected
    });
}

const ORDER: (&str, &str) = ("GET", "/v1/orders/8123");

#[test]
fn each_level_refuses_what_it_says_to_the_identity_and_nothing_to_anybody_else() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start();
    for level in Level::ALL {
        // With an instance named, its sibling is another one.
        let one = at(level, Some(FIRST));
        mesh.enforce(if level == Level::Trusted { Vec::new() } else { vec![one] });
        let mut odd = mesh.call("cart", FIRST, &mesh.orders);
        let known_answer = if level >= Level::Quarantined { 403 } else { 200 };
        settles(&mut odd, ORDER, known_answer);
        let mut elsewhere = mesh.call("cart", FIRST, &mesh.mail);
        let unknown_answer = if level >= Level::Restricted { 403 } else { 200 };
        settles(&mut elsewhere, ORDER, unknown_answer);
        settles(&mut odd, ("DELETE", "/v1/orders/8123"), unknown_answer);
        settles(&mut odd, ("GET", "/admin"), unknown_answer);
        settles(&mut odd, ("GET", "/healthz"), 200);

        let flood = answers(&mut odd, ORDER.0, ORDER.1, 3 * A_MINUTE as usize);
        let too_many = flood.get(&429).copied().unwrap_or_default();
        match level {
            Level::Throttled | Level::Restricted => assert!(too_many > A_MINUTE as usize, "{level}: {flood:?}"),
            _ => assert_eq!(flood.keys().collect::<Vec<_>>(), [&known_answer], "{level}"),
        }
        for (account, from) in [("cart", SECOND), ("web", FIRST)] {
            for envoy in [&mesh.orders, &mesh.mail] {
                let mut other = mesh.call(account, from, envoy);
                let served = answers(&mut other, "DELETE", "/admin", 3 * A_MINUTE as usize);
                assert_eq!(served.keys().collect::<Vec<_>>(), [&200], "{level}, {account} from {from}");
            }
        }
    }
}

#[test]
fn a_restricted_service_may_do_what_it_is_known_for_with_other_values_and_a_query() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start();
    let known = Known { calls_a_minute: 1 << 20, ..Known::clone(at(Level::Restricted, None).known.as_ref().unwrap()) };
    mesh.enforce(vec![TrustEntry { known: Some(known.into()), ..at(Level::Restricted, None) }]);
    let mut cart = mesh.call("cart", FIRST, &mesh.orders);
    settles(&mut cart, ("GET", "/admin"), 403);
    for (method, path) in [
        ("GET", "/v1/orders/1"),
        ("GET", "/v1/orders/77?expand=items&x=/admin"),
        ("GET", "/v1/orders"),
        ("GET", "/v1/orders?page=2"),
        ("POST", "/v1/orders"),
        ("GET", "/v1/orders/stock"),
        ("GET", "/v1/caf%C3%A9/stock"),
        ("PATCH", "/v1/orders/1"),
    ] {
        assert_eq!(cart.request(method, path).unwrap().status, 200, "{method} {path}");
    }
    for (method, path) in [
        ("POST", "/v1/orders/1"),
        ("PUT", "/v1/orders"),
        ("GET", "/v1/orders/1/2"),
        ("GET", "/v1/orders/..%2Fadmin"),
        ("GET", "/v1/ordersX/1"),
        ("GET", "/v1/"),
        ("GET", "/"),
        ("GET", "/healthz?x=/../admin"),
    ] {
        assert_eq!(cart.request(method, path).unwrap().status, 403, "{method} {path}");
    }
    let denied = mesh.orders.logged("a denial", |line| line["response_code"] == 403);
    let policy = format!("rbac_access_denied_matched_policy[{DENY_PREFIX}restricted-decision]");
    assert_eq!(denied["response_code_details"], policy);
}

#[test]
fn whoever_calls_without_tls_is_served_whatever_stands_about_others() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start();
    for entry in [at(Level::Quarantined, None), at(Level::Restricted, None), at(Level::Throttled, Some(FIRST))] {
        mesh.enforce(vec![TrustEntry { enforce: false, ..at(Level::Quarantined, Some(SECOND)) }, entry]);
        let [http, tcp] = mesh.orders.plain();
        for _ in 0..10 {
            let mut plain = TcpStream::connect((Ipv4Addr::LOCALHOST, http)).unwrap();
            plain.write_all(b"GET /admin HTTP/1.1\r\nhost: orders\r\n\r\n").unwrap();
            assert_eq!(read_response(&mut BufReader::new(plain)).unwrap().status, 200);
        }
        let mut plain = TcpStream::connect((Ipv4Addr::LOCALHOST, tcp)).unwrap();
        plain.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        plain.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
    }
}

#[test]
fn what_a_throttled_identity_may_still_call_it_may_again_after_a_while_and_the_log_names_the_decision() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start();
    mesh.enforce(vec![at(Level::Throttled, None)]);
    let mut cart = mesh.call("cart", FIRST, &mesh.orders);
    settles(&mut cart, ORDER, 429);
    let refused = mesh.orders.logged("the refusal", |line| line["response_code"] == 429);
    let mark = &refused["dynamic_metadata"]["envoy.filters.http.rbac"]["qualm_shadow_effective_policy_id"];
    assert_eq!(*mark, format!("{THROTTLE_PREFIX}throttled-decision"));
    assert_eq!(refused["response_code_details"], "local_rate_limited");
    // A token comes every three seconds.
    settles(&mut cart, ORDER, 200);
    mesh.enforce(Vec::new());
    let mut again = mesh.call("cart", FIRST, &mesh.orders);
    settles(&mut again, ORDER, 200);
    until_true("nothing is limited any more", PATIENCE, || {
        answers(&mut again, ORDER.0, ORDER.1, 3 * A_MINUTE as usize).keys().eq([&200])
    });
}
