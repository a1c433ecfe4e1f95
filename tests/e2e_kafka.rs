//! Qualm on a real Kafka: no record skipped, none counted twice, whatever restarts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::BTreeSet, fs, net::TcpListener, path::Path};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::{Value, json};
use support::{
    discovery::now,
    estate::{Estate, LogLine, Pair, last_calls, misused},
    kafka::Kafka,
    mesh::{JUDGEMENT, is_about, until_armed},
    parts::{Part, present},
    ports,
    qualm::{Qualm, check, journal},
    wait::{PATIENCE, until, until_true},
};

const ACCESS: &str = "mesh.access";
/// A second topic, with a format of its own.
const JOBS: &str = "batch.jobs";
const DEAD_LETTERS: &str = "qualm.dead-letters";
const ALERTS: &str = "qualm.alerts";
const GROUP: &str = "qualm";
const PARTITIONS: i32 = 3;
/// Of both topics together.
const ALL_PARTITIONS: usize = 5;

/// A name that the operator gives; without it the state directory keeps one.
const STATIC_MEMBER: &str = r#", "group.instance.id" = "qualm-0""#;

/// A broker, a mesh's past, and a configuration that reads it.
struct Topics {
    folder: tempfile::TempDir,
    kafka: Kafka,
    past: Vec<LogLine>,
    pair: Pair,
}

impl Topics {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kafka = Kafka::start(folder.path());
        for (topic, partitions) in [(ACCESS, PARTITIONS), (JOBS, 2), (ALERTS, 1), (DEAD_LETTERS, 1)] {
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

    /// Appends `count` records of finished jobs to the other topic.
    fn append_jobs(&self, count: usize) {
        let at = now().0 / 1_000_000;
        let jobs: Vec<_> = (0..count).map(|n| (format!("host-{}", n % 7), at + n as i64)).collect();
        let lines: Vec<_> =
            jobs.iter().map(|(host, at)| json!({ "at": at, "host": host, "on": "warehouse" })).collect();
        let lines: Vec<_> = lines.iter().map(|line| line.to_string().into_bytes()).collect();
        self.kafka.produce(JOBS, None, jobs.iter().map(|(host, _)| host.as_str()).zip(lines.iter().map(Vec::as_slice)));
    }

    /// One record that cannot be read at the end of every partition.
    fn append_garbage(&self) {
        for (topic, partitions) in [(ACCESS, PARTITIONS), (JOBS, 2)] {
            for partition in 0..partitions {
                self.kafka.produce(topic, Some(partition), [("garbage", b"{not json".as_slice())]);
            }
        }
    }

    /// Calls of the busiest caller, made just now, to operations that nobody has ever asked for.
    fn deviation(&self) -> Vec<LogLine> {
        let call = &last_calls(&self.past)[&self.pair.caller];
        let line = self.past.last().unwrap();
        (0..20).map(|n| LogLine { text: misused(call, n, now()), ..line.clone() }).collect()
    }

    /// Joins a group under the name that Qualm has there, until partitions are assigned, and goes.
    fn be_of_its_name_for_a_moment(&self, group: &str, topics: &[&str]) {
        let mut client = self.kafka.client();
        client.set("group.id", group).set("group.instance.id", "qualm-0").set("enable.auto.commit", "false");
        client.set("partition.assignment.strategy", "cooperative-sticky").set("session.timeout.ms", "6000");
        let consumer: BaseConsumer = client.create().unwrap();
        consumer.subscribe(topics).unwrap();
        until_true("it is let in", PATIENCE, || {
            // It reads what comes of it, and keeps nothing.
            let _ = consumer.poll(std::time::Duration::from_millis(50));
            consumer.assignment().is_ok_and(|assigned| assigned.count() > 0)
        });
    }

    /// The record up to which the group has committed every partition of the access log, and where each ends.
    fn committed(&self) -> (Vec<i64>, Vec<i64>) {
        let consumer: BaseConsumer = self.kafka.client().set("group.id", GROUP).create().unwrap();
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(ACCESS, 0, PARTITIONS - 1);
        let committed = consumer.committed_offsets(partitions, PATIENCE).unwrap();
        let committed = committed.elements().iter().map(|one| one.offset().to_raw().unwrap_or(-1)).collect();
        let ends = (0..PARTITIONS).map(|partition| consumer.fetch_watermarks(ACCESS, partition, PATIENCE).unwrap().1);
        (committed, ends.collect())
    }

    fn config(&self, http: u16, snapshot_every: &str, properties: &str) -> String {
        format!(
            r#"
[[kafka]]
brokers = "{brokers}"
group = "{GROUP}"
topics = [
  {{ name = "{ACCESS}", format = "istio_json" }},
  {{ name = "{JOBS}", format = "mapped", mapping = "jobs.toml" }},
]
dead_letter_topic = "{DEAD_LETTERS}"
batch_records = 500
# A member that was killed is missed soon.
properties = {{ "session.timeout.ms" = "6000", "heartbeat.interval.ms" = "1000"{properties} }}

{JUDGEMENT}

[alerts.kafka]
brokers = "{brokers}"
topic = "{ALERTS}"

[observe]
address = "127.0.0.1:{http}"

[state]
directory = "state"
snapshot_every = "{snapshot_every}"
"#,
            brokers = self.kafka.bootstrap(),
        )
    }

    fn launch(&self, snapshot_every: &str, properties: &str) -> Qualm {
        let http = ports::free();
        self.launch_with(&self.config(http, snapshot_every, properties), http)
    }

    /// A second instance, with a state of its own.
    fn launch_beside(&self, snapshot_every: &str) -> Qualm {
        let http = ports::free();
        self.launch_in(&self.folder.path().join("beside"), &self.config(http, snapshot_every, ""), http)
    }

    fn launch_with(&self, config: &str, http: u16) -> Qualm {
        self.launch_in(self.folder.path(), config, http)
    }

    fn launch_in(&self, place: &Path, config: &str, http: u16) -> Qualm {
        let folder = place.join("qualm");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("jobs.toml"), JOBS_MAPPING).unwrap();
        Qualm::launch(place, config, http)
    }
}

const JOBS_MAPPING: &str = r#"
format = "jsonl"
time = { column = "at", format = "epoch_ms" }

[fields]
source = "{host}"
destination = "{on}"
"#;

/// Events that were judged in this life.
fn judged(qualm: &Qualm) -> usize {
    count(qualm, "qualm_events_scored_total")
}

/// Records that could not be read in this life.
fn unreadable(qualm: &Qualm) -> usize {
    let of = |topic| count(qualm, &format!("qualm_ingest_rejected_total{{reason=\"syntax\",source=\"{topic}\"}}"));
    of(ACCESS) + of(JOBS)
}

fn count(qualm: &Qualm, sample: &str) -> usize {
    qualm.metric(sample).map_or(0, |value| value as usize)
}

/// Waits for the garbage at the end of every partition, and until all events before it are judged: exactly so many.
fn until_all_is_judged(qualm: &Qualm, expected: usize) {
    until_true("the last record of each partition is read", PATIENCE * 2, || unreadable(qualm) == ALL_PARTITIONS);
    let read = |topic| count(qualm, &format!("qualm_ingest_events_total{{source=\"{topic}\"}}"));
    assert_eq!(read(ACCESS) + read(JOBS), expected, "none skipped, none read twice");
    until_true("all of it is judged", PATIENCE, || judged(qualm) == expected);
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
    if assigned.iter().map(|line| partitions(line)).sum::<usize>() < ALL_PARTITIONS {
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
    let mut topics = Topics::new();
    let (before, after) = topics.past.split_at(topics.past.len() / 2);
    topics.append(before);
    topics.append_jobs(500);
    let mut qualm = topics.launch("1s", "");
    qualm.wait_until_pages();
    until_true("reading has begun", PATIENCE, || judged(&qualm) > 0);

    topics.kafka.stop();
    until_true("the broker is missed", PATIENCE, || {
        count(&qualm, &format!("qualm_ingest_connection_errors_total{{source=\"{ACCESS}\"}}")) > 0
    });
    assert_eq!(qualm.page("/healthz").unwrap().status, 200);
    topics.kafka.start_again();
    topics.append(after);
    topics.append_jobs(500);
    topics.append_garbage();

    until_all_is_judged(&qualm, topics.past.len() + 1000);
    until_true("what snapshots cover is committed", PATIENCE, || {
        let (committed, ends) = topics.committed();
        committed == ends
    });
    let letters = until("every sample is in the dead-letter topic", PATIENCE, || {
        Some(topics.kafka.records(DEAD_LETTERS)).filter(|letters| letters.len() == ALL_PARTITIONS)
    });
    let places: BTreeSet<String> = letters
        .iter()
        .map(|letter| parsed(letter))
        .inspect(|letter| assert_eq!(letter["reason"], "syntax", "{letter}"))
        .map(|letter| format!("{} {}", letter["topic"], letter["partition"]))
        .collect();
    assert_eq!(places.len(), ALL_PARTITIONS, "{places:?}");
    qualm.check_metrics();
}

/// As it also happens to itself when a broker restarts while it joins: the answer is lost, and the second try is taken for
/// another member.
#[test]
fn a_member_that_another_of_its_name_put_out_joins_again_and_goes_on_where_it_was() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let topics = Topics::new();
    let (before, after) = topics.past.split_at(topics.past.len() / 2);
    topics.append(before);
    topics.append_jobs(500);
    let mut qualm = topics.launch("1s", STATIC_MEMBER);
    qualm.wait_until_pages();
    until_true("all there is is judged", PATIENCE, || judged(&qualm) == before.len() + 500);

    topics.be_of_its_name_for_a_moment(GROUP, &[ACCESS, JOBS]);
    until_true("it is put out", PATIENCE, || qualm.output().contains("another joins the group in its place"));
    topics.append(after);
    topics.append_jobs(500);
    topics.append_garbage();

    until_all_is_judged(&qualm, topics.past.len() + 1000);
    qualm.check_metrics();
}

#[test]
fn deployments_that_a_pipeline_announces_by_a_topic_are_announced_once_whatever_is_killed() {
    if !present(&[Part::Kafka]) {
        return;
    }
    const DEPLOYMENTS: &str = "deployments";
    const NAMED: &str = r#"properties = { "group.instance.id" = "qualm-0", "session.timeout.ms" = "6000" }"#;
    let topics = Topics::new();
    topics.kafka.create_topic(DEPLOYMENTS, 1);
    let announce = |payload: &str| topics.kafka.produce(DEPLOYMENTS, None, [("ci", payload.as_bytes())]);
    let http = ports::free();
    let brokers = topics.kafka.bootstrap();
    let section = format!("[announcements]\nbrokers = \"{brokers}\"\ntopic = \"{DEPLOYMENTS}\"\n{NAMED}");
    let config = format!("{}\n{section}", topics.config(http, "1h", ""));
    announce(r#"{"service":"shop/cart","for":"30m","reason":"release 42","by":"argocd"}"#);
    announce(r#"{"service":"shop/cart","for":"30 parsecs","reason":"release 43"}"#);
    let mut qualm = topics.launch_with(&config, http);
    let became = |qualm: &Qualm, outcome| count(qualm, &format!("qualm_announcements_total{{outcome=\"{outcome}\"}}"));
    until_true("both are dealt with", PATIENCE, || became(&qualm, "carried_out") + became(&qualm, "invalid") == 2);
    assert_eq!(became(&qualm, "carried_out"), 1);
    let told = qualm.output();
    assert!(told.contains("30 parsecs") && told.contains("length of time"), "{told}");

    qualm.kill();
    announce(r#"{"service":"shop/cart","for":"30m","reason":"release 44","key":"cart-44"}"#);
    announce(r#"{"service":"shop/cart","for":"30m","reason":"release 44","key":"cart-44"}"#);
    qualm.launch_again();
    until_true("the first is carried out, the second is the first", PATIENCE, || {
        (became(&qualm, "carried_out"), became(&qualm, "repeated")) == (1, 1)
    });
    assert_eq!(became(&qualm, "invalid"), 0, "what was dealt with does not come again");

    let member = fs::read_to_string(qualm.folder().join("state/member")).unwrap();
    topics.be_of_its_name_for_a_moment(&format!("qualm-announcements-{}", member.trim()), &[DEPLOYMENTS]);
    announce(r#"{"service":"shop/cart","for":"30m","reason":"release 45"}"#);
    until_true("put out by another of its name, it is back", PATIENCE, || became(&qualm, "carried_out") == 2);
    assert!(qualm.output().contains("another joins the group in its place"), "{}", qualm.output());
    qualm.check_metrics();
    qualm.stop();
    let journal = journal(qualm.folder());
    let announced = journal.lines().filter(|line| line.contains("\"kafka deployments"));
    assert_eq!(announced.count(), 3, "each has one record, with who has said so: {journal}");
    assert!(journal.contains("\"kafka deployments: argocd\""), "{journal}");
}

#[test]
fn killed_again_and_again_it_reads_on_where_its_snapshot_ends() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let topics = Topics::new();
    let total = topics.past.len() + 1000;
    topics.append_jobs(1000);
    let mut qualm = topics.launch("1s", "");
    let mut begun = 0;
    let parts: Vec<_> = topics.past.chunks(topics.past.len().div_ceil(4)).collect();
    for (life, part) in parts.into_iter().enumerate() {
        topics.append(part);
        match life {
            // Before it has done anything at all.
            0 => {}
            1 => until_true("reading has begun", PATIENCE, || judged(&qualm) > 0),
            2 => qualm.wait_until_next_snapshot(),
            // In the middle of what it has not yet saved.
            _ => {
                qualm.wait_until_next_snapshot();
                let now = judged(&qualm);
                until_true("more was judged since", PATIENCE, || judged(&qualm) > now || judged(&qualm) >= part.len());
            }
        }
        qualm.kill();
        begun = qualm.output().len();
        qualm.launch_again();
    }
    let known = until("the partitions are assigned", PATIENCE, || known(&qualm.output()[begun..]));
    assert!(known > 0, "a snapshot covers a part");
    topics.append_garbage();

    until_all_is_judged(&qualm, total - known);
    qualm.stop();
    let found = check(qualm.folder());
    assert!(found.contains("each hash fits") && found.contains("the snapshot is sound"), "{found}");
}

/// A second instance joins the group, takes some of the partitions, and goes again.
#[test]
fn partitions_that_are_taken_away_and_given_back_are_judged_once_and_let_go_with_a_snapshot() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let topics = Topics::new();
    let (before, after) = topics.past.split_at(topics.past.len() / 2);
    let (while_shared, after) = after.split_at(after.len() / 2);
    topics.append(before);
    topics.append_jobs(500);
    let mut first = topics.launch("1h", "");
    first.wait_until_pages();
    let alone = before.len() + 500;
    until_true("all of it is judged", PATIENCE, || judged(&first) == alone);
    assert_eq!(topics.committed().0, [-1001; 3], "no snapshot, no commit");

    let mut second = topics.launch_beside("1h");
    second.wait_until_pages();
    until_true("the second has partitions", PATIENCE, || second.output().contains("assigned"));
    let (committed, ends) = topics.committed();
    for (committed, end) in committed.into_iter().zip(ends) {
        assert!(committed == -1001 || committed == end, "what is let go is committed as far as it was judged");
    }
    topics.append(while_shared);
    topics.append_jobs(250);
    let shared = alone + while_shared.len() + 250;
    until_true("all of it is judged once", PATIENCE, || judged(&first) + judged(&second) >= shared);
    let by_the_second = judged(&second);
    assert_eq!(judged(&first) + by_the_second, shared);
    assert!(by_the_second > 0 && judged(&first) > alone, "both had a part");

    second.stop();
    topics.append(after);
    topics.append_jobs(250);
    topics.append_garbage();

    until_all_is_judged(&first, topics.past.len() + 1000 - by_the_second);
}

#[test]
fn a_topic_that_does_not_exist_is_one_clear_error_before_any_port_is_bound() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(folder.path());
    // Whoever bound this port first would fail with another error.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap().port();
    let topics = Topics { folder, kafka, past: Vec::new(), pair: Pair::default() };

    let mut qualm = topics.launch_with(&topics.config(http, "1s", ""), http);

    let status = until("it gives up", PATIENCE, || qualm.ended());
    assert_eq!(status.code(), Some(2));
    let output = qualm.output();
    let error = output.lines().last().unwrap();
    assert!(error.starts_with(&format!("qualm: topic `{ACCESS}`: does not exist; create it")), "{output}");
    assert!(!output.contains("ERROR") && !output.contains("WARN"), "one error, told once: {output}");
}

#[test]
fn an_identity_deviates_on_the_topic_and_one_finding_tells_it_whatever_is_killed() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let topics = Topics::new();
    topics.append(&topics.past);
    let mut qualm = topics.launch("1s", STATIC_MEMBER);
    qualm.wait_until_ready();
    until_armed(&mut qualm);

    topics.append(&topics.deviation());

    let findings = || -> Vec<Value> {
        let findings = topics.kafka.records(ALERTS).into_iter().map(|record| parsed(&record));
        findings.filter(|finding| is_about(finding, &topics.pair.caller)).collect()
    };
    until_true("the finding is told", PATIENCE, || !findings().is_empty());
    for _ in 0..2 {
        qualm.kill();
        qualm.launch_again();
        qualm.wait_until_ready();
    }
    topics.append_garbage();
    until_true("the last record of each partition is read", PATIENCE, || unreadable(&qualm) == ALL_PARTITIONS);
    qualm.stop();

    let uids: BTreeSet<String> =
        findings().iter().map(|finding| finding["finding_info"]["uid"].as_str().unwrap().to_owned()).collect();
    assert_eq!(uids.len(), 1, "{:#?}", findings());
}
