//! The mapping file: which columns are what.

use std::str::FromStr;

use super::template::{Reference, Template, index_of};

macro_rules! fields {
    ($($field:ident = $name:literal),+ $(,)?) => {
        /// A field of the event that a mapping can fill.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`")] $field),+
        }

        impl Field {
            /// All fields, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$field),+];

            /// Its name in the mapping file.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$field => $name),+ }
            }
        }
    };
}

fields! {
    Kind = "kind",
    Source = "source",
    Destination = "destination",
    Operation = "operation",
    Status = "status",
    Outcome = "outcome",
    BytesIn = "bytes_in",
    BytesOut = "bytes_out",
    DurationS = "duration_s",
    SourceIp = "source_ip",
    DestinationIp = "destination_ip",
    DestinationPort = "destination_port",
    Credential = "credential",
    AuthMethod = "auth_method",
    RecordId = "record_id",
}

pub(super) const FIELDS: usize = Field::ALL.len();
const KEYS: [&str; 6] = ["format", "header", "delimiter", "comment", "time", "fields"];
const TIME_KEYS: [&str; 3] = ["column", "format", "zone"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Csv,
    JsonLines,
}

#[derive(Debug, Clone)]
pub(super) enum TimeFormat {
    /// A decimal number of units of which 10^digits make a second.
    Epoch {
        digits: u32,
    },
    Rfc3339,
    Strptime {
        format: String,
        zone: jiff::tz::TimeZone,
    },
}

/// What a mapping file says, checked.
#[derive(Debug, Clone)]
pub struct Mapping {
    pub(super) layout: Layout,
    pub(super) header: bool,
    pub(super) delimiter: u8,
    pub(super) comment: Option<String>,
    /// Index of the time's reference.
    pub(super) time: usize,
    pub(super) time_format: TimeFormat,
    pub(super) fields: [Option<Template>; FIELDS],
    pub(super) references: Vec<Reference>,
}

/// Why a mapping file cannot be used: the key, what is wrong with it, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mapping: {0}")]
pub struct InvalidMapping(String);

type Checked<T> = Result<T, InvalidMapping>;

impl FromStr for Mapping {
    type Err = InvalidMapping;

    fn from_str(text: &str) -> Checked<Self> {
        let table: toml::Table = text.parse().map_err(|error| InvalidMapping(format!("{error}")))?;
        known_keys("", &table, &KEYS)?;
        let layout = match text_of("format", &table)? {
            Some("csv") => Layout::Csv,
            Some("jsonl") => Layout::JsonLines,
            other => return wrong("format", other, "\"csv\" or \"jsonl\""),
        };
        let header = match table.get("header") {
            None => false,
            Some(toml::Value::Boolean(header)) => *header,
            Some(_) => return wrong("header", None, "true or false"),
        };
        let delimiter = match text_of("delimiter", &table)? {
            None => b',',
            Some(text) => match text.as_bytes() {
                [byte] if byte.is_ascii() && *byte != b'"' => *byte,
                _ => return wrong("delimiter", Some(text), "one ASCII character"),
            },
        };
        let comment = text_of("comment", &table)?.filter(|comment| !comment.is_empty()).map(str::to_owned);
        let mut references = Vec::new();
        let (time, time_format) = time_of(&table, &mut references)?;
        let fields = fields_of(&table, &mut references)?;
        let mapping = Self { layout, header, delimiter, comment, time, time_format, fields, references };
        mapping.check_references()?;
        Ok(mapping)
    }
}

impl Mapping {
    /// Names need a header or JSON keys; numbers need columns.
    fn check_references(&self) -> Checked<()> {
        for reference in &self.references {
            match (self.layout, reference) {
                (Layout::Csv, Reference::Name(name)) if !self.header => {
                    return Err(InvalidMapping(format!(
                        "`{{{name}}}` is a column name, but `header` is false; set `header = true`, or write the \
                         column's number, counted from 0"
                    )));
                }
                (Layout::JsonLines, Reference::Number(number)) => {
                    return Err(InvalidMapping(format!(
                        "`{{{number}}}` is a column number, but JSON lines have keys; write the key"
                    )));
                }
                (Layout::Csv, Reference::Number(number @ 4096..)) => {
                    return Err(InvalidMapping(format!("column {number} is beyond the bound of 4096 columns")));
                }
                _ => {}
            }
        }
        if self.layout == Layout::JsonLines && self.header {
            return wrong("header", Some("true"), "false for JSON lines");
        }
        Ok(())
    }
}

fn time_of(table: &toml::Table, references: &mut Vec<Reference>) -> Checked<(usize, TimeFormat)> {
    let Some(toml::Value::Table(time)) = table.get("time") else {
        return wrong("time", None, "`{ column, format }`, and `zone` for local times");
    };
    known_keys("time.", time, &TIME_KEYS)?;
    let reference = match time.get("column") {
        Some(toml::Value::Integer(column)) => {
            let column = usize::try_from(*column).map_err(|_| InvalidMapping("`time.column` is negative".into()))?;
            Reference::Number(column)
        }
        Some(toml::Value::String(name)) if !name.is_empty() => {
            Reference::of(name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name))
        }
        _ => return wrong("time.column", None, "a column's name, or its number counted from 0"),
    };
    let zone = text_of("zone", time)?.unwrap_or("UTC");
    let zone = jiff::tz::TimeZone::get(zone)
        .map_err(|_| InvalidMapping(format!("`time.zone` is `{zone}`, which is no IANA time zone; e.g. \"UTC\"")))?;
    let format = match text_of("format", time)? {
        Some("epoch_s") => TimeFormat::Epoch { digits: 0 },
        Some("epoch_ms") => TimeFormat::Epoch { digits: 3 },
        Some("epoch_us") => TimeFormat::Epoch { digits: 6 },
        Some("epoch_ns") => TimeFormat::Epoch { digits: 9 },
        Some("rfc3339") => TimeFormat::Rfc3339,
        Some(format) if format.contains('%') => TimeFormat::Strptime { format: format.to_owned(), zone },
        other => {
            return wrong("time.format", other, "epoch_s, epoch_ms, epoch_us, epoch_ns, rfc3339 or a strptime format");
        }
    };
    Ok((index_of(reference, references), format))
}

fn fields_of(table: &toml::Table, references: &mut Vec<Reference>) -> Checked<[Option<Template>; FIELDS]> {
    let Some(toml::Value::Table(fields)) = table.get("fields") else {
        return wrong("fields", None, "a table with at least `source`");
    };
    let names: Vec<&str> = Field::ALL.iter().map(|field| field.as_str()).collect();
    known_keys("fields.", fields, &names)?;
    let mut templates = [const { None }; FIELDS];
    for &field in Field::ALL {
        let Some(text) = text_of(field.as_str(), fields)? else { continue };
        let Some(template) = Template::parse(text, references) else {
            return wrong(field.as_str(), Some(text), "text with columns in braces, every brace closed");
        };
        templates[field as usize] = Some(template);
    }
    if templates[Field::Source as usize].is_none() {
        return wrong("fields.source", None, "the column of who acts, such as \"{src}\"");
    }
    Ok(templates)
}

/// Refuses an unknown key and names the nearest.
fn known_keys(prefix: &str, table: &toml::Table, known: &[&str]) -> Checked<()> {
    for key in table.keys() {
        if known.contains(&key.as_str()) {
            continue;
        }
        let distance = |name: &&&str| strsim::damerau_levenshtein(key, name);
        let nearest = known.iter().min_by_key(distance).copied().unwrap_or_default();
        return Err(InvalidMapping(format!(
            "unknown key `{prefix}{key}`; did you mean `{prefix}{nearest}`? Known: {}",
            known.join(", ")
        )));
    }
    Ok(())
}

fn text_of<'a>(key: &str, table: &'a toml::Table) -> Checked<Option<&'a str>> {
    match table.get(key) {
        None => Ok(None),
        Some(toml::Value::String(text)) => Ok(Some(text)),
        Some(_) => wrong(key, None, "a text in quotes"),
    }
}

fn wrong<T>(key: &str, found: Option<&str>, expected: &str) -> Checked<T> {
    let found = found.map_or_else(|| "missing or of another type".to_owned(), |found| format!("`{found}`"));
    Err(InvalidMapping(format!("`{key}` is {found}; it must be {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_with_their_remedy() {
        let valid = "format = \"csv\"\nheader = true\ntime = { column = \"t\", format = \"epoch_s\" }\n[fields]\nsource = \"{s}\"\n";
        assert!(valid.parse::<Mapping>().is_ok());
        for (from, to, said) in [
            ("header", "heder", "unknown key `heder`; did you mean `header`?"),
            ("source", "sorce", "unknown key `fields.sorce`; did you mean `fields.source`?"),
            ("\"csv\"", "\"xml\"", "`format` is `xml`; it must be \"csv\" or \"jsonl\""),
            ("epoch_s", "epoch", "`time.format` is `epoch`"),
            ("\"epoch_s\"", "\"%Y\", zone = \"Mars\"", "`time.zone` is `Mars`"),
            ("header = true", "header = false", "set `header = true`"),
            ("{s}", "{s", "every brace closed"),
            ("source", "destination", "`fields.source` is missing"),
            ("header = true", "delimiter = \"ab\"", "one ASCII character"),
            ("format = \"csv\"", "format = \"csv", "TOML"),
        ] {
            let error = valid.replacen(from, to, 1).parse::<Mapping>().expect_err(to).to_string();
            assert!(error.contains(said), "{to}: {error}");
        }
    }
}
