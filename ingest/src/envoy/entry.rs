//! An entry of Envoy's access log service in the words of all access logs.

use std::fmt::Write;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{Address, Metadata, RequestMethod, address, socket_address::PortSpecifier},
        data::accesslog::v3::{
            AccessLogCommon, AccessLogType, HttpAccessLogEntry, ResponseFlags, TcpAccessLogEntry, TlsProperties,
            http_access_log_entry::HttpVersion,
            response_flags::unauthorized::Reason,
            tls_properties::{CertificateProperties, TlsVersion, certificate_properties::subject_alt_name::San},
        },
    },
    google::protobuf::{Duration, value::Kind},
};
use qualm_model::time::Span;

use crate::{
    parse::{
        access::{AccessEntry, Forwarded},
        time::sensible,
    },
    source::{Invalid, Rejection},
};

/// The filters whose verdict may be our own action; what Qualm answers to the last has the words of the others.
const RBAC_FILTERS: [&str; 3] =
    ["envoy.filters.http.rbac", "envoy.filters.network.rbac", "envoy.filters.http.ext_authz"];

/// Room for the texts that an entry does not have as such.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    upstream_host: String,
    upstream_local: String,
    downstream_local: String,
    downstream_remote: String,
    downstream_direct: String,
    flags: String,
}

/// An HTTP entry. Invalid where it has no start time, or an impossible one.
pub(super) fn of_http<'a>(
    entry: &'a HttpAccessLogEntry,
    scratch: &'a mut Scratch,
) -> Result<AccessEntry<'a>, Rejection> {
    let common = entry.common_properties.as_ref().ok_or(Invalid::MissingField)?;
    let request = entry.request.as_ref().ok_or(Invalid::MissingField)?;
    let response = entry.response.as_ref();
    let status = response.and_then(|response| response.response_code.as_ref()).map(|code| code.value);
    let grpc_status = response.and_then(|response| {
        let from = [&response.response_trailers, &response.response_headers];
        from.iter().find_map(|values| values.get("grpc-status"))?.parse().ok()
    });
    Ok(AccessEntry {
        method: match RequestMethod::try_from(request.request_method) {
            Ok(RequestMethod::MethodUnspecified) | Err(_) => "",
            Ok(method) => method.as_str_name(),
        },
        path: if request.original_path.is_empty() { &request.path } else { &request.original_path },
        protocol: protocol(entry.protocol_version),
        authority: &request.authority,
        request_id: &request.request_id,
        // No response at all is what the other formats write as 0.
        status: Some(u16::try_from(status.unwrap_or(0)).map_err(|_| Invalid::WrongType)?),
        grpc_status,
        response_code_details: response.map_or("", |response| &response.response_code_details),
        bytes_received: Some(request.request_body_bytes),
        bytes_sent: response.map(|response| response.response_body_bytes),
        // Envoy always says which address is the direct one.
        forwarded: Forwarded::Possibly,
        ..of_common(common, scratch)?
    })
}

/// A TCP entry; as [`of_http`].
pub(super) fn of_tcp<'a>(entry: &'a TcpAccessLogEntry, scratch: &'a mut Scratch) -> Result<AccessEntry<'a>, Rejection> {
    let common = entry.common_properties.as_ref().ok_or(Invalid::MissingField)?;
    let bytes = entry.connection_properties.as_ref();
    Ok(AccessEntry {
        bytes_received: bytes.map(|bytes| bytes.received_bytes),
        bytes_sent: bytes.map(|bytes| bytes.sent_bytes),
        ..of_common(common, scratch)?
    })
}

fn of_common<'a>(common: &'a AccessLogCommon, scratch: &'a mut Scratch) -> Result<AccessEntry<'a>, Rejection> {
    let start = common.start_time.as_ref().ok_or(Invalid::MissingField)?;
    let start = sensible(i128::from(start.seconds) * 1_000_000_000 + i128::from(start.nanos))?;
    let duration = common.duration.as_ref().or(common.time_to_last_downstream_tx_byte.as_ref());
    scratch.fill(common);
    let scratch: &'a Scratch = scratch;
    let tls = common.tls_properties.as_ref();
    let failures = [&common.upstream_transport_failure_reason, &common.downstream_transport_failure_reason];
    // What Envoy does not have as a field comes as a custom tag; both the operator's name and a short one are known.
    let tag = |names: [&str; 2]| names.iter().find_map(|name| common.custom_tags.get(*name)).map_or("", String::as_str);
    Ok(AccessEntry {
        start,
        duration: duration.map(span).transpose()?,
        access_log_type: match AccessLogType::try_from(common.access_log_type) {
            Ok(AccessLogType::NotSet) | Err(_) if is_intermediate(common) => "Periodic",
            Ok(AccessLogType::NotSet) | Err(_) => "",
            Ok(kind) => kind.as_str_name(),
        },
        stream_id: &common.stream_id,
        response_flags: &scratch.flags,
        connection_termination_details: &common.connection_termination_details,
        transport_failure_reason: failures.into_iter().find(|reason| !reason.is_empty()).map_or("", String::as_str),
        requested_server_name: tls.map_or("", |tls| &tls.tls_sni_hostname),
        upstream_cluster: &common.upstream_cluster,
        upstream_host: &scratch.upstream_host,
        upstream_local_address: &scratch.upstream_local,
        downstream_local_address: &scratch.downstream_local,
        downstream_remote_address: &scratch.downstream_remote,
        downstream_direct_remote_address: &scratch.downstream_direct,
        downstream_peer_uri_san: uri_san(tls.and_then(|tls| tls.peer_certificate_properties.as_ref())),
        downstream_local_uri_san: uri_san(tls.and_then(|tls| tls.local_certificate_properties.as_ref())),
        upstream_peer_uri_san: tag(["upstream_peer_uri_san", "upstream_peer"]),
        upstream_local_uri_san: tag(["upstream_local_uri_san", "upstream_local"]),
        downstream_peer_serial: tag(["downstream_peer_serial", "peer_serial"]),
        downstream_peer_cert_v_start: tag(["downstream_peer_cert_v_start", "peer_v_start"]),
        downstream_peer_cert_v_end: tag(["downstream_peer_cert_v_end", "peer_v_end"]),
        downstream_tls_version: tls.map_or("", tls_version),
        ja3: tls.map_or("", |tls| &tls.ja3_fingerprint),
        ja4: tag(["tls_ja4_fingerprint", "ja4"]),
        policy: common.metadata.as_ref().map_or("", denying_policy),
        mark: common.metadata.as_ref().map_or("", marking_policy),
        ..AccessEntry::default()
    })
}

impl Scratch {
    fn fill(&mut self, common: &AccessLogCommon) {
        write_address(common.upstream_remote_address.as_ref(), &mut self.upstream_host);
        write_address(common.upstream_local_address.as_ref(), &mut self.upstream_local);
        write_address(common.downstream_local_address.as_ref(), &mut self.downstream_local);
        write_address(common.downstream_remote_address.as_ref(), &mut self.downstream_remote);
        write_address(common.downstream_direct_remote_address.as_ref(), &mut self.downstream_direct);
        write_flags(common.response_flags.as_ref(), &mut self.flags);
    }
}

#[expect(deprecated, reason = "Envoys of before there were types say it in this way alone")]
fn is_intermediate(common: &AccessLogCommon) -> bool {
    common.intermediate_log_entry
}

fn span(duration: &Duration) -> Result<Span, Invalid> {
    let nanos = i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos);
    i64::try_from(nanos).ok().filter(|nanos| *nanos >= 0).map(Span).ok_or(Invalid::WrongType)
}

fn write_address(address: Option<&Address>, text: &mut String) {
    text.clear();
    let Some(address::Address::SocketAddress(socket)) = address.and_then(|address| address.address.as_ref()) else {
        return;
    };
    let port = match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => port,
        _ => 0,
    };
    let written = match socket.address.contains(':') {
        true => write!(text, "[{}]:{port}", socket.address),
        false => write!(text, "{}:{port}", socket.address),
    };
    written.expect("writing to a String never fails");
}

/// Envoy's short words for the flags that are set.
fn write_flags(flags: Option<&ResponseFlags>, text: &mut String) {
    text.clear();
    let Some(flags) = flags else { return };
    let denied = flags.unauthorized_details.as_ref().map(|why| why.reason);
    for (set, word) in [
        (flags.failed_local_healthcheck, "LH"),
        (flags.no_healthy_upstream, "UH"),
        (flags.upstream_request_timeout, "UT"),
        (flags.local_reset, "LR"),
        (flags.upstream_remote_reset, "UR"),
        (flags.upstream_connection_failure, "UF"),
        (flags.upstream_connection_termination, "UC"),
        (flags.upstream_overflow, "UO"),
        (flags.no_route_found, "NR"),
        (flags.delay_injected, "DI"),
        (flags.fault_injected, "FI"),
        (flags.rate_limited, "RL"),
        (denied == Some(Reason::ExternalService.into()), "UAEX"),
        (flags.rate_limit_service_error, "RLSE"),
        (flags.downstream_connection_termination, "DC"),
        (flags.upstream_retry_limit_exceeded, "URX"),
        (flags.stream_idle_timeout, "SI"),
        (flags.invalid_envoy_request_headers, "IH"),
        (flags.downstream_protocol_error, "DPE"),
        (flags.upstream_max_stream_duration_reached, "UMSDR"),
        (flags.response_from_cache_filter, "RFCF"),
        (flags.no_filter_config_found, "NFCF"),
        (flags.duration_timeout, "DT"),
        (flags.upstream_protocol_error, "UPE"),
        (flags.no_cluster_found, "NC"),
        (flags.overload_manager, "OM"),
        (flags.dns_resolution_failure, "DF"),
        (flags.downstream_remote_reset, "DR"),
    ] {
        if set {
            text.push_str(if text.is_empty() { "" } else { "," });
            text.push_str(word);
        }
    }
}

/// The SPIFFE ID among the URI names, or else the first of them.
fn uri_san(certificate: Option<&CertificateProperties>) -> &str {
    let names = certificate.map_or(&[][..], |certificate| &certificate.subject_alt_name);
    let mut uris = names.iter().filter_map(|name| match &name.san {
        Some(San::Uri(uri)) => Some(uri.as_str()),
        _ => None,
    });
    uris.clone().find(|uri| uri.starts_with("spiffe://")).or_else(|| uris.next()).unwrap_or_default()
}

/// The policy that denied, from the metadata that the RBAC filters leave. A policy that allowed is none.
fn denying_policy(metadata: &Metadata) -> &str {
    of_rbac(metadata, |text| {
        text("enforced_engine_result").filter(|result| *result == "denied")?;
        text("enforced_effective_policy_id")
    })
}

/// The policy under which Qualm's filter has marked the call.
fn marking_policy(metadata: &Metadata) -> &str {
    of_rbac(metadata, |text| text("qualm_shadow_effective_policy_id"))
}

/// What the first of the RBAC filters has left that `find` finds something in, by the names of its fields.
fn of_rbac<'a>(metadata: &'a Metadata, find: impl Fn(&dyn Fn(&str) -> Option<&'a str>) -> Option<&'a str>) -> &'a str {
    let filters = RBAC_FILTERS.iter().filter_map(|filter| metadata.filter_metadata.get(*filter));
    let found = filters.filter_map(|verdict| {
        find(&|key| match &verdict.fields.get(key)?.kind {
            Some(Kind::StringValue(text)) => Some(text.as_str()),
            _ => None,
        })
    });
    found.into_iter().next().unwrap_or_default()
}

fn protocol(version: i32) -> &'static str {
    match HttpVersion::try_from(version) {
        Ok(HttpVersion::Http10) => "HTTP/1.0",
        Ok(HttpVersion::Http11) => "HTTP/1.1",
        Ok(HttpVersion::Http2) => "HTTP/2",
        Ok(HttpVersion::Http3) => "HTTP/3",
        Ok(HttpVersion::ProtocolUnspecified) | Err(_) => "",
    }
}

/// As `%DOWNSTREAM_TLS_VERSION%` writes it, so that it is the same in all formats.
fn tls_version(tls: &TlsProperties) -> &'static str {
    match TlsVersion::try_from(tls.tls_version) {
        Ok(TlsVersion::TlSv1) => "TLSv1",
        Ok(TlsVersion::TlSv11) => "TLSv1.1",
        Ok(TlsVersion::TlSv12) => "TLSv1.2",
        Ok(TlsVersion::TlSv13) => "TLSv1.3",
        Ok(TlsVersion::VersionUnspecified) | Err(_) => "",
    }
}
