//! One record counts once, and one call counts once.
//!
//! Shippers deliver at least once: a record that carries an id and was seen lately is a repetition. And both proxies
//! report a call: where the caller's report came before anything was heard from the called's proxy, it has counted, and
//! the called's report of the same call only confirms it.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use foldhash::{fast, quality::FixedState};
use qualm_model::{
    event::{Event, Position, Reporter},
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

/// Hashes of records in one generation, which lasts no longer than [`GENERATION`].
const RECORDS: usize = 1 << 17;
const GENERATION: Span = Span(5 * Span::MINUTE.0);
/// Generations beside the one that is being filled: a repetition is recognised for ten minutes or half a million
/// records at least, whichever is less.
const GENERATIONS: usize = 4;
/// How long the two reports of a call may be apart.
pub(super) const APART: Span = Span::MINUTE;
/// Calls that wait for their other report; the oldest are forgotten first.
const CALLS: usize = 1 << 16;
/// Without a caller's report for so long the called's reports wait for none.
const CALLERS_REPORT: Span = Span(10 * Span::MINUTE.0);

/// What the two reports of one call, once together, say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Joined {
    /// Whether the report that came first was counted although it is the caller's.
    pub(super) counted: bool,
    /// Who called whom, and where from and to, as the called's proxy saw it.
    pub(super) seen: [Arc<str>; 2],
    pub(super) places: [Arc<str>; 2],
    /// What the caller's proxy calls the destination, and who that is by the destination's certificate.
    pub(super) alias: Option<(Arc<str>, Arc<str>)>,
    /// How much later the caller's proxy reported it than the called's.
    pub(super) later: Span,
}

/// Whether a report was scored and learned, or is heard for what it confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Counted {
    Yes,
    No,
}

/// The first report of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Half {
    by: Reporter,
    counted: Counted,
    at: Timestamp,
    /// Reports of one key that still wait: attempts of one request.
    count: u32,
    /// Of a stream that goes on, of which the other end may tell much later: that it has not is no disagreement.
    goes_on: bool,
    /// The caller, as the report names it.
    source: Arc<str>,
    destination: Arc<str>,
    /// Addresses of the two ends.
    places: [Arc<str>; 2],
    position: Position,
}

/// A call of which only one end has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alone {
    /// Who told of it.
    pub(crate) by: Reporter,
    pub(crate) source: Arc<str>,
    pub(crate) destination: Arc<str>,
    /// Where the caller was, and where the called.
    pub(crate) places: [Arc<str>; 2],
    /// Where its record stood.
    pub(crate) position: Position,
}

/// The records and calls of the last minutes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Reports {
    young: Seen,
    /// When `young` was begun.
    since: Timestamp,
    /// The latest first; shared with the snapshot that is being written.
    old: VecDeque<Arc<Seen>>,
    /// When a caller's proxy was last heard.
    callers: Option<Timestamp>,
    open: HashMap<u64, Half, fast::FixedState>,
    order: VecDeque<(Timestamp, u64)>,
}

/// Hashes of records.
type Seen = hashbrown::HashSet<u64, fast::FixedState>;

impl Half {
    fn of(event: Event<'_>, counted: Counted) -> Self {
        let (source, destination) = (event.source(), event.destination());
        Self {
            by: event.reporter(),
            counted,
            at: event.report(),
            count: 1,
            goes_on: event.activity().goes_on(),
            source: Arc::from(source.principal()),
            destination: Arc::from(destination.principal()),
            places: [Arc::from(source.ip()), Arc::from(destination.ip())],
            position: event.position(),
        }
    }
}

impl Reports {
    /// Whether the record was read before; notes it otherwise.
    #[inline]
    pub(super) fn is_repeated(&mut self, event: Event<'_>) -> bool {
        let id = event.record_id();
        if id.is_empty() {
            return false;
        }
        let record = record_of(event, id);
        if self.young.contains(&record) || self.old.iter().any(|seen| seen.contains(&record)) {
            return true;
        }
        let now = event.report();
        if self.young.len() >= RECORDS || now - self.since > GENERATION {
            self.old.push_front(Arc::new(std::mem::take(&mut self.young)));
            self.old.truncate(GENERATIONS);
            self.since = self.since.max(now);
        }
        self.young.insert(record);
        false
    }

    /// Bytes it takes, as tables are between two doublings.
    pub(super) fn bytes(&self) -> usize {
        let records = self.young.len() + self.old.iter().map(|seen| seen.len()).sum::<usize>();
        2 * records * size_of::<u64>() + 2 * self.open.len() * (size_of::<Half>() + 48)
    }

    /// Lays a report beside the other end's of the same call, if that is there; it waits otherwise.
    #[inline]
    pub(super) fn join(&mut self, event: Event<'_>, counted: Counted, alone: &mut Vec<Alone>) -> Option<Joined> {
        let (by, now) = (event.reporter(), event.report());
        match by {
            Reporter::Source => self.callers = self.callers.max(Some(now)),
            // In the beginning any caller's proxy may be about to report.
            Reporter::Destination if now - *self.callers.get_or_insert(now) <= CALLERS_REPORT => {}
            _ => return None,
        }
        let call = call_of(event)?;
        self.forget(now, alone);
        let Some(half) = self.open.get_mut(&call) else {
            self.wait(event, call, counted);
            return None;
        };
        if half.by == by {
            half.count = half.count.saturating_add(1);
            return None;
        }
        let other = Half::of(event, counted);
        let (called, caller) = if by == Reporter::Destination { (&other, &*half) } else { (&*half, &other) };
        let alias = (called.destination != caller.destination)
            .then(|| (Arc::clone(&caller.destination), Arc::clone(&called.destination)));
        let joined = Joined {
            counted: half.counted == Counted::Yes,
            seen: [Arc::clone(&called.source), Arc::clone(&called.destination)],
            places: called.places.clone(),
            alias,
            later: caller.at - called.at,
        };
        half.count -= 1;
        if half.count == 0 {
            self.open.remove(&call);
        }
        Some(joined)
    }

    fn wait(&mut self, event: Event<'_>, call: u64, counted: Counted) {
        let half = Half::of(event, counted);
        self.order.push_back((half.at, call));
        self.open.insert(call, half);
        if self.order.len() > CALLS
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.open.remove(&oldest);
        }
    }

    fn forget(&mut self, now: Timestamp, alone: &mut Vec<Alone>) {
        while let Some(&(at, call)) = self.order.front()
            && now - at > APART
        {
            self.order.pop_front();
            if self.open.get(&call).is_some_and(|half| half.at == at)
                && let Some(half) = self.open.remove(&call)
            {
                // What was counted in place of the called's report has no other that could be missed.
                let Half { by, counted, source, destination, places, goes_on, position, .. } = half;
                if !goes_on && (by == Reporter::Destination || counted == Counted::No) {
                    alone.push(Alone { by, source, destination, places, position });
                }
            }
        }
    }
}

/// What identifies a record among all others: attempts of one request differ in time, port or length, and who sends the
/// same id again and again at least as often as the clock ticks.
fn record_of(event: Event<'_>, id: &str) -> u64 {
    let (from, at) = (event.source().port(), event.destination().ip());
    let (start, report) = (event.start().0, event.report().0);
    let told = (id, event.reporter() as u8, start, report, from, at, event.bytes_in(), event.bytes_out());
    FixedState::default().hash_one(told)
}

/// What both reports of a call have in common: the request id at the place where it was received, or else the two ends of
/// the connection.
pub(super) fn call_of(event: Event<'_>) -> Option<u64> {
    let (source, destination) = (event.source(), event.destination());
    let at = (destination.ip(), destination.port());
    let hash = |value: &dyn Fn(&mut foldhash::quality::FoldHasher<'_>)| {
        let mut hasher = FixedState::default().build_hasher();
        value(&mut hasher);
        hasher.finish()
    };
    match event.record_id() {
        "" if source.port() == 0 || at.1 == 0 || at.0.is_empty() => None,
        "" => Some(hash(&|hasher| (source.ip(), source.port(), at).hash(hasher))),
        id => Some(hash(&|hasher| (id, at).hash(hasher))),
    }
}
