//! Operations: what a service can be asked, how large the answer is and how long it takes.

use super::ServiceId;
use crate::random::Stream;

/// How an operation is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// gRPC over HTTP/2.
    Grpc,
    /// A TCP connection; there is no operation to see, only its volume.
    Tcp,
}

/// A log-normal quantity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// Median, in bytes or milliseconds; 0 is always 0.
    pub median: f64,
    /// Standard deviation of the logarithm.
    pub sigma: f64,
}

impl Size {
    pub(crate) fn draw(self, stream: &mut Stream, factor: f64) -> f64 {
        if self.median == 0.0 { 0.0 } else { stream.log_normal(self.median * factor, self.sigma) }
    }
}

/// One operation of one service.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Who serves it.
    pub service: ServiceId,
    /// How it is spoken.
    pub protocol: Protocol,
    /// HTTP method; empty for TCP.
    pub method: &'static str,
    /// The path with its placeholders.
    pub(crate) path: Vec<Segment>,
    /// The host beyond the egress gateway, where it is one.
    pub host: Option<String>,
    /// Bytes from caller to called.
    pub request: Size,
    /// Bytes from called to caller.
    pub response: Size,
    /// Milliseconds.
    pub duration: Size,
}

/// A piece of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(Box<str>),
    /// A decimal id.
    Number,
    Uuid,
    /// 16 hexadecimal digits.
    Hex,
    /// One of [`WORDS`], as scanners try them.
    Word,
}

/// What a scanner asks for.
pub(crate) const WORDS: [&str; 64] = [
    "admin",
    "login",
    "backup",
    "config",
    "env",
    "debug",
    "trace",
    "heapdump",
    "console",
    "shell",
    "upload",
    "files",
    "private",
    "internal",
    "secrets",
    "tokens",
    "keys",
    "users",
    "accounts",
    "roles",
    "groups",
    "api-docs",
    "swagger",
    "graphql",
    "actuator",
    "metrics",
    "status",
    "server-info",
    "phpinfo",
    "wp-login",
    "cgi-bin",
    "old",
    "test",
    "dev",
    "staging",
    "beta",
    "export",
    "import",
    "dump",
    "sql",
    "db",
    "data",
    "logs",
    "audit",
    "jobs",
    "queue",
    "tasks",
    "cron",
    "manage",
    "management",
    "system",
    "sys",
    "root",
    "setup",
    "install",
    "update",
    "upgrade",
    "deploy",
    "git",
    "svn",
    "hidden",
    "tmp",
    "cache",
    "flags",
];

impl Operation {
    /// An HTTP operation; `template` uses `{n}`, `{uuid}`, `{hex}`, `{word}` as placeholders.
    pub(crate) fn http(service: ServiceId, method: &'static str, template: &str) -> Self {
        let body = if matches!(method, "GET" | "DELETE" | "HEAD") { 0.0 } else { 420.0 };
        Self {
            service,
            protocol: Protocol::Http,
            method,
            path: segments(template),
            host: None,
            request: Size { median: body, sigma: 0.5 },
            response: Size { median: 900.0, sigma: 0.6 },
            duration: Size { median: 8.0, sigma: 0.6 },
        }
    }

    /// A TCP connection to `service`.
    pub(crate) fn tcp(service: ServiceId) -> Self {
        Self {
            service,
            protocol: Protocol::Tcp,
            method: "",
            path: Vec::new(),
            host: None,
            request: Size { median: 2_400.0, sigma: 0.8 },
            response: Size { median: 18_000.0, sigma: 0.9 },
            duration: Size { median: 900.0, sigma: 0.9 },
        }
    }

    /// The status a success has.
    pub(crate) fn success(&self) -> u16 {
        match (self.protocol, self.method) {
            (Protocol::Http, "DELETE") => 204,
            (Protocol::Http, "POST") if matches!(self.path.last(), Some(Segment::Literal(_))) => 201,
            _ => 200,
        }
    }

    /// Whether the path names something that may not exist.
    pub(crate) fn names_an_id(&self) -> bool {
        self.path.iter().any(|segment| !matches!(segment, Segment::Literal(_) | Segment::Word))
    }

    /// The path with its placeholders, `/v1/orders/{n}`; empty for TCP.
    pub fn template(&self) -> String {
        let text = |segment: &Segment| match segment {
            Segment::Literal(text) => text.to_string(),
            Segment::Number => "{n}".to_owned(),
            Segment::Uuid => "{uuid}".to_owned(),
            Segment::Hex => "{hex}".to_owned(),
            Segment::Word => "{word}".to_owned(),
        };
        self.path.iter().map(text).collect()
    }
}

/// Operations nobody calls on an ordinary day: what people debugging and intruders ask for.
pub(crate) fn odd_operations(service: ServiceId) -> Vec<Operation> {
    [
        ("GET", "/debug/pprof/heap"),
        ("GET", "/actuator/env"),
        ("GET", "/config_dump"),
        ("POST", "/admin/flags/{n}"),
        ("GET", "/admin/users/{n}"),
        ("DELETE", "/admin/cache"),
    ]
    .into_iter()
    .map(|(method, template)| Operation::http(service, method, template))
    .collect()
}

fn segments(template: &str) -> Vec<Segment> {
    let mut path = Vec::new();
    let mut rest = template;
    while let Some((literal, tail)) = rest.split_once('{') {
        let (name, tail) = tail.split_once('}').expect("templates are written in this crate, with closed braces");
        if !literal.is_empty() {
            path.push(Segment::Literal(literal.into()));
        }
        path.push(match name {
            "n" => Segment::Number,
            "uuid" => Segment::Uuid,
            "hex" => Segment::Hex,
            _ => Segment::Word,
        });
        rest = tail;
    }
    if !rest.is_empty() {
        path.push(Segment::Literal(rest.into()));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_survives_being_parsed() {
        for template in ["/v1/orders/{n}/items/{uuid}", "/{word}", "/metrics", "/f/{hex}?page={n}"] {
            assert_eq!(Operation::http(ServiceId(0), "GET", template).template(), template);
        }
    }
}
