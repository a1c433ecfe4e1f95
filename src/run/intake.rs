//! What became of the records of each input: shown in metrics, told at `/readyz` and by `check`, kept with the snapshot.

use std::collections::BTreeMap;

use qualm_ingest::{
    counters::reason,
    source::{Batch, Rejection},
};
use qualm_model::time::{Span, Timestamp};
use qualm_scorer::{
    notify::plain,
    scorer::{Came, Scorer},
    snapshot::Intake,
};

use crate::observability::metrics::PipelineMetrics;

/// What is odd is told by the last one or two stretches of this length, and is not told any more when it has ended.
const STRETCH: Span = Span(10 * Span::MINUTE.0);
/// Fewer records of one kind are a chance.
const LEAST: u64 = 20;
/// Shares of the records from which there is something to know.
const LATE: f64 = 0.01;
const UNREAD: f64 = 0.05;
const REPEATED: f64 = 0.1;
const FOREIGN: f64 = 0.5;
const UNNAMED: f64 = 0.01;
/// Containers that are told apart.
const CONTAINERS: usize = 16;

/// Of every input, by its number.
#[derive(Debug, Default)]
pub(crate) struct Intakes {
    by: BTreeMap<u16, Counted>,
    came: BTreeMap<u16, Came>,
}

#[derive(Debug, Default)]
struct Counted {
    in_all: Intake,
    now: Intake,
    before: Intake,
    since: Option<Timestamp>,
}

impl Intakes {
    /// Goes on where the last run ended; `names` are those of the inputs.
    pub(crate) fn restored(saved: &BTreeMap<String, Intake>, names: &[String]) -> Self {
        let known = (0..).zip(names).filter_map(|(source, name)| Some((source, saved.get(name)?.clone())));
        let by = known.map(|(source, in_all)| (source, Counted { in_all, ..Counted::default() })).collect();
        Self { by, came: BTreeMap::new() }
    }

    /// Takes in a batch, as it was read.
    pub(crate) fn count(&mut self, batch: &Batch, wall: Timestamp) {
        let mut fresh: BTreeMap<u16, Intake> = BTreeMap::new();
        for event in batch.events.events() {
            let intake = fresh.entry(event.position().source).or_default();
            intake.events += 1;
            let is_clustered = !event.source().cluster().is_empty() || !event.destination().cluster().is_empty();
            intake.clustered += u64::from(is_clustered);
        }
        for rejected in &batch.rejected {
            let intake = fresh.entry(rejected.position.source).or_default();
            match rejected.why {
                Rejection::Invalid(_) => *intake.invalid.entry(reason(rejected.why).to_owned()).or_default() += 1,
                Rejection::Foreign => intake.foreign += 1,
                Rejection::Duplicate => intake.repeated += 1,
                Rejection::Part => intake.parts += 1,
            }
        }
        for loss in &batch.lost {
            fresh.entry(loss.position.source).or_default().lost += loss.records;
        }
        for of in &batch.unvouched {
            let unvouched = &mut fresh.entry(of.position.source).or_default().unvouched;
            if unvouched.len() < CONTAINERS || unvouched.contains_key(&*of.container) {
                *unvouched.entry(of.container.to_string()).or_default() += 1;
            }
        }
        for (source, intake) in fresh {
            self.add(source, &intake, wall);
        }
    }

    fn add(&mut self, source: u16, intake: &Intake, wall: Timestamp) {
        let counted = self.by.entry(source).or_default();
        let since = *counted.since.get_or_insert(wall);
        if wall - since > STRETCH {
            let ended = std::mem::take(&mut counted.now);
            counted.before = if wall - since > Span(2 * STRETCH.0) { Intake::default() } else { ended };
            counted.since = Some(wall);
        }
        counted.now.add(intake);
        counted.in_all.add(intake);
    }

    /// Takes over what the scorer counted of them since it was last asked, and shows it.
    pub(crate) fn take(&mut self, scorer: &Scorer, names: &[String], metrics: &PipelineMetrics, wall: Timestamp) {
        for (source, came) in scorer.came() {
            let before = self.came.insert(source, came).unwrap_or_default();
            let (late, repeated, confirming) =
                (came.late - before.late, came.repeated - before.repeated, came.confirming - before.confirming);
            if late + repeated + confirming > 0 {
                self.add(source, &Intake { late, repeated, confirming, ..Intake::default() }, wall);
                let name = names.get(usize::from(source)).map_or("archives", String::as_str);
                metrics.came(name, late, repeated, confirming);
            }
        }
    }

    /// What is kept, by the names of the inputs.
    pub(crate) fn saved(&self, names: &[String]) -> BTreeMap<String, Intake> {
        let named = |(&source, counted): (&u16, &Counted)| {
            Some((names.get(usize::from(source))?.clone(), counted.in_all.clone()))
        };
        self.by.iter().filter_map(named).collect()
    }

    /// What there is to know of each lately.
    pub(crate) fn notes(&self, names: &[String]) -> Vec<String> {
        let notes = |(&source, counted): (&u16, &Counted)| {
            let mut lately = counted.before.clone();
            lately.add(&counted.now);
            Some(notes(names.get(usize::from(source))?, &lately))
        };
        self.by.iter().filter_map(notes).flatten().collect()
    }
}

/// What there is to know of an input, with the remedy.
pub(crate) fn notes(name: &str, intake: &Intake) -> Vec<String> {
    let mut notes = Vec::new();
    let share = |count: u64, of: u64| count as f64 / of.max(1) as f64;
    let percent = |count: u64, of: u64| format!("{:.0} %", (100.0 * share(count, of)).max(1.0));
    let is_much = |count: u64, of: u64, from: f64| count >= LEAST && share(count, of) >= from;
    let (records, events) = (intake.records(), intake.events);
    if is_much(intake.late, events, LATE) {
        notes.push(format!(
            "{name}: {} of the events came later than `lateness_s`: they are judged and teach nothing; raise it, or look why \
             a shipper is so far behind",
            percent(intake.late, events)
        ));
    }
    for (container, &count) in intake.unvouched.iter().filter(|(_, count)| **count >= LEAST) {
        // Whoever may write to the topic names it.
        notes.push(match plain(container).as_str() {
            "" => format!(
                "{name}: {count} records name certificates, and come from another namespace than their proxy says it is in: \
                 they are believed as names alone; look who writes them"
            ),
            container => format!(
                "{name}: {count} records name certificates, and were written by container {container}, which is not known as \
                 a proxy's: they are believed as names alone; if it is one, add proxies = [\"{container}\"], else look why \
                 it writes such lines"
            ),
        });
    }
    if is_much(intake.unread(), records, UNREAD) {
        let reasons: Vec<String> = intake.invalid.iter().map(|(why, count)| format!("{why} {count}")).collect();
        notes.push(format!(
            "{name}: {} of the records cannot be read ({}); `qualm look` shows an example of each",
            percent(intake.unread(), records),
            reasons.join(", ")
        ));
    }
    if is_much(intake.foreign, records, FOREIGN) {
        notes.push(format!(
            "{name}: {} of the records are no access logs; the shipper need not send them",
            percent(intake.foreign, records)
        ));
    }
    if is_much(intake.repeated, events, REPEATED) {
        notes.push(format!(
            "{name}: {} of the events were delivered more than once: they count once; look why the shipper sends them again",
            percent(intake.repeated, events)
        ));
    }
    if intake.lost > 0 {
        notes.push(format!(
            "{name}: {} records are known to be lost on the way: for ten minutes after each loss nobody's silence is asked",
            intake.lost
        ));
    }
    notes
}

/// Inputs whose records name their cluster: all but a few, which a shipper may write before it knows.
pub(crate) fn clustered(saved: &BTreeMap<String, Intake>) -> Vec<String> {
    let names_it = |intake: &Intake| {
        let unnamed = intake.events.saturating_sub(intake.clustered);
        intake.events > 0 && unnamed as f64 <= UNNAMED * intake.events as f64
    };
    saved.iter().filter(|(_, intake)| names_it(intake)).map(|(name, _)| name.clone()).collect()
}

/// All that was counted of an input, in one sentence.
pub(crate) fn told(name: &str, intake: &Intake) -> String {
    let invalid: Vec<String> = intake.invalid.iter().map(|(why, count)| format!("{why} {count}")).collect();
    let parts = [
        ("confirm another report of the same call", intake.confirming),
        ("delivered again", intake.repeated),
        ("late", intake.late),
        ("of proxies that are not believed", intake.unvouched.values().sum()),
        ("parts", intake.parts),
        ("foreign", intake.foreign),
        ("invalid", intake.unread()),
        ("lost", intake.lost),
    ];
    let parts: Vec<String> =
        parts.into_iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")).collect();
    let more = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    let why = if invalid.is_empty() { String::new() } else { format!(" ({})", invalid.join(", ")) };
    format!("{name}: {} records so far, {} events{more}{why}", intake.records(), intake.events)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "topic mesh";

    #[test]
    fn what_is_odd_of_an_input_is_told_with_the_remedy() {
        let intake = Intake {
            events: 1000,
            late: 120,
            repeated: 300,
            foreign: 3000,
            unvouched: [("app".to_owned(), 40), (String::new(), 25)].into(),
            invalid: [("syntax".to_owned(), 400)].into(),
            lost: 7,
            ..Intake::default()
        };
        let notes = notes(NAME, &intake).join("\n");
        for words in [
            "12 % of the events came later than `lateness_s`",
            "written by container app",
            "proxies = [\"app\"]",
            "from another namespace",
            "(syntax 400)",
            "68 % of the records are no access logs",
            "30 % of the events were delivered more than once",
            "7 records are known to be lost",
        ] {
            assert!(notes.contains(words), "`{words}` is not in\n{notes}");
        }
    }

    #[test]
    fn what_is_as_usual_is_no_news() {
        let intake = Intake {
            events: 100_000,
            late: 15,
            confirming: 50_000,
            repeated: 100,
            foreign: 30_000,
            invalid: [("syntax".to_owned(), 19)].into(),
            ..Intake::default()
        };
        assert_eq!(notes(NAME, &intake), Vec::<String>::new());
        assert_eq!(
            told(NAME, &intake),
            "topic mesh: 130019 records so far, 100000 events: 50000 confirm another report of the same call, 100 delivered \
             again, 15 late, 30000 foreign, 19 invalid (syntax 19)"
        );
    }

    #[test]
    fn an_input_names_its_cluster_where_all_but_a_few_of_its_events_do() {
        let of = |events: u64, clustered: u64| Intake { events, clustered, ..Intake::default() };
        let saved = [("all", of(500, 500)), ("nearly", of(500, 495)), ("half", of(500, 250)), ("nothing", of(0, 0))];
        let saved: BTreeMap<String, Intake> = saved.into_iter().map(|(name, of)| (name.to_owned(), of)).collect();
        assert_eq!(clustered(&saved), ["all", "nearly"]);
    }

    #[test]
    fn what_has_ended_is_told_no_more_and_stays_in_the_sum() {
        let mut intakes = Intakes::default();
        let minute = |minutes: i64| Timestamp::from_seconds(1_000_000 + 60 * minutes);
        let names = [NAME.to_owned()];
        intakes.add(0, &Intake { events: 100, late: 50, ..Intake::default() }, minute(0));
        assert_eq!(intakes.notes(&names).len(), 1);
        for at in [11, 22, 33] {
            intakes.add(0, &Intake { events: 100, ..Intake::default() }, minute(at));
        }
        assert!(intakes.notes(&names).is_empty());
        let saved = intakes.saved(&names);
        assert_eq!((saved[NAME].events, saved[NAME].late), (400, 50));
        assert_eq!(Intakes::restored(&saved, &names).saved(&names), saved);
        assert!(Intakes::restored(&saved, &["another".to_owned()]).saved(&names).is_empty());
    }
}
