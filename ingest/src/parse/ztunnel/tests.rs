//! What lines of ztunnel's become.

use qualm_model::event::{EventBatch, EventBuilder, Position};

use super::*;

const INBOUND: &str = r#"2026-10-09T11:55:01.094336Z	info	access	connection complete	src.addr=10.244.0.14:46992 src.workload="curl-7656cf8794-r7zb9" src.namespace="shop" src.identity="spiffe://mesh.test/ns/shop/sa/curl" dst.addr=10.244.0.9:15008 dst.hbone_addr=10.244.0.9:9080 dst.service="orders.shop.svc.cluster.local" dst.workload="orders-v1-87d54dd59-fn6vw" dst.namespace="shop" dst.identity="spiffe://mesh.test/ns/shop/sa/orders" direction="inbound" bytes_sent=175 bytes_recv=80 duration="12ms""#;

fn parse(format: &mut Ztunnel, line: &str) -> Result<EventBatch, Rejection> {
    let mut builder = EventBuilder::new();
    format.parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
    Ok(builder.finish())
}

#[test]
fn the_two_reports_of_a_call_tell_the_same_of_it_and_only_one_is_proof() {
    let inbound = parse(&mut Ztunnel::default(), INBOUND).expect("an event");
    let other = INBOUND
        .replace("\"inbound\"", "\"outbound\"")
        .replace("bytes_sent=175 bytes_recv=80", "bytes_sent=80 bytes_recv=175");
    let outbound = parse(&mut Ztunnel::default(), &other).expect("an event");
    for (batch, reporter, provenance) in
        [(&inbound, Reporter::Ztunnel, Provenance::Certificate), (&outbound, Reporter::Source, Provenance::Name)]
    {
        let event = batch.event(0);
        assert_eq!((event.reporter(), event.source().provenance()), (reporter, provenance));
        assert_eq!(event.source().principal(), "spiffe://mesh.test/ns/shop/sa/curl");
        assert_eq!((event.source().instance(), event.source().ip()), ("curl-7656cf8794-r7zb9", "10.244.0.14"));
        assert_eq!(event.destination().principal(), "spiffe://mesh.test/ns/shop/sa/orders");
        assert_eq!((event.destination().ip(), event.destination().port()), ("10.244.0.9", 9080));
        assert_eq!((event.bytes_in(), event.bytes_out()), (Some(80), Some(175)));
        assert_eq!(event.report() - event.start(), Span(12_000_000));
    }
}

#[test]
fn a_caller_without_a_certificate_is_its_workload_and_a_restart_changes_nothing() {
    for pod in ["curl-7656cf8794-r7zb9", "curl-7656cf8794-8x2kq", "curl-5c9d6b7f4-r7zb9"] {
        let line = INBOUND
            .replace(" src.identity=\"spiffe://mesh.test/ns/shop/sa/curl\"", "")
            .replace("curl-7656cf8794-r7zb9", pod);
        let batch = parse(&mut Ztunnel::default(), &line).expect("an event");
        let source = batch.event(0).source();
        assert_eq!((source.principal(), source.provenance()), ("shop/curl", Provenance::AddressMap));
    }
}

#[test]
fn a_denial_by_a_policy_of_ours_is_our_own_action() {
    for (error, outcome, decision) in [
        ("allow policies exist, but none allowed", Outcome::Refused, ""),
        ("explicitly denied by: istio-system/qualm-deny-3f2a", Outcome::Refused, "qualm-deny-3f2a"),
        ("explicitly denied by: shop/no-curl", Outcome::Refused, ""),
    ] {
        let line = format!("{INBOUND} error=\"connection closed due to policy rejection: {error}\"");
        let batch = parse(&mut Ztunnel::default(), &line.replace("\tinfo\t", "\terror\t")).expect("an event");
        assert_eq!((batch.event(0).outcome(), batch.event(0).decision_id()), (outcome, decision));
    }
    let failed = format!("{INBOUND} error=\"io error: Connection refused (os error 111)\"");
    let batch = parse(&mut Ztunnel::default(), &failed).expect("an event");
    assert_eq!(batch.event(0).outcome(), Outcome::Failure);
}

#[test]
fn an_error_that_was_cut_off_is_no_success() {
    let line = INBOUND.replace("\tinfo\t", "\terror\t");
    assert_eq!(parse(&mut Ztunnel::default(), &line).err(), Some(Invalid::Syntax.into()));
    assert_eq!(parse(&mut Ztunnel::default(), &INBOUND[..INBOUND.len() - 1]).err(), Some(Invalid::Syntax.into()));
}

#[test]
fn a_request_that_was_cut_off_is_known_by_those_before_it() {
    let request = INBOUND
        .replace("\taccess\tconnection", "\thttp access\trequest")
        .replace("bytes_sent=175 bytes_recv=80 duration=\"12ms\"", "method=GET path=\"/a/17?x=1\" response_code=200");
    let with_duration = format!("{request} duration=\"3ms\"");
    let mut format = Ztunnel::default();
    assert_eq!(parse(&mut format, &request).expect("an event").event(0).operation(), "GET /a/{id}");
    assert!(parse(&mut format, &with_duration).is_ok());
    assert_eq!(parse(&mut format, &request).err(), Some(Invalid::Syntax.into()));
    assert_eq!(parse(&mut Ztunnel::default(), &request[..request.len() - 1]).err(), Some(Invalid::Syntax.into()));
}

#[test]
fn a_path_cannot_forge_the_fields_after_it() {
    let forged = INBOUND.replace("\taccess\tconnection", "\thttp access\trequest").replace(
        "duration=",
        r#"method=GET path="/x\" response_code=200 direction=\"outbound" response_code=403 duration="#,
    );
    let batch = parse(&mut Ztunnel::default(), &forged).expect("an event");
    assert_eq!((batch.event(0).status(), batch.event(0).reporter()), (Some(403), Reporter::Ztunnel));
}

#[test]
fn diagnostics_are_foreign_and_the_begin_of_a_connection_is_a_part() {
    let opened = INBOUND.replace("connection complete", "connection opened");
    assert_eq!(parse(&mut Ztunnel::default(), &opened).err(), Some(Rejection::Part));
    for line in [
        "2026-10-09T11:55:01.094336Z	info	xds::client:xds{id=1}	received response type_url=x",
        r#"{"level":"info","time":"2026-10-09T11:55:01.094336Z","scope":"ztunnel","message":"shutdown"}"#,
        "starting src.addr=1 now",
    ] {
        assert_eq!(parse(&mut Ztunnel::default(), line).err(), Some(Rejection::Foreign), "{line}");
    }
}
