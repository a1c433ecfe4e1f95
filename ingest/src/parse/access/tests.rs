//! What entries of Envoy's access log become.

use qualm_model::event::Activity;

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
fn an_entry_says_which_part_of_its_stream_it_tells_of() {
    for (kind, activity) in [
        ("", Some(Activity::Whole)),
        ("NotSet", Some(Activity::Whole)),
        ("DownstreamEnd", Some(Activity::Close)),
        ("TcpConnectionEnd", Some(Activity::Close)),
        ("TcpPeriodic", Some(Activity::Traffic)),
        ("DownstreamPeriodic", Some(Activity::Traffic)),
        ("DownstreamStart", Some(Activity::Open)),
        ("TcpUpstreamConnected", Some(Activity::Open)),
        ("UpstreamPoolReady", None),
        ("UpstreamPeriodic", None),
    ] {
        let entry = AccessEntry { access_log_type: kind, ..inbound() };
        let mut operation = String::new();
        let draft = entry.draft(&mut operation);
        assert_eq!(draft.as_ref().err(), activity.is_none().then_some(&Rejection::Part), "{kind}");
        assert_eq!(draft.ok().map(|draft| draft.activity), activity, "{kind}");
    }
}

#[test]
fn what_a_stream_that_goes_on_has_not_come_to_yet_is_not_said_of_it() {
    let entry = AccessEntry { access_log_type: "DownstreamPeriodic", status: Some(0), ..inbound() };
    let mut operation = String::new();
    let draft = entry.draft(&mut operation).expect("it is known between whom it is");
    assert_eq!((draft.outcome, draft.status, draft.duration_ns), (Outcome::Unknown, None, None));
    let nowhere = AccessEntry { access_log_type: "DownstreamStart", upstream_cluster: "", ..inbound() };
    assert_eq!(nowhere.draft(&mut String::new()).err(), Some(Rejection::Part), "it has not been sent anywhere yet");
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

fn parties(entry: &AccessEntry<'_>) -> (Reporter, String, Provenance, String, Provenance) {
    let mut operation = String::new();
    let draft = entry.draft(&mut operation).expect("complete");
    let (source, destination) = (draft.source, draft.destination);
    (
        draft.reporter,
        source.principal.to_owned(),
        source.provenance,
        destination.principal.to_owned(),
        destination.provenance,
    )
}

/// A call of somebody outside through the ingress gateway to `orders`.
fn ingress() -> AccessEntry<'static> {
    AccessEntry {
        upstream_cluster: "outbound|8000||orders.shop.svc.cluster.local",
        upstream_host: "10.0.0.9:8000",
        authority: "shop.example.com",
        downstream_remote_address: "203.0.113.7:41854",
        downstream_direct_remote_address: "10.0.0.1:9",
        downstream_local_address: "10.0.0.2:8443",
        downstream_peer_uri_san: "",
        downstream_local_uri_san: "",
        node_id: "router~10.0.0.2~istio-ingressgateway-7d6c6c7775-49tpt.istio-system~istio-system.svc.cluster.local",
        ..inbound()
    }
}

#[test]
fn through_an_ingress_gateway_a_client_calls_the_service_behind_it() {
    let by_name = ("203.0.113.7".into(), Provenance::Name, "orders.shop.svc.cluster.local".into(), Provenance::Name);
    let (source, of_source, destination, of_destination) = by_name;
    let expected = (Reporter::Gateway, source, of_source, destination, of_destination);
    assert_eq!(parties(&ingress()), expected);
    let orders = "spiffe://mesh.test/ns/shop/sa/orders";
    let verified = AccessEntry {
        upstream_peer_uri_san: orders,
        upstream_local_uri_san: "spiffe://mesh.test/ns/istio-system/sa/ingress",
        ..ingress()
    };
    let (_, source, _, destination, provenance) = parties(&verified);
    assert_eq!((source.as_str(), destination.as_str()), ("203.0.113.7", orders));
    assert_eq!(provenance, Provenance::Certificate);
    // What a denial is narrowed to is never what the client may have said.
    assert_eq!(verified.draft(&mut String::new()).expect("complete").source.ip, "10.0.0.1");
}

/// A call of `cart` to a host outside, as the egress gateway and as its own proxy see it.
fn egress(authority: &'static str, server_name: &'static str) -> [AccessEntry<'static>; 2] {
    let cart = "spiffe://mesh.test/ns/shop/sa/cart";
    let gateway = AccessEntry {
        upstream_cluster: "outbound|443||*.example.com",
        upstream_host: "203.0.113.80:443",
        authority,
        requested_server_name: server_name,
        downstream_peer_uri_san: cart,
        downstream_local_uri_san: "spiffe://mesh.test/ns/istio-system/sa/egress",
        node_id: "router~10.0.0.3~istio-egressgateway-7d6c6c7775-49tpt.istio-system~istio-system.svc.cluster.local",
        ..inbound()
    };
    let own = AccessEntry {
        upstream_cluster: "outbound|443||istio-egressgateway.istio-system.svc.cluster.local",
        upstream_host: "10.0.0.3:8443",
        upstream_peer_uri_san: "spiffe://mesh.test/ns/istio-system/sa/egress",
        upstream_local_uri_san: cart,
        downstream_peer_uri_san: "",
        downstream_local_uri_san: "",
        node_id: "sidecar~10.0.0.7~cart-1.shop~shop.svc.cluster.local",
        ..gateway
    };
    [gateway, own]
}

#[test]
fn both_reports_of_a_call_through_an_egress_gateway_name_the_same_ends() {
    for (authority, server_name) in [("api.example.com:443", ""), ("", "api.example.com")] {
        let [gateway, own] = egress(authority, server_name).map(|entry| parties(&entry));
        assert_eq!((gateway.0, gateway.2), (Reporter::Gateway, Provenance::Certificate));
        assert_eq!(own.0, Reporter::Source);
        assert_eq!((&gateway.1, &gateway.3, gateway.4), (&own.1, &own.3, own.4));
        assert_eq!(own.3, "api.example.com");
    }
}

#[test]
fn a_proxy_without_a_name_that_verifies_its_caller_and_calls_on_is_a_gateway_and_not_what_was_called() {
    let [gateway, _] = egress("api.example.com", "");
    let unnamed = AccessEntry { node_id: "", upstream_local_address: "127.0.0.6:40000", ..gateway };
    let (reporter, source, _, destination, _) = parties(&unnamed);
    assert_eq!((reporter, source.as_str()), (Reporter::Gateway, "spiffe://mesh.test/ns/shop/sa/cart"));
    assert_eq!(destination, "api.example.com");
    // Before the called it calls on to the application, and knows no caller behind one.
    for cluster in ["inbound|8000||", "inbound|8000|http|orders.shop.svc.cluster.local", "-", ""] {
        let own = AccessEntry { upstream_cluster: cluster, ..unnamed };
        assert_eq!(parties(&own).0, Reporter::Destination, "{cluster}");
    }
    let behind = AccessEntry { downstream_peer_uri_san: "", ..unnamed };
    assert_eq!(parties(&behind).0, Reporter::Source);
}

#[test]
fn a_caller_cannot_rename_a_service_of_the_mesh_by_its_authority() {
    let [_, own] = egress("api.example.com", "");
    let orders = AccessEntry { upstream_cluster: "outbound|80||orders.shop.svc.cluster.local", ..own };
    assert_eq!(parties(&orders).3, own.upstream_peer_uri_san);
    assert_eq!(parties(&AccessEntry { upstream_peer_uri_san: "", ..orders }).3, "orders.shop.svc.cluster.local");
    let [gateway, _] = egress("api.example.com", "");
    let inner = AccessEntry { upstream_cluster: "outbound|80||orders.shop.svc.cluster.local", ..gateway };
    assert_eq!(parties(&inner).3, "orders.shop.svc.cluster.local");
}

#[test]
fn what_matches_no_service_is_its_server_name_or_authority_or_else_the_address() {
    for cluster in ["PassthroughCluster", "BlackHoleCluster", "PassthroughCluster;"] {
        let entry = |authority, server_name, upstream_host| AccessEntry {
            upstream_cluster: cluster,
            upstream_host,
            authority,
            requested_server_name: server_name,
            downstream_peer_uri_san: "",
            downstream_local_uri_san: "",
            downstream_local_address: "203.0.113.80:443",
            ..inbound()
        };
        for (entry, name) in [
            (entry("api.example.com:443", "", "203.0.113.80:443"), "api.example.com"),
            (entry("", "api.example.com", "203.0.113.80:443"), "api.example.com"),
            (entry("", "", "203.0.113.80:443"), "203.0.113.80"),
            (entry("", "", ""), "203.0.113.80"),
        ] {
            let (reporter, source, _, destination, _) = parties(&entry);
            assert_eq!((reporter, source.as_str(), destination.as_str()), (Reporter::Source, "10.0.0.7", name));
        }
    }
}

#[test]
fn a_reason_ends_before_what_may_be_a_token_and_names_of_policies_stay() {
    let failed = |details| AccessEntry { status: Some(503), response_code_details: details, ..inbound() };
    let told = |details| failed(details).draft(&mut String::new()).expect("an event").denial_reason.to_owned();
    assert_eq!(told("via_upstream_hvs.CAESIJ3Nc8Qw1x0vE7kq5mZt9Lr2Yb6UuFh"), "via_upstream_hvs.");
    let policy = "rbac_access_denied_matched_policy[ns[shop]-policy[deny-all]-rule[0]]";
    assert_eq!(told(policy), policy);
    assert_eq!(told("no_healthy_upstream"), "no_healthy_upstream");
}
