//! Which of the proxies seen in telemetry enforce: pushed is not enforced.

use std::collections::{BTreeMap, HashMap};

use qualm_model::{
    event::EventBatch,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    enforce::trust_stream::record::Coverage,
    table::{Enforcement, EnforcementReport},
};

/// A proxy that has reported nothing for this long is gone, and so is an enforcement point that was away for as long.
const GONE: Span = Span(15 * Span::MINUTE.0);
/// Reporters remembered at most; telemetry can name as many as it likes.
const REPORTERS: usize = 100_000;
/// Enforcement points remembered at most, connected or not.
const NODES: usize = 100_000;
/// Counted again where something has changed, but not more often than this.
const SETTLING: Span = Span::SECOND;
/// Counted again at the latest: reporters go without a word.
const RECOUNT: Span = Span::seconds(10);

/// An enforcement point: its kind, and its own name for itself.
type NodeName = (String, String);

#[derive(Debug, Default)]
struct Node {
    identity: Option<String>,
    /// Whether it has acknowledged a table since it connected.
    acknowledged: bool,
    /// The version that it refused and why, until it acknowledges that or a later one.
    refused: Option<(u64, String)>,
    connected: bool,
    last: Timestamp,
}

/// How far a node is from enforcing; the farthest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing<'a> {
    Away,
    Subscribed,
    Refusing(&'a str),
    Enforcing,
}

/// Reporters and enforcement points, side by side.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    reporters: BTreeMap<String, Timestamp>,
    nodes: BTreeMap<NodeName, Node>,
    changed: bool,
    counted: Option<Timestamp>,
}

/// A proxy that reports and does not enforce, with the probable cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uncovered {
    pub(crate) reporter: String,
    pub(crate) why: String,
}

impl Proxies {
    /// Notes who reported a batch; whoever is named in history only may be gone by now.
    pub(crate) fn seen(&mut self, batch: &EventBatch, wall: Timestamp) {
        if batch.events().next_back().is_none_or(|last| wall - last.report() > GONE) {
            return;
        }
        for key in 0..batch.reporter_id.distinct() {
            let reporter = batch.reporter_id.text(key);
            if let Some(last) = self.reporters.get_mut(reporter) {
                *last = wall;
            } else if !reporter.is_empty() && self.reporters.len() < REPORTERS {
                self.reporters.insert(reporter.to_owned(), wall);
                self.changed = true;
            }
        }
    }

    /// Notes what an enforcement point said.
    pub(crate) fn report(&mut self, report: &EnforcementReport) {
        let name = (report.enforcer.clone(), report.node.clone());
        if self.nodes.len() >= NODES && !self.nodes.contains_key(&name) {
            self.nodes.retain(|_, node| node.connected);
            if self.nodes.len() >= NODES {
                return;
            }
        }
        self.changed = true;
        let node = self.nodes.entry(name).or_default();
        node.identity = report.identity.as_ref().map(|id| id.as_str().to_owned());
        node.last = report.at;
        node.connected = report.what != Enforcement::Disconnected;
        match &report.what {
            // What it held when it went is not what it holds when it comes.
            Enforcement::Connected | Enforcement::Disconnected => (node.acknowledged, node.refused) = (false, None),
            Enforcement::Acknowledged => {
                node.acknowledged = true;
                // One that refuses a version goes on to acknowledge the heartbeats of the one before.
                node.refused.take_if(|(refused, _)| *refused <= report.version);
            }
            Enforcement::Rejected(why) => node.refused = Some((report.version, why.clone())),
        }
    }

    /// Proxies that reported lately and those of them that hold no table; `None` where it is not time to count again.
    pub(crate) fn coverage(&mut self, wall: Timestamp) -> Option<(Coverage, Vec<Uncovered>)> {
        let least = if self.changed { SETTLING } else { RECOUNT };
        if self.counted.is_some_and(|counted| (Span(0)..least).contains(&(wall - counted))) {
            return None;
        }
        (self.counted, self.changed) = (Some(wall), false);
        self.reporters.retain(|_, last| wall - *last <= GONE);
        self.nodes.retain(|_, node| node.connected || wall - node.last <= GONE);
        let standings = self.standings();
        let uncovered: Vec<Uncovered> = self
            .reporters
            .keys()
            .filter_map(|reporter| {
                let why = why_uncovered(standings.get(reporter.as_str()).copied())?;
                Some(Uncovered { reporter: reporter.clone(), why })
            })
            .collect();
        let reporting = u32::try_from(self.reporters.len()).unwrap_or(u32::MAX);
        let missing = u32::try_from(uncovered.len()).unwrap_or(u32::MAX);
        Some((Coverage { enforcing: reporting - missing, reporting }, uncovered))
    }

    /// The best standing under each name and each identity.
    fn standings(&self) -> HashMap<&str, Standing<'_>> {
        let mut standings = HashMap::new();
        for ((_, name), node) in &self.nodes {
            for known_as in [Some(name), node.identity.as_ref()].into_iter().flatten() {
                let best = standings.entry(known_as.as_str()).or_insert(Standing::Away);
                *best = node.standing().max(*best);
            }
        }
        standings
    }
}

impl Node {
    fn standing(&self) -> Standing<'_> {
        match &self.refused {
            _ if !self.connected => Standing::Away,
            Some((_, why)) => Standing::Refusing(why),
            None if self.acknowledged => Standing::Enforcing,
            None => Standing::Subscribed,
        }
    }
}

/// Why a proxy whose best node stands so does not enforce; `None` where it does.
fn why_uncovered(standing: Option<Standing<'_>>) -> Option<String> {
    Some(match standing {
        Some(Standing::Enforcing) => return None,
        Some(Standing::Refusing(why)) => format!("it refused the policy: {why}"),
        Some(Standing::Subscribed) => "it has subscribed and not acknowledged yet".to_owned(),
        Some(Standing::Away) => "it was connected and is not any more".to_owned(),
        None => "it has never subscribed: its listener lacks the Qualm filter, or the cluster of its config source \
                 does not exist (Envoy accepts both without a word)"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBuilder, EventDraft};

    use super::*;

    #[test]
    fn a_proxy_that_only_history_names_is_not_counted() {
        let mut proxies = Proxies::default();
        proxies.seen(&batch(&["a"]), Timestamp(0) + Span::HOUR);
        assert_eq!(proxies.coverage(Timestamp(0) + Span::HOUR).expect("counted").0.reporting, 0);
    }

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
        let (coverage, uncovered) = proxies.coverage(Timestamp(0)).expect("counted");
        assert_eq!((coverage.enforcing, coverage.reporting), (1, 3));
        assert!(uncovered[0].why.contains("never subscribed"), "{uncovered:?}");
        assert!(uncovered[1].why.contains("no such matcher"), "{uncovered:?}");
    }

    #[test]
    fn a_proxy_that_has_gone_counts_for_nothing() {
        let mut proxies = Proxies::default();
        proxies.seen(&batch(&["a"]), Timestamp(0));
        assert_eq!(
            proxies.coverage(Timestamp(0) + Span::HOUR).expect("counted").0,
            Coverage { enforcing: 0, reporting: 0 }
        );
    }

    fn enforcing(proxies: &mut Proxies, after: Span) -> u32 {
        proxies.coverage(Timestamp(0) + after).expect("counted").0.enforcing
    }

    #[test]
    fn an_acknowledgement_counts_until_the_node_leaves_and_from_its_next_one() {
        let mut proxies = Proxies::default();
        proxies.seen(&batch(&["a"]), Timestamp(0));
        for (second, (what, expected)) in (0..).zip([
            (Enforcement::Connected, 0),
            (Enforcement::Acknowledged, 1),
            (Enforcement::Disconnected, 0),
            (Enforcement::Connected, 0),
            (Enforcement::Acknowledged, 1),
        ]) {
            proxies.report(&report("a", what.clone()));
            assert_eq!(enforcing(&mut proxies, Span::seconds(second)), expected, "{second} {what:?}");
        }
    }

    #[test]
    fn a_refusal_stands_until_that_version_or_a_later_one_is_acknowledged() {
        let mut proxies = Proxies::default();
        proxies.seen(&batch(&["a"]), Timestamp(0));
        let refused = Enforcement::Rejected("no".to_owned());
        for (second, (version, what, expected)) in (0..).zip([
            (4, Enforcement::Acknowledged, 1),
            (5, refused, 0),
            // The heartbeat of what it holds.
            (4, Enforcement::Acknowledged, 0),
            (6, Enforcement::Acknowledged, 1),
        ]) {
            proxies.report(&EnforcementReport { version, ..report("a", what.clone()) });
            assert_eq!(enforcing(&mut proxies, Span::seconds(second)), expected, "{version} {what:?}");
        }
    }

    #[test]
    fn one_of_an_identitys_nodes_that_enforces_is_enough_for_a_report_in_its_name() {
        const ID: &str = "spiffe://mesh.test/ns/shop/sa/cart";
        let mut proxies = Proxies::default();
        proxies.seen(&batch(&[ID]), Timestamp(0));
        let named = |node: &str, what| EnforcementReport { identity: ID.parse().ok(), ..report(node, what) };
        proxies.report(&named("n1", Enforcement::Acknowledged));
        proxies.report(&named("n2", Enforcement::Rejected("no".to_owned())));
        assert_eq!(enforcing(&mut proxies, Span(0)), 1);
        proxies.report(&named("n1", Enforcement::Disconnected));
        let (_, uncovered) = proxies.coverage(Timestamp(0) + SETTLING).expect("counted");
        assert!(uncovered[0].why.contains("refused"), "{uncovered:?}");
    }

    #[test]
    fn nothing_is_counted_again_before_it_can_have_changed() {
        let mut proxies = Proxies::default();
        assert!(proxies.coverage(Timestamp(0)).is_some());
        assert!(proxies.coverage(Timestamp(0) + SETTLING).is_none());
        proxies.report(&report("a", Enforcement::Connected));
        assert!(proxies.coverage(Timestamp(0) + Span(SETTLING.0 / 2)).is_none());
        assert!(proxies.coverage(Timestamp(0) + SETTLING).is_some());
        assert!(proxies.coverage(Timestamp(0) + SETTLING + RECOUNT).is_some());
        // A clock that was set back does not silence it.
        assert!(proxies.coverage(Timestamp(0)).is_some());
    }

    #[test]
    fn nodes_that_have_left_are_forgotten_and_their_number_is_bounded() {
        let mut proxies = Proxies::default();
        for n in 0..NODES {
            proxies.report(&report(&format!("n{n}"), Enforcement::Connected));
        }
        proxies.report(&report("one more", Enforcement::Connected));
        assert_eq!(proxies.nodes.len(), NODES);
        proxies.report(&report("n0", Enforcement::Disconnected));
        proxies.report(&report("one more", Enforcement::Connected));
        assert!(proxies.nodes.len() == NODES && proxies.nodes.keys().any(|(_, node)| node == "one more"));
        proxies.report(&report("n1", Enforcement::Disconnected));
        proxies.coverage(Timestamp(0) + Span::HOUR);
        assert_eq!(proxies.nodes.len(), NODES - 1);
    }
}
