//! From events to verdicts, trust and action.
//!
//! # Layout
//! - [`scorer`]: observe an event: score, decide, then perhaps learn; `judge`, `standing`: bits to levels
//! - `workloads`, `parting`: which workload calls where several share one principal, and how each is judged on its own
//! - `shard`, `door`, `names`, `memory`, `forgotten`: what is kept of whom, and within which bound
//! - [`peers`]: who behaves like whom, fitted in the background or read from a file, and whose ten minutes are unlike
//! - `mesh`, `tide`, `watermark`: what is known of the mesh as a whole, in summaries closed in event time
//! - [`snapshot`], [`order`]: state and position saved together, and in which order partitions were read
//! - [`config`], [`verdict`]: what the operator decides; what the scorer decides
//! - [`operator`]: what an operator decides by hand, while it runs
//! - [`table`]: the trust table that enforcement points hold, and what they report back
//! - [`journal`]: every decision, append-only and hash-chained
//! - [`notify`]: one alert an episode, delivered at least once
//! - [`enforce`]: enforcement points, each behind [`enforce::Enforcer`]
//!
//! **Invariant:** nothing here reads a clock or waits for an enforcement point while scoring.

mod absence;
pub mod config;
mod door;
pub mod enforce;
mod estate;
mod forgotten;
pub mod journal;
mod judge;
mod mandate;
mod memory;
mod mesh;
mod names;
pub mod notify;
pub mod operator;
pub mod order;
mod papers;
mod parting;
pub mod peers;
mod pending;
pub mod scorer;
mod scoring;
mod shard;
pub mod snapshot;
mod standing;
mod standings;
mod stopgap;
pub mod table;
mod tide;
pub mod verdict;
mod watermark;
mod workloads;
