//! Who stands where and why, for people: read from the state as it is, changing nothing.

use std::collections::BTreeSet;

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};

use super::orders::{Hold, Order};
use crate::{
    config::Mode,
    mesh::SourceKey,
    scorer::Scorer,
    shard::Source,
    standing::Standing,
    table::{Subject, TrustEntry},
};

/// Peers of one identity that are shown.
const PEERS: usize = 100;

/// One line of the table, and whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The line. It acts where it says so and enforcement is not paused.
    pub entry: TrustEntry,
    /// The operator who has set it, and why; `None` where it was evidence.
    pub by: Option<(String, String)>,
}

/// One identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Its full name.
    pub identity: String,
    /// What stands about it.
    pub lines: Vec<Line>,
    /// The hold on it, while it lasts.
    pub hold: Option<Hold>,
    /// Evidence against it, bits.
    pub evidence_bits: f64,
    /// First and last seen as a caller, event time.
    pub seen: Option<(Timestamp, Timestamp)>,
    /// Addresses from which it called within ten minutes.
    pub instances: Vec<String>,
    /// Whom it has called within a day of event time: the most called first.
    pub peers: Vec<PeerCalls>,
    /// Peers that were left out for want of room.
    pub peers_left_out: usize,
    /// Whether the configuration protects it.
    pub is_protected: bool,
}

/// Somebody whom an identity calls.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerCalls {
    /// The destination.
    pub destination: String,
    /// Calls a day that are usual on this edge.
    pub calls_a_day: f64,
    /// The last call, event time.
    pub last: Timestamp,
}

impl Scorer {
    /// Everything that stands, by subject; of evidence and of an operator for one subject there are two lines.
    pub fn lines(&self) -> Vec<Line> {
        let standings = self.standings.iter();
        let mut lines: Vec<Line> = standings.filter_map(|(key, standing)| self.line_of(*key, standing)).collect();
        lines.extend(self.orders.iter().map(|order| self.line_of_order(order)));
        lines.sort_by(|a, b| {
            let by_subject = (&a.entry.subject, &a.entry.object).cmp(&(&b.entry.subject, &b.entry.object));
            by_subject.then_with(|| a.by.is_some().cmp(&b.by.is_some()))
        });
        lines
    }

    /// Holds that last at `wall`, by name.
    pub fn holds(&self, wall: Timestamp) -> Vec<Hold> {
        self.orders.holds().filter(|hold| hold.until > wall).cloned().collect()
    }

    /// The mode of the configuration.
    pub fn mode(&self) -> Mode {
        self.config.enforce.mode
    }

    /// Names that contain `part` of identities that call or called, or about which something stands, in order.
    /// Of callers and of those who stand `most` each are looked for; where there are more, no matter which.
    pub fn named(&self, part: &str, most: usize) -> BTreeSet<String> {
        let sources = self.shards.iter().flat_map(|shard| shard.sources.values().map(|source| &**source));
        // Most names are looked at without being put together.
        let is_meant = |source: &&Source| {
            source.principal.contains(part) || part.contains('@') && source.identity().contains(part)
        };
        let sources = sources.filter(is_meant).map(|source| source.identity()).take(most);
        let standings = self.standings.values().map(|standing| standing.subject.identity());
        let beside = standings.chain(self.orders.iter().map(|order| order.subject.identity()));
        sources.chain(beside.filter(|name| name.contains(part)).take(most)).collect()
    }

    /// What is known of one identity; `None` where nobody is called so.
    pub fn show(&self, identity: &str, wall: Timestamp) -> Option<Shown> {
        let key = self.key_of(identity);
        let source = key.and_then(|key| self.shards[usize::from(key.0)].sources.get(&key.1));
        let lines: Vec<Line> =
            self.lines().into_iter().filter(|line| line.entry.subject.identity() == identity).collect();
        let principal = match (source, lines.first()) {
            (Some(source), _) => source.principal.to_string(),
            (None, Some(line)) => line.entry.subject.principal.clone(),
            (None, None) => return None,
        };
        let now = self.watermark.now().unwrap_or(wall);
        let (peers, peers_left_out) = key.map_or_else(Default::default, |(shard, id)| self.peers(shard, id, now));
        Some(Shown {
            identity: identity.to_owned(),
            lines,
            hold: self.orders.hold(identity).filter(|hold| hold.until > wall).cloned(),
            evidence_bits: source.map_or(0.0, |source| source.shown_bits),
            seen: source.map(|source| (source.first, source.last)),
            instances: key.zip(source).map(|(key, source)| self.live_instances(key.0, source, now)).unwrap_or_default(),
            peers,
            peers_left_out,
            is_protected: self.config.enforce.protects(&principal),
        })
    }

    fn peers(&self, shard: u8, id: u32, now: Timestamp) -> (Vec<PeerCalls>, usize) {
        let shard = &self.shards[usize::from(shard)];
        let edges = shard.edges.iter().filter(|((from, _), edge)| *from == id && now - edge.last <= Span::DAY);
        let mut peers: Vec<PeerCalls> = edges
            .map(|((_, to), edge)| PeerCalls {
                destination: shard.names.text(*to).to_owned(),
                calls_a_day: edge.baseline.calls_a_day(),
                last: edge.last,
            })
            .collect();
        peers.sort_by(|a, b| b.calls_a_day.total_cmp(&a.calls_a_day).then_with(|| a.destination.cmp(&b.destination)));
        let left_out = peers.len().saturating_sub(PEERS);
        peers.truncate(PEERS);
        (peers, left_out)
    }

    fn line_of(&self, key: SourceKey, standing: &Standing) -> Option<Line> {
        let entry = self.entry_of(key, standing).filter(|entry| entry.level > Level::Trusted)?;
        Some(Line { entry: self.as_in_force(entry), by: None })
    }

    fn line_of_order(&self, order: &Order) -> Line {
        Line { entry: self.as_in_force(order.entry()), by: Some((order.by.by.clone(), order.by.why.clone())) }
    }

    /// While all is paused nothing acts.
    pub(crate) fn as_in_force(&self, entry: TrustEntry) -> TrustEntry {
        TrustEntry { enforce: entry.enforce && !self.orders.is_paused(), ..entry }
    }
}

impl Line {
    /// Whom it is about.
    pub fn subject(&self) -> &Subject {
        &self.entry.subject
    }
}
