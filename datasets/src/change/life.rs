//! Changes in the life of services and their replicas.

use super::plan::Plan;
use crate::{
    calendar::{DAY, HOUR, MINUTE, Millis, SECOND},
    mesh::{Edge, InstanceId, Kind, Operation, Pattern, Service, ServiceId, Size, mix, other_runtime},
    scenario::{Effect, Move, Silence, TimedMove, Witness},
};

impl Plan<'_> {
    /// One replica runs the new version for two hours, then the others follow. The new edge comes with it.
    pub(super) fn canary(&mut self) -> Option<Millis> {
        let minor = self.next_minor();
        let peer = self.stranger()?;
        self.born(peer, self.at, minor);
        self.replace(0, minor, self.at);
        let mut at = self.at + 2 * HOUR;
        for slot in 1..self.replicas() {
            self.replace(slot, minor, at);
            at = at + self.stream.between(30.0, 90.0) as i64 * SECOND;
        }
        Some(at + 10 * MINUTE)
    }

    /// As many new replicas again, and then all traffic at once from them.
    pub(super) fn blue_green(&mut self) -> Option<Millis> {
        let minor = self.next_minor();
        let peer = self.stranger()?;
        self.born(peer, self.at, minor);
        for slot in 0..self.replicas() {
            self.replace(slot, minor, self.at);
        }
        self.shift(15 * MINUTE, Effect::SourceRate(self.service, 1.2));
        Some(self.at + 15 * MINUTE)
    }

    /// The same version with another TLS library, replica by replica.
    pub(super) fn library_update(&mut self) -> Millis {
        let owner = self.scenario.mesh().service(self.service);
        let (minor, runtime) = (owner.minor, owner.runtime);
        let mut at = self.at;
        for slot in 0..self.replicas() {
            let replica = self.replace(slot, minor, at);
            let changed = &mut self.scenario.mesh_mut().instances[replica.0 as usize];
            (changed.user_agent, changed.ja4) = other_runtime(runtime);
            at = at + self.stream.between(30.0, 120.0) as i64 * SECOND;
        }
        at + 10 * MINUTE
    }

    /// A pod moves: its place is taken by a new one.
    pub(super) fn replace(&mut self, slot: usize, minor: u32, at: Millis) -> InstanceId {
        let replica = self.new_instance(minor);
        self.scenario.push_move(TimedMove { at, service: self.service, action: Move::Replace(slot, replica) });
        replica
    }

    /// A new API with two replicas, called by three services, calling two and a database, scraped like all.
    pub(super) fn service_born(&mut self) -> Option<Millis> {
        let born = self.new_service();
        let mesh = self.scenario.mesh();
        let apis: Vec<_> = mesh.of_kind(Kind::Api).filter(|&id| id != born).collect();
        let stores: Vec<_> = mesh.of_kind(Kind::Database).collect();
        let scraper = mesh.of_kind(Kind::Scraper).next()?;
        let period = mesh.edges.iter().find_map(|edge| match edge.pattern {
            Pattern::Periodic { period } if edge.source == scraper => Some(period),
            _ => None,
        });
        let neighbours = self.stream.sample(&apis, 5);
        let (callers, called) = neighbours.split_at(neighbours.len().min(3));
        let operations = mesh.service(born).operations.clone();
        for &caller in callers {
            self.edge_from(caller, born, &operations, 0.05);
        }
        self.others = callers.to_vec();
        let mut dependencies = called.to_vec();
        dependencies.extend(self.stream.pick(&stores));
        for dependency in dependencies {
            let operations = self.scenario.mesh().service(dependency).operations.clone();
            let some = self.stream.sample(&operations, 2);
            self.edge_from(born, dependency, &some, 0.04);
        }
        self.service = born;
        let mut metrics = Operation::http(born, "GET", "/metrics");
        metrics.response = Size { median: 24_000.0, sigma: 0.05 };
        let metrics = self.scenario.mesh_mut().add_operation(metrics);
        let pattern = Pattern::Periodic { period: period.unwrap_or(MINUTE) };
        self.push_edge(scraper, born, &[metrics], pattern);
        Some(self.at + HOUR)
    }

    fn new_service(&mut self) -> ServiceId {
        let mesh = self.scenario.mesh_mut();
        let number = mesh.services.len();
        let name = format!("feature-{number}");
        let like = mesh.service(self.service).clone();
        let born = mesh.add_service(Service {
            spiffe_id: format!("spiffe://{}/ns/{}/sa/{name}", crate::mesh::TRUST_DOMAIN, like.namespace),
            name: name.clone(),
            minor: 1,
            address: (0x0a80_0000 | number as u32).into(),
            port: 8080,
            kind: Kind::Api,
            replicas: Vec::new(),
            operations: Vec::new(),
            ..like
        });
        for (method, tail) in [("GET", "/{n}"), ("POST", ""), ("GET", "?page={n}"), ("PATCH", "/{n}/state")] {
            let operation = mesh.add_operation(Operation::http(born, method, &format!("/v1/{name}{tail}")));
            mesh.services[born.0 as usize].operations.push(operation);
        }
        for replica in 0..2 {
            let replica = crate::mesh::instance(mesh, born, 1, replica);
            let replica = mesh.add_instance(replica);
            mesh.services[born.0 as usize].replicas.push(replica);
        }
        born
    }

    /// All edges from and to the service end; callers go to where they have always gone too.
    pub(super) fn service_retired(&mut self) -> Millis {
        let (at, service) = (self.at, self.service);
        let ends = |edge: &Edge| edge.source == service || edge.destination == service;
        let mut callers = Vec::new();
        for edge in self.scenario.mesh_mut().edges.iter_mut().filter(|edge| ends(edge)) {
            edge.gone = edge.gone.min(at);
            callers.push(edge.source);
        }
        callers.sort_unstable();
        callers.dedup();
        callers.retain(|&id| id != service);
        self.others = callers;
        at + DAY
    }

    /// Every pod that lives now or was made before gets a new certificate within the hour.
    pub(super) fn issuer_rotation(&mut self) -> Millis {
        let at = self.at;
        for instance in &mut self.scenario.mesh_mut().instances {
            instance.reissued = Some(at);
        }
        at + HOUR
    }

    /// Nothing is heard of the service for half an hour; its pods are new afterwards.
    pub(super) fn maintenance(&mut self) -> Millis {
        let until = self.at + self.stream.between(20.0, 40.0) as i64 * MINUTE;
        self.scenario.push_silence(Silence { service: self.service, from: self.at, until, of: Witness::Both });
        let minor = self.scenario.mesh().service(self.service).minor;
        for slot in 0..self.replicas() {
            self.replace(slot, minor, until);
        }
        until
    }

    fn next_minor(&mut self) -> u32 {
        let service = &mut self.scenario.mesh_mut().services[self.service.0 as usize];
        service.minor += 1;
        service.minor
    }

    fn edge_from(
        &mut self,
        source: ServiceId,
        destination: ServiceId,
        operations: &[crate::mesh::OperationId],
        rate: f64,
    ) {
        let rate = rate * self.stream.between(0.5, 2.0);
        self.push_edge(source, destination, operations, Pattern::Steady { rate });
    }

    pub(super) fn push_edge(
        &mut self,
        source: ServiceId,
        destination: ServiceId,
        operations: &[crate::mesh::OperationId],
        pattern: Pattern,
    ) {
        let edge = Edge {
            source,
            destination,
            mix: mix(operations),
            pattern,
            failure: 0.002,
            born: self.at,
            gone: Millis(i64::MAX),
            since_minor: 0,
        };
        self.scenario.mesh_mut().edges.push(edge);
    }
}
