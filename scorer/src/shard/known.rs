//! What one source was known for before an episode began: what it may still do while it is throttled or restricted.

use std::collections::{BTreeMap, BTreeSet};

use qualm_model::time::Timestamp;

use super::{Attribute, Edge, OTHER, SETTLED, Seen, Shard};
use crate::table::{Known, Operations};

/// A proxy lets pass at least so many calls a minute of whoever is throttled: one every five seconds, as health checks
/// and jobs that poll do.
const LEAST_A_MINUTE: u32 = 12;
/// A minute is called busy, not odd, up to this many times the mean: throttling is to bound a flood, not a busy hour.
const HEADROOM: f64 = 2.0;
/// Stretches of ten minutes in an hour.
const TEN_MINUTES_AN_HOUR: f64 = 6.0;
/// Minutes of a day.
const MINUTES: f64 = 1440.0;

impl Shard {
    /// What `source` was known for at `before`, event time. An edge or operation is known once it is a day old, or when
    /// it was recognised as a change of the service: what began just before the episode did may be its begin. Each of its
    /// records stands for `calls_a_record` calls.
    pub(crate) fn known_of(&self, source: u32, before: Timestamp, calls_a_record: f64) -> Known {
        let edges = self.edges.iter().filter(|((from, _), edge)| *from == source && edge.is_known(before));
        let edges: BTreeMap<u32, &Edge> = edges.map(|((_, to), edge)| (*to, &**edge)).collect();
        let operations = self.operations_of(source, before);
        let busiest = edges.values().map(|edge| edge.baseline.calls_a_day() / MINUTES).fold(0.0, f64::max);
        let peers = edges.iter().map(|(to, edge)| {
            // An edge of which operations were folded away, or too many to be told apart, is known as a whole.
            let only = operations.get(to).filter(|of| of.count >= usize::from(edge.operations));
            let only = only.and_then(|of| of.known.clone()).filter(|known| !known.is_empty());
            (self.names.text(*to).to_owned(), only.map_or(Operations::Any, Operations::Only))
        });
        let calls_a_minute = allowance(busiest * calls_a_record);
        // Without headroom: it is the most that is usual.
        let burst = edges.values().map(|edge| edge.baseline.most_an_hour() / TEN_MINUTES_AN_HOUR).fold(0.0, f64::max);
        let at_once = allowance(burst * calls_a_record / HEADROOM).max(calls_a_minute);
        Known { calls_a_minute, at_once, peers: peers.collect(), declared: Vec::new() }
    }

    fn operations_of(&self, source: u32, before: Timestamp) -> BTreeMap<u32, OfEdge> {
        let mut of_edges: BTreeMap<u32, OfEdge> = BTreeMap::new();
        for (attribute, seen) in &self.known {
            let Attribute::Operation { source: of, destination, operation } = *attribute else { continue };
            if of != source {
                continue;
            }
            let edge = of_edges.entry(destination).or_insert_with(|| OfEdge { count: 0, known: Some(BTreeSet::new()) });
            edge.count += 1;
            if !seen.is_known(before) {
                continue;
            }
            if operation == OTHER {
                edge.known = None;
            } else if let Some(known) = &mut edge.known {
                known.insert(self.names.text(operation).to_owned());
            }
        }
        of_edges
    }
}

/// The operations of one edge: how many there are, and those that are known; `None` where they cannot be told apart.
struct OfEdge {
    count: usize,
    known: Option<BTreeSet<String>>,
}

impl Edge {
    pub(super) fn is_known(&self, before: Timestamp) -> bool {
        let is_settled = before - self.users.first() >= SETTLED;
        // What was folded away was known before.
        is_settled || self.returned || self.adopted.is_some_and(|adopted| adopted < before)
    }
}

impl Seen {
    fn is_known(&self, before: Timestamp) -> bool {
        // A release before told of operations no more than that they were seen.
        self.operation.as_deref().is_none_or(|operation| operation.is_known(before))
    }
}

/// Calls a minute that pass of a source whose busiest edge has `usual`: in powers of two, as every change empties the
/// proxies' buckets and fills them again.
fn allowance(usual: f64) -> u32 {
    let most = f64::from(1_u32 << 30);
    let calls = (usual * HEADROOM).ceil().clamp(f64::from(LEAST_A_MINUTE), most) as u32;
    if calls == LEAST_A_MINUTE { calls } else { calls.next_power_of_two() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_passes_and_nobody_is_left_without_anything() {
        for usual in [0.0, 0.3, 5.9, 6.1, 40.0, 1e4] {
            assert!(f64::from(allowance(usual)) >= usual * HEADROOM, "{usual}");
        }
        assert_eq!([0.0, 40.0, 1e12].map(allowance), [12, 128, 1 << 30]);
    }
}
