//! From an attack to the calls it makes.

use super::{Attack, AttackKind};
use crate::{
    calendar::{HOUR, MINUTE, SECOND},
    call::Cause,
    label::Label,
    mesh::{
        Credential, FOREIGN, Holding, Kind, Mesh, Operation, OperationId, Pattern, Protocol, ServiceId, instance,
        odd_operations,
    },
    random::{Purpose, Stream, scramble},
    scenario::Scenario,
    traffic::{Answer, Factors, Origin, Step, Train},
};

impl Scenario {
    /// Puts an attack into the scenario and returns its label; `None` where the mesh has nobody and nothing the
    /// attack could be made by or on (an actor that calls no API, a mesh in which it already calls everybody).
    pub fn attack(&mut self, attack: Attack) -> Option<&Label> {
        let number = self.attacks().len() as u64;
        let mut stream = Stream::new(self.mesh().config.seed, Purpose::Attack, number);
        let actor = attack.actor.or_else(|| self.draw_actor(attack, &mut stream))?;
        let mut plan = Plan { mesh: self.mesh_mut(), attack, actor, stream };
        let mut train = plan.train()?;
        train.cause = Cause::Attack(number as u32);
        let label = Label {
            start: train.start,
            end: train.end(),
            kind: attack.kind.name(),
            identities: vec![self.mesh().service(actor).spiffe_id.clone()],
            technique: Some(attack.kind.technique()),
        };
        self.push_train(train);
        self.push_attack(label)
    }

    /// A service the attack suits: one with peers of its own that the attack can use or avoid; where that can be
    /// had, not attacked before and without an honest change at the same time, so that a verdict has one cause.
    fn draw_actor(&self, Attack { kind, at, .. }: Attack, stream: &mut Stream) -> Option<ServiceId> {
        let mesh = self.mesh();
        let suits = |&id: &ServiceId| {
            let knows = |kind| mesh.peers(id).any(|peer| mesh.service(peer).kind == kind);
            matches!(mesh.service(id).kind, Kind::Api | Kind::Worker)
                && knows(Kind::Api)
                && (kind != AttackKind::CredentialBruteForce || knows(Kind::Issuer))
        };
        let suited: Vec<_> = mesh.ids().filter(suits).collect();
        let busy = |id: &ServiceId| {
            let identity = &mesh.service(*id).spiffe_id;
            let changing = |label: &&Label| label.start + -HOUR <= at && at <= label.end + HOUR;
            let mut labels = self.attacks().iter().chain(self.changes().iter().filter(changing));
            labels.any(|label| label.identities.contains(identity))
        };
        let fresh: Vec<_> = suited.iter().copied().filter(|id| !busy(id)).collect();
        stream.pick(if fresh.is_empty() { &suited } else { &fresh }).copied()
    }
}

impl Mesh {
    /// The services that `source` calls, each once.
    pub(crate) fn peers(&self, source: ServiceId) -> impl Iterator<Item = ServiceId> + '_ {
        self.edges.iter().filter(move |edge| edge.source == source).map(|edge| edge.destination)
    }

    /// The services of `kind` that `source` never calls.
    pub(crate) fn strangers(&self, source: ServiceId, kind: Kind) -> Vec<ServiceId> {
        self.of_kind(kind).filter(|&id| id != source && !self.peers(source).any(|peer| peer == id)).collect()
    }
}

/// An attack, its actor, and the mesh in which it finds its targets.
struct Plan<'a> {
    mesh: &'a mut Mesh,
    attack: Attack,
    actor: ServiceId,
    stream: Stream,
}

impl Plan<'_> {
    fn train(&mut self) -> Option<Train> {
        match self.attack.kind {
            AttackKind::LateralMove => self.lateral_move(),
            AttackKind::PeerScan => self.scan(25.0, 600, 0.9),
            AttackKind::SlowScan => self.scan(20.0, 10 * MINUTE, 0.5),
            AttackKind::OperationEnumeration => self.enumeration(),
            AttackKind::Exfiltration => self.exfiltration(),
            AttackKind::Flood => self.flood(),
            AttackKind::Beacon => self.beacon(),
            AttackKind::StolenIdentity => self.foreign(None),
            AttackKind::ReplayedCredential => self.replay(),
            AttackKind::CredentialBruteForce => self.brute_force(),
            AttackKind::RefusedBurst => self.refused_burst(),
            AttackKind::DataPull => self.data_pull(),
            AttackKind::Destruction => self.destruction(),
        }
    }

    fn lateral_move(&mut self) -> Option<Train> {
        let strangers = self.mesh.strangers(self.actor, Kind::Api);
        let target = *self.stream.pick(&strangers)?;
        let operations = self.mesh.service(target).operations.clone();
        let steps =
            self.stream.sample(&operations, 3).into_iter().map(|operation| Step { destination: target, operation });
        Some(self.calls(25.0, 3 * SECOND, steps.collect()))
    }

    fn scan(&mut self, targets: f64, gap: i64, lateness: f64) -> Option<Train> {
        let strangers = self.mesh.strangers(self.actor, Kind::Api);
        let wanted = (targets * self.attack.intensity).ceil() as usize;
        let found = self.stream.sample(&strangers, wanted);
        let steps: Vec<_> = found
            .into_iter()
            .map(|destination| {
                let operation = self.mesh.add_operation(Operation::http(destination, "GET", "/"));
                Step { destination, operation }
            })
            .collect();
        if steps.is_empty() {
            return None;
        }
        // Where the mesh has fewer strangers than the scan wants, it comes back to them.
        let train = self.calls(targets, gap, steps);
        Some(Train { jitter: lateness, answer: Answer::Either(404, 403, 0.3), ..train })
    }

    fn enumeration(&mut self) -> Option<Train> {
        let destination = self.known_api()?;
        let operation = self.mesh.add_operation(Operation::http(destination, "GET", "/{word}"));
        let train = self.calls(150.0, 400, vec![Step { destination, operation }]);
        Some(Train { answer: Answer::Either(404, 403, 0.1), ..train })
    }

    fn exfiltration(&mut self) -> Option<Train> {
        let step = self.known_operation()?;
        let mut train = self.calls(60.0, 2 * SECOND, vec![step]);
        train.count = 60;
        train.factors = Factors { bytes_out: 200.0 * self.attack.intensity, duration: 6.0, ..Factors::default() };
        Some(train)
    }

    fn flood(&mut self) -> Option<Train> {
        let step = self.known_operation()?;
        let usual: f64 = self
            .mesh
            .edges
            .iter()
            .filter(|edge| edge.source == self.actor)
            .map(|edge| if let Pattern::Steady { rate } = edge.pattern { rate } else { 0.0 })
            .sum();
        let rate = (20.0 * usual).max(20.0) * self.attack.intensity * self.attack.pace;
        let mut train = self.calls(1.0, SECOND, vec![step]);
        // Whole milliseconds between calls: above a thousand a second the rate is what the clock can express.
        train.gap = ((1_000.0 / rate) as i64).max(1);
        train.count = (2.0 * MINUTE as f64 / train.gap as f64) as u32;
        Some(train)
    }

    fn beacon(&mut self) -> Option<Train> {
        let egress = self.mesh.of_kind(Kind::Egress).next()?;
        let mut operation = Operation::http(egress, "GET", "/c/{hex}");
        operation.host = Some(format!("cdn-{:04x}.update.example", self.stream.bits() & 0xffff));
        let operation = self.mesh.add_operation(operation);
        let train = self.calls(60.0, 30 * SECOND, vec![Step { destination: egress, operation }]);
        Some(Train { jitter: 0.03, ..train })
    }

    /// The actor's identity in other hands; with `credential` where that was stolen, else with a fresh one.
    fn foreign(&mut self, credential: Option<Credential>) -> Option<Train> {
        let minor = self.mesh.service(self.actor).minor;
        // Number 1000 and up are never handed to replicas.
        let mut thief = instance(self.mesh, self.actor, minor, 1_000 + self.stream.below(20) as u32);
        let (agent, ja4) = *self.stream.pick(&FOREIGN)?;
        let at = self.attack.at;
        thief.ja4 = ja4;
        thief.user_agent = agent.to_owned();
        thief.address = (0x0ac8_0000_u32 | (self.stream.bits() as u32 & 0xffff)).into();
        thief.holding = Holding::Fixed(credential.unwrap_or(Credential {
            serial: scramble(self.stream.bits()),
            not_before: at + -HOUR,
            not_after: at + 23 * HOUR,
        }));
        let thief = self.mesh.add_instance(thief);
        let mut steps = vec![self.known_operation()?, self.known_operation()?];
        let destination = self.known_api()?;
        let odd = odd_operations(destination).swap_remove(self.stream.below(6));
        steps.push(Step { destination, operation: self.mesh.add_operation(odd) });
        Some(Train { origin: Origin::Instance(thief), ..self.calls(80.0, 2 * SECOND, steps) })
    }

    fn replay(&mut self) -> Option<Train> {
        let victim = *self.mesh.service(self.actor).replicas.first()?;
        let credential = self.mesh.instance(victim).credential(self.attack.at);
        self.foreign(Some(credential))
    }

    fn brute_force(&mut self) -> Option<Train> {
        let issuer = self.mesh.of_kind(Kind::Issuer).next()?;
        let operation = *self.mesh.service(issuer).operations.first()?;
        let train = self.calls(200.0, 500, vec![Step { destination: issuer, operation }]);
        Some(Train { answer: Answer::Mostly(401, 0.01), ..train })
    }

    fn refused_burst(&mut self) -> Option<Train> {
        let destination = self.known_api()?;
        let steps: Vec<_> = odd_operations(destination)
            .into_iter()
            .map(|operation| Step { destination, operation: self.mesh.add_operation(operation) })
            .collect();
        Some(Train { answer: Answer::Mostly(403, 0.0), ..self.calls(60.0, SECOND, steps) })
    }

    fn data_pull(&mut self) -> Option<Train> {
        let stores = self.mesh.strangers(self.actor, Kind::Database);
        let destination = *self.stream.pick(&stores)?;
        let operation = *self.mesh.service(destination).operations.first()?;
        let mut train = self.calls(12.0, 10 * SECOND, vec![Step { destination, operation }]);
        train.factors = Factors { bytes_out: 500.0 * self.attack.intensity, duration: 5.0, ..Factors::default() };
        Some(train)
    }

    fn destruction(&mut self) -> Option<Train> {
        let destination = self.known_api()?;
        let name = self.mesh.service(destination).name.clone();
        let operation = self.mesh.add_operation(Operation::http(destination, "DELETE", &format!("/v1/{name}/{{n}}")));
        Some(self.calls(40.0, SECOND, vec![Step { destination, operation }]))
    }

    /// About `count` calls through the steps by one replica of the actor.
    fn calls(&mut self, count: f64, gap: i64, steps: Vec<Step>) -> Train {
        Train {
            start: self.attack.at,
            count: (count * self.attack.intensity).ceil().max(1.0) as u32,
            gap: ((gap as f64 / self.attack.pace) as i64).max(1),
            jitter: 0.9,
            origin: Origin::Replica(self.actor, self.stream.below(self.mesh.service(self.actor).replicas.len())),
            steps,
            answer: Answer::Usual,
            factors: Factors::default(),
            cause: Cause::Routine,
        }
    }

    /// An API the actor calls every day.
    fn known_api(&mut self) -> Option<ServiceId> {
        let known: Vec<_> = self.mesh.peers(self.actor).filter(|&id| self.mesh.service(id).kind == Kind::Api).collect();
        self.stream.pick(&known).copied()
    }

    /// A call the actor makes every day to an API.
    fn known_operation(&mut self) -> Option<Step> {
        let destination = self.known_api()?;
        let known: Vec<OperationId> = self
            .mesh
            .edges
            .iter()
            .filter(|edge| edge.source == self.actor && edge.destination == destination)
            .flat_map(|edge| edge.mix.iter().map(|&(_, operation)| operation))
            .filter(|&operation| self.mesh.operation(operation).protocol != Protocol::Tcp)
            .collect();
        Some(Step { destination, operation: *self.stream.pick(&known)? })
    }
}
