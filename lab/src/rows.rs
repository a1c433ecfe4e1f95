//! A label a row, out of the files that the backtest read.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// How label files are laid out.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The column of the label: a number from 0, or a name.
    pub(crate) column: String,
    /// The label that means harmless.
    pub(crate) harmless: String,
    /// What stands between columns.
    pub(crate) delimiter: u8,
    /// What lines that are no records begin with.
    pub(crate) comment: Option<u8>,
}

/// The label of each row over all files, an empty text where it is harmless, given to `take` in order.
///
/// # Errors
/// A file cannot be read, or has no such column.
pub(crate) fn read(files: &[PathBuf], layout: &Layout, take: &mut impl FnMut(&str)) -> Result<()> {
    files.iter().try_for_each(|file| {
        let rows = open(file).context("cannot be read; check the path given to --row-labels");
        rows.and_then(|rows| read_one(rows, layout, take)).with_context(|| file.display().to_string())
    })
}

fn read_one(rows: impl Read, layout: &Layout, take: &mut impl FnMut(&str)) -> Result<()> {
    let number: Option<usize> = layout.column.parse().ok();
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(number.is_none())
        .delimiter(layout.delimiter)
        .comment(layout.comment)
        .flexible(true)
        .from_reader(rows);
    let column = match number {
        Some(number) => number,
        None => {
            let header = reader.byte_headers().context("no header")?;
            header.iter().position(|name| name == layout.column.as_bytes()).with_context(|| {
                format!("no column `{}` in its first line; name another with --label-column", layout.column)
            })?
        }
    };
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).context("no CSV")? {
        let line = record.position().map_or(0, csv::Position::line);
        let label = record.get(column).with_context(|| {
            format!("line {line} has {} columns, none of them with the number {column}", record.len())
        })?;
        let label = String::from_utf8_lossy(label);
        let label = label.trim();
        take(if label == layout.harmless { "" } else { label });
    }
    ensure!(!record.is_empty() || reader.position().record() > 0, "no records in it");
    Ok(())
}

/// Opens a file, unpacked by its ending.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn open(file: &Path) -> io::Result<Box<dyn Read>> {
    let packed = io::BufReader::with_capacity(1 << 20, File::open(file)?);
    Ok(match file.extension().and_then(|ending| ending.to_str()) {
        Some("zst") => {
            let mut unpacked = zstd::Decoder::with_buffer(packed)?;
            // As `zstd --long=27` packs.
            unpacked.window_log_max(27)?;
            Box::new(unpacked)
        }
        Some("gz") => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        _ => Box::new(packed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str, column: &str) -> Result<Vec<String>> {
        let layout =
            Layout { column: column.to_owned(), harmless: "-".to_owned(), delimiter: b',', comment: Some(b'#') };
        let mut found = Vec::new();
        read_one(text.as_bytes(), &layout, &mut |label| found.push(label.to_owned()))?;
        Ok(found)
    }

    #[test]
    fn a_column_is_known_by_number_or_by_name() {
        assert_eq!(labels("a,-\n# no row\n\nb,scan\n", "1").unwrap(), ["", "scan"]);
        assert_eq!(labels("who,what\na,-\nb,scan\n", "what").unwrap(), ["", "scan"]);
    }

    #[test]
    fn a_column_that_is_not_there_is_named() {
        let error = format!("{:#}", labels("who,what\na,-\n", "label").unwrap_err());
        assert!(error.contains("no column `label`") && error.contains("--label-column"), "{error}");
        let error = format!("{:#}", labels("a,-\nb\n", "1").unwrap_err());
        assert!(error.contains("line 2 has 1 columns"), "{error}");
    }
}
