//! What entries of Envoy's access log become.

use super::*;

fn inbound() -> AccessEntry<'static> {
    AccessEntry {
        method: "GET",
        path: "/v1/orders/42?x=1",
        status: Some(200),
        upstream_cluster: "inbound|8000||",
        authority: "orders.shop:8000",
        downstream_direct_remote_address: "10.0.0.7:41854",
        downstream_local_address: "10.0.0.9:8000",
        downstream_peer_uri_san: "spiffe://mesh.test/ns/shop/sa/cart",
        downstream_local_uri_san: "spiffe://mesh.test/ns/shop/sa/orders",
        ..AccessEntry::default()
    }
}

#[test]
fn an_inbound_entry_names_the_peer_by_its_certificate() {
    let mut operation = String::new();
    let entry = inbound();
    let draft = entry.draft(&mut operation).expect("complete");
    assert_eq!(draft.reporter, Reporter::Destination);
    assert_eq!(draft.source.principal, "spiffe://mesh.test/ns/shop/sa/cart");
    assert_eq!(
        (draft.source.provenance, draft.source.ip, draft.source.port),
        (Provenance::Certificate, "10.0.0.7", 41854)
    );
    assert_eq!((draft.destination.principal, draft.hostname), ("spiffe://mesh.test/ns/shop/sa/orders", "orders.shop"));
    assert_eq!((draft.operation, draft.auth_method), ("GET /v1/orders/{id}", "mtls"));
}

#[test]
fn an_outbound_entry_claims_its_own_name_and_verifies_the_other() {
    let entry = AccessEntry {
        upstream_cluster: "outbound|80||orders.shop.svc.cluster.local",
        upstream_peer_uri_san: "spiffe://mesh.test/ns/shop/sa/orders",
        upstream_local_uri_san: "spiffe://mesh.test/ns/shop/sa/cart",
        downstream_peer_uri_san: "",
        node_id: "sidecar~10.0.0.7~cart-1.shop~shop.svc.cluster.local",
        ..inbound()
    };
    let mut operation = String::new();
    let draft = entry.draft(&mut operation).expect("complete");
    assert_eq!((draft.reporter, draft.source.provenance), (Reporter::Source, Provenance::Name));
    assert_eq!((draft.source.principal, draft.source.instance), ("spiffe://mesh.test/ns/shop/sa/cart", "cart-1"));
    assert_eq!(draft.destination.principal, "spiffe://mesh.test/ns/shop/sa/orders");
    assert_eq!(draft.auth_method, "");
}

#[test]
fn what_the_caller_says_in_x_forwarded_for_is_never_its_instance() {
    let claimed =
        AccessEntry { downstream_remote_address: "10.0.0.8:41854", downstream_direct_remote_address: "", ..inbound() };
    let tcp = AccessEntry { method: "", path: "", status: None, ..claimed };
    for (entry, ip) in [
        (AccessEntry { downstream_direct_remote_address: "10.0.0.7:41854", ..claimed }, "10.0.0.7"),
        (claimed, ""),
        (AccessEntry { forwarded: Forwarded::of("10.0.0.8"), ..claimed }, ""),
        (AccessEntry { forwarded: Forwarded::of("-"), ..claimed }, "10.0.0.8"),
        (tcp, "10.0.0.8"),
        (AccessEntry { forwarded: Forwarded::of("10.0.0.8"), ..tcp }, ""),
        // Requests of a format without the keys that tell them from connections.
        (AccessEntry { status: Some(404), ..tcp }, ""),
        (AccessEntry { protocol: "HTTP/1.1", ..tcp }, ""),
    ] {
        let (mut operation, mut other) = (String::new(), String::new());
        let outbound = AccessEntry {
            upstream_cluster: "outbound|80||orders.shop.svc.cluster.local",
            downstream_peer_uri_san: "",
            ..entry
        };
        assert_eq!(entry.draft(&mut operation).expect("complete").source.ip, ip, "{entry:?}");
        assert_eq!(outbound.draft(&mut other).expect("complete").source.ip, ip, "{outbound:?}");
    }
}

#[test]
fn our_own_denials_are_recognised_and_other_policies_are_not() {
    for (details, decision) in [
        ("rbac_access_denied_matched_policy[qualm-deny/3f2a]", "3f2a"),
        ("rbac_access_denied_matched_policy[qualm-deny]", "qualm-deny"),
        ("rbac_access_denied_matched_policy[ns[shop]-policy[x]-rule[0]]", ""),
        ("via_upstream", ""),
    ] {
        let http = AccessEntry { response_code_details: details, ..inbound() };
        let tcp = AccessEntry { connection_termination_details: details, method: "", path: "", ..inbound() };
        for entry in [http, tcp] {
            let mut operation = String::new();
            let draft = entry.draft(&mut operation).expect("complete");
            assert_eq!(draft.decision_id, decision);
            assert_eq!(draft.outcome == Outcome::Refused, details.starts_with("rbac"));
        }
    }
}

#[test]
fn only_the_entry_of_the_end_is_an_event() {
    for (kind, is_event) in [
        ("", true),
        ("NotSet", true),
        ("DownstreamEnd", true),
        ("TcpConnectionEnd", true),
        ("TcpPeriodic", false),
        ("DownstreamPeriodic", false),
        ("DownstreamStart", false),
        ("TcpUpstreamConnected", false),
    ] {
        let entry = AccessEntry { access_log_type: kind, ..inbound() };
        assert_eq!(entry.draft(&mut String::new()).err(), (!is_event).then_some(Rejection::Part), "{kind}");
    }
}

#[test]
fn a_waypoint_is_known_by_its_cluster_and_its_own_certificate_is_nobodys() {
    let entry = AccessEntry {
        upstream_cluster: "inbound-vip|8000|http|orders.shop.svc.cluster.local;",
        upstream_host: "envoy://connect_originate/10.0.0.9:8080",
        authority: "bank.shop:8000",
        downstream_local_uri_san: "spiffe://mesh.test/ns/shop/sa/waypoint",
        ..inbound()
    };
    let mut operation = String::new();
    let draft = entry.draft(&mut operation).expect("complete");
    assert_eq!((draft.reporter, draft.source.principal), (Reporter::Waypoint, "spiffe://mesh.test/ns/shop/sa/cart"));
    assert_eq!(draft.source.provenance, Provenance::Certificate);
    assert_eq!(
        (draft.destination.principal, draft.destination.provenance),
        ("orders.shop.svc.cluster.local", Provenance::Name)
    );
    assert_eq!((draft.destination.ip, draft.destination.port, draft.destination.instance), ("10.0.0.9", 8080, ""));
}
