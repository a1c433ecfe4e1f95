//! What a snapshot that is being taken has still to collect from one shard: a key is collected between batches, or when
//! it is about to change, whichever comes first.

use serde::Serialize;

use crate::shard::{Attribute, Changed, Edge, Seen, Shard, Source};

/// Keys to collect, and what was collected.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) open: bool,
    sources: Vec<u32>,
    edges: Vec<(u32, u32)>,
    known: Vec<Attribute>,
    pub(crate) taken: Vec<Taken>,
}

/// State as it was when the snapshot was begun.
#[derive(Debug)]
pub(crate) enum Taken {
    Source(u32, Vec<u8>),
    Edge((u32, u32), Vec<u8>),
    Known(Attribute, Vec<u8>),
}

/// What is to be removed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gone {
    Source(u32),
    Edge((u32, u32)),
    Known(Attribute),
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.edges.is_empty() && self.known.is_empty()
    }
}

impl Changed {
    /// All that has changed is now to be collected; what changes from here on is the next snapshot's.
    pub(crate) fn begin(&mut self) {
        self.epoch += 1;
        self.pending.open = true;
        self.pending.sources = std::mem::take(&mut self.sources);
        self.pending.edges = std::mem::take(&mut self.edges);
        self.pending.known = std::mem::take(&mut self.known);
    }

    /// A state with this stamp is still to be collected.
    #[inline]
    fn is_pending(&self, stamp: u32) -> bool {
        self.pending.open && stamp + 1 == self.epoch
    }

    /// Before a source changes.
    #[inline]
    pub(crate) fn touch_source(&mut self, id: u32, source: &mut Source) {
        if source.stamp != self.epoch {
            if self.is_pending(source.stamp) {
                self.pending.taken.push(Taken::Source(id, bytes(source)));
            }
            source.stamp = self.epoch;
            self.sources.push(id);
        }
    }

    /// Before an edge changes.
    #[inline]
    pub(crate) fn touch_edge(&mut self, key: (u32, u32), edge: &mut Edge) {
        if edge.stamp != self.epoch {
            if self.is_pending(edge.stamp) {
                self.pending.taken.push(Taken::Edge(key, bytes(edge)));
            }
            edge.stamp = self.epoch;
            self.edges.push(key);
        }
    }

    /// Before an attribute changes.
    #[inline]
    pub(crate) fn touch_known(&mut self, attribute: Attribute, seen: &mut Seen) {
        if seen.stamp != self.epoch {
            if self.is_pending(seen.stamp) {
                self.pending.taken.push(Taken::Known(attribute, bytes(seen)));
            }
            seen.stamp = self.epoch;
            self.known.push(attribute);
        }
    }
}

impl Shard {
    /// Collects pending keys until `left` is used up.
    pub(crate) fn collect(&mut self, left: &mut usize) {
        let Changed { pending, epoch, .. } = &mut self.changed;
        let Pending { sources, edges, known, taken, .. } = pending;
        while *left > 0
            && let Some(id) = sources.pop()
        {
            *left -= 1;
            let source = self.sources.get(&id).filter(|source| source.stamp != *epoch);
            taken.extend(source.map(|source| Taken::Source(id, bytes(&**source))));
        }
        while *left > 0
            && let Some(key) = edges.pop()
        {
            *left -= 1;
            let edge = self.edges.get(&key).filter(|edge| edge.stamp != *epoch);
            taken.extend(edge.map(|edge| Taken::Edge(key, bytes(&**edge))));
        }
        while *left > 0
            && let Some(key) = known.pop()
        {
            *left -= 1;
            let seen = self.known.get(&key).filter(|seen| seen.stamp != *epoch);
            taken.extend(seen.map(|seen| Taken::Known(key, bytes(seen))));
        }
    }

    /// Collects all that is pending: some of it is about to go.
    pub(crate) fn collect_pending(&mut self) {
        let mut most = usize::MAX;
        self.collect(&mut most);
    }

    /// Everything is to be in the next snapshot.
    pub(crate) fn change_all(&mut self) {
        for (&id, source) in &mut self.sources {
            self.changed.touch_source(id, source);
        }
        for (&key, edge) in &mut self.edges {
            self.changed.touch_edge(key, edge);
        }
        for (&attribute, seen) in &mut self.known {
            self.changed.touch_known(attribute, seen);
        }
        (self.changed.names_from, self.changed.forgotten) = (0, true);
    }

    /// A source that is about to change other than by an event of its own.
    pub(crate) fn source_to_change(&mut self, id: u32) -> Option<&mut Source> {
        let source = self.sources.get_mut(&id)?;
        self.changed.touch_source(id, source);
        Some(source)
    }
}

fn bytes<T: Serialize>(state: &T) -> Vec<u8> {
    postcard::to_allocvec(state).expect("plain data can always be written")
}
