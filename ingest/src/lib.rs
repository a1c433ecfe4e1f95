//! From telemetry to events: sources and formats.
//!
//! # Layout
//! - [`source`]: [`source::Source`], what every input is
//!
//! **Invariant:** wire forms end here. What leaves this crate is an event batch, or a counted rejection.

pub mod source;
