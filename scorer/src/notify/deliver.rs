//! One task a sink: takes what waits, delivers it, tries again ever more slowly, and says what has arrived.

use std::{sync::Arc, time::Duration};

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinHandle, time};

use super::{
    Alert, AlertsConfig, AlertsError, DetectionFinding, Sink, SinkError,
    file::FileSink,
    finding::{Activity, Finding},
    kafka::KafkaSink,
    outbox::{Due, Offered, Outbox},
    stdout::StdoutSink,
};
use crate::journal::Seq;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const SLOWEST_RETRY: Duration = Duration::from_secs(30);

/// One sink has one alert. The loop journals it, so that it is not sent again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The alert's id.
    pub uid: String,
    /// The state of the episode that was told.
    pub activity: Activity,
    /// The journal record that said it was due.
    pub seq: Seq,
    /// The sink's name.
    pub sink: String,
}

/// Carries alerts to every sink. Dropping it ends the tasks at once; [`Self::flush`] waits for what is under way.
#[derive(Debug)]
pub struct Notifier {
    routes: Vec<Route>,
    metrics: AlertMetrics,
    capacity: usize,
    deliveries: mpsc::Sender<Delivery>,
}

#[derive(Debug)]
struct Route {
    sink: &'static str,
    outbox: Arc<Outbox>,
    task: JoinHandle<()>,
}

impl Notifier {
    /// Starts a task for each configured sink, on the present tokio runtime. Nothing is connected to before the
    /// first alert.
    ///
    /// Whoever holds the other end of `deliveries` should journal each as [`AlertRecord`](super::AlertRecord).
    ///
    /// # Errors
    /// When the section is wrong.
    pub fn start(config: &AlertsConfig, deliveries: mpsc::Sender<Delivery>) -> Result<Self, AlertsError> {
        config.validate()?;
        let mut notifier = Self::new(config.queue, deliveries);
        if config.stdout {
            notifier.add(StdoutSink);
        }
        if let Some(path) = &config.file {
            notifier.add(FileSink::new(path));
        }
        if let Some(kafka) = &config.kafka {
            notifier.add(KafkaSink::new(kafka)?);
        }
        Ok(notifier)
    }

    /// A notifier without any sink yet; at most `capacity` alerts wait for each.
    pub fn new(capacity: usize, deliveries: mpsc::Sender<Delivery>) -> Self {
        Self { routes: Vec::new(), metrics: AlertMetrics::new(), capacity, deliveries }
    }

    /// Adds a sink and starts its task on the present tokio runtime.
    pub fn add(&mut self, sink: impl Sink) {
        let name = sink.name();
        let outbox = Arc::new(Outbox::new(self.capacity));
        self.metrics.prepare(name);
        let task = deliver(sink, outbox.clone(), self.deliveries.clone(), self.metrics.clone());
        self.routes.push(Route { sink: name, outbox, task: tokio::spawn(task) });
    }

    /// Queues an alert for every sink; never waits. `seq` is the journal record that says it is due.
    pub fn notify(&self, seq: Seq, finding: &Finding) {
        for route in &self.routes {
            match route.outbox.offer(Due { seq, finding: finding.clone() }) {
                Offered::Queued => {}
                Offered::Merged(count) => self.metrics.merged.with_label_values(&[route.sink]).inc_by(count),
                Offered::Dropped => self.metrics.dropped.with_label_values(&[route.sink, "queue_full"]).inc(),
            }
            self.metrics.waiting.with_label_values(&[route.sink]).set(route.outbox.depth() as i64);
        }
    }

    /// Waits until everything has arrived, at most for `patience`; tells whether it has.
    pub async fn flush(&self, patience: Duration) -> bool {
        let all = async {
            for route in &self.routes {
                route.outbox.empty().await;
            }
        };
        time::timeout(patience, all).await.is_ok()
    }

    /// Adds the metrics of alerts to the registry.
    ///
    /// # Errors
    /// When they are there already.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        self.metrics.register(registry)
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.routes.iter().for_each(|route| route.task.abort());
    }
}

async fn deliver<S: Sink>(mut sink: S, outbox: Arc<Outbox>, deliveries: mpsc::Sender<Delivery>, metrics: AlertMetrics) {
    let name = sink.name();
    loop {
        let Due { seq, finding } = outbox.next().await;
        let arrived = send(&mut sink, &finding, &metrics).await;
        outbox.settle();
        metrics.waiting.with_label_values(&[name]).set(outbox.depth() as i64);
        if arrived {
            let delivery = Delivery { uid: finding.uid, activity: finding.activity, seq, sink: name.to_owned() };
            // With nobody left to journal it, it may be sent again after a restart, which is allowed.
            let _ = deliveries.send(delivery).await;
        }
    }
}

/// Tries until the alert has arrived, or the sink says that it never will.
async fn send<S: Sink>(sink: &mut S, finding: &Finding, metrics: &AlertMetrics) -> bool {
    let name = sink.name();
    let alert = match serde_json::to_string(&DetectionFinding::from(finding)) {
        Ok(json) => Alert { uid: finding.uid.clone(), json },
        Err(error) => {
            tracing::error!(%error, uid = finding.uid, "an alert cannot be written as JSON");
            metrics.dropped.with_label_values(&[name, "refused"]).inc();
            return false;
        }
    };
    let mut pause = FIRST_RETRY;
    loop {
        match sink.deliver(&alert).await {
            Ok(()) => {
                metrics.delivered.with_label_values(&[name, finding.activity.as_str()]).inc();
                return true;
            }
            Err(SinkError::Unavailable(why)) => {
                tracing::warn!(sink = name, uid = alert.uid, why, pause_s = pause.as_secs_f64(), "alert not delivered");
                metrics.retries.with_label_values(&[name]).inc();
                time::sleep(pause).await;
                pause = (pause * 2).min(SLOWEST_RETRY);
            }
            Err(SinkError::Refused(why)) => {
                tracing::error!(sink = name, uid = alert.uid, why, "alert refused");
                metrics.dropped.with_label_values(&[name, "refused"]).inc();
                return false;
            }
        }
    }
}

#[derive(Debug, Clone)]
struct AlertMetrics {
    delivered: IntCounterVec,
    retries: IntCounterVec,
    merged: IntCounterVec,
    dropped: IntCounterVec,
    waiting: IntGaugeVec,
}

impl AlertMetrics {
    fn new() -> Self {
        let counter = |name, help, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("name and labels are valid")
        };
        Self {
            delivered: counter("qualm_alerts_delivered_total", "Alerts that a sink has.", &["sink", "activity"]),
            retries: counter("qualm_alert_retries_total", "Deliveries that failed and were tried again.", &["sink"]),
            merged: counter(
                "qualm_alerts_merged_total",
                "Alerts replaced by a newer state of their episode because the queue was full.",
                &["sink"],
            ),
            dropped: counter("qualm_alerts_dropped_total", "Alerts that a sink never got.", &["sink", "reason"]),
            waiting: IntGaugeVec::new(Opts::new("qualm_alerts_waiting", "Alerts that wait for a sink."), &["sink"])
                .expect("name and labels are valid"),
        }
    }

    /// Makes the counters of a sink visible from the start, as zeros.
    fn prepare(&self, sink: &str) {
        for activity in [Activity::Create, Activity::Update, Activity::Close] {
            self.delivered.with_label_values(&[sink, activity.as_str()]);
        }
        for reason in ["queue_full", "refused"] {
            self.dropped.with_label_values(&[sink, reason]);
        }
        self.retries.with_label_values(&[sink]);
        self.merged.with_label_values(&[sink]);
        self.waiting.with_label_values(&[sink]);
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        for counter in [&self.delivered, &self.retries, &self.merged, &self.dropped] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(self.waiting.clone()))
    }
}
