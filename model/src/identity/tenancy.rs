//! Who had an address, and when: what an orchestrator says of its pods.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A pod at its addresses, as far as is known when it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenancy {
    /// Cluster that it is in; empty where clusters have no names.
    pub cluster: Arc<str>,
    /// The pod, by an id that is never used again. Empty where a node is the tenant.
    pub pod: Arc<str>,
    /// Whose the addresses are.
    pub tenant: Tenant,
    /// The addresses, one a protocol. None where it ended and they are not told any more.
    pub addresses: Vec<Arc<str>>,
    /// Since when it has them.
    pub since: Timestamp,
    /// Until when, once that is known.
    pub until: Option<Timestamp>,
    /// When this was told.
    pub told: Timestamp,
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tenant {
    /// A pod's of its own.
    Workload {
        /// `cart.shop`: what all pods of the workload have in common.
        name: Arc<str>,
        /// The pod's name.
        instance: Arc<str>,
        /// Namespace and service account, as they stand at the end of a SPIFFE ID: `/ns/shop/sa/cart`.
        account: Arc<str>,
    },
    /// A node's, which all of its pods without a network of their own have in common.
    Node,
}
