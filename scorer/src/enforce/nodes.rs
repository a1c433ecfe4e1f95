//! Which node is who, what it has acknowledged, and the reports of that.
//!
//! A node is a (verified identity, node id), bound at first sight. One node may hold several streams; it has
//! acknowledged a version when all of its streams have.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use qualm_model::{
    identity::{Peer, SpiffeId},
    time::Clock,
};
use serde::Deserialize;
use tokio::sync::mpsc;
use tonic::Status;

use super::metrics::EnforcementMetrics;
use crate::table::{Enforcement, EnforcementReport};

/// Bounds on what enforcement points may take of this process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeLimits {
    /// Nodes remembered, connected or not.
    pub nodes: usize,
    /// Nodes remembered of one verified identity.
    pub nodes_per_identity: usize,
    /// Streams of one node.
    pub streams_per_node: usize,
    /// Bytes of a node id.
    pub node_id_bytes: usize,
    /// Bytes of one message from a node.
    pub message_bytes: usize,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            nodes: 16_384,
            nodes_per_identity: 2_048,
            streams_per_node: 16,
            node_id_bytes: 256,
            message_bytes: 1 << 20,
        }
    }
}

/// Why a stream was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The listener handed on no peer.
    #[error("no verified peer; connect through Qualm's mTLS listener")]
    Unauthenticated,
    /// Absent, too long, or with control characters.
    #[error("the node id must be 1 to {0} bytes without control characters; set `node.id`")]
    InvalidNodeId(usize),
    /// Another identity was seen under this node id first.
    #[error("this node id belongs to another identity; give each proxy a node id of its own")]
    ForeignNodeId,
    /// One of the configured bounds.
    #[error("too many {0}; raise the limit of enforcement points in Qualm's configuration")]
    TooMany(&'static str),
}

impl Refusal {
    /// The label of its counter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::InvalidNodeId(_) => "invalid_node_id",
            Self::ForeignNodeId => "foreign_node_id",
            Self::TooMany(_) => "too_many",
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Unauthenticated => Self::unauthenticated(text),
            Refusal::InvalidNodeId(_) => Self::invalid_argument(text),
            Refusal::ForeignNodeId => Self::permission_denied(text),
            Refusal::TooMany(_) => Self::resource_exhausted(text),
        }
    }
}

/// All nodes of one kind of enforcement point.
#[derive(Debug)]
pub struct Nodes {
    enforcer: &'static str,
    limits: NodeLimits,
    clock: Clock,
    metrics: EnforcementMetrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<String, Node>,
    per_identity: HashMap<Option<SpiffeId>, usize>,
    /// Rises with every stream; orders nodes by when they were last seen.
    sequence: u64,
    reports: Option<mpsc::Sender<EnforcementReport>>,
    /// What the loop has not taken yet: the newest report of each node.
    waiting: BTreeMap<String, EnforcementReport>,
}

#[derive(Debug)]
struct Node {
    identity: Option<SpiffeId>,
    /// Per open stream the version it acknowledged last.
    streams: BTreeMap<u64, Option<u64>>,
    /// The version that was last reported as acknowledged by all streams.
    reported: Option<u64>,
    last_seen: u64,
}

impl Nodes {
    /// No nodes yet.
    pub fn new(enforcer: &'static str, limits: NodeLimits, clock: Clock, metrics: EnforcementMetrics) -> Arc<Self> {
        Arc::new(Self { enforcer, limits, clock, metrics, state: Mutex::default() })
    }

    /// Where reports go from now on.
    pub fn report_to(&self, reports: mpsc::Sender<EnforcementReport>) {
        let mut state = self.state();
        state.reports = Some(reports);
        state.flush();
    }

    /// Hands on what the loop had no room for.
    pub fn flush(&self) {
        self.state().flush();
    }

    /// Binds a stream to its node.
    ///
    /// # Errors
    /// When the node id is malformed or belongs to another identity, or a bound is reached.
    pub fn join(self: &Arc<Self>, peer: Option<&Peer>, node: &str) -> Result<Membership, Refusal> {
        self.try_join(peer, node).inspect_err(|refusal| {
            self.metrics.refused.with_label_values(&[self.enforcer, refusal.as_str()]).inc();
        })
    }

    fn try_join(self: &Arc<Self>, peer: Option<&Peer>, node: &str) -> Result<Membership, Refusal> {
        let identity = match peer.ok_or(Refusal::Unauthenticated)? {
            Peer::Verified(id) => Some(id.clone()),
            Peer::Loopback => None,
        };
        if node.is_empty() || node.len() > self.limits.node_id_bytes || node.chars().any(char::is_control) {
            return Err(Refusal::InvalidNodeId(self.limits.node_id_bytes));
        }
        let mut state = self.state();
        match state.nodes.get(node) {
            Some(known) if known.identity != identity => return Err(Refusal::ForeignNodeId),
            Some(known) if known.streams.len() >= self.limits.streams_per_node => {
                return Err(Refusal::TooMany("streams of one node"));
            }
            Some(_) => {}
            None => state.make_room(&identity, &self.limits)?,
        }
        let stream = state.add_stream(node, &identity);
        if state.nodes[node].streams.len() == 1 {
            self.metrics.nodes.with_label_values(&[self.enforcer]).inc();
            state.report(self.report(node, identity.clone(), 0, Enforcement::Connected), &self.metrics);
        }
        Ok(Membership { nodes: Arc::clone(self), node: node.to_owned(), identity, stream })
    }

    fn report(&self, node: &str, identity: Option<SpiffeId>, version: u64, what: Enforcement) -> EnforcementReport {
        EnforcementReport {
            enforcer: self.enforcer.to_owned(),
            node: node.to_owned(),
            identity,
            version,
            at: self.clock.now(),
            what,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add_stream(&mut self, node: &str, identity: &Option<SpiffeId>) -> u64 {
        self.sequence += 1;
        let stream = self.sequence;
        if !self.nodes.contains_key(node) {
            *self.per_identity.entry(identity.clone()).or_default() += 1;
        }
        let entry = self.nodes.entry(node.to_owned()).or_insert_with(|| Node {
            identity: identity.clone(),
            streams: BTreeMap::new(),
            reported: None,
            last_seen: stream,
        });
        entry.last_seen = stream;
        entry.streams.insert(stream, None);
        stream
    }

    /// Forgets the node that has been away longest where a bound is reached: pods come and go. An identity that
    /// has reached its own bound makes room among its own nodes only; where all places are taken, the identity with most
    /// nodes away loses one of its own. So nobody's node ids come free because of another's many.
    fn make_room(&mut self, identity: &Option<SpiffeId>, limits: &NodeLimits) -> Result<(), Refusal> {
        let own = self.per_identity.get(identity).copied().unwrap_or(0) >= limits.nodes_per_identity;
        if !own && self.nodes.len() < limits.nodes {
            return Ok(());
        }
        let mut away: HashMap<&Option<SpiffeId>, usize> = HashMap::new();
        for node in self.nodes.values().filter(|node| node.streams.is_empty()) {
            *away.entry(&node.identity).or_default() += 1;
        }
        // Of two with as many, always the same one: names are ordered.
        let greatest = away.into_iter().max_by_key(|(of, nodes)| (*nodes, of.as_ref().map(SpiffeId::as_str)));
        let greatest = greatest.map(|(of, _)| of.clone());
        let of = if own { Some(identity) } else { greatest.as_ref() };
        let away = self.nodes.iter().filter(|(_, node)| node.streams.is_empty() && Some(&node.identity) == of);
        let longest = away.min_by_key(|(_, node)| node.last_seen).map(|(name, _)| name.clone());
        let Some(name) = longest else { return Err(Refusal::TooMany("nodes")) };
        if let Some(gone) = self.nodes.remove(&name)
            && let Some(count) = self.per_identity.get_mut(&gone.identity)
        {
            *count -= 1;
            if *count == 0 {
                self.per_identity.remove(&gone.identity);
            }
        }
        Ok(())
    }

    fn report(&mut self, report: EnforcementReport, metrics: &EnforcementMetrics) {
        let enforcer = report.enforcer.clone();
        if self.waiting.insert(report.node.clone(), report).is_some() {
            metrics.superseded.with_label_values(&[&enforcer]).inc();
        }
        self.flush();
    }

    fn flush(&mut self) {
        let Some(reports) = &self.reports else { return };
        while let Some((node, report)) = self.waiting.pop_first() {
            match reports.try_send(report) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(report)) => {
                    self.waiting.insert(node, report);
                    return;
                }
                // Nobody is left to hear it.
                Err(mpsc::error::TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }
}

/// One stream's place among the streams of its node; leaves when dropped.
#[derive(Debug)]
pub struct Membership {
    nodes: Arc<Nodes>,
    node: String,
    identity: Option<SpiffeId>,
    stream: u64,
}

impl Membership {
    /// The node's own name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The verified identity, where there is one.
    pub fn identity(&self) -> Option<&SpiffeId> {
        self.identity.as_ref()
    }

    /// The stream has acknowledged `version`, `after` it was pushed.
    pub fn acknowledged(&self, version: u64, after: Duration) {
        let label = [self.nodes.enforcer];
        self.nodes.metrics.push_to_ack.with_label_values(&label).observe(after.as_secs_f64());
        self.nodes.metrics.acknowledged.with_label_values(&label).inc();
        let mut state = self.nodes.state();
        let Some(node) = state.nodes.get_mut(&self.node) else { return };
        node.streams.insert(self.stream, Some(version));
        // `None` sorts first: a stream that has acknowledged nothing holds the node back.
        let all = node.streams.values().copied().min().flatten();
        if all.is_some() && all != node.reported {
            node.reported = all;
            let report =
                self.nodes.report(&self.node, self.identity.clone(), all.unwrap_or(0), Enforcement::Acknowledged);
            state.report(report, &self.nodes.metrics);
        }
    }

    /// The stream has refused `version`, in the node's own words.
    pub fn rejected(&self, version: u64, why: &str) {
        self.nodes.metrics.rejected.with_label_values(&[self.nodes.enforcer]).inc();
        let why = why.chars().take(1_000).collect();
        let report = self.nodes.report(&self.node, self.identity.clone(), version, Enforcement::Rejected(why));
        let mut state = self.nodes.state();
        if let Some(node) = state.nodes.get_mut(&self.node) {
            // What it acknowledges next is news again, even if it is a version it has had before.
            node.reported = None;
        }
        state.report(report, &self.nodes.metrics);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.nodes.state();
        let Some(node) = state.nodes.get_mut(&self.node) else { return };
        node.streams.remove(&self.stream);
        if !node.streams.is_empty() {
            return;
        }
        let version = node.reported.take().unwrap_or(0);
        self.nodes.metrics.nodes.with_label_values(&[self.nodes.enforcer]).dec();
        let report = self.nodes.report(&self.node, self.identity.clone(), version, Enforcement::Disconnected);
        state.report(report, &self.nodes.metrics);
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::time::Timestamp;

    use super::*;

    fn nodes(limits: NodeLimits) -> (Arc<Nodes>, mpsc::Receiver<EnforcementReport>) {
        let metrics = EnforcementMetrics::register(&prometheus::Registry::new()).unwrap();
        let nodes = Nodes::new("xds", limits, Clock::new(|| Timestamp(7)), metrics);
        let (sender, receiver) = mpsc::channel(16);
        nodes.report_to(sender);
        (nodes, receiver)
    }

    fn peer(name: &str) -> Peer {
        Peer::Verified(format!("spiffe://mesh.test/{name}").parse().unwrap())
    }

    fn said(reports: &mut mpsc::Receiver<EnforcementReport>) -> Vec<(String, u64, Enforcement)> {
        std::iter::from_fn(|| reports.try_recv().ok()).map(|r| (r.node, r.version, r.what)).collect()
    }

    #[test]
    fn a_node_id_belongs_to_the_identity_that_was_seen_under_it_first_even_after_it_left() {
        let (nodes, _reports) = nodes(NodeLimits::default());
        drop(nodes.join(Some(&peer("a")), "n1").unwrap());
        assert_eq!(nodes.join(Some(&peer("b")), "n1").unwrap_err(), Refusal::ForeignNodeId);
        assert_eq!(nodes.join(Some(&Peer::Loopback), "n1").unwrap_err(), Refusal::ForeignNodeId);
        assert!(nodes.join(Some(&peer("a")), "n1").is_ok());
    }

    #[test]
    fn a_node_has_acknowledged_when_all_of_its_streams_have() {
        let (nodes, mut reports) = nodes(NodeLimits::default());
        let http = nodes.join(Some(&peer("a")), "n1").unwrap();
        let network = nodes.join(Some(&peer("a")), "n1").unwrap();
        http.acknowledged(4, Duration::ZERO);
        assert_eq!(said(&mut reports), [("n1".into(), 0, Enforcement::Connected)]);
        network.acknowledged(4, Duration::ZERO);
        http.acknowledged(4, Duration::ZERO);
        assert_eq!(said(&mut reports), [("n1".into(), 4, Enforcement::Acknowledged)]);
        drop(http);
        assert_eq!(said(&mut reports), []);
        drop(network);
        assert_eq!(said(&mut reports), [("n1".into(), 4, Enforcement::Disconnected)]);
    }

    #[test]
    fn an_identity_at_its_bound_makes_room_among_its_own_nodes_only() {
        let limits = NodeLimits { nodes_per_identity: 1, nodes: 3, ..NodeLimits::default() };
        let (nodes, _reports) = nodes(limits);
        drop(nodes.join(Some(&peer("victim")), "v").unwrap());
        drop(nodes.join(Some(&peer("a")), "a1").unwrap());
        let _a2 = nodes.join(Some(&peer("a")), "a2").unwrap();
        assert_eq!(nodes.join(Some(&peer("a")), "a3").unwrap_err(), Refusal::TooMany("nodes"));
        assert_eq!(nodes.join(Some(&peer("a")), "v").unwrap_err(), Refusal::ForeignNodeId);
    }

    #[test]
    fn an_identity_with_many_nodes_unbinds_its_own_and_never_anothers() {
        let (nodes, _reports) = nodes(NodeLimits { nodes: 4, ..NodeLimits::default() });
        drop(nodes.join(Some(&peer("victim")), "v").unwrap());
        for n in 0..20 {
            drop(nodes.join(Some(&peer("many")), &format!("m{n}")).unwrap());
        }
        assert_eq!(nodes.join(Some(&peer("many")), "v").unwrap_err(), Refusal::ForeignNodeId);
        let refused = nodes.metrics.refused.with_label_values(&["xds", Refusal::ForeignNodeId.as_str()]);
        assert_eq!(refused.get(), 1, "and it is counted");
    }

    #[test]
    fn when_the_loop_does_not_take_reports_the_newest_of_each_node_waits() {
        let (nodes, _) = nodes(NodeLimits::default());
        let (sender, mut reports) = mpsc::channel(1);
        nodes.report_to(sender);
        let node = nodes.join(Some(&peer("a")), "n1").unwrap();
        for version in 1..=5 {
            node.acknowledged(version, Duration::ZERO);
        }
        assert_eq!(said(&mut reports), [("n1".into(), 0, Enforcement::Connected)]);
        nodes.flush();
        assert_eq!(said(&mut reports), [("n1".into(), 5, Enforcement::Acknowledged)]);
        assert_eq!(nodes.metrics.superseded.with_label_values(&["xds"]).get(), 4);
    }

    #[test]
    fn without_a_peer_or_a_decent_node_id_nobody_joins() {
        let (nodes, _reports) = nodes(NodeLimits::default());
        assert_eq!(nodes.join(None, "n1").unwrap_err(), Refusal::Unauthenticated);
        for id in ["", "a\nb", &"x".repeat(257)] {
            assert_eq!(nodes.join(Some(&peer("a")), id).unwrap_err(), Refusal::InvalidNodeId(256));
        }
    }
}
