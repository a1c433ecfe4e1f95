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
fn an_application_that_prints_a_proxys_line_says_of_no_address_which_pod_is_there() {
    for (container, pod) in [("istio-proxy", orders().pod), ("", orders().pod), ("orders", "")] {
        let (batch, _) = read(Format::IstioJson, INBOUND, &Origin { container, ..orders() });
        assert_eq!(batch.event(0).destination().instance(), pod, "{container}");
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
    let line = line.expect("one with a certificate");
    for (container, namespace, provenance, refused) in [
        ("spire-server", "spire", Provenance::Certificate, 0),
        ("", "", Provenance::Certificate, 0),
        // Anybody may name a container so, and an application of its namespace may print what it likes.
        ("spire-server", "shop", Provenance::Name, 1),
        ("sidecar", "spire", Provenance::Name, 1),
    ] {
        let origin = Origin { container, namespace, ..Origin::default() };
        let (batch, unvouched) = read(Format::SpireServer, line, &origin);
        assert_eq!((batch.event(0).source().provenance(), unvouched), (provenance, refused), "{container} {namespace}");
    }
}

#[test]
fn only_proxies_issuers_and_the_operator_vouch_for_a_caller() {
    let mut vouching = Vec::new();
    for &format in Format::ALL.iter().filter(|format| format.is_named()) {
        let mut parser = Parser::for_format(format, None).expect("needs no mapping");
        let mut builder = EventBuilder::new();
        for line in format.sample().lines() {
            // Not every line of a sample is an event.
            let _ = parser.parse(line.as_bytes(), Position::default(), &mut builder);
        }
        let events = builder.finish();
        if events.events().any(|event| event.source().provenance().may_enforce()) {
            vouching.push(format);
        }
    }
    for format in &vouching {
        let is_issuer = matches!(format, Format::SpireServer | Format::KubernetesAudit);
        assert!(format.is_proxy_log() || is_issuer, "{format}");
    }
    assert!(vouching.contains(&Format::Ztunnel) && vouching.contains(&Format::SpireServer), "{vouching:?}");
}

/// Istio's default format of a gateway that has no `node_id`: what was called is its own address.
const INGRESS: &str = r#"{"start_time":"2026-11-22T02:02:24Z","duration":1,"method":"GET","path":"/v1/orders/1","response_code":200,"authority":"shop.example.com","upstream_cluster":"outbound|8000||orders.shop.svc.cluster.local","upstream_host":"10.0.4.2:8000","upstream_local_address":"10.0.9.3:40100","downstream_local_address":"10.0.9.3:8443","downstream_remote_address":"203.0.113.7:5500","requested_server_name":"shop.example.com","x_forwarded_for":"203.0.113.7"}"#;

fn ingress_pod<'a>() -> Origin<'a> {
    let pod = "istio-ingressgateway-7d6c6c7775-49tpt";
    Origin { pod, namespace: "istio-system", container: "istio-proxy", ..Origin::default() }
}

fn reporter_and_names(line: &str, origin: &Origin<'_>) -> (Reporter, [String; 2]) {
    let (batch, _) = read(Format::IstioJson, line, origin);
    (batch.event(0).reporter(), names(line, origin))
}

#[test]
fn a_gateway_with_the_default_log_is_known_by_being_called_at_its_own_address() {
    let expected = (Reporter::Gateway, ["external:203.0.113.0/24", "orders.shop.svc.cluster.local"].map(str::to_owned));
    assert_eq!(reporter_and_names(INGRESS, &Origin::default()), expected);
    assert_eq!(reporter_and_names(INGRESS, &ingress_pod()), expected);
    // A sidecar is called at its service's address, by its own pod.
    let sidecar = INGRESS.replace("203.0.113.7:5500", "10.0.9.3:5500").replace("10.0.9.3:8443", "10.96.0.9:8000");
    let (reporter, [source, _]) = reporter_and_names(&sidecar, &orders());
    assert_eq!((reporter, source.as_str()), (Reporter::Source, "orders.shop"));
    // And what a sidecar's application forwards for others does not make it one.
    let forwarding = INGRESS.replace("10.0.9.3:8443", "10.96.0.9:8000");
    assert_eq!(reporter_and_names(&forwarding, &orders()).0, Reporter::Source);
}

#[test]
fn a_gateway_that_found_nobody_to_send_a_request_to_is_known_by_its_pod() {
    let unanswered = INGRESS.replace("\"10.0.9.3:40100\"", "null").replace("200", "503");
    assert_eq!(reporter_and_names(&unanswered, &ingress_pod()).0, Reporter::Gateway);
    assert_eq!(reporter_and_names(&unanswered, &orders()).0, Reporter::Source);
    let unrouted = unanswered.replace("\"outbound|8000||orders.shop.svc.cluster.local\"", "null");
    assert_eq!(reporter_and_names(&unrouted, &ingress_pod()).0, Reporter::Gateway);
    // Only Istio's own: another of such a name may be an application behind its sidecar.
    let gateway = Origin { pod: "api-gateway-7d6c6c7775-49tpt", ..orders() };
    assert_eq!(reporter_and_names(&unanswered, &gateway).0, Reporter::Source);
    let inbound = INBOUND.replace("shop/sa/orders", "istio-system/sa/ingress");
    assert_eq!(read(Format::IstioJson, &inbound, &ingress_pod()).0.event(0).reporter(), Reporter::Destination);
}

#[test]
fn an_egress_gateway_with_the_default_log_names_what_is_outside() {
    let egress = INGRESS
        .replace("outbound|8000||orders.shop.svc.cluster.local", "outbound|443||api.example.com")
        .replace("shop.example.com", "api.example.com")
        .replace("203.0.113.7", "10.0.0.7");
    let expected = (Reporter::Gateway, ["10.0.0.7", "api.example.com"].map(str::to_owned));
    assert_eq!(reporter_and_names(&egress, &Origin::default()), expected);
}

#[test]
fn a_gateways_text_log_in_any_envelope_is_known_by_the_name_of_its_file() {
    let path = format!(
        "/var/log/containers/istio-ingressgateway-7d6c6c7775-49tpt_istio-system_istio-proxy-{}.log",
        "3b5a1c9d".repeat(8)
    );
    let unanswered = INGRESS.replace("\"10.0.9.3:40100\"", "null");
    for envelope in [
        serde_json::json!({ "message": unanswered, "file": path, "source_type": "file" }),
        serde_json::json!({ "message": unanswered, "log": { "file": { "path": path } }, "@metadata": {} }),
        serde_json::json!({ "log": unanswered, "stream": "stdout", "filename": path }),
        serde_json::json!({ "log": unanswered, "tag": format!("kube{}", path.replace('/', ".")) }),
    ] {
        let (batch, _) = read(Format::IstioJson, &envelope.to_string(), &Origin::default());
        let event = batch.event(0);
        assert_eq!((event.reporter(), event.reporter_id()), (Reporter::Gateway, ingress_pod().pod), "{envelope}");
    }
}

#[test]
fn an_application_is_known_by_its_file_whatever_it_writes() {
    let path = format!("/var/log/containers/orders-7d6c6c7775-49tpt_shop_orders-{}.log", "3b5a1c9d".repeat(8));
    let own = path.replace("_orders-", "_istio-proxy-");
    let inner = serde_json::json!({ "log": INBOUND, "stream": "stdout", "filename": own }).to_string();
    let outer = serde_json::json!({ "log": inner, "stream": "stdout", "filename": path }).to_string();
    let (batch, unvouched) = read(Format::IstioJson, &outer, &Origin::default());
    assert_eq!((provenances(&batch), unvouched), (NAMES, 1));
    // A key of its own line, lifted beside the shipper's, is no word of the shipper's.
    let lifted = INBOUND.replace("\"method\"", &format!("\"filename\":{own:?},\"method\""));
    let metadata = serde_json::json!({ "pod_name": "orders-1", "container_name": "orders" });
    let lifted = lifted.replacen('{', &format!("{{\"kubernetes\":{metadata},"), 1);
    let (batch, unvouched) = read(Format::IstioJson, &lifted, &Origin::default());
    assert_eq!((provenances(&batch), unvouched), (NAMES, 1));
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
