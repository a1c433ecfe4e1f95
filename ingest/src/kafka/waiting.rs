//! Messages that wait for their schema. Only their own partition waits with them: it is paused at the broker's side and
//! goes on behind them, so that nothing is lost and nothing is read out of order.

use std::collections::{BTreeMap, VecDeque};

use rdkafka::{
    Message, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::OwnedMessage,
};

use super::{
    Topic,
    context::Context,
    taking::{Taken, Taking},
};

/// The partitions that wait, each with its messages: one, and what had already come behind it.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    held: BTreeMap<(String, i32), VecDeque<OwnedMessage>>,
}

impl Waiting {
    /// Whether a message has others of its partition before it.
    #[inline]
    pub(super) fn is_held(&self, message: &impl Message) -> bool {
        !self.held.is_empty() && self.held.contains_key(&(message.topic().to_owned(), message.partition()))
    }

    /// Keeps a message, and has its partition wait.
    pub(super) fn hold(&mut self, consumer: &BaseConsumer<Context>, message: OwnedMessage, topics: &[Topic]) {
        let key = (message.topic().to_owned(), message.partition());
        if !self.held.contains_key(&key)
            && let Err(error) = consumer.pause(&only(&key))
        {
            // What comes of it nevertheless is kept behind this one.
            tracing::debug!(%error, "kafka: a partition that waits for a schema goes on coming");
        }
        self.held.entry(key).or_default().push_back(message);
        self.show(topics);
    }

    /// Takes again what waits, and has the partitions go on of which nothing waits any more.
    pub(super) fn retry(&mut self, consumer: &BaseConsumer<Context>, taking: &mut Taking<'_>) {
        if self.held.is_empty() {
            return;
        }
        self.held.retain(|key, messages| {
            while let Some(message) = messages.front() {
                if taking.take(message) == Taken::Waiting {
                    return true;
                }
                messages.pop_front();
            }
            if let Err(error) = consumer.resume(&only(key)) {
                tracing::warn!(%error, topic = key.0, partition = key.1, "kafka: a partition does not go on");
            }
            false
        });
        self.show(taking.topics);
    }

    /// Partitions go to somebody else, who reads again what waited here.
    pub(super) fn forget(&mut self, partitions: &TopicPartitionList, topics: &[Topic]) {
        for partition in partitions.elements() {
            self.held.remove(&(partition.topic().to_owned(), partition.partition()));
        }
        self.show(topics);
    }

    fn show(&self, topics: &[Topic]) {
        for topic in topics {
            let waiting = self.held.keys().filter(|(name, _)| *name == topic.name).count();
            topic.counters.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
    }
}

fn only((topic, partition): &(String, i32)) -> TopicPartitionList {
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition(topic, *partition);
    partitions
}
