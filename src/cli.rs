//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use qualm_ingest::{envelope::Envelope, parse::Format};
use qualm_model::{detector::Question, level::Level};

use crate::{
    formats::Asked,
    generate::args::GenerateArgs,
    journal::JournalCommand,
    operate::args::{
        AcceptArgs, AnnounceArgs, EffectArgs, HooksCommand, LiftArgs, ListArgs, PauseArgs, RehearseArgs, ResumeArgs,
        SetArgs, ShowArgs,
    },
    policy::PolicyCommand,
    replay::ReplayArgs,
    wire::{Namespace, Target},
};

/// Watches how every service identity in a mesh behaves, keeps the evidence against each in bits, and turns it into
/// graduated, expiring trust downgrades at the enforcement points, within a false-alarm budget.
#[derive(Debug, Parser)]
#[command(name = "qualm", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 it failed while running; 2 the command line, the configuration or an \
input is wrong (the message says which and what to do); 3 `check` found something to mend, `journal verify` a damage, or `policy test` a case that fails.\n\nFirst steps: `qualm \
demo` shows the main job on this machine alone; `qualm check --config qualm.toml` tells what is wrong with a setup; \
`qualm backtest LOG --out DIR` shows what would have been flagged.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the main job end to end: a generated mesh, an in-process Kafka, real enforcement over loopback gRPC.
    Demo(DemoArgs),
    /// Watch the configured inputs, score, and serve enforcement points.
    Run(StartArgs),
    /// Replay logs through the same scorer and write what it would have done.
    Backtest(BacktestArgs),
    /// Generate a labelled mesh with attacks and honest changes: access logs and the issuers' logs, to files or to Kafka.
    Generate(Box<GenerateArgs>),
    /// Look at a topic or a file and tell what is in it: formats, services, edges, delays, what can be asked of it and
    /// what to add. Needs no configuration, commits nothing, and ends by writing one that works.
    Look(LookArgs),
    /// Print what connects a mesh, a shipper or a topic to Qualm, with comments, and what takes it back. Applies nothing.
    Wire(WireArgs),
    /// List the formats that are understood, with a sample of each.
    Formats(FormatsArgs),
    /// Check a configuration and everything it needs: files, topics, certificates, ports; which levels are armed.
    Check(RunArgs),
    /// Tell where an identity stands and why, or what is known of one that was always trusted, from the state directory
    /// of a running or stopped instance.
    Explain(ExplainArgs),
    /// Tell a running instance to read its configuration again.
    Reload(RunArgs),
    /// List who stands above trusted in a running instance, by evidence or by an operator, and what is held or paused.
    List(ListArgs),
    /// Show one identity of a running instance: where it stands and why, its latest decisions, whom it calls.
    Show(ShowArgs),
    /// Show what a level would have denied in the last 24 hours, whom that would have hit, and who would be left to serve.
    Rehearse(RehearseArgs),
    /// Announce a deployment: for a time, what several replicas of one service do anew is taken for its new version.
    Announce(AnnounceArgs),
    /// Accept what an identity does oddly: up to what was seen it counts no more, and is learned, for a time. Shows first what
    /// that would have hidden in the last 21 days.
    Accept(AcceptArgs),
    /// Deny every new request and connection of an identity, or of one of its instances, for a time.
    #[command(visible_alias = "block")]
    Quarantine(SetArgs),
    /// Limit an identity to what is usual for it, for a time.
    Restrict(SetArgs),
    /// Limit an identity's rate, for a time.
    Throttle(SetArgs),
    /// Mark an identity's calls in the mesh's own log, for a time.
    Watch(SetArgs),
    /// End what stands for an identity, by evidence or by an operator: the way back from a false quarantine.
    #[command(visible_alias = "unblock")]
    Lift(LiftArgs),
    /// Make a shadow of everything at once, for a time: nothing is denied to anybody.
    Pause(PauseArgs),
    /// End a pause: what still stands acts again.
    Resume(ResumeArgs),
    /// What hooks do at issuers and elsewhere.
    #[command(subcommand)]
    Hooks(HooksCommand),
    /// Let an effect of a hook be done that waits for approval.
    Approve(EffectArgs),
    /// Keep an effect of a hook from being done that waits for approval.
    Reject(EffectArgs),
    /// Take back now what a hook has done; the same decision does not do it again.
    Undo(EffectArgs),
    /// The response policy: which order triggers which hooks.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Verify or export the journal of a running or stopped instance.
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Recompute a decision from the inputs in its record, bit for bit. Exit code 3 where something else follows.
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The configuration file.
    #[arg(long, default_value = "qualm.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// A model file of `lab fit`, in place of the configuration's: who behaves like whom.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Seed of the generated mesh.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Also show the log of the pipeline on standard error: `info`, or by module as in `info,rdkafka=warn`.
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The principal, with `@cluster` where there are several; a part of it is enough if it is unambiguous.
    pub(crate) identity: String,
    /// The configuration file.
    #[arg(long, default_value = "qualm.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct LookArgs {
    /// Log files, plain, .gz or .zst; `-` is standard input.
    #[arg(conflicts_with_all = ["brokers", "topic"])]
    pub(crate) files: Vec<PathBuf>,
    /// `host:port` of one or more Kafka brokers, separated by commas.
    #[arg(long, requires = "topic")]
    pub(crate) brokers: Option<String>,
    /// The topic to look at.
    #[arg(long, requires = "brokers")]
    pub(crate) topic: Option<String>,
    /// A property for librdkafka, as `security.protocol=ssl`; may be given several times.
    #[arg(long = "property", value_name = "NAME=VALUE")]
    pub(crate) properties: Vec<String>,
    /// The schema registry of Avro and Protobuf records, as `https://registry:8081`.
    #[arg(long, value_name = "URL", requires = "topic")]
    pub(crate) registry: Option<String>,
    /// User of the registry, with --registry-password-file.
    #[arg(long, value_name = "NAME", requires = "registry")]
    pub(crate) registry_user: Option<String>,
    /// File with that user's password.
    #[arg(long, value_name = "FILE", requires = "registry")]
    pub(crate) registry_password_file: Option<PathBuf>,
    /// File with a bearer token for the registry.
    #[arg(long, value_name = "FILE", requires = "registry")]
    pub(crate) registry_token_file: Option<PathBuf>,
    /// PEM file with the roots of the registry's certificate; the system's otherwise.
    #[arg(long, value_name = "FILE", requires = "registry")]
    pub(crate) registry_ca_file: Option<PathBuf>,
    /// Format of the records; found out otherwise.
    #[arg(long, conflicts_with = "mapping")]
    pub(crate) format: Option<Format>,
    /// Mapping file (TOML) for CSV or JSON lines of your own.
    #[arg(long)]
    pub(crate) mapping: Option<PathBuf>,
    /// Where in each record the line stands, as a JSON pointer such as /jsonPayload; `none` where nothing is around it.
    /// Found out otherwise.
    #[arg(long, value_name = "POINTER", value_parser = envelope)]
    pub(crate) envelope: Option<Envelope>,
    /// The cluster that the records are from, whatever they say themselves.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// A container whose lines are a proxy's, beside those that meshes are known to have; may be given several times.
    #[arg(long = "proxy", value_name = "CONTAINER")]
    pub(crate) proxies: Vec<String>,
    /// Records to read at most.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) records: u64,
    /// Seconds to read at most.
    #[arg(long, default_value_t = 45)]
    pub(crate) seconds: u64,
    /// Print JSON, for scripts.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where to write a configuration for what was found: a file that does not exist yet, or `-` for standard output.
    /// Without it a new qualm.toml is written, except with --json.
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WireArgs {
    /// What to connect.
    pub(crate) target: Target,
    /// The Kubernetes namespace that Qualm runs in: names and addresses are made of it.
    #[arg(long, default_value = "qualm")]
    pub(crate) namespace: Namespace,
    /// Print the way back: what to take out again, in order.
    #[arg(long)]
    pub(crate) remove: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FormatsArgs {
    /// Only this one, with all of its sample; of a mapping that comes along, the mapping.
    pub(crate) format: Option<Asked>,
}

#[derive(Debug, Args)]
pub(crate) struct BacktestArgs {
    /// Log files, plain, .gz or .zst; `-` is standard input.
    #[arg(required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    /// Format of the records, one of `qualm formats`; found out otherwise.
    #[arg(long, conflicts_with = "mapping")]
    pub(crate) format: Option<Format>,
    /// Mapping file (TOML) for CSV or JSON lines of your own; ready ones are under datasets/mappings.
    #[arg(long)]
    pub(crate) mapping: Option<PathBuf>,
    /// Budgets, leases and so on; defaults otherwise.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// A model file of `lab fit`, in place of the configuration's: who behaves like whom.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Known attacks, JSON lines: start, end, kind, identities.
    #[arg(long)]
    pub(crate) labels: Option<PathBuf>,
    /// Also write scores.parquet, one row a record.
    #[arg(long)]
    pub(crate) scores: bool,
    /// Also write events.parquet, what was read in the order of time: for `lab features`.
    #[arg(long)]
    pub(crate) events: bool,
    /// Highest level that this input may lead to.
    #[arg(long, default_value = "quarantined", value_parser = behavioural)]
    pub(crate) max_level: Level,
    /// Give no weight to the answers to this question, by its name, as `rate-1m`: for measuring what each is worth.
    #[arg(long, hide = true, value_name = "QUESTION", value_delimiter = ',', value_parser = question)]
    pub(crate) without: Vec<Question>,
    /// Directory to write to; made where it does not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// What records are wrapped in, in the words of the configuration.
fn envelope(text: &str) -> Result<Envelope, String> {
    Envelope::try_from(text.to_owned()).map_err(|error| error.to_string())
}

/// A question by its name.
fn question(text: &str) -> Result<Question, String> {
    let names = || Question::ALL.map(Question::name).join(", ");
    Question::named(text).ok_or_else(|| format!("there is no such question; those there are: {}", names()))
}

/// A level that behaviour can lead to.
fn behavioural(text: &str) -> Result<Level, String> {
    match text.parse::<Level>() {
        Ok(Level::Revoked) => Err("no behaviour leads to `revoked`; at most quarantined".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}
