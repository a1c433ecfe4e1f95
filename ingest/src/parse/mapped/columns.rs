//! The columns of one record that a mapping refers to.

use super::{InvalidHeader, Mapping, template::Reference};
use crate::{
    parse::json::{Lexer, Stretch, Value, unescape},
    source::Invalid,
};

/// Where the text of a column stands: in the line, or in the text built beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    Absent,
    Line(Stretch),
    Built(Stretch),
}

impl Cell {
    pub(super) fn text<'a>(self, line: &'a str, built: &'a str) -> &'a str {
        match self {
            Self::Absent => "",
            Self::Line(stretch) => stretch.of(line),
            Self::Built(stretch) => stretch.of(built),
        }
    }
}

/// Finds the columns that are referred to, in the order of the references.
#[derive(Debug)]
pub(super) struct Columns {
    references: Vec<Reference>,
    delimiter: u8,
    cells: Vec<Cell>,
    /// By column of a CSV record: which reference it is.
    by_column: Vec<Option<usize>>,
    /// How many columns a record has: as many as the header, or else as those before.
    count: Count,
    has_header: bool,
    /// Keys to follow into a JSON record.
    paths: Path,
}

/// How many columns to expect. One odd record changes nothing, two alike in a row do.
#[derive(Debug, Default)]
struct Count {
    expected: usize,
    /// That of the last record, where it was another.
    other: usize,
    last: usize,
}

/// A level of the JSON paths that are referred to.
#[derive(Debug, Default)]
struct Path {
    reference: Option<usize>,
    inner: Vec<(String, Path)>,
}

impl Path {
    fn child(&mut self, key: &str) -> &mut Self {
        let at = self.inner.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            self.inner.push((key.to_owned(), Self::default()));
            self.inner.len() - 1
        });
        &mut self.inner[at].1
    }
}

impl Columns {
    pub(super) fn new(mapping: &Mapping) -> Self {
        let mut paths = Path::default();
        let mut by_column = Vec::new();
        for (index, reference) in mapping.references.iter().enumerate() {
            match reference {
                Reference::Number(column) => place(&mut by_column, *column, index),
                Reference::Name(name) => {
                    // `id.orig_h` is a path for some writers and a key for others.
                    paths.child(name).reference = Some(index);
                    name.split('.').fold(&mut paths, Path::child).reference = Some(index);
                }
            }
        }
        Self {
            cells: vec![Cell::Absent; mapping.references.len()],
            references: mapping.references.clone(),
            delimiter: mapping.delimiter,
            count: Count { expected: by_column.len(), ..Count::default() },
            by_column,
            has_header: mapping.header,
            paths,
        }
    }

    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(super) fn begin_input(&mut self) {
        if !self.has_header {
            self.count = Count { expected: self.by_column.len(), ..Count::default() };
        }
    }

    /// The record last read made sense: others may be expected to have as many columns.
    pub(super) fn confirm(&mut self) {
        let Count { expected, other, last } = &mut self.count;
        let is_first = *expected == self.by_column.len() && *other == 0;
        if !self.has_header && last != expected && (last == other || is_first) {
            *expected = *last;
        }
        *other = *last;
    }

    /// Learns from the header which column has which name.
    pub(super) fn read_header(&mut self, line: &str) -> Result<(), InvalidHeader> {
        let line = line.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
        let names: Vec<String> =
            line.split(char::from(self.delimiter)).map(|name| name.trim().trim_matches('"').to_owned()).collect();
        let mut by_column = Vec::new();
        for (index, reference) in self.references.iter().enumerate() {
            let column = match reference {
                Reference::Number(column) => Some(*column).filter(|&column| column < names.len()),
                Reference::Name(wanted) => names.iter().position(|name| name == wanted),
            };
            let Some(column) = column else {
                let column = match reference {
                    Reference::Number(column) => column.to_string(),
                    Reference::Name(name) => name.clone(),
                };
                let found = names.join(", ").chars().take(500).collect();
                return Err(InvalidHeader { column, found });
            };
            place(&mut by_column, column, index);
        }
        self.count.expected = names.len();
        self.by_column = by_column;
        Ok(())
    }

    /// Finds the columns in a CSV record.
    pub(super) fn read_csv(&mut self, line: &str, built: &mut String) -> Result<(), Invalid> {
        self.cells.fill(Cell::Absent);
        let bytes = line.as_bytes();
        let (mut start, mut column) = (0, 0);
        loop {
            let (cell, end) = read_cell(line, start, self.delimiter, built)?;
            if let Some(Some(reference)) = self.by_column.get(column) {
                self.cells[*reference] = cell;
            }
            column += 1;
            if end == bytes.len() {
                break;
            }
            start = end + 1;
        }
        self.count.last = column;
        let Count { expected, other, .. } = self.count;
        // A record that was cut off has fewer columns than those before it.
        let cut_off = column < self.by_column.len() || (column < expected && (self.has_header || column != other));
        if cut_off || (column > expected && self.has_header) {
            self.count.other = column;
            return Err(Invalid::Syntax);
        }
        Ok(())
    }

    /// Finds the columns in a JSON record.
    pub(super) fn read_json(&mut self, line: &str, built: &mut String) -> Result<(), Invalid> {
        self.cells.fill(Cell::Absent);
        let mut lexer = Lexer::new(line);
        lexer.begin()?;
        read_object(&mut lexer, line, &self.paths, &mut self.cells, built)?;
        lexer.end()
    }
}

fn place(by_column: &mut Vec<Option<usize>>, column: usize, reference: usize) {
    if by_column.len() <= column {
        by_column.resize(column + 1, None);
    }
    by_column[column] = Some(reference);
}

/// One cell from `start` on, and where it ends: at a delimiter or at the end of the line.
fn read_cell(line: &str, start: usize, delimiter: u8, built: &mut String) -> Result<(Cell, usize), Invalid> {
    let bytes = line.as_bytes();
    if bytes.get(start) != Some(&b'"') {
        let end = memchr::memchr(delimiter, &bytes[start..]).map_or(bytes.len(), |at| start + at);
        let last = if end == bytes.len() && line.ends_with('\r') { end - 1 } else { end };
        let cell =
            if is_absent(&line[start..last.max(start)]) { Cell::Absent } else { Cell::Line(Stretch::new(start, last)) };
        return Ok((cell, end));
    }
    let from = built.len();
    let mut at = start + 1;
    loop {
        let quote = at + memchr::memchr(b'"', &bytes[at..]).ok_or(Invalid::Syntax)?;
        built.push_str(&line[at..quote]);
        at = quote + 1;
        match bytes.get(at) {
            Some(b'"') => {
                built.push('"');
                at += 1;
            }
            Some(&byte) if byte == delimiter => break,
            Some(b'\r') if at + 1 == bytes.len() => {
                at += 1;
                break;
            }
            None => break,
            Some(_) => return Err(Invalid::Syntax),
        }
    }
    Ok((if is_absent(&built[from..]) { Cell::Absent } else { Cell::Built(Stretch::new(from, built.len())) }, at))
}

fn is_absent(text: &str) -> bool {
    matches!(text, "" | "-")
}

/// Follows the wanted paths; their depth bounds the recursion.
fn read_object(
    lexer: &mut Lexer<'_>,
    line: &str,
    path: &Path,
    cells: &mut [Cell],
    built: &mut String,
) -> Result<(), Invalid> {
    while let Some(name) = lexer.key()? {
        let Some((_, inner)) = path.inner.iter().find(|(key, _)| key == name) else {
            lexer.skip_value()?;
            continue;
        };
        let cell = match lexer.value()? {
            Value::Object => {
                read_object(lexer, line, inner, cells, built)?;
                continue;
            }
            Value::Array if inner.reference.is_some() => return Err(Invalid::WrongType),
            Value::Array => {
                lexer.skip_rest()?;
                continue;
            }
            Value::Null => Cell::Absent,
            Value::Text(text) | Value::Number(text) if is_absent(text.of(line)) => Cell::Absent,
            Value::Text(text) | Value::Number(text) => Cell::Line(text),
            Value::Bool(value) => append(if value { "true" } else { "false" }, built),
            Value::Escaped(escaped) => {
                let from = built.len();
                unescape(escaped.of(line), built)?;
                Cell::Built(Stretch::new(from, built.len()))
            }
        };
        if let Some(reference) = inner.reference {
            cells[reference] = cell;
        }
    }
    Ok(())
}

fn append(text: &str, built: &mut String) -> Cell {
    let from = built.len();
    built.push_str(text);
    Cell::Built(Stretch::new(from, built.len()))
}
