//! `qualm demo`: the main job on this machine alone. Nothing is scripted but the traffic.
//!
//! # Layout
//! - [`broker`]: the in-process Kafka, and a producer that never runs ahead of what is committed
//! - [`player`]: the generated traffic, call by call; each is asked for at the [`gate`]
//! - [`gate`]: the enforcement point, a subscriber of the real trust stream
//! - [`tempo`]: the demo's clock
//! - [`story`], [`summary`], [`screen`]: what is told

mod broker;
mod gate;
mod player;
mod screen;
mod story;
mod summary;
mod tempo;

use std::{
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use qualm_datasets::{Millis, Scenario};
use qualm_ingest::{
    config::{KafkaConfig, TopicConfig},
    parse::Format,
};
use qualm_model::time::Span;
use qualm_scorer::{
    config::{EnforceConfig, Leases, Length, Mode},
    table::Enforcement,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use self::{
    broker::{GROUP, TOPIC, Writer, cluster},
    gate::{Gate, NODE},
    player::{Played, Player},
    screen::{Screen, grouped},
    story::Story,
    summary::{Measured, summarise},
    tempo::Tempo,
};
use crate::{
    cli::DemoArgs,
    config::{Config, StateConfig, hash},
    listen::ListenConfig,
    observability::{ObserveConfig, log::LogConfig},
    run::{self, Notice, Setup},
};

/// Monday, 2 November 2026, 10:00 UTC: a date of its own, so that a seed shows the same on every day of the year.
const START: Millis = Millis::from_seconds(1_793_613_600);
/// The quiet days of the scenario, in milliseconds.
const QUIET: i64 = 8 * 86_400_000;
/// Demo seconds in a real second, in the hour that is played.
const PACE: f64 = 75.0;
/// Nobody was limited or denied, or the pipeline failed.
const FAILED: u8 = 1;
/// How long the last verdicts and the end of the pipeline are waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// `qualm demo`.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    if let Some(level) = &args.log {
        LogConfig { level: level.clone(), ..LogConfig::default() }.init()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let outcome = runtime.block_on(demonstrate(args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn demonstrate(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let scenario = Arc::new(Scenario::demo(args.seed, START)?);
    let live = START + QUIET;
    let state = tempfile::tempdir().context("a directory for the state of the demo")?;
    let cluster = cluster()?;
    let config = config(&cluster.bootstrap_servers(), state.path());
    let mut screen = Screen::new();
    introduce(&scenario, &config, &screen);

    let tempo = Tempo::new(live, PACE);
    let (gate, read) = (Gate::default(), Arc::new(AtomicU64::new(0)));
    let writer = Writer::new(&cluster.bootstrap_servers())?;
    let (notices, noticed) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let (told, played) = mpsc::unbounded_channel();
    let player = Player {
        scenario: Arc::clone(&scenario),
        live,
        writer,
        gate: gate.clone(),
        tempo: Arc::clone(&tempo),
        read: Arc::clone(&read),
        told,
    };
    let setup = Setup { config, file: None, hash: hash("demo"), clock: tempo.clock(), notices: Some(notices) };
    let stage = Stage {
        story: Story::new(Arc::clone(&scenario), gate.clone()),
        gate,
        read,
        played,
        noticed,
        measured: Measured::default(),
        begun,
        written: None,
        expected: 0,
    };
    let pipeline = tokio::spawn(run::serve(setup, stopped));
    let player = tokio::task::spawn_blocking(move || player.run());
    let stage = stage.watch(pipeline, player, stop, &mut screen).await?;
    drop(cluster);
    let measured = Measured { took: begun.elapsed(), ..stage.measured };
    let outcome = summarise(&scenario, live, &stage.story, &measured, &screen);
    if outcome.acted == 0 {
        screen.line("Nobody was limited or denied: the demo has failed.");
        return Ok(ExitCode::from(FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration of the pipeline: defaults, but for what a demo on one machine needs.
fn config(brokers: &str, state: &Path) -> Config {
    let kafka = KafkaConfig {
        brokers: brokers.to_owned(),
        group: GROUP.to_owned(),
        topics: vec![TopicConfig::new(TOPIC, Format::IstioJson)],
        // The mock cluster answers an empty fetch only when its time is over, whatever arrives meanwhile.
        properties: [("fetch.wait.max.ms", "5"), ("statistics.interval.ms", "500")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..KafkaConfig::default()
    };
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    Config {
        kafka: vec![kafka],
        listen: ListenConfig { address: Some(loopback(0)), plaintext_loopback: true, ..ListenConfig::default() },
        lease: Leases { quarantined: Length(Span(10 * Span::MINUTE.0)), ..Leases::default() },
        enforce: EnforceConfig { mode: Mode::Enforce, ..EnforceConfig::default() },
        state: StateConfig {
            directory: state.to_owned(),
            snapshot_every: Length(Span(Span::SECOND.0 / 10)),
            ..StateConfig::default()
        },
        observe: ObserveConfig { address: loopback(0), ..ObserveConfig::default() },
        ..Config::default()
    }
}

fn introduce(scenario: &Scenario, config: &Config, screen: &Screen) {
    let services = scenario.mesh().services.len();
    screen.line(&screen.bold(&format!(
        "Qualm on this machine alone: a generated mesh of {services} services writes access logs to an in-process \
         Kafka, Qualm reads them, and one enforcement point follows its trust stream over loopback gRPC."
    )));
    screen.line(&format!(
        "It reads 8 quiet days first, as fast as it can; then one hour is played at {PACE} times its speed, in which \
         one service is deployed and the identities of five are misused. Only the traffic is scripted."
    ));
    let budget = &config.budget;
    screen.line(&screen.dim(&format!(
        "Budget of wrongful entries, for the whole mesh: watched {} a day, throttled {} a day, restricted {} a week, \
         quarantined {} a month: the defaults. The gate lets one call in ten of a throttled or restricted \
         identity pass and none of a quarantined one. Mode: enforce. All times below are demo time, but for milliseconds, which are real.",
        budget.watched_per_day, budget.throttled_per_day, budget.restricted_per_week, budget.quarantined_per_month,
    )));
    screen.line("");
}

/// Where notices of the pipeline and of the player come together.
struct Stage {
    story: Story,
    gate: Gate,
    read: Arc<AtomicU64>,
    played: mpsc::UnboundedReceiver<Played>,
    noticed: mpsc::UnboundedReceiver<Notice>,
    measured: Measured,
    begun: Instant,
    /// Lines written in all, once everything is.
    written: Option<u64>,
    /// Events of history that were expected when it was last told.
    expected: u64,
}

impl Stage {
    /// Watches until everything written is read and all is told; then stops the pipeline.
    async fn watch(
        mut self,
        pipeline: JoinHandle<anyhow::Result<()>>,
        player: JoinHandle<anyhow::Result<()>>,
        stop: watch::Sender<bool>,
        screen: &mut Screen,
    ) -> anyhow::Result<Self> {
        let (mut pipeline, mut player) = (pipeline, Some(player));
        while self.written.is_none_or(|written| self.read.load(Ordering::Relaxed) < written) {
            tokio::select! {
                biased;
                // Before verdicts, so that what caused one is known.
                Some(played) = self.played.recv() => self.take_played(played, screen),
                Some(notice) = self.noticed.recv() => {
                    while let Ok(played) = self.played.try_recv() {
                        self.take_played(played, screen);
                    }
                    self.take_notice(notice, screen)?;
                }
                ended = &mut pipeline => {
                    ended.context("the pipeline")??;
                    bail!("the pipeline has ended too early");
                }
                ended = async { player.as_mut().expect("polled while there is one").await }, if player.is_some() => {
                    player = None;
                    ended.context("the traffic")??;
                }
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        }
        // Leases that end now and acknowledgements that are on their way.
        while let Ok(Some(notice)) = tokio::time::timeout(Duration::from_millis(500), self.noticed.recv()).await {
            self.take_notice(notice, screen)?;
        }
        let _ = stop.send(true);
        tokio::time::timeout(PATIENCE, pipeline)
            .await
            .context("the pipeline does not end")?
            .context("the pipeline")??;
        Ok(self)
    }

    fn take_played(&mut self, played: Played, screen: &mut Screen) {
        match played {
            Played::History(written, at) => {
                self.expected = written;
                let share = (at - START) as f64 / QUIET as f64;
                screen.progress(share, written, at);
            }
            Played::Live => {
                let (events, took) = (self.read.load(Ordering::Relaxed), self.begun.elapsed());
                self.measured.history = (events, took);
                screen.progressed();
                screen.line(&format!(
                    "{} events of 8 quiet days read in {:.0} s. The hour begins.",
                    grouped(events),
                    took.as_secs_f64(),
                ));
            }
            Played::Report(call, at) => self.story.written(&call, at),
            Played::Call(call, denied) => self.story.called(call, denied, screen),
            Played::Done(written) => {
                self.measured.written = written;
                self.written = Some(written);
            }
        }
    }

    fn take_notice(&mut self, notice: Notice, screen: &Screen) -> anyhow::Result<()> {
        match notice {
            Notice::Listening(address) => self.gate.connect(address)?,
            Notice::Verdict(verdict) => self.story.decided(*verdict, screen),
            Notice::Report(report) if report.node == NODE && report.what == Enforcement::Acknowledged => {
                self.story.acknowledged(report.version, screen);
            }
            Notice::Report(_) => {}
            Notice::Progress { events, records, reached } => {
                self.read.store(events, Ordering::Relaxed);
                if u64::try_from(reached).is_ok_and(|reached| reached > records) {
                    bail!(
                        "{} records are missing between the positions: the in-process Kafka has dropped what was not \
                         read yet",
                        reached.unsigned_abs() - records
                    );
                }
                if events < records {
                    bail!("{} records could not be read as events", records - events);
                }
            }
        }
        Ok(())
    }
}
