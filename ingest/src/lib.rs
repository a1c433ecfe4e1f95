//! From telemetry to events: sources and formats.
//!
//! # Layout
//! - [`source`]: [`source::Source`], what every input is
//! - [`parse`]: the bytes of one record to one event, one format a file
//!
//! **Invariant:** wire forms end here. What leaves this crate is an event batch, or a counted rejection.

pub mod parse;
pub mod source;
