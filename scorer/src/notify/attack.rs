//! Which technique of MITRE ATT&CK a question points at.

/// The version that ids, names and tactics were taken from.
pub(super) const ATTACK_VERSION: &str = "18.1";

/// A technique with the tactic it serves here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Technique {
    /// Id of the technique.
    pub uid: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Id and name of a sub-technique.
    pub sub: Option<(&'static str, &'static str)>,
    /// Id and name of the tactic.
    pub tactic: (&'static str, &'static str),
}

const REMOTE_SERVICES: Technique = technique("T1021", "Remote Services", LATERAL_MOVEMENT);
const VALID_ACCOUNTS: Technique = technique("T1078", "Valid Accounts", ("TA0001", "Initial Access"));
const TOKEN_THEFT: Technique = technique("T1528", "Steal Application Access Token", CREDENTIAL_ACCESS);
const TOKEN_USE: Technique = Technique {
    sub: Some(("T1550.001", "Application Access Token")),
    ..technique("T1550", "Use Alternate Authentication Material", LATERAL_MOVEMENT)
};
const FORGED: Technique = technique("T1606", "Forge Web Credentials", CREDENTIAL_ACCESS);
const BRUTE_FORCE: Technique = technique("T1110", "Brute Force", CREDENTIAL_ACCESS);
const DISCOVERY: Technique = technique("T1046", "Network Service Discovery", ("TA0007", "Discovery"));
const FLOOD: Technique = technique("T1499", "Endpoint Denial of Service", ("TA0040", "Impact"));
const EXFILTRATION: Technique = technique("T1567", "Exfiltration Over Web Service", ("TA0010", "Exfiltration"));
const CONTROL_CHANNEL: Technique = Technique {
    sub: Some(("T1071.001", "Web Protocols")),
    ..technique("T1071", "Application Layer Protocol", ("TA0011", "Command and Control"))
};
const IMPAIR: Technique = technique("T1562", "Impair Defenses", ("TA0005", "Defense Evasion"));

const LATERAL_MOVEMENT: (&str, &str) = ("TA0008", "Lateral Movement");
const CREDENTIAL_ACCESS: (&str, &str) = ("TA0006", "Credential Access");

impl Technique {
    /// The technique that a question, by its name, points at first. `None` for a question of no such meaning.
    pub fn of(detector: &str) -> Option<Self> {
        Some(match detector {
            "rare-source" | "new-operation" | "rare-operation" | "unlike-peers" => VALID_ACCOUNTS,
            "new-peer" | "strange-peer" | "rare-destination" => REMOTE_SERVICES,
            "new-credential" => TOKEN_USE,
            "new-fingerprint" | "new-network" | "lone-replica" | "unwitnessed" => TOKEN_THEFT,
            "refused" | "login-elsewhere" => BRUTE_FORCE,
            "after-revocation" | "after-expiry" | "outside-sharing" => TOKEN_USE,
            "never-issued" | "before-issuance" => FORGED,
            "no-certificate" => IMPAIR,
            "failing" | "spread-10m" | "spread-1h" | "fan-in" => DISCOVERY,
            "rate-1m" | "rate-10m" | "rate-1h" | "edge-rate" | "operation-rate" | "destination-rate" => FLOOD,
            "bigger" | "oversized" => EXFILTRATION,
            "longer" | "rhythm" => CONTROL_CHANNEL,
            "silence" | "lull" => IMPAIR,
            _ => return None,
        })
    }
}

const fn technique(uid: &'static str, name: &'static str, tactic: (&'static str, &'static str)) -> Technique {
    Technique { uid, name, sub: None, tactic }
}
