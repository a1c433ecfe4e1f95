//! What was too odd to be learned, as sufficient statistics: by identity, question and object, how many events there were,
//! how odd, and when; of the events themselves only the positions of the latest. It is what `accept` goes by.
//!
//! **Bounds:** `IDENTITIES` identities with `OF_ONE` statistics each and `RECORDS` positions in each, for
//! [`KEPT`] of event time; where there is no room the least odd goes, so that nobody's small oddities displace an alarm.

use std::collections::{BTreeMap, VecDeque};

use qualm_model::{
    detector::Question,
    event::Position,
    evidence::EValues,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

/// Events with fewer bits are withheld from nothing: one event in 64 may have as many by chance.
pub(crate) const ODD: f64 = 6.0;
/// Answers with smaller e-values, fewer than three bits, carry no such event.
const NOTABLE_E: f64 = 8.0;
/// How long it is known.
pub const KEPT: Span = Span(21 * Span::DAY.0);
/// Identities of which something is kept.
const IDENTITIES: usize = 512;
/// Statistics of one identity.
const OF_ONE: usize = 64;
/// Positions in one of them.
const RECORDS: usize = 4;

/// What was withheld of one identity about one question and object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Withheld {
    /// The question.
    pub question: Question,
    /// Whom it called; empty where the question is about the identity, whomever it calls.
    pub object: String,
    /// Events.
    pub events: u64,
    /// Minutes that had such an event.
    pub minutes: u64,
    /// Sum of the answers' bits.
    pub sum_bits: f64,
    /// The greatest of them.
    pub most_bits: f64,
    /// The greatest surprise, as its detector has it: bits follow from its rank among all surprises, which moves as more
    /// of them are seen; how far what was seen is from what was expected does not.
    pub most_x: f64,
    /// The first, event time.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// Where the latest of them stood.
    pub records: VecDeque<Position>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Statistics {
    of: BTreeMap<String, Vec<Withheld>>,
    /// The hour in which it was looked last for what is too old.
    hour: i64,
    /// Answers for which there was no room.
    left_out: u64,
    /// The least odd identity is at least so odd, in bits: for what is not odder there is no room, and nobody is looked
    /// through for it. It rises as long as nothing is let go for its age.
    #[serde(skip)]
    floor: f64,
    /// Since the last snapshot.
    #[serde(skip)]
    pub(crate) is_changed: bool,
}

/// Whom an answer is about: many questions are about the caller alone.
fn object_of(question: Question, whom: &str) -> &str {
    match question {
        Question::RareSource
        | Question::Rate1m
        | Question::Rate10m
        | Question::Rate1h
        | Question::Spread10m
        | Question::Spread1h
        | Question::NewCredential
        | Question::NewFingerprint
        | Question::NewNetwork
        | Question::Failing
        | Question::Refused => "",
        _ => whom,
    }
}

impl Withheld {
    fn add(&mut self, (bits, x): (f64, f64), at: Timestamp, position: Position) {
        let is_new_minute = at.window(Span::MINUTE) != self.last.window(Span::MINUTE);
        self.events += 1;
        self.minutes += u64::from(is_new_minute);
        self.sum_bits += bits;
        (self.most_bits, self.most_x) = (self.most_bits.max(bits), self.most_x.max(x));
        (self.first, self.last) = (self.first.min(at), self.last.max(at));
        if self.records.len() == RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(position);
    }
}

/// What of an event's answers is kept, in bits. What does not add up of a credential is no behaviour: it is never accepted.
fn notable(values: &EValues) -> impl Iterator<Item = (Question, f64)> {
    notable_e(values).map(|(question, e)| (question, libm::log2(e)))
}

/// The same as e-values: most events are looked at and not kept, which should cost no logarithm.
fn notable_e(values: &EValues) -> impl Iterator<Item = (Question, f64)> {
    values.answers().filter(|(question, e)| *e >= NOTABLE_E && !question.is_invariant())
}

impl Statistics {
    /// Whether nothing of an odd event finds room, which is then counted: nobody need ask what its answers are of. In a
    /// flood of callers that nobody knows that is nearly every event.
    pub(crate) fn leaves_out(&mut self, who: &str, values: &EValues) -> bool {
        if self.of.len() < IDENTITIES {
            return false;
        }
        let floor = libm::exp2(self.floor);
        // Names are looked for last: that is what costs.
        if notable_e(values).any(|(_, e)| e > floor) || self.of.contains_key(who) {
            return false;
        }
        let all = notable_e(values).count() as u64;
        self.is_changed |= all > 0;
        self.left_out += all;
        true
    }

    fn is_full_for(&self, who: &str) -> bool {
        self.of.len() >= IDENTITIES && !self.of.contains_key(who)
    }

    /// Takes in an odd event of an identity: its answers as e-values, and the surprises that they are of.
    pub(crate) fn note(
        &mut self,
        (who, whom): (&str, &str),
        (position, at): (Position, Timestamp),
        (values, surprises): (&EValues, &[(Question, f64)]),
    ) {
        for (question, bits) in notable(values) {
            let Some((_, x)) = surprises.iter().find(|(of, _)| *of == question) else { continue };
            self.is_changed = true;
            let object = object_of(question, whom);
            let added = self.place(who, (question, object), bits, at).map(|of| of.add((bits, *x), at, position));
            self.left_out += u64::from(added.is_none());
        }
    }

    /// The statistic that it belongs to; `None` where there is no room for what is so little odd.
    fn place(
        &mut self,
        who: &str,
        (question, object): (Question, &str),
        bits: f64,
        at: Timestamp,
    ) -> Option<&mut Withheld> {
        if self.is_full_for(who) {
            if bits <= self.floor {
                return None;
            }
            let least = |all: &Vec<Withheld>| all.iter().map(|of| of.most_bits).fold(0.0, f64::max);
            let (weakest, most) =
                self.of.iter().map(|(name, all)| (name, least(all))).min_by(|a, b| a.1.total_cmp(&b.1))?;
            self.floor = most;
            if most >= bits {
                return None;
            }
            let weakest = weakest.clone();
            self.of.remove(&weakest);
        }
        let all = self.of.entry(who.to_owned()).or_default();
        let is_it = |of: &Withheld| of.question == question && of.object == object;
        if let Some(index) = all.iter().position(is_it) {
            return all.get_mut(index);
        }
        if all.len() >= OF_ONE {
            let weakest = (0..all.len()).min_by(|&a, &b| all[a].most_bits.total_cmp(&all[b].most_bits))?;
            if all[weakest].most_bits >= bits {
                return None;
            }
            all.remove(weakest);
        }
        all.push(Withheld {
            question,
            object: object.to_owned(),
            events: 0,
            minutes: 0,
            sum_bits: 0.0,
            most_bits: 0.0,
            most_x: 0.0,
            first: at,
            // The minute of its first event is a new one.
            last: at - Span::MINUTE,
            records: VecDeque::new(),
        });
        all.last_mut()
    }

    /// Lets go, once an hour, of what is too old.
    pub(crate) fn age(&mut self, now: Timestamp) {
        let hour = now.window(Span::HOUR);
        if hour <= self.hour {
            return;
        }
        self.hour = hour;
        let is_old = |of: &Withheld| now - of.last > KEPT;
        if !self.of.values().flatten().any(is_old) {
            return;
        }
        self.is_changed = true;
        self.floor = 0.0;
        self.of.values_mut().for_each(|all| all.retain(|of| !is_old(of)));
        self.of.retain(|_, all| !all.is_empty());
    }

    /// What was withheld of an identity, about one question or all, and one object or all; the oddest first.
    pub(crate) fn of(&self, who: &str, question: Option<Question>, object: Option<&str>) -> Vec<&Withheld> {
        let all = self.of.get(who).map(Vec::as_slice).unwrap_or_default();
        let is_meant = |of: &&Withheld| {
            question.is_none_or(|question| of.question == question) && object.is_none_or(|object| of.object == object)
        };
        let mut meant: Vec<&Withheld> = all.iter().filter(is_meant).collect();
        meant.sort_by(|a, b| b.most_bits.total_cmp(&a.most_bits));
        meant
    }

    /// Answers for which there was no room so far.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd(bits: f64) -> EValues {
        let mut values = EValues::default();
        values.set(Question::RarePeer, libm::exp2(bits));
        values.set(Question::Rate1m, 1.5);
        values.set(Question::AfterRevocation, 1e9);
        values
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn note(statistics: &mut Statistics, who: &str, whom: &str, bits: f64, seconds: i64) {
        let position = Position { offset: seconds, ..Position::default() };
        let surprises = [(Question::RarePeer, 2.0 * bits), (Question::Rate1m, 1.0), (Question::AfterRevocation, 9.0)];
        if !statistics.leaves_out(who, &odd(bits)) {
            statistics.note((who, whom), (position, at(seconds)), (&odd(bits), &surprises));
        }
    }

    #[test]
    fn what_was_odd_is_counted_by_question_and_object_and_its_events_by_position_alone() {
        let mut statistics = Statistics::default();
        for second in [0, 1, 61, 62, 63, 64] {
            note(&mut statistics, "cart", "till", 8.0 + second as f64 / 100.0, second);
        }
        note(&mut statistics, "cart", "cache", 7.0, 65);
        let [till, cache] = statistics.of("cart", None, None).try_into().expect("two objects, and one question each");
        assert_eq!((till.question, till.events, till.minutes, till.most_bits), (Question::RarePeer, 6, 2, 8.64));
        assert_eq!(till.most_x, 2.0 * 8.64);
        assert_eq!(till.records.iter().map(|of| of.offset).collect::<Vec<_>>(), [61, 62, 63, 64]);
        assert_eq!((cache.events, cache.minutes, cache.object.as_str()), (1, 1, "cache"));
        assert_eq!(statistics.of("cart", Some(Question::RarePeer), Some("cache")).len(), 1);
        assert_eq!(statistics.of("cart", Some(Question::Rate1m), None).len(), 0, "what is little odd is no part");
    }

    #[test]
    fn many_small_oddities_of_many_displace_no_great_one_and_are_counted() {
        let mut statistics = Statistics::default();
        note(&mut statistics, "cart", "till", 20.0, 0);
        for who in 0..3 * IDENTITIES {
            note(&mut statistics, &format!("flooder-{who}"), "till", 7.0, 1);
        }
        (0..100).for_each(|whom| note(&mut statistics, "cart", &format!("peer-{whom}"), 7.0, 2));
        assert_eq!((statistics.of.len(), statistics.of["cart"].len()), (IDENTITIES, OF_ONE));
        assert_eq!(statistics.of("cart", None, None)[0].most_bits, 20.0);
        let expected = 3 * IDENTITIES - (IDENTITIES - 1) + 100 - (OF_ONE - 1);
        assert_eq!(statistics.left_out(), expected as u64);
        note(&mut statistics, "late", "till", 7.5, 3);
        assert_eq!(statistics.of("late", None, None).len(), 1, "what is odder than the least odd finds room");
    }

    #[test]
    fn what_is_older_than_three_weeks_is_known_no_more() {
        let mut statistics = Statistics::default();
        note(&mut statistics, "cart", "till", 9.0, 0);
        statistics.age(at(0) + KEPT);
        assert_eq!(statistics.of("cart", None, None).len(), 1);
        statistics.age(at(0) + KEPT + Span::HOUR);
        assert_eq!(statistics.of("cart", None, None).len(), 0);
    }
}
