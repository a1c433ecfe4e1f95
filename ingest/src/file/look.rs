//! What is at a path, before it is read.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::lines::is_packed;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Lines as they are.
    Plain,
    /// gzip or Zstandard.
    Packed,
    /// No file at all.
    Directory,
}

/// Looks at what is at a path, and whether it can be read. A pipe is taken for plain: its first bytes are for whoever
/// reads it.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn look(path: &Path) -> io::Result<Look> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Ok(Look::Directory);
    }
    if !metadata.is_file() {
        return Ok(Look::Plain);
    }
    let mut first = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut first)?;
    Ok(if is_packed(&first) { Look::Packed } else { Look::Plain })
}
