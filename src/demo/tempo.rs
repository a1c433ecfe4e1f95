//! The demo's own wall clock: it stands at the end of the quiet days while they are read, and then runs faster than
//! any clock on a wall.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use qualm_datasets::Millis;
use qualm_model::time::{Clock, Span, Timestamp};

/// Demo time: real seconds from `start` on, and after [`Self::play`] `pace` seconds for each real one.
#[derive(Debug)]
pub(super) struct Tempo {
    start: Timestamp,
    begun: Instant,
    played: OnceLock<Instant>,
    pace: f64,
}

impl Tempo {
    /// A clock that shows `start` now.
    pub(super) fn new(start: Millis, pace: f64) -> Arc<Self> {
        Arc::new(Self { start: timestamp(start), begun: Instant::now(), played: OnceLock::new(), pace })
    }

    /// From now on time runs at the pace of the demo.
    pub(super) fn play(&self) {
        self.played.get_or_init(Instant::now);
    }

    /// The time it shows.
    pub(super) fn now(&self) -> Timestamp {
        let Some(&played) = self.played.get() else { return self.start + span(self.begun.elapsed(), 1.0) };
        self.start + span(played - self.begun, 1.0) + span(played.elapsed(), self.pace)
    }

    /// How long to wait until it shows `time`.
    pub(super) fn until(&self, time: Millis) -> Duration {
        let rest = (timestamp(time) - self.now()).as_seconds();
        Duration::from_secs_f64((rest / self.pace).max(0.0))
    }

    /// The same for the pipeline.
    pub(super) fn clock(self: &Arc<Self>) -> Clock {
        let tempo = Arc::clone(self);
        Clock::new(move || tempo.now())
    }
}

/// Event time of the generator as that of the pipeline.
pub(super) fn timestamp(time: Millis) -> Timestamp {
    Timestamp(time.0 * 1_000_000)
}

fn span(real: Duration, pace: f64) -> Span {
    Span((real.as_secs_f64() * pace * 1e9) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_steps_back_when_it_begins_to_run_fast() {
        let tempo = Tempo::new(Millis(1_000), 60.0);
        let before = tempo.now();
        tempo.play();
        assert!(before >= timestamp(Millis(1_000)) && tempo.now() >= before);
        assert!(tempo.until(Millis(1_000)).is_zero());
        assert!(tempo.until(Millis(3_601_000)) <= Duration::from_secs(60));
    }
}
