//! How far event time has come: the greatest report time of each source partition, the least of those that are not
//! idle.

use std::collections::BTreeMap;

use qualm_model::{
    event::Position,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

/// A partition this far behind the foremost does not hold back the others, once it has been read up to the present.
/// Counted in event time, so that the same events in the same order give the same watermark.
const IDLE: Span = Span::MINUTE;
/// The same for what peers push (Envoy's logs come every second or so): a peer that is slow or gone has everybody's
/// windows closed this much later, and its own events are late beyond it.
const PUSHED_IDLE: Span = Span::seconds(10);
/// A partition whose last record was older than this when read is still catching up: there is more to come from it.
const FRESH: Span = Span(2 * Span::MINUTE.0);
/// It is waited for until so many events of others have come meanwhile: brokers hand out partitions in turns, and days
/// of one may be read before the next has its turn.
const TURN: u64 = 20_000;
/// Nor is it waited for when nothing has come of it for this long in wall time: it has ended in the past.
const PATIENCE: Span = Span::seconds(10);

/// The watermark of all partitions. It never steps back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watermark {
    partitions: BTreeMap<(u16, i32), Reached>,
    foremost: Option<Timestamp>,
    now: Option<Timestamp>,
    last: Option<((u16, i32), Timestamp)>,
    events: u64,
    /// When this process read its first event.
    #[serde(skip)]
    begun: Option<Timestamp>,
}

/// How far one partition is read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Reached {
    time: Timestamp,
    /// Number of the event, over all partitions.
    event: u64,
    /// Whether the event was of the present when it was read.
    fresh: bool,
    /// When it was read, wall time.
    read: Timestamp,
}

impl Watermark {
    /// Takes in an event's report time, read at `wall`; returns the watermark where it has moved.
    #[inline]
    pub(crate) fn see(&mut self, position: Position, time: Timestamp, wall: Timestamp) -> Option<Timestamp> {
        let key = (position.source, position.partition);
        let is_pushed = position.is_pushed();
        // Peers are many, and whenever one is further all are looked at: once a second of each is often enough.
        let time = if is_pushed { Timestamp(time.window(Span::SECOND) * Span::SECOND.0) } else { time };
        self.events += 1;
        if self.last.is_some_and(|(last, greatest)| last == key && time <= greatest) {
            return None;
        }
        let event = self.events;
        let fresh = wall - time <= FRESH;
        if is_pushed
            && let Some(reached) = self.partitions.get_mut(&key)
            && time <= reached.time
        {
            (reached.event, reached.read) = (event, wall);
            return None;
        }
        let reached = self.partitions.entry(key).or_insert(Reached { time, event, fresh, read: wall });
        *reached = Reached { time: time.max(reached.time), event, fresh, read: wall };
        self.last = Some((key, reached.time));
        let foremost = self.foremost.map_or(time, |foremost| foremost.max(time));
        self.foremost = Some(foremost);
        let begun = *self.begun.get_or_insert(wall);
        let is_to_come = |at: &Reached| event - at.event <= TURN && wall - at.read.max(begun) <= PATIENCE;
        let counts = |((_, partition), at): &(&(u16, i32), &Reached)| {
            if *partition < 0 {
                return foremost - at.time <= PUSHED_IDLE;
            }
            foremost - at.time <= IDLE || (!at.fresh && is_to_come(at))
        };
        let least = self.partitions.iter().filter(counts).map(|(_, at)| at.time).min().unwrap_or(foremost);
        if self.now.is_some_and(|now| least <= now) {
            return None;
        }
        self.now = Some(least);
        Some(least)
    }

    /// Gives the sources the numbers that they have now; those without one are let go.
    pub(crate) fn renumber(&mut self, number: impl Fn(u16) -> Option<u16>) {
        let partitions = std::mem::take(&mut self.partitions).into_iter();
        self.partitions = partitions.filter_map(|((source, of), at)| Some(((number(source)?, of), at))).collect();
        self.last = None;
    }

    /// The watermark; `None` before the first event.
    pub(crate) fn now(&self) -> Option<Timestamp> {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Timestamp = Timestamp::from_seconds(1_000_000);

    fn at(partition: i32) -> Position {
        Position { partition, ..Position::default() }
    }

    /// Reads an event when it happens.
    fn live(watermark: &mut Watermark, partition: i32, seconds: i64) -> Option<Timestamp> {
        watermark.see(at(partition), Timestamp::from_seconds(seconds), Timestamp::from_seconds(seconds))
    }

    #[test]
    fn the_slowest_partition_that_is_not_idle_decides() {
        let mut watermark = Watermark::default();
        live(&mut watermark, 0, 100);
        live(&mut watermark, 1, 90);
        assert_eq!(live(&mut watermark, 0, 120), None);
        assert_eq!(live(&mut watermark, 1, 110), Some(Timestamp::from_seconds(110)));
        // Partition 1 falls silent: after a minute of event time it holds nobody back.
        assert_eq!(live(&mut watermark, 0, 200), Some(Timestamp::from_seconds(200)));
    }

    #[test]
    fn a_peer_that_is_a_little_slower_is_waited_for_and_one_that_is_slow_or_gone_holds_nobody() {
        let mut watermark = Watermark::default();
        live(&mut watermark, -1, 100);
        live(&mut watermark, -2, 95);
        assert_eq!(live(&mut watermark, -1, 104), None, "what the other sends is not late");
        assert_eq!(live(&mut watermark, -2, 103), Some(Timestamp::from_seconds(103)));
        // It goes.
        assert_eq!(live(&mut watermark, -1, 113), None);
        assert_eq!(live(&mut watermark, -1, 114), Some(Timestamp::from_seconds(114)));
        // A third one sends what is minutes old, again and again.
        for second in 0..100 {
            let now = Timestamp::from_seconds(115 + second);
            assert_eq!(watermark.see(at(-3), now - Span(5 * Span::MINUTE.0), now), None);
            assert_eq!(watermark.see(at(-1), now, now), Some(now));
        }
    }

    #[test]
    fn it_never_steps_back() {
        let mut watermark = Watermark::default();
        live(&mut watermark, 0, 100);
        assert_eq!(live(&mut watermark, 1, 50), None);
        assert_eq!(watermark.now(), Some(Timestamp::from_seconds(100)));
    }

    #[test]
    fn a_partition_that_is_catching_up_is_waited_for_although_others_are_hours_ahead() {
        let mut watermark = Watermark::default();
        for partition in 0..2 {
            watermark.see(at(partition), Timestamp::from_seconds(0), LATER);
        }
        for minute in 1..600 {
            assert_eq!(watermark.see(at(0), Timestamp::from_seconds(60 * minute), LATER), None);
        }
        let next = Timestamp::from_seconds(60);
        assert_eq!(watermark.see(at(1), next, LATER), Some(next), "what comes of it is not late");
    }

    #[test]
    fn a_partition_that_ends_in_the_past_holds_nobody_back_in_a_calm_mesh() {
        let mut watermark = Watermark::default();
        watermark.see(at(1), Timestamp::from_seconds(0), LATER);
        let (soon, late) = (LATER + Span::SECOND, LATER + Span(11 * Span::SECOND.0));
        assert_eq!(watermark.see(at(0), soon, soon), None);
        assert_eq!(watermark.see(at(0), late, late), Some(late));
    }

    #[test]
    fn a_partition_that_ends_in_the_past_is_not_waited_for_for_ever() {
        let mut watermark = Watermark::default();
        watermark.see(at(1), Timestamp::from_seconds(0), LATER);
        let moved =
            (1..=TURN as i64 + 1).filter_map(|second| watermark.see(at(0), Timestamp::from_seconds(second), LATER));
        assert!(moved.last().is_some_and(|at| at > Timestamp::from_seconds(1_000)));
    }
}
