//! Streams and connections that go on: what each record of one adds to the ones before it.
//!
//! Envoy tells of a long stream when it begins, every so often, and when it ends, each time with all bytes so far. Such
//! records belong together by the stream's id, or else by the two ends of its connection, and by when it began. The call
//! counts at the first of them; each later one counts for the bytes that have come since.

use std::{collections::HashMap, hash::BuildHasher, sync::Arc};

use foldhash::{fast, quality::FixedState};
use qualm_model::{
    event::{Activity, Event, Reporter},
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::reports::{APART, call_of};

/// Streams in one generation, which lasts no longer than [`GENERATION`]; there are two.
const STREAMS: usize = 1 << 16;
const GENERATION: Span = Span::DAY;

/// What an event adds to the ones before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share {
    /// Calls that it is: one, or none where an earlier record of the same call has counted.
    pub(crate) calls: f64,
    /// Calls that it is to the called: none also where the called's own report counts it as another's.
    pub(crate) received: f64,
    /// Bytes of both directions.
    pub(crate) bytes: Option<u64>,
}

/// What a record is to the ones of its stream before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Part {
    /// The only one, or the first: the call begins to count here.
    First(Share),
    /// A later one of a call that counts.
    More(Share),
    /// A later one of a call of which the other proxy's reports count.
    Confirming,
    /// It adds nothing, or cannot be told from others.
    Nothing,
}

/// A stream as its records tell of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Stream {
    /// Ports and request ids are used again: another begin is another stream.
    start: Timestamp,
    bytes: Option<u64>,
    /// Whether it is this reporter's records that count.
    counts: bool,
    ended: Option<Timestamp>,
}

type Generation = HashMap<u64, Stream, fast::FixedState>;

/// Streams that were told of in the last one or two days, as far as there is place for them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Streams {
    young: Generation,
    /// When `young` was begun.
    since: Timestamp,
    /// Shared with the snapshot that is being written.
    old: Arc<Generation>,
    /// What began before then may have been forgotten.
    forgotten: Option<Timestamp>,
}

impl Share {
    /// All that the event tells.
    #[inline]
    pub(crate) fn whole(event: Event<'_>) -> Self {
        Self { calls: 1.0, received: 1.0, bytes: bytes_of(event) }
    }
}

impl Streams {
    /// What a record is to the ones of its stream before it; it is noted.
    pub(super) fn part(&mut self, event: Event<'_>) -> Part {
        let (activity, now) = (event.activity(), event.report());
        if activity == Activity::Whole || (activity == Activity::Close && self.is_empty()) {
            return Part::First(Share::whole(event));
        }
        let Some(key) = key_of(event, side(event.reporter())) else {
            return if activity.goes_on() { Part::Nothing } else { Part::First(Share::whole(event)) };
        };
        let known = self.young.get(&key).or_else(|| self.old.get(&key)).copied();
        let Some(before) = known.filter(|known| known.start == event.start()) else {
            return self.first(event, key);
        };
        let bytes = bytes_of(event);
        // A counter that stands where it stood, or lower: a record that was sent again, or overtaken.
        let since = match (before.bytes, bytes) {
            (Some(before), Some(bytes)) => bytes.saturating_sub(before),
            (None, Some(bytes)) => bytes,
            (_, None) => 0,
        };
        let ended = before.ended.or((!activity.goes_on()).then_some(now));
        self.note(key, Stream { bytes: before.bytes.max(bytes), ended, ..before }, now);
        match activity {
            _ if before.ended.is_some() => Part::Nothing,
            _ if !before.counts => Part::Confirming,
            Activity::Close => Part::More(Share { calls: 0.0, received: 0.0, bytes: (since > 0).then_some(since) }),
            _ if since > 0 => Part::More(Share { calls: 0.0, received: 0.0, bytes: Some(since) }),
            _ => Part::Nothing,
        }
    }

    fn first(&mut self, event: Event<'_>, key: u64) -> Part {
        if !event.activity().goes_on() {
            return Part::First(Share::whole(event));
        }
        let stream = Stream { start: event.start(), bytes: bytes_of(event), counts: true, ended: None };
        self.note(key, stream, event.report());
        // Whether it has counted is not known any more.
        let is_forgotten = self.forgotten.is_some_and(|forgotten| event.start() < forgotten);
        if is_forgotten { Part::Nothing } else { Part::First(Share::whole(event)) }
    }

    /// The first record of a stream does not count: the other proxy's do.
    pub(super) fn yield_to_other(&mut self, event: Event<'_>) {
        if event.activity().goes_on()
            && let Some(key) = key_of(event, side(event.reporter()))
            && let Some(stream) = self.young.get_mut(&key)
        {
            stream.counts = false;
        }
    }

    /// Of a long call that has ended, whether the other proxy has told of it while it went on, and whether that counted.
    pub(super) fn other_side(&self, event: Event<'_>) -> Option<bool> {
        if self.is_empty() || event.report() - event.start() <= APART {
            return None;
        }
        let other = match side(event.reporter()) {
            Side::Caller => Side::Called,
            Side::Called => Side::Caller,
            Side::Between => return None,
        };
        let key = key_of(event, other)?;
        self.young.get(&key).or_else(|| self.old.get(&key)).map(|stream| stream.counts)
    }

    fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    fn note(&mut self, key: u64, stream: Stream, now: Timestamp) {
        if self.young.is_empty() {
            self.since = self.since.max(now);
        }
        if self.young.len() >= STREAMS || now - self.since > GENERATION {
            if self.old.values().any(|stream| stream.ended.is_none()) {
                self.forgotten = self.forgotten.max(Some(now));
            }
            self.old = Arc::new(std::mem::take(&mut self.young));
            self.since = self.since.max(now);
        }
        self.young.insert(key, stream);
    }

    /// Bytes it takes, as tables are between two doublings.
    pub(super) fn bytes(&self) -> usize {
        2 * (self.young.len() + self.old.len()) * (size_of::<u64>() + size_of::<Stream>())
    }
}

/// Whose records belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Caller,
    Called,
    Between,
}

fn side(reporter: Reporter) -> Side {
    match reporter {
        Reporter::Source => Side::Caller,
        Reporter::Destination | Reporter::Ztunnel => Side::Called,
        Reporter::Gateway | Reporter::Waypoint | Reporter::Issuer => Side::Between,
    }
}

fn key_of(event: Event<'_>, side: Side) -> Option<u64> {
    let call = call_of(event)?;
    Some(FixedState::default().hash_one((call, side)))
}

fn bytes_of(event: Event<'_>) -> Option<u64> {
    match (event.bytes_in(), event.bytes_out()) {
        (Some(inward), Some(outward)) => Some(inward.saturating_add(outward)),
        (inward, outward) => inward.or(outward),
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, EventDraft, Party};

    use super::*;

    const BEGUN: Timestamp = Timestamp::from_seconds(1_000_000);

    fn told(reporter: Reporter, activity: Activity, begun: Timestamp, after: i64, bytes: u64) -> EventBatch {
        let mut builder = EventBuilder::new();
        builder.push(&EventDraft {
            start: begun,
            report: begun + Span::seconds(after),
            activity,
            reporter,
            record_id: "stream-1",
            source: Party { principal: "cart", ip: "10.0.0.1", port: 4000, ..Party::default() },
            destination: Party { principal: "orders", ip: "10.0.0.2", port: 80, ..Party::default() },
            bytes_in: Some(bytes),
            ..EventDraft::default()
        });
        builder.finish()
    }

    fn part(streams: &mut Streams, activity: Activity, after: i64, bytes: u64) -> Part {
        streams.part(told(Reporter::Destination, activity, BEGUN, after, bytes).event(0))
    }

    const fn share(calls: f64, bytes: u64) -> Share {
        Share { calls, received: calls, bytes: Some(bytes) }
    }

    #[test]
    fn each_record_of_a_stream_counts_for_what_has_come_since_the_one_before() {
        let mut streams = Streams::default();
        assert_eq!(part(&mut streams, Activity::Open, 0, 0), Part::First(share(1.0, 0)));
        assert_eq!(part(&mut streams, Activity::Traffic, 60, 100), Part::More(share(0.0, 100)));
        assert_eq!(part(&mut streams, Activity::Traffic, 120, 100), Part::Nothing, "nothing has come");
        assert_eq!(part(&mut streams, Activity::Traffic, 60, 70), Part::Nothing, "what comes late is counted already");
        assert_eq!(part(&mut streams, Activity::Close, 180, 250), Part::More(share(0.0, 150)));
        assert_eq!(part(&mut streams, Activity::Close, 180, 250), Part::Nothing);
    }

    #[test]
    fn a_stream_of_which_only_the_end_is_told_is_one_call() {
        let mut streams = Streams::default();
        assert_eq!(part(&mut streams, Activity::Close, 180, 250), Part::First(share(1.0, 250)));
        assert!(streams.is_empty(), "nothing is kept of it");
    }

    #[test]
    fn a_port_that_is_used_again_is_another_stream() {
        let mut streams = Streams::default();
        part(&mut streams, Activity::Traffic, 60, 100);
        let again = told(Reporter::Destination, Activity::Traffic, BEGUN + Span::HOUR, 60, 30);
        assert_eq!(streams.part(again.event(0)), Part::First(share(1.0, 30)));
    }

    #[test]
    fn a_stream_whose_other_end_counts_goes_on_confirming() {
        let mut streams = Streams::default();
        let first = told(Reporter::Source, Activity::Traffic, BEGUN, 60, 100);
        assert_eq!(streams.part(first.event(0)), Part::First(share(1.0, 100)));
        streams.yield_to_other(first.event(0));
        let next = told(Reporter::Source, Activity::Traffic, BEGUN, 120, 200);
        assert_eq!(streams.part(next.event(0)), Part::Confirming);
        let end = told(Reporter::Destination, Activity::Close, BEGUN, 180, 250);
        assert_eq!(streams.other_side(end.event(0)), Some(false), "the caller told of it, and it has not counted");
    }

    #[test]
    fn what_may_have_been_forgotten_is_not_counted_again() {
        let mut streams = Streams::default();
        assert_eq!(part(&mut streams, Activity::Traffic, 60, 100), Part::First(share(1.0, 100)));
        let others = (0..2 * STREAMS as u64 + 2).map(|key| (key, Timestamp::from_seconds(1_000_100)));
        let other = Stream { start: BEGUN, bytes: None, counts: true, ended: None };
        others.for_each(|(key, at)| streams.note(key, other, at));
        assert!(streams.young.len() + streams.old.len() <= 2 * STREAMS);
        assert_eq!(part(&mut streams, Activity::Traffic, 120, 300), Part::Nothing);
        assert_eq!(part(&mut streams, Activity::Traffic, 180, 450), Part::More(share(0.0, 150)));
    }
}
