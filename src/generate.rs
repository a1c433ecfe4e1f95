//! `qualm generate`: a labelled mesh, to files or to Kafka.
//!
//! # Layout
//! - [`args`]: what can be asked for; [`order`]: that, made a scenario
//! - [`feed`]: the lines of one cluster in order of their arrival
//! - [`files`], [`topics`]: where they go; [`pace`]: when

pub(crate) mod args;
mod card;
mod feed;
mod files;
mod order;
mod pace;
mod topics;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use qualm_datasets::Millis;

use self::{
    args::GenerateArgs,
    card::Tally,
    feed::{Feed, Line},
    files::Files,
    order::Order,
    pace::Pace,
    topics::Topics,
};

/// Where lines go.
enum Sink {
    Files(Files),
    Topics(Topics),
}

impl Sink {
    fn write(&mut self, line: &Line<'_>) -> Result<()> {
        match self {
            Self::Files(files) => files.write(line),
            Self::Topics(topics) => topics.write(line),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What was asked for cannot be generated, or the files or the brokers cannot be written to.
pub(crate) fn run(args: &GenerateArgs) -> Result<ExitCode> {
    let order = Order::new(args)?;
    let mut sink = match (&args.out, &args.brokers, &args.topic) {
        (Some(out), ..) => Sink::Files(Files::new(out)?),
        (None, Some(brokers), Some(topic)) => Sink::Topics(Topics::new(brokers, topic, &args.properties)?),
        _ => anyhow::bail!("say where to: --out DIR, or --brokers and --topic"),
    };
    let mut feeds: Vec<Feed> = order.clusters.iter().map(|cluster| Feed::new(&order, cluster)).collect();
    let bar = progress(order.start, order.end);
    let mut pace = Pace::new(args, order.start);
    let mut tally = Tally::default();
    while let Some(feed) = earliest(&mut feeds) {
        if tally.lines >= args.records {
            break;
        }
        let line = feed.line()?;
        pace.wait_for(line.arrival);
        sink.write(&line)?;
        tally.count(&line);
        if tally.lines % 4_096 == 0 {
            bar.set_position((line.arrival - order.start).max(0) as u64 / 1_000);
        }
    }
    bar.finish_and_clear();
    let told = finish(sink, &order, &tally, args)?;
    writeln!(io::stdout(), "{told}").context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn finish(sink: Sink, order: &Order, tally: &Tally, args: &GenerateArgs) -> Result<String> {
    match sink {
        Sink::Files(files) => files.finish(order, tally, args)?,
        Sink::Topics(topics) => topics.finish()?,
    }
    Ok(tally.told(order, args))
}

/// The cluster whose next line arrives first.
fn earliest(feeds: &mut [Feed]) -> Option<&mut Feed> {
    feeds.iter_mut().filter(|feed| feed.next_arrival().is_some()).min_by_key(|feed| feed.next_arrival())
}

/// A bar over the generated time, on standard error where that is a terminal.
fn progress(start: Millis, end: Millis) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(((end - start) / 1_000).max(0) as u64);
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {percent} % of the time, {eta} left")
    {
        bar.set_style(style);
    }
    bar
}
