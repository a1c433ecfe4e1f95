use qualm_model::event::{EventBatch, EventBuilder, Position};

use super::*;
use crate::parse::{Format, Parser};

/// An inbound report of the proxy of `orders`, of a call of `cart` by its certificate.
const INBOUND: &str = r#"{"start_time":"2026-11-22T02:02:24Z","duration":1,"method":"GET","path":"/v1/orders/1","response_code":200,"upstream_cluster":"inbound|80||","downstream_remote_address":"10.0.0.7:1","x_forwarded_for":null,"user_agent":"kube-probe/1.31","downstream_peer_uri_san":"spiffe://mesh.test/ns/shop/sa/cart","downstream_local_uri_san":"spiffe://mesh.test/ns/shop/sa/orders","downstream_local_address":"10.0.4.2:8080"}"#;

fn orders<'a>() -> Origin<'a> {
    Origin { namespace: "shop", pod: "orders-7d6c6c7775-49tpt", container: "istio-proxy", ..Origin::default() }
}

/// The events of a line that was written at `origin`, and how many of them nobody vouches for.
fn read(format: Format, line: &str, origin: &Origin<'_>) -> (EventBatch, u64) {
    let mut parser = Parser::for_format(format, None).expect("needs no mapping");
    let mut builder = EventBuilder::new();
    parser.parse_from(origin, line.as_bytes(), Position::default(), &mut builder).expect("an event");
    (builder.finish(), parser.unvouched())
}

fn provenances(batch: &EventBatch) -> [Provenance; 2] {
    [batch.event(0).source().provenance(), batch.event(0).destination().provenance()]
}

const VERIFIED: [Provenance; 2] = [Provenance::Certificate; 2];
const NAMES: [Provenance; 2] = [Provenance::Name; 2];

#[test]
fn a_line_of_the_proxy_is_believed() {
    for container in ["istio-proxy", "envoy", "linkerd-proxy", "consul-dataplane", ""] {
        let (batch, unvouched) = read(Format::IstioJson, INBOUND, &Origin { container, ..orders() });
        assert_eq!((provenances(&batch), unvouched), (VERIFIED, 0), "{container}");
    }
    let (batch, unvouched) = read(Format::IstioJson, INBOUND, &Origin::default());
    assert_eq!((provenances(&batch), unvouched), (VERIFIED, 0));
}

#[test]
fn an_application_that_prints_a_proxys_line_names_names_and_is_counted() {
    for format in [Format::IstioJson, Format::Auto] {
        let (batch, unvouched) = read(format, INBOUND, &Origin { container: "orders", ..orders() });
        assert_eq!((provenances(&batch), unvouched), (NAMES, 1), "{format}");
        assert_eq!(batch.event(0).source().principal(), "spiffe://mesh.test/ns/shop/sa/cart");
    }
}

#[test]
fn an_applications_line_is_not_believed_through_an_envelope_of_its_own() {
    let inner = serde_json::json!({ "log": INBOUND, "kubernetes": { "container_name": "istio-proxy" } }).to_string();
    let outer = serde_json::json!({ "log": inner, "kubernetes": { "container_name": "orders" } }).to_string();
    let (batch, unvouched) = read(Format::IstioJson, &outer, &Origin::default());
    assert_eq!((provenances(&batch), unvouched), (NAMES, 1));
}

#[test]
fn a_proxy_that_names_itself_after_another_namespace_than_its_pods_is_not_believed() {
    let (batch, unvouched) = read(Format::IstioJson, INBOUND, &Origin { namespace: "evil", ..orders() });
    assert_eq!((provenances(&batch), unvouched), (NAMES, 1));
    let node = r#""node_id":"sidecar~10.0.0.1~orders-1.NS~NS.svc.cluster.local","path":"#;
    for (namespace, expected) in [("shop", VERIFIED), ("bank", NAMES)] {
        let line = INBOUND.replace("\"path\":", &node.replace("NS", namespace));
        assert_eq!(provenances(&read(Format::IstioJson, &line, &orders()).0), expected, "{namespace}");
    }
}

#[test]
fn a_log_that_is_no_proxys_is_believed_of_its_own_container() {
    let line = Format::SpireServer.sample().lines().find(|line| {
        let mut builder = EventBuilder::new();
        let mut parser = Parser::for_format(Format::SpireServer, None).expect("needs no mapping");
        parser.parse(line.as_bytes(), Position::default(), &mut builder).is_ok()
            && provenances(&builder.finish())[0] == Provenance::Certificate
    });
    let origin = Origin { container: "spire-server", namespace: "spire", ..Origin::default() };
    let (batch, unvouched) = read(Format::SpireServer, line.expect("one with a certificate"), &origin);
    assert_eq!((batch.event(0).source().provenance(), unvouched), (Provenance::Certificate, 0));
}

/// The line without certificates: the caller is an address.
fn nameless(path: &str, caller: &str) -> String {
    let line = INBOUND.replace("downstream_peer_uri_san", "x").replace("downstream_local_uri_san", "y");
    line.replace("/v1/orders/1", path).replace("10.0.0.7", caller)
}

fn names(line: &str, origin: &Origin<'_>) -> [String; 2] {
    let (batch, _) = read(Format::IstioJson, line, origin);
    [batch.event(0).source().principal(), batch.event(0).destination().principal()].map(str::to_owned)
}

#[test]
fn whoever_is_outside_is_one_principal_a_prefix() {
    for caller in ["203.0.113.7", "203.0.113.99"] {
        let (batch, _) = read(Format::IstioJson, &nameless("/x", caller), &Origin::default());
        let source = batch.event(0).source();
        assert_eq!((source.principal(), source.ip()), ("external:203.0.113.0/24", caller));
    }
    assert_eq!(names(&nameless("/x", "[2001:db8:1:2::7]"), &Origin::default())[0], "external:2001:db8:1::/48");
    // A certificate is better than any address.
    assert_eq!(names(&INBOUND.replace("10.0.0.7", "203.0.113.7"), &orders())[0], "spiffe://mesh.test/ns/shop/sa/cart");
}

#[test]
fn a_probe_is_who_asks_for_its_path_from_inside_without_a_certificate() {
    assert_eq!(names(&nameless("/healthz", "10.0.0.7"), &orders())[0], "probe:10.0.0.7");
    assert_eq!(names(&nameless("/healthz", "203.0.113.7"), &orders())[0], "external:203.0.113.0/24");
    let authenticated = INBOUND.replace("/v1/orders/1", "/healthz");
    assert_eq!(names(&authenticated, &orders())[0], "spiffe://mesh.test/ns/shop/sa/cart");
}

#[test]
fn an_attacker_with_a_probes_user_agent_gains_nothing() {
    assert!(INBOUND.contains("kube-probe"));
    for path in ["/v1/orders/1", "/healthz/../v1/orders", "/v1/orders?x=/healthz", "/app-health", "/healthzz"] {
        assert_eq!(names(&nameless(path, "10.0.0.7"), &orders())[0], "10.0.0.7", "{path}");
    }
}

#[test]
fn a_party_that_is_an_address_is_named_after_the_pod_that_wrote_the_record() {
    assert_eq!(names(&nameless("/x", "10.0.0.7"), &orders()), ["10.0.0.7", "orders.shop"]);
    let by_owner = Origin { pod: "", owner: "orders", ..orders() };
    assert_eq!(names(&nameless("/x", "10.0.0.7"), &by_owner)[1], "orders.shop");
    assert_eq!(names(&nameless("/x", "10.0.0.7"), &Origin { namespace: "", ..orders() })[1], "10.0.4.2");
    // The authority is a better name.
    let named = nameless("/x", "10.0.0.7").replace("\"method\"", "\"authority\":\"orders:80\",\"method\"");
    assert_eq!(names(&named, &orders())[1], "orders");
}

#[test]
fn a_restarted_pod_is_the_same_identity_and_another_instance() {
    let outbound = |pod: &str| {
        format!(
            r#"{{"start_time":"2026-11-22T02:02:24Z","method":"GET","path":"/x","response_code":200,"upstream_cluster":"outbound|80||orders.shop.svc.cluster.local","upstream_host":"10.0.4.2:80","downstream_remote_address":"10.0.0.7:1","node_id":"sidecar~10.0.0.7~{pod}.shop~shop.svc.cluster.local"}}"#
        )
    };
    for pod in ["cart-7d6c6c7775-49tpt", "cart-7d6c6c7775-x2vkq", "cart-0"] {
        let (batch, _) = read(Format::IstioJson, &outbound(pod), &Origin::default());
        let source = batch.event(0).source();
        assert_eq!((source.principal(), source.instance()), ("cart.shop", pod));
    }
}
