//! What can be asked of `qualm generate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The access log's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Istio's JSON with the operators that carry identities.
    #[value(name = "istio_json")]
    IstioJson,
    /// Istio's default text, without identities.
    #[value(name = "istio_text")]
    IstioText,
}

/// Whose proxies report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Witnesses {
    /// The called one's.
    Inbound,
    /// The caller's.
    Outbound,
    /// Both.
    Both,
}

/// Whose clocks people and jobs follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clocks {
    /// No daylight saving.
    Utc,
    /// Central European time.
    Europe,
}

/// A shipper's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wrapping {
    Bare,
    Cri,
    Docker,
    FluentBit,
    Vector,
    Filebeat,
    Logstash,
    OtlpJson,
    Syslog,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// The same seed gives the same bytes.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Days to generate.
    #[arg(long, default_value_t = 8.0)]
    pub(crate) days: f64,
    /// Services of the mesh, 20 to 2000; Vault and the Kubernetes API come on top.
    #[arg(long, default_value_t = 40)]
    pub(crate) services: usize,
    /// Calls a second, mean over the week.
    #[arg(long, default_value_t = 2.0, value_name = "CALLS")]
    pub(crate) rate: f64,
    /// Honest changes a day.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) churn: f64,
    /// Kinds of honest change, separated by commas; all otherwise.
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    pub(crate) changes: Vec<String>,
    /// Attacks a day, after the quiet part.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) attacks: f64,
    /// Kinds of attack, separated by commas; all in turn otherwise.
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    pub(crate) kinds: Vec<String>,
    /// Median factor on an attack's targets, calls or bytes.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) intensity: f64,
    /// Median factor on an attack's calls a second.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) pace: f64,
    /// How far intensity and pace spread: standard deviation of their logarithms.
    #[arg(long, default_value_t = 0.4)]
    pub(crate) spread: f64,
    /// Share of the time without attacks, at the beginning.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) quiet: f64,
    /// When it begins: RFC 3339, or `now`.
    #[arg(long, default_value = "2026-01-05T00:00:00Z")]
    pub(crate) start: String,
    /// Whose clocks people and jobs follow.
    #[arg(long, value_enum, default_value = "utc")]
    pub(crate) clocks: Clocks,
    /// Users outside whose requests the gateways report too.
    #[arg(long)]
    pub(crate) users: bool,
    /// Share of calls that are caused by others, with the same request id, 0 to 0.95.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) chained: f64,
    /// Also write the logs of SPIRE, Vault, the Kubernetes API, Keycloak and sshd.
    #[arg(long)]
    pub(crate) auth: bool,
    /// Seconds by which those arrive late.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) auth_delay: u32,
    /// All pods of a service on a node share one certificate.
    #[arg(long)]
    pub(crate) shared_certificates: bool,
    /// Share of the services that run under their namespace's default account.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) shared_accounts: f64,
    /// Clusters whose services have the same names, 1 to 8.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) clusters: u8,
    #[command(flatten)]
    pub(crate) dirt: DirtArgs,
    /// The access log's form.
    #[arg(long, value_enum, default_value = "istio_json")]
    pub(crate) format: LogFormat,
    /// What a shipper wraps around each line.
    #[arg(long, value_enum, default_value = "bare")]
    pub(crate) envelope: Wrapping,
    /// Write at most so many lines.
    #[arg(long, default_value_t = 500_000_000)]
    pub(crate) records: u64,
    /// Directory to write to; made where it does not exist.
    #[arg(long, conflicts_with_all = ["brokers", "topic"])]
    pub(crate) out: Option<PathBuf>,
    /// `host:port` of Kafka brokers, separated by commas.
    #[arg(long, requires = "topic")]
    pub(crate) brokers: Option<String>,
    /// The topic of the access log; other logs go to `TOPIC-FORMAT`, other clusters' to `TOPIC-CLUSTER`.
    #[arg(long, requires = "brokers")]
    pub(crate) topic: Option<String>,
    /// A property for librdkafka, as `security.protocol=ssl`; may be given several times.
    #[arg(long = "property", value_name = "NAME=VALUE")]
    pub(crate) properties: Vec<String>,
    /// So many times as fast as it happened; as fast as possible otherwise.
    #[arg(long, conflicts_with_all = ["per_second", "live"], value_name = "FACTOR")]
    pub(crate) speed: Option<f64>,
    /// Lines a second.
    #[arg(long, conflicts_with = "live", value_name = "LINES")]
    pub(crate) per_second: Option<f64>,
    /// Every line when its time comes by the wall clock, those of the past at once.
    #[arg(long)]
    pub(crate) live: bool,
}

/// What happens to reports on their way.
#[derive(Debug, Args)]
pub(crate) struct DirtArgs {
    /// Whose proxies report.
    #[arg(long, value_enum, default_value = "inbound")]
    pub(crate) reporters: Witnesses,
    /// Share of the destinations' reports that is lost.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) lost: f64,
    /// Share of the sources' reports that is lost.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) lost_outbound: f64,
    /// Share of the reports that comes twice.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) duplicates: f64,
    /// Median delay of reports in milliseconds, every pod's another.
    #[arg(long, default_value_t = 0.0, value_name = "MS")]
    pub(crate) delay: f64,
    /// Share of the reports that comes minutes late.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) stragglers: f64,
    /// Standard deviation of the nodes' clocks in milliseconds.
    #[arg(long, default_value_t = 0.0, value_name = "MS")]
    pub(crate) skew: f64,
    /// Share of the requests that is reported at all.
    #[arg(long, conflicts_with = "failures_only", value_name = "SHARE")]
    pub(crate) sampled: Option<f64>,
    /// Only calls with a status of 400 and above are reported.
    #[arg(long)]
    pub(crate) failures_only: bool,
    /// Long connections are also reported every so many seconds while they are open.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) interim: Option<u32>,
}
