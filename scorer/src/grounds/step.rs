//! From grounds to the verdict, and to nothing else.

use std::net::IpAddr;

use qualm_model::{
    evidence::{EValues, Habit, Pace},
    level::Level,
    time::Timestamp,
};

use super::{Grounds, Of, Step, Track, Weighed, Who};
use crate::{
    config::Mode,
    guard::Withheld,
    mesh::shown,
    papers::invariant,
    scoring::lifted,
    standing::{Reached, Reading, Standing, reached},
    table::{Object, Subject},
    verdict::{Cause, Reason, Verdict, decision_id},
};

/// Share of the evidence that one instance must have for the entry to be about it alone.
pub(crate) const NARROW_SHARE: f64 = 0.8;

impl Grounds {
    /// The decision that follows; `None` where the grounds lead to none.
    pub fn verdict(&self) -> Option<Verdict> {
        match (&self.step, &self.before) {
            (Step::Reached(weighed), _) => self.entered(weighed),
            (Step::LeaseEnded, Some(before)) => Some(self.lease_ended(before)),
            (Step::Mandate { cause, held, held_by }, Some(before)) => {
                Some(Verdict { held: held.clone(), held_by: *held_by, ..self.mandated(before, *cause) })
            }
            (_, None) => None,
        }
    }

    /// The clock, the evidence and the threshold by which it is decided, and the level that they lead to; `None` where
    /// the grounds lead to no decision.
    pub(crate) fn weigh(&self) -> Option<Reached> {
        let before = self.before.as_ref();
        match &self.step {
            Step::Reached(weighed) => self.weigh_event(weighed),
            Step::LeaseEnded => {
                let before = before?;
                let reading = self.reading_for(before);
                let is_observed = before.historic || !self.is_historic();
                let level = if is_observed { before.supported(&self.thresholds, reading) } else { Level::Trusted };
                Some(told(level, reading))
            }
            Step::Mandate { .. } => before.map(|before| told(before.level, self.reading_for(before))),
        }
    }

    fn weigh_event(&self, weighed: &Weighed) -> Option<Reached> {
        let claimed_only = weighed.most <= Level::Watched;
        let track = if claimed_only { self.claimed.as_ref() } else { self.own.as_ref() }?;
        let bits = weighed.bits();
        // The event is in its minute, which is as odd as its best.
        if track.evidence.best().is_none_or(|best| best < bits) {
            return None;
        }
        let only_more = weighed.of == Of::Event
            && weighed.most >= Level::Quarantined
            && self.own.as_ref().is_some_and(|own| !self.is_of_another_kind(own));
        let most = if only_more { Level::Restricted } else { weighed.most };
        let by_evidence = || reached(&self.thresholds, track.reading(self.now), most, 1.0);
        let by_evidence = if weighed.has_moved { by_evidence() } else { None };
        invariant(&self.thresholds, weighed.invariant, by_evidence)
    }

    /// Whether it is against the identity for another kind than more of the same, in the main.
    fn is_of_another_kind(&self, own: &Track) -> bool {
        match &self.other {
            Some(other) => other.is_main(own.evidence.slow_before(self.now), own.reading(self.now).slow),
            None => own.evidence.showed_another_kind(),
        }
    }

    /// Evidence that bears on an entry: claims that may not lead further count for *watched* only.
    fn reading_for(&self, before: &Standing) -> Reading {
        let of = |track: &Option<Track>| track.as_ref().map_or_else(Reading::default, |track| track.reading(self.now));
        let (own, claimed) = (of(&self.own), of(&self.claimed));
        if before.level != Level::Watched {
            return own;
        }
        Reading { fast: own.fast.max(claimed.fast), slow: own.slow.max(claimed.slow) }
    }

    /// Whether records carried it that may lead to *watched* only; `None` where no event did.
    pub(crate) fn is_claimed(&self) -> Option<bool> {
        match &self.step {
            Step::Reached(weighed) => Some(weighed.most <= Level::Watched),
            Step::LeaseEnded | Step::Mandate { .. } => None,
        }
    }

    fn is_historic(&self) -> bool {
        self.wall - self.now > self.policy.max_age
    }

    /// The begin of the episode that a step up belongs to: every step of one episode bears it, so that they are one
    /// alert.
    pub(crate) fn episode(&self) -> Timestamp {
        let begun = || self.own.as_ref().and_then(|own| own.evidence.episode_since()).unwrap_or(self.now);
        self.before.as_ref().map_or_else(begun, |before| before.episode)
    }

    fn entered(&self, weighed: &Weighed) -> Option<Verdict> {
        let reached = self.weigh_event(weighed)?;
        let historic = self.is_historic();
        // For today's enforcement points history is no level.
        let previous = self.before.as_ref().filter(|before| before.historic == historic);
        let subject = self.who.subject();
        let is_enforceable = subject.instance.is_some() || !self.who.is_shared;
        let is_denied = self.before.as_ref().is_some_and(Standing::denies);
        let held = self.policy.withheld(reached.level, is_denied).filter(|_| is_enforceable);
        let (episode, lease) = (self.episode(), self.policy.lease.of(reached.level));
        Some(Verdict {
            level: reached.level,
            previous: previous.map_or(Level::Trusted, |before| before.level),
            cause: Cause::Evidence,
            pace: Some(reached.pace),
            threshold_bits: shown(self.identities, self.rate.of_threshold),
            lease: Some(lease),
            // What is decided on history has no lease: it stands in event time until then, for calibration only.
            expires: Some(if historic { self.now + lease } else { self.wall + lease }),
            decision: decision_id(&subject, reached.level, episode, self.ordinal),
            episode,
            historic,
            enforce: self.policy.mode == Mode::Enforce && held.is_none() && is_enforceable,
            held_by: held.as_ref().map(|held| held.by),
            held: held.map(|held| held.why),
            reasons: weighed.reasons(),
            ..self.told(subject, reached)
        })
    }

    fn lease_ended(&self, before: &Standing) -> Verdict {
        let reached = self.weigh().unwrap_or_else(|| told(Level::Trusted, Reading::default()));
        let subject = self.who.as_before(before);
        let lease = (reached.level > Level::Trusted).then(|| self.policy.lease.of(reached.level));
        let held: Option<Withheld> = if before.held { self.policy.withheld(reached.level, false) } else { None };
        let is_new = reached.level != before.level && reached.level > Level::Trusted;
        let decision = if is_new {
            decision_id(&subject, reached.level, before.episode, self.ordinal)
        } else {
            before.decision.clone()
        };
        Verdict {
            level: reached.level,
            previous: before.level,
            cause: if reached.level == before.level { Cause::Renewed } else { Cause::Lease },
            lease,
            expires: lease.map(|lease| self.wall + lease),
            decision,
            episode: before.episode,
            historic: before.historic,
            enforce: before.enforce && held.is_none(),
            held_by: held.as_ref().map(|held| held.by),
            held: held.map(|held| held.why),
            ..self.told(subject, reached)
        }
    }

    fn mandated(&self, before: &Standing, cause: Cause) -> Verdict {
        Verdict {
            level: before.level,
            previous: before.level,
            cause,
            lease: Some(before.expires - self.wall),
            expires: Some(before.expires),
            decision: before.decision.clone(),
            episode: before.episode,
            enforce: before.enforce && !before.held,
            ..self.told(self.who.as_before(before), told(before.level, self.reading_for(before)))
        }
    }

    /// A verdict that says how strong the evidence is, before it says what follows.
    fn told(&self, subject: Subject, reached: Reached) -> Verdict {
        Verdict {
            time: self.now,
            decided: self.wall,
            identity: subject.identity(),
            namespace: self.who.namespace.clone(),
            subject,
            object: Object::Any,
            level: Level::Trusted,
            previous: Level::Trusted,
            cause: Cause::Lease,
            pace: None,
            evidence_bits: shown(self.identities, self.rate.of_evidence),
            threshold_bits: 0.0,
            per_day: self.rate.of_evidence,
            m: reached.m,
            threshold: reached.threshold,
            lease: None,
            expires: None,
            decision: String::new(),
            episode: self.now,
            historic: false,
            enforce: false,
            held: None,
            held_by: None,
            dependants: None,
            instances: self.who.live(),
            co_owners: self.who.co_owners.clone(),
            reasons: Vec::new(),
            carried_by: Vec::new(),
            announced: None,
            incident: None,
            order: None,
            paused: self.policy.is_paused,
            grounds: None,
        }
    }
}

/// The stronger of both clocks, beside a level that no threshold has led to now.
fn told(level: Level, reading: Reading) -> Reached {
    let pace = if reading.slow >= reading.fast { Pace::Slow } else { Pace::Fast };
    Reached { level, pace, m: reading.slow.max(reading.fast), threshold: 0.0 }
}

impl Track {
    fn reading(&self, now: Timestamp) -> Reading {
        self.evidence.reading_by(now, |_| self.e)
    }
}

impl Weighed {
    fn values(&self) -> EValues {
        let mut values = EValues::default();
        self.answers.iter().for_each(|(question, e)| values.set(*question, *e));
        values
    }

    /// Its bits as they count.
    fn bits(&self) -> f64 {
        match self.of {
            Of::Event => lifted(Habit::less(self.values().bits(), self.habit), self.context),
            Of::Absence => self.values().bits_of_absence(),
        }
    }

    /// The reasons with their bits, which follow from the answers.
    fn reasons(&self) -> Vec<Reason> {
        let values = self.values();
        let bits = |reason: &Reason| match self.of {
            Of::Event => values.answer(reason.detector).map_or(0.0, libm::log2),
            Of::Absence => values.bits_of_absence(),
        };
        self.reasons.iter().map(|reason| Reason { bits: bits(reason), ..reason.clone() }).collect()
    }
}

impl Who {
    /// Whom an entry is about: one instance where nearly all of the evidence comes from it and others are live, of the
    /// same identity or of those who share the principal.
    pub(super) fn subject(&self) -> Subject {
        let live = self.instances.iter().filter(|seen| seen.is_live).count();
        let total: f64 = self.instances.iter().map(|seen| seen.odds).sum();
        let odd = self.instances.iter().find(|seen| seen.odds >= NARROW_SHARE * total && total > 0.0);
        let has_others = live >= 2 || self.is_shared;
        // Where no address is known, a name stands in its place, by which nobody can be told from those who share it.
        let is_place = |place: &String| !self.is_shared || place.parse::<IpAddr>().is_ok();
        Subject {
            principal: self.principal.clone(),
            cluster: self.cluster.clone(),
            workload: self.workload.clone(),
            instance: odd.filter(|_| has_others).map(|odd| odd.address.clone()).filter(is_place),
        }
    }

    /// Whom what stood is about.
    pub(super) fn as_before(&self, before: &Standing) -> Subject {
        Subject { workload: self.workload.clone(), ..before.subject.clone() }
    }

    /// Addresses of those that are live, in order.
    fn live(&self) -> Vec<String> {
        let live = self.instances.iter().filter(|seen| seen.is_live);
        let mut live: Vec<String> = live.map(|seen| seen.address.clone()).collect();
        live.sort_unstable();
        live
    }
}
