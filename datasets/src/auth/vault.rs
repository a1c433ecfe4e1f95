//! Vault's audit device: a line for the request and one for the response.

use std::io::Write as _;

use super::{
    AuthRecord, Deed,
    text::{digest, micros, uuid},
};
use crate::mesh::{Mesh, ServiceId};

/// The entity of a service.
pub(super) fn entity(mesh: &Mesh, service: ServiceId) -> String {
    uuid(mesh.config.seed ^ (u64::from(service.0) << 20) ^ 0x0065_6e74)
}

pub(super) fn push(record: &AuthRecord, mesh: &Mesh, out: &mut Vec<u8>) {
    let owner = mesh.service(record.service);
    // An administrator has a token of his own, and takes back another.
    let shown = if record.deed == Deed::Revoke { 0x6f70_746f } else { record.token };
    let accessor = digest(shown);
    let (operation, path) = match record.deed {
        Deed::Login => ("update", "auth/approle/login".to_owned()),
        Deed::Revoke => ("update", "auth/token/revoke-accessor".to_owned()),
        Deed::Use { operation } => {
            let asked = mesh.operation(operation);
            let path = asked.template();
            let path = path.strip_prefix("/v1/").unwrap_or(&path).to_owned();
            (if asked.method == "GET" { "read" } else { "update" }, path)
        }
        _ => return,
    };
    let (mount, kind, class) = match path.split('/').next() {
        Some("auth") if path.starts_with("auth/approle/") => ("auth/approle/", "approle", "auth"),
        Some("auth") => ("auth/token/", "token", "auth"),
        Some("sys") => ("sys/", "system", "secret"),
        _ => ("secret/", "kv", "secret"),
    };
    let who = match record.deed {
        Deed::Login => String::new(),
        _ => format!(
            r#""client_token":"hmac-sha256:{}","client_token_accessor":"hmac-sha256:{accessor}","#,
            digest(shown ^ 1)
        ),
    };
    let request = format!(
        r#""request":{{{who}{data}"id":"{id}","mount_accessor":"{kind}_9c6d3387","mount_class":"{class}","mount_point":"{mount}","mount_type":"{kind}","namespace":{{"id":"root"}},"operation":"{operation}","path":"{path}","remote_address":"{address}","remote_port":{port}}}"#,
        data = if record.deed == Deed::Revoke {
            format!(r#""data":{{"accessor":"hmac-sha256:{}"}},"#, digest(record.token))
        } else {
            String::new()
        },
        id = uuid(record.id),
        address = record.address,
        port = 32_768 + record.id % 28_000,
    );
    let named = if record.deed == Deed::Revoke { "operator".to_owned() } else { owner.name.clone() };
    let auth = format!(
        r#"{{"accessor":"hmac-sha256:{accessor}","client_token":"hmac-sha256:{token}","display_name":"approle","entity_id":"{entity}","metadata":{{"role_name":"{named}"}},"policies":["app","default"],"policy_results":{{"allowed":{granted}}},"token_policies":["app","default"],"token_ttl":3600,"token_type":"service"}}"#,
        token = digest(shown ^ 1),
        entity = if record.deed == Deed::Revoke { uuid(0x6f70) } else { entity(mesh, record.service) },
        granted = record.granted,
    );
    let before = if record.deed == Deed::Login { r#"{"token_type":"default"}"# } else { auth.as_str() };
    let error = if record.granted { "" } else { r#""error":"permission denied","# };
    let _ =
        writeln!(out, r#"{{"auth":{before},{request},"time":"{}","type":"request"}}"#, micros(record.at, record.id));
    let answer = if record.deed == Deed::Login && record.granted {
        format!(r#","response":{{"auth":{auth}}}"#)
    } else {
        String::new()
    };
    let after =
        if record.deed == Deed::Login && !record.granted { r#"{"token_type":"default"}"# } else { auth.as_str() };
    let _ = writeln!(
        out,
        r#"{{"auth":{after},{error}{request}{answer},"time":"{}","type":"response"}}"#,
        micros(record.at + 2, record.id)
    );
}
