//! Envoy as enforcement point: the trust table as RBAC filters, served through Delta ECDS on a stream of its own or
//! over ADS.
//!
//! # Layout
//! - [`policy`]: what the filters say
//! - [`snapshot`]: the resources of one version, compiled once for all nodes
//! - `session`: one node's stream
//! - `service`: the two gRPC services
//! - [`ext_authz`](super::ext_authz): the same answers, asked for request by request
//!
//! The resources always exist, so that lifting a denial is a push and not a removal. They carry the longest remaining
//! lease as their time to live, refreshed by heartbeats: a dead Qualm neither lifts a denial early nor leaves it for
//! ever. Nodes are answered only once a table is known: a restart never lifts what the journal holds.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::service::{
    auth::v3::authorization_server::AuthorizationServer,
    discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
    extension::v3::extension_config_discovery_service_server::ExtensionConfigDiscoveryServiceServer,
};
use qualm_model::time::Clock;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};

pub use self::service::Discovery;
use self::snapshot::{Compiler, Snapshot};
use super::{
    Enforcer,
    ext_authz::ExtAuthz,
    metrics::EnforcementMetrics,
    nodes::{NodeLimits, Nodes},
};
use crate::table::{EnforcementReport, SharedTable};

pub mod policy;
mod service;
mod session;
pub mod snapshot;

/// The word for this kind of enforcement point in reports and metrics.
pub const ENFORCER: &str = "xds";

/// How often leases and heartbeats are looked at.
const TICK: Duration = Duration::from_millis(250);

/// The enforcement points that speak xDS.
#[derive(Debug)]
pub struct Xds {
    nodes: Arc<Nodes>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    clock: Clock,
    metrics: EnforcementMetrics,
    limits: NodeLimits,
}

impl Xds {
    /// No node is connected and no table known. `clock` is wall time.
    pub fn new(limits: NodeLimits, clock: Clock, metrics: EnforcementMetrics) -> Self {
        let nodes = Nodes::new(ENFORCER, limits.clone(), clock.clone(), metrics.clone());
        Self { nodes, snapshots: watch::Sender::new(None), clock, metrics, limits }
    }

    /// The service for a stream of ECDS alone.
    pub fn extension_config(&self) -> ExtensionConfigDiscoveryServiceServer<Discovery> {
        ExtensionConfigDiscoveryServiceServer::new(self.discovery())
            .max_decoding_message_size(self.limits.message_bytes)
    }

    /// The service for ADS.
    pub fn aggregated(&self) -> AggregatedDiscoveryServiceServer<Discovery> {
        AggregatedDiscoveryServiceServer::new(self.discovery()).max_decoding_message_size(self.limits.message_bytes)
    }

    /// The service for proxies that ask about every request.
    pub fn authorization(&self) -> AuthorizationServer<ExtAuthz> {
        let service = ExtAuthz::new(self.snapshots.subscribe(), self.metrics.clone());
        AuthorizationServer::new(service).max_decoding_message_size(self.limits.message_bytes)
    }

    fn discovery(&self) -> Discovery {
        Discovery::new(Arc::clone(&self.nodes), self.snapshots.subscribe(), self.metrics.clone())
    }
}

impl Enforcer for Xds {
    async fn run(self, mut table: watch::Receiver<SharedTable>, reports: mpsc::Sender<EnforcementReport>) {
        self.nodes.report_to(reports);
        let mut compiler = Compiler::default();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        table.mark_changed();
        loop {
            let snapshot = tokio::select! {
                changed = table.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let table = table.borrow_and_update().clone();
                    Some(compiler.adopt(table, self.clock.now(), Instant::now()))
                }
                _ = tick.tick() => {
                    self.nodes.flush();
                    compiler.tick(self.clock.now(), Instant::now())
                }
            };
            if let Some(snapshot) = snapshot {
                let left_out = i64::try_from(compiler.inexpressible()).unwrap_or(i64::MAX);
                self.metrics.inexpressible.with_label_values(&[ENFORCER]).set(left_out);
                self.snapshots.send_replace(Some(snapshot));
            }
        }
    }
}
