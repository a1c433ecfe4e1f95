//! What happens to the reports of calls before anybody reads them: two witnesses or one, losses, delays, clocks that
//! are wrong, duplicates, sampling, and interim records of long connections.
//!
//! Every draw is a hash of the call's id, so that a switch or an attack changes nothing but what it is about.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use crate::{
    calendar::{MINUTE, Millis, SECOND},
    call::Call,
    istio::{Side, Stage},
    mesh::{Kind, Mesh, Protocol},
    random::scramble,
    scenario::Scenario,
    traffic::Traffic,
};

/// No report comes later than this after its call: what waits is bounded by the calls of so long a time.
pub const LONGEST_DELAY: i64 = 10 * MINUTE;

/// Whose proxies report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reporters {
    /// The called one's.
    #[default]
    Destination,
    /// The caller's.
    Source,
    /// Both.
    Both,
}

/// Which calls are reported at all.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Keep {
    /// All.
    #[default]
    All,
    /// This share of the requests, by request id, so that both proxies keep the same.
    Share(f64),
    /// Only those with a status of 400 and above.
    Failures,
}

/// The switches. The default is clean: the destination's report of every call, at once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Dirt {
    /// Whose proxies report.
    pub reporters: Reporters,
    /// Which calls are reported.
    pub keep: Keep,
    /// Share of the destinations' reports that is lost, 0 to 1.
    pub lost: f64,
    /// Share of the sources' reports that is lost, 0 to 1.
    pub lost_at_source: f64,
    /// Share of the reports that comes twice.
    pub duplicated: f64,
    /// Median delay from a call's end to its report's arrival, milliseconds; every pod has its own around it.
    pub delay: f64,
    /// Share of the reports that comes up to five minutes later than that.
    pub stragglers: f64,
    /// Standard deviation of the nodes' clocks, milliseconds.
    pub skew: f64,
    /// Long connections are also reported every so many milliseconds while they are open.
    pub interim: Option<i64>,
}

/// One report of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// When it arrives.
    pub arrival: Millis,
    /// The call as the reporter's clock and counters have it.
    pub call: Call,
    /// Whose report.
    pub side: Side,
    /// Whether the call has ended.
    pub stage: Stage,
}

/// Iterator over the reports of a scenario's calls, non-decreasing in [`Report::arrival`].
#[derive(Debug)]
pub struct Reports {
    traffic: Traffic,
    dirt: Dirt,
    /// Everything that arrives before is handed out.
    horizon: Millis,
    waiting: BinaryHeap<Reverse<Waiting>>,
    number: u64,
    /// Calls of which no report was made or all were lost.
    unseen: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Waiting {
    report: Report,
    number: u64,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.report.arrival, self.number).cmp(&(other.report.arrival, other.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Dirt {
    fn reports(&self, side: Side) -> bool {
        match self.reporters {
            Reporters::Both => true,
            Reporters::Destination => side == Side::Inbound,
            Reporters::Source => side == Side::Outbound,
        }
    }

    fn keeps(&self, call: &Call) -> bool {
        match self.keep {
            Keep::All => true,
            Keep::Share(share) => uniform(call.request, 1) < share,
            Keep::Failures => call.status >= 400,
        }
    }

    /// How long a report travels.
    fn travel(&self, mesh: &Mesh, call: &Call, side: Side) -> i64 {
        if self.delay <= 0.0 && self.stragglers <= 0.0 {
            return 0;
        }
        let pod = if side == Side::Inbound { call.destination } else { call.source };
        let own = 0.5 + 1.5 * uniform(u64::from(u32::from(mesh.instance(pod).address)), 2);
        let radius = (-2.0 * libm::log(1.0 - uniform(call.id, 3 + side as u64))).sqrt();
        let normal = radius * libm::cos(core::f64::consts::TAU * uniform(call.id, 5 + side as u64));
        let mut travel = self.delay * own * libm::exp(0.6 * normal);
        if uniform(call.id, 7 + side as u64) < self.stragglers {
            travel += uniform(call.id, 9) * 5.0 * MINUTE as f64;
        }
        (travel as i64).min(LONGEST_DELAY)
    }

    /// How far the clock of the reporter's node is off.
    fn offset(&self, mesh: &Mesh, call: &Call, side: Side) -> i64 {
        if self.skew <= 0.0 {
            return 0;
        }
        let node = u64::from(mesh.node_of(if side == Side::Inbound { call.destination } else { call.source }));
        let sum: f64 = (0..12).map(|part| uniform(node ^ mesh.config.seed, 20 + part)).sum();
        // The sum of twelve uniform numbers has variance 1.
        (self.skew * (sum - 6.0)) as i64
    }
}

impl Reports {
    /// The reports of the scenario's calls under these switches.
    pub fn new(scenario: Arc<Scenario>, dirt: Dirt) -> Self {
        let horizon = scenario.start();
        let mut traffic = Traffic::new(scenario);
        if let Some(period) = dirt.interim {
            traffic.announce_longer_than(period.max(SECOND));
        }
        Self { traffic, dirt, horizon, waiting: BinaryHeap::new(), number: 0, unseen: 0 }
    }

    /// The next report, and every call as it ends with `ended`, in the order of the traffic.
    pub fn next_with(&mut self, mut ended: impl FnMut(&Call)) -> Option<Report> {
        loop {
            let due = |waiting: &Reverse<Waiting>| waiting.0.report.arrival <= self.horizon;
            if self.waiting.peek().is_some_and(due) {
                return self.waiting.pop().map(|Reverse(waiting)| waiting.report);
            }
            let Some(call) = self.traffic.next() else {
                return self.waiting.pop().map(|Reverse(waiting)| waiting.report);
            };
            ended(&call);
            for started in self.traffic.take_announced() {
                self.interim(&started);
            }
            self.horizon = call.report();
            self.end(&call);
        }
    }

    /// Calls so far of which no report arrives.
    pub fn unseen(&self) -> u64 {
        self.unseen
    }

    /// Reports that wait for their arrival.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn end(&mut self, call: &Call) {
        let scenario = Arc::clone(self.traffic.scenario());
        let before = self.number;
        for side in [Side::Inbound, Side::Outbound] {
            let bypassed = side == Side::Inbound && scenario.is_unwitnessed(call);
            let lost = if side == Side::Inbound { self.dirt.lost } else { self.dirt.lost_at_source };
            let is_lost = lost > 0.0 && uniform(call.id, 11 + side as u64) < lost;
            // Users have no proxy that could tell of their calls.
            let is_mute = side == Side::Outbound && scenario.mesh().service_of(call.source).kind == Kind::Client;
            if self.dirt.reports(side) && self.dirt.keeps(call) && !bypassed && !is_lost && !is_mute {
                let stage = if self.dirt.interim.is_some() { Stage::Ended } else { Stage::Only };
                self.push(scenario.mesh(), *call, side, stage, call.report());
            }
        }
        self.unseen += u64::from(self.number == before);
    }

    /// The interim records of a connection that has just begun: bytes and time so far.
    fn interim(&mut self, call: &Call) {
        let Some(period) = self.dirt.interim else { return };
        let scenario = Arc::clone(self.traffic.scenario());
        let mut so_far = period;
        while so_far < i64::from(call.duration) {
            let part = |bytes: u64| (bytes as f64 * so_far as f64 / f64::from(call.duration)) as u64;
            let (bytes_in, bytes_out) = (part(call.bytes_in), part(call.bytes_out));
            let now = Call { bytes_in, bytes_out, duration: so_far as u32, ..*call };
            for side in [Side::Inbound, Side::Outbound] {
                if self.dirt.reports(side) && self.dirt.keeps(call) {
                    self.push(scenario.mesh(), now, side, Stage::Open, now.report());
                }
            }
            so_far += period;
        }
    }

    fn push(&mut self, mesh: &Mesh, mut call: Call, side: Side, stage: Stage, at: Millis) {
        call.start = call.start + self.dirt.offset(mesh, &call, side);
        let arrival = at + self.dirt.travel(mesh, &call, side);
        let report = Report { arrival, call, side, stage };
        self.wait(report);
        if self.dirt.duplicated > 0.0 && uniform(call.id, 13 + side as u64) < self.dirt.duplicated {
            let later = 1 + (uniform(call.id, 15) * 30.0 * SECOND as f64) as i64;
            self.wait(Report { arrival: arrival + later, ..report });
        }
    }

    fn wait(&mut self, report: Report) {
        self.number += 1;
        self.waiting.push(Reverse(Waiting { report, number: self.number }));
    }
}

impl Iterator for Reports {
    type Item = Report;

    fn next(&mut self) -> Option<Report> {
        self.next_with(|_| {})
    }
}

/// Whether interim records are of this call.
pub(crate) fn is_long_connection(mesh: &Mesh, call: &Call, least: i64) -> bool {
    i64::from(call.duration) > least && mesh.operation(call.operation).protocol == Protocol::Tcp
}

/// Uniform in [0, 1) from an id, one draw by number.
fn uniform(id: u64, draw: u64) -> f64 {
    (scramble(id ^ scramble(draw ^ 0x6469_7274)) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}
