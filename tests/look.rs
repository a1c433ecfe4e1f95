//! The first hour: from a topic or a file, as some shipper filled it, to true sentences and a configuration that works.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use support::{
    kafka::Kafka,
    parts::{Part, present},
};

const SERVICES: [&str; 4] = ["cart", "orders", "payments", "stock"];

/// Envoy's line of a call, of which the called's proxy reports. `verified` has the identity keys.
fn line(number: usize, verified: bool) -> String {
    let (source, destination) = (SERVICES[number % 3], SERVICES[number % 3 + 1]);
    let mut line = json!({
        "start_time": format!("2026-11-22T02:{:02}:{:02}.122Z", number / 60 % 60, number % 60),
        "duration": number % 40, "method": "GET", "path": format!("/v1/items/{number}?token=hunter2"),
        "protocol": "HTTP/1.1", "response_code": 200, "bytes_received": 0, "bytes_sent": 300,
        "request_id": format!("request-{number}"), "x_forwarded_for": null,
        "downstream_remote_address": format!("10.0.0.{}:32830", number % 3),
        "downstream_local_address": format!("10.0.1.{}:8080", number % 3),
        "upstream_cluster": "inbound|8080||", "authority": format!("{destination}.shop:8080"),
    });
    if verified {
        line["downstream_peer_uri_san"] = format!("spiffe://mesh.test/ns/shop/sa/{source}").into();
        line["downstream_local_uri_san"] = format!("spiffe://mesh.test/ns/shop/sa/{destination}").into();
    }
    line.to_string()
}

/// As Fluent Bit ships it from a node.
fn shipped(line: &str) -> String {
    let pod = json!({"pod_name": "orders-7d6c6c7775-49tpt", "namespace_name": "shop", "container_name": "istio-proxy"});
    json!({"date": 1_795_312_944.5, "log": format!("{line}\n"), "stream": "stdout", "kubernetes": pod}).to_string()
}

fn qualm(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qualm")).args(arguments).current_dir(folder).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_file_is_told_in_sentences_and_ends_in_a_configuration_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines: Vec<String> = (0..3000).map(|number| shipped(&line(number, true))).collect();
    lines.push(shipped("2026-11-22T02:00:00Z info starting up"));
    lines.push(shipped(&line(1, true)[..200]));
    fs::write(folder.path().join("node.log"), lines.join("\n")).unwrap();
    let output = qualm(folder.path(), &["look", "node.log"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}{}", String::from_utf8_lossy(&output.stderr));
    for sentence in [
        "node.log: 3002 records",
        "istio_json",
        "3 identities call 3 destinations over 3 edges; 3 of them are proven by a certificate (100 % of the calls).",
        "shop/cart ──▶ shop/orders",
        "foreign",
        "invalid: syntax",
        "yes    who calls",
        "no     does it speak with another TLS stack",
        r#""tls_ja4_fingerprint": "%TLS_JA4_FINGERPRINT%""#,
        "Configuration written to qualm.toml",
    ] {
        assert!(told.contains(sentence), "`{sentence}` is missing in\n{told}");
    }
    assert!(!told.contains("hunter2"), "a secret is shown:\n{told}");
    let check = qualm(folder.path(), &["check", "--config", "qualm.toml"]);
    assert!(!said(&check).contains("fail "), "{}", said(&check));
    // It is left as it is by whoever looks once more.
    let before = fs::read(folder.path().join("qualm.toml")).unwrap();
    assert!(said(&qualm(folder.path(), &["look", "node.log"])).contains("is there already"));
    assert_eq!(fs::read(folder.path().join("qualm.toml")).unwrap(), before);
}

#[test]
fn what_is_missing_is_told_with_the_lines_to_add() {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..2000).map(|number| line(number, false)).collect();
    fs::write(folder.path().join("access.log"), lines.join("\n")).unwrap();
    let told = said(&qualm(folder.path(), &["look", "access.log", "--write", "-"]));
    assert!(told.contains("no     who calls, proven by a certificate"), "{told}");
    assert!(told.contains(r#""downstream_peer_uri_san": "%DOWNSTREAM_PEER_URI_SAN%""#), "{told}");
    assert!(told.contains("[[file]]") && told.contains("format = \"auto\""), "{told}");
    let json = qualm(folder.path(), &["look", "access.log", "--json"]);
    let summary: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((summary["records"].as_u64(), summary["verified_share"].as_f64()), (Some(2000), Some(0.0)));
    assert!(!folder.path().join("qualm.toml").exists(), "scripts get no file that they did not ask for");
}

#[test]
fn what_cannot_be_understood_is_told_with_an_example_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("app.log"), "the quick brown fox\n".repeat(100)).unwrap();
    let output = qualm(folder.path(), &["look", "app.log"]);
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("the quick brown fox"), "{}", said(&output));
    assert!(problem.contains("nothing was understood") && problem.contains("qualm formats"), "{problem}");
    assert!(!folder.path().join("qualm.toml").exists());
}

#[test]
fn columns_that_a_shipped_mapping_reads_are_told_and_configured_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let edge = |number: usize| format!("192.0.2.{},198.51.100.9,07/01/1998-08:{:02},-", number % 7, number % 60);
    fs::write(folder.path().join("edges.csv"), (0..500).map(edge).collect::<Vec<_>>().join("\n")).unwrap();
    let output = qualm(folder.path(), &["look", "edges.csv"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("what the mapping datasets/mappings/darpa-edges.toml reads"), "{told}");
    assert!(told.contains("500 records") && told.contains("7 identities call"), "{told}");
    let check = said(&qualm(folder.path(), &["check", "--config", "qualm.toml"]));
    assert!(!check.contains("fail "), "its mapping is written beside it: {check}");
}

#[test]
fn columns_that_nothing_reads_end_in_the_skeleton_of_a_mapping() {
    let folder = tempfile::tempdir().unwrap();
    let row = |number: usize| format!("{};cart;orders;{}", 1_795_312_944 + number, 200 + number % 2);
    let rows = (0..50).map(row).collect::<Vec<_>>().join("\n");
    fs::write(folder.path().join("own.csv"), format!("when;client;server;state\n{rows}")).unwrap();
    let output = qualm(folder.path(), &["look", "own.csv"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for line in ["delimiter = \";\"", "time = { column = \"when\", format = \"epoch_s\" }", "source = \"{client}\""] {
        assert!(told.contains(line), "`{line}` is missing in\n{told}");
    }
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(problem.contains("look again with --mapping"), "{problem}");
}

#[test]
fn three_commands_lead_from_a_topic_to_a_running_instance() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(folder.path());
    kafka.create_topic("mesh-logs", 3);
    let lines: Vec<String> = (0..6000).map(|number| shipped(&line(number, true))).collect();
    kafka.produce("mesh-logs", None, lines.iter().map(|line| ("orders", line.as_bytes())));
    let brokers = kafka.bootstrap();
    let output = qualm(folder.path(), &["look", "--brokers", &brokers, "--topic", "mesh-logs"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}{}", String::from_utf8_lossy(&output.stderr));
    for sentence in [
        "6000 records",
        "The topic holds 6000 records in 3 partitions",
        "3 identities call 3 destinations over 3 edges",
        "from the end of a call to the topic: p50",
    ] {
        assert!(told.contains(sentence), "`{sentence}` is missing in\n{told}");
    }
    let check = said(&qualm(folder.path(), &["check", "--config", "qualm.toml"]));
    assert!(check.contains("topic mesh-logs, 3 partitions, auto"), "{check}");
    // Nothing was joined or committed.
    let groups = kafka.groups();
    assert!(groups.is_empty(), "{groups:?}");

    let typo = qualm(folder.path(), &["look", "--brokers", &brokers, "--topic", "mesh-log"]);
    let problem = String::from_utf8_lossy(&typo.stderr).into_owned();
    assert_eq!(typo.status.code(), Some(2));
    assert!(problem.contains("topic `mesh-log` does not exist") && problem.contains("mesh-logs"), "{problem}");
}

#[test]
fn a_log_of_errors_alone_is_suspected_and_the_line_to_add_is_written_as_a_comment() {
    let folder = tempfile::tempdir().unwrap();
    let errors = (0..2000).map(|number| line(number, true).replace(":200,", ":503,"));
    fs::write(folder.path().join("errors.log"), errors.collect::<Vec<_>>().join("\n")).unwrap();
    let told = said(&qualm(folder.path(), &["look", "errors.log"]));
    assert!(told.contains("Suspected: nearly all calls are failures"), "{told}");
    let written = fs::read_to_string(folder.path().join("qualm.toml")).unwrap();
    assert!(written.contains("add filter = \"errors\""), "{written}");
    let check = said(&qualm(folder.path(), &["check", "--config", "qualm.toml"]));
    assert!(!check.contains("fail "), "{check}");
}
