//! A member of the group: how it joins, and how often it may join anew.
//!
//! A member with a name is fenced off for good when somebody joins under its name, and, while a broker restarts, by its
//! own attempt to join whose answer was lost. librdkafka then reads no more and says so once; only a new client can go
//! on. Two that are given the same name fence off each other each time, which must end.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
};

use super::context::Context;

/// A member that is lost more often than this within [`WITHIN`] has a cause that joining anew does not mend.
const REJOINS: usize = 3;
const WITHIN: Duration = Duration::from_secs(300);

/// Joins the group, each time with a client of its own.
#[derive(Debug)]
pub(super) struct Member {
    properties: ClientConfig,
    topics: Vec<String>,
    lost: VecDeque<Instant>,
}

impl Member {
    pub(super) fn new(properties: ClientConfig, topics: Vec<String>) -> Self {
        Self { properties, topics, lost: VecDeque::new() }
    }

    /// A client that has not joined yet: the brokers can be asked.
    ///
    /// Errors: a property that is wrong.
    pub(super) fn client(&self, context: Context) -> KafkaResult<BaseConsumer<Context>> {
        BaseConsumer::from_config_and_context(&self.properties, context)
    }

    /// Joins the group.
    pub(super) fn join(&self, consumer: &BaseConsumer<Context>) -> KafkaResult<()> {
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names)
    }

    /// Its name in the group, where it has one.
    pub(super) fn name(&self) -> Option<&str> {
        self.properties.get("group.instance.id")
    }

    /// Takes in that the client was lost at `now`; whether another may be made.
    pub(super) fn may_rejoin(&mut self, now: Instant) -> bool {
        self.lost.retain(|&lost| now.duration_since(lost) < WITHIN);
        self.lost.push_back(now);
        self.lost.len() <= REJOINS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_lost_again_and_again_gives_up_and_one_that_is_lost_now_and_then_does_not() {
        let begun = Instant::now();
        let mut member = Member::new(ClientConfig::new(), Vec::new());
        let mut lost_at = |second| member.may_rejoin(begun + Duration::from_secs(second));
        assert!((0..REJOINS as u64).all(&mut lost_at));
        assert!(!lost_at(60), "somebody has its name");
        assert!((2..20).all(|n| lost_at(n * WITHIN.as_secs())), "brokers restart");
    }
}
