//! Comings and goings of enforcement points in the journal: few records, whatever a node does.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use qualm_scorer::table::EnforcementReport;

/// One node has at most one record in this time; what it reports meanwhile is told by the next one.
const EVERY: Duration = Duration::from_secs(60);
/// All nodes together have at most so many records a second; the others wait.
const A_SECOND: u32 = 20;
/// Nodes that are told apart. Those beyond are counted, and have no record.
const NODES: usize = 40_000;

/// A report for the journal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Noted {
    pub(crate) report: EnforcementReport,
    /// Earlier reports of the same node that have no record of their own.
    pub(crate) unrecorded: u64,
}

#[derive(Debug, Default)]
struct Node {
    recorded: Option<Instant>,
    waiting: Option<Noted>,
}

/// What nodes reported, as far as it has no record yet.
#[derive(Debug)]
pub(crate) struct Connections {
    nodes: HashMap<(String, String), Node>,
    /// Since when, and how many records there were.
    second: (Instant, u32),
}

/// Whether a report shares its record with others, or has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It waits for a record.
    Waiting,
    /// It takes the place of an earlier one.
    Replaces,
    /// There are too many nodes.
    Dropped,
}

impl Connections {
    pub(crate) fn new(now: Instant) -> Self {
        Self { nodes: HashMap::new(), second: (now, 0) }
    }

    /// Takes in what a node reports.
    pub(crate) fn report(&mut self, report: &EnforcementReport) -> Taken {
        let name = (report.enforcer.clone(), report.node.clone());
        if self.nodes.len() >= NODES && !self.nodes.contains_key(&name) {
            return Taken::Dropped;
        }
        let node = self.nodes.entry(name).or_default();
        let before = node.waiting.take().map(|waiting| waiting.unrecorded + 1);
        node.waiting = Some(Noted { report: report.clone(), unrecorded: before.unwrap_or(0) });
        if before.is_some() { Taken::Replaces } else { Taken::Waiting }
    }

    /// What is to be recorded now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Noted> {
        if now - self.second.0 >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        let mut due = Vec::new();
        for node in self.nodes.values_mut() {
            if self.second.1 >= A_SECOND {
                break;
            }
            if node.recorded.is_none_or(|recorded| now - recorded >= EVERY)
                && let Some(noted) = node.waiting.take()
            {
                node.recorded = Some(now);
                self.second.1 += 1;
                due.push(noted);
            }
        }
        self.nodes
            .retain(|_, node| node.waiting.is_some() || node.recorded.is_some_and(|recorded| now - recorded < EVERY));
        due
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::time::Timestamp;
    use qualm_scorer::table::Enforcement;

    use super::*;

    fn report(node: &str, what: Enforcement) -> EnforcementReport {
        let (enforcer, node) = ("xds".to_owned(), node.to_owned());
        EnforcementReport { enforcer, node, identity: None, version: 1, at: Timestamp(0), what }
    }

    #[test]
    fn a_node_that_comes_and_goes_all_the_time_has_one_record_a_minute_with_its_last_word() {
        let start = Instant::now();
        let mut connections = Connections::new(start);
        connections.report(&report("n1", Enforcement::Connected));
        let first = connections.due(start);
        assert_eq!((first.len(), &first[0].report.what, first[0].unrecorded), (1, &Enforcement::Connected, 0));
        let mut replaced = 0;
        for _ in 0..500 {
            for what in [Enforcement::Connected, Enforcement::Disconnected] {
                replaced += u64::from(connections.report(&report("n1", what)) == Taken::Replaces);
            }
            assert_eq!(connections.due(start + Duration::from_secs(59)), []);
        }
        let later = connections.due(start + EVERY);
        assert_eq!((later.len(), &later[0].report.what), (1, &Enforcement::Disconnected));
        assert_eq!((later[0].unrecorded, replaced), (999, 999));
    }

    #[test]
    fn many_nodes_at_once_are_recorded_one_after_the_other() {
        let start = Instant::now();
        let mut connections = Connections::new(start);
        for node in 0..50 {
            connections.report(&report(&format!("n{node}"), Enforcement::Connected));
        }
        let at = |tenths: u32| start + Duration::from_millis(100) * tenths;
        let recorded: Vec<usize> = [0, 5, 10, 20, 30].map(|tenths| connections.due(at(tenths)).len()).into();
        assert_eq!(recorded, [20, 0, 20, 10, 0]);
    }
}
