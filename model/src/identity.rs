//! Who: principals, their place in the hierarchy, and how far a claim of identity is to be believed.

mod class;
mod pod;
mod tenancy;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use class::{Class, external, probe};
pub use pod::{service_of_workload, workload_of_pod};
pub use tenancy::{Tenancy, Tenant};

/// How the identity of a party became known, best first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Provenance {
    /// The peer certificate, verified and reported by the destination's proxy.
    Certificate,
    /// The reports of both proxies, joined.
    Joined,
    /// The operator's own mapping file names the column and vouches for it.
    Declared,
    /// A time-bounded map from pod address to workload.
    AddressMap,
    /// A bare name or address in a log line.
    #[default]
    Name,
}

impl Provenance {
    /// Whether evidence against an identity known in this way may lead above *watched*.
    #[inline]
    pub const fn may_enforce(self) -> bool {
        matches!(self, Self::Certificate | Self::Joined | Self::Declared)
    }

    /// The inverse of `as u8`; an unknown number is the weakest claim.
    #[inline]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Certificate,
            1 => Self::Joined,
            2 => Self::Declared,
            3 => Self::AddressMap,
            _ => Self::Name,
        }
    }
}

/// Where a principal stands: trust domain → namespace → service. A missing part is `None`, never guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hierarchy<'a> {
    /// Trust domain of the SPIFFE ID.
    pub trust_domain: Option<&'a str>,
    /// Namespace, where the path names one.
    pub namespace: Option<&'a str>,
    /// Service account or workload; a principal that is no SPIFFE ID is its own service.
    pub service: &'a str,
}

impl<'a> Hierarchy<'a> {
    /// Reads `spiffe://<trust domain>/ns/<namespace>/sa/<service>` (Istio, SPIRE on Kubernetes).
    /// Another SPIFFE path is the service as a whole; anything else is a service without a trust domain.
    pub fn of(principal: &'a str) -> Self {
        let Some(rest) = principal.strip_prefix("spiffe://") else {
            return Self { trust_domain: None, namespace: None, service: principal };
        };
        let (trust_domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some((namespace, service)) = path.strip_prefix("ns/").and_then(|path| path.split_once("/sa/")) {
            return Self { trust_domain: Some(trust_domain), namespace: Some(namespace), service };
        }
        Self { trust_domain: Some(trust_domain), namespace: None, service: if path.is_empty() { rest } else { path } }
    }
}

/// A SPIFFE ID that has been checked against the standard's rules for form and length.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId(String);

/// Why a text is not a SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a SPIFFE ID: {1} (expected spiffe://trust-domain/path)")]
pub struct InvalidSpiffeId(String, &'static str);

impl SpiffeId {
    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        self.0["spiffe://".len()..].split('/').next().unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    /// Form and limits of the SPIFFE-ID standard, section 2: at most 2,048 bytes, a lower-case trust domain,
    /// no empty, `.` or `..` path segments.
    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        let invalid = |why| Err(InvalidSpiffeId(text.chars().take(200).collect(), why));
        let Some(rest) = text.strip_prefix("spiffe://") else { return invalid("wrong scheme") };
        if text.len() > 2048 {
            return invalid("longer than 2048 bytes");
        }
        let (trust_domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
        let domain_char = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c);
        if trust_domain.is_empty() || !trust_domain.bytes().all(domain_char) {
            return invalid("bad trust domain");
        }
        let path_char = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
        let segment_ok = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(path_char);
        if path.is_some_and(|path| !path.split('/').all(segment_ok)) {
            return invalid("bad path segment");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = InvalidSpiffeId;
    fn try_from(text: String) -> Result<Self, InvalidSpiffeId> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.0
    }
}

/// The verified identity at the other end of a connection to one of Qualm's own ports.
///
/// The listener puts it into the extensions of every request; services read it to authorise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The URI SAN of a client certificate that chains to a configured root.
    Verified(SpiffeId),
    /// A plaintext loopback connection, allowed by explicit setting only.
    Loopback,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubernetes_spiffe_id_has_three_parts() {
        let place = Hierarchy::of("spiffe://mesh.test/ns/shop/sa/cart");
        assert_eq!((place.trust_domain, place.namespace, place.service), (Some("mesh.test"), Some("shop"), "cart"));
    }

    #[test]
    fn a_bare_name_is_its_own_service_and_nothing_is_guessed() {
        let place = Hierarchy::of("192.0.2.7");
        assert_eq!((place.trust_domain, place.namespace, place.service), (None, None, "192.0.2.7"));
    }

    #[test]
    fn malformed_spiffe_ids_are_refused_with_the_reason() {
        for (text, why) in [
            ("https://a/b", "wrong scheme"),
            ("spiffe://UPPER/x", "bad trust domain"),
            ("spiffe://a/b//c", "bad path segment"),
            ("spiffe://a/..", "bad path segment"),
            ("spiffe://a/", "bad path segment"),
        ] {
            let error = text.parse::<SpiffeId>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!("spiffe://mesh.test".parse::<SpiffeId>().is_ok());
    }
}
