//! Kafka: a consumer group over several topics, each with a format of its own.
//!
//! # Layout
//! - this file: [`KafkaSource`], what the loop sees, and how a consumer is set up
//! - `reading`: the thread that polls; where partitions begin and end
//! - `taking`: one message; `waiting`: those whose schema is not there yet
//! - `context`: what librdkafka calls back
//! - `dead_letter`: samples of what could not be read
//!
//! Positions are the snapshot's: partitions start where the loop says, and only what it hands to
//! [`commit`](Source::commit) is committed. librdkafka never commits by itself.

mod context;
mod dead_letter;
mod reading;
mod taking;
mod waiting;

use std::{collections::BTreeMap, thread, time::Duration};

use qualm_model::{
    event::Positions,
    time::{Clock, Span, Timestamp},
};
use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    types::RDKafkaRespErr,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

pub use self::context::Lag;
use self::{context::Context, dead_letter::DeadLetters, reading::Reading};
use crate::{
    config::{self, KafkaConfig, TopicConfig},
    counters::{IngestCounters, SourceCounters},
    parse::Parser,
    registry::Rows,
    source::{Incoming, Source, SourceError},
};

/// Batches read ahead of who asks.
const READ_AHEAD: usize = 2;
/// How long brokers may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long they may where reading may begin later: who asks for the trust table is not kept waiting.
const SHORT_PATIENCE: Duration = Duration::from_secs(3);
/// Errors that are looked at to find out why nobody answered.
const ERRORS: usize = 64;
/// The property that names a member.
const INSTANCE: &str = "group.instance.id";
/// What Qualm must decide itself; another value would lose or repeat records.
const OWN_PROPERTIES: [&str; 5] =
    ["bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof"];
/// What a configuration may change.
const DEFAULTS: [(&str, &str); 6] = [
    ("auto.offset.reset", "earliest"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("queued.max.messages.kbytes", "65536"),
    // A buffer a fetch: small ones are used again, large ones are mapped and cleared by the system each time.
    ("fetch.message.max.bytes", "262144"),
    ("statistics.interval.ms", "5000"),
    ("client.id", "qualm"),
];

/// A consumer group member, read on a thread of its own.
#[derive(Debug)]
pub struct KafkaSource {
    incoming: mpsc::Receiver<Result<Incoming, SourceError>>,
    commits: std::sync::mpsc::Sender<Positions>,
    /// Answered when the thread has made its last commit.
    finished: oneshot::Receiver<()>,
    lag: Lag,
}

/// One configured topic as it is read.
#[derive(Debug)]
struct Topic {
    name: String,
    /// Its index among all inputs of the configuration.
    source: u16,
    parser: Parser,
    counters: SourceCounters,
    /// Once it was told that a schema registry is missing.
    told_of_registry: Option<()>,
}

/// How far back records may lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// Where reading starts where neither the loop nor the group knows a position; as `auto.offset.reset` says
    /// (earliest, unless configured) where it is not told.
    pub start: Option<Timestamp>,
    /// What was older than this on arrival is invalid, whatever its place in the topic.
    pub max_age: Option<Span>,
}

/// How a member joins its group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joining {
    /// How far back records may lie.
    pub history: History,
    /// The member's name, the same over restarts and no other member's: who comes back under it has its partitions at
    /// once, also after a kill. Unless `group.instance.id` is configured; empty for a member without a name.
    pub instance: String,
    /// What becomes of a start for which no broker answers.
    pub unanswered: Unanswered,
}

/// What becomes of a start for which no broker answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unanswered {
    /// It fails.
    #[default]
    Fails,
    /// It is told, and reading begins when they answer.
    Waits,
}

impl KafkaSource {
    /// Joins the group. The topics have the source indices from `first_source` on.
    ///
    /// Asks the brokers, so it blocks for a while.
    ///
    /// Errors: brokers that cannot be reached (unless `joining` has it wait for them) or that refuse who asks, a topic
    /// that does not exist, a property or mapping that is wrong.
    pub fn start(
        config: &KafkaConfig,
        first_source: u16,
        clock: Clock,
        counters: &IngestCounters,
        joining: Joining,
    ) -> Result<Self, SourceError> {
        let Joining { history, instance, unanswered } = joining;
        let mut topics = topics(config, first_source, counters)?;
        if let Some(max_age) = history.max_age {
            topics =
                topics.into_iter().map(|topic| Topic { parser: topic.parser.with_max_age(max_age), ..topic }).collect();
        }
        let rows = rows(config, counters)?;
        let client = client_config(config)?;
        let context = Context::new(topics.iter().map(|topic| topic.counters.connection_errors.clone()).collect());
        let lag = context.lag().clone();
        let properties = member_config(&client, config, &instance);
        let consumer: BaseConsumer<Context> = BaseConsumer::from_config_and_context(&properties, context)
            .map_err(|error| wrong_property(config, &error.to_string()))?;
        check_topics(&consumer, config, &topics, unanswered)?;
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        consumer.subscribe(&names).map_err(|error| wrong_property(config, &error.to_string()))?;
        let dead_letters = DeadLetters::new(&client, config, clock.clone())
            .map_err(|error| wrong_property(config, &error.to_string()))?;
        let (sender, incoming) = mpsc::channel(READ_AHEAD);
        let (commits, commands) = std::sync::mpsc::channel();
        let reading = Reading::new(consumer, topics, dead_letters, rows, sender, commands)
            .with_batches_of(config.batch_records)
            .with_history_start(history.start);
        let (finish, finished) = oneshot::channel();
        thread::Builder::new().name("kafka".to_owned()).spawn(move || reading.run(&clock, finish)).map_err(
            |error| SourceError {
                origin: config.brokers.clone(),
                problem: format!("no thread to read it: {error}"),
                remedy: "raise the limit on threads".to_owned(),
            },
        )?;
        Ok(Self { incoming, commits, finished, lag })
    }

    /// What is left to read, as it will be at any time from now on.
    pub fn lag(&self) -> Lag {
        self.lag.clone()
    }
}

impl Source for KafkaSource {
    async fn next(&mut self) -> Result<Incoming, SourceError> {
        self.incoming.recv().await.unwrap_or(Ok(Incoming::End))
    }

    /// Takes effect soon, and before partitions are let go. A commit that fails is counted and made good by the next.
    async fn commit(&mut self, positions: &Positions) -> Result<(), SourceError> {
        // The thread is gone only when the source has ended.
        let _ = self.commits.send(positions.clone());
        Ok(())
    }

    async fn close(self) {
        // Nobody listens any more: the thread makes its last commit and ends.
        drop(self.incoming);
        if !matches!(timeout(PATIENCE, self.finished).await, Ok(Ok(()))) {
            tracing::warn!("kafka: the last positions were not committed; the snapshot has them");
        }
    }
}

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

/// What `check` asks of a topic that is only written to: that it is there. `keys` are the configuration's names for
/// brokers, properties and topic, for the remedy. Blocks for `patience` at most.
///
/// # Errors
/// A property is wrong, no broker answers, or there is no such topic.
pub fn probe_written(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    topic: &str,
    keys: WrittenKeys<'_>,
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
            format!("create it, correct {}, or grant WRITE and DESCRIBE to Qualm's principal", keys.topic)
        } else {
            format!("check {}, the network, and `security.protocol` in {}", keys.brokers, keys.properties)
        };
        SourceError { remedy, ..error }
    })
}

/// What a configuration calls the parts of a topic that is written to.
#[derive(Debug, Clone, Copy)]
pub struct WrittenKeys<'a> {
    /// Where its brokers are named.
    pub brokers: &'a str,
    /// Where its name is.
    pub topic: &'a str,
    /// Where librdkafka's properties are.
    pub properties: &'a str,
}

fn topics(config: &KafkaConfig, first_source: u16, counters: &IngestCounters) -> Result<Vec<Topic>, SourceError> {
    if config.topics.is_empty() {
        return Err(SourceError {
            origin: config.brokers.clone(),
            problem: "`kafka.topics` is empty".to_owned(),
            remedy: "name at least one: topics = [{ name = \"mesh-access-log\", format = \"istio_json\" }]".to_owned(),
        });
    }
    (first_source..).zip(&config.topics).map(|(source, topic)| open_topic(topic, source, config, counters)).collect()
}

fn open_topic(
    topic: &TopicConfig,
    source: u16,
    config: &KafkaConfig,
    counters: &IngestCounters,
) -> Result<Topic, SourceError> {
    let parser = config::parser(&topic.name, topic.format, topic.mapping.as_deref(), config.max_record_bytes).map_err(
        |error| SourceError {
            origin: error.origin,
            problem: error.problem,
            remedy: format!("correct `kafka.topics` of topic `{}`", topic.name),
        },
    )?;
    if parser.expects_header() {
        return Err(SourceError {
            origin: topic.name.clone(),
            problem: "the mapping expects a header, which a topic does not have".to_owned(),
            remedy: "set `header = false` and name the columns by number".to_owned(),
        });
    }
    let parser = parser.with_envelope(topic.envelope.clone()).with_cluster(topic.cluster.clone());
    Ok(Topic { name: topic.name.clone(), source, parser, counters: counters.of(&topic.name), told_of_registry: None })
}

/// Rows by the schemas of the cluster's registry.
fn rows(config: &KafkaConfig, counters: &IngestCounters) -> Result<Rows, SourceError> {
    Rows::new(&config.registry, config.max_record_bytes, counters.registry()).map_err(|error| SourceError {
        origin: config.brokers.clone(),
        problem: error.to_string(),
        remedy: "correct it; `qualm check` asks the registry".to_owned(),
    })
}

/// What consumer and producer share.
fn client_config(config: &KafkaConfig) -> Result<ClientConfig, SourceError> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers);
    for (name, value) in &config.properties {
        if OWN_PROPERTIES.contains(&name.as_str()) {
            return Err(wrong_property(config, &format!("`kafka.properties.\"{name}\"` is set by Qualm itself")));
        }
        client.set(name, value);
    }
    Ok(client)
}

fn consumer_config(client: &ClientConfig, config: &KafkaConfig) -> ClientConfig {
    let mut consumer = client.clone();
    for (name, value) in DEFAULTS {
        if !config.properties.contains_key(name) {
            consumer.set(name, value);
        }
    }
    consumer.set("group.id", &config.group);
    for switched_off in ["enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof"] {
        consumer.set(switched_off, "false");
    }
    consumer
}

/// With the member's name, unless the configuration has one.
fn member_config(client: &ClientConfig, config: &KafkaConfig, instance: &str) -> ClientConfig {
    let mut member = consumer_config(client, config);
    if !instance.is_empty() && !config.properties.contains_key(INSTANCE) {
        member.set(INSTANCE, instance);
    }
    member
}

fn wrong_property(config: &KafkaConfig, problem: &str) -> SourceError {
    SourceError {
        origin: config.brokers.clone(),
        problem: problem.to_owned(),
        remedy: "correct `kafka.properties`, see librdkafka's CONFIGURATION.md".to_owned(),
    }
}

/// That every topic can be read; where it may wait for brokers, as far as they answer.
fn check_topics(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_its_own_name_unless_the_operator_gives_it_another() {
        let name = |config: &KafkaConfig, instance| {
            let client = client_config(config).expect("nothing is wrong with it");
            member_config(&client, config, instance).get(INSTANCE).map(str::to_owned)
        };
        let plain = KafkaConfig::default();
        assert_eq!(name(&plain, "qualm-1").as_deref(), Some("qualm-1"));
        assert_eq!(name(&plain, ""), None);
        let given = KafkaConfig { properties: [(INSTANCE.to_owned(), "qualm-0".to_owned())].into(), ..plain };
        assert_eq!(name(&given, "qualm-1").as_deref(), Some("qualm-0"));
    }
}
