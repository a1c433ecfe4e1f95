//! What evidence leads where: the curves read for the budget.

use qualm_model::{evidence::Pace, level::Level, stats::log2};
use serde::{Deserialize, Serialize};

use super::Mesh;
use crate::config::{Budget, arms_at};

/// Evidence that leads into a level, one number a clock; `None` where the level is not armed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Threshold {
    /// Of the fast clock.
    pub(crate) fast: Option<f64>,
    /// Of the slow clock.
    pub(crate) slow: Option<f64>,
}

/// What leads into each level that behaviour leads to, lowest first.
pub(crate) type Thresholds = [Threshold; 4];

/// What leads into a level; nothing, where behaviour does not.
pub(crate) fn threshold_of(thresholds: &Thresholds, level: Level) -> Threshold {
    let index = Level::BY_BEHAVIOUR.iter().position(|&behaviour| behaviour == level);
    index.map_or_else(Threshold::default, |index| thresholds[index])
}

/// Bits as they are shown, `log2(N · 1440 / rate)`, of what `identities` reach `per_day` times a day by chance.
pub(crate) fn shown(identities: u64, per_day: f64) -> f64 {
    log2(odds(identities, per_day))
}

fn odds(identities: u64, per_day: f64) -> f64 {
    identities.max(1) as f64 * 1440.0 / per_day.max(1e-300)
}

impl Mesh {
    pub(crate) fn threshold(&self, level: Level) -> Threshold {
        threshold_of(&self.thresholds, level)
    }

    /// What leads into every level.
    #[inline]
    pub(crate) fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Levels that can be entered now.
    pub(crate) fn armed(&self) -> Vec<Level> {
        let armed = |level: &Level| {
            let threshold = self.threshold(*level);
            threshold.fast.is_some() || threshold.slow.is_some()
        };
        Level::BY_BEHAVIOUR.into_iter().filter(armed).collect()
    }

    /// The more of the bits shown for both clocks.
    pub(crate) fn most_shown_bits(&self, fast: f64, slow: f64) -> f64 {
        log2(self.odds(Pace::Fast, fast).max(self.odds(Pace::Slow, slow)))
    }

    /// Against how many minutes of everybody one with evidence `m` stands: `N · 1440 / rate(m)`.
    fn odds(&self, pace: Pace, m: f64) -> f64 {
        odds(self.identities, self.rates[pace as usize].per_day(m))
    }

    /// How often a day evidence `m` is reached by chance.
    pub(crate) fn per_day(&self, pace: Pace, m: f64) -> f64 {
        self.rates[pace as usize].per_day(m)
    }

    /// Reads thresholds from the curves, for the budget as it is now.
    pub(crate) fn read_curves(&mut self, budget: &Budget) {
        let Some(birth) = self.birth else { return };
        self.read_at = self.closed;
        self.rates = [
            self.curves[Pace::Fast as usize].rates(birth, self.closed),
            self.curves[Pace::Slow as usize].rates(birth, self.closed),
        ];
        let acting = [
            self.acting[Pace::Fast as usize].rates(birth, self.closed),
            self.acting[Pace::Slow as usize].rates(birth, self.closed),
        ];
        for (threshold, level) in self.thresholds.iter_mut().zip(Level::BY_BEHAVIOUR) {
            let armed = self.closed >= arms_at(level, birth);
            let read = |pace: Pace, share: f64| {
                let rates = if level > Level::Watched { &acting } else { &self.rates };
                armed.then(|| rates[pace as usize].threshold(share * budget.per_day(level))).flatten()
            };
            // The lower levels share their budget between the clocks; the higher ones trust the slow one alone.
            *threshold = match level {
                Level::Watched | Level::Throttled => {
                    Threshold { fast: read(Pace::Fast, 0.5), slow: read(Pace::Slow, 0.5) }
                }
                _ => Threshold { fast: None, slow: read(Pace::Slow, 1.0) },
            };
        }
    }
}
