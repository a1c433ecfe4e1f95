//! An operator's hand on real Envoys: what is set by hand is denied, what is lifted passes again, and a pause lets
//! everybody pass, each in the journal with who.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::Ipv4Addr;

use serde_json::Value;
use support::{
    caller::Connection,
    mesh::{BYSTANDER, DEVIATING, Mesh, SIBLING, Settings, until_enforcing},
    operator::{Person, journalled},
    parts::{Part, present},
    wait::{PATIENCE, until_true},
};

fn person(mesh: &Mesh, account: &str) -> Person {
    Person::new(&mesh.authority, account, mesh.qualm.folder())
}

/// Waits until a usual call is answered so.
fn comes_to(mesh: &Mesh, source: Ipv4Addr, connection: &mut Connection, status: u16) {
    until_true(&format!("{source} is answered {status}"), PATIENCE, || mesh.usual(source, connection) == status);
}

/// Who has asked for what, by the journal.
fn asked(mesh: &Mesh) -> Vec<(String, String)> {
    let records = journalled(mesh.qualm.folder(), &mesh.pair.caller);
    let payloads = records.iter().map(|record| &record["payload"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    payloads
        .filter_map(|payload| match payload["command"].as_str()? {
            "operator" => Some((text(&payload["instruction"]["ask"]["call"]), text(&payload["instruction"]["by"]))),
            "refused" => Some((format!("refused {}", text(&payload["call"])), text(&payload["by"]))),
            _ => None,
        })
        .collect()
}

#[test]
fn what_an_operator_quarantines_is_denied_and_what_is_lifted_passes_again() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mut mesh = Mesh::start(Settings { snapshot_every: "1h", ..Settings::default() });
    let caller = mesh.pair.caller.clone();
    let (vera, otto) = (person(&mesh, "vera"), person(&mesh, "otto"));
    let [mut first, mut sibling, mut bystander] = [DEVIATING, SIBLING, BYSTANDER].map(|source| mesh.open(source));

    let quarantine = ["quarantine", &caller, "--for", "10m", "--reason", "drill", "--yes"];
    let refused = vera.refused(&quarantine);
    assert!(refused.contains("listen.operators"), "{refused}");
    assert_eq!(mesh.usual(DEVIATING, &mut first), 200);

    let done = otto.done(&quarantine);
    comes_to(&mesh, DEVIATING, &mut first, 403);
    comes_to(&mesh, SIBLING, &mut sibling, 403);
    assert_eq!(mesh.usual(BYSTANDER, &mut bystander), 200, "nobody else");
    let [entry] = done["entries"].as_array().unwrap().as_slice() else { panic!("one entry: {done}") };
    assert_eq!((&entry["acts"], &entry["by"]), (&Value::Bool(true), &Value::String(otto.id.clone())));
    assert_eq!(mesh.decisions(), [entry["decision"].as_str().unwrap()], "Envoy names the decision");
    assert_eq!(vera.done(&["show", &caller])["entries"], done["entries"], "a viewer sees it");

    // Killed right after the answer: it is on disk.
    mesh.qualm.kill();
    mesh.qualm.start_again();
    until_enforcing(&mut mesh.qualm, 2);
    assert_eq!(vera.done(&["show", &caller])["entries"], done["entries"]);
    assert_eq!(mesh.usual(DEVIATING, &mut first), 403);

    otto.done(&["lift", &caller, "--reason", "the drill is over"]);
    comes_to(&mesh, DEVIATING, &mut first, 200);
    comes_to(&mesh, SIBLING, &mut sibling, 200);
    mesh.qualm.kill();
    mesh.qualm.start_again();
    until_enforcing(&mut mesh.qualm, 2);
    assert_eq!(mesh.usual(DEVIATING, &mut first), 200, "lifted for good");

    let address = DEVIATING.to_string();
    otto.done(&[&quarantine[..], &["--instance", &address]].concat());
    comes_to(&mesh, DEVIATING, &mut first, 403);
    assert_eq!(mesh.usual(SIBLING, &mut sibling), 200, "one replica, not its sibling");

    let by_otto = |what: &str| (what.to_owned(), otto.id.clone());
    let expected = [("refused set".to_owned(), vera.id), by_otto("set"), by_otto("lift"), by_otto("set")];
    assert_eq!(asked(&mesh), expected);
}

#[test]
fn a_false_quarantine_is_lifted_held_off_and_a_pause_lets_everybody_pass() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let mesh = Mesh::start(Settings { lease: "20m", ..Settings::default() });
    let caller = mesh.pair.caller.clone();
    let (otto, paul) = (person(&mesh, "otto"), person(&mesh, "paul"));
    let mut deviating = mesh.open(DEVIATING);
    mesh.deviate_until_denied(&mut deviating);

    // Everything is a shadow at once, and what still stands comes back.
    let pause = ["pause", "--for", "30m", "--reason", "is it us?"];
    assert!(otto.refused(&pause).contains("listen.approvers"));
    paul.done(&pause);
    comes_to(&mesh, DEVIATING, &mut deviating, 200);
    until_true("the pause is a metric", PATIENCE, || mesh.qualm.metric("qualm_enforcement_paused") == Some(1.0));
    assert!(otto.run(&["list"]).out.contains("all enforcement is paused until"));
    paul.done(&["resume", "--reason", "it was not"]);
    comes_to(&mesh, DEVIATING, &mut deviating, 403);

    // The way back from a false quarantine, and it stays so whatever the caller does.
    let done = otto.done(&["lift", &caller, "--reason", "a migration, ticket 42", "--hold", "1h"]);
    assert_eq!(done["ended"], 1, "{done}");
    comes_to(&mesh, DEVIATING, &mut deviating, 200);
    let mut calls = 0;
    mesh.deviate(&mut deviating, "it goes on as before", |status| {
        assert_ne!(status, 403, "it is held");
        calls += 1;
        calls == 20
    });
    let shown = otto.done(&["show", &caller]);
    assert_eq!((&shown["entries"], &shown["hold"]["by"]), (&serde_json::json!([]), &Value::String(otto.id)));
    until_true("the alert is closed", PATIENCE, || {
        let findings = mesh.findings_about(&caller);
        findings.into_values().flatten().any(|finding| finding["activity_name"] == "Close")
    });
    mesh.qualm.check_metrics();
}
