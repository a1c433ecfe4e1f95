//! What the issuers of credentials log beside the traffic: SPIRE server, Vault, the Kubernetes API, Keycloak, sshd.
//!
//! Calls to Vault, the Kubernetes API and the token issuer are told twice, by the proxies and by what was called: the
//! trail follows the traffic and writes the second. Certificates are told when they are issued, before their use;
//! tokens likewise. What an attacker does not ask an issuer for is missing here, as it would be.

mod keycloak;
mod kubernetes;
mod planned;
mod spire;
mod sshd;
mod text;
mod trail;
mod vault;

use std::net::Ipv4Addr;

pub use trail::AuthTrail;

use crate::{
    calendar::Millis,
    call::Cause,
    mesh::{InstanceId, Mesh, OperationId, ServiceId},
};

/// Who writes an authentication log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthLog {
    /// SPIRE server's audit log.
    Spire,
    /// Vault's audit device.
    Vault,
    /// The audit log of the Kubernetes API server.
    Kubernetes,
    /// Keycloak's events.
    Keycloak,
    /// sshd of the nodes, by syslog.
    Sshd,
}

impl AuthLog {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Spire, Self::Vault, Self::Kubernetes, Self::Keycloak, Self::Sshd];

    /// The name of its format, as `qualm formats` lists it.
    pub const fn format(self) -> &'static str {
        match self {
            Self::Spire => "spire_server",
            Self::Vault => "vault_audit",
            Self::Kubernetes => "kubernetes_audit",
            Self::Keycloak => "keycloak_json",
            Self::Sshd => "sshd",
        }
    }
}

/// One thing that an issuer logs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AuthRecord {
    /// When it happened.
    pub at: Millis,
    /// Who logs it.
    pub log: AuthLog,
    /// What was asked for.
    pub deed: Deed,
    /// The service concerned; of a person's login, the on-call people's.
    pub service: ServiceId,
    /// The pod concerned, where it is one.
    pub pod: Option<InstanceId>,
    /// Where it was asked from.
    pub address: Ipv4Addr,
    /// The token asked for or presented; accessor, JTI and token id are derived from it.
    pub token: u64,
    /// Request ids and ports are derived from it.
    pub id: u64,
    /// Whether it was granted.
    pub granted: bool,
    /// Why it was done. Never written to a log.
    pub cause: Cause,
}

/// What somebody asks an issuer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// An X.509 SVID that ends then.
    Certificate {
        /// End of its validity.
        not_after: Millis,
    },
    /// A token by AppRole or by client secret.
    Login,
    /// A pod's token from the Kubernetes API.
    TokenRequest {
        /// End of its validity.
        expires: Millis,
    },
    /// A call with a token.
    Use {
        /// What was called.
        operation: OperationId,
    },
    /// The token is taken back by an administrator.
    Revoke,
    /// A token is looked at.
    Introspect,
    /// A token for another's.
    Exchange,
    /// A person's login with a password.
    UserLogin {
        /// Number of the person.
        user: u32,
    },
    /// A person's shell on a node.
    Shell {
        /// Number of the person.
        user: u32,
        /// Number of the node.
        node: u32,
    },
}

impl AuthRecord {
    /// Appends the record as its log has it, each line with a line feed; Vault writes two lines a call.
    pub fn push(&self, mesh: &Mesh, out: &mut Vec<u8>) {
        match self.log {
            AuthLog::Spire => spire::push(self, mesh, out),
            AuthLog::Vault => vault::push(self, mesh, out),
            AuthLog::Kubernetes => kubernetes::push(self, mesh, out),
            AuthLog::Keycloak => keycloak::push(self, mesh, out),
            AuthLog::Sshd => sshd::push(self, out),
        }
    }
}

/// Names under which an identity is known to the issuers, as `ingest` reads them.
pub(crate) fn name_at(log: AuthLog, mesh: &Mesh, service: ServiceId) -> String {
    let owner = mesh.service(service);
    match log {
        AuthLog::Spire => owner.spiffe_id.clone(),
        AuthLog::Vault => vault::entity(mesh, service),
        AuthLog::Kubernetes => format!("system:serviceaccount:{}:{}", owner.namespace, owner.name),
        AuthLog::Keycloak => format!("{}/{}", keycloak::REALM, owner.name),
        AuthLog::Sshd => owner.name.clone(),
    }
}
