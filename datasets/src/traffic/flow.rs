//! The everyday calls of one edge.

use super::{State, chain::fan_out};
use crate::{
    calendar::{DAY, HOUR, MINUTE, Millis, Zone},
    call::{Call, Cause},
    mesh::{Edge, InstanceId, Kind, Mesh, Operation, OperationId, Pattern, Protocol, Schedule},
    random::{Purpose, Stream, scramble},
    rhythm::Wander,
};

/// Standard deviation of the logarithm of an edge's own wandering rate.
const EDGE_SIGMA: f64 = 0.5;
/// Probability that a call which names an id asks for one that is gone.
const NOT_FOUND: f64 = 0.004;
/// Probability that a call is refused on an ordinary day: expired sessions, missing grants.
const REFUSED: f64 = 0.0003;
/// Probability that a failed call is tried again, and how often at most.
const RETRY: (f64, u32) = (0.6, 2);

/// State of one edge.
#[derive(Debug)]
pub(super) struct Flow {
    stream: Stream,
    /// What calls cause in others is drawn from a stream of its own.
    chain: Stream,
    /// Share of the calls that no other call causes.
    own: f64,
    wander: Wander,
    /// Calls a second in this minute, for a steady edge.
    rate: f64,
    /// Next call of a periodic edge, or begin of the next or present run of a job.
    next: Millis,
}

/// The edge in its mesh, as it is in the present slot.
pub(super) struct Ends<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) edge: &'a Edge,
    pub(super) state: &'a State,
    pub(super) zone: Zone,
}

impl Flow {
    pub(super) fn new(mesh: &Mesh, index: usize, start: Millis, own: f64, zone: Zone) -> Self {
        let mut stream = Stream::new(mesh.config.seed, Purpose::Edge, index as u64);
        let wander = Wander::new(&mut stream, EDGE_SIGMA);
        let edge = &mesh.edges[index];
        let begin = start.max(edge.born);
        let next = match edge.pattern {
            Pattern::Steady { .. } => begin,
            Pattern::Periodic { period } => begin + stream.below(period as usize) as i64,
            Pattern::Job { schedule, .. } => next_run(schedule, begin, zone),
        };
        let chain = Stream::new(mesh.config.seed, Purpose::Chain, index as u64);
        Self { stream, chain, own, wander, rate: 0.0, next }
    }

    /// Draws the calls that begin in [`from`, `until`). `rate` is the factor on the caller's rates.
    pub(super) fn draw(
        &mut self,
        ends: &Ends<'_>,
        rate: f64,
        new_minute: bool,
        from: Millis,
        until: Millis,
        out: &mut Vec<Call>,
    ) {
        match ends.edge.pattern {
            Pattern::Steady { rate: mean } => {
                if new_minute {
                    self.wander.step(&mut self.stream);
                    self.rate = mean * self.own * rate * libm::exp(self.wander.log_factor());
                }
                self.scatter(ends, self.rate, from.max(ends.edge.born), until.min(ends.edge.gone), out);
            }
            Pattern::Periodic { period } => {
                while self.next < until {
                    self.call(ends, self.next, out);
                    let jitter = self.stream.between(-0.02, 0.02) * period as f64;
                    self.next = self.next + (period + jitter as i64);
                }
            }
            Pattern::Job { schedule, calls, span } => {
                if until <= self.next {
                    return;
                }
                let rate = calls / (span as f64 / 1_000.0);
                self.scatter(ends, rate, from.max(self.next), until.min(self.next + span), out);
                if self.next + span <= until {
                    let late = self.stream.below(2 * MINUTE as usize) as i64;
                    self.next = next_run(schedule, self.next + MINUTE * 5, ends.zone) + late;
                }
            }
        }
    }

    /// A Poisson number of calls, uniform over [`from`, `until`).
    fn scatter(&mut self, ends: &Ends<'_>, rate: f64, from: Millis, until: Millis, out: &mut Vec<Call>) {
        let width = until - from;
        if width <= 0 {
            return;
        }
        for _ in 0..self.stream.poisson(rate * width as f64 / 1_000.0) {
            let start = from + self.stream.below(width as usize) as i64;
            self.call(ends, start, out);
        }
    }

    /// One call and what retries it causes.
    fn call(&mut self, ends: &Ends<'_>, mut start: Millis, out: &mut Vec<Call>) {
        let Ends { mesh, edge, state, .. } = *ends;
        let draw = self.stream.uniform() as f32;
        let operation = edge.operation(draw);
        let replica = |stream: &mut Stream, live: &[InstanceId]| live[stream.below(live.len())];
        let source = replica(&mut self.stream, &state.live[edge.source.0 as usize]);
        if mesh.instance(source).minor < edge.since_minor {
            return;
        }
        let failure = edge.failure + state.failing[edge.destination.0 as usize];
        for attempt in 0..=RETRY.1 {
            let destination = replica(&mut self.stream, &state.live[edge.destination.0 as usize]);
            let status = status(&mut self.stream, mesh.operation(operation), failure);
            let factors = Factors { failed: status >= 500, ..Factors::default() };
            let mut call = compose(&mut self.stream, mesh, (source, destination, operation), start, status, factors);
            if mesh.service(edge.source).kind == Kind::Client {
                call.source = user(&state.live[edge.source.0 as usize], call.id);
            }
            out.push(call);
            if status < 500 {
                fan_out(&mut self.chain, mesh, state, out.len() - 1, 1, out);
            }
            if status < 500 || attempt == RETRY.1 || !self.stream.chance(RETRY.0) {
                return;
            }
            start = call.report() + 25 + self.stream.below(100 << attempt) as i64;
        }
    }
}

/// The status of an everyday call that fails with probability `failure`.
pub(super) fn status(stream: &mut Stream, operation: &Operation, failure: f64) -> u16 {
    let draw = stream.uniform();
    if draw < failure {
        return [503, 503, 500, 504][(stream.bits() >> 62) as usize];
    }
    let draw = (draw - failure) / (1.0 - failure).max(1e-9);
    if operation.protocol == Protocol::Tcp {
        200
    } else if draw < REFUSED {
        if draw < REFUSED / 2.0 { 401 } else { 403 }
    } else if draw < REFUSED + NOT_FOUND && operation.names_an_id() {
        404
    } else {
        operation.success()
    }
}

/// The user whose request it is: the one whose address the gateway passes on.
fn user(users: &[InstanceId], id: u64) -> InstanceId {
    users[(scramble(id) >> 56) as usize % users.len()]
}

/// How a call differs from the usual of its operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Factors {
    /// On the request's median size.
    pub(crate) bytes_in: f64,
    /// On the response's median size.
    pub(crate) bytes_out: f64,
    /// On the median duration.
    pub(crate) duration: f64,
    /// The upstream did not answer: no body, a time-out or a quick reset.
    pub(crate) failed: bool,
}

impl Default for Factors {
    fn default() -> Self {
        Self { bytes_in: 1.0, bytes_out: 1.0, duration: 1.0, failed: false }
    }
}

/// Draws size and duration of a call whose ends, operation and status are known.
pub(super) fn compose(
    stream: &mut Stream,
    mesh: &Mesh,
    (source, destination, operation): (InstanceId, InstanceId, OperationId),
    start: Millis,
    status: u16,
    factors: Factors,
) -> Call {
    /// No call runs longer than this, so that the calls still running are bounded.
    const LONGEST: f64 = HOUR as f64;
    let shape = mesh.operation(operation);
    let id = stream.bits();
    let bytes_in = shape.request.draw(stream, factors.bytes_in) as u64;
    let mut bytes_out = shape.response.draw(stream, factors.bytes_out) as u64;
    let mut duration = shape.duration.draw(stream, factors.duration).min(LONGEST) as u32;
    if factors.failed {
        bytes_out = if status == 504 { 24 } else { 91 };
        duration = if status == 504 { 5_000 } else { 1 + duration / 4 };
    } else if status >= 400 {
        bytes_out = 120 + id % 64;
        duration /= 2;
    } else if status == 204 {
        bytes_out = 0;
    }
    Call {
        start,
        duration,
        status,
        id,
        request: id,
        source,
        destination,
        operation,
        bytes_in,
        bytes_out,
        cause: Cause::Routine,
    }
}

/// The first run at or after `time`.
fn next_run(schedule: Schedule, time: Millis, zone: Zone) -> Millis {
    let offset = zone.offset(time);
    next_local_run(schedule, time + offset) + -offset
}

fn next_local_run(schedule: Schedule, time: Millis) -> Millis {
    let every = |period: i64, offset: i64| Millis(time.0 + (offset - time.0).rem_euclid(period));
    match schedule {
        Schedule::Hourly(offset) => every(HOUR, offset),
        Schedule::Daily(offset) => every(DAY, offset),
        // 1970-01-01 was a Thursday: the first Monday is day 4.
        Schedule::Weekly(offset) => every(7 * DAY, 4 * DAY + offset),
        Schedule::Monthly(offset) => {
            let mut run = every(DAY, offset);
            while run.date().2 != 1 {
                run = run + DAY;
            }
            run
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_when_their_schedule_says() {
        let noon = Millis::from_seconds(1_795_348_800); // 2026-11-22T12:00:00Z, a Sunday
        let run = |schedule| next_run(schedule, noon, Zone::Utc).to_string();
        assert_eq!(run(Schedule::Hourly(MINUTE)), "2026-11-22T12:01:00.000Z");
        assert_eq!(run(Schedule::Daily(2 * HOUR)), "2026-11-23T02:00:00.000Z");
        assert_eq!(run(Schedule::Weekly(DAY)), "2026-11-24T00:00:00.000Z");
        assert_eq!(run(Schedule::Monthly(HOUR)), "2026-12-01T01:00:00.000Z");
    }
}
