//! Names and addresses as Envoy and Istio write them.

use crate::parse::clip;

/// What is in the names of egress gateways.
const EGRESS_GATEWAYS: [&str; 3] = ["egressgateway", "egress-gateway", "egress-gw"];

/// The first SPIFFE ID of a list of SANs, or else the first SAN.
pub(super) fn first_san(sans: &str) -> &str {
    if !sans.as_bytes().contains(&b',') {
        return sans;
    }
    let mut each = sans.split(',').map(str::trim);
    each.clone().find(|san| san.starts_with("spiffe://")).or_else(|| each.next()).unwrap_or_default()
}

/// `127.0.0.1:80` and `[::1]:80`, with or without the port. Of an address within Envoy
/// (`envoy://connect_originate/10.0.0.1:80`) what it leads to; one that leads nowhere is none.
pub fn host_and_port(address: &str) -> (&str, u16) {
    let address = match address.strip_prefix("envoy://") {
        Some(within) => within.split_once('/').map_or("", |(_, address)| address),
        None => address,
    };
    let bytes = address.as_bytes();
    let digits = bytes.iter().rev().take(6).take_while(|byte| byte.is_ascii_digit()).count();
    let end = bytes.len() - digits;
    let host = match end.checked_sub(1) {
        Some(colon) if digits > 0 && bytes[colon] == b':' => &bytes[..colon],
        _ => bytes,
    };
    let bracketed = host.len() >= 2 && host[0] == b'[' && host[host.len() - 1] == b']';
    if bracketed {
        return (&address[1..host.len() - 1], port_of(&bytes[end..], host.len() < bytes.len()));
    }
    // A colon before the last one: a bare IPv6 address, without a port.
    if host.len() == bytes.len() || host.contains(&b':') {
        return (address, 0);
    }
    match port_of(&bytes[end..], true) {
        0 => (address, 0),
        port => (&address[..host.len()], port),
    }
}

fn port_of(digits: &[u8], present: bool) -> u16 {
    let port = digits.iter().fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0'));
    if present { u16::try_from(port).unwrap_or(0) } else { 0 }
}

/// The host in Istio's `outbound|8000|v1|httpbin.foo.svc.cluster.local`; newer ones end their statistics' name with
/// a semicolon.
pub(super) fn cluster_host(cluster: &str) -> &str {
    if !cluster.contains('|') { "" } else { cluster.rsplit('|').next().unwrap_or_default().trim_end_matches(';') }
}

/// Clusters of Istio's for calls that match no service.
pub(super) fn is_unmatched(cluster: &str) -> bool {
    matches!(cluster.trim_end_matches(';'), "PassthroughCluster" | "BlackHoleCluster")
}

/// Whether a host is a service of a Kubernetes cluster: `orders.shop.svc.cluster.local`, `orders.shop.svc`.
pub(super) fn is_in_mesh(host: &str) -> bool {
    host.ends_with(".svc") || host.contains(".svc.")
}

/// Whether a service is an egress gateway, by the names that such have: `istio-egressgateway.istio-system.svc…`.
pub(super) fn is_egress_gateway(host: &str) -> bool {
    let service = host.split('.').next().unwrap_or_default();
    is_in_mesh(host) && EGRESS_GATEWAYS.iter().any(|name| service.contains(name))
}

/// The service of a pod that has a host name of its own: `postgres.db.svc.cluster.local` of
/// `postgres-0.postgres.db.svc.cluster.local`. Other hosts are their own.
pub(super) fn service_of_host(host: &str) -> &str {
    let Some((pod, service)) = host.split_once('.') else { return host };
    let labels = service.split_once(".svc").map(|(name, _)| name.split('.').count());
    match labels {
        Some(2..) if is_in_mesh(host) => return service,
        Some(_) => return host,
        None => {}
    }
    // Without its domain, the service must be of the StatefulSet's name.
    let set = pod.rsplit_once('-').filter(|(_, ordinal)| !ordinal.is_empty() && ordinal.len() <= 4);
    let set = set.filter(|(_, ordinal)| ordinal.bytes().all(|c| c.is_ascii_digit())).map(|(set, _)| set);
    let is_its = |set: &str| {
        let rest = service.strip_prefix(set);
        !set.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
    };
    if set.is_some_and(is_its) { service } else { host }
}

/// The host in Istio's `outbound_.8000_._.httpbin.foo.svc.cluster.local`; another server name is one itself.
pub(super) fn server_name_host(name: &str) -> &str {
    let Some(rest) = name.strip_prefix("outbound_.") else { return name };
    rest.splitn(3, "_.").nth(2).and_then(|rest| rest.strip_prefix("_.").or(Some(rest))).unwrap_or(name)
}

/// The pod in Istio's `sidecar~10.0.0.1~cart-1.shop~shop.svc.cluster.local`.
pub(super) fn instance_of(node_id: &str) -> &str {
    if node_id.is_empty() {
        return "";
    }
    let pod = node_id.split('~').nth(2).unwrap_or_default();
    clip(pod.split('.').next().unwrap_or_default())
}

/// The pod and its namespace, `cart-1.shop`; or the node id itself where it is not Istio's.
pub(super) fn workload_of(node_id: &str) -> &str {
    node_id.split('~').nth(2).unwrap_or(node_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_statefulsets_pod_is_its_service() {
        for (host, service) in [
            ("postgres-0.postgres.db.svc.cluster.local", "postgres.db.svc.cluster.local"),
            ("postgres-0.postgres.db.svc", "postgres.db.svc"),
            ("kafka-12.kafka-headless.infra.svc.cluster.local", "kafka-headless.infra.svc.cluster.local"),
            ("kafka-12.kafka-headless.infra", "kafka-headless.infra"),
            ("postgres-0.postgres", "postgres"),
            ("orders.shop.svc.cluster.local", "orders.shop.svc.cluster.local"),
            ("orders-2.shop.svc.cluster.local", "orders-2.shop.svc.cluster.local"),
            ("node-3.example.com", "node-3.example.com"),
            ("-0.example.com", "-0.example.com"),
            ("api.svcs.example.com", "api.svcs.example.com"),
            ("orders", "orders"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(service_of_host(host), service);
        }
    }

    #[test]
    fn addresses_and_server_names_are_taken_apart() {
        assert_eq!(host_and_port("10.0.0.1:80"), ("10.0.0.1", 80));
        assert_eq!(host_and_port("[fd00::1]:80"), ("fd00::1", 80));
        assert_eq!(host_and_port("fd00::1"), ("fd00::1", 0));
        assert_eq!(host_and_port("orders.shop"), ("orders.shop", 0));
        assert_eq!(host_and_port("envoy://connect_originate/10.0.0.1:80"), ("10.0.0.1", 80));
        assert_eq!(host_and_port("envoy://internal_client_address/"), ("", 0));
        assert_eq!(cluster_host("inbound-vip|8000|http/v2|orders.shop.svc;"), "orders.shop.svc");
        assert_eq!(server_name_host("outbound_.8000_._.httpbin.foo.svc"), "httpbin.foo.svc");
        assert_eq!(server_name_host("outbound_.8000_.v1_.httpbin.foo.svc"), "httpbin.foo.svc");
        assert_eq!(server_name_host("orders.shop.svc"), "orders.shop.svc");
        assert_eq!(first_san("DNS:x,spiffe://a/b"), "spiffe://a/b");
    }
}
