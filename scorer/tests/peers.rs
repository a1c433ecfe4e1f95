//! Ten minutes as a whole are held against what is usual, by a model file or by what was fitted in the background, and the
//! same events give the same fits and verdicts: at any size of batches, and from any restart point.

mod mesh;
mod reopened;

use mesh::{Call, START, batch, call, calls};
use qualm_model::{
    peers::{FEATURES, Group, Peers, Vector, WINDOW},
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    peers::{Applied, Model, PeersFrom},
    scorer::Scorer,
    snapshot::{Covered, Snapshots},
    verdict::Verdict,
};
use reopened::reopened;

/// Windows vary in how many calls, peers, operations and failures they have, and hardly in the mean size of a call.
fn model() -> Model {
    let axis = |feature: usize| -> Vector { std::array::from_fn(|other| f64::from(u8::from(other == feature))) };
    let axes = (0..4).map(|feature| (axis(feature), 0.1)).collect();
    let everybody = Group { centre: [0.0; FEATURES], members: 20, windows: 5_000.0, axes, rest: 0.01 };
    Model::new(
        Peers { mean: [1.0; FEATURES], spread: [1.0; FEATURES], groups: vec![everybody] },
        (20, 5_000),
        Vec::new(),
    )
}

fn with_model() -> Scorer {
    let mut scorer = Scorer::new(ScorerConfig::default());
    scorer.take_peers(PeersFrom::File(&model()));
    scorer
}

fn feed(scorer: &mut Scorer, calls: &[Call], first: usize, size: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (n, chunk) in calls.chunks(size).enumerate() {
        let batch = batch(chunk, first + n * size);
        scorer.open(&batch);
        for event in batch.events() {
            scorer.observe(event, event.report(), &mut verdicts);
        }
    }
    verdicts
}

/// The evidence against `s5`, in bits.
fn bits(scorer: &Scorer) -> f64 {
    scorer.show("spiffe://mesh.test/ns/shop/sa/s5", Timestamp(i64::MAX)).expect("it is known").evidence_bits
}

/// The made-up days, and then ten minutes in which `s5` makes as many calls as ever, to whom and for what it always calls,
/// but all of them are of `bytes`, where 700 are usual. Returns also when these begin.
fn at_the_end(bytes: u64) -> (Vec<Call>, Timestamp) {
    let mut calls = calls();
    calls.truncate(55_000);
    let end = calls[calls.len() - 1].time;
    let begin = Timestamp((end.window(WINDOW) + 2) * WINDOW.0);
    let name = |n: i64| format!("spiffe://mesh.test/ns/shop/sa/s{n}");
    let odd = (0..8).map(|n| Call { bytes, ..call(begin + Span(n * 75 * Span::SECOND.0), &name(5), &name(6 + n % 3)) });
    // All others go on as ever, as the made-up days do.
    let usual = mesh::calls().into_iter().take(400).filter(|call| !call.source.ends_with("/s5"));
    let first = START;
    let usual = usual.map(|call| Call { time: begin + (call.time - Timestamp(first)), ..call });
    let mut last: Vec<Call> = odd.chain(usual).collect();
    last.sort_by_key(|call| call.time);
    calls.extend(last);
    (calls, begin)
}

/// None of these is big by itself.
const TWICE: u64 = 1_400;

#[test]
fn ten_minutes_that_no_call_of_them_shows_to_be_odd_are_evidence_when_they_have_ended() {
    let after = |bytes| {
        let (calls, begin) = at_the_end(bytes);
        let ended = calls.iter().position(|call| call.time > begin + WINDOW).expect("others go on");
        let mut scorer = with_model();
        feed(&mut scorer, &calls[..ended], 0, 1000);
        let before = bits(&scorer);
        feed(&mut scorer, &calls[ended..], ended, 1000);
        bits(&scorer) - before
    };
    assert!(after(TWICE) > 1.0, "{}", after(TWICE));
    assert!(after(700) <= 0.0, "{}", after(700));
}

/// What judged from when on, and what was decided, in one run over all calls.
fn fits(scorer: &mut Scorer, calls: &[Call], first: usize, size: usize) -> (Vec<Applied>, Vec<Verdict>) {
    let (mut applied, mut verdicts) = (Vec::new(), Vec::new());
    for (n, chunk) in calls.chunks(size).enumerate() {
        verdicts.extend(feed(scorer, chunk, first + n * size, size));
        applied.extend(scorer.applied_peers());
    }
    (applied, verdicts)
}

fn in_background(mut scorer: Scorer) -> Scorer {
    scorer.take_peers(PeersFrom::Background);
    scorer
}

fn fresh() -> Scorer {
    in_background(Scorer::new(ScorerConfig::default()))
}

#[test]
fn in_the_background_peers_are_fitted_once_a_day_and_judge_from_the_same_event_time_at_any_pace() {
    let calls = calls();
    let (applied, verdicts) = fits(&mut fresh(), &calls, 0, 500);
    let days: Vec<i64> = applied.iter().map(|fit| (fit.at - Timestamp(START)).0 / Span::DAY.0).collect();
    assert_eq!(days, [1, 2], "three days have two that have ended");
    assert!(applied.iter().all(|fit| fit.file.is_empty()));
    assert_eq!(fits(&mut fresh(), &calls, 0, 17), (applied.clone(), verdicts.clone()));

    // Between the moment at which a fit is begun and that from which on it judges.
    let under_way = applied[0].at - Span(WINDOW.0 / 2);
    let restart = calls.iter().position(|call| call.time > under_way).expect("calls go on");
    let directory = tempfile::tempdir().expect("a directory");
    let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
    let mut scorer = fresh();
    let (mut again, mut decided) = fits(&mut scorer, &calls[..restart], 0, 500);
    assert_eq!(again, []);
    snapshots.save(scorer.changes(Covered::default()));
    snapshots.finish().expect("it was being written").expect("it can be written");
    drop((snapshots, scorer));
    let (_snapshots, loaded) = reopened(directory.path(), &ScorerConfig::default());
    let (later, then) = fits(&mut in_background(loaded.expect("a snapshot").scorer), &calls[restart..], restart, 500);
    again.extend(later);
    decided.extend(then);
    assert_eq!((again, decided), (applied, verdicts));
}

#[test]
fn the_size_of_batches_and_a_restart_change_nothing() {
    let (calls, _) = at_the_end(TWICE);
    let run = |size| {
        let mut scorer = with_model();
        let verdicts = feed(&mut scorer, &calls, 0, size);
        (verdicts, bits(&scorer))
    };
    let expected = run(1000);
    assert_eq!(run(1), expected);
    for restart in [20_011, 55_004] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
        let mut scorer = with_model();
        let mut verdicts = feed(&mut scorer, &calls[..restart / 2], 0, 500);
        // The second snapshot holds only what has changed since the first.
        for (from, to) in [(0, restart / 2), (restart / 2, restart)] {
            if from > 0 {
                verdicts.extend(feed(&mut scorer, &calls[from..to], from, 500));
            }
            snapshots.save(scorer.changes(Covered::default()));
            snapshots.finish().expect("it was being written").expect("it can be written");
        }
        drop((snapshots, scorer));
        let (_snapshots, loaded) = reopened(directory.path(), &ScorerConfig::default());
        let mut scorer = loaded.expect("a snapshot").scorer;
        // As every start does: the same file is no news.
        scorer.take_peers(PeersFrom::File(&model()));
        assert_eq!(scorer.applied_peers(), None);
        verdicts.extend(feed(&mut scorer, &calls[restart..], restart, 500));
        assert_eq!((verdicts, bits(&scorer)), expected, "restart at {restart}");
    }
}
