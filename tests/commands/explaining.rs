//! What `explain` tells.

use qualm_model::{
    detector::Question,
    evidence::Pace,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    journal::{Journal, JournalLimits, Kind},
    table::{Object, Subject},
    verdict::{Cause, Reason, Verdict},
};

use crate::place::{CART, CART_BATCH, LINE, Place, read};

/// A wall time that is still to come, so that leases stand.
fn tomorrow() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(now.as_nanos()).unwrap()) + Span::DAY
}

fn verdict(identity: &str, previous: Level, level: Level, cause: Cause) -> Verdict {
    let time = Timestamp::from_seconds(1_767_225_600);
    let reason = Reason {
        detector: Question::RarePeer,
        bits: 12.5,
        observed: 0.0,
        expected: 0.0,
        n: 421.0,
        destination: "spiffe://mesh.test/ns/bank/sa/payments".to_owned(),
        operation: None,
        usual: None,
        familiar: None,
    };
    Verdict {
        time,
        decided: time,
        identity: identity.to_owned(),
        namespace: Some("shop".to_owned()),
        subject: Subject {
            principal: identity.to_owned(),
            cluster: None,
            workload: None,
            instance: Some("10.0.0.7".to_owned()),
        },
        object: Object::Any,
        level,
        previous,
        cause,
        pace: (cause == Cause::Evidence).then_some(Pace::Fast),
        evidence_bits: 21.5,
        threshold_bits: 15.25,
        per_day: 0.001,
        m: 9.0,
        threshold: 8.0,
        lease: (level > Level::Trusted).then_some(Span::HOUR),
        expires: (level > Level::Trusted).then(tomorrow),
        decision: format!("d-{level}"),
        episode: time,
        historic: false,
        enforce: true,
        held: None,
        held_by: None,
        dependants: None,
        instances: vec!["10.0.0.7".to_owned(), "10.0.0.8".to_owned()],
        co_owners: Vec::new(),
        reasons: if cause == Cause::Evidence { vec![reason] } else { Vec::new() },
        carried_by: Vec::new(),
        announced: None,
        incident: None,
        order: None,
        paused: false,
        grounds: None,
    }
}

/// A state directory in which these were decided.
fn decided(verdicts: &[Verdict]) -> Place {
    let place = Place::with("");
    let opened = Journal::open(&place.path().join("qualm-state/journal"), &JournalLimits::default()).unwrap();
    for verdict in verdicts {
        let seq = opened.journal.append(Kind::Decision, verdict.time, verdict.decided, verdict).unwrap();
        opened.journal.wait_durable(seq).unwrap();
    }
    place
}

#[test]
fn explain_tells_where_an_identity_stands_and_every_step_of_its_latest_episode() {
    use Level::{Quarantined, Trusted, Watched};
    let place = decided(&[
        verdict(CART, Trusted, Level::Throttled, Cause::Evidence),
        verdict(CART, Level::Throttled, Trusted, Cause::Lease),
        verdict(CART, Trusted, Watched, Cause::Evidence),
        verdict(CART, Watched, Watched, Cause::Renewed),
        verdict(CART, Watched, Watched, Cause::Renewed),
        verdict(CART, Watched, Quarantined, Cause::Evidence),
    ]);
    // A part of the name is enough.
    let told = place.run(&["explain", "sa/cart"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert!(
        told.out.starts_with("instance 10.0.0.7 of cart (namespace shop) called payments for the first time"),
        "{told:#?}"
    );
    told.line("stands at  quarantined, enforced, until 20");
    told.line("its instance 10.0.0.7 alone, not its siblings (2 live: 10.0.0.7, 10.0.0.8)");
    told.line("decision   d-quarantined");
    told.line("trusted -> watched: 21.5 bits, 15.2 are needed, on the fast clock, lease 60 min, decision d-watched");
    told.line("lease of watched renewed 2 times");
    told.line("watched -> quarantined: 21.5 bits");
    told.line("12.5 bits  new-peer: it called payments for the first time (rests on 421)");
    told.line("ask the owner of cart");
    assert!(!told.out.contains("throttled"), "an episode that has ended is not told again: {}", told.out);
}

#[test]
fn explain_lists_whom_a_part_of_a_name_may_mean_and_says_when_it_means_nobody() {
    let place = decided(&[
        verdict(CART, Level::Trusted, Level::Watched, Cause::Evidence),
        verdict(CART_BATCH, Level::Trusted, Level::Watched, Cause::Evidence),
        verdict(CART_BATCH, Level::Watched, Level::Trusted, Cause::Lease),
    ]);
    let several = place.run(&["explain", "car"]);
    assert_eq!(several.code, Some(2), "{several:#?}");
    assert!(several.err.contains(CART) && several.err.contains(CART_BATCH), "{several:#?}");
    let service = place.run(&["explain", "cart"]);
    assert!(
        service.code == Some(0) && service.out.contains("stands at  watched"),
        "a service's own name is one: {service:#?}"
    );
    let ended = place.run(&["explain", "cart-batch"]);
    ended.line("stands at  trusted, since 2026-01-01");
    let nobody = place.run(&["explain", "crat"]);
    assert_eq!((nobody.code, nobody.out.as_str()), (Some(2), ""), "{nobody:#?}");
    assert!(nobody.err.contains("`crat` is not known: of 2 identities") && nobody.err.contains(CART), "{nobody:#?}");
    let nothing = Place::with("").run(&["explain", "cart"]);
    assert!(nothing.code == Some(2) && nothing.err.contains("nothing is known here yet"), "{nothing:#?}");
}

#[test]
fn explain_tells_of_a_configuration_that_changed_what_an_entry_does() {
    use Level::{Quarantined, Trusted};
    let mut shadow = verdict(CART, Trusted, Quarantined, Cause::Evidence);
    shadow.enforce = false;
    let mut acting = verdict(CART, Quarantined, Quarantined, Cause::Operator);
    acting.expires = shadow.expires;
    let place = decided(std::slice::from_ref(&shadow));
    let told = place.run(&["explain", "cart"]);
    told.line("stands at  quarantined, in shadow only, until 20");
    told.line("`qualm reload` lets it act while its evidence stands");
    let place = decided(&[shadow, acting]);
    let told = place.run(&["explain", "cart"]);
    told.line("stands at  quarantined, enforced, until 20");
    told.line("quarantined stands: the configuration lets it act from now on");
}

#[test]
fn explain_says_of_whom_nothing_was_ever_decided_that_it_is_trusted_and_what_is_known_of_it() {
    let (other, later) = (LINE.replace("sa/orders", "sa/stock"), LINE.replace("02:02:24", "03:04:05"));
    let place = read(&format!("{LINE}\n{other}\n{later}\n"));
    let told = place.run(&["explain", "cart"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert!(told.out.starts_with(&format!("{CART} is trusted: nothing was ever decided about it.\n")), "{told:#?}");
    told.line("stands at  trusted");
    told.line("known      since 2026-11-22 02:02:24 UTC, last seen 2026-11-22 03:04:05 UTC");
    told.line("calls      2 peers, from 1 instance");
    told.line(
        "levels     none is armed; watched not yet, for want of episodes; throttled not before 2026-11-23 02:02:24",
    );
    told.line("as of      the last snapshot, which has read telemetry up to 2026-11-22 03:04:05");
    told.line("wait: no level is armed yet");
    let nobody = place.run(&["explain", "crat"]);
    assert_eq!((nobody.code, nobody.out.as_str()), (Some(2), ""), "{nobody:#?}");
    assert!(nobody.err.contains("`crat` is not known: of 1 identity in journal and snapshot"), "{nobody:#?}");
    assert!(nobody.err.contains(CART), "{nobody:#?}");
}

#[test]
fn explain_lists_who_shares_a_principal_and_says_that_nothing_is_enforced_on_all_of_them() {
    let workload = format!("{CART}#report");
    let shared = |level, previous, instance: Option<&str>| {
        let mut verdict = verdict(&workload, previous, level, Cause::Evidence);
        verdict.subject = Subject {
            principal: CART.to_owned(),
            cluster: None,
            workload: Some("report".to_owned()),
            instance: instance.map(str::to_owned),
        };
        verdict.co_owners = vec!["mail".to_owned(), "report".to_owned()];
        verdict.enforce = instance.is_some();
        verdict
    };
    let place = decided(&[shared(Level::Quarantined, Level::Trusted, None)]);
    // The workload's name is enough.
    let told = place.run(&["explain", "report"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert!(told.out.starts_with("report under cart (namespace shop) called payments"), "{told:#?}");
    told.line(&format!("identity   {workload}"));
    told.line("stands at  quarantined, in shadow only (not enforceable at this scope: it would cut off all");
    told.line(&format!("principal  {CART}, shared by mail, report"));
    told.line("give each of those who share the principal a service account of its own");
    assert!(!told.out.contains("lets it act"), "no reload makes it act: {}", told.out);
    let place = decided(&[shared(Level::Quarantined, Level::Trusted, Some("10.0.0.7"))]);
    let told = place.run(&["explain", "report"]);
    told.line("stands at  quarantined, enforced, until 20");
    told.line("about      its instance 10.0.0.7 alone");
}
