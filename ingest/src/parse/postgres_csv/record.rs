//! A record of csvlog: how its text splits into fields, and which of them are read.

use std::borrow::Cow;

use qualm_model::time::Timestamp;

/// Columns of 9.0 to 12, of 13 and of 14 to 17. Only those before `application_name`, which all have, are read.
const COLUMNS: [usize; 3] = [23, 24, 26];
pub(super) const USER: usize = 1;
pub(super) const DATABASE: usize = 2;
pub(super) const CONNECTION_FROM: usize = 4;
pub(super) const SESSION_ID: usize = 5;
pub(super) const SESSION_LINE: usize = 6;
pub(super) const SEVERITY: usize = 11;
pub(super) const SQL_STATE: usize = 12;
pub(super) const MESSAGE: usize = 13;
pub(super) const DETAIL: usize = 14;
pub(super) const QUERY: usize = 19;

#[derive(Debug)]
pub(super) struct Field<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) is_quoted: bool,
}

/// How a text splits into fields.
#[derive(Debug)]
pub(super) enum Split<'a> {
    Whole(Vec<Field<'a>>),
    /// It ends within quotes; so many fields came before them.
    Open(usize),
    Malformed,
}

/// What is read of a record.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) fields: Vec<Field<'a>>,
    pub(super) time: Timestamp,
}

impl Record<'_> {
    pub(super) fn get(&self, column: usize) -> &str {
        self.fields.get(column).map_or("", |field| &field.text)
    }
}

/// Whether the fields are those of a record: as many as one has, and those that hold what users write in quotes.
pub(super) fn is_record(fields: &[Field<'_>]) -> bool {
    let is_quoted_or_empty = |column: usize| fields[column].is_quoted || fields[column].text.is_empty();
    COLUMNS.contains(&fields.len())
        && begins_record(&fields[0].text)
        && fields[MESSAGE].is_quoted
        && [USER, DATABASE, CONNECTION_FROM, QUERY].into_iter().all(is_quoted_or_empty)
        && fields[SQL_STATE].text.len() == 5
}

/// `2026-09-12 23:10:56.412 UTC` up to a comma: PostgreSQL's other log has more words there, and what programs write of
/// themselves mostly no zone (`2026-09-12 23:10:56,412 INFO starting`).
pub(super) fn begins_record(line: &str) -> bool {
    let (time, is_cut_off) = line.split_once(',').map_or((line, true), |(time, _)| (time, false));
    let words = time.split(' ').count();
    if words > 3 || words < 3 && !is_cut_off {
        return false;
    }
    line.as_bytes().first_chunk::<19>().is_some_and(|head| {
        let separators = [head[4], head[7], head[10], head[13], head[16]];
        separators == *b"-- ::" && head[0].is_ascii_digit()
    })
}

/// Splits as PostgreSQL writes: a field is quoted as a whole, with its quotes doubled, or not at all.
pub(super) fn split(text: &str) -> Split<'_> {
    let mut fields = Vec::with_capacity(COLUMNS[2]);
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Split::Malformed;
            }
            fields.push(Field { text: Cow::Borrowed(&rest[..end]), is_quoted: false });
            if end == rest.len() {
                return Split::Whole(fields);
            }
            rest = &rest[end + 1..];
            continue;
        };
        let mut end = 0;
        loop {
            let Some(at) = quoted[end..].find('"') else { return Split::Open(fields.len()) };
            end += at;
            if !quoted[end + 1..].starts_with('"') {
                break;
            }
            end += 2;
        }
        let inner = &quoted[..end];
        let inner = if inner.contains('"') { Cow::Owned(inner.replace("\"\"", "\"")) } else { Cow::Borrowed(inner) };
        fields.push(Field { text: inner, is_quoted: true });
        rest = &quoted[end + 1..];
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None if rest.is_empty() => return Split::Whole(fields),
            None => return Split::Malformed,
        }
    }
}
