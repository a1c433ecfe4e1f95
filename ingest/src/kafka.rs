//! Kafka: a consumer group over several topics, each with a format of its own.
//!
//! # Layout
//! - this file: [`KafkaSource`], what the loop sees
//! - `properties`: how a client is set up; `member`: how it joins its group, and joins it anew
//! - `questions`: what is asked of the brokers without reading: whether topics are there
//! - `reading`: the thread that polls; where partitions begin and end
//! - `taking`: one message; `waiting`: those whose schema is not there yet
//! - `context`: what librdkafka calls back
//! - [`Messages`]: a topic of few messages, each dealt with by itself
//! - `dead_letter`: samples of what could not be read
//!
//! Positions are the snapshot's: partitions start where the loop says, and only what it hands to
//! [`commit`](Source::commit) is committed. librdkafka never commits by itself.

mod context;
mod dead_letter;
mod member;
mod messages;
mod properties;
mod questions;
mod reading;
mod taking;
mod waiting;

use std::thread;

use qualm_model::{
    event::Positions,
    time::{Clock, Span, Timestamp},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use self::{
    context::Context,
    dead_letter::DeadLetters,
    member::Member,
    properties::{client_config, member_config, wrong_property},
    questions::{PATIENCE, check_topics},
    reading::Reading,
};
pub use self::{
    context::Lag,
    messages::{Mailbox, Message, Messages},
    questions::{TopicKeys, probe, probe_there},
    taking::origin,
};
use crate::{
    config::{self, KafkaConfig, TopicConfig},
    counters::{IngestCounters, SourceCounters},
    parse::Parser,
    registry::Rows,
    source::{Incoming, Source, SourceError},
};

/// Batches read ahead of who asks.
const READ_AHEAD: usize = 2;

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
        let names = topics.iter().map(|topic| topic.name.clone()).collect();
        let member = Member::new(member_config(&client, config, &instance), names);
        let consumer = member.client(context).map_err(|error| wrong_property(config, &error.to_string()))?;
        check_topics(&consumer, config, &topics, unanswered)?;
        member.join(&consumer).map_err(|error| wrong_property(config, &error.to_string()))?;
        let dead_letters = DeadLetters::new(&client, config, clock.clone())
            .map_err(|error| wrong_property(config, &error.to_string()))?;
        let (sender, incoming) = mpsc::channel(READ_AHEAD);
        let (commits, commands) = std::sync::mpsc::channel();
        let reading = Reading::new((member, consumer), topics, dead_letters, rows, sender, commands)
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
    let parser = parser
        .with_envelope(topic.envelope.clone())
        .with_cluster(topic.cluster.clone())
        .with_proxies(topic.proxies.clone());
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
