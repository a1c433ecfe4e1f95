//! HTTP with exact bounds: one answer in a given time and size, no redirects, no proxy, secrets from files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use ureq::{
    Agent,
    http::Request,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};

use crate::hook::Failure;

/// Bytes of one answer.
const MAX_ANSWER: u64 = 4 << 20;
/// Bytes of a secret's file.
const MAX_SECRET: u64 = 64 << 10;
/// Characters of an answer that are told.
const TOLD: usize = 200;

/// Where a server is, and who it and we are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoint {
    /// `http://` or `https://`, host, port, and a path where the API is beneath one.
    pub url: String,
    /// PEM file with the roots of its certificate; the system's otherwise.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our certificate.
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// User, with `password_file`.
    pub user: Option<String>,
    /// File with that user's password.
    pub password_file: Option<PathBuf>,
}

/// A server that is asked. Blocks while it is.
#[derive(Debug)]
pub struct Http {
    agent: Agent,
    endpoint: Endpoint,
}

/// What a server has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// Seconds that it asks to be left alone.
    pub retry_after_s: Option<u64>,
}

/// How the header that shows who we are is called and made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// `authorization: Bearer …`.
    Bearer,
    /// A header of its own with the token alone, as Vault has.
    Header(&'static str),
    /// None: the call has its own.
    Nothing,
}

impl Http {
    /// A client; asks nothing yet.
    ///
    /// # Errors
    /// Which key of the configuration is wrong, and why.
    pub fn new(endpoint: &Endpoint, timeout: Duration) -> Result<Self, String> {
        let url = endpoint.url.as_str();
        let is_secure = url.starts_with("https://");
        if !is_secure && !url.starts_with("http://") || url.ends_with('/') || url.contains(char::is_whitespace) {
            return Err(format!("url: `{url}` must begin with http:// or https:// and not end with /"));
        }
        if endpoint.user.is_some() != endpoint.password_file.is_some() {
            return Err("user: goes together with password_file".to_owned());
        }
        let roots = match &endpoint.ca_file {
            Some(file) => roots_of(file)?,
            None if is_secure => roots_of_system()?,
            None => Vec::new(),
        };
        let mut tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&roots));
        match (&endpoint.certificate, &endpoint.key) {
            (Some(certificate), Some(key)) => tls = tls.client_cert(Some(identity(certificate, key)?)),
            (None, None) => {}
            _ => return Err("certificate: goes together with key".to_owned()),
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .timeout_global(Some(timeout))
            // Where credentials go is what the configuration says and nothing else.
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .user_agent(concat!("qualm/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(1)
            .build()
            .new_agent();
        Ok(Self { agent, endpoint: endpoint.clone() })
    }

    /// Its address, without secrets.
    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// Asks, at a path that begins with `/`, or nothing.
    ///
    /// # Errors
    /// A secret cannot be read (`Refused`); no connection (`Again`); no whole answer after it was sent (`Uncertain`).
    pub fn send(
        &self,
        method: &str,
        path: &str,
        shown: Shown,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, Failure> {
        self.send_to(&format!("{}{path}", self.endpoint.url), method, shown, headers, body)
    }

    /// As [`send`](Self::send), to a whole URL.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_to(
        &self,
        url: &str,
        method: &str,
        shown: Shown,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some((name, value)) = self.credential(shown)? {
            request = request.header(name, value);
        }
        let built = |error: ureq::http::Error| Failure::Refused(format!("{method} {url} is no request: {error}"));
        let sent = match body {
            Some(body) => self.agent.run(request.body(body).map_err(built)?),
            None => self.agent.run(request.body(()).map_err(built)?),
        };
        let mut response = sent.map_err(|error| unanswered(url, &error))?;
        let number = |name: &str| response.headers().get(name)?.to_str().ok()?.trim().parse().ok();
        let retry_after_s = number("retry-after");
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let body =
            body.map_err(|error| Failure::Uncertain(format!("{url}: an answer that cannot be read: {error}")))?;
        Ok(Answer { status, body, retry_after_s })
    }

    /// Asks in JSON, with the token as a bearer's.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        self.json_as(method, path, Shown::Bearer, "application/json", body)
    }

    /// Asks in JSON of some kind.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn json_as(
        &self,
        method: &str,
        path: &str,
        shown: Shown,
        content: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let body = body.map(|body| body.to_string().into_bytes());
        let mut headers = vec![("accept", "application/json")];
        if body.is_some() {
            headers.push(("content-type", content));
        }
        self.send(method, path, shown, &headers, body.as_deref())
    }

    fn credential(&self, shown: Shown) -> Result<Option<(&'static str, String)>, Failure> {
        let unread = |problem: String| Failure::Refused(format!("{problem}; it is read anew with every call"));
        if let (Some(user), Some(file)) = (&self.endpoint.user, &self.endpoint.password_file) {
            let password = secret(file).map_err(unread)?;
            return Ok(Some(("authorization", format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))));
        }
        let Some(file) = self.endpoint.token_file.as_ref().filter(|_| shown != Shown::Nothing) else { return Ok(None) };
        let token = secret(file).map_err(unread)?;
        Ok(Some(match shown {
            Shown::Header(name) => (name, token),
            Shown::Bearer | Shown::Nothing => ("authorization", format!("Bearer {token}")),
        }))
    }
}

impl Answer {
    /// Whether it says that it was done.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What is in it.
    ///
    /// # Errors
    /// It is no JSON of this shape.
    pub fn parsed<T: DeserializeOwned>(&self, of: &str) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::again(format!("{of} answers {} with something else than its API does: {error}", self.status))
        })
    }

    /// That it does not say so, and what can be done.
    pub fn failure(&self, of: &str) -> Failure {
        let said = String::from_utf8_lossy(&self.body);
        // What it says may hold what we said; never a secret of ours, which stand in headers alone.
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TOLD).collect();
        let why = format!("{of} answers {}: {said}", self.status);
        match self.status {
            408 | 425 | 429 | 500..=599 => Failure::Again { why, after_s: self.retry_after_s },
            401 | 403 => Failure::Refused(format!("{why}; see the rights that docs/hooks.md names")),
            _ => Failure::Refused(why),
        }
    }

    /// It, where it says that it was done.
    ///
    /// # Errors
    /// It does not.
    pub fn ok(self, of: &str) -> Result<Self, Failure> {
        if self.is_ok() { Ok(self) } else { Err(self.failure(of)) }
    }
}

/// A secret in a file, without the white space around it.
///
/// # Errors
/// The file cannot be read, or is empty or too long.
pub fn secret(file: &Path) -> Result<String, String> {
    let length = fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?.len();
    if length > MAX_SECRET {
        return Err(format!("{}: {length} bytes are no secret; at most {MAX_SECRET}", file.display()));
    }
    let secret = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    match secret.trim() {
        "" => Err(format!("{}: is empty", file.display())),
        secret => Ok(secret.to_owned()),
    }
}

/// Whether a request that has no answer may have arrived.
fn unanswered(url: &str, error: &ureq::Error) -> Failure {
    let is_before = match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::Tls(_) => true,
        ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        ureq::Error::Timeout(which) => {
            matches!(which, ureq::Timeout::Resolve | ureq::Timeout::Connect)
        }
        _ => false,
    };
    let why = format!("{url}: no answer: {error}");
    if is_before { Failure::again(why) } else { Failure::Uncertain(why) }
}

fn roots_of(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let roots: Vec<Certificate<'static>> = items(file, "ca_file")?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if roots.is_empty() { Err(format!("ca_file: {}: has no certificate", file.display())) } else { Ok(roots) }
}

fn roots_of_system() -> Result<Vec<Certificate<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err("ca_file: the system has no roots; name a PEM file".to_owned());
    }
    Ok(found.certs.iter().map(|root| Certificate::from_der(root).to_owned()).collect())
}

fn identity(certificate: &Path, key: &Path) -> Result<ClientCert, String> {
    let chain = items(certificate, "certificate")?;
    let chain: Vec<_> = chain
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    let text = fs::read(key).map_err(|error| format!("key: {}: {error}", key.display()))?;
    let key = PrivateKey::from_pem(&text).map_err(|error| format!("key: {}: {error}", key.display()))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn items(file: &Path, key: &str) -> Result<Vec<PemItem<'static>>, String> {
    let text = fs::read(file).map_err(|error| format!("{key}: {}: {error}", file.display()))?;
    parse_pem(&text).collect::<Result<_, _>>().map_err(|error| format!("{key}: {}: {error}", file.display()))
}
