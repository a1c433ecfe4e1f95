//! Kubernetes' API server, the real one: a service account is taken out of its role bindings and put back, pods are
//! labelled and lose the label, one pod is deleted by its uid.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use qualm_model::level::Level;
use serde_json::json;
use support::{
    account,
    cluster::{Cluster, RBAC, path_of},
    engine::{Running, run_child},
    now, order,
    parts::{Part, etcd, present},
};

#[test]
#[ignore = "a child of other tests"]
fn child() {
    run_child();
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
