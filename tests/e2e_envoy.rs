//! The main job, end to end, on real Envoys: an identity that stops behaving like itself is denied, for a limited time,
//! with the reason; nothing else changes for anyone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use qualm_scorer::enforce::xds::policy::SHADOW_PREFIX;
use serde_json::Value;
use support::{
    caller::{Caller, Connection},
    envoy::{Envoy, Sidecar, Slot},
    mesh::{BYSTANDER, DEVIATING, Mesh, SIBLING, Settings, until_armed, until_enforcing},
    operator::exported,
    parts::{Part, present},
    qualm::{check, explain},
    wait::{PATIENCE, until_true},
};

/// Long enough for a dead Qualm to be started again, short enough to be waited for.
const SHORT_LEASE: &str = "25s";

/// The answers that a usual call of [`DEVIATING`] gets, over and over on one connection, while something happens.
fn while_probing(mesh: &mut Mesh, connection: &mut Connection, happens: impl FnOnce(&mut Mesh)) -> Vec<u16> {
    let (method, path) = mesh.pair.usual[0].clone();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let probe = scope.spawn(|| {
            let mut answers = Vec::new();
            while !over.load(Ordering::Acquire) {
                answers.push(connection.request(&method, &path).unwrap().status);
                thread::sleep(Duration::from_millis(20));
            }
            answers
        });
        happens(mesh);
        over.store(true, Ordering::Release);
        probe.join().unwrap()
    })
}

#[test]
fn a_deviating_replica_is_denied_on_its_open_connection_and_nobody_else_is() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mesh = Mesh::start(Settings::default());
    let mut deviating = mesh.open(DEVIATING);
    let mut sibling = mesh.open(SIBLING);
    let mut bystander = mesh.open(BYSTANDER);

    let decision = mesh.deviate_until_denied(&mut deviating);

    assert_eq!(mesh.usual(DEVIATING, &mut deviating), 403, "also what it has always asked for");
    assert_eq!(mesh.usual(SIBLING, &mut sibling), 200);
    assert_eq!(mesh.usual(BYSTANDER, &mut bystander), 200);
    mesh.open(SIBLING);
    mesh.open(BYSTANDER);
    let finding = mesh.finding_with(&decision);
    let (_, account) = mesh.pair.caller.rsplit_once('/').unwrap();
    assert!(finding["message"].as_str().unwrap().contains(account), "{finding}");
    assert_eq!(mesh.decisions(), [decision], "one decision");
    for line in mesh.denials() {
        assert!(line["downstream_remote_address"].as_str().unwrap().starts_with("127.0.0.2:"), "{line}");
        assert_eq!(line["downstream_peer_uri_san"], mesh.pair.caller);
    }
    until_true("our own denials are recognised", PATIENCE, || {
        mesh.qualm.metric("qualm_events_own_action_total") > Some(0.0)
    });
    let node = &mesh.sidecar.sidecar().node;
    until_true("the journal knows which node has acknowledged what", PATIENCE, || {
        let exported = exported(mesh.qualm.folder());
        let acknowledged = exported.iter().filter_map(|record| record["payload"]["acknowledged"].as_array());
        acknowledged.flatten().any(|of| of["node"] == *node && of["version"].as_u64() > Some(0))
    });
    mesh.qualm.check_metrics();
}

/// What ALS brought since the last snapshot dies with the process: the decision is the journal's, and stands until its
/// lease ends; then nothing speaks for another.
#[test]
fn killed_and_started_again_it_leaves_no_gap_repeats_no_decision_and_lets_the_lease_end() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Settings { lease: SHORT_LEASE, snapshot_every: "1h", ..Settings::default() });
    let mut deviating = mesh.open(DEVIATING);
    let decision = mesh.deviate_until_denied(&mut deviating);

    mesh.qualm.kill();
    let answers = while_probing(&mut mesh, &mut deviating, |mesh| {
        mesh.qualm.start_again();
        until_armed(&mut mesh.qualm);
        until_enforcing(&mut mesh.qualm, 2);
    });
    assert!(answers.len() > 10 && answers.iter().all(|status| *status == 403), "no gap: {answers:?}");

    until_true("the lease ends", PATIENCE, || mesh.usual(DEVIATING, &mut deviating) == 200);
    assert_eq!(mesh.decisions(), [decision.as_str()], "one decision, issued once");
    until_true("the finding is closed", PATIENCE, || {
        let findings = mesh.findings_about(&mesh.pair.caller);
        findings.into_values().flatten().any(|finding| finding["activity_name"] == "Close")
    });
    assert_eq!(mesh.findings_about(&mesh.pair.caller).len(), 1, "one episode is one finding");
    mesh.qualm.stop();
    let found = check(mesh.qualm.folder());
    assert!(found.contains("each hash fits"), "{found}");
}

#[test]
fn a_qualm_that_is_killed_and_never_returns_leaves_no_denial_behind() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Settings { lease: SHORT_LEASE, ..Settings::default() });
    let mut deviating = mesh.open(DEVIATING);
    mesh.deviate_until_denied(&mut deviating);

    mesh.qualm.kill();

    assert_eq!(mesh.usual(DEVIATING, &mut deviating), 403);
    until_true("the time to live ends", PATIENCE, || mesh.usual(DEVIATING, &mut deviating) == 200);
}

#[test]
fn whoever_does_not_enforce_is_named_with_the_cause() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mesh = Mesh::start(Settings::default());
    let refusing = Sidecar { slot: Slot::OtherFilter, ..Sidecar::new("refusing", 0, Some(mesh.ports.clone())) };
    let refusing = Envoy::start(mesh.folder.path(), &mesh.authority, refusing);
    // It reports and knows no cluster for its policies: Envoy accepts that without a word.
    let unwired = Sidecar { slot: Slot::NoCluster, ..Sidecar::new("unwired", 0, Some(mesh.ports.clone())) };
    let unwired = Envoy::start(mesh.folder.path(), &mesh.authority, unwired);
    for envoy in [&refusing, &unwired] {
        let caller = Caller::new(&mesh.authority, &mesh.pair.caller, SIBLING, &envoy.sidecar().id);
        let answer = caller.connect(envoy.http()).unwrap().get("/").unwrap();
        assert_eq!(answer.status, 200, "a proxy that cannot enforce still serves");
    }

    until_true("the refusal is counted", PATIENCE, || {
        mesh.qualm.metric(r#"qualm_rejections_total{enforcer="xds"}"#) >= Some(1.0)
    });
    let said = |words: &[&str]| mesh.qualm.output().lines().any(|line| words.iter().all(|word| line.contains(word)));
    until_true("the log names who refused and why", PATIENCE, || {
        said(&["refused the table", &refusing.sidecar().node, "RBAC"])
    });
    until_true("the log names who reports and has never subscribed", PATIENCE, || {
        said(&["report calls and are not enforcing", &unwired.sidecar().node, "never subscribed"])
    });
    assert!(!said(&["are not enforcing", &mesh.sidecar.sidecar().node]), "who enforces is not accused");
    let proxies = |which: &str| mesh.qualm.metric(&format!("qualm_proxies_{which}"));
    until_true("coverage has a gap", PATIENCE, || proxies("enforcing") < proxies("reporting"));
    mesh.qualm.check_metrics();
}

#[test]
fn in_shadow_mode_the_mesh_s_own_log_says_who_would_have_been_denied() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mesh = Mesh::start(Settings { mode: "shadow", ..Settings::default() });
    let mut deviating = mesh.open(DEVIATING);
    let shadow = |line: &Value| line["dynamic_metadata"]["envoy.filters.http.rbac"].clone();

    mesh.deviate(&mut deviating, "a call is marked after the quarantine", |_| {
        let quarantined = mesh.qualm.metric(r#"qualm_trust_entries{level="quarantined"}"#) >= Some(1.0);
        quarantined && mesh.sidecar.log_lines().iter().any(|line| shadow(line).is_object())
    });

    assert_eq!(mesh.usual(DEVIATING, &mut deviating), 200);
    let marked = mesh.sidecar.logged("who would have been denied", |line| {
        let policy = shadow(line)["qualm_shadow_effective_policy_id"].clone();
        line["response_code"] == 200 && policy.as_str().is_some_and(|policy| policy.starts_with(SHADOW_PREFIX))
    });
    assert_eq!(shadow(&marked)["qualm_shadow_engine_result"], "denied");
    assert_eq!(marked["downstream_peer_uri_san"], mesh.pair.caller);
    assert_eq!(mesh.denials(), Vec::<Value>::new(), "nothing is denied");
}

#[test]
fn an_operator_who_turns_to_enforcement_denies_what_stands_and_who_turns_back_lifts_it() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mesh = Mesh::start(Settings { mode: "shadow", ..Settings::default() });
    let mut deviating = mesh.open(DEVIATING);
    mesh.deviate(&mut deviating, "it is quarantined in shadow", |_| {
        mesh.qualm.metric(r#"qualm_trust_entries{level="quarantined"}"#) >= Some(1.0)
    });
    assert_eq!(mesh.usual(DEVIATING, &mut deviating), 200);
    let shadow = fs::read_to_string(mesh.qualm.folder().join("qualm.toml")).unwrap();

    mesh.qualm.reload(&shadow.replace("mode = \"shadow\"", "mode = \"enforce\""));
    until_true("what stands is denied", PATIENCE, || mesh.usual(DEVIATING, &mut deviating) == 403);
    let explained = explain(mesh.qualm.folder(), &mesh.pair.caller);
    assert!(explained.contains("quarantined, enforced, until"), "{explained}");

    mesh.qualm.reload(&shadow);
    until_true("it is lifted", PATIENCE, || mesh.usual(DEVIATING, &mut deviating) == 200);
    let explained = explain(mesh.qualm.folder(), &mesh.pair.caller);
    assert!(explained.contains("quarantined, in shadow only, until"), "{explained}");
    assert_eq!(mesh.findings_about(&mesh.pair.caller).len(), 1, "one episode is one finding");
}
