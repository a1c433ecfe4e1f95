//! The trust stream: Qualm's own gRPC service, for any enforcement point that is not Envoy.
//!
//! # Layout
//! - [`record`]: a trust entry as the public confidence level record
//! - `session`: one subscriber's stream

use std::{sync::Arc, time::Duration};

use qualm_model::{identity::Peer, time::Clock};
use qualm_proto::trust::v1::{
    SubscribeRequest, Subscription, TrustUpdate,
    subscribe_request::Message,
    trust_stream_server::{TrustStream as TrustStreamService, TrustStreamServer},
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::{record::Coverage, session::Session};
use super::{
    Enforcer,
    metrics::EnforcementMetrics,
    nodes::{NodeLimits, Nodes},
};
use crate::table::{EnforcementReport, SharedTable};

pub mod record;
mod session;

/// The word for this kind of enforcement point in reports and metrics.
pub const ENFORCER: &str = "trust-stream";

/// How long a stream may stay open without a first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How often reports that the loop had no room for are offered again.
const RETRY_REPORTS: Duration = Duration::from_millis(250);
/// Trust domains or namespaces of one subscription, and bytes of each.
const FILTERS: (usize, usize) = (1_024, 256);

/// The enforcement points that follow the trust stream.
#[derive(Debug)]
pub struct TrustStream {
    nodes: Arc<Nodes>,
    tables: watch::Sender<Option<SharedTable>>,
    coverage: watch::Receiver<Coverage>,
    clock: Clock,
    limits: NodeLimits,
}

impl TrustStream {
    /// Nobody has subscribed yet and no table is known. `clock` is wall time; `coverage` goes into each record.
    pub fn new(
        limits: NodeLimits,
        clock: Clock,
        coverage: watch::Receiver<Coverage>,
        metrics: EnforcementMetrics,
    ) -> Self {
        let nodes = Nodes::new(ENFORCER, limits.clone(), clock.clone(), metrics);
        Self { nodes, tables: watch::Sender::new(None), coverage, clock, limits }
    }

    /// The gRPC service. The listener puts the verified [`Peer`] into the extensions of each request; without one,
    /// nobody is served.
    pub fn service(&self) -> TrustStreamServer<Subscriptions> {
        let subscriptions = Subscriptions {
            nodes: Arc::clone(&self.nodes),
            tables: self.tables.subscribe(),
            coverage: self.coverage.clone(),
            clock: self.clock.clone(),
        };
        TrustStreamServer::new(subscriptions).max_decoding_message_size(self.limits.message_bytes)
    }
}

impl Enforcer for TrustStream {
    async fn run(self, mut table: watch::Receiver<SharedTable>, reports: mpsc::Sender<EnforcementReport>) {
        self.nodes.report_to(reports);
        let mut retry = interval(RETRY_REPORTS);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        table.mark_changed();
        loop {
            tokio::select! {
                changed = table.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let newest = table.borrow_and_update().clone();
                    self.tables.send_replace(Some(newest));
                }
                _ = retry.tick() => self.nodes.flush(),
            }
        }
    }
}

/// The service behind the stream.
#[derive(Debug)]
pub struct Subscriptions {
    nodes: Arc<Nodes>,
    tables: watch::Receiver<Option<SharedTable>>,
    coverage: watch::Receiver<Coverage>,
    clock: Clock,
}

#[tonic::async_trait]
impl TrustStreamService for Subscriptions {
    type SubscribeStream = ReceiverStream<Result<TrustUpdate, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let mut requests = request.into_inner();
        let (sender, receiver) = mpsc::channel(1);
        let (nodes, tables) = (Arc::clone(&self.nodes), self.tables.clone());
        let (coverage, clock) = (self.coverage.clone(), self.clock.clone());
        tokio::spawn(async move {
            let admitted = match timeout(FIRST_MESSAGE, requests.message()).await {
                Ok(Ok(Some(first))) => subscription(first)
                    .and_then(|subscription| Ok((nodes.join(peer.as_ref(), &subscription.node)?, subscription))),
                Ok(Ok(None)) | Err(_) => return,
                Ok(Err(status)) => Err(status),
            };
            match admitted {
                Ok((member, subscription)) => {
                    Session::new(member, subscription, coverage, clock).run(requests, tables, sender).await;
                }
                Err(status) => {
                    tracing::warn!(?peer, %status, "trust stream refused");
                    // The client may be gone.
                    sender.send(Err(status)).await.ok();
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn subscription(first: SubscribeRequest) -> Result<Subscription, Status> {
    let Some(Message::Subscription(subscription)) = first.message else {
        return Err(Status::invalid_argument("the first message must be a subscription"));
    };
    let lists = [&subscription.trust_domains, &subscription.namespaces];
    if lists.iter().any(|list| list.len() > FILTERS.0 || list.iter().any(|name| name.len() > FILTERS.1)) {
        let (names, bytes) = FILTERS;
        return Err(Status::invalid_argument(format!(
            "at most {names} trust domains and as many namespaces, of {bytes} bytes each; leave them empty for all"
        )));
    }
    Ok(subscription)
}
