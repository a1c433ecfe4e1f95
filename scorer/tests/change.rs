//! What changes in a mesh without anybody meaning harm, told from what only looks like it.

mod mesh;

use mesh::{Call, START, batch, call, mixed};
use qualm_model::{
    detector::Question,
    event::{Event, Outcome},
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Mode, ScorerConfig},
    scorer::{Observed, Scorer},
    verdict::{Cause, Reason, Verdict},
};

const SERVICES: u64 = 24;
/// The first services call nine times a minute, the others three times.
const LIVELY: u64 = 4;
/// A service that moves much at every call.
const MOVER: u64 = 5;
const MUCH: u64 = 50_000_000;
/// From one call of the mesh to the next: a hundred a minute.
const BEAT: Span = Span(600_000_000);
/// Addresses of the replicas: three of the even services, the first alone of the odd ones.
const REPLICAS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
const SUCCESSORS: [&str; 3] = ["10.0.1.1", "10.0.1.2", "10.0.1.3"];
const TLS: &str = "t13d1516h2_8daaf6152771_b186095e22b6";
const OTHER_TLS: &str = "t13i190900_9dc949149365_97f8aa674fd9";
const UNHEARD_OF: &str = "POST /v2/orders";
const TIMEOUT: Span = Span::seconds(30);

fn name(service: u64) -> String {
    format!("spiffe://mesh.test/ns/shop/sa/s{service}")
}

fn minutes(n: i64) -> Span {
    Span(n * Span::MINUTE.0)
}

/// Who calls whom at a beat: three peers as a rule, now and then another one, but never the one half way round.
fn usual_call(i: u64) -> Call {
    let service = mixed(i, 1) % if i.is_multiple_of(4) { LIVELY } else { SERVICES };
    // Without somebody who looks around now and then there are no episodes to read a threshold from.
    let looks_around = mixed(i, 6).is_multiple_of(4000);
    let (peers, operations) = if looks_around { (SERVICES / 2 - 1, 50) } else { (3, 3) };
    let destination = (service + 1 + mixed(i, 2) % peers) % SERVICES;
    let replicas = if service.is_multiple_of(2) { 3 } else { 1 };
    Call {
        address: REPLICAS[(mixed(i, 7) % replicas) as usize],
        operation: format!("GET /{}", mixed(i, 3) % operations),
        bytes: if service == MOVER { MUCH } else { 500 } + mixed(i, 4) % 400,
        outcome: if mixed(i, 5).is_multiple_of(50) { Outcome::Failure } else { Outcome::Success },
        fingerprint: TLS,
        duration: Some(Span(3_000_000 + (mixed(i, 8) % 4_000_000) as i64)),
        ..call(Timestamp(START) + Span(i as i64 * BEAT.0), &name(service), &name(destination))
    }
}

/// A call to a peer that the service never called.
fn unheard_of(time: Timestamp, service: u64, address: &'static str) -> Call {
    Call {
        operation: UNHEARD_OF.to_owned(),
        fingerprint: TLS,
        address,
        duration: Some(Span(5_000_000)),
        ..call(time, &name(service), &name((service + SERVICES / 2) % SERVICES))
    }
}

fn is_unheard_of(call: &Call) -> bool {
    call.operation == UNHEARD_OF
}

/// The usual calls of `span` from `from` on.
fn usual(from: Timestamp, span: Span) -> Vec<Call> {
    let first = (from - Timestamp(START)).0 / BEAT.0;
    (first..first + span.0 / BEAT.0).map(|i| usual_call(i as u64)).collect()
}

/// The same calls, where a third of those of one service that `whose` chooses go to a peer that it never called. `whose`
/// gives the address that a call comes from and the one that such a call would come from.
fn with_new_edge(
    calls: Vec<Call>,
    service: u64,
    whose: impl Fn(&Call) -> Option<(&'static str, &'static str)>,
) -> Vec<Call> {
    let name = name(service);
    let changed = |(i, call): (usize, Call)| {
        let Some((usual, new)) = whose(&call).filter(|_| call.source == name) else { return call };
        match mixed(i as u64, 11).is_multiple_of(3) {
            true => unheard_of(call.time, service, new),
            false => Call { address: usual, ..call },
        }
    };
    calls.into_iter().enumerate().map(changed).collect()
}

fn merged(mut calls: Vec<Call>, more: impl IntoIterator<Item = Call>) -> Vec<Call> {
    calls.extend(more);
    calls.sort_by_key(|call| call.time);
    calls
}

/// The end of three calm days.
fn end() -> Timestamp {
    Timestamp(START) + Span(3 * Span::DAY.0)
}

/// What a scorer that has seen the calm days makes of the calls after them.
fn judged(calls: &[Call]) -> (Vec<Verdict>, Vec<Observed>) {
    let enforce = EnforceConfig { mode: Mode::Enforce, ..EnforceConfig::default() };
    let mut scorer = Scorer::new(ScorerConfig { enforce, ..ScorerConfig::default() });
    feed(&mut scorer, &usual(Timestamp(START), end() - Timestamp(START)));
    assert!(scorer.armed().contains(&Level::Throttled), "else nothing could be entered above watched");
    feed(&mut scorer, calls)
}

fn feed(scorer: &mut Scorer, calls: &[Call]) -> (Vec<Verdict>, Vec<Observed>) {
    let (mut verdicts, mut observed, mut minute) = (Vec::new(), Vec::new(), 0);
    for chunk in calls.chunks(1000) {
        let batch = batch(chunk, 0);
        scorer.open(&batch);
        batch.events().for_each(|event: Event<'_>| {
            let wall = event.report();
            if minute != wall.window(Span::MINUTE) {
                minute = wall.window(Span::MINUTE);
                scorer.tick(wall, &mut verdicts);
            }
            observed.push(scorer.observe(event, wall, &mut verdicts));
        });
    }
    verdicts.iter().for_each(assert_that_too_many_are_more_than_usual);
    (verdicts, observed)
}

/// What is told of a window does not contradict itself: a surprise may be held over the window's edge, a count is not.
fn assert_that_too_many_are_more_than_usual(verdict: &Verdict) {
    let is_sound = |reason: &Reason| !reason.detector.counts() || reason.observed > reason.expected;
    let sound = verdict.reasons.iter().filter(|reason| is_sound(reason)).count();
    assert!(sound == 0 || sound == verdict.reasons.len(), "{:?}", verdict.reasons);
}

fn entries(verdicts: &[Verdict]) -> Vec<&Verdict> {
    verdicts.iter().filter(|verdict| verdict.cause == Cause::Evidence).collect()
}

/// The highest level that a service entered.
fn highest(verdicts: &[Verdict], service: u64) -> Level {
    let name = name(service);
    let levels = entries(verdicts).into_iter().filter(|entry| entry.identity == name).map(|entry| entry.level);
    levels.max().unwrap_or(Level::Trusted)
}

/// Bits and leading question of the calls that `which` chooses.
fn scores(calls: &[Call], observed: &[Observed], which: impl Fn(&Call) -> bool) -> Vec<(f64, Question)> {
    let scored = calls.iter().zip(observed).filter(|(call, _)| which(call)).map(|(_, observed)| match *observed {
        Observed::Scored { bits, leading: Some(leading), .. } => (bits, leading),
        ref other => panic!("{other:?}"),
    });
    scored.collect()
}

/// Mean bits of the calls on the new edge, half an hour after it began and later.
fn bits_in_the_end(calls: &[Call], observed: &[Observed]) -> f64 {
    let late = scores(calls, observed, |call| is_unheard_of(call) && call.time > end() + minutes(35));
    late.iter().map(|(bits, _)| bits).sum::<f64>() / late.len() as f64
}

#[test]
fn a_deployment_leads_no_further_than_watched_and_one_old_replica_that_does_the_same_does() {
    for service in [0, 6] {
        let place = |call: &Call| REPLICAS.iter().position(|&address| address == call.address).expect("a replica");
        let is_after = |call: &Call| call.time >= end() + minutes(5 + 3 * place(call) as i64);
        let whose = |call: &Call| is_after(call).then(|| (SUCCESSORS[place(call)], SUCCESSORS[place(call)]));
        let release = with_new_edge(usual(end(), minutes(90)), service, whose);
        let (verdicts, observed) = judged(&release);
        assert!(highest(&verdicts, service) <= Level::Watched, "{:?}", entries(&verdicts));
        let released = bits_in_the_end(&release, &observed);
        assert!(released < 0.0, "the new edge is the service's own: {released}");

        // The same calls at the same times, all of the new ones from one replica, that was there before.
        let whose = |call: &Call| is_after(call).then(|| (REPLICAS[place(call)], REPLICAS[0]));
        let odd = with_new_edge(usual(end(), minutes(90)), service, whose);
        let (verdicts, observed) = judged(&odd);
        assert!(highest(&verdicts, service) >= Level::Throttled, "{:?}", entries(&verdicts));
        let odd = bits_in_the_end(&odd, &observed);
        assert!(odd > released + 2.0, "{odd} {released}");
    }
}

#[test]
fn a_service_of_one_replica_that_is_succeeded_leads_no_further_than_watched_and_its_edge_is_adopted() {
    for service in [1, 7] {
        let is_after = |call: &Call| call.time >= end() + minutes(5);
        let whose = |call: &Call| is_after(call).then_some((SUCCESSORS[0], SUCCESSORS[0]));
        let succession = with_new_edge(usual(end(), minutes(90)), service, whose);
        let (verdicts, observed) = judged(&succession);
        assert!(highest(&verdicts, service) <= Level::Watched, "{:?}", entries(&verdicts));
        let succeeded = bits_in_the_end(&succession, &observed);
        assert!(succeeded < 0.0, "the new edge is adopted: {succeeded}");
    }
}

#[test]
fn an_owner_who_goes_on_calling_is_not_succeeded_by_whoever_borrows_its_identity() {
    for service in [1, 7] {
        let whose = |call: &Call| (call.time >= end() + minutes(5)).then_some((REPLICAS[0], "10.6.6.6"));
        let beside = with_new_edge(usual(end(), minutes(90)), service, whose);
        let (verdicts, observed) = judged(&beside);
        assert!(highest(&verdicts, service) >= Level::Watched, "{:?}", entries(&verdicts));
        let bits = bits_in_the_end(&beside, &observed);
        assert!(bits > 0.0, "the new edge is the stranger's alone: {bits}");
    }
}

#[test]
fn a_stranger_who_borrows_an_identity_and_speaks_another_tls_is_throttled_within_a_minute() {
    for service in [1, 7, 8] {
        // Between two beats, so that its calls are told from the owner's by their time.
        let begin = end() + minutes(5) + Span(1);
        let every = 10 * Span::SECOND.0;
        let stranger =
            (0..6).map(|i| Call { fingerprint: OTHER_TLS, ..unheard_of(begin + Span(i * every), service, "10.6.6.6") });
        let (verdicts, _) = judged(&merged(usual(end(), minutes(10)), stranger));
        let of_it = |entry: &&Verdict| entry.identity == name(service) && entry.level >= Level::Throttled;
        let first = entries(&verdicts).into_iter().find(of_it).expect("it is throttled");
        let after = first.time - begin;
        assert!(after <= Span::MINUTE && after.0 % every == 0, "by a call of its own: {first:?}");
        assert_eq!(first.subject.instance.as_deref(), Some("10.6.6.6"), "and not the owner");
    }
}

#[test]
fn when_every_service_is_busier_at_once_nearly_nobody_is_held_to_be_odd() {
    let campaign: Vec<Call> = usual(end(), minutes(5 * 60))
        .into_iter()
        .map(|call| Call { time: end() + Span((call.time - end()).0 * 2 / 5), ..call })
        .collect();
    let (verdicts, _) = judged(&campaign);
    let entries = entries(&verdicts);
    assert!(entries.iter().all(|entry| entry.level <= Level::Watched), "{entries:?}");
    assert!(entries.len() <= 2, "{entries:?}");
}

#[test]
fn one_service_alone_that_is_twenty_times_as_busy_is_found() {
    for service in [0, 7] {
        let calm = usual(end(), minutes(20));
        let of_it = calm.iter().filter(|call| call.source == name(service));
        let more: Vec<Call> = of_it
            .flat_map(|call| (1..20).map(|i| Call { time: call.time + Span(i * Span::SECOND.0 / 4), ..call.clone() }))
            .collect();
        let (verdicts, _) = judged(&merged(calm, more));
        assert!(highest(&verdicts, service) >= Level::Throttled, "{:?}", entries(&verdicts));
    }
}

#[test]
fn a_flood_is_held_against_the_flooder_and_not_against_those_who_usually_call_there() {
    for a_second in [5, 50] {
        let flood = (0..a_second * 600).map(|i| Call {
            fingerprint: TLS,
            ..call(end() + minutes(5) + Span(i * Span::SECOND.0 / a_second), &name(9), &name(10))
        });
        let calls = merged(usual(end(), minutes(30)), flood);
        let (verdicts, _) = judged(&calls);
        assert!(highest(&verdicts, 9) >= Level::Throttled, "{:?}", entries(&verdicts));
        for bystander in (0..SERVICES).filter(|&service| service != 9) {
            assert_eq!(highest(&verdicts, bystander), Level::Trusted, "{bystander}: {:?}", entries(&verdicts));
        }
    }
}

#[test]
fn a_very_big_response_on_a_new_edge_counts_at_once_unless_its_source_always_moves_as_much() {
    let first_call = |service, bytes| {
        let call = Call { bytes, ..unheard_of(end() + minutes(5), service, REPLICAS[0]) };
        let calls = merged(usual(end(), minutes(10)), [call]);
        let (verdicts, observed) = judged(&calls);
        (scores(&calls, &observed, is_unheard_of)[0], highest(&verdicts, service))
    };
    let ((ordinary, leading), level) = first_call(8, 700);
    assert_eq!((leading, level), (Question::RarePeer, Level::Trusted));
    let ((big, leading), level) = first_call(8, MUCH);
    assert_eq!(leading, Question::Bigger);
    assert!(big > ordinary + 5.0 && level >= Level::Throttled, "{big} {ordinary} {level:?}");
    let ((mover, leading), level) = first_call(MOVER, MUCH);
    assert_eq!((leading, level), (Question::RarePeer, Level::Trusted));
    assert!((mover - ordinary).abs() < 1.0, "{mover} {ordinary}");
}

#[test]
fn a_failed_call_that_lasts_as_long_as_a_timeout_is_failing_and_not_longer_too() {
    let score = |outcome, duration| {
        let time = end() + minutes(5) + Span(1);
        let call = Call { outcome, duration, fingerprint: TLS, ..call(time, &name(8), &name(9)) };
        let calls = merged(usual(end(), minutes(10)), [call]);
        scores(&calls, &judged(&calls).1, |call| call.time == time)[0]
    };
    let usual = Some(Span(5_000_000));
    let (timed_out, leading) = score(Outcome::Failure, Some(TIMEOUT));
    assert_eq!((timed_out, leading), score(Outcome::Failure, usual));
    assert_eq!(leading, Question::Failing);
    let (slow, leading) = score(Outcome::Success, Some(TIMEOUT));
    assert_eq!(leading, Question::Longer);
    assert!(slow > score(Outcome::Success, usual).0 + 5.0, "a success that takes as long is: {slow}");
}
