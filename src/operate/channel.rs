//! Where the instance is, and how each side proves who it is.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use hyper_util::rt::TokioIo;
use qualm_model::identity::SpiffeId;
use qualm_proto::operator::v1::operator_client::OperatorClient;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::args::ServerArgs;
use crate::{
    config::Config,
    listen::{ListenConfig, tls::spiffe_id},
};

/// How long connecting, and then an answer, may take.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// A table of many entries.
const LARGEST_ANSWER: usize = 16 << 20;

/// The client of the interface.
pub(super) type Client = OperatorClient<Channel>;

/// How the instance is reached.
pub(super) struct Route {
    /// Host and port.
    server: String,
    /// `None` where its port is without TLS, on loopback.
    tls: Option<Tls>,
}

struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Route {
    /// What is given at the command line, and for the rest what the configuration says.
    ///
    /// # Errors
    /// What is missing or cannot be used, and what to give instead.
    pub(super) fn of(args: &ServerArgs) -> Result<Self> {
        let listen = match (&args.server, &args.ca) {
            (Some(_), Some(_)) => None,
            _ => Some(listen(args)?),
        };
        let server = match (&args.server, &listen) {
            (Some(server), _) => server.clone(),
            (None, Some(listen)) => address(listen, args)?.to_string(),
            (None, None) => bail!("--server is missing"),
        };
        let host = host(&server)?;
        if listen.as_ref().is_some_and(|listen| listen.plaintext_loopback) && args.ca.is_none() {
            return Ok(Self { server, tls: None });
        }
        let (Some(cert), Some(key)) = (&args.cert, &args.key_file) else {
            bail!(
                "--cert and --key are missing: a certificate says who you are; its SPIFFE ID must be in `viewers`, \
                 `operators`, `approvers` or `admins` of [listen]"
            );
        };
        let roots = args.ca.clone().or_else(|| listen.as_ref().and_then(|listen| listen.client_roots.clone()));
        let roots = roots.context("--ca is missing: the roots of the instance's certificate")?;
        let expected = match &args.server_id {
            Some(id) => Some(id.parse::<SpiffeId>().with_context(|| format!("--server-id {id}"))?),
            None => listen.as_ref().and_then(|listen| own_id(listen.certificate.as_deref()?)),
        };
        let config = config(&roots, (cert, key), expected)?;
        let name = ServerName::try_from(host).with_context(|| format!("--server {server}: not a host"))?;
        Ok(Self { server, tls: Some(Tls { config: Arc::new(config), name }) })
    }

    /// Connects.
    ///
    /// # Errors
    /// Why not, and what to look at.
    pub(super) async fn connect(&self) -> Result<Client, String> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.server)).map_err(|error| error.to_string())?;
        let endpoint = endpoint.timeout(PATIENCE.1);
        let stream = timeout(PATIENCE.0, TcpStream::connect(&self.server)).await;
        let stream = match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => return Err(self.unreachable(&io::ErrorKind::TimedOut.into())),
        };
        let channel = match &self.tls {
            None => endpoint.connect_with_connector(once(TokioIo::new(stream))).await,
            Some(tls) => {
                let shaken = TlsConnector::from(Arc::clone(&tls.config)).connect(tls.name.clone(), stream);
                let stream = match timeout(PATIENCE.0, shaken).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return Err(self.untrusted(&error)),
                    Err(_) => return Err(self.unreachable(&io::ErrorKind::TimedOut.into())),
                };
                endpoint.connect_with_connector(once(TokioIo::new(stream))).await
            }
        };
        let channel = channel.map_err(|error| format!("{}: {error}", self.closed()))?;
        Ok(OperatorClient::new(channel).max_decoding_message_size(LARGEST_ANSWER))
    }

    /// What is to be said where the connection was closed without a word.
    pub(super) fn closed(&self) -> String {
        match &self.tls {
            Some(_) => format!(
                "{} has closed the connection: most likely your certificate does not chain to its client_roots, or its \
                 SPIFFE ID is in none of viewers, operators, approvers, admins in [listen]; its log says which",
                self.server
            ),
            None => format!("{} has closed the connection; its log says why", self.server),
        }
    }

    fn unreachable(&self, error: &io::Error) -> String {
        format!(
            "{} cannot be reached: {error}; is `qualm run` running there, with `address` in [listen]? Another one is \
             named with --server",
            self.server
        )
    }

    fn untrusted(&self, error: &io::Error) -> String {
        format!(
            "{} is not trusted: {error}; name the roots of its certificate with --ca, and its SPIFFE ID with \
             --server-id",
            self.server
        )
    }
}

/// Gives out a connection that is open, once.
fn once<T: Send + 'static>(
    stream: T,
) -> impl tower::Service<tonic::transport::Uri, Response = T, Error = io::Error, Future = std::future::Ready<io::Result<T>>>
+ Send
+ 'static {
    let mut stream = Some(stream);
    tower::service_fn(move |_| {
        std::future::ready(stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    })
}

/// Section `[listen]` of the configuration.
fn listen(args: &ServerArgs) -> Result<ListenConfig> {
    let (config, _) = Config::read(&args.config)
        .context("where the instance is cannot be found out; name it with --server and --ca, or its configuration")?;
    Ok(config.listen)
}

/// Where an instance with this configuration is reached from this machine.
fn address(listen: &ListenConfig, args: &ServerArgs) -> Result<SocketAddr> {
    let address = listen.address.with_context(|| {
        format!(
            "{}: no `address` in [listen], so the instance has no port; name one with --server",
            args.config.display()
        )
    })?;
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, address.port()))
}

fn host(server: &str) -> Result<String> {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
    if host.is_empty() || port.parse::<u16>().is_err() {
        bail!("--server {server}: write host and port, as qualm.qualm.svc:9465");
    }
    Ok(host.trim_matches(['[', ']']).to_owned())
}

/// The SPIFFE ID of the instance's own certificate, where it is on this machine and has one.
fn own_id(certificate: &Path) -> Option<SpiffeId> {
    let pem = fs::read(certificate).ok()?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    spiffe_id(Some(&chain.ok()?)).ok()
}

fn config(roots: &Path, (cert, key): (&PathBuf, &PathBuf), expected: Option<SpiffeId>) -> Result<ClientConfig> {
    let read = |flag: &str, file: &Path| {
        fs::read(file).with_context(|| format!("{flag} {}: name a PEM file that you may read", file.display()))
    };
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&read("--ca", roots)?) {
        let root = root.with_context(|| format!("--ca {}: must hold certificates in PEM form", roots.display()))?;
        store.add(root).with_context(|| format!("--ca {}: must hold CA certificates", roots.display()))?;
    }
    if store.is_empty() {
        bail!("--ca {}: no certificate in it", roots.display());
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read("--cert", cert)?).collect();
    let chain = chain.with_context(|| format!("--cert {}: must hold certificates in PEM form", cert.display()))?;
    if chain.is_empty() {
        bail!("--cert {}: no certificate in it", cert.display());
    }
    let private = PrivateKeyDer::from_pem_slice(&read("--key", key)?)
        .with_context(|| format!("--key {}: must hold one private key in PEM form", key.display()))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match expected {
        Some(id) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(SpiffeServer { id, roots: store, provider }))
        }
        None => builder.with_root_certificates(store),
    };
    let mut config = builder
        .with_client_auth_cert(chain, private)
        .with_context(|| format!("--key {}: must be the key of --cert {}", key.display(), cert.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Trusts the server whose certificate chains to the roots and names this SPIFFE ID: SVIDs have no DNS name.
#[derive(Debug)]
struct SpiffeServer {
    id: SpiffeId,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SpiffeServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match spiffe_id(Some(std::slice::from_ref(end_entity))) {
            Ok(id) if id == self.id => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
