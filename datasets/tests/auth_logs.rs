//! The issuers' logs: read by the product's parsers as what was meant, and joined with the traffic.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use qualm_datasets::{
    Attack, AttackKind, AuthLog, AuthRecord, AuthTrail, Call, ChangeKind, Millis, Scenario, Traffic,
    auth::Deed,
    calendar::{DAY, HOUR},
    mesh::{Kind, MeshConfig},
};
use qualm_ingest::{
    parse::{Format, Parser},
    source::Rejection,
};
use qualm_model::event::{self, EventBatch, EventBuilder, Outcome, Position};

const MONDAY: Millis = Millis::from_seconds(1_767_571_200);

fn estate(days: f64) -> Scenario {
    Scenario::estate(MeshConfig { seed: 4, ..MeshConfig::default() }, MONDAY, days).unwrap()
}

fn attacked() -> Scenario {
    let mut scenario = estate(1.0);
    scenario.churn_of(&ChangeKind::ALL, 10.0, MONDAY, MONDAY + DAY);
    for (number, kind) in AttackKind::ALL.into_iter().enumerate() {
        scenario.attack(Attack::new(kind, MONDAY + 4 * HOUR + number as i64 * HOUR / 4)).unwrap();
    }
    scenario
}

fn play(scenario: Scenario) -> (Arc<Scenario>, Vec<Call>, Vec<AuthRecord>) {
    let scenario = Arc::new(scenario);
    let mut trail = AuthTrail::new(Arc::clone(&scenario));
    let (mut calls, mut records) = (Vec::new(), Vec::new());
    for call in Traffic::new(Arc::clone(&scenario)) {
        trail.follow(&call, &mut records);
        calls.push(call);
    }
    trail.finish(&mut records);
    (scenario, calls, records)
}

/// The events of one log's records, each asserted to be read, and how many lines are parts of others.
fn read(scenario: &Scenario, log: AuthLog, records: &[AuthRecord]) -> (EventBatch, usize) {
    let mut parser = Parser::for_format(log.format().parse::<Format>().unwrap(), None).unwrap();
    let (mut builder, mut parts, mut row) = (EventBuilder::new(), 0, 0);
    for record in records.iter().filter(|record| record.log == log) {
        let mut lines = Vec::new();
        record.push(scenario.mesh(), &mut lines);
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match parser.parse(line, Position { offset: row, ..Position::default() }, &mut builder) {
                Ok(_) => {}
                Err(Rejection::Part) => parts += 1,
                Err(refused) => panic!("{refused:?}: {}", String::from_utf8_lossy(line)),
            }
            row += 1;
        }
    }
    (builder.finish(), parts)
}

#[test]
fn every_line_of_every_issuer_is_read_as_the_event_that_was_meant() {
    let (scenario, _, records) = play(attacked());
    let mesh = scenario.mesh();
    for log in AuthLog::ALL {
        let of: Vec<_> = records.iter().filter(|record| record.log == log).collect();
        assert!(of.len() > 20, "{log:?}: {} records", of.len());
        let (batch, parts) = read(&scenario, log, &records);
        assert_eq!(batch.len(), of.len(), "{log:?}");
        assert_eq!(parts, if log == AuthLog::Vault { of.len() } else { 0 });
        for (row, record) in of.into_iter().enumerate() {
            let event = batch.event(row);
            assert_eq!(event.start().0.div_euclid(1_000_000), record.at.0, "{record:?}");
            assert_eq!(event.outcome() == Outcome::Refused, !record.granted, "{record:?}");
            let expected = match record.deed {
                Deed::Login | Deed::TokenRequest { .. } | Deed::Certificate { .. } => event::Kind::Authentication,
                Deed::UserLogin { .. } | Deed::Shell { .. } | Deed::Exchange => event::Kind::Authentication,
                _ => event::Kind::Request,
            };
            assert_eq!(event.kind(), expected, "{record:?}");
            match log {
                AuthLog::Spire => {
                    let identity = mesh.service(record.service).spiffe_id.trim_start_matches("spiffe://");
                    assert!(event.operation().ends_with(identity), "{} {identity}", event.operation());
                }
                AuthLog::Kubernetes if matches!(record.deed, Deed::Use { .. }) => {
                    let owner = mesh.service(record.service);
                    let principal = format!("system:serviceaccount:{}:{}", owner.namespace, owner.name);
                    assert_eq!(event.source().principal(), principal);
                    assert_eq!(event.source().ip(), record.address.to_string());
                    assert_eq!(event.source().instance(), mesh.instance(record.pod.unwrap()).pod);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn every_certificate_was_issued_before_its_use_but_for_those_that_were_forged_or_stolen() {
    let (scenario, calls, records) = play(attacked());
    let mesh = scenario.mesh();
    let mut issued = BTreeMap::new();
    for record in &records {
        if let Deed::Certificate { not_after } = record.deed {
            let first = issued.entry((record.service, not_after)).or_insert(record.at);
            *first = record.at.min(*first);
        }
    }
    let mut unissued = BTreeSet::new();
    for call in calls.iter().filter(|call| mesh.instance(call.source).shows_certificate()) {
        let source = mesh.instance(call.source);
        let not_after = source.credential(call.start).not_after;
        let known = issued.get(&(source.service, not_after)).is_some_and(|&at| at <= call.start);
        let qualm_datasets::Cause::Attack(number) = call.cause else {
            // Debugging people's shells run in pods that were replaced meanwhile.
            assert!(known || call.cause != qualm_datasets::Cause::Routine, "{call:?} {}", source.pod);
            continue;
        };
        if !known {
            unissued.insert(scenario.attacks()[number as usize].kind);
        }
    }
    for kind in ["stolen_identity", "forged_certificate", "premature_certificate"] {
        assert!(unissued.contains(kind), "{unissued:?}");
    }
    for kind in ["rogue_replica", "replayed_credential", "lateral_move"] {
        assert!(!unissued.contains(kind), "{kind} is of a certificate that was issued");
    }
}

#[test]
fn every_token_was_asked_for_before_its_use_and_ends_after_it_but_for_attacks() {
    let (scenario, _, records) = play(attacked());
    let mut issued = BTreeMap::new();
    let mut odd = BTreeSet::new();
    for record in &records {
        match record.deed {
            Deed::TokenRequest { expires } => {
                issued.insert((record.log, record.token), expires);
            }
            Deed::Login if record.granted && record.log == AuthLog::Vault => {
                issued.insert((record.log, record.token), record.at + HOUR);
            }
            Deed::Revoke => {
                issued.insert((record.log, record.token), record.at);
            }
            Deed::Use { .. } if record.granted => {
                let holds = issued.get(&(record.log, record.token)).is_some_and(|&expires| record.at < expires);
                match record.cause {
                    qualm_datasets::Cause::Attack(number) if !holds => {
                        odd.insert(scenario.attacks()[number as usize].kind);
                    }
                    _ => assert!(holds, "{record:?}"),
                }
            }
            _ => {}
        }
    }
    assert_eq!(odd, BTreeSet::from(["expired_token", "forged_token", "revoked_token"]));
}

#[test]
fn the_issuers_tell_the_same_calls_as_the_proxies() {
    let (scenario, calls, records) = play(attacked());
    let mesh = scenario.mesh();
    let at = |kind| {
        let of = move |call: &&Call| mesh.service_of(call.destination).kind == kind && call.status < 500;
        calls.iter().filter(of)
    };
    let told = records.iter().filter(|record| matches!(record.deed, Deed::Use { .. })).count();
    let logins = at(Kind::Vault).filter(|call| mesh.operation(call.operation).template().ends_with("/login")).count();
    assert_eq!(told + logins, at(Kind::Vault).count() + at(Kind::Kubernetes).count());
}

#[test]
fn pods_of_a_service_on_a_node_share_a_certificate_where_that_is_asked_for() {
    let mut scenario = estate(0.1);
    let distinct = |scenario: &Scenario| {
        let pods = scenario.mesh().instances.iter().map(|pod| pod.credential(MONDAY).serial);
        pods.collect::<BTreeSet<_>>().len()
    };
    let alone = distinct(&scenario);
    scenario.share_certificates();
    assert!(distinct(&scenario) < alone);
    let mesh = scenario.mesh();
    for service in &mesh.services {
        for (&one, &other) in service.replicas.iter().zip(service.replicas.iter().skip(1)) {
            if mesh.node_of(one) == mesh.node_of(other) {
                assert_eq!(mesh.instance(one).credential(MONDAY), mesh.instance(other).credential(MONDAY));
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_lines_and_an_attack_leaves_the_others_as_they_were() {
    let lines = |scenario: Scenario| {
        let (scenario, _, records) = play(scenario);
        let mut out = Vec::new();
        for record in records.iter().filter(|record| !matches!(record.cause, qualm_datasets::Cause::Attack(_))) {
            record.push(scenario.mesh(), &mut out);
        }
        out
    };
    let quiet = lines(estate(0.3));
    assert!(quiet == lines(estate(0.3)));
    let mut attacked = estate(0.3);
    attacked.attack(Attack::new(AttackKind::ForgedToken, MONDAY + HOUR)).unwrap();
    attacked.attack(Attack::new(AttackKind::StolenIdentity, MONDAY + HOUR)).unwrap();
    assert!(quiet == lines(attacked));
}
