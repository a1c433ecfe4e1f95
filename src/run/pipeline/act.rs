//! Carrying out what was decided, and hearing what became of it.

use std::time::{Duration, Instant};

use qualm_model::{level::Level, time::Span};
use qualm_scorer::{
    containment::{Moment, Timeline},
    journal::Seq,
    table::{Enforcement, EnforcementReport},
    verdict::Cause,
};

use super::{Pipeline, journal::Command};
use crate::run::{
    Notice,
    connections::Taken,
    publish::{Owed, is_synced_first},
};

/// Verdicts that deny nothing share one table for so long: each has the whole table gone through.
pub(super) const PUBLISH_EVERY: Duration = Duration::from_millis(5);
/// Publications whose acknowledgements are still timed.
const TIMED: usize = 1024;

/// When a version of the table came about.
#[derive(Clone, Copy)]
pub(super) struct Decided {
    pub(super) at: Instant,
    /// When the event was read; `None` where no event caused it: a lease that ended, a reload.
    pub(super) read: Option<Instant>,
}

/// Verdicts wait to be told together.
pub(super) struct Unpublished {
    /// When they are, at the latest.
    pub(super) due: Instant,
    /// The first of them.
    pub(super) decided: Decided,
}

impl Pipeline {
    /// Carries out what was decided: journal, table, alert.
    pub(super) fn act(&mut self, read: Option<Instant>) {
        let mut owed = Vec::new();
        let mut changed = false;
        for verdict in std::mem::take(&mut self.verdicts) {
            if verdict.historic {
                continue;
            }
            let seq = self.journal_decision(&verdict);
            self.state.realised.note(&verdict);
            self.containment.decided(&verdict);
            self.hooks.grounds.note(&verdict);
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
            if let (Some(signals), Some(seq)) = (&self.signals, seq) {
                signals.tell(seq, vec![verdict.clone()]);
            }
            self.notice(|_| Notice::Verdict(Box::new(verdict)));
        }
        if changed && owed.is_empty() {
            let now = Instant::now();
            self.unpublished
                .get_or_insert(Unpublished { due: now + PUBLISH_EVERY, decided: Decided { at: now, read } });
        } else if changed {
            self.publish(owed, read);
        }
    }

    /// Tells of the verdicts that have waited for long enough.
    pub(super) fn publish_if_due(&mut self) {
        if self.unpublished.as_ref().is_some_and(|of| of.due <= Instant::now()) {
            self.publish(Vec::new(), None);
        }
    }

    pub(super) fn publish(&mut self, owed: Vec<Owed>, read: Option<Instant>) {
        let version = self.last_seq;
        let mut table = self.state.table(version, &self.setup.hash);
        for level in Level::BY_BEHAVIOUR {
            let count = table.entries.iter().filter(|entry| entry.level == level).count();
            self.metrics.standing(level, i64::try_from(count).unwrap_or(i64::MAX));
        }
        let decided = Decided { at: Instant::now(), read };
        // What has waited is in this table.
        self.decided.insert(version, self.unpublished.take().map_or(decided, |of| of.decided));
        while self.decided.len() > TIMED {
            self.decided.pop_first();
        }
        let ended = self.containment.push(&table, self.setup.clock.now());
        table.leaking = self.containment.leaking();
        self.publisher.publish(table, owed);
        self.tell_containment(ended);
    }

    /// Journals how far decisions have come, and tells people of what does not hold.
    pub(super) fn tell_containment(&mut self, news: Vec<Timeline>) {
        for timeline in news {
            let record = self.journal_command(&Command::Containment { timeline: &timeline });
            let (identity, state, served) = (&timeline.identity, timeline.state.as_str(), timeline.served);
            let (decision, worst) = (&timeline.decision, timeline.worst.join(", "));
            match timeline.moment {
                Moment::Contained | Moment::Ended | Moment::Standing => {
                    let seconds = timeline.time_to_contain().map(Span::as_seconds);
                    tracing::info!(identity, decision, state, served, time_to_contain_s = seconds, "containment");
                }
                Moment::Leaking | Moment::Unobserved => {
                    tracing::error!(identity, decision, state, served, worst, "not contained");
                    self.alerts.not_contained(record.unwrap_or(Seq(self.last_seq)), &timeline);
                }
            }
        }
    }

    pub(super) fn take_report(&mut self, report: &EnforcementReport) {
        self.proxies.report(report);
        self.containment.report(report);
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
        let is_lost = match report.what {
            Enforcement::Acknowledged => !self.acknowledgements.take(report),
            _ => self.connections.report(report) != Taken::Waiting,
        };
        if report.what == Enforcement::Disconnected {
            self.acknowledgements.gone(report);
        }
        self.metrics.reports_unrecorded.inc_by(u64::from(is_lost));
        self.notice(|_| Notice::Report(report.clone()));
    }
}
