//! Enforcement points that take their time, and for ever: every event is judged as if they were not there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{fs::File, io::Write, net::TcpStream};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::{
        discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient,
    },
};
use qualm_proto::trust::v1::{
    SubscribeRequest, Subscription, TrustUpdate, subscribe_request::Message, trust_stream_client::TrustStreamClient,
};
use support::{
    discovery::now,
    envoy::{HTTP_RBAC, NETWORK_RBAC},
    estate::{Estate, last_calls, misused},
    mesh::{JUDGEMENT, until_armed},
    ports,
    qualm::Qualm,
    wait::{PATIENCE, until_true},
};
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// What happens while nobody listens.
const EVENTS: usize = 20_000;

/// Two enforcement points that have subscribed and never read a word of what they are told, and a third that has
/// connected and says nothing.
struct Stalled {
    runtime: Runtime,
    _xds: (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>),
    _trust: (mpsc::Sender<SubscribeRequest>, Streaming<TrustUpdate>),
    _silent: TcpStream,
}

impl Stalled {
    fn connect(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (xds, trust) = runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
            (
                subscribe_xds(endpoint.connect().await.unwrap()).await,
                follow_trust(endpoint.connect().await.unwrap()).await,
            )
        });
        Self { runtime, _xds: xds, _trust: trust, _silent: TcpStream::connect(("127.0.0.1", port)).unwrap() }
    }
}

async fn subscribe_xds(channel: Channel) -> (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>) {
    let (say, requests) = mpsc::channel(1);
    let hello = DeltaDiscoveryRequest {
        node: Some(Node { id: "sidecar~10.0.0.1~stalled-0.shop~shop.svc".to_owned(), ..Node::default() }),
        type_url: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig".to_owned(),
        resource_names_subscribe: vec![HTTP_RBAC.to_owned(), NETWORK_RBAC.to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    say.send(hello).await.unwrap();
    let mut client = ExtensionConfigDiscoveryServiceClient::new(channel);
    let told = client.delta_extension_configs(ReceiverStream::new(requests)).await.unwrap().into_inner();
    (say, told)
}

async fn follow_trust(channel: Channel) -> (mpsc::Sender<SubscribeRequest>, Streaming<TrustUpdate>) {
    let (say, requests) = mpsc::channel(1);
    let subscription = Subscription { node: "stalled".to_owned(), ..Subscription::default() };
    say.send(SubscribeRequest { message: Some(Message::Subscription(subscription)) }).await.unwrap();
    let told = TrustStreamClient::new(channel).subscribe(ReceiverStream::new(requests)).await.unwrap().into_inner();
    (say, told)
}

#[test]
fn scoring_does_not_wait_for_an_enforcement_point_that_never_answers() {
    let folder = tempfile::tempdir().unwrap();
    let present = now();
    let estate = Estate::generate(7, present);
    let past: Vec<_> = estate.lines(present).take_while(|line| line.report.0 <= present.0 / 1_000_000).collect();
    let calls = last_calls(&past);
    let mut archive = File::create(folder.path().join("past.jsonl")).unwrap();
    for line in &past {
        archive.write_all(&[line.text.as_slice(), b"\n"].concat()).unwrap();
    }
    let mut log = File::create(folder.path().join("access.jsonl")).unwrap();
    let (grpc, http) = (ports::free(), ports::free());
    let mut qualm = Qualm::start(folder.path(), &config(grpc, http), http);
    until_armed(&mut qualm);
    let stalled = Stalled::connect(grpc);
    let nodes = |of: &str| qualm.metric(&format!("qualm_enforcement_nodes{{enforcer=\"{of}\"}}"));
    until_true("both have subscribed", PATIENCE, || nodes("xds") == Some(1.0) && nodes("trust-stream") == Some(1.0));
    let before = qualm.metric("qualm_events_scored_total").unwrap() as usize;

    let mut lines = Vec::new();
    for (n, call) in calls.values().cycle().take(EVENTS).enumerate() {
        lines.extend(misused(call, n, now()));
        lines.push(b'\n');
    }
    log.write_all(&lines).unwrap();

    until_true("every event is judged", PATIENCE, || {
        qualm.metric("qualm_events_scored_total").is_some_and(|judged| judged as usize == before + EVENTS)
    });
    assert!(qualm.metric(r#"qualm_trust_entries{level="quarantined"}"#) >= Some(1.0), "there was something to tell");
    for of in ["xds", "trust-stream"] {
        let heard = qualm.metric(&format!("qualm_acknowledgements_total{{enforcer=\"{of}\"}}"));
        assert_eq!(heard.unwrap_or(0.0), 0.0, "{of} never answered");
    }
    qualm.check_metrics();
    drop(stalled.runtime);
}

fn config(grpc: u16, http: u16) -> String {
    format!(
        r#"
[[file]]
path = "../access.jsonl"
format = "istio_json"
follow = true

[listen]
address = "127.0.0.1:{grpc}"
plaintext_loopback = true

[observe]
address = "127.0.0.1:{http}"

[history]
files = ["../past.jsonl"]
format = "istio_json"

{JUDGEMENT}

[enforce]
mode = "enforce"
max_share = 1.0

[state]
directory = "state"
"#
    )
}
