//! Whether what was decided has taken effect. A push says that something was sent, an acknowledgement that it was
//! received; that an identity is contained is seen in the telemetry of the proxies alone: it is refused there, or it does
//! not call any more, and nothing that began later was served.
//!
//! A state machine without clock or network: it is told of tables, acknowledgements and calls, and of the wall time.
//!
//! # Layout
//! - this file: the cases, and what they are told; `case`: one decision, and what is known of it
//! - `node`: how far one proxy is
//! - [`timeline`]: what is told of a case to people and the journal
//!
//! **Invariant:** nobody is told to be contained while a proxy before one of its destinations has served a call of its
//! that began after that proxy acknowledged.

mod case;
mod node;
#[cfg(test)]
mod tests;
pub mod timeline;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use qualm_model::time::{Span, Timestamp};

use self::{
    case::Case,
    node::{Heard, Node},
};
pub use self::{
    node::State,
    timeline::{Moment, Timeline},
};
use crate::table::{Enforcement, EnforcementReport, Reachable, TrustTable};

/// Decisions that are followed at once; further ones are counted.
const CASES: usize = 1_024;
/// Enforcement points and reporters that are remembered.
const NODES: usize = 65_536;
/// States are worked out again no more often than this.
const EVERY: Span = Span(Span::SECOND.0 / 4);

/// One call as a proxy has told of it.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// The proxy's name for itself.
    pub reporter: &'a str,
    /// Who called.
    pub principal: &'a str,
    /// The cluster of whoever called; empty where none is named.
    pub cluster: &'a str,
    /// From where: the direct address.
    pub address: &'a str,
    /// Whom.
    pub destination: &'a str,
    /// What for, as method and folded path; empty for a connection.
    pub operation: &'a str,
    /// The decision by which Qualm's own filter refused it; empty where it did not.
    pub decision: &'a str,
    /// What became of it.
    pub outcome: Outcome,
    /// When it began, by the proxy's clock.
    pub began: Timestamp,
    /// When it was told of, by the proxy's clock.
    pub reported: Timestamp,
    /// When that arrived, wall time.
    pub arrived: Timestamp,
}

/// What became of a call, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was served, be it with an error.
    Served,
    /// Somebody refused it.
    Refused,
    /// It goes on.
    Open,
}

/// All decisions that act, and what has come of them.
#[derive(Debug, Default)]
pub struct Containment {
    cases: BTreeMap<String, Case>,
    /// Decisions by the principal they are about.
    of: HashMap<String, Vec<String>>,
    nodes: BTreeMap<String, Node>,
    heard: HashMap<String, Heard>,
    reachable: Reachable,
    evaluated: Option<Timestamp>,
    /// What a process before this one has told of decisions, until the first table.
    before: BTreeMap<String, Timeline>,
    /// Decisions that are not followed for want of room.
    beyond: u64,
}

impl Containment {
    /// Goes on where a process before this one was, by the latest that it has told of each decision.
    pub fn resumed(told: impl IntoIterator<Item = Timeline>) -> Self {
        let before = told.into_iter().map(|timeline| (timeline.decision.clone(), timeline)).collect();
        Self { before, ..Self::default() }
    }

    /// Takes in a table that goes out at `wall`: what acts in it is a case from now on, what does not any more has ended.
    pub fn push(&mut self, table: &TrustTable, wall: Timestamp) -> Vec<Timeline> {
        let acting = table.entries.iter().filter(|entry| entry.enforce && entry.level.limits() && entry.expires > wall);
        let acting: BTreeMap<&str, _> = acting.map(|entry| (entry.decision.as_str(), entry)).collect();
        self.reachable.clone_from(&table.reachable);
        let ended = self.cases.extract_if(.., |decision, _| !acting.contains_key(decision.as_str()));
        let ended: Vec<Case> = ended.map(|(_, case)| case).collect();
        for (decision, entry) in acting {
            if self.cases.contains_key(decision) {
                continue;
            }
            if self.cases.len() >= CASES {
                self.beyond += 1;
                continue;
            }
            let mut case = Case::new(entry, table.version, wall);
            if let Some(before) = self.before.get(decision) {
                case.resume(before);
            }
            self.cases.insert(decision.to_owned(), case);
        }
        // What does not stand any more has ended.
        self.before.clear();
        self.of.clear();
        for (decision, case) in &self.cases {
            self.of.entry(case.subject.principal.clone()).or_default().push(decision.clone());
        }
        ended.iter().map(|case| case.timeline(Moment::Ended, (&self.nodes, &self.heard), wall)).collect()
    }

    /// Says which event has led to a decision, where it was one: when it was written, event time.
    pub fn caused(&mut self, decision: &str, event: Timestamp) {
        if let Some(case) = self.cases.get_mut(decision) {
            case.event.get_or_insert(event);
        }
    }

    /// Takes in what an enforcement point of Envoy's kind has said.
    pub fn report(&mut self, report: &EnforcementReport) {
        if self.nodes.len() >= NODES && !self.nodes.contains_key(&report.node) {
            self.nodes.retain(|_, node| node.connected);
            if self.nodes.len() >= NODES {
                return;
            }
        }
        let node = self.nodes.entry(report.node.clone()).or_default();
        node.identity = report.identity.as_ref().map(|identity| identity.as_str().to_owned());
        node.connected = report.what != Enforcement::Disconnected;
        match report.what {
            Enforcement::Acknowledged => {
                for case in self.cases.values_mut().filter(|case| report.version >= case.version) {
                    case.acknowledged(&report.node, report.at);
                }
            }
            // What it held when it went is not known when it comes.
            Enforcement::Connected => self.cases.values_mut().for_each(|case| case.forget(&report.node)),
            Enforcement::Disconnected | Enforcement::Rejected(_) => {}
        }
    }

    /// Whether anything is followed: where nothing is, calls need not be told.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.cases.is_empty()
    }

    /// Whether an enforcement point of this identity is connected.
    pub fn enforces_before(&self, identity: &str) -> bool {
        self.nodes.values().any(|node| node.connected && node.identity.as_deref() == Some(identity))
    }

    /// Takes in a call.
    pub fn see(&mut self, sighting: &Sighting<'_>) {
        let began = self.hear(sighting);
        if let Some(case) = self.cases.get_mut(sighting.decision).filter(|_| !sighting.decision.is_empty()) {
            return case.denied(sighting, began);
        }
        let Some(decisions) = self.of.get(sighting.principal) else { return };
        for decision in decisions {
            let Some(case) = self.cases.get_mut(decision).filter(|case| case.is_about(sighting)) else { continue };
            case.passed(sighting, began, &self.reachable);
        }
    }

    /// Notes how far a reporter's telemetry has come; when the call began, as far as its clock can be believed.
    fn hear(&mut self, sighting: &Sighting<'_>) -> Timestamp {
        if self.heard.len() >= NODES && !self.heard.contains_key(sighting.reporter) {
            return sighting.began;
        }
        let heard = match self.heard.get_mut(sighting.reporter) {
            Some(heard) => heard,
            None => self.heard.entry(sighting.reporter.to_owned()).or_default(),
        };
        heard.note(sighting.reported, sighting.arrived);
        sighting.began - heard.ahead()
    }

    /// Works out where each case stands at `wall`; what has changed of those that people are to hear of.
    pub fn tick(&mut self, wall: Timestamp) -> Vec<Timeline> {
        if self.evaluated.is_some_and(|last| (Span(0)..EVERY).contains(&(wall - last))) {
            return Vec::new();
        }
        self.evaluated = Some(wall);
        let Self { cases, nodes, heard, .. } = self;
        let news = cases.values_mut().filter_map(|case| {
            let moment = case.settle((nodes, heard), wall)?;
            Some(case.timeline(moment, (nodes, heard), wall))
        });
        let news = news.collect();
        // Who has been heard in the last day only.
        if heard.len() >= NODES / 2 {
            heard.retain(|_, of| wall - of.last_arrival() <= Span::DAY);
        }
        news
    }

    /// Where every case stands, as it was last worked out.
    pub fn timelines(&self, wall: Timestamp) -> Vec<Timeline> {
        let standing = self.cases.values();
        standing.map(|case| case.timeline(Moment::Standing, (&self.nodes, &self.heard), wall)).collect()
    }

    /// Decisions at which a call was served although its proxy had acknowledged that it should not be.
    pub fn leaking(&self) -> BTreeSet<String> {
        self.cases.values().filter(|case| case.is_escalated).map(|case| case.decision.clone()).collect()
    }

    /// How many cases stand where, and how many calls were served so far that should not have been.
    pub fn counts(&self) -> (BTreeMap<State, usize>, u64) {
        let mut states = BTreeMap::new();
        self.cases.values().for_each(|case| *states.entry(case.state).or_default() += 1);
        (states, self.beyond)
    }
}
