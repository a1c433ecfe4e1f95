//! What kind of principal it is: only workloads and credentials carry levels of trust.

use std::net::{IpAddr, Ipv4Addr};

/// The class of a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A workload or a credential: whatever is none of the others.
    Workload,
    /// Somebody outside, folded by the prefix of the address.
    External,
    /// A health check or a scraper, by where it comes from and what it asks for.
    Probe,
}

const EXTERNAL: &str = "external:";
const PROBE: &str = "probe:";

/// Paths that are asked for by health checks and scrapers.
const PROBED: [&str; 12] = [
    "/health",
    "/healthz",
    "/livez",
    "/readyz",
    "/ready",
    "/live",
    "/metrics",
    "/healthz/ready",
    "/stats/prometheus",
    "/actuator/health",
    "/actuator/prometheus",
    "/grpc.health.v1.Health/Check",
];
const PROBED_UNDER: &str = "/app-health/";

impl Class {
    /// The class that the text of a principal tells.
    #[inline]
    pub fn of(principal: &str) -> Self {
        if principal.starts_with(EXTERNAL) {
            return Self::External;
        }
        if principal.starts_with(PROBE) { Self::Probe } else { Self::Workload }
    }

    /// Whether it can be downgraded.
    #[inline]
    pub const fn carries_trust(self) -> bool {
        matches!(self, Self::Workload)
    }
}

/// The principal that an address outside of the estate is folded into: its /24, or its /48 where it is of IPv6. `None` for
/// private, shared, link-local and loopback addresses: they may be a workload's.
pub fn external(address: IpAddr) -> Option<String> {
    match address {
        IpAddr::V4(address) if is_inside(address) => None,
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Some(format!("{EXTERNAL}{a}.{b}.{c}.0/24"))
        }
        IpAddr::V6(address) => {
            if let Some(mapped) = address.to_ipv4_mapped() {
                return external(IpAddr::V4(mapped));
            }
            if address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
            {
                return None;
            }
            let [a, b, c, ..] = address.segments();
            Some(format!("{EXTERNAL}{a:x}:{b:x}:{c:x}::/48"))
        }
    }
}

/// 100.64.0.0/10 is shared address space (RFC 6598), which clouds give to pods.
fn is_inside(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    address.is_private() || address.is_loopback() || address.is_link_local() || address.is_unspecified() || is_shared
}

/// The principal of an unauthenticated caller inside the estate that asks for nothing but a probe's path. What the caller
/// says of itself (its user agent) has no part in it, and its other calls stay its own.
pub fn probe(address: IpAddr, operation: &str) -> Option<String> {
    let path = operation.split_once(' ').map_or(operation, |(_, path)| path);
    let is_probed = PROBED.contains(&path) || path.starts_with(PROBED_UNDER);
    (is_probed && external(address).is_none()).then(|| format!("{PROBE}{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn whoever_is_outside_is_folded_by_prefix() {
        assert_eq!(external(address("203.0.113.77")).as_deref(), Some("external:203.0.113.0/24"));
        assert_eq!(external(address("2a00:1450:4001:80b::200e")).as_deref(), Some("external:2a00:1450:4001::/48"));
        assert_eq!(external(address("::ffff:203.0.113.77")).as_deref(), Some("external:203.0.113.0/24"));
        for inside in
            ["10.1.2.3", "172.16.0.1", "192.168.7.7", "100.64.0.9", "127.0.0.1", "169.254.1.1", "fd00::1", "::1"]
        {
            assert_eq!(external(address(inside)), None, "{inside}");
        }
        assert_eq!(Class::of("external:203.0.113.0/24"), Class::External);
        assert!(!Class::External.carries_trust() && Class::of("spiffe://a/b").carries_trust());
    }

    #[test]
    fn a_probe_is_known_by_where_it_comes_from_and_what_it_asks_for() {
        assert_eq!(probe(address("10.0.0.1"), "GET /healthz").as_deref(), Some("probe:10.0.0.1"));
        assert_eq!(probe(address("10.0.0.1"), "GET /app-health/cart/readyz").as_deref(), Some("probe:10.0.0.1"));
        assert_eq!(probe(address("10.0.0.1"), "GET /v1/orders"), None);
        assert_eq!(probe(address("203.0.113.7"), "GET /healthz"), None, "nobody outside is a probe");
    }
}
