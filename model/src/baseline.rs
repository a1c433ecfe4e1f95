//! The detectors of one source, one edge, one operation, one destination.

mod destination;
mod edge;
mod operation;
mod siblings;
mod source;

pub use self::{
    destination::{DestinationBaseline, Received},
    edge::EdgeBaseline,
    operation::OperationBaseline,
    siblings::SiblingRate,
    source::{CallRates, FirstTimes, SourceBaseline},
};
use crate::{stats::Exposure, time::Span};

/// The minute for which a baseline has closed its windows, and the tide that its counts expect: all windows are whole
/// minutes, so that nothing more changes before the next of either.
#[derive(Debug, Clone, Copy)]
struct Turned {
    minute: i64,
    tide: f64,
}

impl Default for Turned {
    fn default() -> Self {
        Self { minute: i64::MIN, tide: 1.0 }
    }
}

impl PartialEq for Turned {
    /// Turning twice is turning once: a baseline that has to look again is the same.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Turned {
    /// Whether windows may have ended or the tide turned since the last time.
    #[inline]
    fn is_due(&mut self, exposure: Exposure) -> bool {
        let minute = exposure.now.window(Span::MINUTE);
        let due = minute > self.minute || exposure.tide != self.tide;
        *self = Self { minute: self.minute.max(minute), tide: exposure.tide };
        due
    }
}
