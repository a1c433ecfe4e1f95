//! Nodes ship at different paces into one partition: what comes behind others is learned as far as its source may be late,
//! and belongs to the windows in which it was made.

mod mesh;

use mesh::{Call, START, batch, call, calls};
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    scorer::{Observed, Scorer},
    verdict::Verdict,
};

const ODD: &str = "spiffe://mesh.test/ns/shop/sa/s3";
const BUSY: &str = "spiffe://mesh.test/ns/shop/sa/busy";
const SHOP: &str = "spiffe://mesh.test/ns/shop/sa/shop";

/// Calls in the order in which they arrive, each with its arrival.
fn arriving(calls: Vec<Call>, delay: impl Fn(&Call) -> Span) -> Vec<(Timestamp, Call)> {
    let mut arriving: Vec<_> = calls.into_iter().map(|call| (call.time + delay(&call), call)).collect();
    arriving.sort_by_key(|(arrival, _)| *arrival);
    arriving
}

/// What the scorer says of each call, and its verdicts.
fn read(scorer: &mut Scorer, arriving: &[(Timestamp, Call)]) -> (Vec<Observed>, Vec<Verdict>) {
    let (mut observed, mut verdicts) = (Vec::new(), Vec::new());
    for chunk in arriving.chunks(500) {
        let calls: Vec<Call> = chunk.iter().map(|(_, call)| call.clone()).collect();
        let batch = batch(&calls, 0);
        scorer.open(&batch);
        observed.extend(
            batch.events().zip(chunk).map(|(event, (arrival, _))| scorer.observe(event, *arrival, &mut verdicts)),
        );
    }
    (observed, verdicts)
}

/// Whether services of the slower node call.
fn is_of_slow_node(call: &Call) -> bool {
    call.source.len() == ODD.len() + 1
}

fn entries_of_honest(verdicts: &[Verdict]) -> usize {
    verdicts.iter().filter(|verdict| verdict.identity != ODD && verdict.level > verdict.previous).count()
}

fn is_found(verdicts: &[Verdict]) -> bool {
    verdicts.iter().any(|verdict| verdict.identity == ODD && verdict.level >= Level::Throttled)
}

#[test]
fn a_node_that_ships_a_minute_and_a_half_later_than_another_is_learned_as_well() {
    let (mut prompt, mut slow) = (Scorer::new(ScorerConfig::default()), Scorer::new(ScorerConfig::default()));
    let (_, in_order) = read(&mut prompt, &arriving(calls(), |_| Span(0)));
    let delay = |call: &Call| if is_of_slow_node(call) { Span::seconds(90) } else { Span(0) };
    let (_, behind) = read(&mut slow, &arriving(calls(), delay));
    assert_eq!((prompt.tally().late, slow.tally().late), (0, 0));
    assert!(is_found(&in_order) && is_found(&behind));
    let (few, more) = (entries_of_honest(&in_order), entries_of_honest(&behind));
    assert!(more <= few + few / 4 + 1, "{few} entries in order, {more} with a slow node");
}

#[test]
fn what_is_later_than_its_source_may_be_is_judged_and_counted() {
    let mut scorer = Scorer::new(ScorerConfig::default());
    scorer.wait_for_sources(vec![Span::seconds(60)]);
    let delay = |call: &Call| if is_of_slow_node(call) { Span::seconds(90) } else { Span(0) };
    let arriving = arriving(calls(), delay);
    let (observed, _) = read(&mut scorer, &arriving);
    let slow = arriving.iter().filter(|(_, call)| is_of_slow_node(call)).count() as u64;
    let late = scorer.tally().late;
    assert!(late > slow / 2 && late <= slow, "{late} of {slow}");
    assert!(observed.iter().all(|of| matches!(of, Observed::Scored { .. })));
}

/// A service of two replicas, of which the second calls four times as often: five calls a second in all.
fn two_replicas(minutes: std::ops::Range<i64>) -> Vec<Call> {
    (minutes.start * 300..minutes.end * 300)
        .map(|beat| {
            let replica = if beat % 5 == 0 { "10.0.0.1" } else { "10.0.0.2" };
            Call { address: replica, ..call(Timestamp(START) + Span(beat * 200_000_000), BUSY, SHOP) }
        })
        .collect()
}

/// The most bits that any of the calls of the two replicas had.
fn most_bits(observed: &[Observed], arriving: &[(Timestamp, Call)]) -> f64 {
    let bits = observed.iter().zip(arriving).filter_map(|(of, (_, call))| match of {
        Observed::Scored { bits, .. } if call.source == BUSY => Some(*bits),
        _ => None,
    });
    bits.fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn a_replica_that_makes_up_for_four_minutes_is_no_flood_and_a_flood_is() {
    const HOURS: i64 = 48;
    let caught_up = Timestamp(START + (HOURS * 60 + 4) * Span::MINUTE.0) + Span::seconds(30);
    let is_held =
        |call: &Call| call.source == BUSY && call.address == "10.0.0.2" && call.time < caught_up - Span::MINUTE;
    let until = |end: i64| -> Vec<Call> {
        let others = calls().into_iter().filter(move |call| call.time < Timestamp(START + end * Span::MINUTE.0));
        two_replicas(0..end).into_iter().chain(others).collect()
    };
    let after = Timestamp(START + HOURS * Span::HOUR.0);
    let [backlog, flood] = [true, false].map(|is_backlog| {
        let all = until(HOURS * 60 + 8).into_iter().map(|call| {
            // Otherwise as many calls are made when the others are only told of.
            let time = if !is_backlog && call.time >= after && is_held(&call) { caught_up } else { call.time };
            (is_held(&call) && call.time >= after, Call { time, ..call })
        });
        let mut all: Vec<_> = all.map(|(held, call)| (if held { caught_up } else { call.time }, call)).collect();
        all.sort_by_key(|(arrival, _)| *arrival);
        let begin = all.partition_point(|(arrival, _)| *arrival < after);
        let mut scorer = Scorer::new(ScorerConfig::default());
        read(&mut scorer, &all[..begin]);
        let (observed, _) = read(&mut scorer, &all[begin..]);
        assert_eq!(scorer.tally().late, 0);
        most_bits(&observed, &all[begin..])
    });
    assert!(flood > 2.0 && backlog < 0.0, "a flood has {flood} bits, a backlog {backlog}");
}
