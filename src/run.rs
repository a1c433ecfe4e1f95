//! `qualm run`: the loop, and what is wired around it.
//!
//! # Layout
//! - [`inputs`]: every configured source on a task of its own, one channel into the loop
//! - [`state`]: snapshot and journal at start; who was already decided about
//! - [`pipeline`]: the loop: observe, decide, journal, publish, snapshot, commit
//! - [`realised`]: entries into each level, counted
//! - [`publish`]: the trust table goes out once its decision is on disk; scoring does not wait
//! - [`checkpoint`]: what of the journal is still needed when its oldest files go
//! - [`containment`]: whether decisions hold, by what proxies tell
//! - [`connections`]: comings and goings of enforcement points, in few records; [`acknowledged`]: what they hold
//! - [`alerts`]: verdicts to findings to sinks
//! - [`coverage`]: which of the proxies seen in telemetry enforce; [`laggards`]: when the log says who does not
//! - [`hooks`]: what stands is told to hooks as orders, and what they do comes back
//! - [`pods`]: the clusters whose pods are watched; [`rollouts`]: what these show of deployments
//! - [`premises`]: what must hold before anything is opened
//! - [`formats`]: which format each input has had since when; [`quirks`]: what inputs leave out, clocks that are wrong
//! - [`understood`]: how much of each input was understood, and what is said of the rest

pub(crate) mod acknowledged;
pub(crate) mod alerts;
pub(crate) mod checkpoint;
pub(crate) mod connections;
pub(crate) mod containment;
pub(crate) mod coverage;
pub(crate) mod formats;
pub(crate) mod hooks;
pub(crate) mod inputs;
pub(crate) mod intake;
pub(crate) mod laggards;
pub(crate) mod pipeline;
pub(crate) mod pods;
pub(crate) mod premises;
pub(crate) mod publish;
pub(crate) mod quirks;
pub(crate) mod realised;
pub(crate) mod rollouts;
pub(crate) mod state;
pub(crate) mod understood;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use prometheus::Registry;
use qualm_hooks::engine::Hooks;
use qualm_ingest::{
    envoy::{Grants, TelemetryLimits, TelemetryMetrics, telemetry},
    kafka::Unanswered,
};
use qualm_model::time::{Clock, Span};
use qualm_scorer::{
    enforce::{
        Enforcer,
        istio::{Istio, IstioMetrics},
        metrics::EnforcementMetrics,
        nodes::NodeLimits,
        trust_stream::{TrustStream, record::Coverage},
        xds::Xds,
    },
    journal::Journal,
    table::{EnforcementReport, SharedTable},
    verdict::Verdict,
};
use tokio::sync::{mpsc, watch};
use tonic::service::{Routes, interceptor::InterceptedService};

use self::{
    hooks::Wired,
    inputs::{Input, Inputs},
    pipeline::{Pipeline, Wires},
    pods::Pods,
    publish::Publisher,
    understood::NothingUnderstood,
};
use crate::{
    announcements,
    cli::StartArgs,
    clock,
    config::Config,
    listen::{
        Listener,
        connection::ListenMetrics,
        roles::{Gate, Role},
    },
    observability::{Observability, Readiness, metrics::PipelineMetrics},
    operator::{Call, Desk, Rest},
    signals::{self, Feed, SignalsConfig},
};

/// Reports of enforcement points waiting for the loop.
const REPORTS: usize = 4096;
/// Calls of operators waiting for the loop.
const CALLS: usize = 64;

/// What is told to whoever started the pipeline: the demo and tests.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The gRPC port is open.
    Listening(SocketAddr),
    /// An identity has moved.
    Verdict(Box<Verdict>),
    /// An enforcement point has reported.
    Report(EnforcementReport),
    /// The loop is past this many events.
    Progress {
        /// Events scored so far.
        events: u64,
        /// Records read so far, those that became no event included.
        records: u64,
        /// Sum of the positions over all partitions: where they began at 0, more than `records` is a gap.
        reached: i64,
    },
}

/// Marks an error that came when everything had started: exit code 1 instead of 2.
#[derive(Debug, thiserror::Error)]
#[error("while running")]
pub(crate) struct WhileRunning;

/// What a pipeline is made of.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    /// File to read again on reload; `None` where there is none.
    pub(crate) file: Option<PathBuf>,
    pub(crate) hash: String,
    pub(crate) clock: Clock,
    pub(crate) notices: Option<mpsc::UnboundedSender<Notice>>,
}

/// `qualm run`.
pub(crate) fn run(args: &StartArgs) -> anyhow::Result<ExitCode> {
    let (mut config, hash) = Config::read(&args.run.config)?;
    if let Some(model) = &args.model {
        config.peers.model.clone_from(model);
    }
    config.log.init()?;
    let setup = Setup { config, file: Some(args.run.config.clone()), hash, clock: clock::system(), notices: None };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            signalled().await;
            let _ = stop.send(true);
        });
        serve(setup, stopped).await
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Runs a pipeline until it is told to stop or all of its inputs have ended.
pub(crate) async fn serve(setup: Setup, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    let config = &setup.config;
    if config.kafka.is_empty() && config.file.is_empty() && config.listen.address.is_none() {
        anyhow::bail!("nothing to read: configure a [[kafka]] topic, a [[file]] or listen.address");
    }
    premises::hold(config)?;
    signals::premises(&config.signals)?;
    let registry = Registry::new();
    let metrics = PipelineMetrics::register(&registry)?;
    let listener = Listener::prepare(&config.listen)?;
    let state = state::open(config, &setup.hash, setup.clock.now())?;
    state.journal.register(&registry)?;
    premises::known(config, &state.covered.positions)?;
    // A topic that does not exist is told before any port is bound. What stands already is served without brokers.
    let unanswered = if state.restored { Unanswered::Waits } else { Unanswered::Fails };
    let mut inputs = Inputs::start(config, &setup.clock, &registry, &state.member, unanswered)?;
    // What is fatal is told alone.
    premises::told(config, listener.as_ref(), setup.clock.now());
    let pods = Pods::start(&config.kubernetes, &setup.clock, &registry).await?;
    let page = Observability::bind(&config.observe).await?;
    tracing::info!(address = %page.address(), "metrics, health and readiness");
    let (readiness, ready) = watch::channel(Readiness { reasons: vec!["starting".to_owned()], ..Readiness::default() });
    tokio::spawn(page.serve(registry.clone(), ready));

    // Who connects in the first moment is told what stands already: an empty table would lift every denial.
    let (table, tables) = watch::channel::<SharedTable>(state.table(state.last_seq, &setup.hash).into());
    let (reports, report) = mpsc::channel(REPORTS);
    let (caller, calls) = mpsc::channel(CALLS);
    twins(&setup, &registry, &tables, &reports).await?;
    announcements::start(&config.announcements, &state.member, setup.clock.clone(), caller.clone(), &registry)?;
    let (coverage, covered) = watch::channel(Coverage::default());
    let hooks = Wired::start(config, &state, &setup.clock, &registry, tables.clone())?;
    let edge = Edge {
        registry: &registry,
        clock: &setup.clock,
        oldest: config.history.oldest.0,
        tables,
        reports,
        caller,
        journal: state.journal.clone(),
        hooks: hooks.hooks.clone(),
        coverage: covered,
        stopped: stopped.clone(),
        signals: (&config.signals, &config.state.directory),
    };
    let mut signals = None;
    if let Some(listener) = listener {
        let (address, telemetry, feed) = edge.open(listener, inputs.next_index()).await?;
        tracing::info!(%address, "gRPC: ALS, OTLP, xDS, trust stream, operator; HTTP: operator");
        inputs.add(telemetry, "listen");
        signals = feed;
        if let Some(notices) = &setup.notices {
            let _ = notices.send(Notice::Listening(address));
        }
    }
    let publisher = Publisher::start(table, state.journal.clone());
    let wires = Wires {
        inputs,
        pods,
        report,
        calls,
        hooks,
        publisher,
        signals,
        coverage,
        readiness,
        metrics,
        registry: &registry,
        stopped,
    };
    Pipeline::new(setup, state, wires)?.run().await.map_err(|error| match error.is::<NothingUnderstood>() {
        // It is the input that is wrong.
        true => error,
        false => error.context(WhileRunning),
    })
}

/// Starts what writes twins of quarantines into Istio's configuration.
async fn twins(
    setup: &Setup,
    registry: &Registry,
    tables: &watch::Receiver<SharedTable>,
    reports: &mpsc::Sender<EnforcementReport>,
) -> anyhow::Result<()> {
    let Config { istio, kubernetes, .. } = &setup.config;
    if istio.is_empty() {
        return Ok(());
    }
    let metrics = IstioMetrics::register(registry)?;
    for section in istio {
        let api = kubernetes.iter().find(|of| of.cluster == section.cluster).context("it was checked")?;
        let client = api.client().await?;
        let twins = Istio::new(client, section.clone(), setup.clock.clone(), metrics.clone());
        tokio::spawn(twins.run(tables.clone(), reports.clone()));
    }
    Ok(())
}

/// What the gRPC port is wired to.
struct Edge<'a> {
    registry: &'a Registry,
    clock: &'a Clock,
    oldest: Span,
    tables: watch::Receiver<SharedTable>,
    reports: mpsc::Sender<EnforcementReport>,
    caller: mpsc::Sender<Call>,
    journal: Journal,
    hooks: Option<Hooks>,
    coverage: watch::Receiver<Coverage>,
    stopped: watch::Receiver<bool>,
    /// What is configured of signals, and the state directory.
    signals: (&'a SignalsConfig, &'a Path),
}

impl Edge<'_> {
    /// Opens the port and starts the enforcement points behind it.
    async fn open(self, listener: Listener, index: u16) -> anyhow::Result<(SocketAddr, Input, Option<Feed>)> {
        let metrics = EnforcementMetrics::register(self.registry)?;
        let xds = Xds::new(NodeLimits::default(), self.clock.clone(), metrics.clone());
        let stream = TrustStream::new(NodeLimits::default(), self.clock.clone(), self.coverage, metrics);
        let (als, otlp, source) = telemetry(
            index,
            &TelemetryLimits { max_age: Some(self.oldest), ..TelemetryLimits::default() },
            Grants::new(listener.grants()),
            self.clock.clone(),
            TelemetryMetrics::register(self.registry)?,
        );
        let gate = |role| -> Gate { listener.gate(role) };
        let wires = signals::Wires {
            config: self.signals.0.clone(),
            directory: self.signals.1.to_owned(),
            roles: listener.roles(),
            journal: self.journal.clone(),
            calls: self.caller.clone(),
            clock: self.clock.clone(),
        };
        let (others, feed) = signals::open(wires, self.registry)?.unzip();
        let operator = Desk::new(listener.roles(), self.caller, (self.journal, self.hooks), self.registry)?;
        let operator = operator.service();
        let rest = Rest::new(operator.clone())?;
        let mut routes = Routes::builder();
        routes
            .add_service(InterceptedService::new(als, gate(Role::Reporter)))
            .add_service(InterceptedService::new(otlp, gate(Role::Reporter)))
            .add_service(InterceptedService::new(xds.extension_config(), gate(Role::EnforcementPoint)))
            .add_service(InterceptedService::new(xds.aggregated(), gate(Role::EnforcementPoint)))
            .add_service(InterceptedService::new(xds.authorization(), gate(Role::EnforcementPoint)))
            .add_service(InterceptedService::new(stream.service(), gate(Role::Subscriber)))
            // It knows by itself who may do what, since refusals are journalled.
            .add_service(operator);
        let http = rest.routes().merge(others.unwrap_or_default());
        let routes = Routes::from(routes.routes().into_axum_router().merge(http));
        let listen_metrics = ListenMetrics::register(self.registry)?;
        let bound = listener.bind().await?;
        let address = bound.address();
        let mut stopped = self.stopped;
        tokio::spawn(async move {
            let stop = async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            if let Err(error) = bound.serve(routes, listen_metrics, stop).await {
                tracing::error!(%error, "the gRPC port has failed");
            }
        });
        tokio::spawn(xds.run(self.tables.clone(), self.reports.clone()));
        tokio::spawn(stream.run(self.tables, self.reports));
        Ok((address, Input::Envoy(source), feed))
    }
}
