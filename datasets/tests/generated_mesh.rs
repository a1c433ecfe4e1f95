//! What a generated mesh promises, seen from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use qualm_datasets::{
    AccessLog, Attack, AttackKind, Call, Cause, ChangeKind, HonestChange, MeshConfig, Millis, Scenario, Traffic,
    calendar::{DAY, HOUR, MINUTE},
    istio::{IDENTITY_KEYS, ISTIO_KEYS},
    mesh::{Kind, Pattern, Protocol},
};
use serde_json::Value;

/// Monday, 2026-01-05T00:00:00Z.
const MONDAY: Millis = Millis::from_seconds(1_767_571_200);

fn config(seed: u64) -> MeshConfig {
    MeshConfig { seed, ..MeshConfig::default() }
}

fn quiet(seed: u64, days: f64) -> Scenario {
    Scenario::quiet(config(seed), MONDAY, days).expect("the default configuration is in range")
}

fn play(scenario: Scenario) -> (Arc<Scenario>, Vec<Call>) {
    let scenario = Arc::new(scenario);
    let calls = Traffic::new(Arc::clone(&scenario)).collect();
    (scenario, calls)
}

fn lines(scenario: Scenario) -> Vec<u8> {
    let (scenario, calls) = play(scenario);
    let log = AccessLog::new(scenario.mesh());
    let mut out = Vec::new();
    for call in &calls {
        log.push_inbound(call, &mut out);
        out.push(b'\n');
    }
    out
}

fn estate(seed: u64, days: f64) -> Scenario {
    Scenario::estate(config(seed), MONDAY, days).expect("the default configuration is in range")
}

/// A day with many changes and, from its seventh hour on, every kind of attack.
fn busy(seed: u64) -> Scenario {
    let mut scenario = estate(seed, 2.0);
    scenario.churn_of(&ChangeKind::ALL, 8.0, MONDAY, MONDAY + DAY);
    for (number, kind) in AttackKind::ALL.into_iter().enumerate() {
        scenario.attack(Attack::new(kind, MONDAY + 6 * HOUR + number as i64 * 20 * MINUTE)).expect("a target");
    }
    scenario
}

fn json(push: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut line = Vec::new();
    push(&mut line);
    serde_json::from_slice(&line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&line)))
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    let first = lines(busy(5));
    assert!(first == lines(busy(5)), "two runs of one seed differ");
    assert!(first != lines(busy(6)), "two seeds give the same traffic");
}

#[test]
fn every_line_is_json_with_the_24_keys_of_istio_and_the_identities() {
    let (scenario, calls) = play(busy(1));
    let log = AccessLog::new(scenario.mesh());
    let mut bytes = 0;
    for call in &calls {
        let mut line = Vec::new();
        log.push_inbound(call, &mut line);
        bytes += line.len();
        let value: BTreeMap<String, Value> = serde_json::from_slice(&line).unwrap();
        assert!(ISTIO_KEYS.iter().chain(&IDENTITY_KEYS).all(|&key| value.contains_key(key)), "{value:?}");
        assert_eq!(value.len(), ISTIO_KEYS.len() + IDENTITY_KEYS.len());
        if scenario.mesh().instance(call.source).shows_certificate() {
            assert_eq!(value["downstream_peer_uri_san"], scenario.mesh().identity(call.source));
        }
        assert_eq!(value["downstream_local_uri_san"], scenario.mesh().identity(call.destination));
        assert_eq!(value["start_time"], call.start.to_string());
        assert_eq!(value["duration"], call.duration);
    }
    let mean = bytes / calls.len();
    assert!((900..1_200).contains(&mean), "{mean} bytes a line");
}

#[test]
fn both_proxies_report_one_request_id_and_the_source_knows_only_the_peer() {
    let (scenario, calls) = play(quiet(1, 0.05));
    let mesh = scenario.mesh();
    let log = AccessLog::new(mesh);
    let call = calls.iter().find(|call| mesh.service_of(call.destination).kind == Kind::Api).expect("a call to an API");
    let inbound = json(|out| log.push_inbound(call, out));
    let outbound = json(|out| log.push_outbound(call, out));
    assert_eq!(inbound["request_id"], outbound["request_id"]);
    assert_eq!(outbound["downstream_peer_uri_san"], Value::Null);
    assert_eq!(outbound["downstream_peer_serial"], Value::Null);
    assert_eq!(outbound["upstream_peer_uri_san"], inbound["downstream_local_uri_san"]);
    assert_eq!(outbound["upstream_local_uri_san"], inbound["downstream_peer_uri_san"]);
    assert!(outbound["upstream_cluster"].as_str().unwrap().starts_with("outbound|8080||"));
}

#[test]
fn a_denied_call_is_403_with_the_policy_and_nothing_upstream() {
    let (scenario, calls) = play(quiet(1, 0.05));
    let mesh = scenario.mesh();
    let log = AccessLog::new(mesh);
    let by_protocol =
        |tcp: bool| calls.iter().find(|call| (mesh.operation(call.operation).protocol == Protocol::Tcp) == tcp);
    let http = json(|out| log.push_denied(by_protocol(false).unwrap(), "qualm-deny/01ab", out));
    assert_eq!(http["response_code"], 403);
    assert_eq!(http["response_code_details"], "rbac_access_denied_matched_policy[qualm-deny/01ab]");
    assert_eq!(http["upstream_host"], Value::Null);
    let tcp = json(|out| log.push_denied(by_protocol(true).unwrap(), "qualm-deny/01ab", out));
    assert_eq!(tcp["response_code"], 0);
    assert_eq!(tcp["connection_termination_details"], "rbac_access_denied_matched_policy[qualm-deny/01ab]");
    assert_eq!(tcp["bytes_sent"], 0);
}

#[test]
fn the_certificates_validity_is_shown_on_demand_and_holds_at_every_honest_call() {
    let (scenario, calls) = play(quiet(1, 1.0));
    let log = AccessLog::with_validity(scenario.mesh());
    let mut serials: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for call in calls.iter().step_by(50) {
        let value = json(|out| log.push_inbound(call, out));
        let text = |key: &str| value[key].as_str().unwrap().to_owned();
        assert!(text("downstream_peer_cert_v_start") <= text("start_time"));
        assert!(text("start_time") < text("downstream_peer_cert_v_end"));
        serials.entry(call.source).or_default().insert(text("downstream_peer_serial"));
    }
    assert!(serials.values().all(|serials| serials.len() <= 3), "rotated more often than every 12 h");
    assert!(serials.values().any(|serials| serials.len() > 1), "never rotated");
}

#[test]
fn the_configured_rate_is_kept_over_a_week() {
    let (_, calls) = play(quiet(3, 7.0));
    let rate = calls.len() as f64 / (7.0 * 86_400.0);
    assert!((1.7..2.3).contains(&rate), "{rate} calls a second for 2 configured");
}

#[test]
fn users_sleep_at_night_and_scrapers_do_not() {
    let (scenario, calls) = play(quiet(3, 4.0));
    let count = |kind, hours: std::ops::Range<i64>| {
        let within = |call: &&Call| hours.contains(&(call.start.of_day() / HOUR));
        calls.iter().filter(within).filter(|call| scenario.mesh().service_of(call.source).kind == kind).count() as f64
    };
    assert!(count(Kind::Gateway, 12..16) > 2.0 * count(Kind::Gateway, 0..4));
    let scrapes = count(Kind::Scraper, 12..16) / count(Kind::Scraper, 0..4);
    assert!((0.95..1.05).contains(&scrapes), "{scrapes}");
}

#[test]
fn counts_a_minute_are_over_dispersed() {
    let (scenario, calls) =
        play(Scenario::quiet(MeshConfig { seed: 9, services: 40, calls_per_second: 20.0 }, MONDAY, 0.5).unwrap());
    let steady =
        scenario.mesh().edges.iter().filter(|edge| matches!(edge.pattern, Pattern::Steady { rate } if rate > 0.2));
    let mut checked = 0;
    for edge in steady {
        let mut minutes = vec![0.0_f64; 60];
        for call in &calls {
            let minute = (call.start - (MONDAY + 10 * HOUR)) / MINUTE;
            let (source, destination) =
                (scenario.mesh().instance(call.source), scenario.mesh().instance(call.destination));
            if (0..60).contains(&minute) && (source.service, destination.service) == (edge.source, edge.destination) {
                minutes[minute as usize] += 1.0;
            }
        }
        let mean = minutes.iter().sum::<f64>() / 60.0;
        let variance = minutes.iter().map(|count| (count - mean) * (count - mean)).sum::<f64>() / 59.0;
        assert!(variance / mean > 1.2, "dispersion {} at mean {mean}", variance / mean);
        checked += 1;
    }
    assert!(checked >= 10, "{checked} busy edges");
}

#[test]
fn labels_cover_the_attack_calls_and_name_who_makes_them() {
    let (scenario, calls) = play(busy(2));
    let mut seen = BTreeMap::new();
    for call in &calls {
        let Cause::Attack(index) = call.cause else { continue };
        let label = &scenario.attacks()[index as usize];
        assert!(label.start <= call.start && call.start <= label.end, "{label:?} {call:?}");
        assert!(label.identities.iter().any(|identity| identity == scenario.mesh().identity(call.source)));
        *seen.entry(label.kind).or_insert(0) += 1;
    }
    // A silence and a bypassed proxy are made of no calls.
    assert_eq!(seen.len(), AttackKind::ALL.len() - 2, "{seen:?}");
    assert!(seen.values().all(|&calls| calls >= 5), "{seen:?}");
    assert!(scenario.attacks().iter().flat_map(|label| &label.identities).collect::<BTreeSet<_>>().len() > 20);
}

#[test]
fn an_attack_does_not_change_the_traffic_of_anybody_else() {
    let (quiet, undisturbed) = play(estate(4, 0.2));
    for kind in AttackKind::ALL {
        let mut attacked = estate(4, 0.2);
        let label = attacked.attack(Attack::new(kind, MONDAY + HOUR)).unwrap().clone();
        let (_, calls) = play(attacked);
        // Of one that is silenced, its own calls are missing.
        let is_silenced =
            |instance| kind == AttackKind::Silenced && quiet.mesh().identity(instance) == label.identities[0].as_str();
        let others = |call: &&Call| !is_silenced(call.source) && !is_silenced(call.destination);
        let left = calls.iter().filter(|call| !call.is_attack()).filter(others);
        assert!(left.eq(undisturbed.iter().filter(others)), "{kind:?}");
    }
}

#[test]
fn intensity_makes_more_of_it_and_pace_makes_it_faster() {
    let attack = |intensity, pace| {
        let mut scenario = quiet(4, 0.5);
        let attack = Attack::new(AttackKind::LateralMove, MONDAY + HOUR).intensity(intensity).pace(pace);
        let label = scenario.attack(attack).unwrap().clone();
        let (_, calls) = play(scenario);
        (calls.iter().filter(|call| call.is_attack()).count(), label.end - label.start)
    };
    let (usual, strong, fast) = (attack(1.0, 1.0), attack(3.0, 1.0), attack(1.0, 2.0));
    assert_eq!(strong.0, 3 * usual.0);
    assert_eq!((fast.0, 2 * fast.1), usual);
}

#[test]
fn a_stolen_identity_shows_another_address_and_tls_stack_and_a_replay_the_same_serial() {
    for kind in [AttackKind::StolenIdentity, AttackKind::ReplayedCredential] {
        let mut scenario = quiet(4, 0.3);
        scenario.attack(Attack::new(kind, MONDAY + 2 * HOUR)).unwrap();
        let (scenario, calls) = play(scenario);
        let mesh = scenario.mesh();
        let thief = calls.iter().find(|call| call.is_attack()).unwrap();
        let owner = mesh.service_of(thief.source);
        let own: Vec<_> = owner.replicas.iter().map(|&id| mesh.instance(id)).collect();
        let stolen = mesh.instance(thief.source);
        assert!(own.iter().all(|own| own.address != stolen.address && own.ja4 != stolen.ja4));
        let shared = own.iter().any(|own| own.credential(thief.start) == stolen.credential(thief.start));
        assert_eq!(shared, kind == AttackKind::ReplayedCredential);
    }
}

#[test]
fn a_deployment_replaces_every_replica_and_brings_new_edges() {
    let mut scenario = quiet(4, 0.5);
    scenario.change(HonestChange::new(ChangeKind::Deployment, MONDAY + 6 * HOUR)).unwrap();
    let (scenario, calls) = play(scenario);
    let label = &scenario.changes()[0];
    let of = |call: &&Call| label.identities[0] == scenario.mesh().identity(call.source);
    let before = calls.iter().filter(of).filter(|call| call.start < label.start);
    let after = calls.iter().filter(of).filter(|call| call.start > label.start + 20 * MINUTE);
    let versions = |calls: Vec<&Call>| {
        calls.iter().map(|call| scenario.mesh().instance(call.source).version.clone()).collect::<BTreeSet<_>>()
    };
    let peers = |calls: &[&Call]| {
        calls.iter().map(|call| scenario.mesh().instance(call.destination).service).collect::<BTreeSet<_>>()
    };
    let (before, after): (Vec<_>, Vec<_>) = (before.collect(), after.collect());
    assert!(peers(&after).difference(&peers(&before)).count() >= 1);
    let (old, new) = (versions(before), versions(after));
    assert_eq!((old.len(), new.len()), (1, 1));
    assert_ne!(old, new);
}

#[test]
fn an_outage_makes_calls_fail_and_callers_retry() {
    let mut scenario = quiet(4, 0.5);
    scenario.change(HonestChange::new(ChangeKind::DependencyOutage, MONDAY + 10 * HOUR)).unwrap();
    let (scenario, calls) = play(scenario);
    let label = &scenario.changes()[0];
    let failed = |from: Millis, until: Millis| {
        let hit = calls.iter().filter(|call| (from..until).contains(&call.start));
        let hit: Vec<_> =
            hit.filter(|call| scenario.mesh().identity(call.destination) == label.identities[0]).collect();
        (hit.iter().filter(|call| call.status >= 500).count() as f64 / hit.len() as f64, hit.len())
    };
    let (during, _) = failed(label.start + MINUTE, label.end);
    let (before, _) = failed(MONDAY, label.start);
    assert!(during > 0.4 && before < 0.05, "{during} {before}");
}

#[test]
fn every_kind_of_change_finds_a_service() {
    let mut scenario = estate(8, 1.0);
    for kind in ChangeKind::ALL {
        assert!(scenario.change(HonestChange::new(kind, MONDAY + 6 * HOUR)).is_some(), "{kind:?}");
    }
    let (scenario, calls) = play(scenario);
    for call in calls {
        let Cause::Change(index) = call.cause else { continue };
        let label = &scenario.changes()[index as usize];
        assert!(label.start <= call.start && call.start <= label.end, "{label:?}");
    }
}

#[test]
fn a_silenced_identity_is_heard_of_no_more_until_it_is_again() {
    let mut scenario = estate(4, 0.3);
    let label = scenario.attack(Attack::new(AttackKind::Silenced, MONDAY + 2 * HOUR)).unwrap().clone();
    let (scenario, calls) = play(scenario);
    let of = |instance| scenario.mesh().identity(instance) == label.identities[0];
    let count = |from, until| {
        let within = calls.iter().filter(|call| (from..until).contains(&call.start));
        within.filter(|call| of(call.source) || of(call.destination)).count()
    };
    assert_eq!(label.end, MONDAY + 4 * HOUR);
    assert!(count(MONDAY, label.start) > 10);
    assert_eq!(count(label.start, label.end), 0);
    assert!(count(label.end, scenario.end()) > 10);
}

#[test]
fn papers_that_do_not_add_up_are_seen_in_the_log() {
    for kind in [AttackKind::ExpiredCertificate, AttackKind::PrematureCertificate, AttackKind::PlainText] {
        let mut scenario = estate(4, 0.3);
        scenario.attack(Attack::new(kind, MONDAY + 2 * HOUR)).unwrap();
        let (scenario, calls) = play(scenario);
        let log = AccessLog::with_validity(scenario.mesh());
        let call = calls.iter().find(|call| call.is_attack()).unwrap();
        let value = json(|out| log.push_inbound(call, out));
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        match kind {
            AttackKind::ExpiredCertificate => assert!(text("downstream_peer_cert_v_end") < text("start_time")),
            AttackKind::PrematureCertificate => assert!(text("start_time") < text("downstream_peer_cert_v_start")),
            _ => {
                let absent = ["downstream_peer_uri_san", "downstream_peer_serial", "downstream_tls_version"];
                assert!(absent.iter().all(|key| value[key].is_null()), "{value}");
            }
        }
    }
}

#[test]
fn a_new_issuer_gives_every_workload_a_new_certificate_within_the_hour() {
    let mut scenario = estate(4, 0.5);
    let change = HonestChange::new(ChangeKind::IssuerRotation, MONDAY + 3 * HOUR);
    scenario.change(change).unwrap();
    let before = |instance: &qualm_datasets::mesh::Instance| instance.credential(MONDAY + (3 * HOUR - 1));
    for instance in &scenario.mesh().instances {
        let after = instance.credential(MONDAY + 4 * HOUR);
        assert_ne!(before(instance).serial, after.serial);
        assert!(after.not_before >= MONDAY + 2 * HOUR);
    }
}

#[test]
fn the_demo_is_quiet_for_eight_days_and_then_is_not() {
    for seed in 0..20 {
        let scenario = Scenario::demo(seed, MONDAY).unwrap();
        assert_eq!(scenario.end() - scenario.start(), 8 * DAY + HOUR);
        assert_eq!(scenario.attacks().len(), 5, "seed {seed}");
        assert!(scenario.attacks().iter().all(|label| label.start >= MONDAY + 8 * DAY && label.end < scenario.end()));
        let attacked: BTreeSet<_> = scenario.attacks().iter().flat_map(|label| &label.identities).collect();
        let deployed = scenario.changes().last().unwrap();
        assert_eq!((deployed.kind, attacked.len()), ("deployment", 5), "seed {seed}");
        assert!(!attacked.contains(&deployed.identities[0]), "seed {seed}: the deployment is somebody's victim");
    }
}
