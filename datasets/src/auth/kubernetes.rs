//! The audit log of the Kubernetes API server, at level `Request` and for token requests `RequestResponse`.

use std::io::Write as _;

use super::{
    AuthRecord, Deed,
    text::{micros, uuid},
};
use crate::mesh::Mesh;

/// What a path of the API is about.
struct Object<'a> {
    group: &'a str,
    namespace: &'a str,
    resource: &'a str,
}

pub(super) fn push(record: &AuthRecord, mesh: &Mesh, out: &mut Vec<u8>) {
    match record.deed {
        Deed::TokenRequest { expires } => push_token_request(record, expires.0, mesh, out),
        Deed::Use { operation } => {
            let asked = mesh.operation(operation);
            push_use(record, asked.method, &asked.template(), mesh, out);
        }
        _ => {}
    }
}

fn push_token_request(record: &AuthRecord, expires: i64, mesh: &Mesh, out: &mut Vec<u8>) {
    let owner = mesh.service(record.service);
    let (namespace, name) = (owner.namespace, &owner.name);
    let node = record.pod.map_or(0, |pod| mesh.node_of(pod));
    let pod = record.pod.map_or("", |pod| mesh.instance(pod).pod.as_str());
    let seconds = (expires - record.at.0) / 1_000;
    let bound = format!(r#""boundObjectRef":{{"kind":"Pod","apiVersion":"v1","name":"{pod}"}}"#);
    let spec = format!(r#""spec":{{"audiences":["api"],"expirationSeconds":{seconds},{bound}}}"#);
    let _ = writeln!(
        out,
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"{audit}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token","verb":"create","user":{{"username":"system:node:node-{node}","groups":["system:nodes","system:authenticated"]}},"sourceIPs":["10.63.0.{host}"],"userAgent":"kubelet/v1.34.0","objectRef":{{"resource":"serviceaccounts","namespace":"{namespace}","name":"{name}","apiVersion":"v1","subresource":"token"}},"responseStatus":{{"metadata":{{}},"code":201}},"requestObject":{{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1",{spec}}},"responseObject":{{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1",{spec},"status":{{"token":"","expirationTimestamp":"{end}"}}}},"requestReceivedTimestamp":"{received}","stageTimestamp":"{staged}","annotations":{{"authentication.kubernetes.io/issued-credential-id":"JTI={jti}","authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}}}"#,
        audit = uuid(record.id),
        host = node + 1,
        end = crate::Millis(expires),
        received = micros(record.at, record.id),
        staged = micros(record.at + 4, record.id),
        jti = uuid(record.token),
    );
}

fn push_use(record: &AuthRecord, method: &str, path: &str, mesh: &Mesh, out: &mut Vec<u8>) {
    let owner = mesh.service(record.service);
    let Object { group, namespace, resource } = object(path);
    let verb = if method == "POST" { "create" } else { "list" };
    let pod = record.pod.map_or("", |pod| mesh.instance(pod).pod.as_str());
    let user = format!("system:serviceaccount:{}:{}", owner.namespace, owner.name);
    let (code, decision) = match (record.granted, verb) {
        (false, _) => (403, "forbid"),
        (true, "create") => (201, "allow"),
        (true, _) => (200, "allow"),
    };
    let reason = if record.granted { "" } else { r#""status":"Failure","reason":"Forbidden","# };
    let within = if namespace.is_empty() { String::new() } else { format!(r#""namespace":"{namespace}","#) };
    let _ = writeln!(
        out,
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"{audit}","stage":"ResponseComplete","requestURI":"{path}","verb":"{verb}","user":{{"username":"{user}","uid":"{uid}","groups":["system:serviceaccounts","system:serviceaccounts:{own}","system:authenticated"],"extra":{{"authentication.kubernetes.io/credential-id":["JTI={jti}"],"authentication.kubernetes.io/pod-name":["{pod}"]}}}},"sourceIPs":["{address}"],"userAgent":"{name}/v1","objectRef":{{"resource":"{resource}",{within}"apiGroup":"{group}","apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},{reason}"code":{code}}},"requestReceivedTimestamp":"{received}","stageTimestamp":"{staged}","annotations":{{"authorization.k8s.io/decision":"{decision}","authorization.k8s.io/reason":""}}}}"#,
        audit = uuid(record.id),
        uid = uuid(u64::from(record.service.0) ^ 0x0075_6964),
        own = owner.namespace,
        jti = uuid(record.token),
        address = record.address,
        name = owner.name,
        received = micros(record.at, record.id),
        staged = micros(record.at + 1, record.id),
    );
}

/// Takes `/api/v1/namespaces/shop/pods` and `/apis/rbac.authorization.k8s.io/v1/clusterroles` apart.
fn object(path: &str) -> Object<'_> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let group = if parts.next() == Some("apis") { parts.next().unwrap_or_default() } else { "" };
    let _version = parts.next();
    match (parts.next(), parts.next(), parts.next()) {
        (Some("namespaces"), Some(namespace), Some(resource)) => Object { group, namespace, resource },
        (resource, ..) => Object { group, namespace: "", resource: resource.unwrap_or_default() },
    }
}
