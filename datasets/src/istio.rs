//! A call as the access logs of Istio's proxies show it: one JSON object with Istio's 24 keys, and beside them the
//! lower-case Envoy operators that carry identities. Keys are in alphabetical order, as Envoy writes them.
//!
//! Lines are formatted by hand into a buffer that is used again and again: the generator must not be what a
//! measurement of the reader measures. All texts of a mesh are plain ASCII without quotes, so nothing is escaped.

mod record;
mod text;
mod write;

use self::record::Record;
pub use self::record::{Side, Stage};
pub(crate) use self::write::push_bare_uuid;
use crate::{call::Call, dirt::Report, mesh::Mesh};

/// Istio's own 24 keys.
pub const ISTIO_KEYS: [&str; 24] = [
    "authority",
    "bytes_received",
    "bytes_sent",
    "connection_termination_details",
    "downstream_local_address",
    "downstream_remote_address",
    "duration",
    "method",
    "path",
    "protocol",
    "request_id",
    "requested_server_name",
    "response_code",
    "response_code_details",
    "response_flags",
    "route_name",
    "start_time",
    "upstream_cluster",
    "upstream_host",
    "upstream_local_address",
    "upstream_service_time",
    "upstream_transport_failure_reason",
    "user_agent",
    "x_forwarded_for",
];

/// The Envoy operators that an inbound report carries beside them, lower-cased.
pub const IDENTITY_KEYS: [&str; 7] = [
    "downstream_direct_remote_address",
    "downstream_local_uri_san",
    "downstream_peer_serial",
    "downstream_peer_uri_san",
    "downstream_tls_version",
    "grpc_status",
    "tls_ja4_fingerprint",
];

/// Writes calls of one mesh as access-log lines. A line ends without a line feed.
#[derive(Debug, Clone, Copy)]
pub struct AccessLog<'a> {
    mesh: &'a Mesh,
    validity: Validity,
}

/// Whether lines carry `downstream_peer_cert_v_start` and `downstream_peer_cert_v_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Validity {
    Omitted,
    Written,
}

impl<'a> AccessLog<'a> {
    /// A log of calls of `mesh`.
    pub const fn new(mesh: &'a Mesh) -> Self {
        Self { mesh, validity: Validity::Omitted }
    }

    /// A log that also shows from when until when the peer's certificate is valid: 120 bytes more a line.
    pub const fn with_validity(mesh: &'a Mesh) -> Self {
        Self { mesh, validity: Validity::Written }
    }

    /// Appends the report of the destination's proxy.
    pub fn push_inbound(&self, call: &Call, out: &mut Vec<u8>) {
        self.record(call, Side::Inbound, None).push(out);
    }

    /// Appends the report of the source's proxy, which knows both identities but not the caller's serial or TLS stack.
    pub fn push_outbound(&self, call: &Call, out: &mut Vec<u8>) {
        self.record(call, Side::Outbound, None).push(out);
    }

    /// Appends the report of the destination's proxy of the same call, had its RBAC filter denied it under the
    /// policy `policy`, for example `qualm-deny/<decision id>`: 403 at once (TCP: closed), nothing upstream.
    ///
    /// `policy` must be plain ASCII without quotes or backslashes.
    pub fn push_denied(&self, call: &Call, policy: &str, out: &mut Vec<u8>) {
        self.record(call, Side::Inbound, Some(policy)).push(out);
    }

    /// Appends a report as its proxy writes it.
    pub fn push_report(&self, report: &Report, out: &mut Vec<u8>) {
        let record = self.record(&report.call, report.side, None);
        Record { stage: report.stage, ..record }.push(out);
    }

    /// Appends a report in Istio's default text format, which has no identities.
    pub fn push_text(&self, report: &Report, out: &mut Vec<u8>) {
        self.record(&report.call, report.side, None).push_text(out);
    }

    fn record<'b>(&self, call: &'b Call, side: Side, policy: Option<&'b str>) -> Record<'b>
    where
        'a: 'b,
    {
        let mesh: &'b Mesh = self.mesh;
        let (source, destination) = (mesh.instance(call.source), mesh.instance(call.destination));
        Record {
            call,
            side,
            source,
            caller: mesh.service(source.service),
            destination,
            called: mesh.service(destination.service),
            operation: mesh.operation(call.operation),
            validity: self.validity,
            policy,
            stage: Stage::Only,
        }
    }
}
