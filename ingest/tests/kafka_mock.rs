//! The Kafka source against librdkafka's mock cluster: no Kafka needed.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prometheus::Registry;
use qualm_ingest::{
    config::{KafkaConfig, TopicConfig},
    counters::IngestCounters,
    kafka::{Joining, KafkaSource, TopicKeys, Unanswered, probe, probe_there},
    parse::Format,
    source::{Batch, Incoming, Source, SourceError},
};
use qualm_model::{
    event::Positions,
    time::{Clock, Timestamp},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};

const TOPIC: &str = "mesh";
const LINE: &str = r#"{"start_time":"2026-11-22T02:02:24Z","method":"GET","path":"/PATH","response_code":200,"downstream_remote_address":"10.0.0.7:1"}"#;
/// A mock cluster needs some seconds to form a group.
const PATIENCE: Duration = Duration::from_secs(60);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, partitions, 1).unwrap();
    cluster
}

fn config(cluster: &Cluster) -> KafkaConfig {
    KafkaConfig {
        brokers: cluster.bootstrap_servers(),
        topics: vec![TopicConfig::new(TOPIC, Format::IstioJson)],
        // The mock waits for the session to end before it gives a left member's partitions away.
        properties: [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..KafkaConfig::default()
    }
}

fn start(config: &KafkaConfig, registry: &Registry) -> Result<KafkaSource, SourceError> {
    start_as(config, registry, Joining::default())
}

fn start_as(config: &KafkaConfig, registry: &Registry, joining: Joining) -> Result<KafkaSource, SourceError> {
    let counters = IngestCounters::register(registry).unwrap();
    let clock = Clock::new(|| Timestamp::from_seconds(1_800_000_000));
    KafkaSource::start(config, 7, clock, &counters, joining)
}

/// What the group has committed for partition 0, once it has committed anything.
fn committed(cluster: &Cluster) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", KafkaConfig::default().group)
        .create()
        .unwrap();
    loop {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(TOPIC, 0);
        let committed = consumer.committed_offsets(partitions, PATIENCE).unwrap();
        if let Offset::Offset(offset) = committed.elements()[0].offset() {
            return offset;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends lines whose paths are the letters of `paths`, to one partition.
fn produce(cluster: &Cluster, partition: i32, paths: &str) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for path in paths.chars() {
        let line = if path == '!' { "{\"start_time\":\"".to_owned() } else { LINE.replace("PATH", &path.to_string()) };
        producer.send(BaseRecord::<(), _>::to(TOPIC).partition(partition).payload(line.as_bytes())).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

async fn next(source: &mut KafkaSource) -> Incoming {
    tokio::time::timeout(PATIENCE, source.next()).await.expect("something happens").unwrap()
}

/// What was read: partition, offset, operation.
type Seen = BTreeSet<(i32, i64, String)>;

fn add(batch: &Batch, seen: &mut Seen) {
    for event in batch.events.events() {
        let position = event.position();
        assert_eq!(position.source, 7);
        let new = seen.insert((position.partition, position.offset, event.operation().to_owned()));
        assert!(new, "read twice: {position:?}");
    }
}

/// Answers what is asked and reads until there are `count` events.
async fn read(source: &mut KafkaSource, starts: &Positions, count: usize) -> (Seen, Positions) {
    let (mut seen, mut positions) = (Seen::new(), Positions::new());
    while seen.len() < count {
        match next(source).await {
            Incoming::Batch(batch) => {
                add(&batch, &mut seen);
                positions.extend(batch.positions);
            }
            Incoming::Assigned(partitions, answer) => {
                assert!(partitions.iter().all(|&(source, _)| source == 7));
                answer.send(starts.clone()).unwrap();
            }
            Incoming::Revoking(_, done) => done.send(positions.clone()).unwrap(),
            Incoming::End => panic!("the end of a stream"),
        }
    }
    (seen, positions)
}

fn paths(seen: &Seen) -> String {
    seen.iter().map(|(_, _, operation)| operation.trim_start_matches("GET /")).collect()
}

#[test]
fn a_probe_counts_partitions_and_names_what_is_missing() {
    let cluster = cluster(3);
    let mut config = config(&cluster);
    config.topics.push(TopicConfig { name: "nobody".into(), ..config.topics[0].clone() });
    let answers = probe(&config, PATIENCE);
    let [(first, Ok(3)), (second, Err(error))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((first.as_str(), second.as_str()), (TOPIC, "nobody"));
    assert!(error.to_string().contains("topic `nobody`") && error.to_string().contains("create it"), "{error}");
    config.properties.insert("group.id".into(), "own".into());
    let answers = probe(&config, PATIENCE);
    assert!(matches!(&answers[..], [(_, Err(error))] if error.to_string().contains("set by Qualm")), "{answers:?}");
}

#[test]
fn a_topic_that_is_only_written_to_is_missed_by_the_name_of_its_own_key() {
    let cluster = cluster(1);
    let keys = TopicKeys {
        brokers: "`brokers`",
        topic: "`topic` in [alerts.kafka]",
        properties: "`settings`",
        right: "WRITE",
    };
    let ask = |brokers: &str, topic: &str| probe_there(brokers, &BTreeMap::new(), topic, keys, Duration::from_secs(5));
    assert!(ask(&cluster.bootstrap_servers(), TOPIC).is_ok());
    let error = ask(&cluster.bootstrap_servers(), "nobody").unwrap_err().to_string();
    assert!(error.contains("topic `nobody`") && error.contains("correct `topic` in [alerts.kafka]"), "{error}");
    assert!(error.contains("grant WRITE"), "{error}");
    let error = ask("127.0.0.1:1", TOPIC).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1: no answer") && error.contains("`security.protocol` in `settings`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_go_away_and_come_back_are_known_to_have_done_so() {
    let cluster = cluster(1);
    let mut config = config(&cluster);
    config.properties.insert("statistics.interval.ms".into(), "100".into());
    let source = start(&config, &Registry::new()).unwrap();
    let lag = source.lag();
    let until = async |is_away: bool| {
        let comes = async {
            while lag.unreachable_since().is_some() != is_away {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, comes).await.expect("the state of the brokers is seen");
    };
    until(false).await;
    cluster.broker_down(1).unwrap();
    until(true).await;
    cluster.broker_up(1).unwrap();
    until(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_and_a_restart_goes_on_at_the_given_positions() {
    let cluster = cluster(1);
    produce(&cluster, 0, "abcdef");
    let mut source = start(&config(&cluster), &Registry::new()).unwrap();
    let (seen, positions) = read(&mut source, &Positions::new(), 6).await;
    assert_eq!((paths(&seen), positions), ("abcdef".to_owned(), Positions::from([((7, 0), 6)])));
    // The snapshot stands at 4, behind what was read and unlike what is committed.
    source.commit(&Positions::from([((7, 0), 2)])).await.unwrap();
    drop(source);
    produce(&cluster, 0, "gh");
    let mut source = start(&config(&cluster), &Registry::new()).unwrap();
    let (seen, _) = read(&mut source, &Positions::from([((7, 0), 4)]), 4).await;
    assert_eq!(paths(&seen), "efgh");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_snapshot_the_group_goes_on_where_it_was_committed_and_nowhere_else() {
    let cluster = cluster(1);
    produce(&cluster, 0, "abcdef");
    let mut source = start(&config(&cluster), &Registry::new()).unwrap();
    read(&mut source, &Positions::new(), 6).await;
    source.commit(&Positions::from([((7, 0), 3)])).await.unwrap();
    let committed = committed(&cluster);
    assert_eq!(committed, 3);
    drop(source);
    let mut source = start(&config(&cluster), &Registry::new()).unwrap();
    let (seen, _) = read(&mut source, &Positions::new(), 3).await;
    assert_eq!(paths(&seen), "def");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_member_takes_partitions_over_without_a_record_lost_or_repeated() {
    let cluster = cluster(2);
    produce(&cluster, 0, "abc");
    produce(&cluster, 1, "uvw");
    let mut first = start(&config(&cluster), &Registry::new()).unwrap();
    let (before, positions) = read(&mut first, &Positions::new(), 6).await;
    assert_eq!(paths(&before), "abcuvw");
    let mut second = start(&config(&cluster), &Registry::new()).unwrap();
    // The first lets go of one partition, having committed; the second takes it.
    let (mut revoked, mut assigned) = (Vec::new(), Vec::new());
    while assigned.is_empty() {
        tokio::select! {
            incoming = next(&mut first) => match incoming {
                Incoming::Revoking(partitions, done) => {
                    revoked.extend(partitions);
                    done.send(positions.clone()).unwrap();
                }
                Incoming::Assigned(_, answer) => answer.send(positions.clone()).unwrap(),
                other => panic!("{other:?}"),
            },
            incoming = next(&mut second) => match incoming {
                Incoming::Assigned(partitions, answer) => {
                    assigned.extend(partitions);
                    answer.send(Positions::new()).unwrap();
                }
                other => panic!("{other:?}"),
            },
        }
    }
    assert_eq!((revoked.len(), &revoked), (1, &assigned));
    produce(&cluster, 0, "de");
    produce(&cluster, 1, "xy");
    let nothing = Positions::new();
    let ((kept, _), (taken, _)) = tokio::join!(read(&mut first, &positions, 2), read(&mut second, &nothing, 2));
    let mut both = [paths(&kept), paths(&taken)];
    both.sort();
    assert_eq!(both, ["de", "xy"]);
    assert!(taken.iter().all(|(partition, ..)| *partition == assigned[0].1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_counted_and_sampled_to_the_dead_letter_topic_at_a_bounded_rate() {
    let cluster = cluster(1);
    cluster.create_topic("dead", 1, 1).unwrap();
    produce(&cluster, 0, "a!b!!c");
    let registry = Registry::new();
    let config = KafkaConfig { dead_letter_topic: "dead".into(), dead_letters_per_minute: 2, ..config(&cluster) };
    let mut source = start(&config, &registry).unwrap();
    let (seen, _) = read(&mut source, &Positions::new(), 3).await;
    assert_eq!(paths(&seen), "abc");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["dead"]).unwrap();
    let mut letters = Vec::new();
    while letters.len() < 2 {
        // `None`: the group was formed.
        let Some(message) = consumer.poll(PATIENCE) else { continue };
        let message = message.unwrap();
        letters.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
    }
    let expected = r#"{"reason":"syntax","field":null,"remedy":"look whether the shipper cuts lines off, or name the input's `format` and `envelope`","topic":"mesh","partition":0,"offset":1,"format":"istio_json","bytes":15,"sample":"{\"start_time\":\""}"#;
    assert_eq!(letters[0], expected);
    let counted: Vec<_> = registry
        .gather()
        .iter()
        .flat_map(|family| {
            family.get_metric().iter().map(|metric| (family.name().to_owned(), metric.get_counter().get_value()))
        })
        .filter(|(_, value)| *value > 0.0)
        .collect();
    let counted: Vec<_> = counted.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(
        counted,
        [
            ("qualm_ingest_dead_letters_suppressed_total", 1.0),
            ("qualm_ingest_dead_letters_total", 2.0),
            ("qualm_ingest_events_total", 3.0),
            ("qualm_ingest_rejected_total", 3.0),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_wrong_for_ever_is_one_clear_error_at_start() {
    let cluster = cluster(1);
    let error_of = |config: &KafkaConfig| start(config, &Registry::new()).expect_err("refused").to_string();
    let own =
        KafkaConfig { properties: [("enable.auto.commit".to_owned(), "true".to_owned())].into(), ..config(&cluster) };
    assert!(error_of(&own).contains("`kafka.properties.\"enable.auto.commit\"` is set by Qualm itself"));
    let unknown = KafkaConfig { properties: [("no.such.thing".to_owned(), "1".to_owned())].into(), ..config(&cluster) };
    assert!(error_of(&unknown).contains("no.such.thing"));
    let no_topics = KafkaConfig { topics: Vec::new(), ..config(&cluster) };
    assert!(error_of(&no_topics).contains("`kafka.topics` is empty"));
    cluster.topic_error(TOPIC, rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let missing = error_of(&config(&cluster));
    assert!(missing.contains("topic `mesh`") && missing.contains("create it"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_at_the_start_fail_it_or_are_waited_for_and_what_is_wrong_fails_it_always() {
    let cluster = cluster(1);
    produce(&cluster, 0, "ab");
    let waits = || Joining { unanswered: Unanswered::Waits, ..Joining::default() };
    cluster.broker_down(1).unwrap();
    let error = start(&config(&cluster), &Registry::new()).expect_err("nobody answers").to_string();
    assert!(error.contains("no answer from the brokers"), "{error}");
    let mut source = start_as(&config(&cluster), &Registry::new(), waits()).expect("it waits");
    cluster.broker_up(1).unwrap();
    let (seen, _) = read(&mut source, &Positions::new(), 2).await;
    assert_eq!(paths(&seen), "ab");
    let unknown = KafkaConfig { properties: [("no.such.thing".to_owned(), "1".to_owned())].into(), ..config(&cluster) };
    start_as(&unknown, &Registry::new(), waits()).expect_err("a wrong property");
    cluster.topic_error(TOPIC, rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let missing = start_as(&config(&cluster), &Registry::new(), waits()).expect_err("no topic").to_string();
    assert!(missing.contains("create it"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_is_tried_again_and_counted() {
    let cluster = cluster(1);
    produce(&cluster, 0, "ab");
    let registry = Registry::new();
    let mut source = start(&config(&cluster), &registry).unwrap();
    let (seen, _) = read(&mut source, &Positions::new(), 2).await;
    assert_eq!(paths(&seen), "ab");
    cluster.broker_down(1).unwrap();
    let errors = || {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == "qualm_ingest_connection_errors_total");
        family.map_or(0.0, |family| family.get_metric()[0].get_counter().get_value())
    };
    tokio::time::timeout(PATIENCE, async {
        while errors() == 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the error is counted");
    cluster.broker_up(1).unwrap();
    produce(&cluster, 0, "c");
    let (seen, _) = read(&mut source, &Positions::from([((7, 0), 2)]), 1).await;
    assert_eq!(paths(&seen), "c");
}
