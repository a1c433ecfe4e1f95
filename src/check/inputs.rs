//! Whether everything that is read can be read, and alerts can go where they are to go.

use std::path::Path;

use qualm_ingest::{
    config::{self, FileConfig, KafkaConfig},
    kafka::{probe, probe_there},
    kubernetes::{KubernetesConfig, KubernetesError, PodWatch},
    registry::Client,
};

use super::Findings;
use crate::{
    config::Config,
    run::premises::{self, PATIENCE},
};

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
                Ok(()) if premises::is_away(file) => found.warn(
                    "file",
                    format!(
                        "{} is not there at present; `run` waits for it only if it was read before",
                        file.path.display()
                    ),
                ),
                Ok(()) if file.path == Path::new("-") => found.ok("file", format!("standard input, {}", up_to(file))),
                Ok(()) => found.ok("file", format!("{}, {}", file.path.display(), up_to(file))),
            },
        }
    }
    pods(config, found);
    archives(config, found);
    alerts(config, found);
    beside(config, found);
}

/// The same principal may come from several clusters, now or later, and is then several identities. Inputs are told of
/// that neither have the key nor, by what was read of them so far, records that are `clustered`.
pub(super) fn clusters(config: &Config, clustered: &[String], found: &mut Findings) {
    let keys = config.kafka.iter().flat_map(|kafka| &kafka.topics).map(|topic| &topic.cluster);
    let keys = keys.chain(config.file.iter().map(|file| &file.cluster));
    let names = config.source_names();
    let is_unnamed = |(name, cluster): &(&String, &String)| cluster.is_empty() && !clustered.contains(name);
    let unnamed: Vec<&str> = names.iter().zip(keys).filter(is_unnamed).map(|(name, _)| name.as_str()).collect();
    if !unnamed.is_empty() {
        let text = format!(
            "{}: no `cluster`; where the records do not name it themselves, set it: the same principal in two clusters is two \
             identities, and without a name it is one",
            unnamed.join(", ")
        );
        found.warn("inputs", text);
    }
}

/// Whether the clusters whose pods are to be watched let Qualm do so.
fn pods(config: &Config, found: &mut Findings) {
    if config.kubernetes.is_empty() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return found.fail("pods", "no runtime to ask the Kubernetes API with") };
    let asked = |section: &KubernetesConfig| {
        runtime.block_on(async {
            let watch = PodWatch::open(section).await?;
            let answer = watch.probe().await;
            answer.map(|()| watch)
        })
    };
    for section in &config.kubernetes {
        match asked(section) {
            Ok(watch) if watch.is_verified() => found.ok("pods", format!("{} tells of its pods", watch.address())),
            Ok(watch) => found.warn(
                "pods",
                format!(
                    "{} tells of its pods, and need not prove who it is; give the kubeconfig its \
                     certificate-authority in place of insecure-skip-tls-verify",
                    watch.address()
                ),
            ),
            // What needs mending keeps nothing else from running, but the section it is.
            Err(error @ KubernetesError::Api { .. }) => found.warn("pods", error.to_string()),
            Err(error) => found.fail("pods", error.to_string()),
        }
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
    registry(kafka, found);
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
}

/// Whether the schema registry of a cluster answers, also to what is shown to it.
fn registry(kafka: &KafkaConfig, found: &mut Findings) {
    if !kafka.registry.is_set() {
        return;
    }
    let client = match Client::new(&kafka.registry) {
        Ok(client) => client,
        Err(error) => return found.fail("registry", error.to_string()),
    };
    match client.probe() {
        Ok(kinds) => found.ok("registry", format!("{}: schemas of {}", kafka.registry.url, kinds.join(", "))),
        Err(error) => found.fail("registry", error.to_string()),
    }
}

fn archives(config: &Config, found: &mut Findings) {
    for file in &config.history.files {
        match premises::archive(file) {
            Ok(()) => found.ok(
                "history",
                format!("{}, {}, to learn from at the first start", file.display(), config.history.format),
            ),
            Err(error) => found.fail("history", error),
        }
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
}

/// Topics beside those of logs: that they are there is all that can be asked.
fn beside(config: &Config, found: &mut Findings) {
    for of in premises::beside(config) {
        match probe_there(of.brokers, of.properties, of.topic, of.keys, PATIENCE) {
            Ok(()) => found.ok(of.section, format!("{}: topic {}, {}, is there", of.brokers, of.topic, of.keys.topic)),
            Err(error) => found.fail(of.section, error.to_string()),
        }
    }
}
