//! Which field a record was refused for, asked of the parser itself: it is read again with its fields left out one by
//! one, or with the sample's put in. For samples in a dead-letter topic alone: it costs many readings.

use qualm_model::event::{EventBuilder, Position};
use serde_json::Value;

use super::Parser;
use crate::source::{Invalid, Rejection};

/// Fields that are tried.
const MAX_FIELDS: usize = 128;
/// Objects in objects, and in texts, that are looked into.
const MAX_DEPTH: usize = 8;
/// Records of a sample of which fields are put in.
const SAMPLE_RECORDS: usize = 4;

/// Keys from the outermost object on; a text that holds JSON is stepped into like an object.
type Path = Vec<String>;

/// The field for which `parser`, which must have read nothing yet, refuses a record. `None` where it is no matter of one
/// field, or of none that has a name.
pub(crate) fn field(fresh: &dyn Fn() -> Parser, sample: &str, record: &[u8], why: Invalid) -> Option<String> {
    let text = str::from_utf8(record).ok()?;
    // What stands before it is a shipper's.
    let (head, body) = text.split_at(text.find('{')?);
    let value: Value = serde_json::from_str(body.trim_end()).ok()?;
    let outcome = |value: &Value| {
        let mut builder = EventBuilder::new();
        fresh().parse(format!("{head}{value}").as_bytes(), Position::default(), &mut builder)
    };
    let found = match why {
        Invalid::WrongType | Invalid::ImpossibleTime | Invalid::FutureTime | Invalid::PastTime => {
            let without = |path: &Path| changed(&value, path, None);
            first(paths(&value).into_iter().map(|path| (without(&path), path)), why, &outcome)
        }
        Invalid::MissingField | Invalid::MissingIdentity => {
            let place = innermost(&value);
            let records =
                sample.lines().take(SAMPLE_RECORDS).filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let candidates = records.flat_map(|record| {
                let of = |path: Path| {
                    let given = at(&record, &path)?;
                    let path: Path = place.iter().cloned().chain(path).collect();
                    let is_absent = at(&value, &path).is_none_or(|found| is_nothing(&found));
                    is_absent.then(|| (changed(&value, &path, Some(given)), path))
                };
                paths(&record).into_iter().filter_map(of).collect::<Vec<_>>()
            });
            first(candidates, why, &outcome)
        }
        _ => None,
    }?;
    let shown: Vec<&str> = found.iter().map(String::as_str).collect();
    Some(shown.join("."))
}

/// The first change that makes an event of it; else the first after which something else is wrong.
fn first(
    candidates: impl Iterator<Item = (Option<Value>, Path)>,
    why: Invalid,
    outcome: &dyn Fn(&Value) -> Result<(), Rejection>,
) -> Option<Path> {
    let mut second = None;
    for (value, path) in candidates.take(MAX_FIELDS) {
        match value.as_ref().map(outcome) {
            Some(Ok(()) | Err(Rejection::Part)) => return Some(path),
            Some(Err(Rejection::Invalid(other))) if other != why => second = second.or(Some(path)),
            _ => {}
        }
    }
    second
}

/// The places of all values that are neither object nor nothing.
fn paths(value: &Value) -> Vec<Path> {
    fn walk(value: &Value, path: &mut Path, found: &mut Vec<Path>) {
        if found.len() >= MAX_FIELDS || path.len() > MAX_DEPTH {
            return;
        }
        let inner = within(value);
        match inner.as_ref().unwrap_or(value) {
            Value::Object(object) => {
                for (key, value) in object {
                    path.push(key.clone());
                    walk(value, path, found);
                    path.pop();
                }
            }
            value if !is_nothing(value) => found.push(path.clone()),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, &mut Path::new(), &mut found);
    found
}

/// Where the record lies that envelopes hold as a text.
fn innermost(value: &Value) -> Path {
    let holder = paths(value).into_iter().find_map(|path| {
        let deepest =
            (1..path.len()).rev().find(|&end| at(value, &path[..end]).is_some_and(|of| within(&of).is_some()));
        deepest.map(|end| path[..end].to_vec())
    });
    holder.unwrap_or_default()
}

/// The object that a text holds.
fn within(value: &Value) -> Option<Value> {
    let text = value.as_str().filter(|text| text.starts_with('{'))?;
    serde_json::from_str(text.trim_end()).ok().filter(Value::is_object)
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.is_empty() || text == "-")
}

/// What is at a place.
fn at(value: &Value, path: &[String]) -> Option<Value> {
    path.iter().try_fold(value.clone(), |value, key| within(&value).unwrap_or(value).get(key).cloned())
}

/// A value with another one at a place, or none there.
fn changed(value: &Value, path: &[String], given: Option<Value>) -> Option<Value> {
    let (key, rest) = path.split_first()?;
    let inner = within(value);
    let mut object = inner.as_ref().unwrap_or(value).as_object()?.clone();
    match (rest.is_empty(), given) {
        (true, Some(given)) => drop(object.insert(key.clone(), given)),
        (true, None) => drop(object.remove(key)?),
        (false, given) => {
            let below = object.get(key).cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
            drop(object.insert(key.clone(), changed(&below, rest, given)?));
        }
    }
    let object = Value::Object(object);
    Some(if inner.is_some() { Value::String(object.to_string()) } else { object })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Format;

    const LINE: &str = r#"{"start_time":"2026-11-22T02:02:24Z","duration":2,"method":"GET","path":"/x","response_code":200,"downstream_remote_address":"10.0.0.7:1"}"#;

    fn blamed(format: Format, record: &str) -> Option<String> {
        let fresh = || Parser::for_format(format, None).expect("needs no mapping");
        let mut builder = EventBuilder::new();
        let Err(Rejection::Invalid(why)) = fresh().parse(record.as_bytes(), Position::default(), &mut builder) else {
            panic!("it is not refused: {record}")
        };
        field(&fresh, format.sample(), record.as_bytes(), why)
    }

    #[test]
    fn the_field_of_a_wrong_type_or_time_is_named_whatever_is_around_it() {
        let wrong = LINE.replace("200", "\"OK\"");
        let of = |record: &str| blamed(Format::IstioJson, record);
        assert_eq!(of(&wrong).as_deref(), Some("response_code"));
        assert_eq!(of(&LINE.replace("11-22T", "02-31T")).as_deref(), Some("start_time"));
        let wrapped = serde_json::json!({ "log": wrong, "kubernetes": { "pod_name": "a-1" } }).to_string();
        assert_eq!(of(&wrapped).as_deref(), Some("log.response_code"));
        assert_eq!(of(&format!("2026-11-22T02:02:25Z stdout F {wrong}")).as_deref(), Some("response_code"));
    }

    #[test]
    fn the_field_that_is_missing_is_named_by_the_sample() {
        let without = LINE.replace(r#""start_time":"2026-11-22T02:02:24Z","#, "");
        assert_eq!(blamed(Format::IstioJson, &without).as_deref(), Some("start_time"));
        let wrapped = serde_json::json!({ "log": without, "kubernetes": { "pod_name": "a-1" } }).to_string();
        assert_eq!(blamed(Format::IstioJson, &wrapped).as_deref(), Some("log.start_time"));
    }

    #[test]
    fn no_field_is_blamed_for_what_has_none() {
        assert_eq!(blamed(Format::IstioJson, &LINE[..60]), None);
    }
}
