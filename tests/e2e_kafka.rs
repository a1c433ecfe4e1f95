//! Qualm on a real Kafka: no record skipped, none counted twice, whatever restarts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::{Value, json};
use support::{
    discovery::now,
    estate::{Estate, LogLine, Pair},
    kafka::Kafka,
    mesh::{JUDGEMENT, until_armed},
    parts::{Part, present},
    ports,
    qualm::Qualm,
    wait::{PATIENCE, until, until_true},
};

const ACCESS: &str = "mesh.access";
const DEAD_LETTERS: &str = "qualm.dead-letters";
const ALERTS: &str = "qualm.alerts";
const GROUP: &str = "qualm";
const PARTITIONS: i32 = 3;

/// A broker, a mesh's past, and a configuration that reads it.
struct Topic {
    folder: tempfile::TempDir,
    kafka: Kafka,
    past: Vec<LogLine>,
    pair: Pair,
}

impl Topic {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kafka = Kafka::start(folder.path());
        for (topic, partitions) in [(ACCESS, PARTITIONS), (ALERTS, 1), (DEAD_LETTERS, 1)] {
            kafka.create_topic(topic, partitions);
        }
        let present = now();
        let estate = Estate::generate(7, present);
        let past = estate.lines(present).take_while(|line| line.report.0 <= present.0 / 1_000_000).collect();
        let pair = estate.busiest_pairs().remove(0);
        Self { folder, kafka, past, pair }
    }

    /// Appends lines; the key of each chooses its partition.
    fn append(&self, lines: &[LogLine]) {
        self.kafka.produce(ACCESS, None, lines.iter().map(|line| (line.key.as_str(), line.text.as_slice())));
    }

    /// One record that cannot be read at the end of every partition.
    fn append_garbage(&self) {
        for partition in 0..PARTITIONS {
            self.kafka.produce(ACCESS, Some(partition), [("garbage", b"{not json".as_slice())]);
        }
    }

    /// Calls of the busiest caller, made just now, to operations that nobody has ever asked for.
    fn deviation(&self) -> Vec<LogLine> {
        let usual = self.past.iter().rev().map(|line| (line, parsed(&line.text)));
        let of_the_pair =
            |line: &Value| line["downstream_peer_uri_san"] == self.pair.caller && line["method"].is_string();
        let (line, call) = usual.into_iter().find(|(_, call)| of_the_pair(call)).unwrap();
        (0..20)
            .map(|n| {
                let mut call = call.clone();
                let start = now().0 / 1_000_000;
                call["start_time"] = json!(jiff::Timestamp::from_millisecond(start).unwrap().to_string());
                call["request_id"] = json!(format!("00000000-0000-4000-8000-{n:012}"));
                call["method"] = json!("POST");
                call["path"] = json!(format!("/internal/{}/export", ["users", "cards", "keys", "audit"][n % 4]));
                LogLine { text: serde_json::to_vec(&call).unwrap(), ..line.clone() }
            })
            .collect()
    }

    /// The record up to which the group has committed every partition, and where each ends.
    fn committed(&self) -> (Vec<i64>, Vec<i64>) {
        let wait = PATIENCE;
        let consumer: BaseConsumer = self.kafka.client().set("group.id", GROUP).create().unwrap();
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(ACCESS, 0, PARTITIONS - 1);
        let committed = consumer.committed_offsets(partitions, wait).unwrap();
        let committed = committed.elements().iter().map(|one| one.offset().to_raw().unwrap_or(-1)).collect();
        let ends = (0..PARTITIONS).map(|partition| consumer.fetch_watermarks(ACCESS, partition, wait).unwrap().1);
        (committed, ends.collect())
    }

    fn config(&self, http: u16) -> String {
        format!(
            r#"
[[kafka]]
brokers = "{brokers}"
group = "{GROUP}"
topics = [{{ name = "{ACCESS}", format = "istio_json" }}]
dead_letter_topic = "{DEAD_LETTERS}"
batch_records = 500
# A member that was killed is missed soon.
properties = {{ "session.timeout.ms" = "6000", "heartbeat.interval.ms" = "1000" }}

{JUDGEMENT}

[alerts.kafka]
brokers = "{brokers}"
topic = "{ALERTS}"

[observe]
address = "127.0.0.1:{http}"

[state]
directory = "state"
snapshot_every = "1s"
"#,
            brokers = self.kafka.bootstrap(),
        )
    }

    fn launch(&self) -> Qualm {
        let http = ports::free();
        Qualm::launch(self.folder.path(), &self.config(http), http)
    }
}

/// Records that became events in this life.
fn events(qualm: &Qualm) -> usize {
    count(qualm, &format!("qualm_ingest_events_total{{source=\"{ACCESS}\"}}"))
}

/// Records that could not be read in this life.
fn unreadable(qualm: &Qualm) -> usize {
    count(qualm, &format!("qualm_ingest_rejected_total{{reason=\"syntax\",source=\"{ACCESS}\"}}"))
}

fn count(qualm: &Qualm, sample: &str) -> usize {
    qualm.metric(sample).map_or(0, |value| value as usize)
}

fn parsed(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

/// How many records its snapshot covered when this life began, by its own log: `known={(0, 0): 1200, …}`.
fn known(life: &str) -> Option<usize> {
    let assigned: Vec<&str> =
        life.lines().filter(|line| line.contains("assigned") && line.contains("known={")).collect();
    let partitions = |line: &str| -> usize {
        let (_, rest) = line.split_once("partitions=").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    if assigned.iter().map(|line| partitions(line)).sum::<usize>() < PARTITIONS as usize {
        return None;
    }
    let offsets = assigned.iter().flat_map(|line| line.split_once("known={").unwrap().1.split("): ").skip(1));
    Some(offsets.map(|rest| rest.split([',', '}']).next().unwrap().parse::<usize>().unwrap()).sum())
}

#[test]
fn a_broker_that_restarts_costs_no_record_of_any_partition_and_repeats_none() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let mut topic = Topic::new();
    let all = topic.past.len();
    let (before, after) = topic.past.split_at(all / 2);
    topic.append(before);
    let qualm = topic.launch();
    until_true("reading has begun", PATIENCE, || events(&qualm) > 0);

    topic.kafka.stop();
    until_true("the broker is missed", PATIENCE, || {
        count(&qualm, &format!("qualm_ingest_connection_errors_total{{source=\"{ACCESS}\"}}")) > 0
    });
    assert_eq!(qualm.page("/healthz").unwrap().status, 200);
    topic.kafka.start_again();
    topic.append(after);
    topic.append_garbage();

    until_true("the last record of each partition is read", PATIENCE * 2, || unreadable(&qualm) == 3);
    assert_eq!(events(&qualm), all);
    assert_eq!(topic.kafka.records(DEAD_LETTERS).len(), 3);
    until_true("what snapshots cover is committed", PATIENCE, || {
        let (committed, ends) = topic.committed();
        committed == ends
    });
}

#[test]
fn killed_again_and_again_it_reads_on_where_its_snapshot_ends() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let topic = Topic::new();
    let mut qualm = topic.launch();
    let mut begun = 0;
    for part in topic.past.chunks(topic.past.len().div_ceil(3)) {
        topic.append(part);
        until_true("reading has begun", PATIENCE, || events(&qualm) > 0);
        qualm.wait_until_next_snapshot();
        qualm.kill();
        begun = qualm.output().len();
        qualm.launch_again();
    }
    let known = until("the partitions are assigned", PATIENCE, || known(&qualm.output()[begun..]));
    assert!(known > 0, "a snapshot covers a part");
    topic.append_garbage();

    until_true("the last record of each partition is read", PATIENCE * 2, || unreadable(&qualm) == 3);
    assert_eq!(known + events(&qualm), topic.past.len(), "none skipped, none counted twice");
}

#[test]
fn an_identity_deviates_on_the_topic_and_one_finding_tells_it_whatever_is_killed() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let topic = Topic::new();
    topic.append(&topic.past);
    let mut qualm = topic.launch();
    qualm.wait_until_ready();
    until_armed(&mut qualm);

    topic.append(&topic.deviation());

    let findings = || -> Vec<Value> {
        let findings = topic.kafka.records(ALERTS).into_iter().map(|record| parsed(&record));
        findings.filter(|finding| finding.to_string().contains(&topic.pair.caller)).collect()
    };
    until_true("the finding is told", PATIENCE, || !findings().is_empty());
    for _ in 0..2 {
        qualm.kill();
        qualm.launch_again();
        qualm.wait_until_ready();
    }
    topic.append_garbage();
    until_true("the last record of each partition is read", PATIENCE, || unreadable(&qualm) == 3);
    qualm.stop();

    let uids: BTreeSet<String> =
        findings().iter().map(|finding| finding["finding_info"]["uid"].as_str().unwrap().to_owned()).collect();
    assert_eq!(uids.len(), 1, "{:#?}", findings());
}
