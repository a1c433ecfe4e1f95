//! Alerts as JSON lines on standard output.

use std::io::{self, Write};

use super::{Alert, Sink, SinkError};

pub(super) const NAME: &str = "stdout";

/// Writes one line an alert to standard output.
#[derive(Debug)]
pub struct StdoutSink;

impl Sink for StdoutSink {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn deliver(&mut self, alert: &Alert) -> Result<(), SinkError> {
        let line = format!("{}\n", alert.json);
        // A reader that does not read holds back this task only.
        let written = tokio::task::spawn_blocking(move || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush())
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SinkError::Unavailable(error.to_string())),
            Err(error) => Err(SinkError::Unavailable(error.to_string())),
        }
    }
}
