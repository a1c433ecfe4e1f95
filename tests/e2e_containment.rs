//! Whether a denial holds, by what real Envoys tell: contained, and where a proxy goes on to serve, not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{process::Command, time::Duration};

use serde_json::Value;
use support::{
    caller::Caller,
    envoy::{Envoy, Sidecar, Slot},
    mesh::{BYSTANDER, DEVIATING, Mesh, Settings},
    operator::{Person, journalled},
    parts::{Part, present},
    wait::{PATIENCE, until, until_true},
};

/// What is not proven is told after a minute.
const MINUTES: Duration = Duration::from_secs(240);
/// Between two looks, and longer than telemetry takes.
const PAUSE: Duration = Duration::from_secs(2);

/// Sessions are ended where a denial does not hold; here it is only told what would be done.
const KEPT_FOR_LEAKS: &str = r#"
[[hook]]
name = "sessions"
when = "leaking"
[hook.webhook]
endpoint = { url = "http://127.0.0.1:9" }
act = { method = "POST", path = "/sessions/{principal}/end" }
notifies = true
"#;

/// The latest of what the journal says of how far a decision has come, at such a moment.
fn told(mesh: &Mesh, identity: &str, decision: &str, moment: &str) -> Option<Value> {
    let records = journalled(mesh.qualm.folder(), identity);
    let timelines = records.iter().filter(|record| record["payload"]["command"] == "containment");
    let mut timelines = timelines.map(|record| &record["payload"]["timeline"]);
    timelines.rfind(|of| of["decision"] == decision && of["moment"] == moment).cloned()
}

fn explained(mesh: &Mesh) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qualm"));
    let output = command.args(["explain", &mesh.pair.caller]).current_dir(mesh.qualm.folder()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_denial_is_contained_once_telemetry_shows_it_and_one_proxy_that_serves_on_is_named() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mesh = Mesh::start(Settings { lease: "20m", more: KEPT_FOR_LEAKS, ..Settings::default() });
    let otto = Person::new(&mesh.authority, "otto", mesh.qualm.folder());
    let hooked = || otto.done(&["hooks", "list"]).to_string().contains("dry run");
    let mut deviating = mesh.open(DEVIATING);
    let mut bystander = mesh.open(BYSTANDER);
    let decision = mesh.deviate_until_denied(&mut deviating);
    // The bystander's sidecar may stand before a destination of the deviating one: that it hears nothing of that must show.
    std::thread::sleep(2 * PAUSE);
    assert_eq!(mesh.usual(BYSTANDER, &mut bystander), 200);
    until_true("the denial is proven", PATIENCE, || {
        assert_eq!(mesh.usual(DEVIATING, &mut deviating), 403);
        std::thread::sleep(PAUSE);
        mesh.qualm.metric("qualm_not_contained") == Some(0.0)
    });
    let caller = mesh.pair.caller.clone();
    let contained = until("it is in the journal", PATIENCE, || told(&mesh, &caller, &decision, "contained"));
    let time = |key: &str| contained[key].as_i64().unwrap_or_else(|| panic!("no {key} in {contained}"));
    assert!(time("event") <= time("crossed") && time("crossed") <= time("pushed"), "{contained}");
    assert!(time("pushed") <= time("first_acknowledged") && time("first_denied") <= time("contained"), "{contained}");
    assert_eq!(contained["state"], "effective");
    assert!(mesh.qualm.metric("qualm_time_to_contain_seconds_count") >= Some(1.0));
    let text = explained(&mesh);
    assert!(text.contains("contained  effective at") && text.contains("first denied"), "{text}");
    assert!(text.contains("no proxy there enforces"), "most of the mesh has no Envoy here: {text}");

    assert!(!hooked(), "a hook that is kept for leaks has nothing to do");

    // Another replica of the called whose filters ask a cluster that does not exist, as Envoy allows.
    let ports = mesh.ports.clone();
    let unwired = Sidecar { slot: Slot::NoCluster, ..Sidecar::before(&mesh.pair.called, 9, Some(ports)) };
    let node = unwired.node.clone();
    let unwired = Envoy::start(mesh.folder.path(), &mesh.authority, unwired);
    let around = Caller::new(&mesh.authority, &caller, DEVIATING, &mesh.pair.called);
    let mut open = around.connect(unwired.http()).unwrap();
    let (method, path) = mesh.pair.usual[0].clone();
    let leaking = until("the leak is told", MINUTES, || {
        assert_eq!(open.request(&method, &path).unwrap().status, 200);
        assert_eq!(mesh.usual(DEVIATING, &mut deviating), 403);
        std::thread::sleep(PAUSE);
        told(&mesh, &caller, &decision, "leaking")
    });
    assert_eq!(leaking["worst"], serde_json::json!([node]), "{leaking}");
    assert!(leaking["served"].as_u64() > Some(0), "{leaking}");
    assert!(mesh.qualm.metric("qualm_successful_calls_after_crossing_total") > Some(0.0));
    until_true("the hook that is kept for leaks is asked", PATIENCE, hooked);
    until_true("people are told, with the proxy's name", PATIENCE, || {
        let findings = mesh.findings_about(&caller).into_values().flatten();
        findings.into_iter().any(|finding| finding.to_string().contains(&node))
    });
    assert!(explained(&mesh).contains(&format!("not contained at {node}")));

    // Whoever asks the running instance is told the same, and so is who asks the next one.
    let shown = |what: &str| {
        let shown = otto.done(&["show", &caller]);
        let of = shown["containment"].as_array().and_then(|of| of.first()).cloned().unwrap_or_default();
        assert_eq!((&of["decision"], &of["escalated"]), (&decision.as_str().into(), &true.into()), "{what}: {shown}");
        of
    };
    let before = shown("before");
    assert_eq!((&before["state"], &before["not_contained_at"][0]), (&"leaking".into(), &node.as_str().into()));
    let mut mesh = mesh;
    mesh.qualm.kill();
    mesh.qualm.start_again();
    let after = shown("after a restart");
    for key in ["event", "crossed", "pushed", "first_denied", "contained"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert!(after["denied"].as_u64() >= Some(1) && after["served"].as_u64() >= leaking["served"].as_u64(), "{after}");

    // Lifted: nothing is to be contained any more.
    otto.done(&["lift", &caller, "--reason", "the drill is over", "--hold", "10m"]);
    until("its end is told", PATIENCE, || told(&mesh, &caller, &decision, "ended"));
    until_true("nothing is open", PATIENCE, || mesh.qualm.metric("qualm_not_contained") == Some(0.0));
    mesh.qualm.check_metrics();
}
