//! Enforcement points. Each owns its own task, so that scoring never waits for one.
//!
//! # Layout
//! - [`xds`]: Envoy, through Delta ECDS; [`ext_authz`]: Envoy, asking about every request
//! - [`istio`]: AuthorizationPolicies, as durable twins of quarantines
//! - [`trust_stream`], [`trust_client`]: Qualm's own stream, for any other enforcement point
//! - [`nodes`]: which node is who, and what it has acknowledged
//! - [`leases`]: when an entry ends, whatever the wall clock does
//! - [`metrics`]: what is counted of all this

use std::future::Future;

use tokio::sync::{mpsc, watch};

use crate::table::{EnforcementReport, SharedTable};

pub mod ext_authz;
pub mod istio;
pub mod leases;
pub mod metrics;
pub mod nodes;
pub mod trust_client;
pub mod trust_stream;
pub mod xds;

/// A kind of enforcement point.
pub trait Enforcer {
    /// Carries the table to its nodes and reports what they say, until the table's sender is dropped.
    ///
    /// A full or closed `reports` channel must never hold back a push.
    fn run(
        self,
        table: watch::Receiver<SharedTable>,
        reports: mpsc::Sender<EnforcementReport>,
    ) -> impl Future<Output = ()> + Send;
}
