//! From events to verdicts, trust and action.
//!
//! # Layout
//! - [`table`]: the trust table that enforcement points hold, and what they report back
//! - [`journal`]: every decision, append-only and hash-chained
//! - [`enforce`]: enforcement points, each behind [`enforce::Enforcer`]
//!
//! **Invariant:** nothing here reads a clock or waits for an enforcement point while scoring.

pub mod enforce;
pub mod journal;
pub mod table;
