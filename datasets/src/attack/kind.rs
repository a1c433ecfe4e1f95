//! The kinds of attack, their names and the ATT&CK techniques they are.

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
    /// Known calls, answers some times as large, one every few minutes for hours.
    SlowExfiltration,
    /// A known call made a few per cent more often every hour, for days.
    SlowBoil,
    /// A job's identity does what the job does, at hours at which the job never runs.
    OffHours,
    /// Known operations on known edges, in an order and a mix unlike its own.
    UnusualSequence,
    /// One known operation over object after object, faster than ever and often not found.
    ObjectEnumeration,
    /// Many small requests with long random names to one host outside.
    Tunnelling,
    /// Connections to a host outside that stay open for most of an hour and carry little.
    Cryptomining,
    /// Calls home at odd hours, every 20 minutes give or take 30 %.
    NightBeacon,
    /// Reads at Vault what belongs to one service after another.
    SecretsHarvest,
    /// Asks the Kubernetes API what it may do and what there is, refused for the most part.
    PrivilegeEnumeration,
    /// Exchanges its token for another's and goes where that one may, again and again.
    RoleChain,
    /// Makes one service's everyday calls for a caller outside: operations of many others through one identity.
    InternalProxy,
    /// Reads and overwrites object after object.
    EncryptionBurst,
    /// Reads from a broker it never reads from.
    ForeignQueue,
    /// Logins of many users, a few each, then one succeeds from elsewhere.
    PasswordSpraying,
    /// A certificate whose validity has ended.
    ExpiredCertificate,
    /// A certificate whose validity has not begun.
    PrematureCertificate,
    /// A certificate in the identity's name that its issuer never issued, from a replica's own address.
    ForgedCertificate,
    /// Plain text from a replica that always showed a certificate.
    PlainText,
    /// A pod nobody deployed, under the identity of a service.
    RogueReplica,
    /// The identity stops being reported: its proxy is bypassed or dead while it lives.
    Silenced,
    /// A pod's token at the Kubernetes API from another pod's address.
    StolenToken,
    /// A pod's token at the Kubernetes API an hour after its end.
    ExpiredToken,
    /// A token at the Kubernetes API that it never issued.
    ForgedToken,
    /// A token at Vault after an administrator revoked it.
    RevokedToken,
    /// Calls to the service are told by the callers' proxies only: its own is bypassed.
    BypassedProxy,
}

use AttackKind as K;

/// Kind, name in labels, MITRE ATT&CK technique (enterprise), the honest change that resembles it.
const KINDS: [(K, &str, &str, &str); 39] = [
    (K::LateralMove, "lateral_move", "T1021", "new_edge"),
    (K::PeerScan, "peer_scan", "T1046", "inventory"),
    (K::SlowScan, "slow_scan", "T1046", "inventory"),
    (K::OperationEnumeration, "operation_enumeration", "T1595.003", "debugging"),
    (K::Exfiltration, "exfiltration", "T1048", "migration"),
    (K::Flood, "flood", "T1499.002", "load_test"),
    (K::Beacon, "beacon", "T1071.001", "keep_alive"),
    (K::StolenIdentity, "stolen_identity", "T1552.004", "pod_shell"),
    (K::ReplayedCredential, "replayed_credential", "T1550", "node_move"),
    (K::CredentialBruteForce, "credential_brute_force", "T1110", "stale_secret"),
    (K::RefusedBurst, "refused_burst", "T1069", "missing_grant"),
    (K::DataPull, "data_pull", "T1213.006", "backup"),
    (K::Destruction, "destruction", "T1485", "clean_up"),
    (K::SlowExfiltration, "slow_exfiltration", "T1030", "long_export"),
    (K::SlowBoil, "slow_boil", "T1020", "growth"),
    (K::OffHours, "off_hours", "T1078", "job_rerun"),
    (K::UnusualSequence, "unusual_sequence", "T1036", "config_change"),
    (K::ObjectEnumeration, "object_enumeration", "T1213", "migration"),
    (K::Tunnelling, "tunnelling", "T1572", "new_vendor"),
    (K::Cryptomining, "cryptomining", "T1496", "long_stream"),
    (K::NightBeacon, "night_beacon", "T1029", "keep_alive"),
    (K::SecretsHarvest, "secrets_harvest", "T1555.006", "secret_rotation"),
    (K::PrivilegeEnumeration, "privilege_enumeration", "T1613", "missing_grant"),
    (K::RoleChain, "role_chain", "T1548.005", "service_born"),
    (K::InternalProxy, "internal_proxy", "T1090.001", "service_retired"),
    (K::EncryptionBurst, "encryption_burst", "T1486", "migration"),
    (K::ForeignQueue, "foreign_queue", "T1005", "new_edge"),
    (K::PasswordSpraying, "password_spraying", "T1110.003", "stale_secret"),
    (K::ExpiredCertificate, "expired_certificate", "T1550", "issuer_rotation"),
    (K::PrematureCertificate, "premature_certificate", "T1649", "issuer_rotation"),
    (K::ForgedCertificate, "forged_certificate", "T1649", "issuer_rotation"),
    (K::PlainText, "plain_text", "T1562.010", "library_update"),
    (K::RogueReplica, "rogue_replica", "T1610", "scale_out"),
    (K::Silenced, "silenced", "T1562", "maintenance"),
    (K::StolenToken, "stolen_token", "T1528", "node_move"),
    (K::ExpiredToken, "expired_token", "T1550.001", "secret_rotation"),
    (K::ForgedToken, "forged_token", "T1606", "issuer_rotation"),
    (K::RevokedToken, "revoked_token", "T1550.001", "secret_rotation"),
    (K::BypassedProxy, "bypassed_proxy", "T1562.001", "maintenance"),
];

impl AttackKind {
    /// All kinds.
    pub const ALL: [Self; KINDS.len()] = {
        let mut all = [Self::LateralMove; KINDS.len()];
        let mut index = 0;
        while index < KINDS.len() {
            all[index] = KINDS[index].0;
            index += 1;
        }
        all
    };

    /// The kind in labels.
    pub const fn name(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// MITRE ATT&CK technique (enterprise).
    pub const fn technique(self) -> &'static str {
        KINDS[self as usize].2
    }

    /// Name of the [`ChangeKind`](crate::ChangeKind) that resembles it: what a detector must tell it from.
    pub const fn resembled_by(self) -> &'static str {
        KINDS[self as usize].3
    }

    /// The kind of this name in labels.
    pub fn from_name(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChangeKind;

    #[test]
    fn every_kind_has_a_row_of_its_own_and_an_honest_change_that_resembles_it() {
        for (place, kind) in AttackKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "the table follows the order of the kinds");
            assert_eq!(AttackKind::from_name(kind.name()), Some(kind));
            assert!(kind.technique().starts_with('T'));
            assert!(ChangeKind::from_name(kind.resembled_by()).is_some(), "{kind:?}");
        }
        assert_eq!(AttackKind::from_name("deployment"), None);
    }
}
