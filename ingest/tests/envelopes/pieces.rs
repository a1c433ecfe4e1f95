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
