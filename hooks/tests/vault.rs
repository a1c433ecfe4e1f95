//! Vault, the real one: an entity is disabled, and its old token works again when the order ends; its tokens and a prefix of
//! leases are revoked for good, only with approval; each with the least rights that docs/hooks.md names.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use qualm_hooks::config::HookConfig;
use qualm_model::{level::Level, time::Clock};
use serde_json::{Value, json};
use support::{
    account, call,
    engine::{Running, run_child},
    now, order,
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

/// Of the documentation: what Qualm needs for each act.
const POLICY: &str = r#"
path "identity/entity/id/*" { capabilities = ["read", "update"] }
path "identity/lookup/entity" { capabilities = ["update"] }
path "auth/token/accessors" { capabilities = ["list", "sudo"] }
path "auth/token/lookup-accessor" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
path "sys/leases/revoke-prefix/*" { capabilities = ["update", "sudo"] }
"#;

struct Vault {
    url: String,
    folder: PathBuf,
    accessor: String,
    role: String,
    _process: Process,
}

impl Vault {
    /// A server in memory with a role `cart`, which may read one secret, and Qualm's own token.
    fn start(folder: &Path) -> Self {
        let port = ports::free();
        let mut command = Process::command(&Part::Vault.folder().unwrap().join("vault"));
        command
            .args(["server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token"])
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .env("HOME", folder)
            .current_dir(folder);
        let process = Process::spawn("vault", command, &folder.join("vault.log"));
        let url = format!("http://127.0.0.1:{port}");
        until("Vault answers", || (call("GET", &format!("{url}/v1/sys/health"), &[], None).0 == 200).then_some(()));
        let mut vault =
            Self { url, folder: folder.to_owned(), accessor: String::new(), role: String::new(), _process: process };
        vault.furnish();
        vault
    }

    fn ask(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        call(method, &format!("{}/v1/{path}", self.url), &[("x-vault-token", token)], body)
    }

    fn set(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask("root", "POST", path, Some(body));
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    fn furnish(&mut self) {
        self.set("sys/auth/approle", &json!({ "type": "approle" }));
        self.set("sys/policy/reader", &json!({ "policy": "path \"secret/data/*\" { capabilities = [\"read\"] }" }));
        self.set("sys/policy/qualm", &json!({ "policy": POLICY }));
        self.set("secret/data/cart", &json!({ "data": { "key": "value" } }));
        self.set("auth/approle/role/cart", &json!({ "token_policies": "reader", "token_ttl": "1h" }));
        let auth = self.ask("root", "GET", "sys/auth", None).1;
        self.accessor = auth["data"]["approle/"]["accessor"].as_str().unwrap().to_owned();
        let role = self.ask("root", "GET", "auth/approle/role/cart/role-id", None).1;
        self.role = role["data"]["role_id"].as_str().unwrap().to_owned();
        let token = self.set("auth/token/create", &json!({ "policies": ["qualm"] }));
        fs::write(self.folder.join("token"), token["auth"]["client_token"].as_str().unwrap()).unwrap();
    }

    /// A token of cart, where it may log in.
    fn log_in(&self) -> Option<String> {
        let secret = self.set("auth/approle/role/cart/secret-id", &json!({}));
        let body = json!({ "role_id": self.role, "secret_id": secret["data"]["secret_id"] });
        let given = self.ask("", "POST", "auth/approle/login", Some(&body)).1;
        given["auth"]["client_token"].as_str().map(str::to_owned)
    }

    fn may_read(&self, token: &str) -> bool {
        self.ask(token, "GET", "secret/data/cart", None).0 == 200
    }

    /// An entity's alias is the role's id, which a template cannot know: it stands there as it is.
    fn hook(&self, act: &str) -> HookConfig {
        let which = match act {
            "revoke-leases" => "prefix = \"auth/approle/login\"".to_owned(),
            _ => format!("alias = \"{}\"\nmount_accessor = \"{}\"", self.role, self.accessor),
        };
        let text = format!(
            "name = \"{act}\"\ndry_run = false\ncap = 1000\n[vault]\nendpoint = {{ url = \"{}\", token_file = {:?} }}\n\
             act = \"{act}\"\n{which}\n",
            self.url,
            self.folder.join("token"),
        );
        toml::from_str(&text).unwrap()
    }

    fn outbox(&self, of: &str) -> PathBuf {
        account::outbox(&self.folder, of)
    }
}

#[test]
fn tokens_are_cut_and_given_back() {
    if !present(&[Part::Vault]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::start(folder.path());
    for act in ["disable-entity", "revoke-tokens", "revoke-leases"] {
        let said = vault.hook(act).build(&Clock::new(now)).unwrap().probe();
        assert!(said.as_ref().is_ok_and(|said| said.contains("has the rights")), "{act}: {said:?}");
    }
    an_entity_that_never_logged_in_is_not_there(&vault);
    an_entity_is_disabled_and_its_old_token_works_again_when_the_order_ends(&vault);
    after_kill_9_it_works_again_once_and_an_entity_that_was_disabled_before_stays_so(&vault);
    living_tokens_are_revoked_for_good_only_with_approval(&vault, "revoke-tokens");
    living_tokens_are_revoked_for_good_only_with_approval(&vault, "revoke-leases");
    a_token_without_the_rights_is_told_so(&vault);
}

fn an_entity_that_never_logged_in_is_not_there(vault: &Vault) {
    let running = Running::start(&vault.outbox("nobody"), &[vault.hook("disable-entity")]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    assert!(running.comes_to(&["nothing there"]).problem.unwrap().contains("has never logged in"));
    running.stop();
}

fn an_entity_is_disabled_and_its_old_token_works_again_when_the_order_ends(vault: &Vault) {
    let token = vault.log_in().unwrap();
    let running = Running::start(&vault.outbox("entity"), &[vault.hook("disable-entity")]);
    account::is_cut_and_given_back(&running, ("Vault", 50), || vault.may_read(&token), || ());
    running.stop();
}

fn after_kill_9_it_works_again_once_and_an_entity_that_was_disabled_before_stays_so(vault: &Vault) {
    let token = vault.log_in().unwrap();
    let (folder, hook) = (vault.outbox("killed"), vault.hook("disable-entity"));
    let works = || vault.may_read(&token);
    account::is_cut_by_one_that_is_killed(&folder, &hook, works);
    account::what_was_cut_before_stays_so(&vault.outbox("second"), hook.clone(), works);
    account::is_given_back_by_the_next(&folder, hook, works).stop();
}

fn living_tokens_are_revoked_for_good_only_with_approval(vault: &Vault, act: &str) {
    let token = vault.log_in().unwrap();
    let running = Running::start(&vault.outbox(act), &[vault.hook(act)]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["awaiting approval"]);
    assert!(vault.may_read(&token));
    account::approve(&running);
    running.comes_to(&["in effect"]);
    until("it is refused", || (!vault.may_read(&token)).then_some(()));
    running.hooks.orders(Vec::new());
    running.comes_to(&["done, no way back"]);
    assert!(!vault.may_read(&token) && vault.log_in().is_some(), "it may log in again");
    running.stop();
}

fn a_token_without_the_rights_is_told_so(vault: &Vault) {
    let token = vault.set("auth/token/create", &json!({ "policies": ["reader"] }));
    fs::write(vault.folder.join("token"), token["auth"]["client_token"].as_str().unwrap()).unwrap();
    let said = vault.hook("disable-entity").build(&Clock::new(now)).unwrap().probe().unwrap_err().to_string();
    assert!(said.contains("may not update identity/entity/id"), "{said}");
}
