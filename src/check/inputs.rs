//! Whether everything that is read can be read, and alerts can go where they are to go.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use qualm_ingest::{
    config::{self, FileConfig, KafkaConfig},
    kafka::{WrittenKeys, probe, probe_written},
    parse::Format,
};

use super::Findings;
use crate::{config::Config, run::premises};

/// How long a broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);

pub(super) fn check(config: &Config, found: &mut Findings) {
    if config.kafka.is_empty() && config.file.is_empty() && config.listen.address.is_none() {
        found.fail("inputs", "nothing to read: configure a [[kafka]] topic, a [[file]] or listen.address");
    }
    for kafka in &config.kafka {
        topics(kafka, found);
    }
    for file in &config.file {
        match config::parser(
            &file.path.display().to_string(),
            file.format,
            file.mapping.as_deref(),
            file.max_record_bytes,
        ) {
            Err(error) => found.fail("file", error.to_string()),
            Ok(_) => match premises::input(file, &config.state) {
                Err(error) => found.fail("file", error),
                Ok(()) if file.path == Path::new("-") => found.ok("file", format!("standard input, {}", up_to(file))),
                Ok(()) => found.ok("file", format!("{}, {}", file.path.display(), up_to(file))),
            },
        }
    }
    clusters(config, found);
    archives(&config.history.files, config.history.format, found);
    alerts(config, found);
}

/// With several inputs the same principal may come from several clusters, and is then several identities.
fn clusters(config: &Config, found: &mut Findings) {
    let topics = config.kafka.iter().flat_map(|kafka| &kafka.topics).map(|topic| (&topic.name, &topic.cluster));
    let files: Vec<(String, &String)> =
        config.file.iter().map(|file| (file.path.display().to_string(), &file.cluster)).collect();
    let inputs: Vec<(&String, &String)> = topics.chain(files.iter().map(|(name, cluster)| (name, *cluster))).collect();
    let unnamed: Vec<&str> =
        inputs.iter().filter(|(_, cluster)| cluster.is_empty()).map(|(name, _)| name.as_str()).collect();
    if inputs.len() > 1 && !unnamed.is_empty() {
        let text = format!(
            "{}: no `cluster`; if these records are of several clusters, and do not name them themselves, set it: the \
             same principal in two clusters is two identities",
            unnamed.join(", ")
        );
        found.warn("inputs", text);
    }
}

fn up_to(file: &FileConfig) -> String {
    format!("{}, up to {}", file.format, file.max_level())
}

fn topics(kafka: &KafkaConfig, found: &mut Findings) {
    if kafka.topics.is_empty() {
        let example = "topics = [{ name = \"mesh-access-logs\", format = \"istio_json\" }]";
        found.fail("kafka", format!("{}: no topics; name at least one: {example}", kafka.brokers));
    }
    for topic in &kafka.topics {
        let parser = config::parser(&topic.name, topic.format, topic.mapping.as_deref(), kafka.max_record_bytes);
        match parser {
            Err(error) => found.fail("kafka", format!("{error}; correct `topics` of {}", kafka.brokers)),
            Ok(parser) if parser.expects_header() => found.fail(
                "kafka",
                format!("topic {}: its mapping expects a header, which a topic does not have; set `header = false` and name the columns by number", topic.name),
            ),
            Ok(_) => {}
        }
    }
    if kafka.topics.is_empty() {
        return;
    }
    for (name, answer) in probe(kafka, PATIENCE) {
        match answer {
            Err(error) => found.fail("kafka", error.to_string()),
            Ok(partitions) => {
                let many = if partitions == 1 { "" } else { "s" };
                let topic = kafka.topics.iter().find(|topic| topic.name == name);
                let what =
                    topic.map_or_else(String::new, |topic| format!(", {}, up to {}", topic.format, topic.max_level()));
                found.ok("kafka", format!("{}: topic {name}, {partitions} partition{many}{what}", kafka.brokers));
            }
        }
    }
    if !kafka.dead_letter_topic.is_empty() {
        let keys = WrittenKeys {
            brokers: "`brokers` in [[kafka]]",
            topic: "`dead_letter_topic` in [[kafka]]",
            properties: "`properties` in [[kafka]]",
        };
        written_topic("kafka", &kafka.brokers, &kafka.dead_letter_topic, &kafka.properties, keys, found);
    }
}

fn archives(files: &[PathBuf], format: Format, found: &mut Findings) {
    if files.is_empty() {
        return;
    }
    if let Err(error) = config::parser("history.files", format, None, usize::MAX) {
        found.fail("history", error.to_string());
    }
    for file in files {
        readable("history", file, &format!("{format}, to learn from at the first start"), found);
    }
}

fn readable(section: &'static str, path: &Path, what: &str, found: &mut Findings) {
    if path == Path::new("-") {
        return found.ok(section, format!("standard input, {what}"));
    }
    let first = File::open(path).and_then(|mut file| file.read(&mut [0]));
    match first {
        Ok(_) => found.ok(section, format!("{}, {what}", path.display())),
        Err(error) => found.fail(section, format!("{}: {error}; correct the path or its permissions", path.display())),
    }
}

fn alerts(config: &Config, found: &mut Findings) {
    let alerts = &config.alerts;
    if alerts.sinks().is_empty() {
        found.warn("alerts", "alerts go nowhere; set `stdout`, `file` or [alerts.kafka]");
    }
    if alerts.stdout {
        found.ok("alerts", "standard output");
    }
    if let Some(file) = &alerts.file {
        match premises::alerts(file) {
            Ok(()) => found.ok("alerts", file.display().to_string()),
            Err(error) => found.fail("alerts", error),
        }
    }
    if let Some(kafka) = &alerts.kafka {
        let keys = WrittenKeys {
            brokers: "`brokers` in [alerts.kafka]",
            topic: "`topic` in [alerts.kafka]",
            properties: "`settings` in [alerts.kafka]",
        };
        written_topic("alerts", &kafka.brokers, &kafka.topic, &kafka.settings, keys, found);
    }
}

/// A topic that is only written to: that it is there is all that can be asked.
fn written_topic(
    section: &'static str,
    brokers: &str,
    topic: &str,
    properties: &std::collections::BTreeMap<String, String>,
    keys: WrittenKeys<'_>,
    found: &mut Findings,
) {
    match probe_written(brokers, properties, topic, keys, PATIENCE) {
        Ok(()) => found.ok(section, format!("{brokers}: topic {topic}, {}, is there", keys.topic)),
        Err(error) => found.fail(section, error.to_string()),
    }
}
