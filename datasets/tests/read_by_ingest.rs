//! The product's own parser reads what the generator writes as what was meant.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, sync::Arc};

use qualm_datasets::{
    AccessLog, Attack, AttackKind, Call, Millis, Scenario, Traffic,
    calendar::{DAY, HOUR},
    mesh::{Kind, MeshConfig, Protocol},
};
use qualm_ingest::parse::{Format, Parser};
use qualm_model::{
    event::{self, EventBatch, EventBuilder, Outcome, Position, Reporter},
    identity::Provenance,
};

const MONDAY: Millis = Millis::from_seconds(1_767_571_200);

fn scenario() -> Arc<Scenario> {
    let mut scenario = Scenario::estate(MeshConfig::default(), MONDAY, 0.3).unwrap();
    scenario.churn(20.0, MONDAY, MONDAY + DAY / 4);
    for kind in AttackKind::ALL {
        scenario.attack(Attack::new(kind, MONDAY + HOUR)).unwrap();
    }
    Arc::new(scenario)
}

fn read(calls: &[Call], mut push: impl FnMut(&Call, &mut Vec<u8>)) -> EventBatch {
    let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
    let mut builder = EventBuilder::new();
    let mut line = Vec::new();
    for (row, call) in calls.iter().enumerate() {
        line.clear();
        push(call, &mut line);
        let position = Position { offset: row as i64, ..Position::default() };
        let read = parser.parse(&line, position, &mut builder);
        assert!(read.is_ok(), "{read:?}: {}", String::from_utf8_lossy(&line));
    }
    builder.finish()
}

#[test]
fn every_line_is_an_event_with_the_parties_times_and_outcome_of_the_call() {
    let scenario = scenario();
    let mesh = scenario.mesh();
    let log = AccessLog::with_validity(mesh);
    let calls: Vec<_> = Traffic::new(Arc::clone(&scenario)).collect();
    let batch = read(&calls, |call, out| log.push_inbound(call, out));
    let mut operations = BTreeSet::new();
    for (row, call) in calls.iter().enumerate() {
        let event = batch.event(row);
        let caller = mesh.instance(call.source);
        assert_eq!(event.source().ip(), caller.address.to_string());
        if caller.shows_certificate() {
            assert_eq!(event.source().principal(), mesh.identity(call.source));
            assert_eq!(event.source().provenance(), Provenance::Certificate);
            assert_eq!(event.fingerprint(), caller.ja4);
        } else {
            assert_ne!(event.source().provenance(), Provenance::Certificate);
        }
        // Behind the egress gateway is what was called.
        let outside = mesh.operation(call.operation).host.as_deref();
        assert_eq!(event.destination().principal(), outside.unwrap_or(mesh.identity(call.destination)));
        assert_eq!(event.start().0, call.start.0 * 1_000_000);
        assert_eq!(event.report().0, call.report().0 * 1_000_000);
        assert_eq!((event.bytes_in(), event.bytes_out()), (Some(call.bytes_in), Some(call.bytes_out)));
        let expected = match call.status {
            200..=299 => Outcome::Success,
            401 | 403 => Outcome::Refused,
            _ => Outcome::Failure,
        };
        assert_eq!(event.outcome(), expected, "{call:?}");
        let connection = mesh.operation(call.operation).protocol == Protocol::Tcp;
        assert_eq!(event.kind() == event::Kind::Connection, connection);
        operations.insert(event.operation().to_owned());
    }
    // The ids inside paths must not become names; 64 words of a scanner are.
    assert!((50..600).contains(&operations.len()), "{} operations", operations.len());
}

#[test]
fn a_denial_is_recognised_as_an_action_of_qualm() {
    let scenario = scenario();
    let log = AccessLog::new(scenario.mesh());
    let calls: Vec<_> = Traffic::new(Arc::clone(&scenario)).take(500).collect();
    let batch = read(&calls, |call, out| log.push_denied(call, "qualm-deny/5f0b1f3c", out));
    for row in 0..calls.len() {
        assert_eq!(batch.event(row).decision_id(), "5f0b1f3c");
        assert_eq!(batch.event(row).outcome(), Outcome::Refused);
    }
}

#[test]
fn the_sources_report_names_both_ends_and_is_known_as_the_sources() {
    let scenario = scenario();
    let mesh = scenario.mesh();
    let log = AccessLog::new(mesh);
    let inside = |call: &Call| mesh.service_of(call.destination).kind != Kind::Egress;
    let calls: Vec<_> = Traffic::new(Arc::clone(&scenario)).filter(inside).take(500).collect();
    let batch = read(&calls, |call, out| log.push_outbound(call, out));
    for (row, call) in calls.iter().enumerate() {
        let event = batch.event(row);
        assert_eq!(event.reporter(), Reporter::Source);
        assert_eq!(event.source().principal(), mesh.identity(call.source));
        assert_eq!(event.destination().principal(), mesh.identity(call.destination));
    }
}
