//! What spans become.

use qualm_model::event::{EventBatch, EventBuilder, Position};

use super::*;

fn resource(name: &str, spans: &str) -> String {
    format!(
        r#"{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{name}"}}}},{{"key":"service.namespace","value":{{"stringValue":"shop"}}}},{{"key":"service.version","value":{{"stringValue":"v2"}}}}]}},"scopeSpans":[{{"spans":[{spans}]}}]}}"#
    )
}

fn span(kind: &str, id: &str, parent: &str, attributes: &str) -> String {
    format!(
        r#"{{"traceId":"4bf9","spanId":"{id}","parentSpanId":"{parent}","name":"GET /x","kind":{kind},"startTimeUnixNano":"1711200000000000000","endTimeUnixNano":"1711200000085000000","attributes":[{attributes}],"status":{{}}}}"#
    )
}

const HTTP: &str = r#"{"key":"http.request.method","value":{"stringValue":"GET"}},{"key":"url.path","value":{"stringValue":"/orders/42?token=hunter2"}},{"key":"http.response.status_code","value":{"intValue":"200"}},{"key":"network.peer.address","value":{"stringValue":"10.0.0.7"}}"#;

fn export(resources: &[String]) -> String {
    format!(r#"{{"resourceSpans":[{}]}}"#, resources.join(","))
}

fn parse(line: &str) -> Result<(EventBatch, Vec<Rejection>), Rejection> {
    let mut builder = EventBuilder::new();
    let mut row = Row::new(&mut builder, Position::default(), None);
    OtlpSpans::default().parse(line, &mut row)?;
    let refused = row.into_refused();
    Ok((builder.finish(), refused))
}

#[test]
fn both_spans_of_a_call_tell_the_same_of_it() {
    let line = export(&[
        resource(
            "cart",
            &span(
                "3",
                "c1",
                "",
                &format!(r#"{HTTP},{{"key":"peer.service","value":{{"stringValue":"shop/orders"}}}}"#),
            ),
        ),
        resource("orders", &span("2", "s1", "c1", HTTP)),
    ]);
    let (batch, refused) = parse(&line).expect("events");
    assert_eq!((batch.len(), refused.len()), (2, 0));
    for (row, reporter) in [(0, Reporter::Source), (1, Reporter::Destination)] {
        let event = batch.event(row);
        assert_eq!((event.source().principal(), event.destination().principal()), ("shop/cart", "shop/orders"));
        assert_eq!((event.reporter(), event.operation()), (reporter, "GET /orders/{id}"));
        assert_eq!((event.outcome(), event.duration_ns()), (Outcome::Success, Some(85_000_000)));
    }
}

#[test]
fn without_the_callers_span_the_caller_is_the_other_end_of_the_connection() {
    let claimed = format!(r#"{HTTP},{{"key":"client.address","value":{{"stringValue":"198.51.100.7"}}}}"#);
    let (batch, _) = parse(&export(&[resource("orders", &span("2", "s1", "c9", &claimed))])).expect("an event");
    assert_eq!((batch.event(0).source().principal(), batch.event(0).source().ip()), ("10.0.0.7", "10.0.0.7"));
    let nobody = HTTP.replace("network.peer.address", "x");
    let refused = parse(&export(&[resource("orders", &span("2", "s1", "", &nobody))])).map(drop);
    assert_eq!(refused, Err(Invalid::MissingIdentity.into()));
}

#[test]
fn bad_spans_beside_good_ones_are_told_one_by_one() {
    let good = span("\"SPAN_KIND_SERVER\"", "s1", "", HTTP);
    let bad = good.replace("1711200000000000000", "0");
    let inner = span("1", "i1", "s1", "");
    let (batch, refused) = parse(&export(&[resource("orders", &[good, bad, inner].join(","))])).expect("an event");
    assert_eq!((batch.len(), refused), (1, vec![Invalid::MissingField.into(), Rejection::Part]));
}

#[test]
fn statements_of_databases_are_not_kept() {
    let database = r#"{"key":"db.system","value":{"stringValue":"postgresql"}},{"key":"db.operation","value":{"stringValue":"SELECT"}},{"key":"db.sql.table","value":{"stringValue":"orders"}},{"key":"db.statement","value":{"stringValue":"SELECT * FROM orders WHERE card = 4111111111111111"}},{"key":"server.address","value":{"stringValue":"db.shop"}}"#;
    let (batch, _) = parse(&export(&[resource("orders", &span("3", "s1", "", database))])).expect("an event");
    let event = batch.event(0);
    assert_eq!((event.operation(), event.destination().principal()), ("postgresql SELECT orders", "db.shop"));
    assert!(!format!("{:?}", batch.as_record_batch()).contains("4111"));
}

#[test]
fn an_export_of_nothing_is_foreign() {
    for line in [r#"{"resourceSpans":[]}"#, r#"{"resourceLogs":[]}"#, "starting"] {
        assert_eq!(parse(line).map(drop), Err(Rejection::Foreign));
    }
}
