//! From where identities call: the networks that the mesh knows.

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use qualm_model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// Networks that are remembered; in a mesh with more, none is new any more.
const NETWORKS: usize = 65_536;
/// What one takes on average, with the room that a growing table leaves free.
const NETWORK_BYTES: usize = 110;
/// In the first day everything is new.
const SETTLED: Span = Span::DAY;
/// A network that one identity alone calls from is known after this time; of two identities, at once.
const KNOWN_AFTER: Span = Span::HOUR;
/// Bits that count, from the nearest network to the farthest: a node's pods, a cluster, an organisation.
const LENGTHS_V4: [u8; KINDS] = [24, 16, 8];
const LENGTHS_V6: [u8; KINDS] = [64, 48, 32];
const KINDS: usize = 3;

/// A network, by its first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Prefix {
    length: u8,
    bits: u128,
}

/// How far a new address is from all known ones: 0 within a known network of the nearest kind.
pub(crate) type Distance = u8;

/// From here on a network is new: a new node, or a new zone, in a cluster that is known is none.
pub(crate) const FOREIGN: Distance = 2;

/// An address that an identity has for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Arrival {
    address: IpAddr,
    /// A hash of the identity.
    identity: u64,
    distance: Distance,
    at: Timestamp,
}

impl Arrival {
    pub(crate) fn new(address: IpAddr, identity: u64, distance: Distance, at: Timestamp) -> Self {
        Self { address: address.to_canonical(), identity, distance, at }
    }
}

/// Who was first seen in a network, and when; no identity where it is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Seen {
    by: Option<u64>,
    since: Timestamp,
}

/// The networks, and how often a new address was how far from them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Networks {
    seen: HashMap<Prefix, Seen, FixedState>,
    arrivals: [f64; KINDS + 1],
}

impl Networks {
    /// Bytes, by the number of networks: the same after a restart.
    pub(crate) fn bytes(&self) -> usize {
        self.seen.len() * NETWORK_BYTES
    }

    /// How far an address is from the known networks; `None` where more were seen than are remembered.
    pub(crate) fn distance(&self, address: IpAddr, now: Timestamp) -> Option<Distance> {
        if self.seen.len() >= NETWORKS {
            return None;
        }
        let known = prefixes(address.to_canonical()).position(|prefix| self.is_known(prefix, now));
        Some(known.unwrap_or(KINDS) as Distance)
    }

    /// How rare it is that a new address is so far from all known ones, at least 1. `None` where that cannot be told
    /// yet: in the first day everything is new.
    pub(crate) fn rarity(&self, distance: Distance, birth: Timestamp, now: Timestamp) -> Option<f64> {
        let as_far: f64 = self.arrivals[usize::from(distance).min(KINDS)..].iter().sum();
        let all: f64 = self.arrivals.iter().sum();
        (now - birth >= SETTLED).then_some((all + 1.0) / (as_far + 1.0))
    }

    fn is_known(&self, prefix: Prefix, now: Timestamp) -> bool {
        self.seen.get(&prefix).is_some_and(|seen| seen.by.is_none() || now - seen.since >= KNOWN_AFTER)
    }

    /// Learns of a new address.
    pub(crate) fn learn(&mut self, arrival: Arrival, birth: Timestamp) {
        self.arrivals[usize::from(arrival.distance).min(KINDS)] += 1.0;
        let is_young = arrival.at - birth < SETTLED;
        for prefix in prefixes(arrival.address) {
            if self.seen.len() >= NETWORKS {
                return;
            }
            let by = (!is_young).then_some(arrival.identity);
            let seen = self.seen.entry(prefix).or_insert(Seen { by, since: arrival.at });
            if seen.by != by {
                seen.by = None;
            }
        }
    }
}

fn prefixes(address: IpAddr) -> impl Iterator<Item = Prefix> {
    let (bits, width, lengths) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32, LENGTHS_V4),
        IpAddr::V6(v6) => (v6.to_bits(), 128, LENGTHS_V6),
    };
    // Lengths of the two families differ: no network of one is mistaken for one of the other.
    lengths.into_iter().map(move |length| Prefix { length, bits: bits >> (width - u32::from(length)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIRTH: Timestamp = Timestamp(0);
    const LATER: Timestamp = Timestamp(2 * Span::DAY.0);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn grown() -> Networks {
        let mut networks = Networks::default();
        for i in 0..200 {
            let address = address(&format!("10.64.{}.{}", i / 50, i % 50));
            networks.learn(Arrival::new(address, i, 0, BIRTH), BIRTH);
        }
        networks
    }

    #[test]
    fn a_new_pod_on_a_known_node_is_no_news_and_a_foreign_network_is_much() {
        let networks = grown();
        let distance = |text| networks.distance(address(text), LATER).unwrap();
        let rarity = |distance| networks.rarity(distance, BIRTH, LATER).unwrap();
        assert_eq!(["10.64.3.200", "10.64.9.1", "10.70.0.1", "192.0.2.7"].map(distance), [0, 1, 2, 3]);
        assert_eq!(rarity(0), 1.0);
        assert!(rarity(3) >= rarity(1) && rarity(3) > 100.0, "{} {}", rarity(1), rarity(3));
    }

    #[test]
    fn a_network_that_two_identities_call_from_is_known_at_once_that_of_one_after_an_hour() {
        let mut networks = grown();
        networks.learn(Arrival::new(address("10.65.0.1"), 7, 1, LATER), BIRTH);
        let known = |networks: &Networks, after| networks.distance(address("10.65.0.2"), LATER + after).unwrap();
        assert_eq!(known(&networks, Span::MINUTE), 2, "the other network of its own is no ground");
        assert_eq!(known(&networks, Span::HOUR), 0);
        networks.learn(Arrival::new(address("10.65.0.3"), 8, 1, LATER), BIRTH);
        assert_eq!(known(&networks, Span::MINUTE), 0);
    }

    #[test]
    fn addresses_of_both_families_that_are_one_are_one() {
        let networks = grown();
        assert_eq!(networks.distance(address("::ffff:10.64.3.200"), LATER), Some(0));
    }

    #[test]
    fn in_the_first_day_nothing_is_told() {
        assert_eq!(grown().rarity(3, BIRTH, BIRTH + Span::HOUR), None);
    }
}
