//! `qualm look`: what is in a topic or a file, told in sentences; no configuration, no group, nothing committed.
//!
//! # Layout
//! - [`topic`], [`files`]: where the sample comes from
//! - [`mod@survey`]: what is counted of it; [`mesh`]: who calls whom, each call once; [`schemas`]: what schemas stand in
//!   front of its records
//! - [`questions`]: what can be asked of it, and what to add
//! - [`summary`]: what the counts say; [`words`]: how that is told
//! - [`mappings`]: which mapping reads what no format does; [`places`]: where in it the lines stand; [`shape`]: how what
//!   holds no lines comes to some
//! - [`configuration`]: the configuration written at the end

mod configuration;
mod files;
mod mappings;
mod mesh;
mod places;
mod questions;
mod schemas;
mod shape;
mod summary;
mod survey;
mod topic;
mod words;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use qualm_ingest::{
    config::{RegistryConfig, read_mapping},
    envelope::Envelope,
    parse::{Format, Parser},
};

pub(crate) use self::mappings::Shipped;
use self::{
    configuration::{Input, Looked},
    summary::Summary,
    survey::Survey,
    topic::{Topic, Where},
};
use crate::cli::LookArgs;

/// Where the configuration goes unless told otherwise.
const DEFAULT: &str = "qualm.toml";

/// Runs the command.
///
/// # Errors
/// Nothing can be read there, nothing was understood, or the configuration cannot be written.
pub(crate) fn run(args: &LookArgs) -> Result<ExitCode> {
    let properties = properties(&args.properties)?;
    let begun = Instant::now();
    let looked = match (&args.brokers, &args.topic) {
        (Some(brokers), Some(topic)) => {
            Looked::Topic(Where { brokers, topic, properties: &properties, registry: registry(args)? })
        }
        _ if args.files.is_empty() => bail!("name a file, or --brokers and --topic"),
        _ => Looked::Files(&args.files),
    };
    let (survey, read, found) = survey(args, &looked)?;
    let name = match &looked {
        Looked::Topic(place) => format!("topic {} at {}", place.topic, place.brokers),
        Looked::Files(files) => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    let reading = Reading { name, read, elapsed: begun.elapsed(), found };
    let summary = Summary::of(&survey, &reading);
    let text = if args.json { serde_json::to_string_pretty(&summary)? + "\n" } else { words::told(&summary) };
    io::stdout().write_all(text.as_bytes())?;
    if let Some(cut) = &reading.read.cut {
        writeln!(io::stderr(), "qualm: {cut}")?;
    }
    if survey.formats().is_empty() {
        if let Some(remedy) = shape::remedy(survey.kept()) {
            bail!("{}: {remedy}", reading.name)
        }
        if let Some(skeleton) = mappings::skeleton(survey.kept()).filter(|_| is_open(args)) {
            // Scripts have asked for JSON and nothing else.
            if !args.json {
                words::say_skeleton(&skeleton)?;
            }
            bail!(
                "{}: no format and no shipped mapping reads this; complete the mapping above, then look again with --mapping FILE",
                reading.name
            )
        }
        bail!(
            "{}: nothing was understood, so there is no configuration to write; see the examples above, and `qualm formats`",
            reading.name
        )
    }
    let file = reading.found.shipped.map(|shipped| PathBuf::from(shipped.file()));
    let input = Input {
        format: args.format.unwrap_or_default(),
        mapping: args.mapping.as_deref().or(file.as_deref()),
        envelope: reading.found.envelope.as_ref(),
        cluster: args.cluster.as_deref().unwrap_or_default(),
        filter: summary.filter,
        names_cluster: summary.clusters_named,
        strangers: &summary.strangers.keys().filter(|name| !name.is_empty()).cloned().collect::<Vec<_>>(),
    };
    leave_configuration(args, &configuration::text(&looked, &input), reading.found.shipped)?;
    Ok(ExitCode::SUCCESS)
}

/// Reads what is to be looked at, as whatever it is found to be.
fn survey(args: &LookArgs, looked: &Looked<'_>) -> Result<(Survey, Read, Found)> {
    let patience = Duration::from_secs(args.seconds);
    let mut found = Found { shipped: glance(args, patience)?, envelope: args.envelope.clone() };
    let with = |parser: Parser| parser.with_cluster(args.cluster.clone().unwrap_or_default());
    let parser = match found.shipped.and_then(Shipped::parser) {
        Some(parser) => with(parser),
        None => parser(args)?,
    };
    let mut survey = Survey::new(parser);
    let mut read = take_in(args, looked, patience, &mut survey)?;
    if !is_open(args) || found.shipped.is_some() || survey.understood() >= 0.5 {
        return Ok((survey, read, found));
    }
    // What came only once is looked at again as far as it was kept.
    if let Some((place, share)) = places::fitting(survey.kept()).filter(|_| args.envelope.is_none())
        && share > survey.understood()
        && let Some(parser) = places::parser(&place).map(with)
    {
        found.envelope = Some(Envelope::Pointer(place));
        if looked.can_be_read_again() {
            survey = Survey::new(parser);
            read = take_in(args, looked, patience, &mut survey)?;
        } else {
            survey = survey.again(parser);
        }
    } else if survey.events == 0 {
        found.shipped = mappings::fitting(survey.kept());
        if let Some(parser) = found.shipped.and_then(Shipped::parser).map(with) {
            survey = survey.again(parser);
        }
    }
    Ok((survey, read, found))
}

fn take_in(args: &LookArgs, looked: &Looked<'_>, patience: Duration, survey: &mut Survey) -> Result<Read> {
    Ok(match looked {
        Looked::Topic(place) => {
            Read { topic: Some(topic::read(place, args.records, patience, survey)?), complete: false, cut: None }
        }
        Looked::Files(files) => {
            let files::Came { complete, cut } = files::read(files, args.records, patience, survey)?;
            Read { topic: None, complete, cut }
        }
    })
}

/// Writes the configuration to where it is wanted; by default to a new `qualm.toml`, for people.
fn leave_configuration(args: &LookArgs, text: &str, shipped: Option<Shipped>) -> Result<()> {
    let path = match &args.write {
        Some(path) if path == Path::new("-") => {
            let beside = |shipped: Shipped| format!("\n# --- {} ---\n{}", shipped.file(), shipped.text);
            return Ok(words::say(&(text.to_owned() + &shipped.map(beside).unwrap_or_default()))?);
        }
        Some(path) => path,
        None if args.json => return Ok(()),
        None if Path::new(DEFAULT).exists() => {
            let told = format!("\n{DEFAULT} is there already and is left as it is; --write FILE writes another one.\n");
            return Ok(words::say(&told)?);
        }
        None => Path::new(DEFAULT),
    };
    if let Some(shipped) = shipped {
        configuration::write_mapping(&path.with_file_name(shipped.file()), shipped.text)?;
    }
    configuration::write(path, text)?;
    if !args.json {
        let file = path.display();
        words::say(&format!(
            "\nConfiguration written to {file}. Next: `qualm check --config {file}`, then `qualm run --config {file}`.\n"
        ))?;
    }
    Ok(())
}

/// What was read.
struct Read {
    topic: Option<Topic>,
    /// Whether all records of the files were.
    complete: bool,
    /// What is to be said of a file that ends in the middle.
    cut: Option<String>,
}

/// What was found to be needed for it.
struct Found {
    /// The mapping that fits.
    shipped: Option<Shipped>,
    /// Where in the records the lines stand, if that was named or had to be.
    envelope: Option<Envelope>,
}

/// How the sample was read.
struct Reading {
    name: String,
    read: Read,
    elapsed: Duration,
    found: Found,
}

/// Whether it is for us to find out what the records are.
fn is_open(args: &LookArgs) -> bool {
    args.mapping.is_none() && args.format.is_none_or(|format| format == Format::Auto)
}

/// Records of a file that mostly tell whether a format reads it: one may hold many.
const GLANCE: u64 = 8;

/// The shipped mapping that reads the first file, where no format reads its begin. What can be read only once is not
/// touched.
fn glance(args: &LookArgs, patience: Duration) -> Result<Option<Shipped>> {
    let Some(first) = args.files.first().filter(|file| is_open(args) && file.is_file()) else { return Ok(None) };
    let mut survey = Survey::new(parser(args)?);
    for records in [GLANCE, survey::KEPT as u64] {
        survey = Survey::new(parser(args)?);
        files::read(std::slice::from_ref(first), records, patience, &mut survey)?;
        if survey.events > 0 {
            return Ok(None);
        }
    }
    Ok(mappings::fitting(survey.kept()))
}

fn parser(args: &LookArgs) -> Result<Parser> {
    let mapping = args.mapping.as_deref().map(read_mapping).transpose()?;
    let format = if mapping.is_some() { Format::Mapped } else { args.format.unwrap_or_default() };
    let parser = Parser::for_format(format, mapping)?.with_proxies(args.proxies.clone());
    let parser = parser.with_cluster(args.cluster.clone().unwrap_or_default());
    Ok(parser.with_envelope(args.envelope.clone().unwrap_or_default()))
}

fn registry(args: &LookArgs) -> Result<RegistryConfig> {
    let config = RegistryConfig {
        url: args.registry.clone().unwrap_or_default(),
        user: args.registry_user.clone().unwrap_or_default(),
        password_file: args.registry_password_file.clone(),
        token_file: args.registry_token_file.clone(),
        ca_file: args.registry_ca_file.clone(),
        ..RegistryConfig::default()
    };
    config.check()?;
    Ok(config)
}

fn properties(given: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => bail!("--property {text}: write it as name=value, for example security.protocol=ssl"),
    };
    given.iter().map(pair).collect()
}
