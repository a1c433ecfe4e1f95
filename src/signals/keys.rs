//! The public keys of a transmitter: from a file, or fetched from its own address and kept fresh. While that does not
//! answer, the keys of before stand.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use tokio::sync::Notify;
use ureq::Agent;

use super::push;

/// Keys in one set.
const MOST_KEYS: usize = 32;
/// Bytes of a set that is fetched.
const LONGEST: u64 = 256 << 10;
/// How often a set is fetched again: a key that was taken back counts no longer than that.
const REFRESH: Duration = Duration::from_secs(600);
/// And how often at most, whoever names keys that are not there.
const AT_MOST: Duration = Duration::from_secs(30);

/// The keys of one transmitter.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Where they are fetched; `None` where a file had them.
    url: Option<(String, Agent)>,
    held: RwLock<Held>,
    /// A token named one that is not there.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Held {
    keys: Arc<Vec<Key>>,
    /// When they were asked for last.
    asked: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) kid: Option<String>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Debug, Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Debug, Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads them from a file.
    ///
    /// # Errors
    /// There are none in it that can be used.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let named = || format!("jwks_file {}", file.display());
        let text = std::fs::read_to_string(file).with_context(named)?;
        let held = Held { keys: Arc::new(keys_of(&text).with_context(named)?), asked: None };
        Ok(Self { url: None, held: RwLock::new(held), wanted: Notify::new() })
    }

    /// Fetches them, once [`keep_fresh`](Self::keep_fresh) runs.
    ///
    /// # Errors
    /// The address or the roots cannot be used.
    pub(super) fn at(url: &str, roots: Option<&Path>) -> Result<Self> {
        // A sidecar on this machine may have the TLS.
        let is_local = ["http://127.0.0.1:", "http://[::1]:"].iter().any(|local| url.starts_with(local));
        if !url.starts_with("https://") && !is_local {
            bail!("jwks_url: must begin with https://, or be on this machine (http://127.0.0.1:…)");
        }
        if !is_local && roots.is_none() {
            bail!("jwks_ca_file: missing; name the roots of whom the keys are fetched from");
        }
        let agent = push::agent(roots, "jwks_ca_file")?;
        Ok(Self { url: Some((url.to_owned(), agent)), held: RwLock::default(), wanted: Notify::new() })
    }

    /// Those that there are.
    pub(super) fn now(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner).keys)
    }

    /// A token names a key that is not there: whether it may be among those that are fetched next.
    pub(super) fn want(&self) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let is_due = held.keys.is_empty() || held.asked.is_none_or(|asked| asked.elapsed() >= AT_MOST);
        let will_be = self.url.is_some() && is_due;
        if will_be {
            self.wanted.notify_one();
        }
        will_be
    }

    /// Fetches them again and again, for as long as the process lives; ends at once where a file had them.
    pub(super) async fn keep_fresh(self: Arc<Self>, issuer: String) {
        while let Some((url, agent)) = self.url.clone() {
            self.held.write().unwrap_or_else(PoisonError::into_inner).asked = Some(Instant::now());
            let fetched = tokio::task::spawn_blocking(move || fetch(&agent, &url)).await;
            let pause = match fetched.map_err(anyhow::Error::from).and_then(|fetched| fetched) {
                Ok(keys) => {
                    self.held.write().unwrap_or_else(PoisonError::into_inner).keys = Arc::new(keys);
                    REFRESH
                }
                Err(error) => {
                    tracing::warn!(
                        issuer,
                        error = format!("{error:#}"),
                        "its keys cannot be fetched; those of before stand"
                    );
                    AT_MOST
                }
            };
            // Who asks for keys that are not there has them fetched at most so often.
            tokio::time::sleep(AT_MOST.min(pause)).await;
            tokio::select! {
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(pause - AT_MOST.min(pause)) => {}
            }
        }
    }
}

fn fetch(agent: &Agent, url: &str) -> Result<Vec<Key>> {
    let mut answer = agent.get(url).call().with_context(|| format!("jwks_url {url}"))?;
    if answer.status() != 200 {
        bail!("jwks_url {url}: answers {}", answer.status());
    }
    let text = answer.body_mut().with_config().limit(LONGEST).read_to_string();
    keys_of(&text.with_context(|| format!("jwks_url {url}"))?).with_context(|| format!("jwks_url {url}"))
}

fn keys_of(text: &str) -> Result<Vec<Key>> {
    let set: Jwks = serde_json::from_str(text).context("no JWK Set")?;
    let keys: Vec<Key> = set.keys.iter().take(MOST_KEYS).filter_map(Key::of).collect();
    if keys.is_empty() {
        bail!("no RSA, P-256 or Ed25519 key in it");
    }
    Ok(keys)
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let bytes = |text: &Option<String>| BASE64URL.decode(text.as_ref()?).ok();
        let public = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Public::Rsa { n: bytes(&jwk.n)?, e: bytes(&jwk.e)? },
            ("EC", Some("P-256")) => Public::P256([vec![4], bytes(&jwk.x)?, bytes(&jwk.y)?].concat()),
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes(&jwk.x)?),
            _ => return None,
        };
        Some(Self { kid: jwk.kid.clone(), public })
    }

    /// Whether it has signed; only by the algorithm that goes with its kind, whatever the token says.
    pub(super) fn has_signed(&self, alg: &str, input: &[u8], signature: &[u8]) -> bool {
        match (&self.public, alg) {
            (Public::Rsa { n, e }, "RS256") => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, input, signature).is_ok()
            }
            (Public::P256(point), "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(input, signature).is_ok()
            }
            (Public::Ed25519(key), "EdDSA") => UnparsedPublicKey::new(&ED25519, key).verify(input, signature).is_ok(),
            _ => false,
        }
    }
}
