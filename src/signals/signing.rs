//! The key that signs security event tokens, and the set of keys that others verify them by.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A key of either kind. RS256 is what the interoperability profile asks for; ES256 what can be made here.
pub(crate) struct Signing {
    pair: Pair,
    kid: String,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
}

impl Signing {
    /// The key in `file`: RSA of at least 2048 bits, or P-256, in PEM (PKCS #8); a new one (P-256) where there is none and
    /// `make` says so.
    pub(crate) fn open(file: &Path, make: bool) -> Result<Self> {
        if make && !file.exists() {
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| anyhow::anyhow!("no random numbers"))?;
            let body = base64::engine::general_purpose::STANDARD.encode(document.as_ref());
            let text = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
            let new = file.with_extension("new");
            // What is left of a crash.
            let _ = fs::remove_file(&new);
            let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            out.write_all(text.as_bytes())?;
            out.sync_all()?;
            fs::rename(&new, file)?;
        }
        let key = PrivatePkcs8KeyDer::from_pem_file(file).with_context(|| {
            format!("[signals] signing_key {}: a private key in PEM (PKCS #8) is needed", file.display())
        })?;
        Self::of_pkcs8(key.secret_pkcs8_der()).with_context(|| format!("[signals] signing_key {}", file.display()))
    }

    fn of_pkcs8(document: &[u8]) -> Result<Self> {
        let pair = if let Ok(pair) = RsaKeyPair::from_pkcs8(document) {
            Pair::Rsa(Box::new(pair))
        } else if let Ok(pair) =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document, &SystemRandom::new())
        {
            Pair::P256(Box::new(pair))
        } else {
            bail!("neither RSA of 2048 bits or more nor P-256")
        };
        let public = match &pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::P256(pair) => pair.public_key().as_ref().to_vec(),
        };
        let kid = const_hex::encode(&Sha256::digest(public)[..8]);
        Ok(Self { pair, kid })
    }

    /// A security event token with these claims (RFC 8417), as a compact JWS.
    pub(crate) fn token(&self, claims: &Value) -> Result<String> {
        let alg = match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
        };
        let head = json!({ "typ": "secevent+jwt", "alg": alg, "kid": self.kid });
        let input = format!("{}.{}", BASE64URL.encode(head.to_string()), BASE64URL.encode(claims.to_string()));
        let random = SystemRandom::new();
        let failed = |_| anyhow::anyhow!("a token could not be signed");
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature).map_err(failed)?;
                signature
            }
            Pair::P256(pair) => pair.sign(&random, input.as_bytes()).map_err(failed)?.as_ref().to_vec(),
        };
        Ok(format!("{input}.{}", BASE64URL.encode(signature)))
    }

    /// The public key as a JWK Set (RFC 7517).
    pub(crate) fn jwks(&self) -> Value {
        let key = match &self.pair {
            Pair::Rsa(pair) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "alg": "RS256", "n": BASE64URL.encode(n), "e": BASE64URL.encode(e) })
            }
            Pair::P256(pair) => {
                // An uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref();
                json!({
                    "kty": "EC", "alg": "ES256", "crv": "P-256",
                    "x": BASE64URL.encode(&point[1..33]), "y": BASE64URL.encode(&point[33..65]),
                })
            }
        };
        let mut key = key;
        key["use"] = "sig".into();
        key["kid"] = self.kid.clone().into();
        json!({ "keys": [key] })
    }
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signing").field(&self.kid).finish()
    }
}
