//! What Qualm's state takes, as the system counts it, and that it stays within its bound whatever is thrown at it.
//!
//! Every measurement runs in a process of its own, so that nothing else is counted. `cargo test --release --test memory
//! -- --nocapture` shows the figures; `tests/run --long` floods with ten million.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout)]

#[path = "memory/flood.rs"]
mod flood;
#[path = "memory/resident.rs"]
mod resident;
#[path = "memory/state.rs"]
mod state;
mod support;

use std::path::Path;

use self::{
    flood::{Flood, Flooded, Form, Kind, Pace},
    resident::{Task, apart, run_task},
    state::{Shape, State},
    support::parts,
};

const FEW: u64 = 300_000;
const MANY: u64 = 10_000_000;

#[test]
fn an_edge_with_its_operations_takes_at_most_3_2_kib_and_an_identity_at_most_4() {
    run_task();
    let days = if std::env::var("QUALM_LONG").is_ok() { 3.0 } else { 0.5 };
    let folder = tempfile::tempdir().unwrap();
    let [large, small] = [2_000, 400].map(|services| {
        let log = folder.path().join(format!("{services}.jsonl.zst"));
        state::write_log(&log, services, days);
        log
    });
    let state = |shape, log: &Path| -> State { apart(&Task::State { shape, log: log.to_owned() }) };
    let (whole, one_edge_each) = (state(Shape::Whole, &large), state(Shape::OneEdgeEach, &large));
    let few = state(Shape::OneEdgeEach, &small);
    let State { identities, edges, .. } = whole;
    assert_eq!(identities, one_edge_each.identities);
    let per = |of: fn(&State) -> u64, more: &State, less: &State, by: u64| (of(more) - of(less)) as f64 / by as f64;
    let [edge, claimed_edge]: [f64; 2] = [|s: &State| s.bytes, |s: &State| s.claimed]
        .map(|of| per(of, &whole, &one_edge_each, edges - one_edge_each.edges));
    let more = identities - few.identities;
    let [identity, claimed_identity]: [f64; 2] = [
        (edge, per(|s| s.bytes, &one_edge_each, &few, more)),
        (claimed_edge, per(|s| s.claimed, &one_edge_each, &few, more)),
    ]
    .map(|(edge, each)| each - edge);
    println!("{identities} identities, {edges} edges; resident bytes, and as the scorer counts them:");
    println!("  an edge      {edge:5.0} {claimed_edge:5.0}   with its operations and names");
    println!("  an identity  {identity:5.0} {claimed_identity:5.0}   with its instances");
    println!("  all          {:5.1} {:5.1}   MiB", mib(whole.bytes), mib(whole.claimed));
    assert!(edges > 4 * identities);
    assert!(edge <= 3_277.0 && identity <= 4_096.0, "{whole:?}\n{one_edge_each:?}\n{few:?}");
    assert!(claimed_edge >= 0.9 * edge && claimed_identity >= 0.9 * identity, "the bound rests on what is claimed");
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Beyond the bound: what one batch and one summary hold, names that wait to be swept, the allocator's own; and the calls
/// that wait for the other end's report (up to 65,536, once more in a snapshot), as this mesh has a gateway that reports.
const SLACK_MIB: f64 = 64.0;
/// And the snapshot under way: in a flood all is new since the last one.
const SNAPSHOT_SHARE: f64 = 0.5;

#[test]
fn a_flood_of_paths_stays_within_the_bound() {
    flood(Kind::Paths, FEW, Form::Events, Pace::Hour);
}

#[test]
fn a_flood_of_peers_stays_within_the_bound() {
    flood(Kind::Peers, FEW, Form::Events, Pace::Hour);
}

#[test]
fn a_flood_of_identities_stays_within_the_bound() {
    flood(Kind::Identities, FEW, Form::Events, Pace::Hour);
}

#[test]
fn a_flood_of_paths_in_log_lines_stays_within_the_bound() {
    flood(Kind::Paths, FEW, Form::Lines, Pace::Hour);
}

#[test]
fn a_flood_of_peers_at_one_moment_stays_within_the_bound() {
    flood(Kind::Peers, FEW, Form::Lines, Pace::Moment);
}

#[test]
fn a_flood_of_identities_at_one_moment_stays_within_the_bound() {
    flood(Kind::Identities, FEW, Form::Lines, Pace::Moment);
}

#[test]
fn ten_million_paths_stay_within_the_bound() {
    if parts::long_run() {
        flood(Kind::Paths, MANY, Form::Events, Pace::Hour);
    }
}

#[test]
fn ten_million_peers_stay_within_the_bound() {
    if parts::long_run() {
        flood(Kind::Peers, MANY, Form::Events, Pace::Hour);
    }
}

#[test]
fn ten_million_identities_stay_within_the_bound() {
    if parts::long_run() {
        flood(Kind::Identities, MANY, Form::Events, Pace::Hour);
    }
}

#[test]
fn ten_million_paths_in_log_lines_stay_within_the_bound() {
    if parts::long_run() {
        flood(Kind::Paths, MANY, Form::Lines, Pace::Hour);
    }
}

fn flood(kind: Kind, many: u64, form: Form, pace: Pace) {
    let flood = Flood { kind, many, form, pace, bound_mib: if many > FEW { 128 } else { 32 } };
    run_task();
    let seen: Flooded = apart(&Task::Flood(flood));
    println!("{flood:?}: {seen:#?}");
    let bound = flood.bound_mib as f64;
    assert!(seen.claimed_mib <= bound && seen.peak_mib <= bound * (1.0 + SNAPSHOT_SHARE) + SLACK_MIB, "{seen:?}");
    // Paths beyond the cap of an edge are one operation from the first, and nothing of them is kept.
    assert!(kind == Kind::Paths || seen.folded > many / 2, "what was folded is counted: {seen:?}");
    let others = &seen.others;
    assert!(others.events > 10_000);
    assert_eq!(others.higher, 0.0, "nobody else looks odder by a bit: {others:?}");
    assert!(others.lower < 0.01 && others.bits_apart[0] < 0.1 && others.bits_apart[1] < 1.0, "{others:?}");
    let [calm, flooded] = &others.entries;
    assert!(flooded.iter().all(|entry| calm.contains(entry)), "no entry because of the flood: {others:?}");
}
