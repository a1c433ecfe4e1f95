//! All records by (report time, row), in bounded memory: sorted runs, spilled where they do not fit, then merged.
//!
//! The row counts over all inputs, so that it also stands for the order of the arguments.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    path::{Path, PathBuf},
};

use anyhow::Result;
use arrow::datatypes::SchemaRef;
use qualm_model::{
    event::{Event, EventBatch, EventBuilder, EventDraft, Party, PartyView, schema},
    time::Timestamp,
};

use super::spill::{SpillReader, SpillWriter, compact, filled, held_bytes, widen};

/// Events a batch that was put together anew.
const BATCH_EVENTS: usize = 4096;
/// So many events in a row from one run are passed on as they are.
const WORTH_A_SLICE: usize = 512;

/// Takes in batches in the order of rows.
pub(super) struct Sorter {
    folder: PathBuf,
    /// Bytes of events that may be held.
    limit: usize,
    bytes: usize,
    batches: Vec<EventBatch>,
    runs: Vec<Run>,
}

/// Where an event stands in the order.
type Key = (Timestamp, i64);

/// A stretch of events, in order.
enum Run {
    Held(Held),
    Spilled { reader: SpillReader, filled: Vec<usize> },
}

struct Held {
    batches: Vec<EventBatch>,
    order: Order,
    next: usize,
}

enum Order {
    /// As it was read.
    Kept,
    Sorted(Vec<Place>),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: Key,
    batch: u32,
    row: u32,
}

/// All events in order, batch by batch.
pub(super) struct Sorted {
    heads: Vec<Head>,
    heap: BinaryHeap<Reverse<(Key, usize)>>,
    builder: EventBuilder,
}

/// The batch of a run that is being merged.
struct Head {
    batch: EventBatch,
    row: usize,
    run: Run,
}

impl Sorter {
    /// A sorter that holds `limit` bytes of events and spills the rest into `folder`.
    pub(super) fn new(folder: &Path, limit: usize) -> Self {
        Self { folder: folder.to_owned(), limit, bytes: 0, batches: Vec::new(), runs: Vec::new() }
    }

    /// Takes in a batch.
    pub(super) fn push(&mut self, batch: &EventBatch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let batch = compact(batch);
        self.bytes += held_bytes(&batch) + batch.len() * size_of::<Place>();
        self.batches.push(batch);
        if self.bytes > self.limit { self.spill() } else { Ok(()) }
    }

    /// Whether anything had to be spilled.
    pub(super) fn has_spilled(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Begins to give out the events in order.
    pub(super) fn finish(mut self) -> Result<Sorted> {
        if self.has_spilled() && !self.batches.is_empty() {
            self.spill()?;
        } else {
            self.runs.push(Run::Held(Held::new(std::mem::take(&mut self.batches))));
        }
        Sorted::merge(self.runs)
    }

    fn spill(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.batches);
        self.bytes = 0;
        let filled = filled(&batches);
        let projected: SchemaRef = schema().project(&filled)?.into();
        let mut writer = SpillWriter::new(&self.folder, &projected)?;
        let mut held = Held::new(batches);
        while let Some(batch) = held.next() {
            writer.write(&batch.as_record_batch().project(&filled)?)?;
        }
        self.runs.push(Run::Spilled { reader: writer.read()?, filled });
        Ok(())
    }
}

impl Run {
    fn next(&mut self) -> Result<Option<EventBatch>> {
        match self {
            Self::Held(held) => Ok(held.next()),
            Self::Spilled { reader, filled } => Ok(reader.next()?.map(|batch| widen(&batch, filled))),
        }
    }
}

impl Held {
    fn new(batches: Vec<EventBatch>) -> Self {
        let keys = || batches.iter().flat_map(|batch| (0..batch.len()).map(|row| key(batch, row)));
        if keys().is_sorted() {
            return Self { batches, order: Order::Kept, next: 0 };
        }
        let mut places = Vec::with_capacity(batches.iter().map(EventBatch::len).sum());
        for (at, batch) in batches.iter().enumerate() {
            places.extend((0..batch.len()).map(|row| Place {
                key: key(batch, row),
                batch: at as u32,
                row: row as u32,
            }));
        }
        places.sort_unstable();
        Self { batches, order: Order::Sorted(places), next: 0 }
    }

    fn next(&mut self) -> Option<EventBatch> {
        let Order::Sorted(places) = &self.order else {
            self.next += 1;
            return self.batches.get(self.next - 1).cloned();
        };
        let rest = &places[self.next..];
        let some = &rest[..rest.len().min(BATCH_EVENTS)];
        if some.is_empty() {
            return None;
        }
        self.next += some.len();
        let mut builder = EventBuilder::new();
        for place in some {
            builder.push(&draft(self.batches[place.batch as usize].event(place.row as usize)));
        }
        Some(builder.finish())
    }
}

impl Sorted {
    fn merge(runs: Vec<Run>) -> Result<Self> {
        let mut merged = Self { heads: Vec::new(), heap: BinaryHeap::new(), builder: EventBuilder::new() };
        for mut run in runs {
            let Some(batch) = run.next()? else { continue };
            merged.heap.push(Reverse((key(&batch, 0), merged.heads.len())));
            merged.heads.push(Head { batch, row: 0, run });
        }
        Ok(merged)
    }

    /// The next events, `None` after the last.
    pub(super) fn next_batch(&mut self) -> Result<Option<EventBatch>> {
        while let Some(Reverse((first, place))) = self.heap.pop() {
            let bound = self.heap.peek().map(|Reverse((key, _))| *key);
            let head = &self.heads[place];
            let end = head.end_before(bound);
            let worth_a_slice = end - head.row >= WORTH_A_SLICE;
            if worth_a_slice && !self.builder.is_empty() {
                self.heap.push(Reverse((first, place)));
                return Ok(Some(self.builder.finish()));
            }
            if worth_a_slice {
                let slice = slice(&head.batch, head.row, end);
                self.advance(place, end)?;
                return Ok(Some(slice));
            }
            for row in head.row..end {
                self.builder.push(&draft(head.batch.event(row)));
            }
            self.advance(place, end)?;
            if self.builder.len() >= BATCH_EVENTS {
                return Ok(Some(self.builder.finish()));
            }
        }
        Ok((!self.builder.is_empty()).then(|| self.builder.finish()))
    }

    fn advance(&mut self, place: usize, row: usize) -> Result<()> {
        let head = &mut self.heads[place];
        head.row = row;
        if row == head.batch.len() {
            let Some(batch) = head.run.next()? else { return Ok(()) };
            (head.batch, head.row) = (batch, 0);
        }
        self.heap.push(Reverse((key(&head.batch, head.row), place)));
        Ok(())
    }
}

impl Head {
    /// The first row at or behind `bound`, and at least one further than now.
    fn end_before(&self, bound: Option<Key>) -> usize {
        let Some(bound) = bound else { return self.batch.len() };
        let (mut low, mut high) = (self.row + 1, self.batch.len());
        while low < high {
            let middle = low.midpoint(high);
            if key(&self.batch, middle) < bound {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

fn key(batch: &EventBatch, row: usize) -> Key {
    let event = batch.event(row);
    (event.report(), event.position().offset)
}

fn slice(batch: &EventBatch, from: usize, to: usize) -> EventBatch {
    if (from, to) == (0, batch.len()) {
        return batch.clone();
    }
    let slice = batch.as_record_batch().slice(from, to - from);
    EventBatch::try_from(slice).expect("a slice keeps its schema")
}

fn party(view: PartyView<'_>) -> Party<'_> {
    Party {
        principal: view.principal(),
        cluster: view.cluster(),
        version: view.version(),
        instance: view.instance(),
        ip: view.ip(),
        port: view.port(),
        provenance: view.provenance(),
    }
}

fn draft(event: Event<'_>) -> EventDraft<'_> {
    let (batch, row) = (event.batch, event.row);
    let (not_before, not_after) = event.validity();
    EventDraft {
        start: event.start(),
        report: event.report(),
        kind: event.kind(),
        activity: event.activity(),
        reporter: event.reporter(),
        reporter_id: event.reporter_id(),
        record_id: event.record_id(),
        decision_id: event.decision_id(),
        source: party(event.source()),
        destination: party(event.destination()),
        hostname: event.hostname(),
        operation: event.operation(),
        status: event.status(),
        grpc_status: event.grpc_status(),
        outcome: event.outcome(),
        denial_reason: event.denial_reason(),
        bytes_in: event.bytes_in(),
        bytes_out: event.bytes_out(),
        duration_ns: event.duration_ns(),
        tls_version: event.tls_version(),
        ja3: batch.ja3.get(row),
        ja4: batch.ja4.get(row),
        credential: event.credential(),
        not_before,
        not_after,
        auth_method: event.auth_method(),
        issued: event.issued(),
        revoked: event.revoked(),
        position: event.position(),
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{Outcome, Position, builder::plain};

    use super::*;

    /// Events whose times jump to and fro, in batches of 100.
    fn batches() -> Vec<EventBatch> {
        let mut builder = EventBuilder::new();
        let mut batches = Vec::new();
        for row in 0..5_000_i64 {
            let time = Timestamp::from_seconds(row * 7_919 % 1_000);
            let source = format!("s{}", row % 17);
            let mut draft = plain(time, &source, "d");
            draft.position = Position { source: 0, partition: 0, offset: row };
            draft.outcome = Outcome::Refused;
            draft.bytes_in = (row % 3 == 0).then_some(row as u64);
            draft.ja4 = if row % 2 == 0 { "t13d" } else { "" };
            draft.source.cluster = if row > 2_500 { "west" } else { "" };
            builder.push(&draft);
            if builder.len() == 100 {
                batches.push(builder.finish());
            }
        }
        batches
    }

    fn sorted(limit: usize) -> (bool, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sorter = Sorter::new(folder.path(), limit);
        batches().iter().for_each(|batch| sorter.push(batch).expect("room"));
        let spilled = sorter.has_spilled();
        let mut sorted = sorter.finish().expect("sorted");
        let mut lines = Vec::new();
        while let Some(batch) = sorted.next_batch().expect("readable") {
            lines.extend(batch.events().map(|event| format!("{:?}", draft(event))));
        }
        assert!(std::fs::read_dir(folder.path()).expect("listed").next().is_none(), "spill files are left behind");
        (spilled, lines)
    }

    #[test]
    fn what_is_spilled_comes_back_as_if_it_had_been_held() {
        let (spilled, held) = sorted(usize::MAX);
        assert!(!spilled && held.len() == 5_000);
        for limit in [1, 100_000] {
            let (spilled, merged) = sorted(limit);
            assert!(spilled);
            assert_eq!(merged, held);
        }
    }

    #[test]
    fn events_come_by_time_and_those_of_one_time_by_row() {
        let mut sorter = Sorter::new(Path::new("."), usize::MAX);
        batches().iter().for_each(|batch| sorter.push(batch).expect("held"));
        let mut sorted = sorter.finish().expect("sorted");
        let mut keys = Vec::new();
        while let Some(batch) = sorted.next_batch().expect("held") {
            keys.extend((0..batch.len()).map(|row| key(&batch, row)));
        }
        assert!(keys.is_sorted() && keys[0].1 < keys[1].1 && keys[0].0 == keys[1].0);
    }

    #[test]
    fn what_is_absent_takes_no_memory() {
        let mut builder = EventBuilder::new();
        builder.extend(&vec![plain(Timestamp(1), "a", "b"); 4_096]);
        let batch = builder.finish();
        let (all, compact) = (batch.as_record_batch().get_array_memory_size(), held_bytes(&compact(&batch)));
        assert!(compact < 4_096 * 64 && compact * 2 < all, "{compact} of {all} bytes");
    }
}
