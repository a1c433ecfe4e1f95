//! Acknowledgements of enforcement points on their way to the journal: which node held which version of the table, and
//! since when. A few records, however many nodes there are.

use std::collections::HashMap;

use qualm_model::time::Timestamp;
use qualm_scorer::table::EnforcementReport;
use serde::Serialize;

/// Acknowledgements in one record; there is one record a turn of the loop's clock at most.
const A_RECORD: usize = 256;
/// Those that wait. Beyond, they are counted, and have no record.
const WAITING: usize = 4_096;
/// Nodes whose latest version is known, so that a repetition is no news.
const NODES: usize = 40_000;

/// That a node holds a version of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Acknowledged {
    /// Kind of enforcement point: `xds`, `trust-stream`.
    pub(crate) enforcer: String,
    /// The node's own name for itself.
    pub(crate) node: String,
    /// Its verified SPIFFE ID, where the connection had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    /// The version: the number of the journal's record that it goes back to.
    pub(crate) version: u64,
    /// When it said so, wall time.
    pub(crate) at: Timestamp,
}

/// Those that have no record yet.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    waiting: Vec<Acknowledged>,
    /// The latest version of each node.
    known: HashMap<(String, String), u64>,
    /// Since the last record, those that have none.
    unrecorded: u64,
}

impl Acknowledgements {
    /// Takes in what a node has acknowledged; whether it is to have a record.
    pub(crate) fn take(&mut self, report: &EnforcementReport) -> bool {
        let name = (report.enforcer.clone(), report.node.clone());
        // The version that it has acknowledged already comes again with each heartbeat.
        if self.known.get(&name).is_some_and(|version| *version == report.version) {
            return true;
        }
        if self.waiting.len() >= WAITING || (self.known.len() >= NODES && !self.known.contains_key(&name)) {
            self.unrecorded += 1;
            return false;
        }
        self.known.insert(name, report.version);
        self.waiting.push(Acknowledged {
            enforcer: report.enforcer.clone(),
            node: report.node.clone(),
            identity: report.identity.as_ref().map(ToString::to_string),
            version: report.version,
            at: report.at,
        });
        true
    }

    /// A node has gone: when it comes back, what it acknowledges is news.
    pub(crate) fn gone(&mut self, report: &EnforcementReport) {
        self.known.remove(&(report.enforcer.clone(), report.node.clone()));
    }

    /// Those of the next record, and how many before them have none.
    pub(crate) fn due(&mut self) -> Option<(Vec<Acknowledged>, u64)> {
        if self.waiting.is_empty() {
            return None;
        }
        let of_record = self.waiting.drain(..self.waiting.len().min(A_RECORD)).collect();
        Some((of_record, std::mem::take(&mut self.unrecorded)))
    }
}

#[cfg(test)]
mod tests {
    use qualm_scorer::table::Enforcement;

    use super::*;

    fn acknowledgement(node: usize, version: u64) -> EnforcementReport {
        let node = format!("n{node}");
        let (enforcer, what) = ("xds".to_owned(), Enforcement::Acknowledged);
        EnforcementReport { enforcer, node, identity: None, version, at: Timestamp(version as i64), what }
    }

    #[test]
    fn each_node_s_acknowledgement_of_each_version_is_in_a_record_once() {
        let mut waiting = Acknowledgements::default();
        for (node, version) in [(1, 7), (2, 7), (1, 7), (1, 8), (1, 8)] {
            assert!(waiting.take(&acknowledgement(node, version)));
        }
        let (of_record, unrecorded) = waiting.due().expect("news");
        let told: Vec<_> = of_record.iter().map(|of| (of.node.as_str(), of.version)).collect();
        assert_eq!((told, unrecorded), (vec![("n1", 7), ("n2", 7), ("n1", 8)], 0));
        assert_eq!(waiting.due(), None);
        waiting.gone(&acknowledgement(1, 8));
        waiting.take(&acknowledgement(1, 8));
        assert!(waiting.due().is_some(), "who comes back says it anew");
    }

    #[test]
    fn more_than_there_is_room_for_is_counted_in_the_next_record() {
        let mut waiting = Acknowledgements::default();
        let taken = (0..WAITING + 10).filter(|node| waiting.take(&acknowledgement(*node, 1))).count();
        assert_eq!(taken, WAITING);
        let records: Vec<_> = std::iter::from_fn(|| waiting.due()).collect();
        assert_eq!(records.iter().map(|(of, _)| of.len()).sum::<usize>(), WAITING);
        assert!(records.iter().all(|(of, _)| of.len() <= A_RECORD));
        assert_eq!(records.iter().map(|(_, unrecorded)| unrecorded).sum::<u64>(), 10);
    }
}
