//! The same events come out of every envelope.

use proptest::prelude::*;
use qualm_ingest::parse::Format;

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
