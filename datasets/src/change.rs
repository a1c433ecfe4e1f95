//! Honest changes: what happens in every estate without anybody meaning harm.

mod plan;

use crate::{calendar::Millis, mesh::ServiceId};

/// The kinds of honest change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// A new version: replicas replaced one after another, new edges from all of them, 1.3 times the load.
    Deployment,
    /// Two to four more replicas for some hours.
    ScaleOut,
    /// 2.5 times the traffic of the whole mesh for two hours.
    CampaignPeak,
    /// A dependency answers 503 and 504 for some minutes; callers retry.
    DependencyOutage,
    /// A caller's configuration changes: the same peer, other operations.
    ConfigChange,
    /// A new edge outside any deployment, and it stays.
    NewEdge,
    /// An edge that is used once in a blue moon.
    RareEdge,
    /// On-call people look at a service with operations nobody uses.
    Debugging,
    /// The same from inside a pod (`kubectl exec`): the pod's identity and address, another TLS stack.
    PodShell,
    /// A job that runs once a month reads a lot.
    MonthlyJob,
    /// A pod moves to another node: new pod, new address, same version.
    NodeMove,
}

impl ChangeKind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Deployment,
        Self::ScaleOut,
        Self::CampaignPeak,
        Self::DependencyOutage,
        Self::ConfigChange,
        Self::NewEdge,
        Self::RareEdge,
        Self::Debugging,
        Self::PodShell,
        Self::MonthlyJob,
        Self::NodeMove,
    ];

    /// How often it comes among the churn of an estate, relative to the others.
    pub(crate) const fn weight(self) -> usize {
        match self {
            Self::Deployment => 8,
            Self::NodeMove | Self::Debugging | Self::RareEdge => 6,
            Self::ScaleOut | Self::ConfigChange | Self::NewEdge | Self::PodShell => 3,
            Self::DependencyOutage => 2,
            Self::CampaignPeak | Self::MonthlyJob => 1,
        }
    }

    /// The kind in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::ScaleOut => "scale_out",
            Self::CampaignPeak => "campaign_peak",
            Self::DependencyOutage => "dependency_outage",
            Self::ConfigChange => "config_change",
            Self::NewEdge => "new_edge",
            Self::RareEdge => "rare_edge",
            Self::Debugging => "debugging",
            Self::PodShell => "pod_shell",
            Self::MonthlyJob => "monthly_job",
            Self::NodeMove => "node_move",
        }
    }
}

/// An honest change to be put into a [`Scenario`](crate::Scenario).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HonestChange {
    /// What happens.
    pub kind: ChangeKind,
    /// When it begins.
    pub at: Millis,
    /// Which service changes; drawn from the seed where `None`.
    pub service: Option<ServiceId>,
}

impl HonestChange {
    /// A change of a service that suits it.
    pub const fn new(kind: ChangeKind, at: Millis) -> Self {
        Self { kind, at, service: None }
    }

    /// The same of this service.
    #[must_use]
    pub const fn of(mut self, service: ServiceId) -> Self {
        self.service = Some(service);
        self
    }
}
