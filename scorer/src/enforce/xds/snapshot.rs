//! The resources of one version, compiled once for all nodes that see it alike.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use envoy_types::pb::google::protobuf::Any;
use qualm_model::{identity::SpiffeId, time::Timestamp};
use tokio::time::Instant;

use super::policy::{Bodies, Policies, View};
use crate::{enforce::leases::Leases, table::SharedTable};

/// The shortest time to live that is sent: a lease that ends sooner is ended by a push, and this only says how
/// long the denial may outlive a Qualm that dies in between.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
/// The longest pause between two heartbeats.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What every node is to hold now.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Version of the trust table.
    pub version: u64,
    /// Version of the resources: changes only when what they do changes.
    pub revision: String,
    /// Rises with every heartbeat.
    pub beat: u64,
    /// When the longest lease ends; `None` when there is nothing to end.
    pub ends: Option<Instant>,
    compiled: Arc<Compiled>,
}

/// What was compiled so far of one set of policies.
#[derive(Debug, Default)]
struct Compiled {
    policies: Policies,
    /// Views are as many as destinations for which somebody restricted is known, and three.
    views: Mutex<HashMap<View, Arc<Bodies>>>,
}

impl Snapshot {
    /// What follows from the table.
    pub fn policies(&self) -> &Policies {
        &self.compiled.policies
    }

    /// What a node that proves to be `identity` is to hold.
    pub fn bodies(&self, identity: Option<&SpiffeId>) -> Arc<Bodies> {
        let view = self.compiled.policies.view(identity);
        let mut views = self.compiled.views.lock().unwrap_or_else(PoisonError::into_inner);
        let compile = || Arc::new(self.compiled.policies.resources(&view));
        Arc::clone(views.entry(view.clone()).or_insert_with(compile))
    }
}

/// The body of a resource, `None` where there is none of that name.
pub fn body<'a>(bodies: &'a Bodies, name: &str) -> Option<&'a Any> {
    bodies.iter().find(|(known, _)| *known == name).map(|(_, body)| body)
}

/// The time to live of resources whose longest lease ends at `ends`.
pub fn ttl(ends: Instant, now: Instant) -> Duration {
    ends.saturating_duration_since(now).max(SHORTEST_TTL)
}

/// Turns tables into snapshots, and lets leases end.
#[derive(Debug, Default)]
pub struct Compiler {
    leases: Leases,
    table: SharedTable,
    inexpressible: usize,
    current: Option<Arc<Snapshot>>,
    revisions: u64,
    /// The earliest end of a lease, on either clock.
    next_end: Option<(Instant, Timestamp)>,
    next_beat: Option<Instant>,
}

impl Compiler {
    /// A new table.
    pub fn adopt(&mut self, table: SharedTable, wall: Timestamp, now: Instant) -> Arc<Snapshot> {
        self.leases.adopt(&table, wall, now);
        self.table = table;
        self.compile(wall, now)
    }

    /// Looks at the clocks; a snapshot when a lease has ended or a heartbeat is due.
    pub fn tick(&mut self, wall: Timestamp, now: Instant) -> Option<Arc<Snapshot>> {
        let current = self.current.as_ref()?;
        if self.next_end.is_some_and(|end| end.0 <= now || end.1 <= wall) {
            return Some(self.compile(wall, now));
        }
        if self.next_beat.is_none_or(|beat| beat > now) {
            return None;
        }
        let snapshot = Arc::new(Snapshot { beat: current.beat + 1, ..Snapshot::clone(current) });
        self.schedule_beat(snapshot.ends, now);
        self.current = Some(Arc::clone(&snapshot));
        Some(snapshot)
    }

    /// Entries of the present table that the filters cannot express.
    pub const fn inexpressible(&self) -> usize {
        self.inexpressible
    }

    fn compile(&mut self, wall: Timestamp, now: Instant) -> Arc<Snapshot> {
        let (mut policies, mut ends) = (Policies::new(self.table.reachable.clone()), None);
        self.next_end = None;
        self.inexpressible = 0;
        for entry in &self.table.entries {
            let Some(end) = self.leases.end(entry, wall, now) else { continue };
            if policies.add(entry) {
                ends = ends.max(Some(end));
            } else {
                self.inexpressible += 1;
            }
            let next = self.next_end.unwrap_or((end, entry.expires));
            self.next_end = Some((next.0.min(end), next.1.min(entry.expires)));
        }
        let snapshot = Arc::new(self.snapshot(policies, ends));
        self.schedule_beat(ends, now);
        self.current = Some(Arc::clone(&snapshot));
        snapshot
    }

    fn snapshot(&mut self, policies: Policies, ends: Option<Instant>) -> Snapshot {
        let version = self.table.version;
        if let Some(current) = self.current.as_ref().filter(|current| policies == current.compiled.policies) {
            return Snapshot { version, ends, beat: current.beat + 1, ..Snapshot::clone(current) };
        }
        self.revisions += 1;
        let compiled = Arc::new(Compiled { policies, views: Mutex::default() });
        Snapshot { version, revision: format!("{version}-{}", self.revisions), beat: 0, ends, compiled }
    }

    fn schedule_beat(&mut self, ends: Option<Instant>, now: Instant) {
        self.next_beat = ends.map(|ends| now + (ttl(ends, now) / 3).min(LONGEST_PAUSE));
    }
}
