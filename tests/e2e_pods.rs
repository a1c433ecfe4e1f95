//! Pods of a real Kubernetes API server: whose address it was when a call began, through the life of pods, of Qualm and
//! of the API server.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use support::{
    authority::Authority,
    kubernetes::{Apply, Kubernetes, documents},
    operator::exported,
    parts::{Part, etcd, present},
    ports,
    qualm::{Qualm, check, explain},
    wait::{PATIENCE, until_true},
};

const ADDRESS: &str = "10.9.8.7";
const CART: &str = "cart-7d6c6c7775-49tpt";
const LEDGER: &str = "ledger-5c9f7d8b6c-x2vkq";

/// A Kubernetes with `shop` in it, and with what `qualm wire kubernetes` prints, as far as it is Qualm's right.
fn cluster(folder: &Path, authority: &Authority) -> Kubernetes {
    let kubernetes = Kubernetes::start(folder, authority);
    for namespace in ["shop", "qualm"] {
        kubernetes.create_namespace(namespace);
    }
    for (namespace, account) in [("shop", "cart"), ("shop", "ledger"), ("qualm", "qualm")] {
        kubernetes.create_account(namespace, account);
    }
    let printed = Command::new(env!("CARGO_BIN_EXE_qualm")).args(["wire", "kubernetes"]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    for document in documents(&printed).filter(|document| document.contains("kind: ClusterRole")) {
        kubernetes.apply(document, Apply::ForReal, "tests");
    }
    kubernetes
}

/// A time so many seconds from now, as Kubernetes writes it.
fn seconds_from_now(seconds: i64) -> String {
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A followed log, and a Qualm that reads it and watches the pods of a cluster.
struct Estate {
    log: PathBuf,
    qualm: Qualm,
}

impl Estate {
    fn start(folder: &Path, kubeconfig: &Path) -> Self {
        let log = folder.join("access.jsonl");
        fs::write(&log, "").unwrap();
        let http = ports::free();
        let config = format!(
            "[[file]]\npath = {log:?}\nfollow = true\nformat = \"istio_json\"\n\
             [[kubernetes]]\nkubeconfig = {kubeconfig:?}\nannounce_rollouts_s = 1800\n\
             [state]\nsnapshot_every = \"1s\"\n[observe]\naddress = \"127.0.0.1:{http}\"\n"
        );
        let mut qualm = Qualm::launch(folder, &config, http);
        qualm.wait_until_pages();
        Self { log, qualm }
    }

    /// A call from the address, so many seconds from now, that names nobody.
    fn call(&self, seconds: i64, path: &str) {
        let time = seconds_from_now(seconds);
        let line = format!(
            r#"{{"start_time":"{time}","duration":1,"method":"GET","path":"{path}","response_code":200,"upstream_cluster":"inbound|80||","authority":"orders.shop","downstream_local_address":"10.9.0.1:80","downstream_remote_address":"{ADDRESS}:5000"}}"#
        );
        writeln!(OpenOptions::new().append(true).open(&self.log).unwrap(), "{line}").unwrap();
    }

    fn wait_for_pods(&self, pods: f64) {
        until_true(&format!("{pods} pods are known"), PATIENCE, || {
            self.qualm.metric("qualm_kubernetes_pods") == Some(pods)
        });
    }

    fn knows(&self, identity: &str) -> bool {
        explain(self.qualm.folder(), identity).starts_with(identity)
    }

    /// The snapshot knows an identity.
    fn wait_for(&self, identity: &str) {
        until_true(&format!("{identity} is known"), PATIENCE, || self.knows(identity));
    }
}

#[test]
fn a_record_is_resolved_by_who_had_the_address_when_it_began() {
    if !present(&[Part::KubeApiserver]) || etcd().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let mut kubernetes = cluster(folder.path(), &authority);
    let token = kubernetes.token("qualm", "qualm");
    // No more than it needs.
    for (method, path, status) in [
        ("GET", "/api/v1/pods?limit=1", 200),
        ("GET", "/api/v1/secrets?limit=1", 403),
        ("GET", "/api/v1/namespaces", 403),
        ("DELETE", "/api/v1/namespaces/shop/pods/x", 403),
    ] {
        assert_eq!(kubernetes.status_for(&token, method, path), status, "{method} {path}");
    }

    kubernetes.run_pod("shop", CART, "cart", ADDRESS, &seconds_from_now(-600));
    let mut estate = Estate::start(folder.path(), &kubernetes.kubeconfig_of(&token));
    estate.wait_for_pods(1.0);
    assert_eq!(estate.qualm.metric(&connected(&estate)), Some(1.0));
    estate.call(0, "/v1/orders");
    estate.wait_for("cart.shop");

    // The pod ends, and within a minute another has its address.
    kubernetes.delete_pod("shop", CART);
    estate.wait_for_pods(0.0);
    let ended = jiff::Timestamp::now();
    while jiff::Timestamp::now().as_second() <= ended.as_second() + 1 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    kubernetes.run_pod("shop", LEDGER, "ledger", ADDRESS, &seconds_from_now(0));
    estate.wait_for_pods(1.0);
    assert!(!estate.knows("ledger.shop"));
    // A late one of the first is none of the second.
    estate.call(-300, "/v1/orders");
    estate.call(2, "/v1/accounts");
    estate.wait_for("ledger.shop");
    assert!(!estate.knows(ADDRESS), "nobody is but an address");

    // Without the API server what is known stands, and it is said.
    kubernetes.kill();
    until_true("its absence is noticed", PATIENCE, || estate.qualm.metric(&connected(&estate)) == Some(0.0));
    let told = check(estate.qualm.folder());
    assert!(told.lines().any(|line| line.starts_with("warn") && line.contains("[[kubernetes]]")), "{told}");
    assert_eq!(estate.qualm.metric("qualm_kubernetes_pods"), Some(1.0));
    // A killed Qualm knows it still.
    estate.qualm.wait_until_next_snapshot();
    estate.qualm.kill();
    estate.qualm.launch_again();
    estate.qualm.wait_until_pages();
    estate.wait_for_pods(1.0);

    // What changed meanwhile is known when it is back.
    kubernetes.start_again(&authority);
    kubernetes.delete_pod("shop", LEDGER);
    kubernetes.run_pod("shop", CART, "cart", "10.9.8.8", &seconds_from_now(0));
    kubernetes.run_pod("shop", "cart-7d6c6c7775-zz2p5", "cart", "10.9.8.9", &seconds_from_now(0));
    estate.wait_for_pods(2.0);
    // It was known of before: another template of cart is a rollout, another replica none.
    kubernetes.run_pod("shop", "cart-5c9f7d8b6c-x2vkq", "cart", "10.9.8.10", &seconds_from_now(0));
    estate.wait_for_pods(3.0);
    let announced = || {
        let of = |record: serde_json::Value| record["payload"]["instruction"].clone();
        let records = exported(estate.qualm.folder()).into_iter().map(of);
        records.filter(|of| of["ask"]["call"] == "announce").collect::<Vec<_>>()
    };
    until_true("the rollout is announced", PATIENCE, || !announced().is_empty());
    let [of] = announced().try_into().expect("one");
    assert_eq!((&of["ask"]["service"], &of["by"]), (&"shop/cart".into(), &"kubernetes".into()));
    until_true("it is connected", PATIENCE, || estate.qualm.metric(&connected(&estate)) == Some(1.0));
    estate.qualm.check_metrics();
    let told = check(estate.qualm.folder());
    assert!(told.lines().any(|line| line.contains("tells of its pods")), "{told}");
    assert!(!estate.qualm.output().contains(&token) && !estate.qualm.output().contains("panicked"));
}

/// The name of the sample that says whether the API server is heard.
fn connected(estate: &Estate) -> String {
    let page = estate.qualm.page("/metrics").unwrap().body;
    let line = page.lines().find(|line| line.starts_with("qualm_kubernetes_connected{")).unwrap();
    line.rsplit_once(' ').unwrap().0.to_owned()
}
