//! The process's own log: to standard error, as text for people or JSON for machines.

use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, ParseError},
    fmt,
    layer::SubscriberExt,
};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`; also by module: `info,rdkafka=warn`.
    pub level: String,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A log that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The filter cannot be read.
    #[error("[log] level = \"{level}\": {source}; write error, warn, info, debug or trace, or info,rdkafka=warn")]
    Level {
        /// What the section says.
        level: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A word is neither a level nor `module=level`.
    #[error(
        "[log] level = \"{level}\": `{word}` is no level{suggestion}; write error, warn, info, debug or trace, or by \
         module as in info,rdkafka=warn"
    )]
    Word {
        /// What the section says.
        level: String,
        /// The word.
        word: String,
        /// The nearest level, in words.
        suggestion: String,
    },
    /// Somebody was first.
    #[error("the log is set up already")]
    Twice,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl LogConfig {
    /// Reads the level without setting anything up.
    ///
    /// # Errors
    /// When it is no filter.
    pub(crate) fn filter(&self) -> Result<EnvFilter, LogError> {
        EnvFilter::builder().parse(&self.level).map_err(|source| LogError::Level { level: self.level.clone(), source })
    }

    /// Checks the level. To the filter a word that is no level is the name of a module of which everything is told: it
    /// is a typing error here.
    ///
    /// # Errors
    /// When a part of it is neither a level nor `module=level`.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        for word in self.level.split(',').map(str::trim) {
            if word.contains('=') || word.parse::<LevelFilter>().is_ok() && !word.is_empty() {
                continue;
            }
            let distance = |level: &&str| strsim::damerau_levenshtein(level, &word.to_lowercase());
            let nearest = LEVELS.into_iter().filter(|level| distance(level) <= 2).min_by_key(distance);
            return Err(LogError::Word {
                level: self.level.clone(),
                word: word.to_owned(),
                suggestion: nearest.map_or_else(String::new, |level| format!(" (did you mean `{level}`?)")),
            });
        }
        self.filter().map(drop)
    }

    /// Sets up the log of this process.
    ///
    /// # Errors
    /// When the level is no filter, or the log is set up already.
    pub(crate) fn init(&self) -> Result<(), LogError> {
        self.check()?;
        let subscriber = self.subscriber(io::stderr, Colour::of_stderr())?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)
    }

    pub(super) fn subscriber<W>(
        &self,
        writer: W,
        colour: Colour,
    ) -> Result<impl tracing::Subscriber + Send + Sync + use<W>, LogError>
    where
        W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
    {
        let lines = fmt::layer().with_writer(writer);
        let lines: Box<dyn Layer<Registry> + Send + Sync> = match self.format {
            LogFormat::Text => lines.with_ansi(colour == Colour::On).with_target(false).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        Ok(Registry::default().with(lines.with_filter(self.filter()?)))
    }
}

/// Whether text may carry escape sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    On,
    Off,
}

impl Colour {
    fn of_stderr() -> Self {
        if io::stderr().is_terminal() { Self::On } else { Self::Off }
    }
}
