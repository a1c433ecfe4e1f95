//! What an operator decides by hand: levels for a time, the end of what stands, a pause; and what is refused.

mod mesh;

use mesh::{Call, batch, call, calls, mixed};
use qualm_model::{
    event::Event,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Mode, ScorerConfig},
    operator::{Ask, InShadow, Instruction, Obeyed, Override, Refusal},
    scorer::Scorer,
    verdict::{Cause, Verdict},
};

const ODD: &str = "spiffe://mesh.test/ns/shop/sa/s7";
const CALM: &str = "spiffe://mesh.test/ns/shop/sa/s8";
const ANN: &str = "spiffe://mesh.test/ns/soc/sa/ann";
const HALF_AN_HOUR: Span = Span(30 * Span::MINUTE.0);

fn config(mode: Mode, protected: &[&str]) -> ScorerConfig {
    let protected = protected.iter().map(|&pattern| pattern.to_owned()).collect();
    ScorerConfig { enforce: EnforceConfig { mode, protected, ..EnforceConfig::default() }, ..ScorerConfig::default() }
}

/// A scorer, and what an operator says to it at a time of its own.
struct Desk {
    scorer: Scorer,
    now: Timestamp,
    said: u32,
    verdicts: Vec<Verdict>,
}

impl Desk {
    /// Three calm days, learned as they happen.
    fn settled(config: ScorerConfig) -> Self {
        let mut calm = calls();
        calm.truncate(55_000);
        let now = calm[calm.len() - 1].time;
        let mut desk = Self { scorer: Scorer::new(config), now, said: 0, verdicts: Vec::new() };
        desk.feed(&calm);
        desk.verdicts.clear();
        desk
    }

    fn feed(&mut self, calls: &[Call]) {
        let mut minute = 0;
        for chunk in calls.chunks(1000) {
            let batch = batch(chunk, 0);
            self.scorer.open(&batch);
            for event in batch.events() {
                let event: Event<'_> = event;
                let wall = event.report();
                if minute != wall.window(Span::MINUTE) {
                    minute = wall.window(Span::MINUTE);
                    self.scorer.tick(wall, &mut self.verdicts);
                }
                self.scorer.observe(event, wall, &mut self.verdicts);
                self.now = self.now.max(wall);
            }
        }
    }

    /// Half an hour of one service calling peers it never called, big and fast, from one address.
    fn spree(&mut self) {
        let from = self.now;
        let calls: Vec<Call> = (0..1800_u64)
            .map(|i| Call {
                operation: format!("GET /admin/{}", mixed(i, 3) % 50),
                bytes: 5_000_000,
                ..call(
                    from + Span(i as i64 * Span::SECOND.0),
                    ODD,
                    &format!("spiffe://mesh.test/ns/shop/sa/t{}", i % 60),
                )
            })
            .collect();
        self.feed(&calls);
    }

    fn instruction(&mut self, ask: Ask) -> Instruction {
        self.said += 1;
        let event = self.scorer.watermark().unwrap_or(self.now);
        let (why, key) = ("because".to_owned(), format!("k{}", self.said));
        Instruction { by: ANN.to_owned(), why, key, at: self.now, event, ask }
    }

    fn say(&mut self, ask: Ask) -> Result<Obeyed, Refusal> {
        let instruction = self.instruction(ask);
        self.scorer.obey(&instruction, &mut self.verdicts)
    }

    fn later(&mut self, span: Span) {
        self.now = self.now + span;
        self.scorer.tick(self.now, &mut self.verdicts);
    }

    /// Level and whether it acts, of every line of the table about an identity.
    fn stands(&self, identity: &str) -> Vec<(Level, bool)> {
        let entries = self.scorer.entries();
        let own = entries.iter().filter(|entry| entry.subject.identity() == identity);
        own.map(|entry| (entry.level, entry.enforce)).collect()
    }
}

fn set(identity: &str, level: Level) -> Ask {
    Ask::Set {
        identity: identity.to_owned(),
        instance: None,
        level,
        lease: HALF_AN_HOUR,
        in_shadow: InShadow::Marks,
        overrides: Vec::new(),
    }
}

fn overriding(identity: &str, overrides: &[Override]) -> Ask {
    match set(identity, Level::Quarantined) {
        Ask::Set { identity, instance, level, lease, in_shadow, .. } => {
            Ask::Set { identity, instance, level, lease, in_shadow, overrides: overrides.to_vec() }
        }
        other => other,
    }
}

fn lift(identity: &str, hold: Option<Span>) -> Ask {
    Ask::Lift { identity: identity.to_owned(), instance: None, hold }
}

#[test]
fn a_throttled_caller_of_which_a_part_is_logged_is_let_pass_as_many_calls_as_it_makes() {
    let allowed = |calls_a_record: Option<f64>| {
        let mut desk = Desk::settled(config(Mode::Enforce, &[]));
        if let Some(calls) = calls_a_record {
            desk.scorer.scale_counts(calls);
        }
        desk.say(set(CALM, Level::Throttled)).expect("it is done");
        let entries = desk.scorer.entries();
        let known = entries[0].known.as_ref().expect("it is limited");
        (known.calls_a_minute, known.at_once)
    };
    let all = allowed(None);
    assert_eq!(allowed(Some(1.0)), all);
    // In powers of two: a thousand times as many are 1,024 times, or half of that where they were no power.
    let sampled = allowed(Some(1024.0));
    assert!(sampled.0 >= all.0 * 32 && sampled.1 >= all.1 * 32, "{all:?} {sampled:?}");
    // Nobody knows: no number that could be too small.
    assert_eq!(allowed(Some(f64::INFINITY)), (1 << 30, 1 << 30));
}

#[test]
fn a_level_that_is_set_acts_until_its_lease_ends_and_nobody_renews_it() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    desk.say(set(CALM, Level::Quarantined)).expect("it is done");
    assert_eq!(desk.stands(CALM), [(Level::Quarantined, true)]);
    let [told] = &desk.verdicts[..] else { panic!("one verdict: {:?}", desk.verdicts) };
    assert_eq!((told.cause, told.level, told.enforce), (Cause::Ordered, Level::Quarantined, true));
    assert_eq!(told.order.as_ref().map(|of| (of.by.as_str(), of.why.as_str())), Some((ANN, "because")));
    assert_eq!((told.time, told.decided), (desk.scorer.watermark().expect("it has read"), desk.now));

    desk.later(Span(HALF_AN_HOUR.0 - Span::SECOND.0));
    assert_eq!(desk.stands(CALM), [(Level::Quarantined, true)]);
    desk.verdicts.clear();
    desk.later(Span::SECOND);
    assert_eq!(desk.stands(CALM), []);
    let [ended] = &desk.verdicts[..] else { panic!("one verdict: {:?}", desk.verdicts) };
    assert_eq!((ended.cause, ended.previous, ended.level), (Cause::Ordered, Level::Quarantined, Level::Trusted));
}

#[test]
fn one_instance_is_meant_where_its_address_is_given() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    let Ask::Set { identity, level, lease, in_shadow, overrides, .. } = set(CALM, Level::Quarantined) else { return };
    let instance = Some("10.9.9.9".to_owned());
    let done = desk.say(Ask::Set { identity, instance, level, lease, in_shadow, overrides }).expect("it is done");
    assert!(done.notes.iter().any(|note| note.contains("not been seen to call from 10.9.9.9")), "{done:?}");
    let entries = desk.scorer.entries();
    assert_eq!(entries.iter().map(|entry| entry.subject.instance.as_deref()).collect::<Vec<_>>(), [Some("10.9.9.9")]);
    // Both scopes stand beside each other.
    desk.say(set(CALM, Level::Throttled)).expect("it is done");
    assert_eq!(desk.stands(CALM).len(), 2);
    let done = desk.say(lift(CALM, None)).expect("it is done");
    assert_eq!((done.ended, desk.stands(CALM)), (2, Vec::new()));
}

#[test]
fn what_evidence_led_to_is_lifted_and_does_not_come_back_for_what_was_done_before() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    desk.spree();
    assert!(!desk.stands(ODD).is_empty(), "it is noticed");
    desk.verdicts.clear();
    let done = desk.say(lift(ODD, None)).expect("it is done");
    assert_eq!((done.ended, desk.stands(ODD)), (1, Vec::new()));
    let [lifted] = &desk.verdicts[..] else { panic!("one verdict: {:?}", desk.verdicts) };
    assert_eq!((lifted.cause, lifted.level), (Cause::Lifted, Level::Trusted));
    // One usual call more: the evidence of before would lead back at once.
    desk.feed(&[call(desk.now + Span::SECOND, ODD, CALM)]);
    assert_eq!(desk.stands(ODD), []);
    // New misuse is new evidence.
    desk.spree();
    assert!(!desk.stands(ODD).is_empty(), "it is noticed again");
}

#[test]
fn a_hold_keeps_an_identity_trusted_for_its_time_and_says_from_what() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    desk.say(lift(ODD, Some(Span::HOUR))).expect("a hold needs nothing that stands");
    desk.spree();
    assert_eq!(desk.stands(ODD), []);
    let [hold] = &desk.scorer.holds(desk.now)[..] else { panic!("one hold") };
    assert!(hold.kept_from >= Level::Watched && desk.scorer.tally().held_back > 0);
    desk.later(Span::HOUR);
    desk.spree();
    assert!(!desk.stands(ODD).is_empty(), "the hold is over");
}

#[test]
fn a_hold_ends_when_it_is_lifted_without_one() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    desk.say(lift(ODD, Some(Span::DAY))).expect("it is done");
    let done = desk.say(lift(ODD, None)).expect("it is done");
    assert!(done.notes.iter().any(|note| note.contains("the hold on it has ended")), "{done:?}");
    assert_eq!(desk.say(lift(ODD, None)), Err(Refusal::NothingStands(ODD.to_owned())));
    desk.spree();
    assert!(!desk.stands(ODD).is_empty());
}

#[test]
fn the_protected_are_set_only_by_an_explicit_word() {
    let mut desk = Desk::settled(config(Mode::Enforce, &["spiffe://*/sa/s8"]));
    for level in [Level::Throttled, Level::Restricted, Level::Quarantined] {
        assert_eq!(desk.say(set(CALM, level)), Err(Refusal::Protected(CALM.to_owned())));
    }
    assert!(desk.verdicts.is_empty() && desk.stands(CALM).is_empty(), "nothing has changed");
    desk.say(set(CALM, Level::Watched)).expect("to watch denies nothing");
    desk.say(overriding(CALM, &[Override::Protected])).expect("it was said explicitly");
    assert_eq!(desk.stands(CALM), [(Level::Quarantined, true)]);
}

#[test]
fn no_more_are_denied_than_may_be_but_by_an_explicit_word() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    let name = |n: usize| format!("spiffe://mesh.test/ns/shop/sa/s{n}");
    let mut denied = 0;
    let refused = loop {
        match desk.say(set(&name(denied), Level::Quarantined)) {
            Ok(_) => denied += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refused, Refusal::BlastRadius { denied, most: denied });
    assert!(denied >= 1);
    desk.say(set(&name(0), Level::Quarantined)).expect("who is denied already takes no further place");
    let restricted = desk.say(set(&name(denied), Level::Restricted)).expect_err("what is not known is denied there");
    assert_eq!(restricted, Refusal::BlastRadius { denied, most: denied });
    desk.say(set(&name(denied), Level::Throttled)).expect("what denies nothing has no such bound");
    desk.say(overriding(&name(denied), &[Override::MaxShare])).expect("it was said explicitly");
    // What evidence would deny is held back by what is denied by hand.
    desk.spree();
    let by_evidence = desk.verdicts.iter().filter(|of| of.cause == Cause::Evidence && of.level >= Level::Quarantined);
    assert!(by_evidence.clone().all(|of| of.held.is_some()), "{:?}", by_evidence.collect::<Vec<_>>());
}

#[test]
fn in_shadow_mode_it_marks_unless_it_is_to_act_all_the_same() {
    let mut desk = Desk::settled(config(Mode::Shadow, &[]));
    let done = desk.say(set(CALM, Level::Quarantined)).expect("it is done");
    assert_eq!(desk.stands(CALM), [(Level::Quarantined, false)]);
    assert!(done.notes.iter().any(|note| note.contains("shadow")), "{done:?}");
    let Ask::Set { identity, instance, level, lease, overrides, .. } = set(CALM, Level::Quarantined) else { return };
    let ask = Ask::Set { identity, instance, level, lease, in_shadow: InShadow::Acts, overrides };
    desk.say(ask).expect("it is done");
    assert_eq!(desk.stands(CALM), [(Level::Quarantined, true)]);
}

#[test]
fn what_was_set_follows_the_mode_of_a_new_configuration() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    desk.say(set(CALM, Level::Quarantined)).expect("it is done");
    desk.verdicts.clear();
    desk.scorer.reconfigure(config(Mode::Shadow, &[]), desk.now, &mut desk.verdicts);
    assert_eq!(desk.stands(CALM), [(Level::Quarantined, false)]);
    assert!(desk.verdicts.iter().any(|of| of.cause == Cause::Ordered && !of.enforce), "it is told");
    desk.scorer.reconfigure(config(Mode::Enforce, &[]), desk.now, &mut desk.verdicts);
    assert_eq!(desk.stands(CALM), [(Level::Quarantined, true)]);
    desk.scorer.reconfigure(config(Mode::Enforce, &[CALM]), desk.now, &mut desk.verdicts);
    assert_eq!(desk.stands(CALM), [(Level::Quarantined, false)], "who is protected since is not denied");
}

#[test]
fn a_pause_makes_all_a_shadow_and_its_end_brings_back_what_still_stands() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    desk.spree();
    desk.say(set(CALM, Level::Quarantined)).expect("it is done");
    let before = desk.scorer.entries();
    assert!(before.len() >= 2 && before.iter().all(|entry| entry.enforce));
    desk.say(Ask::Pause { lease: Span::HOUR }).expect("it is done");
    assert!(desk.scorer.entries().iter().all(|entry| !entry.enforce));
    // Another that comes to stand meanwhile says so.
    desk.verdicts.clear();
    desk.say(set("spiffe://mesh.test/ns/shop/sa/s9", Level::Throttled)).expect("it is done");
    assert!(desk.verdicts[0].paused);
    desk.say(Ask::Resume).expect("it is done");
    assert_eq!(desk.say(Ask::Resume), Err(Refusal::NotPaused));
    let after = desk.scorer.entries();
    assert!(before.iter().all(|entry| after.contains(entry)) && after.iter().all(|entry| entry.enforce));
    // It also ends by itself.
    desk.say(Ask::Pause { lease: Span::MINUTE }).expect("it is done");
    desk.later(Span::MINUTE);
    assert!(desk.scorer.pause().is_none() && desk.stands(CALM) == [(Level::Quarantined, true)]);
}

#[test]
fn whoever_is_not_known_or_carries_no_trust_is_refused() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    let nobody = "spiffe://mesh.test/ns/shop/sa/nobody";
    assert_eq!(desk.say(set(nobody, Level::Watched)), Err(Refusal::Unknown(nobody.to_owned())));
    assert_eq!(desk.say(lift(nobody, Some(Span::HOUR))), Err(Refusal::Unknown(nobody.to_owned())));
    let outside = "external:203.0.113.0/24";
    desk.feed(&[call(desk.now, outside, CALM)]);
    assert_eq!(desk.say(set(outside, Level::Quarantined)), Err(Refusal::CarriesNoTrust(outside.to_owned())));
    assert!(desk.scorer.entries().is_empty());
}

#[test]
fn a_key_names_one_call_of_one_caller() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    let first = desk.instruction(set(CALM, Level::Watched));
    assert_eq!(desk.scorer.answered(&first), Ok(None));
    desk.scorer.obey(&first, &mut desk.verdicts).expect("it is done");
    desk.scorer.note_answered(&first, 17);
    let again = Instruction { at: first.at + Span::SECOND, ..first.clone() };
    assert_eq!(desk.scorer.answered(&again), Ok(Some(17)));
    let another = Instruction { ask: set(CALM, Level::Quarantined), ..first.clone() };
    assert_eq!(desk.scorer.answered(&another), Err(Refusal::KeyUsed(first.key.clone())));
    let of_another = Instruction { by: "spiffe://mesh.test/ns/soc/sa/bob".to_owned(), ..first.clone() };
    assert_eq!(desk.scorer.answered(&of_another), Ok(None));
    let next_day = desk.instruction(set(CALM, Level::Watched));
    let next_day = Instruction { at: first.at + Span(2 * Span::DAY.0), ..next_day };
    desk.scorer.note_answered(&next_day, 18);
    assert_eq!(desk.scorer.answered(&first), Ok(None), "after a day it is forgotten");
}

#[test]
fn what_operators_set_moves_no_curve_and_no_evidence() {
    let verdicts = |ordered: bool| {
        let mut desk = Desk::settled(config(Mode::Enforce, &[]));
        if ordered {
            desk.say(set(CALM, Level::Watched)).expect("it is done");
        }
        desk.spree();
        let evidence = desk.verdicts.into_iter().filter(|of| of.cause != Cause::Ordered);
        evidence.map(|of| (of.decision, of.m.to_bits(), of.threshold.to_bits())).collect::<Vec<_>>()
    };
    assert_eq!(verdicts(true), verdicts(false));
}

#[test]
fn of_two_lines_about_one_subject_the_one_that_acts_is_in_the_table_and_people_see_both() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    desk.say(set(CALM, Level::Throttled)).expect("it is done");
    desk.spree();
    let subject =
        desk.scorer.entries().into_iter().find(|entry| entry.subject.principal == ODD).expect("noticed").subject;
    let Ask::Set { identity, level, lease, in_shadow, overrides, .. } = set(ODD, Level::Quarantined) else { return };
    desk.say(Ask::Set { identity, instance: subject.instance, level, lease, in_shadow, overrides }).expect("done");
    assert_eq!(desk.stands(ODD), [(Level::Quarantined, true)]);
    let shown = desk.scorer.show(ODD, desk.now).expect("it is known");
    assert_eq!(shown.lines.len(), 2, "{shown:?}");
    assert!(!shown.peers.is_empty() && shown.peers.len() <= 100);
    assert!(shown.peers.windows(2).all(|pair| pair[0].calls_a_day >= pair[1].calls_a_day));
}

#[test]
fn what_the_journal_says_brings_back_all_of_it() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    desk.spree();
    let mut told = Vec::new();
    let hold = lift(ODD, Some(Span::DAY));
    for ask in [set(CALM, Level::Quarantined), hold, Ask::Pause { lease: Span::HOUR }] {
        let instruction = desk.instruction(ask);
        let mut verdicts = Vec::new();
        desk.scorer.obey(&instruction, &mut verdicts).expect("it is done");
        desk.scorer.note_answered(&instruction, told.len() as u64);
        told.push((instruction, verdicts));
    }
    // As after a crash: the past is read again, and the journal is taken over.
    let mut again = Desk::settled(config(Mode::Enforce, &[]));
    for (record, (instruction, verdicts)) in told.iter().enumerate() {
        verdicts.iter().for_each(|verdict| again.scorer.take_over(verdict));
        again.scorer.take_instruction(instruction, record as u64, verdicts);
        assert_eq!(again.scorer.answered(instruction), Ok(Some(record as u64)));
    }
    assert_eq!(again.scorer.entries(), desk.scorer.entries());
    assert_eq!(again.scorer.pause(), desk.scorer.pause());
    again.spree();
    assert_eq!(again.stands(ODD), [], "it is held");
    // A checkpoint carries the same.
    let mut carried = Desk::settled(config(Mode::Enforce, &[]));
    carried.scorer.take_kept_orders(desk.scorer.kept_orders());
    assert_eq!(carried.scorer.entries(), desk.scorer.entries());
    assert_eq!(carried.scorer.kept_orders().len(), desk.scorer.kept_orders().len());
}

#[test]
fn what_is_read_again_after_a_crash_does_not_undo_a_lift() {
    let mut desk = Desk::settled(config(Mode::Enforce, &[]));
    let begin = desk.now;
    desk.spree();
    let instruction = desk.instruction(lift(ODD, None));
    let mut verdicts = Vec::new();
    desk.scorer.obey(&instruction, &mut verdicts).expect("it is done");

    let mut again = Desk::settled(config(Mode::Enforce, &[]));
    assert_eq!(again.now, begin, "the snapshot is of before the spree");
    verdicts.iter().for_each(|verdict| again.scorer.take_over(verdict));
    again.scorer.take_instruction(&instruction, 1, &verdicts);
    again.spree();
    assert_eq!(again.stands(ODD), [], "it was lifted");
    again.feed(&[call(again.now + Span::SECOND, ODD, CALM)]);
    assert_eq!(again.stands(ODD), [], "and stays so");
    again.spree();
    assert!(!again.stands(ODD).is_empty(), "new misuse is new evidence");
}
