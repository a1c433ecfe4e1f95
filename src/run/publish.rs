//! The trust table goes out once its decisions are on disk; scoring does not wait for either.
//!
//! What could not be journalled is not acted on, in no later table either: a crash would forget it. Until its record
//! is on disk, its identity is told as it stood, or as a shadow; the loop takes it back and journals it again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use qualm_model::level::Level;
use qualm_scorer::{
    journal::{Journal, Seq},
    table::{SharedTable, TrustEntry, TrustTable},
    verdict::Verdict,
};
use tokio::sync::{mpsc, watch};

/// How often what the disk refused is journalled again.
const AGAIN: Duration = Duration::from_secs(1);

/// A decision that must be on disk before enforcement points hear of it.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) verdict: Verdict,
    /// Its record; `None` where it could not be appended.
    pub(crate) seq: Option<Seq>,
}

/// A table on its way out.
struct Due {
    table: TrustTable,
    owed: Vec<Owed>,
}

/// Publishes tables in the order in which they were handed over.
pub(crate) struct Publisher {
    due: mpsc::UnboundedSender<Due>,
    refused: mpsc::UnboundedReceiver<Verdict>,
    next_again: Instant,
}

impl Publisher {
    /// Starts the task. Tables are as few as verdicts, so that the queue needs no bound of its own.
    pub(crate) fn start(tables: watch::Sender<SharedTable>, journal: Journal) -> Self {
        let (sender, mut due) = mpsc::unbounded_channel::<Due>();
        let (back, refused) = mpsc::unbounded_channel();
        let mut outlet = Outlet { tables, journal, held: BTreeSet::new(), back };
        tokio::spawn(async move {
            while let Some(Due { table, owed }) = due.recv().await {
                outlet.settle(owed).await;
                outlet.send(table);
            }
        });
        Self { due: sender, refused, next_again: Instant::now() }
    }

    /// Hands over a table, to go out when what is owed is on disk.
    pub(crate) fn publish(&self, table: TrustTable, owed: Vec<Owed>) {
        // The task lives as long as the sender.
        let _ = self.due.send(Due { table, owed });
    }

    /// Decisions that are not on disk, now and then: where they still stand they are to be journalled and handed over
    /// again.
    pub(crate) fn refused(&mut self) -> Vec<Verdict> {
        if Instant::now() < self.next_again {
            return Vec::new();
        }
        let refused: Vec<_> = std::iter::from_fn(|| self.refused.try_recv().ok()).collect();
        if !refused.is_empty() {
            self.next_again = Instant::now() + AGAIN;
        }
        refused
    }
}

/// The task's own.
struct Outlet {
    tables: watch::Sender<SharedTable>,
    journal: Journal,
    /// Decisions whose record is not on disk.
    held: BTreeSet<String>,
    back: mpsc::UnboundedSender<Verdict>,
}

impl Outlet {
    /// Waits until it is known of each record whether it is on disk.
    async fn settle(&mut self, owed: Vec<Owed>) {
        for Owed { verdict, seq } in owed {
            let refused = match seq {
                Some(seq) => self.journal.durable(seq).await.err().map(|error| error.to_string()),
                None => Some("it could not be appended".to_owned()),
            };
            let Some(error) = refused else {
                self.held.remove(&verdict.decision);
                continue;
            };
            // What leads below has nothing to hold back: the lease of what stood has ended.
            if !is_synced_first(verdict.level) {
                continue;
            }
            if self.held.insert(verdict.decision.clone()) {
                tracing::error!(error, decision = verdict.decision, "a decision could not be journalled; not pushed");
            }
            // The loop may be about to stop.
            let _ = self.back.send(verdict);
        }
    }

    fn send(&mut self, mut table: TrustTable) {
        self.held.retain(|decision| table.entries.iter().any(|entry| entry.decision == *decision));
        let sent = self.tables.borrow().clone();
        let decisions: BTreeSet<String> = table.entries.iter().map(|entry| entry.decision.clone()).collect();
        for entry in table.entries.iter_mut().filter(|entry| self.held.contains(&entry.decision)) {
            *entry = without(entry, &sent, &decisions);
        }
        table.entries.sort_by(|a, b| (&a.subject, &a.object).cmp(&(&b.subject, &b.object)));
        // A decision that was not journalled has no number of its own; the table is another one all the same.
        if table.version <= sent.version && table.entries != sent.entries {
            table.version = sent.version + 1;
        }
        table.version = table.version.max(sent.version);
        self.tables.send_replace(table.into());
    }
}

/// Levels that carry an action at enforcement points: their records are synced before the push.
pub(crate) fn is_synced_first(level: Level) -> bool {
    level >= Level::Restricted
}

/// How the identity is told without the decision: as it was before, or else as a shadow. What is in the table anyway
/// (`decisions`), as an operator's entry beside that of evidence, is not told twice.
fn without(entry: &TrustEntry, sent: &TrustTable, decisions: &BTreeSet<String>) -> TrustEntry {
    let identity = entry.subject.identity();
    let is_before = |before: &&TrustEntry| {
        let is_own = before.decision == entry.decision || !decisions.contains(&before.decision);
        is_own && before.subject.identity() == identity
    };
    let before = sent.entries.iter().find(is_before);
    before.cloned().unwrap_or_else(|| TrustEntry { enforce: false, ..entry.clone() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use qualm_model::time::{Span, Timestamp};
    use qualm_scorer::{
        journal::{JournalLimits, Kind},
        verdict::Cause,
    };

    use super::*;
    use crate::finding::tests::verdict;

    struct Fixture {
        place: tempfile::TempDir,
        journal: Journal,
        publisher: Publisher,
        tables: watch::Receiver<SharedTable>,
        version: u64,
    }

    impl Fixture {
        fn new() -> Self {
            let place = tempfile::tempdir().expect("a directory");
            // Every record begins a file: without its directory none can be written.
            let limits = JournalLimits { segment_bytes: 1, ..JournalLimits::default() };
            let journal = Journal::open(&place.path().join("journal"), &limits).expect("a journal").journal;
            let (sender, tables) = watch::channel(SharedTable::default());
            let publisher = Publisher::start(sender, journal.clone());
            Self { place, journal, publisher, tables, version: 0 }
        }

        fn break_disk(&self) {
            fs::rename(self.place.path().join("journal"), self.place.path().join("away")).expect("moved");
        }

        fn mend_disk(&self) {
            fs::rename(self.place.path().join("away"), self.place.path().join("journal")).expect("moved back");
        }

        fn append(&self, verdict: &Verdict) -> Option<Seq> {
            self.journal.append(Kind::Decision, verdict.time, verdict.decided, verdict).ok()
        }

        /// What enforcement points hold of `cart` after a table with these verdicts in it, the first of which is owed.
        async fn publish(&mut self, verdicts: &[&Verdict], seq: Option<Option<Seq>>) -> Option<(Level, bool)> {
            self.version += 1;
            let entries = verdicts.iter().filter_map(|verdict| verdict.entry()).collect();
            let table =
                TrustTable { version: self.version, entries, model_version: String::new(), ..TrustTable::default() };
            let owed = seq.map(|seq| Owed { verdict: verdicts[0].clone(), seq });
            self.publisher.publish(table, owed.into_iter().collect());
            self.tables.changed().await.expect("the task lives");
            let table = self.tables.borrow_and_update().clone();
            let entry = table.entries.iter().find(|entry| entry.subject.principal == "cart")?;
            Some((entry.level, entry.enforce))
        }
    }

    fn step(level: Level) -> Verdict {
        let expires = Some(Timestamp(0) + Span::HOUR);
        Verdict { expires, ..verdict(1, Level::Trusted, level, Cause::Evidence) }
    }

    fn of_another() -> Verdict {
        let mut verdict = step(Level::Watched);
        verdict.subject.principal = "orders".to_owned();
        verdict
    }

    #[tokio::test]
    async fn what_is_not_on_disk_is_a_shadow_in_every_table_until_it_is() {
        let mut fixture = Fixture::new();
        let (quarantine, other) = (step(Level::Quarantined), of_another());
        fixture.break_disk();
        let seq = fixture.append(&quarantine);
        assert!(seq.is_some(), "the disk refuses later");
        assert_eq!(fixture.publish(&[&quarantine], Some(seq)).await, Some((Level::Quarantined, false)));
        // The next table waits for no record, and holds the entry still.
        assert_eq!(fixture.publish(&[&quarantine, &other], None).await, Some((Level::Quarantined, false)));
        let refused = fixture.publisher.refused();
        assert_eq!(refused, std::slice::from_ref(&quarantine), "the loop is to try again");
        fixture.mend_disk();
        let seq = fixture.append(&quarantine);
        assert_eq!(fixture.publish(&[&quarantine, &other], Some(seq)).await, Some((Level::Quarantined, true)));
        assert_eq!(fixture.publish(&[&quarantine], None).await, Some((Level::Quarantined, true)));
    }

    #[tokio::test]
    async fn what_cannot_even_be_appended_is_not_pushed() {
        let mut fixture = Fixture::new();
        let quarantine = step(Level::Quarantined);
        assert_eq!(fixture.publish(&[&quarantine], Some(None)).await, Some((Level::Quarantined, false)));
    }

    #[tokio::test]
    async fn while_a_decision_is_not_on_disk_what_stood_before_stands() {
        let mut fixture = Fixture::new();
        let (throttle, quarantine) = (step(Level::Throttled), step(Level::Quarantined));
        assert_eq!(fixture.publish(&[&throttle], None).await, Some((Level::Throttled, true)));
        assert_eq!(fixture.publish(&[&quarantine], Some(None)).await, Some((Level::Throttled, true)));
    }
}
