//! `[kafka.registry]`: the schema registry of a Kafka cluster.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the schemas of a cluster's records are. Its secrets are in files of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Its address, or several of the same registry, separated by commas; empty for none.
    pub url: String,
    /// User of basic authentication; empty for none.
    pub user: String,
    /// File with that user's password.
    pub password_file: Option<PathBuf>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// PEM file with the roots that its certificate must chain to; the system's where it is left out.
    pub ca_file: Option<PathBuf>,
    /// Seconds that one answer may take.
    pub timeout_s: u64,
    /// Seconds that records wait for their schema while the registry does not answer.
    pub patience_s: u64,
}

/// A section that cannot be meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("[kafka.registry] {key}: {problem}")]
pub struct InvalidRegistry {
    key: &'static str,
    problem: &'static str,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            user: String::new(),
            password_file: None,
            token_file: None,
            ca_file: None,
            timeout_s: 5,
            patience_s: 600,
        }
    }
}

impl RegistryConfig {
    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    /// Its addresses, without a slash at the end.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.split(',').map(|url| url.trim().trim_end_matches('/')).filter(|url| !url.is_empty())
    }

    /// What can be said without asking it.
    ///
    /// # Errors
    /// An address is none, or has a secret in it; credentials that need each other; a length of time of nothing.
    pub fn check(&self) -> Result<(), InvalidRegistry> {
        let wrong = |key, problem| Err(InvalidRegistry { key, problem });
        if !self.is_set() {
            return if *self == Self::default() {
                Ok(())
            } else {
                wrong("url", "is missing; name the registry's address")
            };
        }
        for url in self.urls() {
            let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
                return wrong("url", "is no address; write it as \"https://registry.example:8081\"");
            };
            let host = rest.split('/').next().unwrap_or_default();
            if host.contains('@') {
                return wrong("url", "has a user in it; set `user` and `password_file`, no secret belongs here");
            }
            if host.is_empty() || rest.contains(['?', '#', ' ']) {
                return wrong("url", "is no address of a registry; leave out everything behind its path");
            }
        }
        if self.user.is_empty() != self.password_file.is_none() {
            return wrong("user", "goes with `password_file`; set both, or none");
        }
        if self.token_file.is_some() && self.password_file.is_some() {
            return wrong("token_file", "and `password_file` exclude each other; keep one");
        }
        if self.timeout_s == 0 || self.timeout_s > 60 {
            return wrong("timeout_s", "must be from 1 to 60");
        }
        if self.patience_s > 7 * 86_400 {
            return wrong("patience_s", "is longer than a week; what waits that long is gone from the topic");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_cannot_be_meant_is_refused_by_its_key() {
        let of = |url: &str| RegistryConfig { url: url.to_owned(), ..RegistryConfig::default() };
        let sound = of("https://a:8081/, http://b/apis/ccompat/v7");
        assert_eq!((RegistryConfig::default().check(), sound.check()), (Ok(()), Ok(())));
        assert_eq!(sound.urls().collect::<Vec<_>>(), ["https://a:8081", "http://b/apis/ccompat/v7"]);
        let file = || Some(PathBuf::from("secret"));
        for (config, key) in [
            (of("registry:8081"), "url"),
            (of("https://qualm:hunter2@registry"), "url"),
            (of("https://registry?token=hunter2"), "url"),
            (RegistryConfig { user: "qualm".into(), ..of("") }, "url"),
            (RegistryConfig { user: "qualm".into(), ..of("http://a") }, "user"),
            (RegistryConfig { password_file: file(), ..of("http://a") }, "user"),
            (
                RegistryConfig { user: "qualm".into(), password_file: file(), token_file: file(), ..of("http://a") },
                "token_file",
            ),
            (RegistryConfig { timeout_s: 0, ..of("http://a") }, "timeout_s"),
            (RegistryConfig { patience_s: u64::MAX, ..of("http://a") }, "patience_s"),
        ] {
            let error = config.check().expect_err(key).to_string();
            assert!(error.starts_with(&format!("[kafka.registry] {key}: ")), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
