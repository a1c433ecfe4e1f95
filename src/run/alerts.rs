//! Verdicts to alerts: one an episode, under one id, delivered at least once. What is owed follows from the decisions in
//! the journal: there is no moment between the two in which a crash could lose an alert.

use std::time::Duration;

use prometheus::Registry;
use qualm_model::time::Timestamp;
use qualm_scorer::{
    containment::Timeline,
    journal::{Journal, Kind, Seq},
    notify::{AlertRecord, AlertsConfig, Delivery, Notifier, Outstanding, Owed},
    verdict::Verdict,
};
use tokio::sync::mpsc;

use crate::finding::Findings;

/// Deliveries that wait to be journalled.
const DELIVERIES: usize = 4096;
/// How long a stopping process waits for its sinks.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way from verdicts to sinks.
pub(crate) struct Alerts {
    findings: Findings,
    notifier: Notifier,
    deliveries: mpsc::Receiver<Delivery>,
    journal: Journal,
    outstanding: Outstanding,
    sinks: Vec<&'static str>,
}

impl Alerts {
    pub(crate) fn start(
        config: &AlertsConfig,
        journal: &Journal,
        findings: Findings,
        outstanding: Outstanding,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let (sender, deliveries) = mpsc::channel(DELIVERIES);
        let notifier = Notifier::start(config, sender)?;
        notifier.register(registry)?;
        for (seq, finding) in outstanding.undelivered() {
            notifier.notify(seq, &finding);
        }
        Ok(Self { findings, notifier, deliveries, journal: journal.clone(), outstanding, sinks: config.sinks() })
    }

    /// Tells of a verdict, whose record in the journal is `seq`.
    pub(crate) fn verdict(&mut self, seq: Seq, verdict: &Verdict) {
        let Some(finding) = self.findings.tell(verdict).filter(|_| !self.sinks.is_empty()) else { return };
        self.notifier.notify(seq, &finding);
        self.outstanding.raised(seq, finding, &self.sinks);
    }

    /// Tells of a decision that is not proven to hold, as news of its episode; `seq` is its record. It is told once: what is
    /// owed after a crash follows from decisions alone.
    pub(crate) fn not_contained(&mut self, seq: Seq, timeline: &Timeline) {
        let Some(finding) = self.findings.not_contained(timeline).filter(|_| !self.sinks.is_empty()) else { return };
        self.notifier.notify(seq, &finding);
    }

    /// What not every sink has.
    pub(crate) fn owed(&self) -> Vec<Owed> {
        self.outstanding.owed().cloned().collect()
    }

    /// Journals what was delivered.
    pub(crate) fn collect(&mut self, at: Timestamp) {
        while let Ok(delivery) = self.deliveries.try_recv() {
            self.outstanding.delivered(&delivery);
            if let Err(error) = self.journal.append(Kind::Alert, at, at, &AlertRecord::Delivered(delivery)) {
                // It will be sent once more after a restart, under the same id.
                tracing::warn!(%error, "a delivery could not be journalled");
            }
        }
    }

    /// Waits a while for what is still on its way.
    pub(crate) async fn flush(&mut self, at: Timestamp) {
        if !self.notifier.flush(PATIENCE).await {
            tracing::warn!("not every alert was delivered; the rest is sent at the next start");
        }
        self.collect(at);
    }
}
