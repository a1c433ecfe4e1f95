//! Between those who append and the thread that writes: a bounded queue that never drops, and what became of each
//! record.

use std::{
    collections::VecDeque,
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use qualm_model::time::Timestamp;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry, exponential_buckets};
use tokio::sync::watch;

use super::{
    AppendError, JournalStatus, line_bytes,
    record::{Draft, Head, Kind, Seq},
    seal::{SEAL_EVERY, SEAL_WITHIN, Seal},
};

/// So many stretches of refused records are told apart for those who still ask; older ones count as refused whole.
const REMEMBERED: usize = 64;

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    room: Condvar,
    work: Condvar,
    decided: Condvar,
    /// The number up to which it is known what became of each record; `u64::MAX` once the writer is gone.
    settled: watch::Sender<u64>,
    queue_bytes: usize,
    pub(super) metrics: JournalMetrics,
}

/// Records that no seal follows yet.
#[derive(Debug, Default)]
struct Unsealed {
    /// Whether there are seals at all.
    is_signed: bool,
    records: u64,
    /// Wall time of the first of them; `None` is of a run before.
    since: Option<Timestamp>,
    /// Wall and event time of the last.
    last: (Timestamp, Timestamp),
}

impl Unsealed {
    fn note(&mut self, wall: Timestamp, event: Timestamp) {
        if self.records == 0 {
            self.since = Some(wall);
        }
        (self.records, self.last) = (self.records + 1, (wall, event));
    }

    fn is_due(&self, wall: Timestamp) -> bool {
        let is_old = self.since.is_none_or(|since| wall - since >= SEAL_WITHIN);
        self.is_signed && self.records > 0 && (self.records >= SEAL_EVERY || is_old)
    }
}

#[derive(Debug)]
struct State {
    unsealed: Unsealed,
    drafts: Vec<Draft>,
    bytes: usize,
    appended: Seq,
    closing: bool,
    writer_gone: bool,
    settled: Seq,
    durable: Head,
    refused: VecDeque<(Seq, Seq)>,
    forgotten: Seq,
    failing: Option<String>,
    unwritten: u64,
    waits: u64,
    last_sync: Duration,
    bytes_held: u64,
    excess: Option<Seq>,
    released: Seq,
}

impl Shared {
    /// `unsealed` says how many records at the end of the chain no seal follows; `None` where nothing is signed.
    pub(super) fn new(head: Head, queue_bytes: usize, unsealed: Option<u64>) -> Self {
        let is_signed = unsealed.is_some();
        let state = State {
            unsealed: Unsealed { is_signed, records: unsealed.unwrap_or(0), ..Unsealed::default() },
            drafts: Vec::new(),
            bytes: 0,
            appended: head.seq,
            closing: false,
            writer_gone: false,
            settled: head.seq,
            durable: head,
            refused: VecDeque::new(),
            forgotten: Seq(0),
            failing: None,
            unwritten: 0,
            waits: 0,
            last_sync: Duration::ZERO,
            bytes_held: 0,
            excess: None,
            released: Seq(0),
        };
        Self {
            state: Mutex::new(state),
            room: Condvar::new(),
            work: Condvar::new(),
            decided: Condvar::new(),
            settled: watch::Sender::new(head.seq.0),
            queue_bytes,
            metrics: JournalMetrics::new(),
        }
    }

    /// Gives the draft its number and queues it, waiting for room.
    pub(super) fn push(&self, draft: Draft) -> Result<Seq, AppendError> {
        let bytes = line_bytes(draft.payload.len());
        let mut state = self.lock();
        if self.is_full(&state, bytes) {
            state.waits += 1;
            self.metrics.waits.inc();
            let still_full = |state: &mut State| !state.writer_gone && self.is_full(state, bytes);
            state = self.room.wait_while(state, still_full).unwrap_or_else(PoisonError::into_inner);
        }
        if state.writer_gone || state.closing {
            return Err(AppendError::Closed);
        }
        let (wall, event) = (draft.wall, draft.event);
        let seq = state.queue(draft);
        state.unsealed.note(wall, event);
        if state.unsealed.is_due(wall) {
            state.seal(wall, event);
        }
        self.work.notify_one();
        Ok(seq)
    }

    /// Has the records so far sealed, where the first of them has waited for long enough.
    pub(super) fn seal_if_due(&self, wall: Timestamp) {
        let mut state = self.lock();
        if state.unsealed.is_due(wall) && !state.closing {
            let event = state.unsealed.last.1;
            state.seal(wall, event);
            self.work.notify_one();
        }
    }

    /// Everything that has gathered; `None` once the journal is closing and nothing is left.
    pub(super) fn take(&self) -> Option<Vec<Draft>> {
        let idle = |state: &mut State| state.drafts.is_empty() && !state.closing;
        let mut state = self.work.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        if state.drafts.is_empty() {
            return None;
        }
        state.bytes = 0;
        self.room.notify_all();
        Some(mem::take(&mut state.drafts))
    }

    /// Everything up to `head` is on disk.
    pub(super) fn written(&self, head: Head, sync: Duration) {
        self.metrics.sync_seconds.observe(sync.as_secs_f64());
        self.metrics.failing.set(0);
        let mut state = self.lock();
        self.metrics.written.inc_by(head.seq.0.saturating_sub(state.settled.0));
        state.durable = head;
        state.last_sync = sync;
        state.failing = None;
        self.settle(state, head.seq);
    }

    /// The disk refused `first..=last`.
    pub(super) fn refused(&self, first: Seq, last: Seq, error: String) {
        self.metrics.failing.set(1);
        let mut state = self.lock();
        // What an earlier attempt lost is counted already.
        let lost = last.0 - first.0.max(state.settled.next().0) + 1;
        self.metrics.unwritten.inc_by(lost);
        state.unwritten += lost;
        state.failing = Some(error);
        match state.refused.back_mut() {
            Some((begun, end)) if *begun == first => *end = last,
            _ => state.refused.push_back((first, last)),
        }
        if state.refused.len() > REMEMBERED {
            let oldest = state.refused.pop_front();
            state.forgotten = oldest.map_or(state.forgotten, |(_, last)| last);
        }
        self.settle(state, last);
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        // Of a run before there may be records without a seal, and no time is known at which this one ends.
        if state.unsealed.is_signed && state.unsealed.records > 0 && state.unsealed.since.is_some() {
            let (wall, event) = state.unsealed.last;
            state.seal(wall, event);
        }
        state.closing = true;
        drop(state);
        self.work.notify_one();
    }

    pub(super) fn writer_gone(&self) {
        let mut state = self.lock();
        state.writer_gone = true;
        drop(state);
        self.settled.send_replace(u64::MAX);
        self.decided.notify_all();
        self.room.notify_all();
    }

    pub(super) async fn settled(&self, seq: Seq) -> Result<(), AppendError> {
        let mut settled = self.settled.subscribe();
        // The sender lives as long as `self`, so that this ends only with an answer.
        let _ = settled.wait_for(|settled| *settled >= seq.0).await;
        self.lock().outcome(seq)
    }

    pub(super) fn wait_settled(&self, seq: Seq) -> Result<(), AppendError> {
        let open = |state: &mut State| state.settled < seq && !state.writer_gone;
        self.decided.wait_while(self.lock(), open).unwrap_or_else(PoisonError::into_inner).outcome(seq)
    }

    pub(super) fn status(&self) -> JournalStatus {
        let state = self.lock();
        JournalStatus {
            appended: state.appended,
            durable: state.durable,
            unwritten: state.unwritten,
            failing: state.failing.clone(),
            waits: state.waits,
            last_sync: state.last_sync,
            bytes: state.bytes_held,
            excess: state.excess,
        }
    }

    /// The files have so many bytes; where they are too many, those before `excess` are to go.
    pub(super) fn holds(&self, bytes: u64, excess: Option<Seq>) {
        self.metrics.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let mut state = self.lock();
        (state.bytes_held, state.excess) = (bytes, excess);
    }

    pub(super) fn release(&self, before: Seq) {
        let mut state = self.lock();
        state.released = state.released.max(before);
    }

    /// No record before this one is needed.
    pub(super) fn released(&self) -> Seq {
        self.lock().released
    }

    fn settle(&self, mut state: MutexGuard<'_, State>, seq: Seq) {
        state.settled = seq;
        drop(state);
        self.settled.send_replace(seq.0);
        self.decided.notify_all();
    }

    /// One record always fits, however long.
    fn is_full(&self, state: &State, bytes: usize) -> bool {
        !state.drafts.is_empty() && state.bytes + bytes > self.queue_bytes
    }

    /// A panic elsewhere cannot leave the state half-changed: every change is a few plain assignments.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives the draft its number and queues it.
    fn queue(&mut self, mut draft: Draft) -> Seq {
        draft.seq = self.appended.next();
        self.appended = draft.seq;
        self.bytes += line_bytes(draft.payload.len());
        self.drafts.push(draft);
        self.appended
    }

    /// Queues a seal; what it says is known when it is chained.
    fn seal(&mut self, wall: Timestamp, event: Timestamp) {
        self.queue(Draft { seq: Seq(0), wall, event, kind: Kind::Seal, payload: String::new() });
        (self.unsealed.records, self.unsealed.since) = (0, None);
    }

    fn outcome(&self, seq: Seq) -> Result<(), AppendError> {
        if self.settled < seq {
            return Err(AppendError::Closed);
        }
        let refused = self.refused.iter().any(|(first, last)| (first..=last).contains(&&seq));
        if seq > self.forgotten && !refused {
            return Ok(());
        }
        let error = self.failing.clone().unwrap_or_else(|| "the disk refused it at the time".to_owned());
        Err(AppendError::Unwritten { seq, error })
    }
}

/// What the journal counts.
#[derive(Debug)]
pub(super) struct JournalMetrics {
    written: IntCounter,
    unwritten: IntCounter,
    waits: IntCounter,
    failing: IntGauge,
    bytes: IntGauge,
    sync_seconds: Histogram,
    sealed: IntGauge,
}

impl JournalMetrics {
    /// A seal is on disk.
    pub(super) fn sealed(&self, seal: &Seal) {
        self.sealed.set(i64::try_from(seal.of.seq.0).unwrap_or(i64::MAX));
    }

    fn new() -> Self {
        let counter = |name, help| IntCounter::new(name, help).expect("the name is a valid metric name");
        let buckets = exponential_buckets(0.000_05, 2.0, 16).expect("start and factor are positive");
        let sync = HistogramOpts::new("qualm_journal_sync_seconds", "Time to write and sync a group of records.");
        let gauge = |name, help| IntGauge::new(name, help).expect("the name is a valid metric name");
        Self {
            written: counter("qualm_journal_records_total", "Records written and synced."),
            unwritten: counter("qualm_journal_unwritten_records_total", "Records that the disk refused."),
            waits: counter("qualm_journal_waits_total", "Times that appending waited for the disk."),
            failing: gauge("qualm_journal_failing", "1 while the disk refuses records, else 0."),
            sealed: gauge("qualm_journal_sealed_record", "Number of the last record that a signed checkpoint covers."),
            bytes: gauge("qualm_journal_bytes", "Bytes of the journal's files."),
            sync_seconds: Histogram::with_opts(sync.buckets(buckets)).expect("the options are valid"),
        }
    }

    pub(super) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.written.clone()))?;
        registry.register(Box::new(self.unwritten.clone()))?;
        registry.register(Box::new(self.waits.clone()))?;
        registry.register(Box::new(self.failing.clone()))?;
        registry.register(Box::new(self.bytes.clone()))?;
        registry.register(Box::new(self.sealed.clone()))?;
        registry.register(Box::new(self.sync_seconds.clone()))
    }
}
