//! How rare is this caller, this peer, this destination? The less trusted volume, the rarer.

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation, window};
use crate::stats::{ETable, Exposure, Told};

/// `x` of something never seen: e^20, more than any volume that a mesh will count.
const NEVER: f64 = 485_165_195.409_790_3;
const MINUTE: i64 = 60;

/// Trusted volume `T` of a key: calls weighted by how far they were to be learned. `x = e^20/(1 + T)`, with `T` as
/// it stood when the minute began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rarity {
    volume: f64,
    open: f64,
    minute: i64,
    #[serde(skip)]
    told: Told,
}

impl Rarity {
    /// Of something that was seen so often.
    pub fn of_volume(volume: f64) -> Self {
        Self { volume, minute: i64::MAX, ..Self::default() }
    }

    /// `1 + surprise` as of the begin of the minute.
    pub fn x(&self) -> f64 {
        NEVER / (1.0 + self.volume)
    }

    /// Trusted volume when the minute of the last call began.
    pub fn volume(&self) -> f64 {
        self.volume
    }

    /// Closes the minutes that have ended, as learning does. Returns the sample where one was closed.
    pub fn turn(&mut self, exposure: Exposure) -> Option<f64> {
        let minute = exposure.now.window(window(MINUTE));
        if minute <= self.minute {
            return None;
        }
        self.volume += self.open;
        self.open = 0.0;
        self.minute = minute;
        self.told = Told::default();
        Some(NEVER / (1.0 + self.volume))
    }

    /// The e-value, after [`turn`](Self::turn).
    #[inline]
    pub fn e(&mut self, table: &ETable) -> f64 {
        if let Some(e) = self.told.still(table) {
            return e;
        }
        self.told = Told::by(table, NEVER / (1.0 + self.volume));
        self.told.e()
    }

    /// Learns calls of trusted volume `weight`, after [`turn`](Self::turn).
    #[inline]
    pub fn learn_open(&mut self, weight: f64) {
        self.open += weight;
    }

    /// Trusted volume with the open minute.
    #[inline]
    pub fn total(&self) -> f64 {
        self.volume + self.open
    }
}

impl Detector for Rarity {
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        let minute = seen.exposure.now.window(window(MINUTE));
        let volume = if minute > self.minute { self.total() } else { self.volume };
        Some(Deviation { x: NEVER / (1.0 + volume), observed: volume, expected: 0.0, n: volume })
    }

    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        let sample = self.turn(seen.exposure);
        self.learn_open(seen.weight * seen.more);
        sample
    }
}
