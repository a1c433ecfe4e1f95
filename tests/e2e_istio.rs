//! Istio's AuthorizationPolicy as the durable twin of a quarantine: at a real Kubernetes API server, and taken by a real
//! istiod. No data path of Istio's is at hand: what a sidecar does with it is Istio's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::{Path, PathBuf};

use qualm_ingest::kubernetes::KubernetesConfig;
use qualm_model::{
    level::Level,
    time::{Clock, Span, Timestamp},
};
use qualm_scorer::{
    enforce::{
        Enforcer,
        istio::{Istio, IstioConfig, IstioMetrics, When},
    },
    table::{Enforcement, EnforcementReport, Object, Reachable, SharedTable, Subject, TrustEntry, TrustTable},
};
use serde_json::Value;
use support::{
    authority::Authority,
    discovery::now,
    istiod::{Istiod, definitions},
    kubernetes::{Apply, Kubernetes},
    parts::{Part, etcd, present},
    wait::{PATIENCE, until, until_true},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
};

const NODE: &str = "sidecar~127.0.0.2~orders-1.shop~shop.svc.cluster.local";
const POLICIES: &str = "/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies";

/// A Kubernetes with Istio's resources and the namespace `shop`.
fn cluster(folder: &Path, authority: &Authority) -> Kubernetes {
    let kubernetes = Kubernetes::start(folder, authority);
    kubernetes.define(&definitions());
    for namespace in ["istio-system", "shop"] {
        kubernetes.create_namespace(namespace);
    }
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: istio\n  namespace: istio-system\ndata:\n  mesh: |\n    \
                enablePrometheusMerge: false\n";
    kubernetes.apply(mesh, Apply::ForReal, "tests");
    kubernetes
}

/// What writes twins, on a runtime of its own.
struct Twins {
    table: watch::Sender<SharedTable>,
    reports: mpsc::Receiver<EnforcementReport>,
    runtime: Runtime,
}

impl Twins {
    fn start(kubeconfig: PathBuf, when: When) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (table, tables) = watch::channel(SharedTable::default());
        let (sender, reports) = mpsc::channel(64);
        let section = KubernetesConfig { kubeconfig: Some(kubeconfig), ..KubernetesConfig::default() };
        let config = IstioConfig { namespaces: vec!["shop".to_owned()], when, ..IstioConfig::default() };
        let metrics = IstioMetrics::register(&prometheus::Registry::new()).unwrap();
        let client = runtime.block_on(section.client()).unwrap();
        // As it is in the run: what stands is known before anything is looked at.
        runtime.spawn(Istio::new(client, config, Clock::new(now), metrics).run(tables, sender));
        Self { table, reports, runtime }
    }

    fn set(&self, version: u64, entries: Vec<TrustEntry>, leaking: &[&str]) {
        let reachable = Reachable { destinations: Vec::new(), paths: vec!["/healthz".to_owned()] };
        let leaking = leaking.iter().map(|&of| of.to_owned()).collect();
        let table = TrustTable { version, entries, reachable, leaking, ..TrustTable::default() };
        self.table.send_replace(table.into());
    }

    /// Waits until it says this about a table.
    fn says(&mut self, what: &str, wanted: impl Fn(&EnforcementReport) -> bool) -> EnforcementReport {
        until(what, PATIENCE, || std::iter::from_fn(|| self.reports.try_recv().ok()).find(|report| wanted(report)))
    }

    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

fn quarantine(account: &str, decision: &str, expires: Timestamp) -> TrustEntry {
    TrustEntry {
        decision: decision.to_owned(),
        subject: Subject {
            principal: format!("spiffe://cluster.local/ns/shop/sa/{account}"),
            cluster: None,
            workload: None,
            instance: Some("10.9.8.7".to_owned()),
        },
        object: Object::Any,
        level: Level::Quarantined,
        enforce: true,
        decided: now(),
        expires,
        evidence_bits: 30.0,
        co_owners: Vec::new(),
        reason: "a test".to_owned(),
        known: None,
    }
}

fn policy(kubernetes: &Kubernetes, decision: &str) -> Option<Value> {
    kubernetes.get(&format!("{POLICIES}/qualm-{decision}"))
}

#[test]
fn a_quarantine_has_a_twin_that_istiod_takes_and_that_goes_with_it() {
    if !present(&[Part::KubeApiserver, Part::Istiod]) || etcd().is_none() {
        return;
    }
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let kubernetes = cluster(folder.path(), &authority);
    let istiod = Istiod::start(folder.path(), &kubernetes);
    let others = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: somebodys\n  namespace: \
                  shop\nspec:\n  action: DENY\n  rules:\n  - from:\n    - source:\n        principals: [\"x/ns/a/sa/b\"]\n";
    kubernetes.apply(others, Apply::ForReal, "tests");
    let mut twins = Twins::start(kubernetes.kubeconfig(), When::Always);
    let expires = now() + Span::HOUR;
    twins.set(1, vec![quarantine("cart", "d1", expires)], &[]);
    let twin = until("the twin is there", PATIENCE, || policy(&kubernetes, "d1"));
    let source = &twin["spec"]["rules"][0]["from"][0]["source"];
    assert_eq!(source["principals"][0], "cluster.local/ns/shop/sa/cart");
    assert_eq!(source["ipBlocks"][0], "10.9.8.7");
    until_true("istiod tells the proxies of it", PATIENCE, || {
        let told = istiod.configuration(NODE, "shop").to_string();
        told.contains("cluster.local/ns/shop/sa/cart") && told.contains("10.9.8.7")
    });

    // A renewed lease is a new end of the same object.
    let ends = |twin: &Value| twin["metadata"]["annotations"]["qualm/expires"].clone();
    twins.set(2, vec![quarantine("cart", "d1", expires + Span::HOUR), quarantine("mail", "d2", expires)], &[]);
    until_true("it ends later, and there is a second", PATIENCE, || {
        policy(&kubernetes, "d2").is_some()
            && policy(&kubernetes, "d1")
                .is_some_and(|now| ends(&now) != ends(&twin) && now["metadata"]["uid"] == twin["metadata"]["uid"])
    });
    twins.says("what it has done", |report| report.version == 2 && report.what == Enforcement::Acknowledged);

    // Killed: what is there is known again, and what is not wanted any more is taken back.
    twins.kill();
    let mut twins = Twins::start(kubernetes.kubeconfig(), When::Always);
    twins.set(3, vec![quarantine("mail", "d2", expires)], &[]);
    until_true("the first is taken back", PATIENCE, || policy(&kubernetes, "d1").is_none());
    assert!(policy(&kubernetes, "d2").is_some());
    until_true("no proxy is told of it", PATIENCE, || {
        !istiod.configuration(NODE, "shop").to_string().contains("cluster.local/ns/shop/sa/cart")
    });

    // Somebody makes it wider: it is theirs from then on.
    let wider = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: qualm-d2\n  namespace: \
                 shop\nspec:\n  action: DENY\n  rules:\n  - from:\n    - source:\n        principals: [\"*\"]\n";
    kubernetes.apply(wider, Apply::ForReal, "somebody");
    twins.set(4, Vec::new(), &[]);
    let refused = twins.says("what it leaves", |report| matches!(report.what, Enforcement::Rejected(_)));
    assert!(format!("{:?}", refused.what).contains("qualm-d2: somebody else has changed it"), "{refused:?}");
    assert!(policy(&kubernetes, "d2").is_some());
    assert!(kubernetes.get(&format!("{POLICIES}/somebodys")).is_some());
}

#[test]
fn a_twin_that_is_kept_for_leaks_is_there_for_those_alone_and_an_api_that_was_away_is_caught_up_with() {
    if !present(&[Part::KubeApiserver, Part::Istiod]) || etcd().is_none() {
        return;
    }
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let mut kubernetes = cluster(folder.path(), &authority);
    let mut twins = Twins::start(kubernetes.kubeconfig(), When::Leaking);
    let expires = now() + Span::HOUR;
    let both = || vec![quarantine("cart", "d1", expires), quarantine("mail", "d2", expires)];
    twins.set(1, both(), &[]);
    twins.says("nothing to do", |report| report.version == 1 && report.what == Enforcement::Acknowledged);
    assert!(policy(&kubernetes, "d1").is_none());
    twins.set(2, both(), &["d1"]);
    until_true("it is there", PATIENCE, || policy(&kubernetes, "d1").is_some());
    assert!(policy(&kubernetes, "d2").is_none(), "nobody has leaked it");

    kubernetes.kill();
    twins.set(3, both(), &["d2"]);
    twins.says("that it cannot", |report| matches!(report.what, Enforcement::Rejected(_)));
    kubernetes.start_again(&authority);
    until_true("it is made up for", PATIENCE, || {
        policy(&kubernetes, "d2").is_some() && policy(&kubernetes, "d1").is_none()
    });
    // A lease ends also where no table says so.
    twins.set(4, vec![quarantine("cart", "d3", now() + Span::seconds(8))], &["d3"]);
    until_true("it was there", PATIENCE, || policy(&kubernetes, "d3").is_some());
    until_true("it ends by itself", PATIENCE, || policy(&kubernetes, "d3").is_none());
}
