//! What is missing from the telemetry, and what then is not concluded from it.

mod mesh;

use mesh::{Call, START, batch, call, mixed};
use qualm_model::{
    detector::Question,
    event::{Event, Filter, Outcome},
    time::{Span, Timestamp},
};
use qualm_scorer::{config::ScorerConfig, scorer::Scorer, verdict::Verdict};

const SERVICES: u64 = 8;
/// A hundred calls a minute.
const BEAT: Span = Span(600_000_000);
const GONE: &str = "spiffe://mesh.test/ns/shop/sa/s5";

fn name(service: u64) -> String {
    format!("spiffe://mesh.test/ns/shop/sa/s{service}")
}

fn usual(hours: std::ops::Range<i64>) -> Vec<Call> {
    let beats = hours.start * Span::HOUR.0 / BEAT.0..hours.end * Span::HOUR.0 / BEAT.0;
    let call = |i: i64| {
        let service = mixed(i as u64, 1) % SERVICES;
        let looks_around = mixed(i as u64, 6).is_multiple_of(2000);
        let peers = if looks_around { SERVICES - 1 } else { 3 };
        let destination = (service + 1 + mixed(i as u64, 2) % peers) % SERVICES;
        call(Timestamp(START + i * BEAT.0), &name(service), &name(destination))
    };
    beats.map(call).collect()
}

fn feed(scorer: &mut Scorer, calls: &[Call]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for chunk in calls.chunks(1000) {
        let batch = batch(chunk, 0);
        scorer.open(&batch);
        batch.events().for_each(|event: Event<'_>| {
            scorer.observe(event, event.report(), &mut verdicts);
        });
    }
    verdicts
}

/// Three calm days.
fn settled() -> Scorer {
    let mut scorer = Scorer::new(ScorerConfig::default());
    feed(&mut scorer, &usual(0..72));
    assert!(!scorer.armed().is_empty());
    scorer
}

/// Three hours more, in which one service does not call.
fn without_one() -> Vec<Call> {
    usual(72..75).into_iter().filter(|call| call.source != GONE).collect()
}

fn is_told_to_be_silent(verdicts: &[Verdict]) -> bool {
    let is_silence = |verdict: &Verdict| verdict.reasons.iter().any(|reason| reason.detector == Question::Silence);
    verdicts.iter().any(|verdict| verdict.identity == GONE && is_silence(verdict))
}

#[test]
fn whoever_falls_silent_is_noticed_unless_records_are_missing() {
    assert!(is_told_to_be_silent(&feed(&mut settled(), &without_one())));

    let mut scorer = settled();
    let mut verdicts = Vec::new();
    for calls in without_one().chunks(500) {
        // Every few minutes something is lost on the way.
        scorer.lose(3);
        verdicts.extend(feed(&mut scorer, calls));
    }
    assert!(!is_told_to_be_silent(&verdicts));
    assert!(scorer.tally().lost > 90);
}

#[test]
fn where_only_errors_are_logged_failures_rates_and_silence_are_not_asked_about() {
    let mut scorer = settled();
    scorer.filter_sources(vec![Filter::Errors]);
    // Five times as many calls as usual, all of them failures, and one service that falls silent.
    let calls = without_one();
    let errors: Vec<Call> = calls
        .into_iter()
        .flat_map(|call| {
            let error = Call { outcome: Outcome::Failure, ..call };
            std::iter::repeat_n(error, 5)
        })
        .collect();
    feed(&mut scorer, &usual(72..73)[..500]);
    let verdicts = feed(&mut scorer, &errors);
    let silenced = Filter::Errors.silences();
    let reasons = verdicts.iter().flat_map(|verdict| &verdict.reasons);
    let asked: Vec<Question> = reasons.map(|reason| reason.detector).collect();
    assert!(asked.iter().all(|question| !silenced.contains(question)), "{asked:?}");

    let all = feed(&mut settled(), &errors);
    let reasons = all.iter().flat_map(|verdict| &verdict.reasons);
    assert!(reasons.clone().any(|reason| reason.detector == Question::Failing), "they are asked about otherwise");
}
