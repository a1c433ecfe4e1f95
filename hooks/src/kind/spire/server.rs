//! SPIRE's server over gRPC: an mTLS connection for each call, as the certificate that we show is renewed every hour or
//! so, and calls are a few a minute.

use std::{future::Future, io, path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

use super::api::Method;
use crate::{hook::Failure, pem};

/// Bytes of one answer.
const LARGEST_ANSWER: usize = 4 << 20;

/// Where a server is, and who it and we are.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Host and port of its API.
    pub address: String,
    /// Its SPIFFE ID, as `spiffe://mesh.test/spire/server`: its certificate has no other name.
    pub server_id: String,
    /// PEM file with the trust domain's roots.
    pub bundle_file: PathBuf,
    /// PEM file with our certificate, which the server knows as an admin's.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// A server that is asked. Blocks while it is.
#[derive(Debug)]
pub(super) struct Server {
    of: ServerConfig,
    patience: Duration,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub(super) fn new(of: &ServerConfig, patience: Duration) -> Result<Self, String> {
        let has_port = of
            .address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok());
        if !has_port {
            return Err(format!("address: `{}` is no host and port, as spire-server.spire.svc:8081", of.address));
        }
        if trust_domain(&of.server_id).is_none() {
            return Err(format!("server_id: `{}` is no SPIFFE ID, as spiffe://mesh.test/spire/server", of.server_id));
        }
        let files = [("bundle_file", &of.bundle_file), ("certificate", &of.certificate), ("key", &of.key)];
        if let Some((key, _)) = files.iter().find(|(_, file)| file.as_os_str().is_empty()) {
            return Err(format!("{key}: a PEM file is needed"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("address: no runtime to reach it by: {error}"))?;
        Ok(Self { of: of.clone(), patience, runtime })
    }

    /// Its address.
    pub(super) fn address(&self) -> &str {
        &self.of.address
    }

    /// Its trust domain.
    pub(super) fn trust_domain(&self) -> &str {
        trust_domain(&self.of.server_id).unwrap_or_default()
    }

    /// Makes one call.
    ///
    /// # Errors
    /// A file cannot be used, or no connection (`Again`); no answer (`Uncertain`); what the server refuses.
    pub(super) fn call<Q, A>(&self, method: &Method<Q, A>, request: Q) -> Result<A, Failure>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        // Files that are being renewed may not fit each other for a moment.
        let tls =
            self.tls().map_err(|problem| Failure::again(format!("{problem}; it is read anew with every call")))?;
        self.runtime.block_on(async {
            let channel = self.within(self.connect(tls)).await.unwrap_or_else(|| Err(self.silent("connection")))?;
            let answer = self.within(unary(channel, method, request)).await;
            let answer = answer.unwrap_or_else(|| Err(Status::new(Code::DeadlineExceeded, "no answer in time")));
            answer.map_err(|status| self.refused(method.path, &status))
        })
    }

    async fn within<F: Future>(&self, of: F) -> Option<F::Output> {
        timeout(self.patience, of).await.ok()
    }

    async fn connect(&self, tls: ClientConfig) -> Result<Channel, Failure> {
        let unreached =
            |error: &dyn std::fmt::Display| Failure::again(format!("{} cannot be reached: {error}", self.of.address));
        let endpoint =
            Endpoint::from_shared(format!("http://{}", self.of.address)).map_err(|error| unreached(&error))?;
        let stream = TcpStream::connect(&self.of.address).await.map_err(|error| unreached(&error))?;
        let name = ServerName::try_from("spire-server").map_err(|error| unreached(&error))?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
        let stream = stream.map_err(|error| {
            let why = "is it server_id, by a root of bundle_file, and is our certificate valid?";
            Failure::again(format!("{} is not trusted, or does not trust us: {error}; {why}", self.of.address))
        })?;
        let mut stream = Some(TokioIo::new(stream));
        let once = tower::service_fn(move |_| {
            std::future::ready(stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
        });
        endpoint.connect_with_connector(once).await.map_err(|error| unreached(&error))
    }

    fn silent(&self, what: &str) -> Failure {
        Failure::again(format!("{}: no {what} within {:?}", self.of.address, self.patience))
    }

    fn refused(&self, path: &str, status: &Status) -> Failure {
        let call = path.rsplit('/').next().unwrap_or(path);
        let why = format!("{} answers {call} with {:?}: {}", self.of.address, status.code(), status.message());
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                Failure::Refused(format!("{why}; our certificate must be an admin's: see docs/hooks.md"))
            }
            Code::ResourceExhausted | Code::Aborted => Failure::again(why),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => Failure::Uncertain(why),
            _ => Failure::Refused(why),
        }
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        let roots = pem::roots("bundle_file", &self.of.bundle_file)?;
        let chain = pem::certificates("certificate", &self.of.certificate)?;
        let key = pem::private_key("key", &self.of.key)?;
        let provider = Arc::new(ring::default_provider());
        let verifier = Named { id: self.of.server_id.clone(), roots, provider: Arc::clone(&provider) };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("key: {}: {error}", self.of.key.display()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

async fn unary<Q, A>(channel: Channel, method: &Method<Q, A>, request: Q) -> Result<A, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(method.path), codec).await?;
    Ok(answer.into_inner())
}

/// The trust domain of a SPIFFE ID.
fn trust_domain(id: &str) -> Option<&str> {
    let (domain, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
    (!domain.is_empty() && !path.is_empty()).then_some(domain)
}

/// Trusts the server whose certificate chains to the roots and names this SPIFFE ID: SVIDs have no DNS name.
#[derive(Debug)]
struct Named {
    id: String,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl Named {
    fn names_it(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(certificate) else { return false };
        let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        // An SVID has exactly one.
        uris.next() == Some(self.id.as_str()) && uris.next().is_none()
    }
}

impl ServerCertVerifier for Named {
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
        if self.names_it(end_entity) {
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

#[cfg(test)]
mod tests {
    use super::{
        super::api::{GET_AUTHORITIES, Nothing},
        *,
    };

    #[test]
    fn what_is_missing_is_named_with_its_key() {
        let good = ServerConfig {
            address: "spire:8081".to_owned(),
            server_id: "spiffe://mesh.test/spire/server".to_owned(),
            bundle_file: "bundle.pem".into(),
            certificate: "svid.pem".into(),
            key: "svid.key".into(),
        };
        let problem = |of: &ServerConfig| Server::new(of, Duration::from_secs(1)).err().unwrap_or_default();
        assert_eq!(problem(&good), "");
        let wrong = [
            (ServerConfig { address: "https://spire".to_owned(), ..good.clone() }, "address: "),
            (ServerConfig { server_id: "spire".to_owned(), ..good.clone() }, "server_id: "),
            (ServerConfig { key: PathBuf::new(), ..good.clone() }, "key: "),
        ];
        for (of, key) in wrong {
            assert!(problem(&of).starts_with(key), "{of:?}: {}", problem(&of));
        }
        let server = Server::new(&good, Duration::from_secs(1));
        let asked = server.map(|server| server.call(&GET_AUTHORITIES, Nothing {}));
        let Ok(Err(Failure::Again { why, .. })) = asked else { panic!("{asked:?}") };
        assert!(why.contains("bundle_file: bundle.pem"), "{why}");
    }
}
