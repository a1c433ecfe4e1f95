//! What tests and benches measure with: CPU time, which what others of the machine do does not touch, and the place of a
//! share among measurements.
#![allow(dead_code, reason = "who measures uses a part of it")]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this process so far.
pub(crate) fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

/// CPU time of this thread so far.
pub(crate) fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        time.tv_sec.try_into().expect("CPU time is not negative"),
        time.tv_nsec.try_into().expect("a part of a second"),
    )
}

/// The measurement below which so great a share of them lies, the nearest at or below; they must be sorted, and some.
pub(crate) fn at_share<T: Copy>(sorted: &[T], share: f64) -> T {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}
