//! A sample of a topic: its latest records, read outside of any group and without committing anything.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use qualm_ingest::{config::RegistryConfig, kafka::origin};
use qualm_model::time::{Span, Timestamp};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

use super::{
    schemas::{Schema, Schemas},
    survey::Survey,
    words::Progress,
};

/// How long a broker may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the oldest record of a partition is waited for.
const OLDEST: Duration = Duration::from_secs(5);
/// Without a record for so long, what there is has been read.
const QUIET: Duration = Duration::from_secs(3);

/// What is known of a topic beside its records.
#[derive(Debug, Default)]
pub(super) struct Topic {
    pub(super) partitions: usize,
    /// Records in it.
    pub(super) records: u64,
    /// When its oldest and its newest record arrived.
    pub(super) oldest: Option<Timestamp>,
    pub(super) newest: Option<Timestamp>,
    /// For how long the broker keeps records, where it says so.
    pub(super) retention: Option<Retention>,
    /// The schemas whose ids stand in front of its records.
    pub(super) schemas: Vec<Schema>,
}

/// For how long, and in how many bytes a partition, a topic keeps its records; below 0: for ever, and in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retention {
    pub(super) time: Span,
    pub(super) bytes: i64,
}

/// Where to look.
pub(super) struct Where<'a> {
    pub(super) brokers: &'a str,
    pub(super) topic: &'a str,
    pub(super) properties: &'a BTreeMap<String, String>,
    pub(super) registry: RegistryConfig,
}

/// Reads the latest `most` records, for `patience` at most.
pub(super) fn read(place: &Where<'_>, most: u64, patience: Duration, survey: &mut Survey) -> Result<Topic> {
    let consumer = connect(place)?;
    let mut schemas = Schemas::new(&place.registry, survey.parser().max_record_bytes())?;
    let ends = ends(&consumer, place)?;
    let mut topic = Topic {
        partitions: ends.len(),
        records: ends.iter().map(|&(_, low, high)| (high - low).unsigned_abs()).sum(),
        retention: retention(place),
        ..Topic::default()
    };
    if topic.records == 0 {
        return Ok(topic);
    }
    topic.oldest = oldest(&consumer, place, &ends)?;
    let starts = starts(&ends, most);
    assign(&consumer, place, &starts)?;
    let mut left: u64 =
        ends.iter().zip(&starts).map(|(&(_, _, high), &(_, start))| (high - start).unsigned_abs()).sum();
    let (begun, total, mut heard) = (Instant::now(), left, Instant::now());
    let mut progress = Progress::new(total, "records");
    while left > 0 && begun.elapsed() < patience && heard.elapsed() < QUIET {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.map_err(|error| anyhow!("{}: {error}", place.topic))?;
        heard = Instant::now();
        left -= 1;
        let arrived = message.timestamp().to_millis().map(|millis| Timestamp(millis.saturating_mul(1_000_000)));
        topic.newest = topic.newest.max(arrived);
        let record = message.payload().unwrap_or_default();
        match schemas.read(record) {
            Ok(row) => survey.take(row, (message.partition(), &origin(message.headers())), arrived),
            Err(why) => survey.refuse(record, why),
        }
        progress.reached(total - left);
    }
    survey.end();
    topic.schemas = schemas.told();
    Ok(topic)
}

/// What the broker says of its topic. Who may read a topic need not be allowed to ask.
fn retention(place: &Where<'_>) -> Option<Retention> {
    let admin: AdminClient<DefaultClientContext> = client(place, &[]).create().ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let topic = ResourceSpecifier::Topic(place.topic);
    let asked = AdminOptions::new().request_timeout(Some(PATIENCE));
    let answer = runtime.block_on(async { admin.describe_configs([&topic], &asked).await });
    let described = answer.ok()?.into_iter().next()?.ok()?;
    let number = |name: &str| described.get(name)?.value.as_deref()?.parse::<i64>().ok();
    let time = number("retention.ms")?;
    Some(Retention { time: Span(time.saturating_mul(1_000_000)), bytes: number("retention.bytes").unwrap_or(-1) })
}

/// What `--property` says goes before `defaults`.
fn client(place: &Where<'_>, defaults: &[(&str, &str)]) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", place.brokers).set("client.id", "qualm-look");
    for (name, value) in defaults {
        client.set(*name, *value);
    }
    for (name, value) in place.properties {
        client.set(name, value);
    }
    client
}

fn connect(place: &Where<'_>) -> Result<BaseConsumer> {
    // The group is not joined, and nothing is committed to it: a consumer has to have one.
    let of_nobody =
        [("group.id", "qualm-look"), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
    client(place, &of_nobody).create().with_context(|| "a --property is wrong; see librdkafka's CONFIGURATION.md")
}

/// Partitions with the first offset and the one after the last.
fn ends(consumer: &BaseConsumer, place: &Where<'_>) -> Result<Vec<(i32, i64, i64)>> {
    let metadata = consumer.fetch_metadata(Some(place.topic), PATIENCE).with_context(|| {
        format!(
            "{}: no broker answers; check --brokers, the network, and `security.protocol` by --property",
            place.brokers
        )
    })?;
    let found = metadata.topics().iter().find(|topic| topic.name() == place.topic);
    let partitions = found.map_or(&[][..], |topic| topic.partitions());
    if partitions.is_empty() {
        let all = consumer.fetch_metadata(None, PATIENCE)?;
        let names = all.topics().iter().map(rdkafka::metadata::MetadataTopic::name);
        let mut names: Vec<&str> = names.filter(|name| !name.starts_with("__")).collect();
        names.sort_by_key(|name| strsim::damerau_levenshtein(name, place.topic));
        names.truncate(10);
        bail!(
            "topic `{}` does not exist at {}, or may not be seen; there are: {}",
            place.topic,
            place.brokers,
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        );
    }
    let ends = |id| {
        let (low, high) = consumer.fetch_watermarks(place.topic, id, PATIENCE)?;
        Ok((id, low, high))
    };
    partitions.iter().map(|partition| ends(partition.id())).collect()
}

/// The latest records, evenly over the partitions that have some.
fn starts(ends: &[(i32, i64, i64)], most: u64) -> Vec<(i32, i64)> {
    let filled = ends.iter().filter(|&&(_, low, high)| high > low).count().max(1) as u64;
    let share = i64::try_from(most / filled).unwrap_or(i64::MAX).max(1);
    ends.iter().map(|&(id, low, high)| (id, low.max(high.saturating_sub(share)))).collect()
}

fn assign(consumer: &BaseConsumer, place: &Where<'_>, starts: &[(i32, i64)]) -> Result<()> {
    let mut partitions = TopicPartitionList::new();
    for &(id, start) in starts {
        partitions.add_partition_offset(place.topic, id, Offset::Offset(start))?;
    }
    Ok(consumer.assign(&partitions)?)
}

/// When the oldest record arrived, over all partitions.
fn oldest(consumer: &BaseConsumer, place: &Where<'_>, ends: &[(i32, i64, i64)]) -> Result<Option<Timestamp>> {
    let filled: Vec<(i32, i64)> =
        ends.iter().filter(|&&(_, low, high)| high > low).map(|&(id, low, _)| (id, low)).collect();
    assign(consumer, place, &filled)?;
    let mut first: BTreeMap<i32, Timestamp> = BTreeMap::new();
    let begun = Instant::now();
    while first.len() < filled.len() && begun.elapsed() < OLDEST {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.map_err(|error| anyhow!("{}: {error}", place.topic))?;
        let Some(millis) = message.timestamp().to_millis() else { continue };
        first.entry(message.partition()).or_insert(Timestamp(millis.saturating_mul(1_000_000)));
    }
    Ok(first.into_values().min())
}
