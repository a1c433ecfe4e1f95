//! What envelopes say of the pod that a record is from, and whom to believe.

use qualm_ingest::{
    envelope::Envelope,
    parse::{Format, Origin},
    source::{Invalid, Rejection},
};
use qualm_model::event::{EventBuilder, Position};
use serde_json::{Value, json};

use crate::{
    outcome::{inbound, outcome_of, own_end, parser},
    shippers::{ENVELOPES, Wrap, docker, filebeat, fluent_bit, otlp_json, vector},
};

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
