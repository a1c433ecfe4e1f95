//! Certificates and keys in files. They are read when they are needed, as they are renewed while Qualm runs; errors name the
//! key of the configuration, and the file.

use std::{fs, path::Path};

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

fn contents(key: &str, file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{key}: {}: {error}", file.display()))
}

/// A chain of one certificate at least.
pub(crate) fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents(key, file)?).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(format!("{key}: {}: has no certificate", file.display())),
        Err(error) => Err(format!("{key}: {}: {error}", file.display())),
    }
}

/// The roots in a file.
pub(crate) fn roots(key: &str, file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in certificates(key, file)? {
        roots.add(root).map_err(|error| format!("{key}: {}: {error}", file.display()))?;
    }
    Ok(roots)
}

/// The private key in a file.
pub(crate) fn private_key(key: &str, file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&contents(key, file)?).map_err(|error| format!("{key}: {}: {error}", file.display()))
}
