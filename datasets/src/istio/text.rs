//! One line of Istio's default text format: 22 fields, without identities.

use std::io::Write as _;

use super::{
    record::{Record, Side},
    write::{push_bare_uuid, push_ip, push_path},
};
use crate::mesh::Protocol;

impl Record<'_> {
    /// Appends the line as text.
    pub(super) fn push_text(&self, out: &mut Vec<u8>) {
        let (call, tcp) = (self.call, self.operation.protocol == Protocol::Tcp);
        out.push(b'[');
        call.start.push_rfc3339(out);
        out.extend_from_slice(b"] \"");
        if tcp {
            out.extend_from_slice(b"- - -");
        } else {
            out.extend_from_slice(self.operation.method.as_bytes());
            out.push(b' ');
            let quoted = out.len();
            push_path(out, self.operation, call.id);
            out.pop();
            out.remove(quoted);
            let grpc = self.operation.protocol == Protocol::Grpc;
            out.extend_from_slice(if grpc { b" HTTP/2" } else { b" HTTP/1.1" });
        }
        let (flags, details, failure) = match (tcp, call.status) {
            (false, 503) => (
                "UF",
                "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
                "delayed_connect_error:_Connection_refused",
            ),
            (false, 504) => ("UT", "response_timeout", "-"),
            (false, _) => ("-", "via_upstream", "-"),
            (true, 500..) => ("UF", "-", "-"),
            (true, _) => ("-", "-", "-"),
        };
        let _ = write!(
            out,
            "\" {} {flags} {details} - \"{failure}\" {} {} {} ",
            self.wire_status(),
            call.bytes_in,
            call.bytes_out,
            call.duration
        );
        let _ = if tcp || call.status >= 503 { write!(out, "-") } else { write!(out, "{}", call.duration) };
        out.extend_from_slice(b" \"");
        match self.client() {
            Some(client) => push_ip(out, client),
            None => out.push(b'-'),
        }
        if tcp {
            out.extend_from_slice(b"\" \"-\" \"-\" \"-\" \"");
        } else {
            let _ = write!(out, "\" \"{}\" \"", self.source.user_agent);
            push_bare_uuid(out, call.request);
            out.extend_from_slice(b"\" \"");
            self.push_authority(out);
            out.extend_from_slice(b"\" \"");
        }
        self.push_text_addresses(out);
        out.extend_from_slice(if tcp { b" -" } else { b" default" });
    }

    fn push_text_addresses(&self, out: &mut Vec<u8>) {
        let port = self.called.port;
        let (caller_port, own_port) = (32_768 + (self.call.id >> 40) % 28_000, 32_768 + (self.call.id >> 20) % 28_000);
        let _ = write!(out, "{}:{port}\" ", self.upstream());
        let leaves = self.side == Side::Outbound || self.operation.host.is_some();
        let _ = write!(out, "{}|{port}||", if leaves { "outbound" } else { "inbound" });
        if leaves {
            self.push_host(out);
        }
        let _ = match self.side {
            Side::Inbound => write!(out, " 127.0.0.6:{own_port} {}:{port} ", self.destination.address),
            Side::Outbound => write!(out, " {}:{caller_port} {}:{port} ", self.source.address, self.called.address),
        };
        match self.client() {
            Some(client) => {
                let _ = write!(out, "{client}:0 ");
            }
            None => {
                let _ = write!(out, "{}:{caller_port} ", self.source.address);
            }
        }
        if self.side == Side::Inbound && self.source.shows_certificate() {
            let _ = write!(out, "outbound_.{port}_._.");
            self.push_host(out);
        } else {
            out.push(b'-');
        }
    }
}
