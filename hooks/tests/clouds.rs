//! AWS, Google Cloud and Azure against the request shapes of their documentation, on a server that records: what is asked,
//! in which order, and that it is put back. How long it takes there is not shown by this.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use qualm_hooks::{config::HookConfig, engine::Verb};
use qualm_model::level::Level;
use serde_json::{Value, json};
use support::{
    engine::{Killable, Running, run_child},
    order,
    server::{Reply, Request, Server, ok, status},
    until,
};

#[test]
#[ignore = "a child of other tests"]
fn child() {
    run_child();
}

/// What a server remembers.
type Memory = Arc<Mutex<BTreeMap<String, String>>>;

fn config(kind: &str, keys: &str) -> HookConfig {
    toml::from_str(&format!("name = \"{kind}\"\ndry_run = false\n[{kind}]\n{keys}")).unwrap()
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    format!("{file:?}")
}

fn form(request: &Request) -> BTreeMap<String, String> {
    let pairs = request.body.split('&').filter_map(|pair| pair.split_once('='));
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// IAM, as its documentation has it.
fn iam(request: &Request, memory: &Memory) -> Reply {
    let (form, mut memory) = (form(request), memory.lock().unwrap());
    let missing =
        || Reply::Status(404, "<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>".to_owned());
    assert_eq!(form["Version"], "2010-05-08");
    match form["Action"].as_str() {
        "GetRole" if form["RoleName"] == "cart" => ok("<GetRoleResponse/>"),
        "GetRolePolicy" => match memory.get("policy") {
            Some(document) => {
                let encoded = percent_encoding::utf8_percent_encode(document, percent_encoding::NON_ALPHANUMERIC);
                ok(format!("<GetRolePolicyResponse><PolicyDocument>{encoded}</PolicyDocument></GetRolePolicyResponse>"))
            }
            None => missing(),
        },
        "PutRolePolicy" => {
            assert_eq!((form["RoleName"].as_str(), form["PolicyName"].as_str()), ("cart", "AWSRevokeOlderSessions"));
            memory.insert("policy".to_owned(), form["PolicyDocument"].clone());
            ok("<PutRolePolicyResponse/>")
        }
        "DeleteRolePolicy" => {
            memory.remove("policy");
            ok("<DeleteRolePolicyResponse/>")
        }
        "ListAccessKeys" => {
            let key = |id: &str, is: &str| {
                format!(
                    "<member><UserName>cart</UserName><AccessKeyId>{id}</AccessKeyId><Status>{is}</Status></member>"
                )
            };
            let first = memory.get("AKIA1").map_or("Active", String::as_str);
            ok(format!("<AccessKeyMetadata>{}{}</AccessKeyMetadata>", key("AKIA1", first), key("AKIA2", "Inactive")))
        }
        "UpdateAccessKey" => {
            memory.insert(form["AccessKeyId"].clone(), form["Status"].clone());
            ok("<UpdateAccessKeyResponse/>")
        }
        _ => missing(),
    }
}

fn aws(folder: &Path, url: &str, act: &str) -> HookConfig {
    let keys = "aws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\naws_session_token = session\n";
    let file = file(folder, "aws", keys);
    config("aws", &format!("endpoint = {{ url = \"{url}\" }}\ncredentials_file = {file}\nact = \"{act}\""))
}

#[test]
fn sessions_of_a_role_are_revoked_and_an_older_revocation_comes_back() {
    let (folder, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let served = Arc::clone(&memory);
    let server = Server::start(move |request, _| iam(request, &served));
    for older in [None, Some("{\"older\":\"aws:TokenIssueTime\"}")] {
        let outbox = folder.path().join(older.map_or("first", |_| "second"));
        fs::create_dir_all(&outbox).unwrap();
        older.map(|older| memory.lock().unwrap().insert("policy".to_owned(), older.to_owned()));
        let running = Running::start(&outbox, &[aws(folder.path(), &server.url, "revoke-sessions")]);
        running.hooks.orders(vec![order("cart", Level::Quarantined)]);
        running.comes_to(&["in effect"]);
        let document: Value = serde_json::from_str(&memory.lock().unwrap()["policy"]).unwrap();
        assert_eq!(document["Statement"][0]["Effect"], "Deny");
        assert!(
            document["Statement"][0]["Condition"]["DateLessThan"]["aws:TokenIssueTime"]
                .as_str()
                .unwrap()
                .ends_with('Z')
        );
        running.hooks.orders(Vec::new());
        running.comes_to(&["undone"]);
        assert_eq!(memory.lock().unwrap().get("policy").map(String::as_str), older);
        running.stop();
    }
    let first = &server.seen()[0];
    let signed = first.header("authorization");
    let names = "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=";
    assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/") && signed.contains(names), "{signed}");
    assert_eq!(first.header("x-amz-security-token"), "session");
    assert!(signed.contains("/us-east-1/iam/aws4_request") && !format!("{:?}", server.seen()).contains("secret"));
}

#[test]
fn access_keys_are_made_inactive_and_those_that_were_so_before_stay_so() {
    let (folder, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let served = Arc::clone(&memory);
    let server = Server::start(move |request, _| iam(request, &served));
    let config = aws(folder.path(), &server.url, "deactivate-keys");
    let child = Killable::start(folder.path(), std::slice::from_ref(&config), &[order("cart", Level::Quarantined)]);
    until("the key is inactive", || (memory.lock().unwrap().get("AKIA1")? == "Inactive").then_some(()));
    child.kill();
    let running = Running::start(folder.path(), &[config]);
    running.hooks.orders(Vec::new());
    until("the key is active", || (memory.lock().unwrap().get("AKIA1")? == "Active").then_some(()));
    running.comes_to(&["undone"]);
    assert_eq!(memory.lock().unwrap().get("AKIA2"), None, "nobody has touched it");
    running.stop();
}

#[test]
fn a_secret_is_rotated_once_and_only_with_approval() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| match request.header("x-amz-target") {
        "secretsmanager.DescribeSecret" | "secretsmanager.RotateSecret" => ok("{\"Name\":\"cart\"}"),
        other => Reply::Status(400, format!("{{\"__type\":\"UnknownOperationException\",\"message\":\"{other}\"}}")),
    });
    let running = Running::start(folder.path(), &[aws(folder.path(), &server.url, "rotate-secret")]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    let waiting = running.comes_to(&["awaiting approval"]);
    assert!(server.seen().is_empty());
    running.hooks.word(Verb::Approve, waiting.id, ("paul".to_owned(), "x".to_owned()), |became| drop(became.unwrap()));
    running.comes_to(&["in effect"]);
    let rotated: Vec<Value> = server
        .seen()
        .iter()
        .filter(|asked| asked.header("x-amz-target").ends_with("RotateSecret"))
        .map(Request::json)
        .collect();
    let [rotated] = rotated.as_slice() else { panic!("once: {rotated:?}") };
    assert_eq!(rotated["SecretId"], "cart");
    assert_eq!(rotated["ClientRequestToken"].as_str().unwrap().len(), 32);
    running.stop();
}

#[test]
fn a_service_account_of_google_is_disabled_and_enabled() {
    let (folder, memory) = (tempfile::tempdir().unwrap(), Memory::default());
    let served = Arc::clone(&memory);
    let server = Server::start(move |request, _| {
        let mut memory = served.lock().unwrap();
        let account = "/v1/projects/-/serviceAccounts/cart%40shop.iam.gserviceaccount.com";
        if request.path == "/token" {
            assert_eq!(request.header("metadata-flavor"), "Google");
            return ok("{\"access_token\":\"t\",\"expires_in\":3600}");
        }
        assert_eq!(request.header("authorization"), "Bearer t");
        match (request.method.as_str(), request.path.strip_prefix(account)) {
            ("GET", Some("")) => {
                ok(json!({ "email": "cart", "disabled": memory.contains_key("disabled") }).to_string())
            }
            ("POST", Some(":disable")) => {
                memory.insert("disabled".to_owned(), String::new());
                ok("{}")
            }
            ("POST", Some(":enable")) => {
                memory.remove("disabled");
                ok("{}")
            }
            _ => status(404),
        }
    });
    let keys = format!(
        "endpoint = {{ url = \"{0}\" }}\ntoken_url = \"{0}/token\"\nemail = \"{{service}}@shop.iam.gserviceaccount.com\"",
        server.url
    );
    let running = Running::start(folder.path(), &[config("gcp", &keys)]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    assert!(memory.lock().unwrap().contains_key("disabled"));
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert!(memory.lock().unwrap().is_empty());
    running.stop();
}

#[test]
fn a_service_principal_and_the_versions_of_a_secret_of_azure_are_disabled_and_enabled() {
    for act in ["disable-principal", "disable-secret"] {
        let (folder, memory) = (tempfile::tempdir().unwrap(), Memory::default());
        let served = Arc::clone(&memory);
        let server = Server::start(move |request, _| azure(request, &mut served.lock().unwrap()));
        let keys = format!(
            "endpoint = {{ url = \"{0}\" }}\nlogin_url = \"{0}\"\ntenant = \"t-1\"\nclient_id = \"qualm\"\n\
             client_secret_file = {1}\nact = \"{act}\"",
            server.url,
            file(folder.path(), "azure", "azure-secret")
        );
        let running = Running::start(folder.path(), &[config("azure", &keys)]);
        running.hooks.orders(vec![order("cart", Level::Quarantined)]);
        running.comes_to(&["in effect"]);
        assert_eq!(memory.lock().unwrap().len(), 1, "one is disabled, and not what was so before");
        running.hooks.orders(Vec::new());
        running.comes_to(&["undone"]);
        assert!(memory.lock().unwrap().is_empty());
        running.stop();
    }
}

/// Microsoft Graph and a Key Vault, as their documentation has them; the second version was disabled before.
fn azure(request: &Request, memory: &mut BTreeMap<String, String>) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if path == "/t-1/oauth2/v2.0/token" {
        assert_eq!(form(request)["client_secret"], "azure-secret");
        return ok("{\"access_token\":\"t\"}");
    }
    assert_eq!(request.header("authorization"), "Bearer t");
    let enabled = |memory: &BTreeMap<String, String>, id: &str| id != "v2" && !memory.contains_key(id);
    let version = |memory: &BTreeMap<String, String>, id: &str| json!({ "id": format!("https://v.vault.azure.net/secrets/cart/{id}"), "attributes": { "enabled": enabled(memory, id) } });
    match (request.method.as_str(), path) {
        ("GET", "/v1.0/servicePrincipals") => {
            assert!(query.contains("displayName%20eq%20%27cart%27"), "{query}");
            ok(json!({ "value": [{ "id": "sp-1", "accountEnabled": enabled(memory, "sp-1") }] }).to_string())
        }
        ("GET", "/v1.0/servicePrincipals/sp-1") => {
            ok(json!({ "id": "sp-1", "accountEnabled": enabled(memory, "sp-1") }).to_string())
        }
        ("GET", "/secrets/cart/versions") => {
            ok(json!({ "value": [version(memory, "v1"), version(memory, "v2")] }).to_string())
        }
        ("GET", "/secrets/cart/v1") if memory.contains_key("v1") => {
            Reply::Status(403, "{\"error\":{\"innererror\":{\"code\":\"SecretDisabled\"}}}".to_owned())
        }
        ("GET", "/secrets/cart/v1") => ok(version(memory, "v1").to_string()),
        ("PATCH", path) => {
            let body = request.json();
            let is = body["accountEnabled"].as_bool().or_else(|| body["attributes"]["enabled"].as_bool());
            let id = path.rsplit('/').next().unwrap_or_default().to_owned();
            match is {
                Some(true) => drop(memory.remove(&id)),
                _ => drop(memory.insert(id, String::new())),
            }
            status(204)
        }
        _ => status(404),
    }
}
