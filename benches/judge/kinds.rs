//! Which first reason is true of an attack: what somebody who looks into it would find.

/// Names of the questions that are a true first reason for an attack of this kind.
pub(crate) fn truly(kind: &str) -> &'static [&'static str] {
    match kind {
        "lateral_move" => &[
            "new-peer",
            "spread-10m",
            "spread-1h",
            "rare-destination",
            "lone-replica",
            "fan-in",
            "new-operation",
            "edge-rate",
        ],
        "peer_scan" | "slow_scan" => &[
            "spread-10m",
            "spread-1h",
            "new-peer",
            "failing",
            "refused",
            "lone-replica",
            "rare-destination",
            "fan-in",
            "new-operation",
        ],
        "operation_enumeration" => {
            &["new-operation", "failing", "refused", "operation-rate", "rare-operation", "lone-replica"]
        }
        "exfiltration" | "slow_exfiltration" => &["bigger", "oversized", "longer"],
        "flood" => &["rate-1m", "rate-10m", "rate-1h", "edge-rate", "operation-rate", "destination-rate"],
        "beacon" | "night_beacon" => &[
            "new-peer",
            "rhythm",
            "rare-destination",
            "lone-replica",
            "spread-1h",
            "spread-10m",
            "new-operation",
            "edge-rate",
        ],
        "tunnelling" | "cryptomining" => &[
            "new-peer",
            "rare-destination",
            "longer",
            "lone-replica",
            "spread-10m",
            "spread-1h",
            "new-operation",
            "edge-rate",
            "rhythm",
        ],
        "stolen_identity" => &[
            "new-fingerprint",
            "new-network",
            "new-credential",
            "outside-sharing",
            "unwitnessed",
            "lone-replica",
            "never-issued",
        ],
        "replayed_credential" => &["outside-sharing", "new-network", "unwitnessed", "lone-replica", "new-fingerprint"],
        "credential_brute_force" | "password_spraying" => {
            &["failing", "refused", "login-elsewhere", "operation-rate", "edge-rate", "rate-1m"]
        }
        "refused_burst" | "privilege_enumeration" => {
            &["refused", "new-operation", "operation-rate", "rare-operation", "failing", "lone-replica"]
        }
        "data_pull" => &[
            "new-peer",
            "bigger",
            "oversized",
            "rare-destination",
            "lone-replica",
            "spread-10m",
            "spread-1h",
            "fan-in",
            "edge-rate",
            "longer",
        ],
        "destruction" => &["new-operation", "operation-rate", "rare-operation", "lone-replica", "edge-rate"],
        "slow_boil" => &["rate-1m", "rate-10m", "rate-1h", "edge-rate", "operation-rate"],
        "off_hours" => &["rate-1m", "rate-10m", "rate-1h", "edge-rate", "rare-source", "operation-rate"],
        "unusual_sequence" => &["operation-rate", "rare-operation", "edge-rate", "rate-10m"],
        "object_enumeration" => {
            &["operation-rate", "failing", "edge-rate", "rate-1m", "rate-10m", "rate-1h", "destination-rate", "refused"]
        }
        "secrets_harvest" => {
            &["new-operation", "operation-rate", "rare-operation", "refused", "edge-rate", "failing", "lone-replica"]
        }
        "role_chain" => &[
            "new-operation",
            "operation-rate",
            "rare-operation",
            "new-peer",
            "edge-rate",
            "spread-1h",
            "spread-10m",
            "lone-replica",
            "rare-destination",
            "fan-in",
        ],
        "internal_proxy" => &[
            "new-operation",
            "new-peer",
            "operation-rate",
            "edge-rate",
            "rate-1m",
            "rate-10m",
            "rate-1h",
            "spread-10m",
            "spread-1h",
            "rare-operation",
            "lone-replica",
        ],
        "encryption_burst" => &[
            "operation-rate",
            "new-operation",
            "edge-rate",
            "rate-1m",
            "rate-10m",
            "rate-1h",
            "bigger",
            "oversized",
            "rare-operation",
            "lone-replica",
            "destination-rate",
        ],
        "foreign_queue" => &[
            "new-peer",
            "rare-destination",
            "lone-replica",
            "spread-10m",
            "spread-1h",
            "fan-in",
            "edge-rate",
            "longer",
            "bigger",
        ],
        "expired_certificate" => &["after-expiry"],
        "premature_certificate" => &["before-issuance"],
        "forged_certificate" => &["never-issued", "new-credential", "new-fingerprint", "before-issuance"],
        "plain_text" => &["no-certificate", "new-fingerprint"],
        "rogue_replica" => &[
            "new-fingerprint",
            "new-network",
            "new-credential",
            "lone-replica",
            "never-issued",
            "outside-sharing",
            "unwitnessed",
            "new-peer",
            "new-operation",
            "spread-10m",
            "spread-1h",
        ],
        "silenced" | "bypassed_proxy" => &["silence", "unwitnessed"],
        "stolen_token" => &["outside-sharing", "new-network", "new-fingerprint"],
        "expired_token" => &["after-expiry"],
        "forged_token" => &["never-issued"],
        "revoked_token" => &["after-revocation", "refused"],
        _ => &[],
    }
}
