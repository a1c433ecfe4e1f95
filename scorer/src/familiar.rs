//! How often what an identity did was seen before: {first time, uncommon, usual} × {of itself, of its peers, of the mesh}.
//!
//! For people: asked once, where a level is entered. Nothing is decided by it.

use qualm_model::detector::Question;
use serde::{Deserialize, Serialize};

use crate::{
    door::Ids,
    mesh::{Mesh, operation_key},
    scorer::{Case, Scorer},
    shard::{Attribute, Shard},
};

/// Calls below which something is uncommon: from a hundred on an edge is an established one.
const USUAL_CALLS: f64 = 100.0;
/// More sources than this are not gone through for one explanation: what the peers do is left out then.
const MOST_SOURCES: u64 = 50_000;

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thing {
    /// That it calls this destination.
    Peer,
    /// That it uses this operation there.
    Operation,
}

/// How often something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// Never before.
    FirstTime,
    /// In fewer than a hundred calls, or by fewer than half of the peers.
    Uncommon,
    /// More.
    Usual,
}

/// One cell: how often, by how many calls or peers, and of how many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// In a word.
    pub seen: Seen,
    /// Trusted calls; of peers, those that do it.
    pub count: f64,
    /// Of so many calls, or peers; `None` where that is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<f64>,
}

/// The row of the grid that a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Familiar {
    /// What was asked about.
    pub thing: Thing,
    /// Of the identity itself.
    pub own: Cell,
    /// Of the identities of its namespace; `None` where it has none, or the mesh is too big to go through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Cell>,
    /// Of everybody else in the mesh; `None` where that is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Cell>,
}

impl Seen {
    /// The word of every output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstTime => "first time",
            Self::Uncommon => "uncommon",
            Self::Usual => "usual",
        }
    }
}

impl Cell {
    fn of_calls(count: f64, of: Option<f64>) -> Self {
        // What was once seen has a trust near nothing where it came in a flood, and is no first time all the same.
        let seen = match count {
            count if count <= 0.0 => Seen::FirstTime,
            count if count < USUAL_CALLS => Seen::Uncommon,
            _ => Seen::Usual,
        };
        Self { seen, count, of }
    }

    fn of_peers(count: usize, of: usize) -> Self {
        let seen = match count {
            0 => Seen::FirstTime,
            count if 2 * count < of => Seen::Uncommon,
            _ => Seen::Usual,
        };
        Self { seen, count: count as f64, of: Some(of as f64) }
    }
}

impl Scorer {
    /// The row for the answer to a question about an event that is not learned yet; `None` where the question is about the
    /// identity alone.
    pub(crate) fn familiar(&self, case: &Case<'_>, question: Question) -> Option<Familiar> {
        let thing = match question {
            Question::NewOperation | Question::RareOperation | Question::OperationRate => Thing::Operation,
            Question::RarePeer
            | Question::StrangePeer
            | Question::RareDestination
            | Question::EdgeRate
            | Question::DestinationRate
            | Question::FanIn
            | Question::Spread10m
            | Question::Spread1h
            | Question::Bigger
            | Question::Oversized
            | Question::Longer
            | Question::LoneReplica
            | Question::Rhythm => Thing::Peer,
            _ => return None,
        };
        let shard = &self.shards[usize::from(case.ids.shard)];
        let (own, mesh) = match thing {
            Thing::Peer => of_peer(shard, &self.mesh, case.ids)?,
            Thing::Operation => of_operation(shard, &self.mesh, case)?,
        };
        Some(Familiar { thing, own, peers: self.of_peers(case, thing), mesh })
    }

    /// How many identities of the same namespace do it.
    fn of_peers(&self, case: &Case<'_>, thing: Thing) -> Option<Cell> {
        let own = &self.shards[usize::from(case.ids.shard)];
        let namespace = own.sources.get(&case.ids.source)?.namespace.clone()?;
        let sources: u64 = self.shards.iter().map(|shard| shard.sources.len() as u64).sum();
        if sources > MOST_SOURCES {
            return None;
        }
        let (destination, operation) = (own.names.text(case.ids.destination), case.event.operation());
        let (mut peers, mut doing) = (0, 0);
        for (index, shard) in self.shards.iter().enumerate() {
            let destination = shard.names.known(destination);
            let operation = shard.names.known(operation);
            for (&source, of) in &shard.sources {
                let is_itself = index == usize::from(case.ids.shard) && source == case.ids.source;
                if is_itself || of.namespace.as_ref() != Some(&namespace) {
                    continue;
                }
                peers += 1;
                let does = match thing {
                    Thing::Peer => destination.is_some_and(|to| shard.edges.contains_key(&(source, to))),
                    Thing::Operation => destination.zip(operation).is_some_and(|(destination, operation)| {
                        shard.known.contains_key(&Attribute::Operation { source, destination, operation })
                    }),
                };
                doing += usize::from(does);
            }
        }
        (peers > 0).then(|| Cell::of_peers(doing, peers))
    }
}

fn of_peer(shard: &Shard, mesh: &Mesh, ids: Ids) -> Option<(Cell, Option<Cell>)> {
    let source = shard.sources.get(&ids.source)?;
    let own = shard.edges.get(&(ids.source, ids.destination)).map_or(0.0, |edge| edge.baseline.volume());
    let known = shard.links.get(&ids.destination).and_then(|link| link.mesh).and_then(|id| mesh.destination(id));
    let everybody = known.map_or(0.0, |(baseline, _)| baseline.volume());
    Some((Cell::of_calls(own, Some(source.baseline.volume())), Some(Cell::of_calls((everybody - own).max(0.0), None))))
}

fn of_operation(shard: &Shard, mesh: &Mesh, case: &Case<'_>) -> Option<(Cell, Option<Cell>)> {
    let Ids { source, destination, .. } = case.ids;
    let operation = case.ids.operation?;
    let edge = shard.edges.get(&(source, destination)).map(|edge| edge.baseline.volume());
    let seen = shard.known.get(&Attribute::Operation { source, destination, operation });
    let own = seen.and_then(|seen| seen.operation.as_ref()).map_or(0.0, |of| of.baseline.volume());
    let key = operation_key(shard.names.text(destination), case.event.operation());
    let everybody = mesh.volume_of_operation(key).map(|all| Cell::of_calls((all - own).max(0.0), None));
    Some((Cell::of_calls(own, edge), everybody))
}
