//! `qualm formats`: what is understood, with a sample of each.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    str::FromStr,
};

use anyhow::Result;
use qualm_ingest::parse::{Format, InvalidFormat};

use crate::{cli::FormatsArgs, look::Shipped};

/// Characters of a sample that stand in the list.
const SHOWN: usize = 160;

/// What was asked to be shown whole.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    /// A format.
    Format(Format),
    /// A mapping that comes along.
    Mapping(Shipped),
}

impl FromStr for Asked {
    type Err = InvalidFormat;

    fn from_str(word: &str) -> Result<Self, InvalidFormat> {
        match Shipped::named(word) {
            Some(mapping) => Ok(Self::Mapping(mapping)),
            None => word.parse().map(Self::Format),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(args: &FormatsArgs) -> Result<ExitCode> {
    let text = match args.format {
        Some(Asked::Format(format)) => format!("{format}: {}\n\n{}", format.about(), format.sample()),
        Some(Asked::Mapping(mapping)) => mapping.text.to_owned(),
        None => list(),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn list() -> String {
    let mut text = String::new();
    for format in Format::ALL {
        let _ = writeln!(text, "{format}\n    {}", format.about());
        if let Some(line) = format.sample().lines().next() {
            push_begin(&mut text, line);
        }
    }
    text.push_str(
        "\nThrough a mapping that comes along (`qualm formats NAME` is the mapping; `look` finds it by itself):\n\n",
    );
    for mapping in Shipped::ALL {
        let _ = writeln!(text, "{}\n    {}", mapping.name, mapping.about());
        if let Some(line) = mapping.sample() {
            push_begin(&mut text, line);
        }
    }
    text.push_str(
        "\nIn topics each of these may also stand in Avro, Protobuf or JSON Schema behind a schema id: name the registry.\n\
         `qualm formats NAME` shows the whole sample. Without a format `look`, topics and files find it out by \
         themselves; CSV and JSON lines of your own need a mapping file.\n",
    );
    text
}

/// The begin of a sample.
fn push_begin(text: &mut String, line: &str) {
    let shown: String = line.chars().take(SHOWN).collect();
    let cut = if shown.len() < line.len() { " …" } else { "" };
    let _ = writeln!(text, "    {shown}{cut}");
}
