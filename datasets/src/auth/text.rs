//! Ids and times as the issuers write them.

use crate::{calendar::Millis, istio::push_bare_uuid, random::scramble};

/// A version 4 UUID.
pub(super) fn uuid(value: u64) -> String {
    let mut out = Vec::with_capacity(36);
    push_bare_uuid(&mut out, scramble(value));
    String::from_utf8(out).expect("a UUID is ASCII")
}

/// 64 hexadecimal digits: a SHA-256.
pub(super) fn digest(value: u64) -> String {
    let mut seed = value;
    let mut words = [0; 4];
    for word in &mut words {
        seed = scramble(seed);
        *word = seed;
    }
    words.iter().map(|word| format!("{word:016x}")).collect()
}

/// `2026-11-22T02:02:24.122531Z`: the issuers' clocks are finer than the calls'.
pub(super) fn micros(at: Millis, id: u64) -> String {
    let text = at.to_string();
    format!("{}{:03}Z", text.trim_end_matches('Z'), id % 1_000)
}
