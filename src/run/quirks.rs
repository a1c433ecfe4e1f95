//! What inputs and reporters turn out to be like, told once and shown as long as it lasts: calls that are left out
//! although nobody has said so, and clocks that are wrong.

use std::collections::{BTreeMap, BTreeSet};

use qualm_model::{
    event::{EventBatch, Filter},
    time::{Span, Timestamp},
};
use qualm_scorer::scorer::{LeftOut, Scorer, WrongClock};

/// Looked at no more often than this.
const EVERY: Span = Span::seconds(10);
/// Reporters whose records are held against the time of their arrival.
const REPORTERS: usize = 4096;
/// Arrivals of one reporter by which it is judged, over this time.
const COMPARED: u64 = 20;
const OVER: Span = Span(10 * Span::MINUTE.0);
/// Nothing arrives before it was written: who seems to manage it by more has a clock that is ahead.
const AHEAD: Span = Span::seconds(2);
/// Wrong clocks that are named, and told of once.
const NAMED: usize = 3;
const TOLD: usize = 1000;

/// Of one reporter, the least time that a record of this stretch took to arrive.
#[derive(Debug)]
struct Arrivals {
    since: Timestamp,
    records: u64,
    least: Span,
    /// How far it was ahead in the stretch before.
    ahead: Option<Span>,
}

/// All that is known.
#[derive(Debug, Default)]
pub(crate) struct Quirks {
    arrivals: BTreeMap<String, Arrivals>,
    told_filters: BTreeMap<(u16, i32), Filter>,
    told_clocks: BTreeSet<String>,
    looked: Option<Timestamp>,
}

/// What is shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Shown {
    pub(crate) notes: Vec<String>,
    /// Reporters whose clocks are wrong by two seconds or more, and by how much the worst is.
    pub(crate) wrong_clocks: usize,
    pub(crate) worst: Span,
    /// Inputs that seem to be filtered.
    pub(crate) filtered: usize,
    /// What became of the records of each input.
    pub(crate) inputs: Vec<String>,
    /// Inputs whose records name their cluster.
    pub(crate) clustered: Vec<String>,
}

impl Quirks {
    /// Holds the times of a batch against that of its arrival.
    pub(crate) fn seen(&mut self, batch: &EventBatch, wall: Timestamp) {
        let mut least: Vec<Option<(u64, Span)>> = vec![None; batch.reporter_id.distinct()];
        for event in batch.events() {
            let Some(key) = batch.reporter_id.key(event.row) else { continue };
            let took = wall - event.report();
            let (records, so_far) = least[key].unwrap_or((0, took));
            least[key] = Some((records + 1, so_far.min(took)));
        }
        for (key, (records, took)) in least.into_iter().enumerate().filter_map(|(key, of)| Some((key, of?))) {
            let reporter = batch.reporter_id.text(key);
            if let Some(arrivals) = self.arrivals.get_mut(reporter) {
                arrivals.note(records, took, wall);
            } else if !reporter.is_empty() && self.arrivals.len() < REPORTERS {
                let arrivals = Arrivals { since: wall, records, least: took, ahead: None };
                self.arrivals.insert(reporter.to_owned(), arrivals);
            }
        }
    }

    /// What there is to show, told where it is new; `None` where it is not time to look again. `names` are those of the
    /// inputs.
    pub(crate) fn look(&mut self, scorer: &Scorer, names: &[String], wall: Timestamp) -> Option<Shown> {
        if self.looked.is_some_and(|looked| (Span(0)..EVERY).contains(&(wall - looked))) {
            return None;
        }
        self.looked = Some(wall);
        self.arrivals.retain(|_, arrivals| wall - arrivals.since <= Span(2 * OVER.0));
        let left_out = scorer.left_out();
        let clocks = self.wrong_clocks(scorer.wrong_clocks());
        self.tell(&left_out, &clocks, names);
        let mut notes = filtered(scorer, names);
        notes.extend(clocks.iter().take(NAMED).map(clock));
        if clocks.len() > NAMED {
            notes.push(format!("{} more clocks are wrong by two seconds or more", clocks.len() - NAMED));
        }
        let worst = clocks.first().map_or(Span(0), |clock| Span(clock.ahead.0.abs()));
        Some(Shown { notes, wrong_clocks: clocks.len(), worst, filtered: left_out.len(), ..Shown::default() })
    }

    /// By the reports of both ends, and by what arrived before it was written.
    fn wrong_clocks(&self, mut clocks: Vec<WrongClock>) -> Vec<WrongClock> {
        let ahead = self
            .arrivals
            .iter()
            .filter_map(|(reporter, arrivals)| Some(WrongClock { reporter: reporter.clone(), ahead: arrivals.ahead? }));
        clocks.extend(ahead);
        clocks.sort_by(|a, b| b.ahead.0.abs().cmp(&a.ahead.0.abs()).then_with(|| a.reporter.cmp(&b.reporter)));
        clocks
    }

    fn tell(&mut self, left_out: &[LeftOut], clocks: &[WrongClock], names: &[String]) {
        for of in left_out {
            if self.told_filters.insert((of.source, of.lane), of.filter) != Some(of.filter) {
                tracing::warn!("{}", filter(of, names));
            }
        }
        self.told_filters.retain(|&(source, lane), _| left_out.iter().any(|of| (of.source, of.lane) == (source, lane)));
        for of in clocks {
            if self.told_clocks.len() < TOLD && self.told_clocks.insert(of.reporter.clone()) {
                tracing::warn!("{}", clock(of));
            }
        }
    }
}

impl Arrivals {
    fn note(&mut self, records: u64, took: Span, wall: Timestamp) {
        if wall - self.since > OVER {
            let is_ahead = self.records >= COMPARED && self.least < Span(-AHEAD.0);
            self.ahead = is_ahead.then_some(Span(-self.least.0));
            (self.since, self.records, self.least) = (wall, 0, took);
        }
        (self.records, self.least) = (self.records + records, self.least.min(took));
    }
}

/// In words, what inputs seem to leave out.
pub(crate) fn filtered(scorer: &Scorer, names: &[String]) -> Vec<String> {
    scorer.left_out().iter().map(|of| filter(of, names)).collect()
}

fn filter(of: &LeftOut, names: &[String]) -> String {
    let name = names.get(usize::from(of.source)).map_or("an input", String::as_str);
    let (looks, word) = match of.filter {
        Filter::Errors => ("only errors seem to be logged", "errors"),
        Filter::Slow => ("only slow calls seem to be logged", "slow"),
        Filter::Sampled => ("only a part of the calls seems to be logged", "sampled"),
        Filter::None => ("nothing is left out", "none"),
    };
    format!(
        "{name}: {looks}, questions that this makes meaningless are not asked of it; log all calls, or say filter = \
         \"{word}\""
    )
}

fn clock(of: &WrongClock) -> String {
    let side = if of.ahead.0 > 0 { "ahead" } else { "behind" };
    let by = Span(of.ahead.0.abs()).as_seconds();
    format!("the clock of reporter {} is {by:.1} s {side}; set it by NTP", of.reporter)
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBuilder, EventDraft};
    use qualm_scorer::config::ScorerConfig;

    use super::*;

    fn records(reporter: &str, report: Timestamp) -> EventBatch {
        let mut builder = EventBuilder::new();
        (0..30).for_each(|_| {
            builder.push(&EventDraft { reporter_id: reporter, start: report, report, ..EventDraft::default() });
        });
        builder.finish()
    }

    #[test]
    fn a_reporter_whose_records_arrive_before_they_were_written_has_a_clock_that_is_ahead() {
        let (mut quirks, scorer) = (Quirks::default(), Scorer::new(ScorerConfig::default()));
        let mut shown = Shown::default();
        for minute in 0..15 {
            let wall = Timestamp::from_seconds(1_000_000 + 60 * minute);
            quirks.seen(&records("node-a", wall + Span::seconds(7)), wall);
            quirks.seen(&records("node-b", wall + Span(-Span::SECOND.0)), wall);
            // A year of history says nothing of any clock.
            quirks.seen(&records("node-c", wall + Span(-400 * Span::DAY.0)), wall);
            shown = quirks.look(&scorer, &[], wall).unwrap_or(shown);
        }
        assert_eq!((shown.wrong_clocks, shown.worst), (1, Span::seconds(7)));
        assert_eq!(shown.notes, ["the clock of reporter node-a is 7.0 s ahead; set it by NTP"]);
    }
}
