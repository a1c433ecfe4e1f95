//! A stretch of which nothing is learned leaves what is usual as it was: an incident, a game day. It is judged as ever.

mod mesh;
mod reopened;

use mesh::{Call, batch, call, calls};
use qualm_model::{event::Positions, level::Level, time::Span};
use qualm_scorer::{
    config::{LearningConfig, Pause, ScorerConfig},
    scorer::{Observed, Scorer},
    snapshot::{Covered, Snapshots},
    verdict::Verdict,
};
use reopened::reopened;

const BEGINS: usize = 40_000;
const ENDS: usize = 50_000;

/// The made-up days without their odd end; between the two calls `s5` calls a host that nobody calls once a minute, where
/// there is an incident. Last of all it calls it again.
fn days(has_incident: bool) -> Vec<Call> {
    let mut days = calls();
    days.truncate(ENDS);
    let (begin, end) = (days[BEGINS].time, days[ENDS - 1].time);
    let name = |n: i64| format!("spiffe://mesh.test/ns/shop/sa/s{n}");
    let odd = |time| Call { operation: "GET /odd".to_owned(), ..call(time, &name(5), &name(99)) };
    if has_incident {
        days.extend((0..(end - begin).0 / Span::MINUTE.0).map(|minute| odd(begin + Span(minute * Span::MINUTE.0))));
    }
    days.push(odd(end + Span::HOUR));
    days.sort_by_key(|call| call.time);
    days
}

fn paused() -> ScorerConfig {
    let (since, until) = (calls()[BEGINS].time, calls()[ENDS - 1].time + Span::MINUTE);
    let pauses = vec![Pause { since, until, why: "game day".to_owned() }];
    ScorerConfig { learning: LearningConfig { pauses }, ..ScorerConfig::default() }
}

/// The bits of every call, and what was decided.
fn feed(scorer: &mut Scorer, calls: &[Call], first: usize) -> (Vec<f64>, Vec<Verdict>) {
    let (mut told, mut verdicts) = (Vec::new(), Vec::new());
    for (n, chunk) in calls.chunks(500).enumerate() {
        let batch = batch(chunk, first + n * 500);
        scorer.open(&batch);
        for event in batch.events() {
            if let Observed::Scored { bits, .. } = scorer.observe(event, event.report(), &mut verdicts) {
                told.push(bits);
            }
        }
    }
    (told, verdicts)
}

fn last_bits(config: ScorerConfig, has_incident: bool) -> f64 {
    *feed(&mut Scorer::new(config), &days(has_incident), 0).0.last().expect("it was scored")
}

#[test]
fn an_incident_in_a_pause_is_as_new_after_it_as_if_it_had_not_been() {
    let never = last_bits(ScorerConfig::default(), false);
    let learned = last_bits(ScorerConfig::default(), true);
    let paused = last_bits(paused(), true);
    assert!(learned < never - 3.0, "without a pause it is learned: {learned} of {never}");
    assert!((paused - never).abs() < 1.0, "{paused}, where it would have had {never}");
}

#[test]
fn what_happens_in_a_pause_is_judged_as_ever() {
    let (_, verdicts) = feed(&mut Scorer::new(paused()), &days(true), 0);
    let found = verdicts.iter().any(|of| of.identity.ends_with("/s5") && of.level >= Level::Watched);
    assert!(found, "{:?}", verdicts.iter().map(|of| (&of.identity, of.level)).collect::<Vec<_>>());
}

#[test]
fn a_pause_in_which_all_is_as_ever_changes_little() {
    let days = days(false);
    let (with, _) = feed(&mut Scorer::new(paused()), &days, 0);
    let (without, _) = feed(&mut Scorer::new(ScorerConfig::default()), &days, 0);
    // Windows of an hour that a pause began in are not learned.
    let apart = with.iter().zip(&without).map(|(a, b)| (a - b).abs());
    let much = apart.filter(|apart| *apart > 1.0).count();
    assert!(much < days.len() / 100, "{much} of {} calls are judged otherwise", days.len());
}

#[test]
fn a_restart_amid_a_pause_changes_nothing() {
    let days = days(true);
    let (bits, verdicts) = feed(&mut Scorer::new(paused()), &days, 0);
    let at = 45_000;
    let directory = tempfile::tempdir().expect("a directory");
    let (mut snapshots, _) = Snapshots::open(directory.path(), paused()).expect("a new one");
    let mut scorer = Scorer::new(paused());
    let (mut before, mut decided) = feed(&mut scorer, &days[..at], 0);
    let positions: Positions = [((0, 0), at as i64)].into();
    snapshots.save(scorer.changes(Covered { positions, ..Covered::default() }));
    snapshots.finish().expect("it was being written").expect("it can be written");
    drop((snapshots, scorer));
    let (_snapshots, loaded) = reopened(directory.path(), &paused());
    let (after, later) = feed(&mut loaded.expect("a snapshot").scorer, &days[at..], at);
    before.extend(after);
    decided.extend(later);
    assert!(before == bits, "scores differ");
    assert_eq!(decided, verdicts);
}
