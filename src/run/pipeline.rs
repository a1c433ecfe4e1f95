//! The loop: observe, decide, journal, publish, snapshot, commit. One task owns all state.
//!
//! # Layout
//! - [`act`]: what was decided is told
//! - [`journal`]: what is journalled, and how much of it is kept
//! - [`operator`]: what a person asks and decides
//! - [`pods`]: what is told of pods
//! - [`save`](mod@save): snapshots, from the first key to the commit
//! - [`show`]: metrics, readiness, coverage

mod act;
mod journal;
mod operator;
mod pods;
mod save;
mod show;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context;
use prometheus::Registry;
use qualm_ingest::source::{Batch, Incoming, SourceError};
use qualm_model::{event::Positions, time::Span};
use qualm_scorer::{
    containment::Moment, enforce::trust_stream::record::Coverage, scorer::Observed, table::EnforcementReport,
    verdict::Verdict,
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep_until},
};

use self::{
    act::{Decided, Unpublished},
    journal::{Command, Releasing},
    operator::Refusals,
};
use super::{
    Notice, Setup,
    acknowledged::Acknowledgements,
    alerts::Alerts,
    connections::Connections,
    containment::Watch,
    coverage::Proxies,
    formats::Formats,
    hooks::Wired,
    inputs::{Archives, Inputs, Said},
    intake::Intakes,
    laggards::Laggards,
    pods::Pods,
    publish::Publisher,
    quirks::{Quirks, Shown},
    rollouts::Rollouts,
    state::State,
    understood::{NothingUnderstood, Understood},
};
use crate::{
    config::Config,
    finding::{Findings, Setting},
    observability::{Readiness, metrics::PipelineMetrics},
    operator::Call,
    signals::Feed,
};

/// How often leases, snapshots and metrics are looked at.
const TICK: Duration = Duration::from_millis(200);

/// What the loop is wired to.
pub(crate) struct Wires<'a> {
    pub(crate) inputs: Inputs,
    pub(crate) pods: Pods,
    pub(crate) report: mpsc::Receiver<EnforcementReport>,
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) hooks: Wired,
    pub(crate) publisher: Publisher,
    pub(crate) signals: Option<Feed>,
    pub(crate) coverage: watch::Sender<Coverage>,
    pub(crate) readiness: watch::Sender<Readiness>,
    pub(crate) metrics: PipelineMetrics,
    pub(crate) registry: &'a Registry,
    pub(crate) stopped: watch::Receiver<bool>,
}

/// The loop and its state.
pub(crate) struct Pipeline {
    setup: Setup,
    state: State,
    inputs: Inputs,
    pods: Pods,
    report: mpsc::Receiver<EnforcementReport>,
    calls: mpsc::Receiver<Call>,
    hooks: Wired,
    refusals: Refusals,
    publisher: Publisher,
    signals: Option<Feed>,
    coverage: watch::Sender<Coverage>,
    readiness: watch::Sender<Readiness>,
    metrics: PipelineMetrics,
    alerts: Alerts,
    stopped: watch::Receiver<bool>,
    positions: Positions,
    unpublished: Option<Unpublished>,
    /// Archived logs that are being read, before everything else.
    archives: Option<Archives>,
    /// What an input has said meanwhile.
    waiting: Option<Said>,
    proxies: Proxies,
    connections: Connections,
    acknowledgements: Acknowledgements,
    rollouts: Rollouts,
    containment: Watch,
    /// A checkpoint on its way to the disk.
    releasing: Option<Releasing>,
    next_release: Instant,
    laggards: Laggards,
    /// When each published version was decided and the event that caused it was read, to time its acknowledgements.
    decided: BTreeMap<u64, Decided>,
    verdicts: Vec<Verdict>,
    events: u64,
    /// Events, and what became none.
    records: u64,
    /// Monotonic: a wall clock that steps back must not hold back snapshots.
    next_snapshot: Instant,
    /// When one was written last; at first, when the process started.
    last_snapshot: Instant,
    /// Why the last one was not written.
    snapshot_error: Option<String>,
    /// Inputs that have not ended.
    open_inputs: usize,
    understood: Understood,
    formats: Formats,
    intakes: Intakes,
    quirks: Quirks,
    /// What was last to be shown of them.
    shown: Shown,
    caught_up: bool,
    last_seq: u64,
    folded: u64,
    unlisted: u64,
    held_back: u64,
    hidden: (u64, u64),
}

impl Pipeline {
    pub(crate) fn new(setup: Setup, mut state: State, wires: Wires<'_>) -> anyhow::Result<Self> {
        let outstanding = std::mem::take(&mut state.outstanding);
        let findings = std::mem::replace(&mut state.findings, Findings::new(Setting::Live));
        let alerts = Alerts::start(&setup.config.alerts, &state.journal, findings, outstanding, wires.registry)?;
        let (positions, last_seq) = (state.covered.positions.clone(), state.last_seq);
        let tally = state.scorer.tally();
        Ok(Self {
            // Numbers that the journal lost are given out again: the snapshot must soon know where it stands now.
            next_snapshot: if state.is_ahead {
                Instant::now()
            } else {
                Instant::now() + duration(setup.config.state.snapshot_every.0)
            },
            last_snapshot: Instant::now(),
            snapshot_error: None,
            open_inputs: wires.inputs.len(),
            understood: Understood::default(),
            formats: Formats::default(),
            intakes: Intakes::restored(&state.covered.intake, &setup.config.source_names()),
            quirks: Quirks::default(),
            shown: Shown::default(),
            inputs: wires.inputs,
            pods: wires.pods,
            report: wires.report,
            calls: wires.calls,
            hooks: wires.hooks,
            refusals: Refusals::default(),
            publisher: wires.publisher,
            signals: wires.signals,
            coverage: wires.coverage,
            readiness: wires.readiness,
            metrics: wires.metrics,
            stopped: wires.stopped,
            alerts,
            positions,
            unpublished: None,
            archives: None,
            waiting: None,
            proxies: Proxies::default(),
            connections: Connections::new(Instant::now()),
            acknowledgements: Acknowledgements::default(),
            rollouts: Rollouts::default(),
            containment: Watch::start(wires.registry, std::mem::take(&mut state.contained))?,
            releasing: None,
            next_release: Instant::now(),
            laggards: Laggards::default(),
            decided: BTreeMap::new(),
            verdicts: Vec::new(),
            events: 0,
            records: 0,
            caught_up: false,
            last_seq,
            folded: tally.folded,
            unlisted: tally.unlisted,
            held_back: tally.held_back,
            hidden: state.scorer.hidden(),
            setup,
            state,
        })
    }

    /// Runs until told to stop, or until all inputs have ended; [`NothingUnderstood`] where there was nothing in them.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        self.journal_command(&Command::Start {
            config: &self.setup.hash.clone(),
            restored: self.state.restored,
            version: env!("CARGO_PKG_VERSION"),
            sinks: &self.setup.config.alerts.sinks(),
        });
        self.journal_peers();
        // What stood when the last run ended stands from the first moment of this one, as far as it may.
        self.verdicts = std::mem::take(&mut self.state.restricted);
        self.act(None);
        self.publish(Vec::new(), None);
        self.open_archives()?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        let mut stopped = self.stopped.clone();
        let mut ended = Ok(());
        while ended.is_ok() && self.open_inputs > 0 {
            let stop = async {
                // A sender that is gone can never tell us to stop, and so it is over.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            tokio::select! {
                biased;
                () = stop => break,
                Some(report) = self.report.recv() => self.take_report(&report),
                Some(call) = self.calls.recv() => self.take_call(call),
                told = self.hooks.told() => self.hear_of_hook(&told),
                () = until(self.unpublished.as_ref().map(|of| of.due)) => self.publish_if_due(),
                _ = tick.tick() => self.tick(),
                _ = hangup.recv() => self.reload(),
                Some(news) = self.pods.news.recv() => self.hear_of_pods(news),
                archived = next(&mut self.archives) => ended = self.take_archived(archived),
                Some(said) = self.inputs.said.recv(), if self.waiting.is_none() => ended = self.hear(said),
            }
        }
        let nothing = if self.open_inputs == 0 { self.understood.nothing() } else { None };
        // Also what ends with an error saves what it knows and tells what is due.
        self.stop(nothing.as_ref()).await;
        ended?;
        nothing.map_or(Ok(()), |nothing| Err(nothing.into()))
    }

    fn hear(&mut self, said: Said) -> anyhow::Result<()> {
        // Partitions are given out at once: brokers do not wait as long as archives take.
        if self.archives.is_some() && !matches!(said.what, Ok(Incoming::Assigned(..))) {
            self.waiting = Some(said);
            return Ok(());
        }
        let name = self.inputs.name(said.input).to_owned();
        match said.what.with_context(|| format!("input {name} cannot go on"))? {
            Incoming::Batch(batch) => {
                let wall = self.setup.clock.now();
                self.understood.count(said.input, &name, &batch, wall);
                self.note_formats(&batch, wall);
                self.quirks.seen(&batch.events, wall);
                self.intakes.count(&batch, wall);
                self.take_batch(&batch);
            }
            Incoming::Assigned(partitions, answer) => {
                let known = partitions.iter().filter_map(|key| Some((*key, *self.positions.get(key)?))).collect();
                tracing::info!(input = name, partitions = partitions.len(), ?known, "assigned");
                // A source that has gone does not need the answer.
                let _ = answer.send(known);
            }
            Incoming::Revoking(partitions, done) => {
                tracing::info!(input = name, partitions = partitions.len(), "revoked");
                // Their positions are kept: should they come back unread by anybody else, nothing is judged twice.
                let covered = self.save_now();
                // A source that has gone has let go of them.
                let _ = done.send(covered);
            }
            Incoming::End => {
                self.understood.end(said.input, &name);
                self.open_inputs -= 1;
            }
        }
        Ok(())
    }

    fn take_batch(&mut self, batch: &Batch) {
        self.collect();
        let read = Instant::now();
        let wall = self.setup.clock.now();
        self.proxies.seen(&batch.events, wall);
        self.state.scorer.open(&batch.events);
        self.state.scorer.note_order(&batch.events, wall);
        let mut scored = 0;
        let mut losses = batch.lost.iter().peekable();
        for event in batch.events.events() {
            // Where it happened, for any size of batches.
            while let Some(loss) = losses.next_if(|loss| loss.position <= event.position()) {
                self.state.scorer.lose(loss.records);
            }
            self.containment.see(event, wall);
            let observed = self.state.scorer.observe(event, wall, &mut self.verdicts);
            scored += u64::from(matches!(observed, Observed::Scored { .. }));
            if matches!(observed, Observed::OwnAction) {
                self.metrics.own_actions.inc();
            }
            self.journal_peers();
            if !self.verdicts.is_empty() {
                self.act(Some(read));
            }
        }
        losses.for_each(|loss| self.state.scorer.lose(loss.records));
        self.metrics.scored.inc_by(scored);
        self.events += batch.events.len() as u64;
        self.records += (batch.events.len() + batch.rejected.len()) as u64;
        self.positions.extend(&batch.positions);
        self.publish_if_due();
        let (records, reached) = (self.records, self.positions.values().sum());
        self.notice(|events| Notice::Progress { events, records, reached });
    }

    /// Begins to read archived logs, where nothing is known yet. They are history: nothing is decided.
    fn open_archives(&mut self) -> anyhow::Result<()> {
        let history = self.setup.config.history.clone();
        if !self.state.restored && !history.files.is_empty() {
            self.archives = Some(super::inputs::archives(history, &self.setup.clock)?);
        }
        Ok(())
    }

    fn take_archived(&mut self, batch: Option<Result<Batch, SourceError>>) -> anyhow::Result<()> {
        if let Some(batch) = batch {
            self.take_batch(&batch?);
            return Ok(());
        }
        self.archives = None;
        tracing::info!(events = self.events, "archived logs are read");
        // They were no part of the time in which a snapshot was to be written.
        self.last_snapshot = Instant::now();
        self.waiting.take().map_or(Ok(()), |said| self.hear(said))
    }

    fn tick(&mut self) {
        let wall = self.setup.clock.now();
        let was_paused = self.state.scorer.pause().is_some();
        self.state.scorer.tick(wall, &mut self.verdicts);
        if was_paused && self.state.scorer.pause().is_none() {
            self.end_pause();
        }
        if !self.verdicts.is_empty() {
            self.act(None);
        }
        self.journal_again();
        let news = self.containment.tick(wall);
        let is_escalated = news.iter().any(|timeline| timeline.moment == Moment::Leaking);
        self.tell_containment(news);
        if is_escalated {
            self.publish(Vec::new(), None);
        }
        self.alerts.collect(wall);
        self.journal_reports();
        self.bound_journal();
        self.state.journal.seal_if_due(wall);
        self.save_if_due();
        self.show(wall);
    }

    fn reload(&mut self) {
        let Some(file) = self.setup.file.clone() else { return };
        match Config::read(&file) {
            Ok((config, hash)) => {
                self.journal_command(&Command::Reload { config: &hash });
                let wall = self.setup.clock.now();
                self.state.scorer.name_config(&hash);
                self.state.scorer.reconfigure(config.scorer(), wall, &mut self.verdicts);
                self.setup.config = config.with_inputs_of(&self.setup.config);
                self.state.scorer.limit_sources(self.setup.config.max_levels());
                self.state.scorer.filter_sources(self.setup.config.filters());
                self.state.scorer.scale_counts(self.setup.config.calls_a_record());
                self.state.scorer.wait_for_sources(self.setup.config.latenesses());
                self.setup.hash = hash;
                self.hooks.follow(&self.setup.config.response);
                let changed = self.verdicts.len();
                // What stands may do something else from now on, and that is on disk before anybody acts on it.
                if changed > 0 {
                    self.act(None);
                } else {
                    self.publish(Vec::new(), None);
                }
                tracing::info!(
                    config = self.setup.hash,
                    changed,
                    "reloaded: budgets, leases, enforcement, response policy, memory; inputs and ports at the next start"
                );
            }
            Err(error) => tracing::error!(%error, "the new configuration is refused; the old one stands"),
        }
    }

    async fn stop(mut self, nothing: Option<&NothingUnderstood>) {
        self.publish(Vec::new(), None);
        self.hooks.stop();
        self.journal_reports();
        // Where nothing was understood it is to be read again, once its format is named.
        if self.archives.is_none() && nothing.is_none() {
            self.save_now();
        }
        self.alerts.flush(self.setup.clock.now()).await;
        self.inputs.close().await;
        tracing::info!(events = self.events, "stopped");
    }

    fn notice(&self, notice: impl FnOnce(u64) -> Notice) {
        if let Some(notices) = &self.setup.notices {
            // Nobody needs to listen.
            let _ = notices.send(notice(self.events));
        }
    }
}

/// Waits until then; for ever, where there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// What comes next; nothing, ever, where nothing is open.
async fn next(archives: &mut Option<Archives>) -> Option<Result<Batch, SourceError>> {
    match archives {
        Some(archives) => archives.recv().await,
        None => std::future::pending().await,
    }
}

fn duration(span: Span) -> Duration {
    Duration::from_nanos(u64::try_from(span.0).unwrap_or(0))
}
