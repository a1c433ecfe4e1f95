//! Whom a verdict is about, what may lead to it, and what never does.

mod mesh;

use mesh::{Call, batch, call, calls, mixed};
use qualm_model::{
    event::Event,
    identity::Provenance,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, MemoryConfig, Mode, ScorerConfig},
    scorer::{Observed, Scorer},
    verdict::{Cause, Verdict},
};

const ODD: &str = "spiffe://mesh.test/ns/shop/sa/s7";

fn config() -> ScorerConfig {
    ScorerConfig {
        enforce: EnforceConfig { mode: Mode::Enforce, ..EnforceConfig::default() },
        ..ScorerConfig::default()
    }
}

fn feed(scorer: &mut Scorer, calls: &[Call], wall: impl Fn(Timestamp) -> Timestamp) -> (Vec<Verdict>, Vec<Observed>) {
    let (mut verdicts, mut observed, mut minute) = (Vec::new(), Vec::new(), 0);
    for chunk in calls.chunks(1000) {
        let batch = batch(chunk, 0);
        scorer.open(&batch);
        batch.events().for_each(|event: Event<'_>| {
            let wall = wall(event.report());
            if minute != wall.window(Span::MINUTE) {
                minute = wall.window(Span::MINUTE);
                scorer.tick(wall, &mut verdicts);
            }
            observed.push(scorer.observe(event, wall, &mut verdicts));
        });
    }
    (verdicts, observed)
}

/// Three calm days, learned as they happen.
fn settled(config: ScorerConfig) -> (Scorer, Timestamp) {
    let mut calm = calls();
    calm.truncate(55_000);
    let end = calm[calm.len() - 1].time;
    let mut scorer = Scorer::new(config);
    feed(&mut scorer, &calm, |time| time);
    (scorer, end)
}

/// Half an hour of one service calling peers it never called, big and fast, from one address.
fn spree(from: Timestamp) -> Vec<Call> {
    (0..1800_u64)
        .map(|i| Call {
            operation: format!("GET /admin/{}", mixed(i, 3) % 50),
            bytes: 5_000_000,
            ..call(from + Span(i as i64 * Span::SECOND.0), ODD, &format!("spiffe://mesh.test/ns/shop/sa/t{}", i % 60))
        })
        .collect()
}

/// As long as a spree takes.
const HALF_AN_HOUR: Span = Span(30 * Span::MINUTE.0);

fn entries_of_odd(verdicts: &[Verdict]) -> Vec<&Verdict> {
    verdicts.iter().filter(|verdict| verdict.identity == ODD && verdict.cause == Cause::Evidence).collect()
}

#[test]
fn a_spree_is_noticed_and_named() {
    let (mut scorer, end) = settled(config());
    let (verdicts, _) = feed(&mut scorer, &spree(end), |time| time);
    let odd = entries_of_odd(&verdicts);
    assert!(!odd.is_empty(), "{verdicts:?}");
    assert!(odd[0].level >= Level::Watched && odd[0].evidence_bits >= odd[0].threshold_bits);
    assert!(!odd[0].reasons.is_empty());
}

#[test]
fn one_odd_replica_does_not_punish_its_service() {
    let (mut scorer, end) = settled(config());
    let mut both = spree(end);
    // The sibling goes on as before, from its own address.
    both.extend((0..30).map(|i| Call {
        address: "10.0.0.2",
        ..call(end + Span(i * Span::MINUTE.0), ODD, "spiffe://mesh.test/ns/shop/sa/s8")
    }));
    both.sort_by_key(|call| call.time);
    let (verdicts, _) = feed(&mut scorer, &both, |time| time);
    let odd = entries_of_odd(&verdicts);
    let last = odd.last().expect("it is noticed");
    assert_eq!(last.subject.instance.as_deref(), Some("10.0.0.1"), "{odd:?}");
}

#[test]
fn reading_history_never_acts() {
    let (mut scorer, end) = settled(config());
    let (verdicts, _) = feed(&mut scorer, &spree(end), |time| time + Span::HOUR);
    assert!(!entries_of_odd(&verdicts).is_empty(), "evidence changes");
    assert!(verdicts.iter().filter(|verdict| verdict.identity == ODD).all(|verdict| verdict.historic));
    assert!(scorer.entries().iter().all(|entry| entry.subject.principal != ODD), "and nothing stands in the table");
}

#[test]
fn a_bare_name_in_a_log_line_leads_no_further_than_watched() {
    let (mut scorer, end) = settled(config());
    let claimed: Vec<Call> = spree(end).into_iter().map(|call| Call { provenance: Provenance::Name, ..call }).collect();
    let (verdicts, _) = feed(&mut scorer, &claimed, |time| time);
    assert!(verdicts.iter().all(|verdict| verdict.level <= Level::Watched), "{verdicts:?}");
}

#[test]
fn our_own_denials_are_neither_scored_nor_learned() {
    let (mut scorer, end) = settled(config());
    let denied: Vec<Call> = spree(end).into_iter().map(|call| Call { decision: "0123", ..call }).collect();
    let (verdicts, observed) = feed(&mut scorer, &denied, |time| time);
    assert!(observed.iter().all(|observed| *observed == Observed::OwnAction));
    assert!(entries_of_odd(&verdicts).is_empty());
}

#[test]
fn a_replay_issues_the_same_decisions() {
    let run = || {
        let (mut scorer, end) = settled(config());
        let (verdicts, _) = feed(&mut scorer, &spree(end), |time| time);
        verdicts.into_iter().map(|verdict| verdict.decision).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn an_operator_who_turns_to_shadow_mode_lifts_what_stands_and_it_is_told() {
    let (mut scorer, end) = settled(config());
    feed(&mut scorer, &spree(end), |time| time);
    let standing = scorer.entries();
    assert!(standing.iter().all(|entry| entry.enforce) && !standing.is_empty());
    let (wall, mut verdicts) = (end + HALF_AN_HOUR, Vec::new());
    scorer.reconfigure(ScorerConfig::default(), wall, &mut verdicts);
    assert!(scorer.entries().iter().all(|entry| !entry.enforce));
    assert_eq!(scorer.entries().len(), standing.len());
    assert_eq!(verdicts.len(), standing.len());
    assert!(verdicts.iter().all(|verdict| verdict.cause == Cause::Operator && !verdict.enforce));
    verdicts.clear();
    scorer.reconfigure(ScorerConfig::default(), wall, &mut verdicts);
    assert!(verdicts.is_empty(), "nothing has changed: {verdicts:?}");
}

#[test]
fn an_operator_who_turns_to_enforce_mode_lets_act_what_the_evidence_still_speaks_for() {
    let (mut scorer, end) = settled(ScorerConfig::default());
    feed(&mut scorer, &spree(end), |time| time);
    let before = scorer.entries().into_iter().find(|entry| entry.subject.principal == ODD).expect("it stands");
    assert!(!before.enforce, "in shadow");
    let (wall, mut verdicts) = (end + HALF_AN_HOUR, Vec::new());
    scorer.reconfigure(config(), wall, &mut verdicts);
    let told = verdicts.iter().find(|verdict| verdict.identity == ODD).expect("it is told");
    assert_eq!((told.cause, told.level, told.previous), (Cause::Operator, before.level, before.level));
    assert_eq!((told.enforce, told.time, told.decided), (true, wall - Span::SECOND, wall));
    let after = scorer.entries().into_iter().find(|entry| entry.subject.principal == ODD).expect("it stands");
    let unchanged = |entry: &qualm_scorer::table::TrustEntry| (entry.decision.clone(), entry.level, entry.expires);
    assert_eq!((after.enforce, unchanged(&after)), (true, unchanged(&before)), "no lease is lengthened");
}

#[test]
fn what_stands_in_shadow_stays_one_where_telemetry_is_old_or_the_identity_is_protected_or_nothing_was_changed() {
    let protecting = EnforceConfig { mode: Mode::Enforce, protected: vec![ODD.to_owned()], ..EnforceConfig::default() };
    let leases = ScorerConfig { memory: MemoryConfig { baselines_mib: 512 }, ..ScorerConfig::default() };
    for (config, later) in [
        (config(), Span(5 * Span::MINUTE.0)),
        (ScorerConfig { enforce: protecting, ..ScorerConfig::default() }, Span(0)),
        (leases, Span(0)),
    ] {
        let (mut scorer, end) = settled(ScorerConfig::default());
        feed(&mut scorer, &spree(end), |time| time);
        let mut verdicts = Vec::new();
        scorer.reconfigure(config, end + HALF_AN_HOUR + later, &mut verdicts);
        assert!(verdicts.iter().all(|verdict| verdict.identity != ODD), "{verdicts:?}");
        let entry = scorer.entries().into_iter().find(|entry| entry.subject.principal == ODD);
        assert_eq!(entry.map(|entry| entry.enforce), Some(false));
    }
}

#[test]
fn a_restart_under_another_configuration_makes_shadows_and_never_denials() {
    let (mut scorer, end) = settled(ScorerConfig::default());
    feed(&mut scorer, &spree(end), |time| time);
    let mut verdicts = Vec::new();
    scorer.restrict(end + HALF_AN_HOUR, &mut verdicts);
    assert!(verdicts.is_empty() && scorer.entries().iter().all(|entry| !entry.enforce));
}

#[test]
fn no_two_decisions_have_one_id() {
    let (mut scorer, end) = settled(config());
    let (mut verdicts, _) = feed(&mut scorer, &spree(end), |time| time);
    // Leases end and what goes on is entered anew, in the same episode.
    for hour in 1..4 {
        verdicts.extend(feed(&mut scorer, &spree(end + Span(hour * Span::HOUR.0)), |time| time).0);
    }
    let mut ids: Vec<_> =
        verdicts.iter().filter(|verdict| verdict.cause == Cause::Evidence).map(|verdict| &verdict.decision).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn a_flood_of_paths_stays_within_the_bound_and_who_does_not_flood_is_judged_as_before() {
    let bounded = ScorerConfig { memory: MemoryConfig { baselines_mib: 16 }, ..config() };
    let flood = |end: Timestamp| -> Vec<Call> {
        (0..300_000_u64)
            .map(|i| Call {
                operation: format!("GET /flood/{}", mixed(i, 9)),
                ..call(
                    end + Span(i as i64 * 10_000_000),
                    "spiffe://mesh.test/ns/shop/sa/s9",
                    &format!("d{}", mixed(i, 8)),
                )
            })
            .collect()
    };
    let (mut scorer, end) = settled(bounded);
    let edges = scorer.tally().edges;
    feed(&mut scorer, &flood(end), |time| time);
    let tally = scorer.tally();
    assert!(tally.bytes <= 16 << 20, "{tally:?}");
    assert!(tally.folded > 0 && tally.edges >= edges / 2, "what was folded is counted: {tally:?}");
    let after = end + Span(4000 * Span::SECOND.0);
    let calm = call(after, "spiffe://mesh.test/ns/shop/sa/s4", "spiffe://mesh.test/ns/shop/sa/s5");
    let (_, observed) = feed(&mut scorer, &[calm], |time| time);
    let Observed::Scored { bits, .. } = observed[0] else { panic!("{observed:?}") };
    assert!(bits < 2.0, "a known call of somebody else: {bits} bits");
}

#[test]
fn a_flood_of_identities_stays_within_the_bound() {
    let bounded = ScorerConfig { memory: MemoryConfig { baselines_mib: 16 }, ..config() };
    let (mut scorer, end) = settled(bounded);
    let flood: Vec<Call> = (0..40_000_u64)
        .map(|i| {
            let source = format!("spiffe://mesh.test/ns/crowd/sa/x{}", mixed(i, 7));
            call(end + Span(i as i64 * 10_000_000), &source, "spiffe://mesh.test/ns/shop/sa/s5")
        })
        .collect();
    feed(&mut scorer, &flood, |time| time);
    let tally = scorer.tally();
    assert!(tally.bytes <= 16 << 20 && tally.folded > 0, "{tally:?}");
    let after = end + Span::HOUR;
    let calm = call(after, "spiffe://mesh.test/ns/shop/sa/s4", "spiffe://mesh.test/ns/shop/sa/s5");
    let (_, observed) = feed(&mut scorer, &[calm], |time| time);
    let Observed::Scored { bits, .. } = observed[0] else { panic!("{observed:?}") };
    assert!(bits < 3.0, "the namespace that was not flooded keeps its baselines: {bits} bits");
}

#[test]
fn a_protected_identity_is_never_denied() {
    let protecting = |protected: &str| ScorerConfig {
        enforce: EnforceConfig { protected: vec![protected.to_owned()], ..config().enforce },
        ..config()
    };
    let (mut scorer, end) = settled(protecting("spiffe://mesh.test/ns/shop/*"));
    let (verdicts, _) = feed(&mut scorer, &spree(end), |time| time);
    let denied = |verdict: &&Verdict| verdict.level >= Level::Quarantined && verdict.enforce;
    assert_eq!(verdicts.iter().filter(denied).count(), 0, "{verdicts:?}");
}

/// Nine days, after which every level is armed.
fn armed() -> (Scorer, Timestamp) {
    let mut calm = calls();
    calm.truncate(55_000);
    let start = calm[0].time;
    calm.iter_mut().for_each(|call| call.time = start + Span((call.time - start).0 * 3));
    let end = calm[calm.len() - 1].time;
    let mut scorer = Scorer::new(config());
    feed(&mut scorer, &calm, |time| time);
    assert_eq!(scorer.armed().last(), Some(&Level::Quarantined), "{:?}", scorer.armed());
    (scorer, end)
}

#[test]
fn more_of_the_same_limits_an_identity_and_never_cuts_it_off_whatever_it_did_an_hour_before() {
    let (mut scorer, end) = armed();
    let service = |number: u64| format!("spiffe://mesh.test/ns/shop/sa/s{number}");
    let at = |from: Timestamp, milliseconds: i64| from + Span(milliseconds * 1_000_000);
    let mut verdicts = Vec::new();
    // Each another service, an hour apart: a flood, big answers, long calls, to known peers with known operations.
    let shapes: [(i64, u64, Option<Span>); 3] =
        [(50, 700, None), (2_000, 80_000_000, None), (200, 700, Some(Span(40 * Span::SECOND.0)))];
    for (number, (gap, bytes, duration)) in shapes.into_iter().enumerate() {
        let number = 10 + number as u64;
        let from = end + Span(number as i64 * Span::HOUR.0);
        // Something of another kind, by a TLS stack never seen of it: what is far more than that is a reason of its own.
        let odd = Call {
            fingerprint: "t13d1516h2_8daaf6152771_02713d6af862",
            ..call(at(from, 1), &service(number), &service(number + 9))
        };
        let more = (0..3_600_000 / gap).map(|n| Call {
            operation: format!("GET /{}", mixed(n as u64, 3) % 3),
            bytes,
            duration,
            ..call(
                at(from, Span::HOUR.0 / 1_000_000 + n * gap),
                &service(number),
                &service((number + 1 + n as u64 % 3) % 20),
            )
        });
        let (told, _) = feed(&mut scorer, &[odd].into_iter().chain(more).collect::<Vec<_>>(), |time| time);
        let highest =
            told.iter().filter(|verdict| verdict.identity == service(number)).map(|verdict| verdict.level).max();
        assert!(highest <= Some(Level::Restricted), "{}: {highest:?}", service(number));
        verdicts.extend(told);
    }
    let limited = |verdict: &&Verdict| verdict.level >= Level::Throttled;
    assert!(verdicts.iter().any(|verdict| limited(&verdict)), "a flood is a reason to limit: {verdicts:?}");
}
