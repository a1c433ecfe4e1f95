use qualm_model::event::{EventBatch, EventBuilder, Position};

use super::*;

fn parse(format: &mut PostgresCsv, line: &str) -> Result<EventBatch, Rejection> {
    let mut builder = EventBuilder::new();
    format.parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
    Ok(builder.finish())
}

fn record(state: &str, severity: &str, message: &str, query: &str) -> String {
    let message = message.replace('"', "\"\"");
    let query = if query.is_empty() { String::new() } else { format!("\"{query}\"") };
    format!(
        "2026-09-12 23:10:56.412 UTC,\"cart\",\"shop\",59,\"10.0.0.7:51000\",6aa5dc00.3b,3,\"SELECT\",2026-09-12 23:10:56 UTC,1/2,0,{severity},{state},\"{message}\",,,,,,{query},,,\"psql\",\"client backend\",,0"
    )
}

#[test]
fn a_failed_login_is_a_refusal_of_who_exists() {
    let line = record("28P01", "FATAL", "password authentication failed for user \"cart\"", "");
    let batch = parse(&mut PostgresCsv::default(), &line).expect("an event");
    let event = batch.event(0);
    assert_eq!(
        (event.kind(), event.outcome(), event.auth_method()),
        (Kind::Authentication, Outcome::Refused, "password")
    );
    assert_eq!((event.source().principal(), event.source().ip()), ("cart", "10.0.0.7"));
    let nobody = record("28000", "FATAL", "role \"cart\" does not exist", "");
    let batch = parse(&mut PostgresCsv::default(), &nobody).expect("an event");
    assert_eq!(batch.event(0).source().principal(), "10.0.0.7");
    let hidden = line.replace(",,,,,,,,,\"psql\"", ",\"Role \"\"cart\"\" does not exist.\",,,,,,,,\"psql\"");
    assert_ne!(hidden, line);
    let batch = parse(&mut PostgresCsv::default(), &hidden).expect("an event");
    assert_eq!(batch.event(0).source().principal(), "10.0.0.7");
}

#[test]
fn a_statement_over_several_lines_is_one_record() {
    let mut format = PostgresCsv::default();
    let line = record("42501", "ERROR", "permission denied for table orders", "SELECT *\nFROM orders\nWHERE x = 'y'");
    let mut lines = line.split('\n');
    let mut next = || parse(&mut format, lines.next().expect("three lines"));
    assert_eq!((next().err(), next().err()), (Some(Rejection::Part), Some(Rejection::Part)));
    let batch = next().expect("an event");
    assert_eq!((batch.event(0).operation(), batch.event(0).outcome()), ("SELECT orders", Outcome::Refused));
    assert_eq!(batch.event(0).denial_reason(), "42501 permission denied for table orders");
}

#[test]
fn a_statement_cannot_forge_a_record() {
    let mut format = PostgresCsv::default();
    let forged = record("28P01", "FATAL", "password authentication failed for user \"bank\"", "").replace('"', "\"\"");
    let line = record("42601", "ERROR", "syntax error", &format!("SELECT 1\n{forged}\n"));
    let outcomes: Vec<_> = line.split('\n').map(|line| parse(&mut format, line).map(|batch| batch.len())).collect();
    assert_eq!(outcomes, [Err(Rejection::Part), Err(Rejection::Part), Ok(1)]);
}

#[test]
fn a_record_that_never_ends_is_given_up() {
    let mut format = PostgresCsv::default();
    let line = record("42601", "ERROR", "syntax error", "SELECT 1\n2");
    let (begin, _) = line.split_once('\n').expect("two lines");
    assert_eq!(parse(&mut format, begin).err(), Some(Rejection::Part));
    let last = (0..100).map(|_| parse(&mut format, &"x".repeat(1000)).err()).find(|why| *why != Some(Rejection::Part));
    assert_eq!(last, Some(Some(Invalid::TooLong.into())));
    assert!(format.open.is_empty());
    assert_eq!(
        parse(&mut format, &record("42601", "ERROR", "syntax error", "SELECT 1")).map(|batch| batch.len()),
        Ok(1)
    );
}

#[test]
fn no_literal_of_a_statement_is_told() {
    for line in [
        record("00000", "LOG", "AUDIT: SESSION,1,1,WRITE,INSERT,,,INSERT INTO users VALUES ('hunter2'),<none>", ""),
        record("00000", "LOG", "duration: 12.345 ms  statement: SELECT 'hunter2' FROM users", ""),
        record("22P02", "ERROR", "invalid input syntax for type integer: \"hunter2\"", "SELECT 'hunter2'"),
    ] {
        let batch = parse(&mut PostgresCsv::default(), &line).expect("an event");
        assert!(!format!("{:?}", batch.as_record_batch()).contains("hunter2"), "{line}");
    }
}
