//! What every format must hold: the same questions to each of them.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use qualm_ingest::{
    parse::{DEFAULT_MAX_RECORD_BYTES, Format, Parser},
    source::{Invalid, Rejection},
};
use qualm_model::{
    event::{Event, EventBuilder, Position},
    time::{Span, Timestamp},
};

const ISTIO_JSON: &str = r#"{"authority":"orders.shop","bytes_received":0,"bytes_sent":3,"connection_termination_details":null,"downstream_local_address":"127.0.0.1:10060","downstream_remote_address":"127.0.0.1:32830","duration":2,"method":"GET","path":"/v1/orders/42?x=1","protocol":"HTTP/1.1","request_id":"80f862cd-fe22-4f4a-8c46-331ccb7de88e","requested_server_name":"orders.shop.svc","response_code":200,"response_code_details":"via_upstream","response_flags":"-","route_name":"default","start_time":"2026-11-22T02:02:24.122Z","upstream_cluster":"up","upstream_host":"127.0.0.1:18100","upstream_local_address":"127.0.0.1:36612","upstream_service_time":"0","upstream_transport_failure_reason":null,"user_agent":"python-requests/2.31","x_forwarded_for":"192.0.2.2"}"#;
const ISTIO_TEXT: &str = r#"[2026-11-22T02:02:24.130Z] "GET /v1/orders/42 HTTP/1.1" 403 - rbac_access_denied_matched_policy[qualm-deny] - "-" 0 19 0 - "192.0.2.2" "python-requests/2.31" "4d7ac48e-cb0f-428e-9eb9-78bd6fdb37e9" "orders.shop" "-" up - 127.0.0.1:10060 127.0.0.1:32846 orders.shop.svc default"#;
const VAULT: &str = r#"{"auth":{"accessor":"hmac-sha256:d732902d","client_token":"hmac-sha256:f1c5a59a","display_name":"approle","entity_id":"fd570d07-439e-c702-5cc3-a7a9b0247580","metadata":{"role_name":"cart"},"policies":["app","default"],"token_issue_time":"2026-11-22T15:22:47Z","token_ttl":1200,"token_type":"service"},"request":{"id":"ea1ce0e9-499e-4f61-fef8-05c410e05793","mount_point":"secret/","mount_type":"kv","namespace":{"id":"root"},"operation":"read","path":"secret/data/cart","remote_address":"127.0.0.1","remote_port":44748},"response":{"data":{"data":{"k":"hmac-sha256:22f80a4e"}}},"time":"2026-11-22T15:22:47.271102895Z","type":"response"}"#;
const CSV: &str = r#"2026-11-22 02:02:24,cart,"orders, the big one",GET /v1/orders/42?x=1,200,label"#;
const CSV_MAPPING: &str = r#"
    format = "csv"
    time = { column = 0, format = "%Y-%m-%d %H:%M:%S" }
    fields = { source = "{1}", destination = "{2}", operation = "{3}", status = "{4}" }
"#;
const JSONL: &str =
    r#"{"ts":1795312944.5,"who":{"name":"cart"},"to":"orders","what":"GET /v1/orders/42?x=1","code":"200"}"#;
const JSONL_MAPPING: &str = r#"
    format = "jsonl"
    time = { column = "ts", format = "epoch_s" }
    fields = { source = "{who.name}", destination = "{to}", operation = "{what}", status = "{code}" }
"#;

/// A format, a record of it, and what that record says.
struct Case {
    name: &'static str,
    format: Format,
    mapping: Option<&'static str>,
    record: &'static str,
    source: &'static str,
    destination: &'static str,
    operation: &'static str,
    status: Option<u16>,
    start: i64,
}

const ISTIO_CASE: Case = Case {
    name: "istio_json",
    format: Format::IstioJson,
    mapping: None,
    record: ISTIO_JSON,
    source: "127.0.0.1",
    destination: "orders.shop",
    operation: "GET /v1/orders/{id}",
    status: Some(200),
    start: 1_795_312_944_122_000_000,
};

const CASES: [Case; 5] = [
    ISTIO_CASE,
    Case {
        name: "istio_text",
        format: Format::IstioText,
        record: ISTIO_TEXT,
        status: Some(403),
        start: 1_795_312_944_130_000_000,
        ..ISTIO_CASE
    },
    Case {
        name: "vault_audit",
        format: Format::VaultAudit,
        mapping: None,
        record: VAULT,
        source: "fd570d07-439e-c702-5cc3-a7a9b0247580",
        destination: "vault",
        operation: "read secret/data/cart",
        status: None,
        start: 1_795_360_967_271_102_895,
    },
    Case {
        name: "mapped csv",
        format: Format::Mapped,
        mapping: Some(CSV_MAPPING),
        record: CSV,
        source: "cart",
        destination: "orders, the big one",
        start: 1_795_312_944_000_000_000,
        ..ISTIO_CASE
    },
    Case {
        name: "mapped jsonl",
        format: Format::Mapped,
        mapping: Some(JSONL_MAPPING),
        record: JSONL,
        source: "cart",
        destination: "orders",
        start: 1_795_312_944_500_000_000,
        ..ISTIO_CASE
    },
];

impl Case {
    fn parser(&self) -> Parser {
        Parser::for_format(self.format, self.mapping.map(|mapping| mapping.parse().unwrap())).unwrap()
    }
}

/// The event of a record as text, position left out.
fn outcome_of(parser: &mut Parser, record: &[u8]) -> Result<String, Rejection> {
    let mut builder = EventBuilder::new();
    parser.parse(record, Position { source: 2, partition: 5, offset: 9 }, &mut builder)?;
    assert_eq!(builder.len(), 1, "one record is one event");
    let batch = builder.finish();
    assert_eq!(batch.event(0).position(), Position { source: 2, partition: 5, offset: 9 });
    Ok(shown(batch.event(0)))
}

fn shown(event: Event<'_>) -> String {
    let (source, destination) = (event.source(), event.destination());
    format!(
        "{} {} {:?} {:?} {} {} {} {:?} {:?} {:?} {:?} {:?} {}",
        event.start().0,
        event.report().0,
        event.kind(),
        event.outcome(),
        source.principal(),
        destination.principal(),
        event.operation(),
        event.status(),
        event.bytes_in(),
        event.bytes_out(),
        (source.ip(), destination.ip(), destination.port()),
        (event.credential(), event.decision_id()),
        event.denial_reason(),
    )
}

#[test]
fn every_format_reads_its_golden_record() {
    assert!(Format::ALL.iter().all(|format| CASES.iter().any(|case| case.format == *format)));
    for case in &CASES {
        let mut builder = EventBuilder::new();
        case.parser().parse(case.record.as_bytes(), Position::default(), &mut builder).unwrap();
        let batch = builder.finish();
        let event = batch.event(0);
        assert_eq!(event.source().principal(), case.source, "{}", case.name);
        assert_eq!(event.destination().principal(), case.destination, "{}", case.name);
        assert_eq!(event.operation(), case.operation, "{}", case.name);
        assert_eq!((event.status(), event.start().0), (case.status, case.start), "{}", case.name);
        assert!(event.report() >= event.start(), "{}", case.name);
    }
}

#[test]
fn a_record_says_the_same_whatever_the_parser_read_before() {
    for case in &CASES {
        let mut used = case.parser();
        let first = outcome_of(&mut used, case.record.as_bytes());
        for other in &CASES {
            let _ = outcome_of(&mut used, other.record.as_bytes());
            for end in (0..other.record.len()).step_by(7) {
                let _ = outcome_of(&mut used, &other.record.as_bytes()[..end]);
            }
        }
        assert_eq!(outcome_of(&mut used, case.record.as_bytes()), first, "{}", case.name);
    }
}

#[test]
fn a_truncated_record_never_becomes_another_event() {
    for case in &CASES {
        let whole = outcome_of(&mut case.parser(), case.record.as_bytes()).unwrap();
        for end in 0..case.record.len() {
            // What was cut off may be a field that is not read; a parser that has seen whole records knows more.
            let mut parser = case.parser();
            outcome_of(&mut parser, case.record.as_bytes()).unwrap();
            match outcome_of(&mut parser, &case.record.as_bytes()[..end]) {
                Ok(event) => assert_eq!(event, whole, "{} cut at {end}", case.name),
                Err(why) => {
                    assert!(matches!(why, Rejection::Invalid(_) | Rejection::Foreign), "{}: {why:?}", case.name);
                }
            }
        }
    }
}

#[test]
fn what_is_not_utf8_is_refused_for_its_encoding() {
    for case in &CASES {
        let mut record = case.record.as_bytes().to_vec();
        let middle = record.len() / 2;
        record[middle] = 0xff;
        assert_eq!(outcome_of(&mut case.parser(), &record), Err(Invalid::Encoding.into()), "{}", case.name);
    }
}

#[test]
fn gigantic_records_are_refused_for_their_length_alone() {
    for case in &CASES {
        let record = vec![b'{'; DEFAULT_MAX_RECORD_BYTES + 1];
        assert_eq!(outcome_of(&mut case.parser(), &record), Err(Invalid::TooLong.into()), "{}", case.name);
        let mut parser = case.parser().with_max_record_bytes(case.record.len() - 1);
        assert_eq!(outcome_of(&mut parser, case.record.as_bytes()), Err(Invalid::TooLong.into()), "{}", case.name);
    }
}

#[test]
fn deep_nesting_is_refused_where_there_is_nesting() {
    for case in CASES.iter().filter(|case| case.record.starts_with('{')) {
        for bracket in ["[", "{\"a\":"] {
            let record = format!("{{\"deep\":{}{}", bracket.repeat(10_000), &case.record[1..]);
            assert_eq!(outcome_of(&mut case.parser(), record.as_bytes()), Err(Invalid::Syntax.into()), "{}", case.name);
        }
    }
}

#[test]
fn a_record_from_the_future_is_refused_only_where_the_time_is_known() {
    for case in &CASES {
        for (ahead, refused) in [(299, false), (301, true)] {
            let mut parser = case.parser();
            parser.arrive(Timestamp(case.start - ahead * 1_000_000_000));
            let outcome = outcome_of(&mut parser, case.record.as_bytes());
            assert_eq!(outcome == Err(Invalid::FutureTime.into()), refused, "{} {ahead} s ahead", case.name);
        }
        assert!(outcome_of(&mut case.parser(), case.record.as_bytes()).is_ok(), "{}", case.name);
    }
}

#[test]
fn a_record_of_the_far_past_is_refused_only_where_a_bound_is_set() {
    for case in &CASES {
        let arrival = Timestamp(case.start + 401 * 86_400 * 1_000_000_000);
        for (days, refused) in [(None, false), (Some(400), true), (Some(402), false)] {
            let parser = case.parser();
            let mut parser = match days {
                Some(days) => parser.with_max_age(Span(days * Span::DAY.0)),
                None => parser,
            };
            parser.arrive(arrival);
            let outcome = outcome_of(&mut parser, case.record.as_bytes());
            assert_eq!(outcome == Err(Invalid::PastTime.into()), refused, "{} bound by {days:?} days", case.name);
        }
    }
}

#[test]
fn impossible_dates_are_invalid() {
    for case in CASES.iter().filter(|case| case.record.contains("2026-11-22")) {
        let record = case.record.replace("2026-11-22", "2026-11-31");
        let outcome = outcome_of(&mut case.parser(), record.as_bytes());
        assert_eq!(outcome, Err(Invalid::ImpossibleTime.into()), "{}", case.name);
    }
}

#[test]
fn query_strings_are_never_stored() {
    for case in CASES.iter().filter(|case| case.record.contains('?')) {
        let record = case.record.replace("x=1", "token=hunter2");
        let mut builder = EventBuilder::new();
        case.parser().parse(record.as_bytes(), Position::default(), &mut builder).unwrap();
        let batch = format!("{:?}", builder.finish().as_record_batch());
        assert!(!batch.contains("hunter2") && !batch.contains("token="), "{}", case.name);
    }
}

fn nudged() -> impl Strategy<Value = (usize, Vec<u8>)> {
    (
        0..CASES.len(),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 0..6),
    )
        .prop_map(|(case, from, to, bytes)| {
            let record = CASES[case].record.as_bytes();
            let (from, to) = (from.index(record.len()), to.index(record.len()));
            let mut nudged = record[..from.min(to)].to_vec();
            nudged.extend(bytes);
            nudged.extend(&record[(from.min(to) + 3).min(record.len())..]);
            (case, nudged)
        })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for case in &CASES {
            let _ = outcome_of(&mut case.parser(), &bytes);
        }
    }

    #[test]
    fn records_with_a_wound_never_panic((case, record) in nudged()) {
        let mut parser = CASES[case].parser();
        let _ = outcome_of(&mut parser, &record);
        let _ = outcome_of(&mut parser, CASES[case].record.as_bytes()).unwrap();
    }
}
