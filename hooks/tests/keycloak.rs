//! Keycloak, the real one: a client and a user disabled, tokens refused by not-before, sessions ended; each in effect for
//! whoever introspects, and undone exactly.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use qualm_hooks::config::HookConfig;
use qualm_model::level::Level;
use serde_json::{Value, json};
use support::{
    account, call,
    engine::{Running, run_child},
    order,
    parts::{Part, present},
    ports,
    process::Process,
    until,
};

#[test]
#[ignore = "a child of other tests"]
fn child() {
    run_child();
}

/// Its first start, on a loaded machine.
const START: Duration = Duration::from_secs(400);

struct Keycloak {
    url: String,
    folder: PathBuf,
    _process: Process,
}

impl Keycloak {
    fn start(folder: &Path) -> Self {
        // It writes into its own folder.
        let home = folder.join("keycloak");
        let copied = Command::new("cp").arg("-r").arg(Part::Keycloak.folder().unwrap()).arg(&home).status().unwrap();
        assert!(copied.success());
        let port = ports::free();
        let mut command = Process::command(&home.join("bin/kc.sh"));
        command
            .args(["start-dev", "--http-host=127.0.0.1", &format!("--http-port={port}"), "--health-enabled=true"])
            .args(["--http-management-port", &ports::free().to_string(), "--cache=local"])
            .env("KC_BOOTSTRAP_ADMIN_USERNAME", "admin")
            .env("KC_BOOTSTRAP_ADMIN_PASSWORD", "dev-admin")
            .env("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx512m");
        let mut process = Process::spawn("keycloak", command, &folder.join("keycloak.log"));
        let url = format!("http://127.0.0.1:{port}");
        let ready = format!("{url}/realms/master");
        process.wait_until("is ready", START, || call("GET", &ready, &[], None).0 == 200);
        let keycloak = Self { url, folder: folder.to_owned(), _process: process };
        keycloak.make_realm();
        keycloak
    }

    /// A realm with a service, a person, somebody who introspects, and Qualm with the least rights.
    fn make_realm(&self) {
        let client = |id: &str| {
            json!({ "clientId": id, "secret": format!("{id}-secret"), "publicClient": false,
                "serviceAccountsEnabled": true, "directAccessGrantsEnabled": true, "standardFlowEnabled": false })
        };
        let password = json!([{ "type": "password", "value": "alice-password", "temporary": false }]);
        let realm = json!({
            "realm": "mesh", "enabled": true,
            "clients": [client("cart"), client("checker"), client("qualm")],
            "users": [
                { "username": "alice", "enabled": true, "email": "alice@mesh.test", "emailVerified": true,
                  "firstName": "A", "lastName": "B", "credentials": password },
                { "username": "service-account-qualm", "enabled": true, "serviceAccountClientId": "qualm",
                  "clientRoles": { "realm-management": ["manage-clients", "manage-users"] } },
            ],
        });
        let admin = self.token("master", "grant_type=password&client_id=admin-cli&username=admin&password=dev-admin");
        let bearer = format!("Bearer {}", admin.unwrap());
        let made = call("POST", &format!("{}/admin/realms", self.url), &[("authorization", &bearer)], Some(&realm));
        assert_eq!(made.0, 201, "{}", made.1);
        fs::write(self.folder.join("secret"), "qualm-secret").unwrap();
    }

    fn form(&self, path: &str, body: &str) -> (u16, Value) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let sent =
            agent.post(format!("{}{path}", self.url)).content_type("application/x-www-form-urlencoded").send(body);
        let Ok(mut response) = sent else { return (0, Value::Null) };
        let text = response.body_mut().read_to_string().unwrap_or_default();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    fn token(&self, realm: &str, body: &str) -> Option<String> {
        let answer = self.form(&format!("/realms/{realm}/protocol/openid-connect/token"), body).1;
        answer["access_token"].as_str().map(str::to_owned)
    }

    fn of_cart(&self) -> Option<String> {
        self.token("mesh", "grant_type=client_credentials&client_id=cart&client_secret=cart-secret")
    }

    fn of_alice(&self) -> Option<String> {
        let client = "client_id=checker&client_secret=checker-secret&scope=openid";
        self.token("mesh", &format!("grant_type=password&{client}&username=alice&password=alice-password"))
    }

    /// Whether a token is active for who introspects it.
    fn is_active(&self, token: &str) -> bool {
        let body = format!("client_id=checker&client_secret=checker-secret&token={token}");
        self.form("/realms/mesh/protocol/openid-connect/token/introspect", &body).1["active"] == true
    }

    fn hook(&self, act: &str) -> HookConfig {
        let text = format!(
            "name = \"{act}\"\ndry_run = false\ncap = 100\ntimeout_s = 60\n[keycloak]\nendpoint = {{ url = \"{}\" }}\n\
             realm = \"mesh\"\nclient_id = \"qualm\"\nclient_secret_file = {:?}\nact = \"{act}\"\n",
            self.url,
            self.folder.join("secret"),
        );
        toml::from_str(&text).unwrap()
    }
}

#[test]
fn accounts_are_cut_and_given_back() {
    if !present(&[Part::Keycloak]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let keycloak = Keycloak::start(folder.path());
    a_client_is_disabled_and_its_old_token_works_again_when_the_order_ends(&keycloak);
    after_kill_9_a_client_is_enabled_again_once_and_one_that_was_disabled_before_stays_so(&keycloak);
    a_person_is_disabled_and_may_log_in_again(&keycloak);
    tokens_issued_before_are_refused_and_new_ones_are_not(&keycloak);
    sessions_are_ended_only_with_approval(&keycloak);
}

fn a_client_is_disabled_and_its_old_token_works_again_when_the_order_ends(keycloak: &Keycloak) {
    let token = keycloak.of_cart().unwrap();
    let running = Running::start(&account::outbox(&keycloak.folder, "client"), &[keycloak.hook("disable-client")]);
    let no_new_one = || assert_eq!(keycloak.of_cart(), None, "and it gets no new one");
    account::is_cut_and_given_back(&running, ("Keycloak", 10), || keycloak.is_active(&token), no_new_one);
    // Who is not there.
    running.hooks.orders(vec![order("nobody", Level::Quarantined)]);
    assert!(running.comes_to(&["nothing there"]).problem.unwrap().contains("no clients called `nobody`"));
    running.stop();
}

fn after_kill_9_a_client_is_enabled_again_once_and_one_that_was_disabled_before_stays_so(keycloak: &Keycloak) {
    let (folder, hook) = (account::outbox(&keycloak.folder, "killed"), keycloak.hook("disable-client"));
    let token = keycloak.of_cart().unwrap();
    let works = || keycloak.is_active(&token);
    account::is_cut_by_one_that_is_killed(&folder, &hook, works);
    account::what_was_cut_before_stays_so(&account::outbox(&keycloak.folder, "second"), hook.clone(), works);
    account::is_given_back_by_the_next(&folder, hook, works).stop();
}

fn a_person_is_disabled_and_may_log_in_again(keycloak: &Keycloak) {
    let token = keycloak.of_alice().unwrap();
    let running = Running::start(&account::outbox(&keycloak.folder, "person"), &[keycloak.hook("disable-user")]);
    let mut alice = order("alice", Level::Quarantined);
    alice.subject.principal = "alice".to_owned();
    running.hooks.orders(vec![alice]);
    running.comes_to(&["in effect"]);
    assert!(!keycloak.is_active(&token) && keycloak.of_alice().is_none());
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert!(keycloak.of_alice().is_some());
    running.stop();
}

fn tokens_issued_before_are_refused_and_new_ones_are_not(keycloak: &Keycloak) {
    let token = keycloak.of_cart().unwrap();
    let running = Running::start(&account::outbox(&keycloak.folder, "not-before"), &[keycloak.hook("not-before")]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    assert!(!keycloak.is_active(&token));
    until("a new one is accepted", || keycloak.is_active(&keycloak.of_cart()?).then_some(()));
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert!(keycloak.is_active(&token));
    running.stop();
}

fn sessions_are_ended_only_with_approval(keycloak: &Keycloak) {
    let token = keycloak.of_alice().unwrap();
    let running = Running::start(&account::outbox(&keycloak.folder, "logout"), &[keycloak.hook("logout")]);
    let mut alice = order("alice", Level::Quarantined);
    alice.subject.principal = "alice".to_owned();
    running.hooks.orders(vec![alice]);
    running.comes_to(&["awaiting approval"]);
    assert!(keycloak.is_active(&token));
    account::approve(&running);
    running.comes_to(&["in effect"]);
    assert!(!keycloak.is_active(&token));
    running.hooks.orders(Vec::new());
    running.comes_to(&["done, no way back"]);
    running.stop();
}
