//! A workload that calls another: presents an SVID, from a chosen address of loopback, over one kept-alive connection.
//!
//! Two replicas of one workload are two callers with one SPIFFE ID and different source addresses.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    StreamOwned,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use socket2::{Domain, Socket, Type};
use x509_parser::extensions::GeneralName;

use super::authority::{Authority, Svid};

/// What every caller says it is.
pub(crate) const USER_AGENT: &str = "qualm-tests";

/// An answer is waited for this long.
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct Caller {
    source: Ipv4Addr,
    /// The service it talks to, `<account>.<namespace>`: as authority, and in the server name.
    service: String,
    config: Arc<ClientConfig>,
}

/// One kept-alive HTTP/1.1 connection.
pub(crate) struct Connection {
    service: String,
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Caller {
    /// A caller that is `id`, at `source`, and talks to nobody but `server`.
    pub(crate) fn new(authority: &Authority, id: &str, source: Ipv4Addr, server: &str) -> Self {
        Self::with_svid(authority, &authority.svid(id), source, server)
    }

    /// The same with an SVID at hand.
    pub(crate) fn with_svid(authority: &Authority, svid: &Svid, source: Ipv4Addr, server: &str) -> Self {
        let mut config = builder(authority, server)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(svid.certificate.as_bytes()).expect("our own certificate is PEM")],
                PrivateKeyDer::from_pem_slice(svid.key.as_bytes()).expect("our own key is PEM"),
            )
            .expect("key and certificate belong together");
        // A resumed session has another JA4 than the first: a caller is to look the same every time.
        config.resumption = Resumption::disabled();
        Self { source, service: service(server), config: Arc::new(config) }
    }

    /// A caller that shows no certificate.
    pub(crate) fn nameless(authority: &Authority, source: Ipv4Addr, server: &str) -> Self {
        let config = builder(authority, server).with_no_client_auth();
        Self { source, service: service(server), config: Arc::new(config) }
    }

    /// Opens a connection to `port` of 127.0.0.1; errors are those of TCP and TLS.
    pub(crate) fn connect(&self, port: u16) -> io::Result<Connection> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((self.source, 0)).into())?;
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        let tcp = TcpStream::from(socket);
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(ANSWER))?;
        tcp.set_write_timeout(Some(ANSWER))?;
        let name = ServerName::try_from(format!("{}.svc.cluster.local", self.service)).expect("a valid name");
        let tls = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Connection { service: self.service.clone(), stream: BufReader::new(stream) })
    }
}

impl Connection {
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Response> {
        self.request("GET", path)
    }

    /// Sends one request without a body and reads the whole answer; the connection stays open.
    pub(crate) fn request(&mut self, method: &str, path: &str) -> io::Result<Response> {
        self.send(method, path, &[], "")
    }

    /// Sends one request with headers and a body of one's own, and reads the whole answer; the connection stays open.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Response> {
        let host = &self.service;
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.stream.get_mut().write_all(format!("{request}\r\n{body}").as_bytes())?;
        self.stream.get_mut().flush()?;
        read_response(&mut self.stream)
    }

    /// Asks for something without an end, and reads the head of the answer; its status.
    pub(crate) fn begin(&mut self, path: &str) -> io::Result<u16> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: {USER_AGENT}\r\n\r\n", self.service);
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.stream.get_mut().flush()?;
        let status = read_line(&mut self.stream)?.split(' ').nth(1).and_then(|code| code.parse().ok());
        while !read_line(&mut self.stream)?.is_empty() {}
        status.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The next piece of it; empty at its end.
    pub(crate) fn piece(&mut self) -> io::Result<Vec<u8>> {
        let line = read_line(&mut self.stream)?;
        let length = usize::from_str_radix(&line, 16).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, line))?;
        let bytes = read_bytes(&mut self.stream, length)?;
        read_line(&mut self.stream)?;
        Ok(bytes)
    }

    /// Sends bytes as they are and reads as many back: for a TCP listener before an echo.
    pub(crate) fn exchange(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()?;
        let mut answer = vec![0; bytes.len()];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// Reads one HTTP/1.1 response, and nothing beyond it.
pub(crate) fn read_response(stream: &mut impl BufRead) -> io::Result<Response> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let status_line = read_line(stream)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| invalid(&status_line))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: String::new() };
    let body = if response.header("transfer-encoding") == Some("chunked") {
        read_chunks(stream)?
    } else {
        let length = response.header("content-length").map_or(Ok(0), str::parse);
        read_bytes(stream, length.map_err(|_| invalid("content-length"))?)?
    };
    response.body = String::from_utf8_lossy(&body).into_owned();
    Ok(response)
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?;
        let length = usize::from_str_radix(&line, 16).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, line))?;
        body.extend(read_bytes(stream, length)?);
        // The line break after the chunk's bytes.
        read_line(stream)?;
        if length == 0 {
            return Ok(body);
        }
    }
}

fn read_bytes(stream: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// `spiffe://<domain>/ns/<namespace>/sa/<account>` as `<account>.<namespace>`.
pub(crate) fn service(id: &str) -> String {
    let mut parts = id.rsplit('/');
    let account = parts.next().unwrap_or_default();
    format!("{account}.{}", parts.nth(1).unwrap_or_default())
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn builder(
    authority: &Authority,
    server: &str,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.bundle().as_bytes()).expect("our own bundle is PEM");
    roots.add(root).expect("our own authority is an authority");
    let provider = Arc::new(ring::default_provider());
    let verifier = SpiffeServer { id: server.to_owned(), roots, provider: Arc::clone(&provider) };
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

/// Accepts the server whose certificate chains to the authority and names exactly one SPIFFE ID: SVIDs have no DNS name.
#[derive(Debug)]
struct SpiffeServer {
    id: String,
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
        if uri_names(end_entity) == [self.id.as_str()] {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForName.into())
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

/// The URI names of a certificate.
pub(crate) fn uri_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}
