//! The response policy as a user meets it: tried by `policy test` and `check`, and what becomes of a running instance whose
//! policy an edit breaks.

use std::fs;

use serde_json::json;

use crate::{
    operating::Estate,
    place::{CART, Place, answer},
    recorder::{Server, status},
    support::{
        operator::exported,
        qualm::sample,
        wait::{PATIENCE, until, until_true},
    },
};

const HEAD: &str = "package qualm.response\nimport rego.v1\n";
/// The list is told at once; a ticket is opened with a word of `data.owners`.
const RULES: &str = "hooks contains {\"hook\": \"list\"} if input.rank >= 4\n\
                     hooks contains {\"hook\": \"ticket\", \"approval\": \"it is a person's to say\", \"approvers\": data.owners} if \
                     input.rank >= 4\n";

fn hooks(url: &str) -> String {
    let hook = |name: &str| {
        format!(
            "[[hook]]\nname = \"{name}\"\nfrom = \"watched\"\ndry_run = false\n[hook.webhook]\n\
             endpoint = {{ url = \"{url}\" }}\nact = {{ method = \"PUT\", path = \"/{name}/{{service}}\" }}\n\
             undo = {{ method = \"DELETE\", path = \"/{name}/{{service}}\" }}\n"
        )
    };
    hook("list") + &hook("ticket")
}

#[test]
fn cases_of_a_policy_are_run_and_a_broken_one_is_told_with_its_line() {
    let place =
        Place::with(&format!("[response]\npolicy = \"r.rego\"\ndata = \"r.json\"\n{}", hooks("http://127.0.0.1:9")));
    let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
    write("r.json", r#"{"owners": ["spiffe://mesh.test/ns/soc/sa/paul"]}"#);
    write("r.rego", &format!("{HEAD}{RULES}"));
    let case = |name: &str, level: &str, expect: serde_json::Value| json!({ "name": name, "order": { "principal": CART, "level": level }, "expect": expect });
    let ticket = json!({ "hook": "ticket", "approval": "it is a person's to say",
        "approvers": ["spiffe://mesh.test/ns/soc/sa/paul"] });
    let good = json!([
        case("watched is left alone", "watched", json!([])),
        case("a quarantine opens a ticket", "quarantined", json!([{ "hook": "list" }, ticket])),
    ]);
    write("good.json", &good.to_string());
    let passed = place.run(&["policy", "test", "good.json"]);
    assert!(passed.code == Some(0) && passed.out.contains("2 passed, 0 failed"), "{passed:#?}");
    write("bad.json", &json!([case("nothing happens", "quarantined", json!([]))]).to_string());
    let failed = place.run(&["policy", "test", "good.json", "bad.json"]);
    assert_eq!(failed.code, Some(3), "{failed:#?}");
    assert!(failed.line("FAIL  nothing happens").contains("[] is expected"), "{failed:#?}");
    assert!(place.run(&["check"]).line("answers at every level").starts_with("ok"));

    write("r.rego", &format!("{HEAD}hooks contains {{\n"));
    let checked = place.run(&["check"]);
    assert_eq!(checked.code, Some(3), "{checked:#?}");
    let told = checked.line("r.rego: line ");
    assert!(told.starts_with("fail") && told.contains("`qualm run` will not start with it"), "{told}");
    let tested = place.run(&["policy", "test", "good.json"]);
    assert!(tested.code == Some(2) && tested.err.contains("r.rego: line "), "{tested:#?}");
}

#[test]
fn an_edit_that_breaks_the_policy_loosens_nothing_also_over_kill_9() {
    let server = Server::start(|_, _| status(200));
    let url = server.url.clone();
    let mut estate = Estate::with("enforce", "", |_, folder| {
        fs::write(folder.join("r.rego"), format!("{HEAD}{RULES}")).unwrap();
        fs::write(folder.join("r.json"), r#"{"owners": ["spiffe://mesh.test/ns/soc/sa/ada"]}"#).unwrap();
        format!("[response]\npolicy = \"../r.rego\"\ndata = \"../r.json\"\n{}", hooks(&url))
    });
    let [otto, paul, ada] = ["otto", "paul", "ada"].map(|account| estate.person(account));
    let effect = |hook: &str, state: &str| {
        until(&format!("{hook} is {state}"), PATIENCE, || {
            let effects = otto.done(&["hooks", "list", "--all"])["effects"].as_array().cloned().unwrap();
            effects.into_iter().find(|effect| effect["hook"] == hook && effect["state"] == state)
        })
    };
    let quarantine = |who: &str| ["quarantine", who, "--for", "1h", "--reason", "a drill", "--yes"].map(str::to_owned);
    let order = |who: &str| otto.done(&quarantine(who).each_ref().map(String::as_str));
    otto.done(&["watch", CART, "--for", "1h", "--reason", "a drill"]);
    order(CART);
    effect("list", "in effect");
    let waiting = effect("ticket", "awaiting approval");
    let id = waiting["id"].as_str().unwrap();
    assert_eq!(waiting["needs"], "it is a person's to say");
    assert!(paul.refused(&["approve", id, "--reason", "x"]).contains("the response policy lets only"));
    ada.done(&["approve", id, "--reason", "ticket 42"]);
    effect("ticket", "in effect");

    let (http, inside) = (estate.http, estate.qualm.folder().to_owned());
    fs::write(inside.join("../r.rego"), format!("{HEAD}hooks contains {{\n")).unwrap();
    answer(&inside, &["reload"]);
    let failing = || sample(http, "qualm_response_policy_failing");
    until_true("it is told", PATIENCE, || failing() == Some(1.0));
    until_true("it is a note", PATIENCE, || {
        let page = estate.qualm.page("/readyz").map(|page| page.body).unwrap_or_default();
        page.contains("r.rego: line ") && page.contains("as it was goes on")
    });
    assert!(answer(&inside, &["check"]).line("r.rego: line ").contains("the last good one"));
    // It still says what is to be done about who comes next.
    let web = quarantine("spiffe://mesh.test/ns/shop/sa/web");
    // Two of three are more than evidence or an operator may deny.
    ada.done(&[&web.each_ref().map(String::as_str)[..], &["--override", "max-share"]].concat());
    until_true("the list is told of it", PATIENCE, || server.asked("PUT").iter().any(|of| of.path == "/list/web"));

    estate.qualm.kill();
    estate.qualm.start_again();
    until_true("it is told again", PATIENCE, || failing() == Some(1.0));
    assert_eq!(effect("list", "in effect")["hook"], "list");
    assert!(server.asked("DELETE").is_empty(), "nothing is taken back");
    fs::write(inside.join("../r.rego"), format!("{HEAD}{RULES}")).unwrap();
    answer(&inside, &["reload"]);
    until_true("it rules again", PATIENCE, || failing() == Some(0.0));
    let states: Vec<String> = until("the journal has all of it", PATIENCE, || {
        let records = exported(&inside);
        let of = records.iter().filter(|record| record["payload"]["command"] == "policy");
        let states: Vec<String> =
            of.map(|record| record["payload"]["policy"]["state"].as_str().unwrap().to_owned()).collect();
        (states.len() >= 4).then_some(states)
    });
    assert_eq!(states, ["rules", "refused", "refused", "rules"]);
    estate.qualm.check_metrics();
}
