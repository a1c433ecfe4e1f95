//! A real Istio control plane against a real Kubernetes API server, all of its ports on loopback. The test is the proxy.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DiscoveryRequest, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    google::protobuf::{Struct, Value as Any, value::Kind},
};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::transport::Endpoint;

use super::{kubernetes::Kubernetes, parts::Part, ports, process::Process, qualm::page};

/// Its start, and its answers on a loaded machine.
const START: Duration = Duration::from_secs(120);
const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// The custom resources that it reads, in YAML.
pub(crate) fn definitions() -> String {
    let file = part().join("crds.yaml");
    fs::read_to_string(file).expect("tests/run puts them beside istiod")
}

pub(crate) struct Istiod {
    http: u16,
    grpc: u16,
    runtime: Runtime,
    process: Process,
}

impl Istiod {
    /// Starts it under `folder` and waits until it is ready. Its mesh configuration is in `kubernetes`.
    pub(crate) fn start(folder: &Path, kubernetes: &Kubernetes) -> Self {
        let folder = folder.join("istiod");
        fs::create_dir_all(&folder).expect("the test's folder can be written to");
        let [http, grpc, monitoring] = [(); 3].map(|()| ports::free());
        let mut command = Process::command(&part().join("pilot-discovery"));
        command.arg("discovery").arg("--kubeconfig").arg(kubernetes.kubeconfig());
        command
            .arg(format!("--httpAddr=127.0.0.1:{http}"))
            .arg(format!("--grpcAddr=127.0.0.1:{grpc}"))
            .arg(format!("--monitoringAddr=127.0.0.1:{monitoring}"))
            .args(["--secureGRPCAddr=", "--httpsAddr=", "--ctrlz_port=0"])
            .envs([("POD_NAMESPACE", "istio-system"), ("POD_NAME", "istiod-0"), ("CLUSTER_ID", "Kubernetes")])
            .envs([("REVISION", "default"), ("PILOT_CERT_PROVIDER", "istiod"), ("INJECT_ENABLED", "false")])
            .envs([("VALIDATION_ENABLED", "false"), ("PILOT_ENABLE_LEADER_ELECTION", "false")])
            // Filters that only Istio's own build of Envoy has.
            .envs([("PILOT_ENABLE_METADATA_EXCHANGE", "false"), ("PILOT_ENABLE_ALPN_FILTER", "false")])
            .current_dir(&folder);
        let mut process = Process::spawn("istiod", command, &folder.join("istiod.log"));
        process.wait_until("is ready", START, || page(http, "/ready").is_ok_and(|page| page.status == 200));
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
        Self { http, grpc, runtime, process }
    }

    /// All that it configures the proxy `node` with, as its own debugging page shows it: Envoy's dump in JSON.
    pub(crate) fn configuration(&self, node: &str, namespace: &str) -> Value {
        let metadata = [("NAMESPACE", namespace), ("CLUSTER_ID", "Kubernetes"), ("ISTIO_VERSION", "1.29.0")];
        let text = |value: &str| Any { kind: Some(Kind::StringValue(value.to_owned())) };
        let metadata = metadata.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
        let hello = |type_url: &str| DiscoveryRequest {
            node: Some(Node { id: node.to_owned(), metadata: Some(Struct { fields: metadata }), ..Node::default() }),
            type_url: type_url.to_owned(),
            ..DiscoveryRequest::default()
        };
        let first = hello(CLUSTERS);
        let second = DiscoveryRequest { type_url: LISTENERS.to_owned(), ..first.clone() };
        self.runtime.block_on(async {
            let address = format!("http://127.0.0.1:{}", self.grpc);
            let channel = Endpoint::from_shared(address).expect("an address").connect().await.expect("istiod listens");
            let (say, requests) = tokio::sync::mpsc::channel(2);
            for request in [first, second] {
                say.send(request).await.expect("there is room");
            }
            let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
            let answers = client.stream_aggregated_resources(ReceiverStream::new(requests)).await;
            let mut answers = answers.expect("istiod serves proxies").into_inner();
            let mut open = vec![CLUSTERS, LISTENERS];
            while !open.is_empty() {
                let answer = answers.next().await.expect("the stream stays open").expect("istiod answers");
                open.retain(|wanted| *wanted != answer.type_url);
            }
            // While the stream is open its page knows the proxy.
            let proxy = node.split('~').nth(2).expect("a node id of Istio's form");
            let path = format!("/debug/config_dump?proxyID={proxy}");
            let port = self.http;
            let dump = tokio::task::spawn_blocking(move || page(port, &path)).await;
            let dump = dump.expect("the page is asked").expect("the page is served").body;
            drop(say);
            serde_json::from_str(&dump).unwrap_or_else(|error| panic!("{error}: {dump}"))
        })
    }

    /// Its own log.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }
}

fn part() -> PathBuf {
    Part::Istiod.folder().expect("parts::present was asked first")
}
