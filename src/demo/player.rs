//! Plays the traffic: the quiet days as fast as they are read, then the hour in which things happen, call by call,
//! each asked for at the gate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use qualm_datasets::{AccessLog, Call, Millis, Scenario, Traffic};
use tokio::sync::mpsc;

use super::{
    broker::{PARTITIONS, Writer},
    gate::Gate,
    tempo::Tempo,
};

/// The longest sleep while waiting for a call, so that librdkafka is served meanwhile.
const NAP: Duration = Duration::from_millis(20);
/// So often the progress through history is told.
const TOLD_EVERY: u64 = 20_000;

/// What the player tells.
#[derive(Debug)]
pub(super) enum Played {
    /// So many calls of history are written, up to this event time.
    History(u64, Millis),
    /// All of history is read; the hour begins.
    Live,
    /// A call of the hour has begun and was let through, or was denied under a decision.
    Call(Call, Option<String>),
    /// The report of a call of the hour is about to be written.
    Report(Call, Instant),
    /// Everything is written: so many lines.
    Done(u64),
}

/// Everything that playing needs.
pub(super) struct Player {
    pub(super) scenario: Arc<Scenario>,
    /// When the hour begins.
    pub(super) live: Millis,
    pub(super) writer: Writer,
    pub(super) gate: Gate,
    pub(super) tempo: Arc<Tempo>,
    /// Events that the pipeline is past.
    pub(super) read: Arc<AtomicU64>,
    pub(super) told: mpsc::UnboundedSender<Played>,
}

/// One end of a call of the hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Begin,
    Report,
}

impl Player {
    /// Plays to the end. Ends early and silently when nobody listens any more.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let mut traffic = Traffic::new(Arc::clone(&self.scenario));
        let mut hour = Vec::new();
        let mut written = 0;
        for call in traffic.by_ref() {
            if call.report() >= self.live {
                hour.push(call);
                continue;
            }
            self.write(&call, None)?;
            written += 1;
            if written % TOLD_EVERY == 0 && self.told.send(Played::History(written, call.report())).is_err() {
                return Ok(());
            }
        }
        self.writer.flush()?;
        self.wait_until_read(written)?;
        self.tempo.play();
        let _ = self.told.send(Played::Live);
        written += self.play(&hour)?;
        self.writer.flush()?;
        let _ = self.told.send(Played::Done(written));
        Ok(())
    }

    fn wait_until_read(&self, written: u64) -> anyhow::Result<()> {
        while self.read.load(Ordering::Relaxed) < written && !self.told.is_closed() {
            self.writer.poll()?;
            std::thread::sleep(NAP);
        }
        Ok(())
    }

    /// Plays the hour at the pace of the clock; returns how many lines were written.
    fn play(&mut self, hour: &[Call]) -> anyhow::Result<u64> {
        let mut steps: Vec<(Millis, usize, End)> = Vec::with_capacity(2 * hour.len());
        for (index, call) in hour.iter().enumerate() {
            steps.push((call.start, index, End::Begin));
            steps.push((call.report(), index, End::Report));
        }
        steps.sort_unstable();
        let mut denied = vec![false; hour.len()];
        let mut written = 0;
        for (at, index, end) in steps {
            self.wait_for(at)?;
            let call = hour[index];
            if self.told.is_closed() || (end == End::Report && denied[index]) {
                continue;
            }
            if end == End::Begin {
                let decision = self.ask(&call);
                denied[index] = decision.is_some();
                let _ = self.told.send(Played::Call(call, decision.clone()));
                let Some(decision) = decision else { continue };
                self.write(&call, Some(&decision))?;
            } else {
                let _ = self.told.send(Played::Report(call, Instant::now()));
                self.write(&call, None)?;
            }
            written += 1;
        }
        Ok(written)
    }

    fn wait_for(&self, at: Millis) -> anyhow::Result<()> {
        loop {
            let rest = self.tempo.until(at);
            if rest.is_zero() || self.told.is_closed() {
                return Ok(());
            }
            std::thread::sleep(rest.min(NAP));
            self.writer.poll()?;
        }
    }

    /// What began before the hour is history, and nothing is asked for.
    fn ask(&self, call: &Call) -> Option<String> {
        let mesh = self.scenario.mesh();
        let address = mesh.instance(call.source).address.to_string();
        (call.start >= self.live).then(|| self.gate.denies(mesh.identity(call.source), &address)).flatten()
    }

    fn write(&mut self, call: &Call, denied: Option<&str>) -> anyhow::Result<()> {
        let mesh = self.scenario.mesh();
        let log = AccessLog::new(mesh);
        let mut line = Vec::with_capacity(1024);
        let time = match denied {
            Some(decision) => {
                log.push_denied(call, &format!("qualm-deny/{decision}"), &mut line);
                call.start
            }
            None => {
                log.push_inbound(call, &mut line);
                call.report()
            }
        };
        let service = mesh.instance(call.source).service;
        self.writer.write(service.0 as usize % PARTITIONS, mesh.identity(call.source), time.0, &line)
    }
}
