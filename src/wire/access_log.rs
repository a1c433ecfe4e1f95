//! Envoy's JSON access log as Qualm reads it best.

use std::fmt::Write as _;

/// The keys of a line and Envoy's commands for them, as far as `ingest` reads them. Envoy has no command for its
/// `node_id`: the shipper's envelope, or the stream of ALS, says which pod it is.
const KEYS: [(&str, &str); 37] = [
    ("start_time", "START_TIME"),
    ("duration", "DURATION"),
    ("access_log_type", "ACCESS_LOG_TYPE"),
    ("method", "REQ(:METHOD)"),
    ("path", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)"),
    ("protocol", "PROTOCOL"),
    ("authority", "REQ(:AUTHORITY)"),
    ("request_id", "REQ(X-REQUEST-ID)"),
    ("stream_id", "STREAM_ID"),
    ("response_code", "RESPONSE_CODE"),
    ("grpc_status", "GRPC_STATUS"),
    ("grpc_status_number", "GRPC_STATUS_NUMBER"),
    ("response_flags", "RESPONSE_FLAGS"),
    ("response_code_details", "RESPONSE_CODE_DETAILS"),
    ("connection_termination_details", "CONNECTION_TERMINATION_DETAILS"),
    ("upstream_transport_failure_reason", "UPSTREAM_TRANSPORT_FAILURE_REASON"),
    ("downstream_transport_failure_reason", "DOWNSTREAM_TRANSPORT_FAILURE_REASON"),
    ("bytes_received", "BYTES_RECEIVED"),
    ("bytes_sent", "BYTES_SENT"),
    ("requested_server_name", "REQUESTED_SERVER_NAME"),
    ("upstream_cluster", "UPSTREAM_CLUSTER"),
    ("upstream_host", "UPSTREAM_HOST"),
    ("upstream_local_address", "UPSTREAM_LOCAL_ADDRESS"),
    ("downstream_local_address", "DOWNSTREAM_LOCAL_ADDRESS"),
    ("downstream_remote_address", "DOWNSTREAM_REMOTE_ADDRESS"),
    ("downstream_direct_remote_address", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS"),
    ("x_forwarded_for", "REQ(X-FORWARDED-FOR)"),
    ("downstream_peer_uri_san", "DOWNSTREAM_PEER_URI_SAN"),
    ("downstream_local_uri_san", "DOWNSTREAM_LOCAL_URI_SAN"),
    ("upstream_peer_uri_san", "UPSTREAM_PEER_URI_SAN"),
    ("upstream_local_uri_san", "UPSTREAM_LOCAL_URI_SAN"),
    ("downstream_peer_serial", "DOWNSTREAM_PEER_SERIAL"),
    ("downstream_peer_cert_v_start", "DOWNSTREAM_PEER_CERT_V_START"),
    ("downstream_peer_cert_v_end", "DOWNSTREAM_PEER_CERT_V_END"),
    ("downstream_tls_version", "DOWNSTREAM_TLS_VERSION"),
    ("tls_ja3_fingerprint", "TLS_JA3_FINGERPRINT"),
    ("tls_ja4_fingerprint", "TLS_JA4_FINGERPRINT"),
];

/// What RBAC filters did, and would have done in shadow mode: for people who search the mesh's log, not for Qualm.
const RBAC_FILTERS: [&str; 2] = ["envoy.filters.http.rbac", "envoy.filters.network.rbac"];

/// The format as lines of YAML.
pub(super) fn yaml() -> String {
    let mut text = String::new();
    for (key, command) in KEYS {
        let _ = writeln!(text, "{key}: \"%{command}%\"");
    }
    let _ = writeln!(text, "# What Qualm's filters did, and in shadow mode would have done.");
    let _ = writeln!(text, "dynamic_metadata:");
    for filter in RBAC_FILTERS {
        let _ = writeln!(text, "  {filter}: \"%DYNAMIC_METADATA({filter})%\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Where `ingest` says which keys it reads.
    const READ: &str = include_str!("../../ingest/src/parse/istio_json/keys.rs");

    #[test]
    fn exactly_the_keys_that_are_read_are_written_but_the_one_that_envoy_cannot() {
        let read: BTreeSet<_> = READ
            .lines()
            .filter_map(|line| line.trim().strip_prefix("b\"")?.split_once('"'))
            .map(|(key, _)| key)
            .collect();
        let mut written: BTreeSet<_> = KEYS.iter().map(|(key, _)| *key).collect();
        assert_eq!(written.len(), KEYS.len(), "no key stands twice");
        written.insert("node_id");
        assert_eq!(written, read);
    }
}
