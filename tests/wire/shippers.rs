//! What a shipper writes by the configuration that is printed for it, read as from a topic.

use serde_json::{Value, json};

use crate::{event_of, support::authority::spiffe_id, wire};

/// A line of an inbound proxy that says neither pod nor address of its own.
fn line() -> String {
    let line = json!({
        "start_time": "2026-11-22T02:02:24Z", "duration": 1, "method": "GET", "path": "/x", "response_code": 200,
        "upstream_cluster": "inbound|80||", "downstream_remote_address": "10.0.0.7:1",
        "downstream_peer_uri_san": spiffe_id("shop", "cart"), "downstream_local_uri_san": spiffe_id("shop", "orders"),
    });
    line.to_string()
}

fn assert_origin(record: &Value) {
    let read = event_of(record.to_string().as_bytes());
    assert_eq!(read.caller, spiffe_id("shop", "cart"), "{record}");
    let origin = [&read.cluster, &read.instance, &read.version, &read.address];
    assert_eq!(origin, ["north", "orders-5d4f-x7x2p", "v2", "10.0.4.2"], "{record}");
}

/// A value of the YAML of Fluent Bit, by the plugin and the key.
fn fluent_bit_value<'a>(text: &'a str, plugin: &str, key: &str) -> Option<&'a str> {
    let from = text.find(&format!("- name: {plugin}\n"))?;
    let lines = text[from..].lines().skip(1).take_while(|line| !line.trim_start().starts_with("- name:"));
    lines.map(str::trim).find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

#[test]
fn what_fluent_bit_ships_by_the_printed_configuration_is_read_with_its_origin() {
    for (target, container) in [("fluent-bit", "istio-proxy"), ("linkerd", "linkerd-proxy")] {
        let text = wire(&[target]);
        let value =
            |plugin: &str, key: &str| fluent_bit_value(&text, plugin, key).unwrap_or_else(|| panic!("{plugin} {key}"));
        assert_eq!(value("tail", "path"), format!("/var/log/containers/*_{container}-*.log"));
        let tag = value("tail", "tag").strip_suffix('*').unwrap();
        assert_eq!(value("kubernetes", "kube_tag_prefix"), format!("{tag}var.log.containers."), "or no pod is found");
        for plugin in ["kubernetes", "modify", "kafka"] {
            assert_eq!(value(plugin, "match"), value("tail", "tag"), "{plugin}");
        }
        assert_eq!((value("kubernetes", "labels"), value("kubernetes", "annotations")), ("on", "off"));
        assert_eq!((value("kubernetes", "merge_log"), value("kafka", "format")), ("off", "json"));
        let (set, to) = value("modify", "set").split_once(' ').unwrap();
        assert_eq!(to, "${CLUSTER}");

        let mut record = json!({
            (value("kafka", "timestamp_key").trim_matches('"')): "2026-11-22T02:02:25.000001Z",
            "stream": "stdout", "_p": "F", "log": line(),
            "kubernetes": {
                "pod_name": "orders-5d4f-x7x2p", "namespace_name": "shop", "pod_id": "0b1f", "pod_ip": "10.0.4.2",
                "labels": { "app": "orders", "version": "v2" }, "host": "node-3", "container_name": container,
                "docker_id": "4f", "container_image": "proxyv2",
            },
        });
        record[set] = json!("north");
        assert_origin(&record);
    }
}

#[test]
fn what_vector_ships_by_the_printed_configuration_is_read_with_its_origin() {
    let text = wire(&["vector"]);
    let config: toml::Table = toml::from_str(&text).unwrap();
    let inputs = |table: &toml::Value| table["inputs"][0].as_str().unwrap().to_owned();
    let sink = &config["sinks"]["qualm_kafka"];
    let origin = &config["transforms"][&inputs(sink)];
    let access = &config["transforms"][&inputs(origin)];
    assert_eq!(config["sources"][&inputs(access)]["type"].as_str(), Some("kubernetes_logs"));
    assert_eq!(access["condition"].as_str(), Some(".kubernetes.container_name == \"istio-proxy\""));
    assert_eq!(sink["encoding"]["codec"].as_str(), Some("json"));

    let mut record = json!({
        "file": "/var/log/pods/shop_orders-5d4f-x7x2p_0b1f/istio-proxy/0.log", "message": line(),
        "source_type": "kubernetes_logs", "stream": "stdout", "timestamp": "2026-11-22T02:02:25.000001Z",
        "timestamp_end": "2026-11-22T02:02:25.000001Z",
        "kubernetes": {
            "container_id": "containerd://4f", "container_image": "proxyv2", "container_name": "istio-proxy",
            "namespace_labels": { "team": "shop" }, "node_labels": { "zone": "a" },
            "pod_annotations": { "secret": "hunter2" }, "pod_ip": "10.0.4.2", "pod_ips": ["10.0.4.2"],
            "pod_labels": { "app": "orders", "version": "v2" }, "pod_name": "orders-5d4f-x7x2p",
            "pod_namespace": "shop", "pod_node_name": "node-3", "pod_owner": "ReplicaSet/orders-5d4f", "pod_uid": "0b1f",
        },
    });
    for statement in origin["source"].as_str().unwrap().lines() {
        if let Some(key) = statement.strip_prefix("del(.kubernetes.").and_then(|rest| rest.strip_suffix(')')) {
            record["kubernetes"].as_object_mut().unwrap().remove(key).unwrap_or_else(|| panic!("{key} is not there"));
        } else if let Some((key, value)) = statement.strip_prefix('.').and_then(|rest| rest.split_once(" = ")) {
            assert_eq!(value, "\"${CLUSTER}\"");
            record[key] = json!("north");
        } else {
            panic!("what does `{statement}` do?");
        }
    }
    assert!(!record.to_string().contains("hunter2"), "annotations are left out");
    assert_origin(&record);
}
