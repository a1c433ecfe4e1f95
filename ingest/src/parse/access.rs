//! What an entry of Envoy's access log means, in whatever form it comes: text, JSON or protobuf.

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    identity::Provenance,
    time::{Span, Timestamp},
};

use super::{clip, time::rfc3339};
use crate::source::{Invalid, Rejection};

/// One entry, in Envoy's words. An empty text is absent, `-` too.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccessEntry<'a> {
    /// When the request or connection began.
    pub start: Timestamp,
    /// Its duration so far.
    pub duration: Option<Span>,
    /// `%ACCESS_LOG_TYPE%`.
    pub access_log_type: &'a str,
    /// `:method`.
    pub method: &'a str,
    /// `:path`, query and all.
    pub path: &'a str,
    /// `%PROTOCOL%`.
    pub protocol: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// `x-request-id`.
    pub request_id: &'a str,
    /// `%STREAM_ID%`.
    pub stream_id: &'a str,
    /// HTTP status, 0 where none was sent.
    pub status: Option<u16>,
    /// gRPC status.
    pub grpc_status: Option<u16>,
    /// `%RESPONSE_FLAGS%`.
    pub response_flags: &'a str,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub response_code_details: &'a str,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub connection_termination_details: &'a str,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, or else that of the downstream.
    pub transport_failure_reason: &'a str,
    /// Bytes from the downstream.
    pub bytes_received: Option<u64>,
    /// Bytes to the downstream.
    pub bytes_sent: Option<u64>,
    /// Server name that the downstream asked for.
    pub requested_server_name: &'a str,
    /// Cluster the call went to.
    pub upstream_cluster: &'a str,
    /// `address:port` the call went to.
    pub upstream_host: &'a str,
    /// `address:port` it was sent from.
    pub upstream_local_address: &'a str,
    /// `address:port` it was received at.
    pub downstream_local_address: &'a str,
    /// `address:port` of the caller. Of a request it is what `x-forwarded-for` says, where there is such a header: the
    /// caller's own words, which name nobody's instance.
    pub downstream_remote_address: &'a str,
    /// `address:port` of the other end of the connection, which is what a policy of Envoy's is matched with.
    pub downstream_direct_remote_address: &'a str,
    /// Whether `x-forwarded-for` had a say in `downstream_remote_address`.
    pub forwarded: Forwarded,
    /// URI SANs of the downstream's certificate, as verified by this proxy.
    pub downstream_peer_uri_san: &'a str,
    /// URI SANs of this proxy's certificate towards the downstream.
    pub downstream_local_uri_san: &'a str,
    /// URI SANs of the upstream's certificate, as verified by this proxy.
    pub upstream_peer_uri_san: &'a str,
    /// URI SANs of this proxy's certificate towards the upstream.
    pub upstream_local_uri_san: &'a str,
    /// Serial of the downstream's certificate.
    pub downstream_peer_serial: &'a str,
    /// Begin of its validity, RFC 3339.
    pub downstream_peer_cert_v_start: &'a str,
    /// End of its validity, RFC 3339.
    pub downstream_peer_cert_v_end: &'a str,
    /// TLS version of the downstream connection.
    pub downstream_tls_version: &'a str,
    /// JA3 fingerprint of the downstream.
    pub ja3: &'a str,
    /// JA4 fingerprint of the downstream.
    pub ja4: &'a str,
    /// `node.id` of the proxy.
    pub node_id: &'a str,
    /// Policy name of an RBAC denial, where the form has it apart from the details.
    pub policy: &'a str,
}

/// What an entry says of the header `x-forwarded-for`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// It has no field for it.
    #[default]
    Unsaid,
    /// There was none: the remote address is the direct one.
    Nothing,
    /// There was one, or may have been.
    Possibly,
}

impl Forwarded {
    /// Of the field's value; an empty one and `-` are no header, and no address could be read from such a header.
    pub fn of(header: &str) -> Self {
        if matches!(header, "" | "-") { Self::Nothing } else { Self::Possibly }
    }
}

/// What Envoy puts before the name of the RBAC policy that denied.
const RBAC_DENIAL: &str = "rbac_access_denied_matched_policy[";
/// What all names of our policies begin with.
const OUR_POLICIES: &str = "qualm-";

impl<'a> AccessEntry<'a> {
    /// The event of a finished call. `operation` is where the folded operation is written.
    ///
    /// Entries of the begin and the middle of a stream are [`Rejection::Part`]: the entry of its end has the totals.
    pub fn draft<'b>(&self, operation: &'b mut String) -> Result<EventDraft<'b>, Rejection>
    where
        'a: 'b,
    {
        if !is_final(self.access_log_type) {
            return Err(Rejection::Part);
        }
        let kind = self.kind();
        operation.clear();
        if kind == Kind::Request {
            fold::operation(self.method, self.path, operation);
        }
        let outbound = self.is_outbound();
        let outcome = self.outcome(kind);
        Ok(EventDraft {
            start: self.start,
            report: self.start + self.duration.unwrap_or_default(),
            kind,
            reporter: self.reporter(outbound),
            reporter_id: self.reporter_id(outbound),
            record_id: clip(first_present([self.request_id, self.stream_id])),
            decision_id: self.own_action(),
            source: if outbound { self.source_of_outbound() } else { self.source_of_inbound() },
            destination: if outbound { self.destination_of_outbound() } else { self.destination_of_inbound() },
            hostname: self.hostname(),
            operation,
            status: self.status.filter(|_| kind == Kind::Request),
            grpc_status: self.grpc_status,
            outcome,
            denial_reason: if outcome == Outcome::Success { "" } else { self.reason() },
            bytes_in: self.bytes_received,
            bytes_out: self.bytes_sent,
            duration_ns: self.duration.map(|duration| duration.0),
            tls_version: clip(self.downstream_tls_version),
            ja3: clip(self.ja3),
            ja4: clip(self.ja4),
            credential: clip(self.downstream_peer_serial),
            not_before: optional_time(self.downstream_peer_cert_v_start)?,
            not_after: optional_time(self.downstream_peer_cert_v_end)?,
            auth_method: if self.downstream_peer_uri_san.is_empty() || outbound { "" } else { "mtls" },
            ..EventDraft::default()
        })
    }

    fn kind(&self) -> Kind {
        if self.method.is_empty() && (self.path.is_empty() || self.access_log_type.starts_with("Tcp")) {
            return Kind::Connection;
        }
        Kind::Request
    }

    /// The report of the caller's proxy rather than of the called's.
    fn is_outbound(&self) -> bool {
        if self.upstream_cluster.starts_with("inbound|") || !self.downstream_peer_uri_san.is_empty() {
            return false;
        }
        self.upstream_cluster.starts_with("outbound|") || !self.upstream_peer_uri_san.is_empty()
    }

    fn reporter(&self, outbound: bool) -> Reporter {
        if self.node_id.starts_with("router~") {
            return Reporter::Gateway;
        }
        if self.node_id.starts_with("waypoint~") {
            return Reporter::Waypoint;
        }
        if outbound { Reporter::Source } else { Reporter::Destination }
    }

    fn reporter_id(&self, outbound: bool) -> &'a str {
        let own = if outbound { self.upstream_local_uri_san } else { self.downstream_local_uri_san };
        clip(first_present([self.node_id, own]))
    }

    /// The other end of the connection, if the entry says which it is. A denial is narrowed to this address, so
    /// nothing that a caller can choose may come here.
    fn direct_address(&self) -> &'a str {
        let is_direct = match self.forwarded {
            Forwarded::Nothing => true,
            Forwarded::Possibly => false,
            Forwarded::Unsaid => {
                self.kind() == Kind::Connection && self.protocol.is_empty() && self.status.unwrap_or(0) == 0
            }
        };
        let remote = if is_direct { self.downstream_remote_address } else { "" };
        first_present([self.downstream_direct_remote_address, remote])
    }

    /// The caller by its address, whoever says so: good for a bare name.
    fn caller_address(&self) -> &'a str {
        first_present([self.downstream_direct_remote_address, self.downstream_remote_address])
    }

    /// The caller, as the called's proxy verified it, or else by its address.
    fn source_of_inbound(&self) -> Party<'a> {
        let (ip, port) = host_and_port(self.direct_address());
        let san = first_san(self.downstream_peer_uri_san);
        let (principal, provenance) = if san.is_empty() {
            (host_and_port(self.caller_address()).0, Provenance::Name)
        } else {
            (san, Provenance::Certificate)
        };
        Party { principal, provenance, ip, port, ..Party::default() }
    }

    fn destination_of_inbound(&self) -> Party<'a> {
        let (ip, port) = host_and_port(self.downstream_local_address);
        let san = first_san(self.downstream_local_uri_san);
        let (principal, provenance) = if san.is_empty() {
            (first_present([self.hostname(), cluster_host(self.upstream_cluster), ip]), Provenance::Name)
        } else {
            (san, Provenance::Certificate)
        };
        Party { principal, provenance, ip, port, instance: instance_of(self.node_id), ..Party::default() }
    }

    /// The caller, as its own proxy names itself: no more than a name until the other side confirms it.
    fn source_of_outbound(&self) -> Party<'a> {
        let addresses = [self.upstream_local_address, self.direct_address()];
        let (ip, port) = host_and_port(first_present(addresses));
        let san = first_san(first_present([self.upstream_local_uri_san, self.downstream_local_uri_san]));
        let principal = first_present([san, workload_of(self.node_id), host_and_port(self.caller_address()).0]);
        Party { principal, ip, port, instance: instance_of(self.node_id), ..Party::default() }
    }

    fn destination_of_outbound(&self) -> Party<'a> {
        let (ip, port) = host_and_port(self.upstream_host);
        let san = first_san(self.upstream_peer_uri_san);
        let (principal, provenance) = if san.is_empty() {
            let cluster = cluster_host(self.upstream_cluster);
            (first_present([cluster, self.hostname(), ip]), Provenance::Name)
        } else {
            (san, Provenance::Certificate)
        };
        Party { principal, provenance, ip, port, ..Party::default() }
    }

    fn hostname(&self) -> &'a str {
        if self.authority.is_empty() {
            return clip(server_name_host(self.requested_server_name));
        }
        clip(host_and_port(self.authority).0)
    }

    fn outcome(&self, kind: Kind) -> Outcome {
        let denied = [self.response_code_details, self.connection_termination_details];
        let refused = denied.iter().any(|details| details.starts_with("rbac_access_denied"));
        if refused || self.response_flags.split(',').any(|flag| flag == "UAEX") {
            return Outcome::Refused;
        }
        if kind == Kind::Request {
            return self.status.map_or(Outcome::Unknown, |status| Outcome::of_http(status, self.grpc_status));
        }
        let failed = !self.response_flags.is_empty() || !self.transport_failure_reason.is_empty();
        if failed { Outcome::Failure } else { Outcome::Success }
    }

    fn reason(&self) -> &'a str {
        let details = if self.response_code_details == "via_upstream" { "" } else { self.response_code_details };
        let reason = first_present([
            details,
            self.connection_termination_details,
            self.transport_failure_reason,
            self.response_flags,
        ]);
        // What stands in braces is about this one call.
        clip(reason.split('{').next().unwrap_or_default())
    }

    /// The decision behind a denial by one of our own policies: `qualm-deny/<decision>`.
    fn own_action(&self) -> &'a str {
        let named = |details: &'a str| details.strip_prefix(RBAC_DENIAL)?.split(']').next();
        let policy = named(self.response_code_details)
            .or_else(|| named(self.connection_termination_details))
            .unwrap_or(self.policy);
        if !policy.starts_with(OUR_POLICIES) {
            return "";
        }
        clip(policy.split_once('/').map_or(policy, |(_, decision)| if decision.is_empty() { policy } else { decision }))
    }
}

/// Whether an entry of this type is the last of its stream or connection.
fn is_final(access_log_type: &str) -> bool {
    !(access_log_type.ends_with("Periodic")
        || access_log_type.ends_with("Start")
        || access_log_type.ends_with("Connected")
        || access_log_type.ends_with("Ready")
        || access_log_type.ends_with("Established"))
}

fn optional_time(text: &str) -> Result<Option<Timestamp>, Invalid> {
    if text.is_empty() { Ok(None) } else { rfc3339(text).map(Some) }
}

fn first_present<const N: usize>(texts: [&str; N]) -> &str {
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// The first SPIFFE ID of a list of SANs, or else the first SAN.
fn first_san(sans: &str) -> &str {
    if !sans.as_bytes().contains(&b',') {
        return sans;
    }
    let mut each = sans.split(',').map(str::trim);
    each.clone().find(|san| san.starts_with("spiffe://")).or_else(|| each.next()).unwrap_or_default()
}

/// `127.0.0.1:80` and `[::1]:80`, with or without the port.
pub fn host_and_port(address: &str) -> (&str, u16) {
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

/// The host in Istio's `outbound|8000|v1|httpbin.foo.svc.cluster.local`.
fn cluster_host(cluster: &str) -> &str {
    if !cluster.contains('|') { "" } else { cluster.rsplit('|').next().unwrap_or_default() }
}

/// The host in Istio's `outbound_.8000_._.httpbin.foo.svc.cluster.local`; another server name is one itself.
fn server_name_host(name: &str) -> &str {
    let Some(rest) = name.strip_prefix("outbound_.") else { return name };
    rest.splitn(3, "_.").nth(2).and_then(|rest| rest.strip_prefix("_.").or(Some(rest))).unwrap_or(name)
}

/// The pod in Istio's `sidecar~10.0.0.1~cart-1.shop~shop.svc.cluster.local`.
fn instance_of(node_id: &str) -> &str {
    if node_id.is_empty() {
        return "";
    }
    let pod = node_id.split('~').nth(2).unwrap_or_default();
    clip(pod.split('.').next().unwrap_or_default())
}

/// The pod and its namespace, `cart-1.shop`; or the node id itself where it is not Istio's.
fn workload_of(node_id: &str) -> &str {
    node_id.split('~').nth(2).unwrap_or(node_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound() -> AccessEntry<'static> {
        AccessEntry {
            method: "GET",
            path: "/v1/orders/42?x=1",
            status: Some(200),
            upstream_cluster: "inbound|8000||",
            authority: "orders.shop:8000",
            downstream_direct_remote_address: "10.0.0.7:41854",
            downstream_local_address: "10.0.0.9:8000",
            downstream_peer_uri_san: "spiffe://mesh.test/ns/shop/sa/cart",
            downstream_local_uri_san: "spiffe://mesh.test/ns/shop/sa/orders",
            ..AccessEntry::default()
        }
    }

    #[test]
    fn an_inbound_entry_names_the_peer_by_its_certificate() {
        let mut operation = String::new();
        let entry = inbound();
        let draft = entry.draft(&mut operation).expect("complete");
        assert_eq!(draft.reporter, Reporter::Destination);
        assert_eq!(draft.source.principal, "spiffe://mesh.test/ns/shop/sa/cart");
        assert_eq!(
            (draft.source.provenance, draft.source.ip, draft.source.port),
            (Provenance::Certificate, "10.0.0.7", 41854)
        );
        assert_eq!(
            (draft.destination.principal, draft.hostname),
            ("spiffe://mesh.test/ns/shop/sa/orders", "orders.shop")
        );
        assert_eq!((draft.operation, draft.auth_method), ("GET /v1/orders/{id}", "mtls"));
    }

    #[test]
    fn an_outbound_entry_claims_its_own_name_and_verifies_the_other() {
        let entry = AccessEntry {
            upstream_cluster: "outbound|80||orders.shop.svc.cluster.local",
            upstream_peer_uri_san: "spiffe://mesh.test/ns/shop/sa/orders",
            upstream_local_uri_san: "spiffe://mesh.test/ns/shop/sa/cart",
            downstream_peer_uri_san: "",
            node_id: "sidecar~10.0.0.7~cart-1.shop~shop.svc.cluster.local",
            ..inbound()
        };
        let mut operation = String::new();
        let draft = entry.draft(&mut operation).expect("complete");
        assert_eq!((draft.reporter, draft.source.provenance), (Reporter::Source, Provenance::Name));
        assert_eq!((draft.source.principal, draft.source.instance), ("spiffe://mesh.test/ns/shop/sa/cart", "cart-1"));
        assert_eq!(draft.destination.principal, "spiffe://mesh.test/ns/shop/sa/orders");
        assert_eq!(draft.auth_method, "");
    }

    #[test]
    fn what_the_caller_says_in_x_forwarded_for_is_never_its_instance() {
        let claimed = AccessEntry {
            downstream_remote_address: "10.0.0.8:41854",
            downstream_direct_remote_address: "",
            ..inbound()
        };
        let tcp = AccessEntry { method: "", path: "", status: None, ..claimed };
        for (entry, ip) in [
            (AccessEntry { downstream_direct_remote_address: "10.0.0.7:41854", ..claimed }, "10.0.0.7"),
            (claimed, ""),
            (AccessEntry { forwarded: Forwarded::of("10.0.0.8"), ..claimed }, ""),
            (AccessEntry { forwarded: Forwarded::of("-"), ..claimed }, "10.0.0.8"),
            (tcp, "10.0.0.8"),
            (AccessEntry { forwarded: Forwarded::of("10.0.0.8"), ..tcp }, ""),
            // Requests of a format without the keys that tell them from connections.
            (AccessEntry { status: Some(404), ..tcp }, ""),
            (AccessEntry { protocol: "HTTP/1.1", ..tcp }, ""),
        ] {
            let (mut operation, mut other) = (String::new(), String::new());
            let outbound = AccessEntry {
                upstream_cluster: "outbound|80||orders.shop.svc.cluster.local",
                downstream_peer_uri_san: "",
                ..entry
            };
            assert_eq!(entry.draft(&mut operation).expect("complete").source.ip, ip, "{entry:?}");
            assert_eq!(outbound.draft(&mut other).expect("complete").source.ip, ip, "{outbound:?}");
        }
    }

    #[test]
    fn our_own_denials_are_recognised_and_other_policies_are_not() {
        for (details, decision) in [
            ("rbac_access_denied_matched_policy[qualm-deny/3f2a]", "3f2a"),
            ("rbac_access_denied_matched_policy[qualm-deny]", "qualm-deny"),
            ("rbac_access_denied_matched_policy[ns[shop]-policy[x]-rule[0]]", ""),
            ("via_upstream", ""),
        ] {
            let http = AccessEntry { response_code_details: details, ..inbound() };
            let tcp = AccessEntry { connection_termination_details: details, method: "", path: "", ..inbound() };
            for entry in [http, tcp] {
                let mut operation = String::new();
                let draft = entry.draft(&mut operation).expect("complete");
                assert_eq!(draft.decision_id, decision);
                assert_eq!(draft.outcome == Outcome::Refused, details.starts_with("rbac"));
            }
        }
    }

    #[test]
    fn only_the_entry_of_the_end_is_an_event() {
        for (kind, is_event) in [
            ("", true),
            ("NotSet", true),
            ("DownstreamEnd", true),
            ("TcpConnectionEnd", true),
            ("TcpPeriodic", false),
            ("DownstreamPeriodic", false),
            ("DownstreamStart", false),
            ("TcpUpstreamConnected", false),
        ] {
            let entry = AccessEntry { access_log_type: kind, ..inbound() };
            assert_eq!(entry.draft(&mut String::new()).err(), (!is_event).then_some(Rejection::Part), "{kind}");
        }
    }

    #[test]
    fn addresses_and_server_names_are_taken_apart() {
        assert_eq!(host_and_port("10.0.0.1:80"), ("10.0.0.1", 80));
        assert_eq!(host_and_port("[fd00::1]:80"), ("fd00::1", 80));
        assert_eq!(host_and_port("fd00::1"), ("fd00::1", 0));
        assert_eq!(host_and_port("orders.shop"), ("orders.shop", 0));
        assert_eq!(server_name_host("outbound_.8000_._.httpbin.foo.svc"), "httpbin.foo.svc");
        assert_eq!(server_name_host("outbound_.8000_.v1_.httpbin.foo.svc"), "httpbin.foo.svc");
        assert_eq!(server_name_host("orders.shop.svc"), "orders.shop.svc");
        assert_eq!(first_san("DNS:x,spiffe://a/b"), "spiffe://a/b");
    }
}
