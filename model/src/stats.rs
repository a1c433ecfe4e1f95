//! Statistics, each with its formula and source. Natural logarithms unless a name says `bits`.

mod bins;
mod calibration;
mod count;
mod exposure;
mod logarithm;
mod step;
mod tail;

pub use bins::Bins;
pub use calibration::{Calibration, ETable, e_value};
pub use count::WindowCount;
pub use exposure::{ALL_LEARNED, Exposure};
pub use logarithm::log2;
pub(crate) use step::Told;
pub use tail::SizeTail;

/// Surprise above which a window is no longer learned with full weight, nats.
///
/// Measured in the prototype: between 7 and 10 nothing moves by more than 0.001 AUC; at 12 a four-day attack of 11
/// events a minute is learned as normal.
pub const THETA: f64 = 10.0;

/// How far a window with surprise `s` nats is to be learned: `1` up to [`THETA`], then `e^(θ − s)`.
#[inline]
pub fn trust(s: f64) -> f64 {
    if s <= THETA { 1.0 } else { libm::exp(THETA - s) }
}
