//! Staying within the memory bound: whoever takes most gives first.

use std::sync::Arc;

use qualm_model::{level::Level, time::Timestamp};

use crate::{mesh::SourceKey, scorer::Scorer, shard::SOURCE_BYTES, standings::STANDING_BYTES};

/// Room is made down to this share of the bound, so that it is not made for every event.
const DOWN_TO: f64 = 0.9;
/// A source that takes more than this share of the bound gives of its own before any other source goes.
const GREAT: f64 = 0.01;
/// Share of a crowd's identities that go at once.
const CROWD_SHARE: f64 = 0.1;
/// The table may take this part of the bound.
const TABLE_SHARE: usize = 16;
/// And no more entries than that: each enforcement point gets all of them.
const MOST_STANDINGS: usize = 10_000;

impl Scorer {
    /// Folds keys away until there is room again. One great source loses its own least known edges and attributes;
    /// a crowd of small ones loses the least known identities of the most crowded namespace.
    pub(crate) fn make_room(&mut self) {
        self.set_limit();
        let bound = self.limit as f64;
        while self.used as f64 > DOWN_TO * bound {
            let before = self.used;
            match self.greatest() {
                Some((key, owned)) if owned as f64 > GREAT * bound => {
                    let (freed, keys) = self.shards[usize::from(key.0)].fold_half_of(key.1);
                    self.used = self.used.saturating_sub(freed);
                    self.tally.folded += keys;
                }
                _ => self.thin_the_crowd(),
            }
            if self.used >= before {
                break;
            }
        }
        self.sweep_due = true;
    }

    /// What is not the sources' and counts towards the bound all the same.
    pub(crate) fn beside(&self) -> usize {
        let filters: usize = self.shards.iter().map(|shard| shard.forgotten.bytes()).sum();
        filters
            + self.mesh.bytes()
            + self.standings.len() * STANDING_BYTES
            + self.estate.bytes()
            + self.tenancies.bytes()
            + self.workloads.bytes()
    }

    /// Leaves to the sources what the rest does not take of the bound.
    pub(crate) fn set_limit(&mut self) {
        self.limit = (self.config.memory.baselines_mib << 20).saturating_sub(self.beside());
    }

    /// Whether there is no place in the table for one more who would only be *watched*: a crowd of newcomers is one
    /// thing to look at, not ten thousand.
    pub(crate) fn is_table_full(&self) -> bool {
        let most = (self.config.memory.baselines_mib << 20) / TABLE_SHARE / STANDING_BYTES;
        self.standings.len() >= most.min(MOST_STANDINGS)
    }

    /// Lets go of the list of what has changed, where no snapshots are made.
    pub fn forget_changes(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.changed.forget(shard.names.next_id()));
    }

    fn greatest(&self) -> Option<(SourceKey, usize)> {
        let all = self.shards.iter().enumerate().flat_map(|(shard, s)| {
            s.sources.iter().map(move |(&id, source)| ((shard as u8, id), source.owned, &source.principal))
        });
        // Ties by name: the order of a map is nobody's business.
        all.max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.2.cmp(a.2))).map(|(key, owned, _)| (key, owned))
    }

    fn thin_the_crowd(&mut self) {
        let mut crowds: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
        for source in self.shards.iter().flat_map(|shard| shard.sources.values()) {
            *crowds.entry(source.namespace.as_deref().unwrap_or_default()).or_default() += SOURCE_BYTES + source.owned;
        }
        let Some((crowd, _)) = crowds.into_iter().max_by_key(|&(_, bytes)| bytes) else { return };
        let crowd = crowd.to_owned();
        let mut members: Vec<(f64, Timestamp, Arc<str>, SourceKey)> = Vec::new();
        for (shard, s) in self.shards.iter().enumerate() {
            for (&id, source) in &s.sources {
                let key = (shard as u8, id);
                // Being watched protects nobody from being folded: a crowd is watched soon.
                let stands = self.standings.get(&key).is_some_and(|standing| standing.level > Level::Watched);
                if !stands && source.namespace.as_deref().unwrap_or_default() == crowd {
                    members.push((source.baseline.volume(), source.last, source.principal.clone(), key));
                }
            }
        }
        let most = ((members.len() as f64 * CROWD_SHARE) as usize).max(1).min(members.len());
        if most < members.len() {
            members.select_nth_unstable_by(most, |a, b| {
                a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then_with(|| a.2.cmp(&b.2))
            });
        }
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let gone =
                members[..most].iter().filter(|(.., key)| usize::from(key.0) == index).map(|(.., key)| key.1).collect();
            self.used = self.used.saturating_sub(shard.fold_sources(&gone));
        }
        self.tally.folded += most as u64;
        self.mesh.forget_identities(most as u64);
    }
}
