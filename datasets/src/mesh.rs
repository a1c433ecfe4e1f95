//! The mesh: services, their replicas, what they serve, and who calls whom how often.

mod names;
mod operation;
mod platform;
mod pod;
mod topology;
mod users;

use std::net::Ipv4Addr;

pub(crate) use names::{FOREIGN, other_runtime};
pub use operation::{Operation, Protocol, Size};
pub(crate) use operation::{Segment, WORDS, odd_operations};
pub(crate) use topology::{instance, mix};

use crate::{
    calendar::{HOUR, MINUTE, Millis},
    random::scramble,
};

/// Trust domain of every generated identity.
pub const TRUST_DOMAIN: &str = "mesh.test";

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeshConfig {
    /// The same seed makes the same mesh and the same traffic on every machine.
    pub seed: u64,
    /// Services in the mesh, infrastructure included; between 20 and 2,000.
    pub services: usize,
    /// Mean rate of calls over the whole mesh and week, in calls a second.
    pub calls_per_second: f64,
}

impl Default for MeshConfig {
    /// 40 services and two calls a second: a week is about 1.2 million calls.
    fn default() -> Self {
        Self { seed: 1, services: 40, calls_per_second: 2.0 }
    }
}

/// Why a mesh cannot be generated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidMesh {
    /// Too few services for one of each kind, or too many for the address plan.
    #[error("services = {0}: a generated mesh has between 20 and 2000 services")]
    Services(usize),
    /// Not a positive, finite rate.
    #[error("calls_per_second = {0}: the rate must be above 0 and at most 1000000")]
    Rate(f64),
}

/// Index of a service in [`Mesh::services`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);
/// Index of an instance in [`Mesh::instances`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u32);
/// Index of an operation in [`Mesh::operations`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u32);

/// What a service is; it decides whom it calls, when, and how its traffic breathes over the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Brings users' requests into the mesh.
    Gateway,
    /// Serves requests and fans out to others.
    Api,
    /// Takes work from a broker and calls APIs.
    Worker,
    /// Runs every hour, night, week or month.
    Cron,
    /// Reads `/metrics` of everybody at a fixed period.
    Scraper,
    /// Carries calls out of the mesh.
    Egress,
    /// Issues tokens to clients.
    Issuer,
    /// A database, spoken to over TCP.
    Database,
    /// A message broker, spoken to over TCP.
    Broker,
    /// The on-call people's own identity; silent but for debugging.
    Person,
    /// Keeps secrets; spoken to over HTTP.
    Vault,
    /// The Kubernetes API server.
    Kubernetes,
    /// Users outside, without identity.
    Client,
}

/// One service: one SPIFFE ID, one service account, several replicas.
#[derive(Debug, Clone)]
pub struct Service {
    /// Service account and workload name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: &'static str,
    /// `spiffe://mesh.test/ns/<namespace>/sa/<name>`.
    pub spiffe_id: String,
    /// What it is.
    pub kind: Kind,
    /// Port it serves on.
    pub port: u16,
    /// Cluster address of the service.
    pub address: Ipv4Addr,
    /// Minor version it runs at the start; deployments count up.
    pub minor: u32,
    /// Language runtime, an index into the fingerprints.
    pub runtime: usize,
    /// The replicas alive at the start.
    pub replicas: Vec<InstanceId>,
    /// What it serves.
    pub operations: Vec<OperationId>,
}

/// One replica of a service, or whoever pretends to be one.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The service whose identity it carries.
    pub service: ServiceId,
    /// Pod name.
    pub pod: String,
    /// Pod address.
    pub address: Ipv4Addr,
    /// Minor version; `version` has it as a label.
    pub(crate) minor: u32,
    /// Version label.
    pub version: String,
    /// What it sends as user agent.
    pub user_agent: String,
    /// JA4 fingerprint of its TLS stack.
    pub ja4: &'static str,
    /// Seeds its certificates.
    pub(crate) key: u64,
    /// Whether certificates are rotated, or one is held on to.
    pub(crate) holding: Holding,
    /// When the issuer's key was replaced: within an hour from then on every certificate is a new one.
    pub(crate) reissued: Option<Millis>,
}

/// How an instance comes by its certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// A new one every `period` milliseconds, 12 to 24 h.
    Rotating { period: i64, phase: i64 },
    /// One certificate, held on to.
    Fixed(Credential),
    /// None: it speaks plain text.
    Nothing,
}

impl Holding {
    /// Rotation at a pace and a time of day of its own.
    pub(crate) fn of(key: u64) -> Self {
        Self::Rotating {
            period: 12 * HOUR + (scramble(key ^ 1) % (12 * HOUR as u64)) as i64,
            phase: (scramble(key ^ 2) % (24 * HOUR) as u64) as i64,
        }
    }
}

/// An X.509 SVID as a proxy reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credential {
    /// Serial number; written as 32 hexadecimal digits derived from it.
    pub serial: u64,
    /// Begin of its validity.
    pub not_before: Millis,
    /// End of its validity, 24 h later.
    pub not_after: Millis,
}

impl Instance {
    /// The certificate this instance holds at `time`; of one that shows none, the one its pod was issued.
    pub fn credential(&self, time: Millis) -> Credential {
        match self.holding {
            Holding::Fixed(credential) => credential,
            Holding::Rotating { period, phase } => self.issued(period, phase, time),
            Holding::Nothing => self.issued(24 * HOUR, 0, time),
        }
    }

    /// Whether it shows a certificate at all.
    pub fn shows_certificate(&self) -> bool {
        self.holding != Holding::Nothing
    }

    /// Gives it the certificates that belong to `key`.
    pub(crate) fn share_certificate(&mut self, key: u64) {
        if let Holding::Rotating { .. } = self.holding {
            (self.key, self.holding) = (key, Holding::of(key));
        }
    }

    fn issued(&self, period: i64, phase: i64, time: Millis) -> Credential {
        let generation = (time.0 - phase).div_euclid(period);
        let mut issued = phase + generation * period;
        let mut seed = self.key ^ generation as u64;
        if let Some(reissued) = self.reissued {
            let own = reissued.0 + (scramble(self.key ^ 3) % HOUR as u64) as i64;
            if issued < own && own <= time.0 {
                (issued, seed) = (own, scramble(seed));
            }
        }
        Credential {
            serial: scramble(seed),
            not_before: Millis(issued - 2 * MINUTE),
            not_after: Millis(issued - 2 * MINUTE + 24 * HOUR),
        }
    }
}

/// Who calls whom, with what, and how often.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The caller.
    pub source: ServiceId,
    /// The called.
    pub destination: ServiceId,
    /// What is asked, each with the cumulative probability up to and including it.
    pub(crate) mix: Vec<(f32, OperationId)>,
    /// When calls come.
    pub pattern: Pattern,
    /// Probability that a call fails with 5xx.
    pub failure: f64,
    /// The edge does not exist before.
    pub born: Millis,
    /// The edge does not exist from here on.
    pub gone: Millis,
    /// The minor version of the source that brought it: older replicas do not make these calls.
    pub(crate) since_minor: u32,
}

impl Edge {
    /// The operation at `draw`, uniform in [0, 1).
    pub(crate) fn operation(&self, draw: f32) -> OperationId {
        let drawn = self.mix.iter().find(|(share, _)| draw < *share).or(self.mix.last());
        drawn.expect("an edge asks for something").1
    }
}

/// When the calls of an edge come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pattern {
    /// Poisson whose rate breathes with day and week and wanders by a log-AR(1); mean in calls a second.
    Steady {
        /// Mean over the week, calls a second.
        rate: f64,
    },
    /// One call every `period` milliseconds, a few per cent of jitter.
    Periodic {
        /// Milliseconds between calls.
        period: i64,
    },
    /// `calls` calls within `span` milliseconds after every `schedule`.
    Job {
        /// When it starts.
        schedule: Schedule,
        /// Mean number of calls a run.
        calls: f64,
        /// How long a run takes, milliseconds.
        span: i64,
    },
}

/// When a job runs; offsets in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Every hour, so long after the full hour.
    Hourly(i64),
    /// Every day, so long after midnight UTC.
    Daily(i64),
    /// Every week, so long after Monday's midnight UTC.
    Weekly(i64),
    /// On the first of every month, so long after midnight UTC.
    Monthly(i64),
}

/// A whole generated mesh.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// What it was generated from.
    pub config: MeshConfig,
    /// All services.
    pub services: Vec<Service>,
    /// All replicas that live at any time, and whoever pretends to be one.
    pub instances: Vec<Instance>,
    /// All operations.
    pub operations: Vec<Operation>,
    /// The call graph.
    pub edges: Vec<Edge>,
}

impl Mesh {
    /// Generates a mesh.
    ///
    /// # Errors
    /// The number of services or the rate is out of range.
    pub fn generate(config: MeshConfig) -> Result<Self, InvalidMesh> {
        if !(20..=2_000).contains(&config.services) {
            return Err(InvalidMesh::Services(config.services));
        }
        if !(config.calls_per_second > 0.0 && config.calls_per_second <= 1e6) {
            return Err(InvalidMesh::Rate(config.calls_per_second));
        }
        Ok(topology::generate(config))
    }

    /// The service at `id`.
    pub fn service(&self, id: ServiceId) -> &Service {
        &self.services[id.0 as usize]
    }

    /// The instance at `id`.
    pub fn instance(&self, id: InstanceId) -> &Instance {
        &self.instances[id.0 as usize]
    }

    /// The operation at `id`.
    pub fn operation(&self, id: OperationId) -> &Operation {
        &self.operations[id.0 as usize]
    }

    /// The service an instance belongs to.
    pub fn service_of(&self, id: InstanceId) -> &Service {
        self.service(self.instance(id).service)
    }

    /// The SPIFFE ID an instance presents.
    pub fn identity(&self, id: InstanceId) -> &str {
        &self.service_of(id).spiffe_id
    }

    /// The node an instance runs on, of a dozen.
    pub fn node_of(&self, id: InstanceId) -> u32 {
        let address = u32::from(self.instance(id).address);
        (scramble(u64::from(address)) % 12) as u32
    }

    /// All services of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = ServiceId> + '_ {
        self.ids().filter(move |&id| self.service(id).kind == kind)
    }

    /// All services.
    pub fn ids(&self) -> impl Iterator<Item = ServiceId> + use<> {
        (0..self.services.len() as u32).map(ServiceId)
    }

    pub(crate) fn add_instance(&mut self, instance: Instance) -> InstanceId {
        self.instances.push(instance);
        InstanceId(self.instances.len() as u32 - 1)
    }

    pub(crate) fn add_service(&mut self, service: Service) -> ServiceId {
        self.services.push(service);
        ServiceId(self.services.len() as u32 - 1)
    }

    pub(crate) fn add_operation(&mut self, operation: Operation) -> OperationId {
        self.operations.push(operation);
        OperationId(self.operations.len() as u32 - 1)
    }
}
