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

use self::{
    flood::{Flood, Flooded, Form, Kind, Pace},
    resident::{Task, apart},
    state::{Shape, State},
    support::parts,
};

const FEW: u64 = 300_000;
const MANY: u64 = 10_000_000;

#[test]
fn an_edge_takes_at_most_2_kb_and_an_identity_at_most_4() {
    let days = if std::env::var("QUALM_LONG").is_ok() { 3.0 } else { 0.5 };
    let whole: State = apart(Task::State { shape: Shape::Whole, days });
    let one_edge_each: State = apart(Task::State { shape: Shape::OneEdgeEach, days });
    let State { identities, edges, .. } = whole;
    assert_eq!(identities, one_edge_each.identities);
    let an_edge = (whole.bytes - one_edge_each.bytes) / (edges - one_edge_each.edges);
    let an_identity = one_edge_each.bytes / identities - an_edge;
    println!(
        "{identities} identities, {edges} edges: {an_edge} bytes an edge, {an_identity} an identity; {:.1} MiB resident, {:.1} claimed",
        whole.bytes as f64 / f64::from(1 << 20),
        whole.claimed as f64 / f64::from(1 << 20),
    );
    println!("{whole:?}\n{one_edge_each:?}");
    assert!(edges > 4 * identities);
    assert!(an_edge <= 2_000, "{an_edge} bytes an edge, with its operations and names");
    assert!(an_identity <= 4_000, "{an_identity} bytes an identity, with its share of what the mesh as a whole takes");
    assert!(whole.claimed as f64 >= 0.9 * whole.bytes as f64, "the bound rests on the claim: {whole:?}");
}

/// What the bound does not count: the filters of what was folded, and what one batch and one summary hold.
const SLACK_MIB: f64 = 24.0;

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
    let seen: Flooded = apart(Task::Flood(flood));
    println!("{flood:?}: {seen:#?}");
    assert!(seen.peak_mib <= flood.bound_mib as f64 + SLACK_MIB, "{seen:?}");
}
