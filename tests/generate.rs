//! `qualm generate`: the real binary, its files, and an in-process Kafka.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use qualm_ingest::{
    file::FileReader,
    parse::{Format, Parser},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
};
use serde_json::Value;

fn generate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qualm")).arg("generate").args(arguments).output().unwrap()
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn files(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn labels(file: &Path) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_directory_holds_the_logs_the_labels_and_a_card_whose_command_makes_the_same_bytes() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (place.path().join("one"), place.path().join("two"));
    let first = told(&generate(&[
        "--seed",
        "5",
        "--days",
        "0.5",
        "--attacks",
        "12",
        "--churn",
        "12",
        "--auth",
        "--users",
        "--chained",
        "0.6",
        "--reporters",
        "both",
        "--lost",
        "0.02",
        "--delay",
        "300",
        "--envelope",
        "vector",
        "--kinds",
        "peer_scan,forged_token,beacon",
        "--out",
        one.to_str().unwrap(),
    ]));
    assert!(first.contains("records,") && first.contains("honest changes"), "{first}");
    let expected = [
        "README.md",
        "auth-keycloak_json.jsonl",
        "auth-kubernetes_audit.jsonl",
        "auth-spire_server.jsonl",
        "auth-sshd.jsonl",
        "auth-vault_audit.jsonl",
        "changes.jsonl",
        "events.jsonl",
        "labels.jsonl",
    ];
    assert_eq!(files(&one), expected.map(str::to_owned).into());
    let kinds: BTreeSet<_> =
        labels(&one.join("labels.jsonl")).iter().map(|label| label["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["peer_scan", "forged_token", "beacon"].map(str::to_owned).into());

    let card = fs::read_to_string(one.join("README.md")).unwrap();
    let command = card.lines().find_map(|line| line.strip_prefix("qualm generate ")).unwrap();
    let arguments: Vec<&str> =
        command.split(' ').map(|word| if word == "DIR" { two.to_str().unwrap() } else { word }).collect();
    told(&generate(&arguments));
    for file in files(&one).into_iter().filter(|file| file != "README.md") {
        assert!(fs::read(one.join(&file)).unwrap() == fs::read(two.join(&file)).unwrap(), "{file} differs");
    }
}

#[test]
fn every_file_is_read_in_full_without_being_told_its_format() {
    let place = tempfile::tempdir().unwrap();
    for (format, envelope) in [("istio_json", "cri"), ("istio_text", "filebeat"), ("istio_json", "otlp-json")] {
        let out = place.path().join(envelope);
        told(&generate(&[
            "--days",
            "0.1",
            "--format",
            format,
            "--envelope",
            envelope,
            "--auth",
            "--out",
            out.to_str().unwrap(),
        ]));
        for file in files(&out).into_iter().filter(|file| file.starts_with("auth") || file.starts_with("events")) {
            let parser = Parser::for_format(Format::Auto, None).unwrap();
            let mut reader = FileReader::new(vec![out.join(&file)], parser, 0);
            let (mut events, mut refused) = (0, Vec::new());
            while let Some(batch) = reader.next_batch().unwrap() {
                events += batch.events.len();
                refused.extend(batch.rejected.iter().map(|rejected| rejected.why));
            }
            refused.retain(|why| *why != qualm_ingest::source::Rejection::Part);
            assert!(events > 0 && refused.is_empty(), "{envelope} {file}: {events} events, {refused:?}");
        }
    }
}

#[test]
fn a_topic_gets_the_same_lines_as_a_file_keyed_by_their_writers() {
    let place = tempfile::tempdir().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("mesh", 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    told(&generate(&["--days", "0.01", "--brokers", &brokers, "--topic", "mesh"]));
    told(&generate(&["--days", "0.01", "--out", place.path().to_str().unwrap()]));
    let text = fs::read_to_string(place.path().join("events.jsonl")).unwrap();
    let mut expected: Vec<&str> = text.lines().collect();

    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &brokers).set("group.id", "test").create().unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..2 {
        partitions.add_partition_offset("mesh", partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let mut lines = Vec::new();
    while lines.len() < expected.len() {
        let Some(record) = consumer.poll(Duration::from_secs(20)) else { break };
        let record = record.unwrap();
        assert!(!record.key().unwrap().is_empty());
        lines.push(String::from_utf8(record.payload().unwrap().to_vec()).unwrap());
    }
    lines.sort_unstable();
    expected.sort_unstable();
    assert!(lines == expected, "{} of {} lines", lines.len(), expected.len());
}

#[test]
fn clusters_have_services_of_equal_names_and_logs_of_their_own() {
    let place = tempfile::tempdir().unwrap();
    told(&generate(&[
        "--days",
        "0.05",
        "--clusters",
        "2",
        "--envelope",
        "filebeat",
        "--out",
        place.path().to_str().unwrap(),
    ]));
    let names = |cluster: &str| {
        let text = fs::read_to_string(place.path().join(cluster).join("events.jsonl")).unwrap();
        let cluster = format!(r#""cluster":{{"name":"{cluster}"}}"#);
        let names = text.lines().map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            assert!(line.contains(&cluster));
            value["kubernetes"]["deployment"]["name"].as_str().unwrap().to_owned()
        });
        names.collect::<BTreeSet<String>>()
    };
    assert!(names("north").intersection(&names("south")).count() > 15);
}

#[test]
fn what_cannot_be_generated_is_refused_with_the_switch_and_the_range() {
    for (arguments, words) in [
        (&["--out", "/nowhere", "--lost", "2"][..], "--lost 2: a share is between 0 and 1"),
        (&["--out", "/nowhere", "--kinds", "magic"], "`magic` is none of lateral_move"),
        (&["--out", "/nowhere", "--services", "3"], "between 20 and 2000"),
        (&["--out", "/nowhere", "--start", "yesterday"], "--start yesterday"),
        (&["--out", "/nowhere", "--rate", "0"], "calls_per_second = 0"),
        (&["--days", "1"], "--out DIR, or --brokers and --topic"),
    ] {
        let refused = generate(arguments);
        let error = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn so_many_records_are_enough() {
    let place = tempfile::tempdir().unwrap();
    let told = told(&generate(&["--days", "1", "--records", "500", "--out", place.path().to_str().unwrap()]));
    assert!(told.contains("500 records") && told.contains("stopped at --records"), "{told}");
    assert_eq!(fs::read_to_string(place.path().join("events.jsonl")).unwrap().lines().count(), 500);
}
