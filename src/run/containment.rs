//! Whether decisions hold, by what proxies tell: calls and acknowledgements are handed to the state machine, and what
//! comes of it to metrics.

use std::collections::BTreeSet;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};
use qualm_model::{
    event::{Event, Outcome as Ended, Reporter},
    time::Timestamp,
};
use qualm_scorer::{
    containment::{Containment, Moment, Outcome, Sighting, State, Timeline},
    enforce::xds,
    table::{EnforcementReport, TrustTable},
    verdict::{Cause, Verdict},
};

/// The state machine and what is counted of it.
pub(crate) struct Watch {
    containment: Containment,
    /// Decisions that events have led to, until their table goes out.
    causes: Vec<(String, Timestamp)>,
    metrics: Metrics,
}

struct Metrics {
    time_to_contain: Histogram,
    by_state: IntGaugeVec,
    not_contained: IntGauge,
    served: IntCounter,
    leaks: IntCounter,
    unfollowed: IntGauge,
    /// Calls that are in the counter already, of cases that stand.
    counted: std::collections::HashMap<String, u64>,
}

impl Watch {
    /// Nothing is watched yet; `told` is the latest that was told of decisions before this process.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    pub(crate) fn start(registry: &Registry, told: Vec<Timeline>) -> prometheus::Result<Self> {
        Ok(Self { containment: Containment::resumed(told), causes: Vec::new(), metrics: Metrics::register(registry)? })
    }

    /// Notes that an event has led to a decision.
    pub(crate) fn decided(&mut self, verdict: &Verdict) {
        if verdict.cause == Cause::Evidence && verdict.enforce && verdict.level.limits() {
            self.causes.push((verdict.decision.clone(), verdict.time));
        }
    }

    /// Takes in a table that goes out; what has ended with it.
    pub(crate) fn push(&mut self, table: &TrustTable, wall: Timestamp) -> Vec<Timeline> {
        let ended = self.containment.push(table, wall);
        for (decision, event) in self.causes.drain(..) {
            self.containment.caused(&decision, event);
        }
        self.told(&ended, wall);
        for timeline in &ended {
            self.metrics.counted.remove(&timeline.decision);
        }
        ended
    }

    /// Takes in what an enforcement point has said.
    pub(crate) fn report(&mut self, report: &EnforcementReport) {
        // Subscribers of the trust stream tell of no calls.
        if report.enforcer == xds::ENFORCER {
            self.containment.report(report);
        }
    }

    /// Takes in a call.
    #[inline]
    pub(crate) fn see(&mut self, event: Event<'_>, arrived: Timestamp) {
        if !self.containment.is_idle() {
            self.tell(event, arrived);
        }
    }

    fn tell(&mut self, event: Event<'_>, arrived: Timestamp) {
        let (source, destination) = (event.source(), event.destination());
        let reporter = match event.reporter() {
            Reporter::Issuer => return,
            // The caller's own proxy is heard where nobody enforces before the called.
            Reporter::Source if self.containment.enforces_before(destination.principal()) => return,
            Reporter::Source => destination.principal(),
            _ => event.reporter_id(),
        };
        let outcome = match event.outcome() {
            _ if event.activity().goes_on() => Outcome::Open,
            Ended::Refused => Outcome::Refused,
            Ended::Success | Ended::Failure | Ended::Unknown => Outcome::Served,
        };
        self.containment.see(&Sighting {
            reporter,
            principal: source.principal(),
            cluster: source.cluster(),
            address: source.ip(),
            destination: destination.principal(),
            operation: event.operation(),
            decision: event.decision_id(),
            outcome,
            began: event.start(),
            reported: event.report(),
            arrived,
        });
    }

    /// Where the decisions about an identity stand.
    pub(crate) fn about(&self, identity: &str, wall: Timestamp) -> Vec<Timeline> {
        let mut standing = self.containment.timelines(wall);
        standing.retain(|timeline| timeline.identity == identity);
        standing
    }

    /// Decisions that ask for a stronger action.
    pub(crate) fn leaking(&self) -> BTreeSet<String> {
        self.containment.leaking()
    }

    /// Where all decisions stand, for a checkpoint of the journal.
    pub(crate) fn kept(&self, wall: Timestamp) -> Vec<Timeline> {
        self.containment.timelines(wall)
    }

    /// What is to be told now.
    pub(crate) fn tick(&mut self, wall: Timestamp) -> Vec<Timeline> {
        let news = self.containment.tick(wall);
        self.told(&news, wall);
        news
    }

    fn told(&mut self, news: &[Timeline], wall: Timestamp) {
        let metrics = &mut self.metrics;
        for timeline in news {
            let is_first = timeline.contained == Some(timeline.at) && timeline.moment == Moment::Contained;
            if let Some(span) = timeline.time_to_contain().filter(|_| is_first) {
                metrics.time_to_contain.observe(span.as_seconds().max(0.0));
            }
            metrics.leaks.inc_by(u64::from(timeline.moment == Moment::Leaking));
        }
        let standing = self.containment.timelines(wall);
        for timeline in news.iter().chain(&standing) {
            let counted = metrics.counted.entry(timeline.decision.clone()).or_default();
            metrics.served.inc_by(timeline.served.saturating_sub(std::mem::replace(counted, timeline.served)));
        }
        let (states, unfollowed) = self.containment.counts();
        for state in State::ALL {
            let count = states.get(&state).copied().unwrap_or_default();
            metrics.by_state.with_label_values(&[state.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let open = standing.iter().filter(|timeline| !timeline.state.is_contained()).count();
        metrics.not_contained.set(i64::try_from(open).unwrap_or(i64::MAX));
        metrics.unfollowed.set(i64::try_from(unfollowed).unwrap_or(i64::MAX));
    }
}

impl Metrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let buckets = vec![0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 12.0, 30.0, 60.0, 300.0];
        let help =
            "From the event that led to a decision, as its proxy wrote it, until telemetry proved that it holds.";
        let time_to_contain =
            Histogram::with_opts(HistogramOpts::new("qualm_time_to_contain_seconds", help).buckets(buckets))?;
        registry.register(Box::new(time_to_contain.clone()))?;
        let help = "Decisions that act, by how far they have come before the proxies that matter.";
        let by_state = IntGaugeVec::new(Opts::new("qualm_containment_decisions", help), &["state"])?;
        registry.register(Box::new(by_state.clone()))?;
        State::ALL.iter().for_each(|state| by_state.with_label_values(&[state.as_str()]).set(0));
        Ok(Self {
            time_to_contain,
            by_state,
            not_contained: gauge("qualm_not_contained", "Decisions that act and are not proven to hold.")?,
            served: counter(
                "qualm_successful_calls_after_crossing_total",
                "Calls that began after a threshold was crossed and were served although they should not have been.",
            )?,
            leaks: counter(
                "qualm_containment_leaks_total",
                "Times that a proxy served a call although it had acknowledged that it should not.",
            )?,
            unfollowed: gauge("qualm_containment_unfollowed", "Decisions that are not followed for want of room.")?,
            counted: std::collections::HashMap::new(),
        })
    }
}
