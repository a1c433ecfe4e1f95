//! `qualm formats`: what is understood, with a sample of each.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use qualm_ingest::parse::Format;

use crate::cli::FormatsArgs;

/// Characters of a sample that stand in the list.
const SHOWN: usize = 160;

/// Runs the command.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(args: &FormatsArgs) -> Result<ExitCode> {
    let text = match args.format {
        Some(format) => format!("{format}: {}\n\n{}", format.about(), format.sample()),
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
            let shown: String = line.chars().take(SHOWN).collect();
            let cut = if shown.len() < line.len() { " …" } else { "" };
            let _ = writeln!(text, "    {shown}{cut}");
        }
    }
    text.push_str(
        "\n`qualm formats NAME` shows the whole sample. Without a format `look`, topics and files find it out by \
         themselves; CSV and JSON lines of your own need a mapping file (datasets/mappings has some).\n",
    );
    text
}
