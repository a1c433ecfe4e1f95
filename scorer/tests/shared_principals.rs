//! Several workloads under one principal (`sa/default`): each is judged by its own past, and nothing is ever done to all.

mod mesh;
mod reopened;
mod shared;

use mesh::START;
use qualm_model::{
    event::EventBatch,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Mode, ScorerConfig},
    scorer::{Observed, Scorer},
    snapshot::{Covered, Snapshots},
    verdict::{Cause, Verdict},
};
use reopened::reopened;
use shared::{DEFAULT, Record, batch, days, pods};

const CART: &str = "spiffe://mesh.test/ns/shop/sa/default#cart";
const REPORT: &str = "spiffe://mesh.test/ns/shop/sa/default#report";

fn config() -> ScorerConfig {
    ScorerConfig {
        enforce: EnforceConfig { mode: Mode::Enforce, max_share: 1.0, ..EnforceConfig::default() },
        ..ScorerConfig::default()
    }
}

#[derive(Default, PartialEq, Debug)]
struct Outcomes {
    bits: Vec<u64>,
    verdicts: Vec<Verdict>,
}

impl Outcomes {
    /// Steps up of those whose name begins like this.
    fn entries(&self, name: &str) -> Vec<&Verdict> {
        let of = |verdict: &&Verdict| verdict.identity.starts_with(name) && verdict.cause == Cause::Evidence;
        self.verdicts.iter().filter(of).collect()
    }
}

fn take(scorer: &mut Scorer, batch: &EventBatch, outcomes: &mut Outcomes) {
    scorer.open(batch);
    for event in batch.events() {
        scorer.tick(event.report(), &mut outcomes.verdicts);
        if let Observed::Scored { bits, .. } = scorer.observe(event, event.report(), &mut outcomes.verdicts) {
            outcomes.bits.push(bits.to_bits());
        }
    }
}

fn feed(scorer: &mut Scorer, records: &[Record], first: usize, size: usize) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for (n, chunk) in records.chunks(size).enumerate() {
        take(scorer, &batch(chunk, first + n * size), &mut outcomes);
    }
    outcomes
}

/// A scorer that has seen all these days, and when they end.
fn settled(records: &[Record]) -> (Scorer, Outcomes, Timestamp) {
    let mut scorer = Scorer::new(config());
    let outcomes = feed(&mut scorer, records, 0, 1000);
    (scorer, outcomes, records[records.len() - 1].time)
}

/// What `cart` does every day, made from elsewhere, a call a second for so long; everybody else goes on as ever.
fn as_cart_does(from: Timestamp, seconds: i64, addresses: &[&'static str]) -> Vec<Record> {
    let mut records: Vec<Record> = (0..seconds)
        .map(|i| Record {
            ip: addresses[i as usize % addresses.len()],
            ..shared::cart(i as u64, from + Span(i * Span::SECOND.0))
        })
        .collect();
    let minutes = |i: i64| from + Span(i * Span::MINUTE.0);
    records.extend(
        (0..seconds / 60).flat_map(|i| [shared::cart(i as u64, minutes(i)), shared::heard(i as u64, minutes(i))]),
    );
    records.sort_by_key(|record| record.time);
    records
}

#[test]
fn what_one_does_every_day_is_odd_of_the_other_and_only_of_the_other() {
    let (mut scorer, before, end) = settled(&days());
    assert_eq!(before.entries(DEFAULT), Vec::<&Verdict>::new(), "becoming two causes no entry");
    let shared = scorer.shared_principals();
    assert_eq!((shared.principals, shared.workloads), (1, 2));
    let after = feed(&mut scorer, &as_cart_does(end, 1200, &[pods::REPORT_IP]), 0, 1000);
    let odd = after.entries(DEFAULT);
    assert!(!odd.is_empty(), "{:?}", after.verdicts);
    assert!(odd.iter().all(|verdict| verdict.identity == REPORT), "{odd:?}");
    let last = odd[odd.len() - 1];
    assert_eq!(last.co_owners, ["cart", "report"]);
    assert_eq!(last.subject.workload.as_deref(), Some("report"));
    assert_eq!(last.subject.instance.as_deref(), Some(pods::REPORT_IP), "narrowed, though it is the only one");
    assert_eq!(last.instances, [pods::REPORT_IP, pods::REPORT_IP_2], "its own pods alone");
    let reasons: Vec<_> =
        odd.iter().flat_map(|verdict| &verdict.reasons).map(|reason| reason.detector.name()).collect();
    assert!(reasons.contains(&"new-peer"), "{reasons:?}");
}

#[test]
fn where_nobody_names_pods_the_same_is_usual_for_the_principal() {
    let nameless = |records: Vec<Record>| -> Vec<Record> {
        records.into_iter().map(|record| Record { called_pod: String::new(), ..record }).collect()
    };
    let (mut scorer, before, end) = settled(&nameless(days()));
    let after = feed(&mut scorer, &nameless(as_cart_does(end, 1200, &[pods::REPORT_IP])), 0, 1000);
    assert_eq!((before.entries(DEFAULT).len(), scorer.shared_principals().principals), (0, 0));
    let new_edges = after.entries(DEFAULT).into_iter().flat_map(|verdict| &verdict.reasons);
    assert!(new_edges.into_iter().all(|reason| reason.detector.name() != "new-peer"));
}

#[test]
fn calls_from_an_address_of_which_nothing_is_known_stay_the_principals_own() {
    let (mut scorer, _, end) = settled(&days());
    let after = feed(&mut scorer, &as_cart_does(end, 1200, &["10.9.9.9"]), 0, 1000);
    assert!(after.entries(CART).is_empty() && after.entries(REPORT).is_empty());
    for verdict in after.entries(DEFAULT) {
        assert!(!verdict.enforce || verdict.subject.instance.is_some(), "never the whole principal: {verdict:?}");
        assert_eq!((verdict.subject.workload.as_deref(), verdict.co_owners.len()), (None, 2));
    }
}

#[test]
fn nothing_is_ever_enforced_on_the_whole_of_a_shared_principal() {
    // Both pods of the workload at once: there is no one instance to narrow to.
    let both = [pods::REPORT_IP, pods::REPORT_IP_2];
    for addresses in [&both[..1], &both] {
        let (mut scorer, _, end) = settled(&days());
        let mut worst = Level::Trusted;
        let sprees: Vec<Record> = as_cart_does(end, 3600, addresses)
            .into_iter()
            .enumerate()
            .map(|(i, record)| if addresses.contains(&record.ip) { shared::worse(i as u64, record) } else { record })
            .collect();
        for (n, chunk) in sprees.chunks(200).enumerate() {
            let after = feed(&mut scorer, chunk, n * 200, 200);
            worst = worst.max(after.entries(REPORT).iter().map(|verdict| verdict.level).max().unwrap_or_default());
            let told = after.verdicts.iter().filter(|verdict| verdict.identity.starts_with(DEFAULT));
            for verdict in told {
                assert_eq!(verdict.is_beyond_scope(), verdict.subject.instance.is_none(), "{verdict:?}");
                assert!(!(verdict.is_beyond_scope() && verdict.enforce), "{verdict:?}");
            }
            for entry in scorer.entries().iter().filter(|entry| entry.subject.principal == DEFAULT) {
                let is_narrow = entry.subject.instance.as_deref().is_some_and(|ip| addresses.contains(&ip));
                assert!(is_narrow || !(entry.enforce || entry.is_tellable()), "{entry:?}");
                assert_eq!(entry.subject.workload.as_deref(), Some("report"), "the other is untouched");
            }
        }
        assert!(worst >= Level::Throttled, "it was bad enough to be acted on: {worst}");
    }
}

#[test]
fn what_stood_against_all_of_them_when_they_were_parted_is_a_shadow_from_then_on() {
    // They have called side by side in as many hours as it takes at the begin of the 24th.
    let parted = Timestamp(START + 82_000 * Span::SECOND.0);
    // A flood of what is usual, from two pods in turns.
    let flood = |i: i64| {
        let time = parted - Span((9600 - i) * Span::SECOND.0 / 8);
        Record { ip: pods::CART_IPS[i as usize % 2], ..shared::cart(i as u64, time) }
    };
    let mut records = days();
    records.extend((0..9600).map(flood));
    records.sort_by_key(|record| record.time);
    let at = |time: Timestamp| records.partition_point(|record| record.time < time);
    let (before, after) = (at(parted), at(parted + Span(10 * Span::MINUTE.0)));
    let mut scorer = Scorer::new(config());
    feed(&mut scorer, &records[..before], 0, 1000);
    let stands = |scorer: &Scorer| scorer.entries().into_iter().find(|entry| entry.subject.principal == DEFAULT);
    let whole = stands(&scorer).expect("it is noticed");
    assert_eq!((whole.subject.instance, whole.enforce, scorer.shared_principals().principals), (None, true, 0));
    let outcomes = feed(&mut scorer, &records[before..after], before, 1000);
    assert_eq!(scorer.shared_principals().principals, 1);
    let told: Vec<_> = outcomes.verdicts.iter().filter(|verdict| verdict.cause == Cause::Shared).collect();
    assert_eq!(told.len(), 1);
    assert_eq!((&*told[0].identity, told[0].enforce, told[0].is_beyond_scope()), (DEFAULT, false, true));
    let shadow = stands(&scorer).expect("it still stands");
    assert!(!shadow.enforce && !shadow.is_tellable(), "{shadow:?}");
}

#[test]
fn an_address_that_goes_to_a_co_owner_is_not_held_any_more() {
    let (mut scorer, _, end) = settled(&days());
    let after = feed(&mut scorer, &as_cart_does(end, 1200, &[pods::REPORT_IP]), 0, 1000);
    let stands = |scorer: &Scorer| {
        let mut entries = scorer.entries().into_iter().filter(|entry| entry.subject.principal == DEFAULT);
        entries.next().map(|entry| (entry.subject.instance, entry.enforce))
    };
    assert_eq!(stands(&scorer), Some((Some(pods::REPORT_IP.to_owned()), true)), "{:?}", after.verdicts);
    let now = end + Span(1201 * Span::SECOND.0);
    let moved = (0..20).map(|i| Record {
        called_pod: pods::name("cart-7d6c6c7775", 9),
        called_ip: pods::REPORT_IP,
        ..shared::heard(0, now + Span(i * Span::SECOND.0))
    });
    let after = feed(&mut scorer, &moved.collect::<Vec<_>>(), 0, 10);
    assert_eq!(stands(&scorer), Some((Some(pods::REPORT_IP.to_owned()), false)));
    let told: Vec<_> = after.verdicts.iter().filter(|verdict| verdict.cause == Cause::Shared).collect();
    assert_eq!(told.len(), 1);
    assert_eq!((&*told[0].identity, told[0].enforce), (REPORT, false));
}

#[test]
fn neither_the_batch_size_nor_a_restart_changes_anything() {
    let mut records = days();
    let end = records[records.len() - 1].time;
    records.extend(as_cart_does(end, 900, &[pods::REPORT_IP]));
    let expected = feed(&mut Scorer::new(config()), &records, 0, 1000);
    assert!(!expected.entries(REPORT).is_empty());
    for size in [1, 777] {
        assert!(feed(&mut Scorer::new(config()), &records, 0, size) == expected, "batches of {size}");
    }
    // Before they are found to be two, while it is being found, and after.
    for share in [0.1, 0.3, 0.45, 0.8, 0.999] {
        let restart = (records.len() as f64 * share) as usize;
        let directory = tempfile::tempdir().expect("a directory");
        let (mut snapshots, _) = Snapshots::open(directory.path(), config()).expect("a new one");
        let mut scorer = Scorer::new(config());
        let mut outcomes = feed(&mut scorer, &records[..restart / 2], 0, 500);
        snapshots.save(scorer.changes(Covered::default()));
        snapshots.finish().expect("it was being written").expect("it can be written");
        let more = feed(&mut scorer, &records[restart / 2..restart], restart / 2, 500);
        snapshots.save(scorer.changes(Covered::default()));
        snapshots.finish().expect("it was being written").expect("it can be written");
        drop((snapshots, scorer));
        let (_snapshots, loaded) = reopened(directory.path(), &config());
        let mut scorer = loaded.expect("a snapshot").scorer;
        let rest = feed(&mut scorer, &records[restart..], restart, 500);
        for part in [more, rest] {
            outcomes.bits.extend(part.bits);
            outcomes.verdicts.extend(part.verdicts);
        }
        assert_eq!(outcomes.verdicts, expected.verdicts, "restart at {share}");
        assert!(outcomes.bits == expected.bits, "restart at {share}: scores differ");
    }
}

/// The name of a pod, by the hour and by which of two it is.
type Pods = Box<dyn Fn(i64, usize) -> String>;

/// Days in which the pods at two addresses of the principal are these, by the hour.
fn days_of(pods: impl Fn(i64, usize) -> String) -> Vec<Record> {
    let mut records = days();
    for record in &mut records {
        let hour = (record.time.0 - START) / Span::HOUR.0;
        let place = usize::from(record.called_ip == pods::REPORT_IP);
        if !record.called_pod.is_empty() {
            record.called_pod = pods(hour, place);
        }
    }
    records
}

#[test]
fn what_is_one_service_stays_one() {
    let job = |hour: i64, place| pods::name(&format!("report-{}", 28_912_345 + hour * 60 + place), 3);
    let cases: [(&str, Pods); 6] = [
        ("replicas of which each is replaced every ten hours", {
            Box::new(|hour, place| pods::name(&format!("cart-7d6c6c777{}", 2 + hour / 10 % 7), 2 + place as i64))
        }),
        (
            "blue and green",
            Box::new(|_, place| pods::name(["cart-blue-7d6c6c7775", "cart-green-5d6c6c7772"][place], 4)),
        ),
        (
            "a canary that stays",
            Box::new(|_, place| pods::name(["cart-7d6c6c7775", "cart-canary-5d6c6c7772"][place], 4)),
        ),
        (
            "two versions side by side",
            Box::new(|_, place| pods::name(["cart-v1-7d6c6c7775", "cart-v2-5d6c6c7772"][place], 4)),
        ),
        ("Jobs of a CronJob", Box::new(move |hour, place| job(hour, place as i64))),
        ("places of a StatefulSet", Box::new(|_, place| format!("cart-{place}"))),
    ];
    for (what, pods) in cases {
        let (scorer, outcomes, _) = settled(&days_of(pods));
        assert_eq!(scorer.shared_principals().principals, 0, "{what}");
        assert!(outcomes.entries(DEFAULT).is_empty(), "{what}");
    }
    // Under another name from the second day on, with a rollout of twelve hours in which there are both.
    let renamed = |hour: i64, place: usize| {
        let is_new = hour >= 24 && (place == 1 || hour >= 36);
        pods::name(if is_new { "shopping-5d6c6c7772" } else { "cart-7d6c6c7775" }, 4)
    };
    assert_eq!(settled(&days_of(renamed)).0.shared_principals().principals, 0, "a service with another name");
}

#[test]
fn made_up_workloads_are_bounded_and_counted() {
    let mut records = days();
    let mut made_up = 0;
    for record in &mut records {
        if record.called_ip == pods::REPORT_IP && !record.called_pod.is_empty() {
            made_up += 1;
            record.called_pod = format!("made-up-{}", letters(made_up));
        }
    }
    assert!(made_up > 400);
    let (scorer, outcomes, _) = settled(&records);
    let shared = scorer.shared_principals();
    assert!(shared.workloads <= 32, "{shared:?}");
    assert!(outcomes.entries(DEFAULT).is_empty());
}

/// A number in letters that are no pod's suffix.
fn letters(mut n: usize) -> String {
    let mut text = String::from("a");
    while n > 0 {
        text.push(char::from(b'a' + (n % 26) as u8));
        n /= 26;
    }
    text
}
