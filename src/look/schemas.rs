//! Records with the id of a schema in front: which ids, and what the records are.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use qualm_ingest::{
    config::RegistryConfig,
    registry::{Kind, Reading, RegistryCounters, Rows, schema_id, seems},
    source::Invalid,
};
use serde::Serialize;

/// Ids that are told apart.
const MAX_SCHEMAS: usize = 64;
/// How long a schema is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the schemas of a topic.
#[derive(Debug)]
pub(super) struct Schemas {
    rows: Rows,
    patience: Duration,
    is_asked: bool,
    seen: BTreeMap<u32, Seen>,
}

#[derive(Debug)]
struct Seen {
    records: u64,
    kind: Option<Kind>,
    seems: Kind,
}

/// One of them, as it is told.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Schema {
    pub(super) id: u32,
    pub(super) records: u64,
    /// `Avro`, `Protobuf` or `JSON`.
    pub(super) kind: &'static str,
    /// Whether the registry says so; otherwise the records look like it.
    pub(super) is_known: bool,
    /// Whether a registry was asked at all.
    pub(super) is_asked: bool,
}

impl Schemas {
    /// By the registry of `config`, if it names one.
    pub(super) fn new(config: &RegistryConfig, max_bytes: usize) -> Result<Self> {
        let rows = Rows::new(config, max_bytes, RegistryCounters::default())?;
        Ok(Self { rows, patience: PATIENCE, is_asked: config.is_set(), seen: BTreeMap::new() })
    }

    /// What is to be read of a record: itself, or the row that its schema makes of it.
    pub(super) fn read<'a>(&'a mut self, record: &'a [u8]) -> Result<&'a [u8], Invalid> {
        let Some((id, seems)) = schema_id(record).zip(seems(record)) else { return Ok(record) };
        let known = self.seen.contains_key(&id);
        if known || self.seen.len() < MAX_SCHEMAS {
            let seen = self.seen.entry(id).or_insert(Seen { records: 0, kind: None, seems });
            seen.records += 1;
        }
        let is_new = self.seen.get(&id).is_none_or(|seen| seen.kind.is_none());
        if is_new && !self.rows.wait_for(record, self.patience) {
            // Nobody is kept waiting twice.
            self.patience = Duration::ZERO;
        }
        if let Some(seen) = self.seen.get_mut(&id).filter(|_| is_new) {
            seen.kind = self.rows.kind(id);
        }
        match self.rows.read(record, Instant::now()) {
            Reading::Bare => Ok(record),
            Reading::Row(row) => Ok(row),
            Reading::Waiting => Err(Invalid::RegistryUnavailable),
            Reading::Refused(why) => Err(why),
        }
    }

    /// All that were seen, most records first.
    pub(super) fn told(&self) -> Vec<Schema> {
        let told = |(&id, seen): (&u32, &Seen)| Schema {
            id,
            records: seen.records,
            kind: seen.kind.unwrap_or(seen.seems).as_str(),
            is_known: seen.kind.is_some(),
            is_asked: self.is_asked,
        };
        let mut all: Vec<Schema> = self.seen.iter().map(told).collect();
        all.sort_by_key(|schema| std::cmp::Reverse(schema.records));
        all
    }
}
