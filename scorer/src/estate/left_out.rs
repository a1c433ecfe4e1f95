//! What inputs seem to leave out although nobody has said so: only errors, only slow calls, or a part of all calls.
//!
//! The first calls of every hour are looked at, by input. An hour looks filtered by how many callers, or destinations,
//! it looks so of, not by how many calls: a flood of errors comes from few, and an outage ends. Only after many hours in
//! a row that all look so, and none that does not, is an input taken to be filtered; the first hour that does not look
//! so ends it.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    hash::BuildHasher,
};

use foldhash::fast;
use qualm_model::{
    event::{Event, Filter, Kind, Outcome, Position},
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

/// Calls of an hour that are looked at.
const LOOKED_AT: u32 = 2000;
/// Fewer say nothing.
const LEAST: u32 = 200;
/// Fewer callers, or destinations, say nothing.
const KEYS: usize = 5;
/// Calls of a destination by which its shortest is known.
const CALLS: u32 = 50;
/// No more than this share of the callers succeeds at anything where only errors are told of.
const SUCCEEDING: f64 = 0.05;
/// Where short calls are left out, the shortest of nearly all destinations last about as long, and not less than this.
const SHORT: Span = Span(5_000_000);
const ALIKE: f64 = 1.2;
const NEARLY_ALL: f64 = 0.9;
/// Share of the calls of which only one end has told, where both do, that is no accident.
const MISSING: f64 = 0.05;
/// Hours in a row after which an input is taken to be filtered; where it was known to be not, a whole day.
const HOURS: u32 = 6;
const HOURS_OF_CHANGE: u32 = 24;
/// Inputs kept: topics, files, and peers that push.
const INPUTS: usize = 1024;

/// The kinds, the gravest first.
const KINDS: [Filter; 3] = [Filter::Errors, Filter::Slow, Filter::Sampled];

/// What an input seems to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// Index of the topic or file in the configuration.
    pub source: u16,
    /// The lane of a peer that pushes, below 0; 0 otherwise.
    pub lane: i32,
    /// What is left out.
    pub filter: Filter,
    /// Since when every hour has looked so.
    pub since: Timestamp,
}

/// The calls of one hour.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Hour {
    number: i64,
    calls: u32,
    /// By caller, whether it succeeded at anything.
    callers: HashMap<u64, bool, fast::FixedState>,
    /// By destination, calls and the shortest of them.
    shortest: HashMap<u64, (u32, i64), fast::FixedState>,
    /// Calls of which both ends told, and of which only one did.
    told: [u32; 2],
}

/// How an hour looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    Filtered,
    Whole,
    /// Too little was seen.
    Unsaid,
}

/// One kind of filter at one input.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Suspicion {
    /// Hours in a row that looked so.
    hours: u32,
    since: Timestamp,
    /// Whether an hour ever did not.
    was_whole: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Input {
    hour: Hour,
    suspicions: [Suspicion; 3],
}

/// All inputs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Inputs(BTreeMap<(u16, i32), Input>);

impl Hour {
    fn note(&mut self, event: Event<'_>) {
        self.calls += 1;
        let key = |principal: &str| fast::FixedState::default().hash_one(principal);
        let succeeded = event.outcome() == Outcome::Success;
        *self.callers.entry(key(event.source().principal())).or_default() |= succeeded;
        if let Some(lasted) = event.duration_ns() {
            let (calls, shortest) = self.shortest.entry(key(event.destination().principal())).or_insert((0, i64::MAX));
            (*calls, *shortest) = (*calls + 1, lasted.min(*shortest));
        }
    }

    fn looks(&self, filter: Filter) -> Looks {
        match filter {
            Filter::Errors => self.looks_like_errors(),
            Filter::Slow => self.looks_slow(),
            Filter::Sampled => self.looks_sampled(),
            Filter::None => Looks::Unsaid,
        }
    }

    fn looks_like_errors(&self) -> Looks {
        if self.calls < LEAST || self.callers.len() < KEYS {
            return Looks::Unsaid;
        }
        let succeeding = self.callers.values().filter(|&&succeeded| succeeded).count();
        if succeeding as f64 <= SUCCEEDING * self.callers.len() as f64 { Looks::Filtered } else { Looks::Whole }
    }

    fn looks_slow(&self) -> Looks {
        let known = || self.shortest.values().filter(|(calls, _)| *calls >= CALLS).map(|&(_, shortest)| shortest);
        let Some(least) = known().min().filter(|_| known().count() >= KEYS) else { return Looks::Unsaid };
        let alike = known().filter(|&shortest| shortest as f64 <= ALIKE * least as f64).count();
        let is_cut = least >= SHORT.0 && alike as f64 >= NEARLY_ALL * known().count() as f64;
        if is_cut { Looks::Filtered } else { Looks::Whole }
    }

    fn looks_sampled(&self) -> Looks {
        let [both, one] = self.told;
        if both + one < LEAST {
            return Looks::Unsaid;
        }
        let missing = f64::from(one) / f64::from(both + one);
        if (MISSING..1.0 - MISSING).contains(&missing) { Looks::Filtered } else { Looks::Whole }
    }
}

impl Input {
    /// Ends the hour where `now` is in a later one.
    fn turn(&mut self, now: Timestamp) {
        let number = now.window(Span::HOUR);
        if number <= self.hour.number {
            return;
        }
        let ended = Timestamp(self.hour.number * Span::HOUR.0);
        for (suspicion, filter) in self.suspicions.iter_mut().zip(KINDS) {
            match self.hour.looks(filter) {
                Looks::Unsaid => {}
                Looks::Whole => *suspicion = Suspicion { was_whole: true, ..Suspicion::default() },
                Looks::Filtered => {
                    suspicion.since = if suspicion.hours == 0 { ended } else { suspicion.since };
                    suspicion.hours = suspicion.hours.saturating_add(1);
                }
            }
        }
        self.hour = Hour { number, ..Hour::default() };
    }

    fn found(&self) -> Option<(Filter, Timestamp)> {
        let is_found = |of: &Suspicion| of.hours >= if of.was_whole { HOURS_OF_CHANGE } else { HOURS };
        let at = self.suspicions.iter().position(is_found)?;
        Some((KINDS[at], self.suspicions[at].since))
    }
}

impl Inputs {
    /// Looks at a record of a call.
    #[inline]
    pub(super) fn note(&mut self, event: Event<'_>) {
        if let Some(input) = self.input(event.position(), event.report())
            && input.hour.calls < LOOKED_AT
            && event.kind() != Kind::Authentication
            && event.outcome() != Outcome::Unknown
        {
            input.hour.note(event);
        }
    }

    /// Takes note that both ends have told of a call, the later of them here.
    #[inline]
    pub(super) fn agree(&mut self, position: Position, now: Timestamp) {
        if let Some(input) = self.input(position, now) {
            input.hour.told[0] = input.hour.told[0].saturating_add(1);
        }
    }

    /// Takes note that only one end has told of a call, here, although the other tells of calls.
    pub(super) fn miss(&mut self, position: Position, now: Timestamp) {
        if let Some(input) = self.input(position, now) {
            input.hour.told[1] = input.hour.told[1].saturating_add(1);
        }
    }

    #[inline]
    fn input(&mut self, position: Position, now: Timestamp) -> Option<&mut Input> {
        let has_place = self.0.len() < INPUTS;
        let input = match self.0.entry(key_of(position)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) if has_place => place.insert(Input::default()),
            Entry::Vacant(_) => return None,
        };
        input.turn(now);
        Some(input)
    }

    /// What the input of a record seems to leave out.
    #[inline]
    pub(super) fn filter(&self, position: Position) -> Filter {
        self.0.get(&key_of(position)).and_then(Input::found).map_or(Filter::None, |(filter, _)| filter)
    }

    /// All inputs that seem to leave something out.
    pub(super) fn found(&self) -> Vec<LeftOut> {
        let found = |(&(source, lane), input): (&(u16, i32), &Input)| {
            let (filter, since) = input.found()?;
            Some(LeftOut { source, lane, filter, since })
        };
        self.0.iter().filter_map(found).collect()
    }

    /// Gives the sources the numbers that they have now; those without one are let go.
    pub(super) fn renumber(&mut self, number: impl Fn(u16) -> Option<u16>) {
        let inputs = std::mem::take(&mut self.0).into_iter();
        self.0 = inputs.filter_map(|((source, lane), input)| Some(((number(source)?, lane), input))).collect();
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let keys = |input: &Input| 2 * (input.hour.callers.len() + input.hour.shortest.len()) * 32;
        self.0.values().map(|input| keys(input) + size_of::<Input>() + 64).sum()
    }
}

/// Of topics and files the whole, of peers that push each.
#[inline]
fn key_of(position: Position) -> (u16, i32) {
    (position.source, position.partition.min(0))
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, EventDraft, Party};

    use super::*;

    const BEGUN: Timestamp = Timestamp(1_000_000 * Span::HOUR.0);

    /// A call of one of twenty callers to one of ten destinations.
    #[derive(Clone, Copy)]
    struct Call {
        caller: u32,
        fails: bool,
        lasted: i64,
    }

    fn batch(at: Timestamp, calls: &[Call]) -> EventBatch {
        let mut builder = EventBuilder::new();
        for call in calls {
            let (caller, called) = (format!("caller-{}", call.caller), format!("called-{}", call.caller % 10));
            builder.push(&EventDraft {
                start: at,
                report: at,
                source: Party { principal: &caller, ..Party::default() },
                destination: Party { principal: &called, ..Party::default() },
                outcome: if call.fails { Outcome::Failure } else { Outcome::Success },
                duration_ns: Some(call.lasted),
                ..EventDraft::default()
            });
        }
        builder.finish()
    }

    /// Hours one after the other; what is found after them.
    fn after(inputs: &mut Inputs, from: i64, hours: i64, call: impl Fn(u32) -> Call) -> Filter {
        for hour in from..from + hours {
            let calls: Vec<Call> = (0..1500).map(&call).collect();
            let batch = batch(BEGUN + Span(hour * Span::HOUR.0), &calls);
            batch.events().for_each(|event| inputs.note(event));
        }
        inputs.input(Position::default(), BEGUN + Span((from + hours) * Span::HOUR.0));
        inputs.filter(Position::default())
    }

    fn whole(i: u32) -> Call {
        Call { caller: i % 20, fails: i.is_multiple_of(50), lasted: i64::from(i % 97 + 1) * 300_000 }
    }

    fn failing(i: u32) -> Call {
        Call { fails: true, ..whole(i) }
    }

    /// Whatever took less than 100 ms is left out.
    fn slow(i: u32) -> Call {
        Call { lasted: 100_000_000 + i64::from(i / 20) * 1_000_000, ..whole(i) }
    }

    #[test]
    fn an_input_that_tells_of_nothing_but_errors_for_hours_is_known_by_it() {
        let mut inputs = Inputs::default();
        assert_eq!(after(&mut inputs, 0, 5, failing), Filter::None, "it may be an outage");
        assert_eq!(after(&mut inputs, 5, 1, failing), Filter::Errors);
        let [found] = inputs.found()[..] else { panic!("{inputs:?}") };
        assert_eq!((found.filter, found.since), (Filter::Errors, BEGUN));
        assert_eq!(after(&mut inputs, 6, 1, whole), Filter::None, "the first whole hour ends it");
    }

    #[test]
    fn an_input_that_was_whole_loses_nothing_by_an_outage_of_less_than_a_day() {
        let mut inputs = Inputs::default();
        assert_eq!(after(&mut inputs, 0, 3, whole), Filter::None);
        assert_eq!(after(&mut inputs, 3, 23, failing), Filter::None);
        assert_eq!(after(&mut inputs, 26, 1, failing), Filter::Errors, "somebody has changed what is logged");
    }

    #[test]
    fn a_flood_of_errors_is_no_log_of_errors() {
        let mut inputs = Inputs::default();
        // All but a few of the calls are one caller's, and fail.
        let flood = |i: u32| if i.is_multiple_of(50) { whole(i / 50 + 1) } else { Call { caller: 0, ..failing(i) } };
        assert_eq!(after(&mut inputs, 0, 30, flood), Filter::None);
    }

    #[test]
    fn calls_that_nowhere_last_less_than_one_time_are_what_a_filter_has_left() {
        let mut inputs = Inputs::default();
        assert_eq!(after(&mut inputs, 0, 6, slow), Filter::Slow);
        let mut inputs = Inputs::default();
        // Slow as well, but each destination has a time of its own.
        let honest = |i: u32| Call { lasted: slow(i).lasted * i64::from(i % 10 + 1), ..whole(i) };
        assert_eq!(after(&mut inputs, 0, 30, honest), Filter::None);
    }

    #[test]
    fn where_one_end_tells_of_a_part_of_the_calls_it_is_a_sample() {
        let mut inputs = Inputs::default();
        let told = |inputs: &mut Inputs, hours: std::ops::Range<i64>, missing: u32| {
            for hour in hours {
                let now = BEGUN + Span(hour * Span::HOUR.0);
                (0..1000).for_each(|i| {
                    if i % 100 < missing {
                        inputs.miss(Position::default(), now);
                    } else {
                        inputs.agree(Position::default(), now);
                    }
                });
            }
            inputs.filter(Position::default())
        };
        assert_eq!(told(&mut inputs, 0..30, 2), Filter::None, "some are lost on the way");
        let mut inputs = Inputs::default();
        assert_eq!(told(&mut inputs, 0..7, 90), Filter::Sampled);
    }
}
