//! The first hour: from a topic or a file, as some shipper filled it, to true sentences and a configuration that works.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use support::{
    authority::{Authority, spiffe_id},
    caller::Caller,
    envoy::{Envoy, Sidecar},
    kafka::Kafka,
    parts::{Part, present},
    wait::{PATIENCE, until},
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

/// What `check` says of the configuration that was written, with a port of its own: somebody else may have the usual one.
fn checked(folder: &Path) -> String {
    let written = fs::read_to_string(folder.join("qualm.toml")).unwrap();
    fs::write(folder.join("checked.toml"), written + "\n[observe]\naddress = \"127.0.0.1:0\"\n").unwrap();
    said(&qualm(folder, &["check", "--config", "checked.toml"]))
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
        "shop/cart ───▶ shop/orders",
        "Envelopes: Fluent Bit or Fluentd 100.0 %.",
        "Services (4): ",
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
    let check = checked(folder.path());
    assert!(!check.contains("fail "), "{check}");
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
    let check = checked(folder.path());
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
    // Scripts get JSON and nothing else.
    let output = qualm(folder.path(), &["look", "own.csv", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["records"].as_u64(), Some(51));
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
        "it keeps them for 7.0 days",
        "3 identities call 3 destinations over 3 edges",
        "from the end of a call to the topic: p50",
    ] {
        assert!(told.contains(sentence), "`{sentence}` is missing in\n{told}");
    }
    let check = checked(folder.path());
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
    let check = checked(folder.path());
    assert!(!check.contains("fail "), "{check}");
}

/// What `look` says of lines, as JSON.
fn summary(folder: &Path, lines: &[String], arguments: &[&str]) -> Value {
    fs::write(folder.join("access.log"), lines.join("\n")).unwrap();
    let output = qualm(folder, &[&["look", "access.log", "--json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// A call as the proxy of each end reports it; the caller's clock is so many milliseconds ahead.
fn both_reports(number: usize, ahead: i64) -> [String; 2] {
    let inbound = line(number, true);
    let mut outbound: Value = serde_json::from_str(&inbound).unwrap();
    let (source, destination) = (SERVICES[number % 3], SERVICES[number % 3 + 1]);
    let began: jiff::Timestamp = outbound["start_time"].as_str().unwrap().parse().unwrap();
    outbound["start_time"] = (began + jiff::SignedDuration::from_millis(ahead)).to_string().into();
    outbound["upstream_cluster"] = format!("outbound|8080||{destination}.shop.svc.cluster.local").into();
    outbound["upstream_host"] = outbound["downstream_local_address"].take();
    outbound["downstream_peer_uri_san"] = Value::Null;
    outbound["upstream_peer_uri_san"] = format!("spiffe://mesh.test/ns/shop/sa/{destination}").into();
    outbound["upstream_local_uri_san"] = format!("spiffe://mesh.test/ns/shop/sa/{source}").into();
    outbound["upstream_local_address"] = format!("10.0.0.{}:40000", number % 3).into();
    [inbound, outbound.to_string()]
}

#[test]
fn a_call_that_both_proxies_tell_of_is_one_and_so_is_a_stream_and_what_was_delivered_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines: Vec<String> = (0..1200).flat_map(|number| both_reports(number, 0)).collect();
    lines.extend(lines[..100].to_vec());
    let periodic = |second: usize, kind: &str| {
        json!({
            "start_time": "2026-11-22T02:02:00.122Z", "duration": 1000 * second, "access_log_type": kind,
            "bytes_received": 10 * second, "bytes_sent": 3, "request_id": null, "stream_id": "stream-1",
            "downstream_remote_address": "10.0.0.1:32831", "downstream_local_address": "10.0.1.1:9000",
            "upstream_cluster": "inbound|9000||", "downstream_peer_uri_san": "spiffe://mesh.test/ns/shop/sa/cart",
            "downstream_local_uri_san": "spiffe://mesh.test/ns/shop/sa/stock",
        })
        .to_string()
    };
    lines.extend((1..30).map(|minute| periodic(60 * minute, "TcpPeriodic")).map(|line| {
        // When a periodic entry was written only the envelope tells.
        json!({ "log": line, "stream": "stdout", "time": "2026-11-22T03:02:00Z" }).to_string()
    }));
    lines.push(periodic(1800, "TcpConnectionEnd"));
    let told = summary(folder.path(), &lines, &[]);
    let counted = ["calls", "confirming", "repeated", "going_on"].map(|key| told[key].as_u64().unwrap());
    assert_eq!(counted, [1201, 1200, 100, 29], "{told:#}");
    assert_eq!(told["edges"], 4, "one name for each service: {told:#}");
    let records = told["formats"].as_array().unwrap().iter().map(|format| format["share"].as_f64().unwrap());
    assert!((records.sum::<f64>() - 1.0).abs() < 1e-9, "{told:#}");
}

#[test]
fn shares_of_records_add_up_to_all_of_them_with_pieces_of_lines_among_them() {
    let folder = tempfile::tempdir().unwrap();
    let cri = |tag: &str, text: &str| format!("2026-11-22T02:02:25.000000001Z stdout {tag} {text}");
    let mut lines = Vec::new();
    for number in 0..300 {
        let line = line(number, true);
        let (first, last) = line.split_at(100);
        lines.extend([
            cri("P", first),
            cri("F", last),
            cri("F", "2026-11-22T02:00:00Z info starting up"),
            cri("F", "{"),
        ]);
    }
    let told = summary(folder.path(), &lines, &[]);
    let shares =
        |of: &Value| of.as_object().unwrap().values().map(|tally| tally["share"].as_f64().unwrap()).sum::<f64>();
    let all = told["formats"][0]["share"].as_f64().unwrap()
        + told["parts_share"].as_f64().unwrap()
        + told["foreign"]["share"].as_f64().unwrap()
        + shares(&told["invalid"]);
    assert!((all - 1.0).abs() < 1e-9, "{told:#}");
    assert_eq!((told["parts"].as_u64(), told["envelopes"][0]["name"].as_str()), (Some(300), Some("CRI")));
}

#[test]
fn lines_in_googles_wrapping_are_found_and_the_configuration_says_where_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let wrapped = |number: usize| {
        let line: Value = serde_json::from_str(&line(number, true)).unwrap();
        json!({
            "insertId": format!("{number}"), "logName": "projects/p/logs/stdout", "jsonPayload": line,
            "resource": { "type": "k8s_container", "labels": { "cluster_name": "north", "pod_name": "cart-1" } },
            "timestamp": "2026-11-22T02:02:25Z",
        })
        .to_string()
    };
    let lines: Vec<String> = (0..600).map(wrapped).collect();
    fs::write(folder.path().join("export.json"), lines.join("\n")).unwrap();
    let told = said(&qualm(folder.path(), &["look", "export.json", "--cluster", "north"]));
    assert!(told.contains("The line stands at /jsonPayload of each record"), "{told}");
    assert!(told.contains("3 identities call 3 destinations"), "{told}");
    let written = fs::read_to_string(folder.path().join("qualm.toml")).unwrap();
    assert!(written.contains("envelope = \"/jsonPayload\"") && written.contains("cluster = \"north\""), "{written}");
    let check = checked(folder.path());
    assert!(!check.contains("fail ") && !check.contains("no `cluster`"), "{check}");
    let named = said(&qualm(folder.path(), &["look", "export.json", "--envelope", "/jsonPayload", "--write", "-"]));
    assert!(named.contains("3 identities call 3 destinations"), "{named}");
}

#[test]
fn a_container_that_is_not_known_as_a_proxys_is_named_with_the_key_that_says_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = |number: usize| shipped(&line(number, true)).replace("\"istio-proxy\"", "\"my-envoy\"");
    let lines: Vec<String> = (0..600).map(shipped).collect();
    fs::write(folder.path().join("node.log"), lines.join("\n")).unwrap();
    let told = said(&qualm(folder.path(), &["look", "node.log"]));
    assert!(told.contains("600 records name certificates, and were written by container my-envoy"), "{told}");
    assert!(told.contains("add proxies = [\"my-envoy\"]"), "{told}");
    assert!(!told.contains("%DOWNSTREAM_PEER_URI_SAN%"), "the lines are there: {told}");
    let written = fs::read_to_string(folder.path().join("qualm.toml")).unwrap();
    assert!(written.contains("add proxies = [\"my-envoy\"]."), "{written}");
    let believed = said(&qualm(folder.path(), &["look", "node.log", "--proxy", "my-envoy", "--write", "-"]));
    assert!(believed.contains("3 of them are proven by a certificate (100 % of the calls)"), "{believed}");
}

#[test]
fn archives_are_refused_with_the_way_to_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = vec![0; 1024];
    tar[..10].copy_from_slice(b"access.log");
    tar[257..262].copy_from_slice(b"ustar");
    fs::write(folder.path().join("logs.tar"), tar).unwrap();
    for command in [&["look", "logs.tar"][..], &["backtest", "logs.tar", "--out", "out"]] {
        let output = qualm(folder.path(), command);
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{problem}");
        assert!(problem.contains("logs.tar") && problem.contains("tar -xOf ARCHIVE"), "{problem}");
    }
}

#[test]
fn files_that_hold_no_lines_are_refused_with_the_way_to_lines() {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..50).map(|number| line(number, true)).collect();
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&lines[0]).unwrap()).unwrap();
    let utf16: Vec<u8> = format!("\u{feff}{}", lines.join("\n")).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let files: [(&str, Vec<u8>, &str); 4] = [
        ("array.json", format!("[{}]", lines.join(",\n")).into_bytes(), "jq -c '.[]' FILE | qualm look -"),
        ("pretty.json", pretty.repeat(3).into_bytes(), "jq -c . FILE | qualm look -"),
        ("utf16.log", utf16, "iconv -f UTF-16 -t UTF-8"),
        ("empty.log", Vec::new(), "nothing was understood"),
    ];
    fs::create_dir(folder.path().join("logs")).unwrap();
    let refused = |name: &str, remedy: &str| {
        let output = qualm(folder.path(), &["look", name]);
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{name}: {problem}");
        assert!(problem.contains(name) && problem.contains(remedy), "{name}: {problem}");
    };
    for (name, content, remedy) in files {
        fs::write(folder.path().join(name), content).unwrap();
        refused(name, remedy);
    }
    refused("logs", "name the files in it");
}

#[test]
fn of_a_packed_file_that_was_cut_off_what_is_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..20_000).map(|number| line(number, true)).collect();
    let packed = zstd::encode_all(lines.join("\n").as_bytes(), 1).unwrap();
    fs::write(folder.path().join("cut.zst"), &packed[..packed.len() / 2]).unwrap();
    let output = qualm(folder.path(), &["look", "cut.zst"]);
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{problem}");
    assert!(problem.contains("still being written, or was cut off"), "{problem}");
    assert!(said(&output).contains("3 identities call 3 destinations"), "{}", said(&output));
}

#[test]
fn a_clock_that_differs_from_all_others_is_found_in_a_file_by_both_ends_reports() {
    let folder = tempfile::tempdir().unwrap();
    // The proxies of the first service are seven seconds ahead: it calls two others.
    let reports = |number: usize| both_reports(number, if number.is_multiple_of(3) { 7000 } else { 0 });
    let mut lines: Vec<String> = (0..600).flat_map(reports).collect();
    let elsewhere = |line: String| line.replace("10.0.1.0:8080", "10.0.1.7:8080").replace("request-", "other-");
    lines.extend((0..600).flat_map(reports).map(elsewhere));
    let told = summary(folder.path(), &lines, &[]);
    assert_eq!(told["skewed"].as_array().map(Vec::len), Some(1), "{told:#}");
    assert_eq!(told["skewed"][0]["reporter"], "10.0.0.0");
    assert!((told["skewed"][0]["ahead_s"].as_f64().unwrap() - 7.0).abs() < 0.01, "{told:#}");
}

#[test]
fn workloads_that_share_a_principal_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let of_pod = |number: usize, pod: &str| {
        let line = line(number, true).replace("sa/orders", "sa/default");
        shipped(&line).replace("orders-7d6c6c7775-49tpt", pod)
    };
    let pods = ["cart-7d6c6c7775-49tpt", "mail-5d4f8b7c9d-x7x2p", "cart-v2-7d6c6c7775-2xk9p"];
    let lines: Vec<String> = (0..600).map(|number| of_pod(3 * number, pods[number % 3])).collect();
    let told = summary(folder.path(), &lines, &[]);
    assert_eq!(told["shared"][0]["workloads"], json!(["cart", "mail"]), "two versions are one: {told:#}");
    let told = said(&qualm(folder.path(), &["look", "access.log", "--write", "-"]));
    assert!(told.contains("shop/default is shared by 2 workloads: cart, mail."), "{told}");
}

/// A line as each shipper would send it from the pod that wrote it, by the name under which `look` tells of it.
fn wrapped(line: &str) -> [(&'static str, String); 10] {
    const TIME: &str = "2026-11-30T02:02:25.000000001Z";
    let fluent =
        json!({ "pod_name": "orders-5d4f8b7c9d-x7x2p", "namespace_name": "shop", "container_name": "istio-proxy" });
    let vector =
        json!({ "pod_name": "orders-5d4f8b7c9d-x7x2p", "pod_namespace": "shop", "container_name": "istio-proxy" });
    let beats = json!({ "pod": { "name": "orders-5d4f8b7c9d-x7x2p" }, "namespace": "shop", "container": { "name": "istio-proxy" } });
    let resource =
        json!({ "attributes": [{ "key": "k8s.pod.name", "value": { "stringValue": "orders-5d4f8b7c9d-x7x2p" } }] });
    let record = json!({ "body": { "stringValue": line } });
    let otlp = json!({ "resourceLogs": [{ "resource": resource, "scopeLogs": [{ "logRecords": [record] }] }] });
    let beside = format!("{},\"kubernetes\":{fluent}}}", line.strip_suffix('}').unwrap());
    [
        ("none", line.to_owned()),
        ("CRI", format!("{TIME} stdout F {line}")),
        ("Docker's json-file", json!({ "log": format!("{line}\n"), "stream": "stdout", "time": TIME }).to_string()),
        (
            "Fluent Bit or Fluentd",
            json!({ "log": format!("{line}\n"), "stream": "stdout", "logtag": "F", "kubernetes": fluent }).to_string(),
        ),
        ("a shipper's keys beside the record's own", beside),
        (
            "Vector",
            json!({ "message": line, "source_type": "kubernetes_logs", "timestamp": TIME, "kubernetes": vector })
                .to_string(),
        ),
        (
            "Filebeat or Logstash",
            json!({ "@timestamp": TIME, "agent": { "type": "filebeat" }, "message": line, "kubernetes": beats })
                .to_string(),
        ),
        (
            "Filebeat or Logstash",
            json!({ "@version": "1", "@timestamp": TIME, "event": { "original": line } }).to_string(),
        ),
        ("OTLP logs (JSON)", otlp.to_string()),
        ("syslog", format!("<165>1 {TIME} node-3 envoy 812 - - {line}")),
    ]
}

#[test]
fn a_real_envoys_log_is_told_alike_through_every_envelope() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (cart, orders) = (spiffe_id("shop", "cart"), spiffe_id("shop", "orders"));
    let envoy = Envoy::start(folder.path(), &authority, Sidecar::new("orders", 1, None));
    let caller = Caller::new(&authority, &cart, Ipv4Addr::new(127, 0, 0, 2), &orders);
    let mut connection = caller.connect(envoy.http()).unwrap();
    for number in 0..100 {
        connection.get(&format!("/v1/items/{number}?token=hunter2")).unwrap();
    }
    let lines = until("all calls are logged", PATIENCE, || {
        let lines = fs::read_to_string(envoy.log()).unwrap_or_default();
        let is_call = |line: &&str| line.contains("/v1/items/") && line.ends_with('}');
        let calls: Vec<String> = lines.lines().filter(is_call).map(str::to_owned).collect();
        (calls.len() == 100).then_some(calls)
    });
    for place in 0..10 {
        let shipped: Vec<String> = lines.iter().map(|line| wrapped(line)[place].1.clone()).collect();
        let (name, _) = wrapped(&lines[0])[place];
        let told = summary(folder.path(), &shipped, &[]);
        assert_eq!(
            (told["envelopes"][0]["name"].as_str(), told["envelopes"][0]["share"].as_f64()),
            (Some(name), Some(1.0))
        );
        let counted = ["calls", "edges", "identities"].map(|key| told[key].as_u64());
        assert_eq!(counted, [Some(100), Some(1), Some(1)], "{name}: {told:#}");
        assert_eq!(
            (&told["formats"][0]["share"], &told["verified_share"]),
            (&json!(1.0), &json!(1.0)),
            "{name}: {told:#}"
        );
        assert_eq!(told["busiest"][0]["source"], cart, "{name}");
        assert_eq!(told["busiest"][0]["destination"], orders, "{name}");
        let text = said(&qualm(folder.path(), &["look", "access.log", "--write", "-"]));
        assert!(text.contains("shop/cart ───▶ shop/orders") && !text.contains("hunter2"), "{name}: {text}");
    }
}
