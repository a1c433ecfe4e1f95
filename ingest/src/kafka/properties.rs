//! How librdkafka's clients are set up.

use rdkafka::ClientConfig;

use crate::{config::KafkaConfig, source::SourceError};

/// The property that names a member.
const INSTANCE: &str = "group.instance.id";
/// What Qualm must decide itself; another value would lose or repeat records.
const OWN_PROPERTIES: [&str; 5] =
    ["bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof"];
/// What a configuration may change.
const DEFAULTS: [(&str, &str); 6] = [
    ("auto.offset.reset", "earliest"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("queued.max.messages.kbytes", "65536"),
    // A buffer a fetch: small ones are used again, large ones are mapped and cleared by the system each time.
    ("fetch.message.max.bytes", "262144"),
    ("statistics.interval.ms", "5000"),
    ("client.id", "qualm"),
];

/// What consumer and producer share.
pub(super) fn client_config(config: &KafkaConfig) -> Result<ClientConfig, SourceError> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers);
    for (name, value) in &config.properties {
        if OWN_PROPERTIES.contains(&name.as_str()) {
            return Err(wrong_property(config, &format!("`kafka.properties.\"{name}\"` is set by Qualm itself")));
        }
        client.set(name, value);
    }
    Ok(client)
}

pub(super) fn consumer_config(client: &ClientConfig, config: &KafkaConfig) -> ClientConfig {
    let mut consumer = client.clone();
    for (name, value) in DEFAULTS {
        if !config.properties.contains_key(name) {
            consumer.set(name, value);
        }
    }
    consumer.set("group.id", &config.group);
    for switched_off in ["enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof"] {
        consumer.set(switched_off, "false");
    }
    consumer
}

/// With the member's name, unless the configuration has one.
pub(super) fn member_config(client: &ClientConfig, config: &KafkaConfig, instance: &str) -> ClientConfig {
    let mut member = consumer_config(client, config);
    if !instance.is_empty() && !config.properties.contains_key(INSTANCE) {
        member.set(INSTANCE, instance);
    }
    member
}

pub(super) fn wrong_property(config: &KafkaConfig, problem: &str) -> SourceError {
    SourceError {
        origin: config.brokers.clone(),
        problem: problem.to_owned(),
        remedy: "correct `kafka.properties`, see librdkafka's CONFIGURATION.md".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_its_own_name_unless_the_operator_gives_it_another() {
        let name = |config: &KafkaConfig, instance| {
            let client = client_config(config).expect("nothing is wrong with it");
            member_config(&client, config, instance).get(INSTANCE).map(str::to_owned)
        };
        let plain = KafkaConfig::default();
        assert_eq!(name(&plain, "qualm-1").as_deref(), Some("qualm-1"));
        assert_eq!(name(&plain, ""), None);
        let given = KafkaConfig { properties: [(INSTANCE.to_owned(), "qualm-0".to_owned())].into(), ..plain };
        assert_eq!(name(&given, "qualm-1").as_deref(), Some("qualm-0"));
    }
}
