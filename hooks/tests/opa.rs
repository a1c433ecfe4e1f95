//! OPA, the real one: the level is an attribute at the next decision, is told again after a restart, and goes with its
//! order; the shipped Rego package and its example pass their own tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{path::Path, process::Command, time::Instant};

use qualm_hooks::config::HookConfig;
use qualm_model::level::Level;
use serde_json::{Value, json};
use support::{
    call,
    engine::{Killable, Running, run_child},
    order,
    parts::{Part, present},
    ports,
    process::Process,
    report, until,
};

const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";
/// The shipped package and example.
const POLICIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/opa");

#[test]
#[ignore = "a child of other tests"]
fn child() {
    run_child();
}

fn program() -> std::path::PathBuf {
    Part::Opa.folder().unwrap().join("opa")
}

struct Opa {
    port: u16,
    process: Process,
}

impl Opa {
    fn start(folder: &Path, port: u16) -> Self {
        let mut command = Process::command(&program());
        command.args(["run", "--server", "--addr", &format!("127.0.0.1:{port}"), "--log-level", "error", POLICIES]);
        let process = Process::spawn("opa", command, &folder.join("opa.log"));
        let opa = Self { port, process };
        until("OPA answers", || (call("GET", &opa.url("/health"), &[], None).0 == 200).then_some(()));
        let grants = json!({ CART: [{ "action": "read", "resource": "order" }] });
        assert_eq!(call("PUT", &opa.url("/v1/data/grants"), &[], Some(&grants)).0, 204);
        opa
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn kill(mut self) {
        self.process.kill();
    }

    /// What the example decides about a call of cart from an address.
    fn decides(&self, address: &str) -> Value {
        let resource = json!({ "kind": "order", "sensitivity": "public" });
        let input =
            json!({ "input": { "principal": CART, "address": address, "action": "read", "resource": resource } });
        call("POST", &self.url("/v1/data/mesh/authz/decision"), &[], Some(&input)).1["result"].clone()
    }

    fn config(&self) -> HookConfig {
        let text =
            format!("name = \"opa\"\ndry_run = false\ncap = 1000\n[opa]\nendpoint = {{ url = \"{}\" }}", self.url(""));
        toml::from_str(&text).unwrap()
    }
}

#[test]
fn the_shipped_package_and_its_example_pass_their_own_tests() {
    if !present(&[Part::Opa]) {
        return;
    }
    let tested = Command::new(program()).args(["test", POLICIES, "--fail-on-empty"]).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
}

#[test]
fn who_is_quarantined_is_denied_at_the_next_decision_until_the_order_ends() {
    if !present(&[Part::Opa]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let opa = Opa::start(folder.path(), ports::free());
    assert_eq!(opa.decides("10.0.0.7"), json!({ "allow": true, "level": "trusted", "because": [] }));
    let running = Running::start(folder.path(), &[opa.config()]);
    let (mut denied, mut allowed) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let begun = Instant::now();
        running.hooks.orders(vec![order("cart", Level::Quarantined)]);
        until("it is denied", || (opa.decides("10.0.0.7")["allow"] == false).then_some(()));
        denied.push(begun.elapsed());
        running.comes_to(&["in effect"]);
        let begun = Instant::now();
        running.hooks.orders(Vec::new());
        until("it is allowed again", || (opa.decides("10.0.0.7")["allow"] == true).then_some(()));
        allowed.push(begun.elapsed());
        running.comes_to(&["undone"]);
    }
    report("OPA, order to denial", denied);
    report("OPA, end of the order to allowed", allowed);

    // One instance, and not its sibling.
    let mut narrow = order("cart", Level::Quarantined);
    narrow.subject.instance = Some("10.0.0.7".to_owned());
    running.hooks.orders(vec![narrow]);
    let decision = until("it is denied", || Some(opa.decides("10.0.0.7")).filter(|of| of["allow"] == false));
    assert_eq!(decision["because"], json!(["it calls whom it never called"]));
    assert_eq!(opa.decides("10.0.0.8")["allow"], true);
    running.stop();
}

#[test]
fn an_opa_that_was_restarted_is_told_again_and_a_level_that_rises_is_told() {
    if !present(&[Part::Opa]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let opa = Opa::start(folder.path(), ports::free());
    let config = HookConfig { from: Level::Watched, ..opa.config() };
    let running = Running::start(folder.path(), &[config]);
    running.hooks.orders(vec![order("cart", Level::Watched)]);
    running.comes_to(&["in effect"]);
    assert_eq!(opa.decides("")["level"], "watched");
    running.hooks.orders(vec![order("cart", Level::Restricted)]);
    until("the higher level is there", || (opa.decides("")["level"] == "restricted").then_some(()));
    let port = opa.port;
    opa.kill();
    let begun = Instant::now();
    let opa = Opa::start(folder.path(), port);
    until("it is told again", || (opa.decides("")["level"] == "restricted").then_some(()));
    report("OPA, restart to told again", vec![begun.elapsed()]);
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert_eq!(opa.decides("")["level"], "trusted");
    running.stop();
}

#[test]
fn after_kill_9_an_order_that_has_ended_meanwhile_is_taken_back() {
    if !present(&[Part::Opa]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let opa = Opa::start(folder.path(), ports::free());
    let child = Killable::start(folder.path(), &[opa.config()], &[order("cart", Level::Quarantined)]);
    until("it is denied", || (opa.decides("")["allow"] == false).then_some(()));
    child.kill();
    assert_eq!(opa.decides("")["allow"], false, "what stands keeps standing");
    let running = Running::start(folder.path(), &[opa.config()]);
    running.hooks.orders(Vec::new());
    until("it is allowed again", || (opa.decides("")["allow"] == true).then_some(()));
    running.stop();
}
