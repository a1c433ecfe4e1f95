//! The trust table goes out once its decision is on disk; scoring does not wait for either.

use qualm_scorer::{
    journal::{Journal, Seq},
    table::{SharedTable, TrustTable},
};
use tokio::sync::{mpsc, watch};

/// A table on its way out.
struct Due {
    table: TrustTable,
    /// The record that must be durable first.
    after: Option<Seq>,
}

/// Publishes tables in the order in which they were handed over.
pub(crate) struct Publisher {
    due: mpsc::UnboundedSender<Due>,
}

impl Publisher {
    /// Starts the task. Tables are as few as verdicts, so that the queue needs no bound of its own.
    pub(crate) fn start(tables: watch::Sender<SharedTable>, journal: Journal) -> Self {
        let (sender, mut due) = mpsc::unbounded_channel::<Due>();
        tokio::spawn(async move {
            while let Some(Due { table, after }) = due.recv().await {
                if let Some(seq) = after
                    && let Err(error) = journal.durable(seq).await
                {
                    // What is not on disk is not acted on: a crash would forget it. What stands keeps standing.
                    tracing::error!(%error, version = table.version, "a decision could not be journalled; not pushed");
                    continue;
                }
                tables.send_replace(table.into());
            }
        });
        Self { due: sender }
    }

    /// Hands over a table, to go out when the record `after` is on disk.
    pub(crate) fn publish(&self, table: TrustTable, after: Option<Seq>) {
        // The task lives as long as the sender.
        let _ = self.due.send(Due { table, after });
    }
}
