//! In which order the partitions were read: with several of them it is part of the input, and so it is saved.

use qualm_model::{
    event::{EventBatch, Position},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Events of one partition that were taken one after the other, with no other partition's between them. Whoever gives the
/// scorer of an earlier snapshot the events of these runs in this order, each with its wall time, gets the same verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Index of the topic or file in the configuration.
    pub source: u16,
    /// The partition.
    pub partition: i32,
    /// Offset of the first event.
    pub first: i64,
    /// Offset of the last event.
    pub last: i64,
    /// When the batch was taken: whether a partition has been read up to the present depends on it.
    pub wall: Timestamp,
}

/// The runs since the last snapshot.
#[derive(Debug, Default)]
pub(crate) struct Order {
    runs: Vec<Run>,
}

impl Order {
    pub(crate) fn note(&mut self, batch: &EventBatch, wall: Timestamp) {
        for event in batch.events() {
            let Position { source, partition, offset } = event.position();
            match self.runs.last_mut() {
                Some(run) if (run.source, run.partition, run.wall) == (source, partition, wall) => run.last = offset,
                _ => self.runs.push(Run { source, partition, first: offset, last: offset, wall }),
            }
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.runs)
    }
}
