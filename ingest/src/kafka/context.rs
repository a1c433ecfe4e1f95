//! What librdkafka calls back.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use prometheus::IntCounter;
use qualm_model::time::Timestamp;
use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};

const UNKNOWN_LAG: u64 = u64::MAX;
/// A partition that has records and has given none for so many seconds is held up.
const HELD_UP_S: i64 = 20;
/// Brokers are there.
const REACHED: i64 = i64::MAX;

/// Partitions come or go; answered after the poll that told of it.
#[derive(Debug)]
pub(super) enum Rebalance {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// Records of one consumer still to be read, as the brokers' last word has it, and whether there are brokers to have
/// one; clones show the same.
#[derive(Debug, Clone)]
pub struct Lag(Arc<Heard>);

#[derive(Debug)]
struct Heard {
    records: AtomicU64,
    /// Since which second no broker is connected.
    alone_since_s: AtomicI64,
    held_up: AtomicU64,
}

/// How far a partition is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// The record after the last that was handed on.
    pub(super) read: i64,
    /// Whether the brokers, or librdkafka's queue, have more.
    pub(super) has_more: bool,
}

/// Since which second a partition with more to read stands at one record.
#[derive(Debug, Default)]
pub(super) struct Standing(BTreeMap<(String, i32), (i64, i64)>);

impl Standing {
    /// Partitions that are held up at second `at_s`.
    pub(super) fn held_up(&mut self, at_s: i64, partitions: impl Iterator<Item = ((String, i32), Progress)>) -> u64 {
        let before = std::mem::take(&mut self.0);
        let standing = partitions.filter(|(_, progress)| progress.has_more).map(|(key, progress)| {
            let since = before.get(&key).filter(|(read, _)| *read == progress.read).map_or(at_s, |(_, since)| *since);
            (key, (progress.read, since))
        });
        self.0 = standing.collect();
        self.0.values().filter(|(_, since)| at_s - since >= HELD_UP_S).count() as u64
    }
}

impl Default for Lag {
    fn default() -> Self {
        Self(Arc::new(Heard {
            records: AtomicU64::new(UNKNOWN_LAG),
            alone_since_s: AtomicI64::new(REACHED),
            held_up: AtomicU64::new(0),
        }))
    }
}

impl Lag {
    /// How many; `None` while nobody has said.
    pub fn records(&self) -> Option<u64> {
        Some(self.0.records.load(Ordering::Relaxed)).filter(|&lag| lag != UNKNOWN_LAG)
    }

    /// Since when none of the brokers is connected, wall time; `None` while one is. What they said last still stands.
    pub fn unreachable_since(&self) -> Option<Timestamp> {
        let since = self.0.alone_since_s.load(Ordering::Relaxed);
        (since != REACHED).then(|| Timestamp::from_seconds(since))
    }

    /// Partitions that have records and have given none for 20 s: of those whose records are there nobody's silence may be
    /// concluded.
    pub fn held_up(&self) -> u64 {
        self.0.held_up.load(Ordering::Relaxed)
    }

    /// Takes in the state of each broker at a second.
    pub(super) fn saw<'a>(&self, at_s: i64, mut states: impl Iterator<Item = &'a str>) {
        let since = self.0.alone_since_s.load(Ordering::Relaxed);
        let since = if states.any(|state| state == "UP") { REACHED } else { since.min(at_s) };
        self.0.alone_since_s.store(since, Ordering::Relaxed);
    }

    /// Takes in the lag of each partition, below 0 where it is not known. Where none is known, nothing is.
    pub(super) fn told(&self, partitions: impl Iterator<Item = i64>) {
        let known = partitions.filter_map(|lag| u64::try_from(lag).ok());
        let sum = known.reduce(u64::saturating_add).unwrap_or(UNKNOWN_LAG);
        self.0.records.store(sum, Ordering::Relaxed);
    }
}

/// Notes what happened, for the thread that polls.
#[derive(Debug)]
pub(super) struct Context {
    rebalances: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
    /// A broker was there and let nobody in.
    refused: AtomicBool,
    lag: Lag,
    standing: Mutex<Standing>,
    connection_errors: Vec<IntCounter>,
}

impl Context {
    pub(super) fn new(connection_errors: Vec<IntCounter>) -> Self {
        Self {
            rebalances: Mutex::default(),
            closing: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            lag: Lag::default(),
            standing: Mutex::default(),
            connection_errors,
        }
    }

    /// For the client that takes the place of this one's: whoever looks at the lag sees its.
    pub(super) fn succeeded(&self) -> Self {
        Self { lag: self.lag.clone(), ..Self::new(self.connection_errors.clone()) }
    }

    pub(super) fn take_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From now on nobody can be asked: what is revoked is let go at once.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether a broker has refused a connection for what was shown to it, as far as it was polled.
    pub(super) fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Records still to be read, by the brokers' last word.
    pub(super) fn lag(&self) -> &Lag {
        &self.lag
    }

    pub(super) fn count_connection_error(&self) {
        for counter in &self.connection_errors {
            counter.inc();
        }
    }
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        self.lag.told(partitions.map(|partition| partition.consumer_lag));
        let held_up = self.standing.lock().unwrap_or_else(PoisonError::into_inner).held_up(statistics.time, {
            // Partitions of others have no position here.
            let topics = statistics.topics.values().flat_map(|topic| {
                topic.partitions.values().filter(|of| of.fetch_state == "active").map(move |of| (&topic.topic, of))
            });
            topics.map(|(topic, of)| {
                let end = if of.ls_offset >= 0 { of.ls_offset } else { of.hi_offset };
                let has_more = of.fetchq_cnt > 0 || of.next_offset >= 0 && end > of.next_offset;
                ((topic.clone(), of.partition), Progress { read: of.app_offset, has_more })
            })
        });
        self.lag.0.held_up.store(held_up, Ordering::Relaxed);
        self.lag.saw(statistics.time, statistics.brokers.values().map(|broker| broker.state.as_str()));
    }

    /// librdkafka tries again by itself; it is enough to say so.
    fn error(&self, error: KafkaError, reason: &str) {
        self.count_connection_error();
        if matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL | RDKafkaErrorCode::SaslAuthenticationFailed)
        ) {
            self.refused.store(true, Ordering::Relaxed);
        }
        tracing::warn!(%error, reason, "kafka: the brokers are in trouble, or are not reached; it is tried again");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let assign = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Relaxed) {
            let nothing = TopicPartitionList::new();
            let _ = if assign { consumer.assign(&nothing) } else { let_go(consumer, partitions) };
            return;
        }
        let partitions = partitions.clone();
        let rebalance = if assign { Rebalance::Assign(partitions) } else { Rebalance::Revoke(partitions) };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            self.count_connection_error();
            tracing::warn!(%error, "kafka: positions were not committed; the next commit covers them");
        }
    }
}

/// Takes over what was assigned.
pub(super) fn take_over(consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
        _ => consumer.assign(partitions),
    }
}

/// Lets go of what was revoked.
pub(super) fn let_go(consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        _ => consumer.unassign(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_of_which_no_partition_knows_is_not_nothing() {
        let lag = Lag::default();
        assert_eq!(lag.records(), None);
        lag.told([].into_iter());
        assert_eq!(lag.records(), None, "no partition is assigned yet");
        lag.told([-1, -1].into_iter());
        assert_eq!(lag.records(), None, "no position is committed yet");
        lag.told([-1, 0, 7].into_iter());
        assert_eq!(lag.records(), Some(7));
    }

    #[test]
    fn a_partition_is_held_up_that_has_records_and_gives_none() {
        let mut standing = Standing::default();
        let mut at = |second: i64, partitions: &[(i32, i64, bool)]| {
            let told = |&(partition, read, has_more)| (("mesh".to_owned(), partition), Progress { read, has_more });
            standing.held_up(second, partitions.iter().map(told))
        };
        assert_eq!(at(0, &[(0, 7, true), (1, 7, false), (2, 7, true)]), 0);
        assert_eq!(at(10, &[(0, 7, true), (1, 7, false), (2, 9, true)]), 0);
        assert_eq!(at(20, &[(0, 7, true), (1, 7, false), (2, 12, true)]), 1, "it is read as far as before");
        assert_eq!(at(25, &[(0, 7, true), (1, 7, true), (2, 12, false)]), 1, "the others are read, or at their end");
        assert_eq!(at(30, &[(0, 8, true), (1, 7, true)]), 0, "it moves again");
        assert_eq!(at(40, &[]), 0, "others read them now");
    }

    #[test]
    fn brokers_are_away_since_the_first_second_in_which_none_was_connected() {
        let lag = Lag::default();
        assert_eq!(lag.unreachable_since(), None, "nobody has looked yet");
        lag.saw(10, ["DOWN", "UP"].into_iter());
        assert_eq!(lag.unreachable_since(), None);
        lag.saw(15, ["DOWN", "CONNECT"].into_iter());
        lag.saw(20, ["DOWN", "DOWN"].into_iter());
        assert_eq!(lag.unreachable_since(), Some(Timestamp::from_seconds(15)));
        lag.saw(25, ["UP", "DOWN"].into_iter());
        assert_eq!(lag.unreachable_since(), None);
    }
}
