//! What `qualm wire` prints, before those who will judge it: here Envoy and Kafka; in `cluster` a Kubernetes API server and
//! Istio's control plane; in `shippers` our own reading of what shippers write by it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on fails")]

#[path = "wire/cluster.rs"]
mod cluster;
#[path = "wire/shippers.rs"]
mod shippers;
mod support;

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Output},
};

use qualm_ingest::parse::{Format, Parser};
use qualm_model::event::{EventBuilder, Position};
use serde_json::Value;
use support::{
    authority::{Authority, SvidFiles, TRUST_DOMAIN, spiffe_id},
    caller::Caller,
    kafka::Kafka,
    parts::{Part, present},
    ports,
    process::Process,
    qualm::{Qualm, page},
    upstream::Upstream,
    wait::{PATIENCE, until, until_true},
};

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

/// A bootstrap with what is printed as an option and stands in comments.
fn with_options(text: &str) -> String {
    let line = |line: &str| {
        let (margin, rest) = line.split_at(line.len() - line.trim_start().len());
        let option = rest.strip_prefix('#').filter(|_| !margin.is_empty());
        // What is for people has a space after the mark, and no second one.
        let option = option.filter(|option| !option.starts_with(' ') || option.starts_with("  "));
        option.map_or_else(|| format!("{line}\n"), |option| format!("{margin}{option}\n"))
    };
    text.lines().map(line).collect()
}

#[test]
fn envoy_accepts_the_options_of_the_bootstrap_too() {
    if !present(&[Part::Envoy]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let svid = Authority::new().write_svid(&spiffe_id("shop", "orders"), folder.path());
    let config = folder.path().join("envoy.yaml");
    let text = with_options(&bootstrap(&svid));
    for option in
        ["- name: envoy.filters.http.ext_authz", "max_stream_duration: ", "max_downstream_connection_duration: "]
    {
        let stands = |line: &str| line.trim_start().starts_with(option) || line.contains(option) && !line.contains('#');
        assert!(text.lines().any(stands), "{option} is printed");
    }
    fs::write(&config, text).unwrap();
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
