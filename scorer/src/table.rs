//! The trust table: every subject that is not fully trusted, as enforcement points hold it.

mod known;

use std::{collections::BTreeSet, sync::Arc};

use qualm_model::{identity::SpiffeId, level::Level, time::Timestamp};
use serde::{Deserialize, Serialize};

pub(crate) use self::known::short_name;
pub use self::known::{Known, Operations, Reachable};
use crate::workloads;

/// Whom an entry is about. Ordered, so that tables have one order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The principal, usually a SPIFFE ID.
    pub principal: String,
    /// Its cluster, where the deployment names clusters.
    pub cluster: Option<String>,
    /// The workload, where it is one of several that share the principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The one instance meant, as its source address; `None` is every instance.
    pub instance: Option<String>,
}

impl Subject {
    /// Name of the identity in every output: the principal, with `@cluster` where there are several, and with `#workload`
    /// where it is one of several that share the principal.
    pub fn identity(&self) -> String {
        workloads::name(&self.principal, self.cluster.as_deref(), self.workload.as_deref())
    }
}

/// What the subject's trust is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Object {
    /// Everything it calls.
    #[default]
    Any,
    /// Calls to one destination.
    Destination(String),
    /// One operation at one destination.
    Operation(String, String),
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrustEntry {
    /// Hash of (identity, scope, level, episode start, level ordinal), hex; the name of the policy at the
    /// enforcement point, and how our own denials are recognised in telemetry.
    pub decision: String,
    /// Whom it is about.
    pub subject: Subject,
    /// What it is about.
    pub object: Object,
    /// The level.
    pub level: Level,
    /// `false`: shadow only, whatever the level.
    pub enforce: bool,
    /// When it was decided, wall time.
    pub decided: Timestamp,
    /// When the lease ends, wall time.
    pub expires: Timestamp,
    /// Evidence behind it, `log2(N · 1440 / rate)`.
    pub evidence_bits: f64,
    /// The workloads that share the principal, where several do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub co_owners: Vec<String>,
    /// The first reason, in words.
    pub reason: String,
    /// What the subject may still do below *quarantined*; `None` where nothing limits it, or nothing is known of it.
    #[serde(skip)]
    pub known: Option<Arc<Known>>,
}

impl TrustEntry {
    /// Whether enforcement points may be told of it at all: of a principal that several workloads share, only what is
    /// narrowed to an instance. Anything else would be a rule about all of them.
    pub fn is_tellable(&self) -> bool {
        self.co_owners.is_empty() || self.subject.instance.is_some()
    }
}

/// The whole table; level-triggered: whoever reconnects gets all of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrustTable {
    /// Rises with every change; 0 is the empty table at first start.
    pub version: u64,
    /// Ordered by subject, then object.
    pub entries: Vec<TrustEntry>,
    /// Hash of model and configuration that led here.
    pub model_version: String,
    /// What is denied to nobody.
    #[serde(default)]
    pub reachable: Reachable,
    /// Decisions at which a call was served that should not have been, although its proxy had acknowledged: what acts on
    /// these alone is a stronger action.
    #[serde(default)]
    pub leaking: BTreeSet<String>,
}

/// A table as it is shared with enforcement points.
pub type SharedTable = Arc<TrustTable>;

/// What an enforcement point did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enforcement {
    /// It subscribed.
    Connected,
    /// It has acknowledged the version.
    Acknowledged,
    /// It refused the version, with its own words; what it held before stands.
    Rejected(String),
    /// Its stream has ended.
    Disconnected,
}

/// What came back from one node of an enforcement point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnforcementReport {
    /// Kind of enforcement point: `xds`, `trust-stream`.
    pub enforcer: String,
    /// The node's own name for itself.
    pub node: String,
    /// Its verified identity, where the connection had one.
    pub identity: Option<SpiffeId>,
    /// Table version it is about.
    pub version: u64,
    /// When, wall time.
    pub at: Timestamp,
    /// What happened.
    pub what: Enforcement,
}
