//! The telemetry services as Envoy uses them, over real gRPC on loopback.

use std::{collections::HashMap, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{Address, Metadata, Node, SocketAddress, address, socket_address::PortSpecifier},
        data::accesslog::v3::{
            AccessLogCommon, AccessLogType, ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties,
            HttpResponseProperties, TcpAccessLogEntry, TlsProperties,
            tls_properties::{
                CertificateProperties,
                certificate_properties::{SubjectAltName, subject_alt_name::San},
            },
        },
        service::accesslog::v3::{
            StreamAccessLogsMessage,
            access_log_service_client::AccessLogServiceClient,
            stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries},
        },
    },
    google::protobuf::{Struct, Timestamp as ProtoTimestamp, UInt32Value, Value, value},
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
    common::v1::{AnyValue, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use qualm_model::{
    event::{Activity, Kind, Outcome, Reporter},
    identity::Provenance,
};
use tokio::{net::TcpListener, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Code, Request,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Server},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const NOW: i64 = 1_795_313_000;
const ORDERS: &str = "spiffe://mesh.test/ns/shop/sa/orders";
const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";
const COLLECTOR: &str = "spiffe://mesh.test/ns/obs/sa/collector";

struct World {
    source: EnvoySource,
    channel: Channel,
}

fn with_peer(mut request: Request<()>) -> Result<Request<()>, Status> {
    let name = request.metadata().get("test-peer").map(|name| name.to_str().unwrap_or_default().parse());
    if let Some(Ok(id)) = name {
        request.extensions_mut().insert(Peer::Verified(id));
    }
    Ok(request)
}

impl World {
    async fn start(limits: TelemetryLimits) -> Self {
        let clock = Clock::new(|| Timestamp::from_seconds(NOW));
        let metrics = TelemetryMetrics::register(&Registry::new()).unwrap();
        let grants = Grants::new(|id| id.as_str() == COLLECTOR);
        let (als, otlp, source) = telemetry(3, &limits, grants, clock, metrics);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder()
            .add_service(InterceptedService::new(als, with_peer))
            .add_service(InterceptedService::new(otlp, with_peer))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        Self { source, channel: Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy() }
    }

    /// An ALS stream from `peer`; what is sent into it travels at once.
    fn stream(&self, peer: &str) -> mpsc::Sender<StreamAccessLogsMessage> {
        let (say, messages) = mpsc::channel(1);
        let mut client = AccessLogServiceClient::new(self.channel.clone());
        let request = from(peer, ReceiverStream::new(messages));
        tokio::spawn(async move { client.stream_access_logs(request).await });
        say
    }

    async fn export(&self, peer: &str, resource_logs: Vec<ResourceLogs>) {
        let mut client = LogsServiceClient::new(self.channel.clone());
        client.export(from(peer, ExportLogsServiceRequest { resource_logs })).await.unwrap();
    }

    /// Batches until `records` have come, events and rejected together.
    async fn read(&mut self, records: usize) -> Vec<Batch> {
        let (mut batches, mut read) = (Vec::new(), 0);
        while read < records {
            let Incoming::Batch(batch) = timeout(PATIENCE, self.source.next()).await.unwrap().unwrap() else {
                panic!("the source has ended");
            };
            read += batch.events.len() + batch.rejected.len();
            batches.push(batch);
        }
        batches
    }

    /// What became of one record: its event, or why not.
    async fn one(&mut self) -> Result<EventOf, Rejection> {
        let batch = self.read(1).await.remove(0);
        match batch.rejected.first() {
            Some(rejected) => Err(rejected.why),
            None => Ok(EventOf(batch)),
        }
    }
}

/// The one event of a batch.
struct EventOf(Batch);

impl EventOf {
    fn event(&self) -> qualm_model::event::Event<'_> {
        self.0.events.event(0)
    }
}

fn from<T>(peer: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("test-peer", peer.parse().unwrap());
    request
}

fn message(node: &str, log_entries: LogEntries) -> StreamAccessLogsMessage {
    let node = Node { id: node.into(), ..Node::default() };
    let identifier = Identifier { node: Some(node), log_name: "qualm".into() };
    StreamAccessLogsMessage { identifier: Some(identifier), log_entries: Some(log_entries) }
}

fn http(entries: Vec<HttpAccessLogEntry>) -> StreamAccessLogsMessage {
    message("sidecar~10.0.0.9~orders-1.shop~x", LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries }))
}

fn address(ip: &str, port: u32) -> Option<Address> {
    let port_specifier = Some(PortSpecifier::PortValue(port));
    let socket = SocketAddress { address: ip.into(), port_specifier, ..SocketAddress::default() };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

fn certificate(uri: &str) -> Option<CertificateProperties> {
    let san = |san| SubjectAltName { san: Some(san) };
    let subject_alt_name = vec![san(San::Dns("pod".into())), san(San::Uri(uri.into()))];
    (!uri.is_empty()).then(|| CertificateProperties { subject_alt_name, ..CertificateProperties::default() })
}

fn common(local: &str, peer: &str) -> AccessLogCommon {
    AccessLogCommon {
        downstream_remote_address: address("192.0.2.1", 1),
        downstream_direct_remote_address: address("10.0.0.7", 41_854),
        downstream_local_address: address("10.0.0.9", 8_000),
        tls_properties: Some(TlsProperties {
            tls_version: 4,
            local_certificate_properties: certificate(local),
            peer_certificate_properties: certificate(peer),
            ja3_fingerprint: "304734bb".into(),
            ..TlsProperties::default()
        }),
        start_time: Some(ProtoTimestamp { seconds: NOW - 1, nanos: 5 }),
        custom_tags: HashMap::from([("ja4".into(), "t13d1812h1".into()), ("peer_serial".into(), "298ca4".into())]),
        upstream_cluster: "inbound|8000||".into(),
        access_log_type: AccessLogType::DownstreamEnd.into(),
        ..AccessLogCommon::default()
    }
}

fn request(local: &str, peer: &str, status: u32, details: &str) -> HttpAccessLogEntry {
    HttpAccessLogEntry {
        common_properties: Some(common(local, peer)),
        protocol_version: 2,
        request: Some(HttpRequestProperties {
            request_method: 1,
            authority: "orders.shop".into(),
            path: "/v1/orders/42?x=1".into(),
            request_id: "555b3c07".into(),
            request_body_bytes: 7,
            ..HttpRequestProperties::default()
        }),
        response: Some(HttpResponseProperties {
            response_code: Some(UInt32Value { value: status }),
            response_body_bytes: 19,
            response_code_details: details.into(),
            ..HttpResponseProperties::default()
        }),
    }
}

#[tokio::test]
async fn what_one_peer_sends_says_nothing_of_how_far_another_is() {
    let mut world = World::start(TelemetryLimits::default()).await;
    let mut partitions = Vec::new();
    for peer in [ORDERS, CART, ORDERS] {
        world.stream(peer).send(http(vec![request(peer, COLLECTOR, 200, "via_upstream")])).await.unwrap();
        partitions.push(world.one().await.unwrap().event().position().partition);
    }
    assert_eq!(partitions, [-1, -2, -1]);
}

#[tokio::test]
async fn an_entry_of_the_far_past_is_refused() {
    let limits = TelemetryLimits { max_age: Some(Span::DAY), ..TelemetryLimits::default() };
    let mut world = World::start(limits).await;
    let mut entry = request(ORDERS, CART, 200, "via_upstream");
    let common = entry.common_properties.as_mut().unwrap();
    common.start_time = Some(ProtoTimestamp { seconds: NOW - 90_000, nanos: 0 });
    world.stream(ORDERS).send(http(vec![entry])).await.unwrap();
    assert_eq!(world.one().await.err(), Some(Invalid::PastTime.into()));
}

#[tokio::test]
async fn an_http_entry_becomes_an_event_with_the_verified_caller_its_fingerprint_and_its_credential() {
    let mut world = World::start(TelemetryLimits::default()).await;
    world.stream(ORDERS).send(http(vec![request(ORDERS, CART, 200, "via_upstream")])).await.unwrap();
    let batch = world.one().await.unwrap();
    let event = batch.event();
    assert_eq!((event.source().principal(), event.source().provenance()), (CART, Provenance::Certificate));
    assert_eq!((event.source().ip(), event.destination().principal()), ("10.0.0.7", ORDERS));
    assert_eq!((event.operation(), event.outcome()), ("GET /v1/orders/{id}", Outcome::Success));
    assert_eq!((event.fingerprint(), event.tls_version(), event.credential()), ("t13d1812h1", "TLSv1.3", "298ca4"));
    assert_eq!((event.bytes_in(), event.bytes_out()), (Some(7), Some(19)));
    assert_eq!((event.record_id(), event.reporter_id()), ("555b3c07", "sidecar~10.0.0.9~orders-1.shop~x"));
    assert_eq!((event.position().source, event.position().offset), (3, 0));
    assert_eq!(batch.0.positions, Positions::from([((3, -1), 1)]));
}

#[tokio::test]
async fn only_the_direct_address_of_a_request_is_its_callers_instance() {
    let mut world = World::start(TelemetryLimits::default()).await;
    let without = |forwarded_for: &str| {
        let mut entry = request(ORDERS, CART, 200, "");
        entry.common_properties.as_mut().unwrap().downstream_direct_remote_address = None;
        entry.request.as_mut().unwrap().forwarded_for = forwarded_for.into();
        entry
    };
    for forwarded_for in ["", "192.0.2.1"] {
        world.stream(ORDERS).send(http(vec![without(forwarded_for)])).await.unwrap();
        assert_eq!(world.one().await.unwrap().event().source().ip(), "");
    }
    let log_entry =
        vec![TcpAccessLogEntry { common_properties: without("").common_properties, ..TcpAccessLogEntry::default() }];
    world.stream(ORDERS).send(message("n", LogEntries::TcpLogs(TcpAccessLogEntries { log_entry }))).await.unwrap();
    assert_eq!(world.one().await.unwrap().event().source().ip(), "192.0.2.1");
}

#[tokio::test]
async fn a_tcp_entry_is_a_connection_and_says_which_part_of_it_it_tells_of() {
    let mut world = World::start(TelemetryLimits::default()).await;
    let tcp = |kind: AccessLogType, bytes| TcpAccessLogEntry {
        common_properties: Some(AccessLogCommon { access_log_type: kind.into(), ..common(ORDERS, CART) }),
        connection_properties: Some(ConnectionProperties { received_bytes: bytes, sent_bytes: bytes }),
    };
    let log_entry = vec![tcp(AccessLogType::TcpPeriodic, 3), tcp(AccessLogType::TcpConnectionEnd, 5)];
    world.stream(ORDERS).send(message("n", LogEntries::TcpLogs(TcpAccessLogEntries { log_entry }))).await.unwrap();
    let batch = world.read(2).await.remove(0);
    let told: Vec<_> =
        batch.events.events().map(|event| (event.activity(), event.bytes_in(), event.outcome())).collect();
    let expected = [(Activity::Traffic, Some(3), Outcome::Unknown), (Activity::Close, Some(5), Outcome::Success)];
    assert_eq!(told, expected);
    assert_eq!(batch.events.event(0).kind(), Kind::Connection);
    assert_eq!(batch.events.event(0).report(), Timestamp::from_seconds(NOW), "how long it has lasted is not said");
}

#[tokio::test]
async fn our_own_denial_is_known_by_its_details_or_its_metadata_and_a_policy_that_allowed_is_none() {
    let verdict = |filter: &str, result: &str| {
        let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.into())) };
        let fields =
            [("enforced_engine_result", text(result)), ("enforced_effective_policy_id", text("qualm-deny/d1"))];
        let verdict = Struct { fields: fields.map(|(key, value)| (key.to_owned(), value)).into() };
        let filter_metadata = HashMap::from([(filter.to_owned(), verdict)]);
        Some(Metadata { filter_metadata, ..Metadata::default() })
    };
    let mut world = World::start(TelemetryLimits::default()).await;
    let stream = world.stream(ORDERS);
    for (details, metadata, decision) in [
        ("rbac_access_denied_matched_policy[qualm-deny/d1]", None, "d1"),
        ("", verdict("envoy.filters.http.rbac", "denied"), "d1"),
        ("ext_authz_denied", verdict("envoy.filters.http.ext_authz", "denied"), "d1"),
        ("ext_authz_denied", None, ""),
        ("via_upstream", verdict("envoy.filters.http.rbac", "allowed"), ""),
    ] {
        let mut entry = request(ORDERS, CART, 403, details);
        entry.common_properties.as_mut().unwrap().metadata = metadata;
        stream.send(http(vec![entry])).await.unwrap();
        assert_eq!(world.one().await.unwrap().event().decision_id(), decision, "{details}");
    }
}

#[tokio::test]
async fn a_call_too_many_is_our_own_action_where_our_mark_is_on_it_and_a_call_that_passes_is_none() {
    let marked = |policy: &str| {
        let policy = Value { kind: Some(value::Kind::StringValue(policy.into())) };
        let fields = HashMap::from([("qualm_shadow_effective_policy_id".to_owned(), policy)]);
        let filter_metadata = HashMap::from([("envoy.filters.http.rbac".into(), Struct { fields })]);
        Some(Metadata { filter_metadata, ..Metadata::default() })
    };
    let mut world = World::start(TelemetryLimits::default()).await;
    let stream = world.stream(ORDERS);
    for (status, details, metadata, decision) in [
        (429, "local_rate_limited", marked("qualm-throttle/d1"), "d1"),
        (200, "via_upstream", marked("qualm-throttle/d1"), ""),
        (429, "local_rate_limited", marked("qualm-shadow/d1"), ""),
        (429, "local_rate_limited", None, ""),
    ] {
        let mut entry = request(ORDERS, CART, status, details);
        entry.common_properties.as_mut().unwrap().metadata = metadata;
        stream.send(http(vec![entry])).await.unwrap();
        assert_eq!(world.one().await.unwrap().event().decision_id(), decision, "{status} {details}");
    }
}

#[tokio::test]
async fn a_reporter_may_report_its_own_calls_only_unless_it_was_granted_more() {
    let mut world = World::start(TelemetryLimits::default()).await;
    let forged = request(ORDERS, CART, 200, "via_upstream");
    for peer in [CART, "spiffe://mesh.test/ns/shop/sa/web"] {
        world.stream(peer).send(http(vec![forged.clone()])).await.unwrap();
        assert_eq!(world.one().await.err(), Some(Invalid::NotItsOwn.into()), "{peer} does not speak for orders");
    }
    world.stream(COLLECTOR).send(http(vec![forged])).await.unwrap();
    assert_eq!(world.one().await.unwrap().event().destination().principal(), ORDERS);
}

#[tokio::test]
async fn where_the_entry_does_not_say_whose_proxy_wrote_it_it_is_the_one_that_sent_it() {
    let mut world = World::start(TelemetryLimits::default()).await;
    let mut inbound = request("", CART, 200, "via_upstream");
    inbound.common_properties.as_mut().unwrap().tls_properties.as_mut().unwrap().local_certificate_properties = None;
    let mut outbound = inbound.clone();
    let properties = outbound.common_properties.as_mut().unwrap();
    properties.upstream_cluster = "outbound|80||db.shop.svc.cluster.local".into();
    properties.tls_properties = None;
    let stream = world.stream(ORDERS);
    stream.send(http(vec![inbound])).await.unwrap();
    assert_eq!(world.one().await.unwrap().event().destination().principal(), ORDERS);
    stream.send(http(vec![outbound])).await.unwrap();
    let batch = world.one().await.unwrap();
    let event = batch.event();
    assert_eq!((event.reporter(), event.source().principal()), (Reporter::Source, ORDERS));
    assert_eq!(event.destination().principal(), "db.shop.svc.cluster.local");
}

#[tokio::test]
async fn impossible_and_incomplete_entries_are_counted_by_reason_and_never_fatal() {
    let mut world = World::start(TelemetryLimits { entry_bytes: 4_096, ..TelemetryLimits::default() }).await;
    let good = request(ORDERS, CART, 200, "via_upstream");
    let with = |change: fn(&mut AccessLogCommon)| {
        let mut entry = good.clone();
        change(entry.common_properties.as_mut().unwrap());
        entry
    };
    let entries = vec![
        with(|common| common.start_time = None),
        with(|common| common.start_time = Some(ProtoTimestamp { seconds: -5, nanos: 0 })),
        with(|common| common.start_time = Some(ProtoTimestamp { seconds: NOW + 301, nanos: 0 })),
        with(|common| common.route_name = "x".repeat(5_000)),
        HttpAccessLogEntry { common_properties: None, ..good.clone() },
        good.clone(),
    ];
    let stream = world.stream(ORDERS);
    stream.send(http(entries)).await.unwrap();
    let batch = world.read(6).await.remove(0);
    let why: Vec<_> = batch.rejected.iter().map(|rejected| rejected.why).collect();
    let expected =
        [Invalid::MissingField, Invalid::ImpossibleTime, Invalid::FutureTime, Invalid::TooLong, Invalid::MissingField];
    assert_eq!(why, expected.map(Rejection::Invalid));
    assert_eq!((batch.events.len(), batch.events.event(0).position().offset), (1, 5));
}

#[tokio::test]
async fn while_the_queue_is_full_nothing_is_read_and_nothing_is_lost() {
    let mut world = World::start(TelemetryLimits { queue_bytes: 20_000, ..TelemetryLimits::default() }).await;
    let stream = world.stream(ORDERS);
    // Some 14 KB a message: one fills the queue, and the connection's windows hold some more.
    let message = http(vec![request(ORDERS, CART, 200, "via_upstream"); 40]);
    let mut sent = 0;
    while sent < 10_000 {
        match timeout(Duration::from_millis(300), stream.send(message.clone())).await {
            Ok(taken) => taken.unwrap(),
            Err(_) => break,
        }
        sent += 1;
    }
    assert!(sent < 10_000, "the sender never felt the full queue");
    let offsets: Vec<i64> = world
        .read(sent * 40)
        .await
        .iter()
        .flat_map(|batch| batch.events.events().map(|event| event.position().offset).collect::<Vec<_>>())
        .collect();
    assert_eq!(offsets, (0..i64::try_from(sent * 40).unwrap()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_beyond_the_bound_or_without_a_peer_is_refused() {
    let world = World::start(TelemetryLimits { streams: 0, ..TelemetryLimits::default() }).await;
    let mut client = LogsServiceClient::new(world.channel.clone());
    let refused = client.export(from(ORDERS, ExportLogsServiceRequest::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let refused = client.export(ExportLogsServiceRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

fn pair(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

fn logs(body: &str, attributes: &[(&str, &str)]) -> Vec<ResourceLogs> {
    let body = AnyValue { value: Some(any_value::Value::StringValue(body.into())) };
    let attributes = attributes.iter().map(|(key, value)| pair(key, value)).collect();
    let time_unix_nano = u64::try_from(NOW - 1).unwrap() * 1_000_000_000;
    let record = LogRecord { time_unix_nano, body: Some(body), attributes, ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
    let resource = Resource { attributes: vec![pair("node_name", "sidecar~1~orders-0.shop~x")], ..Resource::default() };
    vec![ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() }]
}

const LABELS: [(&str, &str); 6] = [
    ("peer", CART),
    ("local", ORDERS),
    ("code", "403"),
    ("details", "rbac_access_denied_matched_policy[qualm-deny/d1]"),
    ("ja4", "t13d1812h1"),
    ("bytes_sent", "19"),
];

#[tokio::test]
async fn an_otlp_record_is_read_from_its_attributes_and_from_a_body_in_a_known_format() {
    let mut world = World::start(TelemetryLimits::default()).await;
    let text = r#"[2026-11-22T02:02:24.130Z] "GET /v1/orders/42 HTTP/1.1" 200 - via_upstream - "-" 0 19 0 - "-" "x" "4d7ac48e" "orders.shop" "-" up - 127.0.0.1:10060 10.0.0.7:32846 orders.shop.svc default"#;
    let json = r#"{"start_time":"2026-11-22T02:02:24.130Z","method":"GET","path":"/v1/orders/42","response_code":200,"authority":"orders.shop","downstream_remote_address":"10.0.0.7:32846"}"#;
    let with = |key: &str, value: &str| json.replacen('{', &format!(r#"{{"{key}":{value},"#), 1);
    for (body, operation, ip) in [
        ("[2026-11-22T01:45:28.244Z] 200 - spiffe://mesh.test/ns/shop/sa/cart", "", ""),
        (text, "GET /v1/orders/{id}", "10.0.0.7"),
        (&text.replace(r#"- "-" "x""#, r#"- "10.0.0.7" "x""#), "GET /v1/orders/{id}", ""),
        (json, "GET /v1/orders/{id}", ""),
        (&with("x_forwarded_for", r#""10.0.0.7""#), "GET /v1/orders/{id}", ""),
        (&with("x_forwarded_for", "null"), "GET /v1/orders/{id}", "10.0.0.7"),
        (&with("downstream_direct_remote_address", r#""10.0.0.9:1""#), "GET /v1/orders/{id}", "10.0.0.9"),
    ] {
        world.export(ORDERS, logs(body, &LABELS)).await;
        let batch = world.one().await.unwrap();
        let event = batch.event();
        assert_eq!((event.source().principal(), event.destination().principal()), (CART, ORDERS));
        assert_eq!((event.operation(), event.source().ip(), event.decision_id()), (operation, ip, "d1"), "{body}");
        assert_eq!((event.fingerprint(), event.bytes_out()), ("t13d1812h1", Some(19)));
        assert_eq!(event.reporter_id(), "sidecar~1~orders-0.shop~x");
    }
}

#[tokio::test]
async fn otlp_records_that_are_no_access_logs_and_broken_ones_are_told_apart() {
    let mut world = World::start(TelemetryLimits::default()).await;
    for (body, attributes, why) in [
        ("server started", &[][..], Rejection::Foreign),
        ("", &[("service.version", "3")], Rejection::Foreign),
        ("{\"method\":", &[], Invalid::Syntax.into()),
        ("", &[("code", "two hundred")], Invalid::WrongType.into()),
        ("", &[("peer", CART), ("start_time", "2026-13-01T00:00:00Z")], Invalid::ImpossibleTime.into()),
        ("", &[("code", "200")], Invalid::MissingIdentity.into()),
    ] {
        world.export(ORDERS, logs(body, attributes)).await;
        assert_eq!(world.one().await.err(), Some(why), "{body} {attributes:?}");
    }
}
