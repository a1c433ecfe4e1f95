//! What an estate's switches promise: users and call chains, clocks, witnesses, losses, delays, envelopes.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use qualm_datasets::{
    AccessLog, Attack, AttackKind, Call, Dirt, Envelope, Millis, Report, Reports, Scenario, Traffic, Zone,
    calendar::{DAY, HOUR, MINUTE, SECOND},
    dirt::{Keep, LONGEST_DELAY, Reporters},
    envelope::Place,
    istio::{Side, Stage},
    mesh::{Kind, MeshConfig, Protocol},
};
use qualm_ingest::parse::{Format, Parser};
use qualm_model::{
    event::{EventBuilder, Outcome, Position, Reporter},
    identity::{service_of_workload, workload_of_pod},
};

const MONDAY: Millis = Millis::from_seconds(1_767_571_200);

fn config(rate: f64) -> MeshConfig {
    MeshConfig { seed: 4, services: 40, calls_per_second: rate }
}

fn estate(days: f64) -> Scenario {
    Scenario::estate(config(4.0), MONDAY, days).unwrap()
}

fn play(scenario: Scenario) -> (Arc<Scenario>, Vec<Call>) {
    let scenario = Arc::new(scenario);
    let calls = Traffic::new(Arc::clone(&scenario)).collect();
    (scenario, calls)
}

fn reports(scenario: &Arc<Scenario>, dirt: Dirt) -> Vec<Report> {
    Reports::new(Arc::clone(scenario), dirt).collect()
}

fn hour() -> Arc<Scenario> {
    Arc::new(Scenario::estate(config(20.0), MONDAY + 9 * HOUR, 1.0 / 24.0).unwrap())
}

#[test]
fn chained_calls_carry_the_request_id_of_the_user_and_happen_within_their_parents_time() {
    let mut scenario = estate(0.5);
    scenario.add_users().chain(0.8);
    let (scenario, calls) = play(scenario);
    let mesh = scenario.mesh();
    let kind = |instance| mesh.service_of(instance).kind;
    let mut requests: BTreeMap<u64, Vec<&Call>> = BTreeMap::new();
    for call in &calls {
        requests.entry(call.request).or_default().push(call);
    }
    let of_users: Vec<_> =
        requests.values().filter(|calls| calls.iter().any(|call| kind(call.source) == Kind::Client)).collect();
    assert!(of_users.len() > 1_000);
    let mean = of_users.iter().map(|calls| calls.len()).sum::<usize>() as f64 / of_users.len() as f64;
    assert!((2.0..12.0).contains(&mean), "{mean} calls a user's request");
    let mut deepest = 0;
    for calls in of_users {
        let root = calls.iter().find(|call| kind(call.source) == Kind::Client).unwrap();
        assert_eq!(root.id, root.request);
        for call in calls.iter().filter(|call| call.id != root.id) {
            let parent = calls.iter().find(|parent| {
                parent.destination == call.source && parent.start <= call.start && call.start <= parent.report()
            });
            assert!(parent.is_some(), "{call:?} has no parent among {calls:?}");
        }
        deepest = deepest.max(calls.iter().map(|call| call.destination).collect::<BTreeSet<_>>().len());
    }
    assert!(deepest >= 4, "{deepest} services in the widest request");
}

#[test]
fn chains_leave_the_rates_as_they_are() {
    let count = |share| {
        let mut scenario = estate(2.0);
        scenario.chain(share);
        let (scenario, calls) = play(scenario);
        let front = |call: &&Call| matches!(scenario.mesh().service_of(call.source).kind, Kind::Api | Kind::Gateway);
        calls.iter().filter(front).count() as f64
    };
    let (apart, chained) = (count(0.0), count(0.7));
    assert!((0.8..1.25).contains(&(chained / apart)), "{apart} {chained}");
}

#[test]
fn users_show_no_certificate_and_the_gateway_passes_their_address_on() {
    let mut scenario = estate(0.2);
    scenario.add_users().chain(0.8);
    let (scenario, calls) = play(scenario);
    let mesh = scenario.mesh();
    let log = AccessLog::new(mesh);
    let root = calls.iter().find(|call| {
        let caused = |other: &&Call| other.request == call.request && other.id != call.id;
        mesh.service_of(call.source).kind == Kind::Client
            && calls.iter().any(|other| caused(&other) && mesh.operation(other.operation).protocol == Protocol::Http)
    });
    let root = root.unwrap();
    let json = |call: &Call| {
        let mut line = Vec::new();
        log.push_inbound(call, &mut line);
        serde_json::from_slice::<serde_json::Value>(&line).unwrap()
    };
    let public = json(root);
    assert!(public["downstream_peer_uri_san"].is_null() && public["downstream_peer_serial"].is_null());
    assert_eq!(public["downstream_tls_version"], "TLSv1.3");
    let next = calls.iter().find(|call| call.request == root.request && call.source == root.destination).unwrap();
    let next = json(next);
    assert_eq!(next["request_id"], public["request_id"]);
    if !next["x_forwarded_for"].is_null() {
        assert_eq!(next["x_forwarded_for"], public["x_forwarded_for"]);
    }
    assert_eq!(public["x_forwarded_for"], mesh.instance(root.source).address.to_string());
}

#[test]
fn peoples_days_follow_their_clocks() {
    // The Sunday on which Europe's clocks go forward.
    let sunday = Millis::from_seconds(1_774_742_400);
    let of_seed = |zone, seed| {
        let mut scenario = Scenario::quiet(MeshConfig { seed, ..config(3.0) }, sunday, 0.4).unwrap();
        scenario.clocks_of(zone);
        let (scenario, calls) = play(scenario);
        let people = calls.iter().filter(|call| scenario.mesh().service_of(call.source).kind == Kind::Gateway);
        people.filter(|call| (sunday + 4 * HOUR..sunday + 8 * HOUR).contains(&call.start)).count() as f64
    };
    let count = |zone| (0..8).map(|seed| of_seed(zone, seed)).sum::<f64>();
    let (there, here) = (count(Zone::CentralEurope), count(Zone::Utc));
    assert!(there > 1.15 * here, "{there} {here}: the morning comes earlier");
}

#[test]
fn clean_reports_are_the_destinations_of_every_call_in_order() {
    let scenario = hour();
    let calls: Vec<Call> = Traffic::new(Arc::clone(&scenario)).collect();
    let clean = reports(&scenario, Dirt::default());
    assert_eq!(clean.len(), calls.len());
    for (report, call) in clean.iter().zip(&calls) {
        assert_eq!((report.call, report.side, report.stage), (*call, Side::Inbound, Stage::Only));
        assert_eq!(report.arrival, call.report());
    }
}

#[test]
fn losses_duplicates_and_delays_are_as_many_as_asked_for() {
    let scenario = hour();
    let total = reports(&scenario, Dirt::default()).len() as f64;
    let share = |dirt: Dirt| reports(&scenario, dirt).len() as f64 / total;
    assert!((share(Dirt { lost: 0.1, ..Dirt::default() }) - 0.9).abs() < 0.01);
    assert!((share(Dirt { duplicated: 0.05, ..Dirt::default() }) - 1.05).abs() < 0.01);
    assert!((share(Dirt { keep: Keep::Share(0.25), ..Dirt::default() }) - 0.25).abs() < 0.02);
    let both = Dirt { reporters: Reporters::Both, lost_at_source: 0.5, ..Dirt::default() };
    assert!((share(both) - 1.5).abs() < 0.02);
    assert!(reports(&scenario, Dirt { keep: Keep::Failures, ..Dirt::default() }).iter().all(|r| r.call.status >= 400));

    let late = reports(&scenario, Dirt { delay: 800.0, stragglers: 0.01, ..Dirt::default() });
    assert!(late.is_sorted_by_key(|report| report.arrival));
    let mut travel: Vec<i64> = late.iter().map(|report| report.arrival - report.call.report()).collect();
    travel.sort_unstable();
    let median = travel[travel.len() / 2];
    assert!((500..1_600).contains(&median), "{median} ms");
    let minutes = travel.iter().filter(|&&travel| travel > MINUTE).count() as f64 / travel.len() as f64;
    assert!((0.005..0.012).contains(&minutes), "{minutes} of the reports are minutes late");
    assert!(travel.iter().all(|&travel| (0..=LONGEST_DELAY).contains(&travel)));
}

#[test]
fn clocks_are_off_by_node_and_not_by_call() {
    let scenario = hour();
    let mesh = scenario.mesh();
    let starts: BTreeMap<u64, Millis> =
        reports(&scenario, Dirt::default()).into_iter().map(|report| (report.call.id, report.call.start)).collect();
    let mut offsets: BTreeMap<u32, BTreeSet<i64>> = BTreeMap::new();
    for report in reports(&scenario, Dirt { skew: 400.0, ..Dirt::default() }) {
        let node = mesh.node_of(report.call.destination);
        offsets.entry(node).or_default().insert(report.call.start - starts[&report.call.id]);
    }
    assert!(offsets.values().all(|offsets| offsets.len() == 1), "{offsets:?}");
    assert!(offsets.values().flatten().any(|offset| offset.abs() > 200));
}

#[test]
fn long_connections_are_told_while_they_are_open_and_never_with_more_than_in_the_end() {
    let mut scenario = Scenario::estate(config(4.0), MONDAY, 0.2).unwrap();
    scenario.attack(Attack::new(AttackKind::Cryptomining, MONDAY + HOUR)).unwrap();
    let scenario = Arc::new(scenario);
    let told = reports(&scenario, Dirt { interim: Some(30 * SECOND), ..Dirt::default() });
    assert!(told.is_sorted_by_key(|report| report.arrival));
    let ended: BTreeMap<u64, &Report> =
        told.iter().filter(|report| report.stage == Stage::Ended).map(|report| (report.call.id, report)).collect();
    let open: Vec<_> = told.iter().filter(|report| report.stage == Stage::Open).collect();
    assert!(open.len() > 100, "{}", open.len());
    for report in open {
        // What is open at the end of the scenario ends after it, and is told all the same.
        let last = ended[&report.call.id];
        assert!(report.arrival < last.arrival && report.call.bytes_out <= last.call.bytes_out);
        assert_eq!(report.call.start, last.call.start);
    }
    let mut line = Vec::new();
    let periodic = told.iter().find(|report| report.stage == Stage::Open).unwrap();
    AccessLog::new(scenario.mesh()).push_report(periodic, &mut line);
    let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(value["access_log_type"], "TcpPeriodic");
    assert!(value["stream_id"].is_string());
}

#[test]
fn of_a_bypassed_proxy_only_the_callers_tell() {
    let mut scenario = estate(0.3);
    let label = scenario.attack(Attack::new(AttackKind::BypassedProxy, MONDAY + 2 * HOUR)).unwrap().clone();
    let scenario = Arc::new(scenario);
    let both = reports(&scenario, Dirt { reporters: Reporters::Both, ..Dirt::default() });
    let within = |report: &&Report| {
        (label.start..label.end).contains(&report.call.start)
            && scenario.mesh().identity(report.call.destination) == label.identities[0]
    };
    let sides: BTreeSet<bool> = both.iter().filter(within).map(|report| report.side == Side::Inbound).collect();
    assert_eq!(sides, BTreeSet::from([false]));
}

#[test]
fn shared_accounts_are_several_workloads_under_one_identity() {
    let mut scenario = estate(0.1);
    scenario.share_accounts(0.4);
    let default: Vec<_> =
        scenario.mesh().services.iter().filter(|service| service.spiffe_id.ends_with("/sa/default")).collect();
    let identities: BTreeSet<_> = default.iter().map(|service| &service.spiffe_id).collect();
    assert!(
        default.len() > 4 && identities.len() < default.len() && identities.len() <= 5,
        "{} {}",
        default.len(),
        identities.len()
    );
}

#[test]
fn every_envelope_is_opened_to_the_line_that_was_put_in_and_tells_of_the_pod() {
    let scenario = hour();
    let mesh = scenario.mesh();
    let log = AccessLog::new(mesh);
    let sample: Vec<Report> = reports(&scenario, Dirt::default()).into_iter().take(300).collect();
    for envelope in Envelope::ALL {
        let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
        let mut builder = EventBuilder::new();
        for (row, report) in sample.iter().enumerate() {
            let (mut line, mut wrapped) = (Vec::new(), Vec::new());
            log.push_report(report, &mut line);
            let pod = Some(report.call.destination);
            let place =
                Place { mesh, pod, container: "istio-proxy", cluster: Some("north"), time: report.call.report() };
            envelope.push(&place, &line, &mut wrapped);
            let read = parser.parse(&wrapped, Position { offset: row as i64, ..Position::default() }, &mut builder);
            assert!(read.is_ok(), "{envelope:?} {read:?}: {}", String::from_utf8_lossy(&wrapped));
        }
        let batch = builder.finish();
        assert_eq!(batch.len(), sample.len(), "{envelope:?}");
        for (row, report) in sample.iter().enumerate() {
            let event = batch.event(row);
            assert_eq!(event.source().principal(), mesh.identity(report.call.source), "{envelope:?}");
            let tells_of_pod =
                matches!(envelope, Envelope::FluentBit | Envelope::Vector | Envelope::Filebeat | Envelope::Otlp);
            // A gateway is the end of no call.
            let is_gateway = mesh.operation(report.call.operation).host.is_some();
            if tells_of_pod && !is_gateway {
                assert_eq!(event.destination().instance(), mesh.instance(report.call.destination).pod, "{envelope:?}");
                assert_eq!(event.destination().version(), mesh.instance(report.call.destination).version);
                assert_eq!(event.destination().cluster(), "north", "{envelope:?}");
            }
        }
    }
}

#[test]
fn every_pod_of_a_service_is_that_workload_by_its_name_and_no_two_have_one_name() {
    for seed in 1..40 {
        let config = MeshConfig { seed, services: 60, calls_per_second: 4.0 };
        let mut scenario = Scenario::estate(config, MONDAY, 14.0).unwrap();
        scenario.churn(2.0, MONDAY, MONDAY + 14 * DAY);
        let mut addresses = BTreeMap::new();
        for instance in &scenario.mesh().instances {
            let service = scenario.mesh().service(instance.service);
            assert_eq!(workload_of_pod(&instance.pod), service.name, "{}", instance.pod);
            // A shell in a pod is that pod.
            let before = addresses.insert((service.namespace, &instance.pod), instance.address);
            assert!(before.is_none_or(|before| before == instance.address), "{} is two pods", instance.pod);
        }
    }
}

/// Workloads at both ends, as they are told apart: by principal and, where the pod is known, its name without the
/// parts made up.
fn workloads(envelope: Envelope, scenario: &Arc<Scenario>, reports: &[Report]) -> BTreeSet<(String, String)> {
    let mesh = scenario.mesh();
    let log = AccessLog::new(mesh);
    let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
    let mut builder = EventBuilder::new();
    for (row, report) in reports.iter().enumerate() {
        let (mut line, mut wrapped) = (Vec::new(), Vec::new());
        log.push_report(report, &mut line);
        let call = &report.call;
        let writer = if report.side == Side::Inbound { call.destination } else { call.source };
        let place = Place { mesh, pod: Some(writer), container: "istio-proxy", cluster: None, time: call.report() };
        envelope.push(&place, &line, &mut wrapped);
        let position = Position { offset: row as i64, ..Position::default() };
        parser.parse(&wrapped, position, &mut builder).unwrap();
    }
    let batch = builder.finish();
    let mut found = BTreeSet::new();
    for row in 0..batch.len() {
        let event = batch.event(row);
        for party in [event.source(), event.destination()] {
            let service = service_of_workload(workload_of_pod(party.instance()), party.version());
            if !service.is_empty() {
                found.insert((party.principal().to_owned(), service.to_owned()));
            }
        }
    }
    found
}

#[test]
fn pods_that_an_envelope_names_are_one_workload_a_service() {
    let mut scenario = Scenario::estate(config(20.0), MONDAY + 9 * HOUR, 1.0 / 24.0).unwrap();
    scenario.churn(60.0, MONDAY + 9 * HOUR, MONDAY + 10 * HOUR);
    let scenario = Arc::new(scenario);
    let both = reports(&scenario, Dirt { reporters: Reporters::Both, ..Dirt::default() });
    for envelope in [Envelope::FluentBit, Envelope::Vector, Envelope::Filebeat, Envelope::Otlp] {
        let found = workloads(envelope, &scenario, &both);
        let principals: BTreeSet<&String> = found.iter().map(|(principal, _)| principal).collect();
        assert!(principals.len() >= 30, "{} principals", principals.len());
        assert_eq!(found.len(), principals.len(), "{envelope:?}: {found:?}");
    }
}

#[test]
fn text_lines_are_read_with_addresses_times_and_outcomes() {
    let scenario = hour();
    let mesh = scenario.mesh();
    let log = AccessLog::new(mesh);
    let both = reports(&scenario, Dirt { reporters: Reporters::Both, ..Dirt::default() });
    let inside = |report: &&Report| mesh.service_of(report.call.destination).kind != Kind::Egress;
    let sample: Vec<&Report> = both.iter().filter(inside).take(4_000).collect();
    let mut parser = Parser::for_format(Format::IstioText, None).unwrap();
    let mut builder = EventBuilder::new();
    let mut line = Vec::new();
    for (row, report) in sample.iter().enumerate() {
        line.clear();
        log.push_text(report, &mut line);
        let read = parser.parse(&line, Position { offset: row as i64, ..Position::default() }, &mut builder);
        assert!(read.is_ok(), "{read:?}: {}", String::from_utf8_lossy(&line));
    }
    let batch = builder.finish();
    for (row, report) in sample.iter().enumerate() {
        let (event, call) = (batch.event(row), report.call);
        assert_eq!(event.start().0, call.start.0 * 1_000_000);
        if mesh.service_of(call.source).kind != Kind::Gateway {
            // A gateway passes on its user's address, and the text has no other.
            assert_eq!(event.source().ip(), mesh.instance(call.source).address.to_string());
        }
        assert_eq!((event.bytes_in(), event.bytes_out()), (Some(call.bytes_in), Some(call.bytes_out)));
        assert_eq!(event.outcome() == Outcome::Success, call.status < 400, "{call:?}");
        assert_eq!(event.reporter() == Reporter::Source, report.side == Side::Outbound);
    }
}

#[test]
fn a_switch_changes_nothing_but_what_it_is_about() {
    let scenario = hour();
    let clean: BTreeSet<u64> = reports(&scenario, Dirt::default()).iter().map(|report| report.call.id).collect();
    let lossy = reports(&scenario, Dirt { lost: 0.2, delay: 300.0, skew: 50.0, ..Dirt::default() });
    let again = reports(&scenario, Dirt { lost: 0.2, ..Dirt::default() });
    let ids = |reports: &[Report]| reports.iter().map(|report| report.call.id).collect::<BTreeSet<_>>();
    assert!(ids(&lossy).is_subset(&clean));
    assert_eq!(ids(&lossy), ids(&again), "which reports are lost does not depend on how late they are");
}
