//! Honest work that looks like an attack: bulk reads and writes, failed logins, hosts outside, load.

use super::plan::Plan;
use crate::{
    calendar::{DAY, HOUR, MINUTE, Millis, SECOND},
    mesh::{Kind, Operation, OperationId, Pattern, Protocol, Schedule, ServiceId, Size},
    scenario::Effect,
    traffic::{Answer, Factors, Origin, Step, Train},
};

impl Plan<'_> {
    /// A health check as regular as a beacon, from every day on.
    pub(super) fn keep_alive(&mut self) -> Option<Millis> {
        let peer = self.stranger()?;
        let mut check = Operation::http(peer, "GET", "/healthz");
        check.response = Size { median: 15.0, sigma: 0.02 };
        let check = self.scenario.mesh_mut().add_operation(check);
        let period = *self.stream.pick(&[15, 30, 60])? * SECOND;
        self.push_edge(self.service, peer, &[check], Pattern::Periodic { period });
        Some(self.at + HOUR)
    }

    /// Vault is read by every replica, then every database connection is opened anew.
    pub(super) fn secret_rotation(&mut self) -> Option<Millis> {
        let mesh = self.scenario.mesh();
        let (namespace, name) = (mesh.service(self.service).namespace, mesh.service(self.service).name.clone());
        let vault = mesh.of_kind(Kind::Vault).next();
        let mut steps = Vec::new();
        if let Some(vault) = vault {
            let read = Operation::http(vault, "GET", &format!("/v1/secret/data/{namespace}/{name}"));
            steps.push(Step { destination: vault, operation: self.scenario.mesh_mut().add_operation(read) });
        }
        let mesh = self.scenario.mesh();
        let stores = mesh.peers(self.service).filter(|&id| mesh.service(id).kind == Kind::Database);
        for destination in stores.collect::<Vec<_>>() {
            let operation = *self.scenario.mesh().service(destination).operations.first()?;
            steps.extend([Step { destination, operation }; 3]);
        }
        if steps.is_empty() {
            return None;
        }
        let count = (steps.len() * self.replicas()) as u32;
        Some(self.train(Origin::Any(self.service), count, 2 * SECOND, steps))
    }

    /// 401 after 401 with the old secret, every 30 s, and success once somebody has noticed.
    pub(super) fn stale_secret(&mut self) -> Option<Millis> {
        let issuer = self.scenario.mesh().of_kind(Kind::Issuer).next()?;
        let operation = *self.scenario.mesh().service(issuer).operations.first()?;
        let failures = 10 + self.stream.below(50) as u32;
        let steps = vec![Step { destination: issuer, operation }];
        let answer = Answer::Until(failures, 401);
        Some(self.answered(Origin::Any(self.service), failures + 3, 30 * SECOND, steps, (answer, Factors::default())))
    }

    /// One new operation at a known API, refused until the policy is mended; a part of every user's request.
    pub(super) fn missing_grant(&mut self) -> Option<Millis> {
        let destination = self.known_api()?;
        let name = self.scenario.mesh().service(destination).name.clone();
        let operation = Operation::http(destination, "POST", &format!("/v1/{name}/{{n}}/approve"));
        let operation = self.scenario.mesh_mut().add_operation(operation);
        let refused = 20 + self.stream.below(60) as u32;
        let steps = vec![Step { destination, operation }];
        let answer = Answer::Until(refused, 403);
        Some(self.answered(Origin::Any(self.service), refused + 40, 12 * SECOND, steps, (answer, Factors::default())))
    }

    /// A job's new nightly edge to a database, all of which it reads.
    pub(super) fn backup(&mut self) -> Option<Millis> {
        let stores = self.scenario.mesh().strangers(self.service, Kind::Database);
        let store = *self.stream.pick(&stores)?;
        let mut dump = Operation::tcp(store);
        dump.response = Size { median: 60e6, sigma: 0.3 };
        dump.duration = Size { median: 90_000.0, sigma: 0.3 };
        let dump = self.scenario.mesh_mut().add_operation(dump);
        let schedule = Schedule::Daily(self.at.of_day());
        self.push_edge(self.service, store, &[dump], Pattern::Job { schedule, calls: 8.0, span: 20 * MINUTE });
        Some(self.at + HOUR)
    }

    pub(super) fn clean_up(&mut self) -> Option<Millis> {
        let destination = self.known_api()?;
        let name = self.scenario.mesh().service(destination).name.clone();
        let delete = Operation::http(destination, "DELETE", &format!("/v1/{name}/{{n}}"));
        let operation = self.scenario.mesh_mut().add_operation(delete);
        let count = 30 + self.stream.below(150) as u32;
        Some(self.train(Origin::Replica(self.service, 0), count, 2 * SECOND, vec![Step { destination, operation }]))
    }

    pub(super) fn migration(&mut self) -> Option<Millis> {
        let destination = self.known_api()?;
        let name = self.scenario.mesh().service(destination).name.clone();
        let mut export = Operation::http(destination, "GET", &format!("/v1/{name}/{{n}}/export"));
        export.response = Size { median: 40_000.0, sigma: 0.4 };
        let mut import = Operation::http(destination, "PUT", &format!("/v2/{name}/{{n}}"));
        import.request = Size { median: 40_000.0, sigma: 0.4 };
        let steps = [export, import]
            .map(|operation| Step { destination, operation: self.scenario.mesh_mut().add_operation(operation) });
        let count = 400 + self.stream.below(800) as u32;
        Some(self.train(Origin::Replica(self.service, 0), count, SECOND, steps.to_vec()))
    }

    /// A report in pieces twelve times as large as usual, for four hours.
    pub(super) fn long_export(&mut self) -> Option<Millis> {
        let step = self.known_step()?;
        let factors = Factors { bytes_out: 12.0, duration: 3.0, ..Factors::default() };
        let origin = Origin::Any(self.service);
        Some(self.answered(origin, 120, 2 * MINUTE, vec![step], (Answer::Usual, factors)))
    }

    /// 4 % more every day, for as long as is simulated but at most four weeks.
    pub(super) fn growth(&mut self) -> Option<Millis> {
        let days = ((self.scenario.end() - self.at) / DAY).clamp(1, 28);
        for day in 0..days {
            let (from, until) = (self.at + day * DAY, self.at + (day + 1) * DAY);
            let factor = libm::pow(1.04, day as f64 + 1.0);
            self.shift_within(from, until, Effect::SourceRate(self.service, factor));
        }
        Some(self.at + days * DAY)
    }

    /// The job's usual calls, at another time.
    pub(super) fn job_rerun(&mut self) -> Option<Millis> {
        let own = self.scenario.mesh().edges.iter().filter(|edge| edge.source == self.service);
        let steps: Vec<Step> = own
            .flat_map(|edge| edge.mix.iter().map(|&(_, operation)| Step { destination: edge.destination, operation }))
            .collect();
        if steps.is_empty() {
            return None;
        }
        let count = 60 + self.stream.below(120) as u32;
        Some(self.train(Origin::Any(self.service), count, 5 * SECOND, steps))
    }

    /// Events to a vendor's host, from now on.
    pub(super) fn new_vendor(&mut self) -> Option<Millis> {
        let egress = self.scenario.mesh().of_kind(Kind::Egress).next()?;
        let mut operation = Operation::http(egress, "POST", "/v2/ingest/{hex}");
        operation.host = Some(format!("api.vendor-{:03}.example", self.stream.below(1_000)));
        operation.duration = Size { median: 120.0, sigma: 0.5 };
        let operation = self.scenario.mesh_mut().add_operation(operation);
        let rate = self.stream.between(0.01, 0.05);
        self.push_edge(self.service, egress, &[operation], Pattern::Steady { rate });
        Some(self.at + HOUR)
    }

    /// A stream of market prices: half an hour a connection, all day.
    pub(super) fn long_stream(&mut self) -> Option<Millis> {
        let egress = self.scenario.mesh().of_kind(Kind::Egress).next()?;
        let mut operation = Operation::tcp(egress);
        operation.protocol = Protocol::Tcp;
        operation.host = Some("stream.rates.example".to_owned());
        operation.response = Size { median: 900_000.0, sigma: 0.3 };
        operation.duration = Size { median: 30.0 * MINUTE as f64, sigma: 0.1 };
        let operation = self.scenario.mesh_mut().add_operation(operation);
        let steps = vec![Step { destination: egress, operation }];
        Some(self.train(Origin::Any(self.service), 16, 31 * MINUTE, steps))
    }

    /// `/version` of every API, one a second.
    pub(super) fn inventory(&mut self) -> Option<Millis> {
        let apis: Vec<ServiceId> = self.scenario.mesh().of_kind(Kind::Api).collect();
        let apis = self.stream.sample(&apis, apis.len());
        let steps: Vec<Step> = apis
            .into_iter()
            .map(|destination| {
                let ask = Operation::http(destination, "GET", "/version");
                Step { destination, operation: self.scenario.mesh_mut().add_operation(ask) }
            })
            .collect();
        Some(self.train(Origin::Any(self.service), steps.len() as u32, SECOND, steps))
    }

    /// A call the service makes every day to an API.
    fn known_step(&mut self) -> Option<Step> {
        let destination = self.known_api()?;
        let own = self.scenario.mesh().edges.iter();
        let own = own.filter(|edge| edge.source == self.service && edge.destination == destination);
        let asked: Vec<OperationId> = own.flat_map(|edge| edge.mix.iter().map(|&(_, operation)| operation)).collect();
        Some(Step { destination, operation: *self.stream.pick(&asked)? })
    }

    /// An API the service calls every day.
    fn known_api(&mut self) -> Option<ServiceId> {
        let mesh = self.scenario.mesh();
        let known: Vec<_> = mesh.peers(self.service).filter(|&id| mesh.service(id).kind == Kind::Api).collect();
        self.stream.pick(&known).copied()
    }

    fn answered(
        &mut self,
        origin: Origin,
        count: u32,
        gap: i64,
        steps: Vec<Step>,
        (answer, factors): (Answer, Factors),
    ) -> Millis {
        let (start, cause) = (self.at, self.cause);
        let train = Train { start, count, gap, jitter: 1.0, origin, steps, answer, factors, cause, salt: 0 };
        let end = train.end();
        self.scenario.push_train(train);
        end
    }
}
