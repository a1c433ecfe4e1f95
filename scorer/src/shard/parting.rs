//! How one of several workloads that share a principal becomes a source of its own: with what was its own of all that the
//! principal's source knew, so that nothing it has always done is new, and what only others did is.

use std::sync::Arc;

use foldhash::fast;
use hashbrown::HashSet;
use qualm_model::{baseline::CallRates, detector::Lull, stats::Exposure, time::Timestamp};

use super::{
    Attribute, EDGE_BYTES, Edge, INSTANCE_BYTES, KNOWN_BYTES, OPERATION_BYTES, SOURCE_BYTES, Seen, Shard, Slow, Source,
};
use crate::workloads;

/// Share of the evidence of a principal that must come from a workload for it to go on against the workload.
const MOST: f64 = 0.8;

/// Whose the instances of a source are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Split {
    /// Places of the workload's own, in the order in which it gets them.
    own: Vec<usize>,
    /// Places, as bits, of which it is known that they are others'.
    pub(super) others: u64,
}

/// Who uses what a workload uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Nobody else, as far as is known.
    Alone,
    /// Others too.
    WithOthers,
}

/// A workload that becomes a source of its own.
#[derive(Debug)]
pub(crate) struct Parting {
    /// The principal's source, and the one that is to be.
    pub(crate) whole: u32,
    pub(crate) part: u32,
    pub(crate) workload: Arc<str>,
    pub(crate) since: Timestamp,
    pub(crate) rates: CallRates,
    pub(crate) split: Split,
}

impl Split {
    /// Takes note of whose the instance at `place` is; of nobody's, where that is not known.
    pub(crate) fn note(&mut self, place: usize, of: Option<&str>, workload: &str) {
        match of {
            Some(of) if of == workload => self.own.push(place),
            Some(_) => self.others |= 1 << place,
            None => {}
        }
    }

    pub(super) fn own(&self) -> u64 {
        self.own.iter().fold(0, |places, place| places | 1 << place)
    }

    /// Of these places, the workload's own, where it has them.
    pub(super) fn moved(&self, places: u64) -> u64 {
        let held = |(_, old): &(usize, &usize)| places & (1 << **old) != 0;
        self.own.iter().enumerate().filter(held).fold(0, |moved, (new, _)| moved | 1 << new)
    }
}

impl Source {
    /// An exposure as its own counts have it.
    #[inline]
    pub(crate) fn exposure(&self, exposure: Exposure) -> Exposure {
        match self.since {
            None => exposure,
            Some(since) => workloads::exposure_since(since, exposure),
        }
    }

    /// What of it is a workload's.
    fn part(&self, parting: &Parting, now: Timestamp) -> Self {
        let Parting { workload, since, rates, split, .. } = parting;
        let total: f64 = self.instances.iter().map(|instance| instance.odds).sum();
        let own: f64 = split.own.iter().map(|&place| self.instances[place].odds).sum();
        let mut part = Self {
            workload: Some(Arc::clone(workload)),
            since: Some(*since),
            baseline: self.baseline.part(*rates),
            instances: split.own.iter().map(|&place| self.instances[place].clone()).collect(),
            last: now,
            // All of them together are nobody's window.
            unlike: None,
            // It rests for longer than all of them together.
            slow: Slow { lull: Lull::default(), ..self.slow.clone() },
            round: Default::default(),
            ..self.clone()
        };
        // Evidence goes where it came from. What came from several, or nobody knows from whom, is against none of them.
        if total <= 0.0 || own < MOST * total {
            (part.evidence, part.claimed, part.episode, part.other) = Default::default();
            (part.shown_bits, part.decided) = (0.0, (Timestamp::default(), 0));
            part.instances.iter_mut().for_each(|instance| instance.odds = 0.0);
        }
        part
    }
}

impl Edge {
    /// The edge as a part of its source has it, `None` where only others are known to use it. How often all of them
    /// together call is not usual for one: that is learned anew, as after a change of the service.
    fn part(&self, split: &Split, now: Timestamp) -> Option<Self> {
        let (users, shared) = self.users.of_part(split)?;
        let mut part = Self { users, operations: 0, ..self.clone() };
        if shared == Use::WithOthers {
            part.adopt(now);
        }
        Some(part)
    }
}

impl Shard {
    /// Makes a workload a source of its own; returns the bytes that this took. One that was its own before, and not heard
    /// of for long, is as it was, with its calls as they were counted since.
    pub(crate) fn part(&mut self, parting: &Parting, now: Timestamp) -> usize {
        if let Some(part) = self.source_to_change(parting.part) {
            part.since = Some(parting.since);
            part.baseline = part.baseline.part(parting.rates);
            return 0;
        }
        let Some(whole) = self.sources.get(&parting.whole) else { return 0 };
        let mut source = whole.part(parting, now);
        let (destinations, edge_bytes) = self.part_edges(parting, now);
        source.owned =
            edge_bytes + self.part_known(parting, &destinations, now) + source.instances.len() * INSTANCE_BYTES;
        source.stamp = self.changed.epoch;
        self.changed.sources.push(parting.part);
        self.delta.new_identities += 1;
        let taken = SOURCE_BYTES + source.owned;
        self.sources.insert(parting.part, Box::new(source));
        taken
    }

    /// The edges of a part. Returns whom it calls, and the bytes.
    fn part_edges(&mut self, parting: &Parting, now: Timestamp) -> (HashSet<u32, fast::FixedState>, usize) {
        let of_whole = self.edges.iter().filter(|((from, _), _)| *from == parting.whole);
        let parts = of_whole.filter_map(|(&(_, to), edge)| Some((to, edge.part(&parting.split, now)?)));
        let mut parts: Vec<(u32, Edge)> = parts.collect();
        parts.sort_by_key(|(to, _)| *to);
        let mut destinations = HashSet::default();
        let bytes = parts.len() * EDGE_BYTES;
        for (to, edge) in parts {
            destinations.insert(to);
            let key = (parting.part, to);
            self.changed.edges.push(key);
            self.edges.insert(key, Box::new(Edge { stamp: self.changed.epoch, ..edge }));
        }
        (destinations, bytes)
    }

    /// The attributes of a part that calls `destinations`; returns their bytes. Of credentials and fingerprints it is not
    /// known whose they are: what any of them had is new to none.
    fn part_known(
        &mut self,
        parting: &Parting,
        destinations: &HashSet<u32, fast::FixedState>,
        now: Timestamp,
    ) -> usize {
        let (whole, part, split) = (parting.whole, parting.part, &parting.split);
        let of_part = |(&attribute, seen): (&Attribute, &Seen)| match attribute {
            Attribute::Operation { source, destination, operation } if source == whole => {
                let used = match seen.operation.as_deref() {
                    Some(used) => Some(Box::new(used.of_part(split, now)?)),
                    None => None,
                };
                let key = Attribute::Operation { source: part, destination, operation };
                destinations.contains(&destination).then(|| (key, Seen { operation: used, ..seen.clone() }))
            }
            Attribute::Credential { source, credential } if source == whole => {
                Some((Attribute::Credential { source: part, credential }, seen.clone()))
            }
            Attribute::Fingerprint { source, fingerprint } if source == whole => {
                Some((Attribute::Fingerprint { source: part, fingerprint }, seen.clone()))
            }
            _ => None,
        };
        let parts: Vec<(Attribute, Seen)> = self.known.iter().filter_map(of_part).collect();
        let mut bytes = 0;
        for (attribute, seen) in parts {
            bytes += KNOWN_BYTES;
            if let Attribute::Operation { destination, .. } = attribute {
                bytes += OPERATION_BYTES;
                if let Some(edge) = self.edges.get_mut(&(part, destination)) {
                    edge.operations = edge.operations.saturating_add(1);
                }
            }
            self.changed.known.push(attribute);
            self.known.insert(attribute, Seen { stamp: self.changed.epoch, ..seen });
        }
        bytes
    }
}
