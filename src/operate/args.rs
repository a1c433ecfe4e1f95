//! What can be typed.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use qualm_model::{level::Level, time::Span};
use qualm_scorer::config::Length;

/// Which instance, and who asks it.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Address of the instance, as `qualm.qualm.svc:9465`; otherwise `address` in section `listen` of the configuration.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// PEM file with the roots of its certificate; otherwise `client_roots` in section `listen`.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The SPIFFE ID that it must prove; otherwise that of `certificate` in section `listen`, or its host name.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) server_id: Option<String>,
    /// PEM file with your certificate, which says who you are.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM file with its private key.
    #[arg(long = "key", id = "key_file", value_name = "FILE", requires = "cert")]
    pub(crate) key_file: Option<PathBuf>,
    /// The configuration of the instance, for what is not given here.
    #[arg(long, default_value = "qualm.toml")]
    pub(crate) config: PathBuf,
    /// Print JSON, for scripts.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Why, and once.
#[derive(Debug, Args)]
pub(crate) struct Reasoned {
    /// Why: up to 500 characters. It is kept in the journal, with who you are.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Idempotency key: a call that comes again under its key does nothing. A new one is made otherwise.
    #[arg(long = "idempotency-key", id = "idempotency_key", value_name = "KEY")]
    pub(crate) key: Option<String>,
}

/// `qualm list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only identities whose name contains this.
    pub(crate) identity: Option<String>,
    /// Only this level and those above.
    #[arg(long)]
    pub(crate) level: Option<Level>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `qualm show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The principal, with `@cluster` where there are several; a part of it is enough if it is unambiguous.
    pub(crate) identity: String,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `qualm rehearse`.
#[derive(Debug, Args)]
pub(crate) struct RehearseArgs {
    /// The principal, with `@cluster` where there are several; a part of it is enough if it is unambiguous.
    pub(crate) identity: String,
    /// The level: watched, throttled, restricted or quarantined.
    pub(crate) level: Level,
    /// Only the instance at this address.
    #[arg(long, value_name = "IP")]
    pub(crate) instance: Option<IpAddr>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `qualm announce`.
#[derive(Debug, Args)]
pub(crate) struct AnnounceArgs {
    /// The service that is deployed, as `shop/cart`: namespace and service account, or workload where several share it.
    pub(crate) service: String,
    /// For how long, from "1m" to "6h" of event time. It ends by itself.
    #[arg(long = "for", value_name = "LENGTH", value_parser = length)]
    pub(crate) lasts: Span,
    /// Only in this cluster; everywhere otherwise.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    #[command(flatten)]
    pub(crate) reasoned: Reasoned,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `qualm accept`.
#[derive(Debug, Args)]
pub(crate) struct AcceptArgs {
    /// The principal, with `@cluster` where there are several; a part of it is enough if it is unambiguous.
    pub(crate) identity: String,
    /// Only this question, as `new-peer`; otherwise all that was withheld.
    #[arg(long, value_name = "QUESTION")]
    pub(crate) question: Option<String>,
    /// Only what it does to this destination.
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) object: Option<String>,
    /// For how long, from "1h" to "30d" of event time.
    #[arg(long, value_name = "LENGTH", value_parser = length, default_value = "30d")]
    pub(crate) expires: Span,
    /// Take back the acceptance of the same identity, question and object.
    #[arg(long, conflicts_with = "expires")]
    pub(crate) withdraw: bool,
    /// Accept without asking first.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) reasoned: Reasoned,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What an admin may set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Overriding {
    /// That the configuration protects the identity.
    Protected,
    /// That as many identities are denied already as may be.
    MaxShare,
}

/// `qualm quarantine`, `restrict`, `throttle`, `watch`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The principal, with `@cluster` where there are several; a part of it is enough if it is unambiguous.
    pub(crate) identity: String,
    /// For how long, from "10s" to "7d". It ends by itself and is renewed by nobody.
    #[arg(long = "for", value_name = "LENGTH", value_parser = length)]
    pub(crate) lease: Span,
    #[command(flatten)]
    pub(crate) reasoned: Reasoned,
    /// Only the instance at this address.
    #[arg(long, value_name = "IP")]
    pub(crate) instance: Option<IpAddr>,
    /// Act also while the mode of the configuration is shadow; it is marked only otherwise.
    #[arg(long)]
    pub(crate) act_in_shadow_mode: bool,
    /// Set this aside; admins only.
    #[arg(long = "override", value_name = "WHAT")]
    pub(crate) overriding: Vec<Overriding>,
    /// Quarantine without asking first.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `qualm lift`.
#[derive(Debug, Args)]
pub(crate) struct LiftArgs {
    /// The principal, with `@cluster` where there are several; a part of it is enough if it is unambiguous.
    pub(crate) identity: String,
    #[command(flatten)]
    pub(crate) reasoned: Reasoned,
    /// For so long it enters no level on its behaviour, up to "30d".
    #[arg(long, value_name = "LENGTH", value_parser = length)]
    pub(crate) hold: Option<Span>,
    /// Only what is about the instance at this address.
    #[arg(long, value_name = "IP", conflicts_with = "hold")]
    pub(crate) instance: Option<IpAddr>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `qualm pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// For how long, from "10s" to "24h".
    #[arg(long = "for", value_name = "LENGTH", value_parser = length)]
    pub(crate) lease: Span,
    #[command(flatten)]
    pub(crate) reasoned: Reasoned,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `qualm resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) reasoned: Reasoned,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `qualm hooks`.
#[derive(Debug, Subcommand)]
pub(crate) enum HooksCommand {
    /// List what hooks have done at issuers and elsewhere, what is about to be done, and what waits for approval.
    List(HooksListArgs),
}

/// `qualm hooks list`.
#[derive(Debug, Args)]
pub(crate) struct HooksListArgs {
    /// Only identities whose name contains this.
    pub(crate) identity: Option<String>,
    /// Also what is over: undone, lapsed, rejected.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `qualm approve`, `reject`, `undo`.
#[derive(Debug, Args)]
pub(crate) struct EffectArgs {
    /// The effect's id, as `qualm hooks list` has it, or a beginning of it that is unambiguous.
    pub(crate) id: String,
    /// Why: up to 500 characters. It is kept in the journal, with who you are.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// A length of time as in the configuration.
pub(crate) fn length(text: &str) -> Result<Span, String> {
    let length: Result<Length, serde_json::Error> = serde_json::from_value(text.into());
    length.map(|length| length.0).map_err(|error| error.to_string())
}
