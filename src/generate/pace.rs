//! When lines go out.

use std::{
    thread,
    time::{Duration, Instant},
};

use qualm_datasets::Millis;
use qualm_model::time::Clock;

use super::args::GenerateArgs;
use crate::clock;

/// Shorter waits are saved up.
const LEAST: Duration = Duration::from_millis(2);

/// How fast it goes.
pub(super) enum Pace {
    /// As fast as possible.
    Free,
    /// So many times as fast as it happened.
    Times { factor: f64, begun: Instant, start: Millis },
    /// So many lines a second.
    Lines { rate: f64, begun: Instant, sent: u64 },
    /// By the wall clock.
    Live(Clock),
}

impl Pace {
    /// The pace that was asked for.
    pub(super) fn new(args: &GenerateArgs, start: Millis) -> Self {
        match (args.speed, args.per_second) {
            (Some(factor), _) => Self::Times { factor, begun: Instant::now(), start },
            (None, Some(rate)) => Self::Lines { rate, begun: Instant::now(), sent: 0 },
            (None, None) if args.live => Self::Live(clock::system()),
            (None, None) => Self::Free,
        }
    }

    /// Waits until a line that arrives then is due.
    pub(super) fn wait_for(&mut self, arrival: Millis) {
        let left = match self {
            Self::Free => return,
            Self::Times { factor, begun, start } => {
                let due = (arrival - *start).max(0) as f64 / 1_000.0 / *factor;
                Duration::from_secs_f64(due).saturating_sub(begun.elapsed())
            }
            Self::Lines { rate, begun, sent } => {
                *sent += 1;
                Duration::from_secs_f64(*sent as f64 / *rate).saturating_sub(begun.elapsed())
            }
            Self::Live(clock) => {
                let now = clock.now().0.div_euclid(1_000_000);
                Duration::from_millis((arrival.0 - now).max(0).unsigned_abs())
            }
        };
        if left >= LEAST {
            thread::sleep(left);
        }
    }
}
