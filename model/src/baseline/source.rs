//! What is usual for one source.

use serde::{Deserialize, Serialize};

use super::{SiblingRate, Turned};
use crate::{
    detector::{
        Bigger, Detector, Deviation, Failing, Novelty, Observation, Question, Rarity, Rate, Refused, Silence, Spread,
    },
    evidence::{EValues, Habit},
    stats::{ETable, Exposure, trust},
    time::{Span, Timestamp},
};

/// What of this event is new for its source; `None` where the event has no such attribute.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstTimes {
    /// The operation.
    pub operation: Option<bool>,
    /// The credential.
    pub credential: Option<bool>,
    /// The TLS fingerprint.
    pub fingerprint: Option<bool>,
    /// The network, and how rare it is that a new address is so far from all known ones.
    pub network: Option<(bool, f64)>,
}

impl FirstTimes {
    #[inline]
    fn network_seen(&self, seen: &Observation) -> Option<Observation> {
        self.network.map(|(novel, odds)| Observation { novel: Some(novel), more: odds, ..*seen })
    }
}

/// What is usual for one source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceBaseline {
    rarity: Rarity,
    rate_1m: Rate<60>,
    rate_10m: Rate<600>,
    rate_1h: Rate<3600>,
    spread_10m: Spread<600>,
    spread_1h: Spread<3600>,
    operations: Novelty,
    credentials: Novelty,
    fingerprints: Novelty,
    networks: Novelty,
    failing: Failing,
    refused: Refused,
    /// Over all its edges: what stands in for an edge that is too new to have a usual size.
    bigger: Bigger,
    /// The biggest and the longest call of the open minute, `1 + surprise`; 0 without any.
    remarks: [f64; 2],
    /// Its notable hours.
    pub habit: Habit,
    #[serde(skip)]
    turned: Turned,
}

/// How often a part of a source calls, counted before the part is known as a source of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CallRates {
    rate_1m: Rate<60>,
    rate_10m: Rate<600>,
    rate_1h: Rate<3600>,
}

impl CallRates {
    /// Counts a call; its exposure begins when the counting did.
    pub fn learn(&mut self, seen: &Observation) {
        self.rate_1m.learn_one(seen);
        self.rate_10m.learn_one(seen);
        self.rate_1h.learn_one(seen);
    }
}

impl SourceBaseline {
    /// What is usual for a part of this source that calls so often. How many it calls for the first time was not counted
    /// part by part: hardly any, as whatever it calls is known of it.
    #[must_use]
    pub fn part(&self, rates: CallRates) -> Self {
        let CallRates { rate_1m, rate_10m, rate_1h } = rates;
        Self {
            rate_1m,
            rate_10m,
            rate_1h,
            spread_10m: Spread::default(),
            spread_1h: Spread::default(),
            remarks: [0.0; 2],
            turned: Turned::default(),
            ..self.clone()
        }
    }

    /// A source that has siblings starts with what is usual among them.
    pub fn inheriting(exposure: Exposure, minute: &SiblingRate) -> Self {
        let Some(rate_1m) = minute.inherit(exposure, Span::MINUTE) else { return Self::default() };
        // Longer windows hold more minutes of the same; their squares grow faster, so that dispersion is kept.
        let longer = |minutes: f64| SiblingRate {
            windows: minute.windows,
            sum: minute.sum * minutes,
            squares: minute.squares * minutes * minutes,
        };
        let of = |minutes: f64, length| longer(minutes).inherit(exposure, length).unwrap_or_default();
        Self {
            rate_1m: rate_1m.into(),
            rate_10m: of(10.0, Span(10 * Span::MINUTE.0)).into(),
            rate_1h: of(60.0, Span::HOUR).into(),
            ..Self::default()
        }
    }

    /// Asks all questions about the source; returns how far the event is to be learned.
    #[inline]
    pub fn score(&self, seen: &Observation, first: FirstTimes, answer: &mut impl FnMut(Question, Deviation)) -> f64 {
        let mut ask = |question, deviation: Option<Deviation>| {
            if let Some(deviation) = deviation {
                answer(question, deviation);
            }
        };
        ask(Question::RareSource, self.rarity.score_one(seen));
        ask(Question::Rate10m, self.rate_10m.score_one(seen));
        ask(Question::Rate1h, self.rate_1h.score_one(seen));
        ask(Question::Spread10m, self.spread_10m.score_one(seen));
        ask(Question::Spread1h, self.spread_1h.score_one(seen));
        let novel = |novel| Observation { novel, ..*seen };
        if first.operation.is_some() {
            ask(Question::NewOperation, self.operations.score_one(&novel(first.operation)));
        }
        if first.credential.is_some() {
            ask(Question::NewCredential, self.credentials.score_one(&novel(first.credential)));
        }
        if first.fingerprint.is_some() {
            ask(Question::NewFingerprint, self.fingerprints.score_one(&novel(first.fingerprint)));
        }
        if let Some(seen) = first.network_seen(seen) {
            ask(Question::NewNetwork, self.networks.score_one(&seen));
        }
        ask(Question::Failing, self.failing.score_one(seen));
        ask(Question::Refused, self.refused.score_one(seen));
        match self.rate_1m.score_one(seen) {
            Some(minute) => {
                answer(Question::Rate1m, minute);
                trust(minute.x - 1.0)
            }
            None => 1.0,
        }
    }

    /// As [`EdgeBaseline::usual`](super::EdgeBaseline::usual).
    pub fn usual(&self, question: Question) -> Option<(f64, f64)> {
        match question {
            Question::Rate1m => Some(self.rate_1m.counts().usual()),
            Question::Rate10m => Some(self.rate_10m.counts().usual()),
            Question::Rate1h => Some(self.rate_1h.counts().usual()),
            Question::Spread10m => Some(self.spread_10m.counts().usual()),
            Question::Spread1h => Some(self.spread_1h.counts().usual()),
            Question::Silence => Some(self.rate_10m.counts().calm().usual()),
            Question::Failing => Some(self.failing.usual()),
            Question::Refused => Some(self.refused.usual()),
            Question::Bigger => self.bigger.usual(),
            _ => None,
        }
    }

    /// Closes the windows that have ended; `sample` takes what they give to the mesh's histograms, `siblings` the count
    /// of each closed minute. An event that is to be learned closes them before it is judged.
    #[inline]
    pub fn turn(&mut self, exposure: Exposure, siblings: &mut SiblingRate, sample: &mut impl FnMut(Question, f64)) {
        if self.turned.is_due(exposure) {
            self.close_windows(exposure, siblings, sample);
        }
    }

    fn close_windows(
        &mut self,
        exposure: Exposure,
        siblings: &mut SiblingRate,
        sample: &mut impl FnMut(Question, f64),
    ) {
        let mut take = |question, closed: Option<f64>| {
            if let Some(x) = closed {
                sample(question, x);
            }
        };
        take(Question::RareSource, self.rarity.turn(exposure));
        let minute = self.rate_1m.counts().count();
        let closed = self.rate_1m.turn(exposure);
        if closed.is_some() {
            siblings.add(minute);
        }
        take(Question::Rate1m, closed);
        if closed.is_some() {
            let [biggest, longest] = std::mem::take(&mut self.remarks);
            take(Question::Bigger, (biggest > 0.0).then_some(biggest.max(1.0)));
            take(Question::Longer, (longest > 0.0).then_some(longest.max(1.0)));
        }
        take(Question::Rate10m, self.rate_10m.turn(exposure));
        take(Question::Rate1h, self.rate_1h.turn(exposure));
        take(Question::Spread10m, self.spread_10m.turn(exposure));
        take(Question::Spread1h, self.spread_1h.turn(exposure));
    }

    /// The answers of [`score`](Self::score) as e-values, after [`turn`](Self::turn), without the reasons; returns how
    /// far the event is to be learned.
    #[inline]
    pub fn judge(&mut self, seen: &Observation, first: FirstTimes, tables: &[ETable], values: &mut EValues) -> f64 {
        let table = |question: Question| &tables[question as usize];
        values.set(Question::RareSource, self.rarity.e(table(Question::RareSource)));
        values.set(Question::Rate1m, self.rate_1m.e(seen, table(Question::Rate1m)));
        values.set(Question::Rate10m, self.rate_10m.e(seen, table(Question::Rate10m)));
        values.set(Question::Rate1h, self.rate_1h.e(seen, table(Question::Rate1h)));
        let contacts = if seen.first_contact { seen.more } else { 0.0 };
        values.set(Question::Spread10m, self.spread_10m.e(contacts, table(Question::Spread10m)));
        values.set(Question::Spread1h, self.spread_1h.e(contacts, table(Question::Spread1h)));
        let mut ask = |question, deviation: Option<Deviation>| {
            if let Some(deviation) = deviation {
                values.set(question, table(question).e(deviation.x));
            }
        };
        let novel = |novel| Observation { novel, ..*seen };
        if first.operation.is_some() {
            ask(Question::NewOperation, self.operations.score_one(&novel(first.operation)));
        }
        if first.credential.is_some() {
            ask(Question::NewCredential, self.credentials.score_one(&novel(first.credential)));
        }
        if first.fingerprint.is_some() {
            ask(Question::NewFingerprint, self.fingerprints.score_one(&novel(first.fingerprint)));
        }
        if let Some(seen) = first.network_seen(seen) {
            ask(Question::NewNetwork, self.networks.score_one(&seen));
        }
        ask(Question::Failing, self.failing.score_one(seen));
        ask(Question::Refused, self.refused.score_one(seen));
        self.rate_1m.counts().trust(seen.made_within(60))
    }

    /// Counts an event of which nothing is to be learned, after [`turn`](Self::turn): how much goes on is asked all the
    /// same, and the windows are let go of when they close.
    #[inline]
    pub fn count(&mut self, seen: &Observation) {
        self.add_to_windows(seen);
        self.failing.learn_one(seen);
        self.refused.learn_one(seen);
    }

    #[inline]
    fn add_to_windows(&mut self, seen: &Observation) {
        self.rate_1m.learn_open(seen);
        self.rate_10m.learn_open(seen);
        self.rate_1h.learn_open(seen);
        if seen.first_contact {
            self.spread_10m.learn_open(seen.more);
            self.spread_1h.learn_open(seen.more);
        }
    }

    /// Learns the event, after [`turn`](Self::turn); `sample` as there.
    #[inline]
    pub fn learn(&mut self, seen: &Observation, first: FirstTimes, sample: &mut impl FnMut(Question, f64)) {
        self.rarity.learn_open(seen.weight * seen.more);
        self.add_to_windows(seen);
        let mut take = |question, closed: Option<f64>| {
            if let Some(x) = closed {
                sample(question, x);
            }
        };
        let novel = |novel| Observation { novel, ..*seen };
        if first.operation.is_some() {
            take(Question::NewOperation, self.operations.learn_one(&novel(first.operation)));
        }
        if first.credential.is_some() {
            take(Question::NewCredential, self.credentials.learn_one(&novel(first.credential)));
        }
        if first.fingerprint.is_some() {
            take(Question::NewFingerprint, self.fingerprints.learn_one(&novel(first.fingerprint)));
        }
        if let Some(seen) = first.network_seen(seen) {
            take(Question::NewNetwork, self.networks.learn_one(&seen));
        }
        take(Question::Failing, self.failing.learn_one(seen));
        take(Question::Refused, self.refused.learn_one(seen));
        // Its sample is not one more of the edges' sizes: the histogram is of what is usual on an edge.
        self.bigger.learn_one(seen);
    }

    /// Notes how big or how long a call on one of its edges was: the most remarkable one of a minute is a sample of the
    /// mesh's histogram, as one call of a minute is what counts.
    #[inline]
    pub fn remark(&mut self, question: Question, x: f64) {
        let place = usize::from(question == Question::Longer);
        self.remarks[place] = self.remarks[place].max(x);
    }

    /// Calls of a minute, as expected, or already seen in the open one.
    #[inline]
    pub fn crowd(&self) -> f64 {
        let counts = self.rate_1m.counts();
        counts.mean().max(counts.count())
    }

    /// Whether nearly all its calls are told of when they are made. What is told of long after, as streams are at their end,
    /// cannot be missed in time.
    #[inline]
    pub fn is_timely(&self) -> bool {
        let counts = self.rate_10m.counts();
        counts.timely_mean() >= 0.9 * counts.calm_mean()
    }

    /// Whether the source has fallen silent, asked at the end of a ten-minute window.
    #[inline]
    pub fn score_silence(&self, exposure: Exposure) -> Option<Deviation> {
        let ended = Observation { more: 0.0, ..Observation::at(exposure) };
        let counts = self.rate_10m.counts();
        if counts.timely_mean() < Silence::LEAST_EXPECTED || !self.is_timely() {
            return None;
        }
        Silence::from(counts.calm()).score_one(&ended)
    }

    /// Takes back a first contact made at `since` that was recognised as an honest change.
    pub fn withdraw_contact(&mut self, since: Timestamp) {
        self.spread_10m.withdraw(since);
        self.spread_1h.withdraw(since);
    }

    /// Whether the call is bigger than this source's calls usually are, to whomever.
    pub fn score_size(&self, seen: &Observation) -> Option<Deviation> {
        self.bigger.score_one(seen)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.habit.heap_bytes() + self.bigger.heap_bytes()
    }

    /// Trusted volume of calls.
    pub fn volume(&self) -> f64 {
        self.rarity.total()
    }

    /// Expected calls a minute, without any tide.
    pub fn calls_a_minute(&self) -> f64 {
        self.rate_1m.counts().timely_mean()
    }
}
