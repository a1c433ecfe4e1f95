//! How far event time has come: the greatest report time of each source partition, the least of those that are not
//! idle.

use std::collections::BTreeMap;

use qualm_model::{
    event::Position,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

/// A partition this far behind the foremost is idle or catching up and does not hold back the others. Counted in
/// event time, so that the same events in the same order give the same watermark.
const IDLE: Span = Span::MINUTE;

/// The watermark of all partitions. It never steps back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watermark {
    partitions: BTreeMap<(u16, i32), Timestamp>,
    foremost: Option<Timestamp>,
    now: Option<Timestamp>,
    last: Option<((u16, i32), Timestamp)>,
}

impl Watermark {
    /// Takes in an event's report time; returns the watermark where it has moved.
    #[inline]
    pub(crate) fn see(&mut self, position: Position, time: Timestamp) -> Option<Timestamp> {
        let key = (position.source, position.partition);
        if self.last.is_some_and(|(last, greatest)| last == key && time <= greatest) {
            return None;
        }
        let greatest = self.partitions.entry(key).or_insert(time);
        *greatest = time.max(*greatest);
        self.last = Some((key, *greatest));
        let foremost = self.foremost.map_or(time, |foremost| foremost.max(time));
        self.foremost = Some(foremost);
        let least = self.partitions.values().copied().filter(|&at| foremost - at <= IDLE).min().unwrap_or(foremost);
        if self.now.is_some_and(|now| least <= now) {
            return None;
        }
        self.now = Some(least);
        Some(least)
    }

    /// The watermark; `None` before the first event.
    pub(crate) fn now(&self) -> Option<Timestamp> {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> Position {
        Position { partition, ..Position::default() }
    }

    #[test]
    fn the_slowest_partition_that_is_not_idle_decides() {
        let mut watermark = Watermark::default();
        watermark.see(at(0), Timestamp::from_seconds(100));
        watermark.see(at(1), Timestamp::from_seconds(90));
        assert_eq!(watermark.see(at(0), Timestamp::from_seconds(120)), None);
        assert_eq!(watermark.see(at(1), Timestamp::from_seconds(110)), Some(Timestamp::from_seconds(110)));
        // Partition 1 falls silent: after a minute of event time it holds nobody back.
        let later = Timestamp::from_seconds(200);
        assert_eq!(watermark.see(at(0), later), Some(later));
    }

    #[test]
    fn it_never_steps_back() {
        let mut watermark = Watermark::default();
        watermark.see(at(0), Timestamp::from_seconds(100));
        assert_eq!(watermark.see(at(1), Timestamp::from_seconds(50)), None);
        assert_eq!(watermark.now(), Some(Timestamp::from_seconds(100)));
    }
}
