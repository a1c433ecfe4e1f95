//! A deployment that was announced widens tolerance for what several replicas of its service do, and hides nothing: what one
//! replica does alone, and what others do, counts as ever. And a level that is rehearsed says what it would have met.

mod mesh;
mod reopened;

use mesh::{Call, START, batch, calls};
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    operator::{Ask, Instruction, Obeyed, Refusal},
    scorer::Scorer,
    snapshot::{Covered, Snapshots},
    verdict::{Cause, Verdict},
};
use reopened::reopened;

/// Calls after which `s3` begins to behave oddly.
const ODD_FROM: usize = 55_000;
const S3: &str = "spiffe://mesh.test/ns/shop/sa/s3";

fn time_of(call: usize) -> Timestamp {
    Timestamp(START + call as i64 * 4_320_000_000)
}

/// The made-up days, in which what is odd comes from both replicas of `s3` instead of one.
fn of_both_replicas() -> Vec<Call> {
    let mut calls = calls();
    for (i, call) in calls.iter_mut().enumerate().skip(ODD_FROM) {
        if call.source.ends_with("/s3") && i % 8 == 4 {
            call.address = "10.0.0.2";
        }
    }
    calls
}

fn announce(service: &str, at: Timestamp, lasts: Span) -> Instruction {
    Instruction {
        by: "spiffe://mesh.test/ns/ci/sa/deploy".to_owned(),
        why: "release 42".to_owned(),
        key: format!("k-{}", at.0),
        at,
        event: at,
        ask: Ask::Announce { service: service.to_owned(), cluster: None, lasts },
    }
}

fn feed(scorer: &mut Scorer, calls: &[Call], first: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (n, chunk) in calls.chunks(500).enumerate() {
        let batch = batch(chunk, first + n * 500);
        scorer.open(&batch);
        for event in batch.events() {
            scorer.tick(event.report(), &mut verdicts);
            scorer.observe(event, event.report(), &mut verdicts);
        }
    }
    verdicts
}

/// What is decided on the calls from [`ODD_FROM`] on, where a deployment of `service` was announced just before.
fn decided(calls: &[Call], service: Option<&str>) -> Vec<Verdict> {
    let mut scorer = Scorer::new(ScorerConfig::default());
    feed(&mut scorer, &calls[..ODD_FROM], 0);
    if let Some(service) = service {
        let obeyed = scorer.obey(&announce(service, time_of(ODD_FROM), Span(6 * Span::HOUR.0)), &mut Vec::new());
        assert_eq!(obeyed, Ok(Obeyed::default()), "it is known");
    }
    feed(&mut scorer, &calls[ODD_FROM..], ODD_FROM)
}

fn highest(verdicts: &[Verdict], identity: &str) -> Level {
    let of = verdicts.iter().filter(|verdict| verdict.identity == identity && verdict.cause == Cause::Evidence);
    of.map(|verdict| verdict.level).max().unwrap_or(Level::Trusted)
}

#[test]
fn what_several_replicas_of_an_announced_service_do_is_watched_at_most() {
    let calls = of_both_replicas();
    assert!(highest(&decided(&calls, None), S3) > Level::Watched, "without a word it is more");
    let announced = decided(&calls, Some("shop/s3"));
    assert!(highest(&announced, S3) <= Level::Watched, "{:?}", highest(&announced, S3));
    let told = announced.iter().find(|verdict| verdict.identity == S3 && verdict.announced.is_some());
    let by = told.and_then(|verdict| verdict.announced.as_ref()).map(|of| of.by.as_str());
    assert_eq!(by, Some("spiffe://mesh.test/ns/ci/sa/deploy"), "the verdict says who has announced what");
}

#[test]
fn what_one_replica_of_an_announced_service_does_alone_counts_as_ever() {
    let calls = calls();
    let (before, announced) = (decided(&calls, None), decided(&calls, Some("shop/s3")));
    assert!(highest(&before, S3) > Level::Watched);
    assert_eq!(highest(&announced, S3), highest(&before, S3));
    let first = |verdicts: &[Verdict]| {
        verdicts.iter().find(|of| of.identity == S3 && of.level > Level::Watched).map(|of| of.time)
    };
    assert_eq!(first(&announced), first(&before), "and no later");
}

#[test]
fn what_others_do_meanwhile_counts_as_ever() {
    let calls = of_both_replicas();
    let (before, announced) = (decided(&calls, None), decided(&calls, Some("shop/s4")));
    assert_eq!(highest(&announced, S3), highest(&before, S3));
    assert!(announced.iter().filter(|verdict| verdict.identity == S3).all(|verdict| verdict.announced.is_none()));
}

#[test]
fn what_was_announced_is_known_after_a_restart_and_ends_by_itself() {
    let calls = of_both_replicas();
    let directory = tempfile::tempdir().expect("a directory");
    let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
    let mut scorer = Scorer::new(ScorerConfig::default());
    feed(&mut scorer, &calls[..ODD_FROM], 0);
    let lasts = Span(2 * Span::HOUR.0);
    scorer.obey(&announce("shop/s3", time_of(ODD_FROM), lasts), &mut Vec::new()).expect("it may be announced");
    snapshots.save(scorer.changes(Covered::default()));
    snapshots.finish().expect("it was being written").expect("it can be written");
    drop(snapshots);
    let (_snapshots, loaded) = reopened(directory.path(), &ScorerConfig::default());
    let mut again = loaded.expect("a snapshot").scorer;
    assert_eq!(again.announcements().count(), 1);
    let expected = feed(&mut scorer, &calls[ODD_FROM..], ODD_FROM);
    assert_eq!(feed(&mut again, &calls[ODD_FROM..], ODD_FROM), expected);
    assert_eq!(scorer.announcements().count(), 0, "it has ended");
    let higher = expected.iter().find(|of| of.identity == S3 && of.level > Level::Watched);
    assert!(higher.is_some_and(|of| of.time > time_of(ODD_FROM) + lasts), "what goes on afterwards counts in full");
}

#[test]
fn what_is_no_service_or_lasts_for_ever_is_refused_and_an_unknown_service_is_noted() {
    let mut scorer = Scorer::new(ScorerConfig::default());
    feed(&mut scorer, &calls()[..2_000], 0);
    let mut say = |service: &str, lasts: Span| scorer.obey(&announce(service, time_of(2_000), lasts), &mut Vec::new());
    for service in ["cart", "shop/", "a/b/c", ""] {
        assert!(matches!(say(service, Span::HOUR), Err(Refusal::Invalid(_))), "{service}");
    }
    assert!(matches!(say("shop/s3", Span(7 * Span::HOUR.0)), Err(Refusal::Invalid(_))));
    let noted = say("shop/new", Span::HOUR).expect("it may be the first of its name");
    assert!(noted.notes[0].contains("no identity of that service is known yet"), "{noted:?}");
}

#[test]
fn a_rehearsal_says_what_a_level_would_have_denied_and_who_would_be_left() {
    let calls = calls();
    let mut scorer = Scorer::new(ScorerConfig::default());
    feed(&mut scorer, &calls[..ODD_FROM], 0);
    let of_day = |call: &&Call| {
        call.source == S3 && time_of(ODD_FROM - 1).window(Span::HOUR) - call.time.window(Span::HOUR) < 24
    };
    let made = calls[..ODD_FROM].iter().filter(of_day).count() as f64;
    let quarantined = scorer.rehearse(S3, None, Level::Quarantined).expect("it is known");
    assert!((quarantined.calls - made).abs() < 0.06 * made, "{} of {made}", quarantined.calls);
    assert_eq!(quarantined.denied, quarantined.calls, "every call of it is denied");
    let sum: f64 = quarantined.destinations.iter().map(|of| of.denied).sum();
    assert_eq!((sum, quarantined.destinations_left_out), (quarantined.denied, 0));
    assert!(quarantined.callers.iter().any(|caller| caller.destination.ends_with("/s2")), "s2 calls it every day");
    assert_eq!((quarantined.instances.len(), quarantined.instances_left.len()), (2, 0));
    assert!(quarantined.notes[0].contains("no healthy replica would be left"), "{:?}", quarantined.notes);
    let one = scorer.rehearse(S3, Some("10.0.0.1"), Level::Quarantined).expect("it is known");
    assert_eq!(one.instances_left, ["10.0.0.2"]);
    let watched = scorer.rehearse(S3, None, Level::Watched).expect("it is known");
    assert_eq!((watched.denied, watched.calls), (0.0, quarantined.calls));
    let restricted = scorer.rehearse(S3, None, Level::Restricted).expect("it is known");
    assert!(restricted.denied < 0.1 * restricted.calls, "it is known for nearly all of its calls: {restricted:?}");
    assert_eq!(scorer.rehearse("spiffe://mesh.test/ns/shop/sa/nobody", None, Level::Watched), None);
}
