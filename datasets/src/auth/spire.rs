//! SPIRE server's audit log. It has no serial: certificates are joined by SPIFFE ID and end of validity.

use std::io::Write as _;

use super::{
    AuthRecord, Deed,
    text::{digest, micros, uuid},
};
use crate::mesh::{Mesh, TRUST_DOMAIN};

pub(super) fn push(record: &AuthRecord, mesh: &Mesh, out: &mut Vec<u8>) {
    let Deed::Certificate { not_after } = record.deed else { return };
    let node = record.pod.map_or(0, |pod| mesh.node_of(pod));
    let owner = mesh.service(record.service);
    let _ = writeln!(
        out,
        r#"{{"authorized_as":"agent","authorized_via":"datastore","caller_addr":"10.63.0.{host}:{port}","caller_id":"spiffe://{TRUST_DOMAIN}/spire/agent/k8s_psat/north/{agent}","csr":"{csr}","entry_id":"{entry}","expires_at":{expires},"level":"info","method":"BatchNewX509SVID","msg":"API accessed","request_id":"{request}","service":"svid.v1.SVID","spiffe_id":"{spiffe_id}","status":"success","subsystem_name":"api","time":"{time}","type":"audit"}}"#,
        host = node + 1,
        port = 32_768 + record.id % 28_000,
        agent = uuid(u64::from(node) ^ 0x0000_6e6f_6465),
        csr = digest(record.id),
        entry = uuid(u64::from(record.service.0) ^ 0x656e_7472_7900),
        expires = not_after.0.div_euclid(1_000),
        request = uuid(record.id),
        spiffe_id = owner.spiffe_id,
        time = micros(record.at, record.id),
    );
}
