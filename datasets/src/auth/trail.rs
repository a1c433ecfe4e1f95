//! Follows the traffic and tells what the issuers log of it and beside it.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use super::{AuthLog, AuthRecord, Deed, planned::Planned};
use crate::{
    attack::AttackKind,
    calendar::{HOUR, MINUTE},
    call::{Call, Cause},
    mesh::{Kind, Mesh},
    random::scramble,
    scenario::Scenario,
};

/// A token is used so long before the next is asked for; it would be valid for an hour.
const TOKEN_LIFE: i64 = 50 * MINUTE;

/// What issuers log while [`Traffic`](crate::Traffic) plays.
///
/// Call [`AuthTrail::follow`] with every call in the order of the traffic, and [`AuthTrail::finish`] at the end.
/// Memory is a token by pod and log, and the planned records of an hour.
#[derive(Debug)]
pub struct AuthTrail {
    scenario: Arc<Scenario>,
    planned: Planned,
    /// Generation of the token that each pod, or the pods of a service together, hold.
    held: BTreeMap<(AuthLog, u64), i64>,
}

impl AuthTrail {
    /// The trail beside the traffic of `scenario`.
    pub fn new(scenario: Arc<Scenario>) -> Self {
        let planned = Planned::new(&scenario);
        Self { scenario, planned, held: BTreeMap::new() }
    }

    /// Appends what was logged until this call was reported, and what is logged of the call itself.
    pub fn follow(&mut self, call: &Call, out: &mut Vec<AuthRecord>) {
        self.planned.until(&self.scenario, call.report(), out);
        let log = match self.scenario.mesh().service_of(call.destination).kind {
            Kind::Vault => AuthLog::Vault,
            Kind::Kubernetes => AuthLog::Kubernetes,
            Kind::Issuer => AuthLog::Keycloak,
            _ => return,
        };
        // Failures of the upstream are not the issuer's to log.
        if call.status < 500 {
            self.tell(log, call, out);
        }
    }

    /// Appends what is left until the end of the scenario.
    pub fn finish(&mut self, out: &mut Vec<AuthRecord>) {
        self.planned.until(&self.scenario, self.scenario.end(), out);
    }

    fn tell(&mut self, log: AuthLog, call: &Call, out: &mut Vec<AuthRecord>) {
        let mesh = self.scenario.mesh();
        let source = mesh.instance(call.source);
        let attack = self.attack_of(call);
        let (holder, generation, held_token) = token(mesh, log, call);
        let mut record = AuthRecord {
            at: call.start,
            log,
            deed: Deed::Use { operation: call.operation },
            service: source.service,
            pod: Some(call.source),
            address: source.address,
            token: held_token,
            id: call.id,
            granted: call.status < 400 || call.status == 404,
            cause: call.cause,
        };
        if log == AuthLog::Keycloak {
            let path = mesh.operation(call.operation).template();
            out.extend(keycloak_deed(&path, attack, call.id).map(|deed| AuthRecord { deed, token: call.id, ..record }));
            return;
        }
        let login = log == AuthLog::Vault && mesh.operation(call.operation).template().ends_with("/login");
        if let Some((kind, number)) = attack {
            let stolen = planned_token(mesh.config.seed, number);
            match kind {
                AttackKind::ExpiredToken | AttackKind::RevokedToken | AttackKind::ForgedToken => record.token = stolen,
                AttackKind::StolenToken => (record.token, record.address) = (stolen, elsewhere(source.address)),
                _ => {}
            }
            if record.token == stolen {
                return out.push(record);
            }
        }
        if login {
            record.deed = Deed::Login;
        }
        let held = self.held.entry((log, holder)).or_insert(i64::MIN);
        if *held != generation && record.granted {
            *held = generation;
            let (at, id) = (call.start + -40, scramble(call.id));
            let deed = match log {
                AuthLog::Kubernetes => Deed::TokenRequest { expires: at + HOUR },
                _ => Deed::Login,
            };
            if !login {
                out.push(AuthRecord { at, id, deed, ..record });
            }
        }
        out.push(record);
    }

    fn attack_of(&self, call: &Call) -> Option<(AttackKind, u32)> {
        let Cause::Attack(number) = call.cause else { return None };
        let label = self.scenario.attacks().get(number as usize)?;
        Some((AttackKind::from_name(label.kind)?, number))
    }
}

/// Holder, generation and value of the token that the caller uses. Every third service's pods share one at Vault.
fn token(mesh: &Mesh, log: AuthLog, call: &Call) -> (u64, i64, u64) {
    let service = u64::from(mesh.instance(call.source).service.0);
    let shared = log == AuthLog::Vault && service % 3 == 0;
    let holder = if shared { service << 32 } else { u64::from(call.source.0) };
    let key = scramble(mesh.config.seed ^ scramble(holder) ^ log as u64);
    let generation = (call.start.0 + (key % TOKEN_LIFE as u64) as i64).div_euclid(TOKEN_LIFE);
    (holder, generation, scramble(key ^ generation as u64))
}

/// The token that an attack presents: the same in its issue, where there is one, and in its use.
pub(super) fn planned_token(seed: u64, attack: u32) -> u64 {
    scramble(seed ^ 0x746f_6b65_6e00 ^ u64::from(attack))
}

/// An address of a pod of nobody's.
fn elsewhere(address: Ipv4Addr) -> Ipv4Addr {
    let [.., c, d] = address.octets();
    Ipv4Addr::new(10, 200, c, d)
}

fn keycloak_deed(path: &str, attack: Option<(AttackKind, u32)>, id: u64) -> Option<Deed> {
    Some(match (path, attack) {
        ("/oauth/token", Some((AttackKind::PasswordSpraying, _))) => {
            Deed::UserLogin { user: (scramble(id) % 40) as u32 }
        }
        ("/oauth/token", _) => Deed::Login,
        ("/oauth/token/exchange", _) => Deed::Exchange,
        ("/oauth/introspect", _) => Deed::Introspect,
        _ => return None,
    })
}
