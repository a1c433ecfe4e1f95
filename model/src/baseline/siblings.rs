//! What is usual among the siblings of a new source.

use serde::{Deserialize, Serialize};

use crate::{
    stats::{Exposure, WindowCount},
    time::Span,
};

/// What is usual among the siblings of a new source: mean and mean square of the calls of one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SiblingRate {
    /// Windows of siblings that this rests on.
    pub windows: f64,
    /// Sum of their counts.
    pub sum: f64,
    /// Sum of the squares of their counts.
    pub squares: f64,
}

impl SiblingRate {
    /// Takes in the count of one closed window.
    pub fn add(&mut self, count: f64) {
        self.windows += 1.0;
        self.sum += count;
        self.squares += count * count;
    }

    /// Takes in what another shard has seen.
    pub fn merge(&mut self, other: &Self) {
        self.windows += other.windows;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    pub(super) fn inherit(&self, exposure: Exposure, length: Span) -> Option<WindowCount> {
        (self.windows >= 30.0)
            .then(|| WindowCount::inheriting(exposure, length, self.sum / self.windows, self.squares / self.windows))
    }
}
