//! Alerts: one OCSF Detection Finding an incident, which most of the time is one episode, delivered at least once under a stable id.
//!
//! # Layout
//! - `finding`: what is told, as the scorer says it
//! - `message`, `words`: the sentence a person reads; `ocsf`, `attack`: the record a SIEM reads
//! - `outbox`, `deliver`: a bounded queue and a task for each sink, so that none holds back another or the scoring
//! - `outstanding`: which alerts are still owed, folded from the journal
//! - `file`, `stdout`, `kafka`: the sinks
//!
//! **Invariant:** [`Notifier::notify`] never waits; what is not delivered is retried, merged or counted.

mod attack;
mod deliver;
mod file;
mod finding;
mod kafka;
mod message;
mod ocsf;
mod outbox;
mod outstanding;
mod stdout;
#[cfg(test)]
mod tests;
mod words;

use std::{collections::BTreeMap, fmt, future::Future, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    attack::Technique,
    deliver::{Delivery, Notifier},
    file::FileSink,
    finding::{Activity, Effect, Finding, Identity, Member, Reason},
    kafka::KafkaSink,
    message::{cause, message, plain},
    ocsf::DetectionFinding,
    outstanding::{AlertRecord, Outstanding, Owed},
    stdout::StdoutSink,
};

/// Where alerts go: section `[alerts]`. By default nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsConfig {
    /// Whether each alert is a JSON line on standard output.
    pub stdout: bool,
    /// A file that gets one JSON line an alert; it may be rotated at any time.
    pub file: Option<PathBuf>,
    /// A Kafka topic.
    pub kafka: Option<KafkaAlerts>,
    /// Alerts that may wait for a sink; beyond, only the latest state of each episode waits.
    pub queue: usize,
}

/// The Kafka topic for alerts: section `[alerts.kafka]`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaAlerts {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The topic; the record's key is the alert's id.
    pub topic: String,
    /// Further settings of librdkafka, such as `security.protocol`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// A place where alerts go.
pub trait Sink: Send + 'static {
    /// Its name in metrics and in the journal.
    fn name(&self) -> &'static str;

    /// Delivers one alert; returning `Ok` means that it has arrived, not only left.
    fn deliver(&mut self, alert: &Alert) -> impl Future<Output = Result<(), SinkError>> + Send;
}

/// One alert on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The stable id of the episode.
    pub uid: String,
    /// The OCSF record, one line without a line feed.
    pub json: String,
}

/// Why an alert did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The sink may take it later: it is tried again, ever more slowly.
    #[error("{0}")]
    Unavailable(String),
    /// The sink will never take this one: it is counted and passed over.
    #[error("{0}")]
    Refused(String),
}

/// A sink that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AlertsError {
    /// librdkafka does not accept the settings.
    #[error("[alerts.kafka]: {0}; see the list of settings of librdkafka")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// A key of the section is wrong.
    #[error("[alerts] {key}: {why}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong and what to write instead.
        why: &'static str,
    },
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self { stdout: false, file: None, kafka: None, queue: 1_000 }
    }
}

impl AlertsConfig {
    /// The names of the sinks that are configured.
    pub fn sinks(&self) -> Vec<&'static str> {
        [(self.stdout, stdout::NAME), (self.file.is_some(), file::NAME), (self.kafka.is_some(), kafka::NAME)]
            .into_iter()
            .filter_map(|(configured, name)| configured.then_some(name))
            .collect()
    }

    /// Checks what can be checked without reaching for a sink.
    ///
    /// # Errors
    /// Naming the key that is wrong.
    pub fn validate(&self) -> Result<(), AlertsError> {
        if self.queue == 0 {
            return Err(AlertsError::Config { key: "queue", why: "must be at least 1" });
        }
        if self.kafka.as_ref().is_some_and(|kafka| kafka.topic.is_empty()) {
            return Err(AlertsError::Config { key: "kafka.topic", why: "is empty; name the topic for alerts" });
        }
        if self.kafka.as_ref().is_some_and(|kafka| kafka.brokers.is_empty()) {
            return Err(AlertsError::Config { key: "kafka.brokers", why: "is empty; name at least one host:port" });
        }
        Ok(())
    }
}

impl fmt::Debug for KafkaAlerts {
    /// Values of settings may be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaAlerts")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("settings", &self.settings.keys())
            .finish()
    }
}
