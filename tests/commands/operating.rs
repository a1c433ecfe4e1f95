//! The operator's commands on a running instance: who may, what is refused and how it is told, and what a crash leaves.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    place::{CART, LINE, answer},
    support::{
        authority::{Authority, spiffe_id},
        operator::{Person, journalled, lists},
        ports,
        qualm::Qualm,
    },
};

const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";
const ISTIOD: &str = "spiffe://mesh.test/ns/istio-system/sa/istiod";

/// A running instance that has read one call each of `cart`, `web` and `istiod`, and enforces.
pub(crate) struct Estate {
    pub(crate) authority: Authority,
    pub(crate) qualm: Qualm,
    /// Port of the pages.
    pub(crate) http: u16,
    /// Port of gRPC, and of the operator's JSON.
    pub(crate) grpc: u16,
    _folder: tempfile::TempDir,
}

impl Estate {
    pub(crate) fn start(mode: &str) -> Self {
        Self::with(mode, "", |_, _| String::new())
    }

    /// With these lists in section `listen`, and what `more` says at the end of the configuration.
    pub(crate) fn with(mode: &str, listed: &str, more: impl FnOnce(&Authority, &Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let calls = [CART, WEB, ISTIOD].map(|caller| LINE.replace(CART, caller) + "\n");
        fs::write(folder.path().join("access.log"), calls.concat()).unwrap();
        let id = spiffe_id("security", "qualm");
        let svid = authority.write_svid(&id, &folder.path().join("svid"));
        let (http, grpc) = (ports::free(), ports::free());
        let config = format!(
            "[[file]]\npath = \"../access.log\"\nfollow = true\n[observe]\naddress = \"127.0.0.1:{http}\"\n\
             [listen]\naddress = \"127.0.0.1:{grpc}\"\ncertificate = {:?}\nkey = {:?}\nclient_roots = {:?}\n\
             subscribers = [\"spiffe://mesh.test/ns/gateway/*\"]\n{listed}{}\
             [enforce]\nmode = \"{mode}\"\n[state]\nsnapshot_every = \"1h\"\n{}",
            svid.certificate,
            svid.key,
            svid.bundle,
            lists(),
            more(&authority, folder.path())
        );
        let mut qualm = Qualm::start(folder.path(), &config, http);
        qualm.wait_until("has read the calls", || super::support::qualm::sample(http, "qualm_identities") >= Some(3.0));
        Self { authority, qualm, http, grpc, _folder: folder }
    }

    pub(crate) fn person(&self, account: &str) -> Person {
        Person::new(&self.authority, account, self.qualm.folder())
    }

    fn folder(&self) -> PathBuf {
        self.qualm.folder().to_owned()
    }
}

fn set<'a>(what: &'a str, identity: &'a str) -> Vec<&'a str> {
    vec![what, identity, "--for", "1h", "--reason", "a drill"]
}

#[test]
fn each_role_may_do_what_it_is_for_and_what_those_below_may() {
    let estate = Estate::start("enforce");
    let [vera, otto, paul, ada] = ["vera", "otto", "paul", "ada"].map(|account| estate.person(account));
    for who in [&vera, &otto, &paul, &ada] {
        assert_eq!(who.done(&["list"])["enforcement"]["mode"], "enforce");
        assert_eq!(who.done(&["show", "cart"])["identity"], CART);
    }
    assert!(vera.refused(&set("watch", "cart")).contains("listen.operators"));
    assert!(otto.refused(&["pause", "--for", "1m", "--reason", "x"]).contains("listen.approvers"));
    let overriding = [&set("throttle", ISTIOD)[..], &["--override", "protected"]].concat();
    assert!(paul.refused(&overriding).contains("listen.admins"));
    for who in [&otto, &paul, &ada] {
        who.done(&set("watch", "cart"));
    }
    paul.done(&["pause", "--for", "1m", "--reason", "x"]);
    ada.done(&["resume", "--reason", "x"]);
    ada.done(&overriding);

    // Listed for something else; listed for nothing; of another authority; without a certificate.
    let gateway = Person::with_id(&estate.authority, "spiffe://mesh.test/ns/gateway/sa/api", estate.qualm.folder());
    assert!(gateway.refused(&["list"]).contains("listen.viewers"));
    for stranger in [
        Person::with_id(&estate.authority, "spiffe://mesh.test/ns/soc/sa/mallory", estate.qualm.folder()),
        Person::with_id(&Authority::new(), "spiffe://mesh.test/ns/soc/sa/otto", &estate.folder()),
    ] {
        let said = stranger.run(&["list"]);
        assert_eq!(said.code, Some(1), "{said:#?}");
        assert!(said.err.contains("has closed the connection") && said.err.contains("viewers"), "{said:#?}");
    }
    let nameless = answer(estate.qualm.folder(), &["list"]);
    assert!(nameless.code == Some(2) && nameless.err.contains("--cert and --key are missing"), "{nameless:#?}");
    // Refusals are in the journal too, with who.
    let refused = journalled(estate.qualm.folder(), "istiod");
    let refused = refused.iter().find(|record| record["payload"]["command"] == "refused").expect("it is journalled");
    assert_eq!(refused["payload"]["by"], paul.id);
}

#[test]
fn what_cannot_be_done_is_told_with_the_remedy() {
    let estate = Estate::start("enforce");
    let otto = estate.person("otto");
    let long = "x".repeat(501);
    for (arguments, words) in [
        (set("quarantine", "nobody"), "`nobody` is not known"),
        (set("quarantine", "shop"), "may be any of these"),
        (vec!["quarantine", "cart", "--for", "0s", "--reason", "x", "--yes"], "from 10 s to 7 days"),
        (vec!["quarantine", "cart", "--for", "400d", "--reason", "x", "--yes"], "from 10 s to 7 days"),
        (vec!["quarantine", "cart", "--for", "soon", "--reason", "x"], "not a length of time"),
        (vec!["watch", "cart", "--for", "1h", "--reason", &long], "at most 500"),
        (vec!["watch", "cart", "--for", "1h", "--reason", " "], "a reason is missing"),
        (vec!["watch", "cart", "--for", "1h", "--reason", "x", "--idempotency-key", "a b"], "idempotency key"),
        (vec!["quarantine", "istiod", "--for", "1h", "--reason", "x", "--yes"], "`protected`"),
        (vec!["lift", "cart", "--reason", "x"], "nothing stands"),
        (vec!["lift", "cart", "--reason", "x", "--hold", "31d"], "from 10 s to 30 days"),
        (set("quarantine", "cart"), "give --yes"),
    ] {
        let said = otto.refused(&arguments);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let paul = estate.person("paul");
    assert!(paul.refused(&["pause", "--for", "2d", "--reason", "x"]).contains("from 10 s to 24 h"));
    assert!(paul.refused(&["resume", "--reason", "x"]).contains("not paused"));
    assert_eq!(otto.done(&["list"])["entries"], serde_json::json!([]), "nothing was done");

    // Of three identities one may be denied at once.
    otto.done(&[&set("quarantine", "cart")[..], &["--yes"]].concat());
    let said = otto.refused(&[&set("quarantine", "web")[..], &["--yes"]].concat());
    assert!(said.contains("`max_share`") && said.contains("1 of at most 1"), "{said}");
}

#[test]
fn a_call_that_comes_again_under_its_key_acts_once_and_survives_a_kill() {
    let mut estate = Estate::start("enforce");
    let otto = estate.person("otto");
    let call = [&set("quarantine", "cart")[..], &["--yes", "--idempotency-key", "ticket-42"]].concat();
    let first = otto.done(&call);
    assert_eq!((&first["repeated"], &first["by"]), (&false.into(), &otto.id.clone().into()));
    // Nothing but the journal knows of it.
    estate.qualm.kill();
    estate.qualm.start_again();
    let again = otto.done(&call);
    assert_eq!((&again["repeated"], &again["record"]), (&true.into(), &first["record"]));
    assert_eq!(again["entries"], first["entries"], "neither a new decision nor a longer lease");
    let other = [&set("watch", "cart")[..], &["--idempotency-key", "ticket-42"]].concat();
    assert!(otto.refused(&other).contains("was used for another call"));
    let records = journalled(estate.qualm.folder(), "cart");
    let acts = records.iter().filter(|record| record["payload"]["command"] == "operator").count();
    assert_eq!(acts, 1, "{records:#?}");

    // What is known without the instance, from the side.
    let explained = answer(estate.qualm.folder(), &["explain", "cart"]);
    assert_eq!(explained.code, Some(0), "{explained:#?}");
    assert!(explained.line("By hand: ").contains(&otto.id), "{explained:#?}");
    otto.done(&["lift", "cart", "--reason", "over", "--hold", "1h"]);
    estate.qualm.kill();
    estate.qualm.start_again();
    let shown = otto.done(&["show", "cart"]);
    assert_eq!((&shown["entries"], &shown["hold"]["reason"]), (&serde_json::json!([]), &"over".into()));
}

#[test]
fn a_pause_survives_a_kill_and_ends_by_itself() {
    let mut estate = Estate::start("enforce");
    let paul = estate.person("paul");
    paul.done(&set("restrict", "cart"));
    paul.done(&["pause", "--for", "10s", "--reason", "is it us?"]);
    estate.qualm.kill();
    estate.qualm.start_again();
    let http = estate.qualm.http();
    let paused = || super::support::qualm::sample(http, "qualm_enforcement_paused");
    if paused() == Some(1.0) {
        assert_eq!(paul.done(&["list"])["entries"][0]["acts"], false);
    }
    estate.qualm.wait_until("the pause is over", || paused() == Some(0.0));
    assert_eq!(paul.done(&["list"])["entries"][0]["acts"], true);
}

#[test]
fn in_shadow_mode_a_quarantine_marks_unless_it_is_told_to_act() {
    let estate = Estate::start("shadow");
    let otto = estate.person("otto");
    let call = [&set("quarantine", "cart")[..], &["--yes"]].concat();
    let marked = otto.done(&call);
    assert_eq!(marked["entries"][0]["acts"], false);
    assert!(marked["notes"][0].as_str().unwrap().contains("--act-in-shadow-mode"), "{marked}");
    let acts = otto.done(&[&call[..], &["--act-in-shadow-mode"]].concat());
    assert_eq!(acts["entries"][0]["acts"], true, "{acts}");
}

#[test]
fn what_a_quarantine_would_deny_is_shown_first() {
    let estate = Estate::start("enforce");
    let said = estate.person("otto").run(&[&set("quarantine", "cart")[..], &["--yes"]].concat());
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(said.err.contains("of them would have been denied, to") && said.err.contains("sa/orders"), "{said:#?}");
    assert!(said.out.contains("quarantined") && said.out.contains("set by spiffe://mesh.test/ns/soc/sa/otto: a drill"));
}

#[test]
fn an_instance_that_is_not_there_is_told_so_with_another_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let svid = authority.write_svid(&spiffe_id("soc", "otto"), folder.path());
    let port = ports::free();
    let mut command = Command::new(env!("CARGO_BIN_EXE_qualm"));
    command.args(["list", "--server", &format!("127.0.0.1:{port}"), "--server-id", &spiffe_id("security", "qualm")]);
    command.arg("--ca").arg(&svid.bundle).arg("--cert").arg(&svid.certificate).arg("--key").arg(&svid.key);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot be reached") && said.contains("--server"), "{said}");
    let none = answer(folder.path(), &["list"]);
    assert!(none.code == Some(2) && none.err.contains("--server and --ca"), "{none:#?}");
}
