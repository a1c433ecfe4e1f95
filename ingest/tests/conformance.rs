//! What every format must hold: the same questions to each of them.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path, sync::LazyLock};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::TimestampNanosecondType,
    util::display::{ArrayFormatter, FormatOptions},
};
use proptest::prelude::*;
use qualm_ingest::{
    parse::{DEFAULT_MAX_RECORD_BYTES, Format, Parser},
    source::{Invalid, Rejection},
};
use qualm_model::{
    event::{Event, EventBatch, EventBuilder, Position},
    time::{Span, Timestamp},
};

const CSV: &str = r#"2026-11-22 02:02:24,cart,"orders, the big one",GET /v1/orders/42?x=1,200,label"#;
const CSV_MAPPING: &str = r#"
    format = "csv"
    time = { column = 0, format = "%Y-%m-%d %H:%M:%S" }
    fields = { source = "{1}", destination = "{2}", operation = "{3}", status = "{4}" }
"#;
const JSONL: &str =
    r#"{"ts":1795312944.5,"who":{"name":"cart"},"to":"orders","what":"GET /v1/orders/42?x=1","code":"200"}"#;
const JSONL_MAPPING: &str = r#"
    format = "jsonl"
    time = { column = "ts", format = "epoch_s" }
    fields = { source = "{who.name}", destination = "{to}", operation = "{what}", status = "{code}" }
"#;

/// A format, and a record of it that is an event by itself.
struct Case {
    name: &'static str,
    format: Format,
    mapping: Option<&'static str>,
    record: &'static str,
}

/// Every format with the first record of its sample that is an event by itself, and `mapped` twice.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let of = |&format: &Format| {
        let mut lines = format.sample().lines();
        let is_event = |record: &&str| {
            let mut parser = Parser::for_format(format, None).unwrap();
            outcome_of(&mut parser, record.as_bytes()).is_ok()
        };
        let record = lines.find(is_event).unwrap_or_else(|| panic!("no event in the sample of {format}"));
        Case { name: format.as_str(), format, mapping: None, record }
    };
    let mapped = |name, mapping, record| Case { name, format: Format::Mapped, mapping: Some(mapping), record };
    let named = Format::ALL.iter().filter(|format| format.is_named()).map(of);
    named.chain([mapped("mapped csv", CSV_MAPPING, CSV), mapped("mapped jsonl", JSONL_MAPPING, JSONL)]).collect()
});

impl Case {
    fn parser(&self) -> Parser {
        Parser::for_format(self.format, self.mapping.map(|mapping| mapping.parse().unwrap())).unwrap()
    }

    fn event(&self) -> EventBatch {
        let mut builder = EventBuilder::new();
        self.parser().parse(self.record.as_bytes(), Position::default(), &mut builder).unwrap();
        builder.finish()
    }
}

/// The events of a record as text, position left out.
fn outcome_of(parser: &mut Parser, record: &[u8]) -> Result<String, Rejection> {
    let mut builder = EventBuilder::new();
    let position = Position { source: 2, partition: 5, offset: 9 };
    parser.parse(record, position, &mut builder)?;
    let batch = builder.finish();
    assert!(batch.events().all(|event| event.position() == position));
    let refused = parser.refused().iter().map(|why| format!("{why:?}"));
    Ok(batch.events().map(|event| shown(event, &batch)).chain(refused).collect::<Vec<_>>().join("\n"))
}

/// What stands in the columns of an event, absent fields and positions left out.
fn shown(event: Event<'_>, batch: &EventBatch) -> String {
    let columns = batch.as_record_batch();
    let options = FormatOptions::default();
    let fields = columns.schema_ref().fields().iter().zip(columns.columns()).filter(|(field, column)| {
        !column.is_null(event.row) && !field.name().starts_with("position") && field.name() != "partition"
    });
    let text = |column: &ArrayRef| match column.as_primitive_opt::<TimestampNanosecondType>() {
        Some(times) => instant(Timestamp(times.value(event.row))).to_string(),
        None => ArrayFormatter::try_new(column, &options).unwrap().value(event.row).to_string(),
    };
    let told = fields.map(|(field, column)| (field.name(), text(column)));
    let told = told.filter(|(name, value)| {
        let is_usual = name.as_str() == "activity_id" && value == "0";
        !value.is_empty() && name.as_str() != "offset" && !is_usual
    });
    told.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

/// What the records of a sample become, one after the other.
fn golden_of(format: Format) -> String {
    let mut parser = Parser::for_format(format, None).unwrap();
    let mut text = String::new();
    for record in format.sample().lines() {
        let outcome = outcome_of(&mut parser, record.as_bytes()).unwrap_or_else(|why| format!("{why:?}"));
        writeln!(text, "{outcome}").unwrap();
    }
    text
}

/// Run with `QUALM_BLESS=1` to write what is read now; then read the difference.
#[test]
fn every_format_reads_its_sample_as_the_golden_file_says() {
    for &format in Format::ALL.iter().filter(|format| format.is_named()) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{format}.txt"));
        let found = golden_of(format);
        if std::env::var_os("QUALM_BLESS").is_some() {
            fs::write(&path, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&path).unwrap(), "{format}");
    }
}

#[test]
fn the_format_is_found_without_being_named() {
    let mut mixed = Parser::for_format(Format::Auto, None).unwrap();
    for _ in 0..3 {
        for &format in Format::ALL.iter().filter(|format| format.is_named()) {
            let mut auto = Parser::for_format(Format::Auto, None).unwrap();
            let mut named = Parser::for_format(format, None).unwrap();
            for record in format.sample().lines() {
                let expected = outcome_of(&mut named, record.as_bytes());
                let found = outcome_of(&mut auto, record.as_bytes());
                let in_between = match format {
                    // Of several headers the last one holds; and the year of a line without one is counted on from
                    // the lines before it.
                    Format::ZeekTsv | Format::Sshd => found.clone(),
                    _ => outcome_of(&mut mixed, record.as_bytes()),
                };
                if expected.is_ok() {
                    assert_eq!((&found, &in_between), (&expected, &expected), "{format}: {record}");
                } else {
                    assert_eq!(found.is_ok(), expected.is_ok(), "{format}: {record}");
                }
            }
            assert_eq!(auto.found()[0].0, format);
        }
    }
}

#[test]
fn mapped_records_say_what_their_mapping_names() {
    for (case, source, destination) in
        [("mapped csv", "cart", "orders, the big one"), ("mapped jsonl", "cart", "orders")]
    {
        let batch = CASES.iter().find(|known| known.name == case).unwrap().event();
        let event = batch.event(0);
        assert_eq!((event.source().principal(), event.destination().principal()), (source, destination));
        assert_eq!((event.operation(), event.status()), ("GET /v1/orders/{id}", Some(200)));
    }
}

#[test]
fn no_report_is_older_than_its_call() {
    for case in CASES.iter() {
        assert!(case.event().events().all(|event| event.report() >= event.start()), "{}", case.name);
    }
}

#[test]
fn a_record_says_the_same_whatever_the_parser_read_before() {
    for case in CASES.iter() {
        let mut used = case.parser();
        let first = outcome_of(&mut used, case.record.as_bytes());
        for other in CASES.iter() {
            let _ = outcome_of(&mut used, other.record.as_bytes());
            for end in (0..other.record.len()).step_by(7) {
                let _ = outcome_of(&mut used, &other.record.as_bytes()[..end]);
            }
        }
        assert_eq!(outcome_of(&mut used, case.record.as_bytes()), first, "{}", case.name);
    }
}

#[test]
fn a_truncated_record_never_becomes_another_event() {
    for case in CASES.iter() {
        let whole = outcome_of(&mut case.parser(), case.record.as_bytes()).unwrap();
        for end in 0..case.record.len() {
            // What was cut off may be a field that is not read; a parser that has seen whole records knows more.
            let mut parser = case.parser();
            outcome_of(&mut parser, case.record.as_bytes()).unwrap();
            match outcome_of(&mut parser, &case.record.as_bytes()[..end]) {
                Ok(event) => assert_eq!(event, whole, "{} cut at {end}", case.name),
                Err(why) => {
                    assert!(!matches!(why, Rejection::Duplicate), "{}: {why:?}", case.name);
                }
            }
        }
    }
}

/// Whether an event says no less than any reader can know of a record that was cut off.
fn says_less(format: Format, event: &str, whole: &str) -> bool {
    let unknown: &[&str] = match format {
        // Keycloak's lines have no end, and no two kinds of event the same details: cut between two of them, a line is
        // one of fewer. Who did what to whom stands before them and must be the same.
        Format::KeycloakText => &["status_detail=", "credential_uid=", "auth_protocol="],
        // Lines of older releases end at the address: cut within its last part it is another one.
        Format::Sshd => &["src_endpoint_ip="],
        _ => return false,
    };
    let is_known = |field: &&str| !unknown.iter().any(|name| field.starts_with(name));
    event.split("; ").filter(is_known).eq(whole.split("; ").filter(is_known))
}

#[test]
fn no_record_of_a_sample_becomes_another_event_when_it_is_cut_off() {
    for &format in Format::ALL.iter().filter(|&&format| format != Format::Mapped) {
        let lines: Vec<&str> = format.sample().lines().collect();
        for (row, record) in lines.iter().enumerate() {
            let mut parser = Parser::for_format(format, None).unwrap();
            for before in &lines[..row] {
                let _ = outcome_of(&mut parser, before.as_bytes());
            }
            let Ok(whole) = outcome_of(&mut parser, record.as_bytes()) else { continue };
            for end in 0..record.len() {
                let Ok(event) = outcome_of(&mut parser, &record.as_bytes()[..end]) else { continue };
                assert!(event == whole || says_less(format, &event, &whole), "{format}, {row} cut at {end}: {event}");
            }
        }
    }
}

#[test]
fn what_is_not_utf8_is_refused_for_its_encoding() {
    for case in CASES.iter() {
        let mut record = case.record.as_bytes().to_vec();
        let middle = record.len() / 2;
        record[middle] = 0xff;
        assert_eq!(outcome_of(&mut case.parser(), &record), Err(Invalid::Encoding.into()), "{}", case.name);
    }
}

#[test]
fn gigantic_records_are_refused_for_their_length_alone() {
    for case in CASES.iter() {
        let record = vec![b'{'; DEFAULT_MAX_RECORD_BYTES + 1];
        assert_eq!(outcome_of(&mut case.parser(), &record), Err(Invalid::TooLong.into()), "{}", case.name);
        let mut parser = case.parser().with_max_record_bytes(case.record.len() - 1);
        assert_eq!(outcome_of(&mut parser, case.record.as_bytes()), Err(Invalid::TooLong.into()), "{}", case.name);
    }
}

#[test]
fn deep_nesting_is_refused_where_there_is_nesting() {
    for case in CASES.iter().filter(|case| case.record.starts_with('{')) {
        for bracket in ["[", "{\"a\":"] {
            let record = format!("{{\"deep\":{}{}", bracket.repeat(10_000), &case.record[1..]);
            assert_eq!(outcome_of(&mut case.parser(), record.as_bytes()), Err(Invalid::Syntax.into()), "{}", case.name);
        }
    }
}

#[test]
fn a_record_from_the_future_is_refused_only_where_the_time_is_known() {
    for case in CASES.iter() {
        let report = case.event().event(0).report();
        for (ahead, refused) in [(299, false), (301, true)] {
            let mut parser = case.parser();
            parser.arrive(report - Span::seconds(ahead));
            let outcome = outcome_of(&mut parser, case.record.as_bytes());
            let is_refused = outcome
                .as_ref()
                .map_or_else(|why| *why == Invalid::FutureTime.into(), |text| text == "Invalid(FutureTime)");
            assert_eq!(is_refused, refused, "{} {ahead} s ahead: {outcome:?}", case.name);
        }
    }
}

fn instant(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(time.0.into()).unwrap()
}

#[test]
fn a_record_of_the_far_past_is_refused_only_where_a_bound_is_set() {
    for case in CASES.iter() {
        let arrival = case.event().event(0).report() + Span(401 * Span::DAY.0);
        for (days, refused) in [(None, false), (Some(400), true), (Some(402), false)] {
            let parser = case.parser();
            let mut parser = match days {
                Some(days) => parser.with_max_age(Span(days * Span::DAY.0)),
                None => parser,
            };
            parser.arrive(arrival);
            let outcome = outcome_of(&mut parser, case.record.as_bytes());
            assert_eq!(outcome == Err(Invalid::PastTime.into()), refused, "{} bound by {days:?} days", case.name);
        }
    }
}

#[test]
fn impossible_dates_are_invalid() {
    for case in CASES.iter() {
        let date = instant(case.event().event(0).report()).strftime("%Y-%m-%d").to_string();
        if !case.record.contains(&date) {
            continue;
        }
        let record = case.record.replace(&date, &format!("{}-02-30", &date[..4]));
        let outcome = outcome_of(&mut case.parser(), record.as_bytes());
        let is_refused = outcome
            .as_ref()
            .map_or_else(|why| *why == Invalid::ImpossibleTime.into(), |text| text.contains("ImpossibleTime"));
        assert!(is_refused, "{}: {outcome:?}", case.name);
    }
}

#[test]
fn query_strings_are_never_stored() {
    for case in CASES.iter().filter(|case| case.record.contains('?')) {
        let record = case.record.replace("x=1", "token=hunter2");
        let mut builder = EventBuilder::new();
        case.parser().parse(record.as_bytes(), Position::default(), &mut builder).unwrap();
        let batch = format!("{:?}", builder.finish().as_record_batch());
        assert!(!batch.contains("hunter2") && !batch.contains("token="), "{}", case.name);
    }
}

fn nudged() -> impl Strategy<Value = (usize, Vec<u8>)> {
    (
        0..CASES.len(),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 0..6),
    )
        .prop_map(|(case, from, to, bytes)| {
            let record = CASES[case].record.as_bytes();
            let (from, to) = (from.index(record.len()), to.index(record.len()));
            let mut nudged = record[..from.min(to)].to_vec();
            nudged.extend(bytes);
            nudged.extend(&record[(from.min(to) + 3).min(record.len())..]);
            (case, nudged)
        })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for case in CASES.iter() {
            let _ = outcome_of(&mut case.parser(), &bytes);
        }
    }

    #[test]
    fn records_with_a_wound_never_panic((case, record) in nudged()) {
        let mut parser = CASES[case].parser();
        let _ = outcome_of(&mut parser, &record);
        let _ = outcome_of(&mut parser, CASES[case].record.as_bytes()).unwrap();
    }
}
