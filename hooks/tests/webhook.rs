//! The signed webhook, with a blocklist API as its example, on a server that records, hangs, fails and talks garbage.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use qualm_hooks::{
    config::{HookConfig, When},
    kind::webhook::sign,
    order::Order,
};
use qualm_model::level::Level;
use support::{
    engine::{Killable, Running, run_child},
    order,
    server::{Reply, Request, Server, status},
    until,
};

#[test]
#[ignore = "a child of other tests"]
fn child() {
    run_child();
}

/// A blocklist: POST adds, GET asks, DELETE removes.
#[derive(Clone, Default)]
struct Blocklist(Arc<Mutex<BTreeSet<String>>>);

impl Blocklist {
    fn answer(&self, request: &Request) -> Reply {
        let mut listed = self.0.lock().unwrap();
        let who = request.path.trim_start_matches("/entries/").to_owned();
        match request.method.as_str() {
            "PUT" => {
                listed.insert(who);
                status(201)
            }
            "DELETE" => status(if listed.remove(&who) { 204 } else { 404 }),
            _ => status(if listed.contains(&who) { 200 } else { 404 }),
        }
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

const KEY: &str = "the key that both know";

/// The example of docs/hooks.md; `rest` goes into the webhook's table.
fn config(folder: &Path, url: &str, rest: &str) -> HookConfig {
    let key = folder.join("hmac-key");
    fs::write(&key, format!("{KEY}\n")).unwrap();
    let text = format!(
        r#"
        name = "blocklist"
        dry_run = false
        timeout_s = 1
        [webhook]
        endpoint = {{ url = "{url}" }}
        hmac_key_file = "{}"
        act = {{ method = "PUT", path = "/entries/{{principal}}", body = '{{{{"reason":"{{reason}}","until":"{{expires}}"}}}}' }}
        undo = {{ method = "DELETE", path = "/entries/{{principal}}", expect = [200, 204] }}
        {rest}
        "#,
        key.display()
    );
    toml::from_str(&text).unwrap()
}

const LOOK: &str = r#"look = { method = "GET", path = "/entries/{principal}", expect = [200] }"#;

#[test]
fn an_identity_is_on_the_blocklist_while_its_order_stands_and_every_call_is_signed() {
    let (folder, list) = (tempfile::tempdir().unwrap(), Blocklist::default());
    let served = list.clone();
    let server = Server::start(move |request, _| served.answer(request));
    let running = Running::start(folder.path(), &[config(folder.path(), &server.url, LOOK)]);
    running.hooks.orders(vec![order("cart", Level::Quarantined), order("pay", Level::Throttled)]);
    let effect = running.comes_to(&["in effect"]);
    assert_eq!(list.len(), 1, "only who stands at `from` or above");
    let [put] = server.asked("PUT").try_into().unwrap();
    assert_eq!(put.path, "/entries/spiffe%3A%2F%2Fmesh.test%2Fns%2Fshop%2Fsa%2Fcart");
    assert_eq!(put.json()["reason"], "it calls whom it never called");
    assert!(put.header("idempotency-key").starts_with("cart-quarantined-"), "{}", put.header("idempotency-key"));
    let (at, signed) = put.header("x-qualm-signature").split_once(",v1=").unwrap();
    let at = at.strip_prefix("t=").unwrap().parse().unwrap();
    assert_eq!(signed, sign(KEY, at, "PUT", &put.path, &put.body));
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert_eq!((list.len(), server.asked("DELETE").len()), (0, 1));
    assert!(running.took_ms().is_some() && effect.survives.contains("already let through"));
    running.stop();
}

#[test]
fn what_is_kept_for_leaks_is_called_only_once_a_denial_does_not_hold() {
    let (folder, list) = (tempfile::tempdir().unwrap(), Blocklist::default());
    let served = list.clone();
    let server = Server::start(move |request, _| served.answer(request));
    let kept = HookConfig { when: When::Leaking, ..config(folder.path(), &server.url, LOOK) };
    let always = HookConfig { name: "always".to_owned(), ..config(folder.path(), &server.url, LOOK) };
    let running = Running::start(folder.path(), &[kept, always]);
    let (cart, pay) = (order("cart", Level::Quarantined), order("pay", Level::Quarantined));
    running.hooks.orders(vec![cart.clone(), pay.clone()]);
    let in_effect = |hook: &str| {
        let effects = running.hooks.view().effects;
        effects.iter().filter(|effect| effect.key.hook == hook && effect.state.as_str() == "in effect").count()
    };
    until("the other hook has acted on both", || (in_effect("always") == 2).then_some(()));
    assert!(running.hooks.view().effects.iter().all(|effect| effect.key.hook == "always"), "nothing has leaked");
    running.hooks.orders(vec![Order { leaking: true, ..cart }, pay]);
    until("it acts on the one that leaks", || (in_effect("blocklist") == 1).then_some(()));
    running.hooks.orders(Vec::new());
    until("all is taken back", || (list.len() == 0 && in_effect("blocklist") == 0).then_some(()));
    running.stop();
}

#[test]
fn who_was_on_the_list_before_stays_on_it() {
    let (folder, list) = (tempfile::tempdir().unwrap(), Blocklist::default());
    list.0.lock().unwrap().insert("spiffe%3A%2F%2Fmesh.test%2Fns%2Fshop%2Fsa%2Fcart".to_owned());
    let served = list.clone();
    let server = Server::start(move |request, _| served.answer(request));
    let running = Running::start(folder.path(), &[config(folder.path(), &server.url, LOOK)]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    running.hooks.orders(Vec::new());
    let ended = running.comes_to(&["undone"]);
    assert_eq!(list.len(), 1);
    assert!(ended.problem.unwrap().contains("was there before"));
    running.stop();
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_it_would_do() {
    let (folder, list) = (tempfile::tempdir().unwrap(), Blocklist::default());
    let served = list.clone();
    let server = Server::start(move |request, _| served.answer(request));
    let dry = HookConfig { dry_run: true, ..config(folder.path(), &server.url, LOOK) };
    let running = Running::start(folder.path(), &[dry]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    let effect = running.comes_to(&["dry run"]);
    assert!(effect.target.unwrap().starts_with("PUT /entries/"));
    assert_eq!((list.len(), server.asked("PUT").len()), (0, 0));
    running.stop();
}

/// A server that takes the first call and never answers it; the process is killed while it waits.
fn killed_while_it_waits(rest: &str) -> (tempfile::TempDir, Blocklist, Server, HookConfig) {
    let (folder, list) = (tempfile::tempdir().unwrap(), Blocklist::default());
    let served = list.clone();
    let server = Server::start(move |request, _| {
        let answer = served.answer(request);
        let is_first =
            request.method == "PUT" && served.0.lock().unwrap().replace("answered once".to_owned()).is_none();
        if is_first { Reply::Hang } else { answer }
    });
    let config = HookConfig { timeout_s: 60, ..config(folder.path(), &server.url, rest) };
    let child = Killable::start(folder.path(), std::slice::from_ref(&config), &[order("cart", Level::Quarantined)]);
    until("the call has arrived", || (!server.asked("PUT").is_empty()).then_some(()));
    child.kill();
    (folder, list, server, config)
}

#[test]
fn after_kill_9_in_the_middle_what_can_be_looked_at_is_done_exactly_once() {
    let (folder, list, server, config) = killed_while_it_waits(LOOK);
    let running = Running::start(folder.path(), &[config]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    assert_eq!(server.asked("PUT").len(), 1, "it was found done");
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert_eq!(list.len(), 1, "only the mark of this test");
    running.stop();
}

#[test]
fn after_kill_9_in_the_middle_what_is_idempotent_is_called_again_under_its_key() {
    let (folder, _, server, config) = killed_while_it_waits("idempotent = true");
    let running = Running::start(folder.path(), &[config]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    let keys: Vec<_> = server.asked("PUT").iter().map(|put| put.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    running.stop();
}

#[test]
fn after_kill_9_in_the_middle_what_must_not_be_called_twice_is_reported() {
    let (folder, _, server, config) = killed_while_it_waits("");
    let running = Running::start(folder.path(), &[config]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    let ended = running.comes_to(&["uncertain"]);
    assert!(ended.problem.unwrap().contains("must not be called twice"));
    assert_eq!(server.asked("PUT").len(), 1);
    running.stop();
}

#[test]
fn a_server_that_hangs_fails_or_talks_garbage_is_asked_again_until_it_does_what_it_should() {
    let (folder, list) = (tempfile::tempdir().unwrap(), Blocklist::default());
    let (served, tries) = (list.clone(), Mutex::new(0));
    let server = Server::start(move |request, _| {
        if request.method != "PUT" {
            return served.answer(request);
        }
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        match *tries {
            1 => Reply::Hang,
            2 => status(500),
            3 => Reply::Garbage,
            4 => Reply::Header(429, "retry-after", "1".to_owned()),
            5 => status(403),
            _ => served.answer(request),
        }
    });
    let config = config(folder.path(), &server.url, LOOK);
    let running = Running::start(folder.path(), &[config]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    let words = |needle: &str| {
        let told = Arc::clone(&running.told);
        until(needle, move || told.lock().unwrap().iter().any(|told| told.words.contains(needle)).then_some(()));
    };
    for needle in ["no answer", "answers 500", "answers 429", "answers 403"] {
        words(needle);
    }
    assert!(running.hooks.notes().iter().any(|note| note.contains("answers 403")), "{:?}", running.hooks.notes());
    // Mended: it is asked again a minute later.
    running.comes_to(&["in effect"]);
    assert_eq!(list.len(), 1);
    running.stop();
}

#[test]
fn a_hook_that_hangs_holds_up_no_other() {
    let (folder, served) = (tempfile::tempdir().unwrap(), Blocklist::default());
    let (hanging, server) =
        (Server::start(|_, _| Reply::Hang), Server::start(move |request, _| served.answer(request)));
    let slow = HookConfig { timeout_s: 60, name: "slow".to_owned(), ..config(folder.path(), &hanging.url, LOOK) };
    let running = Running::start(folder.path(), &[slow, config(folder.path(), &server.url, LOOK)]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    until("the slow one was asked", || (!hanging.seen().is_empty()).then_some(()));
    running.comes_to(&["in effect"]);
    running.stop();
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused_with_the_key_and_the_remedy() {
    let parse = |text: &str| toml::from_str::<HookConfig>(text).unwrap().check().unwrap_err().to_string();
    for (text, words) in [
        ("name = \"x\"", "exactly one of webhook, opa"),
        ("name = \"x y\"", "name: 1 to 64 letters"),
        ("name = \"x\"\n[webhook]\nendpoint = { url = \"ftp://a\" }\nact = { path = \"/\" }", "webhook.endpoint.url"),
        ("name = \"x\"\n[webhook]\nendpoint = { url = \"http://a\" }\nact = { path = \"/{servise}\" }", "`{servise}`"),
        ("name = \"x\"\ncap = 0\n[webhook]\nendpoint = { url = \"http://a\" }\nact = { path = \"/\" }", "cap"),
    ] {
        let error = parse(text);
        assert!(error.starts_with("[[hook]]") && error.contains(words), "{text}: {error}");
    }
    let unknown = toml::from_str::<HookConfig>("name = \"x\"\n[webhook]\nsecret = \"y\"").unwrap_err().to_string();
    assert!(unknown.contains("unknown field `secret`"), "{unknown}");
}
