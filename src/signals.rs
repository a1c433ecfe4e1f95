//! Signals shared with others: CAEP events about workloads by SSF 1.0, as transmitter and as receiver, on the mTLS port.
//!
//! # Layout
//! - [`signing`]: the key that signs tokens
//! - [`event`]: from verdicts to events and tokens
//! - [`book`]: streams, and what is owed to them, on disk
//! - [`transmit`]: metadata, keys, streams, verification, polling
//! - [`push`]: delivery by push
//! - [`receive`]: tokens of others; [`keys`]: by whose keys they are believed
//!
//! What is told follows from the journal: the book says up to which record it was told, so that a start after a crash
//! goes on from there; and a token that is made again has the id that it had before.

mod book;
mod event;
mod keys;
mod push;
mod receive;
mod signing;
#[cfg(test)]
mod tests;
mod transmit;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};
use axum::{Router, http::StatusCode};
use prometheus::{IntCounterVec, Opts, Registry};
use qualm_model::time::{Clock, Timestamp};
use qualm_scorer::{
    journal::{Journal, Kind, Seq, read_from},
    verdict::Verdict,
};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use self::{
    book::{Book, Status, Stream},
    event::Event,
    receive::{Known, Transmitter},
    signing::Signing,
    transmit::No,
};
use crate::{
    listen::roles::Roles,
    operator::{Call, allowance::Allowances},
};

/// Verdicts that wait to be told; beyond, they are read from the journal.
const VERDICTS: usize = 1_024;

/// `[signals]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SignalsConfig {
    /// The `iss` of our tokens; absent: nothing is told.
    pub(crate) issuer: Option<String>,
    /// The address by which receivers reach this port, where it is not the issuer.
    pub(crate) base_url: Option<String>,
    /// The private key that signs tokens; `signals.key` in the state directory where not said.
    pub(crate) signing_key: Option<PathBuf>,
    /// Where tokens may be pushed to: URLs, or beginnings of them that end in `/`.
    pub(crate) push_to: Vec<String>,
    /// PEM file with the roots of their certificates.
    pub(crate) push_ca_file: Option<PathBuf>,
    /// Transmitters whose word counts here.
    pub(crate) from: Vec<Transmitter>,
}

impl SignalsConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.issuer.as_deref().is_some_and(|issuer| !issuer.starts_with("https://")) {
            return Err("[signals] issuer: must be a URL that begins with https://".to_owned());
        }
        if let Some(url) = self.push_to.iter().find(|url| !url.starts_with("https://")) {
            return Err(format!(
                "[signals] push_to: `{url}` does not begin with https://; tokens are not told in the clear"
            ));
        }
        if !self.push_to.is_empty() && self.push_ca_file.is_none() {
            return Err("[signals] push_ca_file: missing; name the roots of whom tokens are pushed to".to_owned());
        }
        Ok(())
    }

    fn is_on(&self) -> bool {
        self.issuer.is_some() || !self.from.is_empty()
    }

    /// What our own addresses begin with.
    fn base(&self) -> &str {
        self.base_url.as_deref().or(self.issuer.as_deref()).unwrap_or_default().trim_end_matches('/')
    }

    fn may_push_to(&self, url: &str) -> bool {
        let is_plain = !url.contains("..") && !url.contains('@');
        is_plain
            && self.push_to.iter().any(|known| url == known || known.ends_with('/') && url.starts_with(known.as_str()))
    }
}

/// What signals are wired to.
pub(crate) struct Wires {
    pub(crate) config: SignalsConfig,
    /// The state directory.
    pub(crate) directory: PathBuf,
    pub(crate) roles: Arc<Roles>,
    pub(crate) journal: Journal,
    pub(crate) calls: mpsc::Sender<Call>,
    pub(crate) clock: Clock,
}

/// The way from the loop to those who tell.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    verdicts: mpsc::Sender<(Seq, Vec<Verdict>)>,
    is_behind: Arc<AtomicBool>,
}

impl Feed {
    /// Tells of the verdicts of one record; never waits.
    pub(crate) fn tell(&self, seq: Seq, verdicts: Vec<Verdict>) {
        if self.verdicts.try_send((seq, verdicts)).is_err() {
            self.is_behind.store(true, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct SignalMetrics {
    told: IntCounterVec,
    heard: IntCounterVec,
}

impl SignalMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["outcome"])?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        Ok(Self {
            told: counter(
                "qualm_signals_told_total",
                "Security event tokens by what became of them: queued, delivered, acknowledged, refused, failed, dropped.",
            )?,
            heard: counter(
                "qualm_signals_heard_total",
                "Security event tokens of others: acted, replayed, noted, not_acted, or the code of their refusal.",
            )?,
        })
    }

    fn told(&self, outcome: &str, count: usize) {
        self.told.with_label_values(&[outcome]).inc_by(count as u64);
    }

    fn heard(&self, outcome: &str) {
        self.heard.with_label_values(&[outcome]).inc();
    }
}

/// Both sides.
struct Signals {
    config: SignalsConfig,
    signing: Signing,
    from: Vec<Known>,
    roles: Arc<Roles>,
    journal: Journal,
    calls: mpsc::Sender<Call>,
    clock: Clock,
    book: Mutex<Book>,
    /// What transmitters have left.
    allowances: Mutex<Allowances>,
    /// Something waits, or a stream has changed.
    news: watch::Sender<()>,
    metrics: SignalMetrics,
}

/// Opens what is configured; `None` where nothing is. Routes for the port, and the way in for verdicts.
pub(crate) fn open(wires: Wires, registry: &Registry) -> Result<Option<(Router, Feed)>> {
    let Wires { config, directory, roles, journal, calls, clock } = wires;
    if !config.is_on() {
        return Ok(None);
    }
    let from = config.from.iter().map(Known::read).collect::<Result<Vec<_>>>()?;
    let key = config.signing_key.clone();
    let signing = Signing::open(&key.clone().unwrap_or_else(|| directory.join("signals.key")), key.is_none())?;
    let mut book = Book::open(directory.join("signals.json"))?;
    if book.streams.is_empty() {
        // Nobody is owed what was before.
        book.told = journal.status().appended.0;
    }
    let agent = push::agent(config.push_ca_file.as_deref(), "push_ca_file")?;
    let transmits = config.issuer.is_some();
    let signals = Arc::new(Signals {
        from,
        signing,
        roles,
        journal,
        calls,
        clock,
        book: Mutex::new(book),
        allowances: Mutex::default(),
        news: watch::Sender::new(()),
        metrics: SignalMetrics::register(registry)?,
        config,
    });
    for known in &signals.from {
        tokio::spawn(known.keys.clone().keep_fresh(known.of.issuer.clone()));
    }
    let (verdicts, told) = mpsc::channel(VERDICTS);
    let feed = Feed { verdicts, is_behind: Arc::default() };
    let mut routes = receive::routes(signals.clone());
    if transmits {
        routes = routes.merge(transmit::routes(signals.clone()));
        tokio::spawn(push::run(signals.clone(), agent));
    }
    tokio::spawn(tell(signals, told, feed.is_behind.clone(), directory.join("journal")));
    Ok(Some((routes, feed)))
}

/// Tells every verdict once its record is on disk, in the order of the journal.
async fn tell(
    signals: Arc<Signals>,
    mut verdicts: mpsc::Receiver<(Seq, Vec<Verdict>)>,
    is_behind: Arc<AtomicBool>,
    journal: PathBuf,
) {
    let mut known = catch_up(&signals, &journal).await;
    while let Some((seq, verdicts)) = verdicts.recv().await {
        if is_behind.swap(false, Ordering::Relaxed) {
            known = catch_up(&signals, &journal).await;
        }
        // What the disk has refused was not acted on either.
        if seq.0 <= known || signals.journal.durable(seq).await.is_err() {
            continue;
        }
        signals.note(&[(seq, verdicts)]);
    }
}

/// Reads what the book does not know of; the last record that was read.
async fn catch_up(signals: &Arc<Signals>, journal: &std::path::Path) -> u64 {
    let from = signals.read(|book| book.told) + 1;
    let to = signals.journal.status().durable.seq;
    if to.0 < from {
        return to.0;
    }
    let journal = journal.to_owned();
    let read = tokio::task::spawn_blocking(move || recorded(&journal, Seq(from), to)).await;
    match read {
        Ok(Ok(records)) => signals.note(&records),
        Ok(Err(error)) => tracing::error!(%error, "signals: the journal cannot be read; what it says is not told"),
        Err(error) => tracing::error!(%error, "signals: the journal could not be read"),
    }
    to.0
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    verdicts: Vec<Verdict>,
}

fn recorded(journal: &std::path::Path, from: Seq, to: Seq) -> Result<Vec<(Seq, Vec<Verdict>)>> {
    let mut records = Vec::new();
    for record in read_from(journal, from)? {
        let record = record?;
        if record.seq > to {
            break;
        }
        let verdicts = match record.kind {
            Kind::Decision => vec![record.payload().context("a decision of the journal")?],
            Kind::Command => record.payload::<Told>().context("a command of the journal")?.verdicts,
            _ => Vec::new(),
        };
        if !verdicts.is_empty() {
            records.push((record.seq, verdicts));
        }
    }
    Ok(records)
}

impl Signals {
    fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the book, and has it on disk before that is answered.
    fn change<T>(&self, change: impl FnOnce(&mut Book) -> Result<T, No>) -> Result<T, No> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = change(&mut book)?;
        let saved = book.save();
        drop(book);
        self.news.send_replace(());
        saved.map_err(|error| {
            tracing::error!(%error, "signals.json could not be written");
            No(StatusCode::SERVICE_UNAVAILABLE, "invalid_state", format!("it could not be kept: {error}"))
        })?;
        Ok(answer)
    }

    /// Makes a token for a stream and queues it.
    fn queue(&self, stream: &mut Stream, event: &Event, jti: String, wall: Timestamp) -> Result<(), No> {
        let issuer = self.config.issuer.as_deref().unwrap_or_default();
        let claims = event::claims(event, (issuer, &stream.audience), &jti, wall);
        let token = self
            .signing
            .token(&claims)
            .map_err(|error| No(StatusCode::INTERNAL_SERVER_ERROR, "invalid_state", error.to_string()))?;
        if stream.queue(jti, token) {
            self.metrics.told("dropped", 1);
        }
        self.metrics.told("queued", 1);
        Ok(())
    }

    /// Queues what the verdicts of these records are told as, for every stream.
    fn note(&self, records: &[(Seq, Vec<Verdict>)]) {
        let Some((last, _)) = records.last() else { return };
        let wall = self.clock.now();
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if book.streams.is_empty() {
            // Nobody is owed it.
            book.told = book.told.max(last.0);
            return;
        }
        drop(book);
        let noted = self.change(|book| {
            for (seq, verdicts) in records {
                for (at, verdict) in verdicts.iter().enumerate() {
                    for event in event::events(verdict) {
                        let wants = |stream: &&mut Stream| {
                            stream.status != Status::Disabled && stream.delivered.contains(&event.kind)
                        };
                        for stream in book.streams.values_mut().filter(wants) {
                            let id = event::jti(&format!("{}/{at}", stream.id), seq.0, &event.kind);
                            self.queue(stream, &event, id, wall)?;
                        }
                    }
                }
            }
            book.told = book.told.max(last.0);
            Ok(())
        });
        if let Err(No(_, _, words)) = noted {
            tracing::error!(words, "signals could not be queued; they are again after a restart");
        }
    }
}

/// Checks what can be checked without a port: the keys.
pub(crate) fn premises(config: &SignalsConfig) -> Result<()> {
    for of in &config.from {
        Known::read(of)?;
    }
    if let Some(key) = config.signing_key.as_ref().filter(|_| config.is_on()) {
        if !key.exists() {
            bail!(
                "[signals] signing_key {}: is not there; make one, or leave the key out for one that is made",
                key.display()
            );
        }
        Signing::open(key, false)?;
    }
    Ok(())
}
