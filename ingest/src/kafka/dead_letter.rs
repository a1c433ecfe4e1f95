//! Samples of records that could not be read, for whoever mends their origin.

use qualm_model::{
    event::Position,
    fold,
    time::{Clock, Span},
};
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde::Serialize;

use super::Topic;
use crate::{config::KafkaConfig, counters::reason, source::Rejection};

/// What is shown of a record, before folding.
const SAMPLE_BYTES: usize = 1024;

/// What is written to the dead-letter topic.
#[derive(Debug, Serialize)]
struct DeadLetter<'a> {
    reason: &'a str,
    /// The field that is wrong or missing, where one is to blame.
    field: Option<&'a str>,
    remedy: &'a str,
    topic: &'a str,
    partition: i32,
    offset: i64,
    format: &'a str,
    bytes: usize,
    /// The beginning of the record, with all that could be a secret folded.
    sample: &'a str,
}

/// Sends samples, at most so many a minute.
pub(super) struct DeadLetters {
    producer: Option<BaseProducer>,
    topic: String,
    per_minute: u32,
    clock: Clock,
    minute: i64,
    sent: u32,
    sample: String,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl DeadLetters {
    pub(super) fn new(client: &ClientConfig, config: &KafkaConfig, clock: Clock) -> Result<Self, KafkaError> {
        let mut client = client.clone();
        client.set("queue.buffering.max.kbytes", "4096").set("message.timeout.ms", "30000").set("linger.ms", "50");
        let producer = if config.dead_letter_topic.is_empty() { None } else { Some(client.create()?) };
        Ok(Self {
            producer,
            topic: config.dead_letter_topic.clone(),
            per_minute: config.dead_letters_per_minute,
            clock,
            minute: 0,
            sent: 0,
            sample: String::new(),
        })
    }

    /// Serves the producer's callbacks.
    pub(super) fn poll(&self) {
        if let Some(producer) = &self.producer {
            producer.poll(std::time::Duration::ZERO);
        }
    }

    /// Waits for what is on its way.
    pub(super) fn flush(&self) {
        if let Some(producer) = &self.producer
            && let Err(error) = producer.flush(std::time::Duration::from_secs(2))
        {
            tracing::warn!(%error, "kafka: dead letters were lost at the end");
        }
    }

    /// Sends a sample of an invalid record, if the rate allows.
    pub(super) fn send(&mut self, topic: &Topic, record: &[u8], position: Position, why: Rejection) {
        if !self.is_wanted(topic, why) {
            return;
        }
        let mut sample = std::mem::take(&mut self.sample);
        write_sample(record, &mut sample);
        let field = if let Rejection::Invalid(invalid) = why { topic.parser.blame(record, invalid) } else { None };
        let told = Told { sample: &sample, bytes: record.len(), field: field.as_deref() };
        self.write(topic, told, position, why);
        self.sample = sample;
    }

    /// Sends what is said of an invalid record of so many bytes, in place of a sample.
    pub(super) fn send_shown(&mut self, topic: &Topic, shown: (&str, usize), position: Position, why: Rejection) {
        if self.is_wanted(topic, why) {
            let (sample, bytes) = shown;
            self.write(topic, Told { sample, bytes, field: None }, position, why);
        }
    }

    /// Whether a letter is to be sent, which then counts.
    fn is_wanted(&mut self, topic: &Topic, why: Rejection) -> bool {
        let (Some(_), Rejection::Invalid(_)) = (&self.producer, why) else { return false };
        let minute = self.clock.now().window(Span::MINUTE);
        if minute != self.minute {
            (self.minute, self.sent) = (minute, 0);
        }
        if self.sent >= self.per_minute {
            topic.counters.dead_letters_suppressed.inc();
            return false;
        }
        self.sent += 1;
        true
    }

    fn write(&self, topic: &Topic, told: Told<'_>, position: Position, why: Rejection) {
        let (Some(producer), Rejection::Invalid(invalid)) = (&self.producer, why) else { return };
        let letter = DeadLetter {
            reason: reason(why),
            field: told.field,
            remedy: invalid.remedy(),
            topic: &topic.name,
            partition: position.partition,
            offset: position.offset,
            format: topic.parser.format().as_str(),
            bytes: told.bytes,
            sample: told.sample,
        };
        let payload = serde_json::to_vec(&letter).unwrap_or_default();
        match producer.send(BaseRecord::<(), _>::to(&self.topic).payload(&payload)) {
            Ok(()) => topic.counters.dead_letters.inc(),
            Err(_) => topic.counters.dead_letters_suppressed.inc(),
        }
    }
}

/// What is told of a record.
#[derive(Debug, Clone, Copy)]
struct Told<'a> {
    sample: &'a str,
    bytes: usize,
    field: Option<&'a str>,
}

/// The beginning of a record, folded. A word that the cut goes through is dropped: half a secret looks like a name.
fn write_sample(record: &[u8], sample: &mut String) {
    sample.clear();
    let text = String::from_utf8_lossy(&record[..record.len().min(SAMPLE_BYTES)]);
    let mut shown: &str = &text;
    if record.len() > SAMPLE_BYTES {
        let end = shown.rfind(|c: char| c.is_whitespace() || "\",".contains(c)).unwrap_or(0);
        shown = &shown[..end];
    }
    fold::append_sample(shown, sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_short_and_holds_no_secret() {
        let token = "hvs.CAESIJ3Nc8Qw1x0vE7kq5mZt9Lr2Yb6UuFh";
        let mut sample = String::new();
        write_sample(format!(r#"{{"path":"/u/bob@example.org?key={token}","t":"{token}"}}"#).as_bytes(), &mut sample);
        assert_eq!(sample, r#"{"path":"/u/{email}?{text}","t":"{token}"}"#);
        let numbers =
            r#"{"response_code":"OK","bytes_sent":104857,"pin":4711,"downstream_remote_address":"10.0.0.7:32830"}"#;
        write_sample(numbers.as_bytes(), &mut sample);
        assert!(sample.contains("104857") && sample.contains(":32830") && !sample.contains("4711"), "{sample}");
        let cut = format!("{} {}{token}", "x y".repeat(330), "z".repeat(20));
        write_sample(cut.as_bytes(), &mut sample);
        assert!(!sample.contains("hvs") && sample.len() <= SAMPLE_BYTES, "{sample}");
        write_sample(b"\xff\xfe{", &mut sample);
        assert!(sample.ends_with('{'));
    }
}
