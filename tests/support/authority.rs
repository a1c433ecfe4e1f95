//! A certificate authority for one trust domain, and the short-lived SVIDs it gives out.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The trust domain of the tests.
pub(crate) const TRUST_DOMAIN: &str = "mesh.test";

/// How long an SVID is valid: as in a mesh, longer than any test.
const VALID: Duration = Duration::from_secs(3600);

/// The SPIFFE ID of a service account, as Istio writes it.
pub(crate) fn spiffe_id(namespace: &str, account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}")
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate with one URI name, and its key.
pub(crate) struct Svid {
    pub(crate) id: String,
    /// PEM.
    pub(crate) certificate: String,
    /// PEM, PKCS #8.
    pub(crate) key: String,
}

/// Where an SVID and the bundle it is verified with lie as files.
#[derive(Debug, Clone)]
pub(crate) struct SvidFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) bundle: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be generated");
        let mut params = params(&format!("{TRUST_DOMAIN} CA"), VALID);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("the authority's certificate is valid").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// The authority's certificate, PEM.
    pub(crate) fn bundle(&self) -> &str {
        &self.certificate
    }

    /// A fresh SVID; every call makes a new key and serial number.
    pub(crate) fn svid(&self, id: &str) -> Svid {
        self.svid_valid_for(id, VALID)
    }

    /// An SVID that ends `valid` from now.
    pub(crate) fn svid_valid_for(&self, id: &str, valid: Duration) -> Svid {
        let key = KeyPair::generate().expect("a key can be generated");
        let mut params = params("", valid);
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("a SPIFFE ID is ASCII"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).expect("the SVID is valid").pem();
        Svid { id: id.to_owned(), certificate, key: key.serialize_pem() }
    }

    /// A server's certificate with a name of the DNS.
    pub(crate) fn named(&self, name: &str) -> Svid {
        let key = KeyPair::generate().expect("a key can be generated");
        let mut params = params("", VALID);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("a name is ASCII"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("the certificate is valid").pem();
        Svid { id: name.to_owned(), certificate, key: key.serialize_pem() }
    }

    /// Writes a fresh SVID for `id` and the bundle into `folder`. Called again it rotates them, each file by a rename,
    /// the key first: whoever watches the certificate finds its key beside it.
    pub(crate) fn write_svid(&self, id: &str, folder: &Path) -> SvidFiles {
        fs::create_dir_all(folder).expect("the folder of an SVID can be made");
        let svid = self.svid(id);
        let files = SvidFiles {
            certificate: folder.join("svid.pem"),
            key: folder.join("svid.key"),
            bundle: folder.join("bundle.pem"),
        };
        replace(&files.bundle, self.bundle());
        replace(&files.key, &svid.key);
        replace(&files.certificate, &svid.certificate);
        files
    }
}

fn params(name: &str, valid: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "SPIRE");
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    let now = now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + valid).into();
    params
}

#[allow(clippy::disallowed_methods, reason = "certificates are dated")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn replace(file: &Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).expect("the folder of an SVID can be written to");
    fs::rename(&next, file).expect("a file can be renamed in its folder");
}
