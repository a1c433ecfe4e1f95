//! A topic of which each message is dealt with by itself and committed then: at least once, in the order of a partition.
//! For few messages that say what is to be done; logs come by [`KafkaSource`](super::KafkaSource).

use std::{collections::BTreeMap, fmt, time::Duration};

use qualm_model::time::Timestamp;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
};

use super::properties::{client_config, consumer_config};
use crate::{config::KafkaConfig, source::SourceError};

/// Where messages are, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Mailbox<'a> {
    /// `host:port` of one or more brokers.
    pub brokers: &'a str,
    /// librdkafka's properties.
    pub properties: &'a BTreeMap<String, String>,
    /// The topic.
    pub topic: &'a str,
    /// The consumer group: each group has every message.
    pub group: &'a str,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it says; empty where it says nothing.
    pub payload: Vec<u8>,
    /// When it was written, by the producer or the broker.
    pub written: Option<Timestamp>,
    /// Its partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
}

/// Reads a mailbox, from its beginning where the group has read nothing yet.
pub struct Messages {
    topic: String,
    client: ClientConfig,
    consumer: BaseConsumer<Quiet>,
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Trouble with the brokers is told by whoever reads logs from them.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka: it is tried again");
    }
}

impl ConsumerContext for Quiet {}

impl Messages {
    /// Joins the group; asks the brokers nothing yet.
    ///
    /// # Errors
    /// A property is wrong.
    pub fn subscribe(mailbox: Mailbox<'_>) -> Result<Self, SourceError> {
        let Mailbox { brokers, properties, topic, group } = mailbox;
        let config = KafkaConfig {
            brokers: brokers.to_owned(),
            group: group.to_owned(),
            properties: properties.clone(),
            ..KafkaConfig::default()
        };
        let client = consumer_config(&client_config(&config)?, &config);
        let consumer = joined(&client, topic).map_err(|error| SourceError {
            origin: format!("{brokers}, topic {topic}"),
            problem: error.to_string(),
            remedy: "correct its properties, see librdkafka's CONFIGURATION.md".to_owned(),
        })?;
        Ok(Self { topic: topic.to_owned(), client, consumer })
    }

    /// The next message, if one comes within `patience`. Blocks.
    pub fn next(&mut self, patience: Duration) -> Option<Message> {
        // A client that its group put out for good is told of that apart, and given nothing more.
        if let Some((_, reason)) = self.consumer.client().fatal_error() {
            tracing::warn!(
                reason,
                topic = self.topic,
                "kafka: the client is lost; another joins the group in its place"
            );
            match joined(&self.client, &self.topic) {
                Ok(consumer) => self.consumer = consumer,
                Err(error) => tracing::warn!(%error, topic = self.topic, "kafka: no client; it is tried again"),
            }
        }
        match self.consumer.poll(patience)? {
            Ok(message) => Some(Message {
                payload: message.payload().unwrap_or_default().to_vec(),
                written: message.timestamp().to_millis().map(|millis| Timestamp(millis.saturating_mul(1_000_000))),
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err(error) => {
                tracing::warn!(%error, topic = self.topic, "kafka: reading goes on");
                None
            }
        }
    }

    /// A message was dealt with: nobody of the group has it again.
    pub fn done(&self, message: &Message) {
        let committed = self.next_of(message).and_then(|next| self.consumer.commit(&next, CommitMode::Sync));
        if let Err(error) = committed {
            tracing::warn!(%error, topic = self.topic, "kafka: a message may come again");
        }
    }

    fn next_of(&self, message: &Message) -> KafkaResult<TopicPartitionList> {
        let mut next = TopicPartitionList::new();
        next.add_partition_offset(&self.topic, message.partition, Offset::Offset(message.offset + 1))?;
        Ok(next)
    }
}

fn joined(client: &ClientConfig, topic: &str) -> KafkaResult<BaseConsumer<Quiet>> {
    let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet)?;
    consumer.subscribe(&[topic])?;
    Ok(consumer)
}
