//! `accept`: what it shows first, who may, what it brings about in a running instance, and that a crash forgets none of it.

use std::{fmt::Write as _, fs::OpenOptions, io::Write as _};

use serde_json::json;

use crate::{
    operating::Estate,
    place::LINE,
    resting::Caller,
    support::{operator::journalled, qualm::sample},
};

const S3: &str = "spiffe://mesh.test/ns/shop/sa/s3";
/// Usual calls of some three days, and those of a job in five minutes after them.
const CALM: u64 = 55_000;
const JOB: u64 = 300;

fn mixed(i: u64, salt: u64) -> u64 {
    let mut x = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03);
    x ^= x >> 31;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 29)
}

/// A made-up mesh of twenty services in Istio's JSON, in which `s3` calls far more often than ever at the end.
fn lines() -> String {
    let mut text = String::new();
    let begin: jiff::Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
    let mut write = |millis: u64, (source, to): (u64, u64), path: u64, bytes: u64, is_first: bool| {
        let at = begin + jiff::SignedDuration::from_millis(i64::try_from(millis).unwrap());
        let line = LINE
            .replace("2026-11-22T02:02:24.122Z", &format!("{at:.3}"))
            .replace("/v1/orders/42", &format!("/{path}"))
            .replace("\"bytes_received\":0", &format!("\"bytes_received\":{bytes}"))
            .replace("10.0.0.7", if is_first { "10.0.0.1" } else { "10.0.0.2" })
            .replace("sa/cart", &format!("sa/s{source}"))
            .replace("sa/orders", &format!("sa/s{to}"));
        writeln!(text, "{line}").unwrap();
    };
    for i in 0..CALM {
        let source = mixed(i, 1) % 20;
        // Somebody looks around now and then.
        let debugging = mixed(i, 6).is_multiple_of(300);
        let to = (source + 1 + mixed(i, 2) % if debugging { 19 } else { 3 }) % 20;
        let path = mixed(i, 3) % if debugging { 50 } else { 3 };
        write(4_320 * i, (source, to), path, 500 + mixed(i, 4) % 400, i % 2 == 0);
    }
    (0..JOB).for_each(|n| write(4_320 * CALM + 1_000 * n, (3, 4), 0, 700, true));
    text
}

#[test]
fn what_is_odd_is_shown_accepted_listed_known_after_kill_9_and_taken_back() {
    let mut estate = Estate::start("shadow");
    let (http, inside) = (estate.http, estate.qualm.folder().to_owned());
    let mut log = OpenOptions::new().append(true).open(inside.join("../access.log")).unwrap();
    log.write_all(lines().as_bytes()).unwrap();
    estate.qualm.wait_until("has read all", || sample(http, "qualm_events_scored_total") >= Some((CALM + JOB) as f64));
    let [vera, otto] = ["vera", "otto"].map(|account| estate.person(account));

    let asked = json!({ "identity": S3 });
    let (code, shown) = Caller::new(&estate, Some(&vera)).post("/v1/rehearse-acceptance", &asked);
    let withheld = shown["withheld"].as_array().expect("a list");
    assert_eq!(code, 200, "{shown}");
    let rate = withheld.iter().find(|of| of["question"] == "rate-1m").unwrap_or_else(|| panic!("{shown}"));
    assert!(rate["records"][0].as_str().unwrap().contains("access.log, partition 0, position "), "{rate}");

    assert!(vera.refused(&["accept", S3, "--reason", "x", "--yes"]).contains("listen.operators"));
    assert!(otto.refused(&["accept", S3, "--reason", "x"]).contains("give --yes"));
    let nothing = otto.refused(&["accept", "sa/s7", "--question", "rhythm", "--reason", "x", "--yes"]);
    assert!(nothing.contains("nothing was withheld"), "{nothing}");
    let stolen = otto.refused(&["accept", S3, "--question", "never-issued", "--reason", "x", "--yes"]);
    assert!(stolen.contains("does not add up"), "{stolen}");
    let accept = ["accept", S3, "--question", "rate-1m", "--reason", "the new report job", "--yes"];
    let keyed = [&accept[..], &["--idempotency-key", "once"]].concat();
    let said = otto.run(&keyed);
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(said.err.contains("this would have been hidden") && said.err.contains("rate-1m: "), "{said:#?}");
    assert_eq!(otto.done(&keyed)["repeated"], true, "a call that comes again does nothing");

    let accepted = |from: &serde_json::Value| {
        let [of] = from["acceptances"].as_array().unwrap().as_slice() else { panic!("{from}") };
        (of["question"].clone(), of["by"].clone(), of["parts"].as_array().unwrap().len())
    };
    let expected = accepted(&vera.done(&["list"]));
    assert_eq!((expected.0.as_str(), expected.1.as_str()), (Some("rate-1m"), Some(otto.id.as_str())));
    estate.qualm.kill();
    estate.qualm.start_again();
    estate.qualm.wait_until("is back", || sample(http, "qualm_acceptances") == Some(1.0));
    estate
        .qualm
        .wait_until("has read again", || sample(http, "qualm_events_scored_total") >= Some((CALM + JOB) as f64));
    assert_eq!(accepted(&vera.done(&["show", S3])), expected, "the journal knows what was accepted");
    let records = journalled(&inside, S3);
    let record = records.iter().find(|record| record["payload"]["instruction"]["ask"]["call"] == "accept");
    assert_eq!(record.expect("it is journalled")["payload"]["instruction"]["why"], "the new report job");

    let withdraw = ["accept", S3, "--question", "rate-1m", "--withdraw", "--reason", "it has ended"];
    otto.done(&withdraw);
    assert_eq!(vera.done(&["list"])["acceptances"], json!([]));
    assert!(otto.refused(&withdraw).contains("nothing is accepted"));
    estate.qualm.check_metrics();
}
