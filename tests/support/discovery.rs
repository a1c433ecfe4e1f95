//! The scorer's xDS services behind an mTLS listener, in the test's own process: what a real Envoy makes of them,
//! without the judgement that leads there.

use std::{
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use qualm_model::{
    identity::Peer,
    time::{Clock, Timestamp},
};
use qualm_scorer::{
    enforce::{Enforcer, metrics::EnforcementMetrics, nodes::NodeLimits, xds::Xds},
    table::{Enforcement, EnforcementReport, SharedTable, TrustEntry, TrustTable},
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::{mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Server, server::Connected};

use super::{
    authority::Authority,
    caller::uri_names,
    wait::{PATIENCE, until},
};

pub(crate) struct Discovery {
    runtime: Option<Runtime>,
    table: watch::Sender<SharedTable>,
    reports: mpsc::Receiver<EnforcementReport>,
    /// What came back so far.
    heard: Vec<EnforcementReport>,
}

impl Discovery {
    /// Serves `table` as `id` on `port` of 127.0.0.1.
    pub(crate) fn start(authority: &Authority, id: &str, port: u16, table: TrustTable) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be built");
        let (table, receiver) = watch::channel(Arc::new(table));
        let (sender, reports) = mpsc::channel(1024);
        let metrics = EnforcementMetrics::register(&prometheus::Registry::new()).expect("a fresh registry");
        let xds = Xds::new(NodeLimits::default(), Clock::new(now), metrics);
        let services = Server::builder()
            .add_service(xds.extension_config())
            .add_service(xds.aggregated())
            .add_service(xds.authorization());
        let acceptor = acceptor(authority, id);
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port))).expect("the port is free");
        let (accepted, connections) = mpsc::channel(16);
        runtime.spawn(accept(listener, acceptor, accepted));
        runtime.spawn(services.serve_with_incoming(ReceiverStream::new(connections)));
        runtime.spawn(xds.run(receiver, sender));
        Self { runtime: Some(runtime), table, reports, heard: Vec::new() }
    }

    /// Replaces the table.
    pub(crate) fn set(&self, version: u64, entries: Vec<TrustEntry>) {
        self.table.send_replace(Arc::new(table(version, entries)));
    }

    /// Replaces the table, and what stays open to everybody.
    pub(crate) fn set_table(&self, table: TrustTable) {
        self.table.send_replace(Arc::new(table));
    }

    /// Waits for a report of `node` for which `wanted` holds.
    pub(crate) fn heard(&mut self, node: &str, what: &str, wanted: impl Fn(&EnforcementReport) -> bool) {
        until(&format!("{node} {what}; heard: {:#?}", self.heard), PATIENCE, || {
            self.heard.extend(std::iter::from_fn(|| self.reports.try_recv().ok()));
            self.heard.iter().any(|report| report.node == node && wanted(report)).then_some(())
        });
    }

    /// Waits until `node` has acknowledged `version`.
    pub(crate) fn acknowledged(&mut self, node: &str, version: u64) {
        self.heard(node, "acknowledges", |report| {
            report.version == version && report.what == Enforcement::Acknowledged
        });
    }
}

impl Drop for Discovery {
    /// Its connections end without a word, as when the process is killed.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}

/// A table of `entries`.
pub(crate) fn table(version: u64, entries: Vec<TrustEntry>) -> TrustTable {
    TrustTable { version, entries, model_version: "test".to_owned(), ..TrustTable::default() }
}

/// The wall clock.
#[allow(clippy::disallowed_methods, reason = "leases are granted in wall time")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(i64::try_from(since.as_nanos()).expect("before 2262"))
}

fn acceptor(authority: &Authority, id: &str) -> TlsAcceptor {
    let svid = authority.svid(id);
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.bundle().as_bytes()).expect("our own bundle is PEM");
    roots.add(root).expect("our own authority is an authority");
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.3")
        .with_client_cert_verifier(verifier.build().expect("there is a root"))
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(svid.certificate.as_bytes()).expect("our own certificate is PEM")],
            PrivateKeyDer::from_pem_slice(svid.key.as_bytes()).expect("our own key is PEM"),
        )
        .expect("key and certificate belong together");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, accepted: mpsc::Sender<io::Result<Secured>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        // As the product's listener: without it a push waits up to 40 ms for the acknowledgement of the one before.
        tcp.set_nodelay(true).expect("a fresh connection takes options");
        // A peer that cannot shake hands is no connection; the next one may.
        let Ok(stream) = acceptor.accept(tcp).await else { continue };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let names = certificates.first().map(uri_names).unwrap_or_default();
        let Some(id) = names.first().and_then(|name| name.parse().ok()) else { continue };
        if accepted.send(Ok(Secured { stream, peer: Peer::Verified(id) })).await.is_err() {
            return;
        }
    }
}

/// A connection whose peer is known; tonic puts the [`Peer`] into each request.
struct Secured {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connected for Secured {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
