//! What happens in the hour, as it is seen from outside: verdicts, acknowledgements, calls let through and denied.
//! Of the labels it knows nothing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use qualm_datasets::{Call, Scenario};
use qualm_model::{
    evidence::Pace,
    identity::Hierarchy,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    notify::Finding,
    verdict::{Cause, Verdict},
};

use super::{gate::Gate, screen::Screen, tempo::timestamp};
use crate::finding::{Findings, Setting};

/// Reasons that are told.
const TOLD: usize = 3;

/// A verdict with what was measured about it.
pub(super) struct Step {
    pub(super) verdict: Verdict,
    /// From the causing event's line being handed to Kafka to the verdict.
    pub(super) decided_in: Option<Duration>,
    /// From the verdict to the acknowledgement of the enforcement point.
    pub(super) acknowledged_in: Option<Duration>,
    told: Instant,
}

/// A call of the hour and what became of it.
pub(super) struct Fate {
    pub(super) call: Call,
    pub(super) denied: Option<String>,
}

/// The hour so far.
pub(super) struct Story {
    scenario: Arc<Scenario>,
    gate: Gate,
    findings: Findings,
    pub(super) steps: Vec<Step>,
    pub(super) fates: Vec<Fate>,
    /// When the report of each call was written, by caller and report time.
    written: HashMap<(u32, i64), Instant>,
    /// Steps that are not acknowledged yet.
    waiting: Vec<usize>,
    /// Decisions under which something was denied: how many calls.
    denials: BTreeMap<String, u64>,
    /// Whose lease has ended and who has not called since.
    returning: Vec<String>,
}

impl Story {
    pub(super) fn new(scenario: Arc<Scenario>, gate: Gate) -> Self {
        Self {
            scenario,
            gate,
            findings: Findings::new(Setting::Live),
            steps: Vec::new(),
            fates: Vec::new(),
            written: HashMap::new(),
            waiting: Vec::new(),
            denials: BTreeMap::new(),
            returning: Vec::new(),
        }
    }

    /// The report of a call is on its way to Kafka.
    pub(super) fn written(&mut self, call: &Call, at: Instant) {
        let service = self.scenario.mesh().instance(call.source).service;
        self.written.insert((service.0, call.report().0), at);
    }

    /// A call has begun.
    pub(super) fn called(&mut self, call: Call, denied: Option<String>, screen: &Screen) {
        let mesh = self.scenario.mesh();
        let (caller, called) = (mesh.service_of(call.source), mesh.service_of(call.destination));
        let clock = time_of_day(timestamp(call.start));
        match &denied {
            Some(decision) => {
                let count = self.denials.entry(decision.clone()).or_default();
                *count += 1;
                if *count == 1 {
                    let from = mesh.instance(call.source).address;
                    screen.line(&format!(
                        "{clock}  {} ({from}) calls {}: 403, policy qualm-deny/{}",
                        screen.bold(&caller.name),
                        called.name,
                        decision.get(..8).unwrap_or(decision),
                    ));
                }
            }
            None => {
                if let Some(place) = self.returning.iter().position(|identity| *identity == caller.spiffe_id) {
                    self.returning.swap_remove(place);
                    screen.line(&format!("{clock}  {} calls {} again: 200", screen.bold(&caller.name), called.name));
                }
            }
        }
        self.fates.push(Fate { call, denied });
    }

    /// The pipeline has decided.
    pub(super) fn decided(&mut self, verdict: Verdict, screen: &Screen) {
        let told = Instant::now();
        let finding = self.findings.tell(&verdict);
        match (verdict.cause, finding) {
            (Cause::Evidence, Some(finding)) => self.entered(verdict, &finding, told, screen),
            (Cause::Lease, Some(_)) => self.ended(verdict, told, screen),
            _ => self.push(verdict, None, told),
        }
    }

    fn entered(&mut self, verdict: Verdict, finding: &Finding, told: Instant, screen: &Screen) {
        let clock = time_of_day(verdict.decided);
        screen.line(&format!(
            "{clock}  {}: {} → {}, {}",
            screen.bold(&service(&verdict)),
            screen.level(verdict.previous),
            screen.level(verdict.level),
            scope(&verdict),
        ));
        screen.line(&format!("          because it {}", because(finding)));
        let lease = verdict.lease.map_or(0.0, Span::as_seconds) / 60.0;
        let held = verdict.held.as_deref().map(|why| format!("; held back: {why}")).unwrap_or_default();
        screen.line(&format!(
            "          evidence {:.1} bits of {:.1} needed ({} clock M {:.1}, threshold {:.1}); lease {lease:.0} min{held}",
            verdict.evidence_bits,
            verdict.threshold_bits,
            match verdict.pace { Some(Pace::Slow) => "slow", _ => "fast" },
            verdict.m,
            verdict.threshold,
        ));
        let decided_in = self.since_written(&verdict, told);
        self.waiting.push(self.steps.len());
        self.push(verdict, decided_in, told);
    }

    /// How long ago the line of the causing event was written; none for silence, which no event causes.
    fn since_written(&self, verdict: &Verdict, told: Instant) -> Option<Duration> {
        let mesh = self.scenario.mesh();
        let caller = mesh.ids().find(|&id| mesh.service(id).spiffe_id == verdict.subject.principal)?;
        let written = self.written.get(&(caller.0, verdict.time.0 / 1_000_000))?;
        Some(told.duration_since(*written))
    }

    fn ended(&mut self, verdict: Verdict, told: Instant, screen: &Screen) {
        let clock = time_of_day(verdict.decided);
        let decisions = self.steps.iter().filter(|step| step.verdict.identity == verdict.identity);
        let mut decisions: Vec<_> = decisions.map(|step| step.verdict.decision.clone()).collect();
        decisions.dedup();
        let denied: u64 = decisions.iter().filter_map(|decision| self.denials.get(decision)).sum();
        let meanwhile = if denied > 0 { format!("; {denied} calls were denied meanwhile") } else { String::new() };
        screen.line(&format!(
            "{clock}  {}: {} → {}, the lease has ended{meanwhile}",
            screen.bold(&service(&verdict)),
            screen.level(verdict.previous),
            screen.level(verdict.level),
        ));
        if verdict.previous >= Level::Throttled && verdict.level < Level::Throttled && denied > 0 {
            self.returning.push(verdict.subject.principal.clone());
        }
        self.push(verdict, None, told);
    }

    fn push(&mut self, verdict: Verdict, decided_in: Option<Duration>, told: Instant) {
        self.steps.push(Step { verdict, decided_in, acknowledged_in: None, told });
    }

    /// The enforcement point holds this version of the table.
    pub(super) fn acknowledged(&mut self, version: u64, screen: &Screen) {
        let now = Instant::now();
        let Self { waiting, steps, gate, .. } = self;
        waiting.retain(|&place| {
            let step = &mut steps[place];
            let Some(applied) = gate.applied(&step.verdict.decision).filter(|applied| applied.version <= version)
            else {
                return true;
            };
            let took = now.duration_since(step.told);
            step.acknowledged_in = Some(took);
            let in_force = applied.at.duration_since(step.told);
            let event = step.decided_in.map_or_else(
                || "verdict".to_owned(),
                |event| format!("event written to Kafka → verdict {:.1} ms", millis(event)),
            );
            screen.line(&screen.dim(&format!(
                "          {event} → in force {:.1} ms → acknowledged {:.1} ms (version {version})",
                millis(in_force),
                millis(took),
            )));
            false
        });
    }
}

/// Milliseconds of real time.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The name of a service, with its namespace.
pub(super) fn named(principal: &str) -> String {
    let place = Hierarchy::of(principal);
    place.namespace.map_or_else(|| place.service.to_owned(), |namespace| format!("{} ({namespace})", place.service))
}

fn service(verdict: &Verdict) -> String {
    named(&verdict.subject.principal)
}

fn scope(verdict: &Verdict) -> String {
    match &verdict.subject.instance {
        Some(instance) => format!("instance {instance} only"),
        None => match verdict.instances.len() {
            1 => "the whole service (1 live instance)".to_owned(),
            live => format!("the whole service ({live} live instances)"),
        },
    }
}

fn because(finding: &Finding) -> String {
    let told: Vec<String> = finding
        .reasons
        .iter()
        .take(TOLD)
        .map(|reason| {
            let usual = if reason.expected.is_empty() { String::new() } else { format!(", usual {}", reason.expected) };
            format!("{} [{:.1} bits{usual}]", reason.observed, reason.bits)
        })
        .collect();
    if told.is_empty() { "behaves unlike its past".to_owned() } else { told.join(" and ") }
}

/// `10:18:04` of demo time.
pub(super) fn time_of_day(time: Timestamp) -> String {
    let seconds = time.0.div_euclid(Span::SECOND.0).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
