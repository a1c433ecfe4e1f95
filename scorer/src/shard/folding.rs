//! What is let go of to stay within the memory bound, and the mark that it leaves.

use foldhash::fast;
use hashbrown::HashSet;
use qualm_model::time::Timestamp;

use super::{Attribute, EDGE_BYTES, KNOWN_BYTES, OPERATION_BYTES, SOURCE_BYTES, Shard};
use crate::{config::Pause, pending::Gone};

/// Names of nothing that a shard may hold before it sweeps.
const IDLE_NAMES: usize = 256;

impl Shard {
    /// Removes sources with all their edges and attributes; returns the bytes freed.
    pub(crate) fn fold_sources(&mut self, ids: &HashSet<u32, fast::FixedState>) -> usize {
        self.collect_pending();
        let saved = self.changed.names_from;
        let mut freed = 0;
        for &id in ids {
            let Some(source) = self.sources.remove(&id) else { continue };
            self.forgotten.mark(source.mark());
            if id < saved {
                self.changed.gone.push(Gone::Source(id));
            }
            freed += SOURCE_BYTES + source.owned;
        }
        let changed = &mut self.changed;
        changed.forgotten = true;
        self.edges.retain(|key, _| {
            let stays = !ids.contains(&key.0);
            if !stays && key.0.max(key.1) < saved {
                changed.gone.push(Gone::Edge(*key));
            }
            stays
        });
        self.known.retain(|&attribute, _| {
            let stays = !ids.contains(&owner(attribute));
            if !stays && attribute.youngest() < saved {
                changed.gone.push(Gone::Known(attribute));
            }
            stays
        });
        freed
    }

    /// Folds the least known half of what one source owns; returns the bytes freed and the keys folded.
    pub(crate) fn fold_half_of(&mut self, id: u32) -> (usize, u64) {
        self.collect_pending();
        let saved = self.changed.names_from;
        let mut edges: Vec<(f64, Timestamp, (u32, u32))> = self
            .edges
            .iter()
            .filter(|((from, _), _)| *from == id)
            .map(|(&key, edge)| (edge.baseline.volume(), edge.last, key))
            .collect();
        edges.sort_by(|a, b| {
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then_with(|| self.names.text(a.2.1).cmp(self.names.text(b.2.1)))
        });
        let mut known: Vec<(u32, Timestamp, Attribute)> = self
            .known
            .iter()
            .filter(|(attribute, _)| owner(**attribute) == id)
            .map(|(&attribute, seen)| (seen.count, seen.last, attribute))
            .collect();
        known.sort_by(|a, b| {
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| a.2.mark(&self.names).cmp(&b.2.mark(&self.names)))
        });
        let (edges, known) = (&edges[..edges.len().div_ceil(2)], &known[..known.len().div_ceil(2)]);
        self.changed.forgotten = true;
        let known_bytes: usize = known.iter().map(|(.., attribute)| bytes_of(*attribute)).sum();
        let freed = edges.len() * EDGE_BYTES + known_bytes;
        for &(.., key) in edges {
            let mark = (4_u8, self.names.shared(key.0), self.names.shared(key.1));
            self.forgotten.mark((mark.0, &*mark.1, &*mark.2));
            self.edges.remove(&key);
            if key.0.max(key.1) < saved {
                self.changed.gone.push(Gone::Edge(key));
            }
        }
        for &(.., attribute) in known {
            let (kind, a, b, c) = attribute.mark(&self.names);
            let mark = (kind, a.to_owned(), b.to_owned(), c.to_owned());
            self.forgotten.mark((mark.0, &*mark.1, &*mark.2, &*mark.3));
            self.known.remove(&attribute);
            if attribute.youngest() < saved {
                self.changed.gone.push(Gone::Known(attribute));
            }
            if let Attribute::Operation { source, destination, .. } = attribute
                && let Some(edge) = self.edges.get_mut(&(source, destination))
            {
                self.changed.touch_edge((source, destination), edge);
                edge.operations = edge.operations.saturating_sub(1);
            }
        }
        if let Some(source) = self.sources.get_mut(&id) {
            self.changed.touch_source(id, source);
            source.owned = source.owned.saturating_sub(freed);
        }
        (freed, (edges.len() + known.len()) as u64)
    }

    /// Lets go of the edges that came up in a pause of learning, without a mark: whoever calls there afterwards does so for
    /// the first time. Returns the bytes freed.
    pub(crate) fn unlearn(&mut self, pause: &Pause) -> usize {
        self.collect_pending();
        let (saved, changed) = (self.changed.names_from, &mut self.changed);
        let mut gone = Vec::new();
        self.edges.retain(|&key, edge| {
            let stays = !(pause.since..pause.until).contains(&edge.users.first());
            if !stays {
                gone.push(key);
                if key.0.max(key.1) < saved {
                    changed.gone.push(Gone::Edge(key));
                }
            }
            stays
        });
        for (source, _) in &gone {
            if let Some(source) = self.sources.get_mut(source) {
                source.owned = source.owned.saturating_sub(EDGE_BYTES);
            }
        }
        gone.len() * EDGE_BYTES
    }

    /// Whether there are so many more names than after the last sweep that it is worth to look which are of things that
    /// are not kept: templates beyond a cap, parties of folded edges.
    pub(crate) fn has_idle_names(&self) -> bool {
        self.names.len() > self.swept + self.swept / 4 + IDLE_NAMES
    }

    /// Lets go of names, links and attributes that nothing refers to any more.
    pub(crate) fn sweep(&mut self, standing: impl Iterator<Item = u32>) {
        let mut used: HashSet<u32, fast::FixedState> = HashSet::default();
        used.extend(self.sources.keys());
        // Whoever stands is named, though folded away.
        used.extend(standing);
        for source in self.sources.values() {
            used.extend(source.instances.iter().map(|instance| instance.address));
            used.extend(source.carriers.iter().flat_map(|carriers| carriers.names()));
        }
        used.extend(self.edges.keys().map(|&(_, destination)| destination));
        for &attribute in self.known.keys() {
            match attribute {
                Attribute::Operation { destination, operation, .. } => used.extend([destination, operation]),
                Attribute::Credential { credential, .. } => used.extend([credential]),
                Attribute::Fingerprint { fingerprint, .. } => used.extend([fingerprint]),
            }
        }
        used.extend(&self.touched);
        self.links.retain(|id, _| used.contains(id));
        self.links.shrink_to(2 * self.links.len());
        let saved = self.changed.names_from;
        self.changed.names_gone.extend(self.names.keep(&used).into_iter().filter(|id| *id < saved));
        self.changed.sources.retain(|id| self.sources.contains_key(id));
        self.changed.edges.retain(|key| self.edges.contains_key(key));
        self.changed.known.retain(|key| self.known.contains_key(key));
        self.swept = self.names.len();
    }
}

/// What an attribute was counted as when it came.
fn bytes_of(attribute: Attribute) -> usize {
    match attribute {
        Attribute::Operation { .. } => KNOWN_BYTES + OPERATION_BYTES,
        Attribute::Credential { .. } | Attribute::Fingerprint { .. } => KNOWN_BYTES,
    }
}

fn owner(attribute: Attribute) -> u32 {
    match attribute {
        Attribute::Operation { source, .. }
        | Attribute::Credential { source, .. }
        | Attribute::Fingerprint { source, .. } => source,
    }
}
