//! Records whose schema is in a Confluent schema registry: Avro, Protobuf and JSON with a schema id in front. A record
//! becomes a row, a JSON object, and goes the way of every JSON record from there: envelopes, formats, mappings.
//!
//! # Layout
//! - this file: [`Rows`], from records to rows
//! - `wire`: the bytes in front of a record; `row`: the JSON that comes of it, bounded
//! - `avro`, `protobuf`: what a schema says, and records read by it
//! - `schema`: what the registry has written down; `client`: asking it
//! - `asking`: schemas in memory, and the thread that asks for those that are not
//!
//! A registry is asked beside the reading path. A record whose schema is not there yet waits, and with it its partition
//! alone (`kafka/waiting.rs`).

mod asking;
mod avro;
mod client;
mod protobuf;
mod row;
mod schema;
mod wire;

use std::time::{Duration, Instant};

pub use self::{
    asking::RegistryCounters,
    client::{Client, InvalidClient, Unreached},
    schema::Kind,
    wire::{schema_id, seems},
};
use self::{
    asking::{Answer, Schemas},
    wire::Framed,
};
use crate::{config::RegistryConfig, source::Invalid};

/// How often is looked for an answer where it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Makes rows of records. One serves all topics of a cluster.
#[derive(Debug)]
pub struct Rows {
    schemas: Option<Schemas>,
    row: String,
    max_bytes: usize,
}

/// What a record has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading<'a> {
    /// It has no schema id in front: it is as it is.
    Bare,
    /// A JSON object, or whatever else the schema's outermost type is.
    Row(&'a [u8]),
    /// Its schema has been asked for.
    Waiting,
    /// It cannot be read.
    Refused(Invalid),
}

impl Rows {
    /// Rows of at most `max_bytes`, by the schemas of `config`, or without a registry where it names none.
    ///
    /// # Errors
    /// The configuration's certificate cannot be read, or no thread can be started.
    pub fn new(config: &RegistryConfig, max_bytes: usize, counters: RegistryCounters) -> Result<Self, InvalidClient> {
        let schemas = if config.is_set() { Some(Schemas::start(config, counters)?) } else { None };
        Ok(Self { schemas, row: String::new(), max_bytes })
    }

    /// Reads a record; never waits.
    #[inline]
    pub fn read<'a>(&'a mut self, record: &'a [u8], now: Instant) -> Reading<'a> {
        match wire::framed(record) {
            None => Reading::Bare,
            Some(framed) => self.read_framed(framed, record.len(), now),
        }
    }

    /// Waits until it is known what has become of the schema of a record, or until `patience` has passed. Whether it is
    /// known.
    pub fn wait_for(&mut self, record: &[u8], patience: Duration) -> bool {
        let (Some(framed), Some(schemas)) = (wire::framed(record), &mut self.schemas) else { return true };
        let begun = Instant::now();
        while matches!(schemas.find(framed.id, Instant::now()), Answer::Waiting) {
            if begun.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// What a schema is of, once it is known.
    pub fn kind(&mut self, id: u32) -> Option<Kind> {
        match self.schemas.as_mut()?.find(id, Instant::now()) {
            Answer::Found(schema) => Some(schema.kind()),
            _ => None,
        }
    }

    fn read_framed<'a>(&'a mut self, framed: Framed<'a>, bytes: usize, now: Instant) -> Reading<'a> {
        if bytes > self.max_bytes {
            return Reading::Refused(Invalid::TooLong);
        }
        let Some(schemas) = &mut self.schemas else {
            // JSON by a schema is JSON without it.
            return if framed.is_json() { Reading::Row(framed.payload) } else { Reading::Refused(Invalid::NoRegistry) };
        };
        match schemas.find(framed.id, now) {
            Answer::Waiting => Reading::Waiting,
            Answer::Refused(why) => Reading::Refused(why),
            Answer::Found(schema) if schema.kind() == Kind::Json => Reading::Row(framed.payload),
            Answer::Found(schema) => match schema.read(framed.payload, self.max_bytes, &mut self.row) {
                Ok(()) => Reading::Row(self.row.as_bytes()),
                Err(why) => Reading::Refused(why),
            },
        }
    }
}
