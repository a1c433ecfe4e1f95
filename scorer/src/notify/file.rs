//! Alerts as JSON lines in a file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{Alert, Sink, SinkError};

pub(super) const NAME: &str = "file";

/// Appends one line an alert and syncs it. The file is opened for each alert, so that it may be rotated at any time.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
}

impl FileSink {
    /// A sink that appends to `path`, which need not exist.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Sink for FileSink {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn deliver(&mut self, alert: &Alert) -> Result<(), SinkError> {
        let (path, json) = (self.path.clone(), alert.json.clone());
        let unavailable = |why: String| SinkError::Unavailable(format!("{}: {why}", self.path.display()));
        tokio::task::spawn_blocking(move || append(&path, json))
            .await
            .map_err(|error| unavailable(error.to_string()))?
            .map_err(|error| unavailable(error.to_string()))
    }
}

fn append(path: &Path, mut line: String) -> io::Result<()> {
    line.push('\n');
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    if ends_within_a_line(&mut file)? {
        // A line that a crash or a full disk has cut off must not spoil this one.
        line.insert(0, '\n');
    }
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    if !file.metadata()?.is_file() || file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}
