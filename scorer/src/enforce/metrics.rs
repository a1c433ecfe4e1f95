//! What is counted of enforcement points.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Counters of all enforcement points, labelled by `enforcer` (`xds`, `trust-stream`).
#[derive(Debug, Clone)]
pub struct EnforcementMetrics {
    /// Nodes with at least one stream.
    pub nodes: IntGaugeVec,
    /// Versions acknowledged.
    pub acknowledged: IntCounterVec,
    /// Versions rejected.
    pub rejected: IntCounterVec,
    /// From the push of a version to its acknowledgement.
    pub push_to_ack: HistogramVec,
    /// Streams refused, by reason.
    pub refused: IntCounterVec,
    /// Reports that a newer one of the same node replaced before the loop had taken them.
    pub superseded: IntCounterVec,
    /// Entries of the present table that this kind of enforcement point cannot express.
    pub inexpressible: IntGaugeVec,
    /// Requests about which a proxy has asked, by the answer.
    pub checks: IntCounterVec,
    /// Subscriptions for what is not served here.
    pub foreign_requests: IntCounterVec,
}

impl EnforcementMetrics {
    /// Creates and registers them.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGaugeVec::new(Opts::new(name, help), &["enforcer"])?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let buckets = vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
        let push_to_ack = HistogramVec::new(
            HistogramOpts::new("qualm_push_to_ack_seconds", "From the push of a version to its acknowledgement.")
                .buckets(buckets),
            &["enforcer"],
        )?;
        registry.register(Box::new(push_to_ack.clone()))?;
        Ok(Self {
            nodes: gauge("qualm_enforcement_nodes", "Enforcement points with an open stream.")?,
            acknowledged: counter("qualm_acknowledgements_total", "Table versions acknowledged.", &["enforcer"])?,
            rejected: counter("qualm_rejections_total", "Table versions that a node refused.", &["enforcer"])?,
            push_to_ack,
            refused: counter(
                "qualm_enforcement_refused_total",
                "Streams of enforcement points refused.",
                &["enforcer", "reason"],
            )?,
            superseded: counter(
                "qualm_enforcement_reports_superseded_total",
                "Reports replaced by a newer one of the same node before they were taken.",
                &["enforcer"],
            )?,
            inexpressible: gauge(
                "qualm_enforcement_inexpressible_entries",
                "Entries of the trust table that this kind of enforcement point cannot express.",
            )?,
            checks: counter(
                "qualm_ext_authz_checks_total",
                "Requests about which a proxy has asked: allowed, denied, limited.",
                &["answer"],
            )?,
            foreign_requests: counter(
                "qualm_enforcement_foreign_requests_total",
                "Subscriptions for resources that are not served here.",
                &["enforcer"],
            )?,
        })
    }
}
