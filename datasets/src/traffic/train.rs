//! A train of calls: what an attacker, a debugging person or a rare job does, one step after another.

use super::{
    State,
    flow::{Factors, compose},
};
use crate::{
    calendar::Millis,
    call::{Call, Cause},
    mesh::{InstanceId, OperationId, ServiceId},
    random::{Purpose, Stream, scramble},
    scenario::Scenario,
};

/// `count` calls, one every `gap` milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Train {
    /// When the first call begins.
    pub(crate) start: Millis,
    /// Number of calls.
    pub(crate) count: u32,
    /// Milliseconds from step to step.
    pub(crate) gap: i64,
    /// Part of the gap by which a step may be late, 0 to 1.
    pub(crate) jitter: f64,
    /// Who calls.
    pub(crate) origin: Origin,
    /// What is called, in turn and again from the first.
    pub(crate) steps: Vec<Step>,
    /// How it is answered.
    pub(crate) answer: Answer,
    /// How sizes and durations differ from the operation's usual.
    pub(crate) factors: Factors,
    /// Which attack or change it belongs to.
    pub(crate) cause: Cause,
    /// Which of its attack's trains it is; those after the first have streams of their own.
    pub(crate) salt: u64,
}

/// Who makes the calls of a train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The replica at this place of the service's list, whichever pod it is at the time.
    Replica(ServiceId, usize),
    /// Any replica.
    Any(ServiceId),
    /// One instance, alive or not.
    Instance(InstanceId),
}

/// One call of a train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) destination: ServiceId,
    pub(crate) operation: OperationId,
}

/// How the calls of a train are answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Answer {
    /// As the operation usually answers.
    Usual,
    /// With this status but for the given share, which succeeds.
    Mostly(u16, f64),
    /// With one of two statuses, the second with the given share, and 3 % successes.
    Either(u16, u16, f64),
    /// So many of the first calls with this status, the others as usual.
    Until(u32, u16),
}

impl Train {
    /// No call of the train begins after this.
    pub(crate) fn end(&self) -> Millis {
        self.start + self.gap * i64::from(self.count)
    }
}

/// A train on its way.
#[derive(Debug)]
pub(super) struct TrainRun {
    index: usize,
    stream: Stream,
    done: u32,
    next: Millis,
}

impl TrainRun {
    pub(super) fn new(seed: u64, index: usize, train: &Train) -> Self {
        // Keyed by what the train is, not by its place, so that another train does not change it.
        let key = train.start.0 as u64 ^ u64::from(train.count) << 44 ^ (train.steps.len() as u64) << 56;
        Self {
            index,
            stream: Stream::new(seed, Purpose::Train, key ^ scramble(train.salt) ^ scramble(0)),
            done: 0,
            next: train.start,
        }
    }

    /// Draws the calls that begin before `until`; false when the last one has been made.
    pub(super) fn draw(&mut self, scenario: &Scenario, state: &State, until: Millis, out: &mut Vec<Call>) -> bool {
        let train = &scenario.trains()[self.index];
        while self.done < train.count && self.next < until {
            self.step(scenario, state, train, out);
            self.done += 1;
            let late = (self.stream.uniform() * train.jitter * train.gap as f64) as i64;
            self.next = train.start + train.gap * i64::from(self.done) + late;
        }
        self.done < train.count
    }

    fn step(&mut self, scenario: &Scenario, state: &State, train: &Train, out: &mut Vec<Call>) {
        let Some(&step) = train.steps.get(self.done as usize % train.steps.len().max(1)) else { return };
        let live = |service: ServiceId| &state.live[service.0 as usize];
        let source = match train.origin {
            Origin::Instance(instance) => instance,
            Origin::Replica(service, place) => live(service)[place % live(service).len()],
            Origin::Any(service) => live(service)[self.stream.below(live(service).len())],
        };
        let destination = live(step.destination)[self.stream.below(live(step.destination).len())];
        let status = self.status(scenario.mesh().operation(step.operation).success(), train.answer);
        let ends = (source, destination, step.operation);
        let mut call = compose(&mut self.stream, scenario.mesh(), ends, self.next, status, train.factors);
        call.cause = train.cause;
        out.push(call);
    }

    fn status(&mut self, success: u16, answer: Answer) -> u16 {
        let draw = self.stream.uniform();
        match answer {
            Answer::Usual => success,
            Answer::Until(first, status) => {
                if self.done < first {
                    status
                } else {
                    success
                }
            }
            Answer::Mostly(status, share) => {
                if draw < share {
                    success
                } else {
                    status
                }
            }
            Answer::Either(first, second, share) => match draw {
                _ if draw < 0.03 => success,
                _ if draw < 0.03 + share => second,
                _ => first,
            },
        }
    }
}
