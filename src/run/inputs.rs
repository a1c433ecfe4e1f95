//! Every configured source on a task of its own, one bounded channel into the loop.

use std::fmt;

use anyhow::Context as _;
use prometheus::Registry;
use qualm_ingest::{
    config,
    counters::IngestCounters,
    envoy::EnvoySource,
    file::{FileReader, FileSource, Follow, Remaining},
    kafka::{History, Joining, KafkaSource, Lag, Unanswered},
    source::{Batch, Incoming, Source, SourceError},
};
use qualm_model::{
    event::Positions,
    time::{Clock, Timestamp},
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::config::{Config, HistoryConfig};

/// Batches that wait for the loop: enough to keep it busy, few enough to bound memory.
const WAITING: usize = 4;

/// A source of any kind.
#[expect(clippy::large_enum_variant, reason = "there are as many as inputs, each moved once")]
pub(crate) enum Input {
    Kafka(KafkaSource),
    File(FileSource),
    Envoy(EnvoySource),
}

/// What an input says, and which one.
pub(crate) struct Said {
    pub(crate) input: usize,
    pub(crate) what: Result<Incoming, SourceError>,
}

/// Archived logs, read on a thread of their own; the channel closes when they are read, or have taken too long.
pub(crate) type Archives = mpsc::Receiver<Result<Batch, SourceError>>;

/// Reads archived logs. A line dated far ahead of the clock is rejected, as in every other input: event time would
/// never come back from it. None is too old.
pub(crate) fn archives(history: HistoryConfig, clock: &Clock) -> anyhow::Result<Archives> {
    let parser = config::parser("history.files", history.format, None, 64 << 10)?;
    // A source index of its own: its positions are nobody's to commit.
    let mut reader = FileReader::new(history.files, parser, u16::MAX).with_clock(clock.clone());
    let (sender, archives) = mpsc::channel(WAITING);
    let (clock, most) = (clock.clone(), history.max_duration.0);
    let begun = clock.now();
    let read = move || {
        while let Some(batch) = reader.next_batch().transpose() {
            let is_last = batch.is_err();
            // Where nobody listens, Qualm is stopping.
            if sender.blocking_send(batch).is_err() || is_last {
                return;
            }
            if clock.now() - begun >= most {
                tracing::warn!(
                    records = reader.rows(),
                    "history.max_duration is over: the rest of the archives is not read"
                );
                return;
            }
        }
    };
    std::thread::Builder::new().name("archives".to_owned()).spawn(read).context("a thread to read archives")?;
    Ok(archives)
}

/// All inputs.
pub(crate) struct Inputs {
    sender: mpsc::Sender<Said>,
    pub(crate) said: mpsc::Receiver<Said>,
    commits: Vec<mpsc::UnboundedSender<Positions>>,
    tasks: Vec<JoinHandle<()>>,
    names: Vec<String>,
    /// Of each Kafka cluster, by its brokers.
    lags: Vec<(String, Lag)>,
    /// Of each file.
    remaining: Vec<Remaining>,
    next_index: u16,
}

/// What the inputs that can tell have yet to read, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Of topics, as far as it is known.
    pub(crate) records: u64,
    /// Of files, before their end is reached for the first time.
    pub(crate) bytes: u64,
    /// Inputs whose brokers have not said yet how much there is.
    pub(crate) untold: usize,
}

impl Backlog {
    /// Whether it is known that nothing is left.
    pub(crate) fn is_read(self) -> bool {
        self == Self::default()
    }
}

impl FromIterator<Option<u64>> for Backlog {
    /// The sum of what each input says; `None` is that it does not know yet.
    fn from_iter<T: IntoIterator<Item = Option<u64>>>(lags: T) -> Self {
        lags.into_iter().fold(Self::default(), |sum, lag| Self {
            records: sum.records.saturating_add(lag.unwrap_or(0)),
            untold: sum.untold + usize::from(lag.is_none()),
            ..sum
        })
    }
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.records, self.bytes) {
            (records, 0) => write!(f, "{records} records to go")?,
            (0, bytes) => write!(f, "{} KiB of files to go", bytes.div_ceil(1024))?,
            (records, bytes) => write!(f, "{records} records and {} KiB of files to go", bytes.div_ceil(1024))?,
        }
        match self.untold {
            0 => Ok(()),
            untold => write!(f, ", and what {untold} of the clusters have is not known yet"),
        }
    }
}

impl Inputs {
    /// Starts topics and files, in the order of the configuration: their indices are those of the events'
    /// positions.
    ///
    /// `member` is this instance's name in groups, the same over restarts; empty where it has none.
    pub(crate) fn start(
        config: &Config,
        clock: &Clock,
        registry: &Registry,
        member: &str,
        unanswered: Unanswered,
    ) -> anyhow::Result<Self> {
        let (sender, said) = mpsc::channel(WAITING);
        let (commits, tasks, names) = (Vec::new(), Vec::new(), Vec::new());
        let (lags, remaining) = (Vec::new(), Vec::new());
        let mut inputs = Self { sender, said, commits, tasks, names, lags, remaining, next_index: 0 };
        let counters = IngestCounters::register(registry)?;
        for kafka in &config.kafka {
            let start = Some(clock.now() - config.history.since.0);
            let history = History { start, max_age: Some(config.history.oldest.0) };
            // Two sections may be members of one group.
            let instance =
                if member.is_empty() { String::new() } else { format!("qualm-{member}-{}", inputs.next_index) };
            let joining = Joining { history, instance, unanswered };
            let source = KafkaSource::start(kafka, inputs.next_index, clock.clone(), &counters, joining)?;
            inputs.next_index += u16::try_from(kafka.topics.len()).unwrap_or(u16::MAX);
            inputs.lags.push((kafka.brokers.clone(), source.lag()));
            inputs.add(Input::Kafka(source), &kafka.brokers);
        }
        for file in &config.file {
            let name = file.path.display().to_string();
            let parser = config::parser(&name, file.format, file.mapping.as_deref(), file.max_record_bytes)?
                .with_envelope(file.envelope.clone())
                .with_cluster(file.cluster.clone())
                .with_proxies(file.proxies.clone())
                .with_max_age(config.history.oldest.0);
            let follow = if file.follow { Follow::Yes } else { Follow::No };
            let source = FileSource::start(
                file.path.clone(),
                parser,
                inputs.next_index,
                clock.clone(),
                counters.of(&name),
                follow,
            )?;
            inputs.next_index += 1;
            inputs.remaining.push(source.remaining());
            inputs.add(Input::File(source), &name);
        }
        Ok(inputs)
    }

    /// The index of the next source.
    pub(crate) fn next_index(&self) -> u16 {
        self.next_index
    }

    /// Starts one more input.
    pub(crate) fn add(&mut self, input: Input, name: &str) {
        let (commit, commits) = mpsc::unbounded_channel();
        let (number, sender) = (self.commits.len(), self.sender.clone());
        let task = match input {
            Input::Kafka(source) => tokio::spawn(forward(source, number, sender, commits)),
            Input::File(source) => tokio::spawn(forward(source, number, sender, commits)),
            Input::Envoy(source) => tokio::spawn(forward(source, number, sender, commits)),
        };
        self.tasks.push(task);
        self.commits.push(commit);
        self.names.push(name.to_owned());
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.commits.len()
    }

    /// What is left to read in topics and files; pipes and the listener cannot tell.
    pub(crate) fn backlog(&self) -> Backlog {
        let topics: Backlog = self.lags.iter().map(|(_, lag)| lag.records()).collect();
        Backlog { bytes: self.remaining.iter().map(Remaining::bytes).sum(), ..topics }
    }

    /// Kafka clusters of which no broker answers, and since when.
    pub(crate) fn unreachable(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.lags.iter().filter_map(|(brokers, lag)| Some((brokers.as_str(), lag.unreachable_since()?)))
    }

    /// Kafka clusters of which partitions are held up, and how many.
    pub(crate) fn held_up(&self) -> impl Iterator<Item = (&str, u64)> {
        self.lags.iter().map(|(brokers, lag)| (brokers.as_str(), lag.held_up())).filter(|(_, many)| *many > 0)
    }

    /// The name of an input: brokers, path, `listen`.
    pub(crate) fn name(&self, input: usize) -> &str {
        self.names.get(input).map_or("", String::as_str)
    }

    /// Tells every input what a snapshot covers; each takes what is its own.
    pub(crate) fn commit(&self, positions: &Positions) {
        for commit in &self.commits {
            // An input that has ended has nothing to commit.
            let _ = commit.send(positions.clone());
        }
    }
}

impl Inputs {
    /// Ends all inputs, once their origins know what was committed.
    pub(crate) async fn close(self) {
        let Self { said, commits, tasks, .. } = self;
        drop((said, commits));
        for task in tasks {
            // A task that failed has nothing more to commit.
            let _ = task.await;
        }
    }
}

async fn forward<S: Source>(
    mut source: S,
    input: usize,
    sender: mpsc::Sender<Said>,
    mut commits: mpsc::UnboundedReceiver<Positions>,
) {
    loop {
        let what = tokio::select! {
            positions = commits.recv() => match positions {
                Some(positions) => {
                    if let Err(error) = source.commit(&positions).await {
                        tracing::warn!(%error, "positions were not committed; the next snapshot tries again");
                    }
                    continue;
                }
                None => break,
            },
            what = source.next() => what,
        };
        let last = matches!(what, Err(_) | Ok(Incoming::End));
        if sender.send(Said { input, what }).await.is_err() || last {
            break;
        }
    }
    while let Some(positions) = commits.recv().await {
        // The origin may still want to know, although it has nothing more to say.
        let _ = source.commit(&positions).await;
    }
    source.close().await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use qualm_model::time::{Span, Timestamp};
    use qualm_scorer::config::Length;

    use super::*;

    #[test]
    fn an_archived_line_from_the_future_is_rejected() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("archive.jsonl");
        let line = |year: u16| {
            format!(
                r#"{{"start_time":"{year}-11-22T02:02:24Z","method":"GET","path":"/","response_code":200,"downstream_remote_address":"10.0.0.7:1"}}"#
            )
        };
        std::fs::write(&path, format!("{}\n{}\n", line(2026), line(2099))).expect("written");
        let history = HistoryConfig { files: vec![path], ..HistoryConfig::default() };
        // The year 2027.
        let clock = Clock::new(|| Timestamp::from_seconds(1_800_000_000));
        let batch = archives(history, &clock).expect("a reader").blocking_recv().expect("records").expect("readable");
        assert_eq!((batch.events.len(), batch.rejected.len()), (1, 1));
    }

    #[test]
    fn archives_are_read_for_no_longer_than_they_may_take_however_old_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("archive.jsonl");
        let line = r#"{"start_time":"2001-11-22T02:02:24Z","method":"GET","path":"/","response_code":200,"downstream_remote_address":"10.0.0.7:1"}"#;
        std::fs::write(&path, format!("{line}\n").repeat(20_000)).expect("written");
        let read = |max_duration: i64| {
            let max_duration = Length(Span::seconds(max_duration));
            let history = HistoryConfig { files: vec![path.clone()], max_duration, ..HistoryConfig::default() };
            // A minute passes whenever it is looked at.
            let minutes = AtomicI64::new(30_000_000);
            let clock = Clock::new(move || Timestamp::from_seconds(60 * minutes.fetch_add(1, Ordering::Relaxed)));
            let mut archives = archives(history, &clock).expect("a reader");
            std::iter::from_fn(|| archives.blocking_recv())
                .map(|batch| batch.expect("readable").events.len())
                .sum::<usize>()
        };
        assert_eq!(read(86_400), 20_000);
        let some = read(120);
        assert!(some > 0 && some < 20_000, "{some}");
    }

    #[test]
    fn history_is_read_only_when_every_cluster_says_that_nothing_is_left() {
        let backlog = |lags: &[Option<u64>]| lags.iter().copied().collect::<Backlog>();
        assert!(backlog(&[]).is_read(), "pipes cannot tell");
        let file = Backlog { bytes: 1, ..backlog(&[Some(0)]) };
        assert_eq!((file.is_read(), file.to_string().as_str()), (false, "1 KiB of files to go"));
        assert!(backlog(&[Some(0), Some(0)]).is_read());
        assert!(!backlog(&[Some(0), None]).is_read(), "not known is not nothing");
        let both = backlog(&[Some(7), Some(0), Some(5)]);
        assert!(!both.is_read());
        assert_eq!(both.to_string(), "12 records to go");
    }
}
