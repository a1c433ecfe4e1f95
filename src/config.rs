//! The configuration: one strict TOML file, read whole before any port is bound. Each part owns its section.
//!
//! # Layout
//! - [`inputs`]: what inputs and addresses say that cannot be meant
//! - [`mistake`]: how a mistake in the text is told

mod inputs;
mod mistake;

use std::{
    fs,
    path::{Path, PathBuf},
};

use qualm_hooks::{config::HookConfig, policy::ResponseConfig};
use qualm_ingest::{
    config::{FileConfig, KafkaConfig},
    kubernetes::KubernetesConfig,
    parse::Format,
};
use qualm_model::{event::Filter, level::Level, time::Span};
use qualm_scorer::{
    config::{Budget, EnforceConfig, LearningConfig, Leases, Length, MemoryConfig, ScorerConfig},
    enforce::istio::IstioConfig,
    notify::AlertsConfig,
    peers::{Model, ModelError, PeersFrom},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::mistake::describe;
use crate::{
    announcements::AnnouncementsConfig,
    listen::ListenConfig,
    observability::{ObserveConfig, log::LogConfig},
    signals::SignalsConfig,
};

/// Everything that can be configured. `qualm.toml` in the repository has every key with its meaning and default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) kafka: Vec<KafkaConfig>,
    pub(crate) file: Vec<FileConfig>,
    pub(crate) kubernetes: Vec<KubernetesConfig>,
    pub(crate) announcements: AnnouncementsConfig,
    pub(crate) listen: ListenConfig,
    pub(crate) history: HistoryConfig,
    pub(crate) budget: Budget,
    pub(crate) lease: Leases,
    pub(crate) enforce: EnforceConfig,
    pub(crate) istio: Vec<IstioConfig>,
    pub(crate) hook: Vec<HookConfig>,
    pub(crate) response: ResponseConfig,
    pub(crate) memory: MemoryConfig,
    pub(crate) learning: LearningConfig,
    pub(crate) peers: PeersConfig,
    pub(crate) state: StateConfig,
    pub(crate) alerts: AlertsConfig,
    pub(crate) signals: SignalsConfig,
    pub(crate) observe: ObserveConfig,
    pub(crate) log: LogConfig,
}

/// `[history]`: what is read first, to learn, and never acted on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HistoryConfig {
    /// How far back a topic is read where no position is known.
    pub(crate) since: Length,
    /// Records older than this when they are read are invalid, except in `files`.
    pub(crate) oldest: Length,
    /// How long reading `files` may take.
    pub(crate) max_duration: Length,
    /// Archived access logs that are read before everything else at the first start.
    pub(crate) files: Vec<PathBuf>,
    /// What is in those files.
    pub(crate) format: Format,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            since: Length(Span(14 * Span::DAY.0)),
            oldest: Length(Span(400 * Span::DAY.0)),
            max_duration: Length(Span::HOUR),
            files: Vec::new(),
            format: Format::Auto,
        }
    }
}

/// `[peers]`: what an identity's ten minutes are held against beside its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PeersConfig {
    /// A model file of `lab fit`; none where it is empty.
    pub(crate) model: PathBuf,
    /// Whether peers are fitted in the background where there is no model file.
    pub(crate) background: bool,
}

impl PeersConfig {
    /// The model file, read and checked, where there is one.
    pub(crate) fn read(&self) -> Result<Option<Model>, ModelError> {
        (!self.model.as_os_str().is_empty()).then(|| Model::read(&self.model)).transpose()
    }

    /// Where peers come from, by the model file that was read.
    pub(crate) fn from<'a>(&self, model: Option<&'a Model>) -> PeersFrom<'a> {
        match model {
            Some(model) => PeersFrom::File(model),
            None if self.background => PeersFrom::Background,
            None => PeersFrom::Nowhere,
        }
    }
}

/// `[state]`: where snapshots and the journal live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StateConfig {
    /// Directory of snapshot and journal.
    pub(crate) directory: PathBuf,
    /// How often a snapshot is written.
    pub(crate) snapshot_every: Length,
    /// MiB that the journal keeps.
    pub(crate) journal_mib: u64,
    /// The private key that signs the journal; `journal.key` in the directory where not said.
    pub(crate) journal_key: Option<PathBuf>,
}

impl StateConfig {
    /// The file of the private key that signs the journal.
    pub(crate) fn journal_key(&self) -> PathBuf {
        self.journal_key.clone().unwrap_or_else(|| self.directory.join("journal.key"))
    }
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("qualm-state"),
            snapshot_every: Length(Span::seconds(10)),
            journal_mib: 1024,
            journal_key: None,
        }
    }
}

/// A configuration that cannot be used: file, line, key and remedy in one sentence.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub(crate) struct InvalidConfig {
    file: String,
    problem: String,
}

impl Config {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<(Self, String), InvalidConfig> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| InvalidConfig {
            file: file.clone(),
            problem: format!("cannot be read: {error}; give another with --config, or start from qualm.toml"),
        })?;
        let config = Self::parse(&text).map_err(|problem| InvalidConfig { file, problem })?;
        Ok((config, hash(&text)))
    }

    /// Reads and checks a text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| describe(&error, text))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        for level in Level::BY_BEHAVIOUR {
            let budget = self.budget.per_day(level);
            if !(budget > 0.0 && budget <= 10_000.0) {
                return Err(format!(
                    "[budget] {}: {budget} entries a day is not a budget; it must be above 0 and at most 10000 a day",
                    Budget::key(level)
                ));
            }
        }
        for level in Level::BY_BEHAVIOUR {
            if self.lease.of(level) < Span::SECOND {
                return Err(format!("[lease] {level}: an entry without a lease would never stand; at least \"1s\""));
            }
        }
        if self.enforce.max_age.0 < Span::SECOND {
            return Err(
                "[enforce] max_age: at least \"1s\" is needed, as no verdict is younger than its event; to act \
                        on nothing, set mode = \"shadow\""
                    .to_owned(),
            );
        }
        let shares = [
            ("max_share", self.enforce.max_share, "all identities"),
            ("max_replica_share", self.enforce.max_replica_share, "the healthy replicas of a service"),
            ("max_traffic_share", self.enforce.max_traffic_share, "the mesh's usual calls"),
        ];
        for (key, share, of) in shares {
            if !(share > 0.0 && share <= 1.0) {
                return Err(format!("[enforce] {key}: must be above 0 and at most 1 (a share of {of})"));
            }
        }
        if self.memory.baselines_mib < 16 {
            return Err("[memory] baselines_mib: at least 16 are needed".to_owned());
        }
        self.log.check().map_err(|error| error.to_string())?;
        if self.history.since.0 > self.history.oldest.0 {
            return Err("[history] oldest: must be as long ago as `since` at least, or its first records are refused"
                .to_owned());
        }
        if self.state.journal_mib < 16 {
            return Err("[state] journal_mib: at least 16 are needed".to_owned());
        }
        self.learning.check()?;
        inputs::check(self)?;
        self.signals.check()?;
        self.response.check()?;
        qualm_hooks::config::check(&self.hook).map_err(|error| error.to_string())?;
        self.alerts.validate().map_err(|error| error.to_string())
    }

    /// What the scorer is told.
    pub(crate) fn scorer(&self) -> ScorerConfig {
        ScorerConfig {
            budget: self.budget.clone(),
            lease: self.lease.clone(),
            enforce: self.enforce.clone(),
            memory: self.memory.clone(),
            learning: self.learning.clone(),
        }
    }

    /// The highest level of each source, by its index: topics, then files, then the listener.
    pub(crate) fn max_levels(&self) -> Vec<Level> {
        let topics = self.kafka.iter().flat_map(|kafka| kafka.topics.iter().map(|topic| topic.max_level()));
        let files = self.file.iter().map(FileConfig::max_level);
        topics.chain(files).chain([Level::Quarantined]).collect()
    }

    /// What is left out of each source, by its index.
    pub(crate) fn filters(&self) -> Vec<Filter> {
        let topics = self.kafka.iter().flat_map(|kafka| kafka.topics.iter().map(|topic| topic.filter));
        topics.chain(self.file.iter().map(|file| file.filter)).collect()
    }

    /// Calls that a record stands for, where it stands for most: a call of which a tenth is logged counts ten times where
    /// its number leaves Qualm. Infinite where every input leaves out so many as nobody has said.
    pub(crate) fn calls_a_record(&self) -> f64 {
        let topics = self.kafka.iter().flat_map(|kafka| kafka.topics.iter().map(|of| (of.filter, of.sampled_share)));
        let files = self.file.iter().map(|file| (file.filter, file.sampled_share));
        let pushed = self.listen.address.map(|_| (Filter::None, 1.0));
        let calls = |(filter, share): (Filter, f64)| match filter {
            Filter::None => 1.0,
            Filter::Sampled if share < 1.0 => share.recip(),
            Filter::Sampled | Filter::Errors | Filter::Slow => f64::INFINITY,
        };
        let all: Vec<f64> = topics.chain(files).chain(pushed).map(calls).collect();
        let known = all.iter().copied().filter(|calls| calls.is_finite());
        known.max_by(f64::total_cmp).unwrap_or(if all.is_empty() { 1.0 } else { f64::INFINITY })
    }

    /// How late the records of each source may come and still be learned, by its index; the listener's have the default.
    pub(crate) fn latenesses(&self) -> Vec<Span> {
        let topics = self.kafka.iter().flat_map(|kafka| kafka.topics.iter().map(|topic| topic.lateness_s));
        topics.chain(self.file.iter().map(|file| file.lateness_s)).map(|s| Span::seconds(i64::from(s))).collect()
    }

    /// The name of each source, by its index, as [`max_levels`](Self::max_levels).
    pub(crate) fn source_names(&self) -> Vec<String> {
        let topic = |kafka: &KafkaConfig, name: &str| format!("topic {name} of {}", kafka.brokers);
        let topics = self.kafka.iter().flat_map(|kafka| kafka.topics.iter().map(move |of| topic(kafka, &of.name)));
        let files = self.file.iter().map(|file| format!("file {}", file.path.display()));
        topics.chain(files).chain(["listen".to_owned()]).collect()
    }

    /// This configuration with the inputs, and the watched clusters, of `running`, which go on as they were started; only the highest levels of
    /// theirs that are still named here are taken over, whatever their order is here.
    pub(crate) fn with_inputs_of(self, running: &Self) -> Self {
        let (mut kafka, mut file) = (running.kafka.clone(), running.file.clone());
        for kafka in &mut kafka {
            for topic in &mut kafka.topics {
                // Brokers may have come and gone in the list of the same cluster.
                let same = self.kafka.iter().filter(|new| new.brokers == kafka.brokers).chain(&self.kafka);
                let mut named = same.flat_map(|new| &new.topics).filter(|new| new.name == topic.name);
                if let Some(new) = named.next() {
                    (topic.max_level, topic.lateness_s) = (new.max_level, new.lateness_s);
                    (topic.filter, topic.sampled_share) = (new.filter, new.sampled_share);
                }
            }
        }
        for file in &mut file {
            let named = self.file.iter().find(|new| new.path == file.path);
            if let Some(new) = named {
                (file.max_level, file.lateness_s) = (new.max_level, new.lateness_s);
                (file.filter, file.sampled_share) = (new.filter, new.sampled_share);
            }
        }
        Self {
            kafka,
            file,
            kubernetes: running.kubernetes.clone(),
            announcements: running.announcements.clone(),
            istio: running.istio.clone(),
            hook: running.hook.clone(),
            ..self
        }
    }
}

/// The hash under which a configuration is journalled.
pub(crate) fn hash(text: &str) -> String {
    const_hex::encode(&Sha256::digest(text)[..8])
}

#[cfg(test)]
mod tests;
