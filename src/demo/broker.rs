//! The in-process Kafka, and a producer that never runs ahead of what the group has committed.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer, ProducerContext},
};

/// The topic of the mesh's access log.
pub(super) const TOPIC: &str = "mesh-access-log";
/// The consumer group of the pipeline.
pub(super) const GROUP: &str = "qualm-demo";
/// Partitions of the topic; a service's calls are in one of them.
pub(super) const PARTITIONS: usize = 4;

/// The mock cluster drops the oldest records of a partition silently beyond 5 MiB, as they are stored, or 100,000.
/// LZ4 stores access logs in less than a third of their bytes, as long as many are sent together. Were it not so, the
/// gap that comes of it would end the demo.
const MOST_BYTES: usize = 12 << 20;
const MOST_RECORDS: usize = 80_000;
/// Writing goes on when so much has been committed, so that what is sent together is not a line or two.
const ENOUGH_ROOM: usize = MOST_BYTES / 2;
/// How often the committed positions are asked for while there is no room.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// Without any progress of the group for this long, something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of one broker inside this process.
pub(super) fn cluster() -> anyhow::Result<MockCluster<'static, DefaultProducerContext>> {
    let cluster = MockCluster::new(1).context("starting the in-process Kafka")?;
    cluster.create_topic(TOPIC, PARTITIONS as i32, 1).context("creating the topic")?;
    Ok(cluster)
}

/// Counts what did not arrive.
#[derive(Debug, Clone, Default)]
struct Deliveries {
    failed: Arc<AtomicU64>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes to the topic.
pub(super) struct Writer {
    producer: BaseProducer<Deliveries>,
    deliveries: Deliveries,
    /// Never subscribes: it only asks what the group has committed.
    group: BaseConsumer,
    partitions: Vec<Ahead>,
}

/// What of one partition the group has not committed yet.
#[derive(Debug, Default)]
struct Ahead {
    committed: i64,
    sizes: VecDeque<usize>,
    bytes: usize,
}

impl Writer {
    /// A writer to the topic at `brokers`. The group's positions are set to the beginning: the mock cluster cannot
    /// say which offset belongs to a time.
    pub(super) fn new(brokers: &str) -> anyhow::Result<Self> {
        let deliveries = Deliveries::default();
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("compression.type", "lz4");
        let producer = config.create_with_context(deliveries.clone()).context("a producer")?;
        let group: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .create()
            .context("a look at the group")?;
        let mut beginning = partitions();
        beginning.set_all_offsets(Offset::Offset(0))?;
        group.commit(&beginning, CommitMode::Sync).context("setting the group to the beginning")?;
        Ok(Self { producer, deliveries, group, partitions: (0..PARTITIONS).map(|_| Ahead::default()).collect() })
    }

    /// Appends a line, as soon as there is room for it. `time` is its report time in milliseconds.
    pub(super) fn write(&mut self, partition: usize, key: &str, time: i64, line: &[u8]) -> anyhow::Result<()> {
        self.make_room(partition, line.len())?;
        let mut record =
            BaseRecord::<str, [u8]>::to(TOPIC).partition(partition as i32).key(key).payload(line).timestamp(time);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(5));
                    record = back;
                }
                Err((error, _)) => return Err(error).context("writing to the in-process Kafka"),
            }
        }
        let ahead = &mut self.partitions[partition];
        ahead.sizes.push_back(line.len());
        ahead.bytes += line.len();
        Ok(())
    }

    /// Lets librdkafka work; to be called now and then while nothing is written.
    pub(super) fn poll(&self) -> anyhow::Result<()> {
        self.producer.poll(Duration::ZERO);
        match self.deliveries.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => bail!("the in-process Kafka refused {failed} records"),
        }
    }

    /// Waits until all that was written has arrived.
    pub(super) fn flush(&self) -> anyhow::Result<()> {
        self.producer.flush(PATIENCE).context("the in-process Kafka takes nothing more")?;
        self.poll()
    }

    fn make_room(&mut self, partition: usize, bytes: usize) -> anyhow::Result<()> {
        let ahead = &self.partitions[partition];
        if ahead.bytes + bytes <= MOST_BYTES && ahead.sizes.len() < MOST_RECORDS {
            return Ok(());
        }
        let mut since = Instant::now();
        loop {
            let ahead = &self.partitions[partition];
            if ahead.bytes <= ENOUGH_ROOM && ahead.sizes.len() < MOST_RECORDS / 2 {
                return Ok(());
            }
            self.poll()?;
            if self.ask()? {
                since = Instant::now();
            } else if since.elapsed() > PATIENCE {
                bail!("nothing was committed for {} s; the pipeline does not read", PATIENCE.as_secs());
            } else {
                std::thread::sleep(ASK_AGAIN);
            }
        }
    }

    /// Asks what is committed; whether that is more than before.
    fn ask(&mut self) -> anyhow::Result<bool> {
        let committed = self.group.committed_offsets(partitions(), PATIENCE).context("asking for the positions")?;
        let mut any = false;
        for element in committed.elements() {
            let (Offset::Offset(offset), Ok(partition)) = (element.offset(), usize::try_from(element.partition()))
            else {
                continue;
            };
            let Some(ahead) = self.partitions.get_mut(partition) else { continue };
            any |= ahead.committed < offset;
            while ahead.committed < offset {
                ahead.committed += 1;
                ahead.bytes -= ahead.sizes.pop_front().unwrap_or_default();
            }
        }
        Ok(any)
    }
}

fn partitions() -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(TOPIC, 0, PARTITIONS as i32 - 1);
    list
}
