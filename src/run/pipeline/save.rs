//! Snapshots: begun now and then, collected between batches, committed once they are written.

use std::time::Instant;

use qualm_model::event::Positions;
use qualm_scorer::{
    journal::Seq,
    snapshot::{Changes, Covered, SnapshotError},
};

use super::{Pipeline, duration};

/// Keys of a snapshot that are collected between two batches: a millisecond or two.
const KEYS_A_TURN: usize = 2_000;

impl Pipeline {
    pub(super) fn save_if_due(&mut self) {
        if let Some(outcome) = self.state.snapshots.poll() {
            self.commit(outcome);
        }
        self.collect();
        // Archives that were read in part would not be read again, nor would what nothing is understood of.
        if self.archives.is_some() || !self.state.restored && self.understood.nothing().is_some() {
            return;
        }
        let is_busy = !self.state.snapshots.is_idle() || self.state.scorer.is_collecting();
        if Instant::now() < self.next_snapshot || is_busy {
            return;
        }
        self.next_snapshot = Instant::now() + duration(self.setup.config.state.snapshot_every.0);
        self.take_intake();
        let begun = Instant::now();
        self.state.scorer.begin_snapshot(self.covered());
        self.metrics.snapshot_pause.observe(begun.elapsed().as_secs_f64());
    }

    /// Takes over what the scorer has counted of the inputs' records.
    pub(super) fn take_intake(&mut self) {
        let names = self.setup.config.source_names();
        self.intakes.take(&self.state.scorer, &names, &self.metrics, self.setup.clock.now());
    }

    pub(super) fn covered(&self) -> Covered {
        let inputs = self.setup.config.source_names();
        let intake = self.intakes.saved(&inputs);
        Covered { positions: self.positions.clone(), journal: self.last_seq + 1, inputs, intake }
    }

    pub(super) fn save(&mut self, changes: Changes) {
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
    pub(super) fn collect(&mut self) {
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
    pub(super) fn save_now(&mut self) -> Positions {
        self.take_intake();
        let before = self.state.snapshots.finish().and_then(|outcome| self.commit(outcome));
        let changes = self.state.scorer.changes(self.covered());
        self.save(changes);
        let after = self.state.snapshots.finish().and_then(|outcome| self.commit(outcome));
        after.or(before).unwrap_or_default()
    }

    /// Only what a snapshot covers is committed; it is returned.
    pub(super) fn commit(&mut self, outcome: Result<Covered, SnapshotError>) -> Option<Positions> {
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
}
