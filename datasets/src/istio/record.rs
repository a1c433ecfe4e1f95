//! One line: what each of its keys says about the call.

use std::net::Ipv4Addr;

use super::{
    Validity,
    write::{push_ip, push_number, push_path, push_serial, push_uuid},
};
use crate::{
    calendar::Millis,
    call::{Call, grpc_status},
    mesh::{Instance, Kind, Operation, Protocol, Service},
    random::scramble,
};

/// The side whose proxy writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The destination's.
    Inbound,
    /// The source's.
    Outbound,
}

/// Which of a call's records a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// The only one, as by default: nothing is said of it.
    #[default]
    Only,
    /// An interim one of a connection that is open.
    Open,
    /// The last one, where there are interim ones.
    Ended,
}

/// The name under which users reach the gateways.
const PUBLIC_HOST: &str = "shop.example";

/// Everything a line is made of.
pub(super) struct Record<'a> {
    pub(super) call: &'a Call,
    pub(super) side: Side,
    pub(super) source: &'a Instance,
    pub(super) caller: &'a Service,
    pub(super) destination: &'a Instance,
    pub(super) called: &'a Service,
    pub(super) operation: &'a Operation,
    /// Whether the certificate's validity is written.
    pub(super) validity: Validity,
    /// The policy that refused the call, where one did.
    pub(super) policy: Option<&'a str>,
    /// Which record of the call it is.
    pub(super) stage: Stage,
}

impl Record<'_> {
    /// Appends the line.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        if self.stage != Stage::Only {
            out.extend_from_slice(b"\"access_log_type\":\"");
            out.extend_from_slice(match (self.stage, self.is_tcp()) {
                (Stage::Open, _) => b"TcpPeriodic",
                (_, true) => b"TcpConnectionEnd",
                (_, false) => b"DownstreamEnd",
            });
            out.extend_from_slice(b"\",");
        }
        out.extend_from_slice(b"\"authority\":");
        if self.is_tcp() {
            out.extend_from_slice(b"null");
        } else {
            self.quoted_authority(out);
        }
        self.push_volume(out);
        self.push_downstream(out);
        self.push_request(out);
        self.push_response(out);
        self.push_upstream(out);
        if self.is_tcp() {
            null(out, "user_agent");
        } else {
            text(out, "user_agent", &self.source.user_agent);
        }
        match self.client() {
            Some(client) => {
                key(out, "x_forwarded_for");
                out.push(b'"');
                push_ip(out, client);
                out.push(b'"');
            }
            None => null(out, "x_forwarded_for"),
        }
        out.push(b'}');
    }

    fn quoted_authority(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        self.push_authority(out);
        out.push(b'"');
    }

    fn push_volume(&self, out: &mut Vec<u8>) {
        let (received, sent) = match (self.policy, self.is_tcp()) {
            (Some(_), true) => (1, 0),
            (Some(_), false) => (self.call.bytes_in, 19),
            (None, _) => (self.call.bytes_in, self.call.bytes_out),
        };
        number(out, "bytes_received", received);
        number(out, "bytes_sent", sent);
        match self.policy {
            Some(policy) if self.is_tcp() => {
                key(out, "connection_termination_details");
                push_policy(out, policy);
            }
            _ => null(out, "connection_termination_details"),
        }
    }

    fn push_downstream(&self, out: &mut Vec<u8>) {
        let caller_port = 32_768 + (self.call.id >> 40) % 28_000;
        address(out, "downstream_direct_remote_address", self.source.address, caller_port);
        match self.side {
            Side::Inbound => {
                let port = u64::from(self.called.port);
                address(out, "downstream_local_address", self.destination.address, port);
                if self.is_of_user() {
                    // The certificate of a public host names no workload.
                    null(out, "downstream_local_uri_san");
                } else {
                    text(out, "downstream_local_uri_san", &self.called.spiffe_id);
                }
                if !self.source.shows_certificate() {
                    null(out, "downstream_peer_serial");
                    null(out, "downstream_peer_uri_san");
                    return self.push_remote(out, caller_port);
                }
                let credential = self.source.credential(self.call.start);
                if self.validity == Validity::Written {
                    time(out, "downstream_peer_cert_v_end", credential.not_after);
                    time(out, "downstream_peer_cert_v_start", credential.not_before);
                }
                key(out, "downstream_peer_serial");
                push_serial(out, credential.serial);
                text(out, "downstream_peer_uri_san", &self.caller.spiffe_id);
            }
            Side::Outbound => {
                address(out, "downstream_local_address", self.called.address, u64::from(self.called.port));
                for name in ["downstream_local_uri_san", "downstream_peer_serial", "downstream_peer_uri_san"] {
                    null(out, name);
                }
            }
        }
        self.push_remote(out, caller_port);
    }

    fn push_remote(&self, out: &mut Vec<u8>, caller_port: u64) {
        match self.client() {
            // Envoy takes this one from x-forwarded-for; the pod is in the direct remote address.
            Some(client) => address(out, "downstream_remote_address", client, 0),
            None => address(out, "downstream_remote_address", self.source.address, caller_port),
        }
        match self.side {
            Side::Inbound if self.is_tls() => text(out, "downstream_tls_version", "TLSv1.3"),
            _ => null(out, "downstream_tls_version"),
        }
    }

    fn push_request(&self, out: &mut Vec<u8>) {
        number(out, "duration", if self.policy.is_some() { 0 } else { u64::from(self.call.duration) });
        match self.operation.protocol {
            Protocol::Grpc if self.policy.is_none() => {
                number(out, "grpc_status", u64::from(grpc_status(self.call.status)));
            }
            _ => null(out, "grpc_status"),
        }
        if self.is_tcp() {
            for name in ["method", "path", "protocol", "request_id"] {
                null(out, name);
            }
        } else {
            text(out, "method", self.operation.method);
            key(out, "path");
            push_path(out, self.operation, self.call.id);
            text(out, "protocol", if self.operation.protocol == Protocol::Grpc { "HTTP/2" } else { "HTTP/1.1" });
            key(out, "request_id");
            push_uuid(out, self.call.request);
        }
        match self.side {
            Side::Inbound if self.is_of_user() => text(out, "requested_server_name", PUBLIC_HOST),
            Side::Inbound if self.is_tls() => {
                key(out, "requested_server_name");
                out.extend_from_slice(b"\"outbound_.");
                push_number(out, u64::from(self.called.port));
                out.extend_from_slice(b"_._.");
                self.push_host(out);
                out.push(b'"');
            }
            _ => null(out, "requested_server_name"),
        }
    }

    fn push_response(&self, out: &mut Vec<u8>) {
        number(out, "response_code", u64::from(self.wire_status()));
        let (details, flags) = match (self.policy, self.is_tcp(), self.call.status) {
            (None, false, 503) => (
                Some(
                    "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
                ),
                "UF",
            ),
            (None, false, 504) => (Some("response_timeout"), "UT"),
            (None, false, _) => (Some("via_upstream"), "-"),
            (None, true, 500..) => (None, "UF"),
            _ => (None, "-"),
        };
        match (self.policy, details) {
            (Some(policy), _) if !self.is_tcp() => {
                key(out, "response_code_details");
                push_policy(out, policy);
            }
            (_, Some(details)) => text(out, "response_code_details", details),
            _ => null(out, "response_code_details"),
        }
        text(out, "response_flags", flags);
        if self.is_tcp() {
            null(out, "route_name");
        } else {
            text(out, "route_name", "default");
        }
        time(out, "start_time", self.call.start);
        if self.stage != Stage::Only {
            key(out, "stream_id");
            push_uuid(out, self.call.id);
        }
        match self.side {
            Side::Inbound if self.is_tls() => text(out, "tls_ja4_fingerprint", self.source.ja4),
            _ => null(out, "tls_ja4_fingerprint"),
        }
    }

    fn push_upstream(&self, out: &mut Vec<u8>) {
        let port = u64::from(self.called.port);
        key(out, "upstream_cluster");
        let leaves = self.side == Side::Outbound || self.operation.host.is_some();
        out.extend_from_slice(if leaves { b"\"outbound|" } else { b"\"inbound|" });
        push_number(out, port);
        out.extend_from_slice(b"||");
        if leaves {
            self.push_host(out);
        }
        out.push(b'"');
        if self.policy.is_some() {
            null(out, "upstream_host");
            null(out, "upstream_local_address");
        } else {
            address(out, "upstream_host", self.upstream(), port);
            let (local, local_port) = match self.side {
                Side::Inbound => (Ipv4Addr::new(127, 0, 0, 6), 32_768 + (self.call.id >> 20) % 28_000),
                Side::Outbound => (self.source.address, 32_768 + (self.call.id >> 40) % 28_000),
            };
            address(out, "upstream_local_address", local, local_port);
        }
        if self.side == Side::Outbound && self.operation.host.is_none() {
            text(out, "upstream_local_uri_san", &self.caller.spiffe_id);
            text(out, "upstream_peer_uri_san", &self.called.spiffe_id);
        }
        if self.policy.is_some() || self.is_tcp() || self.call.status >= 503 {
            null(out, "upstream_service_time");
        } else {
            key(out, "upstream_service_time");
            out.push(b'"');
            push_number(out, u64::from(self.call.duration));
            out.push(b'"');
        }
        match self.call.status {
            503 if self.policy.is_none() => {
                text(out, "upstream_transport_failure_reason", "delayed_connect_error:_Connection_refused");
            }
            _ => null(out, "upstream_transport_failure_reason"),
        }
    }

    /// Host under which the destination is called, with the port where it is a service of the mesh.
    pub(super) fn push_authority(&self, out: &mut Vec<u8>) {
        if self.is_of_user() {
            out.extend_from_slice(PUBLIC_HOST.as_bytes());
            return;
        }
        if self.operation.host.is_some() {
            return self.push_host(out);
        }
        out.extend_from_slice(self.called.name.as_bytes());
        out.push(b'.');
        out.extend_from_slice(self.called.namespace.as_bytes());
        out.push(b':');
        push_number(out, u64::from(self.called.port));
    }

    pub(super) fn push_host(&self, out: &mut Vec<u8>) {
        if let Some(host) = &self.operation.host {
            out.extend_from_slice(host.as_bytes());
            return;
        }
        out.extend_from_slice(self.called.name.as_bytes());
        out.push(b'.');
        out.extend_from_slice(self.called.namespace.as_bytes());
        out.extend_from_slice(b".svc.cluster.local");
    }

    /// Where the proxy sent the call on to; a host outside has an address of its own in 198.51.100.0/24.
    pub(super) fn upstream(&self) -> Ipv4Addr {
        match &self.operation.host {
            Some(host) => {
                let last = host.bytes().fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
                Ipv4Addr::new(198, 51, 100, last)
            }
            None => self.destination.address,
        }
    }

    /// The user's address, which a gateway passes on in x-forwarded-for.
    pub(super) fn client(&self) -> Option<Ipv4Addr> {
        let last = (scramble(self.call.request) >> 56) as u8;
        (matches!(self.caller.kind, Kind::Gateway | Kind::Client) && !self.is_tcp())
            .then_some(Ipv4Addr::new(203, 0, 113, last))
    }

    pub(super) fn wire_status(&self) -> u16 {
        match (self.operation.protocol, self.policy) {
            (Protocol::Tcp, _) => 0,
            (_, Some(_)) => 403,
            (Protocol::Grpc, None) => 200,
            (Protocol::Http, None) => self.call.status,
        }
    }

    fn is_of_user(&self) -> bool {
        self.caller.kind == Kind::Client
    }

    /// Whether the connection is encrypted; users show no certificate on theirs.
    fn is_tls(&self) -> bool {
        self.source.shows_certificate() || self.is_of_user()
    }

    fn is_tcp(&self) -> bool {
        self.operation.protocol == Protocol::Tcp
    }
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn null(out: &mut Vec<u8>, name: &str) {
    key(out, name);
    out.extend_from_slice(b"null");
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    push_number(out, value);
}

fn time(out: &mut Vec<u8>, name: &str, value: Millis) {
    key(out, name);
    out.push(b'"');
    value.push_rfc3339(out);
    out.push(b'"');
}

fn address(out: &mut Vec<u8>, name: &str, ip: Ipv4Addr, port: u64) {
    key(out, name);
    out.push(b'"');
    push_ip(out, ip);
    out.push(b':');
    push_number(out, port);
    out.push(b'"');
}

fn push_policy(out: &mut Vec<u8>, policy: &str) {
    out.extend_from_slice(b"\"rbac_access_denied_matched_policy[");
    out.extend_from_slice(policy.as_bytes());
    out.extend_from_slice(b"]\"");
}
