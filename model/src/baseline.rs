//! The detectors of one source, one edge, one destination.

use serde::{Deserialize, Serialize};

use crate::{
    detector::{
        Bigger, Detector, Deviation, Failing, Longer, Novelty, Observation, Question, Rarity, Rate, Refused, Silence,
        Spread,
    },
    evidence::{EValues, Habit},
    stats::{ETable, Exposure, WindowCount, trust},
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
}

/// The minute for which a baseline has closed its windows, and the tide that its counts expect: all windows are whole
/// minutes, so that nothing more changes before the next of either.
#[derive(Debug, Clone, Copy)]
struct Turned {
    minute: i64,
    tide: f64,
}

impl Default for Turned {
    fn default() -> Self {
        Self { minute: i64::MIN, tide: 1.0 }
    }
}

impl PartialEq for Turned {
    /// Turning twice is turning once: a baseline that has to look again is the same.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Turned {
    /// Whether windows may have ended or the tide turned since the last time.
    #[inline]
    fn is_due(&mut self, exposure: Exposure) -> bool {
        let minute = exposure.now.window(Span::MINUTE);
        let due = minute > self.minute || exposure.tide != self.tide;
        *self = Self { minute: self.minute.max(minute), tide: exposure.tide };
        due
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
    failing: Failing,
    refused: Refused,
    /// Over all its edges: what stands in for an edge that is too new to have a usual size.
    bigger: Bigger,
    /// Its notable hours.
    pub habit: Habit,
    #[serde(skip)]
    turned: Turned,
}

/// What is usual among the siblings of a new source: mean and mean square of the calls of one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SiblingRate {
    /// Windows of siblings that this rests on.
    pub windows: f64,
    /// Sum of their counts.
    pub sum: f64,
    /// Sum of the squares of their counts.
    pub squares: f64,
}

impl SiblingRate {
    /// Takes in the count of one closed window.
    pub fn add(&mut self, count: f64) {
        self.windows += 1.0;
        self.sum += count;
        self.squares += count * count;
    }

    /// Takes in what another shard has seen.
    pub fn merge(&mut self, other: &Self) {
        self.windows += other.windows;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    fn inherit(&self, exposure: Exposure, length: Span) -> Option<WindowCount> {
        (self.windows >= 30.0)
            .then(|| WindowCount::inheriting(exposure, length, self.sum / self.windows, self.squares / self.windows))
    }
}

impl SourceBaseline {
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
        ask(Question::Failing, self.failing.score_one(seen));
        ask(Question::Refused, self.refused.score_one(seen));
        self.rate_1m.counts().trust(seen.made_within(60))
    }

    /// Learns the event, after [`turn`](Self::turn); `sample` as there.
    #[inline]
    pub fn learn(&mut self, seen: &Observation, first: FirstTimes, sample: &mut impl FnMut(Question, f64)) {
        self.rarity.learn_open(seen.weight * seen.more);
        self.rate_1m.learn_open(seen);
        self.rate_10m.learn_open(seen);
        self.rate_1h.learn_open(seen);
        if seen.first_contact {
            self.spread_10m.learn_open(seen.more);
            self.spread_1h.learn_open(seen.more);
        }
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
        take(Question::Failing, self.failing.learn_one(seen));
        take(Question::Refused, self.refused.learn_one(seen));
        // Its sample is not one more of the edges' sizes: the histogram is of what is usual on an edge.
        self.bigger.learn_one(seen);
    }

    /// Whether the source has fallen silent, asked at the end of a ten-minute window.
    #[inline]
    pub fn score_silence(&self, exposure: Exposure) -> Option<Deviation> {
        let ended = Observation { more: 0.0, ..Observation::at(exposure) };
        let counts = self.rate_10m.counts();
        // What is told of long after it was made cannot be missed in time.
        if counts.timely_mean() < Silence::LEAST_EXPECTED || counts.timely_mean() < 0.9 * counts.calm_mean() {
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

/// What is usual on one edge, from one source to one destination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeBaseline {
    rarity: Rarity,
    rate: Rate<600>,
    bigger: Bigger,
    longer: Longer,
    #[serde(skip)]
    turned: Turned,
}

impl EdgeBaseline {
    /// Asks all questions about the edge.
    #[inline]
    pub fn score(&self, seen: &Observation, answer: &mut impl FnMut(Question, Deviation)) {
        if let Some(deviation) = self.rarity.score_one(seen) {
            answer(Question::RarePeer, deviation);
        }
        if let Some(deviation) = self.rate.score_one(seen) {
            answer(Question::EdgeRate, deviation);
        }
        if let Some(deviation) = self.bigger.score_one(seen) {
            answer(Question::Bigger, deviation);
        }
        if let Some(deviation) = self.longer.score_one(seen) {
            answer(Question::Longer, deviation);
        }
    }

    /// Closes the windows that have ended; see [`SourceBaseline::turn`].
    #[inline]
    pub fn turn(&mut self, exposure: Exposure, sample: &mut impl FnMut(Question, f64)) {
        if !self.turned.is_due(exposure) {
            return;
        }
        if let Some(x) = self.rarity.turn(exposure) {
            sample(Question::RarePeer, x);
        }
        if let Some(x) = self.rate.turn(exposure) {
            sample(Question::EdgeRate, x);
        }
    }

    /// The answers of [`score`](Self::score) as e-values, after [`turn`](Self::turn), without the reasons.
    #[inline]
    pub fn judge(&mut self, seen: &Observation, tables: &[ETable], values: &mut EValues) {
        let table = |question: Question| &tables[question as usize];
        values.set(Question::RarePeer, self.rarity.e(table(Question::RarePeer)));
        values.set(Question::EdgeRate, self.rate.e(seen, table(Question::EdgeRate)));
        if let Some(deviation) = self.bigger.score_one(seen) {
            values.set(Question::Bigger, table(Question::Bigger).e(deviation.x));
        }
        if let Some(deviation) = self.longer.score_one(seen) {
            values.set(Question::Longer, table(Question::Longer).e(deviation.x));
        }
    }

    /// Learns the event, after [`turn`](Self::turn).
    #[inline]
    pub fn learn(&mut self, seen: &Observation, sample: &mut impl FnMut(Question, f64)) {
        self.rarity.learn_open(seen.weight * seen.more);
        self.rate.learn_open(seen);
        if let Some(x) = self.bigger.learn_one(seen) {
            sample(Question::Bigger, x);
        }
        if let Some(x) = self.longer.learn_one(seen) {
            sample(Question::Longer, x);
        }
    }

    /// Trusted volume of calls.
    pub fn volume(&self) -> f64 {
        self.rarity.total()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bigger.heap_bytes() + self.longer.heap_bytes()
    }
}

/// What was seen of one destination since the last summary.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Received {
    /// Calls.
    pub calls: f64,
    /// Of these, those that were made within the minute before they were told of.
    pub made: f64,
    /// Trusted share of the calls, as a number of them.
    pub weight: f64,
    /// Callers that had not called before.
    pub first_contacts: f64,
}

/// What is usual for one destination, whoever calls it. Lives in the mesh's summaries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DestinationBaseline {
    rarity: Rarity,
    rate: Rate<60>,
    fan_in: Spread<600>,
}

impl DestinationBaseline {
    /// Asks all questions about the destination, with the calls `made` and the `first_contacts` of this shard since the
    /// last summary, this event among them.
    #[inline]
    pub fn score(
        &self,
        seen: &Observation,
        made: f64,
        first_contacts: f64,
        answer: &mut impl FnMut(Question, Deviation),
    ) {
        if let Some(deviation) = self.rarity.score_one(seen) {
            answer(Question::RareDestination, deviation);
        }
        if let Some(deviation) = self.rate.score_one(&Observation { more: made, duration_ns: None, ..*seen }) {
            answer(Question::DestinationRate, deviation);
        }
        let contacts = Observation { more: first_contacts, first_contact: true, ..*seen };
        if let Some(deviation) = self.fan_in.score_one(&contacts) {
            answer(Question::FanIn, deviation);
        }
    }

    /// Closes the windows that have ended at `exposure`.
    pub fn turn(&mut self, exposure: Exposure) {
        self.rarity.turn(exposure);
        self.rate.turn(exposure);
        self.fan_in.turn(exposure);
    }

    /// The answers of [`score`](Self::score) as e-values, of a baseline as it stands now ([`turn`](Self::turn)), without
    /// the reasons.
    #[inline]
    pub fn judge(&mut self, made: f64, first_contacts: f64, tables: &[ETable], values: &mut EValues) {
        let table = |question: Question| &tables[question as usize];
        values.set(Question::RareDestination, self.rarity.e(table(Question::RareDestination)));
        values.set(Question::DestinationRate, self.rate.e_of(made, table(Question::DestinationRate)));
        values.set(Question::FanIn, self.fan_in.e(first_contacts, table(Question::FanIn)));
    }

    /// Learns what all shards saw since the last summary.
    pub fn learn(&mut self, seen: &Observation, received: Received, sample: &mut impl FnMut(Question, f64)) {
        let Received { calls, made, weight, first_contacts } = received;
        let mut take = |question, closed: Option<f64>| {
            if let Some(x) = closed {
                sample(question, x);
            }
        };
        let share = if calls > 0.0 { weight / calls } else { 0.0 };
        take(Question::RareDestination, self.rarity.learn_one(&Observation { more: calls, weight: share, ..*seen }));
        take(Question::DestinationRate, self.rate.learn_one(&Observation { more: made, ..*seen }));
        self.rate.learn_past((calls - made) * share);
        let contacts = Observation { more: first_contacts, first_contact: true, ..*seen };
        take(Question::FanIn, self.fan_in.learn_one(&contacts));
    }

    /// Trusted volume of calls.
    pub fn volume(&self) -> f64 {
        self.rarity.total()
    }
}
