//! From an honest change to what it does to the traffic.

use super::{ChangeKind, HonestChange};
use crate::{
    calendar::{HOUR, MINUTE, Millis, SECOND},
    call::Cause,
    label::Label,
    mesh::{Edge, FOREIGN, Kind, OperationId, Pattern, ServiceId, instance, mix, odd_operations},
    random::{Purpose, Stream},
    scenario::{Effect, Move, Scenario, Shift, TimedMove},
    traffic::{Answer, Factors, Origin, Step, Train},
};

impl Scenario {
    /// Puts an honest change into the scenario and returns its label; `None` where the mesh has no service that
    /// could change so.
    pub fn change(&mut self, change: HonestChange) -> Option<&Label> {
        let number = self.changes().len();
        let mut stream = Stream::new(self.mesh().config.seed, Purpose::Change, number as u64);
        let service = change.service.or_else(|| self.draw_changing(change.kind, &mut stream))?;
        let mut plan = Plan {
            cause: Cause::Change(number as u32),
            scenario: self,
            at: change.at,
            service,
            stream,
            others: Vec::new(),
        };
        let end = plan.carry_out(change.kind)?;
        let ids: Vec<_> = std::iter::once(plan.service).chain(plan.others).collect();
        let identities = ids.into_iter().map(|id| self.mesh().service(id).spiffe_id.clone()).collect();
        let kind = change.kind.name();
        self.push_change(Label { start: change.at, end, kind, identities, technique: None, strength: None })
    }

    fn draw_changing(&self, kind: ChangeKind, stream: &mut Stream) -> Option<ServiceId> {
        let kinds: &[Kind] = match kind {
            ChangeKind::CampaignPeak => &[Kind::Gateway],
            ChangeKind::Debugging | ChangeKind::Inventory => &[Kind::Person],
            ChangeKind::MonthlyJob | ChangeKind::Backup | ChangeKind::JobRerun => &[Kind::Cron],
            ChangeKind::IssuerRotation => &[Kind::Issuer],
            ChangeKind::ServiceBorn | ChangeKind::ServiceRetired => &[Kind::Api],
            ChangeKind::DependencyOutage => &[Kind::Api, Kind::Database],
            _ => &[Kind::Api, Kind::Worker],
        };
        let suited: Vec<_> = self.mesh().ids().filter(|&id| kinds.contains(&self.mesh().service(id).kind)).collect();
        stream.pick(&suited).copied()
    }
}

/// A change, who changes, and the scenario it is put into.
pub(super) struct Plan<'a> {
    pub(super) scenario: &'a mut Scenario,
    pub(super) at: Millis,
    pub(super) service: ServiceId,
    pub(super) stream: Stream,
    pub(super) cause: Cause,
    /// Further identities that behave otherwise for it.
    pub(super) others: Vec<ServiceId>,
}

impl Plan<'_> {
    /// Does it and returns when it is over.
    fn carry_out(&mut self, kind: ChangeKind) -> Option<Millis> {
        match kind {
            ChangeKind::Deployment => self.deployment(),
            ChangeKind::ScaleOut => Some(self.scale_out()),
            ChangeKind::CampaignPeak => Some(self.shift(2 * HOUR, Effect::MeshRate(2.5))),
            ChangeKind::DependencyOutage => Some(self.outage()),
            ChangeKind::ConfigChange => self.config_change(),
            ChangeKind::NewEdge => {
                let peer = self.stranger()?;
                self.born(peer, self.at, 0);
                Some(self.at + HOUR)
            }
            ChangeKind::RareEdge => self.rare_edge(),
            ChangeKind::Debugging => self.debugging(),
            ChangeKind::PodShell => self.pod_shell(),
            ChangeKind::MonthlyJob => self.monthly_job(),
            ChangeKind::NodeMove => {
                let slot = self.stream.below(self.replicas());
                let minor = self.scenario.mesh().service(self.service).minor;
                self.replace(slot, minor, self.at);
                Some(self.at + MINUTE)
            }
            ChangeKind::Canary => self.canary(),
            ChangeKind::BlueGreen => self.blue_green(),
            ChangeKind::KeepAlive => self.keep_alive(),
            ChangeKind::LibraryUpdate => Some(self.library_update()),
            ChangeKind::ServiceBorn => self.service_born(),
            ChangeKind::ServiceRetired => Some(self.service_retired()),
            ChangeKind::IssuerRotation => Some(self.issuer_rotation()),
            ChangeKind::SecretRotation => self.secret_rotation(),
            ChangeKind::StaleSecret => self.stale_secret(),
            ChangeKind::MissingGrant => self.missing_grant(),
            ChangeKind::Backup => self.backup(),
            ChangeKind::CleanUp => self.clean_up(),
            ChangeKind::Migration => self.migration(),
            ChangeKind::LongExport => self.long_export(),
            ChangeKind::Growth => self.growth(),
            ChangeKind::JobRerun => self.job_rerun(),
            ChangeKind::NewVendor => self.new_vendor(),
            ChangeKind::LongStream => self.long_stream(),
            ChangeKind::Inventory => self.inventory(),
            ChangeKind::LoadTest => Some(self.shift(20 * MINUTE, Effect::SourceRate(self.service, 6.0))),
            ChangeKind::Maintenance => Some(self.maintenance()),
        }
    }

    fn deployment(&mut self) -> Option<Millis> {
        let minor = self.scenario.mesh().service(self.service).minor + 1;
        self.scenario.mesh_mut().services[self.service.0 as usize].minor = minor;
        let mut at = self.at;
        for slot in 0..self.replicas() {
            self.replace(slot, minor, at);
            at = at + self.stream.between(30.0, 120.0) as i64 * SECOND;
        }
        for _ in 0..1 + self.stream.below(2) {
            let peer = self.stranger()?;
            // The first replaced replica already makes the new calls, the others as they follow.
            self.born(peer, self.at, minor);
        }
        self.shift(30 * MINUTE, Effect::SourceRate(self.service, 1.3));
        Some((self.at + 30 * MINUTE).max(at))
    }

    fn scale_out(&mut self) -> Millis {
        let end = self.at + self.stream.between(2.0, 6.0) as i64 * HOUR;
        let minor = self.scenario.mesh().service(self.service).minor;
        for number in 0..2 + self.stream.below(3) {
            let replica = self.new_instance(minor);
            let at = self.at + number as i64 * 20 * SECOND;
            self.scenario.push_move(TimedMove { at, service: self.service, action: Move::Add(replica) });
            self.scenario.push_move(TimedMove { at: end, service: self.service, action: Move::Remove });
        }
        end
    }

    fn outage(&mut self) -> Millis {
        let span = self.stream.between(5.0, 20.0) as i64 * MINUTE;
        let mesh = self.scenario.mesh();
        let mut callers: Vec<_> =
            mesh.edges.iter().filter(|edge| edge.destination == self.service).map(|edge| edge.source).collect();
        callers.sort_unstable();
        callers.dedup();
        self.others = callers;
        let probability = self.stream.between(0.5, 0.95);
        self.shift(span, Effect::Failing(self.service, probability))
    }

    fn config_change(&mut self) -> Option<Millis> {
        let mesh = self.scenario.mesh();
        let edges: Vec<_> = (0..mesh.edges.len())
            .filter(|&index| {
                let edge = &mesh.edges[index];
                edge.source == self.service && mesh.service(edge.destination).kind == Kind::Api && edge.gone > self.at
            })
            .collect();
        let index = *self.stream.pick(&edges)?;
        let old = mesh.edges[index].clone();
        let operations = mesh.service(old.destination).operations.clone();
        let count = 1 + self.stream.below(operations.len());
        let chosen: Vec<OperationId> = self.stream.sample(&operations, count);
        let edges = &mut self.scenario.mesh_mut().edges;
        edges[index].gone = self.at;
        edges.push(Edge { mix: mix(&chosen), born: self.at, ..old });
        Some(self.at + HOUR)
    }

    fn rare_edge(&mut self) -> Option<Millis> {
        let peer = self.stranger()?;
        let operations = self.scenario.mesh().service(peer).operations.clone();
        let operation = *self.stream.pick(&operations)?;
        let count = 2 + self.stream.below(20) as u32;
        Some(self.train(Origin::Any(self.service), count, 20 * SECOND, vec![Step { destination: peer, operation }]))
    }

    fn debugging(&mut self) -> Option<Millis> {
        let apis: Vec<_> = self.scenario.mesh().of_kind(Kind::Api).collect();
        let target = *self.stream.pick(&apis)?;
        let steps = self.odd_steps(target);
        let count = 5 + self.stream.below(40) as u32;
        Some(self.train(Origin::Any(self.service), count, 15 * SECOND, steps))
    }

    fn pod_shell(&mut self) -> Option<Millis> {
        let mesh = self.scenario.mesh();
        let known: Vec<_> = mesh.peers(self.service).filter(|&id| mesh.service(id).kind == Kind::Api).collect();
        let target = *self.stream.pick(&known)?;
        let mut shell = mesh.instance(*mesh.service(self.service).replicas.first()?).clone();
        (shell.user_agent, shell.ja4) = (FOREIGN[0].0.to_owned(), FOREIGN[0].1);
        let shell = self.scenario.mesh_mut().add_instance(shell);
        let steps = self.odd_steps(target);
        let count = 3 + self.stream.below(15) as u32;
        Some(self.train(Origin::Instance(shell), count, 20 * SECOND, steps))
    }

    fn monthly_job(&mut self) -> Option<Millis> {
        let mesh = self.scenario.mesh();
        let known: Vec<_> = mesh.peers(self.service).collect();
        let peer = *self.stream.pick(&known)?;
        let operations = mesh.service(peer).operations.clone();
        let operation = *self.stream.pick(&operations)?;
        Some(self.train(Origin::Any(self.service), 400, 3 * SECOND, vec![Step { destination: peer, operation }]))
    }

    fn odd_steps(&mut self, target: ServiceId) -> Vec<Step> {
        let mut odd = odd_operations(target);
        let count = 2 + self.stream.below(3);
        (0..count)
            .map(|_| {
                let operation = odd.swap_remove(self.stream.below(odd.len()));
                Step { destination: target, operation: self.scenario.mesh_mut().add_operation(operation) }
            })
            .collect()
    }

    pub(super) fn train(&mut self, origin: Origin, count: u32, gap: i64, steps: Vec<Step>) -> Millis {
        let (start, cause) = (self.at, self.cause);
        let factors = Factors::default();
        let train =
            Train { start, count, gap, jitter: 1.0, origin, steps, answer: Answer::Usual, factors, cause, salt: 0 };
        let end = train.end();
        self.scenario.push_train(train);
        end
    }

    pub(super) fn shift(&mut self, span: i64, effect: Effect) -> Millis {
        let until = self.at + span;
        self.shift_within(self.at, until, effect);
        until
    }

    pub(super) fn shift_within(&mut self, from: Millis, until: Millis, effect: Effect) {
        self.scenario.push_shift(Shift { from, until, effect });
    }

    pub(super) fn new_instance(&mut self, minor: u32) -> crate::mesh::InstanceId {
        let number = self.scenario.next_replica(self.service);
        let replica = instance(self.scenario.mesh(), self.service, minor, number);
        self.scenario.mesh_mut().add_instance(replica)
    }

    /// An API the service does not call so far.
    pub(super) fn stranger(&mut self) -> Option<ServiceId> {
        let strangers = self.scenario.mesh().strangers(self.service, Kind::Api);
        self.stream.pick(&strangers).copied()
    }

    /// A new edge from all replicas of `since_minor` and later.
    pub(super) fn born(&mut self, peer: ServiceId, at: Millis, since_minor: u32) {
        let operations = self.scenario.mesh().service(peer).operations.clone();
        let count = 1 + self.stream.below(3);
        let chosen = self.stream.sample(&operations, count);
        let mesh = self.scenario.mesh();
        let rates = mesh.edges.iter().filter(|edge| edge.source == self.service);
        let rate =
            rates.map(|edge| if let Pattern::Steady { rate } = edge.pattern { rate } else { 0.0 }).fold(0.0, f64::max);
        let pattern = Pattern::Steady { rate: rate.max(0.01) * self.stream.between(0.2, 1.0) };
        let edge = Edge {
            source: self.service,
            destination: peer,
            mix: mix(&chosen),
            pattern,
            failure: 0.002,
            born: at,
            gone: Millis(i64::MAX),
            since_minor,
        };
        self.scenario.mesh_mut().edges.push(edge);
    }

    pub(super) fn replicas(&self) -> usize {
        self.scenario.mesh().service(self.service).replicas.len()
    }
}
