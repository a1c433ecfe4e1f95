//! What the operator decides: budgets, leases, whom never to touch. There are no thresholds to tune.

use std::fmt;

use qualm_model::{
    level::Level,
    stats::ALL_LEARNED,
    time::{Span, Timestamp},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, Visitor},
};

use crate::table::Operations;

/// A length of time as people write it: `"90s"`, `"15m"`, `"1h"`, `"2d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length(pub Span);

impl Length {
    const fn seconds(seconds: i64) -> Self {
        Self(Span::seconds(seconds))
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_any(Written)?;
        let wrong =
            || D::Error::custom(format!("`{text}` is not a length of time; write \"30s\", \"15m\", \"1h\" or \"2d\""));
        let text = text.as_str();
        let unit = text.chars().last().ok_or_else(wrong)?;
        let number: i64 = text[..text.len() - unit.len_utf8()].trim().parse().map_err(|_| wrong())?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        if !(0..=400 * 86_400 / seconds).contains(&number) {
            return Err(D::Error::custom(format!("`{text}` is out of range; write a length from \"0s\" to \"400d\"")));
        }
        Ok(Self::seconds(number * seconds))
    }
}

/// A text; whatever else stands there is told what is missing.
struct Written;

impl Visitor<'_> for Written {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length of time with its unit and in quotes, as \"30s\", \"15m\", \"1h\" or \"2d\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = self.0.0 / Span::SECOND.0;
        let (unit, of) = [('d', 86_400), ('h', 3600), ('m', 60)]
            .into_iter()
            .find(|(_, of)| seconds > 0 && seconds % of == 0)
            .unwrap_or(('s', 1));
        serializer.serialize_str(&format!("{}{unit}", seconds / of))
    }
}

/// `[budget]`: wrongful entries that the operator is willing to bear, for the whole mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Entries into *watched* a day.
    pub watched_per_day: f64,
    /// Entries into *throttled* a day.
    pub throttled_per_day: f64,
    /// Entries into *restricted* a week.
    pub restricted_per_week: f64,
    /// Entries into *quarantined* a month of 30 days.
    pub quarantined_per_month: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { watched_per_day: 10.0, throttled_per_day: 1.0, restricted_per_week: 1.0, quarantined_per_month: 1.0 }
    }
}

impl Budget {
    /// The key of a level in the configuration; empty for levels that behaviour does not lead to.
    pub const fn key(level: Level) -> &'static str {
        match level {
            Level::Watched => "watched_per_day",
            Level::Throttled => "throttled_per_day",
            Level::Restricted => "restricted_per_week",
            Level::Quarantined => "quarantined_per_month",
            Level::Trusted | Level::Revoked => "",
        }
    }

    /// Entries a day into a level; 0 for levels that behaviour does not lead to.
    pub fn per_day(&self, level: Level) -> f64 {
        match level {
            Level::Watched => self.watched_per_day,
            Level::Throttled => self.throttled_per_day,
            Level::Restricted => self.restricted_per_week / 7.0,
            Level::Quarantined => self.quarantined_per_month / 30.0,
            Level::Trusted | Level::Revoked => 0.0,
        }
    }
}

/// `[lease]`: how long an entry stands before it must be justified again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Leases {
    /// Lease of *watched*.
    pub watched: Length,
    /// Lease of *throttled*.
    pub throttled: Length,
    /// Lease of *restricted*.
    pub restricted: Length,
    /// Lease of *quarantined*.
    pub quarantined: Length,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            watched: Length::seconds(1800),
            throttled: Length::seconds(900),
            restricted: Length::seconds(1800),
            quarantined: Length::seconds(3600),
        }
    }
}

impl Leases {
    /// The lease of a level.
    pub fn of(&self, level: Level) -> Span {
        match level {
            Level::Trusted => Span(0),
            Level::Watched => self.watched.0,
            Level::Throttled => self.throttled.0,
            Level::Restricted => self.restricted.0,
            Level::Quarantined | Level::Revoked => self.quarantined.0,
        }
    }
}

/// Whether enforcement points act or only mark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everything is pushed through the shadow matcher: visible in the mesh's own log, denied to nobody.
    #[default]
    Shadow,
    /// Levels act.
    Enforce,
}

/// `[enforce]`: what may be done, and how far it may reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnforceConfig {
    /// Shadow (default) or enforce.
    pub mode: Mode,
    /// A verdict whose causing event is older than this when decided is never enforced.
    pub max_age: Length,
    /// At most this share of all identities is denied at once; at least one always may be.
    pub max_share: f64,
    /// At most this share of the healthy replicas of one service is *quarantined* on behaviour; one always may be.
    pub max_replica_share: f64,
    /// At most this share of the mesh's usual calls is denied at once; those of one identity always may be.
    pub max_traffic_share: f64,
    /// Identities that are never limited nor denied: principals, with `*` for any text.
    pub protected: Vec<String>,
    /// Destinations that nobody is kept from at any level: principals, with `*` for any text.
    pub reachable: Vec<String>,
    /// Paths that nobody is kept from at any destination: exact, without a query.
    pub reachable_paths: Vec<String>,
    /// Ways that are used only when others fail: whoever is *restricted* may take them.
    pub fallback: Vec<Fallback>,
}

impl Default for EnforceConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Shadow,
            max_age: Length::seconds(120),
            max_share: 0.05,
            max_replica_share: 0.5,
            max_traffic_share: 0.2,
            protected: [
                "spiffe://*/ns/istio-system/*",
                "spiffe://*/ns/kube-system/*",
                "spiffe://*/ns/spire*",
                "spiffe://*/ns/vault*",
                "spiffe://*/ns/linkerd*",
                "spiffe://*/ns/qualm*",
            ]
            .map(str::to_owned)
            .to_vec(),
            reachable: [
                "spiffe://*/ns/istio-system/*",
                "spiffe://*/ns/kube-system/*",
                "spiffe://*/ns/spire*",
                "spiffe://*/ns/vault*",
                "spiffe://*/ns/linkerd*",
                "spiffe://*/ns/keycloak*",
                "spiffe://*/ns/qualm*",
            ]
            .map(str::to_owned)
            .to_vec(),
            reachable_paths: [
                "/healthz",
                "/livez",
                "/readyz",
                "/metrics",
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/Watch",
            ]
            .map(str::to_owned)
            .to_vec(),
            fallback: Vec::new(),
        }
    }
}

/// A declared fall-back path: who may call whom, and what for, also where it was never seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// Callers: principals, with `*` for any text.
    pub from: String,
    /// Destinations: principals, with `*` for any text.
    pub to: String,
    /// Operations as method and path, placeholders in braces; all where there are none.
    #[serde(default)]
    pub operations: Vec<String>,
}

impl EnforceConfig {
    /// The declared fall-back paths of a caller.
    pub fn fallbacks_of(&self, principal: &str) -> impl Iterator<Item = (String, Operations)> {
        self.fallback.iter().filter(|path| matches(&path.from, principal)).map(|path| {
            let operations = &path.operations;
            let only = || Operations::Only(operations.iter().cloned().collect());
            (path.to.clone(), if operations.is_empty() { Operations::Any } else { only() })
        })
    }

    /// Whether the operator has said that this principal is never to be denied.
    pub fn protects(&self, principal: &str) -> bool {
        self.protected.iter().any(|pattern| matches(pattern, principal))
    }
}

/// `*` stands for any text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    if after.is_empty() {
        return true;
    }
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| matches(after, &rest[at..]))
}

/// `[memory]`: what the baselines may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Bytes of baselines in MiB; beyond, the greatest user's least known keys are folded away first.
    pub baselines_mib: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { baselines_mib: 1024 }
    }
}

/// A stretch of event time of which nothing is learned: an incident, a game day, a load test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// From then on.
    #[serde(with = "rfc3339")]
    pub since: Timestamp,
    /// Until then.
    #[serde(with = "rfc3339")]
    pub until: Timestamp,
    /// What for.
    pub why: String,
}

/// Times as people write them.
mod rfc3339 {
    use qualm_model::time::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        let told = jiff::Timestamp::from_nanosecond(i128::from(time.0)).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&told)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || D::Error::custom(format!("`{text}` is not a time; write it as \"2026-12-24T18:00:00Z\""));
        let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        i64::try_from(time.as_nanosecond()).map(Timestamp).map_err(|_| wrong())
    }
}

/// `[learning]`: of what nothing is learned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearningConfig {
    /// Stretches of event time that leave what is usual as it was, in any order.
    pub pauses: Vec<Pause>,
}

impl LearningConfig {
    /// Pauses at most, and the longest.
    const MOST: (usize, Span) = (64, Span(14 * Span::DAY.0));

    /// Whether they can be kept.
    ///
    /// # Errors
    /// What is wrong, with the key and the remedy.
    pub fn check(&self) -> Result<(), String> {
        if self.pauses.len() > Self::MOST.0 {
            return Err(format!(
                "[learning] pauses: {} of them; keep at most {}, those that are over count no more",
                self.pauses.len(),
                Self::MOST.0
            ));
        }
        for Pause { since, until, why } in &self.pauses {
            if until <= since || *until - *since > Self::MOST.1 {
                return Err(format!("[learning] pauses: `{why}` must end after it begins, at most 14 days later"));
            }
        }
        Ok(())
    }

    /// Until when nothing is learned that began before, as of `now`.
    pub(crate) fn unlearned_until(&self, now: Timestamp) -> Timestamp {
        let begun = self.pauses.iter().filter(|pause| pause.since <= now);
        begun.map(|pause| pause.until).max().unwrap_or(ALL_LEARNED)
    }
}

/// Everything the scorer is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScorerConfig {
    /// Budgets of wrongful entries.
    pub budget: Budget,
    /// Leases.
    pub lease: Leases,
    /// What may be done.
    pub enforce: EnforceConfig,
    /// What may be kept.
    pub memory: MemoryConfig,
    /// Of what nothing is learned.
    pub learning: LearningConfig,
}

/// After how much event time a level may be entered on behaviour.
pub fn arms_after(level: Level) -> Span {
    match level {
        Level::Trusted | Level::Watched => Span::HOUR,
        Level::Throttled => Span::DAY,
        Level::Restricted | Level::Quarantined | Level::Revoked => Span(6 * Span::DAY.0),
    }
}

/// When a level can be armed at the earliest, for a mesh born at `birth`.
pub fn arms_at(level: Level, birth: Timestamp) -> Timestamp {
    birth + arms_after(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protected_pattern_may_have_a_star_anywhere() {
        let config = EnforceConfig::default();
        assert!(config.protects("spiffe://mesh.test/ns/istio-system/sa/istiod"));
        assert!(config.protects("spiffe://mesh.test/ns/spire-server/sa/x"));
        assert!(!config.protects("spiffe://mesh.test/ns/shop/sa/cart"));
    }

    #[test]
    fn a_length_of_time_needs_its_unit() {
        let parse = |text: &str| serde_json::from_value::<Length>(text.into()).map(|length| length.0.as_seconds());
        assert_eq!(parse("90s").ok(), Some(90.0));
        assert_eq!(parse("2d").ok(), Some(172_800.0));
        for wrong in ["90", "", "1w", "-3m", "9999d"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
