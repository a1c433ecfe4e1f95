//! A small made-up mesh for the scorer's tests; everything derived from numbers, so that no randomness is needed.
#![allow(dead_code, reason = "each test file uses its part")]

use qualm_model::{
    event::{EventBatch, EventBuilder, EventDraft, Outcome, Party, Position},
    identity::Provenance,
    time::{Span, Timestamp},
};

/// A made-up call; everything derived from its number, so that no randomness is needed.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) time: Timestamp,
    pub(crate) source: String,
    pub(crate) address: &'static str,
    pub(crate) provenance: Provenance,
    pub(crate) destination: String,
    pub(crate) operation: String,
    pub(crate) bytes: u64,
    pub(crate) outcome: Outcome,
    pub(crate) decision: &'static str,
    /// TLS fingerprint (JA4) of the caller; empty where the record has none.
    pub(crate) fingerprint: &'static str,
    /// How long it took; `None` where the record does not say.
    pub(crate) duration: Option<Span>,
}

pub(crate) fn mixed(i: u64, salt: u64) -> u64 {
    let mut x = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03);
    x ^= x >> 31;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 29)
}

/// Three days of twenty services, and an odd one towards the end.
pub(crate) fn calls() -> Vec<Call> {
    let mut calls = Vec::new();
    for i in 0..60_000_u64 {
        let time = Timestamp(1_700_000_000_000_000_000 + i as i64 * 4_320_000_000);
        let source = mixed(i, 1) % 20;
        // Without somebody who looks around now and then there are no episodes to read a threshold from.
        let debugging = mixed(i, 6).is_multiple_of(300);
        let odd = i > 55_000 && i % 4 == 0;
        let source = if odd { 3 } else { source };
        let destination =
            if odd { 20 + mixed(i, 2) % 40 } else { (source + 1 + mixed(i, 2) % if debugging { 19 } else { 3 }) % 20 };
        calls.push(Call {
            time,
            source: format!("spiffe://mesh.test/ns/shop/sa/s{source}"),
            destination: format!("spiffe://mesh.test/ns/shop/sa/s{destination}"),
            operation: format!("GET /{}", if odd || debugging { mixed(i, 3) % 50 } else { mixed(i, 3) % 3 }),
            bytes: 500 + mixed(i, 4) % 400 + if odd { 1_000_000 } else { 0 },
            address: if i.is_multiple_of(2) { "10.0.0.1" } else { "10.0.0.2" },
            provenance: Provenance::Certificate,
            decision: "",
            fingerprint: "",
            duration: None,
            outcome: if mixed(i, 5).is_multiple_of(50) { Outcome::Failure } else { Outcome::Success },
        });
    }
    calls
}

pub(crate) fn batch(calls: &[Call], first: usize) -> EventBatch {
    batch_of(0, calls, first)
}

pub(crate) fn batch_of(partition: i32, calls: &[Call], first: usize) -> EventBatch {
    let mut builder = EventBuilder::new();
    for (i, call) in calls.iter().enumerate() {
        let party = |principal| Party { principal, provenance: call.provenance, ..Party::default() };
        builder.push(&EventDraft {
            start: call.time,
            report: call.time,
            source: Party { ip: call.address, ..party(&call.source) },
            destination: party(&call.destination),
            operation: &call.operation,
            bytes_in: Some(call.bytes),
            outcome: call.outcome,
            decision_id: call.decision,
            ja4: call.fingerprint,
            duration_ns: call.duration.map(|duration| duration.0),
            position: Position { partition, offset: (first + i) as i64, ..Position::default() },
            ..EventDraft::default()
        });
    }
    builder.finish()
}

/// The first nanosecond of the made-up days, and the number of a made-up call per second of event time.
pub(crate) const START: i64 = 1_700_000_000_000_000_000;

/// One more call after the made-up days.
pub(crate) fn call(time: Timestamp, source: &str, destination: &str) -> Call {
    Call {
        time,
        source: source.to_owned(),
        address: "10.0.0.1",
        provenance: Provenance::Certificate,
        destination: destination.to_owned(),
        operation: "GET /0".to_owned(),
        bytes: 700,
        outcome: Outcome::Success,
        decision: "",
        fingerprint: "",
        duration: None,
    }
}
