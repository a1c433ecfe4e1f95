//! What librdkafka calls back.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use prometheus::IntCounter;
use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};

const UNKNOWN_LAG: u64 = u64::MAX;

/// Partitions come or go; answered after the poll that told of it.
#[derive(Debug)]
pub(super) enum Rebalance {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// Records of one consumer still to be read, as the brokers' last word has it; clones show the same.
#[derive(Debug, Clone)]
pub struct Lag(Arc<AtomicU64>);

impl Default for Lag {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(UNKNOWN_LAG)))
    }
}

impl Lag {
    /// How many; `None` while nobody has said.
    pub fn records(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&lag| lag != UNKNOWN_LAG)
    }

    /// Takes in the lag of each partition, below 0 where it is not known. Where none is known, nothing is.
    pub(super) fn told(&self, partitions: impl Iterator<Item = i64>) {
        let known = partitions.filter_map(|lag| u64::try_from(lag).ok());
        let sum = known.reduce(u64::saturating_add).unwrap_or(UNKNOWN_LAG);
        self.0.store(sum, Ordering::Relaxed);
    }
}

/// Notes what happened, for the thread that polls.
#[derive(Debug)]
pub(super) struct Context {
    rebalances: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
    lag: Lag,
    connection_errors: Vec<IntCounter>,
}

impl Context {
    pub(super) fn new(connection_errors: Vec<IntCounter>) -> Self {
        Self { rebalances: Mutex::default(), closing: AtomicBool::new(false), lag: Lag::default(), connection_errors }
    }

    pub(super) fn take_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From now on nobody can be asked: what is revoked is let go at once.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
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
    }

    /// librdkafka tries again by itself; it is enough to say so.
    fn error(&self, error: KafkaError, reason: &str) {
        self.count_connection_error();
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
}
