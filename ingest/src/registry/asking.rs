//! Schemas in memory, and a thread that asks the registry for those that are not.
//!
//! What a registry says holds for good: an id never changes its schema. What it does not have may come, so that is
//! believed for a minute. While it gives no answer it is asked again, less and less often; records wait for as long as
//! configured, and are then counted and go by, until it answers again.

use std::{
    collections::{HashMap, VecDeque},
    sync::mpsc::{self, RecvTimeoutError, TrySendError},
    thread,
    time::{Duration, Instant},
};

use prometheus::IntCounterVec;

use super::{
    client::{Client, InvalidClient, NoSchema, Unreached},
    schema::Schema,
};
use crate::{config::RegistryConfig, source::Invalid};

/// Schemas in memory, and bytes of their texts.
const MAX_SCHEMAS: usize = 1024;
const MAX_BYTES: usize = 16 << 20;
/// Ids that are not to be had, or are asked for.
const MAX_ABSENT: usize = 4096;
/// How long it is believed that there is no such schema.
const ABSENT_FOR: Duration = Duration::from_secs(60);
/// Questions that have no answer yet.
const MAX_ASKED: usize = 256;
/// How soon a registry that gave no answer is asked again, at first and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// A registry that gives no answer is told of this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What asking is counted in: questions by their outcome, `found`, `absent` or `unreached`.
#[derive(Debug, Clone, Default)]
pub struct RegistryCounters(Option<IntCounterVec>);

impl RegistryCounters {
    /// Counts in a vector with the label `outcome`.
    pub fn of(counters: IntCounterVec) -> Self {
        Self(Some(counters))
    }

    fn count(&self, outcome: &str) {
        if let Some(counters) = &self.0 {
            counters.with_label_values(&[outcome]).inc();
        }
    }
}

/// What is known of a schema.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    Found(&'a Schema),
    /// It has been asked for.
    Waiting,
    Refused(Invalid),
}

/// The schemas of one registry, for one reader.
#[derive(Debug)]
pub(super) struct Schemas {
    found: HashMap<u32, Found>,
    bytes: usize,
    absent: HashMap<u32, Absent>,
    /// Since when the registry gives no answer.
    silent_since: Option<Instant>,
    patience: Duration,
    uses: u64,
    questions: mpsc::SyncSender<u32>,
    outcomes: mpsc::Receiver<Outcome>,
}

#[derive(Debug)]
struct Found {
    schema: Schema,
    /// When it was used last, in uses.
    used: u64,
}

#[derive(Debug, Clone, Copy)]
enum Absent {
    Asked(Instant),
    Until(Instant),
}

/// What the thread tells of a question.
#[derive(Debug)]
enum Outcome {
    Found(u32, Schema),
    Absent(u32),
    /// No answer: it is asked again.
    Unreached,
}

impl Schemas {
    pub(super) fn start(config: &RegistryConfig, counters: RegistryCounters) -> Result<Self, InvalidClient> {
        let client = Client::new(config)?;
        let (questions, asked) = mpsc::sync_channel(MAX_ASKED);
        let (sender, outcomes) = mpsc::channel();
        let patience = Duration::from_secs(config.patience_s);
        let asking = Asking { client, counters, outcomes: sender, patience, told: None, open: VecDeque::new() };
        thread::Builder::new().name("registry".to_owned()).spawn(move || asking.run(&asked)).map_err(|error| {
            InvalidClient { key: "url", problem: format!("no thread to ask it: {error}; raise the limit on threads") }
        })?;
        Ok(Self {
            found: HashMap::new(),
            bytes: 0,
            absent: HashMap::new(),
            silent_since: None,
            patience,
            uses: 0,
            questions,
            outcomes,
        })
    }

    /// Looks for a schema; asks for it where nobody has.
    pub(super) fn find(&mut self, id: u32, now: Instant) -> Answer<'_> {
        self.uses += 1;
        if !self.found.contains_key(&id) {
            self.hear(now);
            if !self.found.contains_key(&id) {
                return self.miss(id, now);
            }
        }
        let found = self.found.get_mut(&id).expect("it was there just now");
        found.used = self.uses;
        Answer::Found(&found.schema)
    }

    fn miss(&mut self, id: u32, now: Instant) -> Answer<'static> {
        let asked = match self.absent.get(&id) {
            Some(Absent::Until(until)) if now < *until => return Answer::Refused(Invalid::UnknownSchema),
            Some(Absent::Asked(since)) => *since,
            _ => self.ask(id, now),
        };
        let since = self.silent_since.map_or(asked, |silent| silent.min(asked));
        if now.saturating_duration_since(since) < self.patience {
            return Answer::Waiting;
        }
        Answer::Refused(Invalid::RegistryUnavailable)
    }

    fn ask(&mut self, id: u32, now: Instant) -> Instant {
        // Where the queue is full it is asked the next time.
        if matches!(self.questions.try_send(id), Ok(()) | Err(TrySendError::Disconnected(_))) {
            self.make_room(now);
            self.absent.insert(id, Absent::Asked(now));
        }
        now
    }

    fn hear(&mut self, now: Instant) {
        while let Ok(outcome) = self.outcomes.try_recv() {
            match outcome {
                Outcome::Unreached => {
                    self.silent_since.get_or_insert(now);
                }
                Outcome::Absent(id) => {
                    self.silent_since = None;
                    self.absent.insert(id, Absent::Until(now + ABSENT_FOR));
                }
                Outcome::Found(id, schema) => {
                    self.silent_since = None;
                    self.absent.remove(&id);
                    self.keep(id, schema);
                }
            }
        }
    }

    /// Keeps a schema, and lets go of those that were not used for longest.
    fn keep(&mut self, id: u32, schema: Schema) {
        self.bytes += schema.bytes();
        if let Some(before) = self.found.insert(id, Found { schema, used: self.uses }) {
            self.bytes -= before.schema.bytes();
        }
        while self.found.len() > MAX_SCHEMAS || (self.bytes > MAX_BYTES && self.found.len() > 1) {
            let others = self.found.iter().filter(|(other, _)| **other != id);
            let Some((&oldest, _)) = others.min_by_key(|(_, found)| found.used) else { break };
            if let Some(gone) = self.found.remove(&oldest) {
                self.bytes -= gone.schema.bytes();
            }
        }
    }

    /// Forgets what has been believed long enough; of the rest anything, since it is asked again.
    fn make_room(&mut self, now: Instant) {
        if self.absent.len() < MAX_ABSENT {
            return;
        }
        self.absent.retain(|_, absent| match absent {
            Absent::Until(until) => now < *until,
            Absent::Asked(_) => true,
        });
        let is_answered = |absent: &Absent| matches!(absent, Absent::Until(_));
        while self.absent.len() >= MAX_ABSENT
            && let Some((&id, _)) = self.absent.iter().find(|(_, absent)| is_answered(absent))
        {
            self.absent.remove(&id);
        }
    }
}

/// The thread.
#[derive(Debug)]
struct Asking {
    client: Client,
    counters: RegistryCounters,
    outcomes: mpsc::Sender<Outcome>,
    patience: Duration,
    /// When a registry that gives no answer was told of.
    told: Option<Instant>,
    open: VecDeque<u32>,
}

/// Nobody wants to know any more.
struct Gone;

impl Asking {
    fn run(mut self, asked: &mpsc::Receiver<u32>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(id) = self.open.pop_front() else {
                let Ok(id) = asked.recv() else { return };
                self.open.push_back(id);
                continue;
            };
            match self.ask(id) {
                Err(Gone) => return,
                Ok(true) => pause = FIRST_PAUSE,
                Ok(false) => {
                    self.open.push_back(id);
                    if self.wait(asked, pause).is_err() {
                        return;
                    }
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    /// Asks once; whether there was an answer.
    fn ask(&mut self, id: u32) -> Result<bool, Gone> {
        let (outcome, word) = match self.client.schema(id) {
            Ok(schema) => {
                tracing::info!(id, kind = schema.kind().as_str(), "registry: a schema was read");
                (Outcome::Found(id, schema), "found")
            }
            Err(NoSchema::Never(why)) => {
                tracing::warn!(
                    id,
                    why,
                    "registry: no records can be read by this schema; they are counted as unknown_schema"
                );
                (Outcome::Absent(id), "absent")
            }
            Err(NoSchema::Unreached(why)) => {
                self.tell(&why);
                (Outcome::Unreached, "unreached")
            }
        };
        let is_answered = !matches!(outcome, Outcome::Unreached);
        if is_answered && self.told.take().is_some() {
            tracing::info!("registry: it answers again");
        }
        self.counters.count(word);
        self.outcomes.send(outcome).map_err(|_| Gone)?;
        Ok(is_answered)
    }

    fn tell(&mut self, why: &Unreached) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(
                %why,
                patience_s = self.patience.as_secs(),
                "registry: no answer; records of schemas that are not in memory wait for `patience_s`, and are then \
                 counted as registry_unavailable and go by"
            );
        }
    }

    /// Lets time pass, and takes further questions meanwhile.
    fn wait(&mut self, asked: &mpsc::Receiver<u32>, pause: Duration) -> Result<(), Gone> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.open.len() >= MAX_ASKED {
                thread::sleep(left);
                return Ok(());
            }
            match asked.recv_timeout(left) {
                Ok(id) => self.open.push_back(id),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Gone),
            }
        }
    }
}
