//! Call chains: a request to a service makes it call others, with the same request id and within its time.

use super::{
    State,
    flow::{Factors, compose, status},
};
use crate::{
    call::Call,
    mesh::{Edge, Kind, Mesh, Pattern},
    random::Stream,
};

/// A request leads through so many services at most.
const DEEPEST: u32 = 5;
/// Mean calls that one request causes on one edge, at most.
const WIDEST: f64 = 2.0;

/// Which calls cause which others, by the service that is called.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    /// Index of an edge and the mean number of calls on it for each call to the service.
    causes: Vec<Vec<(usize, f64)>>,
    /// By edge: the share of its calls that are caused by none.
    own: Vec<f64>,
}

impl Chains {
    /// Chains `share` of what gateways and APIs call to what is called of them, so that every edge keeps its rate.
    pub(crate) fn new(mesh: &Mesh, share: f64) -> Self {
        let mut incoming = vec![0.0; mesh.services.len()];
        for edge in &mesh.edges {
            incoming[edge.destination.0 as usize] += steady(edge);
        }
        let mut chains = Self { causes: vec![Vec::new(); mesh.services.len()], own: vec![1.0; mesh.edges.len()] };
        if share <= 0.0 {
            return chains;
        }
        for (index, edge) in mesh.edges.iter().enumerate() {
            let (rate, into) = (steady(edge), incoming[edge.source.0 as usize]);
            let is_front = matches!(mesh.service(edge.source).kind, Kind::Gateway | Kind::Api);
            if rate <= 0.0 || into <= 0.0 || !is_front || edge.since_minor > 0 {
                continue;
            }
            let mean = (share * rate / into).min(WIDEST);
            chains.causes[edge.source.0 as usize].push((index, mean));
            chains.own[index] = 1.0 - mean * into / rate;
        }
        chains
    }

    /// Share of an edge's calls that no other call causes.
    pub(crate) fn own(&self, edge: usize) -> f64 {
        self.own.get(edge).copied().unwrap_or(1.0)
    }
}

/// Appends what the call at `parent` causes, and makes the parent last as long as that takes.
pub(super) fn fan_out(stream: &mut Stream, mesh: &Mesh, state: &State, parent: usize, depth: u32, out: &mut Vec<Call>) {
    let call = out[parent];
    let service = mesh.instance(call.destination).service;
    let Some(causes) = state.chains.causes.get(service.0 as usize).filter(|causes| !causes.is_empty()) else { return };
    let mut end = call.report();
    for &(edge, mean) in causes {
        let edge = &mesh.edges[edge];
        let mut draw = stream.uniform();
        let mut count = mean as u32;
        if draw < mean.fract() {
            count += 1;
            draw /= mean.fract();
        }
        if count == 0 || edge.born > call.start || edge.gone <= call.start {
            continue;
        }
        for number in 0..count {
            let after = ((draw + f64::from(number)) / f64::from(count) * f64::from(call.duration) * 0.8) as i64;
            let operation = edge.operation(stream.uniform() as f32);
            let live = &state.live[edge.destination.0 as usize];
            let destination = live[stream.below(live.len())];
            let failure = edge.failure + state.failing[edge.destination.0 as usize];
            let status = status(stream, mesh.operation(operation), failure);
            let factors = Factors { failed: status >= 500, ..Factors::default() };
            let ends = (call.destination, destination, operation);
            let caused = compose(stream, mesh, ends, call.start + after, status, factors);
            out.push(Call { request: call.request, ..caused });
            let place = out.len() - 1;
            if depth < DEEPEST && status < 500 {
                fan_out(stream, mesh, state, place, depth + 1, out);
            }
            // A connection to a store outlives the request that opened it.
            if mesh.operation(operation).protocol != crate::mesh::Protocol::Tcp {
                end = end.max(out[place].report());
            }
        }
    }
    out[parent].duration = (end - call.start) as u32;
}

fn steady(edge: &Edge) -> f64 {
    if let Pattern::Steady { rate } = edge.pattern { rate } else { 0.0 }
}
