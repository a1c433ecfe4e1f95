//! From verdicts to findings: each incident is told as one finding that begins, goes on and ends. Most are one episode.

use std::collections::BTreeMap;

use qualm_model::{detector::Deviation, level::Level, time::Timestamp};
use qualm_scorer::{
    carriers::Carrier,
    containment::{State, Timeline},
    incidents::{Shared, episode_id},
    notify::{Activity, Effect, Finding, Identity, Member, Reason},
    verdict::{Cause, Verdict},
};
use serde::{Deserialize, Serialize};

/// Whether verdicts are acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Setting {
    /// They go to enforcement points.
    Live,
    /// They show what would have been.
    Backtest,
}

/// The alerts that are open: one an incident, which most of the time is one episode. Telling the verdicts of the journal
/// again brings it to the same state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    setting: Setting,
    open: BTreeMap<String, Open>,
    /// The id of the alert that an identity's episode belongs to.
    of: BTreeMap<String, String>,
    /// The latest finding of each alert that is open, since the start.
    #[serde(skip)]
    latest: BTreeMap<String, Finding>,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    first_seen: Timestamp,
    shared: Option<Shared>,
    /// The level that was told last: the highest of its episodes.
    level: Level,
    /// By identity.
    episodes: BTreeMap<String, Episode>,
}

/// The latest of one episode: what later findings repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Episode {
    identity: Identity,
    instances: Vec<String>,
    since: Timestamp,
    level: Level,
    evidence_bits: f64,
    threshold_bits: f64,
    rate_per_day: f64,
    reasons: Vec<Reason>,
    lease_until: Option<Timestamp>,
    effect: Effect,
    decision: String,
    co_owners: Vec<String>,
    carried_by: Vec<Carrier>,
}

impl Default for Findings {
    fn default() -> Self {
        Self::new(Setting::Live)
    }
}

impl Findings {
    /// No episode is open.
    pub(crate) fn new(setting: Setting) -> Self {
        Self { setting, open: BTreeMap::new(), of: BTreeMap::new(), latest: BTreeMap::new() }
    }

    /// The finding that a verdict asks for; `None` where it only renews a lease, which is no news, at the end of what has
    /// no known beginning, and where one of several episodes ends that are lower than another. What an operator has set is
    /// no finding: whoever has set it knows.
    pub(crate) fn tell(&mut self, verdict: &Verdict) -> Option<Finding> {
        if matches!(verdict.cause, Cause::Renewed | Cause::Ordered) {
            return None;
        }
        if verdict.level == Level::Trusted {
            return self.end(verdict);
        }
        let effect = self.effect(verdict);
        let uid = self.of.get(&verdict.identity).cloned().unwrap_or_else(|| uid(verdict));
        let (activity, previous) = match self.open.get(&uid) {
            Some(open) => (Activity::Update, open.level),
            None => (Activity::Create, verdict.previous),
        };
        self.of.insert(verdict.identity.clone(), uid.clone());
        let incident = verdict.incident.as_ref();
        let open = self.open.entry(uid.clone()).or_insert_with(|| Open {
            first_seen: incident.map_or(verdict.time, |of| of.since).min(verdict.episode).min(verdict.time),
            shared: None,
            level: verdict.level,
            episodes: BTreeMap::new(),
        });
        let shared = incident.and_then(|of| of.shared.clone());
        open.shared = shared.or(open.shared.take());
        let known = open.episodes.remove(&verdict.identity);
        open.episodes.insert(verdict.identity.clone(), Episode::after(verdict, known.as_ref(), effect));
        let lead = open.lead()?.clone();
        open.level = lead.level;
        let finding = self.finding(verdict, (uid, activity), previous, &lead);
        self.keep(&finding);
        Some(finding)
    }

    fn keep(&mut self, finding: &Finding) {
        if self.setting == Setting::Live {
            self.latest.insert(finding.uid.clone(), finding.clone());
        }
    }

    /// The end of an episode: of the alert too, where it was the last one.
    fn end(&mut self, verdict: &Verdict) -> Option<Finding> {
        let effect = self.effect(verdict);
        let uid = self.of.remove(&verdict.identity)?;
        let open = self.open.get_mut(&uid)?;
        let known = open.episodes.remove(&verdict.identity);
        let ended = Episode::after(verdict, known.as_ref(), effect);
        open.episodes.insert(verdict.identity.clone(), ended.clone());
        let previous = open.level;
        let lead = open.lead().cloned();
        if lead.as_ref().is_some_and(|lead| lead.level == previous) {
            return None;
        }
        open.level = lead.as_ref().map_or(Level::Trusted, |lead| lead.level);
        let activity = if lead.is_some() { Activity::Update } else { Activity::Close };
        let finding = self.finding(verdict, (uid.clone(), activity), previous, lead.as_ref().unwrap_or(&ended));
        if activity == Activity::Close {
            self.open.remove(&uid);
            self.latest.remove(&uid);
        } else {
            self.keep(&finding);
        }
        Some(finding)
    }

    /// That a decision is not proven to hold, as news of its alert; `None` where its episode is not open.
    pub(crate) fn not_contained(&self, timeline: &Timeline) -> Option<Finding> {
        let uid = self.of.get(&timeline.identity)?;
        let episode = self.open.get(uid)?.episodes.get(&timeline.identity)?;
        let latest = self.latest.get(uid).filter(|_| episode.decision == timeline.decision)?;
        let at = if timeline.worst.is_empty() { "the proxies".to_owned() } else { timeline.worst.join(", ") };
        let next = match timeline.state {
            State::Leaking => format!(
                "cut it off by other means: {at} served {} of its calls that began after the decision",
                timeline.served
            ),
            _ => format!("look at {at}: for a minute nothing has shown that the decision holds there"),
        };
        let next = vec![next, "run `qualm explain`: it says what is not cut, and what happened when".to_owned()];
        let decision = timeline.decision.clone();
        Some(Finding { activity: Activity::Update, decision, decided: timeline.at, next, ..latest.clone() })
    }

    fn effect(&self, verdict: &Verdict) -> Effect {
        match self.setting {
            Setting::Backtest => Effect::Historic,
            Setting::Live if verdict.historic => Effect::Historic,
            Setting::Live if verdict.paused => Effect::Shadow,
            Setting::Live if verdict.enforce => Effect::Enforced,
            Setting::Live if verdict.held_by.is_some_and(|by| by.instead().is_some()) => Effect::Limited,
            Setting::Live if verdict.held.is_some() => Effect::Held,
            Setting::Live => Effect::Shadow,
        }
    }

    /// The alert `uid` as it stands after a verdict, told of the episode that leads it.
    fn finding(
        &self,
        verdict: &Verdict,
        (uid, activity): (String, Activity),
        previous: Level,
        lead: &Episode,
    ) -> Finding {
        let next = match (self.setting, activity) {
            (Setting::Backtest, Activity::Create | Activity::Update) => {
                vec!["look at its lines in trust.jsonl, and with --scores in scores.parquet".to_owned()]
            }
            (Setting::Live, _) if verdict.cause == Cause::Lifted => {
                vec!["an operator has lifted it: `qualm explain` says who, and why".to_owned()]
            }
            _ => Vec::new(),
        };
        let open = self.open.get(&uid);
        let members = open.filter(|open| open.episodes.len() > 1).map(Open::members).unwrap_or_default();
        let Episode {
            identity,
            instances,
            level,
            evidence_bits,
            threshold_bits,
            rate_per_day,
            reasons,
            lease_until,
            effect,
            decision,
            co_owners,
            carried_by,
            ..
        } = lead.clone();
        Finding {
            uid,
            activity,
            identity,
            instances,
            level,
            previous,
            evidence_bits,
            threshold_bits,
            rate_per_day,
            reasons,
            first_seen: open.map_or(verdict.time, |open| open.first_seen),
            last_seen: verdict.time,
            decided: verdict.decided,
            lease_until,
            effect,
            decision,
            co_owners,
            carried_by,
            shared: open.and_then(|open| open.shared.clone()).filter(|_| !members.is_empty()),
            members,
            next,
        }
    }
}

impl Open {
    /// The episode that says most: of the highest level, with the most evidence; the first by name of several. `None` where
    /// all have ended.
    fn lead(&self) -> Option<&Episode> {
        let standing = self.episodes.values().filter(|episode| episode.level > Level::Trusted);
        standing.reduce(|best, other| {
            let is_more = other.level.cmp(&best.level).then(other.evidence_bits.total_cmp(&best.evidence_bits)).is_gt();
            if is_more { other } else { best }
        })
    }

    fn members(&self) -> Vec<Member> {
        let member = |episode: &Episode| Member {
            identity: episode.identity.clone(),
            level: episode.level,
            evidence_bits: episode.evidence_bits,
            since: episode.since,
            decision: episode.decision.clone(),
            observed: episode.reasons.first().map(|reason| reason.observed.clone()).unwrap_or_default(),
        };
        let mut members: Vec<Member> = self.episodes.values().map(member).collect();
        members.sort_by(|a, b| b.level.cmp(&a.level).then(b.evidence_bits.total_cmp(&a.evidence_bits)));
        members
    }
}

impl Episode {
    /// An episode after one more verdict.
    fn after(verdict: &Verdict, known: Option<&Self>, effect: Effect) -> Self {
        let is_evidence = verdict.cause == Cause::Evidence;
        let before = known.filter(|_| !is_evidence);
        let reasons = || verdict.reasons.iter().map(in_words).collect();
        Self {
            identity: Identity {
                workload: verdict.subject.workload.clone(),
                ..Identity::of(&verdict.subject.principal, verdict.subject.cluster.as_deref())
            },
            instances: verdict.subject.instance.clone().into_iter().collect(),
            since: known.map_or(verdict.time, |known| known.since),
            level: verdict.level,
            evidence_bits: verdict.evidence_bits,
            threshold_bits: before.map_or(verdict.threshold_bits, |known| known.threshold_bits),
            rate_per_day: before.map_or(verdict.per_day, |known| known.rate_per_day),
            reasons: match before {
                Some(known) => known.reasons.clone(),
                None if is_evidence => reasons(),
                None => Vec::new(),
            },
            lease_until: verdict.expires,
            effect,
            decision: verdict.decision.clone(),
            co_owners: verdict.co_owners.clone(),
            carried_by: match before {
                Some(known) => known.carried_by.clone(),
                None => verdict.carried_by.clone(),
            },
        }
    }
}

/// A reason of the journal in the words of an alert.
pub(crate) fn in_words(reason: &qualm_scorer::verdict::Reason) -> Reason {
    // The words need what was seen and what was expected; the surprise itself is in the bits.
    let deviation = Deviation { x: 1.0, observed: reason.observed, expected: reason.expected, n: reason.n };
    let destination = (!reason.destination.is_empty()).then_some(reason.destination.as_str());
    let about = (destination, reason.operation.as_deref());
    Reason::of(reason.detector, reason.bits, (&deviation, reason.usual), reason.familiar, about)
}

/// The alert that a verdict begins or joins: that of its incident, or of its episode where the journal is of a release that
/// knew no incidents.
fn uid(verdict: &Verdict) -> String {
    verdict.incident.as_ref().map_or_else(|| episode_id(&verdict.identity, verdict.time), |of| of.id.clone())
}

#[cfg(test)]
pub(crate) mod tests {
    use qualm_model::{detector::Question, time::Span};
    use qualm_scorer::{
        incidents::Incident,
        table::{Object, Subject},
    };

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
            usual: None,
            familiar: None,
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
            held_by: None,
            dependants: None,
            instances: Vec::new(),
            co_owners: Vec::new(),
            reasons: if cause == Cause::Evidence { vec![reason] } else { Vec::new() },
            carried_by: Vec::new(),
            announced: None,
            incident: None,
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

    /// A step of `identity`, of the incident that began with `cart`.
    fn of_incident(identity: &str, step: Verdict) -> Verdict {
        let incident = Incident {
            id: episode_id("cart", Timestamp(Span::MINUTE.0)),
            since: Timestamp(Span::MINUTE.0),
            shared: (identity != "cart").then(|| Shared::NewPeer("vault".to_owned())),
        };
        Verdict {
            identity: identity.to_owned(),
            subject: Subject { principal: identity.to_owned(), ..step.subject.clone() },
            incident: (step.previous == Level::Trusted).then_some(incident),
            ..step
        }
    }

    #[test]
    fn an_incident_is_one_alert_that_takes_in_who_joins_and_is_closed_with_the_last() {
        let mut findings = Findings::new(Setting::Live);
        let mut tell = |identity, step| findings.tell(&of_incident(identity, step));
        let first = tell("cart", verdict(1, Level::Trusted, Level::Watched, Cause::Evidence)).expect("it is new");
        assert_eq!((first.activity, first.members.len()), (Activity::Create, 0));
        let second = tell("mail", verdict(3, Level::Trusted, Level::Throttled, Cause::Evidence)).expect("news");
        assert_eq!((second.activity, &second.uid), (Activity::Update, &first.uid));
        assert_eq!(
            (second.identity.principal.as_str(), second.level, second.previous),
            ("mail", Level::Throttled, Level::Watched)
        );
        assert_eq!(second.shared, Some(Shared::NewPeer("vault".to_owned())));
        let names: Vec<&str> = second.members.iter().map(|member| member.identity.principal.as_str()).collect();
        assert_eq!(names, ["mail", "cart"], "the highest first");
        assert_eq!(
            tell("cart", verdict(9, Level::Watched, Level::Trusted, Cause::Lease)),
            None,
            "the higher one stands"
        );
        let last = tell("mail", verdict(11, Level::Throttled, Level::Trusted, Cause::Lease)).expect("news");
        assert_eq!((last.activity, &last.uid, last.level), (Activity::Close, &first.uid, Level::Trusted));
        let anew = tell("cart", verdict(30, Level::Trusted, Level::Watched, Cause::Evidence));
        assert!(anew.is_some());
    }

    #[test]
    fn when_the_highest_of_an_incident_recovers_the_alert_is_lowered() {
        let mut findings = Findings::new(Setting::Live);
        let mut tell = |identity, step| findings.tell(&of_incident(identity, step));
        tell("cart", verdict(1, Level::Trusted, Level::Watched, Cause::Evidence));
        tell("mail", verdict(3, Level::Trusted, Level::Quarantined, Cause::Evidence));
        let told = tell("mail", verdict(5, Level::Quarantined, Level::Trusted, Cause::Lease)).expect("news");
        assert_eq!((told.activity, told.level, told.previous), (Activity::Update, Level::Watched, Level::Quarantined));
        assert_eq!(told.identity.principal, "cart");
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
