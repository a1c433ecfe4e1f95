//! Deployments that pipelines announce by a Kafka topic, one JSON object a message, as `qualm announce` would.
//!
//! Each is carried out by the loop, journalled, and committed then: one that comes again after a crash has the same key and
//! is known. Whoever may write to the topic may announce, and hides no more by it than [`announced`] lets them; a message
//! that cannot be meant is told, counted and passed over.
//!
//! [`announced`]: qualm_scorer::operator::announced

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::Context as _;
use prometheus::{IntCounterVec, Opts, Registry};
use qualm_ingest::kafka::{Mailbox, Message, Messages};
use qualm_model::time::{Clock, Timestamp};
use qualm_scorer::{
    config::Length,
    operator::{Ask, LONGEST_NAME},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::operator::{Call, Request};

/// How long to wait for a message before looking whether the loop is still there.
const IDLE: Duration = Duration::from_millis(500);
/// Longer messages announce nothing.
const MAX_BYTES: usize = 16 << 10;

/// `[announcements]`: where deployments are announced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AnnouncementsConfig {
    /// `host:port` of one or more brokers.
    pub(crate) brokers: String,
    /// The topic; empty for none.
    pub(crate) topic: String,
    /// librdkafka's properties.
    pub(crate) properties: BTreeMap<String, String>,
}

impl AnnouncementsConfig {
    /// What of it cannot be meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (self.topic.is_empty(), self.brokers.is_empty()) {
            (false, true) => Err("[announcements] brokers: not said; name the brokers of its topic, as \
                                  brokers = \"kafka.infra:9092\""
                .to_owned()),
            (true, false) => {
                Err("[announcements] topic: not said; name one, as topic = \"deployments\", or take the section out"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// What a message says.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    /// `namespace/service`.
    service: String,
    /// Only in this cluster.
    cluster: Option<String>,
    /// For how long.
    #[serde(rename = "for")]
    lasts: Length,
    /// What for.
    reason: String,
    /// Who says so.
    by: Option<String>,
    /// The same for the same announcement; that of its place in the topic where it is not said.
    key: Option<String>,
}

/// Starts to read the topic, where there is one, on a thread of its own that ends with the loop. `member` is this
/// instance's name: each instance has every announcement.
pub(crate) fn start(
    config: &AnnouncementsConfig,
    member: &str,
    clock: Clock,
    caller: mpsc::Sender<Call>,
    registry: &Registry,
) -> anyhow::Result<()> {
    if config.topic.is_empty() {
        return Ok(());
    }
    let help = "Announcements of deployments by the topic of [announcements], by what became of them.";
    let announcements = IntCounterVec::new(Opts::new("qualm_announcements_total", help), &["outcome"])?;
    registry.register(Box::new(announcements.clone()))?;
    let group = format!("qualm-announcements-{member}");
    let AnnouncementsConfig { brokers, topic, properties } = config;
    let mailbox = Mailbox { brokers, properties, topic, group: &group };
    let mut messages = Messages::subscribe(mailbox).context("[announcements]")?;
    let topic = topic.clone();
    let read = move || {
        while !caller.is_closed() {
            let Some(message) = messages.next(IDLE) else { continue };
            let outcome = match request(&message, &topic, clock.now()) {
                Ok(request) => carried_out(request, &caller),
                Err(problem) => Some(Outcome::Invalid(problem)),
            };
            // The loop has gone before it answered: it comes again.
            let Some(outcome) = outcome else { break };
            outcome.tell(&message, &topic);
            messages.done(&message);
            // After that, so that what is counted does not come again.
            announcements.with_label_values(&[outcome.label()]).inc();
        }
    };
    thread::Builder::new().name("announcements".to_owned()).spawn(read).context("a thread to read [announcements]")?;
    Ok(())
}

/// What became of a message.
#[derive(Debug, PartialEq)]
enum Outcome {
    CarriedOut,
    /// It had been carried out before.
    Repeated,
    Invalid(String),
}

impl Outcome {
    fn tell(&self, message: &Message, topic: &str) {
        if let Self::Invalid(problem) = self {
            let (partition, offset) = (message.partition, message.offset);
            tracing::warn!(topic, partition, offset, problem, "a message announces nothing");
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::CarriedOut => "carried_out",
            Self::Repeated => "repeated",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// `None` where the loop has gone.
fn carried_out(request: Request, caller: &mpsc::Sender<Call>) -> Option<Outcome> {
    let (answer, answered) = oneshot::channel();
    caller.blocking_send(Call::Do(Box::new(request), answer)).ok()?;
    Some(match answered.blocking_recv().ok()? {
        Ok(done) if done.repeated => Outcome::Repeated,
        Ok(_) => Outcome::CarriedOut,
        Err(refusal) => Outcome::Invalid(refusal.to_string()),
    })
}

/// What is to be done by a message. Errors: field and remedy.
fn request(message: &Message, topic: &str, now: Timestamp) -> Result<Request, String> {
    if message.payload.len() > MAX_BYTES {
        return Err(format!("{} bytes are more than {MAX_BYTES}", message.payload.len()));
    }
    let said: Said = serde_json::from_slice(&message.payload).map_err(|error| {
        format!(
            "{error}; write {{\"service\": \"shop/cart\", \"for\": \"30m\", \"reason\": \"release 42\"}}, and `cluster`, `by`, \
             `key` where they are needed"
        )
    })?;
    let Said { service, cluster, lasts: Length(lasts), reason, by, key } = said;
    if message.written.is_some_and(|written| written + lasts <= now) {
        return Err(format!("it was over before it was read: it was written at {:?}", message.written));
    }
    if by.as_ref().is_some_and(|by| by.len() > LONGEST_NAME) {
        return Err(format!("by: more than {LONGEST_NAME} bytes; name the pipeline or the person"));
    }
    // A topic that was made anew counts from 0 again.
    let place = || {
        let written = message.written.unwrap_or_default().0 / 1_000_000;
        format!("{}-{}-{written}", message.partition, message.offset)
    };
    let key = key.unwrap_or_else(place);
    let by = by.map_or_else(|| format!("kafka {topic}"), |by| format!("kafka {topic}: {by}"));
    Ok(Request { by, why: reason, key, ask: Ask::Announce { service, cluster, lasts } })
}

#[cfg(test)]
mod tests;
