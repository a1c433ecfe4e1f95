//! TEMPORARY
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// knobs
pub static K: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];
/// knob
#[inline]
pub fn k(i: usize) -> f64 { f64::from_bits(K[i].load(Relaxed)) }
/// set
pub fn set(i: usize, v: f64) { K[i].store(v.to_bits(), Relaxed); }
