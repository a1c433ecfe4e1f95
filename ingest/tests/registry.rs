//! Records behind schema ids, with a registry that answers, refuses, lies or is silent.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use qualm_ingest::{
    config::RegistryConfig,
    parse::{Format, Parser},
    registry::{Client, Kind, Reading, RegistryCounters, Rows},
    source::{Invalid, Rejection},
};
use qualm_model::event::{EventBuilder, Position};
use serde_json::json;
use support::{ACCESS_AVRO, ACCESS_JSON, ACCESS_PROTO, RecordingRegistry, access_avro, access_proto, framed};

const PATIENCE: Duration = Duration::from_secs(60);
const BYTES: usize = 64 * 1024;

fn rows(config: &RegistryConfig) -> Rows {
    Rows::new(config, BYTES, RegistryCounters::default()).unwrap()
}

/// Reads a record once it is known what has become of its schema.
fn read(rows: &mut Rows, record: &[u8]) -> Result<String, Invalid> {
    assert!(rows.wait_for(record, PATIENCE), "an answer comes");
    match rows.read(record, Instant::now()) {
        Reading::Row(row) => Ok(String::from_utf8(row.to_vec()).unwrap()),
        Reading::Refused(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

fn filled() -> RecordingRegistry {
    let registry = RecordingRegistry::start();
    registry.put(1, "AVRO", ACCESS_AVRO, &json!([]));
    registry.put(2, "PROTOBUF", ACCESS_PROTO, &json!([]));
    registry.put(3, "JSON", "{}", &json!([]));
    registry
}

/// The same call in every form.
fn records(path: &str) -> [Vec<u8>; 4] {
    let json = ACCESS_JSON.replace("/PATH", path);
    [framed(1, &access_avro(path)), framed(2, &access_proto(path)), framed(3, json.as_bytes()), json.into_bytes()]
}

#[test]
fn a_call_is_the_same_event_in_avro_protobuf_and_json() {
    let registry = filled();
    let mut rows = rows(&registry.config());
    for format in [Format::IstioJson, Format::Auto] {
        let mut parser = Parser::for_format(format, None).unwrap();
        let events = records("/orders").map(|record| {
            assert!(rows.wait_for(&record, PATIENCE));
            let row = match rows.read(&record, Instant::now()) {
                Reading::Bare => record.as_slice(),
                Reading::Row(row) => row,
                other => panic!("{other:?}"),
            };
            let mut builder = EventBuilder::new();
            parser.parse(row, Position::default(), &mut builder).unwrap();
            format!("{:?}", builder.finish().as_record_batch())
        });
        assert!(events[0].contains("GET /orders"), "{}", events[0]);
        assert!(events.iter().all(|event| *event == events[3]), "{events:#?}");
    }
    assert_eq!([1, 2, 3, 4].map(|id| rows.kind(id)), [Some(Kind::Avro), Some(Kind::Protobuf), Some(Kind::Json), None]);
    let asked: Vec<String> = registry.asked().into_iter().map(|(path, _)| path).collect();
    let once = ["/schemas/ids/1", "/schemas/ids/2", "/schemas/ids/3"];
    assert_eq!(asked[..3], once, "each schema is asked for once");
}

#[test]
fn a_row_is_in_an_envelope_like_any_other_record() {
    let registry = RecordingRegistry::start();
    registry.put(1, "AVRO", r#"{"type":"record","name":"R","fields":[{"name":"log","type":"string"}]}"#, &json!([]));
    let line = ACCESS_JSON.replace("/PATH", "/orders");
    let mut payload =
        vec![u8::try_from((line.len() * 2) & 0x7f | 0x80).unwrap(), u8::try_from((line.len() * 2) >> 7).unwrap()];
    payload.extend(line.as_bytes());
    let row = read(&mut rows(&registry.config()), &framed(1, &payload)).unwrap();
    let mut builder = EventBuilder::new();
    Parser::for_format(Format::Auto, None).unwrap().parse(row.as_bytes(), Position::default(), &mut builder).unwrap();
    assert_eq!(builder.finish().event(0).operation(), "GET /orders");
}

#[test]
fn schemas_are_fetched_with_all_that_they_name() {
    let registry = RecordingRegistry::start();
    let to = |name: &str, subject: &str| json!([{ "name": name, "subject": subject, "version": 2 }]);
    let main = "syntax = \"proto3\"; import \"a/b.proto\"; message M { ab.B b = 1; }";
    registry.put(1, "PROTOBUF", main, &to("a/b.proto", ":.ctx:a/b"));
    let path = "/subjects/%3A.ctx%3Aa%2Fb/versions/2";
    let middle = "syntax = \"proto3\"; package ab; import \"c.proto\"; message B { C c = 1; }";
    registry.put_version(path, middle, &to("c.proto", "c"));
    let last = "syntax = \"proto3\"; message C { string x = 1; }";
    // It names the first again: there is no end to that.
    registry.put_version("/subjects/c/versions/2", last, &to("a/b.proto", ":.ctx:a/b"));
    let record = framed(1, &[0, 0x0a, 5, 0x0a, 3, 0x0a, 1, b'y']);
    assert_eq!(read(&mut rows(&registry.config()), &record).as_deref(), Ok(r#"{"b":{"c":{"x":"y"}}}"#));
}

#[test]
fn what_the_registry_does_not_have_is_refused_and_not_asked_for_again_at_once() {
    let registry = filled();
    let mut rows = rows(&registry.config());
    for _ in 0..100 {
        assert_eq!(read(&mut rows, &framed(9, b"x")), Err(Invalid::UnknownSchema));
    }
    assert_eq!(registry.asked().len(), 1);
    // A minute later it may have come.
    registry.put(9, "AVRO", "\"string\"", &json!([]));
    let later = Instant::now() + Duration::from_secs(61);
    assert_eq!(rows.read(&framed(9, b"\x02x"), later), Reading::Waiting);
    assert_eq!(read(&mut rows, &framed(9, b"\x02x")).as_deref(), Ok("\"x\""));
}

#[test]
fn a_schema_by_which_nothing_can_be_read_is_as_none() {
    let registry = RecordingRegistry::start();
    let none = json!([]);
    let many: Vec<_> = (0..100).map(|n| json!({ "name": format!("{n}"), "subject": "s", "version": 1 })).collect();
    registry.put(1, "AVRO", "{", &none);
    registry.put(2, "PROTOBUF", "message", &none);
    registry.put(3, "THRIFT", "struct", &none);
    registry.put(4, "AVRO", "\"string\"", &json!([{ "name": "a", "subject": "gone", "version": 1 }]));
    registry.put(5, "AVRO", "\"string\"", &many.into());
    registry.put_version("/subjects/s/versions/1", "\"string\"", &none);
    let mut rows = rows(&registry.config());
    for id in 1..=5 {
        assert_eq!(read(&mut rows, &framed(id, b"\x02x")), Err(Invalid::UnknownSchema), "{id}");
    }
}

#[test]
fn while_the_registry_is_silent_records_wait_and_then_go_by_until_it_answers() {
    let registry = filled();
    let mut rows = rows(&RegistryConfig { patience_s: 600, ..registry.config() });
    let [avro, proto, ..] = records("/orders");
    assert!(read(&mut rows, &avro).is_ok());
    registry.be_silent(true);
    let now = Instant::now();
    assert_eq!(rows.read(&proto, now), Reading::Waiting);
    assert_eq!(rows.read(&proto, now + Duration::from_secs(599)), Reading::Waiting);
    assert!(matches!(rows.read(&avro, now), Reading::Row(_)), "what is in memory is read on");
    let late = now + Duration::from_secs(601);
    assert_eq!(rows.read(&proto, late), Reading::Refused(Invalid::RegistryUnavailable));
    registry.be_silent(false);
    assert!(read(&mut rows, &proto).is_ok(), "it is asked again by itself");
}

#[test]
fn records_of_many_schemas_do_not_wait_each_for_itself() {
    let registry = filled();
    registry.be_silent(true);
    let mut rows = rows(&RegistryConfig { patience_s: 1, ..registry.config() });
    let now = Instant::now();
    assert_eq!(rows.read(&framed(1, b""), now), Reading::Waiting);
    let mut later = now;
    // The first silence is noticed in a moment, and then holds for all.
    while rows.read(&framed(2, b""), later) == Reading::Waiting {
        assert!(now.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
        later = Instant::now();
    }
    let answers = (3..2000).map(|id| rows.read(&framed(id, b""), later + Duration::from_secs(2)) == Reading::Waiting);
    assert_eq!(answers.filter(|is_waiting| *is_waiting).count(), 0);
}

#[test]
fn an_answer_that_is_none_of_a_registry_is_no_schema_and_no_end() {
    let registry = RecordingRegistry::start();
    let client = |config: &RegistryConfig| Client::new(config).unwrap();
    let said = |status, body: String| {
        registry.say("/schemas/types", status, body);
        client(&registry.config()).probe().expect_err("no registry").to_string()
    };
    assert!(said(200, "<html>".into()).contains("not as a schema registry"));
    assert!(said(404, "<html>".into()).contains("correct the path of `url`"));
    assert!(said(401, "{}".into()).contains("`password_file`"));
    assert!(said(503, "{}".into()).contains("answers 503"));
    assert!(said(302, String::new()).contains("302"), "nobody is sent elsewhere with a credential");
    assert!(said(200, "[".repeat(2 << 20)).contains("cannot be read"));
    registry.say("/schemas/types", 200, r#"["AVRO","JSON"]"#);
    assert_eq!(client(&registry.config()).probe().unwrap(), ["AVRO", "JSON"]);
    // One of two addresses is enough.
    let url = format!("http://127.0.0.1:1,{}", registry.config().url);
    assert!(client(&RegistryConfig { url, ..registry.config() }).probe().is_ok());
}

#[test]
fn credentials_are_read_each_time_and_shown_to_the_registry_alone() {
    let (registry, folder) = (filled(), tempfile::tempdir().unwrap());
    registry.say("/schemas/types", 200, "[]");
    let file = folder.path().join("secret");
    let basic = RegistryConfig { user: "qualm".into(), password_file: Some(file.clone()), ..registry.config() };
    let client = Client::new(&basic).unwrap();
    let missing = client.probe().expect_err("no such file").to_string();
    assert!(missing.contains("secret") && missing.contains("`password_file`"), "{missing}");
    for password in ["hunter2\n", "hunter3"] {
        fs::write(&file, password).unwrap();
        client.probe().unwrap();
    }
    let bearer = RegistryConfig { token_file: Some(file), ..registry.config() };
    Client::new(&bearer).unwrap().probe().unwrap();
    let shown: Vec<String> = registry.asked().into_iter().map(|(_, shown)| shown).collect();
    assert_eq!(shown, ["Basic cXVhbG06aHVudGVyMg==", "Basic cXVhbG06aHVudGVyMw==", "Bearer hunter3"]);
    assert!(!format!("{client:?}").contains("hunter"));
    let with_secret = RegistryConfig { url: "http://qualm:hunter2@registry".into(), ..RegistryConfig::default() };
    assert!(!Client::new(&with_secret).expect_err("refused").to_string().contains("hunter2"));
}

#[test]
fn a_registry_behind_tls_is_believed_by_the_roots_that_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let tls = Arc::new(tls);
    let registry = RecordingRegistry::start_with("https", move |stream| {
        let session = rustls::ServerConnection::new(Arc::clone(&tls)).map_err(std::io::Error::other)?;
        Ok(rustls::StreamOwned::new(session, stream))
    });
    registry.say("/schemas/types", 200, r#"["AVRO"]"#);
    let roots = folder.path().join("ca.pem");
    let config = RegistryConfig { ca_file: Some(roots.clone()), ..registry.config() };
    let error = Client::new(&config).expect_err("no such file").to_string();
    assert!(error.contains("ca.pem") && error.contains("ca_file"), "{error}");
    fs::write(&roots, own.cert.pem()).unwrap();
    assert_eq!(Client::new(&config).unwrap().probe().unwrap(), ["AVRO"]);
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(&roots, other.cert.pem()).unwrap();
    Client::new(&config).unwrap().probe().expect_err("a stranger's certificate");
}

#[test]
fn a_record_that_is_cut_off_is_counted_whatever_it_is_and_wherever() {
    let registry = filled();
    let (mut rows, mut parser) = (rows(&registry.config()), Parser::for_format(Format::Auto, None).unwrap());
    let mut builder = EventBuilder::new();
    for record in records("/orders").into_iter().take(3) {
        for end in 0..record.len() {
            let cut = &record[..end];
            rows.wait_for(cut, PATIENCE);
            let outcome = match rows.read(cut, Instant::now()) {
                Reading::Bare => parser.parse(cut, Position::default(), &mut builder),
                Reading::Row(row) => parser.parse(row, Position::default(), &mut builder),
                Reading::Refused(why) => Err(why.into()),
                Reading::Waiting => panic!("all schemas are known"),
            };
            // Protobuf that ends behind a field is a shorter record; without its time it is none of Envoy's.
            let is_short = outcome.is_ok() && record[4] == 2;
            // A head that is cut off is no head, and one with nothing behind it no line of anybody.
            let is_refused = matches!(outcome, Err(Rejection::Invalid(_))) || (end <= 5 && outcome.is_err());
            assert!(is_short || is_refused, "{cut:?}: {outcome:?}");
        }
    }
}

#[test]
fn without_a_registry_json_is_read_and_the_rest_says_what_is_missing() {
    let mut rows = rows(&RegistryConfig::default());
    let [avro, proto, json, bare] = records("/orders");
    assert_eq!(rows.read(&json, Instant::now()), Reading::Row(&json[5..]));
    assert_eq!(rows.read(&bare, Instant::now()), Reading::Bare);
    for record in [avro, proto] {
        assert_eq!(rows.read(&record, Instant::now()), Reading::Refused(Invalid::NoRegistry));
    }
    let long = framed(1, &[b'{'; BYTES]);
    assert_eq!(rows.read(&long, Instant::now()), Reading::Refused(Invalid::TooLong));
}
