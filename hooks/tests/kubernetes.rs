//! Kubernetes' API server, the real one: a service account is taken out of its role bindings and put back, pods are
//! labelled and lose the label, one pod is deleted by its uid.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use qualm_hooks::config::HookConfig;
use qualm_model::level::Level;
use serde_json::{Value, json};
use support::{
    account, call,
    engine::{Running, run_child},
    now, order,
    parts::{Part, etcd, present},
    ports,
    process::Process,
};

#[test]
#[ignore = "a child of other tests"]
fn child() {
    run_child();
}

/// Its first start, on a loaded machine.
const START: Duration = Duration::from_secs(300);
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

struct Cluster {
    url: String,
    folder: PathBuf,
    _etcd: Process,
    _server: Process,
}

impl Cluster {
    fn start(folder: &Path) -> Self {
        let [store, peers, port] = [(); 3].map(|()| ports::free());
        let [store, peers] = [store, peers].map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Process::command(&etcd().unwrap());
        command
            .args(["--data-dir", "etcd", "--unsafe-no-fsync", "--listen-client-urls", &store])
            .args(["--advertise-client-urls", &store, "--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers, "--initial-cluster", &format!("default={peers}")])
            .current_dir(folder);
        let etcd = Process::spawn("etcd", command, &folder.join("etcd.log"));
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(folder.join("accounts.key"), key.serialize_pem()).unwrap();
        fs::write(folder.join("accounts.pub"), key.public_key_pem()).unwrap();
        fs::write(folder.join("tokens.csv"), "tests,tests,1,\"system:masters\"\nqualm-token,qualm,2\n").unwrap();
        fs::write(folder.join("token"), "qualm-token\n").unwrap();
        let mut command = Process::command(&Part::KubeApiserver.folder().unwrap().join("kube-apiserver"));
        command
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"])
            .args([format!("--secure-port={port}"), format!("--etcd-servers={store}")])
            .args(["--cert-dir=certs", "--token-auth-file=tokens.csv", "--authorization-mode=RBAC"])
            .args(["--service-account-key-file=accounts.pub", "--service-account-signing-key-file=accounts.key"])
            .args(["--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.0.0.0/24"])
            .current_dir(folder);
        let mut server = Process::spawn("kube-apiserver", command, &folder.join("kube-apiserver.log"));
        let url = format!("https://127.0.0.1:{port}");
        let ready = format!("{url}/readyz");
        server.wait_until("is ready", START, || {
            call("GET", &ready, &[("authorization", "Bearer tests")], None) == (200, Value::String("ok".to_owned()))
        });
        let cluster = Self { url, folder: folder.to_owned(), _etcd: etcd, _server: server };
        cluster.furnish();
        cluster
    }

    fn ask(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        if method == "PATCH" {
            headers.push(("content-type", "application/merge-patch+json"));
        }
        call(method, &format!("{}{path}", self.url), &headers, body)
    }

    fn make(&self, path: &str, object: &Value) -> Value {
        let (status, made) = self.ask("tests", "POST", path, Some(object));
        assert_eq!(status, 201, "{path}: {made}");
        made
    }

    /// A namespace with two accounts that may read pods, and Qualm with the least rights, as docs/hooks.md has them.
    fn furnish(&self) {
        self.make("/api/v1/namespaces", &json!({ "metadata": { "name": "shop" } }));
        for account in ["cart", "web"] {
            self.make("/api/v1/namespaces/shop/serviceaccounts", &json!({ "metadata": { "name": account } }));
        }
        let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] }]);
        let roles = format!("{RBAC}/namespaces/shop/roles");
        self.make(&roles, &json!({ "metadata": { "name": "reader" }, "rules": rules }));
        let subject = |account: &str| json!({ "kind": "ServiceAccount", "name": account, "namespace": "shop" });
        let binding = json!({ "metadata": { "name": "readers", "labels": { "owner": "shop" } },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
            "subjects": [subject("web"), subject("cart")] });
        self.make(&format!("{RBAC}/namespaces/shop/rolebindings"), &binding);
        let rules = json!([
            { "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings"], "verbs": ["get", "list", "update"] },
            { "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "clusterroles"], "verbs": ["bind"] },
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch", "delete"] },
        ]);
        self.make(&format!("{RBAC}/clusterroles"), &json!({ "metadata": { "name": "qualm" }, "rules": rules }));
        let binding = json!({ "metadata": { "name": "qualm" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "qualm" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "qualm" }] });
        self.make(&format!("{RBAC}/clusterrolebindings"), &binding);
    }

    fn token(&self, account: &str) -> String {
        let path = format!("/api/v1/namespaces/shop/serviceaccounts/{account}/token");
        let given = self.make(&path, &json!({ "spec": {} }));
        given["status"]["token"].as_str().unwrap().to_owned()
    }

    fn may_read(&self, token: &str) -> bool {
        self.ask(token, "GET", "/api/v1/namespaces/shop/pods", None).0 == 200
    }

    fn run_pod(&self, name: &str, address: &str) {
        let pod = json!({ "metadata": { "name": name, "labels": { "app": "cart" } },
            "spec": { "serviceAccountName": "cart", "automountServiceAccountToken": false, "nodeName": "node-1",
                "containers": [{ "name": "app", "image": "app" }] } });
        self.make("/api/v1/namespaces/shop/pods", &pod);
        let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
        assert_eq!(self.ask("tests", "PATCH", &format!("{}/status", path_of(name)), Some(&status)).0, 200);
    }

    fn labels(&self, pod: &str) -> Value {
        self.ask("tests", "GET", &path_of(pod), None).1["metadata"]["labels"].clone()
    }

    fn binding(&self) -> Value {
        self.ask("tests", "GET", &format!("{RBAC}/namespaces/shop/rolebindings/readers"), None).1
    }

    fn hook(&self, act: &str) -> HookConfig {
        let text = format!(
            "name = \"{act}\"\ndry_run = false\ncap = 100\ntimeout_s = 30\n[kubernetes]\n\
             endpoint = {{ url = \"{}\", ca_file = {:?}, token_file = {:?} }}\nact = \"{act}\"\n",
            self.url,
            self.folder.join("certs/apiserver.crt"),
            self.folder.join("token"),
        );
        toml::from_str(&text).unwrap()
    }

    fn outbox(&self, of: &str) -> PathBuf {
        account::outbox(&self.folder, of)
    }
}

fn path_of(pod: &str) -> String {
    format!("/api/v1/namespaces/shop/pods/{pod}")
}

#[test]
fn accounts_and_pods_are_cut_and_given_back() {
    if !present(&[Part::KubeApiserver]) || etcd().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    an_account_loses_its_rights_and_gets_them_back(&cluster);
    after_kill_9_it_gets_them_back_once_and_a_binding_that_was_deleted_is_not_made_again(&cluster);
    a_pod_is_labelled_and_its_sibling_is_not(&cluster);
    a_pod_is_deleted_by_its_uid_and_only_with_approval(&cluster);
}

fn an_account_loses_its_rights_and_gets_them_back(cluster: &Cluster) {
    let [cart, web] = ["cart", "web"].map(|account| cluster.token(account));
    let before = cluster.binding();
    let hook = cluster.hook("unbind");
    assert!(hook.build(&qualm_model::time::Clock::new(now)).unwrap().probe().unwrap().contains("the rights are there"));
    let running = Running::start(&cluster.outbox("unbind"), &[hook]);
    let nobody_else = || assert!(cluster.may_read(&web), "nobody else");
    account::is_cut_and_given_back(&running, ("Kubernetes", 20), || cluster.may_read(&cart), nobody_else);
    let after = cluster.binding();
    assert_eq!(
        (&after["metadata"]["uid"], &after["metadata"]["labels"]),
        (&before["metadata"]["uid"], &before["metadata"]["labels"])
    );
    assert_eq!((&after["subjects"], &after["roleRef"]), (&before["subjects"], &before["roleRef"]));
    running.stop();
}

fn after_kill_9_it_gets_them_back_once_and_a_binding_that_was_deleted_is_not_made_again(cluster: &Cluster) {
    let (cart, before) = (cluster.token("cart"), cluster.binding());
    let (folder, hook) = (cluster.outbox("killed"), cluster.hook("unbind"));
    account::is_cut_by_one_that_is_killed(&folder, &hook, || cluster.may_read(&cart));
    let running = account::is_given_back_by_the_next(&folder, hook, || cluster.may_read(&cart));
    assert_eq!(cluster.binding()["subjects"], before["subjects"]);

    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    let path = format!("{RBAC}/namespaces/shop/rolebindings/readers");
    assert_eq!(cluster.ask("tests", "DELETE", &path, None).0, 200);
    running.hooks.orders(Vec::new());
    assert!(running.comes_to(&["changed by others"]).problem.unwrap().contains("was deleted meanwhile"));
    assert_eq!(cluster.ask("tests", "GET", &path, None).0, 404);
    running.stop();
}

fn a_pod_is_labelled_and_its_sibling_is_not(cluster: &Cluster) {
    cluster.run_pod("cart-1", "10.0.1.1");
    cluster.run_pod("cart-2", "10.0.1.2");
    let running = Running::start(&cluster.outbox("label"), &[cluster.hook("label")]);
    let mut narrow = order("cart", Level::Quarantined);
    narrow.subject.instance = Some("10.0.1.1".to_owned());
    running.hooks.orders(vec![narrow]);
    running.comes_to(&["in effect"]);
    assert_eq!(cluster.labels("cart-1"), json!({ "app": "cart", "qualm/quarantine": "true" }));
    assert_eq!(cluster.labels("cart-2"), json!({ "app": "cart" }));
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert_eq!(cluster.labels("cart-1"), json!({ "app": "cart" }));
    running.stop();
}

fn a_pod_is_deleted_by_its_uid_and_only_with_approval(cluster: &Cluster) {
    let running = Running::start(&cluster.outbox("delete"), &[cluster.hook("delete-pod")]);
    let mut narrow = order("cart", Level::Quarantined);
    narrow.subject.instance = Some("10.0.1.1".to_owned());
    running.hooks.orders(vec![narrow]);
    running.comes_to(&["awaiting approval"]);
    assert_eq!(cluster.ask("tests", "GET", &path_of("cart-1"), None).0, 200);
    account::approve(&running);
    running.comes_to(&["in effect"]);
    assert_eq!(cluster.ask("tests", "GET", &path_of("cart-1"), None).0, 404);
    assert_eq!(cluster.ask("tests", "GET", &path_of("cart-2"), None).0, 200, "its sibling lives");
    // Never all of a service.
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    account::approve(&running);
    running.comes_to(&["nothing there"]);
    assert_eq!(cluster.ask("tests", "GET", &path_of("cart-2"), None).0, 200);
    running.stop();
}
