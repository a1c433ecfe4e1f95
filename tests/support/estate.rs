//! A generated mesh with a past, some of whose replicas live on in the test as callers of real sidecars.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
};

use qualm_datasets::{
    AccessLog, Call, MeshConfig, Millis, Scenario, Traffic,
    mesh::{Kind, Protocol, ServiceId},
};
use qualm_model::time::Timestamp;
use serde_json::{Value, json};

/// Days of quiet traffic before the present: enough to arm every level (6 days), and some.
const PAST_DAYS: i64 = 8;
/// Hours of quiet traffic beyond the present: longer than any test.
const FUTURE_HOURS: i64 = 2;
const HOUR_MS: i64 = 3_600_000;
/// What the present is to the generator, whenever the test runs: 2026-11-18 14:00 UTC, a Wednesday. So the traffic is
/// the same every time.
const PRESENT: Millis = Millis(1_795_010_400_000);

pub(crate) struct Estate {
    scenario: Arc<Scenario>,
    /// From the generator's present to that of the test, in milliseconds.
    shift: i64,
    lives: HashMap<Ipv4Addr, Life>,
}

/// How a generated replica appears from now on, and so that it is no stranger, how it has always appeared.
struct Life {
    address: Ipv4Addr,
    /// What a sidecar wrote of one of its calls.
    seen: Value,
}

/// What a sidecar writes of the caller itself, whatever it asks for.
const OF_THE_CALLER: [&str; 8] = [
    "downstream_peer_subject",
    "downstream_peer_issuer",
    "downstream_peer_serial",
    "downstream_peer_fingerprint_256",
    "downstream_peer_cert_v_start",
    "downstream_peer_cert_v_end",
    "tls_ja3_fingerprint",
    "tls_ja4_fingerprint",
];

/// A service and one that it calls all the time by HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    /// SPIFFE ID of the caller.
    pub(crate) caller: String,
    /// SPIFFE ID of the called.
    pub(crate) called: String,
    /// Addresses of the caller's generated replicas, at least two.
    pub(crate) replicas: Vec<Ipv4Addr>,
    /// What it asks for, as it stands in the log: method and path.
    pub(crate) usual: Vec<(String, String)>,
}

/// One line of the destination's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// When it is written.
    pub(crate) report: Millis,
    /// The destination's SPIFFE ID.
    pub(crate) key: String,
    pub(crate) text: Vec<u8>,
}

impl Estate {
    /// A quiet mesh of 24 services around `present`.
    pub(crate) fn generate(seed: u64, present: Timestamp) -> Self {
        Self::of_services(24, seed, present)
    }

    /// A quiet mesh of so many services around `present`; each makes about 30 calls an hour.
    pub(crate) fn of_services(services: usize, seed: u64, present: Timestamp) -> Self {
        let config = MeshConfig { seed, services, calls_per_second: services as f64 / 120.0 };
        let start = PRESENT + -PAST_DAYS * 24 * HOUR_MS;
        let days = PAST_DAYS as f64 + FUTURE_HOURS as f64 / 24.0;
        let scenario = Scenario::quiet(config, start, days).expect("a mesh of that size can be generated");
        Self { scenario: Arc::new(scenario), shift: present.0 / 1_000_000 - PRESENT.0, lives: HashMap::new() }
    }

    fn calls(&self) -> impl Iterator<Item = Call> + use<> {
        let shift = self.shift;
        Traffic::new(Arc::clone(&self.scenario)).map(move |call| Call { start: call.start + shift, ..call })
    }

    /// Pairs by their number of calls, the busiest first; no caller and no called service appears twice.
    pub(crate) fn busiest_pairs(&self) -> Vec<Pair> {
        let mesh = self.scenario.mesh();
        let mut calls: HashMap<(ServiceId, ServiceId), Vec<Call>> = HashMap::new();
        for call in self.calls() {
            let caller = mesh.service_of(call.source);
            let steady = matches!(caller.kind, Kind::Api | Kind::Worker) && caller.replicas.len() >= 2;
            if steady && mesh.operation(call.operation).protocol == Protocol::Http {
                let edge = (mesh.instance(call.source).service, mesh.instance(call.destination).service);
                calls.entry(edge).or_default().push(call);
            }
        }
        let mut edges: Vec<_> = calls.into_iter().collect();
        edges.sort_by_key(|((caller, called), calls)| (std::cmp::Reverse(calls.len()), caller.0, called.0));
        let mut seen = Vec::new();
        edges.retain(|((caller, called), _)| {
            let fresh = !seen.contains(caller) && !seen.contains(called);
            seen.extend([*caller, *called]);
            fresh
        });
        edges.iter().map(|((caller, called), calls)| self.pair(*caller, *called, calls)).collect()
    }

    /// SPIFFE IDs of the services that call others all day, and answer.
    pub(crate) fn steady(&self) -> Vec<String> {
        let mesh = self.scenario.mesh();
        let kinds = [Kind::Api, Kind::Worker].into_iter().flat_map(|kind| mesh.of_kind(kind));
        kinds.map(|id| mesh.service(id).spiffe_id.clone()).collect()
    }

    fn pair(&self, caller: ServiceId, called: ServiceId, calls: &[Call]) -> Pair {
        let mesh = self.scenario.mesh();
        let usual = calls.iter().rev().take(50).map(|call| {
            let line: Value = serde_json::from_slice(&self.line(call)).expect("the generator writes JSON");
            let text = |key: &str| line[key].as_str().expect("an HTTP call has it").to_owned();
            (text("method"), text("path"))
        });
        Pair {
            caller: mesh.service(caller).spiffe_id.clone(),
            called: mesh.service(called).spiffe_id.clone(),
            replicas: mesh.service(caller).replicas.iter().map(|id| mesh.instance(*id).address).collect(),
            usual: usual.collect(),
        }
    }

    /// The replica generated at `generated` is, and has always been, at `address`, with the certificate and the
    /// fingerprint that a sidecar has `seen` of it.
    pub(crate) fn settle(&mut self, generated: Ipv4Addr, address: Ipv4Addr, seen: Value) {
        self.lives.insert(generated, Life { address, seen });
    }

    /// What the destinations' sidecars write, in that order, from the past to the future. Beyond `present`, replicas
    /// that live on write for themselves and are left out.
    pub(crate) fn lines(&self, present: Timestamp) -> impl Iterator<Item = LogLine> + use<'_> {
        let mesh = self.scenario.mesh();
        let present = Millis(present.0 / 1_000_000);
        self.calls().filter_map(move |call| {
            let life = self.lives.get(&mesh.instance(call.source).address);
            if life.is_some() && call.report() > present {
                return None;
            }
            let text = self.line(&call);
            let text = life.map_or_else(|| text.clone(), |life| life.rewrite(&text));
            Some(LogLine { report: call.report(), key: mesh.identity(call.destination).to_owned(), text })
        })
    }

    fn line(&self, call: &Call) -> Vec<u8> {
        let mut text = Vec::new();
        AccessLog::new(self.scenario.mesh()).push_inbound(call, &mut text);
        text
    }
}

/// The last HTTP call of every caller in `lines`, by the caller's SPIFFE ID.
pub(crate) fn last_calls<'a>(lines: impl IntoIterator<Item = &'a LogLine>) -> BTreeMap<String, Value> {
    let mut calls = BTreeMap::new();
    for line in lines {
        let call: Value = serde_json::from_slice(&line.text).expect("the generator writes JSON");
        if let (Some(caller), true) = (call["downstream_peer_uri_san"].as_str(), call["method"].is_string()) {
            calls.insert(caller.to_owned(), call.clone());
        }
    }
    calls
}

/// `call` once more, at `at`, and for what nobody has ever asked for; `n` makes it another one.
pub(crate) fn misused(call: &Value, n: usize, at: Timestamp) -> Vec<u8> {
    let mut call = call.clone();
    let at = jiff::Timestamp::from_millisecond(at.0 / 1_000_000).expect("the present is a valid time");
    let (subject, step) = (["users", "cards", "keys", "audit"][n % 4], ["all", "new", "old", "raw"][n / 4 % 4]);
    call["start_time"] = json!(at.to_string());
    call["request_id"] = json!(format!("00000000-0000-4000-8000-{n:012}"));
    call["method"] = json!("POST");
    call["path"] = json!(format!("/internal/{subject}/export/{step}"));
    serde_json::to_vec(&call).expect("JSON can be written")
}

impl Life {
    fn rewrite(&self, line: &[u8]) -> Vec<u8> {
        let mut line: Value = serde_json::from_slice(line).expect("the generator writes JSON");
        for key in ["downstream_remote_address", "downstream_direct_remote_address"] {
            let port = line[key].as_str().and_then(|address| address.rsplit_once(':')).map_or("0", |(_, port)| port);
            line[key] = json!(format!("{}:{port}", self.address));
        }
        for key in OF_THE_CALLER.into_iter().filter(|key| !self.seen[*key].is_null()) {
            line[key] = self.seen[key].clone();
        }
        line["user_agent"] = json!(super::caller::USER_AGENT);
        serde_json::to_vec(&line).expect("JSON can be written")
    }
}
