//! The ready mappings for gateways' logs, on records as the gateways write them.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use qualm_ingest::{
    config::read_mapping,
    parse::{Format, Parser},
    source::Rejection,
};
use qualm_model::{
    event::{EventBatch, EventBuilder, Outcome, Position},
    identity::Provenance,
};

fn parser(mapping: &str) -> Parser {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("datasets/mappings").join(mapping);
    Parser::for_format(Format::Mapped, Some(read_mapping(&path).unwrap())).unwrap()
}

fn parse(parser: &mut Parser, record: &str) -> Result<EventBatch, Rejection> {
    assert!(parser.is_record(record.as_bytes()).unwrap());
    let mut builder = EventBuilder::new();
    parser.parse(record.as_bytes(), Position::default(), &mut builder)?;
    Ok(builder.finish())
}

/// What must be the same of all of them: who, what, how it ended, and no query.
fn assert_reads(batch: &EventBatch, source: &str, destination: &str, operation: &str, outcome: Outcome) {
    let event = batch.event(0);
    assert_eq!((event.source().principal(), event.destination().principal()), (source, destination));
    assert_eq!((event.operation(), event.outcome()), (operation, outcome));
    assert_eq!((event.source().ip(), event.source().provenance()), (source, Provenance::Declared));
    let shown = format!("{:?}", batch.as_record_batch());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn nginx_lines_in_the_combined_format_are_requests() {
    let mut nginx = parser("nginx-combined.toml");
    let line = r#"192.0.2.7 - - [22/Nov/2026:02:02:24 +0000] "GET /v1/orders/42?token=hunter2 HTTP/1.1" 200 612 "https://shop.test/?q=hunter2" "curl/8.4.0 (x)""#;
    let batch = parse(&mut nginx, line).unwrap();
    assert_reads(&batch, "192.0.2.7", "nginx", "GET /v1/orders/{id}", Outcome::Success);
    assert_eq!((batch.event(0).start().0, batch.event(0).bytes_out()), (1_795_312_944_000_000_000, Some(612)));
    let refused = line.replace(" 200 ", " 403 ").replace("- - [", "- alice [");
    assert_reads(&parse(&mut nginx, &refused).unwrap(), "192.0.2.7", "nginx", "GET /v1/orders/{id}", Outcome::Refused);
    // A request that was no HTTP, as NGINX escapes it.
    let garbage = r#"192.0.2.7 - - [22/Nov/2026:02:02:25 +0000] "\x16\x03\x01\x02" 400 157 "-" "-""#;
    assert_eq!(parse(&mut nginx, garbage).unwrap().event(0).outcome(), Outcome::Failure);
    for end in 0..line.len() {
        // Two cut alike in a row would be a format of fewer columns.
        parse(&mut nginx, line).unwrap();
        assert!(is_whole_or_refused(&mut nginx, &line[..end]), "cut at {end}");
    }
}

/// Whether what is left of a line is no event, or one that lacks nothing that is read.
fn is_whole_or_refused(parser: &mut Parser, record: &str) -> bool {
    let mut builder = EventBuilder::new();
    match parser.parse(record.as_bytes(), Position::default(), &mut builder) {
        Ok(()) => builder.finish().event(0).bytes_out() == Some(612),
        Err(_) => true,
    }
}

#[test]
fn nginx_lines_in_the_json_format_name_the_upstream_and_the_certificate() {
    let mut nginx = parser("nginx-json.toml");
    let line = r#"{"time":"2026-11-22T02:02:24+00:00","msec":"1795312944.122","remote_addr":"192.0.2.7","host":"shop.test","server_name":"shop.test","request":"GET /v1/orders/42?token=hunter2 HTTP/2.0","status":"200","request_length":"312","bytes_sent":"840","request_time":"0.004","upstream_addr":"10.0.0.9:8080","proxy_host":"orders.shop:8080","ssl_client_serial":"0A1B","request_id":"c1842"}"#;
    let batch = parse(&mut nginx, line).unwrap();
    assert_reads(&batch, "192.0.2.7", "orders.shop:8080", "GET /v1/orders/{id}", Outcome::Success);
    let event = batch.event(0);
    assert_eq!((event.report().0, event.credential(), event.record_id()), (1_795_312_944_122_000_000, "0A1B", "c1842"));
    assert_eq!((event.bytes_in(), event.bytes_out()), (Some(312), Some(840)));
}

#[test]
fn kong_lines_name_service_and_credential() {
    let line = r#"{"response":{"size":9982,"headers":{"server":"gunicorn/19.9.0"},"status":401},"route":{"name":"example-route","protocols":["http","https"]},"workspace":"f4a8","latencies":{"kong":1,"proxy":171,"request":173,"receive":1},"client_ip":"192.0.2.7","service":{"name":"example-service","host":"httpbin.konghq.com","port":80,"id":"fb4eecf8"},"tries":[{"ip":"10.0.0.9","port":80}],"authenticated_entity":{"id":"0b1c"},"request":{"id":"2f6946328ffc4946b8c9120704a4a155","method":"GET","uri":"/v1/orders/42?token=hunter2","url":"http://localhost:8000/v1/orders/42","size":79,"headers":{"apikey":"hunter2"},"querystring":{"token":"hunter2"}},"started_at":1726782639000}"#;
    let batch = parse(&mut parser("kong.toml"), line).unwrap();
    assert_reads(&batch, "192.0.2.7", "example-service", "GET /v1/orders/{id}", Outcome::Refused);
    let event = batch.event(0);
    assert_eq!((event.credential(), event.record_id()), ("0b1c", "2f6946328ffc4946b8c9120704a4a155"));
    assert_eq!((event.duration_ns(), event.start().0), (Some(173_000_000), 1_726_782_639_000_000_000));
}

#[test]
fn alb_lines_are_requests_of_a_client_whatever_its_port() {
    let mut alb = parser("aws-alb.toml");
    let group = "arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067";
    let line = format!(
        r#"https 2018-07-02T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 34 366 "GET https://www.example.com:443/v1/orders/42?token=hunter2 HTTP/1.1" "curl/7.46.0" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 {group} "Root=1-58337281-1d84f3d73c47ec4e58577259" "www.example.com" "arn:aws:acm:us-east-2:123456789012:certificate/1" 1 2018-07-02T22:22:48.364000Z "forward" "-" "-" "10.0.0.1:80" "200" "-" "-""#
    );
    let batch = parse(&mut alb, &line).unwrap();
    assert_reads(&batch, "192.168.131.39", group, "GET /v1/orders/{id}", Outcome::Success);
    let event = batch.event(0);
    assert_eq!((event.destination().ip(), event.destination().port()), ("10.0.0.1", 80));
    // The client chose it.
    assert_eq!(event.record_id(), "");
    let unreached = line.replace("10.0.0.1:80 0.086 0.048 0.037 200 200", "- -1 -1 -1 503 -").replace(":2817", ":2818");
    let batch = parse(&mut alb, &unreached).unwrap();
    assert_reads(&batch, "192.168.131.39", group, "GET /v1/orders/{id}", Outcome::Failure);
}
