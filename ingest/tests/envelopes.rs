//! Every envelope around every format: the same events as without it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::LazyLock;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::TimestampNanosecondType,
    util::display::{ArrayFormatter, FormatOptions},
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use proptest::prelude::*;
use prost::Message as _;
use qualm_ingest::{
    envelope::Envelope,
    parse::{Format, Origin, Parser},
    source::{Invalid, Rejection},
};
use qualm_model::event::{Event, EventBatch, EventBuilder, Position};
use serde_json::{Value, json};

/// Puts a record into an envelope: as one record, or as the several that it is cut into.
type Wrap = fn(&str) -> Vec<Vec<u8>>;

fn one(record: impl Into<Vec<u8>>) -> Vec<Vec<u8>> {
    vec![record.into()]
}

fn cri(record: &str) -> Vec<Vec<u8>> {
    one(format!("2026-11-22T02:02:25.000000001Z stdout F {record}"))
}

/// A third of the way into a text, between two characters.
fn third(record: &str) -> usize {
    record.floor_char_boundary(record.len() / 3)
}

fn cri_partial(record: &str) -> Vec<Vec<u8>> {
    let (first, rest) = record.split_at(third(record));
    let (second, last) = rest.split_at(third(rest));
    [("P", first), ("P", second), ("F", last)]
        .map(|(tag, piece)| format!("2026-11-22T02:02:25.000000001Z stdout {tag} {piece}").into_bytes())
        .into()
}

fn docker(record: &str) -> Vec<Vec<u8>> {
    one(json!({ "log": format!("{record}\n"), "stream": "stdout", "time": "2026-11-22T02:02:25.000000001Z" })
        .to_string())
}

fn metadata() -> Value {
    json!({
        "pod_name": "orders-5d4f-x7x2p", "namespace_name": "shop", "pod_id": "0b1f", "pod_ip": "10.0.4.2",
        "host": "node-3", "container_name": "istio-proxy", "labels": { "app": "orders", "version": "v2" },
        "annotations": { "secret": "hunter2", "kubectl.kubernetes.io/default-container": "orders" },
    })
}

fn fluent_bit(record: &str) -> Vec<Vec<u8>> {
    one(
        json!({ "@timestamp": 1_795_312_945.5, "stream": "stdout", "logtag": "F", "log": record, "kubernetes": metadata() })
            .to_string(),
    )
}

fn fluent_bit_partial(record: &str) -> Vec<Vec<u8>> {
    let (first, last) = record.split_at(third(record));
    let piece = |tag: &str, piece: &str| {
        let record = json!({ "stream": "stdout", "_p": tag, "log": piece, "kubernetes": metadata() });
        record.to_string().into_bytes()
    };
    vec![piece("P", first), piece("F", last)]
}

fn fluentd(record: &str) -> Vec<Vec<u8>> {
    one(format!(
        r#"{{"log":{},"stream":"stdout","docker":{{"container_id":"4f"}},"kubernetes":{}}}"#,
        json!(format!("{record}\n")),
        metadata()
    ))
}

/// A JSON record's own keys beside those of the shipper; other records have none to lift.
fn merged(record: &str) -> Vec<Vec<u8>> {
    match record.strip_suffix('}').filter(|_| record.starts_with('{')) {
        Some(open) => one(format!("{open},\"kubernetes\":{},\"tag\":\"kube.x\"}}", metadata())),
        None => fluent_bit(record),
    }
}

fn processed(record: &str) -> Vec<Vec<u8>> {
    match record.starts_with('{') {
        true => one(format!(r#"{{"log":"x","log_processed":{record},"kubernetes":{}}}"#, metadata())),
        false => fluent_bit(record),
    }
}

fn vector(record: &str) -> Vec<Vec<u8>> {
    let pod = json!({
        "container_name": "istio-proxy", "pod_ip": "10.0.4.2", "pod_labels": { "version": "v2" },
        "pod_name": "orders-5d4f-x7x2p", "pod_namespace": "shop", "pod_node_name": "node-3",
        "pod_owner": "ReplicaSet/orders-5d4f",
    });
    one(json!({ "file": "/var/log/pods/x/0.log", "kubernetes": pod, "message": record, "source_type": "kubernetes_logs" })
        .to_string())
}

fn vector_flat(record: &str) -> Vec<Vec<u8>> {
    one(json!({
        "kubernetes.pod_name": "orders-5d4f-x7x2p", "kubernetes.pod_namespace": "shop",
        "kubernetes.pod_ip": "10.0.4.2", "kubernetes.pod_node_name": "node-3",
        "kubernetes.container_name": "istio-proxy", "kubernetes.pod_labels.version": "v2",
        "message": record, "timestamp": "2026-11-22T02:02:25Z",
    })
    .to_string())
}

fn filebeat(record: &str) -> Vec<Vec<u8>> {
    let pod = json!({
        "pod": { "name": "orders-5d4f-x7x2p", "ip": "10.0.4.2" }, "namespace": "shop", "node": { "name": "node-3" },
        "container": { "name": "istio-proxy" }, "labels": { "version": "v2" },
        "replicaset": { "name": "orders-5d4f" }, "deployment": { "name": "orders" },
    });
    one(json!({
        "@timestamp": "2026-11-22T02:02:25Z", "@metadata": { "beat": "filebeat" }, "agent": { "type": "filebeat" },
        "log": { "offset": 12, "file": { "path": "/var/log/containers/x.log" } }, "message": record,
        "kubernetes": pod, "orchestrator": { "cluster": { "name": "north" } },
    })
    .to_string())
}

fn logstash(record: &str) -> Vec<Vec<u8>> {
    one(json!({ "@version": "1", "@timestamp": "2026-11-22T02:02:25Z", "event": { "original": record } }).to_string())
}

fn otlp_json(record: &str) -> Vec<Vec<u8>> {
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let resource = PLACES.map(|(key, value)| attribute(key, value));
    let log = json!({ "timeUnixNano": "1795312945000000000", "body": { "stringValue": record }, "attributes": [] });
    one(json!({ "resourceLogs": [{
        "resource": { "attributes": resource }, "scopeLogs": [{ "scope": {}, "logRecords": [log] }],
    }] })
    .to_string())
}

const PLACES: [(&str, &str); 7] = [
    ("k8s.cluster.name", "north"),
    ("k8s.namespace.name", "shop"),
    ("k8s.pod.name", "orders-5d4f-x7x2p"),
    ("k8s.pod.ip", "10.0.4.2"),
    ("k8s.node.name", "node-3"),
    ("k8s.deployment.name", "orders"),
    ("k8s.pod.labels.version", "v2"),
];

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(body(value)), ..KeyValue::default() }
}

fn body(text: &str) -> AnyValue {
    AnyValue { value: Some(Any::StringValue(text.into())) }
}

fn request(log_records: Vec<LogRecord>) -> Vec<u8> {
    let attributes = PLACES.map(|(key, value)| text(key, value)).to_vec();
    let resource = Some(Resource { attributes, ..Resource::default() });
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn otlp_protobuf(record: &str) -> Vec<Vec<u8>> {
    one(request(vec![LogRecord { body: Some(body(record)), ..LogRecord::default() }]))
}

fn syslog(record: &str) -> Vec<Vec<u8>> {
    one(format!(r#"<165>1 2026-11-22T02:02:25.003Z node-3 envoy 812 - [origin ip="10.0.4.2"] {record}"#))
}

fn syslog_bsd(record: &str) -> Vec<Vec<u8>> {
    one(format!("<34>Nov 22 02:02:25 node-3 envoy[812]: {record}"))
}

fn cri_in_docker_in_filebeat(record: &str) -> Vec<Vec<u8>> {
    let texts = |records: Vec<Vec<u8>>| String::from_utf8(records.into_iter().next().unwrap()).unwrap();
    filebeat(&texts(docker(&texts(cri(record)))))
}

fn four_deep(record: &str) -> Vec<Vec<u8>> {
    let text = String::from_utf8(cri_in_docker_in_filebeat(record).remove(0)).unwrap();
    otlp_json(&text)
}

const ENVELOPES: &[(&str, Wrap)] = &[
    ("none", |record| one(record)),
    ("cri", cri),
    ("cri, three pieces", cri_partial),
    ("docker json-file", docker),
    ("fluent bit", fluent_bit),
    ("fluent bit, two pieces", fluent_bit_partial),
    ("fluent bit, Merge_Log", merged),
    ("fluent bit, log_processed", processed),
    ("fluentd", fluentd),
    ("vector", vector),
    ("vector, flat", vector_flat),
    ("filebeat", filebeat),
    ("logstash", logstash),
    ("otlp json", otlp_json),
    ("otlp protobuf", otlp_protobuf),
    ("syslog rfc 5424", syslog),
    ("syslog rfc 3164", syslog_bsd),
    ("cri in docker in filebeat", cri_in_docker_in_filebeat),
    ("… in otlp: four deep", four_deep),
];

const CSV_MAPPING: &str = r#"
    format = "csv"
    time = { column = 0, format = "%Y-%m-%d %H:%M:%S" }
    fields = { source = "{1}", destination = "{2}", operation = "{3}", status = "{4}" }
"#;
const CSV: &str = "2026-11-22 02:02:24,cart,\"orders, the big one\",GET /v1/orders/42?x=1,200,label";

/// A mixed input: the records of every format, one format after the other.
static MIXED: LazyLock<String> = LazyLock::new(|| Format::ALL.iter().map(|format| format.sample()).collect());

fn sample(format: Format) -> &'static str {
    match format {
        Format::Mapped => CSV,
        Format::Auto => &MIXED,
        named => named.sample(),
    }
}

fn parser(format: Format) -> Parser {
    let mapping = (format == Format::Mapped).then(|| CSV_MAPPING.parse().unwrap());
    Parser::for_format(format, mapping).unwrap()
}

/// What an envelope tells: the reporter's own end, and what follows from it.
fn is_of_origin(name: &str) -> bool {
    ["position", "partition", "offset", "cluster", "instance", "version", "_ip", "reporter_uid"]
        .iter()
        .any(|part| name.contains(part))
}

fn shown(event: Event<'_>, batch: &EventBatch) -> String {
    let columns = batch.as_record_batch();
    let options = FormatOptions::default();
    let fields = columns.schema_ref().fields().iter().zip(columns.columns());
    let kept = fields.filter(|(field, column)| !is_of_origin(field.name()) && !column.is_null(event.row));
    let value = |column: &ArrayRef| match column.as_primitive_opt::<TimestampNanosecondType>() {
        Some(times) => jiff::Timestamp::from_nanosecond(times.value(event.row).into()).unwrap().to_string(),
        None => ArrayFormatter::try_new(column, &options).unwrap().value(event.row).to_string(),
    };
    kept.map(|(field, column)| format!("{}={}", field.name(), value(column))).collect::<Vec<_>>().join("; ")
}

/// What a record becomes, origin left out.
fn outcome_of(parser: &mut Parser, record: &[u8]) -> Result<Vec<String>, Rejection> {
    let mut builder = EventBuilder::new();
    let position = Position { source: 2, partition: 5, offset: 9 };
    let outcome = parser.parse(record, position, &mut builder);
    let batch = builder.finish();
    assert!(batch.events().all(|event| event.position() == position));
    outcome?;
    let refused = parser.refused().iter().map(|why| format!("{why:?}"));
    Ok(batch.events().map(|event| shown(event, &batch)).chain(refused).collect())
}

/// What the records of a sample become in an envelope; the pieces before the last of each must be parts.
fn outcomes(parser: &mut Parser, format: Format, wrap: Wrap) -> Vec<Result<Vec<String>, Rejection>> {
    let of = |record: &str, parser: &mut Parser| {
        let pieces = wrap(record);
        let (last, before) = pieces.split_last().unwrap();
        for piece in before {
            assert_eq!(outcome_of(parser, piece), Err(Rejection::Part), "{format}");
        }
        outcome_of(parser, last)
    };
    sample(format).lines().map(|record| of(record, parser)).collect()
}

/// An event without its times, where they are those of the envelope.
fn without_times(event: &str) -> String {
    let is_time = |field: &&str| field.starts_with("start_time=") || field.starts_with("time=");
    event.split("; ").filter(|field| !is_time(field)).collect::<Vec<_>>().join("; ")
}

/// Two events without the name of the reporter's own end, where it has none but what the envelope says of the pod; and,
/// of an issuer's log, without its word for the caller: these envelopes say that another container wrote it.
fn without_own_name(found: &str, expected: &str) -> (String, String) {
    let is_issuers = ["dst_endpoint_uid=spire-server", "dst_endpoint_uid=kube-apiserver"]
        .iter()
        .any(|issuer| expected.contains(issuer));
    let fields = found.split("; ").zip(expected.split("; ")).filter(|(found, expected)| {
        let is_named = found.ends_with("=orders-5d4f.shop");
        let was_address = expected.split_once('=').is_some_and(|(_, value)| value.parse::<std::net::IpAddr>().is_ok());
        let is_disowned = *found == "src_endpoint_provenance=4" && *expected == "src_endpoint_provenance=0";
        !(is_named && was_address || is_disowned && is_issuers)
    });
    let (found, expected): (Vec<_>, Vec<_>) = fields.unzip();
    (found.join("; "), expected.join("; "))
}

/// Whether an outcome is that of the same record without an envelope.
fn is_same(found: &Result<Vec<String>, Rejection>, expected: &Result<Vec<String>, Rejection>, format: Format) -> bool {
    match (found, expected) {
        // Times without a zone or a year are made whole by the envelope, which knows when the line was written.
        (Ok(found), Ok(expected)) => {
            let same = |(found, expected): (&String, &String)| {
                let is_dated = found.starts_with("start_time=2026-11-22T02:02:25")
                    && (UNDATED.contains(&format) || format == Format::Auto);
                let (found, expected) = without_own_name(found, expected);
                found == expected || is_dated && without_times(&found) == without_times(&expected)
            };
            found.len() == expected.len() && found.iter().zip(expected).all(same)
        }
        // Of all formats some other may have more to say of what is none of its records.
        (Err(found), Err(expected)) if format == Format::Auto => {
            (*found == Rejection::Part) == (*expected == Rejection::Part)
        }
        _ => found == expected,
    }
}

const UNDATED: [Format; 3] = [Format::KeycloakText, Format::KafkaAuthorizer, Format::Sshd];

#[test]
fn every_envelope_around_every_format_gives_the_same_events() {
    println!("{:28}{}", "", Format::ALL.iter().map(|format| format!("{format:>14}")).collect::<String>());
    let mut wrong = Vec::new();
    for &(name, wrap) in ENVELOPES {
        let mut line = String::new();
        for &format in Format::ALL {
            let expected = outcomes(&mut parser(format), format, |record| one(record));
            let found = outcomes(&mut parser(format), format, wrap);
            let events = found.iter().flatten().map(Vec::len).sum::<usize>();
            line.push_str(&format!("{events:>14}"));
            assert!(events > 0 && found.len() == expected.len(), "{format} in {name}");
            for ((found, expected), record) in found.iter().zip(&expected).zip(sample(format).lines()) {
                if !is_same(found, expected, format) {
                    wrong.push(format!("{format} in {name}:\n  {found:?}\nunlike\n  {expected:?}\nof {record}"));
                }
            }
        }
        println!("{name:28}{line}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn envelopes_and_formats_may_change_from_record_to_record() {
    for &format in Format::ALL {
        let expected = outcomes(&mut parser(format), format, |record| one(record));
        let mut used = parser(format);
        for _ in 0..3 {
            for &(name, wrap) in ENVELOPES {
                // Joined lines were seen before, and what has been joined is not joined again.
                if outcomes(&mut parser(format), format, |record| one(record)).iter().any(|one| one.is_err()) {
                    continue;
                }
                for (found, expected) in outcomes(&mut used, format, wrap).iter().zip(&expected) {
                    assert!(is_same(found, expected, format), "{format} in {name}: {found:?}\nunlike {expected:?}");
                }
            }
        }
    }
}

/// The reporter's own end of the only event of a record: cluster, instance, version, address.
fn own_end(record: &[u8]) -> [String; 4] {
    let mut builder = EventBuilder::new();
    parser(Format::IstioJson).parse(record, Position::default(), &mut builder).unwrap();
    let batch = builder.finish();
    let end = batch.event(0).destination();
    [end.cluster(), end.instance(), end.version(), end.ip()].map(str::to_owned)
}

/// A record that names its reporter as the called side, and neither pod nor address.
fn inbound() -> String {
    r#"{"start_time":"2026-11-22T02:02:24Z","duration":1,"method":"GET","path":"/x","response_code":200,"upstream_cluster":"inbound|80||","downstream_remote_address":"10.0.0.7:1","downstream_peer_uri_san":"spiffe://mesh.test/ns/shop/sa/cart","downstream_local_uri_san":"spiffe://mesh.test/ns/shop/sa/orders"}"#.to_owned()
}

#[test]
fn what_envelopes_say_of_the_pod_arrives() {
    for &(name, wrap) in ENVELOPES {
        let knows_pod = ["fluent", "vector", "filebeat", "otlp"].iter().any(|shipper| name.contains(shipper));
        let knows_cluster = ["filebeat", "otlp"].iter().any(|shipper| name.contains(shipper));
        if !knows_pod || name.contains("pieces") {
            continue;
        }
        // The second time, its metadata is known as a whole.
        for record in [inbound(), inbound()] {
            let [cluster, instance, version, ip] = own_end(&wrap(&record)[0]);
            assert_eq!(
                (instance.as_str(), version.as_str(), ip.as_str()),
                ("orders-5d4f-x7x2p", "v2", "10.0.4.2"),
                "{name}"
            );
            assert_eq!(cluster, if knows_cluster { "north" } else { "" }, "{name}");
        }
    }
}

#[test]
fn what_is_known_from_outside_is_believed_before_the_record() {
    let mut builder = EventBuilder::new();
    let record = &filebeat(&inbound())[0];
    let origin = Origin { cluster: "east", pod: "header-1", ..Origin::default() };
    let mut parser = parser(Format::IstioJson);
    parser.parse_from(&origin, record, Position::default(), &mut builder).unwrap();
    let mut parser = parser.with_cluster("south".into());
    parser.parse_from(&origin, record, Position::default(), &mut builder).unwrap();
    let batch = builder.finish();
    let ends = [0, 1].map(|row| {
        (batch.event(row).destination().cluster().to_owned(), batch.event(row).destination().instance().to_owned())
    });
    assert_eq!(ends, [("east", "header-1"), ("south", "header-1")].map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn a_line_cannot_say_that_it_is_from_another_pod() {
    let forged = String::from_utf8(fluent_bit(&inbound()).remove(0)).unwrap().replace("orders-5d4f-x7x2p", "victim-1");
    for wrap in [fluent_bit, vector, filebeat, otlp_json] as [Wrap; 4] {
        assert_eq!(own_end(&wrap(&forged)[0])[1], "orders-5d4f-x7x2p");
    }
}

#[test]
fn metadata_is_that_of_each_record_though_it_begins_alike() {
    let long = "x".repeat(300);
    let mut parser = parser(Format::IstioJson);
    for round in 0..3 {
        for pod in ["a-1", "b-2"] {
            let record =
                json!({ "log": inbound(), "kubernetes": { "annotations": &long, "pod_name": pod } }).to_string();
            let mut builder = EventBuilder::new();
            parser.parse(record.as_bytes(), Position::default(), &mut builder).unwrap();
            assert_eq!(builder.finish().event(0).destination().instance(), pod, "{round}");
        }
    }
}

#[test]
fn nothing_but_the_origin_is_kept_of_an_envelope() {
    for &(name, wrap) in ENVELOPES {
        let mut builder = EventBuilder::new();
        let mut parser = parser(Format::IstioJson);
        for piece in wrap(&inbound()) {
            let _ = parser.parse(&piece, Position::default(), &mut builder);
        }
        let batch = format!("{:?}", builder.finish().as_record_batch());
        assert!(!batch.contains("hunter2") && !batch.contains("/var/log"), "{name}");
    }
}

#[test]
fn five_deep_is_foreign() {
    let deep = String::from_utf8(four_deep(&inbound()).remove(0)).unwrap();
    for wrap in [cri, docker, vector] as [Wrap; 3] {
        let outcome = outcome_of(&mut parser(Format::IstioJson), &wrap(&deep)[0]);
        assert!(matches!(outcome, Err(Rejection::Foreign | Rejection::Invalid(Invalid::Syntax))), "{outcome:?}");
    }
}

#[test]
fn what_applications_and_proxies_say_is_foreign_in_every_envelope() {
    for line in [
        "[2026-11-22 02:02:24.122][12][warning][config] [source/common/config/grpc_stream.h:196] stream closed: 14",
        "2026-11-22T02:02:24.122842Z\tinfo\tFLAG: --concurrency=\"0\"",
        r#"{"level":"info","ts":1.5,"msg":"listening","method":"GET","path":"/x"}"#,
        "listening on :8080",
    ] {
        for &(name, wrap) in ENVELOPES {
            for format in [Format::IstioJson, Format::IstioText] {
                let mut parser = parser(format);
                let outcome = wrap(line).iter().map(|piece| outcome_of(&mut parser, piece)).last().unwrap();
                assert_eq!(outcome, Err(Rejection::Foreign), "{line} in {name} as {format}");
            }
        }
    }
}

#[test]
fn a_truncated_record_in_a_whole_envelope_stays_invalid() {
    let record = inbound();
    let cut = &record[..record.len() - 9];
    for &(name, wrap) in ENVELOPES.iter().filter(|(name, _)| !name.contains("Merge_Log") && !name.contains("processed"))
    {
        let mut parser = parser(Format::IstioJson);
        let outcome = wrap(cut).iter().map(|piece| outcome_of(&mut parser, piece)).last().unwrap();
        assert_eq!(outcome, Err(Invalid::Syntax.into()), "{name}");
    }
}

#[test]
fn a_truncated_envelope_never_becomes_another_event() {
    for &format in Format::ALL {
        for &(name, wrap) in ENVELOPES.iter().filter(|(name, _)| !name.contains("pieces")) {
            let Some(record) =
                sample(format).lines().find(|line| outcome_of(&mut parser(format), line.as_bytes()).is_ok())
            else {
                continue;
            };
            let wrapped = wrap(record).remove(0);
            for end in 0..wrapped.len() {
                // What was cut off may be a field that is not read; a parser that has seen whole records knows more.
                let mut parser = parser(format);
                let whole = outcome_of(&mut parser, &wrapped).unwrap();
                match outcome_of(&mut parser, &wrapped[..end]) {
                    Ok(found) => assert_eq!(found, whole, "{format} in {name} cut at {end}"),
                    Err(why) => {
                        // Of a record that may have line ends in it, the rest may come.
                        let may_go_on = matches!(format, Format::PostgresCsv | Format::Auto) && why == Rejection::Part;
                        let is_refused = !matches!(why, Rejection::Duplicate | Rejection::Part);
                        assert!(is_refused || may_go_on, "{format} in {name}: {why:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn log_records_of_one_request_are_events_of_one_position() {
    let log = |text: &str| LogRecord { body: Some(body(text)), ..LogRecord::default() };
    let record = request(vec![log(&inbound()), log("listening"), log(&inbound()[..50]), log(&inbound())]);
    let found = outcome_of(&mut parser(Format::IstioJson), &record).unwrap();
    assert_eq!(found.len(), 4);
    assert_eq!(found[2..], ["Foreign", "Invalid(Syntax)"]);
}

#[test]
fn a_request_in_json_is_read_whatever_its_order_and_refused_where_it_is_broken() {
    let line = json!(inbound()).to_string();
    let places = r#""resource":{"attributes":[{"value":{"stringValue":"orders-1"},"key":"k8s.pod.name"},{"key":"n","value":{"arrayValue":{"values":[{"intValue":"1"}]}}}]}"#;
    let logs = format!(
        r#""scope_logs":[{{"log_records":[{{"body":{{"string_value":{line}}},"time_unix_nano":1795312945000000000,"traceId":[]}}]}}]"#
    );
    let plain = outcome_of(&mut parser(Format::IstioJson), inbound().as_bytes());
    for (first, second) in [(places, logs.as_str()), (logs.as_str(), places)] {
        let record = format!(r#" {{ "resource_logs" : [ {{{first} , {second}}} ] , "x":[1,{{}}]}} "#);
        assert_eq!(outcome_of(&mut parser(Format::IstioJson), record.as_bytes()), plain, "{record}");
        assert_eq!(own_end(record.as_bytes())[1], "orders-1");
    }
    for (broken, why) in [
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"x"}}]}]}]}"#, true),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"\q"}}]}]}]}"#, true),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"{\"a\q"}}]}]}]}"#, true),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[]}]},]}"#, true),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":5}]}]}]}"#, false),
        (r#"{"resourceLogs":{"a":1}}"#, false),
    ] {
        let expected = if why { Err(Invalid::Syntax.into()) } else { Err(Rejection::Foreign) };
        assert_eq!(outcome_of(&mut parser(Format::IstioJson), broken.as_bytes()), expected, "{broken}");
    }
}

#[test]
fn attributes_and_bodies_of_entries_are_read_as_their_json() {
    let entry = |key: &str, value: Any| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let attributes = vec![
        text("method", "GET"),
        text("path", "/v1/orders/42"),
        entry("response_code", Any::IntValue(200)),
        text("downstream_remote_address", "10.0.0.7:1"),
    ];
    let record =
        LogRecord { time_unix_nano: 1_795_312_944_122_000_000, attributes: attributes.clone(), ..LogRecord::default() };
    let kvlist = Any::KvlistValue(opentelemetry_proto::tonic::common::v1::KeyValueList { values: attributes });
    let listed = LogRecord { attributes: vec![], body: Some(AnyValue { value: Some(kvlist) }), ..record.clone() };
    for record in [record, listed] {
        let found = outcome_of(&mut parser(Format::IstioJson), &request(vec![record])).unwrap();
        assert!(
            found[0].contains("operation=GET /v1/orders/{id}") && found[0].contains("2026-11-22T02:02:24.122"),
            "{found:?}"
        );
    }
}

#[test]
fn docker_pieces_of_sixteen_kilobytes_are_joined() {
    let long = inbound().replace("/x", &format!("/x?{}", "é\"\\".repeat(9000).replace(['"', '\\'], "y")));
    let (first, rest) = long.split_at(long.floor_char_boundary(16 * 1024));
    let first = format!("{first}{}", "y".repeat(16 * 1024 - first.len()));
    let piece = |text: &str| json!({ "log": text, "stream": "stdout", "time": "2026-11-22T02:02:25Z" }).to_string();
    let mut parser = parser(Format::IstioJson);
    let (second, last) = rest.split_at(rest.floor_char_boundary(16 * 1024));
    let second = format!("{second}{}", "y".repeat(16 * 1024 - second.len()));
    assert_eq!(outcome_of(&mut parser, piece(&first).as_bytes()), Err(Rejection::Part));
    assert_eq!(outcome_of(&mut parser, piece(&second).as_bytes()), Err(Rejection::Part));
    assert!(outcome_of(&mut parser, piece(&format!("{last}\n")).as_bytes()).is_ok());
    let whole = outcome_of(&mut parser, inbound().as_bytes()).unwrap();
    assert_eq!(outcome_of(&mut parser, docker(&inbound())[0].as_slice()), Ok(whole));
}

#[test]
fn a_partial_line_that_never_ends_is_counted_and_never_fatal() {
    let mut parser = parser(Format::IstioJson).with_max_record_bytes(4096);
    let whole = outcome_of(&mut parser, inbound().as_bytes());
    let line = |stream: &str, tag: &str, text: &str| format!("2026-11-22T02:02:25Z {stream} {tag} {text}");
    for _ in 0..100 {
        let endless = line("stderr", "P", &"x".repeat(1000));
        assert_eq!(outcome_of(&mut parser, endless.as_bytes()), Err(Rejection::Part));
        // The other output of the same container is another file.
        assert_eq!(outcome_of(&mut parser, line("stdout", "F", &inbound()).as_bytes()), whole);
    }
    assert_eq!(outcome_of(&mut parser, line("stderr", "F", "x").as_bytes()), Err(Invalid::TooLong.into()));
    assert_eq!(outcome_of(&mut parser, line("stderr", "F", &inbound()).as_bytes()), whole);
}

#[test]
fn of_many_open_lines_the_oldest_are_given_up_and_counted() {
    let mut parser = parser(Format::IstioJson);
    let mut given_up = 0;
    for number in 0..300 {
        let record = json!({ "log": "x", "_p": "P", "kubernetes": { "pod_name": format!("p-{number}") } }).to_string();
        assert_eq!(outcome_of(&mut parser, record.as_bytes()), Err(Rejection::Part));
        given_up += parser.refused().iter().filter(|why| **why == Invalid::Unfinished.into()).count();
    }
    assert_eq!(given_up, 300 - 256);
}

#[test]
fn a_configured_pointer_is_followed_and_nothing_else() {
    let parser = || parser(Format::IstioJson);
    let plain = outcome_of(&mut parser(), inbound().as_bytes());
    let at = |pointer: &str| parser().with_envelope(Envelope::try_from(pointer.to_owned()).unwrap());
    for record in [
        json!({ "deep": { "line": inbound() } }),
        json!({ "deep": { "line": format!("2026-11-22T02:02:25Z stdout F {}", inbound()) } }),
        json!({ "deep": { "line": serde_json::from_str::<Value>(&inbound()).unwrap() } }),
    ] {
        let record = record.to_string();
        assert_eq!(outcome_of(&mut at("/deep/line"), record.as_bytes()), plain, "{record}");
        assert_eq!(outcome_of(&mut at("/deep/other"), record.as_bytes()), Err(Rejection::Foreign));
        assert_eq!(
            outcome_of(&mut at("/deep/line"), &record.as_bytes()[..record.len() - 1]),
            Err(Invalid::Syntax.into())
        );
    }
    let unopened = outcome_of(&mut at("none"), &docker(&inbound())[0]);
    assert_eq!(unopened, Err(Rejection::Foreign));
    assert!(Envelope::try_from("cri".to_owned()).is_err());
}

#[test]
fn lines_with_escapes_of_their_own_are_read_alike_wrapped_or_not() {
    for path in [r#"/a\"b"#, r"/a\\b", r"/a\u00e9\ud83d\ude00b", r"/a\nb\/c", r#"/a\\\\\\\"b\\"#, "/é&<>", r"/a\u0022b"]
    {
        let record = inbound().replace("/x", path);
        let plain = outcome_of(&mut parser(Format::IstioJson), record.as_bytes());
        assert!(plain.is_ok(), "{path}: {plain:?}");
        let escaped =
            |from: &str, to: &str| String::from_utf8(fluent_bit(&record).remove(0)).unwrap().replace(from, to);
        for wrapped in [escaped("", ""), escaped("&", "\\u0026"), escaped("/a", "\\/a"), escaped("é", "\\u00e9")] {
            assert_eq!(outcome_of(&mut parser(Format::IstioJson), wrapped.as_bytes()), plain, "{wrapped}");
        }
    }
}

fn wounded(bytes: &[u8], from: prop::sample::Index, to: prop::sample::Index, patch: &[u8]) -> Vec<u8> {
    let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
    let mut wounded = bytes[..from.min(to)].to_vec();
    wounded.extend(patch);
    wounded.extend(&bytes[(from.min(to) + 3).min(bytes.len())..]);
    wounded
}

proptest! {
    #[test]
    fn any_record_means_the_same_in_every_envelope(
        format in prop::sample::select(Format::ALL), from: prop::sample::Index, to: prop::sample::Index,
        patch in prop::sample::select(vec!["", "\"", "\\\"", "\\\\", "\\u00e9", "é", "}", ",\"a\":{\"b\":[1,\"\\\"\"]}", "\\n"]),
    ) {
        let record = sample(format).lines().next().unwrap();
        let wounded = wounded(record.as_bytes(), from, to, patch.as_bytes());
        let Ok(record) = String::from_utf8(wounded) else { return Ok(()) };
        let plain = outcome_of(&mut parser(format), record.as_bytes());
        for wrap in [cri, docker, fluent_bit, filebeat, vector, otlp_json] as [Wrap; 6] {
            let found = outcome_of(&mut parser(format), &wrap(&record)[0]);
            prop_assert!(is_same(&found, &plain, format), "{:?}\nunlike {:?}", found, plain);
        }
    }

    #[test]
    fn wounded_envelopes_never_panic(
        envelope in prop::sample::select(ENVELOPES), format in prop::sample::select(Format::ALL),
        from: prop::sample::Index, to: prop::sample::Index, patch in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut parser = parser(format);
        for piece in (envelope.1)(sample(format).lines().next().unwrap()) {
            let _ = outcome_of(&mut parser, &wounded(&piece, from, to, &patch));
        }
    }
}
