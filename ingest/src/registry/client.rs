//! Asking a registry, by the HTTP interface that Confluent's has and others copy.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use ureq::{
    Agent,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::schema::{Reference, Schema, Written};
use crate::config::RegistryConfig;

const ACCEPT: &str = "application/vnd.schemaregistry.v1+json, application/json";
/// Bytes of one answer.
const MAX_ANSWER: u64 = 1 << 20;
/// Schemas that one schema may name, with those that they name.
const MAX_REFERENCES: usize = 64;
/// Bytes of a schema with all that it names.
const MAX_TEXT: usize = 2 << 20;
/// What may stand in a path as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A client that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("[kafka.registry] {key}: {problem}")]
pub struct InvalidClient {
    /// Which key is to be corrected.
    pub key: &'static str,
    /// What is wrong, and how to mend it.
    pub problem: String,
}

/// A registry that gave no answer: it will be asked again.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {problem}; {remedy}")]
pub struct Unreached {
    /// Whom it was asked of; it has no secret in it.
    pub url: String,
    /// What happened.
    pub problem: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Why there is no schema.
#[derive(Debug)]
pub(super) enum NoSchema {
    /// The registry has said so, or what it has cannot be used.
    Never(String),
    /// It may be there.
    Unreached(Unreached),
}

/// How a registry is asked. Blocks while it does.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    urls: Vec<String>,
    credential: Credential,
}

/// What is shown to the registry; read anew each time it is asked, so that it may change.
#[derive(Debug)]
enum Credential {
    None,
    Basic { user: String, password: PathBuf },
    Bearer(PathBuf),
}

#[derive(Debug, Deserialize)]
struct Refusal {
    error_code: i64,
}

impl Client {
    /// A client for a configured registry; does not ask it yet.
    ///
    /// # Errors
    /// The roots cannot be read.
    pub fn new(config: &RegistryConfig) -> Result<Self, InvalidClient> {
        config.check().map_err(|error| InvalidClient { key: "url", problem: error.to_string() })?;
        let is_secure = config.urls().any(|url| url.starts_with("https://"));
        let roots = match &config.ca_file {
            Some(file) => roots_of(file)?,
            None if is_secure => roots_of_system()?,
            None => Vec::new(),
        };
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&roots))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(Duration::from_secs(config.timeout_s)))
            // Where credentials go is what the configuration says and nothing else.
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .user_agent(concat!("qualm/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(1)
            .build()
            .new_agent();
        let credential = match (&config.password_file, &config.token_file) {
            (Some(password), _) => Credential::Basic { user: config.user.clone(), password: password.clone() },
            (None, Some(token)) => Credential::Bearer(token.clone()),
            (None, None) => Credential::None,
        };
        Ok(Self { agent, urls: config.urls().map(str::to_owned).collect(), credential })
    }

    /// What `check` asks: the kinds of schemas that the registry has.
    ///
    /// # Errors
    /// It does not answer, or refuses who asks.
    pub fn probe(&self) -> Result<Vec<String>, Unreached> {
        match self.ask("schemas/types") {
            Ok(kinds) => Ok(kinds),
            Err(NoSchema::Unreached(unreached)) => Err(unreached),
            Err(NoSchema::Never(problem)) => Err(self.unreached(problem, WRONG_PATH)),
        }
    }

    /// Fetches a schema with everything that it names, and makes it readable.
    pub(super) fn schema(&self, id: u32) -> Result<Schema, NoSchema> {
        let written: Written = self.ask(&format!("schemas/ids/{id}"))?;
        let references = self.references(&written)?;
        Schema::compile(written, references).map_err(NoSchema::Never)
    }

    fn references(&self, written: &Written) -> Result<Vec<(String, String)>, NoSchema> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        let mut bytes = written.schema.len();
        let mut open: Vec<Reference> = written.references.clone().unwrap_or_default();
        while let Some(reference) = open.pop() {
            if !seen.insert(reference.name.clone()) {
                continue;
            }
            if seen.len() > MAX_REFERENCES {
                return Err(NoSchema::Never(format!("it names more than {MAX_REFERENCES} others")));
            }
            let subject = utf8_percent_encode(&reference.subject, PATH);
            let written: Written = self.ask(&format!("subjects/{subject}/versions/{}", reference.version))?;
            bytes += written.schema.len();
            if bytes > MAX_TEXT {
                return Err(NoSchema::Never(format!("with those that it names it is longer than {MAX_TEXT} bytes")));
            }
            open.extend(written.references.unwrap_or_default());
            found.push((reference.name, written.schema));
        }
        Ok(found)
    }

    /// Asks one address after the other, until one answers.
    fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, NoSchema> {
        let mut outcome = None;
        for url in &self.urls {
            match self.ask_at(url, path) {
                Err(NoSchema::Unreached(unreached)) => outcome = Some(unreached),
                answered => return answered,
            }
        }
        Err(NoSchema::Unreached(outcome.unwrap_or_else(|| self.unreached("no address".to_owned(), CHECK_URL))))
    }

    fn ask_at<T: DeserializeOwned>(&self, url: &str, path: &str) -> Result<T, NoSchema> {
        let unreached =
            |problem: String, remedy| NoSchema::Unreached(Unreached { url: url.to_owned(), problem, remedy });
        let mut request = self.agent.get(format!("{url}/{path}")).header("accept", ACCEPT);
        if let Some(credential) = self.credential.shown().map_err(|problem| unreached(problem, CREDENTIALS))? {
            request = request.header("authorization", credential);
        }
        let mut response = request.call().map_err(|error| unreached(format!("no answer: {error}"), CHECK_URL))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let body = body.map_err(|error| unreached(format!("an answer that cannot be read: {error}"), CHECK_URL))?;
        match status {
            200 => serde_json::from_slice(&body)
                .map_err(|_| unreached("answers, but not as a schema registry".to_owned(), WRONG_PATH)),
            // A registry says by a code of its own that it has no such schema; anything else knows no such path.
            404 if serde_json::from_slice::<Refusal>(&body).is_ok_and(|refusal| refusal.error_code >= 40_400) => {
                Err(NoSchema::Never(format!("{url} has no {path}")))
            }
            404 => Err(unreached(format!("answers 404 to {path}"), WRONG_PATH)),
            401 | 403 => Err(unreached(format!("answers {status} to {path}"), CREDENTIALS)),
            status => Err(unreached(format!("answers {status} to {path}"), SEE_ITS_LOG)),
        }
    }

    fn unreached(&self, problem: String, remedy: &'static str) -> Unreached {
        Unreached { url: self.urls.first().cloned().unwrap_or_default(), problem, remedy }
    }
}

const CHECK_URL: &str = "check `url` and `ca_file` in [kafka.registry], and the network";
const WRONG_PATH: &str =
    "correct the path of `url` in [kafka.registry]; Apicurio's, for example, ends in /apis/ccompat/v7";
const CREDENTIALS: &str =
    "correct `user` with `password_file`, or `token_file`, in [kafka.registry], and let it read all subjects";
const SEE_ITS_LOG: &str = "see the registry's log";

impl Credential {
    /// The header's value.
    fn shown(&self) -> Result<Option<String>, String> {
        let read = |file: &Path| {
            let secret = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok::<_, String>(secret.trim().to_owned())
        };
        Ok(match self {
            Self::None => None,
            Self::Basic { user, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{}", read(password)?))))
            }
            Self::Bearer(token) => Some(format!("Bearer {}", read(token)?)),
        })
    }
}

fn roots_of(file: &Path) -> Result<Vec<Certificate<'static>>, InvalidClient> {
    let invalid = |problem: String| InvalidClient { key: "ca_file", problem: format!("{}: {problem}", file.display()) };
    let text = fs::read(file).map_err(|error| invalid(format!("cannot be read: {error}; check path and rights")))?;
    let certificates = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    if certificates.is_empty() {
        return Err(invalid("has no certificate in it; it must be PEM".to_owned()));
    }
    Ok(certificates)
}

fn roots_of_system() -> Result<Vec<Certificate<'static>>, InvalidClient> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let problem = "this system has no roots of its own; name a PEM file with the registry's".to_owned();
        return Err(InvalidClient { key: "ca_file", problem });
    }
    Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
}
