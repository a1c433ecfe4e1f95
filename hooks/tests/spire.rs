//! SPIRE, the real one, server and agent: SVIDs live for seconds, or are not renewed at all, until the order ends and the
//! entries are as they were; agents are banned and the authority is rotated for good, only with approval.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use qualm_hooks::{config::HookConfig, hook::Failure};
use qualm_model::{level::Level, time::Clock};
use serde_json::Value;
use support::{
    account,
    engine::{Running, run_child},
    now, order,
    parts::{Part, is_long, present},
    ports,
    process::Process,
    until,
};

const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";

#[test]
#[ignore = "a child of other tests"]
fn child() {
    run_child();
}

/// A server, an agent, and an entry of cart for whoever runs this test.
struct Spire {
    folder: PathBuf,
    port: u16,
    _server: Process,
    agent: Option<Process>,
}

impl Spire {
    fn start(folder: &Path) -> Self {
        let (port, health) = (ports::free(), ports::free());
        write(&folder.join("server.conf"), &server_conf(folder, port, health));
        let mut server = Self::command("spire-server");
        server.args(["run", "-config"]).arg(folder.join("server.conf"));
        let server = Process::spawn("spire-server", server, &folder.join("server.log"));
        let mut spire = Self { folder: folder.to_owned(), port, _server: server, agent: None };
        until("SPIRE's server is up", || spire.server(&["healthcheck"]).is_some().then_some(()));
        spire.mint("qualm", "spiffe://mesh.test/qualm");
        spire.attest();
        spire.enter();
        spire
    }

    fn command(program: &str) -> Command {
        Process::command(&Part::Spire.folder().unwrap().join(program))
    }

    /// What a command of the server's prints, where it succeeds.
    fn server(&self, arguments: &[&str]) -> Option<String> {
        let output = Self::command("spire-server")
            .args(arguments)
            .arg("-socketPath")
            .arg(self.folder.join("server.sock"))
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.server(&[arguments, &["-output", "json"]].concat());
        serde_json::from_str(&said.unwrap_or_else(|| panic!("{arguments:?} fails"))).unwrap()
    }

    /// Gives out a certificate, with its key and the bundle, as whoever renews certificates does: in files made anew.
    fn mint(&self, of: &str, id: &str) {
        let (fresh, place) = (self.folder.join(format!("{of}.new")), self.folder.join(of));
        fs::create_dir_all(&fresh).unwrap();
        fs::create_dir_all(&place).unwrap();
        self.server(&["x509", "mint", "-spiffeID", id, "-write", fresh.to_str().unwrap()]).unwrap();
        for file in ["svid.pem", "key.pem", "bundle.pem"] {
            fs::rename(fresh.join(file), place.join(file)).unwrap();
        }
    }

    /// Starts an agent that the server knows.
    fn attest(&mut self) {
        let token = self.json(&["token", "generate", "-spiffeID", "spiffe://mesh.test/node/n1"]);
        let bundle = self.folder.join("bundle.pem");
        write(&bundle, &self.server(&["bundle", "show"]).unwrap());
        write(&self.folder.join("agent.conf"), &agent_conf(&self.folder, self.port));
        let mut agent = Self::command("spire-agent");
        agent.args(["run", "-joinToken", token["value"].as_str().unwrap(), "-config"]);
        agent.arg(self.folder.join("agent.conf"));
        self.agent = Some(Process::spawn("spire-agent", agent, &self.folder.join("agent.log")));
        until("SPIRE's agent is attested", || (!self.agents().is_empty()).then_some(()));
    }

    /// Path and standing of each agent.
    fn agents(&self) -> Vec<(String, bool)> {
        let agents = self.json(&["agent", "list"]);
        let of = |agent: &Value| {
            let path = agent["id"]["path"].as_str().unwrap().to_owned();
            (path, agent["banned"].as_bool().unwrap_or_default())
        };
        agents["agents"].as_array().into_iter().flatten().map(of).collect()
    }

    /// Enters cart beneath the agent.
    fn enter(&self) {
        self.say("create", &[], "900");
    }

    /// Says how cart's entry is to be.
    fn say(&self, what: &str, which: &[&str], ttl: &str) {
        let parent = format!("spiffe://mesh.test{}", self.agents()[0].0);
        let selector = format!("unix:uid:{}", fs::metadata(&self.folder).unwrap().uid());
        let entry = ["entry", what, "-parentID", &parent, "-spiffeID", CART, "-selector", &selector];
        let rest = ["-x509SVIDTTL", ttl, "-jwtSVIDTTL", "800", "-dns", "cart.shop", "-hint", "the cart"];
        self.json(&[&entry[..], &rest, which].concat());
    }

    /// Cart's entries as the server has them, but for what it writes itself: when they were made, how often changed.
    fn entries(&self) -> Vec<Value> {
        let mut shown = self.json(&["entry", "show", "-spiffeID", CART]);
        let entries = shown["entries"].as_array_mut().unwrap();
        for entry in entries.iter_mut() {
            entry.as_object_mut().unwrap().retain(|key, _| !["revision_number", "created_at"].contains(&key.as_str()));
        }
        std::mem::take(entries)
    }

    /// Seconds that the certificate lives which the agent gives to cart, where it gives one.
    fn lifetime(&self) -> Option<i64> {
        let place = self.folder.join("fetched");
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        let mut fetch = Self::command("spire-agent");
        fetch.args(["api", "fetch", "x509", "-silent", "-timeout", "2s", "-socketPath"]);
        fetch.arg(self.folder.join("agent.sock")).arg("-write").arg(&place);
        if !fetch.output().unwrap().status.success() {
            return None;
        }
        let pem = fs::read(place.join("svid.0.pem")).ok()?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
        let validity = pem.parse_x509().ok()?.validity().clone();
        Some(validity.not_after.timestamp() - validity.not_before.timestamp())
    }

    fn hook(&self, act: &str) -> HookConfig {
        self.hook_as("qualm", act)
    }

    fn hook_as(&self, of: &str, act: &str) -> HookConfig {
        configured(&self.folder.join(of), self.port, act)
    }

    fn outbox(&self, of: &str) -> PathBuf {
        account::outbox(&self.folder, of)
    }
}

/// A hook that acts at the server at `port`, with the certificates in `place`.
fn configured(place: &Path, port: u16, act: &str) -> HookConfig {
    let text = format!(
        "name = \"{act}\"\ndry_run = false\ncap = 1000\n[spire]\nact = \"{act}\"\nspread_s = 2\n[spire.server]\n\
             address = \"127.0.0.1:{port}\"\nserver_id = \"spiffe://mesh.test/spire/server\"\nbundle_file = {:?}\n\
             certificate = {:?}\nkey = {:?}\n",
        place.join("bundle.pem"),
        place.join("svid.pem"),
        place.join("key.pem"),
    );
    toml::from_str(&text).unwrap()
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
}

/// Caches are read every second, so that what an operator waits for takes a second here, and not five.
fn server_conf(folder: &Path, port: u16, health: u16) -> String {
    let folder = folder.display();
    format!(
        r#"
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/server.sock"
  trust_domain = "mesh.test"
  data_dir = "{folder}/server"
  ca_ttl = "24h"
  default_x509_svid_ttl = "1h"
  admin_ids = ["spiffe://mesh.test/qualm"]
  experimental {{ cache_reload_interval = "1s" }}
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{folder}/data.sqlite3" }} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
health_checks {{ listener_enabled = true bind_address = "127.0.0.1" bind_port = "{health}" }}
"#
    )
}

fn agent_conf(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        r#"
agent {{
  data_dir = "{folder}/agent"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{folder}/agent.sock"
  trust_bundle_path = "{folder}/bundle.pem"
  trust_domain = "mesh.test"
  experimental {{ sync_interval = "1s" }}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"#
    )
}

#[test]
fn svids_are_cut_and_given_back() {
    if !present(&[Part::Spire]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spire = Spire::start(folder.path());
    who_is_no_admin_is_told_so_and_who_is_may(&spire);
    whom_spire_does_not_issue_to_is_not_there(&spire);
    svids_live_for_seconds_until_the_order_ends(&spire);
    entries_that_somebody_else_has_changed_stay_so(&spire);
    entries_are_deleted_and_come_back_as_they_were(&spire);
    after_kill_9_they_come_back_once(&spire, "shorten-ttl");
    after_kill_9_they_come_back_once(&spire, "delete-entries");
    an_entry_that_somebody_has_made_again_stays(&spire);
    the_authority_is_rotated_only_with_approval(&spire);
    agents_are_banned_only_with_approval(&spire);
}

#[test]
fn a_server_that_hangs_or_talks_garbage_is_given_up_in_time_and_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
    for (file, pem) in [("bundle.pem", &own), ("svid.pem", &own), ("key.pem", &key.serialize_pem())] {
        write(&folder.path().join(file), pem);
    }
    for (says, words) in [(None, "no connection within"), (Some("HTTP/1.1 200 OK\r\n\r\n"), "is not trusted")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            says.into_iter().for_each(|says: &str| connection.write_all(says.as_bytes()).unwrap());
            // Until the other has had enough.
            let _ = connection.read_to_end(&mut Vec::new());
        });
        let hook = HookConfig { timeout_s: 1, ..configured(folder.path(), port, "shorten-ttl") };
        let failure = hook.build(&Clock::new(now)).unwrap().probe().unwrap_err();
        assert!(matches!(&failure, Failure::Again { why, .. } if why.contains(words)), "{failure:?}");
    }
}

fn who_is_no_admin_is_told_so_and_who_is_may(spire: &Spire) {
    spire.mint("other", "spiffe://mesh.test/ns/shop/sa/other");
    let probe = |of: &str, act: &str| spire.hook_as(of, act).build(&Clock::new(now)).unwrap().probe();
    for act in ["shorten-ttl", "delete-entries", "ban-agents", "rotate-authority"] {
        let (said, refused) = (probe("qualm", act), probe("other", act).unwrap_err().to_string());
        assert!(said.as_ref().is_ok_and(|said| said.contains("knows us as an admin")), "{act}: {said:?}");
        assert!(refused.contains("PermissionDenied") && refused.contains("must be an admin's"), "{refused}");
    }
    let mut wrong = spire.hook("shorten-ttl");
    wrong.spire.as_mut().unwrap().server.server_id = "spiffe://mesh.test/somebody/else".to_owned();
    let said = wrong.build(&Clock::new(now)).unwrap().probe().unwrap_err().to_string();
    assert!(said.contains("is it server_id"), "{said}");
}

fn whom_spire_does_not_issue_to_is_not_there(spire: &Spire) {
    let running = Running::start(&spire.outbox("nobody"), &[spire.hook("shorten-ttl")]);
    running.hooks.orders(vec![order("nobody", Level::Quarantined)]);
    assert!(running.comes_to(&["nothing there"]).problem.unwrap().contains("has no entry for"));
    running.stop();
}

/// More of them where percentiles are wanted.
fn rounds() -> usize {
    if is_long() { 10 } else { 2 }
}

fn lives_long(spire: &Spire) -> bool {
    spire.lifetime().is_some_and(|seconds| seconds > 300)
}

fn svids_live_for_seconds_until_the_order_ends(spire: &Spire) {
    until("cart has its SVID", || lives_long(spire).then_some(()));
    let before = spire.entries();
    let running = Running::start(&spire.outbox("shorten"), &[spire.hook("shorten-ttl")]);
    let is_short = || {
        let seconds = until("a certificate is served", || spire.lifetime());
        assert!(seconds <= 70, "SPIRE dates it ten seconds back: {seconds}");
    };
    account::is_cut_and_given_back(&running, ("SPIRE, a short SVID", rounds()), || lives_long(spire), is_short);
    assert_eq!(spire.entries(), before);
    running.stop();
}

fn entries_that_somebody_else_has_changed_stay_so(spire: &Spire) {
    let running = Running::start(&spire.outbox("foreign"), &[spire.hook("shorten-ttl")]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    let id = spire.entries()[0]["id"].as_str().unwrap().to_owned();
    spire.say("update", &["-entryID", &id], "500");
    running.hooks.orders(Vec::new());
    let problem = running.comes_to(&["changed by others"]).problem.unwrap();
    assert!(problem.contains(&format!("{id} has 500 s by now")), "{problem}");
    assert_eq!(spire.entries()[0]["x509_svid_ttl"], 500);
    running.stop();
    spire.json(&["entry", "delete", "-entryID", &id]);
    spire.enter();
    until("cart has its SVID again", || lives_long(spire).then_some(()));
}

fn entries_are_deleted_and_come_back_as_they_were(spire: &Spire) {
    let before = spire.entries();
    let running = Running::start(&spire.outbox("delete"), &[spire.hook("delete-entries")]);
    let works = || spire.lifetime().is_some();
    account::is_cut_and_given_back(&running, ("SPIRE, no SVID", rounds()), works, || {
        assert!(spire.entries().is_empty());
    });
    assert_eq!(spire.entries(), before, "id, hint, names, times to live and all");
    running.stop();
}

fn after_kill_9_they_come_back_once(spire: &Spire, act: &str) {
    let before = spire.entries();
    let (folder, hook) = (spire.outbox(&format!("killed-{act}")), spire.hook(act));
    let works = || lives_long(spire);
    until("it works before", || works().then_some(()));
    account::is_cut_by_one_that_is_killed(&folder, &hook, works);
    account::is_given_back_by_the_next(&folder, hook, works).stop();
    assert_eq!(spire.entries(), before);
}

fn an_entry_that_somebody_has_made_again_stays(spire: &Spire) {
    let running = Running::start(&spire.outbox("again"), &[spire.hook("delete-entries")]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    spire.enter();
    let theirs = spire.entries();
    running.hooks.orders(Vec::new());
    let problem = running.comes_to(&["changed by others"]).problem.unwrap();
    assert!(problem.contains("somebody has made entries like its own"), "{problem}");
    assert_eq!(spire.entries(), theirs);
    running.stop();
}

fn the_authority_is_rotated_only_with_approval(spire: &Spire) {
    let roots = || spire.server(&["bundle", "show"]).unwrap();
    let before = roots();
    let running = Running::start(&spire.outbox("rotate"), &[spire.hook("rotate-authority")]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["awaiting approval"]);
    assert_eq!(roots(), before);
    // Qualm's own certificate is renewed meanwhile, as everybody's is.
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                spire.mint("qualm", "spiffe://mesh.test/qualm");
                thread::sleep(Duration::from_millis(300));
            }
        });
        account::approve(&running);
        let rotated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| running.comes_to(&["in effect"])));
        is_over.store(true, Ordering::Release);
        rotated.unwrap();
    });
    let after = roots();
    assert!(!after.contains(before.trim()) && after.contains("BEGIN CERTIFICATE"), "the old root is gone");
    until("cart has an SVID by the new one", || spire.lifetime());
    running.hooks.orders(Vec::new());
    running.comes_to(&["done, no way back"]);
    running.stop();
}

fn agents_are_banned_only_with_approval(spire: &Spire) {
    let running = Running::start(&spire.outbox("ban"), &[spire.hook("ban-agents")]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["awaiting approval"]);
    assert!(spire.agents().iter().all(|(_, banned)| !banned));
    account::approve(&running);
    running.comes_to(&["in effect"]);
    assert!(spire.agents().iter().all(|(_, banned)| *banned));
    until("its node serves nobody", || spire.lifetime().is_none().then_some(()));
    running.hooks.orders(Vec::new());
    running.comes_to(&["done, no way back"]);
    running.stop();
}
