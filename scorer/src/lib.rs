//! From events to verdicts, trust and action.
//!
//! # Layout
//! - [`scorer`]: observe an event: score, decide, then perhaps learn; `judge`, `standing`: bits to levels
//! - `workloads`, `parting`: which workload calls where several share one principal, and how each is judged on its own
//! - [`grounds`]: what a step was decided from, and the step that follows; decisions recomputed
//! - `shard`, `door`, `names`, `memory`, `forgotten`: what is kept of whom, and within which bound
//! - [`peers`]: who behaves like whom, fitted in the background or read from a file, and whose ten minutes are unlike
//! - `mesh`, `tide`, `watermark`: what is known of the mesh as a whole, in summaries closed in event time
//! - [`snapshot`], [`order`]: state and position saved together, and in which order partitions were read
//! - [`carriers`], [`familiar`]: which records a verdict rests on, and how often what they show was seen before
//! - [`incidents`]: episodes with one cause are one alert
//! - [`config`], [`verdict`]: what the operator decides; what the scorer decides
//! - [`operator`]: what an operator decides by hand, while it runs
//! - `breaker`: where too many are limited at once, nobody is
//! - [`withheld`]: what was too odd to be learned
//! - `limiting`: what each limited subject may still do
//! - [`table`]: the trust table that enforcement points hold, and what they report back
//! - [`journal`]: every decision, append-only and hash-chained
//! - [`notify`]: one alert an episode, delivered at least once
//! - [`containment`]: whether what was decided has taken effect
//! - [`enforce`]: enforcement points, each behind [`enforce::Enforcer`]
//!
//! **Invariant:** nothing here reads a clock or waits for an enforcement point while scoring.

mod absence;
mod breaker;
pub mod carriers;
pub mod config;
pub mod containment;
mod door;
pub mod enforce;
mod estate;
pub mod familiar;
mod forgotten;
pub mod grounds;
pub mod guard;
pub mod incidents;
pub mod journal;
mod judge;
mod limiting;
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
pub mod withheld;
mod workloads;
