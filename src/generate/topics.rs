//! Kafka topics: one for the access log, one for each issuer's, of each cluster.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use qualm_datasets::AuthLog;
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::feed::Line;

/// How long the brokers may take for what is under way at the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait where the queue is full.
const BREATH: Duration = Duration::from_millis(5);
/// So many waits in a row without room: the brokers take nothing.
const BREATHS: u32 = 12_000;

/// Counts what did not arrive.
#[derive(Debug, Clone, Default)]
struct Deliveries {
    failed: Arc<AtomicU64>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes to topics.
pub(super) struct Topics {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
    topic: String,
}

impl Topics {
    /// A writer to `brokers`; properties are librdkafka's, `name=value`.
    pub(super) fn new(brokers: &str, topic: &str, properties: &[String]) -> Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            // What waits is bounded: 64 MB.
            .set("queue.buffering.max.kbytes", "65536");
        for property in properties {
            let Some((name, value)) = property.split_once('=') else {
                bail!("--property {property}: it must be NAME=VALUE");
            };
            config.set(name, value);
        }
        let deliveries = Deliveries::default();
        let producer = config
            .create_with_context(deliveries.clone())
            .context("the producer's settings; check --brokers and --property")?;
        Ok(Self { producer, deliveries, topic: topic.to_owned() })
    }

    /// Sends the lines of a record, keyed by who wrote it; waits where the queue is full.
    pub(super) fn write(&self, line: &Line<'_>) -> Result<()> {
        let topic = self.topic(line.cluster, line.issuer);
        for payload in line.bytes.split(|&byte| byte == b'\n').filter(|payload| !payload.is_empty()) {
            let mut record = BaseRecord::<str, [u8]>::to(&topic).key(line.writer).payload(payload);
            let mut waits = 0;
            loop {
                match self.producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        waits += 1;
                        if waits > BREATHS {
                            bail!("the brokers took nothing for a minute; check --brokers");
                        }
                        record = back;
                        std::thread::sleep(BREATH);
                    }
                    Err((error, _)) => return Err(error).with_context(|| format!("topic {topic}")),
                }
            }
        }
        Ok(())
    }

    /// Waits until everything has arrived.
    pub(super) fn finish(self) -> Result<()> {
        self.producer.flush(PATIENCE).context("the brokers did not take everything; check --brokers and the topic")?;
        match self.deliveries.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => bail!("{failed} records were not taken by the brokers; check the topic and its rights"),
        }
    }

    fn topic(&self, cluster: Option<&str>, issuer: Option<AuthLog>) -> String {
        let mut topic = self.topic.clone();
        for part in [cluster, issuer.map(AuthLog::format)].into_iter().flatten() {
            topic.push('-');
            topic.push_str(part);
        }
        topic
    }
}
