//! What `qualm wire` prints, and `deploy/kubernetes.yaml`, before those who will judge them: Envoy, a Kubernetes API
//! server, Istio's control plane, Kafka, and our own reading of what shippers write.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Output},
};

use qualm_ingest::parse::{Format, Parser};
use qualm_model::event::{EventBuilder, Position};
use serde_json::{Value, json};
use support::{
    authority::{Authority, SvidFiles, TRUST_DOMAIN, spiffe_id},
    caller::Caller,
    istiod::{Istiod, definitions},
    kafka::Kafka,
    kubernetes::{Apply, Kubernetes, documents},
    parts::{Part, etcd, present},
    ports,
    process::Process,
    qualm::{Qualm, page},
    upstream::Upstream,
    wait::{PATIENCE, until, until_true},
};

const DEPLOYMENT: &str = include_str!("../deploy/kubernetes.yaml");
/// Who applies what `wire istio` prints: it says so itself.
const WIRE: &str = "qualm-wire";
const NODE: &str = "sidecar~127.0.0.2~cart-1.shop~shop.svc.cluster.local";

/// What `qualm wire` prints.
fn wire(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_qualm")).arg("wire").args(arguments).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// The blocks that are not for the file they stand in: runs of lines that begin with `#|`, without that.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        match line.strip_prefix("#|") {
            Some(line) => blocks.last_mut().unwrap().push_str(&format!("{}\n", line.strip_prefix(' ').unwrap_or(line))),
            None if !blocks.last().unwrap().is_empty() => blocks.push(String::new()),
            None => {}
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// What `envoy --mode validate` says of a file that it accepts.
fn validate(config: &Path) -> String {
    let envoy = Part::Envoy.folder().unwrap().join("envoy");
    let mut command = Command::new(envoy);
    command.args(["--mode", "validate", "--log-level", "warning", "--config-path"]).arg(config);
    let Output { status, stderr, stdout } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{said}");
    said
}

/// The bootstrap that is printed, with certificates that are there.
fn bootstrap(svid: &SvidFiles) -> String {
    let mut text = wire(&["envoy"]);
    for (printed, file) in [("svid.pem", &svid.certificate), ("svid.key", &svid.key), ("bundle.pem", &svid.bundle)] {
        text = replaced(&text, &format!("/etc/envoy/tls/{printed}"), file.to_str().unwrap());
    }
    text
}

/// `text` with another word in all places of one that must be there.
fn replaced(text: &str, word: &str, by: &str) -> String {
    assert!(text.contains(word), "`{word}` is not printed");
    text.replace(word, by)
}

#[test]
fn envoy_accepts_the_bootstrap_that_is_printed() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let svid = Authority::new().write_svid(&spiffe_id("shop", "orders"), folder.path());
    let config = folder.path().join("envoy.yaml");
    fs::write(&config, bootstrap(&svid)).unwrap();
    let said = validate(&config);
    assert!(!said.contains("[warning]"), "{said}");
}

#[test]
fn an_envoy_with_the_printed_bootstrap_reports_to_qualm_and_enforces() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let [listen, http, inbound_http, inbound_tcp, admin] = [(); 5].map(|()| ports::free());
    let tls = authority.write_svid(&spiffe_id("qualm", "qualm"), &folder.path().join("qualm-tls"));
    let config = format!(
        "[listen]\naddress = \"127.0.0.1:{listen}\"\ncertificate = {:?}\nkey = {:?}\nclient_roots = {:?}\n\
         reporters = [\"spiffe://{TRUST_DOMAIN}/*\"]\nenforcement_points = [\"spiffe://{TRUST_DOMAIN}/*\"]\n\
         [observe]\naddress = \"127.0.0.1:{http}\"\n",
        tls.certificate, tls.key, tls.bundle
    );
    let qualm = Qualm::start(folder.path(), &config, http);
    let workload = Upstream::http();
    let orders = spiffe_id("shop", "orders");
    let svid = authority.write_svid(&orders, &folder.path().join("envoy-tls"));
    let log = folder.path().join("access.jsonl");
    let mut text = bootstrap(&svid);
    for (printed, here) in [
        (
            "address: qualm.qualm.svc.cluster.local, port_value: 9465",
            format!("address: 127.0.0.1, port_value: {listen}"),
        ),
        ("address: 0.0.0.0, port_value: 15006", format!("address: 127.0.0.1, port_value: {inbound_http}")),
        ("address: 0.0.0.0, port_value: 15007", format!("address: 127.0.0.1, port_value: {inbound_tcp}")),
        ("port_value: 15000", format!("port_value: {admin}")),
        ("port_value: 8080", format!("port_value: {}", workload.port())),
        ("/dev/stdout", log.to_str().unwrap().to_owned()),
    ] {
        text = replaced(&text, printed, &here);
    }
    let file = folder.path().join("envoy.yaml");
    fs::write(&file, text).unwrap();
    let mut command = Process::command(&Part::Envoy.folder().unwrap().join("envoy"));
    command.args(["--concurrency", "1", "--disable-hot-restart", "--file-flush-interval-msec", "50"]);
    command.args(["--log-level", "warning", "--config-path"]).arg(file);
    let mut envoy = Process::spawn("envoy", command, &folder.path().join("envoy.log"));
    envoy.wait_until("is live", PATIENCE, || page(admin, "/ready").is_ok_and(|page| page.status == 200));

    let cart = spiffe_id("shop", "cart");
    let caller = Caller::new(&authority, &cart, Ipv4Addr::new(127, 0, 0, 2), &orders);
    assert_eq!(caller.connect(inbound_http).unwrap().get("/v1/orders/42").unwrap().status, 200);

    until_true("the call is reported by ALS", PATIENCE, || qualm.metric("qualm_proxies_reporting") == Some(1.0));
    until_true("both filters are filled", PATIENCE, || qualm.metric("qualm_proxies_enforcing") == Some(1.0));
    let line = until("the call is in the log", PATIENCE, || {
        fs::read_to_string(&log).ok()?.lines().find(|line| line.contains("/v1/orders/42")).map(str::to_owned)
    });
    let event = event_of(line.as_bytes());
    assert_eq!((event.caller.as_str(), event.called.as_str()), (cart.as_str(), orders.as_str()), "{line}");
    let read: Value = serde_json::from_str(&line).unwrap();
    let empty: Vec<_> =
        read.as_object().unwrap().iter().filter(|(_, value)| value.is_null()).map(|(key, _)| key).collect();
    for key in
        ["tls_ja3_fingerprint", "tls_ja4_fingerprint", "downstream_peer_serial", "downstream_direct_remote_address"]
    {
        assert!(read[key].is_string(), "{key} is not in {read}; empty are {empty:?}");
    }
}

/// What becomes of a record, in words.
#[derive(Debug)]
struct Read {
    caller: String,
    called: String,
    cluster: String,
    instance: String,
    version: String,
    address: String,
}

/// The only event of a record.
fn event_of(record: &[u8]) -> Read {
    let mut builder = EventBuilder::new();
    let mut parser = Parser::for_format(Format::IstioJson, None).unwrap();
    let outcome = parser.parse(record, Position::default(), &mut builder);
    outcome.unwrap_or_else(|why| panic!("{why:?}: {}", String::from_utf8_lossy(record)));
    let batch = builder.finish();
    let event = batch.event(0);
    let (source, destination) = (event.source(), event.destination());
    Read {
        caller: source.principal().to_owned(),
        called: destination.principal().to_owned(),
        cluster: destination.cluster().to_owned(),
        instance: destination.instance().to_owned(),
        version: destination.version().to_owned(),
        address: destination.ip().to_owned(),
    }
}

/// A line of an inbound proxy that says neither pod nor address of its own.
fn line() -> String {
    let line = json!({
        "start_time": "2026-11-22T02:02:24Z", "duration": 1, "method": "GET", "path": "/x", "response_code": 200,
        "upstream_cluster": "inbound|80||", "downstream_remote_address": "10.0.0.7:1",
        "downstream_peer_uri_san": spiffe_id("shop", "cart"), "downstream_local_uri_san": spiffe_id("shop", "orders"),
    });
    line.to_string()
}

fn assert_origin(record: &Value) {
    let read = event_of(record.to_string().as_bytes());
    assert_eq!(read.caller, spiffe_id("shop", "cart"), "{record}");
    let origin = [&read.cluster, &read.instance, &read.version, &read.address];
    assert_eq!(origin, ["north", "orders-5d4f-x7x2p", "v2", "10.0.4.2"], "{record}");
}

/// A value of the YAML of Fluent Bit, by the plugin and the key.
fn fluent_bit_value<'a>(text: &'a str, plugin: &str, key: &str) -> Option<&'a str> {
    let from = text.find(&format!("- name: {plugin}\n"))?;
    let lines = text[from..].lines().skip(1).take_while(|line| !line.trim_start().starts_with("- name:"));
    lines.map(str::trim).find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

#[test]
fn what_fluent_bit_ships_by_the_printed_configuration_is_read_with_its_origin() {
    for (target, container) in [("fluent-bit", "istio-proxy"), ("linkerd", "linkerd-proxy")] {
        let text = wire(&[target]);
        let value =
            |plugin: &str, key: &str| fluent_bit_value(&text, plugin, key).unwrap_or_else(|| panic!("{plugin} {key}"));
        assert_eq!(value("tail", "path"), format!("/var/log/containers/*_{container}-*.log"));
        let tag = value("tail", "tag").strip_suffix('*').unwrap();
        assert_eq!(value("kubernetes", "kube_tag_prefix"), format!("{tag}var.log.containers."), "or no pod is found");
        for plugin in ["kubernetes", "modify", "kafka"] {
            assert_eq!(value(plugin, "match"), value("tail", "tag"), "{plugin}");
        }
        assert_eq!((value("kubernetes", "labels"), value("kubernetes", "annotations")), ("on", "off"));
        assert_eq!((value("kubernetes", "merge_log"), value("kafka", "format")), ("off", "json"));
        let (set, to) = value("modify", "set").split_once(' ').unwrap();
        assert_eq!(to, "${CLUSTER}");

        let mut record = json!({
            (value("kafka", "timestamp_key").trim_matches('"')): "2026-11-22T02:02:25.000001Z",
            "stream": "stdout", "_p": "F", "log": line(),
            "kubernetes": {
                "pod_name": "orders-5d4f-x7x2p", "namespace_name": "shop", "pod_id": "0b1f", "pod_ip": "10.0.4.2",
                "labels": { "app": "orders", "version": "v2" }, "host": "node-3", "container_name": container,
                "docker_id": "4f", "container_image": "proxyv2",
            },
        });
        record[set] = json!("north");
        assert_origin(&record);
    }
}

#[test]
fn what_vector_ships_by_the_printed_configuration_is_read_with_its_origin() {
    let text = wire(&["vector"]);
    let config: toml::Table = toml::from_str(&text).unwrap();
    let inputs = |table: &toml::Value| table["inputs"][0].as_str().unwrap().to_owned();
    let sink = &config["sinks"]["qualm_kafka"];
    let origin = &config["transforms"][&inputs(sink)];
    let access = &config["transforms"][&inputs(origin)];
    assert_eq!(config["sources"][&inputs(access)]["type"].as_str(), Some("kubernetes_logs"));
    assert_eq!(access["condition"].as_str(), Some(".kubernetes.container_name == \"istio-proxy\""));
    assert_eq!(sink["encoding"]["codec"].as_str(), Some("json"));

    let mut record = json!({
        "file": "/var/log/pods/shop_orders-5d4f-x7x2p_0b1f/istio-proxy/0.log", "message": line(),
        "source_type": "kubernetes_logs", "stream": "stdout", "timestamp": "2026-11-22T02:02:25.000001Z",
        "timestamp_end": "2026-11-22T02:02:25.000001Z",
        "kubernetes": {
            "container_id": "containerd://4f", "container_image": "proxyv2", "container_name": "istio-proxy",
            "namespace_labels": { "team": "shop" }, "node_labels": { "zone": "a" },
            "pod_annotations": { "secret": "hunter2" }, "pod_ip": "10.0.4.2", "pod_ips": ["10.0.4.2"],
            "pod_labels": { "app": "orders", "version": "v2" }, "pod_name": "orders-5d4f-x7x2p",
            "pod_namespace": "shop", "pod_node_name": "node-3", "pod_owner": "ReplicaSet/orders-5d4f", "pod_uid": "0b1f",
        },
    });
    for statement in origin["source"].as_str().unwrap().lines() {
        if let Some(key) = statement.strip_prefix("del(.kubernetes.").and_then(|rest| rest.strip_suffix(')')) {
            record["kubernetes"].as_object_mut().unwrap().remove(key).unwrap_or_else(|| panic!("{key} is not there"));
        } else if let Some((key, value)) = statement.strip_prefix('.').and_then(|rest| rest.split_once(" = ")) {
            assert_eq!(value, "\"${CLUSTER}\"");
            record[key] = json!("north");
        } else {
            panic!("what does `{statement}` do?");
        }
    }
    assert!(!record.to_string().contains("hunter2"), "annotations are left out");
    assert_origin(&record);
}

/// Runs a script of `wire kafka` with Kafka's own tools, or asks one of these a question.
fn run(kafka: &Kafka, folder: &Path, script: &str) -> String {
    let admin = folder.join("admin.properties");
    fs::write(&admin, "").unwrap();
    let path = format!("{}:{}", kafka.tools().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).env("PATH", path).env("BROKERS", kafka.bootstrap()).env("ADMIN", admin);
    let Output { status, stdout, stderr } = shell.env("REPLICAS", "1").env("PARTITIONS", "3").output().unwrap();
    let [said, errors] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(status.success(), "{said}\n{errors}");
    said
}

#[test]
fn a_real_kafka_takes_what_is_printed_twice_and_gives_it_all_back() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start_guarded(folder.path());
    let ask = |question: &str| run(&kafka, folder.path(), &format!("{question} --bootstrap-server \"$BROKERS\""));
    // A second time everything is there, and stays.
    for _ in 0..2 {
        run(&kafka, folder.path(), &wire(&["kafka"]));
    }
    let topics = ask("kafka-topics.sh --describe");
    for words in ["Topic: mesh-access-logs", "PartitionCount: 3", "retention.ms=1209600000", "LogAppendTime"] {
        assert!(topics.contains(words), "no {words} in {topics}");
    }
    assert!(topics.contains("Topic: qualm-dead-letters") && topics.contains("Topic: qualm-alerts"), "{topics}");
    let rights = ask("kafka-acls.sh --list");
    let count = |words: &str| rights.matches(words).count();
    // Reading of one topic and one group; writing of the two that Qualm writes, and of the shippers.
    assert_eq!((count("operation=READ"), count("operation=WRITE"), count("operation=ALL")), (2, 3, 0), "{rights}");
    assert_eq!((count("User:qualm,"), count("User:qualm-shipper,")), (7, 2), "{rights}");

    run(&kafka, folder.path(), &wire(&["kafka", "--remove"]));
    assert_eq!(ask("kafka-acls.sh --list").trim(), "");
    until("only the logs are left", PATIENCE, || {
        (ask("kafka-topics.sh --list").trim() == "mesh-access-logs").then_some(())
    });
    assert!(!ask("kafka-configs.sh --describe --entity-type users").contains("byte_rate"));
}

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
