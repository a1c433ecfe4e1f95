//! What normal looks like: events, identities, statistics, detectors, evidence.
//!
//! # Layout
//! - [`time`], [`event`], [`identity`], [`level`], [`fold`]: what is observed, of whom, and the ladder of trust
//! - [`stats`]: counts, calibration histograms, sketches; each with its formula and source
//! - [`detector`]: one question a file, all through [`detector::Detector`]
//! - [`baseline`]: the detectors of one source, one edge, one destination
//! - [`peers`]: what an identity does in ten minutes as a vector, and how that of its peers varies
//! - [`evidence`]: p-values to bits, bits to clocks, clocks to thresholds
//!
//! **Invariant:** this crate is pure. No I/O, no async, no clock, no environment, no unseeded randomness:
//! time is an argument, and the same events in the same order give the same numbers on every machine.

pub mod baseline;
pub mod detector;
pub mod event;
pub mod evidence;
pub mod fingerprint;
pub mod fold;
pub mod identity;
pub mod level;
pub mod peers;
pub mod stats;
pub mod time;
