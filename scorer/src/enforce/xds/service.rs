//! The two gRPC services. State-of-the-world forms are refused: in them, leaving a resource out does nothing.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::service::{
    discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_server::AggregatedDiscoveryService,
    },
    extension::v3::extension_config_discovery_service_server::ExtensionConfigDiscoveryService,
};
use qualm_model::identity::Peer;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    session::{Form, Session},
    snapshot::Snapshot,
};
use crate::enforce::{metrics::EnforcementMetrics, nodes::Nodes};

/// How long a stream may stay open without a first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

type Responses<T> = ReceiverStream<Result<T, Status>>;

/// Discovery of Qualm's filters, on a stream of its own and over ADS.
///
/// The listener puts the verified [`Peer`] into the extensions of each request; without one, nobody is served.
#[derive(Debug)]
pub struct Discovery {
    nodes: Arc<Nodes>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    metrics: EnforcementMetrics,
}

impl Discovery {
    pub(super) fn new(
        nodes: Arc<Nodes>,
        snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        metrics: EnforcementMetrics,
    ) -> Self {
        Self { nodes, snapshots, metrics }
    }

    async fn serve(
        &self,
        form: Form,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses<DeltaDiscoveryResponse>>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let mut requests = request.into_inner();
        // The answer must not wait for the first message: a client may want its headers first.
        let (sender, receiver) = mpsc::channel(1);
        let (nodes, snapshots, metrics) = (Arc::clone(&self.nodes), self.snapshots.clone(), self.metrics.clone());
        tokio::spawn(async move {
            let Ok(first) = timeout(FIRST_MESSAGE, requests.message()).await else { return };
            let first = match first {
                Ok(Some(first)) => first,
                Ok(None) => return,
                Err(status) => {
                    sender.send(Err(status)).await.ok();
                    return;
                }
            };
            let node = first.node.as_ref().map(|node| node.id.as_str()).unwrap_or_default();
            let member = match nodes.join(peer.as_ref(), node) {
                Ok(member) => member,
                Err(refusal) => {
                    tracing::warn!(?peer, node, %refusal, "xDS stream refused");
                    // The client may be gone.
                    sender.send(Err(refusal.into())).await.ok();
                    return;
                }
            };
            let session = Session::new(form, member, metrics);
            session.run(first, requests, snapshots, sender).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn only_delta<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only the incremental form is served; set `api_type: DELTA_GRPC` in the config source"))
}

#[tonic::async_trait]
impl ExtensionConfigDiscoveryService for Discovery {
    type StreamExtensionConfigsStream = Responses<DiscoveryResponse>;
    type DeltaExtensionConfigsStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_extension_configs(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamExtensionConfigsStream>, Status> {
        only_delta()
    }

    async fn delta_extension_configs(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaExtensionConfigsStream>, Status> {
        self.serve(Form::Own, request).await
    }

    async fn fetch_extension_configs(
        &self,
        _request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        only_delta()
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        only_delta()
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.serve(Form::Aggregated, request).await
    }
}
