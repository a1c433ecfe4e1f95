//! Templates: text with references to columns in it.

use super::columns::Cell;
use crate::parse::json::Stretch;

/// What a reference names: `{3}`, `{name}` or `{a.b}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    Number(usize),
    Name(String),
}

impl Reference {
    pub(super) fn of(name: &str) -> Self {
        name.parse().map_or_else(|_| Self::Name(name.to_owned()), Self::Number)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// Index into the list of references.
    Reference(usize),
}

/// A template; its references are indices into the list that it was read with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

impl Template {
    /// Reads a template, adding what it refers to to `references`. `None` where a brace is not closed or is empty.
    pub(super) fn parse(text: &str, references: &mut Vec<Reference>) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').filter(|(name, _)| !name.is_empty())?;
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(Part::Reference(index_of(Reference::of(name), references)));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Some(Self(parts))
    }

    /// The text it makes of the columns of a record; absent where a column that it refers to is.
    pub(super) fn fill(&self, line: &str, columns: &[Cell], built: &mut String) -> Cell {
        if let [Part::Reference(index)] = self.0.as_slice() {
            return columns[*index];
        }
        let start = built.len();
        for part in &self.0 {
            match part {
                Part::Literal(text) => built.push_str(text),
                Part::Reference(index) => match columns[*index] {
                    Cell::Absent => return Cell::Absent,
                    Cell::Line(stretch) => built.push_str(stretch.of(line)),
                    Cell::Built(stretch) => {
                        let (from, to) = stretch.bounds();
                        built.extend_from_within(from..to);
                    }
                },
            }
        }
        Cell::Built(Stretch::new(start, built.len()))
    }
}

/// Where a reference stands in the list; each is there once.
pub(super) fn index_of(reference: Reference, references: &mut Vec<Reference>) -> usize {
    references.iter().position(|known| *known == reference).unwrap_or_else(|| {
        references.push(reference);
        references.len() - 1
    })
}
