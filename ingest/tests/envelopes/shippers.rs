//! The envelopes, as shippers write them.

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;
use serde_json::{Value, json};

/// Puts a record into an envelope: as one record, or as the several that it is cut into.
pub(crate) type Wrap = fn(&str) -> Vec<Vec<u8>>;

pub(crate) fn one(record: impl Into<Vec<u8>>) -> Vec<Vec<u8>> {
    vec![record.into()]
}

pub(crate) fn cri(record: &str) -> Vec<Vec<u8>> {
    one(format!("2026-11-22T02:02:25.000000001Z stdout F {record}"))
}

/// A third of the way into a text, between two characters.
pub(crate) fn third(record: &str) -> usize {
    record.floor_char_boundary(record.len() / 3)
}

pub(crate) fn cri_partial(record: &str) -> Vec<Vec<u8>> {
    let (first, rest) = record.split_at(third(record));
    let (second, last) = rest.split_at(third(rest));
    [("P", first), ("P", second), ("F", last)]
        .map(|(tag, piece)| format!("2026-11-22T02:02:25.000000001Z stdout {tag} {piece}").into_bytes())
        .into()
}

pub(crate) fn docker(record: &str) -> Vec<Vec<u8>> {
    one(json!({ "log": format!("{record}\n"), "stream": "stdout", "time": "2026-11-22T02:02:25.000000001Z" })
        .to_string())
}

pub(crate) fn metadata() -> Value {
    json!({
        "pod_name": "orders-5d4f-x7x2p", "namespace_name": "shop", "pod_id": "0b1f", "pod_ip": "10.0.4.2",
        "host": "node-3", "container_name": "istio-proxy", "labels": { "app": "orders", "version": "v2" },
        "annotations": { "secret": "hunter2", "kubectl.kubernetes.io/default-container": "orders" },
    })
}

pub(crate) fn fluent_bit(record: &str) -> Vec<Vec<u8>> {
    one(
        json!({ "@timestamp": 1_795_312_945.5, "stream": "stdout", "logtag": "F", "log": record, "kubernetes": metadata() })
            .to_string(),
    )
}

pub(crate) fn fluent_bit_partial(record: &str) -> Vec<Vec<u8>> {
    let (first, last) = record.split_at(third(record));
    let piece = |tag: &str, piece: &str| {
        let record = json!({ "stream": "stdout", "_p": tag, "log": piece, "kubernetes": metadata() });
        record.to_string().into_bytes()
    };
    vec![piece("P", first), piece("F", last)]
}

pub(crate) fn fluentd(record: &str) -> Vec<Vec<u8>> {
    one(format!(
        r#"{{"log":{},"stream":"stdout","docker":{{"container_id":"4f"}},"kubernetes":{}}}"#,
        json!(format!("{record}\n")),
        metadata()
    ))
}

/// A JSON record's own keys beside those of the shipper; other records have none to lift.
pub(crate) fn merged(record: &str) -> Vec<Vec<u8>> {
    match record.strip_suffix('}').filter(|_| record.starts_with('{')) {
        Some(open) => one(format!("{open},\"kubernetes\":{},\"tag\":\"kube.x\"}}", metadata())),
        None => fluent_bit(record),
    }
}

pub(crate) fn processed(record: &str) -> Vec<Vec<u8>> {
    match record.starts_with('{') {
        true => one(format!(r#"{{"log":"x","log_processed":{record},"kubernetes":{}}}"#, metadata())),
        false => fluent_bit(record),
    }
}

pub(crate) fn vector(record: &str) -> Vec<Vec<u8>> {
    let pod = json!({
        "container_name": "istio-proxy", "pod_ip": "10.0.4.2", "pod_labels": { "version": "v2" },
        "pod_name": "orders-5d4f-x7x2p", "pod_namespace": "shop", "pod_node_name": "node-3",
        "pod_owner": "ReplicaSet/orders-5d4f",
    });
    one(json!({ "file": "/var/log/pods/x/0.log", "kubernetes": pod, "message": record, "source_type": "kubernetes_logs" })
        .to_string())
}

pub(crate) fn vector_flat(record: &str) -> Vec<Vec<u8>> {
    one(json!({
        "kubernetes.pod_name": "orders-5d4f-x7x2p", "kubernetes.pod_namespace": "shop",
        "kubernetes.pod_ip": "10.0.4.2", "kubernetes.pod_node_name": "node-3",
        "kubernetes.container_name": "istio-proxy", "kubernetes.pod_labels.version": "v2",
        "message": record, "timestamp": "2026-11-22T02:02:25Z",
    })
    .to_string())
}

pub(crate) fn filebeat(record: &str) -> Vec<Vec<u8>> {
    let pod = json!({
        "pod": { "name": "orders-5d4f-x7x2p", "ip": "10.0.4.2" }, "namespace": "shop", "node": { "name": "node-3" },
        "container": { "name": "istio-proxy" }, "labels": { "version": "v2" },
        "replicaset": { "name": "orders-5d4f" }, "deployment": { "name": "orders" },
    });
    one(json!({
        "@timestamp": "2026-11-22T02:02:25Z", "@metadata": { "beat": "filebeat" }, "agent": { "type": "filebeat" },
        "log": { "offset": 12, "file": { "path": "/var/log/containers/x.log" } }, "message": record,
        "kubernetes": pod, "orchestrator": { "cluster": { "name": "north" } },
    })
    .to_string())
}

pub(crate) fn logstash(record: &str) -> Vec<Vec<u8>> {
    one(json!({ "@version": "1", "@timestamp": "2026-11-22T02:02:25Z", "event": { "original": record } }).to_string())
}

pub(crate) fn otlp_json(record: &str) -> Vec<Vec<u8>> {
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let resource = PLACES.map(|(key, value)| attribute(key, value));
    let log = json!({ "timeUnixNano": "1795312945000000000", "body": { "stringValue": record }, "attributes": [] });
    one(json!({ "resourceLogs": [{
        "resource": { "attributes": resource }, "scopeLogs": [{ "scope": {}, "logRecords": [log] }],
    }] })
    .to_string())
}

pub(crate) const PLACES: [(&str, &str); 7] = [
    ("k8s.cluster.name", "north"),
    ("k8s.namespace.name", "shop"),
    ("k8s.pod.name", "orders-5d4f-x7x2p"),
    ("k8s.pod.ip", "10.0.4.2"),
    ("k8s.node.name", "node-3"),
    ("k8s.deployment.name", "orders"),
    ("k8s.pod.labels.version", "v2"),
];

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(body(value)), ..KeyValue::default() }
}

pub(crate) fn body(text: &str) -> AnyValue {
    AnyValue { value: Some(Any::StringValue(text.into())) }
}

pub(crate) fn request(log_records: Vec<LogRecord>) -> Vec<u8> {
    let attributes = PLACES.map(|(key, value)| text(key, value)).to_vec();
    let resource = Some(Resource { attributes, ..Resource::default() });
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

pub(crate) fn otlp_protobuf(record: &str) -> Vec<Vec<u8>> {
    one(request(vec![LogRecord { body: Some(body(record)), ..LogRecord::default() }]))
}

pub(crate) fn syslog(record: &str) -> Vec<Vec<u8>> {
    one(format!(r#"<165>1 2026-11-22T02:02:25.003Z node-3 envoy 812 - [origin ip="10.0.4.2"] {record}"#))
}

pub(crate) fn syslog_bsd(record: &str) -> Vec<Vec<u8>> {
    one(format!("<34>Nov 22 02:02:25 node-3 envoy[812]: {record}"))
}

pub(crate) fn cri_in_docker_in_filebeat(record: &str) -> Vec<Vec<u8>> {
    let texts = |records: Vec<Vec<u8>>| String::from_utf8(records.into_iter().next().unwrap()).unwrap();
    filebeat(&texts(docker(&texts(cri(record)))))
}

pub(crate) fn four_deep(record: &str) -> Vec<Vec<u8>> {
    let text = String::from_utf8(cri_in_docker_in_filebeat(record).remove(0)).unwrap();
    otlp_json(&text)
}

pub(crate) const ENVELOPES: &[(&str, Wrap)] = &[
    ("none", |record| one(record)),
    ("cri", cri),
    ("cri, three pieces", cri_partial),
    ("docker json-file", docker),
    ("fluent bit", fluent_bit),
    ("fluent bit, two pieces", fluent_bit_partial),
    ("fluent bit, Merge_Log", merged),
    ("fluent bit, log_processed", processed),
    ("fluentd", fluentd),
    ("vector", vector),
    ("vector, flat", vector_flat),
    ("filebeat", filebeat),
    ("logstash", logstash),
    ("otlp json", otlp_json),
    ("otlp protobuf", otlp_protobuf),
    ("syslog rfc 5424", syslog),
    ("syslog rfc 3164", syslog_bsd),
    ("cri in docker in filebeat", cri_in_docker_in_filebeat),
    ("… in otlp: four deep", four_deep),
];
