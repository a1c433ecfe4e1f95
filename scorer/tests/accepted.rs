//! What an operator accepts of an identity's odd behaviour counts no more, up to what was seen; what is odder, elsewhere or
//! another identity's counts as ever; and it holds over a restart.

mod mesh;
mod reopened;

use mesh::{Call, START, batch, call, calls};
use qualm_model::{
    detector::Question,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    operator::{Ask, Instruction, Refusal, accepted::Preview},
    scorer::{Observed, Scorer},
    snapshot::{Covered, Snapshots},
    verdict::{Cause, Verdict},
};
use reopened::reopened;

const S3: &str = "spiffe://mesh.test/ns/shop/sa/s3";
const S4: &str = "spiffe://mesh.test/ns/shop/sa/s4";
/// Calls before the first report job of `s3`.
const CALM: usize = 55_000;
const JOB: usize = 300;

fn time_of(call: usize) -> Timestamp {
    Timestamp(START + call as i64 * 4_320_000_000)
}

/// Five minutes in which `s3` calls somebody it always calls, far more often than ever.
fn job(begin: Timestamp, many: usize, whom: &str) -> Vec<Call> {
    let every = Span(5 * Span::MINUTE.0 / many as i64);
    (0..many as i64).map(|n| call(begin + Span(n * every.0), S3, whom)).collect()
}

/// Some hours of everybody's usual calls from `begin` on, with a job after one hour.
fn hours(begin: Timestamp, jobs: Vec<Call>) -> Vec<Call> {
    let usual = &calls()[20_000..22_000];
    let later = begin - usual[0].time;
    let mut all: Vec<Call> = usual.iter().map(|call| Call { time: call.time + later, ..call.clone() }).collect();
    all.extend(jobs);
    all.sort_by_key(|call| call.time);
    all
}

/// The calm days, and then some hours with the first job.
fn before() -> Vec<Call> {
    let begin = time_of(CALM);
    calls().into_iter().take(CALM).chain(hours(begin, job(begin + Span::HOUR, JOB, S4))).collect()
}

/// When it is accepted: an hour after all of that.
fn accepted_at() -> Timestamp {
    before().last().expect("calls").time
}

/// Some hours more, with such a job once again.
fn after(many: usize, whom: &str) -> Vec<Call> {
    hours(accepted_at(), job(accepted_at() + Span::HOUR, many, whom))
}

fn accept(scorer: &Scorer, question: Option<Question>, object: Option<&str>, lasts: Option<Span>) -> Instruction {
    let at = accepted_at();
    let mut instruction = Instruction {
        by: "spiffe://mesh.test/ns/soc/sa/otto".to_owned(),
        why: "the new report job".to_owned(),
        key: "k-1".to_owned(),
        at,
        event: at,
        ask: Ask::Accept {
            identity: S3.to_owned(),
            question,
            object: object.map(str::to_owned),
            lasts,
            parts: Vec::new(),
        },
    };
    scorer.complete(&mut instruction);
    instruction
}

/// What was decided, and the bits of all events of `s3` that had any.
fn feed(scorer: &mut Scorer, calls: &[Call], first: usize) -> (Vec<Verdict>, f64) {
    let (mut verdicts, mut odd) = (Vec::new(), 0.0);
    for (n, chunk) in calls.chunks(500).enumerate() {
        let batch = batch(chunk, first + n * 500);
        scorer.open(&batch);
        for (event, call) in batch.events().zip(chunk) {
            scorer.tick(event.report(), &mut verdicts);
            if let Observed::Scored { bits, .. } = scorer.observe(event, event.report(), &mut verdicts) {
                odd += if call.source == S3 { bits.max(0.0) } else { 0.0 };
            }
        }
    }
    (verdicts, odd)
}

/// A scorer that has seen the first job.
fn alarmed() -> Scorer {
    let mut scorer = Scorer::new(ScorerConfig::default());
    let (verdicts, odd) = feed(&mut scorer, &before(), 0);
    assert!(odd > 1_000.0 && verdicts.iter().any(|of| of.identity == S3 && of.level > Level::Trusted), "{odd}");
    scorer
}

/// Bits of the hours after, where nothing is accepted.
fn odd_without(many: usize, whom: &str) -> f64 {
    feed(&mut alarmed(), &after(many, whom), before().len()).1
}

#[test]
fn what_was_accepted_counts_no_more_and_says_what_it_has_hidden() {
    let without = odd_without(JOB, S4);
    let mut scorer = alarmed();
    let preview = scorer.preview(S3, None, None).expect("it is known");
    let rate = preview.withheld.iter().find(|of| of.question == Question::Rate1m).expect("too many in a minute");
    assert!(rate.events > 20 && rate.minutes >= 3 && rate.object.is_empty(), "{rate:?}");
    let all = before();
    let mut records = preview.withheld.iter().flat_map(|of| &of.records).peekable();
    assert!(records.peek().is_some() && records.all(|at| all[at.offset as usize].source == S3), "by position alone");
    scorer.obey(&accept(&scorer, None, None, Some(Span::DAY)), &mut Vec::new()).expect("it is accepted");
    let (verdicts, with) = feed(&mut scorer, &after(JOB, S4), before().len());
    assert!(without > 300.0 && with < 0.2 * without, "{with} bits instead of {without}");
    let mut entered = verdicts.iter().filter(|of| of.identity == S3 && of.cause == Cause::Evidence);
    assert!(entered.next().is_none(), "nothing that was accepted is an alarm: {verdicts:?}");
    let [of] = scorer.acceptances().collect::<Vec<_>>().try_into().expect("one");
    assert!(of.hid_events > 50 && of.hid_bits > 300.0, "{} events, {} bits", of.hid_events, of.hid_bits);
    assert!(of.hid_last > Some(accepted_at()) && scorer.hidden().0 == of.hid_events);
}

#[test]
fn what_goes_beyond_what_was_accepted_or_elsewhere_counts_as_ever() {
    for (many, whom) in [(40 * JOB, S4), (JOB, "spiffe://mesh.test/ns/shop/sa/vault")] {
        let without = odd_without(many, whom);
        let mut scorer = alarmed();
        scorer.obey(&accept(&scorer, None, None, Some(Span::DAY)), &mut Vec::new()).expect("it is accepted");
        let (_, with) = feed(&mut scorer, &after(many, whom), before().len());
        assert!(without > 300.0 && with > 0.3 * without, "{whom}: {with} bits instead of {without}");
    }
}

#[test]
fn what_was_accepted_is_so_after_a_restart_and_ends_by_its_time_or_by_a_word() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
    let mut scorer = alarmed();
    let preview = scorer.preview(S3, None, None);
    scorer.obey(&accept(&scorer, None, None, Some(Span(2 * Span::HOUR.0))), &mut Vec::new()).expect("it is accepted");
    snapshots.save(scorer.changes(Covered::default()));
    snapshots.finish().expect("it was being written").expect("it can be written");
    drop(snapshots);
    let (_snapshots, loaded) = reopened(directory.path(), &ScorerConfig::default());
    let mut again = loaded.expect("a snapshot").scorer;
    let withheld = |of: Option<Preview>| of.map(|of| of.withheld);
    assert_eq!((again.acceptances().count(), withheld(again.preview(S3, None, None))), (1, withheld(preview)));
    let expected = feed(&mut scorer, &after(JOB, S4), before().len());
    assert_eq!(feed(&mut again, &after(JOB, S4), before().len()), expected);
    assert_eq!(again.hidden(), scorer.hidden());
    assert_eq!(scorer.acceptances().count(), 0, "its time is over");
    let withdrawn = |scorer: &mut Scorer| scorer.obey(&accept(scorer, None, None, None), &mut Vec::new());
    assert!(matches!(withdrawn(&mut scorer), Err(Refusal::NothingAccepted(_))));
    scorer.obey(&accept(&scorer, None, None, Some(Span::DAY)), &mut Vec::new()).expect("it is accepted again");
    withdrawn(&mut scorer).expect("it is taken back");
    assert_eq!(scorer.acceptances().count(), 0);
}

#[test]
fn what_was_not_seen_and_what_no_habit_explains_cannot_be_accepted() {
    let scorer = &mut alarmed();
    let mut say = |question, object: Option<&str>, lasts| {
        let instruction = accept(scorer, question, object, Some(lasts));
        scorer.obey(&instruction, &mut Vec::new())
    };
    let unseen = say(Some(Question::Rhythm), Some("spiffe://mesh.test/ns/shop/sa/nobody"), Span::DAY);
    assert!(matches!(unseen, Err(Refusal::NothingWithheld(_))), "{unseen:?}");
    let stolen = say(Some(Question::AfterRevocation), None, Span::DAY).expect_err("it is no habit").to_string();
    assert!(stolen.contains("credential does not add up"), "{stolen}");
    assert!(matches!(say(None, None, Span(31 * Span::DAY.0)), Err(Refusal::Invalid(_))));
}
