//! What was asked for, checked and made into scenarios.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use qualm_datasets::{
    AttackKind, ChangeKind, Dirt, Envelope, MeshConfig, Millis, Scenario, Strength, Zone,
    dirt::{Keep, Reporters},
};

use super::args::{Clocks, GenerateArgs, LogFormat, Witnesses, Wrapping};
use crate::clock;

/// Names of the clusters, the first few of them.
const CLUSTERS: [&str; 8] = ["north", "south", "east", "west", "inner", "outer", "upper", "lower"];

/// One cluster: its name where there are several, and what happens in it.
pub(super) struct Cluster {
    pub(super) name: Option<&'static str>,
    pub(super) scenario: Arc<Scenario>,
}

/// The whole order.
pub(super) struct Order {
    pub(super) clusters: Vec<Cluster>,
    pub(super) start: Millis,
    pub(super) end: Millis,
    pub(super) dirt: Dirt,
    pub(super) format: LogFormat,
    pub(super) envelope: Envelope,
    pub(super) auth: bool,
    /// Milliseconds by which the issuers' logs are late.
    pub(super) auth_delay: i64,
}

impl Order {
    /// Checks the arguments and draws the scenarios.
    pub(super) fn new(args: &GenerateArgs) -> Result<Self> {
        check(args)?;
        let start = start(&args.start)?;
        let names = CLUSTERS.into_iter().take(args.clusters.into());
        let clusters: Result<Vec<Cluster>> = names
            .enumerate()
            .map(|(number, name)| {
                let scenario = scenario(args, args.seed.wrapping_add(number as u64), start)?;
                Ok(Cluster { name: (args.clusters > 1).then_some(name), scenario: Arc::new(scenario) })
            })
            .collect();
        let clusters = clusters?;
        let end = clusters.iter().map(|cluster| cluster.scenario.end()).max().unwrap_or(start);
        Ok(Self {
            clusters,
            start,
            end,
            dirt: dirt(args),
            format: args.format,
            envelope: envelope(args.envelope),
            auth: args.auth,
            auth_delay: i64::from(args.auth_delay) * 1_000,
        })
    }
}

fn check(args: &GenerateArgs) -> Result<()> {
    let dirt = &args.dirt;
    for (name, share) in [
        ("--quiet", args.quiet),
        ("--chained", args.chained),
        ("--shared-accounts", args.shared_accounts),
        ("--lost", dirt.lost),
        ("--lost-outbound", dirt.lost_outbound),
        ("--duplicates", dirt.duplicates),
        ("--stragglers", dirt.stragglers),
        ("--sampled", dirt.sampled.unwrap_or_default()),
    ] {
        ensure!((0.0..=1.0).contains(&share), "{name} {share}: a share is between 0 and 1");
    }
    for (name, value, most) in [
        ("--days", args.days, 3_660.0),
        ("--intensity", args.intensity, 1e4),
        ("--pace", args.pace, 1e4),
        ("--speed", args.speed.unwrap_or(1.0), 1e6),
        ("--per-second", args.per_second.unwrap_or(1.0), 1e7),
    ] {
        ensure!(value > 0.0 && value <= most, "{name} {value}: it must be above 0 and at most {most}");
    }
    for (name, value, most) in [
        ("--churn", args.churn, 10_000.0),
        ("--attacks", args.attacks, 10_000.0),
        ("--spread", args.spread, 3.0),
        ("--delay", dirt.delay, 300_000.0),
        ("--skew", dirt.skew, 3_600_000.0),
    ] {
        ensure!((0.0..=most).contains(&value), "{name} {value}: it must be between 0 and {most}");
    }
    ensure!(dirt.interim != Some(0), "--interim 0: a connection is reported every second at most");
    Ok(())
}

fn scenario(args: &GenerateArgs, seed: u64, start: Millis) -> Result<Scenario> {
    let config = MeshConfig { seed, services: args.services, calls_per_second: args.rate };
    let mut scenario = Scenario::estate(config, start, args.days)?;
    scenario.share_accounts(args.shared_accounts);
    if args.users {
        scenario.add_users();
    }
    scenario.chain(args.chained);
    scenario.clocks_of(match args.clocks {
        Clocks::Utc => Zone::Utc,
        Clocks::Europe => Zone::CentralEurope,
    });
    let end = scenario.end();
    let attacked = start + ((end - start) as f64 * args.quiet) as i64;
    let changes = kinds(&args.changes, &ChangeKind::ALL, ChangeKind::from_name, ChangeKind::name)?;
    let attacks = kinds(&args.kinds, &AttackKind::ALL, AttackKind::from_name, AttackKind::name)?;
    let strength = Strength { intensity: args.intensity, pace: args.pace, spread: args.spread };
    scenario.churn_of(&changes, args.churn, start, end);
    scenario.attacks_of(&attacks, strength, args.attacks, attacked, end);
    if args.shared_certificates {
        scenario.share_certificates();
    }
    Ok(scenario)
}

/// The named kinds, all where none is named.
fn kinds<K: Copy>(
    named: &[String],
    all: &[K],
    from_name: fn(&str) -> Option<K>,
    name: fn(K) -> &'static str,
) -> Result<Vec<K>> {
    if named.is_empty() {
        return Ok(all.to_vec());
    }
    let known = || all.iter().map(|&kind| name(kind)).collect::<Vec<_>>().join(", ");
    named.iter().map(|text| from_name(text).with_context(|| format!("`{text}` is none of {}", known()))).collect()
}

fn start(text: &str) -> Result<Millis> {
    if text == "now" {
        return Ok(Millis(clock::system().now().0.div_euclid(1_000_000)));
    }
    let Ok(time) = text.parse::<jiff::Timestamp>() else {
        bail!("--start {text}: neither `now` nor a time as in 2026-01-05T00:00:00Z");
    };
    Ok(Millis(time.as_millisecond()))
}

fn dirt(args: &GenerateArgs) -> Dirt {
    let dirt = &args.dirt;
    Dirt {
        reporters: match dirt.reporters {
            Witnesses::Inbound => Reporters::Destination,
            Witnesses::Outbound => Reporters::Source,
            Witnesses::Both => Reporters::Both,
        },
        keep: match dirt.sampled {
            Some(share) => Keep::Share(share),
            None if dirt.failures_only => Keep::Failures,
            None => Keep::All,
        },
        lost: dirt.lost,
        lost_at_source: dirt.lost_outbound,
        duplicated: dirt.duplicates,
        delay: dirt.delay,
        stragglers: dirt.stragglers,
        skew: dirt.skew,
        interim: dirt.interim.map(|seconds| i64::from(seconds) * 1_000),
    }
}

fn envelope(wrapping: Wrapping) -> Envelope {
    match wrapping {
        Wrapping::Bare => Envelope::Bare,
        Wrapping::Cri => Envelope::Cri,
        Wrapping::Docker => Envelope::Docker,
        Wrapping::FluentBit => Envelope::FluentBit,
        Wrapping::Vector => Envelope::Vector,
        Wrapping::Filebeat => Envelope::Filebeat,
        Wrapping::Logstash => Envelope::Logstash,
        Wrapping::OtlpJson => Envelope::Otlp,
        Wrapping::Syslog => Envelope::Syslog,
    }
}
