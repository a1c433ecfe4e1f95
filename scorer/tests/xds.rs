//! Delta ECDS as a proxy sees it: a tonic client plays Envoy against the real services over loopback.
#![allow(clippy::unwrap_used)] // Tests, and what only they call.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{Node, TypedExtensionConfig},
        extensions::filters::http::rbac::v3::Rbac,
        service::{
            discovery::v3::{
                DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
                aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
            },
            extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient,
        },
    },
    google::rpc,
};
use prost::Message;
use qualm_model::{
    identity::Peer,
    level::Level,
    time::{Clock, Span, Timestamp},
};
use qualm_scorer::{
    enforce::{Enforcer, metrics::EnforcementMetrics, nodes::NodeLimits, xds::Xds},
    table::{Enforcement, EnforcementReport, Object, SharedTable, Subject, TrustEntry, TrustTable},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Code, Request, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Server},
};

const TYPE_URL: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
const PATIENCE: Duration = Duration::from_secs(20);
const START: i64 = 1_000_000;

/// A running server, and the hands on its table, clock and reports.
struct World {
    table: watch::Sender<SharedTable>,
    reports: mpsc::Receiver<EnforcementReport>,
    clock: Arc<AtomicI64>,
    channel: Channel,
}

/// One stream of one pretended proxy.
struct Proxy {
    say: mpsc::Sender<DeltaDiscoveryRequest>,
    hear: Streaming<DeltaDiscoveryResponse>,
}

/// The listener's part: who is at the other end, here as the client claims.
fn with_peer(mut request: Request<()>) -> Result<Request<()>, Status> {
    let name = request.metadata().get("test-peer").map(|name| name.to_str().unwrap().to_owned());
    if let Some(name) = name {
        request.extensions_mut().insert(Peer::Verified(name.parse().unwrap()));
    }
    Ok(request)
}

impl World {
    async fn start(first: TrustTable, limits: NodeLimits) -> Self {
        let clock = Arc::new(AtomicI64::new(START));
        let read = Arc::clone(&clock);
        let wall = Clock::new(move || Timestamp::from_seconds(read.load(Ordering::SeqCst)));
        let metrics = EnforcementMetrics::register(&prometheus::Registry::new()).unwrap();
        let xds = Xds::new(limits, wall, metrics);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder()
            .add_service(InterceptedService::new(xds.extension_config(), with_peer))
            .add_service(InterceptedService::new(xds.aggregated(), with_peer))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let (table, receiver) = watch::channel(Arc::new(first));
        let (sender, reports) = mpsc::channel(256);
        tokio::spawn(xds.run(receiver, sender));
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self { table, reports, clock, channel }
    }

    fn set(&self, version: u64, entries: Vec<TrustEntry>) {
        self.table.send_replace(Arc::new(table(version, entries)));
    }

    async fn proxy(&self, peer: &str, node: &str) -> Result<Proxy, Status> {
        let mut client = ExtensionConfigDiscoveryServiceClient::new(self.channel.clone());
        let (say, requests) = mpsc::channel(16);
        say.send(hello(node)).await.unwrap();
        let hear = client.delta_extension_configs(stream(peer, requests)).await?.into_inner();
        Ok(Proxy { say, hear })
    }

    /// The next report about `node` that is not about its connection.
    async fn answer(&mut self, node: &str) -> (u64, Enforcement) {
        loop {
            let report = timeout(PATIENCE, self.reports.recv()).await.unwrap().unwrap();
            if report.node == node && !matches!(report.what, Enforcement::Connected | Enforcement::Disconnected) {
                return (report.version, report.what);
            }
        }
    }
}

impl Proxy {
    async fn next(&mut self) -> DeltaDiscoveryResponse {
        timeout(PATIENCE, self.hear.message()).await.expect("a push in time").unwrap().expect("an open stream")
    }

    async fn ack(&self, response: &DeltaDiscoveryResponse) {
        self.answer(response, None).await;
    }

    async fn answer(&self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let error_detail = error.map(|message| rpc::Status { message: message.into(), ..rpc::Status::default() });
        let nonce = response.nonce.clone();
        let request = DeltaDiscoveryRequest { response_nonce: nonce, error_detail, ..request() };
        self.say.send(request).await.unwrap();
    }
}

fn stream<T: Send + 'static>(peer: &str, requests: mpsc::Receiver<T>) -> Request<ReceiverStream<T>> {
    let mut request = Request::new(ReceiverStream::new(requests));
    request.metadata_mut().insert("test-peer", peer.parse().unwrap());
    request
}

fn request() -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: TYPE_URL.into(), ..DeltaDiscoveryRequest::default() }
}

fn hello(node: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node { id: node.into(), ..Node::default() }),
        resource_names_subscribe: vec!["qualm-http-rbac".into(), "qualm-net-rbac".into()],
        ..request()
    }
}

fn table(version: u64, entries: Vec<TrustEntry>) -> TrustTable {
    TrustTable { version, entries, model_version: "m".into(), ..TrustTable::default() }
}

fn quarantined(service: &str, decision: &str, lease_s: i64) -> TrustEntry {
    let start = Timestamp::from_seconds(START);
    TrustEntry {
        decision: decision.into(),
        subject: Subject {
            principal: format!("spiffe://mesh.test/{service}"),
            cluster: None,
            workload: None,
            instance: None,
        },
        object: Object::Any,
        level: Level::Quarantined,
        enforce: true,
        decided: start,
        expires: start + Span::seconds(lease_s),
        evidence_bits: 30.0,
        co_owners: Vec::new(),
        reason: "never seen before".into(),
        known: None,
    }
}

/// The text of the HTTP filter that the response carries, as far as names of policies go.
fn http_filter(response: &DeltaDiscoveryResponse) -> String {
    let resource = response.resources.iter().find(|resource| resource.name == "qualm-http-rbac").unwrap();
    let config = TypedExtensionConfig::decode(resource.resource.as_ref().unwrap().value.as_slice()).unwrap();
    let filter = Rbac::decode(config.typed_config.unwrap().value.as_slice()).unwrap();
    String::from_utf8_lossy(&filter.encode_to_vec()).into_owned()
}

const ORDERS: &str = "spiffe://mesh.test/orders";

#[tokio::test]
async fn a_node_gets_the_whole_table_at_connect_and_its_acknowledgement_is_reported() {
    let mut world = World::start(table(7, vec![quarantined("cart", "d1", 600)]), NodeLimits::default()).await;
    let mut proxy = world.proxy(ORDERS, "n1").await.unwrap();
    let first = proxy.next().await;
    let names: Vec<_> = first.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["qualm-http-rbac", "qualm-net-rbac"]);
    assert!(http_filter(&first).contains("qualm-deny/d1"));
    let ttl = first.resources[0].ttl.as_ref().unwrap().seconds;
    assert!((540..600).contains(&ttl), "the rest of the lease: {ttl}");
    proxy.ack(&first).await;
    assert_eq!(world.answer("n1").await, (7, Enforcement::Acknowledged));
}

#[tokio::test]
async fn a_change_is_pushed_and_lifting_the_last_denial_is_an_explicit_empty_filter_without_ttl() {
    let mut world = World::start(table(1, vec![]), NodeLimits::default()).await;
    let mut proxy = world.proxy(ORDERS, "n1").await.unwrap();
    let empty = proxy.next().await;
    assert!(!http_filter(&empty).contains("qualm-deny"));
    assert_eq!(empty.resources[0].ttl, None);
    proxy.ack(&empty).await;
    world.set(2, vec![quarantined("cart", "d1", 600)]);
    let denial = proxy.next().await;
    assert!(http_filter(&denial).contains("qualm-deny/d1"));
    proxy.ack(&denial).await;
    world.set(3, vec![]);
    let lifted = proxy.next().await;
    assert!(!http_filter(&lifted).contains("qualm-deny"));
    assert_eq!((lifted.resources[0].ttl, lifted.removed_resources.len()), (None, 0));
    proxy.ack(&lifted).await;
    for version in 1..=3 {
        assert_eq!(world.answer("n1").await, (version, Enforcement::Acknowledged));
    }
}

#[tokio::test]
async fn before_a_table_is_known_nobody_is_told_that_all_is_well() {
    let metrics = EnforcementMetrics::register(&prometheus::Registry::new()).unwrap();
    let xds = Xds::new(NodeLimits::default(), Clock::new(|| Timestamp::from_seconds(START)), metrics);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = InterceptedService::new(xds.extension_config(), with_peer);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let (_table, table) = watch::channel(SharedTable::default());
    let (sender, reports) = mpsc::channel(16);
    let world = World { table: watch::Sender::default(), reports, clock: Arc::default(), channel };
    let mut proxy = world.proxy(ORDERS, "n1").await.unwrap();
    assert!(timeout(Duration::from_millis(300), proxy.hear.message()).await.is_err(), "nothing is sent yet");
    tokio::spawn(xds.run(table, sender));
    assert_eq!(proxy.next().await.resources.len(), 2);
}

#[tokio::test]
async fn a_rejection_is_reported_in_the_nodes_words_and_the_next_version_is_offered_again() {
    let mut world = World::start(table(1, vec![]), NodeLimits::default()).await;
    let mut proxy = world.proxy(ORDERS, "n1").await.unwrap();
    let first = proxy.next().await;
    proxy.ack(&first).await;
    assert_eq!(world.answer("n1").await, (1, Enforcement::Acknowledged));
    world.set(2, vec![quarantined("cart", "d1", 600)]);
    let refused = proxy.next().await;
    proxy.answer(&refused, Some("RBACValidationError")).await;
    assert_eq!(world.answer("n1").await, (2, Enforcement::Rejected("RBACValidationError".into())));
    world.set(3, vec![quarantined("web", "d2", 600)]);
    let good = proxy.next().await;
    assert!(http_filter(&good).contains("qualm-deny/d2"));
    proxy.ack(&good).await;
    assert_eq!(world.answer("n1").await, (3, Enforcement::Acknowledged));
}

#[tokio::test]
async fn a_lease_is_refreshed_by_heartbeats_without_a_body_and_renewal_changes_nothing_but_the_ttl() {
    let mut world = World::start(table(1, vec![quarantined("cart", "d1", 8)]), NodeLimits::default()).await;
    let mut proxy = world.proxy(ORDERS, "n1").await.unwrap();
    let first = proxy.next().await;
    proxy.ack(&first).await;
    let heartbeat = proxy.next().await;
    let (before, after) = (&first.resources[0], &heartbeat.resources[0]);
    assert_eq!((&after.resource, &after.version), (&None, &before.version));
    assert!((5..8).contains(&after.ttl.as_ref().unwrap().seconds), "never below five seconds");
    world.set(2, vec![quarantined("cart", "d1", 6_000)]);
    let renewed = loop {
        let next = proxy.next().await;
        if next.resources[0].ttl.as_ref().unwrap().seconds > 8 {
            break next;
        }
    };
    assert_eq!((&renewed.resources[0].resource, &renewed.resources[0].version), (&None, &before.version));
    proxy.ack(&renewed).await;
    assert_eq!(world.answer("n1").await.0, 1);
    assert_eq!(world.answer("n1").await, (2, Enforcement::Acknowledged));
}

#[tokio::test]
async fn a_heartbeat_that_a_node_refuses_is_followed_by_the_whole() {
    let world = World::start(table(1, vec![quarantined("cart", "d1", 8)]), NodeLimits::default()).await;
    let mut proxy = world.proxy(ORDERS, "n1").await.unwrap();
    let first = proxy.next().await;
    proxy.ack(&first).await;
    let heartbeat = proxy.next().await;
    assert_eq!(heartbeat.resources[0].resource, None);
    proxy.answer(&heartbeat, Some("unknown resource")).await;
    assert!(http_filter(&proxy.next().await).contains("qualm-deny/d1"));
}

#[tokio::test]
async fn while_a_node_refuses_the_new_version_heartbeats_keep_up_the_one_that_it_holds() {
    let world = World::start(table(1, vec![quarantined("cart", "d1", 600)]), NodeLimits::default()).await;
    let mut proxy = world.proxy(ORDERS, "n1").await.unwrap();
    let held = proxy.next().await;
    proxy.ack(&held).await;
    world.set(2, vec![quarantined("web", "d2", 8)]);
    let refused = proxy.next().await;
    proxy.answer(&refused, Some("no")).await;
    let heartbeat = proxy.next().await;
    assert_eq!(heartbeat.resources[0].version, held.resources[0].version);
    assert!(heartbeat.resources[0].ttl.as_ref().unwrap().seconds > 8, "the lease of what it holds");
}

#[tokio::test]
async fn a_node_that_has_refused_everything_is_still_told_which_names_do_not_exist() {
    let mut world = World::start(table(1, vec![quarantined("cart", "d1", 600)]), NodeLimits::default()).await;
    let mut proxy = world.proxy(ORDERS, "n1").await.unwrap();
    let refused = proxy.next().await;
    proxy.answer(&refused, Some("no")).await;
    assert_eq!(world.answer("n1").await, (1, Enforcement::Rejected("no".into())));
    let other = DeltaDiscoveryRequest { resource_names_subscribe: vec!["other".into()], ..request() };
    proxy.say.send(other).await.unwrap();
    let absent = proxy.next().await;
    assert_eq!((&absent.removed_resources[..], absent.resources.len()), (&["other".to_owned()][..], 0));
    // That it has heard so is no acknowledgement of the policy.
    proxy.ack(&absent).await;
    world.set(2, vec![quarantined("web", "d2", 600)]);
    let good = proxy.next().await;
    assert!(http_filter(&good).contains("qualm-deny/d2"));
    proxy.ack(&good).await;
    assert_eq!(world.answer("n1").await, (2, Enforcement::Acknowledged));
}

#[tokio::test]
async fn a_lease_that_ends_is_lifted_by_a_push_although_the_table_has_not_changed() {
    let two = vec![quarantined("cart", "d1", 60), quarantined("web", "d2", 600)];
    let mut world = World::start(table(1, two), NodeLimits::default()).await;
    let mut proxy = world.proxy(ORDERS, "n1").await.unwrap();
    let first = proxy.next().await;
    proxy.ack(&first).await;
    world.clock.store(START + 61, Ordering::SeqCst);
    let after = proxy.next().await;
    let filter = http_filter(&after);
    assert!(!filter.contains("qualm-deny/d1") && filter.contains("qualm-deny/d2"));
    proxy.ack(&after).await;
    assert_eq!(world.answer("n1").await, (1, Enforcement::Acknowledged));
}

#[tokio::test]
async fn a_node_that_reconnects_gets_the_whole_table_whatever_it_says_it_holds() {
    let world = World::start(table(4, vec![quarantined("cart", "d1", 600)]), NodeLimits::default()).await;
    let mut proxy = world.proxy(ORDERS, "n1").await.unwrap();
    let version = proxy.next().await.resources[0].version.clone();
    drop(proxy);
    let mut client = ExtensionConfigDiscoveryServiceClient::new(world.channel.clone());
    let (say, requests) = mpsc::channel(16);
    let held = ["qualm-http-rbac", "qualm-net-rbac"].map(|name| (name.to_owned(), version.clone()));
    say.send(DeltaDiscoveryRequest { initial_resource_versions: held.into(), ..hello("n1") }).await.unwrap();
    let hear = client.delta_extension_configs(stream(ORDERS, requests)).await.unwrap().into_inner();
    assert!(http_filter(&Proxy { say, hear }.next().await).contains("qualm-deny/d1"));
}

#[tokio::test]
async fn another_identity_may_not_use_a_bound_node_id() {
    let world = World::start(table(1, vec![]), NodeLimits::default()).await;
    let mut owner = world.proxy(ORDERS, "n1").await.unwrap();
    owner.next().await;
    let mut thief = world.proxy("spiffe://mesh.test/cart", "n1").await.unwrap();
    let refused = timeout(PATIENCE, thief.hear.message()).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    world.set(2, vec![quarantined("cart", "d1", 600)]);
    assert!(http_filter(&owner.next().await).contains("qualm-deny/d1"), "the owner is served on");
}

#[tokio::test]
async fn a_node_that_does_not_read_delays_nobody_and_gets_the_newest_when_it_does() {
    let mut world = World::start(table(1, vec![]), NodeLimits::default()).await;
    let mut slow = world.proxy(ORDERS, "slow").await.unwrap();
    let mut quick = world.proxy(ORDERS, "quick").await.unwrap();
    let first = quick.next().await;
    quick.ack(&first).await;
    // Some 400 KB a version: what the slow node does not read soon fills the stream's window.
    let many =
        |version: u64| (0..1_000).map(|i| quarantined(&format!("s{i}"), &format!("v{version}-{i}"), 600)).collect();
    let last = 30;
    for version in 2..=last {
        world.set(version, many(version));
        loop {
            let push = quick.next().await;
            quick.ack(&push).await;
            if push.system_version_info == version.to_string() {
                break;
            }
        }
    }
    let mut heard: BTreeMap<u64, usize> = BTreeMap::new();
    while !heard.contains_key(&last) {
        let push = slow.next().await;
        slow.ack(&push).await;
        heard.insert(push.system_version_info.parse().unwrap(), push.resources.len());
    }
    assert!(heard.len() < usize::try_from(last).unwrap(), "in-between versions were never sent: {:?}", heard.keys());
    while world.answer("slow").await != (last, Enforcement::Acknowledged) {}
}

#[tokio::test]
async fn over_ads_only_our_type_is_answered_and_the_stream_stays_open() {
    let world = World::start(table(1, vec![quarantined("cart", "d1", 600)]), NodeLimits::default()).await;
    let mut client = AggregatedDiscoveryServiceClient::new(world.channel.clone());
    let (say, requests) = mpsc::channel(16);
    let listeners = "type.googleapis.com/envoy.config.listener.v3.Listener".to_owned();
    say.send(DeltaDiscoveryRequest { type_url: listeners, ..hello("n1") }).await.unwrap();
    say.send(hello("n1")).await.unwrap();
    let hear = client.delta_aggregated_resources(stream(ORDERS, requests)).await.unwrap().into_inner();
    let mut proxy = Proxy { say, hear };
    let first = proxy.next().await;
    assert_eq!(first.type_url, TYPE_URL);
    assert!(http_filter(&first).contains("qualm-deny/d1"));
}

#[tokio::test]
async fn on_its_own_stream_another_type_and_too_many_names_are_refused_and_unknown_names_answered_as_absent() {
    let world = World::start(table(1, vec![]), NodeLimits::default()).await;
    for wrong in [
        DeltaDiscoveryRequest { type_url: "type.googleapis.com/x".into(), ..hello("n1") },
        DeltaDiscoveryRequest { resource_names_subscribe: vec!["x".into(); 65], ..hello("n2") },
    ] {
        let proxy = world.proxy(ORDERS, "any").await.unwrap();
        proxy.say.send(wrong).await.unwrap();
        let mut hear = proxy.hear;
        let refused = loop {
            match timeout(PATIENCE, hear.message()).await.unwrap() {
                Ok(push) => assert!(push.is_some()),
                Err(status) => break status,
            }
        };
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let mut proxy = world.proxy(ORDERS, "n3").await.unwrap();
    proxy.next().await;
    let other = DeltaDiscoveryRequest { resource_names_subscribe: vec!["other".into()], ..request() };
    proxy.say.send(other).await.unwrap();
    assert_eq!(proxy.next().await.removed_resources, ["other"]);
}

#[tokio::test]
async fn without_a_verified_peer_and_in_state_of_the_world_form_nobody_is_served() {
    let world = World::start(table(1, vec![]), NodeLimits::default()).await;
    let mut client = ExtensionConfigDiscoveryServiceClient::new(world.channel.clone());
    let (say, requests) = mpsc::channel(1);
    say.send(hello("n1")).await.unwrap();
    let mut hear = client.delta_extension_configs(ReceiverStream::new(requests)).await.unwrap().into_inner();
    assert_eq!(hear.message().await.unwrap_err().code(), Code::Unauthenticated);
    let sotw = tokio_stream::iter([DiscoveryRequest::default()]);
    assert_eq!(client.stream_extension_configs(sotw).await.unwrap_err().code(), Code::Unimplemented);
}
