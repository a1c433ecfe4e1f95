//! Accepting connections, and bounding what is accepted.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use qualm_model::identity::{Peer, SpiffeId};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::{
    ListenConfig,
    roles::Roles,
    tls::{Identity, spiffe_id},
};

/// How often the certificate files are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(1);
/// Pause after the system would not accept a connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is counted of the listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenMetrics {
    connections: IntGauge,
    refused: IntCounterVec,
    reloads: IntCounter,
    reload_failures: IntCounter,
    expires: IntGauge,
}

impl ListenMetrics {
    /// Creates and registers them.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let refused = IntCounterVec::new(
            Opts::new("qualm_listen_refused_total", "Connections to Qualm's own port that were refused."),
            &["reason"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self {
            connections: gauge("qualm_listen_connections", "Open connections to Qualm's own port.")?,
            refused,
            reloads: counter("qualm_listen_certificate_reloads_total", "Times that new certificates were taken up.")?,
            reload_failures: counter(
                "qualm_listen_certificate_reload_failures_total",
                "Looks at the certificate files that found something unusable; the certificates before stand.",
            )?,
            expires: gauge(
                "qualm_listen_certificate_expiry_timestamp_seconds",
                "When the listener's certificate ends, seconds since 1970.",
            )?,
        })
    }

    fn refuse(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }
}

/// Decides who comes in.
pub(super) struct Doorman {
    identity: Option<Identity>,
    roles: Arc<Roles>,
    places: Arc<Semaphore>,
    per_peer: Arc<PerPeer>,
    handshake: Duration,
    metrics: ListenMetrics,
}

impl Doorman {
    pub(super) fn new(
        identity: Option<Identity>,
        roles: Arc<Roles>,
        config: &ListenConfig,
        metrics: ListenMetrics,
    ) -> Self {
        Self {
            identity,
            roles,
            places: Arc::new(Semaphore::new(config.connections.min(Semaphore::MAX_PERMITS))),
            per_peer: Arc::new(PerPeer { limit: config.connections_per_peer, counts: Mutex::default() }),
            handshake: Duration::from_secs(config.handshake_timeout_s),
            metrics,
        }
    }

    /// The connections that may come in, as they do. Everything ends when the stream is dropped.
    pub(super) fn admit(self, socket: TcpListener) -> ReceiverStream<io::Result<Connection>> {
        let (admitted, incoming) = mpsc::channel(16);
        tokio::spawn(async move {
            let (config, watching) = match &self.identity {
                Some(identity) => {
                    self.metrics.expires.set(identity.expires().0 / 1_000_000_000);
                    let config = watch::Sender::new(identity.config());
                    (Some(config.subscribe()), Some(follow(identity.clone(), config, self.metrics.clone())))
                }
                None => (None, None),
            };
            let watching = async {
                match watching {
                    Some(watching) => watching.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.accept(&socket, config, &admitted) => {}
                () = watching => {}
                () = admitted.closed() => {}
            }
        });
        ReceiverStream::new(incoming)
    }

    async fn accept(
        &self,
        socket: &TcpListener,
        config: Option<watch::Receiver<Arc<ServerConfig>>>,
        admitted: &mpsc::Sender<io::Result<Connection>>,
    ) {
        // Dropped with this future: half-done handshakes do not outlive the listener.
        let mut handshakes = JoinSet::new();
        loop {
            while handshakes.try_join_next().is_some() {}
            // While all places are taken, nobody is accepted: the system's own queue holds back the rest.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let stream = match socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    self.metrics.refuse("accept");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // A push is one small message: it must not wait for more to fill a packet.
            stream.set_nodelay(true).ok();
            let acceptor = config.as_ref().map(|config| TlsAcceptor::from(config.borrow().clone()));
            let visit = Visit {
                place,
                roles: Arc::clone(&self.roles),
                per_peer: Arc::clone(&self.per_peer),
                metrics: self.metrics.clone(),
                handshake: self.handshake,
            };
            let admitted = admitted.clone();
            handshakes.spawn(async move {
                if let Some(connection) = visit.receive(stream, acceptor).await {
                    admitted.send(Ok(connection)).await.ok();
                }
            });
        }
    }
}

/// Takes up new certificates when the files change; what is open goes on under the old ones.
async fn follow(mut identity: Identity, config: watch::Sender<Arc<ServerConfig>>, metrics: ListenMetrics) {
    let mut said = String::new();
    loop {
        sleep(LOOK_AT_FILES).await;
        let before = identity.clone();
        let read = tokio::task::spawn_blocking(move || before.read_again()).await;
        match read {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(new))) => {
                tracing::info!("new certificates taken up");
                metrics.reloads.inc();
                metrics.expires.set(new.expires().0 / 1_000_000_000);
                config.send_replace(new.config());
                identity = new;
                said.clear();
            }
            Ok(Err(error)) => {
                metrics.reload_failures.inc();
                // Once, not every second.
                let text = error.to_string();
                if text != said {
                    tracing::warn!(%error, "the certificates before stand");
                    said = text;
                }
            }
            Err(_) => return,
        }
    }
}

/// One connection on its way in.
struct Visit {
    place: OwnedSemaphorePermit,
    roles: Arc<Roles>,
    per_peer: Arc<PerPeer>,
    metrics: ListenMetrics,
    handshake: Duration,
}

impl Visit {
    async fn receive(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) -> Option<Connection> {
        let Some(acceptor) = acceptor else {
            return Some(self.admit(Wire::Plain(stream), Peer::Loopback, None));
        };
        let Ok(stream) = timeout(self.handshake, acceptor.accept(stream)).await else {
            self.metrics.refuse("handshake_timeout");
            return None;
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "TLS handshake failed");
                self.metrics.refuse("handshake");
                return None;
            }
        };
        let id = match spiffe_id(stream.get_ref().1.peer_certificates()) {
            Ok(id) => id,
            Err(error) => {
                tracing::warn!(%error, "a client without a SPIFFE ID");
                self.metrics.refuse("no_spiffe_id");
                return None;
            }
        };
        if !self.roles.know(&id) {
            tracing::warn!(%id, "listed in no list of [listen]");
            self.metrics.refuse("not_listed");
            return None;
        }
        let Some(seat) = PerPeer::seat(&self.per_peer, &id) else {
            tracing::warn!(%id, "more connections than listen.connections_per_peer");
            self.metrics.refuse("connections_per_peer");
            return None;
        };
        Some(self.admit(Wire::Tls(Box::new(stream)), Peer::Verified(id), Some(seat)))
    }

    fn admit(self, wire: Wire, peer: Peer, seat: Option<Seat>) -> Connection {
        self.metrics.connections.inc();
        Connection { wire, peer, held: Held { _place: self.place, _seat: seat, open: self.metrics.connections } }
    }
}

/// How many connections each identity has.
#[derive(Debug)]
struct PerPeer {
    limit: usize,
    counts: Mutex<HashMap<SpiffeId, usize>>,
}

impl PerPeer {
    fn seat(this: &Arc<Self>, id: &SpiffeId) -> Option<Seat> {
        let mut counts = this.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(id.clone()).or_default();
        if *count >= this.limit {
            return None;
        }
        *count += 1;
        Some(Seat { per_peer: Arc::clone(this), id: id.clone() })
    }
}

#[derive(Debug)]
struct Seat {
    per_peer: Arc<PerPeer>,
    id: SpiffeId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.per_peer.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.id);
            }
        }
    }
}

/// What a connection takes up while it is open.
#[derive(Debug)]
struct Held {
    _place: OwnedSemaphorePermit,
    _seat: Option<Seat>,
    open: IntGauge,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// A connection that has been let in. Every request on it carries its [`Peer`] in the extensions.
#[derive(Debug)]
pub(crate) struct Connection {
    wire: Wire,
    peer: Peer,
    #[expect(dead_code, reason = "held for its end")]
    held: Held,
}

#[derive(Debug)]
enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
