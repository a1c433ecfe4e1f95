//! Which pod is at which address: by the reporter that says it of itself.
//!
//! The latest word holds, since addresses are used again when pods have ended; what two say in turns (a node's address)
//! is nobody's; and what was not said for a while is not known any more.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::FixedState;
use qualm_model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::hour;

/// A word holds for so many hours after the one in which it was last said: pods that call rarely are heard rarely.
const HOLDS: i64 = 6;
/// Whoever says again within this time what another has said meanwhile shares the address.
const TURNS: Span = Span(10 * Span::MINUTE.0);
/// Addresses kept; the oldest are forgotten first.
const KEPT: usize = 1 << 16;

/// One address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seat {
    pod: Arc<str>,
    service: Arc<str>,
    since: Timestamp,
    /// The hour in which that was last said.
    hour: i64,
    /// The pod before.
    before: Option<Arc<str>>,
    /// Until when it is nobody's.
    shared_until: Timestamp,
}

/// All of them, in the order in which they were first heard of.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Seats {
    by: HashMap<Arc<str>, Seat, FixedState>,
    order: VecDeque<Arc<str>>,
    pub(super) forgotten: u64,
}

/// What a word was to what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claimed {
    /// Nothing new.
    Again,
    /// Older than what is known.
    Late,
    /// It still holds, or is of an address of which nothing was known.
    News,
    /// The address is another's now, or one was forgotten for it.
    Other,
}

impl Seats {
    pub(super) fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// The pod says of itself that it is at `place`; `service` is what it is of.
    pub(super) fn claim<'a>(
        &mut self,
        place: &str,
        pod: &str,
        service: impl FnOnce() -> &'a str,
        now: Timestamp,
    ) -> Claimed {
        let Some(seat) = self.by.get_mut(place) else {
            return self.take(place, pod, service(), now);
        };
        if *seat.pod == *pod {
            let is_later = hour(now) > seat.hour;
            seat.hour = seat.hour.max(hour(now));
            return if is_later { Claimed::News } else { Claimed::Again };
        }
        if now <= seat.since {
            // An older word of whoever was there then.
            return Claimed::Late;
        }
        if seat.before.as_deref() == Some(pod) && now - seat.since <= TURNS {
            seat.shared_until = Timestamp((hour(now) + HOLDS + 1) * Span::HOUR.0);
        }
        seat.before = Some(std::mem::replace(&mut seat.pod, Arc::from(pod)));
        seat.service = Arc::from(service());
        (seat.since, seat.hour) = (now, hour(now));
        Claimed::Other
    }

    fn take(&mut self, place: &str, pod: &str, service: &str, now: Timestamp) -> Claimed {
        let place: Arc<str> = Arc::from(place);
        let seat = Seat {
            pod: Arc::from(pod),
            service: Arc::from(service),
            since: now,
            hour: hour(now),
            before: None,
            shared_until: Timestamp(i64::MIN),
        };
        self.order.push_back(Arc::clone(&place));
        self.by.insert(place, seat);
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.by.remove(&oldest);
            self.forgotten += 1;
            return Claimed::Other;
        }
        Claimed::News
    }

    /// The service at `place` at a time.
    pub(super) fn holder(&self, place: &str, at: Timestamp) -> Option<&Arc<str>> {
        let seat = self.by.get(place)?;
        let is_said = at >= seat.shared_until && hour(at) - seat.hour <= HOLDS;
        // Of the one before nothing is kept; where there was none, it has been there for a while when it is first heard.
        let was_there = at >= seat.since || seat.before.is_none() && hour(seat.since) - hour(at) <= HOLDS;
        (is_said && was_there).then_some(&seat.service)
    }

    /// The service at `place` when somebody called from there for the last time.
    pub(super) fn last_holder(&self, place: &str, last: Timestamp) -> Option<&Arc<str>> {
        let seat = self.by.get(place)?;
        let is_its = last >= seat.since || seat.before.is_none();
        (is_its && seat.shared_until <= last).then_some(&seat.service)
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.by.len() * (2 * size_of::<Seat>() + 3 * size_of::<Arc<str>>() + 160)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: &str = "10.0.0.7";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_000_800 + seconds)
    }

    fn said(seats: &mut Seats, seconds: i64, pod: &'static str, service: &'static str) -> Claimed {
        seats.claim(IP, pod, || service, at(seconds))
    }

    fn found(seats: &Seats, seconds: i64) -> Option<&str> {
        seats.holder(IP, at(seconds)).map(|service| &**service)
    }

    #[test]
    fn the_latest_word_holds_and_only_for_a_while() {
        let mut seats = Seats::default();
        assert_eq!(said(&mut seats, 0, "a-1", "a"), Claimed::News);
        assert_eq!(said(&mut seats, 1, "a-1", "a"), Claimed::Again);
        assert_eq!(found(&seats, 5 * 3600), Some("a"));
        assert_eq!((found(&seats, -5 * 3600), found(&seats, -9 * 3600)), (Some("a"), None));
        assert_eq!(found(&seats, 7 * 3600), None, "not heard of for long");
        assert_eq!(said(&mut seats, 7 * 3600, "b-1", "b"), Claimed::Other);
        assert_eq!(found(&seats, 7 * 3600), Some("b"));
        assert_eq!(said(&mut seats, 3600, "a-1", "a"), Claimed::Late, "a late word of whoever was there before");
        assert_eq!(found(&seats, 7 * 3600), Some("b"));
        assert_eq!(found(&seats, 3 * 3600), None, "what began before it came is not its own");
    }

    #[test]
    fn an_address_that_two_claim_in_turns_is_nobodys() {
        let mut seats = Seats::default();
        for turn in 0..3 {
            said(&mut seats, turn * 120, "a-1", "a");
            said(&mut seats, turn * 120 + 60, "b-1", "b");
        }
        assert_eq!(found(&seats, 400), None);
    }

    #[test]
    fn made_up_addresses_are_bounded_and_counted() {
        let mut seats = Seats::default();
        for n in 0..KEPT + 10 {
            seats.claim(&format!("10.{n}"), "a-1", || "a", at(0));
        }
        assert_eq!((seats.by.len(), seats.forgotten), (KEPT, 10));
    }
}
