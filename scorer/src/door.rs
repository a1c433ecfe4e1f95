//! The shards' door: a batch's dictionary keys become shard and id once a batch, not once an event.

use std::borrow::Cow;

use qualm_model::{
    event::{Event, Names as Column},
    fingerprint::tls_stack,
};

use crate::{
    estate::Resolved,
    shard::{SHARDS, Shard, shard_of},
    workloads,
};

const UNSET: u32 = u32::MAX;

/// Per shard, the ids of one column's dictionary keys.
#[derive(Debug)]
struct Remap {
    ids: Vec<Vec<u32>>,
}

impl Default for Remap {
    fn default() -> Self {
        Self { ids: vec![Vec::new(); SHARDS] }
    }
}

impl Remap {
    fn clear(&mut self) {
        self.ids.iter_mut().for_each(Vec::clear);
    }

    #[inline]
    fn id(&mut self, shard: u8, shards: &mut [Shard], column: &Column, key: usize) -> u32 {
        self.id_of(shard, shards, column, key, itself)
    }

    /// The id of what a text stands for.
    #[inline]
    fn id_of(
        &mut self,
        shard: u8,
        shards: &mut [Shard],
        column: &Column,
        key: usize,
        stands_for: fn(&str) -> Cow<'_, str>,
    ) -> u32 {
        let ids = &mut self.ids[usize::from(shard)];
        if ids.is_empty() {
            ids.resize(column.distinct(), UNSET);
        }
        if ids[key] == UNSET {
            ids[key] = shards[usize::from(shard)].names.id(&stands_for(column.text(key)));
        }
        ids[key]
    }
}

fn itself(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}

/// The ids of one event within its shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    pub(crate) shard: u8,
    pub(crate) source: u32,
    /// The destination; where the record has none, the operation stands for what was acted on.
    pub(crate) destination: u32,
    pub(crate) operation: Option<u32>,
    pub(crate) credential: Option<u32>,
    pub(crate) fingerprint: Option<u32>,
    pub(crate) address: u32,
}

/// Remaps of the batch that is passing through.
#[derive(Debug, Default)]
pub(crate) struct Door {
    sources: Vec<Option<(u8, u32)>>,
    destinations: Remap,
    hostnames: Remap,
    operations: Remap,
    credentials: Remap,
    ja4: Remap,
    ja3: Remap,
    addresses: Remap,
    text: String,
}

impl Door {
    /// Forgets the batch before.
    pub(crate) fn open(&mut self) {
        self.sources.clear();
        for remap in [
            &mut self.destinations,
            &mut self.hostnames,
            &mut self.operations,
            &mut self.credentials,
            &mut self.ja4,
            &mut self.ja3,
            &mut self.addresses,
        ] {
            remap.clear();
        }
    }

    /// The event's ids; `None` where it has no source. `workload` is who calls, where that is one of several that share
    /// the principal.
    #[inline]
    pub(crate) fn ids(
        &mut self,
        event: Event<'_>,
        resolved: &Resolved,
        workload: Option<&str>,
        shards: &mut [Shard],
    ) -> Option<Ids> {
        let (batch, row) = (event.batch, event.row);
        let principal = batch.source.principal.key(row)?;
        let party = event.source();
        let (shard, source) = if let Some(source) = &resolved.source {
            self.source(source, party.cluster(), workload, shards)
        } else if workload.is_some() || batch.source.cluster.key(row).is_some() {
            self.source(party.principal(), party.cluster(), workload, shards)
        } else {
            if self.sources.is_empty() {
                self.sources.resize(batch.source.principal.distinct(), None);
            }
            match self.sources[principal] {
                Some(found) => found,
                None => {
                    let found = self.source(party.principal(), "", None, shards);
                    self.sources[principal] = Some(found);
                    found
                }
            }
        };
        let operation = batch.operation.key(row).map(|key| self.operations.id(shard, shards, &batch.operation, key));
        let named = (batch.destination.principal.key(row), batch.hostname.key(row), operation);
        let destination = match named {
            _ if let Some(destination) = &resolved.destination => shards[usize::from(shard)].names.id(destination),
            (Some(key), ..) => self.destinations.id(shard, shards, &batch.destination.principal, key),
            (None, Some(key), _) => self.hostnames.id(shard, shards, &batch.hostname, key),
            (None, None, Some(operation)) => operation,
            (None, None, None) => shards[usize::from(shard)].names.id("-"),
        };
        let fingerprint = match (batch.ja4.key(row), batch.ja3.key(row)) {
            (Some(key), _) => Some(self.ja4.id_of(shard, shards, &batch.ja4, key, tls_stack)),
            (None, Some(key)) => Some(self.ja3.id(shard, shards, &batch.ja3, key)),
            (None, None) => None,
        };
        Some(Ids {
            shard,
            source,
            destination,
            operation: operation.filter(|&operation| operation != destination),
            credential: batch.credential.key(row).map(|key| self.credentials.id(shard, shards, &batch.credential, key)),
            fingerprint,
            address: match batch.source.ip.key(row) {
                Some(key) => self.addresses.id(shard, shards, &batch.source.ip, key),
                None => source,
            },
        })
    }

    fn source(&mut self, principal: &str, cluster: &str, workload: Option<&str>, shards: &mut [Shard]) -> (u8, u32) {
        workloads::write_name(&mut self.text, principal, cluster, workload);
        let shard = shard_of(&self.text);
        (shard, shards[usize::from(shard)].names.id(&self.text))
    }
}
