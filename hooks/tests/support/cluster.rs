//! A Kubernetes API server with its etcd: no kubelet and no controllers, so that pods are what is written of them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use qualm_hooks::config::HookConfig;
use serde_json::{Value, json};

use super::{
    account, call, call_with,
    parts::{Part, etcd},
    ports,
    process::Process,
    until,
};

/// Its first start, on a loaded machine.
const START: Duration = Duration::from_secs(300);
pub const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

pub struct Cluster {
    pub url: String,
    pub folder: PathBuf,
    _etcd: Process,
    _server: Process,
}

impl Cluster {
    pub fn start(folder: &Path) -> Self {
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

    pub fn ask(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        if method == "PATCH" {
            headers.push(("content-type", "application/merge-patch+json"));
        }
        call(method, &format!("{}{path}", self.url), &headers, body)
    }

    pub fn make(&self, path: &str, object: &Value) -> Value {
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

    pub fn token(&self, account: &str) -> String {
        let path = format!("/api/v1/namespaces/shop/serviceaccounts/{account}/token");
        let given = self.make(&path, &json!({ "spec": {} }));
        given["status"]["token"].as_str().unwrap().to_owned()
    }

    pub fn may_read(&self, token: &str) -> bool {
        self.ask(token, "GET", "/api/v1/namespaces/shop/pods", None).0 == 200
    }

    pub fn run_pod(&self, name: &str, address: &str) {
        let pod = json!({ "metadata": { "name": name, "labels": { "app": "cart" } },
            "spec": { "serviceAccountName": "cart", "automountServiceAccountToken": false, "nodeName": "node-1",
                "containers": [{ "name": "app", "image": "app" }] } });
        self.make("/api/v1/namespaces/shop/pods", &pod);
        let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
        assert_eq!(self.ask("tests", "PATCH", &format!("{}/status", path_of(name)), Some(&status)).0, 200);
    }

    pub fn labels(&self, pod: &str) -> Value {
        self.ask("tests", "GET", &path_of(pod), None).1["metadata"]["labels"].clone()
    }

    pub fn binding(&self) -> Value {
        self.ask("tests", "GET", &format!("{RBAC}/namespaces/shop/rolebindings/readers"), None).1
    }

    pub fn hook(&self, act: &str) -> HookConfig {
        let text = format!(
            "name = \"{act}\"\ndry_run = false\ncap = 100\ntimeout_s = 30\n[kubernetes]\n\
             endpoint = {{ url = \"{}\", ca_file = {:?}, token_file = {:?} }}\nact = \"{act}\"\n",
            self.url,
            self.folder.join("certs/apiserver.crt"),
            self.folder.join("token"),
        );
        toml::from_str(&text).unwrap()
    }

    /// A hook by the token of a service account, with keys of its own.
    pub fn hook_as(&self, account: &str, keys: &str) -> HookConfig {
        let file = self.folder.join(format!("token-{account}"));
        if !file.exists() {
            fs::write(&file, self.token_in("qualm", account)).unwrap();
        }
        let text = format!(
            "name = \"it\"\ndry_run = false\ncap = 100\ntimeout_s = 30\n[kubernetes]\n\
             endpoint = {{ url = \"{}\", ca_file = {:?}, token_file = {file:?} }}\n{keys}\n",
            self.url,
            self.folder.join("certs/apiserver.crt"),
        );
        toml::from_str(&text).unwrap()
    }

    fn token_in(&self, namespace: &str, account: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        self.make(&path, &json!({ "spec": {} }))["status"]["token"].as_str().unwrap().to_owned()
    }

    /// Applies every document of a file in YAML, as kubectl does; paths are those of the documents.
    pub fn apply(&self, text: &str, paths: &[&str]) {
        let documents: Vec<&str> = text.split("\n---\n").collect();
        assert_eq!(documents.len(), paths.len());
        for (document, path) in documents.into_iter().zip(paths) {
            let headers = [("authorization", "Bearer tests"), ("content-type", "application/apply-patch+yaml")];
            let path = format!("{}{path}?fieldManager=tests&fieldValidation=Strict", self.url);
            let (status, answer) = call_with("PATCH", &path, &headers, Some(document.to_owned()));
            assert!(matches!(status, 200 | 201), "{path}: {status} {answer}");
        }
    }

    /// A definition of a kind, with a schema for its spec, and waits until it is served.
    pub fn define(&self, (group, version): (&str, &str), (plural, kind): (&str, &str), scope: &str, spec: &Value) {
        let names = json!({ "plural": plural, "kind": kind, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") });
        let schema = json!({ "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } });
        let versions = json!([{ "name": version, "served": true, "storage": true, "schema": schema }]);
        let definition = json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.{group}"), "annotations": { "api-approved.kubernetes.io": "unapproved, a test" } },
            "spec": { "group": group, "scope": scope, "names": names, "versions": versions } });
        self.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition);
        until("it is served", || {
            let (status, listed) = self.ask("tests", "GET", &format!("/apis/{group}/{version}"), None);
            let mut resources = listed["resources"].as_array().cloned().unwrap_or_default().into_iter();
            (status == 200 && resources.any(|of| of["name"] == plural)).then_some(())
        });
    }

    pub fn outbox(&self, of: &str) -> PathBuf {
        account::outbox(&self.folder, of)
    }
}

pub fn path_of(pod: &str) -> String {
    format!("/api/v1/namespaces/shop/pods/{pod}")
}
