//! An identity is taken out of Linkerd's lists and put back, at a real Kubernetes API server. Linkerd itself is not here.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use qualm_hooks::config::HookConfig;
use qualm_model::level::Level;
use serde_json::{Value, json};
use support::{
    cluster::{Cluster, RBAC},
    engine::{Killable, Running, run_child},
    now, order,
    parts::{Part, etcd, present},
    until,
};

#[test]
#[ignore = "a child of other tests"]
fn child() {
    run_child();
}

const LISTS: &str = "/apis/policy.linkerd.io/v1alpha1/namespaces/shop/meshtlsauthentications";
const ROLE: &str = include_str!("../../deploy/hooks/linkerd.yaml");

#[test]
fn an_identity_is_taken_out_of_opted_in_lists_and_put_back() {
    if !present(&[Part::KubeApiserver]) || etcd().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    cluster.make("/api/v1/namespaces", &json!({ "metadata": { "name": "qualm" } }));
    cluster.make("/api/v1/namespaces/qualm/serviceaccounts", &json!({ "metadata": { "name": "qualm" } }));
    let paths = ["/clusterroles/qualm-linkerd", "/clusterrolebindings/qualm-linkerd"];
    cluster.apply(ROLE, &paths.map(|path| format!("{RBAC}{path}")).each_ref().map(String::as_str));
    without_linkerds_definitions_that_is_told(&cluster);
    define(&cluster);
    it_comes_back_exactly_and_other_objects_are_not_touched(&cluster);
    who_ends_first_leaves_the_other_out(&cluster);
    a_list_that_comes_later_is_rewritten_too(&cluster);
    after_kill_9_it_comes_back_once(&cluster);
    what_somebody_else_has_changed_stays_as_it_is(&cluster);
}

fn identity(service: &str) -> String {
    format!("{service}.shop.serviceaccount.identity.linkerd.cluster.local")
}

/// The kind with what Linkerd's own definition asks of its lists.
fn define(cluster: &Cluster) {
    let pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    let identities = json!({ "type": "array", "minItems": 1, "items": { "type": "string", "pattern": pattern } });
    let reference = json!({ "type": "object", "required": ["kind"], "properties": { "group": { "type": "string" },
        "kind": { "type": "string" }, "name": { "type": "string" }, "namespace": { "type": "string" } } });
    let spec = json!({ "type": "object", "oneOf": [{ "required": ["identities"] }, { "required": ["identityRefs"] }],
        "properties": { "identities": identities, "identityRefs": { "type": "array", "minItems": 1, "items": reference } } });
    cluster.define(
        ("policy.linkerd.io", "v1alpha1"),
        ("meshtlsauthentications", "MeshTLSAuthentication"),
        "Namespaced",
        &spec,
    );
    let all = [identity("web"), identity("cart"), identity("mail")];
    make(cluster, "clients", true, &json!({ "identities": all }));
    make(cluster, "only-cart", true, &json!({ "identityRefs": [{ "kind": "ServiceAccount", "name": "cart" }] }));
    make(cluster, "everybody", true, &json!({ "identities": ["*"] }));
    make(cluster, "not-ours", false, &json!({ "identities": all }));
}

fn make(cluster: &Cluster, name: &str, managed: bool, spec: &Value) {
    let labels = if managed { json!({ "qualm/managed": "true", "team": "shop" }) } else { json!({}) };
    let list = json!({ "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "MeshTLSAuthentication",
        "metadata": { "name": name, "labels": labels, "annotations": { "owner": "shop" } }, "spec": spec });
    cluster.make(LISTS, &list);
}

fn list(cluster: &Cluster, name: &str) -> Value {
    let (status, mut found) = cluster.ask("tests", "GET", &format!("{LISTS}/{name}"), None);
    assert_eq!(status, 200, "{found}");
    let meta = found["metadata"].take();
    json!({ "spec": found["spec"], "labels": meta["labels"], "annotations": meta["annotations"], "uid": meta["uid"] })
}

fn unlisting(cluster: &Cluster) -> HookConfig {
    cluster.hook_as("qualm", "act = \"unlist\"")
}

fn without_linkerds_definitions_that_is_told(cluster: &Cluster) {
    let running = Running::start(&cluster.outbox("missing"), &[unlisting(cluster)]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    let told = until("it is told", || running.comes_to(&["reading"]).problem);
    assert!(told.contains("has no policy.linkerd.io/v1alpha1"), "{told}");
    running.stop();
}

fn it_comes_back_exactly_and_other_objects_are_not_touched(cluster: &Cluster) {
    let all = ["clients", "only-cart", "everybody", "not-ours"];
    let before = all.map(|name| list(cluster, name));
    let hook = unlisting(cluster);
    let probed = hook.build(&qualm_model::time::Clock::new(now)).unwrap().probe().unwrap();
    assert!(probed.contains("the rights are there"), "{probed}");
    let running = Running::start(&cluster.outbox("unlist"), &[hook]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    let effect = running.comes_to(&["in effect"]);
    assert!(effect.survives.contains("not enforceable: shop/everybody by *"), "{}", effect.survives);
    assert_eq!(list(cluster, "clients")["spec"], json!({ "identities": [identity("web"), identity("mail")] }));
    assert_eq!(list(cluster, "only-cart")["spec"], json!({ "identities": ["nobody.qualm.invalid"] }));
    let original: Value =
        serde_json::from_str(list(cluster, "clients")["annotations"]["qualm/original"].as_str().unwrap()).unwrap();
    assert_eq!(original, before[0]["spec"]);
    assert_eq!([list(cluster, "everybody"), list(cluster, "not-ours")], [before[2].clone(), before[3].clone()]);
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert_eq!(all.map(|name| list(cluster, name)), before);
    running.stop();
}

fn who_ends_first_leaves_the_other_out(cluster: &Cluster) {
    let before = list(cluster, "clients");
    let running = Running::start(&cluster.outbox("two"), &[unlisting(cluster)]);
    let [cart, mail] = ["cart", "mail"].map(|service| order(service, Level::Quarantined));
    let count = |state: &str| running.hooks.view().effects.iter().filter(|of| of.state.as_str() == state).count();
    running.hooks.orders(vec![cart, mail.clone()]);
    until("both are in effect", || (count("in effect") == 2).then_some(()));
    assert_eq!(list(cluster, "clients")["spec"], json!({ "identities": [identity("web")] }));
    running.hooks.orders(vec![mail]);
    running.comes_to(&["undone"]);
    assert_eq!(list(cluster, "clients")["spec"], json!({ "identities": [identity("web"), identity("cart")] }));
    running.hooks.orders(Vec::new());
    until("both are over", || (count("undone") == 2).then_some(()));
    assert_eq!(list(cluster, "clients"), before);
    running.stop();
}

fn a_list_that_comes_later_is_rewritten_too(cluster: &Cluster) {
    let running = Running::start(&cluster.outbox("later"), &[unlisting(cluster)]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    make(cluster, "later", true, &json!({ "identities": [identity("cart"), identity("web")] }));
    let before = list(cluster, "later");
    let web = json!({ "identities": [identity("web")] });
    until("it is found", || (list(cluster, "later")["spec"] == web).then_some(()));
    running.comes_to(&["in effect"]);
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert_eq!(list(cluster, "later"), before);
    running.stop();
    assert_eq!(cluster.ask("tests", "DELETE", &format!("{LISTS}/later"), None).0, 200);
}

fn after_kill_9_it_comes_back_once(cluster: &Cluster) {
    let before = list(cluster, "only-cart");
    let (folder, hook) = (cluster.outbox("killed"), unlisting(cluster));
    let child = Killable::start(&folder, std::slice::from_ref(&hook), &[order("cart", Level::Quarantined)]);
    until("it is taken out", || (list(cluster, "only-cart") != before).then_some(()));
    child.kill();
    let running = Running::start(&folder, &[hook]);
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert_eq!(list(cluster, "only-cart"), before);
    running.stop();
}

fn what_somebody_else_has_changed_stays_as_it_is(cluster: &Cluster) {
    let before = list(cluster, "only-cart");
    let running = Running::start(&cluster.outbox("foreign"), &[unlisting(cluster)]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    let theirs = json!({ "spec": { "identities": [identity("web")] } });
    assert_eq!(cluster.ask("tests", "PATCH", &format!("{LISTS}/clients"), Some(&theirs)).0, 200);
    running.hooks.orders(Vec::new());
    let told = running.comes_to(&["changed by others"]).problem.unwrap();
    assert!(told.contains("shop/clients was changed; qualm/original"), "{told}");
    assert_eq!(list(cluster, "clients")["spec"], theirs["spec"]);
    assert_eq!(list(cluster, "only-cart"), before, "the others come back");
    running.stop();
}
