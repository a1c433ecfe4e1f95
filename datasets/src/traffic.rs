//! The calls of a scenario, lazily and in order of their report time.
//!
//! Time goes in slots of at most a minute: every edge and every train draws the calls that begin in the slot, and
//! what has been reported by its end is handed out in order. Memory is one slot's calls and those still running.

mod chain;
mod flow;
mod train;

use std::sync::Arc;

pub(crate) use flow::Factors;
pub(crate) use train::{Answer, Origin, Step, Train};

use self::{
    chain::Chains,
    flow::{Ends, Flow},
    train::TrainRun,
};
use crate::{
    calendar::{MINUTE, Millis},
    call::Call,
    dirt::is_long_connection,
    mesh::{InstanceId, Kind, ServiceId},
    random::{Purpose, Stream},
    rhythm::{Wander, rhythm},
    scenario::{Effect, Move, Scenario, Witness},
};

/// Calls a slot should hold at most, on average.
const SLOT_CALLS: f64 = 20_000.0;
/// Standard deviation of the logarithm of a service's wandering rate.
const SERVICE_SIGMA: f64 = 0.4;

/// Iterator over the calls of a [`Scenario`], non-decreasing in [`Call::report`].
#[derive(Debug)]
pub struct Traffic {
    scenario: Arc<Scenario>,
    /// Length of a slot in milliseconds; divides a minute.
    slot: i64,
    /// Begin of the next slot; everything reported before it is in `ready`.
    horizon: Millis,
    ready: Vec<Call>,
    cursor: usize,
    flows: Vec<Flow>,
    wanders: Vec<(Stream, Wander)>,
    state: State,
    next_move: usize,
    next_train: usize,
    trains: Vec<TrainRun>,
    /// Connections longer than this are announced when they begin.
    announced_from: Option<i64>,
    announced: Vec<Call>,
}

/// What holds in the present slot.
#[derive(Debug)]
pub(crate) struct State {
    /// Live replicas by service.
    pub(crate) live: Vec<Vec<InstanceId>>,
    /// Probability by service that calls to it fail for an outage.
    pub(crate) failing: Vec<f64>,
    /// Factor by service on the rate of its own calls: rhythm, wandering and changes.
    rates: Vec<f64>,
    /// Which calls cause which.
    chains: Chains,
}

impl Traffic {
    /// The traffic of `scenario`, from its start to its end.
    pub fn new(scenario: Arc<Scenario>) -> Self {
        let mesh = scenario.mesh();
        let seed = mesh.config.seed;
        let expected_per_minute = mesh.config.calls_per_second * 60.0;
        let slots = [1, 2, 3, 4, 6, 12, 20, 30, 60, 120, 600, 6_000];
        let parts = slots.into_iter().find(|&n| expected_per_minute / n as f64 <= SLOT_CALLS).unwrap_or(6_000);
        let start = scenario.start();
        let chains = Chains::new(mesh, scenario.chained());
        let flow = |index| Flow::new(mesh, index, start, chains.own(index), scenario.zone());
        let flows = (0..mesh.edges.len()).map(flow).collect();
        let wanders = mesh.ids().map(|id| {
            let mut stream = Stream::new(seed, Purpose::Service, u64::from(id.0));
            let wander = Wander::new(&mut stream, SERVICE_SIGMA);
            (stream, wander)
        });
        Self {
            slot: MINUTE / parts,
            horizon: start,
            ready: Vec::new(),
            cursor: 0,
            flows,
            wanders: wanders.collect(),
            state: State {
                live: mesh.services.iter().map(|service| service.replicas.clone()).collect(),
                failing: vec![0.0; mesh.services.len()],
                rates: vec![1.0; mesh.services.len()],
                chains,
            },
            next_move: 0,
            next_train: 0,
            trains: Vec::new(),
            announced_from: None,
            announced: Vec::new(),
            scenario,
        }
    }

    /// The scenario whose calls these are.
    pub fn scenario(&self) -> &Arc<Scenario> {
        &self.scenario
    }

    /// Keeps connections that last longer than `least` milliseconds for [`Self::take_announced`].
    pub(crate) fn announce_longer_than(&mut self, least: i64) {
        self.announced_from = Some(least);
    }

    /// Long connections that have begun since.
    pub(crate) fn take_announced(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.announced)
    }

    /// Draws the slot that begins at the horizon and moves the horizon to its end.
    fn draw_slot(&mut self) {
        let scenario = Arc::clone(&self.scenario);
        let (from, until) = (self.horizon, Millis((self.horizon + self.slot).0.min(scenario.end().0)));
        let new_minute = (from - scenario.start()) % MINUTE == 0;
        self.ready.drain(..self.cursor);
        self.cursor = 0;
        let before = self.ready.len();
        self.apply_moves(&scenario, until);
        if new_minute {
            self.begin_minute(&scenario, from);
        }
        let mesh = scenario.mesh();
        for (flow, edge) in self.flows.iter_mut().zip(&mesh.edges) {
            if edge.born < until && from < edge.gone {
                let rate = self.state.rates[edge.source.0 as usize];
                let ends = Ends { mesh, edge, state: &self.state, zone: scenario.zone() };
                flow.draw(&ends, rate, new_minute, from, until, &mut self.ready);
            }
        }
        self.draw_trains(&scenario, until);
        if let Some(least) = self.announced_from {
            let fresh = self.ready[before..].iter().filter(|call| is_long_connection(mesh, call, least));
            self.announced.extend(fresh);
        }
        self.hush(&scenario, from, until);
        self.ready.sort_unstable_by_key(|call| (call.report(), call.start, call.id));
        self.horizon = until;
    }

    fn apply_moves(&mut self, scenario: &Scenario, until: Millis) {
        while let Some(step) = scenario.moves().get(self.next_move).filter(|step| step.at < until) {
            let live = &mut self.state.live[step.service.0 as usize];
            match step.action {
                Move::Replace(slot, instance) => {
                    if let Some(replica) = live.get_mut(slot) {
                        *replica = instance;
                    }
                }
                Move::Add(instance) => live.push(instance),
                Move::Remove => {
                    if live.len() > 1 {
                        live.pop();
                    }
                }
            }
            self.next_move += 1;
        }
    }

    /// Rhythm, wandering and changes of the minute that begins.
    fn begin_minute(&mut self, scenario: &Scenario, now: Millis) {
        let local = now + scenario.zone().offset(now);
        let beats = |kind| rhythm(kind, local);
        let (gateway, api, worker) = (beats(Kind::Gateway), beats(Kind::Api), beats(Kind::Worker));
        self.state.failing.fill(0.0);
        for (service, (stream, wander)) in self.wanders.iter_mut().enumerate() {
            wander.step(stream);
            let beat = match scenario.mesh().services[service].kind {
                Kind::Gateway | Kind::Client => gateway,
                Kind::Api => api,
                Kind::Worker => worker,
                _ => 1.0,
            };
            self.state.rates[service] = beat * libm::exp(wander.log_factor());
        }
        for shift in scenario.shifts().iter().filter(|shift| shift.from <= now && now < shift.until) {
            match shift.effect {
                Effect::MeshRate(factor) => self.state.rates.iter_mut().for_each(|rate| *rate *= factor),
                Effect::SourceRate(ServiceId(id), factor) => self.state.rates[id as usize] *= factor,
                Effect::Failing(ServiceId(id), probability) => self.state.failing[id as usize] = probability,
            }
        }
    }

    /// Takes away what nobody reports. The calls are drawn all the same, so that everything after is as it would be.
    fn hush(&mut self, scenario: &Scenario, from: Millis, until: Millis) {
        let mesh = scenario.mesh();
        for silence in scenario
            .silences()
            .iter()
            .filter(|silence| silence.of == Witness::Both && silence.from < until && from < silence.until)
        {
            let is_of = |instance| mesh.instance(instance).service == silence.service;
            self.ready.retain(|call| {
                let within = silence.from <= call.start && call.start < silence.until;
                !(within && !call.is_attack() && (is_of(call.source) || is_of(call.destination)))
            });
        }
    }

    fn draw_trains(&mut self, scenario: &Scenario, until: Millis) {
        while let Some(train) = scenario.trains().get(self.next_train).filter(|train| train.start < until) {
            self.trains.push(TrainRun::new(scenario.mesh().config.seed, self.next_train, train));
            self.next_train += 1;
        }
        let (state, ready) = (&self.state, &mut self.ready);
        self.trains.retain_mut(|run| run.draw(scenario, state, until, ready));
    }
}

impl Iterator for Traffic {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        loop {
            if let Some(call) = self.ready.get(self.cursor)
                && (call.report() < self.horizon || self.horizon >= self.scenario.end())
            {
                self.cursor += 1;
                return Some(*call);
            }
            if self.horizon >= self.scenario.end() {
                return None;
            }
            self.draw_slot();
        }
    }
}
