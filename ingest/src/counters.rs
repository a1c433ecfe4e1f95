//! What an input counts, for Prometheus. Nothing is dropped that is not counted here.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::{
    registry::RegistryCounters,
    source::{Batch, Invalid, Rejection},
};

/// The counters of all inputs; one set a registry.
#[derive(Debug, Clone)]
pub struct IngestCounters {
    events: IntCounterVec,
    rejected: IntCounterVec,
    gaps: IntCounterVec,
    lost: IntCounterVec,
    unvouched: IntCounterVec,
    dead_letters: IntCounterVec,
    dead_letters_suppressed: IntCounterVec,
    connection_errors: IntCounterVec,
    waiting: IntGaugeVec,
    registry: IntCounterVec,
}

impl IngestCounters {
    /// Registers the counters.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let source = &["source"];
        let waiting = Opts::new(
            "qualm_ingest_waiting_partitions",
            "Partitions whose next record waits for its schema, since the schema registry does not answer.",
        );
        let waiting = IntGaugeVec::new(waiting, source)?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Self {
            events: counter("qualm_ingest_events_total", "Records that became events.", source)?,
            rejected: counter(
                "qualm_ingest_rejected_total",
                "Records that became no event, by reason.",
                &["source", "reason"],
            )?,
            gaps: counter("qualm_ingest_gaps_total", "Records that the origin no longer had.", source)?,
            lost: counter(
                "qualm_ingest_lost_total",
                "Records known to be missing: lost by a reporter before it could write them, or gone from the topic.",
                source,
            )?,
            unvouched: counter(
                "qualm_ingest_unvouched_total",
                "Records of a proxy's log that no proxy wrote, or one of another namespace: names alone are believed.",
                source,
            )?,
            dead_letters: counter("qualm_ingest_dead_letters_total", "Samples sent to the dead-letter topic.", source)?,
            dead_letters_suppressed: counter(
                "qualm_ingest_dead_letters_suppressed_total",
                "Samples not sent because of the rate limit or because the topic could not be written.",
                source,
            )?,
            connection_errors: counter(
                "qualm_ingest_connection_errors_total",
                "Times an origin could not be reached or answered with an error; it is tried again.",
                source,
            )?,
            waiting,
            registry: counter(
                "qualm_ingest_registry_requests_total",
                "Questions for a schema, by what came of them: found, absent or unreached.",
                &["outcome"],
            )?,
        })
    }

    /// What asking schema registries is counted in.
    pub fn registry(&self) -> RegistryCounters {
        RegistryCounters::of(self.registry.clone())
    }

    /// The counters of one source.
    pub fn of(&self, source: &str) -> SourceCounters {
        SourceCounters {
            events: self.events.with_label_values(&[source]),
            rejected: self.rejected.clone(),
            name: source.to_owned(),
            gaps: self.gaps.with_label_values(&[source]),
            lost: self.lost.with_label_values(&[source]),
            unvouched: self.unvouched.with_label_values(&[source]),
            dead_letters: self.dead_letters.with_label_values(&[source]),
            dead_letters_suppressed: self.dead_letters_suppressed.with_label_values(&[source]),
            connection_errors: self.connection_errors.with_label_values(&[source]),
            waiting: self.waiting.with_label_values(&[source]),
        }
    }
}

/// The counters of one topic, file or port.
#[derive(Debug, Clone)]
pub struct SourceCounters {
    name: String,
    events: IntCounter,
    rejected: IntCounterVec,
    /// Records that the origin no longer had.
    pub gaps: IntCounter,
    /// Records known to be missing.
    pub lost: IntCounter,
    /// Records of which certificates are not believed.
    pub unvouched: IntCounter,
    /// Samples sent to the dead-letter topic.
    pub dead_letters: IntCounter,
    /// Samples that were not sent.
    pub dead_letters_suppressed: IntCounter,
    /// Errors of the connection to the origin.
    pub connection_errors: IntCounter,
    /// Partitions of which the next record waits for its schema.
    pub waiting: IntGauge,
}

impl SourceCounters {
    /// Counts events.
    pub fn count_events(&self, events: usize) {
        self.events.inc_by(events as u64);
    }

    /// Counts one record that became no event.
    pub fn count_rejection(&self, why: Rejection) {
        self.rejected.with_label_values(&[self.name.as_str(), reason(why)]).inc();
    }

    /// Counts a batch of this source alone.
    pub fn count(&self, batch: &Batch) {
        self.count_events(batch.events.len());
        self.lost.inc_by(batch.lost.iter().map(|loss| loss.records).sum());
        self.unvouched.inc_by(batch.unvouched.len() as u64);
        for rejected in &batch.rejected {
            self.count_rejection(rejected.why);
        }
    }
}

/// The label of a reason: what is wrong with an invalid record, or what else it is.
pub fn reason(why: Rejection) -> &'static str {
    match why {
        Rejection::Invalid(invalid) => Invalid::as_str(invalid),
        other => other.as_str(),
    }
}
