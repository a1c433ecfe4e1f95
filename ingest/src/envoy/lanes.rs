//! A lane for each peer: events of one are in order among themselves, and say nothing of how far the others are.

use std::collections::HashMap;

/// Lanes. Where there are more peers, the one heard of longest ago gives up its own.
const LANES: usize = 256;

/// Which peer has which lane.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_peer: HashMap<(String, String), Lane>,
    /// Messages so far.
    messages: u64,
    /// The one of the message before: a peer's messages come in runs.
    last: Option<((String, String), i32)>,
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    number: i32,
    heard: u64,
}

impl Lanes {
    /// The lane of a peer, by identity and node id: a partition below 0, as nothing in it can be read again.
    pub(super) fn of(&mut self, peer: (&str, &str)) -> i32 {
        self.messages += 1;
        if let Some(((identity, node), number)) = &self.last
            && (identity.as_str(), node.as_str()) == peer
        {
            return *number;
        }
        let key = (peer.0.to_owned(), peer.1.to_owned());
        let number = match self.by_peer.get_mut(&key) {
            Some(lane) => {
                lane.heard = self.messages;
                lane.number
            }
            None => {
                let number = self.free();
                self.by_peer.insert(key.clone(), Lane { number, heard: self.messages });
                number
            }
        };
        self.last = Some((key, number));
        number
    }

    /// A lane that nobody has from here on.
    fn free(&mut self) -> i32 {
        if self.by_peer.len() < LANES {
            return -1 - i32::try_from(self.by_peer.len()).unwrap_or(0);
        }
        let oldest =
            self.by_peer.iter().min_by_key(|(_, lane)| lane.heard).map(|(peer, lane)| (peer.clone(), lane.number));
        oldest.map_or(-1, |(peer, number)| {
            self.by_peer.remove(&peer);
            number
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_peer_has_a_lane_of_its_own_until_there_are_too_many() {
        let mut lanes = Lanes::default();
        let name = |n: usize| format!("n{n}");
        let first: Vec<i32> = (0..LANES).map(|n| lanes.of(("id", &name(n)))).collect();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), LANES);
        assert!(first.iter().all(|lane| *lane < 0));
        assert_eq!(lanes.of(("id", "n0")), first[0], "it keeps it");
        assert_ne!(lanes.of(("other", "n0")), first[0], "another identity is another peer");
        assert_eq!(lanes.of(("id", "n0")), first[0], "who was just heard of has kept it");
        assert_eq!(lanes.by_peer.len(), LANES);
    }
}
