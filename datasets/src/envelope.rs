//! What shippers wrap around a line on its way: the envelopes that `ingest` opens.

use crate::{
    calendar::Millis,
    mesh::{InstanceId, Mesh},
};

/// A shipper's form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Envelope {
    /// The bare line.
    #[default]
    Bare,
    /// Kubernetes' container runtime: time, stream, tag.
    Cri,
    /// Docker's json-file.
    Docker,
    /// Fluent Bit with Kubernetes metadata.
    FluentBit,
    /// Vector's `kubernetes_logs`.
    Vector,
    /// Filebeat with Kubernetes metadata.
    Filebeat,
    /// Logstash: `event.original`.
    Logstash,
    /// OTLP/JSON logs with resource attributes.
    Otlp,
    /// Syslog, RFC 5424.
    Syslog,
}

/// Where a line was written.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The mesh it belongs to.
    pub mesh: &'a Mesh,
    /// The pod that wrote it; `None` for what runs beside the mesh, as Keycloak does.
    pub pod: Option<InstanceId>,
    /// The container, `istio-proxy` for a sidecar.
    pub container: &'a str,
    /// The cluster, where there are several.
    pub cluster: Option<&'a str>,
    /// When it was written.
    pub time: Millis,
}

impl Envelope {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Bare,
        Self::Cri,
        Self::Docker,
        Self::FluentBit,
        Self::Vector,
        Self::Filebeat,
        Self::Logstash,
        Self::Otlp,
        Self::Syslog,
    ];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Cri => "cri",
            Self::Docker => "docker",
            Self::FluentBit => "fluent-bit",
            Self::Vector => "vector",
            Self::Filebeat => "filebeat",
            Self::Logstash => "logstash",
            Self::Otlp => "otlp-json",
            Self::Syslog => "syslog",
        }
    }

    /// Appends `line` in the envelope, without a line feed.
    pub fn push(self, place: &Place<'_>, line: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Bare => out.extend_from_slice(line),
            Self::Cri => {
                place.time.push_rfc3339(out);
                out.extend_from_slice(b" stdout F ");
                out.extend_from_slice(line);
            }
            Self::Docker => {
                out.extend_from_slice(b"{\"log\":\"");
                push_escaped(line, out);
                out.extend_from_slice(b"\\n\",\"stream\":\"stdout\",\"time\":\"");
                place.time.push_rfc3339(out);
                out.extend_from_slice(b"\"}");
            }
            Self::FluentBit => {
                out.extend_from_slice(b"{\"stream\":\"stdout\",\"logtag\":\"F\",\"log\":\"");
                push_escaped(line, out);
                out.extend_from_slice(b"\",\"kubernetes\":{");
                place.push_keys(&FLUENT, out);
                out.extend_from_slice(b"}}");
            }
            Self::Vector => {
                out.extend_from_slice(b"{\"message\":\"");
                push_escaped(line, out);
                out.extend_from_slice(b"\",\"source_type\":\"kubernetes_logs\",\"timestamp\":\"");
                place.time.push_rfc3339(out);
                out.extend_from_slice(b"\",\"kubernetes\":{");
                place.push_keys(&VECTOR, out);
                out.extend_from_slice(b"}}");
            }
            Self::Filebeat => place.push_filebeat(line, out),
            Self::Logstash => {
                out.extend_from_slice(b"{\"@version\":\"1\",\"@timestamp\":\"");
                place.time.push_rfc3339(out);
                out.extend_from_slice(b"\",\"event\":{\"original\":\"");
                push_escaped(line, out);
                out.extend_from_slice(b"\"}}");
            }
            Self::Otlp => place.push_otlp(line, out),
            Self::Syslog => {
                out.extend_from_slice(b"<134>1 ");
                place.time.push_rfc3339(out);
                let told = format!(" {} {} 1 - - ", place.node(), place.container);
                out.extend_from_slice(told.as_bytes());
                out.extend_from_slice(line);
            }
        }
    }
}

/// Names of pod, namespace, address, node, container and cluster in an envelope.
type Names = [&'static str; 6];
const FLUENT: Names = ["pod_name", "namespace_name", "pod_ip", "host", "container_name", "cluster_name"];
const VECTOR: Names = ["pod_name", "pod_namespace", "pod_ip", "pod_node_name", "container_name", "cluster"];
const OTLP: Names =
    ["k8s.pod.name", "k8s.namespace.name", "k8s.pod.ip", "k8s.node.name", "k8s.container.name", "k8s.cluster.name"];

impl Place<'_> {
    fn node(&self) -> String {
        format!("node-{}", self.pod.map_or(0, |pod| self.mesh.node_of(pod)))
    }

    /// What is known of the place, under the names of an envelope.
    fn told(&self, names: &Names) -> Vec<(&'static str, String)> {
        let mut told = Vec::with_capacity(6);
        if let Some(pod) = self.pod {
            let (instance, service) = (self.mesh.instance(pod), self.mesh.service_of(pod));
            told.push((names[0], instance.pod.clone()));
            told.push((names[1], service.namespace.to_owned()));
            told.push((names[2], instance.address.to_string()));
            told.push((names[3], self.node()));
        }
        told.push((names[4], self.container.to_owned()));
        told.extend(self.cluster.map(|cluster| (names[5], cluster.to_owned())));
        told
    }

    fn version(&self) -> Option<&str> {
        self.pod.map(|pod| self.mesh.instance(pod).version.as_str())
    }

    fn push_keys(&self, names: &Names, out: &mut Vec<u8>) {
        for (number, (name, value)) in self.told(names).into_iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            out.extend_from_slice(format!("{comma}\"{name}\":\"{value}\"").as_bytes());
        }
        if let Some(version) = self.version() {
            let labels = if names[0] == VECTOR[0] && names[1] == VECTOR[1] { "pod_labels" } else { "labels" };
            out.extend_from_slice(format!(",\"{labels}\":{{\"version\":\"{version}\"}}").as_bytes());
        }
    }

    fn push_filebeat(&self, line: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"@timestamp\":\"");
        self.time.push_rfc3339(out);
        out.extend_from_slice(b"\",\"agent\":{\"type\":\"filebeat\"},\"message\":\"");
        push_escaped(line, out);
        out.push(b'"');
        if let Some(pod) = self.pod {
            let (instance, service) = (self.mesh.instance(pod), self.mesh.service_of(pod));
            let told = format!(
                r#","kubernetes":{{"pod":{{"name":"{}","ip":"{}"}},"namespace":"{}","node":{{"name":"{}"}},"container":{{"name":"{}"}},"labels":{{"version":"{}"}},"deployment":{{"name":"{}"}}}}"#,
                instance.pod,
                instance.address,
                service.namespace,
                self.node(),
                self.container,
                instance.version,
                service.name
            );
            out.extend_from_slice(told.as_bytes());
        }
        if let Some(cluster) = self.cluster {
            out.extend_from_slice(format!(r#","orchestrator":{{"cluster":{{"name":"{cluster}"}}}}"#).as_bytes());
        }
        out.push(b'}');
    }

    fn push_otlp(&self, line: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"resourceLogs\":[{\"resource\":{\"attributes\":[");
        let mut told = self.told(&OTLP);
        told.extend(self.version().map(|version| ("k8s.pod.labels.version", version.to_owned())));
        for (number, (name, value)) in told.into_iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let text = format!(r#"{comma}{{"key":"{name}","value":{{"stringValue":"{value}"}}}}"#);
            out.extend_from_slice(text.as_bytes());
        }
        let nanos = i128::from(self.time.0) * 1_000_000;
        let head = format!(r#"]}},"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"{nanos}","body":{{"stringValue":""#);
        out.extend_from_slice(head.as_bytes());
        push_escaped(line, out);
        out.extend_from_slice(b"\"}}]}]}]}");
    }
}

/// A line within a JSON text. Generated lines are ASCII without control characters.
fn push_escaped(line: &[u8], out: &mut Vec<u8>) {
    for &byte in line {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}
