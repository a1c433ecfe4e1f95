//! What the loop journals, and how the journal is kept within its bound.

use std::time::{Duration, Instant};

use qualm_hooks::{ledger::Told, ruling::PolicyTold};
use qualm_model::identity::Tenancy;
use qualm_scorer::{
    containment::Timeline,
    journal::{Kind, Seq},
    operator::Instruction,
    peers::Applied,
    table::EnforcementReport,
    verdict::Verdict,
};
use serde::Serialize;

use super::Pipeline;
use crate::run::{acknowledged::Acknowledged, checkpoint::records, connections::Noted, hooks::Heard, publish::Owed};

/// The journal's oldest files are not looked at more often.
const RELEASE_EVERY: Duration = Duration::from_secs(60);

/// A change that entered the loop other than by an event, as it is journalled.
#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub(super) enum Command<'a> {
    Start {
        config: &'a str,
        restored: bool,
        version: &'a str,
        sinks: &'a [&'a str],
    },
    Reload {
        config: &'a str,
    },
    Format {
        input: &'a str,
        before: &'a str,
        after: &'a str,
        /// Event time of the first record, RFC 3339.
        since: String,
    },
    Pods {
        pods: &'a [Tenancy],
    },
    /// A fit of peers, in the background or of a model file, judges from its event time on.
    Peers {
        peers: &'a Applied,
    },
    /// Partitions that are held up now, of all clusters: from here on, and for ten minutes after, nobody's silence is asked.
    HeldUp {
        partitions: u64,
    },
    /// Somebody has had something done by hand.
    Operator {
        instruction: &'a Instruction,
        /// What follows from it.
        verdicts: &'a [Verdict],
    },
    /// Somebody has asked for something that is not done.
    Refused {
        by: &'a str,
        call: &'a str,
        identity: Option<&'a str>,
        why: &'a str,
        /// Earlier ones that have no record.
        unrecorded: u64,
    },
    /// A pause of all enforcement has ended by itself.
    PauseEnded,
    /// How far a decision has come.
    Containment {
        timeline: &'a Timeline,
    },
    /// A hook has done something, or could not.
    Hook {
        hook: &'a Told,
    },
    /// The response policy rules from now on, was refused, or fails.
    Policy {
        policy: &'a PolicyTold,
    },
    /// Somebody has approved, rejected or taken back an effect of a hook.
    HookWord {
        by: &'a str,
        call: &'a str,
        effect: &'a str,
        why: &'a str,
    },
    /// Nodes hold these versions of the table.
    Acknowledged {
        acknowledged: &'a [Acknowledged],
        /// Earlier ones that have no record.
        unrecorded: u64,
    },
    Report {
        report: &'a EnforcementReport,
        /// Earlier ones of the same node that have no record.
        unrecorded: u64,
    },
}

/// Old files of the journal are to go once the checkpoint is on disk.
pub(super) struct Releasing {
    /// Its last record.
    last: Seq,
    /// Records that the disk had refused before it.
    unwritten: u64,
    /// The first record that stays.
    before: Seq,
}

impl Pipeline {
    pub(super) fn journal_decision(&mut self, verdict: &Verdict) -> Option<Seq> {
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
    pub(super) fn journal_again(&mut self) {
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

    pub(super) fn journal_command(&mut self, command: &Command<'_>) -> Option<Seq> {
        let wall = self.setup.clock.now();
        let event = self.state.scorer.watermark().unwrap_or(wall);
        match self.state.journal.append(Kind::Command, event, wall, command) {
            Ok(seq) => {
                self.last_seq = seq.0;
                Some(seq)
            }
            Err(error) => {
                tracing::error!(%error, "a command could not be journalled");
                None
            }
        }
    }

    /// Journals what a hook has done, or what has become of the policy.
    pub(super) fn hear_of_hook(&mut self, heard: &Heard) {
        self.journal_command(&match heard {
            Heard::Hook(hook) => Command::Hook { hook },
            Heard::Policy(policy) => Command::Policy { policy },
        });
    }

    /// Journals a fit of peers that judges from now on: before what it leads to.
    pub(super) fn journal_peers(&mut self) {
        if let Some(peers) = self.state.scorer.applied_peers() {
            self.journal_command(&Command::Peers { peers: &peers });
        }
    }

    pub(super) fn journal_reports(&mut self) {
        for Noted { report, unrecorded } in self.connections.due(Instant::now()) {
            self.journal_command(&Command::Report { report: &report, unrecorded });
        }
        if let Some((acknowledged, unrecorded)) = self.acknowledgements.due() {
            self.journal_command(&Command::Acknowledged { acknowledged: &acknowledged, unrecorded });
        }
    }

    /// Has the oldest files of the journal removed where they are too many, once what of them is needed stands, on disk,
    /// in a checkpoint.
    pub(super) fn bound_journal(&mut self) {
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
    pub(super) fn journal_checkpoint(&mut self) -> Option<Seq> {
        let sinks = self.setup.config.alerts.sinks();
        let contained = self.containment.kept(self.setup.clock.now());
        let beside = (self.alerts.owed(), self.state.scorer.kept_orders(), contained);
        let records = records(&self.setup.hash, &sinks, &self.state.decisions, beside);
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
}
