//! The real parts by themselves: what the other end-to-end tests stand on holds.

mod support;

use std::{net::Ipv4Addr, time::Duration};

use serde_json::{Value, json};
use support::{
    authority::{Authority, spiffe_id},
    caller::Caller,
    discovery::now,
    envoy::{Envoy, QualmPorts, Sidecar},
    estate::Estate,
    feed::Feed,
    kafka::Kafka,
    parts::{Part, present},
    ports,
    wait::{PATIENCE, until},
};

const FIRST_REPLICA: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND_REPLICA: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

#[test]
fn kafka_keeps_records_of_three_partitions_over_a_restart() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::start(folder.path());
    kafka.create_topic("mesh.access", 3);
    for partition in 0..3 {
        kafka.produce("mesh.access", Some(partition), [("key", format!("record {partition}").as_bytes())]);
    }

    kafka.stop();
    kafka.start_again();

    let mut records = kafka.records("mesh.access");
    records.sort();
    assert_eq!(records, [b"record 0", b"record 1", b"record 2"]);
}

#[test]
fn kafka_killed_keeps_what_it_has_acknowledged() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::start(folder.path());
    kafka.create_topic("mesh.access", 1);
    kafka.produce("mesh.access", None, [("key", b"before".as_slice())]);

    kafka.kill();
    kafka.start_again();

    kafka.produce("mesh.access", None, [("key", b"after".as_slice())]);
    assert_eq!(kafka.records("mesh.access"), [b"before".to_vec(), b"after".to_vec()]);
}

#[test]
fn envoy_serves_two_replicas_of_one_identity_and_logs_who_they_are() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (cart, orders) = (spiffe_id("shop", "cart"), spiffe_id("shop", "orders"));
    let envoy = Envoy::start(folder.path(), &authority, Sidecar::new("orders", 0, None));

    for source in [FIRST_REPLICA, SECOND_REPLICA] {
        let mut connection = Caller::new(&authority, &cart, source, &orders).connect(envoy.http()).unwrap();
        for path in ["/v1/orders/42", "/v1/orders/43"] {
            let response = connection.get(path).unwrap();
            assert_eq!((response.status, response.body.as_str()), (200, "served\n"));
        }
    }

    let from = |source: Ipv4Addr, path: &str| {
        let line = envoy.logged(path, |line| {
            line["path"] == path
                && line["downstream_remote_address"].as_str().unwrap().starts_with(&format!("{source}:"))
        });
        assert_eq!(line["downstream_peer_uri_san"], cart);
        assert_eq!(line["downstream_local_uri_san"], orders);
        assert_eq!(line["response_code"], 200);
        assert!(line["downstream_peer_serial"].is_string(), "{line}");
        assert!(line["tls_ja4_fingerprint"].is_string(), "{line}");
        line["connection_id"].clone()
    };
    assert_eq!(from(FIRST_REPLICA, "/v1/orders/42"), from(FIRST_REPLICA, "/v1/orders/43"), "the connection is kept");
    assert_ne!(from(FIRST_REPLICA, "/v1/orders/42"), from(SECOND_REPLICA, "/v1/orders/42"));
}

#[test]
fn envoy_whose_qualm_is_not_there_serves_after_its_fetch_timeout() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let qualm = QualmPorts { id: spiffe_id("security", "qualm"), xds: ports::free(), als: Some(ports::free()) };
    let envoy = Envoy::start(folder.path(), &authority, Sidecar::new("orders", 0, Some(qualm)));
    let cart = Caller::new(&authority, &spiffe_id("shop", "cart"), FIRST_REPLICA, &spiffe_id("shop", "orders"));

    assert_eq!(cart.connect(envoy.http()).unwrap().get("/").unwrap().status, 200);
    assert_eq!(cart.connect(envoy.tcp()).unwrap().exchange(b"ping").unwrap(), b"ping");

    let line = envoy.logged("the TCP connection", |line| line["response_code"] == 0);
    assert_eq!(line["downstream_peer_uri_san"], spiffe_id("shop", "cart"));
    assert_eq!(line["bytes_received"], 4);
}

#[test]
fn envoy_refuses_whom_the_authority_does_not_know() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let orders = spiffe_id("shop", "orders");
    let envoy = Envoy::start(folder.path(), &authority, Sidecar::new("orders", 0, None));

    let forged = Caller::with_svid(&authority, &stranger.svid(&spiffe_id("shop", "cart")), FIRST_REPLICA, &orders);
    for caller in [Caller::nameless(&authority, FIRST_REPLICA, &orders), forged] {
        // TLS 1.3: the client learns of the refusal when it first reads.
        let refused = caller.connect(envoy.http()).and_then(|mut connection| connection.get("/"));
        assert!(refused.is_err(), "{refused:?}");
    }
    let elsewhere = Caller::new(&authority, &spiffe_id("shop", "cart"), FIRST_REPLICA, &spiffe_id("shop", "payments"));
    assert!(elsewhere.connect(envoy.http()).is_err(), "the caller knows whom it wants to talk to");
}

#[test]
fn a_sidecar_s_log_and_a_mesh_s_past_reach_their_topic_and_go_on() {
    if !present(&[Part::Kafka, Part::Envoy]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let start = now();
    let mut estate = Estate::generate(7, start);
    let pair = estate.busiest_pairs().remove(0);
    estate.settle(pair.replicas[0], FIRST_REPLICA, json!({ "tls_ja4_fingerprint": "t13d-live" }));
    let mut kafka = Kafka::start(folder.path());
    kafka.create_topic("mesh.access", 3);

    let _past = Feed::of_lines(&kafka, "mesh.access", estate.lines(start));
    let past = kafka.records("mesh.access");
    let living: Vec<Value> = past
        .iter()
        .map(|line| serde_json::from_slice(line).unwrap())
        .filter(|line: &Value| line["tls_ja4_fingerprint"] == "t13d-live")
        .collect();
    assert!(past.len() > 100_000 && living.len() > 100, "{} and {}", past.len(), living.len());
    for line in &living {
        assert_eq!(line["downstream_peer_uri_san"], pair.caller);
        assert!(line["downstream_direct_remote_address"].as_str().unwrap().starts_with("127.0.0.2:"), "{line}");
    }

    let envoy = Envoy::start(folder.path(), &authority, Sidecar::before(&pair.called, 0, None));
    let _live = Feed::of_file(&kafka, "mesh.access", &pair.called, envoy.log(), Duration::from_millis(20));
    let caller = Caller::new(&authority, &pair.caller, FIRST_REPLICA, &pair.called);
    let mut connection = caller.connect(envoy.http()).unwrap();
    let (method, path) = &pair.usual[0];
    assert_eq!(connection.request(method, path).unwrap().status, 200);
    kafka.stop();
    assert_eq!(connection.get("/while/the/broker/is/away").unwrap().status, 200);
    kafka.start_again();

    until("both live lines are in the topic", PATIENCE, || {
        let records = kafka.records("mesh.access");
        let has = |path: &str| records.iter().any(|line| String::from_utf8_lossy(line).contains(path));
        (has(path) && has("/while/the/broker/is/away")).then_some(())
    });
}

#[test]
fn a_rotated_svid_replaces_both_files() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let qualm = spiffe_id("security", "qualm");
    let read = |files: &support::authority::SvidFiles| {
        (std::fs::read(&files.certificate).unwrap(), std::fs::read(&files.key).unwrap())
    };
    let files = authority.write_svid(&qualm, folder.path());
    let before = read(&files);

    authority.write_svid(&qualm, folder.path());

    let after = read(&files);
    assert_ne!(before.0, after.0);
    assert_ne!(before.1, after.1);
}
