//! Kubernetes: a service account taken out of its role bindings, or of Linkerd's lists; pods cut off from the network,
//! labelled, deleted.
//!
//! # Layout
//! - `bindings`: role bindings
//! - `pods`: labels and deletion
//! - `isolation`: pods cut off by a network policy; `policy`: what such a policy says, `selector`: whom one selects
//! - `linkerd`: lists of identities

mod bindings;
mod isolation;
mod linkerd;
mod pods;
mod policy;
mod selector;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::policy::PolicyKind;
use crate::{
    hook::{Call, Effect, Failure, Found, Hook, Nature, Reach, Repeat, Undone, WayBack, WhenGone},
    http::{Answer, Endpoint, Http, Shown},
    order::Order,
    template::{Escape, Template},
};

/// The merge patch of JSON.
const MERGE: &str = "application/merge-patch+json";
/// Objects in one page of a list, and in all.
const PAGE: usize = 500;
const MOST: usize = 50_000;

/// A cluster as it is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesConfig {
    /// The API server.
    pub endpoint: Endpoint,
    /// What is done.
    #[serde(default)]
    pub act: KubernetesAct,
    /// Namespace of the service account.
    #[serde(default = "namespace")]
    pub namespace: String,
    /// Name of the service account.
    #[serde(default = "service")]
    pub account: String,
    /// The label that a network policy of yours selects, and its value is "true".
    #[serde(default = "label")]
    pub label: String,
    /// Role bindings of all namespaces, and cluster role bindings, not only those of the account's own namespace.
    #[serde(default)]
    pub everywhere: bool,
    /// By which kind of policy pods are cut off.
    #[serde(default)]
    pub policy: PolicyKind,
    /// Namespaces that a pod which is cut off may go on calling.
    #[serde(default = "reachable")]
    pub reachable: Vec<String>,
    /// Whether a pod loses the labels by which other network policies let it go on.
    #[serde(default)]
    pub replace_labels: bool,
    /// Its name in Linkerd's lists.
    #[serde(default = "identity")]
    pub identity: String,
}

fn namespace() -> String {
    "{namespace}".to_owned()
}

fn service() -> String {
    "{service}".to_owned()
}

fn label() -> String {
    "qualm/quarantine".to_owned()
}

/// What renews certificates and finds names: who is cut off from it does not come back when it may.
fn reachable() -> Vec<String> {
    ["kube-system", "istio-system", "linkerd", "spire", "vault", "keycloak", "qualm"].map(str::to_owned).into()
}

fn identity() -> String {
    "{service}.{namespace}.serviceaccount.identity.linkerd.cluster.local".to_owned()
}

/// What is done in a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KubernetesAct {
    /// The account is taken out of its role bindings.
    #[default]
    Unbind,
    /// Its pods, or the one that is meant, are labelled.
    Label,
    /// The pod that is meant is deleted at once.
    DeletePod,
    /// Its pods, or the one that is meant, are cut off by a network policy.
    Isolate,
    /// The account is taken out of Linkerd's lists of identities.
    Unlist,
}

/// The hook.
#[derive(Debug)]
pub struct Kubernetes {
    http: Http,
    act: KubernetesAct,
    namespace: Template,
    account: Template,
    label: String,
    everywhere: bool,
    policy: PolicyKind,
    reachable: Vec<String>,
    replace_labels: bool,
    identity: Template,
}

impl Kubernetes {
    /// The hook; asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub fn new(of: &KubernetesConfig, timeout: Duration) -> Result<Self, String> {
        let template =
            |text: &str, key: &str| Template::parse(text).map_err(|error| format!("kubernetes.{key}: {error}"));
        let is_name = |name: &String| {
            (1..=63).contains(&name.len())
                && name.bytes().all(|of| of.is_ascii_lowercase() || of.is_ascii_digit() || of == b'-')
        };
        if of.reachable.len() > 64 || !of.reachable.iter().all(is_name) {
            return Err("kubernetes.reachable: at most 64 names of namespaces".to_owned());
        }
        Ok(Self {
            http: Http::new(&of.endpoint, timeout).map_err(|problem| format!("kubernetes.endpoint.{problem}"))?,
            act: of.act,
            namespace: template(&of.namespace, "namespace")?,
            account: template(&of.account, "account")?,
            label: of.label.clone(),
            everywhere: of.everywhere,
            policy: of.policy,
            reachable: of.reachable.clone(),
            replace_labels: of.replace_labels,
            identity: template(&of.identity, "identity")?,
        })
    }

    /// Namespace and name of the account.
    fn account_of(&self, order: &Order) -> Result<(String, String), Failure> {
        let fill = |template: &Template| {
            template
                .fill(order, "", Escape::None)
                .map_err(|name| Failure::Refused(format!("{} has no {name}", order.subject)))
        };
        Ok((fill(&self.namespace)?, fill(&self.account)?))
    }

    fn ask(&self, method: &str, path: &str, content: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        self.http.json_as(method, path, Shown::Bearer, content, body)
    }

    /// An object; `None` where there is none.
    fn get(&self, path: &str) -> Result<Option<Value>, Failure> {
        let answer = self.ask("GET", path, "application/json", None)?;
        if answer.status == 404 {
            return Ok(None);
        }
        answer.ok(self.http.url())?.parsed(self.http.url()).map(Some)
    }

    /// All objects of a list, page by page.
    fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let (mut found, mut next) = (Vec::new(), String::new());
        let join = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = format!("{path}{join}limit={PAGE}{next}");
            let Some(mut page) = self.get(&page)? else { return Ok(found) };
            if let Some(items) = page["items"].as_array_mut() {
                found.append(items);
            }
            match page["metadata"]["continue"].as_str() {
                Some(more) if !more.is_empty() && found.len() < MOST => {
                    next = format!("&continue={}", crate::template::in_url(more));
                }
                _ => return Ok(found),
            }
        }
    }
}

/// A text of an object.
fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_default()
}

impl Hook for Kubernetes {
    fn nature(&self) -> Nature {
        let (latency_ms, cuts, reach, way_back) = match self.act {
            KubernetesAct::Unbind => {
                (14, "what its role bindings allowed, from the next call on", Reach::Principal, WayBack::Exact)
            }
            KubernetesAct::Label => {
                (1_000, "what your network policy for the label denies", Reach::Instance, WayBack::Exact)
            }
            KubernetesAct::DeletePod => {
                (10_000, "the pod, and the tokens that are bound to it", Reach::Instance, WayBack::None)
            }
            KubernetesAct::Isolate => (
                1_000,
                "the pod's network, as far as the network plugin carries it out",
                Reach::Instance,
                WayBack::Exact,
            ),
            KubernetesAct::Unlist => {
                (1_000, "calls to servers whose lists of Linkerd's named it", Reach::Principal, WayBack::Exact)
            }
        };
        // Pods and lists that come meanwhile are looked for.
        let every_s = if matches!(self.act, KubernetesAct::Isolate | KubernetesAct::Unlist) { 10 } else { 60 };
        Nature { latency_ms, cuts, reach, way_back, repeat: Repeat::Safe, when_gone: WhenGone::Say(every_s) }
    }

    fn read(&mut self, order: &Order) -> Result<Found, Failure> {
        match self.act {
            KubernetesAct::Unbind => self.read_bindings(order),
            KubernetesAct::Label | KubernetesAct::DeletePod => self.read_pods(order),
            KubernetesAct::Isolate => self.read_isolation(order),
            KubernetesAct::Unlist => self.read_lists(order),
        }
    }

    fn act(&mut self, _: &Order, before: &Value, _: &Call) -> Result<(), Failure> {
        match self.act {
            KubernetesAct::Unbind => self.unbind(before),
            KubernetesAct::Label => self.label(before),
            KubernetesAct::DeletePod => self.delete(before),
            KubernetesAct::Isolate => self.isolate(before),
            KubernetesAct::Unlist => self.unlist(before),
        }
    }

    fn look(&mut self, _: &Order, before: &Value) -> Result<Effect, Failure> {
        match self.act {
            KubernetesAct::Unbind => self.look_at_bindings(before),
            KubernetesAct::Label | KubernetesAct::DeletePod => self.look_at_pods(before),
            KubernetesAct::Isolate => self.look_at_isolation(before),
            KubernetesAct::Unlist => self.look_at_lists(before),
        }
    }

    fn undo(&mut self, _: &Order, before: &Value, _: &Call) -> Result<Undone, Failure> {
        match self.act {
            KubernetesAct::Unbind => self.bind_again(before),
            KubernetesAct::Label => self.unlabel(before),
            KubernetesAct::DeletePod => Ok(Undone::Nothing("a pod that was deleted stays so".to_owned())),
            KubernetesAct::Isolate => self.release(before),
            KubernetesAct::Unlist => self.list_again(before),
        }
    }

    fn probe(&mut self) -> Result<String, Failure> {
        let rights: Vec<(&str, &str, &str)> = match self.act {
            KubernetesAct::Unbind => vec![
                ("rbac.authorization.k8s.io", "rolebindings", "list"),
                ("rbac.authorization.k8s.io", "rolebindings", "update"),
            ],
            KubernetesAct::Label => vec![("", "pods", "list"), ("", "pods", "patch")],
            KubernetesAct::DeletePod => vec![("", "pods", "list"), ("", "pods", "delete")],
            KubernetesAct::Isolate => {
                let served = self.served()?;
                let of = |verb| (served.group, served.resource, verb);
                let mut rights =
                    vec![("", "pods", "list"), ("", "pods", "patch"), of("get"), of("create"), of("delete")];
                rights.extend((served.kind == PolicyKind::Plain).then(|| of("list")));
                rights
            }
            KubernetesAct::Unlist => {
                let of = |verb| ("policy.linkerd.io", "meshtlsauthentications", verb);
                vec![of("list"), of("get"), of("patch")]
            }
        };
        for (group, resource, verb) in rights {
            let asked = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": { "resourceAttributes": { "group": group, "resource": resource, "verb": verb } } });
            let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let answer = self.ask("POST", path, "application/json", Some(&asked))?.ok(self.http.url())?;
            let answer: Value = answer.parsed(self.http.url())?;
            if answer["status"]["allowed"] != true {
                return Err(Failure::Refused(format!(
                    "{}: may not {verb} {resource} in all namespaces; give it the role that docs/hooks.md names, or know \
                     that it can act only where it may",
                    self.http.url()
                )));
            }
        }
        Ok(format!("{} answers, and the rights are there", self.http.url()))
    }

    fn survives(&self, _: &Order, before: &Value) -> String {
        match self.act {
            KubernetesAct::Isolate => return Self::survives_isolation(before),
            KubernetesAct::Unlist => return linkerd::survives(before),
            KubernetesAct::Unbind => {
                "calls that are running, watches included; what system:authenticated and other groups may; the token itself"
            }
            KubernetesAct::Label => {
                "open connections, with most network plugins; pods that start later are not labelled"
            }
            KubernetesAct::DeletePod => "tokens of the pod for 10 s, as the API server caches them; the account's other tokens",
        }
        .to_owned()
    }
}
