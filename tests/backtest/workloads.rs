//! Two workloads under one service account, as Fluent Bit ships their proxies' logs: which pod wrote a line is all that is
//! known of who they are.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
};

use qualm_model::time::{Span, Timestamp};
use serde_json::{Value, json};

use crate::{
    output::backtest,
    shared::{DEFAULT, Record, cart, days, heard, pods},
};

/// A line of the called's proxy in Fluent Bit's envelope.
fn line(record: &Record) -> String {
    let service = record.destination.rsplit('/').next().unwrap_or_default();
    let pod = match record.called_pod.as_str() {
        "" => format!("{service}-6d6c6c7775-49tpt"),
        pod => pod.to_owned(),
    };
    let (method, path) = record.operation.split_once(' ').unwrap();
    let time = jiff::Timestamp::from_nanosecond(i128::from(record.time.0)).unwrap();
    let mut entry = json!({
        "start_time": time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(), "duration": 0,
        "method": method, "path": path, "protocol": "HTTP/1.1", "authority": format!("{service}.shop"),
        "response_code": 200, "response_flags": "-", "bytes_received": record.bytes, "bytes_sent": 3,
        "upstream_cluster": "inbound|80||", "downstream_direct_remote_address": format!("{}:40000", record.ip),
        "downstream_peer_uri_san": record.source, "downstream_local_uri_san": record.destination,
    });
    if !record.called_ip.is_empty() {
        entry["downstream_local_address"] = json!(format!("{}:80", record.called_ip));
    }
    json!({
        "log": entry.to_string() + "\n", "stream": "stdout",
        "kubernetes": {
            "pod_name": pod, "namespace_name": "shop", "container_name": "istio-proxy", "host": "node-1",
            "labels": { "app": service },
        },
    })
    .to_string()
}

fn written(place: &std::path::Path, records: &[Record]) {
    let mut file = BufWriter::new(File::create(place).unwrap());
    records.iter().for_each(|record| writeln!(file, "{}", line(record)).unwrap());
    file.flush().unwrap();
}

#[test]
fn who_does_what_a_co_owner_of_its_service_account_does_is_found_and_named() {
    let mut records = days();
    let end = records[records.len() - 1].time;
    let at = |seconds: i64| end + Span(seconds * Span::SECOND.0);
    for i in 0..1200 {
        records.push(Record { ip: pods::REPORT_IP, ..cart(i as u64, at(i)) });
        // It goes on as ever.
        if i % 5 == 0 {
            records.push(cart(i as u64, at(i)));
        }
        if i % 60 == 0 {
            records.push(heard(i as u64 / 60, at(i)));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (log, labels) = (folder.path().join("fluent-bit.jsonl"), folder.path().join("labels.jsonl"));
    written(&log, &records);
    let rfc3339 = |time: Timestamp| jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap().to_string();
    // Whoever wrote down what happened may know the service account alone.
    let label = json!({ "start": rfc3339(end), "end": rfc3339(at(1200)), "kind": "misuse", "identities": [DEFAULT] });
    std::fs::write(&labels, format!("{label}\n")).unwrap();

    let found = backtest(&[&log], &["--labels", labels.to_str().unwrap()]);
    let lines = |name: &str| -> Vec<Value> {
        found.text(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let identity = format!("{DEFAULT}#report");
    let is_ours = |line: &Value| {
        let is_after = line["time"].as_str().is_some_and(|time| time >= rfc3339(end).as_str());
        is_after && line["subject"]["principal"] == DEFAULT && line["cause"] == "evidence"
    };
    let ours: Vec<Value> = lines("trust.jsonl").into_iter().filter(is_ours).collect();
    assert!(!ours.is_empty(), "{}", found.stdout);
    for line in &ours {
        assert_eq!((&line["identity"], &line["subject"]["workload"]), (&json!(identity), &json!("report")), "{line}");
        assert_eq!(line["co_owners"], json!(["cart", "report"]));
    }
    let last = ours.last().unwrap();
    assert_eq!(last["subject"]["instance"], pods::REPORT_IP, "in the end it is about one pod: {ours:?}");
    let alerts = lines("alerts.jsonl");
    let told = alerts
        .iter()
        .filter_map(|alert| alert["message"].as_str())
        .find(|told| told.contains("of report under default"));
    let told = told.unwrap_or_else(|| panic!("nobody is named: {alerts:?}"));
    assert!(told.contains(&format!("instance {} of report under default (namespace shop)", pods::REPORT_IP)), "{told}");
    assert!(told.contains("the identity is shared by cart and report"), "{told}");
    let report = found.report();
    assert_eq!(report["labels"]["found"], 1, "{report}");
    // Who shares is in the report in all of its forms.
    assert_eq!(report["shared_principals"], json!({ DEFAULT: ["cart", "report"] }), "{report}");
    let page = found.text("report.html");
    let row = format!("<td>{DEFAULT}</td><td>cart, report</td>");
    assert!(page.contains(&row), "{row} is not in {page}");
    let told = "is shared by cart, report: each is judged on its own";
    assert!(found.stdout.contains(told), "{}", found.stdout);
}
