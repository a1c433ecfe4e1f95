//! Attacks on credentials: the identity in other hands, certificates that do not add up, guessed logins.

use std::net::Ipv4Addr;

use super::plan::Plan;
use crate::{
    calendar::{DAY, HOUR, MINUTE, Millis, SECOND},
    mesh::{Credential, FOREIGN, Holding, Instance, InstanceId, Kind, instance, odd_operations},
    random::scramble,
    traffic::{Answer, Origin, Step, Train},
};

/// What a caller shows in place of the certificate its pod was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Papers {
    /// A certificate of the day before yesterday.
    Expired,
    /// A certificate of the day after tomorrow.
    Premature,
    /// A certificate of today that the issuer knows nothing of.
    Forged,
    /// Plain text.
    None,
}

impl Plan<'_> {
    /// The actor's identity in other hands; with `credential` where that was stolen, else with a fresh one.
    pub(super) fn foreign(&mut self, credential: Option<Credential>) -> Option<Train> {
        let minor = self.mesh.service(self.actor).minor;
        // Number 1000 and up are never handed to replicas.
        let mut thief = instance(self.mesh, self.actor, minor, 1_000 + self.stream.below(20) as u32);
        let (agent, ja4) = *self.stream.pick(&FOREIGN)?;
        let at = self.attack.at;
        thief.ja4 = ja4;
        thief.user_agent = agent.to_owned();
        thief.address = self.foreign_address();
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

    /// An address that no pod has: 10.200.0.0/16.
    fn foreign_address(&mut self) -> Ipv4Addr {
        (0x0ac8_0000_u32 | (self.stream.bits() as u32 & 0xffff)).into()
    }

    pub(super) fn replay(&mut self) -> Option<Train> {
        let victim = *self.mesh.service(self.actor).replicas.first()?;
        let credential = self.mesh.instance(victim).credential(self.attack.at);
        self.foreign(Some(credential))
    }

    pub(super) fn brute_force(&mut self) -> Option<Train> {
        let issuer = self.mesh.of_kind(Kind::Issuer).next()?;
        let operation = *self.mesh.service(issuer).operations.first()?;
        let train = self.calls(200.0, 500, vec![Step { destination: issuer, operation }]);
        Some(Train { answer: Answer::Mostly(401, 0.01), ..train })
    }

    /// Known calls from a replica's own address with its own TLS stack, but with other papers.
    pub(super) fn own_pod(&mut self, papers: Papers) -> Option<Train> {
        let victim = *self.mesh.service(self.actor).replicas.first()?;
        let at = self.attack.at;
        let serial = scramble(self.stream.bits());
        let fixed =
            |not_before: Millis| Holding::Fixed(Credential { serial, not_before, not_after: not_before + 24 * HOUR });
        let holding = match papers {
            Papers::Expired => {
                let old = self.mesh.instance(victim).credential(at + -2 * DAY);
                Holding::Fixed(old)
            }
            Papers::Premature => fixed(at + 2 * DAY),
            Papers::Forged => fixed(at + -37 * MINUTE),
            Papers::None => Holding::Nothing,
        };
        let pod = Instance { holding, ..self.mesh.instance(victim).clone() };
        let pod = self.mesh.add_instance(pod);
        let steps = vec![self.known_operation()?, self.known_operation()?, self.known_operation()?];
        Some(Train { origin: Origin::Instance(pod), ..self.calls(40.0, 3 * SECOND, steps) })
    }

    /// A pod nobody deployed: an address and a certificate of its own, issued to the identity, known calls at first.
    pub(super) fn rogue_replica(&mut self) -> Option<Train> {
        let owner = self.mesh.service(self.actor);
        let (minor, runtime) = (owner.minor, owner.runtime);
        let mut rogue = instance(self.mesh, self.actor, minor, 1_000 + self.stream.below(20) as u32);
        rogue.version = "latest".to_owned();
        (rogue.user_agent, rogue.ja4) = crate::mesh::other_runtime(runtime);
        let rogue = self.mesh.add_instance(rogue);
        let mut steps = vec![self.known_operation()?, self.known_operation()?, self.known_operation()?];
        let strangers = self.mesh.strangers(self.actor, Kind::Api);
        if let Some(&destination) = self.stream.pick(&strangers)
            && let Some(&operation) = self.mesh.service(destination).operations.first()
        {
            steps.push(Step { destination, operation });
        }
        Some(Train { origin: Origin::Instance(rogue), ..self.calls(80.0, 4 * SECOND, steps) })
    }

    /// Logins fail a few at a time for half an hour, then one succeeds from an address never seen.
    pub(super) fn password_spraying(&mut self) -> Option<Vec<Train>> {
        let issuer = self.mesh.of_kind(Kind::Issuer).next()?;
        let operation = *self.mesh.service(issuer).operations.first()?;
        let login = vec![Step { destination: issuer, operation }];
        let tries = self.calls(90.0, 20 * SECOND, login.clone());
        let tries = Train { answer: Answer::Mostly(401, 0.0), ..tries };
        let minor = self.mesh.service(self.actor).minor;
        let mut thief = instance(self.mesh, self.actor, minor, 1_000 + self.stream.below(20) as u32);
        thief.address = self.foreign_address();
        let thief: InstanceId = self.mesh.add_instance(thief);
        let mut steps = login;
        steps.extend(self.known_operation());
        let mut use_of_it = self.calls(20.0, 6 * SECOND, steps);
        use_of_it.start = tries.end() + MINUTE;
        use_of_it.origin = Origin::Instance(thief);
        Some(vec![tries, use_of_it])
    }

    /// The actor's usual calls to Vault or the Kubernetes API; which token they carry is told in its log.
    pub(super) fn with_token(&mut self, kind: Kind) -> Option<Train> {
        let destination = self.mesh.of_kind(kind).next()?;
        let known = self.known_operations(destination);
        let reads = known.into_iter().filter(|step| self.mesh.operation(step.operation).method == "GET");
        let steps: Vec<Step> = reads.collect();
        (!steps.is_empty()).then(|| self.calls(20.0, 15 * SECOND, steps))
    }
}
