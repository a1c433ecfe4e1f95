//! The kinds of honest change, their names and how often they come.

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
    /// One replica runs the new version for two hours, with its new edge, then all do.
    Canary,
    /// A second set of replicas starts, takes all traffic at once, and the first goes.
    BlueGreen,
    /// A health check of another service every 15 to 60 s, as regular as a beacon, and it stays.
    KeepAlive,
    /// A new TLS library: another fingerprint and user agent on all replicas, one after another.
    LibraryUpdate,
    /// A service that was not there, with callers, dependencies and scrapes.
    ServiceBorn,
    /// A service's callers leave it and it falls silent.
    ServiceRetired,
    /// The issuer's key is replaced: every workload gets a new certificate within an hour.
    IssuerRotation,
    /// A service's secrets change: its replicas read them again and open their connections anew.
    SecretRotation,
    /// A client that still has the old secret fails to log in until somebody notices.
    StaleSecret,
    /// A new feature lacks a grant: 403 on one operation until the policy is mended.
    MissingGrant,
    /// A job reads a database whole, every night from now on.
    Backup,
    /// Old objects are deleted at a known API.
    CleanUp,
    /// Objects are read and written again one by one, with large answers.
    Migration,
    /// A report is fetched in large pieces over hours.
    LongExport,
    /// One edge's traffic grows by a few per cent a day, because its product does.
    Growth,
    /// A job is run again by hand in the afternoon.
    JobRerun,
    /// A host outside that nobody called, called from now on.
    NewVendor,
    /// Connections to a known host outside that stay open for most of an hour.
    LongStream,
    /// On-call people's tool asks every service for its health and version.
    Inventory,
    /// A service's calls six times as many for twenty minutes, announced to nobody here.
    LoadTest,
    /// A service is taken down for maintenance and silent for half an hour.
    Maintenance,
}

use ChangeKind as K;

/// Kind, name in labels, how often it comes among the churn of an estate relative to the others.
const KINDS: [(K, &str, usize); 32] = [
    (K::Deployment, "deployment", 8),
    (K::ScaleOut, "scale_out", 3),
    (K::CampaignPeak, "campaign_peak", 1),
    (K::DependencyOutage, "dependency_outage", 2),
    (K::ConfigChange, "config_change", 3),
    (K::NewEdge, "new_edge", 3),
    (K::RareEdge, "rare_edge", 6),
    (K::Debugging, "debugging", 6),
    (K::PodShell, "pod_shell", 3),
    (K::MonthlyJob, "monthly_job", 1),
    (K::NodeMove, "node_move", 6),
    (K::Canary, "canary", 3),
    (K::BlueGreen, "blue_green", 1),
    (K::KeepAlive, "keep_alive", 2),
    (K::LibraryUpdate, "library_update", 2),
    (K::ServiceBorn, "service_born", 1),
    (K::ServiceRetired, "service_retired", 1),
    (K::IssuerRotation, "issuer_rotation", 1),
    (K::SecretRotation, "secret_rotation", 2),
    (K::StaleSecret, "stale_secret", 2),
    (K::MissingGrant, "missing_grant", 2),
    (K::Backup, "backup", 1),
    (K::CleanUp, "clean_up", 2),
    (K::Migration, "migration", 1),
    (K::LongExport, "long_export", 1),
    (K::Growth, "growth", 1),
    (K::JobRerun, "job_rerun", 2),
    (K::NewVendor, "new_vendor", 1),
    (K::LongStream, "long_stream", 1),
    (K::Inventory, "inventory", 1),
    (K::LoadTest, "load_test", 1),
    (K::Maintenance, "maintenance", 2),
];

impl ChangeKind {
    /// All kinds.
    pub const ALL: [Self; KINDS.len()] = {
        let mut all = [Self::Deployment; KINDS.len()];
        let mut index = 0;
        while index < KINDS.len() {
            all[index] = KINDS[index].0;
            index += 1;
        }
        all
    };

    /// The kinds of [`Scenario::churn`](crate::Scenario::churn), which keeps them so that what was measured on it can
    /// be measured again.
    pub const EVERYDAY: [Self; 11] = [
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
        KINDS[self as usize].2
    }

    /// The kind in labels.
    pub const fn name(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// The kind of this name in labels.
    pub fn from_name(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_row_of_its_own() {
        for (place, kind) in ChangeKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "the table follows the order of the kinds");
            assert_eq!(ChangeKind::from_name(kind.name()), Some(kind));
        }
    }
}
