//! Lines that shippers cut into pieces.

use qualm_ingest::{
    parse::Format,
    source::{Invalid, Rejection},
};
use serde_json::json;

use crate::{
    outcome::{inbound, outcome_of, parser},
    shippers::docker,
};

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

/// A shipper's record of a text that a pod's runtime wrote, by the shipper's name.
fn shipped(shipper: &str, pod: &str, text: &str) -> String {
    let of_filebeat = json!({ "pod": { "name": pod }, "namespace": "shop", "container": { "name": "istio-proxy" } });
    let of_vector = json!({ "pod_name": pod, "pod_namespace": "shop", "container_name": "istio-proxy" });
    let of_fluent_bit = json!({ "pod_name": pod, "namespace_name": "shop", "container_name": "istio-proxy" });
    match shipper {
        "filebeat" => json!({ "@timestamp": "2026-11-22T02:02:25Z", "message": text, "kubernetes": of_filebeat }),
        "filebeat, with stream" => {
            json!({ "@timestamp": "2026-11-22T02:02:25Z", "stream": "stdout", "message": text, "kubernetes": of_filebeat })
        }
        "fluent bit" => json!({ "log": text, "stream": "stdout", "kubernetes": of_fluent_bit }),
        "fluentd" => json!({ "log": text, "kubernetes": of_fluent_bit }),
        "vector" => json!({ "message": text, "stream": "stdout", "timestamp": "2026-11-22T02:02:25Z", "kubernetes": of_vector }),
        _ => json!({ "message": text, "kubernetes.pod_name": pod, "kubernetes.pod_namespace": "shop" }),
    }
    .to_string()
}

const SHIPPERS: [&str; 6] = ["filebeat", "filebeat, with stream", "fluent bit", "fluentd", "vector", "vector, flat"];

/// Two pods whose pieces come in turns through one shipper, each cut by `cut` into two.
fn assert_joined_pod_by_pod(cut: fn(&str) -> [String; 2]) {
    let long = |path: &str| inbound().replace("/x", &format!("/{path}?{}", "y".repeat(17_000)));
    for shipper in SHIPPERS {
        let mut parser = parser(Format::IstioJson);
        let [ours, theirs] = ["ours", "theirs"].map(|path| cut(&long(path)));
        for round in 0..3 {
            let mut read = |pod: &str, piece: &str| outcome_of(&mut parser, shipped(shipper, pod, piece).as_bytes());
            assert_eq!(read("cart-5d4f-x7x2p", &ours[0]), Err(Rejection::Part), "{shipper}, {round}");
            assert_eq!(read("orders-5d4f-49tpt", &theirs[0]), Err(Rejection::Part), "{shipper}, {round}");
            for (pod, piece, path) in
                [("cart-5d4f-x7x2p", &ours[1], "/ours"), ("orders-5d4f-49tpt", &theirs[1], "/theirs")]
            {
                let joined = read(pod, piece).unwrap_or_else(|why| panic!("{shipper}, {round}: {why:?}"));
                assert!(joined[0].contains(path), "{shipper}: {joined:?}");
            }
        }
    }
}

#[test]
fn pieces_that_a_runtime_cut_are_joined_pod_by_pod_within_every_shippers_envelope() {
    assert_joined_pod_by_pod(|line| {
        let (first, last) = line.split_at(line.len() / 2);
        let piece = |tag: &str, piece: &str| format!("2026-11-22T02:02:25Z stdout {tag} {piece}");
        [piece("P", first), piece("F", last)]
    });
}

#[test]
fn dockers_pieces_are_joined_pod_by_pod_within_every_shippers_envelope() {
    assert_joined_pod_by_pod(|line| {
        let (first, last) = line.split_at(16 * 1024);
        [first.to_owned(), format!("{last}\n")]
            .map(|text| json!({ "log": text, "stream": "stdout", "time": "2026-11-22T02:02:25Z" }).to_string())
    });
}

#[test]
fn a_long_line_that_a_shipper_has_joined_already_is_whole() {
    let long = inbound().replace("/x", &format!("/x?{}", "y".repeat(40_000)));
    for shipper in ["filebeat, with stream", "vector"] {
        let mut parser = parser(Format::IstioJson);
        for _ in 0..3 {
            let outcome = outcome_of(&mut parser, shipped(shipper, "cart-5d4f-x7x2p", &long).as_bytes());
            assert_eq!(outcome.map(|events| events.len()), Ok(1), "{shipper}");
        }
    }
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
