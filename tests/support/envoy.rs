//! A real Envoy as a workload's sidecar: inbound mTLS, RBAC through ECDS, access logs to Qualm and to a file.

mod bootstrap;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{
    authority::{Authority, SvidFiles, spiffe_id},
    caller::service,
    parts::Part,
    ports,
    process::Process,
    qualm::page,
    upstream::Upstream,
    wait::{PATIENCE, until},
};

/// The names under which the tests' Envoys subscribe.
pub(crate) const HTTP_RBAC: &str = "qualm-http-rbac";
pub(crate) const NETWORK_RBAC: &str = "qualm-net-rbac";
pub(crate) const HTTP_RATE_LIMIT: &str = "qualm-http-ratelimit";

/// Where an Envoy finds Qualm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QualmPorts {
    /// The SPIFFE ID that Qualm must show.
    pub(crate) id: String,
    /// Delta ECDS on 127.0.0.1.
    pub(crate) xds: u16,
    /// ALS on 127.0.0.1; `None`: it reports by its log file alone.
    pub(crate) als: Option<u16>,
}

/// What one Envoy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sidecar {
    /// Its node id, as Istio writes it: `sidecar~<address>~<pod>.<namespace>~<domain>`.
    pub(crate) node: String,
    /// Its cluster, as Istio writes it: `<app>.<namespace>`.
    pub(crate) cluster: String,
    /// The SPIFFE ID of the workload it stands in front of.
    pub(crate) id: String,
    /// `None`: its filters name a Qualm cluster that does not exist, and it sends no access logs by gRPC.
    pub(crate) qualm: Option<QualmPorts>,
    pub(crate) slot: Slot,
    pub(crate) streams: Streams,
    /// How long lines of its log file may stay with it.
    pub(crate) log_flush: Duration,
}

/// What it does about what stays open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Streams {
    /// It tells of a stream, and of a connection, at its end.
    #[default]
    ToldAtTheEnd,
    /// Every second.
    Told,
    /// Every second, and it ends them after two.
    Bounded,
}

/// What the place in its HTTP filters expects that Qualm fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Rbac,
    /// A mistake of whoever wired it: what Qualm sends is refused (NACK).
    OtherFilter,
    /// Another: it names a cluster that does not exist, and nothing ever comes.
    NoCluster,
    /// Qualm is asked about every request, in place of all that it pushes.
    ExtAuthz,
}

pub(crate) struct Envoy {
    sidecar: Sidecar,
    admin: u16,
    http: u16,
    tcp: u16,
    plain: [u16; 2],
    log: PathBuf,
    process: Process,
    /// The workload: its HTTP and its TCP port.
    _workload: [Upstream; 2],
}

impl Sidecar {
    /// The sidecar of replica `replica` of `app` in namespace `shop`.
    pub(crate) fn new(app: &str, replica: u8, qualm: Option<QualmPorts>) -> Self {
        Self::before(&spiffe_id("shop", app), replica, qualm)
    }

    /// The sidecar of replica `replica` of the workload `id`.
    pub(crate) fn before(id: &str, replica: u8, qualm: Option<QualmPorts>) -> Self {
        let service = service(id);
        let (app, namespace) = service.split_once('.').expect("a service account in a namespace");
        Self {
            node: format!("sidecar~127.0.0.1~{app}-{replica}.{namespace}~{namespace}.svc.cluster.local"),
            id: id.to_owned(),
            cluster: service,
            qualm,
            slot: Slot::Rbac,
            streams: Streams::default(),
            log_flush: Duration::from_millis(50),
        }
    }
}

impl Envoy {
    /// [Launches](Self::launch) it and waits until it is live.
    pub(crate) fn start(folder: &Path, authority: &Authority, sidecar: Sidecar) -> Self {
        let mut envoy = Self::launch(folder, authority, sidecar);
        envoy.wait_until_live();
        envoy
    }

    /// Writes its config and SVID under `folder` and starts it.
    pub(crate) fn launch(folder: &Path, authority: &Authority, sidecar: Sidecar) -> Self {
        let folder = folder.join(format!("envoy-{}", ports::free()));
        let svid = authority.write_svid(&sidecar.id, &folder);
        let workload = [Upstream::http(), Upstream::echo()];
        let log = folder.join("access.jsonl");
        let places = Places {
            admin: ports::free(),
            http: ports::free(),
            tcp: ports::free(),
            plain: [ports::free(), ports::free()],
            workload: [workload[0].port(), workload[1].port()],
            svid: &svid,
            log: &log,
        };
        let config = folder.join("envoy.json");
        let text = serde_json::to_string_pretty(&bootstrap::config(&sidecar, &places)).expect("JSON can be written");
        fs::write(&config, text).expect("the test's folder can be written to");

        let program = Part::Envoy.folder().expect("parts::present was asked first").join("envoy");
        let mut command = Process::command(&program);
        command.arg("--config-path").arg(&config);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--drain-time-s", "1"]);
        // The access log is flushed every 10 s by default, every second under Istio.
        let flush = sidecar.log_flush.as_millis().to_string();
        command.args(["--file-flush-interval-msec", &flush, "--log-level", "warning"]);
        let process = Process::spawn(&sidecar.node, command, &folder.join("envoy.log"));
        let Places { admin, http, tcp, plain, .. } = places;
        Self { admin, http, tcp, plain, log, process, _workload: workload, sidecar }
    }

    /// Waits until its listeners serve: at the latest when it has given up waiting for Qualm's first answer.
    pub(crate) fn wait_until_live(&mut self) {
        let admin = self.admin;
        self.process.wait_until("is live", PATIENCE, || page(admin, "/ready").is_ok_and(|page| page.status == 200));
    }

    /// Where its JSON access log is.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    pub(crate) fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// Port of the HTTP listener: mTLS, RBAC, and a workload that serves all.
    pub(crate) fn http(&self) -> u16 {
        self.http
    }

    /// Port of the TCP listener: mTLS, RBAC, and an echo behind it.
    pub(crate) fn tcp(&self) -> u16 {
        self.tcp
    }

    /// Ports of an HTTP and a TCP listener with the same filters and without TLS.
    pub(crate) fn plain(&self) -> [u16; 2] {
        self.plain
    }

    /// The lines of its JSON access log so far that are whole.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(|line| serde_json::from_str(line).expect("Envoy writes JSON")).collect()
    }

    /// Waits until its log has a line for which `wanted` holds.
    pub(crate) fn logged(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{} logs {what}", self.sidecar.node), PATIENCE, || {
            self.log_lines().into_iter().find(|line| wanted(line))
        })
    }

    /// A counter or gauge of its admin page.
    pub(crate) fn stat(&self, name: &str) -> Option<u64> {
        let page = page(self.admin, &format!("/stats?filter=^{}$", name.replace('.', "\\."))).ok()?;
        page.body.trim().rsplit_once(": ")?.1.parse().ok()
    }

    /// A page of its admin server.
    pub(crate) fn admin(&self, path: &str) -> String {
        page(self.admin, path).expect("Envoy's admin page answers").body
    }

    /// Its own log.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// Waits until `holds`; fails at once, with its output, when it ends first.
    pub(crate) fn wait_until(&mut self, what: &str, limit: Duration, holds: impl FnMut() -> bool) {
        self.process.wait_until(what, limit, holds);
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }
}

/// Ports and files of one Envoy; all ports are 127.0.0.1's.
struct Places<'a> {
    admin: u16,
    http: u16,
    tcp: u16,
    /// HTTP and TCP without TLS.
    plain: [u16; 2],
    /// The workload behind the HTTP and the TCP listener.
    workload: [u16; 2],
    svid: &'a SvidFiles,
    log: &'a Path,
}

/// Loopback in Envoy's words.
fn socket(port: u16) -> Value {
    serde_json::json!({ "socket_address": { "address": Ipv4Addr::LOCALHOST.to_string(), "port_value": port } })
}
