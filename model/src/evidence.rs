//! From p-values to bits, from bits to clocks, from clocks to thresholds.

mod chain;
mod clock;
mod curve;
mod habit;

pub use chain::{EValues, QUESTIONS, Questions};
pub use clock::{Climb, Clock, Pace, SLOW_CEILING};
pub use curve::{EpisodeCurve, Rates, level_of};
pub use habit::Habit;
