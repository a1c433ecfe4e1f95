//! From telemetry to events: sources and formats.
//!
//! # Layout
//! - [`source`]: [`source::Source`], what every input is
//! - [`envoy`]: Envoy's access log service and OTLP logs, over gRPC
//! - [`mod@file`], [`kafka`]: the sources; [`config`]: their sections of the configuration; [`counters`]: what they count
//! - [`kubernetes`]: pods, as the Kubernetes API tells of them
//! - [`registry`]: Avro, Protobuf and JSON records whose schema is in a schema registry
//! - [`lines`]: lines of a byte stream, packed or plain
//! - [`mod@envelope`]: what shippers put around a record, opened before it is parsed
//! - [`parse`]: the bytes of one record to one event, one format a file
//!
//! **Invariant:** wire forms end here. What leaves this crate is an event batch, or a counted rejection.

pub mod config;
pub mod counters;
pub mod envelope;
pub mod envoy;
pub mod file;
mod gathering;
pub mod kafka;
pub mod kubernetes;
pub mod lines;
pub mod parse;
pub mod registry;
pub mod source;
