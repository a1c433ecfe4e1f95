//! From an attack to the calls it makes.

use super::{Attack, AttackKind, credential::Papers};
use crate::{
    auth::{AuthLog, name_at},
    calendar::{HOUR, MINUTE, SECOND},
    call::Cause,
    label::Label,
    mesh::{Kind, Mesh, Operation, Pattern, Protocol, ServiceId},
    random::{Purpose, Stream},
    scenario::{Scenario, Silence, Witness},
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
        let (end, trains) = if matches!(attack.kind, AttackKind::Silenced | AttackKind::BypassedProxy) {
            (attack.at + (2.0 * HOUR as f64 * attack.intensity) as i64, Vec::new())
        } else {
            let trains = plan.trains()?;
            (trains.iter().map(Train::end).max()?, trains)
        };
        let label = Label {
            start: trains.iter().map(|train| train.start).min().unwrap_or(attack.at),
            end,
            kind: attack.kind.name(),
            identities: self.names_in(attack.kind, actor),
            technique: Some(attack.kind.technique()),
            strength: Some((attack.intensity, attack.pace)),
        };
        if trains.is_empty() {
            let of = if attack.kind == AttackKind::Silenced { Witness::Both } else { Witness::Destination };
            self.push_silence(Silence { service: actor, from: attack.at, until: end, of });
        }
        for (place, mut train) in trains.into_iter().enumerate() {
            (train.cause, train.salt) = (Cause::Attack(number as u32), place as u64);
            self.push_train(train);
        }
        self.push_attack(label)
    }

    /// The names under which the actor is known where the attack can be seen.
    fn names_in(&self, kind: AttackKind, actor: ServiceId) -> Vec<String> {
        let log = match kind {
            AttackKind::SecretsHarvest | AttackKind::RevokedToken => Some(AuthLog::Vault),
            AttackKind::PrivilegeEnumeration
            | AttackKind::StolenToken
            | AttackKind::ExpiredToken
            | AttackKind::ForgedToken => Some(AuthLog::Kubernetes),
            AttackKind::CredentialBruteForce | AttackKind::PasswordSpraying | AttackKind::RoleChain => {
                Some(AuthLog::Keycloak)
            }
            _ => None,
        };
        let elsewhere = log.map(|log| name_at(log, self.mesh(), actor));
        std::iter::once(self.mesh().service(actor).spiffe_id.clone()).chain(elsewhere).collect()
    }

    /// A service the attack suits: one with peers of its own that the attack can use or avoid; where that can be
    /// had, not attacked before and without an honest change at the same time, so that a verdict has one cause.
    fn draw_actor(&self, Attack { kind, at, .. }: Attack, stream: &mut Stream) -> Option<ServiceId> {
        let mesh = self.mesh();
        let suits = |&id: &ServiceId| {
            let knows = |kind| mesh.peers(id).any(|peer| mesh.service(peer).kind == kind);
            let knows_what_it_needs = match kind {
                AttackKind::CredentialBruteForce | AttackKind::PasswordSpraying | AttackKind::RoleChain => {
                    knows(Kind::Issuer)
                }
                AttackKind::SecretsHarvest | AttackKind::RevokedToken => knows(Kind::Vault),
                AttackKind::PrivilegeEnumeration
                | AttackKind::StolenToken
                | AttackKind::ExpiredToken
                | AttackKind::ForgedToken => knows(Kind::Kubernetes),
                AttackKind::BypassedProxy => return mesh.service(id).kind == Kind::Api,
                AttackKind::OffHours => return mesh.service(id).kind == Kind::Cron && knows(Kind::Api),
                _ => true,
            };
            matches!(mesh.service(id).kind, Kind::Api | Kind::Worker) && knows(Kind::Api) && knows_what_it_needs
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
pub(super) struct Plan<'a> {
    pub(super) mesh: &'a mut Mesh,
    pub(super) attack: Attack,
    pub(super) actor: ServiceId,
    pub(super) stream: Stream,
}

impl Plan<'_> {
    /// The calls of the attack.
    fn trains(&mut self) -> Option<Vec<Train>> {
        let one = match self.attack.kind {
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
            AttackKind::SlowExfiltration => self.slow_exfiltration(),
            AttackKind::OffHours => return self.off_hours(),
            AttackKind::SlowBoil => return self.slow_boil(),
            AttackKind::UnusualSequence => self.unusual_sequence(),
            AttackKind::ObjectEnumeration => self.object_enumeration(),
            AttackKind::Tunnelling => self.tunnelling(),
            AttackKind::Cryptomining => self.cryptomining(),
            AttackKind::NightBeacon => self.night_beacon(),
            AttackKind::SecretsHarvest => self.secrets_harvest(),
            AttackKind::PrivilegeEnumeration => self.privilege_enumeration(),
            AttackKind::RoleChain => self.role_chain(),
            AttackKind::InternalProxy => self.internal_proxy(),
            AttackKind::EncryptionBurst => self.encryption_burst(),
            AttackKind::ForeignQueue => self.foreign_queue(),
            AttackKind::PasswordSpraying => return self.password_spraying(),
            AttackKind::ExpiredCertificate => self.own_pod(Papers::Expired),
            AttackKind::PrematureCertificate => self.own_pod(Papers::Premature),
            AttackKind::ForgedCertificate => self.own_pod(Papers::Forged),
            AttackKind::PlainText => self.own_pod(Papers::None),
            AttackKind::RogueReplica => self.rogue_replica(),
            AttackKind::StolenToken | AttackKind::ExpiredToken | AttackKind::ForgedToken => {
                self.with_token(Kind::Kubernetes)
            }
            AttackKind::RevokedToken => self.with_token(Kind::Vault),
            // Made of no calls: see `Scenario::attack`.
            AttackKind::Silenced | AttackKind::BypassedProxy => return Some(Vec::new()),
        };
        one.map(|train| vec![train])
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
        let rate = (20.0 * self.usual_rate()).max(20.0) * self.attack.intensity * self.attack.pace;
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

    /// About `count` calls through the steps by one replica of the actor.
    pub(super) fn calls(&mut self, count: f64, gap: i64, steps: Vec<Step>) -> Train {
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
            salt: 0,
        }
    }

    /// What the actor calls on an average day, in calls a second.
    pub(super) fn usual_rate(&self) -> f64 {
        let own = self.mesh.edges.iter().filter(|edge| edge.source == self.actor);
        own.map(|edge| if let Pattern::Steady { rate } = edge.pattern { rate } else { 0.0 }).sum()
    }

    /// An API the actor calls every day.
    pub(super) fn known_api(&mut self) -> Option<ServiceId> {
        let known: Vec<_> = self.mesh.peers(self.actor).filter(|&id| self.mesh.service(id).kind == Kind::Api).collect();
        self.stream.pick(&known).copied()
    }

    /// A call the actor makes every day to an API.
    pub(super) fn known_operation(&mut self) -> Option<Step> {
        let destination = self.known_api()?;
        let known = self.known_operations(destination);
        self.stream.pick(&known).copied()
    }

    /// What the actor asks `destination` on an ordinary day, connections aside, the most frequent first.
    pub(super) fn known_operations(&self, destination: ServiceId) -> Vec<Step> {
        let own = self.mesh.edges.iter().filter(|edge| edge.source == self.actor && edge.destination == destination);
        let asked = own.flat_map(|edge| edge.mix.iter().map(|&(_, operation)| operation));
        asked
            .filter(|&operation| self.mesh.operation(operation).protocol != Protocol::Tcp)
            .map(|operation| Step { destination, operation })
            .collect()
    }
}
