//! The process's own log: to standard error, as text for people or JSON for machines.

use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Layer, Registry, filter::ParseError, fmt, layer::SubscriberExt};

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

    /// Sets up the log of this process.
    ///
    /// # Errors
    /// When the level is no filter, or the log is set up already.
    pub(crate) fn init(&self) -> Result<(), LogError> {
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
