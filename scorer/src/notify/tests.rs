use std::{fs, time::Duration};

use qualm_model::{
    detector::Question,
    level::Level,
    time::{Span, Timestamp},
};
use rdkafka::{
    ClientConfig, Message,
    consumer::{Consumer, StreamConsumer},
    mocking::MockCluster,
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::journal::{Journal, JournalLimits, Kind, Opened, Seq, read_from};

const MINUTE: i64 = Span::MINUTE.0;
/// 2026-11-22T13:32:00Z
const DECIDED: i64 = 1_795_354_320 * Span::SECOND.0;

/// A finding as the scorer would tell it.
pub(super) fn finding() -> Finding {
    Finding {
        uid: "5f2c9b0de1a74f6c".to_owned(),
        activity: Activity::Create,
        identity: Identity::of("spiffe://mesh.test/ns/shop/sa/cart", None),
        instances: Vec::new(),
        level: Level::Quarantined,
        previous: Level::Trusted,
        evidence_bits: 41.5,
        threshold_bits: 31.25,
        rate_per_day: 0.025,
        reasons: vec![
            Reason {
                detector: "new-peer".to_owned(),
                bits: 17.5,
                observed: "called payments for the first time in 9 days".to_owned(),
                expected: String::new(),
                n: 12_960.0,
                range: String::new(),
                familiar: None,
                destination: Some("spiffe://mesh.test/ns/bank/sa/payments".to_owned()),
                operation: None,
            },
            Reason {
                detector: "rate-1m".to_owned(),
                bits: 24.0,
                observed: "made 41 calls in a minute".to_owned(),
                expected: "3".to_owned(),
                n: 12_960.0,
                range: String::new(),
                familiar: None,
                destination: None,
                operation: None,
            },
        ],
        first_seen: Timestamp(DECIDED - MINUTE),
        last_seen: Timestamp(DECIDED - 1_500_000),
        decided: Timestamp(DECIDED),
        lease_until: Some(Timestamp(DECIDED + 60 * MINUTE)),
        effect: Effect::Enforced,
        decision: "d41c07".to_owned(),
        co_owners: Vec::new(),
        carried_by: Vec::new(),
        members: Vec::new(),
        shared: None,
        next: vec![
            "run `qualm explain spiffe://mesh.test/ns/shop/sa/cart`".to_owned(),
            "restore it if this change is yours".to_owned(),
        ],
    }
}

fn record(finding: &Finding) -> Value {
    serde_json::to_value(DetectionFinding::from(finding)).unwrap()
}

/// The finding's life: quarantined, one instance after another level, over.
fn states() -> [(&'static str, Finding); 3] {
    let update = Finding {
        activity: Activity::Update,
        instances: vec!["10.244.1.12".to_owned()],
        level: Level::Throttled,
        previous: Level::Quarantined,
        effect: Effect::Shadow,
        next: Vec::new(),
        ..finding()
    };
    let close =
        Finding { activity: Activity::Close, level: Level::Trusted, lease_until: None, next: Vec::new(), ..finding() };
    [("create", finding()), ("update", update), ("close", close)]
}

#[test]
fn the_sentence_says_who_did_what_how_unusual_what_was_done_and_what_next() {
    assert_eq!(
        message(&finding()),
        "cart (namespace shop) called payments for the first time in 9 days and made 41 calls in a minute (usual: 3); \
         evidence like this comes by chance about once in 40 days; enforcement points are told to deny its \
         new calls until 14:32 UTC; run `qualm explain spiffe://mesh.test/ns/shop/sa/cart`, or restore it if this change \
         is yours."
    );
    let [_, (_, update), (_, close)] = states();
    assert_eq!(
        message(&update),
        "instance 10.244.1.12 of cart (namespace shop) called payments for the first time in 9 days and made 41 calls \
         in a minute (usual: 3); evidence like this comes by chance about once in 40 days; nothing is cut, because in \
         shadow mode it is only noted as throttled until 14:32 UTC; run `qualm explain \
         spiffe://mesh.test/ns/shop/sa/cart` to see the evidence."
    );
    assert_eq!(
        message(&close),
        "cart (namespace shop) no longer stands out, after it called payments for the first time in 9 days and made \
         41 calls in a minute (usual: 3); evidence like this comes by chance about once in 40 days; it is trusted \
         again."
    );
}

#[test]
fn rates_are_put_into_words_a_person_uses() {
    let words = |rate_per_day| {
        let text = message(&Finding { rate_per_day, ..finding() });
        text.split("; ").nth(1).unwrap().trim_start_matches("evidence like this ").to_owned()
    };
    assert_eq!(words(12.3), "comes by chance about 12 times a day");
    assert_eq!(words(1.0), "comes by chance about once a day");
    assert_eq!(words(1.0 / 200.0), "comes by chance about once in 7 months");
    assert_eq!(words(1.0 / 3653.0), "comes by chance about once in 10 years");
    assert_eq!(words(1e-12), "comes by chance less than once in 1000 years");
    for none in [0.0, -1.0, f64::NAN] {
        assert_eq!(words(none), "has not come by chance so far");
    }
}

#[test]
fn a_lease_that_ends_on_another_day_is_told_with_its_date() {
    let lease_until = Some(Timestamp(DECIDED + 24 * 60 * MINUTE));
    assert!(message(&Finding { lease_until, ..finding() }).contains("until 2026-11-23 13:32 UTC"));
}

#[test]
fn a_name_out_of_a_forged_log_line_can_neither_move_the_cursor_nor_run_a_command() {
    let identity = Identity::of("cart'; rm -rf /\u{1b}[2J\n", None);
    let text = message(&Finding { identity, next: Vec::new(), ..finding() });
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.contains(r"qualm explain 'cart'\''; rm -rf /"), "{text}");
}

#[test]
fn every_field_that_the_class_requires_is_there() {
    for (_, finding) in states() {
        let record = record(&finding);
        for field in
            ["activity_id", "category_uid", "class_uid", "finding_info", "metadata", "severity_id", "time", "type_uid"]
        {
            assert!(!record[field].is_null(), "{field} in {record}");
        }
        assert_eq!(record["category_uid"], 2);
        assert_eq!(record["class_uid"], 2004);
        assert_eq!(record["type_uid"], 200_400 + record["activity_id"].as_i64().unwrap());
        assert_eq!(record["metadata"]["version"], "1.8.0");
        assert_eq!(record["metadata"]["product"]["name"], "Qualm");
        assert_eq!(record["finding_info"]["uid"], finding.uid);
        for analysis in record["anomaly_analyses"].as_array().unwrap() {
            assert!(analysis["analysis_targets"][0]["name"].is_string());
            assert!(analysis["anomalies"][0]["observation_parameter"].is_string());
            assert!(analysis["anomalies"][0]["observations"][0]["value"].is_string());
        }
        for evidence in record["evidences"].as_array().unwrap() {
            assert!(evidence["src_endpoint"]["uid"].is_string());
        }
        for field in ["evidences", "is_alert", "resources", "status_id", "message"] {
            assert!(!record[field].is_null(), "{field}, which is recommended");
        }
    }
}

#[test]
fn a_finding_without_reasons_is_still_a_valid_record() {
    let record = record(&Finding { reasons: Vec::new(), ..finding() });
    assert!(record["anomaly_analyses"][0]["anomalies"][0]["observations"][0]["value"].is_string());
    assert_eq!(record["evidences"][0]["src_endpoint"]["svc_name"], "cart");
    assert!(record["message"].as_str().unwrap().starts_with("cart (namespace shop) behaves unlike its past; "));
}

#[test]
fn the_records_are_as_the_golden_file_holds_them() {
    let records: Vec<_> = states().iter().map(|(_, finding)| DetectionFinding::from(finding)).collect();
    let written = serde_json::to_string_pretty(&records).unwrap() + "\n";
    let golden = include_str!("../../tests/golden/alerts.json").replace("$VERSION", env!("CARGO_PKG_VERSION"));
    assert_eq!(written, golden, "if the change is meant, write this to tests/golden/alerts.json");
}

#[test]
fn severity_action_and_disposition_follow_level_and_effect() {
    let of = |level, effect| {
        let record = record(&Finding { level, effect, ..finding() });
        ["severity_id", "action_id", "disposition_id"].map(|field| record[field].as_i64().unwrap())
    };
    assert_eq!(of(Level::Watched, Effect::Enforced), [2, 1, 15]);
    assert_eq!(of(Level::Throttled, Effect::Enforced), [3, 1, 14]);
    assert_eq!(of(Level::Restricted, Effect::Enforced), [4, 2, 2]);
    assert_eq!(of(Level::Quarantined, Effect::Enforced), [5, 2, 2]);
    assert_eq!(of(Level::Quarantined, Effect::Shadow), [5, 1, 15]);
    assert_eq!(of(Level::Quarantined, Effect::Historic), [5, 1, 15]);
    assert_eq!(record(&Finding { effect: Effect::Historic, ..finding() })["is_alert"], false);
}

#[test]
fn every_question_points_at_a_technique() {
    for question in Question::ALL {
        let technique = Technique::of(question.name()).unwrap_or_else(|| panic!("{question:?}"));
        assert!(technique.uid.starts_with('T') && technique.tactic.0.starts_with("TA"));
    }
    assert_eq!(Technique::of("no-such-question"), None);
}

#[test]
fn a_flood_of_reasons_and_long_names_makes_no_huge_record() {
    let mut flood = finding();
    flood.reasons = vec![Reason { observed: "x".repeat(10_000), ..flood.reasons[0].clone() }; 1_000];
    flood.instances = vec!["i".repeat(10_000); 1_000];
    let json = serde_json::to_string(&DetectionFinding::from(&flood)).unwrap();
    assert!(json.len() < 40_000, "{} bytes", json.len());
    assert!(json.contains("\"reasons_count\":1000"));
}

#[test]
fn an_unknown_key_of_the_section_is_refused() {
    let error = serde_json::from_str::<AlertsConfig>(r#"{"stdot": true}"#).unwrap_err().to_string();
    assert!(error.contains("stdot"), "{error}");
    let config: AlertsConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(config, AlertsConfig::default());
    assert!(config.sinks().is_empty());
}

#[test]
fn a_section_that_cannot_work_is_refused_naming_the_key() {
    let kafka = |brokers: &str, topic: &str| {
        let kafka = KafkaAlerts { brokers: brokers.to_owned(), topic: topic.to_owned(), settings: BTreeMap::new() };
        AlertsConfig { kafka: Some(kafka), ..AlertsConfig::default() }.validate()
    };
    assert!(kafka("", "alerts").unwrap_err().to_string().contains("kafka.brokers"));
    assert!(kafka("127.0.0.1:9092", "").unwrap_err().to_string().contains("kafka.topic"));
    let none = AlertsConfig { queue: 0, ..AlertsConfig::default() };
    assert!(none.validate().unwrap_err().to_string().contains("queue"));
}

#[test]
fn a_password_among_the_settings_is_not_printed() {
    let settings = BTreeMap::from([("sasl.password".to_owned(), "hunter2".to_owned())]);
    let kafka = KafkaAlerts { brokers: String::new(), topic: String::new(), settings };
    assert!(!format!("{kafka:?}").contains("hunter2"));
}

/// A sink that fails as told, then takes everything.
struct Flaky {
    answers: Vec<Result<(), SinkError>>,
    taken: mpsc::UnboundedSender<String>,
}

impl Sink for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }

    async fn deliver(&mut self, alert: &Alert) -> Result<(), SinkError> {
        self.answers.pop().unwrap_or(Ok(()))?;
        self.taken.send(alert.uid.clone()).map_err(|error| SinkError::Refused(error.to_string()))
    }
}

fn with_uid(uid: &str) -> Finding {
    Finding { uid: uid.to_owned(), ..finding() }
}

#[tokio::test]
async fn an_alert_that_is_not_taken_is_sent_again_and_reported_once() {
    let (deliveries, mut delivered) = mpsc::channel(8);
    let (taken, mut arrived) = mpsc::unbounded_channel();
    let mut notifier = Notifier::new(8, deliveries);
    let down = || Err(SinkError::Unavailable("down".to_owned()));
    notifier.add(Flaky { answers: vec![Ok(()), down(), down(), down()], taken });
    notifier.notify(Seq(1), &with_uid("a"));
    notifier.notify(Seq(2), &with_uid("b"));
    assert!(notifier.flush(Duration::from_secs(60)).await);
    assert_eq!((arrived.recv().await.unwrap(), arrived.recv().await.unwrap()), ("a".to_owned(), "b".to_owned()));
    let first = delivered.recv().await.unwrap();
    assert_eq!((first.uid.as_str(), first.seq, first.sink.as_str()), ("a", Seq(1), "flaky"));
    assert_eq!(delivered.recv().await.unwrap().uid, "b");
}

#[tokio::test]
async fn an_alert_that_is_refused_is_counted_and_does_not_hold_up_the_next() {
    let (deliveries, mut delivered) = mpsc::channel(8);
    let (taken, _arrived) = mpsc::unbounded_channel();
    let mut notifier = Notifier::new(8, deliveries);
    notifier.add(Flaky { answers: vec![Err(SinkError::Refused("too large".to_owned()))], taken });
    let registry = prometheus::Registry::new();
    notifier.register(&registry).unwrap();
    notifier.notify(Seq(1), &with_uid("a"));
    notifier.notify(Seq(2), &with_uid("b"));
    assert_eq!(delivered.recv().await.unwrap().uid, "b");
    let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(page.contains(r#"qualm_alerts_dropped_total{reason="refused",sink="flaky"} 1"#), "{page}");
}

#[tokio::test]
async fn a_sink_that_is_down_holds_up_neither_the_caller_nor_other_sinks() {
    let (deliveries, mut delivered) = mpsc::channel(64);
    let (taken, _arrived) = mpsc::unbounded_channel();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts.jsonl");
    let mut notifier = Notifier::new(2, deliveries);
    let down = (0..1000).map(|_| Err(SinkError::Unavailable("down".to_owned()))).collect();
    notifier.add(Flaky { answers: down, taken });
    notifier.add(FileSink::new(&path));
    for seq in 1..=20 {
        notifier.notify(Seq(seq), &with_uid(&format!("uid-{seq}")));
        assert_eq!(delivered.recv().await.unwrap().sink, "file");
    }
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 20);
    assert!(!notifier.flush(Duration::from_secs(1)).await);
}

#[tokio::test]
async fn a_file_may_be_rotated_and_a_torn_line_spoils_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts.jsonl");
    let mut sink = FileSink::new(&path);
    let alert = Alert { uid: "a".to_owned(), json: r#"{"a":1}"#.to_owned() };
    sink.deliver(&alert).await.unwrap();
    fs::rename(&path, directory.path().join("alerts.1")).unwrap();
    fs::write(&path, r#"{"torn"#).unwrap();
    sink.deliver(&alert).await.unwrap();
    sink.deliver(&alert).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"torn\n{\"a\":1}\n{\"a\":1}\n");
    let nowhere = FileSink::new(&directory.path().join("no/such/place")).deliver(&alert).await.unwrap_err();
    assert!(matches!(&nowhere, SinkError::Unavailable(why) if why.contains("no/such/place")), "{nowhere}");
}

#[tokio::test]
async fn alerts_arrive_on_a_kafka_topic_under_their_id() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("alerts", 3, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let kafka = KafkaAlerts { brokers: brokers.clone(), topic: "alerts".to_owned(), settings: BTreeMap::new() };
    let config = AlertsConfig { kafka: Some(kafka), ..AlertsConfig::default() };
    let (deliveries, mut delivered) = mpsc::channel(8);
    let notifier = Notifier::start(&config, deliveries).unwrap();
    let states = states();
    for (seq, (_, finding)) in (1..).zip(&states) {
        notifier.notify(Seq(seq), finding);
    }
    for (_, finding) in &states {
        assert_eq!(delivered.recv().await.unwrap().activity, finding.activity);
    }
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("group.id", "test").set("auto.offset.reset", "earliest");
    let consumer: StreamConsumer = client.create().unwrap();
    consumer.subscribe(&["alerts"]).unwrap();
    for (_, finding) in &states {
        let message = consumer.recv().await.unwrap();
        assert_eq!(message.key(), Some(finding.uid.as_bytes()));
        let record: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        assert_eq!(record, self::record(finding));
    }
}

#[test]
fn after_a_restart_what_not_every_sink_has_is_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let Opened { journal, .. } = Journal::open(directory.path(), &JournalLimits::default()).unwrap();
    let append = |record: &AlertRecord| journal.append(Kind::Alert, Timestamp(0), Timestamp(0), record).unwrap();
    let due = |uid: &str, activity| append(&AlertRecord::Due(Box::new(Finding { activity, ..with_uid(uid) })));
    let delivered = |uid: &str, seq, sink: &str| {
        let delivery = Delivery { uid: uid.to_owned(), activity: Activity::Create, seq, sink: sink.to_owned() };
        append(&AlertRecord::Delivered(delivery));
    };
    let everywhere = due("everywhere", Activity::Create);
    let only_file = due("only-file", Activity::Create);
    let outdated = due("outdated", Activity::Create);
    due("nowhere", Activity::Create);
    due("nowhere", Activity::Update);
    delivered("everywhere", everywhere, "file");
    delivered("everywhere", everywhere, "kafka");
    delivered("only-file", only_file, "file");
    due("outdated", Activity::Update);
    delivered("outdated", outdated, "file");
    delivered("outdated", outdated, "kafka");
    drop(journal);

    let mut outstanding = Outstanding::default();
    for record in read_from(directory.path(), Seq(1)).unwrap() {
        outstanding.replay(&record.unwrap(), &["file", "kafka"]).unwrap();
    }
    let owed: Vec<_> =
        outstanding.undelivered().into_iter().map(|(_, finding)| (finding.uid, finding.activity)).collect();
    let expected = [
        ("only-file".to_owned(), Activity::Create),
        // Nobody has heard of it: for the reader it begins.
        ("nowhere".to_owned(), Activity::Create),
        ("outdated".to_owned(), Activity::Create),
    ];
    assert_eq!(owed, expected);
}
