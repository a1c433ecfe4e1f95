//! What the judgement reaches over many meshes and public sets, with the shipped defaults: the figures of
//! `docs/judgement.md`, side by side, to see what a change gains and where it hurts.
//!
//! ```
//! benches/judge/meshes target/judge                         # ten labelled meshes by `qualm generate`, once
//! cargo bench --bench judge -- target/judge/m* darpa darpa-benign ait
//! cargo bench --bench judge -- --without rare-source,new-peer target/judge/m*
//! ```
//! A folder is a mesh as `qualm generate` writes it; its events are kept sorted beside it, since they are read often.
//! No label is seen by anything but the figures.
//!
//! # Layout
//! - `stream`: events of a set in the order of their time
//! - `replay`: the scorer over them, as `qualm backtest` does
//! - `mesh`: what was found of a generated mesh; `tally`: over all of them; `kinds`: which reasons are true of a kind
//! - `public`: the figures of public sets
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program of figures; what is amiss ends it"
)]

#[allow(dead_code, reason = "the figures' own test stands there")]
#[path = "../tests/backtest/figures.rs"]
mod figures;
#[path = "judge/kinds.rs"]
mod kinds;
#[path = "judge/mesh.rs"]
mod mesh;
#[path = "judge/public.rs"]
mod public;
#[path = "judge/replay.rs"]
mod replay;
#[allow(dead_code, reason = "the product's own")]
#[path = "../src/backtest/sort.rs"]
mod sort;
#[allow(dead_code, reason = "the product's own")]
#[path = "../src/backtest/spill.rs"]
mod spill;
#[path = "judge/stream.rs"]
mod stream;
#[path = "judge/tally.rs"]
mod tally;

use std::path::{Path, PathBuf};

use qualm_model::detector::Question;
use tally::Tally;

/// What was asked for.
#[derive(Default)]
struct Args {
    /// Sets by their names, and folders of generated meshes.
    sets: Vec<String>,
    /// Questions whose answers get no weight.
    without: Vec<Question>,
    /// Whether each attack and each wrongful entry is told.
    each: bool,
}

fn args() -> Args {
    let mut args = Args::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // Cargo says so to every bench.
            "--bench" => {}
            "--each" => args.each = true,
            "--without" => {
                let names = words.next().unwrap();
                args.without = names.split(',').map(|name| Question::named(name).expect(name)).collect();
            }
            _ => args.sets.push(word),
        }
    }
    args
}

/// Where the project's shared data are.
fn shared(file: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    std::env::var_os("QUALM_DATA").map_or(beside, PathBuf::from).join(file)
}

fn main() {
    let args = args();
    let mut tally = Tally::default();
    for set in &args.sets {
        match set.as_str() {
            "darpa" => println!("{}", public::darpa(&args.without)),
            "darpa-benign" => println!("{}", public::darpa_benign(&args.without)),
            "ait" => println!("{}", public::ait(&args.without)),
            folder => {
                let found = mesh::evaluate(Path::new(folder), &args.without);
                println!("{}", found.sentence());
                if args.each {
                    println!("{}", found.each());
                }
                tally.add(&found);
            }
        }
    }
    if tally.meshes() > 0 {
        println!("{}", tally.text());
    }
}
