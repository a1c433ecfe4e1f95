//! What an operator and a scraper see of the running process: `/metrics`, `/healthz`, `/readyz`, and the log.
//!
//! # Layout
//! - [`log`]: section `[log]`, the subscriber
//! - [`metrics`]: what the pipeline counts; other parts register their own
//! - [`page`]: the handlers; [`door`]: accepting connections, and bounding what is accepted

use std::{io, net::SocketAddr};

use prometheus::Registry;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch};

use self::{door::Door, page::routes};

pub(crate) mod door;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod page;
#[cfg(test)]
mod tests;

pub(crate) use self::page::{Arming, Readiness};

/// Section `[observe]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ObserveConfig {
    /// Address and port of the page. It is plain HTTP without authentication: keep it on loopback, or behind
    /// something that authenticates.
    pub address: SocketAddr,
    /// Connections that are served at the same time; further ones wait.
    pub connections: usize,
}

impl Default for ObserveConfig {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 9464)), connections: 32 }
    }
}

/// A page that cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObserveError {
    /// The port is taken, or the address is not of this machine.
    #[error("[observe] address {address}: {source}; name an address of this machine and a port that is free")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing could ever be served.
    #[error("[observe] connections must be at least 1")]
    NoConnections,
}

/// The page, bound to its port and not yet served.
#[derive(Debug)]
pub(crate) struct Observability {
    door: Door,
    address: SocketAddr,
}

impl Observability {
    /// Takes the port.
    ///
    /// # Errors
    /// When the section is wrong, or the system does not give the port.
    pub(crate) async fn bind(config: &ObserveConfig) -> Result<Self, ObserveError> {
        if config.connections == 0 {
            return Err(ObserveError::NoConnections);
        }
        let failed = |source| ObserveError::Bind { address: config.address, source };
        let socket = TcpListener::bind(config.address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { door: Door::new(socket, config.connections), address })
    }

    /// Where it is served; with port 0 in the section, the port that the system chose.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped. The pipeline holds the sender of `readiness` for as long as it lives.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub(crate) async fn serve(self, registry: Registry, readiness: watch::Receiver<Readiness>) -> io::Result<()> {
        axum::serve(self.door, routes(registry, readiness)).await
    }
}
