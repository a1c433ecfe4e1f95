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

use super::stood_in::StoodIn;

/// Hashes of records in one generation, which lasts no longer than [`GENERATION`].
const RECORDS: usize = 1 << 17;
const GENERATION: Span = Span(5 * Span::MINUTE.0);
/// Generations beside the one that is being filled: a repetition is recognised for ten minutes or half a million
/// records at least, whichever is less.
const GENERATIONS: usize = 4;
/// How long the two reports of a call may be apart, where no source may be later.
pub(super) const APART: Span = Span::MINUTE;
/// Calls that wait for their other report; the oldest are forgotten first.
const CALLS: usize = 1 << 16;
/// Places in the order of waiting beyond those of the calls that wait: most calls have met their other report by then.
const SPARE: usize = 1 << 12;
/// Without a caller's report for so long the called's reports wait for none.
const CALLERS_REPORT: Span = Span(10 * Span::MINUTE.0);

/// How a report stands to the other end's of the same call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// The other has not come, or nothing tells which it is.
    First,
    /// Both are there.
    Joined(Joined),
    /// The other came long ago, and has counted.
    Counted,
}

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
    /// Since when it waits, as it stands in the order of waiting, by which it is found again after a restart.
    #[serde(skip)]
    since: Timestamp,
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

/// Where calls go that nobody waits for any more.
pub(super) struct Left<'a> {
    /// Those of which one end has told, and the other should have.
    pub(super) alone: &'a mut Vec<Alone>,
    /// Those that have counted by the caller's report.
    pub(super) stood_in: &'a mut StoodIn,
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
    /// Calls that wait, or have waited, by when they came: event time of the latest report by then, since two that are late
    /// together wait for each other as any two do.
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
            since: event.report(),
        }
    }
}

impl Half {
    /// Where the caller's report has counted, the called's must not, whenever it comes.
    fn stand_in(&self, call: u64, stood_in: &mut StoodIn) {
        if self.by == Reporter::Source && self.counted == Counted::Yes {
            stood_in.add(call, self.count, self.since);
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

    /// Lays a report beside the other end's of the same call, if that is there; it waits otherwise, for `patience`, which
    /// is how late reports may be.
    #[inline]
    pub(super) fn join(&mut self, event: Event<'_>, counted: Counted, patience: Span, left: &mut Left<'_>) -> Meeting {
        let (by, now) = (event.reporter(), event.report());
        match by {
            Reporter::Source | Reporter::Gateway => self.callers = self.callers.max(Some(now)),
            // In the beginning any caller's proxy may be about to report.
            Reporter::Destination if now - *self.callers.get_or_insert(now) <= CALLERS_REPORT => {}
            _ => return Meeting::First,
        }
        let Some(call) = call_of(event) else { return Meeting::First };
        let arrived = self.order.back().map_or(now, |&(latest, _)| latest.max(now));
        self.forget(arrived, patience, left);
        let Some(half) = self.open.get_mut(&call) else {
            if by == Reporter::Destination && left.stood_in.take(call) {
                return Meeting::Counted;
            }
            self.wait(Half { since: arrived, ..Half::of(event, counted) }, call, left);
            return Meeting::First;
        };
        if (half.by == Reporter::Destination) == (by == Reporter::Destination) {
            half.count = half.count.saturating_add(1);
            return Meeting::First;
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
        Meeting::Joined(joined)
    }

    fn wait(&mut self, half: Half, call: u64, left: &mut Left<'_>) {
        self.order.push_back((half.since, call));
        self.open.insert(call, half);
        while self.open.len() > CALLS
            && let Some((since, oldest)) = self.order.pop_front()
        {
            if let Some(half) = self.take_waiting(since, oldest) {
                half.stand_in(oldest, left.stood_in);
            }
        }
        if self.order.len() > 2 * self.open.len() + SPARE {
            let open = &self.open;
            self.order.retain(|&(since, call)| open.get(&call).is_some_and(|half| half.since == since));
        }
    }

    fn forget(&mut self, now: Timestamp, patience: Span, left: &mut Left<'_>) {
        while let Some(&(since, call)) = self.order.front()
            && now - since > patience
        {
            self.order.pop_front();
            let Some(half) = self.take_waiting(since, call) else { continue };
            half.stand_in(call, left.stood_in);
            // What was counted in place of the called's report has no other that could be missed, and what a gateway calls
            // need not have a proxy.
            let Half { by, counted, source, destination, places, goes_on, position, .. } = half;
            // Nor has what a gateway calls, which need not have a proxy.
            if !goes_on && (by == Reporter::Destination || by == Reporter::Source && counted == Counted::No) {
                left.alone.push(Alone { by, source, destination, places, position });
            }
        }
    }

    /// The call that waits in a place of the order, unless it has met its other report.
    fn take_waiting(&mut self, since: Timestamp, call: u64) -> Option<Half> {
        if self.open.get(&call)?.since == since { self.open.remove(&call) } else { None }
    }

    /// Finds again since when each call waits, after a restart: a later place of the same call is the one that holds.
    pub(super) fn restore_waiting(&mut self) {
        for &(since, call) in &self.order {
            if let Some(half) = self.open.get_mut(&call) {
                half.since = since;
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
