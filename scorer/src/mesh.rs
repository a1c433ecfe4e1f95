//! What is known of the mesh as a whole: read by every shard from summaries that close every five seconds of event
//! time, in every deployment alike, so that one process and ten give the same verdicts.
//!
//! # Layout
//! - this file: the summaries, and what is read from them
//! - `delta`: what one shard adds to the next
//! - `operations`, `networks`: what everybody together uses, and from where
//! - `context`: the evidence of neighbours
//! - `pauses`: of what nothing is learned
//! - `thresholds`: what evidence leads where, read from the curves

mod context;
mod delta;
mod networks;
mod operations;
mod pauses;
mod thresholds;

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use qualm_model::{
    baseline::{DestinationBaseline, Received, SiblingRate},
    detector::{Observation, Question, Rhythm},
    evidence::{EpisodeCurve, QUESTIONS, Rates},
    stats::{Bins, Calibration, ETable, Exposure, log2},
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use self::context::Context;
use self::operations::Operations;
pub(crate) use self::operations::operation_key;
use self::pauses::Pauses;
pub(crate) use self::{
    delta::{Called, Delta, DestinationDelta},
    networks::{Arrival, FOREIGN, Networks},
    thresholds::{Threshold, Thresholds, shown, threshold_of},
};
use crate::{
    config::{Budget, Pause},
    tide::Tide,
};

/// A summary closes this often.
pub(crate) const SUMMARY: Span = Span::seconds(5);
/// A longer stretch without any event is a gap in the telemetry.
const LONGEST_GAP: Span = Span(3 * Span::DAY.0);
/// Thresholds are read from the curve this often.
const READ_CURVE: Span = Span(10 * Span::MINUTE.0);
/// Destinations that one summary may add; the others are as new at the next.
const NEW_DESTINATIONS: usize = 16_384;

/// Bytes of one destination, its places in maps included; its name is a shard's.
pub(crate) const DESTINATION_BYTES: usize = size_of::<Destination>() + 32 + 2 * 40;

/// Namespaces whose rates are kept; a newcomer in another has nobody to inherit from.
const NAMESPACES: usize = 10_000;

/// A source, whatever shard it lives in.
pub(crate) type SourceKey = (u8, u32);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Destination {
    name: Arc<str>,
    baseline: DestinationBaseline,
    /// Last time its own proxy reported a call.
    reported: Timestamp,
}

/// The summaries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mesh {
    birth: Option<Timestamp>,
    closed: Timestamp,
    calibrations: Vec<Calibration>,
    tables: Vec<ETable>,
    minutes: Calibration,
    minute_table: ETable,
    ids: HashMap<Arc<str>, u32, foldhash::quality::FixedState>,
    /// Shared with the snapshot that is being written.
    destinations: HashMap<u32, Arc<Destination>, FixedState>,
    next_destination: u32,
    siblings: HashMap<Arc<str>, SiblingRate, FixedState>,
    curves: [EpisodeCurve; 2],
    /// Episodes of those whom evidence may lead beyond *watched*: by these the levels beyond are measured. In a snapshot
    /// they have a key of their own.
    #[serde(skip)]
    acting: [EpisodeCurve; 2],
    /// Of what nothing is learned; a key of its own as well.
    #[serde(skip)]
    pub(crate) pauses: Pauses,
    rates: [Rates; 2],
    read_at: Timestamp,
    thresholds: Thresholds,
    identities: u64,
    operations: Operations,
    networks: Networks,
    context: Context,
    tide: Tide,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            birth: None,
            closed: Timestamp(i64::MIN),
            calibrations: vec![Calibration::default(); QUESTIONS],
            tables: vec![ETable::default(); QUESTIONS],
            minutes: Calibration::default(),
            minute_table: ETable::default(),
            ids: HashMap::default(),
            destinations: HashMap::default(),
            next_destination: 0,
            siblings: HashMap::default(),
            curves: Default::default(),
            acting: Default::default(),
            pauses: Pauses::default(),
            rates: Default::default(),
            read_at: Timestamp(i64::MIN),
            thresholds: Default::default(),
            identities: 0,
            operations: Operations::default(),
            networks: Networks::default(),
            context: Context::default(),
            tide: Tide::default(),
        }
    }
}

impl Mesh {
    /// The first watermark: from here on everything could have been seen.
    pub(crate) fn birth(&self) -> Option<Timestamp> {
        self.birth
    }

    /// Where the next summary closes.
    #[inline]
    pub(crate) fn next_close(&self) -> Timestamp {
        Timestamp(self.closed.0.saturating_add(SUMMARY.0))
    }

    /// The end of the last summary.
    #[inline]
    pub(crate) fn closed(&self) -> Timestamp {
        self.closed
    }

    /// Nothing was seen until `watermark`. A long gap is no time in which anything could have been seen: exposure and
    /// arming go on after it as if it had not been. So a stray record of the far past makes no mesh old.
    pub(crate) fn skip_gap(&mut self, watermark: Timestamp) {
        let gap = watermark - self.closed;
        if gap > LONGEST_GAP
            && let Some(birth) = &mut self.birth
        {
            *birth = *birth + gap;
        }
    }

    /// Begins the histogram of a question with what a model file has of it, where it has none of its own.
    pub(crate) fn take_prior(&mut self, question: Question, prior: &[(u16, u32)]) {
        let calibration = &mut self.calibrations[question as usize];
        if calibration.total() > 0.0 {
            return;
        }
        for &(bin, count) in prior.iter().filter(|(bin, _)| usize::from(*bin) < Bins::COUNT) {
            calibration.add_to_bin(usize::from(bin), f64::from(count));
        }
        self.tables[question as usize] = calibration.fit();
    }

    /// Makes place for questions that a release before did not ask.
    pub(crate) fn ask_all(&mut self) {
        self.calibrations.resize_with(QUESTIONS, Calibration::default);
        self.tables.resize_with(QUESTIONS, ETable::default);
    }

    /// Episodes of those whom evidence may lead beyond *watched*.
    pub(crate) fn acting(&self) -> &[EpisodeCurve; 2] {
        &self.acting
    }

    /// Takes over these episodes; where a release before kept none apart, those of everybody.
    pub(crate) fn restore_acting(&mut self, acting: Option<[EpisodeCurve; 2]>) {
        self.acting = acting.unwrap_or_else(|| self.curves.clone());
    }

    /// As a release that asked so many questions had it.
    #[cfg(test)]
    pub(crate) fn ask_only(&mut self, questions: usize) {
        self.calibrations.truncate(questions);
        self.tables.truncate(questions);
    }

    pub(crate) fn begin(&mut self, first: Timestamp) {
        self.birth = Some(first);
        self.closed = Timestamp(first.window(SUMMARY) * SUMMARY.0);
        self.read_at = self.closed;
    }

    #[inline]
    pub(crate) fn exposure(&self, now: Timestamp) -> Exposure {
        let birth = self.birth.map_or(now, |birth| self.lived_since(birth));
        Exposure { birth, now, tide: self.tide.height(), unlearned_until: self.pauses.unlearned_until(now) }
    }

    /// Since when something has been exposed that was there at `since`.
    #[inline]
    pub(crate) fn lived_since(&self, since: Timestamp) -> Timestamp {
        self.pauses.lived_since(since)
    }

    /// The pauses of learning that have ended between `before` and now.
    pub(crate) fn pauses_ended_since(&self, before: Timestamp) -> Vec<Pause> {
        self.pauses.ended(before, self.closed)
    }

    #[inline]
    pub(crate) fn e(&self, question: Question, x: f64) -> f64 {
        if question.is_invariant() {
            return x;
        }
        let e = self.tables[question as usize].e(x);
        if question == Question::Rhythm { Rhythm::at_least_named(e) } else { e }
    }

    /// The tables of e-values, by question.
    #[inline]
    pub(crate) fn tables(&self) -> &[ETable] {
        &self.tables
    }

    /// Evidence of a minute whose best event had `bits`: `z = log2 e(p)`, ranked among all minutes of all
    /// identities.
    pub(crate) fn z(&self, bits: f64) -> f64 {
        log2(self.e_of_minute(bits))
    }

    /// The e-value of such a minute.
    #[inline]
    pub(crate) fn e_of_minute(&self, bits: f64) -> f64 {
        self.minute_table.e(1.0 + bits.max(0.0))
    }

    pub(crate) fn destination_id(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    #[inline]
    pub(crate) fn destination(&self, id: u32) -> Option<(&DestinationBaseline, Timestamp)> {
        self.destinations.get(&id).map(|destination| (&destination.baseline, destination.reported))
    }

    pub(crate) fn siblings(&self, namespace: &str) -> Option<&SiblingRate> {
        self.siblings.get(namespace)
    }

    /// Trusted calls of everybody with this operation; `None` where that is not known any more.
    #[inline]
    pub(crate) fn volume_of_operation(&self, operation: u64) -> Option<f64> {
        self.operations.volume(operation)
    }

    /// The networks that are known.
    pub(crate) fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Evidence on all *other* sources in the last ten minutes, at most eight bits.
    #[inline]
    pub(crate) fn context(&self, source: SourceKey, now: Timestamp) -> f64 {
        self.context.of_others(source, now)
    }

    /// Identities of the mesh.
    pub(crate) fn identities(&self) -> u64 {
        self.identities
    }

    /// Bytes of what grows with the estate: destinations, and what everybody together uses and calls from.
    pub(crate) fn bytes(&self) -> usize {
        self.destinations.len() * DESTINATION_BYTES + self.operations.bytes() + self.networks.bytes()
    }

    /// Closes the summary that ends at the next boundary at or before `watermark`; deltas come in shard order.
    pub(crate) fn close<'a>(
        &mut self,
        watermark: Timestamp,
        deltas: impl Iterator<Item = &'a mut Delta>,
        budget: &Budget,
    ) {
        // What a delta holds was seen in the interval that ended first; idle intervals after it are empty.
        let seen = Observation::at(self.exposure(Timestamp(self.next_close().0 - 1)));
        let most = self.destinations.len() + NEW_DESTINATIONS;
        for delta in deltas.filter(|delta| !delta.is_empty()) {
            self.absorb(delta, &seen, most);
        }
        self.refit();
        let before = std::mem::replace(&mut self.closed, Timestamp(watermark.window(SUMMARY) * SUMMARY.0));
        let forgotten = self.pauses.stand_still(before, self.closed);
        self.birth = self.birth.map(|birth| birth + forgotten);
        self.context.expire(self.closed);
        self.tide.close(seen.exposure.birth, self.closed, self.closed - before);
        if self.closed - self.read_at >= READ_CURVE {
            self.read_curves(budget);
        }
    }

    fn absorb(&mut self, delta: &mut Delta, seen: &Observation, most: usize) {
        if !seen.exposure.is_learned() {
            delta.forget();
        }
        for (question, bin) in delta.samples.drain(..) {
            self.calibrations[question as usize].add_to_bin(usize::from(bin), 1.0);
        }
        for (bits, weight) in delta.minutes.drain(..) {
            self.minutes.add(1.0 + bits.max(0.0), weight);
        }
        for (pace, climb) in delta.climbs.drain(..) {
            self.curves[pace as usize].add(climb);
        }
        for (pace, climb) in delta.acting.drain(..) {
            self.acting[pace as usize].add(climb);
        }
        for (source, minute, bits) in delta.context.drain(..) {
            self.context.add(source, minute, bits);
        }
        delta.laps.drain(..).for_each(|lap| self.tide.add(lap));
        delta.operations.drain(..).for_each(|(operation, weight)| self.operations.add(operation, weight));
        delta.arrivals.drain(..).for_each(|arrival| self.networks.learn(arrival, seen.exposure.birth));
        // Even to drain an empty map costs.
        let siblings = (!delta.siblings.is_empty()).then(|| delta.siblings.drain());
        for (namespace, rate) in siblings.into_iter().flatten() {
            if self.siblings.len() < NAMESPACES || self.siblings.contains_key(&namespace) {
                self.siblings.entry(namespace).or_default().merge(&rate);
            }
        }
        self.identities += std::mem::take(&mut delta.new_identities);
        let mut destinations = std::mem::take(&mut delta.destinations);
        for change in destinations.drain(..) {
            self.learn_destination(&change, seen, most);
        }
        delta.destinations = destinations;
    }

    fn learn_destination(&mut self, change: &DestinationDelta, seen: &Observation, most: usize) {
        let id = match &change.called {
            Called::Known(id) => Some(*id),
            Called::New(name) => self.make_destination(name, most),
        };
        let Some(destination) = id.and_then(|id| self.destinations.get_mut(&id)) else { return };
        let destination = Arc::make_mut(destination);
        if change.reported {
            destination.reported = seen.exposure.now;
        }
        let calibrations = &mut self.calibrations;
        let &DestinationDelta { calls, made, weight, first_contacts, .. } = change;
        let received = Received { calls, made, weight, first_contacts };
        destination.baseline.learn(seen, received, &mut |question, x| {
            if seen.exposure.is_learned() {
                calibrations[question as usize].add(x, 1.0);
            }
        });
    }

    /// Where a destination of this name stands, made where it is new; `None` where there are `most` already.
    fn make_destination(&mut self, name: &Arc<str>, most: usize) -> Option<u32> {
        if let Some(id) = self.destination_id(name) {
            return Some(id);
        }
        if self.destinations.len() >= most {
            return None;
        }
        let id = self.next_destination;
        self.next_destination += 1;
        self.ids.insert(name.clone(), id);
        self.destinations.insert(id, Arc::new(Destination { name: name.clone(), ..Destination::default() }));
        Some(id)
    }

    fn refit(&mut self) {
        for (calibration, table) in self.calibrations.iter_mut().zip(&mut self.tables) {
            if let Some(fitted) = calibration.refit() {
                *table = fitted;
            }
        }
        if let Some(fitted) = self.minutes.refit() {
            self.minute_table = fitted;
        }
    }

    /// Lets go of the least known destinations until at most `most` are left.
    pub(crate) fn fold_destinations(&mut self, most: usize) -> usize {
        if self.destinations.len() <= most {
            return 0;
        }
        let mut volumes: Vec<(f64, &Arc<str>, u32)> =
            self.destinations.iter().map(|(&id, d)| (d.baseline.volume(), &d.name, id)).collect();
        volumes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
        let gone: Vec<u32> = volumes[..volumes.len() - most * 9 / 10].iter().map(|&(.., id)| id).collect();
        for id in &gone {
            if let Some(destination) = self.destinations.remove(id) {
                self.ids.remove(&destination.name);
            }
        }
        gone.len()
    }

    pub(crate) fn forget_identities(&mut self, count: u64) {
        self.identities = self.identities.saturating_sub(count);
    }
}
