//! A scenario: a mesh, a stretch of time, and what happens in it.

use std::collections::BTreeMap;

use crate::{
    attack::{Attack, AttackKind},
    calendar::{DAY, HOUR, MINUTE, Millis, Zone},
    call::Call,
    change::{ChangeKind, HonestChange},
    label::Label,
    mesh::{InvalidMesh, Kind, Mesh, MeshConfig, ServiceId},
    random::{Purpose, Stream, scramble},
    traffic::Train,
};

/// A mesh, a stretch of time, and the attacks and honest changes in it. [`Traffic`](crate::Traffic) plays it.
#[derive(Debug, Clone)]
pub struct Scenario {
    mesh: Mesh,
    start: Millis,
    end: Millis,
    trains: Vec<Train>,
    shifts: Vec<Shift>,
    moves: Vec<TimedMove>,
    silences: Vec<Silence>,
    attacks: Vec<Label>,
    changes: Vec<Label>,
    /// Replicas handed out so far by service, beyond those at the start.
    replicas: BTreeMap<ServiceId, u32>,
    /// Streams handed out for schedules.
    schedules: u64,
    /// Share of what gateways and APIs call that is caused by what is called of them.
    chained: f64,
    zone: Zone,
}

/// How strong random attacks are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strength {
    /// Median factor on targets, calls or bytes.
    pub intensity: f64,
    /// Median factor on calls a second.
    pub pace: f64,
    /// Standard deviation of the logarithm of both.
    pub spread: f64,
}

impl Strength {
    /// As the table of attacks describes them.
    pub const USUAL: Self = Self { intensity: 1.0, pace: 1.0, spread: 0.4 };
}

/// Something that holds for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shift {
    pub(crate) from: Millis,
    pub(crate) until: Millis,
    pub(crate) effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Effect {
    /// Factor on every steady rate of the mesh.
    MeshRate(f64),
    /// Factor on the steady rates of what a service calls.
    SourceRate(ServiceId, f64),
    /// Probability that calls to a service fail.
    Failing(ServiceId, f64),
}

/// A stretch of time in which something is not reported of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silence {
    pub(crate) service: ServiceId,
    pub(crate) from: Millis,
    pub(crate) until: Millis,
    pub(crate) of: Witness,
}

/// Whose reports are missing in a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Witness {
    /// Its own calls, and what is called of it: nothing is heard of the service at all.
    Both,
    /// Its own proxy, of the calls to it: the callers' proxies still tell of them.
    Destination,
}

/// A change of a service's replicas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TimedMove {
    pub(crate) at: Millis,
    pub(crate) service: ServiceId,
    pub(crate) action: Move,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Move {
    /// The replica at this place is replaced.
    Replace(usize, crate::mesh::InstanceId),
    Add(crate::mesh::InstanceId),
    /// The last one added goes.
    Remove,
}

impl Scenario {
    /// `days` quiet days of a generated mesh from `start` on: its rhythm, jobs and rotations, and nothing else.
    ///
    /// # Errors
    /// The mesh cannot be generated.
    pub fn quiet(config: MeshConfig, start: Millis, days: f64) -> Result<Self, InvalidMesh> {
        let mesh = Mesh::generate(config)?;
        Ok(Self {
            mesh,
            start,
            end: start + (days * DAY as f64) as i64,
            trains: Vec::new(),
            shifts: Vec::new(),
            moves: Vec::new(),
            silences: Vec::new(),
            attacks: Vec::new(),
            changes: Vec::new(),
            replicas: BTreeMap::new(),
            schedules: 0,
            chained: 0.0,
            zone: Zone::Utc,
        })
    }

    /// The same with the platform around the mesh: Vault and the Kubernetes API, and those who call them.
    ///
    /// # Errors
    /// The mesh cannot be generated.
    pub fn estate(config: MeshConfig, start: Millis, days: f64) -> Result<Self, InvalidMesh> {
        let mut scenario = Self::quiet(config, start, days)?;
        scenario.mesh.add_platform();
        Ok(scenario)
    }

    /// The demo: 40 services, eight quiet days with a little churn, then one hour in which a deployment and five
    /// attacks happen, each on an identity of its own. 1.4 million calls.
    ///
    /// # Errors
    /// Never with the configuration used here.
    pub fn demo(seed: u64, start: Millis) -> Result<Self, InvalidMesh> {
        let config = MeshConfig { seed, services: 40, calls_per_second: 2.0 };
        let quiet = start + 8 * DAY;
        let mut scenario = Self::quiet(config, start, 8.0 + 1.0 / 24.0)?;
        scenario.churn(1.5, start, quiet);
        let minutes = |m: i64| quiet + m * MINUTE;
        let deployment = HonestChange::new(ChangeKind::Deployment, minutes(5));
        scenario.change(match scenario.most_replicated_api() {
            Some(service) => deployment.of(service),
            None => deployment,
        });
        // Long enough that what is denied can be seen to be gone: each goes on for two to eight minutes.
        for (minute, kind, intensity) in [
            (10, AttackKind::LateralMove, 4.0),
            (18, AttackKind::StolenIdentity, 3.0),
            (28, AttackKind::DataPull, 2.0),
            (36, AttackKind::PeerScan, 40.0),
            (44, AttackKind::OperationEnumeration, 2.0),
        ] {
            scenario.attack(Attack::new(kind, minutes(minute)).intensity(intensity));
        }
        Ok(scenario)
    }

    /// The fan-out service with the most replicas: what one of them does can be told from what all of them do.
    fn most_replicated_api(&self) -> Option<ServiceId> {
        let services = self.mesh.services.iter().enumerate().filter(|(_, service)| service.kind == Kind::Api);
        let most = services.max_by_key(|(index, service)| (service.replicas.len(), std::cmp::Reverse(*index)))?;
        Some(ServiceId(u32::try_from(most.0).ok()?))
    }

    /// Adds users outside, whose requests at the ingress gateways are reported too. Call it before anything else.
    pub fn add_users(&mut self) -> &mut Self {
        self.mesh.add_users();
        self
    }

    /// Lets `share` (0 to 0.95) of what gateways and APIs call be caused by what is called of them: same request id,
    /// within its time. Rates stay as they are.
    pub fn chain(&mut self, share: f64) -> &mut Self {
        self.chained = share.clamp(0.0, 0.95);
        self
    }

    /// Lets people's days and jobs follow the clocks of this zone.
    pub fn clocks_of(&mut self, zone: Zone) -> &mut Self {
        self.zone = zone;
        self
    }

    pub(crate) fn chained(&self) -> f64 {
        self.chained
    }

    pub(crate) fn zone(&self) -> Zone {
        self.zone
    }

    /// Gives a share of the business services of each namespace one account, `sa/default`: several workloads under one
    /// identity. Call it before anything else.
    pub fn share_accounts(&mut self, share: f64) -> &mut Self {
        let mut stream = Stream::new(self.mesh.config.seed, Purpose::Accounts, 0);
        for service in &mut self.mesh.services {
            if matches!(service.kind, Kind::Api | Kind::Worker | Kind::Cron) && stream.chance(share) {
                service.spiffe_id =
                    format!("spiffe://{}/ns/{}/sa/default", crate::mesh::TRUST_DOMAIN, service.namespace);
            }
        }
        self
    }

    /// Lets all pods of a service on a node share one certificate, as SPIRE agents hand them out, from here on and of
    /// all pods made so far. Call it last.
    pub fn share_certificates(&mut self) -> &mut Self {
        for number in 0..self.mesh.instances.len() {
            let node = self.mesh.node_of(crate::mesh::InstanceId(number as u32));
            let (seed, instance) = (self.mesh.config.seed, &mut self.mesh.instances[number]);
            instance.share_certificate(scramble(seed ^ 0x6e6f_6465 ^ u64::from(instance.service.0 << 8 | node)));
        }
        self
    }

    /// Spreads honest changes of the [everyday](ChangeKind::EVERYDAY) kinds over [`from`, `until`), `per_day` of them
    /// on average, most in working hours (8 to 18 UTC, Monday to Friday).
    pub fn churn(&mut self, per_day: f64, from: Millis, until: Millis) -> &mut Self {
        self.churn_of(&ChangeKind::EVERYDAY, per_day, from, until)
    }

    /// The same with these kinds, each as often as is usual beside the others.
    pub fn churn_of(&mut self, kinds: &[ChangeKind], per_day: f64, from: Millis, until: Millis) -> &mut Self {
        let mut stream = self.schedule();
        let bag: Vec<ChangeKind> = kinds.iter().flat_map(|&kind| std::iter::repeat_n(kind, kind.weight())).collect();
        for at in spread(&mut stream, per_day, from, until, Hours::Working) {
            if let Some(&kind) = stream.pick(&bag) {
                self.change(HonestChange::new(kind, at));
            }
        }
        self
    }

    /// Spreads attacks of all kinds over [`from`, `until`), `per_day` of them on average, at any hour, the kinds in
    /// turn, intensity and pace log-normal around 1.
    pub fn attacks_at_random(&mut self, per_day: f64, from: Millis, until: Millis) -> &mut Self {
        self.attacks_of(&AttackKind::ALL, Strength::USUAL, per_day, from, until)
    }

    /// The same with these kinds, of this strength.
    pub fn attacks_of(
        &mut self,
        kinds: &[AttackKind],
        strength: Strength,
        per_day: f64,
        from: Millis,
        until: Millis,
    ) -> &mut Self {
        let mut stream = self.schedule();
        let times = if kinds.is_empty() { Vec::new() } else { spread(&mut stream, per_day, from, until, Hours::Any) };
        for (number, at) in times.into_iter().enumerate() {
            let attack = Attack::new(kinds[number % kinds.len()], at);
            let intensity = stream.log_normal(strength.intensity, strength.spread);
            self.attack(attack.intensity(intensity).pace(stream.log_normal(strength.pace, strength.spread)));
        }
        self
    }

    /// The mesh, with all that attacks and changes have added to it.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Begin of the first slot.
    pub fn start(&self) -> Millis {
        self.start
    }

    /// No call but a retry begins at or after this.
    pub fn end(&self) -> Millis {
        self.end
    }

    /// Labels of the attacks, in the order in which they were added.
    pub fn attacks(&self) -> &[Label] {
        &self.attacks
    }

    /// Labels of the honest changes, in the order in which they were added.
    pub fn changes(&self) -> &[Label] {
        &self.changes
    }

    pub(crate) fn trains(&self) -> &[Train] {
        &self.trains
    }

    pub(crate) fn shifts(&self) -> &[Shift] {
        &self.shifts
    }

    pub(crate) fn moves(&self) -> &[TimedMove] {
        &self.moves
    }

    pub(crate) fn mesh_mut(&mut self) -> &mut Mesh {
        &mut self.mesh
    }

    pub(crate) fn push_train(&mut self, train: Train) {
        let place = self.trains.partition_point(|other| other.start <= train.start);
        self.trains.insert(place, train);
    }

    pub(crate) fn push_shift(&mut self, shift: Shift) {
        self.shifts.push(shift);
    }

    pub(crate) fn push_move(&mut self, step: TimedMove) {
        let place = self.moves.partition_point(|other| other.at <= step.at);
        self.moves.insert(place, step);
    }

    /// Whether the destination's proxy does not tell of this call, because it is bypassed.
    pub fn is_unwitnessed(&self, call: &Call) -> bool {
        self.silences.iter().any(|silence| {
            silence.of == Witness::Destination
                && silence.from <= call.start
                && call.start < silence.until
                && self.mesh.instance(call.destination).service == silence.service
        })
    }

    pub(crate) fn push_silence(&mut self, silence: Silence) {
        self.silences.push(silence);
    }

    pub(crate) fn silences(&self) -> &[Silence] {
        &self.silences
    }

    pub(crate) fn push_attack(&mut self, label: Label) -> Option<&Label> {
        self.attacks.push(label);
        self.attacks.last()
    }

    pub(crate) fn push_change(&mut self, label: Label) -> Option<&Label> {
        self.changes.push(label);
        self.changes.last()
    }

    /// The number of the next replica of `service`; numbers are never used twice.
    pub(crate) fn next_replica(&mut self, service: ServiceId) -> u32 {
        let initial = self.mesh.service(service).replicas.len() as u32;
        let used = self.replicas.entry(service).or_default();
        *used += 1;
        initial + *used - 1
    }

    fn schedule(&mut self) -> Stream {
        self.schedules += 1;
        Stream::new(self.mesh.config.seed, Purpose::Schedule, self.schedules)
    }
}

/// At which hours something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hours {
    Any,
    Working,
}

/// A Poisson number of times a day, in order.
fn spread(stream: &mut Stream, per_day: f64, from: Millis, until: Millis, hours: Hours) -> Vec<Millis> {
    let mut times = Vec::new();
    let mut day = from.midnight();
    while day < until {
        for _ in 0..stream.poisson(per_day) {
            let working = hours == Hours::Working && stream.chance(0.8);
            if working && day.weekday() >= 5 {
                continue;
            }
            let (first, hours) = if working { (8, 10) } else { (0, 24) };
            times.push(day + first * HOUR + stream.below((hours * HOUR) as usize) as i64);
        }
        day = day + DAY;
    }
    times.retain(|&time| from <= time && time < until);
    times.sort_unstable();
    times
}
