//! What is said of logs that can be read, and of those that cannot.

use std::fs;

use crate::place::{LINE, Place, read};

#[test]
fn a_byte_order_mark_before_the_first_line_loses_no_record() {
    let place = read(&format!("\u{feff}{LINE}\n"));
    assert_eq!(place.run(&["explain", "cart"]).code, Some(0));
}

#[test]
fn a_log_of_which_no_record_can_be_read_is_a_wrong_input_with_its_first_reason() {
    let place = Place::with("");
    fs::write(place.path().join("log"), "time,source\n1,a\n").unwrap();
    let refused = place.run(&["backtest", "log", "--format", "vault_audit", "--out", "out"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    for words in ["none of the 2 records could be read as vault_audit", "row 0, is `", "--mapping"] {
        assert!(refused.err.contains(words), "{words}: {refused:#?}");
    }
    assert!(place.path().join("out/report.json").exists(), "the report says so too");
    fs::write(place.path().join("log"), format!("broken\n{LINE}\n")).unwrap();
    let read = place.run(&["backtest", "log", "--format", "istio_json", "--out", "out"]);
    assert_eq!(read.code, Some(0), "one that can be read is enough: {read:#?}");
    fs::write(place.path().join("log"), "").unwrap();
    let nothing = place.run(&["backtest", "log", "--format", "istio_json", "--out", "out"]);
    assert_eq!(nothing.code, Some(0), "a quiet day is no mistake: {nothing:#?}");
}

#[test]
fn the_format_of_a_log_is_found_out_where_none_is_named() {
    let place = Place::with("");
    fs::write(place.path().join("log"), format!("{LINE}\n")).unwrap();
    let read = place.run(&["backtest", "log", "--out", "out"]);
    assert_eq!(read.code, Some(0), "{read:#?}");
    let report = fs::read_to_string(place.path().join("out/report.json")).unwrap();
    assert!(report.contains("\"format\": \"auto\"") && report.contains("\"scored\": 1"), "{report}");
    let revoked = place.run(&["backtest", "log", "--out", "out", "--max-level", "revoked"]);
    assert!(revoked.code == Some(2) && revoked.err.contains("no behaviour leads to `revoked`"), "{revoked:#?}");
}

#[test]
fn run_says_what_it_rejects_and_an_input_of_which_nothing_is_understood_is_a_wrong_one() {
    let config = "[[file]]\npath = \"access.log\"\nformat = \"istio_json\"\n[observe]\naddress = \"127.0.0.1:0\"\n";
    let place = Place::with(config);
    let write = |lines: &str| fs::write(place.path().join("access.log"), lines).unwrap();
    write(&"{\"start_time\":\n".repeat(100));
    let refused = place.run(&["run"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    for words in ["none of the 100 records could be read", "row 0 of access.log, is `syntax`", "`qualm formats`"] {
        assert!(refused.err.contains(words), "{words}: {refused:#?}");
    }
    let said = format!("{}{}", refused.out, refused.err);
    assert_eq!(said.matches("a record is rejected").count(), 1, "once, not a hundred times: {refused:#?}");
    assert!(said.contains("nothing in it was understood") && said.contains("syntax 100"), "{refused:#?}");
    // What was not understood was not passed over: it is read again when it can be.
    write(&format!("{{\"start_time\":\n{LINE}\n"));
    let read = place.run(&["run"]);
    assert_eq!(read.code, Some(0), "one that can be read is enough: {read:#?}");
    let said = format!("{}{}", read.out, read.err);
    for words in ["a record is rejected", "has ended", "events=1", "syntax 1"] {
        assert!(said.contains(words), "{words}: {read:#?}");
    }
    let nothing_new = place.run(&["run"]);
    assert_eq!(nothing_new.code, Some(0), "nothing new is no mistake: {nothing_new:#?}");
}

#[test]
fn a_file_of_years_ago_is_told_to_be_old_and_not_to_have_another_format() {
    let place = Place::with("[[file]]\npath = \"access.log\"\n[observe]\naddress = \"127.0.0.1:0\"\n");
    fs::write(place.path().join("access.log"), format!("{}\n", LINE.replace("2026-", "2019-")).repeat(10)).unwrap();
    let refused = place.run(&["run"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    for words in ["is `past_time`", "`[history] oldest`", "`qualm backtest FILE --out DIR` reads logs of any age"] {
        assert!(refused.err.contains(words), "{words}: {refused:#?}");
    }
    assert!(!refused.err.contains("name the format"), "{refused:#?}");
}
