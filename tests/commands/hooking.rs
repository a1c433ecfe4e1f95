//! Hooks of a running instance: what an operator's quarantine brings about elsewhere, who may approve and take back, what
//! `explain`, `check` and the journal say of it, and what a crash leaves.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex},
};

use crate::{
    place::{CART, LINE, answer},
    recorder::{Server, status},
    support::{
        authority::{Authority, spiffe_id},
        operator::{Person, journalled, lists},
        ports,
        qualm::{Qualm, sample},
        wait::{PATIENCE, until, until_true},
    },
};

/// A running instance with two hooks at one server: `list`, which can be taken back, and `ticket`, which cannot.
struct Estate {
    authority: Authority,
    qualm: Qualm,
    server: Server,
    listed: Arc<Mutex<BTreeSet<String>>>,
    _folder: tempfile::TempDir,
}

impl Estate {
    fn start() -> Self {
        let listed = Arc::<Mutex<BTreeSet<String>>>::default();
        let served = Arc::clone(&listed);
        let server = Server::start(move |request, _| {
            let mut listed = served.lock().unwrap();
            match request.method.as_str() {
                "PUT" => status(if listed.insert(request.path.clone()) { 201 } else { 200 }),
                "DELETE" => status(if listed.remove(&request.path) { 204 } else { 404 }),
                "POST" => status(201),
                _ => status(if listed.contains(&request.path) { 200 } else { 404 }),
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        fs::write(folder.path().join("access.log"), LINE.to_owned() + "\n").unwrap();
        let svid = authority.write_svid(&spiffe_id("security", "qualm"), &folder.path().join("svid"));
        let (http, grpc) = (ports::free(), ports::free());
        let url = &server.url;
        let hooks = format!(
            "[[hook]]\nname = \"list\"\ndry_run = false\n[hook.webhook]\nendpoint = {{ url = \"{url}\" }}\n\
             act = {{ method = \"PUT\", path = \"/{{service}}\" }}\nundo = {{ method = \"DELETE\", path = \"/{{service}}\" }}\n\
             look = {{ method = \"GET\", path = \"/{{service}}\", expect = [200] }}\n\
             [[hook]]\nname = \"ticket\"\ndry_run = false\n[hook.webhook]\nendpoint = {{ url = \"{url}\" }}\n\
             act = {{ method = \"POST\", path = \"/tickets\", body = '{{{{\"about\":\"{{identity}}\"}}}}' }}\n"
        );
        let config = format!(
            "[[file]]\npath = \"../access.log\"\nfollow = true\n[observe]\naddress = \"127.0.0.1:{http}\"\n\
             [listen]\naddress = \"127.0.0.1:{grpc}\"\ncertificate = {:?}\nkey = {:?}\nclient_roots = {:?}\n{}\
             [enforce]\nmode = \"enforce\"\n[state]\nsnapshot_every = \"1h\"\n{hooks}",
            svid.certificate,
            svid.key,
            svid.bundle,
            lists()
        );
        let mut qualm = Qualm::start(folder.path(), &config, http);
        qualm.wait_until("has read the call", || sample(http, "qualm_identities") >= Some(1.0));
        Self { authority, qualm, server, listed, _folder: folder }
    }

    fn person(&self, account: &str) -> Person {
        Person::new(&self.authority, account, self.qualm.folder())
    }

    /// The effect of a hook, once it is in this state.
    fn comes_to(&self, hook: &str, state: &str) -> serde_json::Value {
        let vera = self.person("vera");
        until(&format!("hook {hook} is {state}"), PATIENCE, || {
            let effects = vera.done(&["hooks", "list", "--all"])["effects"].as_array().cloned().unwrap();
            effects.into_iter().find(|effect| effect["hook"] == hook && effect["state"] == state)
        })
    }

    fn is_listed(&self) -> bool {
        self.listed.lock().unwrap().contains("/cart")
    }
}

#[test]
fn a_quarantine_is_told_elsewhere_survives_kill_9_and_is_taken_back_by_its_lift() {
    let mut estate = Estate::start();
    let otto = estate.person("otto");
    otto.done(&["quarantine", CART, "--for", "1h", "--reason", "a drill", "--yes"]);
    let effect = estate.comes_to("list", "in effect");
    assert!(estate.is_listed());
    assert_eq!(effect["identity"], CART);

    let told = answer(estate.qualm.folder(), &["explain", CART]);
    assert!(told.line("list (webhook): in effect").contains(" ms after the call"), "{told:#?}");
    told.line("cuts: ");
    told.line("survives: ");
    let checked = answer(estate.qualm.folder(), &["check"]);
    assert!(checked.line("list (webhook) from quarantined on").starts_with("ok"), "{checked:#?}");

    estate.qualm.kill();
    assert!(estate.is_listed(), "what stands keeps standing");
    estate.qualm.start_again();
    estate.comes_to("list", "in effect");
    assert_eq!(estate.server.asked("PUT").len(), 1, "and is not done again");

    otto.done(&["lift", CART, "--reason", "the drill is over"]);
    estate.comes_to("list", "undone");
    assert!(!estate.is_listed());
    let records = journalled(estate.qualm.folder(), CART);
    let states: Vec<_> = records.iter().filter_map(|record| record["payload"]["hook"]["state"].as_str()).collect();
    let expected = ["reading", "acting", "in effect", "undoing", "undone"];
    let of_list: Vec<_> = expected.into_iter().filter(|state| states.contains(state)).collect();
    assert_eq!(of_list, expected, "{states:?}");
    estate.qualm.check_metrics();
}

#[test]
fn what_has_no_way_back_waits_for_an_approver_and_what_an_operator_takes_back_is_not_done_again() {
    let estate = Estate::start();
    let [vera, otto, paul, ada] = ["vera", "otto", "paul", "ada"].map(|account| estate.person(account));
    otto.done(&["quarantine", CART, "--for", "1h", "--reason", "a drill", "--yes"]);
    let waiting = estate.comes_to("ticket", "awaiting approval");
    let id = waiting["id"].as_str().unwrap();
    assert!(waiting["needs"].as_str().unwrap().contains("cannot be undone"));
    until_true("it is a note", PATIENCE, || {
        estate.qualm.page("/readyz").is_ok_and(|page| page.body.contains("wait for approval"))
    });
    assert!(otto.refused(&["approve", id, "--reason", "x"]).contains("listen.approvers"));
    assert!(vera.refused(&["undo", id, "--reason", "x"]).contains("listen.operators"));
    assert_eq!(estate.server.asked("POST").len(), 0);
    paul.done(&["approve", id, "--reason", "ticket 42"]);
    estate.comes_to("ticket", "in effect");
    let [post] = estate.server.asked("POST").try_into().unwrap();
    assert_eq!(post.json()["about"], CART);
    assert!(otto.refused(&["undo", id, "--reason", "x"]).contains("no way back"));

    let listed = estate.comes_to("list", "in effect");
    otto.done(&["undo", listed["id"].as_str().unwrap(), "--reason", "it is needed there"]);
    estate.comes_to("list", "undone");
    assert!(!estate.is_listed());

    // Who has ordered it does not approve it, whatever else they may.
    let web = LINE.replace(CART, "spiffe://mesh.test/ns/shop/sa/web") + "\n";
    let log = estate.qualm.folder().join("../access.log");
    fs::write(&log, fs::read_to_string(&log).unwrap() + &web).unwrap();
    until_true("web is known", PATIENCE, || estate.qualm.metric("qualm_identities") >= Some(2.0));
    // Of so few, one at a time may be denied.
    otto.done(&["lift", CART, "--reason", "the drill is over"]);
    ada.done(&["quarantine", "spiffe://mesh.test/ns/shop/sa/web", "--for", "1h", "--reason", "a drill", "--yes"]);
    let own = estate.comes_to("ticket", "awaiting approval");
    let own = own["id"].as_str().unwrap();
    assert!(ada.refused(&["approve", own, "--reason", "x"]).contains("somebody else must approve"));
    paul.done(&["reject", own, "--reason", "not this one"]);
    estate.comes_to("ticket", "rejected");
}
