//! Avro and Protobuf in a real Kafka, with a real schema registry that goes away and comes back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../ingest/tests/support/mod.rs"]
mod records;
mod support;

use std::process::Command;

use records::{ACCESS_AVRO, ACCESS_JSON, access_avro_at, access_proto_at, framed};
use serde_json::json;
use support::{
    discovery::now,
    kafka::Kafka,
    parts::{Part, present},
    ports,
    qualm::{Qualm, check},
    registry::SchemaRegistry,
    wait::{PATIENCE, until_true},
};

const TOPIC: &str = "mesh.access";
/// The Protobuf schema, whose message is in another file.
const MAIN: &str = r#"syntax = "proto3"; package main; import "google/protobuf/timestamp.proto"; import "code.proto";
message Access { google.protobuf.Timestamp start_time = 1; string method = 2; string path = 3;
  code.Code response_code = 4; string downstream_remote_address = 5; }"#;
const CODE: &str = r#"syntax = "proto3"; package code; enum Code { option allow_alias = false; NONE = 0; }"#;

/// Ids of the schemas, the same whenever they are registered in this order.
#[derive(Debug, PartialEq)]
struct Ids {
    avro: u32,
    proto: u32,
    newer: u32,
}

fn register(registry: &SchemaRegistry) -> Ids {
    let avro = registry.register("mesh.access-value", "AVRO", ACCESS_AVRO, &json!([]));
    registry.register("code", "PROTOBUF", CODE, &json!([]));
    let code = json!([{ "name": "code.proto", "subject": "code", "version": 1 }]);
    let proto = registry.register("mesh.proto-value", "PROTOBUF", MAIN, &code);
    // The same record under another name: another id.
    let newer = registry.register("newer-value", "AVRO", &ACCESS_AVRO.replace("Access", "Newer"), &json!([]));
    Ids { avro, proto, newer }
}

fn config(kafka: &Kafka, registry: &SchemaRegistry, http: u16) -> String {
    format!(
        r#"
[[kafka]]
brokers = "{}"
topics = [{{ name = "{TOPIC}" }}]
registry = {{ url = "{}", timeout_s = 2 }}
[alerts]
stdout = true
[observe]
address = "127.0.0.1:{http}"
[state]
snapshot_every = "1s"
"#,
        kafka.bootstrap(),
        registry.url()
    )
}

fn count(qualm: &Qualm, sample: &str) -> usize {
    qualm.metric(sample).map_or(0, |value| value as usize)
}

fn produce(kafka: &Kafka, partition: i32, records: &[Vec<u8>]) {
    kafka.produce(TOPIC, Some(partition), records.iter().map(|record| ("key", record.as_slice())));
}

fn paths(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("/orders/{number}"))
}

#[test]
fn a_registry_that_is_killed_costs_no_record_and_holds_up_nothing_but_what_needs_it() {
    if !present(&[Part::Kafka, Part::Apicurio]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(folder.path());
    kafka.create_topic(TOPIC, 2);
    let mut registry = SchemaRegistry::start(folder.path());
    let ids = register(&registry);
    registry.open();
    let begun = now().0 / 1_000_000_000 - 60;
    let avro: Vec<_> = paths(300).map(|path| framed(ids.avro, &access_avro_at(begun, &path))).collect();
    let proto: Vec<_> = paths(300).map(|path| framed(ids.proto, &access_proto_at(begun, &path))).collect();
    produce(&kafka, 0, &avro);
    produce(&kafka, 1, &proto);

    let look = |arguments: &[&str]| {
        let mut look = Command::new(env!("CARGO_BIN_EXE_qualm"));
        look.args(["look", "--brokers", &kafka.bootstrap(), "--topic", TOPIC, "--write", "looked.toml"]);
        let output = look.args(arguments).current_dir(folder.path()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = look(&[]);
    assert!(said.contains("invalid: no_registry") && said.contains("registry = { url = "), "{said}");
    assert!(said.contains("Avro, by the looks of them") && said.contains("Protobuf, by the looks of them"), "{said}");
    let said = look(&["--registry", &registry.url()]);
    assert!(said.contains("Avro") && said.contains("Protobuf") && !said.contains("invalid"), "{said}");
    let written = std::fs::read_to_string(folder.path().join("looked.toml")).unwrap();
    assert!(written.contains("registry = { url = "), "{written}");

    let http = ports::free();
    let mut qualm = Qualm::launch(folder.path(), &config(&kafka, &registry, http), http);
    qualm.wait_until_pages();
    let events = format!("qualm_ingest_events_total{{source=\"{TOPIC}\"}}");
    until_true("all of it is read", PATIENCE, || count(&qualm, &events) == 600);

    registry.kill();
    produce(&kafka, 0, &avro);
    until_true("what is in memory is read on", PATIENCE, || count(&qualm, &events) == 900);
    let newer: Vec<_> = paths(300).map(|path| framed(ids.newer, &access_avro_at(begun, &path))).collect();
    produce(&kafka, 0, &newer);
    let waiting = format!("qualm_ingest_waiting_partitions{{source=\"{TOPIC}\"}}");
    until_true("its partition waits", PATIENCE, || count(&qualm, &waiting) == 1);
    produce(&kafka, 0, &avro);
    let time = jiff::Timestamp::from_second(begun).unwrap().to_string();
    let json = ACCESS_JSON.replace("2026-11-22T02:02:25.003Z", &time);
    let json: Vec<_> = paths(300).map(|path| json.replace("/PATH", &path).into_bytes()).collect();
    produce(&kafka, 1, &json);
    until_true("the other partition goes on", PATIENCE, || count(&qualm, &events) == 1200);
    assert!(check(qualm.folder()).contains("[kafka.registry]"), "check says that it does not answer");
    // Who writes to the partition that waits seems silent, and is not.
    let held_up = "qualm_kafka_partitions_held_up";
    until_true("what lags is seen", PATIENCE, || count(&qualm, held_up) == 1);
    let told = check(qualm.folder());
    let note =
        "1 partition has records of which none was read for 20 s or more; until ten minutes after they are, nobody's";
    assert!(told.contains(note), "{told}");

    // Also whoever starts while it is away loses nothing.
    qualm.wait_until_next_snapshot();
    qualm.kill();
    let life = qualm.output().len();
    qualm.launch_again();
    qualm.wait_until_pages();
    until_true("it waits again", PATIENCE, || count(&qualm, &waiting) == 1);
    registry.start_again(folder.path());
    assert_eq!(register(&registry), ids);
    registry.open();
    until_true("what has waited is read", PATIENCE, || count(&qualm, &events) == 600);
    until_true("nothing lags any more", PATIENCE, || count(&qualm, held_up) == 0);
    let rejected = qualm.page("/metrics").unwrap().body;
    let rejected: Vec<_> = rejected.lines().filter(|line| line.starts_with("qualm_ingest_rejected_total{")).collect();
    assert_eq!(rejected, [""; 0]);
    let life = qualm.output()[life..].to_owned();
    assert!(life.contains("registry: no answer") && life.contains("registry: it answers again"), "{life}");
    let found = check(qualm.folder());
    assert!(found.contains("schemas of"), "{found}");
    qualm.check_metrics();
}
