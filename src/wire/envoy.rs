//! What stands several times in an Envoy's bootstrap.

/// Reads the first message of a TLS connection, for the name that is asked for and the fingerprints.
pub(super) const INSPECTOR: &str = r#"# (1)
- name: envoy.filters.listener.tls_inspector
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector
    enable_ja3_fingerprinting: true
    enable_ja4_fingerprinting: true
"#;

/// Serves only callers with an SVID of the trust domain.
pub(super) const DOWNSTREAM_TLS: &str = r#"# (1)
name: envoy.transport_sockets.tls
typed_config:
  "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
  require_client_certificate: true
  common_tls_context:
    tls_certificates:
    - certificate_chain: { filename: /etc/envoy/tls/svid.pem }
      private_key: { filename: /etc/envoy/tls/svid.key }
    validation_context:
      trusted_ca: { filename: /etc/envoy/tls/bundle.pem }
      match_typed_subject_alt_names:
      - san_type: URI
        matcher: { prefix: "spiffe://mesh.test/" }
"#;

/// The JSON log on standard output.
pub(super) const FILE_LOG: &str = r#"# (2)
- name: envoy.access_loggers.file
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
    path: /dev/stdout
    log_format:
      json_format:
        @access_log@
"#;

/// The rest of what both kinds of ALS have in common: what ALS has no field for goes as tags.
pub(super) const ALS: &str = r#"transport_api_version: V3
grpc_service:
  envoy_grpc: { cluster_name: qualm }
buffer_flush_interval: 0.5s
buffer_size_bytes: 16384
custom_tags:
- { tag: tls_ja4_fingerprint, value: "%TLS_JA4_FINGERPRINT%" }
- { tag: downstream_peer_serial, value: "%DOWNSTREAM_PEER_SERIAL%" }
"#;

/// Where a filter's rules come from.
pub(super) const ECDS: &str = r#"resource_api_version: V3
# A starting listener waits this long for Qualm, and then serves.
initial_fetch_timeout: 2s
api_config_source:
  api_type: DELTA_GRPC
  transport_api_version: V3
  grpc_services:
  - envoy_grpc:
      cluster_name: qualm
      # A Qualm that comes back is found again within seconds.
      retry_policy:
        retry_back_off: { base_interval: 0.2s, max_interval: 5s }
"#;
