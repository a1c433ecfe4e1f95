//! What an alert is about, in the scorer's terms.

use qualm_model::{identity::Hierarchy, level::Level, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{carriers::Carrier, familiar::Familiar, incidents::Shared};

/// The state of one incident, which most of the time is one episode, as it is told to the outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The id of the incident, the same in every alert about it: that of its first episode.
    pub uid: String,
    /// Whether it begins, goes on or ends.
    pub activity: Activity,
    /// Whose behaviour it is.
    pub identity: Identity,
    /// The instances it is narrowed to, as source addresses; empty means all.
    pub instances: Vec<String>,
    /// The level now.
    pub level: Level,
    /// The level before.
    pub previous: Level,
    /// Evidence, `log2(N · 1440 / rate)`.
    pub evidence_bits: f64,
    /// The threshold it crossed, in the same unit.
    pub threshold_bits: f64,
    /// How often such evidence comes by chance over the whole mesh, times a day.
    pub rate_per_day: f64,
    /// What was odd, strongest first.
    pub reasons: Vec<Reason>,
    /// First event of the episode, event time.
    pub first_seen: Timestamp,
    /// Last event of the episode, event time.
    pub last_seen: Timestamp,
    /// When it was decided, wall time.
    pub decided: Timestamp,
    /// When the lease of the level ends, wall time.
    pub lease_until: Option<Timestamp>,
    /// What is done about it.
    pub effect: Effect,
    /// The decision; the name of the policy at the enforcement points.
    pub decision: String,
    /// The workloads that share the principal, where several do. What is not narrowed to an instance is a shadow then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub co_owners: Vec<String>,
    /// Everybody whose episode has the same cause, the highest first, the one that the finding is told of among them; empty
    /// where it is alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// What their episodes share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
    /// The records that carried the evidence, strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried_by: Vec<Carrier>,
    /// What the reader may do now, each as an imperative without a full stop: ``run `qualm explain cart` ``.
    pub next: Vec<String>,
}

/// One of several identities whose episodes are one incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Whose behaviour it is.
    pub identity: Identity,
    /// Its level now; *trusted* where its episode has ended.
    pub level: Level,
    /// Evidence against it.
    pub evidence_bits: f64,
    /// When it entered, event time.
    pub since: Timestamp,
    /// Its decision.
    pub decision: String,
    /// What was oddest, as in [`Reason::observed`].
    pub observed: String,
}

/// Where an episode stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// It has begun.
    Create,
    /// It goes on, with another level or more evidence.
    Update,
    /// It is over.
    Close,
}

/// What is done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The level is carried to the enforcement points.
    Enforced,
    /// Shadow mode: the enforcement points only log what they would do.
    Shadow,
    /// It is to be cut off and must not be: the operator protects it, or as many are cut off as may be. Enforcement
    /// points go as far as *restricted*.
    Held,
    /// It is to be cut off and a bound forbids that for now: enforcement points limit its calls meanwhile.
    Limited,
    /// Found in history or while catching up, where nothing is ever enforced.
    Historic,
}

/// Whose behaviour it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What authenticated, usually a SPIFFE ID.
    pub principal: String,
    /// Its cluster, where known.
    pub cluster: Option<String>,
    /// Its namespace, where known.
    pub namespace: Option<String>,
    /// Its service.
    pub service: String,
    /// The workload, where it is one of several that share the principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
}

/// One thing that was odd.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The question that found it, [`Question::name`](qualm_model::detector::Question::name).
    pub detector: String,
    /// Its share of the evidence, log2.
    pub bits: f64,
    /// What it did, as a phrase that follows its name: `called payments for the first time in 9 days`.
    pub observed: String,
    /// What is usual, as a noun: `3 calls a minute`; empty where there is nothing to name.
    pub expected: String,
    /// How many observations the expectation rests on.
    pub n: f64,
    /// Where what is usual lies, in words: `0 to 12`; empty where it is no quantity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub range: String,
    /// How often it was seen before, of itself, of its peers, of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub familiar: Option<Familiar>,
    /// The destination concerned, as a principal or name.
    pub destination: Option<String>,
    /// The operation concerned, with its path folded to a template.
    pub operation: Option<String>,
}

impl Finding {
    /// Whether it is a shadow, whatever the mode, because to enforce it would be to cut off others who share the principal.
    pub(super) fn is_beyond_scope(&self) -> bool {
        !self.co_owners.is_empty() && self.instances.is_empty()
    }

    /// This state in place of an `older` one that was never told: what is new to the reader stays a beginning.
    pub fn superseding(mut self, older: &Self) -> Self {
        if older.activity == Activity::Create && self.activity == Activity::Update {
            self.activity = Activity::Create;
            self.previous = older.previous;
        }
        self
    }
}

impl Activity {
    /// The word used in every output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Close => "close",
        }
    }
}

impl Effect {
    /// The word used in every output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Shadow => "shadow",
            Self::Held => "held",
            Self::Limited => "limited",
            Self::Historic => "historic",
        }
    }
}

impl Identity {
    /// The identity of a principal, its place read from its name; no one workload of several that share it.
    pub fn of(principal: &str, cluster: Option<&str>) -> Self {
        let place = Hierarchy::of(principal);
        Self {
            principal: principal.to_owned(),
            cluster: cluster.map(str::to_owned),
            namespace: place.namespace.map(str::to_owned),
            service: place.service.to_owned(),
            workload: None,
        }
    }
}
