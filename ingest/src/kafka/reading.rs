//! The thread that polls: messages to batches, partitions taken over and let go, positions committed.

use std::{
    collections::BTreeMap,
    sync::mpsc as commands,
    time::{Duration, Instant},
};

use qualm_model::{
    event::Positions,
    time::{Clock, Timestamp},
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, KafkaResult},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    PATIENCE, Topic,
    context::{Context, Rebalance, let_go, take_over},
    dead_letter::DeadLetters,
    member::Member,
    taking::{Taken, Taking},
    waiting::Waiting,
};
use crate::{
    gathering::Gathering,
    registry::Rows,
    source::{Batch, Incoming, SourceError},
};

/// How long to wait for a message before looking at commits and at whether anyone listens.
const IDLE: Duration = Duration::from_millis(50);
/// Trouble with the brokers is counted each time and told this often: librdkafka reports it many times a second.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// A group that takes longer to assign partitions has something to wait for.
const SLOW_GROUP: Duration = Duration::from_secs(5);
const DEFAULT_BATCH_RECORDS: usize = 4096;

/// Nobody listens any more.
struct Closed;

/// Everything the thread owns.
#[derive(Debug)]
pub(super) struct Reading {
    topics: Vec<Topic>,
    gathering: Gathering,
    /// The next offset of each partition, to notice what the brokers no longer have.
    expected: BTreeMap<(u16, i32), i64>,
    dead_letters: DeadLetters,
    rows: Rows,
    waiting: Waiting,
    sender: mpsc::Sender<Result<Incoming, SourceError>>,
    commits: commands::Receiver<Positions>,
    /// The partitions at hand, each with where its reading began: nothing before that is committed.
    owned: Positions,
    /// What the loop wants committed, for the partitions at hand.
    wanted: Positions,
    batch_records: usize,
    history_start: Option<Timestamp>,
    /// Since when the group has assigned nothing; `None` once it has, or once it was told.
    unassigned: Option<Instant>,
    /// When trouble with the brokers was told of last.
    told: Option<Instant>,
    member: Member,
    consumer: Polled,
}

/// The consumer, with a `Debug` that shows nothing of its properties.
struct Polled(BaseConsumer<Context>);

impl std::fmt::Debug for Polled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("consumer")
    }
}

impl Reading {
    pub(super) fn new(
        (member, consumer): (Member, BaseConsumer<Context>),
        topics: Vec<Topic>,
        dead_letters: DeadLetters,
        rows: Rows,
        sender: mpsc::Sender<Result<Incoming, SourceError>>,
        commits: commands::Receiver<Positions>,
    ) -> Self {
        Self {
            unassigned: Some(Instant::now()),
            told: None,
            member,
            consumer: Polled(consumer),
            topics,
            gathering: Gathering::default(),
            expected: BTreeMap::new(),
            dead_letters,
            rows,
            waiting: Waiting::default(),
            sender,
            commits,
            owned: Positions::new(),
            wanted: Positions::new(),
            batch_records: DEFAULT_BATCH_RECORDS,
            history_start: None,
        }
    }

    pub(super) fn with_batches_of(self, batch_records: usize) -> Self {
        Self { batch_records: batch_records.max(1), ..self }
    }

    pub(super) fn with_history_start(self, history_start: Option<Timestamp>) -> Self {
        Self { history_start, ..self }
    }

    /// Reads until nobody listens, or until it cannot be a member any more; then commits and says so.
    pub(super) fn run(mut self, clock: &Clock, finish: oneshot::Sender<()>) {
        while self.step(clock).is_ok() {}
        self.commit_pending(CommitMode::Sync);
        self.dead_letters.flush();
        // Whoever started it may have gone.
        let _ = finish.send(());
        self.consumer.0.context().close();
    }

    fn step(&mut self, clock: &Clock) -> Result<(), Closed> {
        self.commit_pending(CommitMode::Async);
        self.dead_letters.poll();
        let now = clock.now();
        for topic in &mut self.topics {
            topic.parser.arrive(now);
        }
        self.gather();
        if self.gathering.records() > 0 {
            self.send_batch()?;
        }
        if let Some((_, reason)) = self.consumer.0.client().fatal_error() {
            self.rejoin(&reason)?;
        }
        while let Some(rebalance) = self.consumer.0.context().take_rebalance() {
            match rebalance {
                Rebalance::Assign(partitions) => self.assign(partitions)?,
                Rebalance::Revoke(partitions) => self.revoke(&partitions)?,
            }
        }
        self.tell_of_waiting();
        if self.sender.is_closed() { Err(Closed) } else { Ok(()) }
    }

    /// Once, where the group is slow to assign anything; who does not reach it is told of that instead.
    fn tell_of_waiting(&mut self) {
        let is_reached = self.consumer.0.context().lag().unreachable_since().is_none();
        if is_reached && self.unassigned.is_some_and(|since| since.elapsed() >= SLOW_GROUP) {
            self.unassigned = None;
            tracing::info!(
                "kafka: waiting for the group; a member that died is missed after its `session.timeout.ms`, 45 s unless set"
            );
        }
    }

    /// Takes what librdkafka has at hand, up to a batch; waits only for the first message.
    fn gather(&mut self) {
        let Self { consumer, topics, gathering, expected, dead_letters, rows, waiting, told, .. } = self;
        let mut taking = Taking { topics, gathering, expected, dead_letters, rows, now: Instant::now() };
        waiting.retry(&consumer.0, &mut taking);
        while taking.gathering.records() < self.batch_records {
            let patience = if taking.gathering.records() == 0 { IDLE } else { Duration::ZERO };
            match consumer.0.poll(patience) {
                None => break,
                Some(Ok(message)) => {
                    if waiting.is_held(&message) || taking.take(&message) == Taken::Waiting {
                        waiting.hold(&consumer.0, message.detach(), taking.topics);
                    }
                }
                Some(Err(error)) => {
                    consumer.0.context().count_connection_error();
                    if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                        *told = Some(Instant::now());
                        tracing::warn!(%error, "kafka: reading goes on");
                    }
                    break;
                }
            }
        }
    }

    /// The client can do nothing any more: what it had is let go, and another joins in its place, to which the loop says
    /// where to go on.
    fn rejoin(&mut self, reason: &str) -> Result<(), Closed> {
        if !self.member.may_rejoin(Instant::now()) {
            return self.give_up(reason);
        }
        tracing::warn!(reason, "kafka: the client is lost; another joins the group in its place");
        let context = self.consumer.0.context().succeeded();
        self.part_with(&self.owned_partitions())?;
        let consumer = match self.member.client(context) {
            Ok(consumer) => consumer,
            Err(error) => return self.fail(&error),
        };
        self.consumer.0.context().close();
        self.consumer = Polled(consumer);
        self.unassigned = Some(Instant::now());
        match self.member.join(&self.consumer.0) {
            Err(error) => self.fail(&error),
            Ok(()) => Ok(()),
        }
    }

    fn owned_partitions(&self) -> TopicPartitionList {
        let mut partitions = TopicPartitionList::new();
        for &(source, partition) in self.owned.keys() {
            if let Some(topic) = self.topics.iter().find(|topic| topic.source == source) {
                partitions.add_partition(&topic.name, partition);
            }
        }
        partitions
    }

    fn fail(&self, error: &KafkaError) -> Result<(), Closed> {
        let remedy = "see the brokers' log; restart qualm, it goes on where its snapshot stands".to_owned();
        self.end_with(format!("the consumer cannot go on: {error}"), remedy)
    }

    fn give_up(&self, reason: &str) -> Result<(), Closed> {
        let remedy = self.member.name().map_or_else(
            || "see the brokers' log; restart qualm, it goes on where its snapshot stands".to_owned(),
            |name| {
                format!(
                    "no other member of the group may be named `{name}`: give each qualm a state directory of its own, \
                     or a `group.instance.id` in `kafka.properties`"
                )
            },
        );
        self.end_with(format!("it was put out of its group again and again: {reason}"), remedy)
    }

    fn end_with(&self, problem: String, remedy: String) -> Result<(), Closed> {
        let origin = self.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>().join(", ");
        let _ = self.sender.blocking_send(Err(SourceError { origin, problem, remedy }));
        Err(Closed)
    }

    fn send_batch(&mut self) -> Result<(), Closed> {
        let batch = self.gathering.finish(self.consumer.0.context().lag().records());
        self.count(&batch);
        self.sender.blocking_send(Ok(Incoming::Batch(batch))).map_err(|_| Closed)
    }

    fn count(&self, batch: &Batch) {
        for topic in &self.topics {
            let of_topic = batch.events.events().filter(|event| event.position().source == topic.source).count();
            topic.counters.count_events(of_topic);
        }
        for rejected in &batch.rejected {
            if let Some(topic) = self.topics.iter().find(|topic| topic.source == rejected.position.source) {
                topic.counters.count_rejection(rejected.why);
            }
        }
        for loss in &batch.lost {
            if let Some(topic) = self.topics.iter().find(|topic| topic.source == loss.position.source) {
                topic.counters.lost.inc_by(loss.records);
            }
        }
        for unvouched in &batch.unvouched {
            if let Some(topic) = self.topics.iter().find(|topic| topic.source == unvouched.position.source) {
                topic.counters.unvouched.inc();
            }
        }
    }

    /// Asks the loop where to begin. Nothing is read from the partitions before it has answered.
    fn assign(&mut self, mut partitions: TopicPartitionList) -> Result<(), Closed> {
        self.unassigned = None;
        let keys = self.keys_of(&partitions);
        let known = if keys.is_empty() { Positions::new() } else { self.ask(keys)? };
        if let Err(error) = self.set_starts(&mut partitions, &known) {
            // Without an answer from the brokers the loop's position is the start, or else the group's.
            self.consumer.0.context().count_connection_error();
            tracing::warn!(%error, "kafka: the group's positions not found");
        }
        for partition in partitions.elements() {
            let Some(source) = self.source_of(partition.topic()) else { continue };
            let key = (source, partition.partition());
            let start = if let Offset::Offset(start) = partition.offset() { Some(start) } else { None };
            self.owned.insert(key, start.unwrap_or(0));
            self.expected.extend(start.filter(|_| known.contains_key(&key)).map(|start| (key, start)));
        }
        self.fail_unless_lost(take_over(&self.consumer.0, &partitions))?;
        // A partition that was held back when it was let go may still be.
        let _ = self.consumer.0.resume(&partitions);
        Ok(())
    }

    fn ask(&mut self, keys: Vec<(u16, i32)>) -> Result<Positions, Closed> {
        let (answer, asked) = oneshot::channel();
        self.sender.blocking_send(Ok(Incoming::Assigned(keys, answer))).map_err(|_| Closed)?;
        Ok(asked.blocking_recv().unwrap_or_default())
    }

    /// The loop's position, or the group's where another member has read on meanwhile; without either the start of
    /// history, or `auto.offset.reset`.
    fn set_starts(&self, partitions: &mut TopicPartitionList, known: &Positions) -> KafkaResult<()> {
        partitions.set_all_offsets(Offset::Stored)?;
        let known = |topic: &str, partition| known.get(&(self.source_of(topic)?, partition)).copied();
        for mut partition in partitions.elements() {
            if let Some(offset) = known(partition.topic(), partition.partition()) {
                partition.set_offset(Offset::Offset(offset))?;
            }
        }
        let mut times = TopicPartitionList::new();
        for committed in self.consumer.0.committed_offsets(partitions.clone(), PATIENCE)?.elements() {
            let (topic, partition) = (committed.topic(), committed.partition());
            match (committed.offset(), known(topic, partition), self.history_start) {
                (Offset::Offset(theirs), Some(ours), _) if theirs > ours => {
                    partitions.set_partition_offset(topic, partition, committed.offset())?;
                }
                (Offset::Invalid, None, Some(start)) => {
                    let milliseconds = Offset::Offset(start.0.div_euclid(1_000_000));
                    times.add_partition_offset(topic, partition, milliseconds)?;
                }
                _ => {}
            }
        }
        if times.count() == 0 {
            return Ok(());
        }
        for found in self.consumer.0.offsets_for_times(times, PATIENCE)?.elements() {
            partitions.set_partition_offset(found.topic(), found.partition(), found.offset())?;
        }
        Ok(())
    }

    /// Hands over what was read, lets the loop save and commit, and lets go.
    fn revoke(&mut self, partitions: &TopicPartitionList) -> Result<(), Closed> {
        self.part_with(partitions)?;
        self.fail_unless_lost(let_go(&self.consumer.0, partitions))
    }

    /// A client that is lost is replaced at the next step.
    fn fail_unless_lost(&self, result: KafkaResult<()>) -> Result<(), Closed> {
        match result {
            Err(error) if self.consumer.0.client().fatal_error().is_none() => self.fail(&error),
            _ => Ok(()),
        }
    }

    fn part_with(&mut self, partitions: &TopicPartitionList) -> Result<(), Closed> {
        let keys = self.keys_of(partitions);
        if !keys.is_empty() {
            let (done, finished) = oneshot::channel();
            self.sender.blocking_send(Ok(Incoming::Revoking(keys.clone(), done))).map_err(|_| Closed)?;
            // Dropped or answered, both let go.
            let mut covered = finished.blocking_recv().unwrap_or_default();
            covered.retain(|key, offset| self.owned.get(key).is_some_and(|start| *offset >= *start));
            self.wanted.extend(covered);
            self.commit_pending(CommitMode::Sync);
        }
        self.waiting.forget(partitions, &self.topics);
        for key in keys {
            self.expected.remove(&key);
            self.owned.remove(&key);
            self.wanted.remove(&key);
        }
        Ok(())
    }

    fn keys_of(&self, partitions: &TopicPartitionList) -> Vec<(u16, i32)> {
        let elements = partitions.elements();
        elements.iter().filter_map(|p| Some((self.source_of(p.topic())?, p.partition()))).collect()
    }

    fn source_of(&self, name: &str) -> Option<u16> {
        self.topics.iter().find(|topic| topic.name == name).map(|topic| topic.source)
    }

    /// Commits what the loop handed over. In the end, and before partitions are let go, all of it once more: a commit
    /// on its way may have met a rebalance.
    fn commit_pending(&mut self, mode: CommitMode) {
        let mut latest = Positions::new();
        while let Ok(positions) = self.commits.try_recv() {
            latest.extend(positions);
        }
        latest.retain(|key, offset| self.owned.get(key).is_some_and(|start| *offset >= *start));
        self.wanted.extend(&latest);
        let chosen = if matches!(mode, CommitMode::Sync) { &self.wanted } else { &latest };
        let mut offsets = TopicPartitionList::new();
        for (&(source, partition), &offset) in chosen {
            let Some(topic) = self.topics.iter().find(|topic| topic.source == source) else { continue };
            if let Err(error) = offsets.add_partition_offset(&topic.name, partition, Offset::Offset(offset)) {
                tracing::warn!(%error, offset, "kafka: a position that cannot be committed");
            }
        }
        if offsets.count() > 0
            && let Err(error) = self.consumer.0.commit(&offsets, mode)
        {
            self.consumer.0.context().count_connection_error();
            tracing::warn!(%error, "kafka: positions were not committed; the next commit covers them");
        }
    }
}
