//! What happened when, for `report.html`: entries by day, evidence by hour, steps with their reasons, and the calls that
//! enforcement would have met.

use std::collections::{BTreeMap, HashMap};

use qualm_model::{
    event::Event,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    notify::Reason,
    table::Subject,
    verdict::{Cause, Verdict},
};

use super::report::{Entries, count};
use crate::finding::in_words;

/// Hours and days that are told apart: more than ten years of hours.
const MOST_HOURS: usize = 100_000;
/// Steps that are kept; of more, the number.
const MOST_STEPS: usize = 20_000;
/// Identities whose calls are counted while they stand.
const MOST_MET: usize = 10_000;

/// The highest evidence of an hour.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Peak {
    pub(super) bits: f64,
    pub(super) identity: String,
}

/// A stretch at one level.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) identity: String,
    pub(super) instance: Option<String>,
    pub(super) level: Level,
    pub(super) from: Timestamp,
    /// `None` while it stands.
    pub(super) until: Option<Timestamp>,
    pub(super) evidence_bits: f64,
    pub(super) threshold_bits: f64,
    pub(super) reasons: Vec<Reason>,
    /// Whether an attack is known that it belongs to; `None` without labels.
    pub(super) is_true: Option<bool>,
}

/// Calls made while at each level by behaviour, lowest first.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Met {
    pub(super) calls: Entries,
    /// Of these, those outside every label; all of them without labels.
    pub(super) wrongly: Entries,
}

/// An identity, or one instance of it, that stands above *trusted*.
#[derive(Debug)]
struct Standing {
    identity: String,
    subject: Subject,
    level: Level,
    step: Option<usize>,
}

/// All of it, as it comes.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    days: BTreeMap<i64, Entries>,
    hours: BTreeMap<i64, Peak>,
    /// The latest hour, and the highest evidence in it: nearly all events are no higher.
    latest: Option<(i64, f64)>,
    steps: Vec<Step>,
    more_steps: u64,
    /// By principal: every event is looked up here, and hundreds may stand at once.
    standing: HashMap<String, Vec<Standing>>,
    met: BTreeMap<String, Met>,
}

impl Chronicle {
    /// Takes in an event that was scored; `is_true` says whether it belongs to a known attack of its source.
    #[inline]
    pub(super) fn see(&mut self, event: Event<'_>, identity_bits: f64, is_true: impl FnOnce(&str, &Subject) -> bool) {
        self.note_hour(event, identity_bits);
        if !self.standing.is_empty() {
            self.note_met(event, is_true);
        }
    }

    #[inline]
    fn note_hour(&mut self, event: Event<'_>, bits: f64) {
        let hour = event.report().window(Span::HOUR);
        if self.latest.is_some_and(|(latest, highest)| hour == latest && bits <= highest) {
            return;
        }
        let is_higher = self.hours.get(&hour).map_or(self.hours.len() < MOST_HOURS, |peak| bits > peak.bits);
        if is_higher && bits.is_finite() {
            self.hours.insert(hour, Peak { bits, identity: event.source().principal().to_owned() });
            self.latest = Some((hour, bits));
        }
    }

    fn note_met(&mut self, event: Event<'_>, is_true: impl FnOnce(&str, &Subject) -> bool) {
        let source = event.source();
        let is_meant = |standing: &&Standing| {
            let Subject { principal: _, cluster, workload, instance } = &standing.subject;
            // One of several workloads that share a principal is held at its own instances alone.
            (workload.is_none() || instance.is_some())
                && cluster.as_deref().unwrap_or_default() == source.cluster()
                && instance.as_deref().is_none_or(|instance| instance == source.ip())
        };
        let Some(of) = self.standing.get(source.principal()) else { return };
        let Some(standing) = of.iter().filter(is_meant).max_by_key(|standing| standing.level) else { return };
        if self.met.len() == MOST_MET && !self.met.contains_key(&standing.identity) {
            return;
        }
        let met = self.met.entry(standing.identity.clone()).or_default();
        let is_wrong = !is_true(&standing.identity, &standing.subject);
        let place = Level::BY_BEHAVIOUR.iter().position(|level| *level == standing.level).unwrap_or_default();
        met.calls[place] += 1;
        met.wrongly[place] += u64::from(is_wrong);
    }

    /// Takes in what was decided; `is_true` as in [`see`](Self::see), `None` without labels.
    pub(super) fn decide(&mut self, verdict: &Verdict, is_true: Option<bool>) {
        if verdict.cause == Cause::Renewed || verdict.level == verdict.previous {
            return;
        }
        let before = self.standing.get_mut(&verdict.subject.principal).and_then(|of| {
            let place = of.iter().position(|standing| standing.identity == verdict.identity)?;
            of.swap_remove(place).step
        });
        if let Some(step) = before.and_then(|step| self.steps.get_mut(step)) {
            step.until = Some(verdict.decided);
        }
        if verdict.level > verdict.previous && self.days.len() < MOST_HOURS {
            count(self.days.entry(verdict.decided.window(Span::DAY)).or_default(), verdict);
        }
        if verdict.level > Level::Trusted {
            let step = self.note_step(verdict, is_true);
            let (identity, subject) = (verdict.identity.clone(), verdict.subject.clone());
            let standing = Standing { identity, subject, level: verdict.level, step };
            self.standing.entry(verdict.subject.principal.clone()).or_default().push(standing);
        }
    }

    fn note_step(&mut self, verdict: &Verdict, is_true: Option<bool>) -> Option<usize> {
        if self.steps.len() == MOST_STEPS {
            self.more_steps += 1;
            return None;
        }
        self.steps.push(Step {
            identity: verdict.identity.clone(),
            instance: verdict.subject.instance.clone(),
            level: verdict.level,
            from: verdict.decided,
            until: None,
            evidence_bits: verdict.evidence_bits,
            threshold_bits: verdict.threshold_bits,
            reasons: verdict.reasons.iter().take(4).map(in_words).collect(),
            is_true,
        });
        Some(self.steps.len() - 1)
    }

    /// Entries by day since 1970.
    pub(super) fn days(&self) -> &BTreeMap<i64, Entries> {
        &self.days
    }

    /// The highest evidence by hour since 1970.
    pub(super) fn hours(&self) -> &BTreeMap<i64, Peak> {
        &self.hours
    }

    /// The steps in their order, and how many more there were.
    pub(super) fn steps(&self) -> (&[Step], u64) {
        (&self.steps, self.more_steps)
    }

    /// Calls made by identities that stood above *trusted*.
    pub(super) fn met(&self) -> &BTreeMap<String, Met> {
        &self.met
    }
}
