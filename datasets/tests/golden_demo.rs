//! What was generated before stays as it was: figures measured on it keep their meaning.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use qualm_datasets::{AccessLog, Millis, Scenario, Traffic};

/// Monday, 2026-01-05T00:00:00Z.
const MONDAY: Millis = Millis::from_seconds(1_767_571_200);

/// Fowler, Noll and Vo's hash, version 1a.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_demo_is_byte_for_byte_what_it_was() {
    let scenario = Arc::new(Scenario::demo(7, MONDAY).unwrap());
    let log = AccessLog::new(scenario.mesh());
    let (mut hash, mut calls, mut line) = (0xcbf2_9ce4_8422_2325, 0, Vec::new());
    for call in Traffic::new(Arc::clone(&scenario)) {
        line.clear();
        log.push_inbound(&call, &mut line);
        hash = fnv(hash, &line);
        calls += 1;
    }
    assert_eq!((calls, hash), (1_425_181, 9_005_698_814_010_417_212));
}
