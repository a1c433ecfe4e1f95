//! A real Kubernetes API server with its etcd: no kubelet and no controllers, so that nothing is ever run.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{
    authority::Authority,
    caller::{Caller, Response},
    parts::{Part, etcd},
    ports,
    process::Process,
    wait::until,
};

/// Who the API server is for its callers here.
const SERVER: &str = "spiffe://mesh.test/ns/kube-system/sa/apiserver";
/// May do everything.
const TOKEN: &str = "tests";
/// Its first start, on a loaded machine.
const START: Duration = Duration::from_secs(120);

pub(crate) struct Kubernetes {
    folder: PathBuf,
    /// etcd's port.
    store: u16,
    port: u16,
    caller: Caller,
    _etcd: Process,
    server: Process,
}

/// Whether what is applied is to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apply {
    DryRun,
    ForReal,
}

/// What the API server made of a document.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) object: Value,
    /// Admission's and validation's, as `kubectl` shows them.
    pub(crate) warnings: Vec<String>,
}

impl Kubernetes {
    /// Starts both under `folder` and waits until the API server is ready.
    pub(crate) fn start(folder: &Path, authority: &Authority) -> Self {
        let folder = folder.join("kubernetes");
        fs::create_dir_all(&folder).expect("the test's folder can be written to");
        let [store, peers, port] = [(); 3].map(|()| ports::free());
        let etcd = start_etcd(&folder, store, peers);
        let server = start_server(&folder, authority, store, port);
        let address = std::net::Ipv4Addr::LOCALHOST;
        let caller = Caller::nameless(authority, address, SERVER);
        let mut kubernetes = Self { folder, store, port, caller, _etcd: etcd, server };
        kubernetes.wait_until_ready();
        kubernetes
    }

    fn wait_until_ready(&mut self) {
        let (caller, port) = (self.caller.clone(), self.port);
        let ready = || {
            let mut connection = caller.connect(port).ok()?;
            let answer = connection.send("GET", "/readyz", &authorization(), "").ok()?;
            (answer.body == "ok").then_some(())
        };
        self.server.wait_until("is ready", START, || ready().is_some());
    }

    /// Applies one document of YAML, as `kubectl apply --server-side --force-conflicts` does, with every unknown or
    /// doubled field an error.
    ///
    /// # Panics
    /// It is not accepted.
    pub(crate) fn apply(&self, document: &str, how: Apply, manager: &str) -> Applied {
        let mut path = path_of(document);
        let _ = write!(path, "?fieldManager={manager}&force=true&fieldValidation=Strict");
        if how == Apply::DryRun {
            path.push_str("&dryRun=All");
        }
        let answer = self.send("PATCH", &path, "application/apply-patch+yaml", document);
        assert!(matches!(answer.status, 200 | 201), "{} {path}: {}\n{document}", answer.status, answer.body);
        let warnings = answer.headers.iter().filter(|(name, _)| name == "warning").map(|(_, value)| value.clone());
        let warnings = warnings.collect();
        Applied { object: serde_json::from_str(&answer.body).expect("the API server answers in JSON"), warnings }
    }

    /// Makes a namespace.
    pub(crate) fn create_namespace(&self, name: &str) {
        let document = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n");
        self.apply(&document, Apply::ForReal, "tests");
    }

    /// Makes the custom resources of `definitions` known, and waits until they can be used.
    pub(crate) fn define(&self, definitions: &str) {
        for document in documents(definitions) {
            let defined = self.apply(document, Apply::ForReal, "tests").object;
            let path = format!("{}/status", path_of(document));
            until(&format!("{} is established", defined["metadata"]["name"]), START, || {
                let status = self.get(&path)?;
                let conditions = status["status"]["conditions"].as_array()?;
                let is_so = |condition: &&Value| condition["type"] == "Established" && condition["status"] == "True";
                conditions.iter().find(is_so).map(drop)
            });
        }
    }

    /// An object by its path, where there is one.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let answer = self.send("GET", path, "application/json", "");
        (answer.status == 200).then(|| serde_json::from_str(&answer.body).expect("the API server answers in JSON"))
    }

    fn send(&self, method: &str, path: &str, content: &str, body: &str) -> Response {
        let mut connection = self.caller.connect(self.port).expect("the API server accepts connections");
        let [authorization] = authorization();
        let headers = [authorization, ("content-type", content), ("accept", "application/json")];
        connection.send(method, path, &headers, body).expect("the API server answers")
    }

    /// Makes a pod as its kubelet tells of it: at `address`, since `started` (RFC 3339).
    pub(crate) fn run_pod(&self, namespace: &str, name: &str, account: &str, address: &str, started: &str) {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "serviceAccountName": account, "automountServiceAccountToken": false, "nodeName": "node-1",
                "containers": [{ "name": "app", "image": "app" }] } });
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let answer = self.send("POST", &pods, "application/json", &pod.to_string());
        assert_eq!(answer.status, 201, "{}", answer.body);
        let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "startTime": started } });
        let path = format!("{pods}/{name}/status");
        let answer = self.send("PATCH", &path, "application/merge-patch+json", &status.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Deletes a pod at once, as its kubelet does once it has ended.
    pub(crate) fn delete_pod(&self, namespace: &str, name: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0");
        let answer = self.send("DELETE", &path, "application/json", "");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Makes a service account.
    pub(crate) fn create_account(&self, namespace: &str, name: &str) {
        let document =
            format!("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  namespace: {namespace}\n");
        self.apply(&document, Apply::ForReal, "tests");
    }

    /// A token of a service account.
    pub(crate) fn token(&self, namespace: &str, account: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let asked = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
        let answer = self.send("POST", &path, "application/json", &asked.to_string());
        assert_eq!(answer.status, 201, "{}", answer.body);
        let answer: Value = serde_json::from_str(&answer.body).expect("the API server answers in JSON");
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// What the API server answers to whoever has `token`.
    pub(crate) fn status_for(&self, token: &str, method: &str, path: &str) -> u16 {
        let mut connection = self.caller.connect(self.port).expect("the API server accepts connections");
        let authorization = format!("Bearer {token}");
        connection.send(method, path, &[("authorization", &authorization)], "").expect("it answers").status
    }

    /// Kills the API server; what it knows is in etcd.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again.
    pub(crate) fn start_again(&mut self, authority: &Authority) {
        self.server = run_server(&self.folder, authority, self.store, self.port);
        self.wait_until_ready();
    }

    /// Writes a kubeconfig for a client of its own, and says where.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(TOKEN)
    }

    /// The same for whoever has `token`.
    pub(crate) fn kubeconfig_of(&self, token: &str) -> PathBuf {
        let file = self.folder.join("kubeconfig");
        let port = self.port;
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: tests\n\
             clusters: [{{name: tests, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: tests, user: {{token: {token}}}}}]\n\
             contexts: [{{name: tests, context: {{cluster: tests, user: tests}}}}]\n"
        );
        fs::write(&file, text).expect("the test's folder can be written to");
        file
    }
}

/// The documents of a YAML text; those with comments alone left out.
pub(crate) fn documents(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n---\n").filter(|document| document.lines().any(|line| line.starts_with("kind:")))
}

fn authorization() -> [(&'static str, &'static str); 1] {
    [("authorization", "Bearer tests")]
}

/// Where the object of a document is at the API server.
fn path_of(document: &str) -> String {
    // A name and a namespace elsewhere are another's: a binding's subject has both.
    let metadata = document.lines().skip_while(|line| *line != "metadata:").skip(1);
    let metadata = metadata.take_while(|line| line.starts_with(' '));
    let head = document.lines().filter(|line| !line.starts_with(' '));
    let lines: Vec<&str> = head.chain(metadata).collect();
    let value = |key: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(key));
        line.map(|rest| rest.trim().trim_matches('"').to_owned())
    };
    let [version, kind, name] =
        ["apiVersion:", "kind:", "  name:"].map(|key| value(key).expect("every object has one"));
    let group = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
    let namespace = value("  namespace:").map_or_else(String::new, |name| format!("/namespaces/{name}"));
    let kind = kind.to_lowercase();
    let plural = kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
    format!("{group}{namespace}/{plural}/{name}")
}

fn start_etcd(folder: &Path, port: u16, peers: u16) -> Process {
    let mut command = Process::command(&etcd().expect("parts::etcd was asked first"));
    let [clients, peers] = [port, peers].map(|port| format!("http://127.0.0.1:{port}"));
    command
        .args(["--data-dir", "etcd", "--unsafe-no-fsync", "--listen-client-urls", &clients])
        .args(["--advertise-client-urls", &clients, "--listen-peer-urls", &peers])
        .args(["--initial-advertise-peer-urls", &peers, "--initial-cluster", &format!("default={peers}")])
        .current_dir(folder);
    Process::spawn("etcd", command, &folder.join("etcd.log"))
}

fn start_server(folder: &Path, authority: &Authority, store: u16, port: u16) -> Process {
    let key = KeyPair::generate().expect("a key can be generated");
    for (file, text) in [
        ("accounts.key", key.serialize_pem()),
        ("accounts.pub", key.public_key_pem()),
        ("tokens.csv", format!("{TOKEN},tests,1,\"system:masters\"\n")),
    ] {
        fs::write(folder.join(file), text).expect("the test's folder can be written to");
    }
    run_server(folder, authority, store, port)
}

fn run_server(folder: &Path, authority: &Authority, store: u16, port: u16) -> Process {
    let tls = authority.write_svid(SERVER, folder);
    let part = Part::KubeApiserver.folder().expect("parts::present was asked first");
    let mut command = Process::command(&part.join("kube-apiserver"));
    command
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"])
        .arg(format!("--secure-port={port}"))
        .arg(format!("--etcd-servers=http://127.0.0.1:{store}"))
        .arg(format!("--tls-cert-file={}", tls.certificate.display()))
        .arg(format!("--tls-private-key-file={}", tls.key.display()))
        .args(["--token-auth-file=tokens.csv", "--authorization-mode=RBAC"])
        .args(["--service-account-key-file=accounts.pub", "--service-account-signing-key-file=accounts.key"])
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.0.0.0/24"])
        .current_dir(folder);
    Process::spawn("kube-apiserver", command, &folder.join("kube-apiserver.log"))
}
