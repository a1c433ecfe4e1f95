//! Which of the proxies seen in telemetry enforce: pushed is not enforced.

use std::collections::BTreeMap;

use qualm_model::{
    event::EventBatch,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    enforce::trust_stream::record::Coverage,
    table::{Enforcement, EnforcementReport},
};

/// A proxy that has reported nothing for this long is gone.
const GONE: Span = Span(15 * Span::MINUTE.0);
/// Reporters remembered at most; telemetry can name as many as it likes.
const REPORTERS: usize = 100_000;

#[derive(Debug, Default)]
struct Node {
    identity: Option<String>,
    acknowledged: Option<u64>,
    refused: Option<String>,
    connected: bool,
}

/// Reporters and enforcement points, side by side.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    reporters: BTreeMap<String, Timestamp>,
    nodes: BTreeMap<String, Node>,
}

/// A proxy that reports and does not enforce, with the probable cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uncovered {
    pub(crate) reporter: String,
    pub(crate) why: String,
}

impl Proxies {
    /// Notes who reported a batch.
    pub(crate) fn seen(&mut self, batch: &EventBatch, wall: Timestamp) {
        for key in 0..batch.reporter_id.distinct() {
            let reporter = batch.reporter_id.text(key);
            if let Some(last) = self.reporters.get_mut(reporter) {
                *last = wall;
            } else if !reporter.is_empty() && self.reporters.len() < REPORTERS {
                self.reporters.insert(reporter.to_owned(), wall);
            }
        }
    }

    /// Notes what an enforcement point said.
    pub(crate) fn report(&mut self, report: &EnforcementReport) {
        let node = self.nodes.entry(report.node.clone()).or_default();
        node.identity = report.identity.as_ref().map(|id| id.as_str().to_owned());
        match &report.what {
            Enforcement::Connected => node.connected = true,
            Enforcement::Acknowledged => {
                (node.connected, node.acknowledged, node.refused) = (true, Some(report.version), None);
            }
            Enforcement::Rejected(why) => node.refused = Some(why.clone()),
            Enforcement::Disconnected => node.connected = false,
        }
    }

    /// Proxies that reported lately and how many of them hold a table.
    pub(crate) fn coverage(&mut self, wall: Timestamp) -> (Coverage, Vec<Uncovered>) {
        self.reporters.retain(|_, last| wall - *last <= GONE);
        let uncovered: Vec<Uncovered> = self.reporters.keys().filter_map(|reporter| self.uncovered(reporter)).collect();
        let reporting = u32::try_from(self.reporters.len()).unwrap_or(u32::MAX);
        let missing = u32::try_from(uncovered.len()).unwrap_or(u32::MAX);
        (Coverage { enforcing: reporting - missing, reporting }, uncovered)
    }

    fn uncovered(&self, reporter: &str) -> Option<Uncovered> {
        let mut nodes = self
            .nodes
            .iter()
            .filter(|(name, node)| *name == reporter || node.identity.as_deref() == Some(reporter))
            .map(|(_, node)| node)
            .peekable();
        let why = match nodes.peek() {
            None => {
                "it has never subscribed: its listener lacks the Qualm filter, or the cluster of its config source \
                     does not exist (Envoy accepts both without a word)"
                    .to_owned()
            }
            Some(_) => {
                let nodes: Vec<&Node> = nodes.collect();
                if nodes.iter().any(|node| node.acknowledged.is_some()) {
                    return None;
                }
                match nodes.iter().find_map(|node| node.refused.as_deref()) {
                    Some(why) => format!("it refused the policy: {why}"),
                    None => "it has subscribed and not acknowledged yet".to_owned(),
                }
            }
        };
        Some(Uncovered { reporter: reporter.to_owned(), why })
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBuilder, EventDraft};

    use super::*;

    fn batch(reporters: &[&str]) -> EventBatch {
        let mut builder = EventBuilder::new();
        reporters.iter().for_each(|id| builder.push(&EventDraft { reporter_id: id, ..EventDraft::default() }));
        builder.finish()
    }

    fn report(node: &str, what: Enforcement) -> EnforcementReport {
        EnforcementReport {
            enforcer: "xds".to_owned(),
            node: node.to_owned(),
            identity: None,
            version: 1,
            at: Timestamp(0),
            what,
        }
    }

    #[test]
    fn a_proxy_that_reports_and_never_subscribed_is_not_enforcing() {
        let mut proxies = Proxies::default();
        proxies.seen(&batch(&["a", "b", "c"]), Timestamp(0));
        proxies.report(&report("a", Enforcement::Acknowledged));
        proxies.report(&report("c", Enforcement::Rejected("no such matcher".to_owned())));
        let (coverage, uncovered) = proxies.coverage(Timestamp(0));
        assert_eq!((coverage.enforcing, coverage.reporting), (1, 3));
        assert!(uncovered[0].why.contains("never subscribed"), "{uncovered:?}");
        assert!(uncovered[1].why.contains("no such matcher"), "{uncovered:?}");
    }

    #[test]
    fn a_proxy_that_has_gone_counts_for_nothing() {
        let mut proxies = Proxies::default();
        proxies.seen(&batch(&["a"]), Timestamp(0));
        assert_eq!(proxies.coverage(Timestamp(0) + Span::HOUR).0, Coverage { enforcing: 0, reporting: 0 });
    }
}
