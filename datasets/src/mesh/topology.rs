//! Draws a mesh: which services there are, what they serve, who calls whom.

use std::net::Ipv4Addr;

use super::{
    Edge, Holding, Instance, Kind, Mesh, MeshConfig, Operation, OperationId, Pattern, Protocol, Schedule, Service,
    ServiceId, Size,
    names::{FOREIGN, HOSTS, NAMESPACES, RUNTIMES, SUBJECTS},
    pod,
};
use crate::{
    calendar::{DAY, HOUR, MINUTE, Millis},
    random::{Purpose, Stream, scramble},
};

/// Share of all calls that are reads of `/metrics`.
const SCRAPE_SHARE: f64 = 0.12;

pub(super) fn generate(config: MeshConfig) -> Mesh {
    let mut draft = Draft {
        mesh: Mesh {
            config,
            services: Vec::with_capacity(config.services),
            instances: Vec::new(),
            operations: Vec::new(),
            edges: Vec::new(),
        },
        stream: Stream::new(config.seed, Purpose::Topology, 0),
    };
    draft.services();
    draft.operations();
    draft.edges();
    draft.scrapes();
    draft.scale();
    draft.mesh
}

/// A replica of `service`. Which number it is decides pod name, address and certificates.
pub(crate) fn instance(mesh: &Mesh, service: ServiceId, minor: u32, number: u32) -> Instance {
    let owner = mesh.service(service);
    let key = scramble(mesh.config.seed ^ scramble(u64::from(service.0) << 32 | u64::from(number)));
    let (runtime, ja4) = if owner.kind == Kind::Person { FOREIGN[0] } else { RUNTIMES[owner.runtime] };
    Instance {
        service,
        pod: pod::name(mesh.config.seed, owner, service.0, minor, number),
        // 10.(64 to 127).x.y by service and number: an address is never used twice.
        address: Ipv4Addr::from(0x0a40_0000 | (service.0 << 10) | ((number + 1) & 0x3ff)),
        minor,
        version: format!("1.{minor}.0"),
        user_agent: format!("{}/1.{minor}.0 {runtime}", owner.name),
        ja4,
        key,
        holding: Holding::of(key),
        reissued: None,
    }
}

struct Draft {
    mesh: Mesh,
    stream: Stream,
}

impl Draft {
    fn services(&mut self) {
        let total = self.mesh.config.services;
        self.service(Kind::Gateway, "edge", "ingress".into());
        for i in 1..=total / 60 {
            self.service(Kind::Gateway, "edge", format!("ingress-{i}"));
        }
        self.service(Kind::Egress, "edge", "egress".into());
        self.service(Kind::Issuer, "identity", "token-issuer".into());
        self.service(Kind::Scraper, "monitoring", "prometheus".into());
        self.service(Kind::Person, "ops", "oncall".into());
        for i in 0..1 + total / 60 {
            self.service(Kind::Broker, "data", format!("broker-{i}"));
        }
        let mut numbers = [0_usize; 4];
        while self.mesh.services.len() < total {
            let (slot, kind, role) = match self.mesh.services.len() % 10 {
                0 => (1, Kind::Database, "db"),
                3 | 7 => (2, Kind::Worker, "worker"),
                5 => (3, Kind::Cron, "job"),
                _ => (0, Kind::Api, ""),
            };
            let number = numbers[slot];
            numbers[slot] += 1;
            let subject = SUBJECTS[number % SUBJECTS.len()];
            let generation =
                if number < SUBJECTS.len() { String::new() } else { format!("-{}", number / SUBJECTS.len() + 1) };
            let dash = if role.is_empty() { "" } else { "-" };
            let namespace = if kind == Kind::Database { "data" } else { NAMESPACES[number % NAMESPACES.len()] };
            self.service(kind, namespace, format!("{subject}{generation}{dash}{role}"));
        }
    }

    fn service(&mut self, kind: Kind, namespace: &'static str, name: String) {
        let id = ServiceId(self.mesh.services.len() as u32);
        let replicas = match kind {
            Kind::Api | Kind::Worker | Kind::Gateway => 1 + self.stream.below(5),
            Kind::Egress | Kind::Issuer => 2,
            _ => 1,
        };
        let minor = 1 + self.stream.below(40) as u32;
        self.mesh.services.push(Service {
            spiffe_id: format!("spiffe://{}/ns/{namespace}/sa/{name}", super::TRUST_DOMAIN),
            name,
            namespace,
            kind,
            port: match kind {
                Kind::Database => 5432,
                Kind::Broker => 9092,
                Kind::Egress => 443,
                _ => 8080,
            },
            address: Ipv4Addr::from(0x0a80_0000 | id.0),
            minor,
            runtime: self.stream.below(RUNTIMES.len()),
            replicas: Vec::new(),
            operations: Vec::new(),
        });
        for number in 0..replicas as u32 {
            let replica = instance(&self.mesh, id, minor, number);
            let replica = self.mesh.add_instance(replica);
            self.mesh.services[id.0 as usize].replicas.push(replica);
        }
    }

    fn operations(&mut self) {
        for id in self.mesh.ids() {
            let operations = match self.mesh.service(id).kind {
                Kind::Database | Kind::Broker => vec![Operation::tcp(id)],
                Kind::Egress => HOSTS.iter().map(|host| self.external(id, host)).collect(),
                Kind::Issuer => vec![
                    Operation::http(id, "POST", "/oauth/token"),
                    Operation::http(id, "POST", "/oauth/introspect"),
                    Operation::http(id, "GET", "/.well-known/jwks.json"),
                ],
                Kind::Api => self.api(id),
                _ => Vec::new(),
            };
            let ids = operations.into_iter().map(|operation| self.mesh.add_operation(operation)).collect();
            self.mesh.services[id.0 as usize].operations = ids;
        }
    }

    /// An operation of a host outside, as the egress gateway sees it.
    fn external(&mut self, egress: ServiceId, host: &str) -> Operation {
        let mut operation = Operation::http(egress, "POST", "/v1/events/{hex}");
        operation.host = Some(host.to_owned());
        operation.duration = Size { median: self.stream.between(60.0, 300.0), sigma: 0.5 };
        operation
    }

    fn api(&mut self, id: ServiceId) -> Vec<Operation> {
        const TEMPLATES: [(&str, &str); 10] = [
            ("GET", "/{n}"),
            ("GET", "?page={n}"),
            ("POST", ""),
            ("PUT", "/{n}"),
            ("GET", "/{n}/items"),
            ("GET", "/by-user/{uuid}"),
            ("POST", "/{n}/events"),
            ("PATCH", "/{n}/state"),
            ("GET", "/batch/{hex}"),
            ("DELETE", "/{n}/items/{uuid}"),
        ];
        let name = self.mesh.service(id).name.clone();
        let grpc = self.stream.chance(0.3);
        let count = 4 + self.stream.below(TEMPLATES.len() - 3);
        TEMPLATES[..count]
            .iter()
            .enumerate()
            .map(|(number, (method, tail))| {
                let mut operation = if grpc {
                    let mut call = Operation::http(id, "POST", &format!("/{name}.v1.Api/{}", GRPC_METHODS[number]));
                    call.protocol = Protocol::Grpc;
                    call
                } else {
                    Operation::http(id, method, &format!("/v1/{name}{tail}"))
                };
                operation.response.median = self.stream.log_normal(1_200.0, 1.0);
                operation.response.sigma = self.stream.between(0.2, 0.9);
                operation.duration.median = self.stream.log_normal(9.0, 0.8);
                operation.duration.sigma = self.stream.between(0.3, 0.8);
                operation
            })
            .collect()
    }

    fn edges(&mut self) {
        let apis: Vec<_> = self.mesh.of_kind(Kind::Api).collect();
        let stores: Vec<_> = self.mesh.of_kind(Kind::Database).collect();
        let brokers: Vec<_> = self.mesh.of_kind(Kind::Broker).collect();
        let egress = self.mesh.of_kind(Kind::Egress).next().expect("every mesh has an egress gateway");
        let issuer = self.mesh.of_kind(Kind::Issuer).next().expect("every mesh has an issuer");
        // APIs are in tiers: the first third is called by gateways, everybody calls only later ones.
        let front = apis.len().div_ceil(3);
        for id in self.mesh.ids() {
            let (mut peers, weight) = match self.mesh.service(id).kind {
                Kind::Gateway => (apis[..front].to_vec(), 3.0),
                Kind::Api => {
                    let tier = apis.iter().position(|&api| api == id).expect("an API is among the APIs");
                    let count = 1 + self.stream.below(5);
                    (self.stream.sample(&apis[(tier + 1).max(front).min(apis.len())..], count), 1.0)
                }
                Kind::Worker | Kind::Cron => {
                    let count = 1 + self.stream.below(3);
                    (self.stream.sample(&apis[front..], count), 0.5)
                }
                _ => continue,
            };
            let kind = self.mesh.service(id).kind;
            let draws = [(&stores, 0.6), (&brokers, if kind == Kind::Worker { 1.0 } else { 0.3 })];
            for (pool, probability) in draws {
                if kind != Kind::Gateway && self.stream.chance(probability) {
                    peers.extend(self.stream.pick(pool));
                }
            }
            for (peer, probability) in [(issuer, 0.4), (egress, 0.2)] {
                if kind == Kind::Gateway && peer == issuer || kind != Kind::Gateway && self.stream.chance(probability) {
                    peers.push(peer);
                }
            }
            for peer in peers {
                let edge = self.edge(id, peer, weight);
                self.mesh.edges.push(edge);
            }
        }
    }

    fn edge(&mut self, source: ServiceId, destination: ServiceId, weight: f64) -> Edge {
        let operations = self.mesh.service(destination).operations.clone();
        let limit = if self.mesh.service(destination).kind == Kind::Egress { 2 } else { operations.len() };
        let count = 1 + self.stream.below(limit);
        let chosen = self.stream.sample(&operations, count);
        let pattern = if self.mesh.service(source).kind == Kind::Cron {
            self.job()
        } else {
            // A connection carries many statements: stores and brokers see few of them.
            let calm = if self.mesh.service(destination).port == 8080 { 1.0 } else { 0.4 };
            Pattern::Steady { rate: self.stream.log_normal(weight * calm, 1.1) }
        };
        Edge {
            source,
            destination,
            mix: mix(&chosen),
            pattern,
            failure: self.stream.log_normal(0.001, 1.0).min(0.02),
            born: Millis(i64::MIN),
            gone: Millis(i64::MAX),
            since_minor: 0,
        }
    }

    fn job(&mut self) -> Pattern {
        let offset = self.stream.below(5 * HOUR as usize) as i64;
        let schedule = match self.stream.below(20) {
            0..8 => Schedule::Hourly(offset % HOUR),
            8..15 => Schedule::Daily(offset),
            15..18 => Schedule::Weekly(self.stream.below(7) as i64 * DAY + offset),
            _ => Schedule::Monthly(offset),
        };
        let (calls, minutes) = match schedule {
            Schedule::Hourly(_) => (self.stream.log_normal(12.0, 0.6), self.stream.between(1.0, 8.0)),
            _ => (self.stream.log_normal(120.0, 0.8), self.stream.between(5.0, 50.0)),
        };
        Pattern::Job { schedule, calls, span: (minutes * MINUTE as f64) as i64 }
    }

    /// The scraper reads everybody's metrics; the period follows from its share of the traffic.
    fn scrapes(&mut self) {
        let scraper = self.mesh.of_kind(Kind::Scraper).next().expect("every mesh has a scraper");
        let targets: Vec<_> =
            self.mesh.ids().filter(|&id| id != scraper && self.mesh.service(id).port == 8080).collect();
        let least = targets.len() as f64 / (SCRAPE_SHARE * self.mesh.config.calls_per_second) * 1_000.0;
        let period = [15, 30, 60, 120, 300, 600].map(|s| s * 1_000).into_iter().find(|&p| p as f64 >= least);
        for target in targets {
            let mut operation = Operation::http(target, "GET", "/metrics");
            operation.response = Size { median: 24_000.0, sigma: 0.05 };
            let operation = self.mesh.add_operation(operation);
            self.mesh.edges.push(Edge {
                source: scraper,
                destination: target,
                mix: mix(&[operation]),
                pattern: Pattern::Periodic { period: period.unwrap_or(600_000) },
                failure: 2e-4,
                born: Millis(i64::MIN),
                gone: Millis(i64::MAX),
                since_minor: 0,
            });
        }
    }

    /// Scales the steady edges so that the mesh as a whole makes the configured calls a second.
    fn scale(&mut self) {
        let fixed: f64 = self.mesh.edges.iter().map(|edge| mean_rate(edge.pattern)).sum();
        let steady: f64 = self.mesh.edges.iter().map(|edge| steady_rate(edge.pattern)).sum();
        let rate = self.mesh.config.calls_per_second;
        let factor = (rate - (fixed - steady)).max(rate * 0.3) / steady;
        for edge in &mut self.mesh.edges {
            if let Pattern::Steady { rate } = &mut edge.pattern {
                *rate *= factor;
            }
        }
    }
}

const GRPC_METHODS: [&str; 10] =
    ["Get", "List", "Create", "Update", "ListItems", "Find", "Append", "SetState", "GetBatch", "RemoveItem"];

/// Zipf weights over the operations in the order given.
pub(crate) fn mix(operations: &[OperationId]) -> Vec<(f32, OperationId)> {
    let total: f64 = (1..=operations.len()).map(|rank| 1.0 / rank as f64).sum();
    let mut sum = 0.0;
    let shares = operations.iter().enumerate().map(|(i, &operation)| {
        sum += 1.0 / (i + 1) as f64 / total;
        (sum as f32, operation)
    });
    shares.collect()
}

fn steady_rate(pattern: Pattern) -> f64 {
    if let Pattern::Steady { rate } = pattern { rate } else { 0.0 }
}

/// Mean calls a second.
fn mean_rate(pattern: Pattern) -> f64 {
    match pattern {
        Pattern::Steady { rate } => rate,
        Pattern::Periodic { period } => 1_000.0 / period as f64,
        Pattern::Job { schedule, calls, .. } => {
            let every = match schedule {
                Schedule::Hourly(_) => HOUR,
                Schedule::Daily(_) => DAY,
                Schedule::Weekly(_) => 7 * DAY,
                Schedule::Monthly(_) => 30 * DAY,
            };
            calls / (every / 1_000) as f64
        }
    }
}
