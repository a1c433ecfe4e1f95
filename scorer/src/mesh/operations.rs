//! How much everybody together uses each operation.

use foldhash::{fast::FixedState, quality};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::hash::BuildHasher;

/// Operations that are counted.
const OPERATIONS: usize = 65_536;
/// What one takes on average, with the room that a growing table leaves free.
const OPERATION_BYTES: usize = 28;

/// Trusted calls of each operation at each destination, by a hash of both names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Operations {
    volumes: HashMap<u64, f32, FixedState>,
}

/// The key of an operation at a destination.
pub(crate) fn operation_key(destination: &str, operation: &str) -> u64 {
    quality::FixedState::with_seed(2).hash_one((destination, operation))
}

impl Operations {
    /// Bytes, by the number of operations: the same after a restart.
    pub(crate) fn bytes(&self) -> usize {
        self.volumes.len() * OPERATION_BYTES
    }

    pub(crate) fn add(&mut self, operation: u64, weight: f64) {
        if self.volumes.len() < OPERATIONS || self.volumes.contains_key(&operation) {
            *self.volumes.entry(operation).or_default() += weight as f32;
        }
    }

    /// Trusted calls; `None` where it may be one of those that there was no place for.
    pub(crate) fn volume(&self, operation: u64) -> Option<f64> {
        match self.volumes.get(&operation) {
            Some(&volume) => Some(f64::from(volume)),
            None => (self.volumes.len() < OPERATIONS).then_some(0.0),
        }
    }
}
