//! From verdicts to findings: each episode is told as one finding that begins, goes on and ends.

use std::collections::BTreeMap;

use qualm_model::{detector::Deviation, level::Level, time::Timestamp};
use qualm_scorer::{
    notify::{Activity, Effect, Finding, Identity, Reason},
    verdict::{Cause, Verdict},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Whether verdicts are acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Setting {
    /// They go to enforcement points.
    Live,
    /// They show what would have been.
    Backtest,
}

/// The episodes that are open. Telling the verdicts of the journal again brings it to the same state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    setting: Setting,
    open: BTreeMap<String, Open>,
}

/// What the later findings of an episode repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    uid: String,
    first_seen: Timestamp,
    threshold_bits: f64,
    rate_per_day: f64,
    reasons: Vec<Reason>,
}

impl Default for Findings {
    fn default() -> Self {
        Self::new(Setting::Live)
    }
}

impl Findings {
    /// No episode is open.
    pub(crate) fn new(setting: Setting) -> Self {
        Self { setting, open: BTreeMap::new() }
    }

    /// The finding that a verdict asks for; `None` where it only renews a lease, which is no news, and at the end of what
    /// has no known beginning. What an operator has set is no finding: whoever has set it knows.
    pub(crate) fn tell(&mut self, verdict: &Verdict) -> Option<Finding> {
        if matches!(verdict.cause, Cause::Renewed | Cause::Ordered) {
            return None;
        }
        let known = self.open.remove(&verdict.identity);
        let activity = match (&known, verdict.level) {
            (None, Level::Trusted) => return None,
            (_, Level::Trusted) => Activity::Close,
            (None, _) => Activity::Create,
            (Some(_), _) => Activity::Update,
        };
        let mut open = known.unwrap_or_else(|| Open {
            uid: uid(verdict),
            first_seen: verdict.episode.min(verdict.time),
            threshold_bits: verdict.threshold_bits,
            rate_per_day: verdict.per_day,
            reasons: Vec::new(),
        });
        if verdict.cause == Cause::Evidence {
            open.reasons = verdict.reasons.iter().map(in_words).collect();
            (open.threshold_bits, open.rate_per_day) = (verdict.threshold_bits, verdict.per_day);
        }
        let finding = self.finding(verdict, activity, &open);
        if activity != Activity::Close {
            self.open.insert(verdict.identity.clone(), open);
        }
        Some(finding)
    }

    fn finding(&self, verdict: &Verdict, activity: Activity, open: &Open) -> Finding {
        let effect = match self.setting {
            Setting::Backtest => Effect::Historic,
            Setting::Live if verdict.historic => Effect::Historic,
            Setting::Live if verdict.paused => Effect::Shadow,
            Setting::Live if verdict.enforce => Effect::Enforced,
            Setting::Live if verdict.held.is_some() => Effect::Held,
            Setting::Live => Effect::Shadow,
        };
        let next = match (self.setting, activity) {
            (Setting::Backtest, Activity::Create | Activity::Update) => {
                vec!["look at its lines in trust.jsonl, and with --scores in scores.parquet".to_owned()]
            }
            (Setting::Live, _) if verdict.cause == Cause::Lifted => {
                vec!["an operator has lifted it: `qualm explain` says who, and why".to_owned()]
            }
            _ => Vec::new(),
        };
        Finding {
            uid: open.uid.clone(),
            activity,
            identity: Identity {
                workload: verdict.subject.workload.clone(),
                ..Identity::of(&verdict.subject.principal, verdict.subject.cluster.as_deref())
            },
            instances: verdict.subject.instance.clone().into_iter().collect(),
            level: verdict.level,
            previous: verdict.previous,
            evidence_bits: verdict.evidence_bits,
            threshold_bits: open.threshold_bits,
            rate_per_day: open.rate_per_day,
            reasons: open.reasons.clone(),
            first_seen: open.first_seen,
            last_seen: verdict.time,
            decided: verdict.decided,
            lease_until: verdict.expires,
            effect,
            decision: verdict.decision.clone(),
            co_owners: verdict.co_owners.clone(),
            next,
        }
    }
}

/// A reason of the journal in the words of an alert.
pub(crate) fn in_words(reason: &qualm_scorer::verdict::Reason) -> Reason {
    // The words need what was seen and what was expected; the surprise itself is in the bits.
    let deviation = Deviation { x: 1.0, observed: reason.observed, expected: reason.expected, n: reason.n };
    let destination = (!reason.destination.is_empty()).then_some(reason.destination.as_str());
    Reason::of(reason.detector, reason.bits, &deviation, destination, reason.operation.as_deref())
}

/// Of identity and first entry: the same whenever the same events are read again. The begin of the evidence alone would
/// not do, since a lease may end, and another entry follow, before all of the evidence has decayed.
fn uid(verdict: &Verdict) -> String {
    let mut hash = Sha256::new();
    hash.update(&verdict.identity);
    hash.update([0]);
    hash.update(verdict.time.0.to_le_bytes());
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use qualm_model::{detector::Question, time::Span};
    use qualm_scorer::table::{Object, Subject};

    use super::*;

    /// A step of `cart` with the level as its decision and without an end.
    pub(crate) fn verdict(minute: i64, previous: Level, level: Level, cause: Cause) -> Verdict {
        let time = Timestamp(minute * Span::MINUTE.0);
        let reason = qualm_scorer::verdict::Reason {
            detector: Question::RarePeer,
            bits: 12.0,
            observed: 0.0,
            expected: 0.0,
            n: 100.0,
            destination: "vault".to_owned(),
            operation: None,
        };
        Verdict {
            time,
            decided: time,
            identity: "cart".to_owned(),
            namespace: None,
            subject: Subject { principal: "cart".to_owned(), cluster: None, workload: None, instance: None },
            object: Object::Any,
            level,
            previous,
            cause,
            pace: None,
            evidence_bits: 20.0,
            threshold_bits: if cause == Cause::Evidence { 15.0 } else { 0.0 },
            per_day: 0.1,
            m: 9.0,
            threshold: 8.0,
            lease: None,
            expires: None,
            decision: format!("{level}"),
            // A second burst has begun an episode of the clocks of its own while the entry still stands.
            episode: time,
            historic: false,
            enforce: true,
            held: None,
            instances: Vec::new(),
            co_owners: Vec::new(),
            reasons: if cause == Cause::Evidence { vec![reason] } else { Vec::new() },
            order: None,
            paused: false,
            grounds: None,
        }
    }

    #[test]
    fn an_episode_is_created_updated_and_closed_under_one_uid() {
        let mut findings = Findings::new(Setting::Live);
        let told: Vec<Finding> = [
            verdict(1, Level::Trusted, Level::Watched, Cause::Evidence),
            verdict(2, Level::Watched, Level::Quarantined, Cause::Evidence),
            verdict(3, Level::Quarantined, Level::Quarantined, Cause::Renewed),
            verdict(4, Level::Quarantined, Level::Trusted, Cause::Lease),
            verdict(5, Level::Trusted, Level::Watched, Cause::Evidence),
        ]
        .iter()
        .filter_map(|verdict| findings.tell(verdict))
        .collect();
        let activities: Vec<Activity> = told.iter().map(|finding| finding.activity).collect();
        assert_eq!(activities, [Activity::Create, Activity::Update, Activity::Close, Activity::Create]);
        assert!(told[..3].iter().all(|finding| finding.uid == told[0].uid) && told[3].uid != told[0].uid);
        assert_eq!((told[2].threshold_bits, told[2].reasons.len()), (15.0, 1));
        assert_eq!(told[0].effect, Effect::Enforced);
    }

    #[test]
    fn an_entry_that_the_operator_lets_act_is_an_update_with_the_reasons_it_had() {
        let mut findings = Findings::new(Setting::Live);
        let shadow = Verdict { enforce: false, ..verdict(1, Level::Trusted, Level::Quarantined, Cause::Evidence) };
        let told = findings.tell(&shadow).expect("it is new");
        assert_eq!((told.activity, told.effect), (Activity::Create, Effect::Shadow));
        let acts = verdict(2, Level::Quarantined, Level::Quarantined, Cause::Operator);
        let told = findings.tell(&acts).expect("it is news that it acts");
        assert_eq!((told.activity, told.effect, told.reasons.len()), (Activity::Update, Effect::Enforced, 1));
    }

    #[test]
    fn what_an_operator_lifts_is_closed_and_what_one_has_set_is_no_finding() {
        let mut findings = Findings::new(Setting::Live);
        assert_eq!(findings.tell(&verdict(1, Level::Trusted, Level::Quarantined, Cause::Ordered)), None);
        findings.tell(&verdict(2, Level::Trusted, Level::Quarantined, Cause::Evidence)).expect("it is new");
        assert_eq!(findings.tell(&verdict(3, Level::Quarantined, Level::Trusted, Cause::Ordered)), None);
        let told = findings.tell(&verdict(4, Level::Quarantined, Level::Trusted, Cause::Lifted)).expect("it is news");
        assert_eq!(told.activity, Activity::Close);
        assert!(told.next[0].contains("an operator has lifted it"), "{told:?}");
    }

    #[test]
    fn while_all_is_paused_a_finding_says_that_it_is_a_shadow() {
        let mut findings = Findings::new(Setting::Live);
        let paused = Verdict { paused: true, ..verdict(1, Level::Trusted, Level::Quarantined, Cause::Evidence) };
        assert_eq!(findings.tell(&paused).map(|finding| finding.effect), Some(Effect::Shadow));
    }

    #[test]
    fn a_backtest_says_what_would_have_been() {
        let mut findings = Findings::new(Setting::Backtest);
        let told = findings.tell(&verdict(1, Level::Trusted, Level::Quarantined, Cause::Evidence));
        assert_eq!(told.map(|finding| finding.effect), Some(Effect::Historic));
    }
}
