//! What is asked of the brokers without reading: whether they answer, and whether topics are there.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    types::RDKafkaRespErr,
};

use super::{
    Topic, Unanswered,
    context::Context,
    properties::{client_config, consumer_config, wrong_property},
};
use crate::{
    config::{KafkaConfig, TopicConfig},
    source::SourceError,
};

/// How long brokers may take to answer a question.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long they may where reading may begin later: who asks for the trust table is not kept waiting.
const SHORT_PATIENCE: Duration = Duration::from_secs(3);
/// Errors that are looked at to find out why nobody answered.
const ERRORS: usize = 64;

/// What `check` asks of one section: for each topic how many partitions it has, without joining the group. Blocks for
/// `patience` a topic at most.
pub fn probe(config: &KafkaConfig, patience: Duration) -> Vec<(String, Result<usize, SourceError>)> {
    let consumer = client_config(config).and_then(|client| {
        let context = Context::new(Vec::new());
        BaseConsumer::<Context>::from_config_and_context(&consumer_config(&client, config), context)
            .map_err(|error| wrong_property(config, &error.to_string()))
    });
    let consumer = match consumer {
        Ok(consumer) => consumer,
        Err(error) => return vec![(config.brokers.clone(), Err(error))],
    };
    let partitions = |topic: &TopicConfig| check_topic(&consumer, config, &topic.name, patience);
    config.topics.iter().map(|topic| (topic.name.clone(), partitions(topic))).collect()
}

/// What `check` asks of a topic of which it only matters that it is there: one that is written to, say. `keys` are the
/// configuration's names for brokers, properties and topic, for the remedy. Blocks for `patience` at most.
///
/// # Errors
/// A property is wrong, no broker answers, or there is no such topic.
pub fn probe_there(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    topic: &str,
    keys: TopicKeys<'_>,
    patience: Duration,
) -> Result<(), SourceError> {
    let config = KafkaConfig { brokers: brokers.to_owned(), properties: properties.clone(), ..KafkaConfig::default() };
    let wrong = |problem: String| SourceError {
        origin: brokers.to_owned(),
        problem,
        remedy: format!("correct {}, see librdkafka's CONFIGURATION.md", keys.properties),
    };
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    for (name, value) in properties {
        client.set(name, value);
    }
    let consumer: BaseConsumer<Context> =
        BaseConsumer::from_config_and_context(&consumer_config(&client, &config), Context::new(Vec::new()))
            .map_err(|error| wrong(error.to_string()))?;
    check_topic(&consumer, &config, topic, patience).map(drop).map_err(|error| {
        let is_topic = error.origin != brokers;
        let remedy = if is_topic {
            format!("create it, correct {}, or grant {} and DESCRIBE to Qualm's principal", keys.topic, keys.right)
        } else {
            format!("check {}, the network, and `security.protocol` in {}", keys.brokers, keys.properties)
        };
        SourceError { remedy, ..error }
    })
}

/// What a configuration calls the parts of such a topic.
#[derive(Debug, Clone, Copy)]
pub struct TopicKeys<'a> {
    /// Where its brokers are named.
    pub brokers: &'a str,
    /// Where its name is.
    pub topic: &'a str,
    /// Where librdkafka's properties are.
    pub properties: &'a str,
    /// The right that is needed there: `WRITE` or `READ`.
    pub right: &'a str,
}

/// That every topic can be read; where it may wait for brokers, as far as they answer.
pub(super) fn check_topics(
    consumer: &BaseConsumer<Context>,
    config: &KafkaConfig,
    topics: &[Topic],
    unanswered: Unanswered,
) -> Result<(), SourceError> {
    let patience = if unanswered == Unanswered::Waits { SHORT_PATIENCE } else { PATIENCE };
    for topic in topics {
        match consumer.fetch_metadata(Some(&topic.name), patience) {
            Err(error) if unanswered == Unanswered::Waits && is_away(consumer, &error) => {
                tracing::warn!(
                    brokers = config.brokers,
                    %error,
                    "kafka: no broker answers; it is tried on, and reading begins when one does"
                );
                return Ok(());
            }
            Err(error) => return Err(no_answer(config, &error)),
            Ok(metadata) => partitions_of(&metadata, &topic.name)?,
        };
    }
    Ok(())
}

/// Whether it was only that nobody answered: no broker has refused who asks.
fn is_away(consumer: &BaseConsumer<Context>, error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    let is_silence = matches!(
        code,
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
        )
    );
    // Nothing is subscribed to: only errors come, and the context notes them.
    for _ in 0..ERRORS {
        if consumer.poll(Duration::ZERO).is_none() {
            break;
        }
    }
    is_silence && !consumer.context().was_refused()
}

fn no_answer(config: &KafkaConfig, error: &KafkaError) -> SourceError {
    SourceError {
        origin: config.brokers.clone(),
        problem: format!("no answer from the brokers: {error}"),
        remedy: "check `kafka.brokers`, the network, and `security.protocol` in `kafka.properties`".to_owned(),
    }
}

/// How many partitions a topic has.
fn check_topic(
    consumer: &BaseConsumer<Context>,
    config: &KafkaConfig,
    name: &str,
    patience: Duration,
) -> Result<usize, SourceError> {
    let metadata = consumer.fetch_metadata(Some(name), patience).map_err(|error| no_answer(config, &error))?;
    partitions_of(&metadata, name)
}

fn partitions_of(metadata: &Metadata, name: &str) -> Result<usize, SourceError> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    match topic.map(|topic| (topic.error(), topic.partitions().len())) {
        Some((None, partitions @ 1..)) => Ok(partitions),
        Some((Some(error), _)) if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => {
            Err(missing_topic(name, &format!("cannot be read: {}", RDKafkaErrorCode::from(error))))
        }
        _ => Err(missing_topic(name, "does not exist")),
    }
}

fn missing_topic(name: &str, problem: &str) -> SourceError {
    SourceError {
        origin: format!("topic `{name}`"),
        problem: problem.to_owned(),
        remedy: "create it, correct its name in `kafka.topics`, or grant READ and DESCRIBE to Qualm's principal"
            .to_owned(),
    }
}
