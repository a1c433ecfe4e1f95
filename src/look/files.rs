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

/// Reads the files one after the other, for `patience` and `most` records at most. Whether all of it was read.
pub(super) fn read(files: &[PathBuf], most: u64, patience: Duration, survey: &mut Survey) -> Result<bool> {
    let begun = Instant::now();
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
                return Ok(false);
            }
            if !more || !lines.refill().with_context(|| path.display().to_string())? {
                break;
            }
        }
        take(lines.rest(), survey);
    }
    survey.end();
    Ok(true)
}

fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), 0));
    }
    let file = File::open(path)?;
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
