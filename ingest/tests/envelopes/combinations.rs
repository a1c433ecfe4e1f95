//! The same events come out of every envelope.

use proptest::prelude::*;
use qualm_ingest::parse::{Format, Parser};
use qualm_model::event::{EventBuilder, Position};

use crate::{
    broken::wounded,
    outcome::{inbound, is_same, outcome_of, outcomes, parser, sample},
    shippers::{ENVELOPES, Wrap, cri, docker, filebeat, fluent_bit, one, otlp_json, vector},
};

#[test]
fn every_envelope_around_every_format_gives_the_same_events() {
    let names = ENVELOPES.iter().map(|(name, _)| format!(" {name} |")).collect::<String>();
    let mut table = format!("| format |{names}\n|---|{}\n", "--:|".repeat(ENVELOPES.len()));
    let mut wrong = Vec::new();
    for &format in Format::ALL {
        let expected = outcomes(&mut parser(format), format, |record| one(record));
        table.push_str(&format!("| `{format}` |"));
        for &(name, wrap) in ENVELOPES {
            let found = outcomes(&mut parser(format), format, wrap);
            let events = found.iter().flatten().map(Vec::len).sum::<usize>();
            table.push_str(&format!(" {events} |"));
            assert!(events > 0 && found.len() == expected.len(), "{format} in {name}");
            for ((found, expected), record) in found.iter().zip(&expected).zip(sample(format).lines()) {
                if !is_same(found, expected, format) {
                    wrong.push(format!("{format} in {name}:\n  {found:?}\nunlike\n  {expected:?}\nof {record}"));
                }
            }
        }
        table.push('\n');
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let told = include_str!("../../../docs/envelopes.md");
    assert!(told.contains(&table), "docs/envelopes.md has another table than:\n{table}");
}

#[test]
fn envelopes_and_formats_may_change_from_record_to_record() {
    for &format in Format::ALL {
        let expected = outcomes(&mut parser(format), format, |record| one(record));
        let mut used = parser(format);
        for _ in 0..3 {
            for &(name, wrap) in ENVELOPES {
                // Joined lines were seen before, and what has been joined is not joined again.
                if outcomes(&mut parser(format), format, |record| one(record)).iter().any(|one| one.is_err()) {
                    continue;
                }
                for (found, expected) in outcomes(&mut used, format, wrap).iter().zip(&expected) {
                    assert!(is_same(found, expected, format), "{format} in {name}: {found:?}\nunlike {expected:?}");
                }
            }
        }
    }
}

#[test]
fn an_envelope_that_is_like_the_one_before_but_for_digits_says_what_it_says_itself() {
    let inner = |number: usize| inbound().replace("/x", &format!("/x/{number}?{}", "q".repeat(number % 3)));
    let forms: [fn(&str, usize) -> String; 4] = [
        |line, n| {
            format!(
                r#"{{"@timestamp":179531294{}.5,"stream":"stdout","log":{line},"kubernetes":{{"pod_name":"orders-{n}","namespace_name":"shop","labels":{{"version":"v{n}"}}}}}}"#,
                n % 10
            )
        },
        |line, n| {
            format!(
                r#"{{"offset":{n},"message":{line},"kubernetes":{{"pod":{{"name":"orders-{n}"}},"labels":{{"version":"v{n}"}},"namespace":"shop"}},"stream":"stdout"}}"#
            )
        },
        |line, n| {
            format!(
                r#"{{"kubernetes":{{"pod_name":"orders-{n}","namespace_name":"shop","labels":{{"version":"v{n}"}}}},"stream":"stdout","log":{line}}} "#
            )
        },
        |line, n| {
            format!(
                r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"k8s.pod.name","value":{{"stringValue":"orders-{n}"}}}},{{"key":"k8s.pod.labels.version","value":{{"stringValue":"v{n}"}}}}]}},"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"17953129450000000{:02}","body":{{"stringValue":{line}}},"attributes":[]}}]}}]}}]}}"#,
                n % 100
            )
        },
    ];
    for (form, wrap) in forms.into_iter().enumerate() {
        let mut used = parser(Format::IstioJson);
        for number in (0..40).chain(95..105).chain([7, 7, 1003, 8]) {
            let line = inner(number);
            let wrapped = wrap(&serde_json::Value::from(format!("{line}\n")).to_string(), number);
            let told = |parser: &mut _| {
                let mut builder = EventBuilder::new();
                let read = Parser::parse(parser, wrapped.as_bytes(), Position::default(), &mut builder);
                assert!(read.is_ok(), "{read:?} of {wrapped}");
                let batch = builder.finish();
                let event = batch.event(0);
                let (own, caller) = (event.destination(), event.source());
                [own.instance(), own.version(), event.operation(), caller.principal()].map(str::to_owned)
            };
            let found = told(&mut used);
            assert_eq!(found, told(&mut parser(Format::IstioJson)), "form {form}, {wrapped}");
            assert_eq!(found[..2], [format!("orders-{number}"), format!("v{number}")], "form {form}");
        }
    }
}

#[test]
fn what_follows_an_envelope_that_is_known_is_read_as_if_none_were() {
    let wrapped = |tail: &str| {
        let line = serde_json::Value::from(inbound()).to_string();
        format!(
            r#"{{"stream":"stdout","log":{line},"kubernetes":{{"pod_name":"orders-1","namespace_name":"shop"}}{tail}"#
        )
    };
    let otlp = |line: &str, tail: &str| {
        let line = serde_json::Value::from(line).to_string();
        format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"1795312945000000000","body":{{"stringValue":{line}}}{tail}"#
        )
    };
    let record = inbound();
    let records = [
        wrapped("}"),
        wrapped(""),
        wrapped("}}"),
        wrapped(",\"logtag\":\"F\"}"),
        otlp(&record, "}]}]}]}"),
        otlp(&record, "}]}]}]"),
        otlp(&record, "},{}]}]}]}"),
        otlp(&record[..40], "}]}]}]}"),
        otlp("listening", "}]}]}]}"),
        otlp("{\"level\":\"info\",\"msg\":\"up\"}", "}]}]}]}"),
        otlp(&record, "}]}]}]}"),
    ];
    let mut used = parser(Format::IstioJson);
    for record in records.iter().chain(&records) {
        let expected = outcome_of(&mut parser(Format::IstioJson), record.as_bytes());
        assert_eq!(outcome_of(&mut used, record.as_bytes()), expected, "{record}");
    }
}

#[test]
fn lines_with_escapes_of_their_own_are_read_alike_wrapped_or_not() {
    for path in [r#"/a\"b"#, r"/a\\b", r"/a\u00e9\ud83d\ude00b", r"/a\nb\/c", r#"/a\\\\\\\"b\\"#, "/é&<>", r"/a\u0022b"]
    {
        let record = inbound().replace("/x", path);
        let plain = outcome_of(&mut parser(Format::IstioJson), record.as_bytes());
        assert!(plain.is_ok(), "{path}: {plain:?}");
        let escaped =
            |from: &str, to: &str| String::from_utf8(fluent_bit(&record).remove(0)).unwrap().replace(from, to);
        for wrapped in [escaped("", ""), escaped("&", "\\u0026"), escaped("/a", "\\/a"), escaped("é", "\\u00e9")] {
            assert_eq!(outcome_of(&mut parser(Format::IstioJson), wrapped.as_bytes()), plain, "{wrapped}");
        }
    }
}

proptest! {
    /// An envelope that is like one before is not read again: that must show in nothing.
    #[test]
    fn what_was_read_before_changes_no_event(
        place in 0..ENVELOPES.len(), from: prop::sample::Index, to: prop::sample::Index,
        patch in prop::sample::select(vec![
            "", "7", "0", "17", "\"", "\\\"", "\\\\", "}", "{", ",", "\\n", "P", "x", "é", "\"}", "]}", ",\"a\":{\"b\":[1]}",
        ]),
    ) {
        let (name, wrap) = ENVELOPES[place];
        let line = |number: usize| inbound().replace("/x", &format!("/x/{number}"));
        let mut used = parser(Format::IstioJson);
        for number in [1, 2, 10] {
            for piece in wrap(&line(number)) {
                let _ = outcome_of(&mut used, &piece);
            }
        }
        let pieces = wrap(&line(3));
        let [whole] = &pieces[..] else { return Ok(()) };
        let wounded = wounded(whole, from, to, patch.as_bytes());
        let fresh = outcome_of(&mut parser(Format::IstioJson), &wounded);
        let found = outcome_of(&mut used, &wounded);
        prop_assert_eq!(found.ok(), fresh.ok(), "{}: {}", name, String::from_utf8_lossy(&wounded));
    }

    #[test]
    fn any_record_means_the_same_in_every_envelope(
        format in prop::sample::select(Format::ALL), from: prop::sample::Index, to: prop::sample::Index,
        patch in prop::sample::select(vec!["", "\"", "\\\"", "\\\\", "\\u00e9", "é", "}", ",\"a\":{\"b\":[1,\"\\\"\"]}", "\\n"]),
    ) {
        let record = sample(format).lines().next().unwrap();
        let wounded = wounded(record.as_bytes(), from, to, patch.as_bytes());
        let Ok(record) = String::from_utf8(wounded) else { return Ok(()) };
        let plain = outcome_of(&mut parser(format), record.as_bytes());
        for wrap in [cri, docker, fluent_bit, filebeat, vector, otlp_json] as [Wrap; 6] {
            let found = outcome_of(&mut parser(format), &wrap(&record)[0]);
            prop_assert!(is_same(&found, &plain, format), "{:?}\nunlike {:?}", found, plain);
        }
    }
}
