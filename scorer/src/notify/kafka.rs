//! Alerts on a Kafka topic, keyed by their id, so that all states of an episode stay in order.

use std::{fmt, time::Duration};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};

use super::{Alert, AlertsError, KafkaAlerts, Sink, SinkError};

pub(super) const NAME: &str = "kafka";

/// How long an alert may wait in librdkafka's own queue before it counts as not delivered.
const ENQUEUE: Duration = Duration::from_secs(10);

/// Produces one record an alert, acknowledged by all replicas in sync.
pub struct KafkaSink {
    producer: FutureProducer,
    topic: String,
}

impl KafkaSink {
    /// A producer for the topic. It connects in the background, again and again.
    ///
    /// # Errors
    /// When librdkafka does not accept a setting.
    pub fn new(config: &KafkaAlerts) -> Result<Self, AlertsError> {
        let mut client = ClientConfig::new();
        client.set("message.timeout.ms", "30000");
        for (key, value) in &config.settings {
            client.set(key, value);
        }
        // What at-least-once, in order, rests on is not for settings to undo.
        client.set("bootstrap.servers", &config.brokers).set("enable.idempotence", "true").set("acks", "all");
        Ok(Self { producer: client.create()?, topic: config.topic.clone() })
    }
}

impl Sink for KafkaSink {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn deliver(&mut self, alert: &Alert) -> Result<(), SinkError> {
        let record = FutureRecord::to(&self.topic).key(&alert.uid).payload(&alert.json);
        match self.producer.send(record, Timeout::After(ENQUEUE)).await {
            Ok(_) => Ok(()),
            Err((error, _)) if is_final(&error) => Err(SinkError::Refused(format!("topic {}: {error}", self.topic))),
            Err((error, _)) => Err(SinkError::Unavailable(format!("topic {}: {error}", self.topic))),
        }
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Whether the broker will never take this record, however often it is sent.
fn is_final(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessage | RDKafkaErrorCode::InvalidRecord
        )
    )
}
