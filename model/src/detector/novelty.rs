//! Is it new? How seldom this source shows an operation, credential or TLS stack for the first time, or meets a peer.

use serde::{Deserialize, Serialize};

use super::{Detector, Deviation, Observation, window};
use crate::stats::trust;

const MINUTE: i64 = 60;

/// First times a source has had, over the minutes in which it was active.
///
/// With `k` trusted minutes with a first time in `n` active minutes, `x = (n + 1)/(k + 1)`: the inverse of the
/// share of minutes in which this source shows something new, Laplace's rule. An attribute that is not only new here,
/// but new to the mesh, has that much more surprise (`more`). A source that always shows new
/// things says nothing by doing it again. Whether the attribute is new is found by the caller, which keeps the
/// sets; what was folded away to save memory is not new when it returns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Novelty {
    minute: i64,
    minutes: u32,
    with_first_times: f32,
    first_times: u16,
    /// How odd the oddest first time of the open minute is besides; 0 without any.
    odds: f32,
}

impl Novelty {
    #[inline]
    fn x(&self) -> f64 {
        (f64::from(self.minutes) + 1.0) / (f64::from(self.with_first_times) + 1.0)
    }

    #[inline]
    fn open_x(&self) -> f64 {
        if self.first_times > 0 { self.x() } else { 1.0 }
    }
}

impl Detector for Novelty {
    #[inline]
    fn score_one(&self, seen: &Observation) -> Option<Deviation> {
        let novel = seen.novel?;
        let in_open_minute = seen.exposure.now.window(window(MINUTE)) <= self.minute;
        let first_times = u16::from(novel) + if in_open_minute { self.first_times } else { 0 };
        // Only the call that shows something new is remarkable: the next may be another replica's, as usual as ever.
        let x = if novel { self.x() * f64::from(first_times) * seen.more } else { 1.0 };
        Some(Deviation {
            x: x.max(1.0),
            observed: f64::from(first_times),
            expected: 1.0 / self.x(),
            n: f64::from(self.minutes),
        })
    }

    #[inline]
    fn learn_one(&mut self, seen: &Observation) -> Option<f64> {
        let novel = seen.novel?;
        let minute = seen.exposure.now.window(window(MINUTE));
        let mut sample = None;
        if minute > self.minute {
            if self.minutes > 0 || self.first_times > 0 {
                let x = self.open_x() * f64::from(self.first_times.max(1)) * f64::from(self.odds.max(1.0));
                if self.first_times > 0 {
                    self.with_first_times += trust(libm::log(x)) as f32;
                }
                sample = Some(x.max(1.0));
            }
            self.minutes = self.minutes.saturating_add(1);
            self.minute = minute;
            self.first_times = 0;
            self.odds = 0.0;
        }
        self.first_times = self.first_times.saturating_add(u16::from(novel));
        if novel {
            self.odds = self.odds.max(seen.more as f32);
        }
        sample
    }
}
