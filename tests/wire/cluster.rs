//! What is printed for Istio, and `deploy/kubernetes.yaml`, at a real Kubernetes API server and Istio's control plane.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    blocks, replaced,
    support::{
        authority::Authority,
        istiod::{Istiod, definitions},
        kubernetes::{Apply, Kubernetes, documents},
        parts::{Part, etcd, present},
        wait::{PATIENCE, until},
    },
    validate, wire,
};

const DEPLOYMENT: &str = include_str!("../../deploy/kubernetes.yaml");
/// Who applies what `wire istio` prints: it says so itself.
const WIRE: &str = "qualm-wire";
const NODE: &str = "sidecar~127.0.0.2~cart-1.shop~shop.svc.cluster.local";

#[test]
fn a_real_api_server_accepts_the_deployment_and_has_nothing_to_warn_of() {
    if !present(&[Part::KubeApiserver]) || etcd().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kubernetes = Kubernetes::start(folder.path(), &Authority::new());
    // With the labels that make the API server hold every pod to the restricted standard.
    let namespace = documents(DEPLOYMENT).find(|document| document.contains("kind: Namespace")).unwrap();
    kubernetes.apply(namespace, Apply::ForReal, "qualm");
    let mut kinds = Vec::new();
    for document in documents(DEPLOYMENT) {
        let applied = kubernetes.apply(document, Apply::DryRun, "qualm");
        assert_eq!(applied.warnings, [""; 0], "{}", applied.object["metadata"]["name"]);
        kinds.push(applied.object["kind"].as_str().unwrap().to_owned());
    }
    assert!(kinds.iter().any(|kind| kind == "StatefulSet") && kinds.len() >= 7, "{kinds:?}");
    // It would have warned.
    let pod = documents(DEPLOYMENT).find(|document| document.contains("kind: StatefulSet")).unwrap();
    let loose = replaced(pod, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true");
    assert!(!kubernetes.apply(&loose, Apply::DryRun, "qualm").warnings.is_empty());
    for target in ["vector", "fluent-bit"] {
        let [role] = blocks(&wire(&[target])).try_into().expect("one block, the role");
        kubernetes.apply(&role, Apply::DryRun, "tests");
    }
}

/// A Kubernetes with Istio's resources, Qualm's deployment and all that `wire istio` prints; Istio's own configuration
/// in the place where istiod reads it.
fn wired_mesh(folder: &Path, printed: &str) -> Kubernetes {
    let kubernetes = Kubernetes::start(folder, &Authority::new());
    kubernetes.define(&definitions());
    kubernetes.create_namespace("istio-system");
    for document in documents(DEPLOYMENT) {
        kubernetes.apply(document, Apply::ForReal, "qualm");
    }
    for document in documents(printed) {
        let applied = kubernetes.apply(document, Apply::ForReal, WIRE);
        assert_eq!(applied.warnings, [""; 0], "{}", applied.object["metadata"]["name"]);
    }
    let [values, sidecar, fingerprints] = blocks(printed).try_into().expect("Helm's values, a Sidecar, fingerprints");
    kubernetes.apply(&sidecar, Apply::DryRun, "tests");
    kubernetes.apply(&fingerprints, Apply::ForReal, WIRE);
    let mesh: String = values.lines().skip(1).map(|line| format!("  {line}\n")).collect();
    let document = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: istio\n  namespace: istio-system\ndata:\n  mesh: |\n{mesh}"
    );
    kubernetes.apply(&document, Apply::ForReal, "tests");
    kubernetes
}

/// What istiod configures a sidecar with, as a bootstrap that needs no istiod.
fn as_bootstrap(dump: &Value) -> Value {
    let section = |name: &str| {
        let of = |config: &&Value| config["@type"].as_str().is_some_and(|kind| kind.ends_with(name));
        dump["configs"].as_array().unwrap().iter().find(of).unwrap_or_else(|| panic!("no {name} in {dump}"))
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let named = |section: &Value, keys: [&str; 2]| keys.iter().flat_map(|key| list(&section[*key])).collect::<Vec<_>>();
    let listeners = named(section("ListenersConfigDump"), ["dynamicListeners", "dynamic_listeners"]);
    let listeners: Vec<_> = listeners
        .into_iter()
        .map(|mut one| {
            let state = ["activeState", "active_state"].iter().find(|key| one[**key].is_object()).unwrap();
            untyped(one[*state]["listener"].take())
        })
        .collect();
    let clusters = named(section("ClustersConfigDump"), ["dynamicActiveClusters", "dynamic_active_clusters"]);
    let mut clusters: Vec<_> = clusters.into_iter().map(|mut one| untyped(one["cluster"].take())).collect();
    // Whom a sidecar has in its own bootstrap.
    for name in ["xds-grpc", "sds-grpc"] {
        clusters.push(json!({ "name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": { "cluster_name": name, "endpoints": [] } }));
    }
    let ads = json!({ "api_type": "GRPC", "transport_api_version": "V3",
        "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }] });
    json!({
        "node": { "id": NODE, "cluster": "cart.shop" },
        "dynamic_resources": { "ads_config": ads },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    })
}

/// A message without the word for its type, which a bootstrap knows by the place.
fn untyped(mut message: Value) -> Value {
    message.as_object_mut().unwrap().remove("@type").unwrap();
    message
}

#[test]
fn istiod_takes_what_is_printed_and_envoy_accepts_what_istiod_makes_of_it() {
    if !present(&[Part::KubeApiserver, Part::Istiod, Part::Envoy]) || etcd().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let printed = wire(&["istio"]);
    let kubernetes = wired_mesh(folder.path(), &printed);
    let istiod = Istiod::start(folder.path(), &kubernetes);

    let file = folder.path().join("sidecar.json");
    let configured = || as_bootstrap(&istiod.configuration(NODE, "shop")).to_string();
    let text = configured();
    for wanted in [
        "\"qualm-http-rbac\"",
        "\"qualm-http-ratelimit\"",
        "\"qualm-net-rbac\"",
        // The cluster that they ask, and whom they accept there.
        "\"name\":\"outbound|9465||qualm.qualm.svc.cluster.local\"",
        "\"spiffe://cluster.local/ns/qualm/sa/qualm\"",
        "%DOWNSTREAM_PEER_URI_SAN%",
        "\"enableJa4Fingerprinting\":true",
    ] {
        assert!(text.contains(wanted), "no {wanted} in what istiod makes of it: {}", istiod.output());
    }
    fs::write(&file, text).unwrap();
    // Istio itself uses fields that Envoy warns of.
    validate(&file);

    // The other way, ALS, as its comments say.
    let telemetry = documents(&printed).find(|document| document.contains("kind: Telemetry")).unwrap();
    let als = replaced(telemetry, "    - name: qualm-log\n", "").replace("    # - name:", "    - name:");
    kubernetes.apply(&als, Apply::ForReal, WIRE);
    let text = until("istiod sends ALS", PATIENCE, || {
        Some(configured()).filter(|text| text.contains("\"qualm_http\"") && text.contains("\"qualm_tcp\""))
    });
    assert!(!text.contains("%DOWNSTREAM_PEER_URI_SAN%"), "a call arrives by one way");
    fs::write(&file, text).unwrap();
    validate(&file);
    assert!(!istiod.output().contains("panic"), "{}", istiod.output());
}

#[test]
fn taking_istio_s_wiring_back_leaves_the_deployment_as_it_was() {
    if !present(&[Part::KubeApiserver, Part::Istiod]) || etcd().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kubernetes = wired_mesh(folder.path(), &wire(&["istio"]));
    let path = "/apis/apps/v1/namespaces/qualm/statefulsets/qualm";
    let template = |object: &Value| object["spec"]["template"].clone();
    let wired = template(&kubernetes.get(path).unwrap());
    assert_eq!(wired["metadata"]["labels"]["sidecar.istio.io/inject"], "true");
    assert!(wired.to_string().contains("istio-certificates"));

    let removal = wire(&["istio", "--remove"]);
    let (_, rest) = removal.split_once("<<'YAML'\n").unwrap();
    let (document, _) = rest.split_once("\nYAML\n").unwrap();
    let left = template(&kubernetes.apply(document, Apply::ForReal, WIRE).object);

    assert!(!left.to_string().contains("istio"), "{left}");
    assert_eq!(left["spec"]["volumes"].as_array().unwrap().len(), 3);
}

#[test]
fn the_right_to_see_pods_is_accepted_beside_the_deployment_and_taken_back_whole() {
    if !present(&[Part::KubeApiserver]) || etcd().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kubernetes = Kubernetes::start(folder.path(), &Authority::new());
    for document in documents(DEPLOYMENT) {
        kubernetes.apply(document, Apply::ForReal, "qualm");
    }
    let printed = wire(&["kubernetes"]);
    for document in documents(&printed) {
        let applied = kubernetes.apply(document, Apply::ForReal, "qualm-pods");
        assert_eq!(applied.warnings, [""; 0], "{}", applied.object["metadata"]["name"]);
    }
    let path = "/apis/apps/v1/namespaces/qualm/statefulsets/qualm";
    let pod = |object: &Value| object["spec"]["template"]["spec"].clone();
    let given = pod(&kubernetes.get(path).unwrap());
    assert!(given.to_string().contains("serviceAccountToken"), "{given}");
    assert_eq!(given["automountServiceAccountToken"], false);

    let removal = wire(&["kubernetes", "--remove"]);
    let (_, rest) = removal.split_once("<<'YAML'\n").unwrap();
    let (document, _) = rest.split_once("\nYAML\n").unwrap();
    let left = pod(&kubernetes.apply(document, Apply::ForReal, "qualm-pods").object);
    assert!(!left.to_string().contains("serviceAccountToken"), "{left}");
    assert_eq!(left["volumes"].as_array().unwrap().len(), 3);
    for kind in ["networkpolicy", "clusterrolebinding", "clusterrole"] {
        assert!(removal.contains(&format!("kubectl delete {kind} qualm-pods")), "{kind}");
    }
}
