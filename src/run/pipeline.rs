//! The loop: observe, decide, journal, publish, snapshot, commit. One task owns all state.

mod show;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context;
use prometheus::Registry;
use qualm_ingest::source::{Batch, Incoming};
use qualm_model::{event::Positions, level::Level, time::Span};
use qualm_scorer::{
    enforce::trust_stream::record::Coverage,
    journal::{Kind, Seq},
    scorer::Observed,
    snapshot::{Changes, Covered},
    table::{Enforcement, EnforcementReport},
    verdict::{Cause, Verdict},
};
use serde::Serialize;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    Notice, Setup,
    alerts::Alerts,
    checkpoint::records,
    connections::{Connections, Noted, Taken},
    coverage::Proxies,
    inputs::{Inputs, Said},
    publish::{Owed, Publisher, is_synced_first},
    state::State,
};
use crate::{
    config::Config,
    finding::{Findings, Setting},
    observability::{Readiness, metrics::PipelineMetrics},
};

/// How often leases, snapshots and metrics are looked at.
const TICK: Duration = Duration::from_millis(200);
/// Keys of a snapshot that are collected between two batches: a millisecond or two.
const KEYS_A_TURN: usize = 2_000;
/// The journal's oldest files are not looked at more often.
const RELEASE_EVERY: Duration = Duration::from_secs(60);
/// Publications whose acknowledgements are still timed.
const TIMED: usize = 1024;

/// What the loop is wired to.
pub(crate) struct Wires<'a> {
    pub(crate) inputs: Inputs,
    pub(crate) report: mpsc::Receiver<EnforcementReport>,
    pub(crate) publisher: Publisher,
    pub(crate) coverage: watch::Sender<Coverage>,
    pub(crate) readiness: watch::Sender<Readiness>,
    pub(crate) metrics: PipelineMetrics,
    pub(crate) registry: &'a Registry,
    pub(crate) stopped: watch::Receiver<bool>,
}

/// When a version of the table came about.
#[derive(Clone, Copy)]
struct Decided {
    at: Instant,
    /// When the event was read; `None` where no event caused it: a lease that ended, a reload.
    read: Option<Instant>,
}

/// Old files of the journal are to go once the checkpoint is on disk.
struct Releasing {
    /// Its last record.
    last: Seq,
    /// Records that the disk had refused before it.
    unwritten: u64,
    /// The first record that stays.
    before: Seq,
}

/// A change that entered the loop other than by an event, as it is journalled.
#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "command")]
enum Command<'a> {
    Start {
        config: &'a str,
        restored: bool,
        version: &'a str,
        sinks: &'a [&'a str],
    },
    Reload {
        config: &'a str,
    },
    Report {
        report: &'a EnforcementReport,
        /// Earlier ones of the same node that have no record.
        unrecorded: u64,
    },
}

/// The loop and its state.
pub(crate) struct Pipeline {
    setup: Setup,
    state: State,
    inputs: Inputs,
    report: mpsc::Receiver<EnforcementReport>,
    publisher: Publisher,
    coverage: watch::Sender<Coverage>,
    readiness: watch::Sender<Readiness>,
    metrics: PipelineMetrics,
    alerts: Alerts,
    stopped: watch::Receiver<bool>,
    positions: Positions,
    proxies: Proxies,
    connections: Connections,
    /// A checkpoint on its way to the disk.
    releasing: Option<Releasing>,
    next_release: Instant,
    uncovered: Vec<String>,
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
    caught_up: bool,
    last_seq: u64,
    folded: u64,
    late: u64,
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
            inputs: wires.inputs,
            report: wires.report,
            publisher: wires.publisher,
            coverage: wires.coverage,
            readiness: wires.readiness,
            metrics: wires.metrics,
            stopped: wires.stopped,
            alerts,
            positions,
            proxies: Proxies::default(),
            connections: Connections::new(Instant::now()),
            releasing: None,
            next_release: Instant::now(),
            uncovered: Vec::new(),
            decided: BTreeMap::new(),
            verdicts: Vec::new(),
            events: 0,
            records: 0,
            caught_up: false,
            last_seq,
            folded: tally.folded,
            late: tally.late,
            setup,
            state,
        })
    }

    /// Runs until told to stop, or until all inputs have ended.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        self.journal_command(&Command::Start {
            config: &self.setup.hash.clone(),
            restored: self.state.restored,
            version: env!("CARGO_PKG_VERSION"),
            sinks: &self.setup.config.alerts.sinks(),
        });
        // What stood when the last run ended stands from the first moment of this one.
        self.publish(Vec::new(), None);
        self.read_archives()?;
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
                _ = tick.tick() => self.tick(),
                _ = hangup.recv() => self.reload(),
                Some(said) = self.inputs.said.recv() => ended = self.hear(said),
            }
        }
        // Also what ends with an error saves what it knows and tells what is due.
        self.stop().await;
        ended
    }

    fn hear(&mut self, said: Said) -> anyhow::Result<()> {
        let name = self.inputs.name(said.input).to_owned();
        match said.what.with_context(|| format!("input {name} cannot go on"))? {
            Incoming::Batch(batch) => self.take_batch(&batch),
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
                tracing::info!(input = name, "has ended");
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
        for event in batch.events.events() {
            let observed = self.state.scorer.observe(event, wall, &mut self.verdicts);
            scored += u64::from(matches!(observed, Observed::Scored { .. }));
            if matches!(observed, Observed::OwnAction) {
                self.metrics.own_actions.inc();
            }
            if !self.verdicts.is_empty() {
                self.act(Some(read));
            }
        }
        self.metrics.scored.inc_by(scored);
        self.events += batch.events.len() as u64;
        self.records += (batch.events.len() + batch.rejected.len()) as u64;
        self.positions.extend(&batch.positions);
        let (records, reached) = (self.records, self.positions.values().sum());
        self.notice(|events| Notice::Progress { events, records, reached });
    }

    /// Reads archived logs before everything else, where nothing is known yet. They are history: nothing is decided.
    fn read_archives(&mut self) -> anyhow::Result<()> {
        let history = self.setup.config.history.clone();
        if self.state.restored || history.files.is_empty() {
            return Ok(());
        }
        let mut reader = super::inputs::archives(history, &self.setup.clock)?;
        while let Some(batch) = reader.next_batch()? {
            self.take_batch(&batch);
        }
        tracing::info!(events = self.events, "archived logs are read");
        Ok(())
    }

    /// Carries out what was decided: journal, table, alert.
    fn act(&mut self, read: Option<Instant>) {
        let mut owed = Vec::new();
        let mut changed = false;
        for verdict in std::mem::take(&mut self.verdicts) {
            if verdict.historic {
                continue;
            }
            let seq = self.journal_decision(&verdict);
            if is_synced_first(verdict.level.max(verdict.previous)) {
                owed.push(Owed { verdict: verdict.clone(), seq });
            }
            changed = true;
            if let (Some(read), Cause::Evidence) = (read, verdict.cause) {
                self.metrics.event_to_verdict.observe(read.elapsed().as_secs_f64());
                self.metrics.entered(verdict.level);
            }
            tracing::info!(
                identity = verdict.identity,
                instance = verdict.subject.instance,
                level = verdict.level.as_str(),
                previous = verdict.previous.as_str(),
                bits = verdict.evidence_bits,
                because = verdict.reasons.first().map(|reason| reason.detector.name()),
                held = verdict.held,
                "verdict"
            );
            // Also what the journal could not take is told.
            self.alerts.verdict(seq.unwrap_or(Seq(self.last_seq)), &verdict);
            self.notice(|_| Notice::Verdict(Box::new(verdict)));
        }
        if changed {
            self.publish(owed, read);
        }
    }

    fn journal_decision(&mut self, verdict: &Verdict) -> Option<Seq> {
        match self.state.journal.append(Kind::Decision, verdict.time, verdict.decided, verdict) {
            Ok(seq) => {
                self.last_seq = seq.0;
                self.state.decisions.note(seq, verdict);
                Some(seq)
            }
            Err(error) => {
                tracing::error!(%error, decision = verdict.decision, "a decision could not be journalled");
                None
            }
        }
    }

    /// Journals again what the disk refused, as far as it still stands: until then nobody acts on it.
    fn journal_again(&mut self) {
        let mut refused = self.publisher.refused();
        if refused.is_empty() {
            return;
        }
        let entries = self.state.scorer.entries();
        refused.retain(|verdict| {
            entries.iter().any(|entry| entry.decision == verdict.decision && Some(entry.expires) == verdict.expires)
        });
        let owed = |verdict: Verdict| Owed { seq: self.journal_decision(&verdict), verdict };
        let owed: Vec<_> = refused.into_iter().map(owed).collect();
        if !owed.is_empty() {
            self.publish(owed, None);
        }
    }

    fn publish(&mut self, owed: Vec<Owed>, read: Option<Instant>) {
        let version = self.last_seq;
        let table = self.state.table(version, &self.setup.hash);
        for level in Level::BY_BEHAVIOUR {
            let count = table.entries.iter().filter(|entry| entry.level == level).count();
            self.metrics.standing(level, i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.decided.insert(version, Decided { at: Instant::now(), read });
        while self.decided.len() > TIMED {
            self.decided.pop_first();
        }
        self.publisher.publish(table, owed);
    }

    fn take_report(&mut self, report: &EnforcementReport) {
        self.proxies.report(report);
        match &report.what {
            Enforcement::Acknowledged => {
                if let Some(decided) = self.decided.get(&report.version) {
                    self.metrics.verdict_to_ack.observe(decided.at.elapsed().as_secs_f64());
                    let since_event_us = decided.read.map(|read| read.elapsed().as_micros());
                    tracing::debug!(node = report.node, version = report.version, since_event_us, "acknowledged");
                }
            }
            Enforcement::Rejected(why) => {
                tracing::warn!(
                    node = report.node,
                    version = report.version,
                    why,
                    "an enforcement point refused the table"
                );
            }
            Enforcement::Connected | Enforcement::Disconnected => {}
        }
        if report.what != Enforcement::Acknowledged {
            let is_lost = self.connections.report(report) != Taken::Waiting;
            self.metrics.reports_unrecorded.inc_by(u64::from(is_lost));
        }
        self.notice(|_| Notice::Report(report.clone()));
    }

    fn journal_command(&mut self, command: &Command<'_>) {
        let wall = self.setup.clock.now();
        let event = self.state.scorer.watermark().unwrap_or(wall);
        match self.state.journal.append(Kind::Command, event, wall, command) {
            Ok(seq) => self.last_seq = seq.0,
            Err(error) => tracing::error!(%error, "a command could not be journalled"),
        }
    }

    fn tick(&mut self) {
        let wall = self.setup.clock.now();
        self.state.scorer.tick(wall, &mut self.verdicts);
        if !self.verdicts.is_empty() {
            self.act(None);
        }
        self.journal_again();
        self.alerts.collect(wall);
        self.journal_reports();
        self.bound_journal();
        self.save_if_due();
        self.show(wall);
    }

    fn journal_reports(&mut self) {
        for Noted { report, unrecorded } in self.connections.due(Instant::now()) {
            self.journal_command(&Command::Report { report: &report, unrecorded });
        }
    }

    /// Has the oldest files of the journal removed where they are too many, once what of them is needed stands, on disk,
    /// in a checkpoint.
    fn bound_journal(&mut self) {
        let status = self.state.journal.status();
        match self.releasing.take() {
            Some(of) if status.durable.seq < of.last => self.releasing = Some(of),
            Some(of) if status.unwritten == of.unwritten => self.state.journal.release(of.before),
            // The disk has refused some of it: with the next one.
            Some(_) => {}
            None => {
                let Some(before) = status.excess.filter(|_| Instant::now() >= self.next_release) else { return };
                self.next_release = Instant::now() + RELEASE_EVERY;
                let last = self.journal_checkpoint();
                self.releasing = last.map(|last| Releasing { last, unwritten: status.unwritten, before });
            }
        }
    }

    /// Journals again what of the journal is needed; the last record.
    fn journal_checkpoint(&mut self) -> Option<Seq> {
        let sinks = self.setup.config.alerts.sinks();
        let records = records(&self.setup.hash, &sinks, &self.state.decisions, self.alerts.owed());
        tracing::info!(
            records = records.len(),
            "the journal's oldest files go: what of them is needed is journalled again"
        );
        let wall = self.setup.clock.now();
        let event = self.state.scorer.watermark().unwrap_or(wall);
        for record in &records {
            match self.state.journal.append(Kind::Checkpoint, event, wall, record) {
                Ok(seq) => self.last_seq = seq.0,
                Err(error) => {
                    tracing::error!(%error, "the journal's oldest files stay: what of them is needed cannot be journalled");
                    return None;
                }
            }
        }
        Some(Seq(self.last_seq))
    }

    fn save_if_due(&mut self) {
        if let Some(outcome) = self.state.snapshots.poll() {
            self.commit(outcome);
        }
        self.collect();
        let is_busy = !self.state.snapshots.is_idle() || self.state.scorer.is_collecting();
        if Instant::now() < self.next_snapshot || is_busy {
            return;
        }
        self.next_snapshot = Instant::now() + duration(self.setup.config.state.snapshot_every.0);
        let begun = Instant::now();
        self.state.scorer.begin_snapshot(self.covered());
        self.metrics.snapshot_pause.observe(begun.elapsed().as_secs_f64());
    }

    fn covered(&self) -> Covered {
        let inputs = self.setup.config.source_names();
        Covered { positions: self.positions.clone(), journal: self.last_seq + 1, inputs }
    }

    fn save(&mut self, changes: Changes) {
        // A snapshot must not know of decisions that the journal could forget in a crash.
        let (journal, last) = (self.state.journal.clone(), Seq(self.last_seq));
        let is_durable = move || {
            if let Err(error) = journal.wait_durable(last) {
                tracing::error!(%error, "the snapshot is ahead of the journal");
            }
        };
        self.state.snapshots.save(changes.after(is_durable));
    }

    /// Collects a little more of a snapshot that was begun; the last of it hands it over.
    fn collect(&mut self) {
        if !self.state.scorer.is_collecting() {
            return;
        }
        let begun = Instant::now();
        if let Some(changes) = self.state.scorer.collect(KEYS_A_TURN) {
            self.save(changes);
        }
        self.metrics.snapshot_pause.observe(begun.elapsed().as_secs_f64());
    }

    /// Writes a snapshot and waits for it; what is covered then.
    fn save_now(&mut self) -> Positions {
        let before = self.state.snapshots.finish().and_then(|outcome| self.commit(outcome));
        let changes = self.state.scorer.changes(self.covered());
        self.save(changes);
        let after = self.state.snapshots.finish().and_then(|outcome| self.commit(outcome));
        after.or(before).unwrap_or_default()
    }

    /// Only what a snapshot covers is committed; it is returned.
    fn commit(&mut self, outcome: Result<Covered, qualm_scorer::snapshot::SnapshotError>) -> Option<Positions> {
        match outcome {
            Ok(covered) => {
                self.metrics.snapshots.inc();
                (self.last_snapshot, self.snapshot_error) = (Instant::now(), None);
                self.inputs.commit(&covered.positions);
                Some(covered.positions)
            }
            // Nothing is lost: the inputs will be read again from the last snapshot that was written.
            Err(error) => {
                tracing::error!(%error, "no snapshot; the next one is of everything");
                self.metrics.snapshot_failures.inc();
                self.state.scorer.snapshot_failed();
                self.snapshot_error = Some(error.to_string());
                None
            }
        }
    }

    fn reload(&mut self) {
        let Some(file) = self.setup.file.clone() else { return };
        match Config::read(&file) {
            Ok((config, hash)) => {
                self.state.scorer.reconfigure(config.scorer());
                let config = config.with_inputs_of(&self.setup.config);
                self.state.scorer.limit_sources(config.max_levels());
                self.journal_command(&Command::Reload { config: &hash });
                self.publish(Vec::new(), None);
                tracing::info!(
                    config = hash,
                    "reloaded: budgets, leases, enforcement, memory; inputs and ports at the next start"
                );
                self.setup.config = config;
                self.setup.hash = hash;
            }
            Err(error) => tracing::error!(%error, "the new configuration is refused; the old one stands"),
        }
    }

    async fn stop(mut self) {
        self.journal_reports();
        self.save_now();
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

fn duration(span: Span) -> Duration {
    Duration::from_nanos(u64::try_from(span.0).unwrap_or(0))
}
