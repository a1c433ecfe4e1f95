//! `qualm look`: what is in a topic or a file, told in sentences; no configuration, no group, nothing committed.
//!
//! # Layout
//! - [`topic`], [`files`]: where the sample comes from
//! - [`mod@survey`]: what is counted of it; [`schemas`]: what schemas stand in front of its records
//! - [`questions`]: what can be asked of it, and what to add
//! - [`summary`]: what the counts say; [`words`]: how that is told
//! - [`mappings`]: which mapping reads what no format does
//! - [`configuration`]: the configuration written at the end

mod configuration;
mod files;
mod mappings;
mod questions;
mod schemas;
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
    parse::{Format, Parser},
};

use self::{
    configuration::Looked,
    mappings::Shipped,
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
    let patience = Duration::from_secs(args.seconds);
    let mut shipped = glance(args, patience)?;
    let mut survey = match shipped.and_then(Shipped::parser) {
        Some(parser) => Survey::new(parser, Format::Mapped),
        None => survey(args)?,
    };
    let (topic, complete, looked) = match (&args.brokers, &args.topic) {
        (Some(brokers), Some(topic)) => {
            let place = Where { brokers, topic, properties: &properties, registry: registry(args)? };
            let topic = topic::read(&place, args.records, patience, &mut survey)?;
            (Some(topic), false, Some(place))
        }
        _ if args.files.is_empty() => bail!("name a file, or --brokers and --topic"),
        _ => (None, files::read(&args.files, args.records, patience, &mut survey)?, None),
    };
    if survey.events == 0 && is_open(args) && shipped.is_none() {
        // What came only once is looked at again as far as it was kept.
        shipped = mappings::fitting(survey.kept());
        if let Some(parser) = shipped.and_then(Shipped::parser) {
            survey = survey.again(parser);
        }
    }
    let looked = looked.as_ref().map_or(Looked::Files(&args.files), Looked::Topic);
    let name = match &looked {
        Looked::Topic(place) => format!("topic {} at {}", place.topic, place.brokers),
        Looked::Files(files) => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    let reading = Reading { name, topic, complete, elapsed: begun.elapsed(), shipped };
    let format = survey.formats().first().map(|&(format, _)| format);
    let summary = Summary::of(&survey, &reading);
    let text = if args.json { serde_json::to_string_pretty(&summary)? + "\n" } else { words::told(&summary) };
    io::stdout().write_all(text.as_bytes())?;
    let Some(format) = format else {
        if let Some(skeleton) = mappings::skeleton(survey.kept()).filter(|_| is_open(args)) {
            words::say_skeleton(&skeleton)?;
            bail!(
                "{}: no format and no shipped mapping reads this; complete the mapping above, then look again with --mapping FILE",
                reading.name
            )
        }
        bail!(
            "{}: nothing was understood, so there is no configuration to write; see the examples above, and `qualm formats`",
            reading.name
        )
    };
    let file = shipped.map(|shipped| PathBuf::from(shipped.file()));
    let mapping = args.mapping.as_deref().or(file.as_deref());
    leave_configuration(args, &configuration::text(&looked, (format, summary.filter), mapping), shipped)?;
    Ok(ExitCode::SUCCESS)
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

/// How the sample was read.
struct Reading {
    name: String,
    topic: Option<Topic>,
    complete: bool,
    elapsed: Duration,
    /// The mapping that was found to fit.
    shipped: Option<Shipped>,
}

/// Whether it is for us to find out what the records are.
fn is_open(args: &LookArgs) -> bool {
    args.mapping.is_none() && args.format.is_none_or(|format| format == Format::Auto)
}

/// The shipped mapping that reads the first file, where no format reads its begin. What can be read only once is not
/// touched.
fn glance(args: &LookArgs, patience: Duration) -> Result<Option<Shipped>> {
    let Some(first) = args.files.first().filter(|file| is_open(args) && file.is_file()) else { return Ok(None) };
    let mut survey = survey(args)?;
    files::read(std::slice::from_ref(first), survey::KEPT as u64, patience, &mut survey)?;
    Ok(if survey.events == 0 { mappings::fitting(survey.kept()) } else { None })
}

fn survey(args: &LookArgs) -> Result<Survey> {
    let mapping = args.mapping.as_deref().map(read_mapping).transpose()?;
    let format = if mapping.is_some() { Format::Mapped } else { args.format.unwrap_or_default() };
    Ok(Survey::new(Parser::for_format(format, mapping)?, format))
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
