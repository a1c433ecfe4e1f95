//! The sections of the configuration that belong to the inputs: `[[kafka]]` and `[[file]]`.

mod registry;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use qualm_model::{event::Filter, level::Level};
use serde::{Deserialize, Serialize};

pub use self::registry::{InvalidRegistry, RegistryConfig};
use crate::{
    envelope::Envelope,
    parse::{DEFAULT_MAX_RECORD_BYTES, Format, Parser, mapped::Mapping},
};

/// Shippers flush every few seconds and make up for minutes after a restart.
const DEFAULT_LATENESS_S: u32 = 300;

/// One `[[kafka]]` section: a consumer group on one Kafka cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `host:port` of one or more brokers, separated by commas.
    pub brokers: String,
    /// Consumer group.
    pub group: String,
    /// Topics and what is in them.
    pub topics: Vec<TopicConfig>,
    /// Further properties, passed to librdkafka as they are: `security.protocol`, `sasl.*`, `ssl.*`, `fetch.*`.
    pub properties: BTreeMap<String, String>,
    /// Where the schemas of Avro and Protobuf records are.
    pub registry: RegistryConfig,
    /// Topic for samples of records that could not be read; empty for none.
    pub dead_letter_topic: String,
    /// Samples a minute; more are counted and dropped.
    pub dead_letters_per_minute: u32,
    /// Longer records are invalid.
    pub max_record_bytes: usize,
    /// Records a batch at most.
    pub batch_records: usize,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            group: "qualm".to_owned(),
            topics: Vec::new(),
            properties: BTreeMap::new(),
            registry: RegistryConfig::default(),
            dead_letter_topic: String::new(),
            dead_letters_per_minute: 60,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
            batch_records: 4096,
        }
    }
}

/// One topic: `topics = [{ name = "…", format = "…" }]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicConfig {
    /// Its name.
    pub name: String,
    /// What its records are; found out, record by record, where it is left out.
    #[serde(default)]
    pub format: Format,
    /// The mapping file, for `mapped`.
    #[serde(default)]
    pub mapping: Option<PathBuf>,
    /// The highest level that evidence from it may lead to; `quarantined`, or `watched` for `mapped`.
    #[serde(default)]
    pub max_level: Option<Level>,
    /// What is left out of it.
    #[serde(default)]
    pub filter: Filter,
    /// The part of the calls that a sample has, above 0; 1 where nobody knows.
    #[serde(default = "default_sampled_share")]
    pub sampled_share: f64,
    /// What its records are wrapped in.
    #[serde(default)]
    pub envelope: Envelope,
    /// The cluster that its records are from, whatever they say themselves; empty where they say it.
    #[serde(default)]
    pub cluster: String,
    /// Containers whose lines are a proxy's, beside those that meshes are known to have.
    #[serde(default)]
    pub proxies: Vec<String>,
    /// Seconds of event time by which a record may be behind what was read before it and still be learned.
    #[serde(default = "default_lateness_s")]
    pub lateness_s: u32,
}

impl TopicConfig {
    /// A topic with nothing said of it but what is in it.
    pub fn new(name: impl Into<String>, format: Format) -> Self {
        Self {
            name: name.into(),
            format,
            mapping: None,
            max_level: None,
            filter: Filter::None,
            sampled_share: default_sampled_share(),
            envelope: Envelope::default(),
            cluster: String::new(),
            proxies: Vec::new(),
            lateness_s: DEFAULT_LATENESS_S,
        }
    }

    /// The highest level that evidence from this topic may lead to.
    pub fn max_level(&self) -> Level {
        max_level(self.max_level, self.format)
    }
}

/// One `[[file]]` section: a file, or standard input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    /// Path; `-` is standard input. `.gz` and `.zst` are recognised by their first bytes.
    pub path: PathBuf,
    /// What its lines are; found out, line by line, where it is left out.
    pub format: Format,
    /// The mapping file, for `mapped`.
    pub mapping: Option<PathBuf>,
    /// Whether to wait for more at the end, through rotation and truncation. Plain files only.
    pub follow: bool,
    /// The highest level that evidence from it may lead to; `quarantined`, or `watched` for `mapped`.
    pub max_level: Option<Level>,
    /// What is left out of it.
    pub filter: Filter,
    /// The part of the calls that a sample has, above 0; 1 where nobody knows.
    pub sampled_share: f64,
    /// What its lines are wrapped in.
    pub envelope: Envelope,
    /// The cluster that its lines are from, whatever they say themselves; empty where they say it.
    pub cluster: String,
    /// Containers whose lines are a proxy's, beside those that meshes are known to have.
    pub proxies: Vec<String>,
    /// Seconds of event time by which a line may be behind what was read before it and still be learned.
    pub lateness_s: u32,
    /// Longer lines are invalid.
    pub max_record_bytes: usize,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("-"),
            format: Format::Auto,
            mapping: None,
            follow: false,
            max_level: None,
            filter: Filter::None,
            sampled_share: default_sampled_share(),
            envelope: Envelope::default(),
            cluster: String::new(),
            proxies: Vec::new(),
            lateness_s: DEFAULT_LATENESS_S,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
        }
    }
}

impl FileConfig {
    /// The highest level that evidence from this file may lead to.
    pub fn max_level(&self) -> Level {
        max_level(self.max_level, self.format)
    }
}

fn default_sampled_share() -> f64 {
    1.0
}

fn default_lateness_s() -> u32 {
    DEFAULT_LATENESS_S
}

fn max_level(configured: Option<Level>, format: Format) -> Level {
    configured.unwrap_or(if format == Format::Mapped { Level::Watched } else { Level::Quarantined })
}

/// A format that cannot be set up; names the file or key, and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct InvalidInput {
    /// Topic, file or mapping file.
    pub origin: String,
    /// What is wrong and how to mend it.
    pub problem: String,
}

/// The parser of a configured input; reads the mapping file where there is one.
pub fn parser(
    origin: &str,
    format: Format,
    mapping: Option<&Path>,
    max_record_bytes: usize,
) -> Result<Parser, InvalidInput> {
    let mapping = mapping.map(read_mapping).transpose()?;
    let parser = Parser::for_format(format, mapping)
        .map_err(|error| InvalidInput { origin: origin.to_owned(), problem: error.to_string() })?;
    Ok(parser.with_max_record_bytes(max_record_bytes))
}

/// Reads a mapping file.
pub fn read_mapping(path: &Path) -> Result<Mapping, InvalidInput> {
    let invalid = |problem: String| InvalidInput { origin: path.display().to_string(), problem };
    let text = std::fs::read_to_string(path)
        .map_err(|error| invalid(format!("the mapping file cannot be read: {error}; check path and permissions")))?;
    text.parse().map_err(|error| invalid(format!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inputs {
        #[serde(default)]
        kafka: Vec<KafkaConfig>,
        #[serde(default)]
        file: Vec<FileConfig>,
    }

    #[test]
    fn sections_have_defaults_and_refuse_unknown_keys() {
        let inputs: Inputs = toml::from_str(
            r#"
            [[kafka]]
            brokers = "kafka:9092"
            topics = [{ name = "mesh" }, { name = "sales", format = "mapped", mapping = "m" }]
            [kafka.properties]
            "security.protocol" = "ssl"
            [[file]]
            path = "access.log"
            format = "istio_text"
            max_level = "watched"
            envelope = "/event/original"
            cluster = "north"
            "#,
        )
        .expect("a valid configuration");
        let (kafka, file) = (&inputs.kafka[0], &inputs.file[0]);
        assert_eq!((kafka.group.as_str(), kafka.topics[0].max_level()), ("qualm", Level::Quarantined));
        assert_eq!(kafka.topics[1].max_level(), Level::Watched);
        assert_eq!((file.follow, file.max_level()), (false, Level::Watched));
        assert_eq!((kafka.topics[0].format, FileConfig::default().format), (Format::Auto, Format::Auto));
        assert_eq!(kafka.topics[0].envelope, Envelope::Auto);
        assert_eq!(file.envelope, Envelope::Pointer("/event/original".to_owned()));
        let error = toml::from_str::<Inputs>("[[file]]\nenvelope = \"cri\"").expect_err("no such envelope").to_string();
        assert!(error.contains("`cri` is no envelope"), "{error}");
        let error = toml::from_str::<Inputs>("[[file]]\npth = \"x\"").expect_err("no such key").to_string();
        assert!(error.contains("unknown field `pth`"), "{error}");
    }
}
