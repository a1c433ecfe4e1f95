//! A sample of files: from their begin, as far as the time allows.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use qualm_ingest::{
    lines::{Line, Lines, unpacked},
    parse::Origin,
};

use super::{survey::Survey, words::Progress};

/// How far files were read.
pub(super) struct Came {
    /// Whether all of their records were.
    pub(super) complete: bool,
    /// What is to be said of one that ends in the middle.
    pub(super) cut: Option<String>,
}

/// Reads the files one after the other, for `patience` and `most` records at most.
pub(super) fn read(files: &[PathBuf], most: u64, patience: Duration, survey: &mut Survey) -> Result<Came> {
    let (begun, mut cut) = (Instant::now(), None);
    for path in files {
        let wrong = || format!("{}: cannot be read; correct the path or its permissions", path.display());
        let (input, size) = open(path).with_context(wrong)?;
        let mut lines = Lines::new(unpacked(input).with_context(wrong)?, survey.parser().max_record_bytes());
        survey.parser().begin_input();
        let mut progress = Progress::new(size, "bytes");
        loop {
            let more = take_buffered(&mut lines, most, survey);
            progress.reached(lines.bytes_read());
            if survey.records >= most || begun.elapsed() >= patience {
                survey.end();
                return Ok(Came { complete: false, cut });
            }
            if !more {
                break;
            }
            match lines.refill() {
                Ok(true) => {}
                Ok(false) => break,
                // Who looks at a file that is still being packed is told of what is there.
                Err(error) if survey.records > 0 => {
                    cut = Some(format!(
                        "{}: {error}: it is still being written, or was cut off; this is about what comes before",
                        path.display()
                    ));
                    break;
                }
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
        take(lines.rest(), survey);
    }
    survey.end();
    Ok(Came { complete: true, cut })
}

fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), 0));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory; name the files in it"));
    }
    let size = file.metadata()?.len();
    Ok((Box::new(file), size))
}

/// Takes in every line that is there. Whether there may be more.
fn take_buffered(lines: &mut Lines, most: u64, survey: &mut Survey) -> bool {
    while survey.records < most {
        match lines.next_buffered() {
            Line::Starved => return true,
            Line::End => return false,
            line => take(line, survey),
        }
    }
    true
}

fn take(line: Line<'_>, survey: &mut Survey) {
    match line {
        Line::TooLong => survey.too_long(),
        Line::Whole(line) if survey.parser().is_record(line).unwrap_or(true) => {
            survey.take(line, (0, &Origin::default()), None);
        }
        Line::Whole(_) | Line::Starved | Line::End => {}
    }
}
