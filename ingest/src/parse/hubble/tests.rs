//! What flows become.

use qualm_model::event::{EventBatch, EventBuilder, Position};

use super::*;

const FLOW: &str = r#"{"flow":{"time":"2026-07-31T10:41:02.2Z","uuid":"cd75","verdict":"FORWARDED","IP":{"source":"10.0.1.235","destination":"10.0.0.21"},"l4":{"TCP":{"source_port":60524,"destination_port":80,"flags":{"SYN":true}}},"source":{"cluster_name":"east","namespace":"shop","labels":["k8s:app=cart"],"pod_name":"cart-9b649846d-bxqfc","workloads":[{"name":"cart","kind":"Deployment"}]},"destination":{"namespace":"shop","pod_name":"orders-65887564dc-jjw7k"},"Type":"L3_L4","event_type":{"type":4},"traffic_direction":"INGRESS","is_reply":false},"node_name":"east/w1","time":"2026-07-31T10:41:02.2Z"}"#;

fn parse(line: &str) -> Result<EventBatch, Rejection> {
    let mut builder = EventBuilder::new();
    Hubble::default().parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
    Ok(builder.finish())
}

#[test]
fn a_connection_is_counted_where_it_enters_the_calleds_pod_and_nowhere_else() {
    assert!(parse(FLOW).is_ok());
    for (from, to) in [
        (r#""is_reply":false"#, r#""is_reply":true"#),
        (r#"{"SYN":true}"#, r#"{"SYN":true,"ACK":true}"#),
        (r#"{"SYN":true}"#, r#"{"ACK":true}"#),
        (r#"{"type":4}"#, r#"{"type":4,"sub_type":3}"#),
        (r#"{"type":4}"#, r#"{"type":5}"#),
        ("FORWARDED", "TRANSLATED"),
    ] {
        assert_eq!(parse(&FLOW.replace(from, to)).err(), Some(Rejection::Part), "{to}");
    }
    let outside = FLOW
        .replace(r#"{"type":4}"#, r#"{"type":4,"sub_type":3}"#)
        .replace(r#""destination":{"#, r#""destination":{"labels":["reserved:world"],"#)
        .replace(r#","pod_name":"orders-65887564dc-jjw7k""#, "");
    assert_eq!(parse(&outside).expect("an event").event(0).destination().principal(), "10.0.0.21");
}

#[test]
fn workloads_are_ciliums_own_word_and_no_certificate() {
    let batch = parse(FLOW).expect("an event");
    let event = batch.event(0);
    assert_eq!((event.source().principal(), event.destination().principal()), ("shop/cart", "shop/orders"));
    assert_eq!((event.source().provenance(), event.source().cluster()), (Provenance::AddressMap, "east"));
    assert_eq!((event.source().instance(), event.reporter_id()), ("cart-9b649846d-bxqfc", "east/w1"));
    assert_eq!((event.kind(), event.outcome()), (Kind::Connection, Outcome::Success));
}

#[test]
fn a_drop_by_policy_counts_once_and_ours_is_our_own_action() {
    let dropped = FLOW.replace("FORWARDED", "DROPPED").replace(
        r#""is_reply""#,
        r#""drop_reason_desc":"POLICY_DENY","ingress_denied_by":[{"name":"qualm-deny-3f2a","kind":"CiliumNetworkPolicy"}],"is_reply""#,
    );
    let verdict = parse(&dropped.replace(r#"{"type":4}"#, r#"{"type":5}"#)).expect("an event");
    assert_eq!((verdict.event(0).outcome(), verdict.event(0).decision_id()), (Outcome::Refused, "qualm-deny-3f2a"));
    let packet = dropped.replace(r#"{"type":4}"#, r#"{"type":1,"sub_type":181}"#);
    assert_eq!(parse(&packet).err(), Some(Rejection::Part));
    let network = packet.replace("POLICY_DENY", "STALE_OR_UNROUTABLE_IP");
    assert_eq!(parse(&network).expect("an event").event(0).outcome(), Outcome::Failure);
}

#[test]
fn a_request_is_folded_and_what_it_asked_a_name_server_for_is_not_kept() {
    let request = |layer: &str| {
        let flow = FLOW.replace(r#"{"type":4}"#, r#"{"type":129}"#);
        parse(&flow.replace(r#""Type":"L3_L4""#, &format!(r#""Type":"L7","l7":{layer}"#)))
    };
    let http = request(
        r#"{"type":"REQUEST","http":{"method":"POST","url":"http://u:pw@orders.shop:80/v1/orders/42?token=hunter2"}}"#,
    );
    let http = http.expect("an event");
    assert_eq!((http.event(0).kind(), http.event(0).operation()), (Kind::Request, "POST /v1/orders/{id}"));
    assert_eq!((http.event(0).hostname(), http.event(0).outcome()), ("orders.shop", Outcome::Unknown));
    let dns = request(r#"{"type":"REQUEST","dns":{"query":"c2VjcmV0.evil.test.","qtypes":["TXT"]}}"#);
    assert_eq!(dns.expect("an event").event(0).operation(), "dns TXT");
    assert_eq!(request(r#"{"type":"RESPONSE","http":{"code":200}}"#).err(), Some(Rejection::Part));
}

#[test]
fn lost_events_are_counted() {
    for (line, lost) in [
        (r#"{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"12","cpu":5}}"#, 12),
        (r#"{"lost_events":{"source":"PERF_EVENT_RING_BUFFER","num_events_lost":3},"node_name":"w1"}"#, 3),
        (r#"{"node_status":{"state_change":"NODE_CONNECTED"}}"#, 0),
    ] {
        let mut builder = EventBuilder::new();
        let mut row = Row::new(&mut builder, Position::default(), None);
        assert_eq!(Hubble::default().parse(line, &mut row), Err(Rejection::Foreign));
        assert_eq!(row.lost(), lost, "{line}");
    }
}
