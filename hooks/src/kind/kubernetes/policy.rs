//! Network policies: which kind there is that cuts a pod off, what one says, and which others let it go on.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Kubernetes,
    selector::{decisive, selects},
    text,
};
use crate::{hook::Failure, order::Order, template::in_url};

pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub(super) const DECISION: &str = "qualm/decision";
/// Every label of ours begins so; each decision has one.
pub(super) const ISOLATED: &str = "qualm/isolated-";
/// The label that every namespace has its name in.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

/// By which kind of policy a pod is cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// The first of the others whose definition the cluster has.
    #[default]
    Auto,
    /// `CiliumNetworkPolicy`.
    Cilium,
    /// `ClusterNetworkPolicy` of the Network Policy API.
    Cluster,
    /// `AdminNetworkPolicy`, which came before that.
    Admin,
    /// `NetworkPolicy`. It cannot deny: what others allow stays allowed.
    Plain,
}

/// Each kind with its group, the versions that are known, the latest first, and its resource.
const KINDS: [(PolicyKind, &str, &[&str], &str, &str); 4] = [
    (PolicyKind::Cilium, "cilium.io", &["v2"], "ciliumnetworkpolicies", "CiliumNetworkPolicy"),
    (PolicyKind::Cluster, GROUP, &["v1beta1", "v1alpha2"], "clusternetworkpolicies", "ClusterNetworkPolicy"),
    (PolicyKind::Admin, GROUP, &["v1alpha1"], "adminnetworkpolicies", "AdminNetworkPolicy"),
    (PolicyKind::Plain, "networking.k8s.io", &["v1"], "networkpolicies", "NetworkPolicy"),
];
const GROUP: &str = "policy.networking.k8s.io";

/// A kind that the cluster has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) kind: PolicyKind,
    pub(super) group: &'static str,
    version: &'static str,
    pub(super) resource: &'static str,
    pub(super) word: &'static str,
}

impl Served {
    /// Where policies are that bind pods of a namespace.
    pub(super) fn path(&self, namespace: &str) -> String {
        let Self { group, version, resource, .. } = self;
        match self.kind {
            PolicyKind::Cluster | PolicyKind::Admin => format!("/apis/{group}/{version}/{resource}"),
            _ => format!("/apis/{group}/{version}/namespaces/{}/{resource}", in_url(namespace)),
        }
    }
}

impl Kubernetes {
    /// The kind of policy to write. An API server that does not answer is no reason for a weaker one.
    pub(super) fn served(&self) -> Result<Served, Failure> {
        for (kind, group, versions, resource, word) in KINDS {
            if self.policy != PolicyKind::Auto && self.policy != kind {
                continue;
            }
            for &version in versions {
                let listed = self.get(&format!("/apis/{group}/{version}"))?.unwrap_or_default();
                let mut resources = listed["resources"].as_array().into_iter().flatten();
                if resources.any(|of| text(of, "name") == resource) {
                    return Ok(Served { kind, group, version, resource, word });
                }
            }
        }
        let why =
            "has no definition of the kind of policy that `policy` names; install it, or let Qualm choose (\"auto\")";
        Err(Failure::Refused(format!("{} {why}", self.http.url())))
    }
}

/// Whom a policy is about, and what stays open to them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut<'a> {
    pub(super) namespace: &'a str,
    /// Labels of the pods that are cut off.
    pub(super) pods: &'a Value,
    /// Namespaces that they may go on calling, as far as others let them.
    pub(super) reachable: &'a [String],
}

/// A policy as it is created.
pub(super) fn object(served: &Served, order: &Order, cut: Cut<'_>) -> Value {
    let spec = match served.kind {
        PolicyKind::Cilium => cilium(cut),
        PolicyKind::Cluster => cluster(cut, true),
        PolicyKind::Admin => cluster(cut, false),
        PolicyKind::Plain | PolicyKind::Auto => plain(cut),
    };
    json!({
        "apiVersion": format!("{}/{}", served.group, served.version),
        "kind": served.word,
        "metadata": {
            // Names that begin so are known in telemetry as ours.
            "name": format!("qualm-{}", named(&order.decision)),
            "labels": { MANAGED_BY: "qualm" },
            "annotations": { "qualm/identity": order.subject.to_string(), DECISION: order.decision },
        },
        "spec": spec,
    })
}

/// What a name of Kubernetes may hold of an id.
pub(super) fn named(id: &str) -> String {
    let id = id.chars().take(40).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    id.collect::<String>().trim_matches('-').to_owned()
}

/// It denies and allows nothing: what it does not deny is as it was. Calls from the pod's own node go on, as probes do.
fn cilium(cut: Cut<'_>) -> Value {
    const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace";
    let pods = |reachable: &[String]| {
        let mut conditions = vec![json!({ "key": NAMESPACE, "operator": "Exists" })];
        if !reachable.is_empty() {
            conditions.push(json!({ "key": NAMESPACE, "operator": "NotIn", "values": reachable }));
        }
        json!([{ "matchExpressions": conditions }])
    };
    json!({
        "endpointSelector": { "matchLabels": cut.pods },
        "enableDefaultDeny": { "ingress": false, "egress": false },
        "ingressDeny": [{ "fromEndpoints": pods(&[]) }, { "fromEntities": ["world", "remote-node"] }],
        "egressDeny": [
            { "toEndpoints": pods(cut.reachable) },
            { "toEntities": ["world", "remote-node", "kube-apiserver"] },
        ],
    })
}

/// Before all other policies. The older kind has no tiers, and networks only in its experimental form.
fn cluster(cut: Cut<'_>, is_tiered: bool) -> Value {
    let mut egress = Vec::new();
    if !cut.reachable.is_empty() {
        let reachable = json!([{ "key": NAMESPACE, "operator": "In", "values": cut.reachable }]);
        let to = json!([{ "namespaces": { "matchExpressions": reachable } }]);
        egress.push(json!({ "name": "as-before", "action": "Pass", "to": to }));
    }
    let mut to = vec![json!({ "namespaces": {} })];
    if is_tiered {
        to.push(json!({ "networks": ["0.0.0.0/0", "::/0"] }));
    }
    egress.push(json!({ "name": "cut-off", "action": "Deny", "to": to }));
    let namespace = json!({ "matchLabels": { NAMESPACE: cut.namespace } });
    let subject = json!({ "pods": { "namespaceSelector": namespace, "podSelector": { "matchLabels": cut.pods } } });
    let mut spec = json!({
        "priority": 0,
        "subject": subject,
        "ingress": [{ "name": "cut-off", "action": "Deny", "from": [{ "namespaces": {} }] }],
        "egress": egress,
    });
    if is_tiered {
        spec["tier"] = json!("Admin");
    }
    spec
}

fn plain(cut: Cut<'_>) -> Value {
    let mut spec = json!({ "podSelector": { "matchLabels": cut.pods }, "policyTypes": ["Ingress", "Egress"] });
    if !cut.reachable.is_empty() {
        let reachable = json!([{ "key": NAMESPACE, "operator": "In", "values": cut.reachable }]);
        spec["egress"] = json!([{ "to": [{ "namespaceSelector": { "matchExpressions": reachable } }] }]);
    }
    spec
}

/// The other network policies of a namespace.
#[derive(Debug, Clone, Default)]
pub(super) struct Others(Vec<Value>);

impl Others {
    /// Without those of other decisions, which select by labels of ours alone: whatever else one is called, it counts.
    pub(super) fn new(mut policies: Vec<Value>) -> Self {
        policies.retain(|policy| {
            let labels = policy["spec"]["podSelector"]["matchLabels"].as_object();
            !labels.is_some_and(|of| !of.is_empty() && of.keys().all(|key| key.starts_with(ISOLATED)))
        });
        Self(policies)
    }

    /// Whether one of them says already whom such a pod may call.
    pub(super) fn bind_egress(&self, labels: &Value) -> bool {
        self.0.iter().any(|policy| has(policy, "Egress") && selects(&policy["spec"]["podSelector"], labels))
    }

    /// Those that let such a pod call or be called.
    pub(super) fn open<'a>(&'a self, labels: &'a Value) -> impl Iterator<Item = &'a Value> {
        let opens = |policy: &&Value| {
            [("Ingress", "ingress"), ("Egress", "egress")].into_iter().any(|(direction, rules)| {
                has(policy, direction) && policy["spec"][rules].as_array().is_some_and(|rules| !rules.is_empty())
            })
        };
        self.0.iter().filter(opens).filter(|policy| selects(&policy["spec"]["podSelector"], labels))
    }

    /// The labels by the loss of which as many of them as can be do not select such a pod any more.
    pub(super) fn selecting(&self, labels: &Value) -> serde_json::Map<String, Value> {
        let (mut left, mut lost) = (labels.clone(), serde_json::Map::new());
        loop {
            let key = self.open(&left).find_map(|policy| decisive(&policy["spec"]["podSelector"])).map(str::to_owned);
            let taken = key.and_then(|key| Some((left.as_object_mut()?.remove(&key)?, key)));
            // Each round takes one away, so that it ends.
            let Some((value, key)) = taken else { return lost };
            lost.insert(key, value);
        }
    }
}

/// A policy by its namespace and name.
pub(super) fn name_of(policy: &Value) -> String {
    let meta = &policy["metadata"];
    format!("{}/{}", text(meta, "namespace"), text(meta, "name"))
}

fn has(policy: &Value, direction: &str) -> bool {
    policy["spec"]["policyTypes"].as_array().is_some_and(|types| types.iter().any(|of| of == direction))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, selector: &Value, types: &[&str], ingress: &Value) -> Value {
        json!({ "metadata": { "namespace": "shop", "name": name },
            "spec": { "podSelector": selector, "policyTypes": types, "ingress": ingress } })
    }

    #[test]
    fn only_a_policy_that_allows_something_and_selects_the_pod_lets_it_go_on() {
        let anyone = json!([{}]);
        let others = Others::new(vec![
            policy("deny-all", &json!({}), &["Ingress"], &Value::Null),
            policy("allow-cart", &json!({ "matchLabels": { "app": "cart" } }), &["Ingress"], &anyone),
            policy("allow-mail", &json!({ "matchLabels": { "app": "mail" } }), &["Ingress"], &anyone),
            // Rules of a direction that it does not speak of say nothing.
            policy("egress-only", &json!({}), &["Egress"], &anyone),
        ]);
        let labels = json!({ "app": "cart", "version": "7" });
        assert_eq!(others.open(&labels).map(name_of).collect::<Vec<_>>(), ["shop/allow-cart"]);
        assert!(others.bind_egress(&labels));
        assert_eq!(Value::Object(others.selecting(&labels)), json!({ "app": "cart" }));
    }

    #[test]
    fn no_label_is_taken_away_for_a_policy_that_selects_every_pod() {
        let others = Others::new(vec![policy("allow-all", &json!({}), &["Ingress"], &json!([{}]))]);
        assert!(others.selecting(&json!({ "app": "cart" })).is_empty());
        assert_eq!(others.open(&json!({})).count(), 1);
    }

    #[test]
    fn only_what_selects_by_labels_of_ours_is_ours_whatever_it_is_called() {
        let ours =
            policy("qualm-x", &json!({ "matchLabels": { "qualm/isolated-x": "true" } }), &["Ingress"], &json!([{}]));
        let mut forged = policy("qualm-y", &json!({}), &["Ingress"], &json!([{}]));
        forged["metadata"]["labels"] = json!({ MANAGED_BY: "qualm" });
        let others = Others::new(vec![ours, forged]);
        let labels = json!({ "qualm/isolated-x": "true" });
        assert_eq!(others.open(&labels).map(name_of).collect::<Vec<_>>(), ["shop/qualm-y"]);
    }

    #[test]
    fn an_id_is_a_name_of_kubernetes() {
        assert_eq!(named("3F2a-Ä/x"), "3f2a---x");
    }
}
