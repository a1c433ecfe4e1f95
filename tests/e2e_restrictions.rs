//! What 10,000 restrictions weigh, and how long a real Envoy takes for them. Prints figures and asserts none that a loaded
//! machine could spoil. `tests/run --long` runs it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "the figures are what it is for")]

mod support;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Instant};

use qualm_model::{level::Level, time::Span};
use qualm_scorer::{
    enforce::xds::policy::{Policies, View},
    table::{Known, Object, Operations, Subject, TrustEntry, TrustTable},
};
use support::{
    authority::{Authority, spiffe_id},
    caller::Caller,
    discovery::{Discovery, now},
    envoy::{Envoy, QualmPorts, Sidecar},
    parts::{Part, long_run, present},
    ports,
};

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
fn ten_thousand_restrictions_are_taken_by_a_real_envoy() {
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

    let mut known = call(17);
    assert_eq!(known.request("GET", "/v1/orders/8/items").unwrap().status, 200);
    assert_eq!(known.request("DELETE", "/v1/orders/1").unwrap().status, 403);
    assert_eq!(call(RULES + 100).request("GET", "/admin").unwrap().status, 200, "nothing stands about others");
}
