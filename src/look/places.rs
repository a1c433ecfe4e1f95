//! Where in JSON records of somebody's own the line stands that a format reads: what `envelope` is to name.

use qualm_ingest::{
    envelope::Envelope,
    parse::{Format, Parser},
};
use qualm_model::event::{EventBuilder, Position};
use serde_json::Value;

/// Records whose keys are looked at.
const LOOKED_AT: usize = 8;
/// Places that are tried, and how deep they may stand.
const MAX_PLACES: usize = 64;
const MAX_DEPTH: usize = 3;
/// No shorter text is a line.
const LEAST_LINE: usize = 24;
/// A place fits from which so great a share of the records can be read.
const FITS: f64 = 0.5;

/// A parser of what stands at a place.
pub(super) fn parser(pointer: &str) -> Option<Parser> {
    let parser = Parser::for_format(Format::Auto, None).ok()?;
    Some(parser.with_envelope(Envelope::Pointer(pointer.to_owned())))
}

/// The place from which most of these records can be read, as a JSON pointer, with their share.
pub(super) fn fitting(records: &[Vec<u8>]) -> Option<(String, f64)> {
    let mut places = Vec::new();
    for record in records.iter().take(LOOKED_AT) {
        let Ok(value) = serde_json::from_slice::<Value>(record) else { continue };
        gather(&value, "", 0, &mut places);
    }
    let shares = places.into_iter().map(|place| {
        let share = share(&place, records);
        (place, share)
    });
    // Of equals the one that was found first, which stands highest.
    let best = shares.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.filter(|&(_, share)| share >= FITS)
}

fn gather(value: &Value, at: &str, depth: usize, places: &mut Vec<String>) {
    let Value::Object(object) = value else { return };
    let may_be_line = |value: &Value| match value {
        Value::String(text) => text.len() >= LEAST_LINE,
        Value::Object(object) => !object.is_empty(),
        _ => false,
    };
    let within: Vec<(String, &Value)> = object
        .iter()
        .filter(|(_, value)| may_be_line(value))
        .map(|(key, value)| (format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), value))
        .collect();
    for (place, _) in &within {
        if places.len() < MAX_PLACES && !places.contains(place) {
            places.push(place.clone());
        }
    }
    if depth + 1 < MAX_DEPTH {
        within.into_iter().for_each(|(place, value)| gather(value, &place, depth + 1, places));
    }
}

fn share(place: &str, records: &[Vec<u8>]) -> f64 {
    let Some(mut parser) = parser(place) else { return 0.0 };
    let mut builder = EventBuilder::new();
    let read = records.iter().filter(|record| parser.parse(record, Position::default(), &mut builder).is_ok()).count();
    read as f64 / records.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line() -> Value {
        json!({
            "start_time": "2026-11-22T02:02:24.122Z", "duration": 2, "method": "GET", "path": "/v1/orders",
            "response_code": 200, "downstream_remote_address": "10.0.0.7:32830", "upstream_cluster": "inbound|80||",
        })
    }

    fn records(of: impl Fn(usize) -> Value) -> Vec<Vec<u8>> {
        (0..20).map(|number| of(number).to_string().into_bytes()).collect()
    }

    #[test]
    fn the_place_of_a_proxys_line_in_googles_wrapping_and_in_anybodys_own_is_found() {
        let google = records(|number| {
            json!({
                "insertId": number.to_string(), "logName": "projects/p/logs/stdout", "jsonPayload": line(),
                "resource": { "type": "k8s_container", "labels": { "pod_name": "cart-5d4f-x7x2p" } },
            })
        });
        assert_eq!(fitting(&google), Some(("/jsonPayload".to_owned(), 1.0)));
        let nested = records(|_| json!({ "meta": { "x": 1 }, "data": { "a/b": line().to_string() } }));
        assert_eq!(fitting(&nested), Some(("/data/a~1b".to_owned(), 1.0)));
    }

    #[test]
    fn in_what_holds_no_line_there_is_no_place() {
        let own =
            records(|number| json!({ "level": "info", "msg": "the quick brown fox jumps", "n": { "m": number } }));
        assert_eq!(fitting(&own), None);
        assert_eq!(fitting(&[b"the quick brown fox".to_vec()]), None);
    }
}
