//! What issuers log whatever the traffic: certificates, people's shells, and what attacks ask for beforehand.

use std::net::Ipv4Addr;

use super::{AuthLog, AuthRecord, Deed, trail::planned_token};
use crate::{
    attack::AttackKind,
    calendar::{HOUR, MINUTE, Millis, SECOND},
    call::Cause,
    mesh::{InstanceId, Kind, Mesh, ServiceId},
    random::{Purpose, Stream, scramble},
    scenario::{Move, Scenario},
};

/// Nodes that people log in to.
const NODES: usize = 12;
/// Mean shells an hour while people work.
const SHELLS: f64 = 1.5;

/// From when until when a pod lives.
#[derive(Debug, Clone, Copy)]
struct Life {
    pod: InstanceId,
    from: Millis,
    until: Millis,
}

/// Planned records, hour by hour.
#[derive(Debug)]
pub(super) struct Planned {
    lives: Vec<Life>,
    /// Of attacks, in order of time.
    of_attacks: Vec<AuthRecord>,
    next_of_attacks: usize,
    /// Of the hour that has begun, the earliest last.
    hour: Vec<AuthRecord>,
    next_hour: Millis,
}

impl Planned {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut of_attacks = of_attacks(scenario);
        of_attacks.sort_by_key(|record| (record.at, record.id));
        Self { lives: lives(scenario), of_attacks, next_of_attacks: 0, hour: Vec::new(), next_hour: scenario.start() }
    }

    /// Appends what was logged before `time`.
    pub(super) fn until(&mut self, scenario: &Scenario, time: Millis, out: &mut Vec<AuthRecord>) {
        loop {
            while self.hour.last().is_some_and(|record| record.at < time) {
                out.extend(self.hour.pop());
            }
            if time <= self.next_hour || self.next_hour >= scenario.end() {
                return;
            }
            self.draw_hour(scenario);
        }
    }

    fn draw_hour(&mut self, scenario: &Scenario) {
        let (from, until) = (self.next_hour, self.next_hour + HOUR);
        for life in self.lives.iter().filter(|life| life.from < until && from < life.until) {
            certificates(scenario.mesh(), life, from, until, &mut self.hour);
        }
        shells(scenario.mesh(), from, &mut self.hour);
        while let Some(record) = self.of_attacks.get(self.next_of_attacks).filter(|record| record.at < until) {
            self.hour.push(*record);
            self.next_of_attacks += 1;
        }
        self.hour.sort_by_key(|record| std::cmp::Reverse((record.at, record.id)));
        self.next_hour = until;
    }
}

/// Who lives when: those at the start, and what deployments, moves and scale-outs bring and take.
fn lives(scenario: &Scenario) -> Vec<Life> {
    let mesh = scenario.mesh();
    let (start, end) = (scenario.start(), scenario.end());
    let mut live: Vec<Vec<Life>> = mesh
        .services
        .iter()
        .map(|service| service.replicas.iter().map(|&pod| Life { pod, from: start, until: end }).collect())
        .collect();
    let mut gone = Vec::new();
    for step in scenario.moves() {
        let pods = &mut live[step.service.0 as usize];
        // A pod starts a minute before it serves, and its last calls outlast it.
        let (born, dead) = (step.at + -MINUTE, step.at + 5 * MINUTE);
        match step.action {
            Move::Replace(slot, pod) => {
                if let Some(place) = pods.get_mut(slot) {
                    gone.push(Life { until: dead, ..*place });
                    *place = Life { pod, from: born, until: end };
                }
            }
            Move::Add(pod) => pods.push(Life { pod, from: born, until: end }),
            Move::Remove if pods.len() > 1 => gone.extend(pods.pop().map(|life| Life { until: dead, ..life })),
            Move::Remove => {}
        }
    }
    gone.into_iter().chain(live.into_iter().flatten()).filter(|life| life.from < life.until).collect()
}

/// The certificates a pod gets in [`from`, `until`): one at its birth, and one whenever it is rotated. A rotation is
/// told a second before anybody can see the new one.
fn certificates(mesh: &Mesh, life: &Life, from: Millis, until: Millis, out: &mut Vec<AuthRecord>) {
    let mut push = |at: Millis, not_after: Millis, serial: u64| {
        let id = scramble(serial ^ u64::from(life.pod.0));
        out.push(certificate(mesh, life.pod, at, not_after, id));
    };
    let pod = mesh.instance(life.pod);
    let mut at = life.from.max(from);
    let mut held = pod.credential(at);
    if from <= life.from {
        push(life.from, held.not_after, held.serial);
    }
    while at < until.min(life.until) {
        // Certificates live for hours: a minute's steps find every rotation.
        at = at + MINUTE;
        let next = pod.credential(at);
        if next.serial != held.serial {
            push(next.not_before + (2 * MINUTE - SECOND), next.not_after, next.serial);
            held = next;
        }
    }
}

fn certificate(mesh: &Mesh, pod: InstanceId, at: Millis, not_after: Millis, id: u64) -> AuthRecord {
    AuthRecord {
        at,
        log: AuthLog::Spire,
        deed: Deed::Certificate { not_after },
        service: mesh.instance(pod).service,
        pod: Some(pod),
        address: mesh.instance(pod).address,
        token: 0,
        id,
        granted: true,
        cause: Cause::Routine,
    }
}

/// People's shells on nodes in the hour that begins at `from`; one in twelve mistypes a password first.
fn shells(mesh: &Mesh, from: Millis, out: &mut Vec<AuthRecord>) {
    let Some(people) = mesh.of_kind(Kind::Person).next() else { return };
    let mut stream = Stream::new(mesh.config.seed, Purpose::Auth, from.0 as u64);
    let works = from.weekday() < 5 && (7..18).contains(&(from.of_day() / HOUR));
    for _ in 0..stream.poisson(if works { SHELLS } else { SHELLS / 20.0 }) {
        let at = from + stream.below(HOUR as usize) as i64;
        let user = stream.below(6) as u32;
        let shell = AuthRecord {
            at,
            log: AuthLog::Sshd,
            deed: Deed::Shell { user, node: stream.below(NODES) as u32 },
            service: people,
            pod: None,
            address: Ipv4Addr::new(10, 62, 0, 10 + user as u8),
            token: 0,
            id: stream.bits(),
            granted: true,
            cause: Cause::Routine,
        };
        if stream.chance(1.0 / 12.0) {
            out.push(AuthRecord { at: at + -8 * SECOND, id: stream.bits(), granted: false, ..shell });
        }
        out.push(shell);
    }
}

/// What attacks ask issuers for, or have asked for before they begin.
fn of_attacks(scenario: &Scenario) -> Vec<AuthRecord> {
    let mut records = Vec::new();
    for (number, label) in scenario.attacks().iter().enumerate() {
        let Some(kind) = AttackKind::from_name(label.kind) else { continue };
        let Some(service) = service_named(scenario.mesh(), &label.identities[0]) else { continue };
        let number = number as u32;
        let plan = OfAttack { mesh: scenario.mesh(), service, number, start: label.start };
        match kind {
            AttackKind::RogueReplica => records.extend(plan.rogue_certificate(scenario)),
            AttackKind::ExpiredToken => {
                records.extend(
                    plan.record(-2 * HOUR, AuthLog::Kubernetes, |at| Deed::TokenRequest { expires: at + HOUR }),
                );
            }
            AttackKind::StolenToken => {
                records
                    .extend(plan.record(-MINUTE, AuthLog::Kubernetes, |at| Deed::TokenRequest { expires: at + HOUR }));
            }
            AttackKind::RevokedToken => {
                records.extend(plan.record(-20 * MINUTE, AuthLog::Vault, |_| Deed::Login));
                records.extend(plan.record(-SECOND, AuthLog::Vault, |_| Deed::Revoke));
            }
            AttackKind::PasswordSpraying => records.extend(plan.sprayed_shells(label.end)),
            _ => {}
        }
    }
    records
}

struct OfAttack<'a> {
    mesh: &'a Mesh,
    service: ServiceId,
    number: u32,
    start: Millis,
}

impl OfAttack<'_> {
    fn record(&self, after: i64, log: AuthLog, deed: impl Fn(Millis) -> Deed) -> Option<AuthRecord> {
        let pod = *self.mesh.service(self.service).replicas.first()?;
        let token = planned_token(self.mesh.config.seed, self.number);
        let at = self.start + after;
        Some(AuthRecord {
            at,
            log,
            deed: deed(at),
            service: self.service,
            pod: Some(pod),
            address: self.mesh.instance(pod).address,
            token,
            id: scramble(token ^ after as u64),
            granted: true,
            cause: Cause::Attack(self.number),
        })
    }

    /// The rogue pod asks the node's agent for the identity, as every pod does.
    fn rogue_certificate(&self, scenario: &Scenario) -> Option<AuthRecord> {
        let pod = scenario.trains().iter().find_map(|train| match train.origin {
            crate::traffic::Origin::Instance(pod) if train.cause == Cause::Attack(self.number) => Some(pod),
            _ => None,
        })?;
        let not_after = self.mesh.instance(pod).credential(self.start).not_after;
        let id = scramble(u64::from(pod.0) ^ u64::from(self.number));
        let record = certificate(self.mesh, pod, self.start + -MINUTE, not_after, id);
        Some(AuthRecord { cause: Cause::Attack(self.number), ..record })
    }

    /// The same passwords are tried on the nodes, and one works from an address never seen.
    fn sprayed_shells(&self, end: Millis) -> Vec<AuthRecord> {
        let Some(people) = self.mesh.of_kind(Kind::Person).next() else { return Vec::new() };
        let shell = |place: u32, granted: bool| AuthRecord {
            at: if granted { end } else { self.start + i64::from(place) * 40 * SECOND },
            log: AuthLog::Sshd,
            deed: Deed::Shell { user: place % 6, node: place % NODES as u32 },
            service: people,
            pod: None,
            address: Ipv4Addr::new(203, 0, 113, 7 + u8::from(granted)),
            token: 0,
            id: scramble(u64::from(self.number) << 32 | u64::from(place)),
            granted,
            cause: Cause::Attack(self.number),
        };
        (0..24).map(|place| shell(place, false)).chain([shell(24, true)]).collect()
    }
}

fn service_named(mesh: &Mesh, spiffe_id: &str) -> Option<ServiceId> {
    mesh.ids().find(|&id| mesh.service(id).spiffe_id == spiffe_id)
}
