//! Every envelope around every format: the same events as without it.
//!
//! - `shippers`: the envelopes, as shippers write them; `outcome`: what a record becomes
//! - `combinations`, `origin`, `broken`, `pieces`, `requests`: what must hold
#![allow(clippy::unwrap_used)]

mod broken;
mod combinations;
mod origin;
mod outcome;
mod pieces;
mod requests;
mod shippers;
