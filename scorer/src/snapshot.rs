//! The snapshot: state and position saved together, in one transaction; a base plus the keys changed since.
//!
//! The loop turns what has changed into bytes, a little between batches ([`Scorer::collect`]), and what is about to change
//! before it does: the snapshot is of the moment at which it was begun. A thread of its own writes it.
//! redb keeps the base and makes each write atomic and durable: after `kill -9` the file is that of the last
//! transaction. The offsets in it are what may be committed to Kafka. After a write that failed the next snapshot is a
//! base again: what the failed one took with it is in no file.
//!
//! # Layout
//! - `store`: the file, and the thread that writes it; `restore`: the way back
//! - `before`: what releases before wrote
//! - `soundness`: damage is found before anything is believed
//! - `glance`, `aside`: what is read of it from outside; `intake`: what became of the inputs' records

mod aside;
mod before;
mod glance;
mod intake;
mod restore;
mod soundness;
mod store;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use qualm_model::{
    event::Positions,
    evidence::{Climb, Pace},
};
use serde::{Deserialize, Serialize};

pub use self::{
    glance::{Glance, Known, glance},
    intake::Intake,
    store::{Loaded, Snapshots},
};
use crate::{
    estate::Estate,
    forgotten::Forgotten,
    mesh::{Mesh, SourceKey},
    pending::{Gone, Taken},
    scorer::{Scorer, Tally},
    shard::{Link, Shard},
    standing::Standing,
    watermark::Watermark,
};

/// Version of the snapshot's form. Every release reads that of the release before: edges of version 1 have no rhythm,
/// its mesh asks fewer questions, and its estate knows nothing of credentials. In version 2 nobody knows which events
/// carried the evidence, nor of incidents; in version 3 not how much of it is of another kind than more of the same, and
/// sources have no windows; in version 4 nobody knows whom they met and how long they rested.
pub const VERSION: u32 = 5;

/// A snapshot that cannot be used; names the file and the way on.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file is damaged or no snapshot.
    #[error(
        "{file}: the snapshot is damaged ({problem}); move it away to start from history, decisions that stand are kept in the journal"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was found.
        problem: String,
    },
    /// A newer release wrote it.
    #[error(
        "{file}: the snapshot has version {found}, this release reads up to {VERSION}; start the release that wrote it, or move it away to start from history"
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It cannot be looked at from outside.
    #[error("{file}: the snapshot cannot be read: {problem}; check its permissions, or ask `qualm check` about it")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It cannot be written.
    #[error("{file}: the snapshot cannot be written: {problem}; check space and permissions of the directory")]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        problem: String,
    },
}

/// What belongs to no single key.
#[derive(Serialize, Deserialize)]
struct Whole {
    mesh: Mesh,
    watermark: Watermark,
    standings: Vec<(SourceKey, Standing)>,
    used: usize,
    tally: Tally,
}

/// Where the state stands in the inputs and in the journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Covered {
    /// Next offsets to read.
    pub positions: Positions,
    /// First journal record that the state does not know of.
    pub journal: u64,
    /// Names of the inputs, in the order of the numbers by which positions name them; empty in what releases before
    /// wrote. Kept under a key of its own.
    #[serde(skip)]
    pub inputs: Vec<String>,
    /// What became of the records of each input, by its name. Kept under a key of its own.
    #[serde(skip)]
    pub intake: BTreeMap<String, Intake>,
}

/// What one shard has in the air between two summaries.
#[derive(Serialize, Deserialize)]
struct Rest<D> {
    delta: D,
    touched: Vec<(u32, Link)>,
    unresolved: Vec<u32>,
    next_name: u32,
    /// Of the delta, the climbs of evidence that may lead beyond *watched*; version 3 had none apart.
    acting: Vec<(Pace, Climb)>,
}

enum Put {
    Whole(Box<Whole>),
    Meta(&'static str, Vec<u8>),
    Estate(Box<Estate>),
    Name(u8, u32, Option<Arc<str>>),
    Taken(u8, Taken),
    Gone(u8, Gone),
    Rest(u8, Vec<u8>),
    Forgotten(u8, Forgotten),
    Order(Vec<u8>),
}

/// Everything that changed since the last snapshot; everything, where that was not written.
pub struct Changes {
    puts: Vec<Put>,
    reach: Reach,
    covered: Covered,
    first: Option<Box<dyn FnOnce() + Send>>,
}

/// What a snapshot replaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The keys that it has; the others are in the file.
    #[default]
    Keys,
    /// All that is in the file.
    Base,
}

impl Changes {
    /// Has them written only when `first` has returned; it may wait, as it runs on the writing thread.
    #[must_use]
    pub fn after(self, first: impl FnOnce() + Send + 'static) -> Self {
        Self { first: Some(Box::new(first)), ..self }
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("puts", &self.puts.len()).field("covered", &self.covered).finish()
    }
}

fn bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data can always be written")
}

impl Scorer {
    /// Begins a snapshot of the state as it is now, which covers `covered`. [`collect`](Self::collect) it, a little
    /// between batches, before the next one is begun.
    pub fn begin_snapshot(&mut self, covered: Covered) {
        let whole = Whole {
            mesh: self.mesh.clone(),
            watermark: self.watermark.clone(),
            standings: self.standings.iter().map(|(&key, standing)| (key, standing.clone())).collect(),
            used: self.used,
            tally: self.tally,
        };
        let mut puts = vec![
            Put::Whole(Box::new(whole)),
            Put::Meta("covered", bytes(&covered)),
            Put::Meta("inputs", bytes(&covered.inputs)),
            Put::Meta("intake", bytes(&covered.intake)),
            Put::Meta("acting", bytes(self.mesh.acting())),
            Put::Meta("stood_still", bytes(self.mesh.pauses.kept())),
            Put::Meta("budget", bytes(&self.config.budget)),
            Put::Meta("orders", bytes(&self.orders)),
            Put::Meta("incidents", bytes(&self.incidents)),
            Put::Meta("waiting", bytes(&self.waiting)),
            Put::Meta("announced", bytes(&self.announced)),
            Put::Meta("accepted", bytes(&self.accepted)),
            Put::Estate(Box::new(self.estate.clone())),
            Put::Order(bytes(&self.order.take())),
        ];
        for (index, shard) in self.shards.iter_mut().enumerate() {
            begin_shard(index as u8, shard, &mut puts);
        }
        let reach = std::mem::take(&mut self.reach);
        if std::mem::take(&mut self.withheld.is_changed) || reach == Reach::Base {
            puts.push(Put::Meta("withheld", bytes(&self.withheld)));
        }
        // Where nobody tells of pods it never changes.
        if std::mem::take(&mut self.tenancies.is_changed) || reach == Reach::Base {
            puts.push(Put::Meta("tenancies", bytes(&self.tenancies)));
        }
        // Nor does this where no reporter names its pod.
        if std::mem::take(&mut self.workloads.is_changed) || reach == Reach::Base {
            puts.push(Put::Meta("workloads", bytes(&self.workloads)));
        }
        // And this only when a fit is begun or applied.
        if std::mem::take(&mut self.peers.is_changed) || reach == Reach::Base {
            puts.push(Put::Meta("peers", bytes(&self.peers)));
        }
        self.collecting = Some(Changes { puts, reach, covered, first: None });
    }

    /// Collects up to `most` keys of the snapshot that was begun; the snapshot, when all are. What changes meanwhile is
    /// in it as it was.
    pub fn collect(&mut self, most: usize) -> Option<Changes> {
        let changes = self.collecting.as_mut()?;
        let mut left = most;
        for (index, shard) in self.shards.iter_mut().enumerate() {
            shard.collect(&mut left);
            if !shard.changed.pending.is_empty() {
                return None;
            }
            let taken = shard.changed.pending.taken.drain(..);
            changes.puts.extend(taken.map(|taken| Put::Taken(index as u8, taken)));
        }
        self.shards.iter_mut().for_each(|shard| shard.changed.pending.open = false);
        self.collecting.take()
    }

    /// A snapshot was not written, and what it had is nowhere else: the next one holds everything.
    pub fn snapshot_failed(&mut self) {
        self.reach = Reach::Base;
        self.shards.iter_mut().for_each(Shard::change_all);
    }

    /// Whether a snapshot was begun and is not collected yet.
    pub fn is_collecting(&self) -> bool {
        self.collecting.is_some()
    }

    /// Takes what has changed since the last snapshot, for one that covers `covered`, at once.
    pub fn changes(&mut self, covered: Covered) -> Changes {
        // One that was begun is not lost: its changes are in no file.
        let before = self.collect(usize::MAX);
        self.begin_snapshot(covered);
        let mut changes = self.collect(usize::MAX).expect("it was begun, and all is collected");
        if let Some(before) = before {
            changes.puts.splice(0..0, before.puts);
            changes.reach = if before.reach == Reach::Base { Reach::Base } else { changes.reach };
        }
        changes
    }
}

/// What does not wait: what is gone, names, and what is in the air.
fn begin_shard(index: u8, shard: &mut Shard, puts: &mut Vec<Put>) {
    let changed = &mut shard.changed;
    changed.begin();
    for gone in changed.gone.drain(..) {
        puts.push(Put::Gone(index, gone));
    }
    for id in changed.names_gone.drain(..) {
        puts.push(Put::Name(index, id, None));
    }
    for id in changed.names_from..shard.names.next_id() {
        if let Some(text) = shard.names.existing(id) {
            puts.push(Put::Name(index, id, Some(text)));
        }
    }
    changed.names_from = shard.names.next_id();
    let rest = Rest {
        delta: &shard.delta,
        touched: shard.touched.iter().filter_map(|id| Some((*id, shard.links.get(id)?.clone()))).collect(),
        unresolved: shard.unresolved.clone(),
        next_name: shard.names.next_id(),
        acting: shard.delta.acting.clone(),
    };
    puts.push(Put::Rest(index, bytes(&rest)));
    if std::mem::take(&mut changed.forgotten) {
        puts.push(Put::Forgotten(index, shard.forgotten.clone()));
    }
}
