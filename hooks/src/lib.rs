//! Revocation at those who issue and check credentials: what a verdict triggers elsewhere, done once and undone exactly.
//!
//! # Layout
//! - [`order`]: who stands at which level and why
//! - [`policy`]: which order has which effects, who must approve, for how long; [`ruling`]: what becomes of one that fails
//! - [`effect`], [`outbox`]: one hook's effect on one subject, and where it is kept
//! - [`ledger`]: what is wanted, was done, and is next; it does nothing itself
//! - [`engine`], `worker`: the threads that do
//! - [`hook`]: what a hook is; [`kind`]: the systems; [`http`], [`template`]: how most are asked; `pem`: by which certificates
//! - [`config`], [`metrics`]
//!
//! **Invariants:** nobody waits for a hook; nothing is changed anywhere before how it was is on disk, or, of what comes
//! later under the same order, noted at the changed object by the same change; what is changed ends with its order; no
//! crate of the workspace but `model` is known.

pub mod config;
pub mod effect;
pub mod engine;
pub mod hook;
pub mod http;
pub mod kind;
pub mod ledger;
pub mod metrics;
pub mod order;
pub mod outbox;
mod pem;
pub mod policy;
pub mod ruling;
pub mod template;
mod worker;
