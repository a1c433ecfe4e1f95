//! The response policy as a user writes it: what it may say, what becomes of one that is broken.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use qualm_hooks::{
    config::When,
    effect::{End, Key, State, Stored},
    order::Order,
    policy::{
        HookFact, Policy, ResponseConfig, Source, cases,
        rego::{Rego, Response},
    },
    ruling::Ruling,
};
use qualm_model::{level::Level, time::Timestamp};

const HEAD: &str = "package qualm.response\nimport rego.v1\n";
const VAULT: &str = "hooks contains {\"hook\": \"vault\"} if input.level == \"quarantined\"\n";
const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";

/// An order of the years of clocks that begin at 0.
fn order(service: &str, level: Level) -> Order {
    let (decided, expires) = (Timestamp::from_seconds(100), Timestamp::from_seconds(3_700));
    Order { decided, expires, ..support::order(service, level) }
}

fn hook(name: &str, from: Level) -> HookFact {
    HookFact {
        name: name.to_owned(),
        kind: "vault",
        from,
        from_rank: from as u8,
        when: When::Always,
        cluster: None,
        in_shadow: false,
        reversible: true,
        narrow: false,
        latency_ms: 5,
    }
}

fn hooks() -> Vec<HookFact> {
    vec![hook("opa", Level::Watched), hook("vault", Level::Quarantined)]
}

fn vault() -> Vec<HookFact> {
    vec![hook("vault", Level::Quarantined)]
}

fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policy").join(file)
}

fn shipped(policy: &str, data: Option<&str>) -> Rego {
    let config = ResponseConfig { policy: Some(deployed(policy)), data: data.map(deployed) };
    Rego::compile(&config.read().unwrap().expect("one is named")).unwrap()
}

fn compiled(text: &str) -> Result<Rego, String> {
    Rego::compile(&Source { policy_file: "test.rego".to_owned(), policy: text.to_owned(), data: None })
}

fn asked(text: &str) -> Result<Vec<Response>, String> {
    compiled(text)?.ask(&order("cart", Level::Quarantined), &hooks())
}

fn written(folder: &Path, rules: &str) -> ResponseConfig {
    let file = folder.join("response.rego");
    fs::write(&file, format!("{HEAD}{rules}")).unwrap();
    ResponseConfig { policy: Some(file), data: None }
}

#[test]
fn the_shipped_default_says_what_holds_without_a_policy_at_every_level() {
    let rego = shipped("response.rego", None);
    let kept = HookFact { when: When::Leaking, ..hook("sessions", Level::Restricted) };
    let hooks = [hooks(), vec![kept]].concat();
    for (level, leaking) in Level::ALL.into_iter().flat_map(|level| [(level, false), (level, true)]) {
        let order = Order { leaking, ..order("cart", level) };
        let mut built_in = Policy::BuiltIn.responses(&order, &hooks).unwrap();
        built_in.sort();
        assert_eq!(rego.ask(&order, &hooks).unwrap(), built_in, "{level}, {leaking}");
        let is_kept_for_it = built_in.iter().any(|said| said.hook == "sessions");
        assert_eq!(is_kept_for_it, leaking && level >= Level::Restricted, "{level}");
    }
}

#[test]
fn what_is_kept_for_leaks_acts_on_nothing_else_whatever_a_policy_says() {
    let rego = compiled(&format!("{HEAD}hooks := [{{\"hook\": \"vault\"}}]\n")).unwrap();
    let (policy, hooks) = (Policy::Rego(Box::new(rego)), [HookFact { when: When::Leaking, ..vault().remove(0) }]);
    let wanted = |leaking| {
        let order = Order { leaking, ..order("cart", Level::Quarantined) };
        policy.decide(&order, &hooks, |_| None).unwrap().len()
    };
    assert_eq!((wanted(false), wanted(true)), (0, 1));
}

#[test]
fn the_shipped_example_passes_its_own_cases() {
    let rego = shipped("tiers.rego", Some("tiers.json"));
    let vault = vec![hook("vault", Level::Quarantined)];
    let failed = cases::run(&Policy::Rego(Box::new(rego)), &deployed("tiers-cases.json"), &vault).unwrap();
    assert!(failed.iter().all(|case| case.problem.is_none()) && failed.len() == 8, "{failed:#?}");
}

#[test]
fn a_policy_that_does_not_compile_or_is_another_is_refused_with_its_line() {
    for (text, words) in [
        (format!("{HEAD}hooks contains {{\"hook\": \"vault\"}} if {{"), "test.rego: line 3, column "),
        ("package other\nhooks := []".to_owned(), "line 1: is of package `other`; `package qualm.response` is needed"),
        (format!("{HEAD}other := []"), "has no rule `hooks`"),
        (format!("{HEAD}hooks := [] if unheard_of(7)"), "line 3"),
        (format!("{HEAD}hooks := numbers.range(0, 1000000000000)"), "line 3: `numbers.range` may make more"),
        (format!("{HEAD}hooks := [] if hooks != 7"), "recursion"),
    ] {
        let error = compiled(&text).unwrap_err();
        assert!(error.starts_with("test.rego: ") && error.contains(words), "{text}: {error}");
    }
}

#[test]
fn data_that_are_no_object_or_would_be_the_policy_itself_are_refused() {
    for text in ["[1]", "{\"qualm\": {}}", "{"] {
        let data = Some(("test.json".to_owned(), text.to_owned()));
        let policy = format!("{HEAD}hooks := []\n");
        let error = Rego::compile(&Source { policy_file: "test.rego".to_owned(), policy, data }).unwrap_err();
        assert!(error.starts_with("test.json: "), "{text}: {error}");
    }
}

#[test]
fn a_policy_that_says_nonsense_gets_a_clear_error() {
    for (rule, words) in [
        ("hooks := 7", "is no set of"),
        ("hooks := [{\"hok\": \"vault\"}]", "unknown field `hok`"),
        ("hooks := [{\"hook\": \"vault\"}, {\"hook\": \"vault\", \"lease_s\": 1}]", "two things of hook `vault`"),
        ("hooks := [] if input.rank == 0", "undefined"),
    ] {
        let error = asked(&format!("{HEAD}{rule}\n")).unwrap_err();
        assert!(error.contains(words), "{rule}: {error}");
    }
    let rego = compiled(&format!("{HEAD}hooks := [{{\"hook\": \"valt\"}}]\n")).unwrap();
    let policy = Policy::Rego(Box::new(rego));
    let error = policy.decide(&order("cart", Level::Quarantined), &hooks(), |_| None).unwrap_err();
    assert!(error.contains("`valt`, which is not configured"), "{error}");
}

#[test]
fn a_policy_that_goes_on_and_on_is_stopped() {
    let many = format!("[{}]", (0..200).map(|n| n.to_string()).collect::<Vec<_>>().join(", "));
    let text = format!(
        "{HEAD}many := {many}\nhooks := [] if {{\n  input.rank > 0\n  count([1 | some a in many; some b in many; some c in \
         many; some d in many; a + b + c + d == 7777]) == 0\n}}\nhooks := [] if input.rank == 0\n"
    );
    let error = asked(&text).unwrap_err();
    assert!(error.contains("time limit"), "{error}");
}

#[test]
fn a_shadow_triggers_nothing_whatever_a_policy_says() {
    let rego = compiled(&format!("{HEAD}hooks := [{{\"hook\": \"vault\"}}]\n")).unwrap();
    let shadow = Order { acts: false, ..order("cart", Level::Watched) };
    assert_eq!(Policy::Rego(Box::new(rego)).decide(&shadow, &hooks(), |_| None), Ok(Vec::new()));
}

fn effect(order: &Order, until: Timestamp) -> Stored {
    let key = Key { hook: "vault".to_owned(), subject: order.subject.clone() };
    let mut effect = Stored::new(key, order.clone(), until, Timestamp::from_seconds(100));
    effect.state = State::InEffect;
    effect
}

fn said(ruling: &mut Ruling) -> Vec<&'static str> {
    ruling.told().into_iter().map(|told| told.state).collect()
}

#[test]
fn a_policy_that_was_broken_by_an_edit_leaves_the_last_good_one_ruling_also_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = written(folder.path(), VAULT);
    let directory = || folder.path().to_owned();
    let mut ruling = Ruling::start(&config, directory(), &vault()).unwrap();
    assert_eq!(said(&mut ruling), ["rules"]);
    let broken = written(folder.path(), "hooks contains {\n");
    ruling.reload(&broken, &[], &vault());
    let [note] = ruling.notes().collect::<Vec<_>>().try_into().unwrap();
    assert!(note.contains("response.rego: line ") && note.contains("qualm reload"), "{note}");
    let mut restarted = Ruling::start(&broken, directory(), &vault()).unwrap();
    let quarantine = [order("cart", Level::Quarantined)];
    for ruling in [&mut ruling, &mut restarted] {
        assert_eq!(said(ruling), ["refused"]);
        assert_eq!(ruling.decide(&quarantine, &vault(), &std::iter::empty()).len(), 1);
        ruling.reload(&written(folder.path(), VAULT), &[], &vault());
        assert_eq!((said(ruling), ruling.is_troubled()), (vec!["rules"], false));
    }
}

#[test]
fn a_policy_that_is_broken_at_the_first_start_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let broken = written(folder.path(), "hooks contains {\n");
    let error = Ruling::start(&broken, folder.path().to_owned(), &vault()).unwrap_err();
    assert!(error.contains("response.rego: line "), "{error}");
}

#[test]
fn a_policy_that_cannot_say_what_is_to_be_done_about_what_stands_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut ruling = Ruling::start(&written(folder.path(), VAULT), folder.path().to_owned(), &vault()).unwrap();
    // It answers for everybody but the cart.
    let config = written(folder.path(), "hooks := [] if input.service != \"cart\"\n");
    ruling.reload(&config, &[order("cart", Level::Quarantined)], &vault());
    assert_eq!(said(&mut ruling), ["rules", "refused"]);
    let [note] = ruling.notes().collect::<Vec<_>>().try_into().unwrap();
    assert!(note.contains("undefined for this order") && note.contains(CART), "{note}");
}

#[test]
fn while_a_policy_fails_what_stands_keeps_its_lease_and_nothing_new_begins() {
    let folder = tempfile::tempdir().unwrap();
    // It fails on an identity that came later than the policy.
    let rules = format!("{VAULT}hooks contains 7 if input.service == \"cart\"\n");
    let mut ruling = Ruling::start(&written(folder.path(), &rules), folder.path().to_owned(), &vault()).unwrap();
    let (cart, till) = (order("cart", Level::Quarantined), order("till", Level::Quarantined));
    let lease = Timestamp::from_seconds(1_900);
    let stands = [effect(&cart, lease)];
    let wanted = ruling.decide(&[cart.clone(), till.clone()], &vault(), &stands.iter());
    let [kept] = wanted.try_into().expect("what stands, and nothing for the other");
    assert_eq!((kept.order.subject, kept.until), (cart.subject, Some(lease)));
    assert_eq!((said(&mut ruling), ruling.is_troubled()), (vec!["rules", "failing"], true));
    // Once nobody stands whom it fails on, it rules again.
    assert_eq!(ruling.decide(&[till], &vault(), &std::iter::empty()).len(), 1);
    assert_eq!((said(&mut ruling), ruling.is_troubled()), (vec!["recovered"], false));
}

#[test]
fn a_lease_of_the_policy_counts_from_the_first_time_over_renewals() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "hooks := [{\"hook\": \"vault\", \"lease_s\": 600}]\n";
    let mut ruling = Ruling::start(&written(folder.path(), rules), folder.path().to_owned(), &vault()).unwrap();
    let mut cart = order("cart", Level::Quarantined);
    let until = |ruling: &mut Ruling, order: &Order, stands: &[Stored]| {
        ruling.decide(std::slice::from_ref(order), &vault(), &stands.iter())[0].until
    };
    let end = Some(Timestamp::from_seconds(700));
    assert_eq!(until(&mut ruling, &cart, &[]), end);
    let mut stands = effect(&cart, Timestamp::from_seconds(700));
    cart.decided = Timestamp::from_seconds(3_600);
    assert_eq!(until(&mut ruling, &cart, std::slice::from_ref(&stands)), end);
    stands.state = State::Ended(End::Undone);
    assert_eq!(until(&mut ruling, &cart, &[stands]), end);
}
