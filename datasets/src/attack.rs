//! Attacks: what somebody does who holds a service's identity and is not that service.

mod plan;

use crate::{calendar::Millis, mesh::ServiceId};

/// The kinds of attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttackKind {
    /// Calls an API it has never called.
    LateralMove,
    /// Tries one service after another, fast.
    PeerScan,
    /// Tries one service every few minutes, for hours.
    SlowScan,
    /// Tries path after path on a service it knows.
    OperationEnumeration,
    /// Takes large answers from a service it knows, with operations it knows.
    Exfiltration,
    /// Far too many ordinary calls to a service it knows.
    Flood,
    /// Calls home to a host nobody calls, at a fixed period.
    Beacon,
    /// The identity from another address, with another TLS stack and a certificate never seen.
    StolenIdentity,
    /// A replica's own certificate from another address, while the replica still uses it.
    ReplayedCredential,
    /// Login after login fails at the token issuer, then one succeeds.
    CredentialBruteForce,
    /// Administration of services it knows, refused again and again.
    RefusedBurst,
    /// Opens a database it has never used and pulls data.
    DataPull,
    /// Deletes, at a service it knows, what it never deleted.
    Destruction,
}

impl AttackKind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::LateralMove,
        Self::PeerScan,
        Self::SlowScan,
        Self::OperationEnumeration,
        Self::Exfiltration,
        Self::Flood,
        Self::Beacon,
        Self::StolenIdentity,
        Self::ReplayedCredential,
        Self::CredentialBruteForce,
        Self::RefusedBurst,
        Self::DataPull,
        Self::Destruction,
    ];

    /// The kind in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LateralMove => "lateral_move",
            Self::PeerScan => "peer_scan",
            Self::SlowScan => "slow_scan",
            Self::OperationEnumeration => "operation_enumeration",
            Self::Exfiltration => "exfiltration",
            Self::Flood => "flood",
            Self::Beacon => "beacon",
            Self::StolenIdentity => "stolen_identity",
            Self::ReplayedCredential => "replayed_credential",
            Self::CredentialBruteForce => "credential_brute_force",
            Self::RefusedBurst => "refused_burst",
            Self::DataPull => "data_pull",
            Self::Destruction => "destruction",
        }
    }

    /// MITRE ATT&CK technique (enterprise).
    pub const fn technique(self) -> &'static str {
        match self {
            Self::LateralMove => "T1021",
            Self::PeerScan | Self::SlowScan => "T1046",
            Self::OperationEnumeration => "T1595.003",
            Self::Exfiltration => "T1048",
            Self::Flood => "T1499.002",
            Self::Beacon => "T1071.001",
            Self::StolenIdentity => "T1552.004",
            Self::ReplayedCredential => "T1550",
            Self::CredentialBruteForce => "T1110",
            Self::RefusedBurst => "T1069",
            Self::DataPull => "T1213.006",
            Self::Destruction => "T1485",
        }
    }
}

/// An attack to be put into a [`Scenario`](crate::Scenario).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attack {
    /// What is done.
    pub kind: AttackKind,
    /// When its first call begins.
    pub at: Millis,
    /// Whose identity is abused; drawn from the seed where `None`.
    pub actor: Option<ServiceId>,
    /// How much: factor on targets, calls or bytes.
    pub intensity: f64,
    /// How fast: factor on calls a second.
    pub pace: f64,
}

impl Attack {
    /// An attack of usual intensity and pace by an actor that suits it.
    pub const fn new(kind: AttackKind, at: Millis) -> Self {
        Self { kind, at, actor: None, intensity: 1.0, pace: 1.0 }
    }

    /// The same by this service.
    #[must_use]
    pub const fn by(mut self, actor: ServiceId) -> Self {
        self.actor = Some(actor);
        self
    }

    /// The same with so many times the targets, calls or bytes.
    #[must_use]
    pub const fn intensity(mut self, factor: f64) -> Self {
        self.intensity = factor;
        self
    }

    /// The same so many times faster.
    #[must_use]
    pub const fn pace(mut self, factor: f64) -> Self {
        self.pace = factor;
        self
    }
}
