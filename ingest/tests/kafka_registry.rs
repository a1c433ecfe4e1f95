//! Topics of Avro and Protobuf records, against librdkafka's mock cluster, while their registry comes and goes.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, time::Duration};

use prometheus::Registry;
use qualm_ingest::{
    config::{KafkaConfig, RegistryConfig, TopicConfig},
    counters::IngestCounters,
    kafka::{Joining, KafkaSource},
    parse::Format,
    source::{Batch, Incoming, Invalid, Rejection, Source},
};
use qualm_model::{
    event::Positions,
    time::{Clock, Timestamp},
};
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};
use serde_json::json;
use support::{ACCESS_AVRO, ACCESS_JSON, ACCESS_PROTO, RecordingRegistry, access_avro, access_proto, framed};

const TOPIC: &str = "mesh";
const PATIENCE: Duration = Duration::from_secs(60);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 2, 1).unwrap();
    cluster
}

fn start(cluster: &Cluster, registry: RegistryConfig, metrics: &Registry) -> KafkaSource {
    let config = KafkaConfig {
        brokers: cluster.bootstrap_servers(),
        topics: vec![TopicConfig::new(TOPIC, Format::Auto)],
        registry,
        ..KafkaConfig::default()
    };
    let clock = Clock::new(|| Timestamp::from_seconds(1_800_000_000));
    let counters = IngestCounters::register(metrics).unwrap();
    KafkaSource::start(&config, 0, clock, &counters, Joining::default()).unwrap()
}

fn produce(cluster: &Cluster, partition: i32, records: impl IntoIterator<Item = Vec<u8>>) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for record in records {
        producer.send(BaseRecord::<(), _>::to(TOPIC).partition(partition).payload(&record)).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// What was read of each partition, in order.
#[derive(Debug, Default)]
struct Seen {
    paths: BTreeMap<i32, String>,
    refused: Vec<Rejection>,
    lost: u64,
    positions: Positions,
}

impl Seen {
    fn add(&mut self, batch: Batch) {
        for event in batch.events.events() {
            let path = event.operation().trim_start_matches("GET /").to_owned();
            self.paths.entry(event.position().partition).or_default().push_str(&path);
        }
        self.refused.extend(batch.rejected.iter().map(|rejected| rejected.why));
        self.lost += batch.lost.iter().map(|loss| loss.records).sum::<u64>();
        self.positions.extend(batch.positions);
    }

    fn of(&self, partition: i32) -> &str {
        self.paths.get(&partition).map_or("", String::as_str)
    }
}

async fn until(source: &mut KafkaSource, seen: &mut Seen, is_enough: impl Fn(&Seen) -> bool) {
    while !is_enough(seen) {
        let incoming = tokio::time::timeout(PATIENCE, source.next()).await;
        match incoming.unwrap_or_else(|_| panic!("nothing more after {seen:?}")).unwrap() {
            Incoming::Batch(batch) => seen.add(batch),
            Incoming::Assigned(_, answer) => answer.send(Positions::new()).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

fn avro(paths: &str) -> Vec<Vec<u8>> {
    paths.chars().map(|path| framed(1, &access_avro(&format!("/{path}")))).collect()
}

fn filled() -> RecordingRegistry {
    let registry = RecordingRegistry::start();
    registry.put(1, "AVRO", ACCESS_AVRO, &json!([]));
    registry.put(2, "PROTOBUF", ACCESS_PROTO, &json!([]));
    registry
}

fn metric(metrics: &Registry, name: &str) -> f64 {
    let families = metrics.gather();
    let family = families.iter().find(|family| family.name() == name);
    family.map_or(0.0, |family| {
        family.get_metric().iter().map(|of| of.get_gauge().get_value() + of.get_counter().get_value()).sum()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_may_mix_avro_protobuf_and_json() {
    let (cluster, registry) = (cluster(), filled());
    let mixed = [
        framed(1, &access_avro("/a")),
        framed(2, &access_proto("/b")),
        ACCESS_JSON.replace("/PATH", "/c").into_bytes(),
        framed(9, b"x"),
        framed(1, &access_avro("/d")),
    ];
    produce(&cluster, 0, mixed);
    let mut source = start(&cluster, registry.config(), &Registry::new());
    let mut seen = Seen::default();
    until(&mut source, &mut seen, |seen| seen.of(0).len() == 4).await;
    assert_eq!((seen.of(0), &seen.refused[..]), ("abcd", &[Invalid::UnknownSchema.into()][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_waits_for_its_schema_and_the_others_do_not() {
    let (cluster, registry, metrics) = (cluster(), filled(), Registry::new());
    registry.be_silent(true);
    produce(&cluster, 0, avro("abcdefghij"));
    let json = |path: char| ACCESS_JSON.replace("PATH", &path.to_string()).into_bytes();
    produce(&cluster, 1, "uv".chars().map(json));
    let mut source = start(&cluster, registry.config(), &metrics);
    let mut seen = Seen::default();
    until(&mut source, &mut seen, |seen| seen.of(1) == "uv").await;
    // Its silence is noticed, and what comes meanwhile is read on beside the partition that waits.
    while metric(&metrics, "qualm_ingest_registry_requests_total") == 0.0
        || metric(&metrics, "qualm_ingest_waiting_partitions") == 0.0
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    produce(&cluster, 1, "wx".chars().map(json));
    produce(&cluster, 0, avro("kl"));
    until(&mut source, &mut seen, |seen| seen.of(1) == "uvwx").await;
    assert_eq!((seen.of(0), seen.positions.get(&(0, 0))), ("", None), "nothing is skipped");
    registry.be_silent(false);
    until(&mut source, &mut seen, |seen| seen.of(0).len() == 12).await;
    assert_eq!((seen.of(0), seen.of(1)), ("abcdefghijkl", "uvwx"), "in order, none twice, none lost");
    assert_eq!((seen.refused.len(), seen.lost, seen.positions[&(0, 0)]), (0, 0, 12));
    assert_eq!(metric(&metrics, "qualm_ingest_waiting_partitions"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_have_waited_long_enough_are_counted_and_go_by() {
    let (cluster, registry, metrics) = (cluster(), filled(), Registry::new());
    registry.be_silent(true);
    produce(&cluster, 0, avro("abc"));
    let mut source = start(&cluster, RegistryConfig { patience_s: 1, ..registry.config() }, &metrics);
    let mut seen = Seen::default();
    until(&mut source, &mut seen, |seen| seen.refused.len() == 3).await;
    assert_eq!(seen.refused, [Rejection::Invalid(Invalid::RegistryUnavailable); 3]);
    assert_eq!((seen.lost, seen.positions[&(0, 0)]), (3, 3), "they are missing, and it is known that they are");
    registry.be_silent(false);
    let mut sent = 0;
    // It is asked again by itself, less often each time.
    while seen.of(0).is_empty() {
        produce(&cluster, 0, avro("d"));
        sent += 1;
        let enough = 3 + sent;
        until(&mut source, &mut seen, |seen| seen.positions[&(0, 0)] == enough).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_the_reason_names_what_is_missing() {
    let cluster = cluster();
    produce(&cluster, 0, [framed(1, &access_avro("/a")), framed(3, ACCESS_JSON.replace("PATH", "b").as_bytes())]);
    let mut source = start(&cluster, RegistryConfig::default(), &Registry::new());
    let mut seen = Seen::default();
    until(&mut source, &mut seen, |seen| seen.of(0) == "b").await;
    assert_eq!(seen.refused, [Rejection::Invalid(Invalid::NoRegistry)]);
}
