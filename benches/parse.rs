//! Envoy JSON lines of about 900 bytes: our whole parse (bytes to a pushed row) beside what the fastest safe typed
//! JSON parsers need for the same lines alone; and the same lines in every envelope, of which the ratios to the bare
//! lines matter; and their content in Avro and Protobuf behind a schema id. At the end a table of every format, by CPU
//! time: what a record costs to parse, and what share that is of its way from bytes to a verdict.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/lines.rs"]
mod lines;
#[path = "../tests/support/measure.rs"]
mod measure;
#[path = "parse/records.rs"]
mod records;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use measure::process_cpu;
use qualm_ingest::{
    parse::{Format, Parser},
    registry::Reading,
};
use qualm_model::event::{EventBuilder, Position};
use qualm_scorer::{config::ScorerConfig, scorer::Scorer};
use serde::Deserialize;

const LINES: usize = 4096;
/// Lines of a run of wrapped ones: about what a read brings, so that it is not the memory that is measured.
const READ_LINES: usize = 512;

/// What the others fill: every key of the line, texts borrowed.
#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct Line<'a> {
    authority: Option<&'a str>,
    bytes_received: u64,
    bytes_sent: u64,
    connection_termination_details: Option<&'a str>,
    downstream_local_address: Option<&'a str>,
    downstream_local_uri_san: Option<&'a str>,
    downstream_peer_uri_san: Option<&'a str>,
    downstream_remote_address: Option<&'a str>,
    duration: u64,
    method: Option<&'a str>,
    path: Option<&'a str>,
    protocol: Option<&'a str>,
    request_id: Option<&'a str>,
    requested_server_name: Option<&'a str>,
    response_code: u16,
    response_code_details: Option<&'a str>,
    response_flags: Option<&'a str>,
    route_name: Option<&'a str>,
    start_time: &'a str,
    upstream_cluster: Option<&'a str>,
    upstream_host: Option<&'a str>,
    upstream_local_address: Option<&'a str>,
    upstream_service_time: Option<&'a str>,
    upstream_transport_failure_reason: Option<&'a str>,
    user_agent: Option<&'a str>,
    x_forwarded_for: Option<&'a str>,
}

fn envoy_lines() -> Vec<String> {
    let services = ["cart", "orders", "payments", "catalog", "search", "users", "mail", "stock"];
    let line = |number: usize| {
        let (source, destination) = (services[number * 7 % 8], services[(number * 7 + 1 + number % 3) % 8]);
        let (replica, second, id) = (number % 5, number / 50 % 60, number * 2_654_435_761 % 1_000_003);
        format!(
            r#"{{"authority":"{destination}.shop:8080","bytes_received":{received},"bytes_sent":{sent},"connection_termination_details":null,"downstream_local_address":"10.0.4.{replica}:8080","downstream_local_uri_san":"spiffe://mesh.test/ns/shop/sa/{destination}","downstream_peer_uri_san":"spiffe://mesh.test/ns/shop/sa/{source}","downstream_remote_address":"10.0.2.{replica}:{port}","duration":{duration},"method":"GET","path":"/v1/{destination}/items/{id}?page={replica}","protocol":"HTTP/1.1","request_id":"80f862cd-fe22-4f4a-8c46-{id:012x}","requested_server_name":"outbound_.8080_._.{destination}.shop.svc.cluster.local","response_code":200,"response_code_details":"via_upstream","response_flags":"-","route_name":"default","start_time":"2026-11-22T02:02:{second:02}.{milli:03}Z","upstream_cluster":"inbound|8080||","upstream_host":"10.0.4.{replica}:8080","upstream_local_address":"127.0.0.6:36612","upstream_service_time":"{duration}","upstream_transport_failure_reason":null,"user_agent":"python-requests/2.31","x_forwarded_for":null}}"#,
            received = id % 977,
            sent = id % 9_973,
            port = 32_768 + id % 28_000,
            duration = id % 37,
            milli = number % 1000,
        )
    };
    (0..LINES).map(line).collect()
}

fn parse(c: &mut Criterion) {
    let lines = envoy_lines();
    let bytes: usize = lines.iter().map(String::len).sum();
    assert!((880..960).contains(&(bytes / LINES)), "{} bytes a line", bytes / LINES);
    let mut group = c.benchmark_group("envoy_json");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("qualm", |b| {
        let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
        let mut builder = EventBuilder::new();
        b.iter(|| {
            for (offset, line) in (0..).zip(&lines) {
                parser.parse(line.as_bytes(), Position { offset, ..Position::default() }, &mut builder).unwrap();
            }
            black_box(builder.finish());
        });
    });
    group.bench_function("sonic_rs", |b| {
        b.iter(|| {
            for line in &lines {
                black_box(sonic_rs::from_slice::<Line<'_>>(line.as_bytes()).unwrap());
            }
        });
    });
    group.bench_function("simd_json", |b| {
        let mut buffers = simd_json::Buffers::default();
        let mut copy = Vec::new();
        b.iter(|| {
            for line in &lines {
                // It writes into its input.
                copy.clear();
                copy.extend_from_slice(line.as_bytes());
                black_box(simd_json::serde::from_slice_with_buffers::<Line<'_>>(&mut copy, &mut buffers).unwrap());
            }
        });
    });
    group.bench_function("serde_json", |b| {
        b.iter(|| {
            for line in &lines {
                black_box(serde_json::from_slice::<Line<'_>>(line.as_bytes()).unwrap());
            }
        });
    });
    group.finish();
}

/// Pods whose lines come in turns.
const PODS: usize = 100;
/// Lines of a collector's request of several.
const REQUEST_LINES: usize = 50;

/// A pod, whose name has its ReplicaSet's and its own letters, as Kubernetes makes them.
struct Pod {
    name: String,
    metadata: String,
}

impl Pod {
    fn new(number: usize) -> Self {
        let letters = |of: usize, count: u32| -> String {
            let alphabet = b"bcdfghjklmnpqrstvwxz2456789";
            (0..count).map(|place| char::from(alphabet[of / alphabet.len().pow(place) % alphabet.len()])).collect()
        };
        let service = ["orders", "cart", "payments", "stock"][number % 4];
        let (replica_set, own) = (letters(number / 4 * 7_654_321 + 99_991, 9), letters(number * 2_654_435 + 77_777, 5));
        let name = format!("{service}-{replica_set}-{own}");
        Self { metadata: metadata(service, &replica_set, &name, number), name }
    }
}

/// What a pod's lines carry with them in Fluent Bit's words; Vector and Filebeat say about as much.
fn metadata(service: &str, replica_set: &str, name: &str, number: usize) -> String {
    format!(
        r#"{{"pod_name":"{name}","namespace_name":"shop","pod_id":"0b1f8a4e-8d1c-4c55-9a39-{number:012x}","labels":{{"app":"{service}","pod-template-hash":"{replica_set}","security.istio.io/tlsMode":"istio","service.istio.io/canonical-name":"{service}","version":"v2"}},"annotations":{{"kubectl.kubernetes.io/default-container":"{service}","prometheus.io/path":"/stats/prometheus","prometheus.io/port":"15020","prometheus.io/scrape":"true"}},"host":"node-3","pod_ip":"10.0.4.{number}","container_name":"istio-proxy","container_image":"docker.io/istio/proxyv2:1.26.0"}}"#
    )
}

/// The name of an envelope, and a line in it.
type Wrap = (&'static str, fn(&str, &Pod) -> String);

const ENVELOPES: [Wrap; 8] = [
    ("none", |line, _| line.to_owned()),
    ("cri", |line, _| format!("2026-11-22T02:02:25.000000001Z stdout F {line}")),
    ("docker", |line, _| {
        let log = json(&format!("{line}\n"));
        format!(r#"{{"log":{log},"stream":"stdout","time":"2026-11-22T02:02:25.000000001Z"}}"#)
    }),
    ("fluent_bit", |line, Pod { metadata, .. }| {
        let log = json(line);
        format!(r#"{{"@timestamp":1795312945.5,"stream":"stdout","logtag":"F","log":{log},"kubernetes":{metadata}}}"#)
    }),
    ("fluent_bit_merged", |line, Pod { metadata, .. }| {
        format!(r#"{},"kubernetes":{metadata}}}"#, line.strip_suffix('}').unwrap())
    }),
    ("filebeat", |line, Pod { metadata, .. }| {
        let message = json(line);
        format!(
            r#"{{"@timestamp":"2026-11-22T02:02:25.000Z","@metadata":{{"beat":"filebeat","type":"_doc"}},"log":{{"offset":12,"file":{{"path":"/var/log/containers/orders.log"}}}},"message":{message},"stream":"stdout","kubernetes":{metadata},"agent":{{"type":"filebeat"}},"ecs":{{"version":"8.0.0"}}}}"#
        )
    }),
    ("syslog", |line, _| format!("<165>1 2026-11-22T02:02:25.003Z node-3 envoy 812 - - {line}")),
    ("otlp_json", |line, pod| otlp_json([line], pod)),
];

/// A request of a pod's lines.
fn otlp_json<'a>(lines: impl IntoIterator<Item = &'a str>, Pod { name, .. }: &Pod) -> String {
    let record = |line| {
        let body = json(line);
        format!(r#"{{"timeUnixNano":"1795312945000000000","body":{{"stringValue":{body}}}}}"#)
    };
    let records = lines.into_iter().map(record).collect::<Vec<_>>().join(",");
    format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"k8s.pod.name","value":{{"stringValue":"{name}"}}}}]}},"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#
    )
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn envelopes(c: &mut Criterion) {
    let mut lines = envoy_lines();
    lines.truncate(READ_LINES);
    let pods: Vec<Pod> = (0..PODS).map(Pod::new).collect();
    let wrapped = |(name, wrap): Wrap| -> (&str, Vec<String>) {
        (name, lines.iter().zip(pods.iter().cycle()).map(|(line, pod)| wrap(line, pod)).collect())
    };
    let requests = lines.chunks(REQUEST_LINES).zip(pods.iter().cycle());
    let requests = requests.map(|(lines, pod)| otlp_json(lines.iter().map(String::as_str), pod)).collect();
    let mut group = c.benchmark_group("envelopes");
    for (name, wrapped) in ENVELOPES.map(wrapped).into_iter().chain([("otlp_json_of_50", requests)]) {
        group.throughput(Throughput::Elements(READ_LINES as u64));
        group.bench_function(name, |b| {
            let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
            let mut builder = EventBuilder::new();
            b.iter(|| {
                for (offset, line) in (0..).zip(&wrapped) {
                    parser.parse(line.as_bytes(), Position { offset, ..Position::default() }, &mut builder).unwrap();
                }
                black_box(builder.finish());
            });
        });
    }
    group.finish();
}

/// Times that all records of a sample are read before the next measurement.
const PASSES: usize = 64;
/// Measurements, of which the median counts.
const ROUNDS: usize = 15;
/// Calls of the generated mesh that are judged, to say what a verdict costs.
const JUDGED: usize = 50_000;

fn median(mut measured: Vec<Duration>) -> f64 {
    measured.sort();
    measured[measured.len() / 2].as_secs_f64()
}

/// Seconds that the records of a format take to be read, and the events that they become.
fn reading(format: Format, records: &[&str]) -> (f64, usize) {
    let mut parser = Parser::for_format(format, None).unwrap();
    let mut builder = EventBuilder::new();
    let (mut offset, mut events, mut measured) = (0, 0, Vec::new());
    for _ in 0..ROUNDS {
        let begun = process_cpu();
        for _ in 0..PASSES {
            for record in records {
                offset += 1;
                let position = Position { offset, ..Position::default() };
                let _ = black_box(parser.parse(record.as_bytes(), position, &mut builder));
            }
        }
        events = builder.finish().len();
        measured.push(process_cpu() - begun);
    }
    (median(measured), events)
}

/// Seconds that judging one event takes, of the generated mesh: a sample that is read again and again is a repetition,
/// and those cost next to nothing.
fn judging() -> f64 {
    let lines = lines::of_quiet_mesh(JUDGED);
    let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
    let mut builder = EventBuilder::new();
    let (mut scorer, mut verdicts, mut measured) = (Scorer::new(ScorerConfig::default()), Vec::new(), Vec::new());
    for (offset, line) in (1..).zip(&lines) {
        parser.parse(line, Position { offset, ..Position::default() }, &mut builder).unwrap();
        if builder.len() == 4096 {
            let batch = builder.finish();
            let begun = process_cpu();
            scorer.open(&batch);
            for event in batch.events() {
                black_box(scorer.observe(event, event.report(), &mut verdicts));
            }
            measured.push(process_cpu() - begun);
        }
    }
    median(measured) / 4096.0
}

/// The formats' own samples. Records that become no event (parts, foreign ones) are read too.
fn formats(_: &mut Criterion) {
    let verdict = judging();
    println!("\njudging an event of the generated mesh: {:.0} ns", verdict * 1e9);
    println!(
        "format             bytes a record   events/records   ns a record    MB/s   parsing's share of bytes to verdict"
    );
    for &format in Format::ALL.iter().filter(|format| format.is_named()) {
        let records: Vec<&str> = format.sample().lines().collect();
        let bytes: usize = records.iter().map(|record| record.len()).sum();
        let (seconds, events) = reading(format, &records);
        let an_event = seconds / events as f64;
        println!(
            "{format:<18} {:>14} {:>9}/{:<6} {:>13.0} {:>7.0} {:>10.2}",
            bytes / records.len(),
            events / PASSES,
            records.len(),
            seconds * 1e9 / (PASSES * records.len()) as f64,
            (PASSES * bytes) as f64 / 1e6 / seconds,
            an_event / (an_event + verdict),
        );
    }
}

/// The same content as JSON, and as Avro and Protobuf behind a schema id: from bytes to a pushed row.
fn registry(c: &mut Criterion) {
    let mut lines = envoy_lines();
    lines.truncate(READ_LINES);
    let (mut rows, forms) = records::forms(&lines);
    let mut group = c.benchmark_group("registry");
    for (name, records) in forms {
        group.throughput(Throughput::Elements(READ_LINES as u64));
        group.bench_function(name, |b| {
            let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
            let mut builder = EventBuilder::new();
            b.iter(|| {
                let now = Instant::now();
                for (offset, record) in (0..).zip(&records) {
                    let row = match rows.read(record, now) {
                        Reading::Bare => record,
                        Reading::Row(row) => row,
                        other => panic!("{other:?}"),
                    };
                    parser.parse(row, Position { offset, ..Position::default() }, &mut builder).unwrap();
                }
                black_box(builder.finish());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parse, envelopes, registry, formats);
criterion_main!(benches);
