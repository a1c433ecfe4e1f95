//! What is no access log, cut off, nested too deep or damaged.

use proptest::prelude::*;
use qualm_ingest::{
    parse::Format,
    source::{Invalid, Rejection},
};

use crate::{
    outcome::{inbound, outcome_of, parser, sample},
    shippers::{ENVELOPES, Wrap, cri, docker, four_deep, vector},
};

#[test]
fn five_deep_is_foreign() {
    let deep = String::from_utf8(four_deep(&inbound()).remove(0)).unwrap();
    for wrap in [cri, docker, vector] as [Wrap; 3] {
        let outcome = outcome_of(&mut parser(Format::IstioJson), &wrap(&deep)[0]);
        assert!(matches!(outcome, Err(Rejection::Foreign | Rejection::Invalid(Invalid::Syntax))), "{outcome:?}");
    }
}

#[test]
fn what_applications_and_proxies_say_is_foreign_in_every_envelope() {
    for line in [
        "[2026-11-22 02:02:24.122][12][warning][config] [source/common/config/grpc_stream.h:196] stream closed: 14",
        "2026-11-22T02:02:24.122842Z\tinfo\tFLAG: --concurrency=\"0\"",
        r#"{"level":"info","ts":1.5,"msg":"listening","method":"GET","path":"/x"}"#,
        "listening on :8080",
        "2026-11-22 02:00:00,123 INFO starting",
        "2026-11-22 02:00:00,123 - cart - INFO - starting",
        "2026-11-22 02:02:25.000 UTC [1] LOG:  database system is ready to accept connections",
        "2026-11-22T02:02:25.000Z  INFO 1 --- [main] com.acme.CartApplication : started in 3.2 seconds",
        r#"{"event":"order_placed","order":42,"user":"u1"}"#,
        r#"{"request":"x","error":{"code":7},"duration":"12ms"}"#,
    ] {
        for &(name, wrap) in ENVELOPES {
            for format in [Format::IstioJson, Format::IstioText, Format::Auto] {
                let mut parser = parser(format);
                let outcome = wrap(line).iter().map(|piece| outcome_of(&mut parser, piece)).last().unwrap();
                assert_eq!(outcome, Err(Rejection::Foreign), "{line} in {name} as {format}");
            }
        }
    }
}

#[test]
fn a_truncated_record_in_a_whole_envelope_stays_invalid() {
    let record = inbound();
    let cut = &record[..record.len() - 9];
    for &(name, wrap) in ENVELOPES.iter().filter(|(name, _)| !name.contains("Merge_Log") && !name.contains("processed"))
    {
        let mut parser = parser(Format::IstioJson);
        let outcome = wrap(cut).iter().map(|piece| outcome_of(&mut parser, piece)).last().unwrap();
        assert_eq!(outcome, Err(Invalid::Syntax.into()), "{name}");
    }
}

#[test]
fn a_truncated_envelope_never_becomes_another_event() {
    for &format in Format::ALL {
        for &(name, wrap) in ENVELOPES.iter().filter(|(name, _)| !name.contains("pieces")) {
            let Some(record) =
                sample(format).lines().find(|line| outcome_of(&mut parser(format), line.as_bytes()).is_ok())
            else {
                continue;
            };
            let wrapped = wrap(record).remove(0);
            for end in 0..wrapped.len() {
                // What was cut off may be a field that is not read; a parser that has seen whole records knows more.
                let mut parser = parser(format);
                let whole = outcome_of(&mut parser, &wrapped).unwrap();
                match outcome_of(&mut parser, &wrapped[..end]) {
                    Ok(found) => assert_eq!(found, whole, "{format} in {name} cut at {end}"),
                    Err(why) => {
                        // Of a record that may have line ends in it, the rest may come.
                        let may_go_on = matches!(format, Format::PostgresCsv | Format::Auto) && why == Rejection::Part;
                        let is_refused = !matches!(why, Rejection::Duplicate | Rejection::Part);
                        assert!(is_refused || may_go_on, "{format} in {name}: {why:?}");
                    }
                }
            }
        }
    }
}

pub(crate) fn wounded(bytes: &[u8], from: prop::sample::Index, to: prop::sample::Index, patch: &[u8]) -> Vec<u8> {
    let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
    let mut wounded = bytes[..from.min(to)].to_vec();
    wounded.extend(patch);
    wounded.extend(&bytes[(from.min(to) + 3).min(bytes.len())..]);
    wounded
}

proptest! {
    #[test]
    fn wounded_envelopes_never_panic(
        envelope in prop::sample::select(ENVELOPES), format in prop::sample::select(Format::ALL),
        from: prop::sample::Index, to: prop::sample::Index, patch in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut parser = parser(format);
        for piece in (envelope.1)(sample(format).lines().next().unwrap()) {
            let _ = outcome_of(&mut parser, &wounded(&piece, from, to, &patch));
        }
    }
}
