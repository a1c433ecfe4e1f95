//! The gRPC listener: one port for telemetry in and enforcement out, over mTLS.
//!
//! # Layout
//! - [`roles`]: which SPIFFE IDs may do what
//! - [`tls`]: certificates from files, read anew when they change
//! - [`connection`]: accepting, and bounding what is accepted
//!
//! A forged log line is a denial of service and a forged acknowledgement hides one, so whoever connects proves who it
//! is, and each service serves only those whom the configuration lists for it.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use qualm_model::identity::SpiffeId;
use serde::Deserialize;
use tokio::net::TcpListener;
use tonic::{service::Routes, transport::Server};

use self::{
    connection::{Doorman, ListenMetrics},
    roles::{Gate, IdPattern, Role, Roles},
    tls::{Identity, TlsFiles},
};

pub(crate) mod connection;
pub(crate) mod roles;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

/// How often an idle connection is asked whether it still lives, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// A connection is closed at this age, so that its client certificate is checked anew; streams get this long to end.
const CONNECTION_AGE: (Duration, Duration) = (Duration::from_secs(24 * 3_600), Duration::from_secs(30));
/// Bytes that a client may send ahead of what is read, per stream and per connection.
const WINDOWS: (u32, u32) = (256 << 10, 1 << 20);

/// Section `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ListenConfig {
    /// Address and port; absent: no listener.
    pub address: Option<SocketAddr>,
    /// PEM file with the server's certificate chain.
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// PEM file with the roots that client certificates must chain to.
    pub client_roots: Option<PathBuf>,
    /// Serve without TLS, on a loopback address only: whoever is on this machine may then do everything.
    pub plaintext_loopback: bool,
    /// Who may send telemetry: SPIFFE IDs, or prefixes that end in `/*`.
    pub reporters: Vec<IdPattern>,
    /// Of these, who may also report calls of which it is no end itself: node agents and collectors.
    pub collectors: Vec<IdPattern>,
    /// Who may receive policies over xDS.
    pub enforcement_points: Vec<IdPattern>,
    /// Who may subscribe to the trust stream.
    pub subscribers: Vec<IdPattern>,
    /// Who may have a stream of security event tokens.
    pub receivers: Vec<IdPattern>,
    /// Who may push security event tokens to us.
    pub transmitters: Vec<IdPattern>,
    /// Who may ask who stands where.
    pub viewers: Vec<IdPattern>,
    /// Who may also announce deployments.
    pub announcers: Vec<IdPattern>,
    /// Who may also set levels for a time, and lift them.
    pub operators: Vec<IdPattern>,
    /// Who may also pause all enforcement.
    pub approvers: Vec<IdPattern>,
    /// Who may also set aside what protects: the list of the protected, and the cap on how many are denied.
    pub admins: Vec<IdPattern>,
    /// Connections at once, of all peers.
    pub connections: usize,
    /// Connections at once of one SPIFFE ID.
    pub connections_per_peer: usize,
    /// Streams at once on one connection.
    pub streams_per_connection: u32,
    /// Seconds that a TLS handshake may take.
    pub handshake_timeout_s: u64,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            address: None,
            certificate: None,
            key: None,
            client_roots: None,
            plaintext_loopback: false,
            reporters: Vec::new(),
            collectors: Vec::new(),
            enforcement_points: Vec::new(),
            subscribers: Vec::new(),
            receivers: Vec::new(),
            transmitters: Vec::new(),
            viewers: Vec::new(),
            announcers: Vec::new(),
            operators: Vec::new(),
            approvers: Vec::new(),
            admins: Vec::new(),
            connections: 16_384,
            connections_per_peer: 1_024,
            streams_per_connection: 64,
            handshake_timeout_s: 5,
        }
    }
}

/// What is wrong with the section `[listen]`, or with a file that it names.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// A key is missing or contradicts another.
    #[error("listen.{key}: {problem}; {remedy}")]
    Setting {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file cannot be used.
    #[error("listen.{key}: {}: {problem}; {remedy}", file.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The port cannot be had.
    #[error("listen.address: cannot listen on {address}: {problem}; choose another port, or end the program on it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        problem: io::Error,
    },
}

/// A listener that is configured and whose files are read, but that has no port yet.
pub(crate) struct Listener {
    address: SocketAddr,
    identity: Option<Identity>,
    roles: Arc<Roles>,
    config: ListenConfig,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).field("tls", &self.identity.is_some()).finish()
    }
}

impl Listener {
    /// Checks the section and reads its files; `None` when no address is set. No port is bound.
    ///
    /// # Errors
    /// Names the key or the file, and the remedy.
    pub(crate) fn prepare(config: &ListenConfig) -> Result<Option<Self>, ListenError> {
        let Some(address) = config.address else { return Ok(None) };
        let identity = match Self::tls_files(config, address)? {
            Some(files) => Some(Identity::read(files)?),
            None => None,
        };
        for (key, bound) in [
            ("connections", config.connections),
            ("connections_per_peer", config.connections_per_peer),
            ("streams_per_connection", usize::try_from(config.streams_per_connection).unwrap_or(usize::MAX)),
            ("handshake_timeout_s", usize::try_from(config.handshake_timeout_s).unwrap_or(usize::MAX)),
        ] {
            if bound == 0 {
                let problem = "0 would let nobody in".to_owned();
                return Err(ListenError::Setting { key, problem, remedy: "set it to 1 or more, or leave it out" });
            }
        }
        let unlisted = config.collectors.iter().find(|collector| !config.reporters.contains(collector));
        if let Some(collector) = unlisted {
            let problem = format!("{collector} is not in listen.reporters");
            return Err(ListenError::Setting { key: "collectors", problem, remedy: "list it in both" });
        }
        Ok(Some(Self { address, identity, roles: Arc::new(Roles::of(config)), config: config.clone() }))
    }

    fn tls_files(config: &ListenConfig, address: SocketAddr) -> Result<Option<TlsFiles>, ListenError> {
        let files =
            [("certificate", &config.certificate), ("key", &config.key), ("client_roots", &config.client_roots)];
        if config.plaintext_loopback {
            if !address.ip().is_loopback() {
                let problem = format!("{address} is no loopback address");
                let remedy = "listen on 127.0.0.1, or set certificate, key and client_roots instead";
                return Err(ListenError::Setting { key: "plaintext_loopback", problem, remedy });
            }
            if let Some((key, _)) = files.iter().find(|(_, file)| file.is_some()) {
                let problem = "set although plaintext_loopback = true".to_owned();
                return Err(ListenError::Setting { key, problem, remedy: "remove one of the two" });
            }
            return Ok(None);
        }
        let need = |key: &'static str, file: &Option<PathBuf>| {
            file.as_deref().map(Path::to_owned).ok_or_else(|| ListenError::Setting {
                key,
                problem: "missing".to_owned(),
                remedy: "name a PEM file, or set plaintext_loopback = true to listen on loopback without TLS",
            })
        };
        let [certificate, key, client_roots] = files;
        Ok(Some(TlsFiles {
            certificate: need(certificate.0, certificate.1)?,
            key: need(key.0, key.1)?,
            client_roots: need(client_roots.0, client_roots.1)?,
        }))
    }

    /// The gate that a service of this role stands behind.
    pub(crate) fn gate(&self, role: Role) -> Gate {
        Gate::new(role, Arc::clone(&self.roles))
    }

    /// Who is listed for what.
    pub(crate) fn roles(&self) -> Arc<Roles> {
        Arc::clone(&self.roles)
    }

    /// Whether an identity may report calls of others.
    pub(crate) fn grants(&self) -> impl Fn(&SpiffeId) -> bool + Send + Sync + use<> {
        let collectors = self.config.collectors.clone();
        move |id| collectors.iter().any(|pattern| pattern.matches(id))
    }

    /// The server's certificate and when it ends, for `check`; `None` without TLS.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Takes the port.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(crate) async fn bind(self) -> Result<Bound, ListenError> {
        let problem = |problem| ListenError::Bind { address: self.address, problem };
        let socket = TcpListener::bind(self.address).await.map_err(problem)?;
        let address = socket.local_addr().map_err(problem)?;
        Ok(Bound { socket, address, listener: self })
    }
}

/// A listener with its port.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: TcpListener,
    address: SocketAddr,
    listener: Listener,
}

impl Bound {
    /// The address, with the port that the system chose where the configuration said 0.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` until `stop`.
    ///
    /// # Errors
    /// When the server fails as a whole; what fails on one connection ends that connection.
    pub(crate) async fn serve(
        self,
        routes: Routes,
        metrics: ListenMetrics,
        stop: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let Listener { identity, roles, config, .. } = self.listener;
        let mut server = Server::builder()
            // The operator's interface speaks JSON too, to whoever has but curl.
            .accept_http1(true)
            .max_concurrent_streams(config.streams_per_connection)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_connection_age(CONNECTION_AGE.0)
            .max_connection_age_grace(CONNECTION_AGE.1);
        let doorman = Doorman::new(identity, roles, &config, metrics);
        let incoming = doorman.admit(self.socket);
        server.add_routes(routes).serve_with_incoming_shutdown(incoming, stop).await
    }
}
