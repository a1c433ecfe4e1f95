//! What librdkafka calls back.

use std::{
    collections::VecDeque,
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
}

impl Default for Lag {
    fn default() -> Self {
        Self(Arc::new(Heard { records: AtomicU64::new(UNKNOWN_LAG), alone_since_s: AtomicI64::new(REACHED) }))
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
    connection_errors: Vec<IntCounter>,
}

impl Context {
    pub(super) fn new(connection_errors: Vec<IntCounter>) -> Self {
        Self {
            rebalances: Mutex::default(),
            closing: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            lag: Lag::default(),
            connection_errors,
        }
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
        tracing::warn!(%error, reason, "kafka: an error that is retried");
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
