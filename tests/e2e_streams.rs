//! What is open when an identity comes to be denied: a real Envoy's RBAC filters do not meet it. It is named in what is said
//! of the decision, and what bounds it is shown.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use qualm_model::{level::Level, time::Span};
use qualm_scorer::table::{Object, Subject, TrustEntry};
use support::{
    authority::{Authority, spiffe_id},
    caller::Caller,
    discovery::{Discovery, now, table},
    envoy::{Envoy, QualmPorts, Sidecar, Streams},
    mesh::{DEVIATING, Mesh, Settings},
    operator::Person,
    parts::{Part, present},
    ports,
    wait::{PATIENCE, until_true},
};

#[test]
fn what_is_open_when_an_identity_is_quarantined_goes_on_and_is_named() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mesh = Mesh::start(Settings { lease: "20m", streams: Streams::Told, ..Settings::default() });
    let mut usual = mesh.open(DEVIATING);
    let mut stream = mesh.caller(DEVIATING).connect(mesh.sidecar.http()).unwrap();
    assert_eq!(stream.begin("/stream").unwrap(), 200);
    let mut tcp = mesh.caller(DEVIATING).connect(mesh.sidecar.tcp()).unwrap();
    assert_eq!(tcp.exchange(b"before").unwrap(), b"before");

    let otto = Person::new(&mesh.authority, "otto", mesh.qualm.folder());
    let caller = mesh.pair.caller.clone();
    otto.done(&["quarantine", &caller, "--for", "10m", "--reason", "a drill", "--yes"]);
    until_true("a new request is denied", PATIENCE, || mesh.usual(DEVIATING, &mut usual) == 403);
    until_true("a new connection is denied", PATIENCE, || {
        mesh.caller(DEVIATING).connect(mesh.sidecar.tcp()).and_then(|mut open| open.exchange(b"new")).is_err()
    });

    // What was open goes on, and whoever asks is told so.
    let named = |shown: &serde_json::Value| {
        let of = shown["containment"][0]["not_cut"].as_array().cloned().unwrap_or_default();
        of.iter().filter_map(|words| words.as_str()).any(|words| words.contains("a stream to"))
    };
    until_true("what survives is named", PATIENCE, || {
        assert!(!stream.piece().unwrap().is_empty());
        assert_eq!(tcp.exchange(b"after").unwrap(), b"after");
        named(&otto.done(&["show", &caller]))
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(stream.piece().unwrap(), b"piece");
        assert_eq!(tcp.exchange(b"still").unwrap(), b"still");
    }
    let shown = otto.done(&["show", &caller]);
    // A usual call may have come between the decision and its push; what began before it is no leak.
    assert_eq!(shown["containment"][0]["escalated"], false, "{shown}");
}

#[test]
fn an_envoy_that_bounds_what_is_open_cuts_it_and_what_is_opened_next_is_denied() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let qualm = QualmPorts { id: spiffe_id("security", "qualm"), xds: ports::free(), als: None };
    let mut discovery = Discovery::start(&authority, &qualm.id, qualm.xds, table(0, Vec::new()));
    let sidecar = Sidecar { streams: Streams::Bounded, ..Sidecar::new("orders", 0, Some(qualm)) };
    let orders = Envoy::start(folder.path(), &authority, sidecar);
    let cart = spiffe_id("shop", "cart");
    let caller = Caller::new(&authority, &cart, Ipv4Addr::new(127, 0, 0, 2), &orders.sidecar().id);
    let mut stream = caller.connect(orders.http()).unwrap();
    assert_eq!(stream.begin("/stream").unwrap(), 200);
    let mut tcp = caller.connect(orders.tcp()).unwrap();
    assert_eq!(tcp.exchange(b"before").unwrap(), b"before");

    let decided = now();
    let quarantine = TrustEntry {
        decision: "d1".to_owned(),
        subject: Subject { principal: cart, cluster: None, workload: None, instance: None },
        object: Object::Any,
        level: Level::Quarantined,
        enforce: true,
        decided,
        expires: decided + Span::HOUR,
        evidence_bits: 40.0,
        co_owners: Vec::new(),
        reason: "a test".to_owned(),
        known: None,
    };
    discovery.set(1, vec![quarantine]);
    discovery.acknowledged(&orders.sidecar().node, 1);
    until_true("the stream is cut", PATIENCE, || stream.piece().map_or(true, |piece| piece.is_empty()));
    until_true("the connection is cut", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(50));
        tcp.exchange(b"after").is_err()
    });
    let mut again = caller.connect(orders.http()).unwrap();
    assert_eq!(again.begin("/stream").unwrap(), 403);
}
