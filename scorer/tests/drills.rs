//! Drills: what is not done to a service or a mesh on behaviour, however odd it looks. Many identities at once are in
//! `breaker.rs`.

mod mesh;

use mesh::{Call, batch, call, calls, mixed};
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Mode, ScorerConfig},
    guard::HeldBy,
    operator::{Ask, InShadow, Instruction},
    scorer::Scorer,
    snapshot::{Covered, Snapshots},
    table::TrustEntry,
    verdict::{Cause, Verdict},
};

const ODD: &str = "spiffe://mesh.test/ns/shop/sa/s7";
const FIRST: &str = "10.0.0.1";
const SECOND: &str = "10.0.0.2";

fn config() -> ScorerConfig {
    // A wrongful entry of the days before must not take the only place of twenty.
    let enforce = EnforceConfig { mode: Mode::Enforce, max_share: 0.2, ..EnforceConfig::default() };
    ScorerConfig { enforce, ..ScorerConfig::default() }
}

fn minutes(minutes: i64) -> Span {
    Span(minutes * Span::MINUTE.0)
}

/// A mesh that has gone on for twelve days, in which every level can be entered, and what it has decided since.
struct Stage {
    scorer: Scorer,
    now: Timestamp,
    /// The calls of the days to come, as they would be.
    ahead: Vec<Call>,
    told: Vec<Verdict>,
    /// How much later than it happened everything is read.
    lag: Span,
}

impl Stage {
    fn set() -> Self {
        let turn = |turn: i64| {
            let later = Span(turn * 3 * Span::DAY.0);
            calls().into_iter().take(55_000).map(move |call| Call { time: call.time + later, ..call })
        };
        let calm: Vec<Call> = (0..4).flat_map(turn).collect();
        let (ahead, now) = (turn(4).collect::<Vec<_>>(), calm[calm.len() - 1].time);
        let mut stage = Self { scorer: Scorer::new(config()), now, ahead, told: Vec::new(), lag: Span(0) };
        stage.feed(&calm);
        stage.now = stage.ahead[0].time;
        stage.told.clear();
        stage
    }

    /// Has calls happen, and leases looked at every quarter of a minute.
    fn feed(&mut self, calls: &[Call]) {
        let mut ticked = Timestamp(0);
        for chunk in calls.chunks(1000) {
            let batch = batch(chunk, 0);
            self.scorer.open(&batch);
            for event in batch.events() {
                let wall = event.report() + self.lag;
                if wall - ticked >= Span::seconds(15) {
                    ticked = wall;
                    self.scorer.tick(wall, &mut self.told);
                }
                self.scorer.observe(event, wall, &mut self.told);
                self.now = self.now.max(event.report());
            }
        }
        self.scorer.tick(self.now + self.lag + Span::seconds(6), &mut self.told);
    }

    /// Has so many minutes pass in which everybody calls as ever, s7 from these addresses alone, and these services astray
    /// besides, once a second from theirs.
    fn pass(&mut self, length: i64, homes: &[&'static str], astray: &[(u64, &'static str)]) {
        let until = self.now + minutes(length);
        let due = self.ahead.partition_point(|call| call.time <= until);
        let mut calls: Vec<Call> = self.ahead.drain(..due).collect();
        calls.retain(|call| call.source != ODD || homes.contains(&call.address));
        for second in 0..length * 60 {
            let (i, time) = (second as u64, self.now + Span::seconds(second));
            calls.extend(astray.iter().map(|(who, address)| Call {
                operation: format!("GET /admin/{}", mixed(i, 3) % 50),
                bytes: 5_000_000,
                address,
                ..call(time, &service(*who), &format!("spiffe://mesh.test/ns/shop/sa/t{}", somebody(i, *who, address)))
            }));
        }
        calls.sort_by_key(|call| call.time);
        self.feed(&calls);
        self.now = until;
    }

    fn entry(&self) -> Option<TrustEntry> {
        self.scorer.entries().into_iter().find(|entry| entry.subject.principal == ODD)
    }

    fn about_odd(&self) -> impl DoubleEndedIterator<Item = &Verdict> {
        self.told.iter().filter(|verdict| verdict.identity == ODD)
    }

    /// Has s7 go astray from one address until it is to be denied; what was decided.
    fn stray_until_denied(&mut self, homes: &[&'static str], from: &[(u64, &'static str)]) -> Verdict {
        for _ in 0..60 {
            self.pass(1, homes, from);
            let denied = self.about_odd().find(|of| of.cause == Cause::Evidence && of.level.denies()).cloned();
            if let Some(denied) = denied {
                return denied;
            }
        }
        panic!("an hour of it leads to no denial: {:?}", self.told)
    }
}

/// Two replicas that go astray do so each in its own way.
fn somebody(i: u64, who: u64, address: &str) -> u64 {
    2 * (mixed(i, who) % 30) + u64::from(address == SECOND)
}

fn service(number: u64) -> String {
    format!("spiffe://mesh.test/ns/shop/sa/s{number}")
}

#[test]
fn the_last_healthy_replica_is_throttled_until_a_sibling_is_back_or_a_person_denies_it() {
    let mut stage = Stage::set();
    // The sibling has gone; those who depend on the service go on.
    stage.pass(15, &[FIRST], &[]);
    let told = stage.stray_until_denied(&[FIRST], &[(7, FIRST)]);
    assert_eq!((told.held_by, told.enforce), (Some(HeldBy::LastReplica), false), "{told:?}");
    assert!(told.held.as_deref().is_some_and(|why| why.contains("last healthy replica")), "{told:?}");
    let dependants = told.dependants.as_ref().expect("they are named");
    assert!(dependants.names.contains(&service(6)) && dependants.count >= dependants.names.len(), "{dependants:?}");
    let entry = stage.entry().expect("it stands");
    let latest = stage.about_odd().rfind(|of| of.cause == Cause::Evidence).expect("it was decided");
    assert_eq!((entry.level, entry.enforce, &entry.decision), (Level::Throttled, true, &latest.decision));

    // It is so after a restart too.
    let place = tempfile::tempdir().expect("a directory");
    let (mut snapshots, _) = Snapshots::open(place.path(), config()).expect("it opens");
    snapshots.save(stage.scorer.changes(Covered::default()));
    snapshots.finish().expect("under way").expect("written");
    drop(snapshots);
    let restored = reopened(place.path());
    let again = restored.entries().into_iter().find(|entry| entry.subject.principal == ODD).expect("it stands");
    assert_eq!((again.level, again.enforce), (Level::Throttled, true));

    // A person's word disregards it.
    let quarantine = Instruction {
        by: "spiffe://mesh.test/ns/soc/sa/ann".to_owned(),
        why: "it is an intruder".to_owned(),
        key: "k1".to_owned(),
        at: stage.now,
        event: stage.now,
        ask: Ask::Set {
            identity: ODD.to_owned(),
            instance: Some(FIRST.to_owned()),
            level: Level::Quarantined,
            lease: minutes(10),
            in_shadow: InShadow::Marks,
            overrides: Vec::new(),
        },
    };
    let now = stage.now;
    stage.scorer.obey(&quarantine, &mut stage.told).expect("it is done");
    let acting = stage.scorer.entries().into_iter().filter(|entry| entry.enforce && entry.level.denies());
    assert_eq!(acting.map(|entry| entry.subject.instance).collect::<Vec<_>>(), [Some(FIRST.to_owned())]);
    assert_eq!(stage.now, now);
}

#[test]
fn with_a_sibling_back_what_was_held_back_acts_by_itself() {
    let mut stage = Stage::set();
    stage.pass(15, &[FIRST], &[]);
    let told = stage.stray_until_denied(&[FIRST], &[(7, FIRST)]);
    assert_eq!(told.held_by, Some(HeldBy::LastReplica));
    stage.told.clear();
    stage.pass(6, &[FIRST, SECOND], &[(7, FIRST)]);
    let told = stage.about_odd().find(|of| matches!(of.cause, Cause::Freed | Cause::Held));
    let told = told.unwrap_or_else(|| panic!("it is told: {:?}", stage.told));
    // All of a service is never quarantined for what one replica does.
    let acts = stage.entry().expect("it stands");
    assert!(acts.enforce && acts.level.denies(), "{acts:?} by {told:?}");
}

#[test]
fn what_denies_one_replica_is_held_back_when_its_siblings_have_gone() {
    let mut stage = Stage::set();
    stage.pass(15, &[FIRST, SECOND], &[]);
    let told = stage.stray_until_denied(&[SECOND], &[(7, FIRST)]);
    assert_eq!((told.subject.instance.as_deref(), told.enforce), (Some(FIRST), true), "{told:?}");
    stage.told.clear();
    // What is denied is not heard, and the sibling calls once more and falls silent.
    let last = Call { address: SECOND, ..call(stage.now, ODD, &service(8)) };
    stage.feed(&[last]);
    stage.pass(16, &[], &[]);
    assert!(stage.entry().is_some_and(|entry| entry.level.denies() && entry.enforce), "{:?}", stage.told);
    stage.pass(7, &[], &[]);
    let held = stage.about_odd().find(|of| of.cause == Cause::Held).unwrap_or_else(|| panic!("{:?}", stage.told));
    assert_eq!((held.held_by, held.enforce), (Some(HeldBy::LastReplica), false));
    assert!(stage.entry().is_some_and(|entry| entry.level == Level::Throttled && entry.enforce));
}

#[test]
fn all_of_a_service_is_not_quarantined_on_behaviour_but_restricted() {
    let mut stage = Stage::set();
    stage.pass(15, &[FIRST, SECOND], &[]);
    let both = [(7, FIRST), (7, SECOND)];
    stage.stray_until_denied(&[FIRST, SECOND], &both);
    for _ in 0..30 {
        stage.pass(1, &[FIRST, SECOND], &both);
    }
    let quarantined = stage.about_odd().find(|of| of.cause == Cause::Evidence && of.level == Level::Quarantined);
    let quarantined = quarantined.unwrap_or_else(|| panic!("it comes to be: {:?}", stage.told));
    assert_eq!((quarantined.held_by, &quarantined.subject.instance), (Some(HeldBy::ReplicaShare), &None));
    let entry = stage.entry().expect("it stands");
    assert_eq!((entry.level, entry.enforce), (Level::Restricted, true));
}

#[test]
fn while_records_are_missing_nobody_comes_to_be_denied() {
    let mut stage = Stage::set();
    stage.pass(15, &[FIRST, SECOND], &[]);
    let mut denied = None;
    for _ in 0..60 {
        stage.scorer.lose(3);
        stage.pass(1, &[SECOND], &[(7, FIRST)]);
        denied = stage.about_odd().find(|of| of.cause == Cause::Evidence && of.level.denies()).cloned();
        if denied.is_some() {
            break;
        }
    }
    let denied = denied.unwrap_or_else(|| panic!("an hour of it leads to no denial: {:?}", stage.told));
    assert_eq!((denied.held_by, denied.enforce), (Some(HeldBy::Gap), false));
    assert!(stage.entry().is_some_and(|entry| entry.level == Level::Throttled && entry.enforce));
    // Ten minutes without a loss later it acts.
    stage.told.clear();
    stage.pass(12, &[SECOND], &[(7, FIRST)]);
    assert!(stage.entry().is_some_and(|entry| entry.level.denies() && entry.enforce), "{:?}", stage.told);
}

#[test]
fn where_everything_looks_odd_at_once_nobody_is_limited() {
    let mut stage = Stage::set();
    // A wrong model, or a mesh turned upside down: everybody does what nobody did before.
    let all: Vec<(u64, &'static str)> = (0..20).map(|who| (who, if who % 2 == 0 { FIRST } else { SECOND })).collect();
    for _ in 0..40 {
        stage.pass(1, &[FIRST, SECOND], &all);
        let limiting = stage.scorer.entries().into_iter().filter(|entry| entry.enforce && entry.level.limits());
        let limited = limiting.count();
        assert!(limited <= 5, "{limited} are limited of 20");
    }
    let held = stage.told.iter().filter(|of| of.held_by == Some(HeldBy::CircuitBreaker)).count();
    let reached = stage.told.iter().filter(|of| of.cause == Cause::Evidence && of.level.limits()).count();
    assert!(held > 0 || reached <= 5, "{reached} came to be limited, and nothing was held back");
}

#[test]
fn with_telemetry_an_hour_late_nothing_acts_and_what_acted_ends_with_its_lease() {
    let mut stage = Stage::set();
    stage.pass(15, &[FIRST, SECOND], &[]);
    let told = stage.stray_until_denied(&[SECOND], &[(7, FIRST)]);
    assert!(told.enforce, "{told:?}");
    // From here on all comes an hour late.
    stage.lag = Span::HOUR;
    stage.told.clear();
    stage.pass(15, &[SECOND], &[(7, FIRST), (3, FIRST)]);
    let acting = stage.told.iter().filter(|of| of.enforce && of.level > Level::Trusted && !of.historic);
    assert_eq!(acting.collect::<Vec<_>>(), [] as [&Verdict; 0]);
    let standing = stage.scorer.entries().into_iter().filter(|entry| entry.enforce && entry.level.limits());
    assert_eq!(standing.collect::<Vec<_>>(), [], "its lease has ended, and late telemetry renews none");
}

/// The writing thread of the state before lets go of its file a little later.
fn reopened(place: &std::path::Path) -> Scorer {
    for _ in 0..500 {
        if let Ok((_, Some(loaded))) = Snapshots::open(place, config()) {
            return loaded.scorer;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the snapshot does not open")
}
