//! The configuration: one strict TOML file, read whole before any port is bound. Each part owns its section.
//!
//! # Layout
//! - [`inputs`]: what inputs and addresses say that cannot be meant

mod inputs;

use std::{
    fs,
    path::{Path, PathBuf},
};

use qualm_ingest::{
    config::{FileConfig, KafkaConfig},
    parse::Format,
};
use qualm_model::{event::Filter, level::Level, time::Span};
use qualm_scorer::{
    config::{Budget, EnforceConfig, Leases, Length, MemoryConfig, ScorerConfig},
    notify::AlertsConfig,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    listen::ListenConfig,
    observability::{ObserveConfig, log::LogConfig},
};

/// Everything that can be configured. `qualm.toml` in the repository has every key with its meaning and default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) kafka: Vec<KafkaConfig>,
    pub(crate) file: Vec<FileConfig>,
    pub(crate) listen: ListenConfig,
    pub(crate) history: HistoryConfig,
    pub(crate) budget: Budget,
    pub(crate) lease: Leases,
    pub(crate) enforce: EnforceConfig,
    pub(crate) memory: MemoryConfig,
    pub(crate) state: StateConfig,
    pub(crate) alerts: AlertsConfig,
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
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { directory: PathBuf::from("qualm-state"), snapshot_every: Length(Span::seconds(10)), journal_mib: 1024 }
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
        if !(self.enforce.max_share > 0.0 && self.enforce.max_share <= 1.0) {
            return Err("[enforce] max_share: must be above 0 and at most 1 (a share of all identities)".to_owned());
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
        inputs::check(self)?;
        self.alerts.validate().map_err(|error| error.to_string())
    }

    /// What the scorer is told.
    pub(crate) fn scorer(&self) -> ScorerConfig {
        ScorerConfig {
            budget: self.budget.clone(),
            lease: self.lease.clone(),
            enforce: self.enforce.clone(),
            memory: self.memory.clone(),
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

    /// The name of each source, by its index, as [`max_levels`](Self::max_levels).
    pub(crate) fn source_names(&self) -> Vec<String> {
        let topic = |kafka: &KafkaConfig, name: &str| format!("topic {name} of {}", kafka.brokers);
        let topics = self.kafka.iter().flat_map(|kafka| kafka.topics.iter().map(move |of| topic(kafka, &of.name)));
        let files = self.file.iter().map(|file| format!("file {}", file.path.display()));
        topics.chain(files).chain(["listen".to_owned()]).collect()
    }

    /// This configuration with the inputs of `running`, which go on as they were started; only the highest levels of
    /// theirs that are still named here are taken over, whatever their order is here.
    pub(crate) fn with_inputs_of(self, running: &Self) -> Self {
        let (mut kafka, mut file) = (running.kafka.clone(), running.file.clone());
        for kafka in &mut kafka {
            for topic in &mut kafka.topics {
                // Brokers may have come and gone in the list of the same cluster.
                let same = self.kafka.iter().filter(|new| new.brokers == kafka.brokers).chain(&self.kafka);
                let mut named = same.flat_map(|new| &new.topics).filter(|new| new.name == topic.name);
                if let Some(new) = named.next() {
                    (topic.max_level, topic.filter) = (new.max_level, new.filter);
                }
            }
        }
        for file in &mut file {
            let named = self.file.iter().find(|new| new.path == file.path);
            if let Some(new) = named {
                (file.max_level, file.filter) = (new.max_level, new.filter);
            }
        }
        Self { kafka, file, ..self }
    }
}

/// The hash under which a configuration is journalled.
pub(crate) fn hash(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Line and column, the key, what is wrong, and the nearest known key or what to write.
fn describe(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().to_owned();
    let place = error.to_string().lines().next().unwrap_or_default().replace("TOML parse error ", "");
    let remedy =
        nearest(&message).map_or_else(|| remedy(&message).to_owned(), |key| format!("; did you mean `{key}`?"));
    let key = error.span().and_then(|span| key_at(text, span.start)).filter(|_| !message.starts_with("unknown"));
    let key = key.map_or_else(String::new, |key| format!("`{key}`: "));
    format!("{place}: {key}{message}{remedy}")
}

/// What to write where a value is of another type, or stands twice.
fn remedy(message: &str) -> &'static str {
    let expects = |words: &[&str]| words.iter().any(|word| message.ends_with(&format!("expected {word}")));
    if message.starts_with("duplicate key") {
        return "; it stands here for the second time, keep one of the two";
    }
    if message.contains("invalid socket address syntax") {
        return "; write host:port, for example 127.0.0.1:9464 (the host as an IP address, not by name)";
    }
    if expects(&["usize", "u16", "u32", "u64"]) {
        return "; write a whole number without unit and quotes, as 1024";
    }
    if expects(&["f64"]) { "; write a number without unit and quotes, as 0.5" } else { "" }
}

/// The key, or the section, of the line in which a place lies.
fn key_at(text: &str, place: usize) -> Option<&str> {
    let begin = text.get(..place)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(begin..)?.lines().next()?.trim();
    if line.starts_with('[') {
        return Some(line);
    }
    let (key, _) = line.split_once('=')?;
    Some(key.trim())
}

/// From `unknown field `budgett`, expected one of `a`, `b``: the expected word that the unknown one
/// begins, else the one that a few typing errors make of it, one in three letters at most.
fn nearest(message: &str) -> Option<String> {
    if !message.starts_with("unknown") {
        return None;
    }
    let mut words = message.split('`').skip(1).step_by(2);
    let wrong = words.next()?;
    let known: Vec<&str> = words.collect();
    if let Some(begun) = known.iter().find(|word| wrong.len() > 1 && word.starts_with(wrong)) {
        return Some((*begun).to_owned());
    }
    let bearable = wrong.chars().count() / 3;
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(wrong, word), word))
        .min()
        .filter(|(distance, _)| *distance <= bearable)
        .map(|(_, word)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../qualm.toml");

    /// The text with its defaults in force: lines `#key = value`.
    fn defaults() -> String {
        let key = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase());
        TEXT.lines().map(|line| line.strip_prefix('#').filter(key).unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }

    /// The text with its examples in force: lines `#   …`.
    fn examples() -> String {
        TEXT.lines().map(|line| line.strip_prefix("#   ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }

    /// What may stand where `fragment` says `?`, in serde's own words.
    fn known(fragment: &str) -> Vec<String> {
        let error = toml::from_str::<Config>(&fragment.replace('?', "\"no such key\" = 0")).expect_err("no such key");
        let words: Vec<String> = error.message().split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert_eq!(words[0], "no such key", "{error}");
        words[1..].to_vec()
    }

    /// Whether `key` stands in a section of the file, as a default or as an example.
    fn stands(section: &str, key: &str) -> bool {
        let mut here = String::new();
        TEXT.lines().map(|line| line.trim_start_matches(['#', ' '])).any(|line| {
            if line.starts_with('[') && line.ends_with(']') {
                here = line.trim_matches(['[', ']']).to_owned();
            }
            here == section && line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "))
        })
    }

    #[test]
    fn qualm_toml_has_every_key_and_equals_the_defaults() {
        let config = Config::parse(&defaults()).expect("qualm.toml is valid");
        assert_eq!(config, Config::default());
        let fragments = known("?").into_iter().map(|section| match section.as_str() {
            "kafka" | "file" => (format!("[[{section}]]\n?"), section),
            _ => (format!("[{section}]\n?"), section),
        });
        for (fragment, section) in fragments.chain([("[alerts.kafka]\n?".to_owned(), "alerts.kafka".to_owned())]) {
            for key in known(&fragment) {
                let is_section = section == "alerts" && key == "kafka";
                assert!(is_section || stands(&section, &key), "qualm.toml: [{section}] has no {key}");
            }
        }
        for key in known("[[kafka]]\ntopics = [{ ? }]") {
            assert!(TEXT.contains(&format!("{key} = ")), "qualm.toml: no topic has {key}");
        }
        for key in known("[[kafka]]\nregistry = { ? }") {
            let is_there = TEXT.contains(&format!("{key} = ")) || TEXT.contains(&format!("`{key}`"));
            assert!(is_there, "qualm.toml: no registry has {key}");
        }
    }

    #[test]
    fn the_examples_in_qualm_toml_are_valid_and_show_the_defaults_of_inputs() {
        let config = Config::parse(&examples()).expect("its examples are valid");
        assert!(config.listen.address.is_some() && config.alerts.kafka.is_some() && !config.history.files.is_empty());
        let [kafka] = config.kafka.try_into().expect("one example of [[kafka]]");
        let [file] = config.file.try_into().expect("one example of [[file]]");
        assert!(!kafka.topics.is_empty() && !kafka.properties.is_empty() && file.mapping.is_some());
        let unset = KafkaConfig::default();
        assert!(kafka.registry.is_set());
        let KafkaConfig { topics, properties, registry, .. } = unset.clone();
        assert_eq!(KafkaConfig { topics, properties, registry, ..kafka }, unset);
        assert_eq!(FileConfig { mapping: None, max_level: None, ..file }, FileConfig::default());
    }

    #[test]
    fn a_reload_finds_the_levels_of_running_inputs_by_name() {
        let parse = |text: &str| Config::parse(text).expect("it is valid");
        let topic = |name: &str, level: &str| format!("{{ name = \"{name}\", format = \"istio_json\"{level} }}");
        let watched = ", max_level = \"watched\"";
        let running = parse(&format!("[[kafka]]\ntopics = [{}, {}]\n", topic("a", ""), topic("b", "")));
        let reordered = parse(&format!("[[kafka]]\ntopics = [{}, {}]\n", topic("b", watched), topic("c", "")));
        let next = reordered.with_inputs_of(&running);
        assert_eq!(next.max_levels(), [Level::Quarantined, Level::Watched, Level::Quarantined]);
        assert_eq!(next.source_names(), running.source_names());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let error = Config::parse("[budget]\nwatchd_per_day = 3\n").expect_err("unknown key");
        assert!(error.contains("line 2") && error.contains("`watched_per_day`"), "{error}");
    }

    #[test]
    fn a_guess_is_made_from_the_begin_of_a_word_or_a_typing_error_and_from_nothing_else() {
        for (text, guess) in [
            ("[budget]\nrestricted = 3\n", Some("did you mean `restricted_per_week`?")),
            ("[[file]]\npath = \"x\"\nformat = \"zeek\"\n", Some("did you mean `zeek_json`?")),
            ("[budget]\nxyz = 3\n", None),
        ] {
            let error = Config::parse(text).expect_err(text);
            match guess {
                Some(guess) => assert!(error.contains(guess), "{error}"),
                None => assert!(!error.contains("did you mean"), "{error}"),
            }
        }
    }

    #[test]
    fn an_address_without_a_port_and_a_budget_are_told_by_what_to_write() {
        let error = Config::parse("[observe]\naddress = \"localhost\"\n").expect_err("no address");
        assert!(error.contains("`address`") && error.contains("127.0.0.1:9464"), "{error}");
        let error = Config::parse("[budget]\nquarantined_per_month = 0\n").expect_err("zero");
        assert!(error.contains("[budget] quarantined_per_month"), "{error}");
        let error = Config::parse("[lease]\nthrottled = \"-5m\"\n").expect_err("negative");
        assert!(error.contains("from \"0s\" to \"400d\""), "{error}");
    }

    #[test]
    fn a_wrong_unit_and_an_absurd_budget_are_refused_with_the_remedy() {
        let error = Config::parse("[lease]\nquarantined = \"1 fortnight\"\n").expect_err("wrong unit");
        assert!(error.contains("\"15m\""), "{error}");
        let error = Config::parse("[budget]\nwatched_per_day = 0\n").expect_err("zero");
        assert!(error.contains("above 0"), "{error}");
        for (text, words) in [
            ("[enforce]\nmax_age = 2\n", &["line 2", "`max_age`", "with its unit", "\"30s\""][..]),
            ("[memory]\nbaselines_mib = \"1GiB\"\n", &["line 2", "`baselines_mib`", "a whole number without unit"]),
            ("[budget]\nwatched_per_day = \"3\"\n", &["line 2", "`watched_per_day`", "a number without unit"]),
        ] {
            let error = Config::parse(text).expect_err(text);
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn a_key_or_a_section_that_stands_twice_is_named() {
        for (text, words) in [
            ("[enforce]\nmode = \"shadow\"\nmode = \"enforce\"\n", ["line 3", "`mode`", "keep one of the two"]),
            ("[budget]\n[log]\n[budget]\n", ["line 3", "`[budget]`", "keep one of the two"]),
        ] {
            let error = Config::parse(text).expect_err(text);
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn a_lease_or_an_age_of_nothing_is_refused_with_what_to_write() {
        for (text, words) in [
            ("[lease]\nthrottled = \"0s\"\n", ["[lease] throttled", "at least \"1s\""]),
            ("[enforce]\nmax_age = \"0m\"\n", ["[enforce] max_age", "mode = \"shadow\""]),
        ] {
            let error = Config::parse(text).expect_err(text);
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn a_level_of_the_log_that_is_none_is_refused_with_the_nearest() {
        for (level, words) in [
            ("inof", "did you mean `info`"),
            ("loud", "write error, warn"),
            ("info,rdkafka=lodu", "write error, warn"),
            ("", "write error, warn"),
        ] {
            let error = Config::parse(&format!("[log]\nlevel = \"{level}\"\n")).expect_err(level);
            assert!(error.contains("[log] level") && error.contains(words), "{error}");
        }
        for level in ["info", "WARN", "off", "info,rdkafka=warn", "info,qualm::run=debug"] {
            assert!(Config::parse(&format!("[log]\nlevel = \"{level}\"\n")).is_ok(), "{level}");
        }
    }
}
