//! The enumerations of OCSF: each number with its caption.

use qualm_model::level::Level;

use crate::notify::finding::{Activity, Effect, Finding};

/// A number of an enumeration with its caption.
pub(super) type Captioned = (u8, &'static str);

/// OCSF's own words for the kind of analysis.
pub(super) fn observation_type(detector: &str) -> &'static str {
    match detector {
        "new-peer" | "rare-source" | "rare-destination" | "new-operation" | "new-credential" | "new-fingerprint" => {
            "Association Analysis"
        }
        "bigger" | "longer" => "Volume Analysis",
        "failing" | "refused" => "Distribution Analysis",
        "rate-1m" | "rate-10m" | "rate-1h" | "edge-rate" | "destination-rate" | "silence" => "Frequency Analysis",
        "spread-10m" | "spread-1h" | "fan-in" => "Velocity Analysis",
        _ => "Deviation Analysis",
    }
}

pub(super) const fn activity(activity: Activity) -> Captioned {
    match activity {
        Activity::Create => (1, "Create"),
        Activity::Update => (2, "Update"),
        Activity::Close => (3, "Close"),
    }
}

/// By the level that was reached; what is over, informs.
pub(super) const fn severity(finding: &Finding) -> Captioned {
    match (finding.activity, finding.level) {
        (Activity::Close, _) | (_, Level::Trusted) => (1, "Informational"),
        (_, Level::Watched) => (2, "Low"),
        (_, Level::Throttled) => (3, "Medium"),
        (_, Level::Restricted) => (4, "High"),
        (_, Level::Quarantined | Level::Revoked) => (5, "Critical"),
    }
}

pub(super) const fn status(activity: Activity) -> Captioned {
    match activity {
        Activity::Create => (1, "New"),
        Activity::Update => (2, "In Progress"),
        Activity::Close => (4, "Resolved"),
    }
}

pub(super) const fn risk(level: Level) -> Captioned {
    match level {
        Level::Trusted => (0, "Info"),
        Level::Watched => (1, "Low"),
        Level::Throttled => (2, "Medium"),
        Level::Restricted => (3, "High"),
        Level::Quarantined | Level::Revoked => (4, "Critical"),
    }
}

/// OCSF counts "no action" as allowed.
pub(super) fn action(finding: &Finding) -> Captioned {
    let denies = finding.effect == Effect::Enforced && finding.level >= Level::Restricted;
    if denies && finding.activity != Activity::Close { (2, "Denied") } else { (1, "Allowed") }
}

pub(super) const fn disposition(finding: &Finding) -> Captioned {
    match (finding.activity, finding.effect, finding.level) {
        (Activity::Close, Effect::Enforced, _) => (9, "Restored"),
        (Activity::Close, ..) | (_, Effect::Shadow | Effect::Held | Effect::Historic, _) => (15, "Detected"),
        (_, Effect::Limited, _) => (14, "Delayed"),
        (_, _, Level::Trusted | Level::Watched) => (15, "Detected"),
        (_, _, Level::Throttled) => (14, "Delayed"),
        (_, _, Level::Restricted | Level::Quarantined) => (2, "Blocked"),
        (_, _, Level::Revoked) => (24, "Access Revoked"),
    }
}
