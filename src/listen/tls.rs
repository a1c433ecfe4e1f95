//! The server's certificate, its key and the client roots, from files that may change while it runs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use qualm_model::{
    identity::SpiffeId,
    time::{Span, Timestamp},
};
use rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::ListenError;

/// More than any of these files needs.
const LARGEST_FILE: u64 = 4 << 20;

/// Where certificate, key and roots are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// PEM file with the server's certificate chain.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with the roots of client certificates.
    pub client_roots: PathBuf,
}

/// What the server is, as read from its files.
#[derive(Clone)]
pub(crate) struct Identity {
    files: TlsFiles,
    bytes: [Vec<u8>; 3],
    config: Arc<ServerConfig>,
    expires: Timestamp,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file, what is wrong with it and the remedy.
    pub(crate) fn read(files: TlsFiles) -> Result<Self, ListenError> {
        let bytes = read_all(&files)?;
        Self::parse(files, bytes)
    }

    /// The files' present content, where it differs from what was read before.
    ///
    /// # Errors
    /// As [`Identity::read`]; what was read before stands.
    pub(crate) fn read_again(&self) -> Result<Option<Self>, ListenError> {
        let bytes = read_all(&self.files)?;
        if bytes == self.bytes {
            return Ok(None);
        }
        Self::parse(self.files.clone(), bytes).map(Some)
    }

    /// The configuration for the next handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// When the server's certificate ends.
    pub(crate) const fn expires(&self) -> Timestamp {
        self.expires
    }

    fn parse(files: TlsFiles, bytes: [Vec<u8>; 3]) -> Result<Self, ListenError> {
        let [chain_pem, key_pem, roots_pem] = &bytes;
        let chain = certificates("certificate", &files.certificate, chain_pem)?;
        let wrong_certificate = |problem: String| ListenError::File {
            key: "certificate",
            file: files.certificate.clone(),
            problem,
            remedy: "it must hold the X.509 certificate of this server first, then its intermediates",
        };
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| wrong_certificate(error.to_string()))?;
        let expires = Timestamp(0) + Span::seconds(leaf.validity().not_after.timestamp());
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| ListenError::File {
            key: "key",
            file: files.key.clone(),
            problem: error.to_string(),
            remedy: "it must hold one private key in PEM form (PKCS#8, PKCS#1 or SEC1)",
        })?;
        let mut roots = RootCertStore::empty();
        for root in certificates("client_roots", &files.client_roots, roots_pem)? {
            roots.add(root).map_err(|error| ListenError::File {
                key: "client_roots",
                file: files.client_roots.clone(),
                problem: error.to_string(),
                remedy: "it must hold CA certificates in PEM form",
            })?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| wrong_certificate(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong_certificate(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| ListenError::File {
                key: "key",
                file: files.key.clone(),
                problem: error.to_string(),
                remedy: "it must be the key of the first certificate in listen.certificate",
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, bytes, config: Arc::new(config), expires })
    }
}

fn read_all(files: &TlsFiles) -> Result<[Vec<u8>; 3], ListenError> {
    let read = |key: &'static str, file: &PathBuf| {
        let failed = |problem: String| ListenError::File {
            key,
            file: file.clone(),
            problem,
            remedy: "name a PEM file that this user may read",
        };
        let size = fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
        if size > LARGEST_FILE {
            return Err(failed(format!("{size} bytes is too large for a PEM file")));
        }
        fs::read(file).map_err(|error| failed(error.to_string()))
    };
    Ok([read("certificate", &files.certificate)?, read("key", &files.key)?, read("client_roots", &files.client_roots)?])
}

fn certificates(key: &'static str, file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let failed = |problem: String| ListenError::File {
        key,
        file: file.to_owned(),
        problem,
        remedy: "it must hold certificates in PEM form",
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(found) }
}

/// Why a client certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidClient {
    #[error("no client certificate")]
    NoCertificate,
    #[error("the client certificate cannot be read")]
    Unreadable,
    #[error("the client certificate has {0} URI names, an X.509-SVID has exactly one")]
    NotOneUri(usize),
    #[error(transparent)]
    NotSpiffe(#[from] qualm_model::identity::InvalidSpiffeId),
}

/// The SPIFFE ID of an X.509-SVID whose chain has been verified: its only URI name.
pub(crate) fn spiffe_id(chain: Option<&[CertificateDer<'_>]>) -> Result<SpiffeId, InvalidClient> {
    let leaf = chain.and_then(<[_]>::first).ok_or(InvalidClient::NoCertificate)?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| InvalidClient::Unreadable)?;
    let names = leaf.subject_alternative_name().map_err(|_| InvalidClient::Unreadable)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris[..] {
        [uri] => Ok(uri.parse()?),
        _ => Err(InvalidClient::NotOneUri(uris.len())),
    }
}
