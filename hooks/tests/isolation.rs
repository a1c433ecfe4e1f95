//! Pods cut off by a network policy, at a real Kubernetes API server: which policy is written, whom it selects, what is
//! said of others that let them go on, and that all of it is taken back. No network plugin is here to carry it out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use qualm_hooks::{config::HookConfig, effect::Stored, order::Order};
use qualm_model::level::Level;
use serde_json::{Value, json};
use support::{
    cluster::{Cluster, RBAC, path_of},
    engine::{Killable, Running, run_child},
    now, order,
    parts::{Part, etcd, present},
    server::{Reply, Server, ok, status},
    until,
};

#[test]
#[ignore = "a child of other tests"]
fn child() {
    run_child();
}

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";
const ROLE: &str = include_str!("../../deploy/hooks/isolation.yaml");
const ADDRESS: &str = "10.0.1.1";

#[test]
fn pods_are_cut_off_and_given_back() {
    if !present(&[Part::KubeApiserver]) || etcd().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    furnish(&cluster);
    without_the_right_nothing_is_done_and_that_is_told(&cluster);
    let paths = ["/clusterroles/qualm-isolation", "/clusterrolebindings/qualm-isolation"];
    cluster.apply(ROLE, &paths.map(|path| format!("{RBAC}{path}")).each_ref().map(String::as_str));
    one_pod_is_cut_off_and_what_others_allow_it_is_told(&cluster);
    a_kind_that_the_cluster_does_not_have_is_not_replaced_by_a_weaker_one(&cluster);
    after_kill_9_labels_that_were_taken_away_come_back(&cluster);
    who_stands_on_one_pod_twice_keeps_it_cut_off_until_both_have_ended(&cluster);
    a_pod_that_starts_later_is_cut_off_too(&cluster);
    a_pod_whose_labels_somebody_else_has_changed_stays_as_it_is(&cluster);
    a_policy_that_somebody_else_has_changed_stays_as_it_is(&cluster);
    pods_in_their_nodes_network_are_told_of(&cluster);
    kinds_that_deny_are_written_where_they_are_defined(&cluster);
}

/// Two pods that a policy lets be called by anybody, beside one that denies everything.
fn furnish(cluster: &Cluster) {
    cluster.make("/api/v1/namespaces", &json!({ "metadata": { "name": "qualm" } }));
    for account in ["qualm", "nobody"] {
        cluster.make("/api/v1/namespaces/qualm/serviceaccounts", &json!({ "metadata": { "name": account } }));
    }
    cluster.run_pod("cart-1", ADDRESS);
    cluster.run_pod("cart-2", "10.0.1.2");
    let deny = json!({ "podSelector": {}, "policyTypes": ["Ingress"] });
    let allow =
        json!({ "podSelector": { "matchLabels": { "app": "cart" } }, "policyTypes": ["Ingress"], "ingress": [{}] });
    for (name, spec) in [("deny-all", deny), ("allow-cart", allow)] {
        cluster.make(POLICIES, &json!({ "metadata": { "name": name }, "spec": spec }));
    }
}

fn narrow() -> Order {
    let mut narrow = order("cart", Level::Quarantined);
    narrow.subject.instance = Some(ADDRESS.to_owned());
    narrow.decision = "narrow".to_owned();
    narrow
}

fn isolating(cluster: &Cluster, keys: &str) -> HookConfig {
    cluster.hook_as("qualm", &format!("act = \"isolate\"\n{keys}"))
}

fn acts(cluster: &Cluster, name: &str, keys: &str, orders: Vec<Order>) -> (Running, Stored) {
    let running = Running::start(&cluster.outbox(name), &[isolating(cluster, keys)]);
    running.hooks.orders(orders);
    let effect = running.comes_to(&["in effect"]);
    (running, effect)
}

fn ends(running: Running) {
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    running.stop();
}

fn policy(cluster: &Cluster, name: &str) -> Option<Value> {
    let (status, found) = cluster.ask("tests", "GET", &format!("{POLICIES}/{name}"), None);
    (status == 200).then_some(found)
}

fn pod(cluster: &Cluster, name: &str) -> Value {
    cluster.ask("tests", "GET", &path_of(name), None).1["metadata"].clone()
}

fn without_the_right_nothing_is_done_and_that_is_told(cluster: &Cluster) {
    let hook = cluster.hook_as("nobody", "act = \"isolate\"");
    let probed = hook.build(&qualm_model::time::Clock::new(now)).unwrap().probe().unwrap_err().to_string();
    assert!(probed.contains("may not list pods") && probed.contains("docs/hooks.md"), "{probed}");
    let running = Running::start(&cluster.outbox("rights"), &[hook]);
    running.hooks.orders(vec![narrow()]);
    let told = until("it is told", || running.comes_to(&["reading"]).problem);
    assert!(told.contains("403") && told.contains("docs/hooks.md"), "{told}");
    running.stop();
}

fn one_pod_is_cut_off_and_what_others_allow_it_is_told(cluster: &Cluster) {
    let probed = isolating(cluster, "").build(&qualm_model::time::Clock::new(now)).unwrap().probe().unwrap();
    assert!(probed.contains("the rights are there"), "{probed}");
    let before = pod(cluster, "cart-1");
    let (running, effect) = acts(cluster, "plain", "", vec![narrow()]);
    let written = policy(cluster, "qualm-narrow").unwrap();
    let label = json!({ "qualm/isolated-narrow": "true" });
    assert_eq!(written["spec"]["podSelector"], json!({ "matchLabels": label }));
    assert_eq!(written["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(written["spec"]["ingress"].is_null());
    let open = &written["spec"]["egress"][0]["to"][0]["namespaceSelector"]["matchExpressions"][0]["values"];
    assert!(open.as_array().unwrap().contains(&json!("kube-system")), "{written}");
    assert!(effect.survives.contains("not isolated by shop/allow-cart,"), "{}", effect.survives);
    assert!(effect.target.unwrap().ends_with("at 10.0.1.1, not isolated by shop/allow-cart"));
    assert_eq!(pod(cluster, "cart-1")["labels"], json!({ "app": "cart", "qualm/isolated-narrow": "true" }));
    assert_eq!(pod(cluster, "cart-2")["labels"], json!({ "app": "cart" }), "its sibling");
    ends(running);
    assert!(policy(cluster, "qualm-narrow").is_none());
    let after = pod(cluster, "cart-1");
    assert_eq!((&after["labels"], &after["annotations"]), (&before["labels"], &before["annotations"]));
}

fn a_kind_that_the_cluster_does_not_have_is_not_replaced_by_a_weaker_one(cluster: &Cluster) {
    let running = Running::start(&cluster.outbox("missing"), &[isolating(cluster, "policy = \"cilium\"")]);
    running.hooks.orders(vec![narrow()]);
    let told = until("it is told", || running.comes_to(&["reading"]).problem);
    assert!(told.contains("has no definition of the kind of policy"), "{told}");
    running.stop();
}

fn after_kill_9_labels_that_were_taken_away_come_back(cluster: &Cluster) {
    let (folder, hook) = (cluster.outbox("killed"), isolating(cluster, "replace_labels = true"));
    let child = Killable::start(&folder, std::slice::from_ref(&hook), &[narrow()]);
    until("it has lost its label", || pod(cluster, "cart-1")["labels"]["app"].is_null().then_some(()));
    child.kill();
    assert_eq!(pod(cluster, "cart-1")["annotations"]["qualm/labels"], r#"{"app":"cart"}"#);
    let running = Running::start(&folder, &[hook]);
    running.hooks.orders(vec![narrow()]);
    let effect = running.comes_to(&["in effect"]);
    assert!(!effect.survives.contains("not isolated by"), "{}", effect.survives);
    assert!(effect.survives.contains("ReplicaSet starts another"), "{}", effect.survives);
    ends(running);
    let after = pod(cluster, "cart-1");
    assert_eq!((&after["labels"], &after["annotations"]), (&json!({ "app": "cart" }), &Value::Null));
    assert!(policy(cluster, "qualm-narrow").is_none());
}

fn who_stands_on_one_pod_twice_keeps_it_cut_off_until_both_have_ended(cluster: &Cluster) {
    let keys = "replace_labels = true";
    let running = Running::start(&cluster.outbox("twice"), &[isolating(cluster, keys)]);
    let whole = order("cart", Level::Quarantined);
    running.hooks.orders(vec![narrow(), whole.clone()]);
    let both = || running.hooks.view().effects.iter().filter(|of| of.state.as_str() == "in effect").count() == 2;
    until("both are in effect", || both().then_some(()));
    running.hooks.orders(vec![whole]);
    running.comes_to(&["undone"]);
    assert_eq!(pod(cluster, "cart-1")["labels"], json!({ "qualm/isolated-cart-quarantined": "true" }));
    assert!(policy(cluster, "qualm-cart-quarantined").is_some());
    running.hooks.orders(Vec::new());
    until("both are over", || {
        running.hooks.view().effects.iter().all(|of| of.state.as_str() == "undone").then_some(())
    });
    for name in ["cart-1", "cart-2"] {
        let after = pod(cluster, name);
        assert_eq!((&after["labels"], &after["annotations"]), (&json!({ "app": "cart" }), &Value::Null), "{name}");
    }
    running.stop();
}

fn a_pod_that_starts_later_is_cut_off_too(cluster: &Cluster) {
    let (running, _) = acts(cluster, "later", "replace_labels = true", vec![order("cart", Level::Quarantined)]);
    cluster.run_pod("cart-3", "10.0.1.3");
    let cut = json!({ "qualm/isolated-cart-quarantined": "true" });
    until("it is found", || (pod(cluster, "cart-3")["labels"] == cut).then_some(()));
    running.comes_to(&["in effect"]);
    // Whom somebody lets go is not taken again.
    cluster.run_pod("cart-4", "10.0.1.4");
    until("it is found", || (pod(cluster, "cart-4")["labels"] == cut).then_some(()));
    let free = json!({ "metadata": { "labels": { "qualm/isolated-cart-quarantined": null } } });
    assert_eq!(cluster.ask("tests", "PATCH", &path_of("cart-4"), Some(&free)).0, 200);
    cluster.run_pod("cart-5", "10.0.1.5");
    until("it is found", || (pod(cluster, "cart-5")["labels"] == cut).then_some(()));
    assert!(pod(cluster, "cart-4")["labels"].is_null());
    ends(running);
    for name in ["cart-1", "cart-3", "cart-5"] {
        let after = pod(cluster, name);
        assert_eq!((&after["labels"], &after["annotations"]), (&json!({ "app": "cart" }), &Value::Null), "{name}");
    }
    for name in ["cart-3", "cart-4", "cart-5"] {
        assert_eq!(cluster.ask("tests", "DELETE", &format!("{}?gracePeriodSeconds=0", path_of(name)), None).0, 200);
    }
}

fn a_pod_whose_labels_somebody_else_has_changed_stays_as_it_is(cluster: &Cluster) {
    let (running, _) = acts(cluster, "foreign-pod", "replace_labels = true", vec![narrow()]);
    let theirs = json!({ "metadata": { "labels": { "app": "forensics" } } });
    assert_eq!(cluster.ask("tests", "PATCH", &path_of("cart-1"), Some(&theirs)).0, 200);
    running.hooks.orders(Vec::new());
    let effect = running.comes_to(&["changed by others"]);
    assert!(effect.problem.unwrap().contains("shop/pods/cart-1"));
    assert_eq!(pod(cluster, "cart-1")["labels"]["app"], "forensics");
    running.stop();
    let back = json!({ "metadata": { "labels": { "app": "cart", "qualm/isolated-narrow": null }, "annotations": { "qualm/labels": null } } });
    assert_eq!(cluster.ask("tests", "PATCH", &path_of("cart-1"), Some(&back)).0, 200);
}

fn a_policy_that_somebody_else_has_changed_stays_as_it_is(cluster: &Cluster) {
    let (running, _) = acts(cluster, "foreign-policy", "", vec![narrow()]);
    let path = format!("{POLICIES}/qualm-narrow");
    let theirs = json!({ "spec": { "policyTypes": ["Ingress"], "egress": null } });
    assert_eq!(cluster.ask("tests", "PATCH", &path, Some(&theirs)).0, 200);
    running.hooks.orders(Vec::new());
    let effect = running.comes_to(&["changed by others"]);
    assert!(effect.problem.unwrap().contains("was changed by somebody else"));
    assert!(policy(cluster, "qualm-narrow").is_some());
    running.stop();
    assert_eq!(cluster.ask("tests", "DELETE", &path, None).0, 200);
    let back = json!({ "metadata": { "labels": { "qualm/isolated-narrow": null } } });
    assert_eq!(cluster.ask("tests", "PATCH", &path_of("cart-1"), Some(&back)).0, 200);
}

fn pods_in_their_nodes_network_are_told_of(cluster: &Cluster) {
    let pod = json!({ "metadata": { "name": "web-1" }, "spec": { "serviceAccountName": "web", "hostNetwork": true,
        "automountServiceAccountToken": false, "containers": [{ "name": "app", "image": "app" }] } });
    cluster.make("/api/v1/namespaces/shop/pods", &pod);
    let running = Running::start(&cluster.outbox("node"), &[isolating(cluster, "")]);
    running.hooks.orders(vec![order("web", Level::Quarantined)]);
    let told = running.comes_to(&["nothing there"]).problem.unwrap();
    assert!(told.contains("in their node's network"), "{told}");
    running.stop();
}

fn kinds_that_deny_are_written_where_they_are_defined(cluster: &Cluster) {
    let rule = |action: &[&str], peers: &str| {
        json!({ "type": "array", "maxItems": 25, "items": { "type": "object", "required": ["action", peers],
            "properties": { "name": { "type": "string" }, "action": { "type": "string", "enum": action },
                peers: { "type": "array", "minItems": 1, "items": { "type": "object", "minProperties": 1, "maxProperties": 1,
                    "properties": { "namespaces": any(), "pods": any(), "networks": { "type": "array", "items": { "type": "string" } } } } } } } })
    };
    let priority = json!({ "type": "integer", "minimum": 0, "maximum": 1000 });
    let admin = json!({ "type": "object", "required": ["priority", "subject"], "properties": { "priority": priority,
        "subject": any(), "ingress": rule(&["Allow", "Deny", "Pass"], "from"), "egress": rule(&["Allow", "Deny", "Pass"], "to") } });
    let mut tiered = admin.clone();
    tiered["properties"]["tier"] = json!({ "type": "string", "enum": ["Admin", "Baseline"] });
    tiered["required"] = json!(["tier", "priority", "subject"]);
    let group = "policy.networking.k8s.io";
    cluster.define((group, "v1alpha1"), ("adminnetworkpolicies", "AdminNetworkPolicy"), "Cluster", &admin);
    let (running, effect) = acts(cluster, "admin", "", vec![narrow()]);
    let path = format!("/apis/{group}/v1alpha1/adminnetworkpolicies/qualm-narrow");
    let (_, written) = cluster.ask("tests", "GET", &path, None);
    assert_eq!(
        written["spec"]["egress"].as_array().unwrap().iter().map(|of| &of["action"]).collect::<Vec<_>>(),
        ["Pass", "Deny"]
    );
    // What is allowed beside it does not matter.
    assert!(!effect.survives.contains("not isolated by") && policy(cluster, "qualm-narrow").is_none());
    ends(running);
    assert_eq!(cluster.ask("tests", "GET", &path, None).0, 404);

    cluster.define((group, "v1alpha2"), ("clusternetworkpolicies", "ClusterNetworkPolicy"), "Cluster", &tiered);
    let (running, _) = acts(cluster, "cluster", "reachable = []", vec![narrow()]);
    let path = format!("/apis/{group}/v1alpha2/clusternetworkpolicies/qualm-narrow");
    let (_, written) = cluster.ask("tests", "GET", &path, None);
    assert_eq!(written["spec"]["tier"], "Admin");
    let networks = json!([{ "namespaces": {} }, { "networks": ["0.0.0.0/0", "::/0"] }]);
    assert_eq!(written["spec"]["egress"], json!([{ "name": "cut-off", "action": "Deny", "to": networks }]));
    ends(running);
    assert_eq!(cluster.ask("tests", "GET", &path, None).0, 404);

    cluster.define(("cilium.io", "v2"), ("ciliumnetworkpolicies", "CiliumNetworkPolicy"), "Namespaced", &any());
    let (running, effect) = acts(cluster, "cilium", "", vec![order("cart", Level::Quarantined)]);
    let path = "/apis/cilium.io/v2/namespaces/shop/ciliumnetworkpolicies/qualm-cart-quarantined";
    let (_, written) = cluster.ask("tests", "GET", path, None);
    // All pods of the account, those that start later too.
    let account = json!({ "matchLabels": { "k8s:io.cilium.k8s.policy.serviceaccount": "cart" } });
    assert_eq!(written["spec"]["endpointSelector"], account);
    assert_eq!(pod(cluster, "cart-1")["labels"], json!({ "app": "cart" }));
    assert!(!effect.survives.contains("start later"), "{}", effect.survives);
    ends(running);
    assert_eq!(cluster.ask("tests", "GET", path, None).0, 404);
}

fn any() -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

#[test]
fn an_api_server_that_does_not_say_what_it_has_is_no_reason_for_a_weaker_policy() {
    let pods = json!({ "items": [{ "metadata": { "name": "cart-1", "namespace": "shop", "uid": "u" }, "status": { "podIP": ADDRESS } }] });
    for silent in [status(500), Reply::Garbage] {
        let pods = pods.to_string();
        let server =
            Server::start(
                move |request, _| {
                    if request.path.starts_with("/apis/cilium.io") { silent.clone() } else { ok(pods.clone()) }
                },
            );
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "name = \"it\"\ndry_run = false\n[kubernetes]\nendpoint = {{ url = \"{}\" }}\nact = \"isolate\"\n",
            server.url
        );
        let running = Running::start(folder.path(), &[toml::from_str(&text).unwrap()]);
        running.hooks.orders(vec![narrow()]);
        until("it is told", || running.comes_to(&["reading"]).problem);
        assert!(server.seen().iter().all(|request| request.method == "GET"));
        running.stop();
    }
}
