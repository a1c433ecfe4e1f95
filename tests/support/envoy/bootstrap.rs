//! The bootstrap config of a test's Envoy. Static, so that nothing but Qualm speaks xDS to it.

use serde_json::{Map, Value, json};

use super::{HTTP_RATE_LIMIT, HTTP_RBAC, NETWORK_RBAC, Places, QualmPorts, Sidecar, Slot, Streams, socket};
use crate::support::authority::{SvidFiles, TRUST_DOMAIN};

const XDS_CLUSTER: &str = "qualm";
const ALS_CLUSTER: &str = "qualm-als";
const RATE_LIMIT_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// The workload behind the HTTP and the TCP listener, named as Istio names them.
const WORKLOAD_CLUSTERS: [&str; 2] = ["inbound|8080||", "inbound|9090||"];

/// Istio's 24 keys and operators, in its order (log-format of its JSON encoding).
const ISTIO_KEYS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// Operators that are written under their own names in lower case.
const IDENTITY_OPERATORS: [&str; 16] = [
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_TLS_VERSION",
    "UPSTREAM_PEER_URI_SAN",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "CONNECTION_ID",
    "STREAM_ID",
    "ACCESS_LOG_TYPE",
];

pub(super) fn config(sidecar: &Sidecar, places: &Places<'_>) -> Value {
    let mut clusters: Vec<_> = WORKLOAD_CLUSTERS.into_iter().zip(places.workload).map(plain_cluster).collect();
    if let Some(qualm) = sidecar.qualm.as_ref().filter(|_| sidecar.slot != Slot::NoCluster) {
        clusters.push(qualm_cluster(XDS_CLUSTER, qualm.xds, qualm, places.svid));
    }
    if let Some((qualm, als)) = sidecar.qualm.as_ref().and_then(|qualm| Some((qualm, qualm.als?))) {
        clusters.push(qualm_cluster(ALS_CLUSTER, als, qualm, places.svid));
    }
    json!({
        "node": {
            "id": sidecar.node,
            "cluster": sidecar.cluster,
            "metadata": { "NAMESPACE": "shop", "CLUSTER_ID": "Kubernetes" },
        },
        "admin": { "address": socket(places.admin) },
        "static_resources": {
            "listeners": [
                listener("http", places.http, &http_filters(sidecar, places), Some(places.svid)),
                listener("tcp", places.tcp, &tcp_filters(sidecar, places), Some(places.svid)),
                listener("plain-http", places.plain[0], &http_filters(sidecar, places), None),
                listener("plain-tcp", places.plain[1], &tcp_filters(sidecar, places), None),
            ],
            "clusters": clusters,
        },
    })
}

fn http_filters(sidecar: &Sidecar, places: &Places<'_>) -> [Value; 1] {
    let slot_type = match sidecar.slot {
        Slot::Rbac | Slot::NoCluster | Slot::ExtAuthz => rbac_type("http"),
        Slot::OtherFilter => "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig".to_owned(),
    };
    let mut filters = match sidecar.slot {
        Slot::ExtAuthz => vec![ext_authz()],
        _ => vec![
            json!({ "name": HTTP_RBAC, "config_discovery": ecds(&json!({ "@type": slot_type })) }),
            json!({
                "name": HTTP_RATE_LIMIT,
                "config_discovery": ecds(&json!({ "@type": RATE_LIMIT_TYPE, "stat_prefix": "qualm" })),
            }),
        ],
    };
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    }));
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "inbound",
        "access_log": access_logs(sidecar, places, "http"),
        "route_config": { "name": "inbound", "virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{ "name": "default", "match": { "prefix": "/" }, "route": { "cluster": WORKLOAD_CLUSTERS[0] } }],
        }] },
        "http_filters": filters,
    });
    if sidecar.streams != Streams::ToldAtTheEnd {
        manager["access_log_options"] = json!({ "access_log_flush_interval": "1s" });
    }
    if sidecar.streams == Streams::Bounded {
        manager["common_http_protocol_options"] =
            json!({ "max_stream_duration": "2s", "max_connection_duration": "2s" });
    }
    [json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })]
}

/// As `qualm wire envoy` prints it.
fn ext_authz() -> Value {
    let config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": { "envoy_grpc": { "cluster_name": XDS_CLUSTER }, "timeout": "0.1s" },
        "failure_mode_allow": true,
        "allowed_headers": { "patterns": [{ "exact": "x-request-id" }] },
    });
    json!({ "name": "envoy.filters.http.ext_authz", "typed_config": config })
}

fn tcp_filters(sidecar: &Sidecar, places: &Places<'_>) -> [Value; 2] {
    let allow_all = json!({ "@type": rbac_type("network"), "stat_prefix": "qualm" });
    let mut proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "inbound_tcp",
        "cluster": WORKLOAD_CLUSTERS[1],
        "access_log": access_logs(sidecar, places, "network"),
    });
    if sidecar.streams != Streams::ToldAtTheEnd {
        proxy["access_log_options"] = json!({ "access_log_flush_interval": "1s" });
    }
    if sidecar.streams == Streams::Bounded {
        proxy["max_downstream_connection_duration"] = json!("2s");
    }
    [
        json!({ "name": NETWORK_RBAC, "config_discovery": ecds(&allow_all) }),
        json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": proxy }),
    ]
}

/// A listener that serves only callers with an SVID of the trust domain; without one of its own, whoever comes.
fn listener(name: &str, port: u16, filters: &[Value], svid: Option<&SvidFiles>) -> Value {
    let Some(svid) = svid else {
        return json!({ "name": name, "address": socket(port), "filter_chains": [{ "filters": filters }] });
    };
    let peers = json!([{ "san_type": "URI", "matcher": { "prefix": format!("spiffe://{TRUST_DOMAIN}/") } }]);
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": tls_context(svid, &peers),
    });
    let inspector = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        "enable_ja3_fingerprinting": true,
        "enable_ja4_fingerprinting": true,
    });
    json!({
        "name": name,
        "address": socket(port),
        "listener_filters": [{ "name": "envoy.filters.listener.tls_inspector", "typed_config": inspector }],
        "filter_chains": [{
            "filters": filters,
            "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": tls },
        }],
    })
}

/// The filter's config comes from Qualm by delta xDS; until it does, `default` holds.
fn ecds(default: &Value) -> Value {
    // A restarted Qualm is found again within a second; Envoy's own limit is 30 s.
    let retry = json!({ "retry_back_off": { "base_interval": "0.1s", "max_interval": "1s" } });
    json!({
        "type_urls": [default["@type"]],
        "default_config": default,
        "config_source": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": "2s",
            "api_config_source": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": XDS_CLUSTER, "retry_policy": retry } }],
            },
        },
    })
}

/// `layer` is `http` or `network`.
fn rbac_type(layer: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.filters.{layer}.rbac.v3.RBAC")
}

/// The JSON log in a file, and ALS where there is a Qualm to send it to.
fn access_logs(sidecar: &Sidecar, places: &Places<'_>, layer: &str) -> Value {
    let file = json!({
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": places.log,
        "log_format": { "json_format": json_format(layer) },
    });
    let mut logs = vec![json!({ "name": "envoy.access_loggers.file", "typed_config": file })];
    if sidecar.qualm.as_ref().is_some_and(|qualm| qualm.als.is_some()) {
        logs.push(als(layer));
    }
    Value::Array(logs)
}

fn als(layer: &str) -> Value {
    let (short, message) = match layer {
        "http" => ("http", "HttpGrpcAccessLogConfig"),
        _ => ("tcp", "TcpGrpcAccessLogConfig"),
    };
    let tags = [("ja4", "%TLS_JA4_FINGERPRINT%"), ("peer_serial", "%DOWNSTREAM_PEER_SERIAL%")];
    json!({
        "name": format!("envoy.access_loggers.{short}_grpc"),
        "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.{message}"),
            "common_config": {
                "log_name": format!("qualm_{short}"),
                "transport_api_version": "V3",
                "grpc_service": { "envoy_grpc": { "cluster_name": ALS_CLUSTER } },
                "buffer_flush_interval": "0.2s",
                "custom_tags": tags.map(|(tag, value)| json!({ "tag": tag, "value": value })),
            },
        },
    })
}

fn json_format(layer: &str) -> Value {
    let istio = ISTIO_KEYS.iter().map(|(key, operator)| ((*key).to_owned(), json!(operator)));
    let identity = IDENTITY_OPERATORS.iter().map(|name| (name.to_ascii_lowercase(), json!(format!("%{name}%"))));
    let rbac = format!("%DYNAMIC_METADATA(envoy.filters.{layer}.rbac)%");
    let mut format: Map<String, Value> = istio.chain(identity).collect();
    let asked = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%";
    let metadata = json!({ format!("envoy.filters.{layer}.rbac"): rbac, "envoy.filters.http.ext_authz": asked });
    format.insert("dynamic_metadata".to_owned(), metadata);
    format.insert("trust_level".to_owned(), json!("%REQ(X-QUALM-TRUST-LEVEL)%"));
    Value::Object(format)
}

fn plain_cluster((name, port): (&str, u16)) -> Value {
    json!({ "name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": endpoint(name, port) })
}

fn qualm_cluster(name: &str, port: u16, qualm: &QualmPorts, svid: &SvidFiles) -> Value {
    let http2 = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    let mut context = tls_context(svid, &json!([{ "san_type": "URI", "matcher": { "exact": qualm.id } }]));
    context["alpn_protocols"] = json!(["h2"]);
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "qualm.security.svc",
        "common_tls_context": context,
    });
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": endpoint(name, port),
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2 },
        "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": tls },
    })
}

/// Our SVID, and whom we accept.
fn tls_context(svid: &SvidFiles, peers: &Value) -> Value {
    json!({
        "tls_certificates": [{
            "certificate_chain": { "filename": svid.certificate },
            "private_key": { "filename": svid.key },
        }],
        "validation_context": {
            "trusted_ca": { "filename": svid.bundle },
            "match_typed_subject_alt_names": peers,
        },
    })
}

fn endpoint(cluster: &str, port: u16) -> Value {
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(port) } }] }] })
}
