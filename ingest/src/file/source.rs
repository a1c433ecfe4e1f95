//! A file on a thread of its own.

use std::{fs::Metadata, path::PathBuf, thread};

use qualm_model::{event::Positions, time::Clock};
use tokio::sync::{mpsc, oneshot};

use super::{FileReader, Remaining, following::read_on};
use crate::{
    counters::SourceCounters,
    parse::Parser,
    source::{Batch, Incoming, Source, SourceError},
};

/// Batches read ahead of who asks.
const READ_AHEAD: usize = 2;

/// A file or standard input as a [`Source`]: read on a thread of its own.
#[derive(Debug)]
pub struct FileSource {
    incoming: mpsc::Receiver<Result<Incoming, SourceError>>,
    remaining: Remaining,
}

impl FileSource {
    /// Starts to read `path` once it was answered where to begin.
    pub fn start(
        path: PathBuf,
        parser: Parser,
        source: u16,
        clock: Clock,
        counters: SourceCounters,
        follow: Follow,
    ) -> Result<Self, SourceError> {
        let (sender, incoming) = mpsc::channel(READ_AHEAD);
        let mut reader = FileReader::new(vec![path.clone()], parser, source).with_clock(clock);
        if let Some(metadata) = std::fs::metadata(&path).ok().filter(Metadata::is_file) {
            reader.remaining = Remaining::of(metadata.len());
        }
        let remaining = reader.remaining.clone();
        let name = format!("file-{source}");
        let spawned = thread::Builder::new().name(name).spawn(move || {
            let outcome = match follow {
                Follow::No => read_once(&mut reader, &sender, &counters),
                Follow::Yes => read_on(&mut reader, &path, &sender, &counters),
            };
            reader.remaining.end();
            // A closed channel means that nobody listens any more.
            let _ = sender.blocking_send(outcome.map(|()| Incoming::End));
        });
        spawned.map_err(|error| SourceError {
            origin: "file source".to_owned(),
            problem: format!("no thread to read it: {error}"),
            remedy: "raise the limit on threads".to_owned(),
        })?;
        Ok(Self { incoming, remaining })
    }

    /// How much of it is still to be read before its end is reached for the first time.
    pub fn remaining(&self) -> Remaining {
        self.remaining.clone()
    }
}

/// What to do at the end of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It is the end.
    No,
    /// Wait for more; begin again when the file was truncated or another one is in its place.
    Yes,
}

impl Source for FileSource {
    async fn next(&mut self) -> Result<Incoming, SourceError> {
        self.incoming.recv().await.unwrap_or(Ok(Incoming::End))
    }

    async fn commit(&mut self, _positions: &Positions) -> Result<(), SourceError> {
        Ok(())
    }
}

pub(super) type Sender = mpsc::Sender<Result<Incoming, SourceError>>;

/// Asks where to begin. `None`: nobody listens.
pub(super) fn ask_start(source: u16, sender: &Sender) -> Option<i64> {
    let (answer, asked) = oneshot::channel();
    sender.blocking_send(Ok(Incoming::Assigned(vec![(source, 0)], answer))).ok()?;
    let positions = asked.blocking_recv().unwrap_or_default();
    Some(positions.get(&(source, 0)).copied().unwrap_or(0))
}

pub(super) fn send(batch: Batch, sender: &Sender, counters: &SourceCounters) -> bool {
    counters.count(&batch);
    sender.blocking_send(Ok(Incoming::Batch(batch))).is_ok()
}

fn read_once(reader: &mut FileReader, sender: &Sender, counters: &SourceCounters) -> Result<(), SourceError> {
    let Some(row) = ask_start(reader.rows.source, sender) else { return Ok(()) };
    reader.start_at(row);
    while let Some(batch) = reader.next_batch()? {
        if !send(batch, sender, counters) {
            break;
        }
    }
    Ok(())
}
