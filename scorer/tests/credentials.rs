//! Which credentials do not add up, and which honest estates only look as if they did not.

mod issuing;

use issuing::{Estate, HOUR, LIFE, MINUTE, SERVICES, Shown, at, pod, service, svid};
use qualm_model::{
    detector::Question,
    event::{EventDraft, Outcome, Party, Reporter},
    identity::Provenance,
    level::Level,
};

/// Vault's tokens for all services: one an hour, told of when it is given out.
fn tokens(estate: &mut Estate, pods: impl Fn(i64) -> Vec<String>) {
    for number in 0..SERVICES {
        let (who, token) = (format!("entity-{number}"), format!("t{number}-{}", estate.now / HOUR));
        let pods = pods(number);
        if estate.now % HOUR == 0 {
            estate.vault(&who, &pods[0], &token, [&token, ""]);
        }
        for pod in &pods {
            estate.vault(&who, pod, &token, ["", ""]);
        }
    }
}

#[test]
fn a_certificate_that_has_ended_is_found_at_its_first_call() {
    let mut estate = Estate::settled();
    let old = svid(7, estate.now - 24 * HOUR);
    estate.call(&service(7), &pod(7), Some(&old), &service(8));
    assert!(!estate.found.is_empty(), "and it is the leading reason");
    assert!(estate.found.iter().all(|found| *found == (service(7), Question::AfterExpiry)), "{:?}", estate.found);
    let verdict = estate.verdicts.iter().rfind(|verdict| verdict.identity == service(7));
    assert_eq!(verdict.map(|verdict| verdict.level), Some(Level::Restricted), "it acts at once");
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_found_at_its_first_call() {
    let mut estate = Estate::settled();
    let early = Shown { serial: "x".to_owned(), begin: estate.now + HOUR, end: estate.now + 2 * HOUR };
    estate.call(&service(7), &pod(7), Some(&early), &service(8));
    assert!(estate.is_found(&service(7), Question::BeforeIssuance), "{:?}", estate.found);
}

#[test]
fn a_certificate_that_nobody_gave_out_is_found_once_the_issuers_log_has_passed_its_use_and_not_before() {
    let mut estate = Estate::settled();
    let forged = Shown { serial: "x".to_owned(), begin: estate.now - 37 * MINUTE, end: estate.now + 23 * HOUR };
    estate.call(&service(7), &pod(7), Some(&forged), &service(8));
    estate.live(1, |_| {});
    assert_eq!(estate.found, [], "SPIRE has told of nothing since");
    estate.live(6, |_| {});
    assert!(estate.is_found(&service(7), Question::NeverIssued), "{:?}", estate.found);
    assert!(estate.found.iter().all(|(who, _)| *who == service(7)), "{:?}", estate.found);
}

#[test]
fn a_certificate_in_other_hands_is_found_at_its_first_call() {
    let mut estate = Estate::settled();
    let stolen = svid(7, estate.now - 10 * MINUTE);
    estate.call(&service(7), "10.200.3.4", Some(&stolen), &service(8));
    assert!(estate.is_found(&service(7), Question::OutsideSharing), "{:?}", estate.found);
}

#[test]
fn a_call_without_a_certificate_is_found_where_there_always_was_one() {
    let mut estate = Estate::settled();
    estate.call(&service(7), &pod(7), None, &service(8));
    assert!(estate.found.iter().any(|(_, broken)| *broken == Question::NoCertificate), "{:?}", estate.found);
    assert!(estate.verdicts.iter().all(|verdict| verdict.level <= Level::Watched), "who it was is not verified");
}

#[test]
fn a_token_is_found_after_it_was_taken_back_after_its_end_and_where_it_was_never_given_out() {
    let mut estate = Estate::new();
    estate.live(12, |estate| tokens(estate, |number| vec![pod(number)]));
    assert_eq!(estate.found, []);
    estate.now += MINUTE;
    let (token, before) = (format!("t7-{}", estate.now / HOUR - 1), format!("t8-{}", estate.now / HOUR - 1));
    estate.vault("operator", "10.9.9.9", "root", ["", &token]);
    estate.now += MINUTE;
    estate.vault("entity-7", &pod(7), &token, ["", ""]);
    assert!(estate.is_found("entity-7", Question::AfterRevocation), "{:?}", estate.found);
    // The validity that Vault tells is that of the hour before.
    estate.now += HOUR;
    let now = estate.now;
    estate.now -= 2 * HOUR;
    let ended = now;
    estate.push(
        &EventDraft {
            start: at(ended),
            report: at(ended),
            reporter: Reporter::Issuer,
            source: Party { principal: "entity-8", ip: &pod(8), ..Party::default() },
            destination: Party { principal: "vault", ..Party::default() },
            outcome: Outcome::Success,
            credential: &before,
            not_before: Some(at(ended - 3 * HOUR)),
            not_after: Some(at(ended - 2 * HOUR)),
            ..EventDraft::default()
        },
        2,
    );
    estate.now = now;
    assert!(estate.is_found("entity-8", Question::AfterExpiry), "{:?}", estate.found);
    estate.vault("entity-9", &pod(9), "forged", ["", ""]);
    estate.live(1, |estate| tokens(estate, |number| vec![pod(number)]));
    assert!(estate.is_found("entity-9", Question::NeverIssued), "{:?}", estate.found);
}

#[test]
fn failed_logins_and_then_one_from_elsewhere_are_found_and_a_mistyped_password_is_not() {
    let mut estate = Estate::settled();
    for _ in 0..120 {
        estate.now += HOUR;
        estate.login("alice", "10.62.0.10", Outcome::Success);
    }
    estate.login("alice", "10.62.0.10", Outcome::Refused);
    estate.login("alice", "10.62.0.10", Outcome::Success);
    estate.login("alice", "10.77.0.10", Outcome::Success);
    assert_eq!(estate.found, [], "nor a new place alone");
    (0..4).for_each(|_| estate.login("alice", "203.0.113.7", Outcome::Refused));
    estate.login("alice", "10.62.0.10", Outcome::Success);
    assert_eq!(estate.found, [], "she goes on working while others try");
    estate.login("alice", "203.0.113.8", Outcome::Success);
    assert!(estate.is_found("alice", Question::LoginElsewhere), "{:?}", estate.found);
}

#[test]
fn one_certificate_for_all_pods_of_a_node_is_honest_also_when_one_more_comes() {
    let mut estate = Estate::settled();
    for replicas in [3, 3, 4] {
        estate.live(8, |estate| {
            for number in 0..SERVICES {
                let shown = svid(number, estate.now);
                for replica in 1..replicas {
                    let address = format!("10.{}.{}.{}", number / 200, number % 200, 7 + replica);
                    estate.call(&service(number), &address, Some(&shown), &service((number + 1) % SERVICES));
                }
            }
        });
    }
    assert!(estate.found.is_empty(), "{:?}", &estate.found[..5]);
}

#[test]
fn an_east_west_gateway_may_show_everybodys_certificates() {
    let mut estate = Estate::new();
    let across = |estate: &mut Estate, services: i64| {
        for number in 0..services {
            let shown = svid(number, estate.now);
            estate.call(&service(number), "10.99.0.1", Some(&shown), "spiffe://west.test/ns/shop/sa/w");
        }
    };
    estate.live(24, |estate| across(estate, 20));
    // Others begin to call across as well.
    estate.live(12, |estate| across(estate, SERVICES));
    assert!(estate.found.is_empty(), "{:?}", &estate.found[..5]);
}

#[test]
fn a_gateway_that_is_turned_on_is_taken_for_a_thief_by_its_first_two_callers_and_no_longer() {
    let mut estate = Estate::settled();
    estate.live(2, |estate| {
        for number in 0..SERVICES {
            let shown = svid(number, estate.now);
            estate.call(&service(number), "10.99.0.1", Some(&shown), "spiffe://west.test/ns/shop/sa/w");
        }
    });
    let whose: std::collections::BTreeSet<_> = estate.found.iter().map(|(who, _)| who.clone()).collect();
    assert!(whose.len() <= 2, "{whose:?}");
    estate.found.clear();
    estate.live(2, |_| {});
    assert_eq!(estate.found, []);
}

#[test]
fn a_waypoint_shows_its_own_identity_for_everybody() {
    let mut estate = Estate::new();
    estate.live(36, |estate| {
        for number in 0..SERVICES {
            let shown = Shown { serial: format!("w{}", estate.now / LIFE), ..svid(0, estate.now - estate.now % LIFE) };
            estate.call("spiffe://mesh.test/ns/shop/sa/waypoint", "10.98.0.1", Some(&shown), &service(number));
        }
    });
    assert!(estate.found.iter().all(|(_, broken)| *broken != Question::OutsideSharing), "{:?}", estate.found);
}

#[test]
fn a_users_token_may_be_relayed_along_a_chain_of_calls() {
    let mut estate = Estate::settled();
    estate.live(12, |estate| {
        for user in 0..30 {
            let token = format!("jti-{user}-{}", estate.now / HOUR);
            for hop in 0..4 {
                let (who, ip) = (format!("app-{hop}"), pod(hop));
                let to = format!("app-{}", hop + 1);
                let draft = EventDraft {
                    start: at(estate.now),
                    report: at(estate.now),
                    source: Party { principal: &who, ip: &ip, provenance: Provenance::Declared, ..Party::default() },
                    destination: Party { principal: &to, ..Party::default() },
                    outcome: Outcome::Success,
                    credential: &token,
                    ..EventDraft::default()
                };
                estate.push(&draft, 4);
            }
        }
    });
    assert_eq!(estate.found, []);
}

#[test]
fn replicas_may_share_a_token_and_become_more() {
    let mut estate = Estate::new();
    let replicas = |number: i64, most: i64| -> Vec<String> {
        let shared = if number % 3 == 0 { most } else { 1 };
        (0..shared).map(|replica| format!("10.{}.{}.7", 20 + replica, number)).collect()
    };
    estate.live(24, |estate| tokens(estate, |number| replicas(number, 3)));
    estate.live(6, |estate| tokens(estate, |number| replicas(number, 4)));
    assert_eq!(estate.found, []);
}

#[test]
fn certificates_overlap_when_they_rotate_and_connections_outlive_them() {
    let mut estate = Estate::new();
    estate.live(48, |estate| {
        for number in 0..SERVICES {
            // The certificate of twelve hours ago, used until it has ended six hours before: the connection goes on.
            let old = svid(number, estate.now - LIFE);
            if estate.now >= LIFE && number < 50 {
                estate.call(&service(number), &pod(number), Some(&old), &service((number + 1) % SERVICES));
            }
            let last = svid(number, estate.now - LIFE / 2);
            estate.call(&service(number), &pod(number), Some(&last), &service((number + 1) % SERVICES));
        }
    });
    assert!(estate.found.is_empty(), "{:?}", &estate.found[..estate.found.len().min(5)]);
}

#[test]
fn an_issuers_log_may_be_an_hour_late() {
    let mut estate = Estate { late: HOUR, ..Estate::new() };
    estate.live(48, |_| {});
    assert_eq!(estate.found, []);
}

#[test]
fn where_records_were_lost_nobody_is_said_not_to_have_given_out() {
    let mut estate = Estate::settled();
    let lost = Shown { serial: "x".to_owned(), begin: estate.now - MINUTE, end: estate.now + 12 * HOUR };
    estate.scorer.lose(10);
    estate.call(&service(7), &pod(7), Some(&lost), &service(8));
    estate.live(1, |_| {});
    assert_eq!(estate.found, []);
}

#[test]
fn without_the_issuers_log_and_without_a_custom_nothing_is_said() {
    let mut estate = Estate::new();
    let forged = Shown { serial: "x".to_owned(), begin: -37 * MINUTE, end: 23 * HOUR };
    estate.call(&service(7), &pod(7), Some(&forged), &service(8));
    estate.call(&service(7), "10.200.3.4", Some(&forged), &service(8));
    estate.call(&service(7), &pod(7), None, &service(8));
    estate.login("alice", "203.0.113.8", Outcome::Success);
    assert_eq!(estate.found, []);
}

#[test]
fn records_that_are_minutes_out_of_order_break_nothing() {
    let mut estate = Estate { late: 7 * MINUTE, ..Estate::new() };
    estate.live(36, |_| {});
    assert_eq!(estate.found, []);
}
