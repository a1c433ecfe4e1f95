//! The ledger with time and outcomes as arguments, and its outbox on disk.

use qualm_model::level::Level;
use serde_json::json;

use super::*;
use crate::{
    effect::Word,
    hook::{Effect, Failure, Found, Repeat, Undone, WhenGone},
    order::tests::order,
    outbox::Outbox,
};

const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";
const NATURE: Nature = Nature {
    latency_ms: 5,
    cuts: "tokens",
    reach: Reach::Principal,
    way_back: WayBack::Exact,
    repeat: Repeat::Safe,
    when_gone: WhenGone::Say(60),
};

fn rules(nature: Nature) -> Rules {
    Rules { kind: "test", nature, dry_run: false, approval: false, cap: 10, window: Span::HOUR }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

/// A ledger of one hook, `h`, on disk.
struct Bench {
    folder: tempfile::TempDir,
    outbox: Option<Outbox>,
    rules: Rules,
    ledger: Ledger,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (outbox, kept) = Outbox::open(folder.path()).unwrap();
        let ledger = Self::ledger(&rules, kept);
        Self { folder, outbox: Some(outbox), rules, ledger }
    }

    fn ledger(rules: &Rules, kept: Kept) -> Ledger {
        Ledger::new([("h".to_owned(), rules.clone())].into(), kept, Box::new(|| 0.0))
    }

    /// As after `kill -9`: what is not on disk is gone.
    fn killed(self) -> Self {
        drop(self.outbox);
        let (outbox, kept) = Outbox::open(self.folder.path()).unwrap();
        let ledger = Self::ledger(&self.rules, kept);
        Self { outbox: Some(outbox), ledger, ..self }
    }

    fn want(&mut self, orders: &[Order], now: i64) {
        let wanted = |order: &Order| Wanted {
            hook: "h".to_owned(),
            order: order.clone(),
            needs: None,
            approvers: Vec::new(),
            until: None,
        };
        self.ledger.want(orders.iter().map(wanted).collect(), at(now));
    }

    fn turn(&mut self, now: i64) -> Option<Job> {
        let jobs = self.ledger.turn(self.outbox.as_ref().unwrap(), at(now));
        assert!(jobs.len() <= 1, "one at a time: {jobs:?}");
        jobs.into_iter().next()
    }

    fn finish(&mut self, job: &Job, outcome: Outcome, now: i64) {
        self.ledger.outcome(job, outcome, at(now));
    }

    /// Until it is in effect, with how it was before.
    fn bring_about(&mut self, before: &Value, now: i64) {
        let read = self.turn(now).expect("it is read");
        assert_eq!(read.what, What::Read);
        let found = Found::Target { name: "entity 1".to_owned(), before: before.clone() };
        self.finish(&read, Outcome::Read(Ok(found)), now);
        let act = self.turn(now).expect("it is acted");
        assert_eq!(act.what, What::Act { begun: false });
        self.finish(&act, Outcome::Acted(Ok((at(now), "nothing".to_owned()))), now);
    }

    fn state(&self) -> State {
        let [effect] = self.ledger.effects().collect::<Vec<_>>().try_into().expect("one effect");
        effect.state.clone()
    }

    fn id(&self) -> String {
        self.ledger.effects().next().unwrap().id.clone()
    }
}

use serde_json::Value;

fn word(by: &str) -> Word {
    Word { by: by.to_owned(), why: "drill".to_owned(), at: at(0) }
}

fn quarantine() -> Order {
    order(CART, Level::Quarantined)
}

#[test]
fn an_order_is_read_acted_and_undone_when_it_ends() {
    let mut bench = Bench::new(rules(NATURE));
    bench.want(&[quarantine()], 100);
    bench.bring_about(&json!({ "disabled": false }), 100);
    assert_eq!(bench.state(), State::InEffect);
    // Told again and again, it is done once.
    bench.want(&[quarantine()], 101);
    assert_eq!(bench.turn(101), None);
    bench.want(&[], 200);
    let undo = bench.turn(200).expect("it is undone");
    assert_eq!((undo.what, undo.effect.before.as_ref()), (What::Undo, Some(&json!({ "disabled": false }))));
    bench.finish(&undo, Outcome::Undone(Ok(Undone::Restored)), 200);
    assert_eq!(bench.state(), State::Ended(End::Undone));
    let told: Vec<_> = bench.ledger.told().iter().map(|told| told.state).collect();
    assert_eq!(told, ["reading", "acting", "in effect", "undoing", "undone"]);
}

#[test]
fn what_was_killed_in_the_middle_is_looked_at_before_it_is_done_again_and_what_was_before_stays_known() {
    let mut bench = Bench::new(rules(NATURE));
    bench.want(&[quarantine()], 100);
    let read = bench.turn(100).unwrap();
    let found = Found::Target { name: "entity 1".to_owned(), before: json!({ "disabled": false }) };
    bench.finish(&read, Outcome::Read(Ok(found)), 100);
    let act = bench.turn(100).unwrap();
    let mut bench = bench.killed();
    bench.want(&[quarantine()], 105);
    let again = bench.turn(105).expect("it goes on");
    assert_eq!(again.what, What::Act { begun: true });
    assert_eq!(again.call.key, act.call.key, "under the same key");
    assert_eq!(again.effect.before, Some(json!({ "disabled": false })));
    bench.finish(&again, Outcome::Acted(Ok((at(105), String::new()))), 105);
    // Killed while it is in effect, and its order ended meanwhile.
    let mut bench = bench;
    assert_eq!(bench.turn(105), None);
    let mut bench = bench.killed();
    bench.want(&[], 300);
    let undo = bench.turn(300).expect("it is undone");
    let mut bench = bench.killed();
    bench.want(&[], 301);
    let again = bench.turn(301).expect("undoing goes on");
    assert_eq!((again.what, &again.call.key), (What::Undo, &undo.call.key));
    assert!(undo.call.key.ends_with("-undo") && undo.call.key.starts_with(&quarantine().decision));
}

#[test]
fn a_dry_run_reads_tells_and_changes_nothing() {
    let mut bench = Bench::new(Rules { dry_run: true, ..rules(NATURE) });
    bench.want(&[quarantine()], 100);
    let read = bench.turn(100).unwrap();
    let found = Found::Target { name: "entity 1".to_owned(), before: json!({}) };
    bench.finish(&read, Outcome::Read(Ok(found)), 100);
    assert_eq!((bench.state(), bench.turn(101)), (State::Dry, None));
    bench.want(&[], 102);
    assert_eq!((bench.state(), bench.turn(102)), (State::Ended(End::Lapsed), None));
}

#[test]
fn what_cannot_be_undone_waits_for_somebody_else_than_who_ordered_it() {
    let mut bench = Bench::new(rules(Nature { way_back: WayBack::None, ..NATURE }));
    let ordered = Order { by: Some("otto".to_owned()), ..quarantine() };
    bench.want(std::slice::from_ref(&ordered), 100);
    assert_eq!((bench.state(), bench.turn(100)), (State::Awaiting, None));
    let id = bench.id();
    assert!(matches!(bench.ledger.approve(&id, word("otto"), at(101)), Err(Refusal::NotYou(_))));
    bench.ledger.approve(&id, word("paul"), at(101)).unwrap();
    bench.bring_about(&json!({}), 101);
    assert!(matches!(bench.ledger.undo(&id, word("otto"), at(102)), Err(Refusal::State { .. })));
    bench.want(&[], 103);
    assert_eq!((bench.state(), bench.turn(103)), (State::Ended(End::Final), None));
}

#[test]
fn what_was_rejected_or_taken_back_by_a_person_is_not_begun_again_by_the_same_decision() {
    let mut bench = Bench::new(Rules { approval: true, ..rules(NATURE) });
    bench.want(&[quarantine()], 100);
    let id = bench.id();
    bench.ledger.reject(&id, word("paul"), at(101)).unwrap();
    for now in [102, 103] {
        bench.want(&[quarantine()], now);
        assert_eq!((bench.state(), bench.turn(now)), (State::Ended(End::Rejected), None));
    }
    let mut bench = bench.killed();
    bench.want(&[quarantine()], 104);
    assert_eq!(bench.state(), State::Ended(End::Rejected), "nor after a restart");
    bench.want(&[], 105);
    bench.want(&[Order { decision: "another".to_owned(), ..quarantine() }], 106);
    assert_eq!(bench.state(), State::Awaiting, "a new decision is asked about again");
}

#[test]
fn no_more_is_acted_within_the_window_than_the_cap_allows_also_over_a_restart() {
    let mut bench = Bench::new(Rules { cap: 1, ..rules(NATURE) });
    bench.want(&[quarantine()], 100);
    bench.bring_about(&json!({}), 100);
    assert_eq!(bench.turn(100), None, "it is on disk");
    let mut bench = bench.killed();
    let other = order("spiffe://mesh.test/ns/shop/sa/other", Level::Quarantined);
    bench.want(&[quarantine(), Order { expires: at(9000), ..other.clone() }], 101);
    let read = bench.turn(101).unwrap();
    let found = Found::Target { name: "entity 2".to_owned(), before: json!({}) };
    bench.finish(&read, Outcome::Read(Ok(found)), 101);
    assert_eq!(bench.turn(102), None);
    let capped = bench.ledger.effects().find(|effect| effect.state == State::Capped).expect("it waits");
    assert_eq!(capped.next, at(100 + 3600));
    let look = bench.turn(3700).expect("the window is over");
    assert_eq!((look.what, look.key.subject), (What::Act { begun: false }, other.subject));
}

#[test]
fn what_has_failed_is_tried_again_later_and_later_and_a_server_that_asks_for_peace_has_it() {
    let mut bench = Bench::new(rules(NATURE));
    bench.want(&[quarantine()], 100);
    let mut now = at(100);
    for (tries, pause_ms) in [500, 1000, 2000, 4000].into_iter().enumerate() {
        let jobs = bench.ledger.turn(bench.outbox.as_ref().unwrap(), now);
        let [read] = jobs.try_into().unwrap_or_else(|_| panic!("try {tries}"));
        bench.ledger.outcome(&read, Outcome::Read(Err(Failure::again("500"))), now);
        let next = bench.ledger.effects().next().unwrap().next;
        assert_eq!(next - now, Span(pause_ms * 1_000_000));
        now = next;
    }
    let read = bench.ledger.turn(bench.outbox.as_ref().unwrap(), now).remove(0);
    let slow = Failure::Again { why: "429".to_owned(), after_s: Some(90) };
    bench.ledger.outcome(&read, Outcome::Read(Err(slow)), now);
    assert_eq!(bench.ledger.effects().next().unwrap().next - now, Span::seconds(90));
    let told = bench.ledger.told().into_iter().filter(|told| told.words == "500").count();
    assert_eq!(told, 1, "the same trouble is told once");
}

#[test]
fn what_must_not_be_called_twice_is_reported_where_it_is_not_known_whether_it_arrived() {
    let mut bench = Bench::new(rules(Nature { repeat: Repeat::Never, ..NATURE }));
    bench.want(&[quarantine()], 100);
    let read = bench.turn(100).unwrap();
    let found = Found::Target { name: "list".to_owned(), before: json!({}) };
    bench.finish(&read, Outcome::Read(Ok(found)), 100);
    let act = bench.turn(100).unwrap();
    bench.finish(&act, Outcome::Acted(Err(Failure::Uncertain("no answer".to_owned()))), 105);
    assert_eq!((bench.state(), bench.turn(500)), (State::Ended(End::Uncertain), None));
    let id = bench.id();
    bench.ledger.undo(&id, word("otto"), at(501)).unwrap();
    assert_eq!(bench.turn(501).unwrap().what, What::Undo, "who has looked can have it undone");
}

#[test]
fn an_instance_is_not_widened_without_a_word_and_a_shared_principal_never() {
    let mut bench = Bench::new(rules(NATURE));
    let mut narrow = quarantine();
    narrow.subject.instance = Some("10.0.0.7".to_owned());
    bench.want(&[narrow], 100);
    assert_eq!(bench.state(), State::Awaiting);
    let mut bench = Bench::new(rules(NATURE));
    let mut shared = quarantine();
    shared.subject.workload = Some("cart".to_owned());
    shared.co_owners = vec!["cart".to_owned(), "billing".to_owned()];
    bench.want(&[shared], 100);
    assert_eq!((bench.state(), bench.turn(100)), (State::Ended(End::BeyondScope), None));
}

#[test]
fn two_orders_about_one_thing_undo_it_once_when_the_last_one_ends_and_to_how_it_was_before_the_first() {
    let mut bench = Bench::new(rules(Nature { reach: Reach::Instance, ..NATURE }));
    let mut narrow = quarantine();
    narrow.subject.instance = Some("10.0.0.7".to_owned());
    bench.want(&[quarantine()], 100);
    bench.bring_about(&json!({ "disabled": false }), 100);
    bench.want(&[quarantine(), narrow.clone()], 101);
    bench.bring_about(&json!({ "disabled": true }), 101);
    bench.want(std::slice::from_ref(&narrow), 102);
    assert_eq!(bench.turn(102), None, "the other one stands on it");
    bench.want(&[], 103);
    let undo = bench.turn(103).expect("the last one undoes");
    assert_eq!(undo.effect.before, Some(json!({ "disabled": false })));
}

#[test]
fn while_the_disk_is_full_nothing_is_changed_anywhere_and_then_it_goes_on() {
    let mut bench = Bench::new(rules(NATURE));
    bench.want(&[quarantine()], 100);
    let read = bench.turn(100).unwrap();
    bench.outbox.as_ref().unwrap().is_full.set(true);
    let found = Found::Target { name: "entity 1".to_owned(), before: json!({ "disabled": false }) };
    bench.finish(&read, Outcome::Read(Ok(found)), 100);
    assert_eq!(bench.turn(100), None);
    assert!(bench.ledger.disk().unwrap().contains("no space left"), "and it says so");
    bench.outbox.as_ref().unwrap().is_full.set(false);
    let act = bench.turn(102).expect("it goes on");
    assert!(matches!(act.what, What::Act { .. }));
    assert_eq!(bench.ledger.disk(), None);
}

#[test]
fn what_a_server_has_forgotten_is_told_again_and_what_a_person_has_taken_back_is_not() {
    for (when_gone, expected) in [(WhenGone::TellAgain(5), State::Acting), (WhenGone::Say(5), State::InEffect)] {
        let mut bench = Bench::new(rules(Nature { when_gone, ..NATURE }));
        bench.want(&[quarantine()], 100);
        bench.bring_about(&json!({}), 100);
        assert_eq!(bench.turn(104), None);
        let look = bench.turn(105).expect("it is looked at");
        bench.finish(&look, Outcome::Looked(Ok(Effect::Absent)), 105);
        assert_eq!(bench.state(), expected);
    }
}

#[test]
fn what_came_later_is_covered_by_the_same_act_and_uses_up_no_cap() {
    let mut bench = Bench::new(rules(Nature { when_gone: WhenGone::Say(5), ..NATURE }));
    bench.want(&[quarantine()], 100);
    bench.bring_about(&json!({}), 100);
    let acts: usize = bench.ledger.acts.values().map(VecDeque::len).sum();
    let look = bench.turn(105).expect("it is looked at");
    bench.finish(&look, Outcome::Looked(Ok(Effect::Partial)), 105);
    assert_eq!(bench.turn(105).expect("it is brought about there too").what, What::Act { begun: false });
    assert_eq!(bench.ledger.acts.values().map(VecDeque::len).sum::<usize>(), acts);
}

#[test]
fn an_effect_ends_with_its_lease_also_where_nobody_says_so() {
    let mut bench = Bench::new(rules(NATURE));
    bench.want(&[quarantine()], 100);
    bench.bring_about(&json!({}), 100);
    let end = 3700 + 30;
    assert!(bench.turn(end - 1).is_none_or(|job| job.what == What::Look));
    let mut bench = bench.killed();
    bench.ledger.wanted = bench.ledger.effects.keys().cloned().collect();
    assert_eq!(bench.turn(end).expect("it is over").what, What::Undo);
}

#[test]
fn an_order_that_ends_while_it_is_acted_is_undone_right_after() {
    let mut bench = Bench::new(rules(NATURE));
    bench.want(&[quarantine()], 100);
    let read = bench.turn(100).unwrap();
    let found = Found::Target { name: "entity 1".to_owned(), before: json!({}) };
    bench.finish(&read, Outcome::Read(Ok(found)), 100);
    let act = bench.turn(100).unwrap();
    bench.want(&[], 101);
    bench.finish(&act, Outcome::Acted(Ok((at(101), String::new()))), 101);
    assert_eq!(bench.turn(101).unwrap().what, What::Undo);
}
