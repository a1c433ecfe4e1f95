//! CSV and JSON lines that no format reads: the shipped mapping that fits, else the skeleton of one.

use std::fmt::Write as _;

use qualm_ingest::parse::{Format, Parser, mapped::Mapping};
use qualm_model::{
    event::{EventBuilder, Position},
    fold,
};

/// A mapping fits that reads so great a share of the records.
const FITS: f64 = 0.9;
/// Lines that must agree on a delimiter.
const AGREEING: usize = 20;
/// Columns that are named.
const MAX_COLUMNS: usize = 64;
/// Bytes shown of a value.
const SHOWN: usize = 24;

/// The mappings of `datasets/mappings`, for binaries that stand alone.
const SHIPPED: [Shipped; 10] = [
    Shipped { name: "nginx-json", text: include_str!("../../datasets/mappings/nginx-json.toml") },
    Shipped { name: "nginx-combined", text: include_str!("../../datasets/mappings/nginx-combined.toml") },
    Shipped { name: "kong", text: include_str!("../../datasets/mappings/kong.toml") },
    Shipped { name: "aws-alb", text: include_str!("../../datasets/mappings/aws-alb.toml") },
    Shipped { name: "ait-alerts", text: include_str!("../../datasets/mappings/ait-alerts.toml") },
    Shipped { name: "darpa-edges", text: include_str!("../../datasets/mappings/darpa-edges.toml") },
    Shipped { name: "k8s-flows-benign", text: include_str!("../../datasets/mappings/k8s-flows-benign.toml") },
    Shipped { name: "nezha-trainticket", text: include_str!("../../datasets/mappings/nezha-trainticket.toml") },
    Shipped { name: "stratosphere-zeek", text: include_str!("../../datasets/mappings/stratosphere-zeek.toml") },
    Shipped {
        name: "stratosphere-zeek-json",
        text: include_str!("../../datasets/mappings/stratosphere-zeek-json.toml"),
    },
];

/// A mapping that comes with Qualm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shipped {
    /// Its word.
    pub(crate) name: &'static str,
    /// The file.
    pub(crate) text: &'static str,
}

impl Shipped {
    /// All of them.
    pub(crate) const ALL: &'static [Self] = &SHIPPED;

    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        SHIPPED.into_iter().find(|shipped| shipped.name == name)
    }

    /// What its head says: what it is for, and how it is read.
    fn head(self) -> impl Iterator<Item = &'static str> {
        self.text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim)
    }

    /// What it is for.
    pub(crate) fn about(self) -> &'static str {
        self.head().next().unwrap_or_default()
    }

    /// A record that it reads, where its head has one.
    pub(crate) fn sample(self) -> Option<&'static str> {
        self.head().find_map(|line| line.strip_prefix("For example: "))
    }

    /// Its file's name.
    pub(super) fn file(self) -> String {
        format!("{}.toml", self.name)
    }

    /// A parser that reads by it.
    pub(super) fn parser(self) -> Option<Parser> {
        let mapping: Mapping = self.text.parse().ok()?;
        Parser::for_format(Format::Mapped, Some(mapping)).ok()
    }

    /// The share of records that become events; 0 where its header is another one.
    fn share(self, records: &[Vec<u8>]) -> f64 {
        let Some(mut parser) = self.parser() else { return 0.0 };
        let (mut builder, mut read) = (EventBuilder::new(), 0_u32);
        for record in records {
            match parser.is_record(record) {
                Err(_) => return 0.0,
                Ok(false) => {}
                Ok(true) => {
                    read += 1;
                    let _ = parser.parse(record, Position::default(), &mut builder);
                }
            }
        }
        builder.len() as f64 / f64::from(read.max(1))
    }
}

/// The shipped mapping that reads these records, which are the first of their file or topic.
pub(super) fn fitting(records: &[Vec<u8>]) -> Option<Shipped> {
    SHIPPED.into_iter().find(|shipped| shipped.share(records) >= FITS)
}

/// What lines of columns or keys look like.
struct Table {
    delimiter: Option<char>,
    header: bool,
    /// Each with a value.
    columns: Vec<(String, String)>,
}

/// The skeleton of a mapping for records that are lines of columns or keys: what can be guessed is filled in, the rest
/// is for who knows them. `None`: they look like neither.
pub(super) fn skeleton(records: &[Vec<u8>]) -> Option<String> {
    let lines: Vec<&str> = records.iter().take(AGREEING).filter_map(|record| str::from_utf8(record).ok()).collect();
    let table = of_objects(&lines).or_else(|| of_columns(&lines))?;
    let named = table.delimiter.is_none() || table.header;
    let reference = |column: usize| if named { table.columns[column].0.clone() } else { column.to_string() };
    let mut text = String::new();
    match table.delimiter {
        None => text.push_str("format = \"jsonl\"\n"),
        Some(delimiter) => {
            text.push_str("format = \"csv\"\n");
            let _ = writeln!(text, "header = {}", table.header);
            if delimiter != ',' {
                let _ = writeln!(text, "delimiter = {}", toml::Value::String(delimiter.to_string()));
            }
        }
    }
    for (column, (name, value)) in table.columns.iter().enumerate() {
        let name = if named { name.clone() } else { format!("column {column}") };
        let _ = writeln!(text, "# {name}: {}", shown(&name, value));
    }
    let time = (0..table.columns.len()).find_map(|column| Some((column, time_format(&table.columns[column].1)?)));
    let quoted = |column: usize| if named { format!("\"{}\"", reference(column)) } else { reference(column) };
    match time {
        Some((column, format)) => {
            let _ = writeln!(text, "time = {{ column = {}, format = \"{format}\" }}", quoted(column));
        }
        None => text.push_str("time = { column = \"?\", format = \"?\" }   # no column looks like a time: name it, and write its strptime format\n"),
    }
    text.push_str("\n[fields]\n");
    let mut taken = Vec::new();
    for (field, meaning, words) in FIELDS {
        let is_it = |column: &usize| {
            let name = table.columns[*column].0.to_ascii_lowercase();
            named
                && !taken.contains(column)
                && time.is_none_or(|(time, _)| time != *column)
                && words.iter().any(|word| name.contains(word))
        };
        let found = (0..table.columns.len()).find(is_it);
        taken.extend(found);
        let _ = match found {
            Some(column) => writeln!(text, "{field} = \"{{{}}}\"   # {meaning}", reference(column)),
            None if field == "source" => writeln!(text, "{field} = \"{{?}}\"   # {meaning}: name the column"),
            None => writeln!(text, "# {field} = \"{{?}}\"   # {meaning}"),
        };
    }
    Some(text)
}

/// Fields that most records have, what they are, and what their columns are called.
const FIELDS: [(&str, &str, &[&str]); 6] = [
    ("source", "who calls", &["src", "source", "client", "caller", "orig", "user", "host"]),
    ("destination", "who is called", &["dst", "dest", "server", "target", "service", "resp", "upstream"]),
    ("operation", "what is asked", &["operation", "request", "method", "path", "action", "proto", "uri", "name"]),
    ("status", "the HTTP status", &["status", "code"]),
    ("bytes_out", "bytes of the answer", &["bytes", "size"]),
    ("duration_s", "seconds it took; \"{column}e-3\" where they are milliseconds", &["duration", "elapsed", "latency"]),
];

fn of_objects(lines: &[&str]) -> Option<Table> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(lines.first()?).ok()?;
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let columns = object.iter().take(MAX_COLUMNS).map(|(key, value)| (key.clone(), text(value))).collect();
    Some(Table { delimiter: None, header: false, columns })
}

fn of_columns(lines: &[&str]) -> Option<Table> {
    let (first, last) = (lines.first()?, lines.last()?);
    let count = |line: &str, delimiter: char| line.matches(delimiter).count();
    // Quoted text may hold more of them.
    let agrees = |delimiter: &char| {
        count(first, *delimiter) > 0 && lines.iter().all(|line| count(line, *delimiter) >= count(first, *delimiter))
    };
    let delimiter = ['\t', ';', '|', ','].into_iter().find(agrees).filter(|_| lines.len() > 1)?;
    let is_name =
        |cell: &str| !cell.is_empty() && !cell.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
    let names: Vec<&str> = first.split(delimiter).map(|cell| cell.trim().trim_matches('"')).collect();
    let header = names.iter().all(|name| is_name(name)) && first != last;
    let values = last.split(delimiter).map(|cell| cell.trim().trim_matches('"').to_owned());
    let columns = names.iter().map(|name| (*name).to_owned()).zip(values).take(MAX_COLUMNS).collect();
    Some(Table { delimiter: Some(delimiter), header, columns })
}

/// A mapping's word for the form of a time.
fn time_format(value: &str) -> Option<&'static str> {
    let (whole, _) = value.split_once('.').unwrap_or((value, ""));
    let is_number = !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit());
    match whole.len() {
        10 if is_number => Some("epoch_s"),
        13 if is_number => Some("epoch_ms"),
        16 if is_number => Some("epoch_us"),
        19 if is_number => Some("epoch_ns"),
        _ => value.parse::<jiff::Timestamp>().ok().map(|_| "rfc3339"),
    }
}

/// The value of a column, with what could be a secret, or is named as one, folded.
fn shown(name: &str, value: &str) -> String {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("a number of {} digits", value.len());
    }
    let mut folded = String::new();
    fold::append_sample(&format!("{name}={value}"), &mut folded);
    let folded = folded.split_once('=').map_or("", |(_, value)| value);
    let end = folded.floor_char_boundary(SHOWN.min(folded.len()));
    let cut = if end < folded.len() { "…" } else { "" };
    format!("{}{cut}", folded[..end].replace(char::is_control, " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mappings_of_gateways_show_a_record_and_read_it() {
        for name in ["nginx-json", "nginx-combined", "kong", "aws-alb"] {
            let mapping = Shipped::named(name).expect("it is shipped");
            let sample = mapping.sample().expect("its head has one");
            let (mut parser, mut builder) = (mapping.parser().expect("it is sound"), EventBuilder::new());
            assert_eq!(parser.parse(sample.as_bytes(), Position::default(), &mut builder), Ok(()), "{name}");
            assert_eq!((builder.len(), mapping.about().is_empty()), (1, false), "{name}");
        }
    }

    fn records(text: &str) -> Vec<Vec<u8>> {
        text.lines().map(|line| line.as_bytes().to_vec()).collect()
    }

    #[test]
    fn every_shipped_mapping_can_be_read() {
        assert!(SHIPPED.into_iter().all(|shipped| shipped.parser().is_some()));
    }

    #[test]
    fn the_mapping_that_fits_is_found_and_none_where_none_does() {
        let edges = "192.0.2.7,198.51.100.9,07/01/1998-08:15,-\n".repeat(3);
        assert_eq!(fitting(&records(&edges)).map(|shipped| shipped.name), Some("darpa-edges"));
        let alerts =
            "time,name,ip,host,short,time_label,event_label\n1642213952,ClamAV update,172.17.131.81,mail,W,x,-\n";
        assert_eq!(fitting(&records(alerts)).map(|shipped| shipped.name), Some("ait-alerts"));
        assert_eq!(fitting(&records("when,who\n1642213952,mail\n")), None);
    }

    #[test]
    fn a_skeleton_is_a_mapping_that_reads_where_all_could_be_guessed() {
        let lines = "when;client;server;status\n1642213952;cart;orders;200\n1642213953;cart;stock;200\n";
        let text = skeleton(&records(lines)).expect("columns");
        let mapping: Mapping = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut parser = Parser::for_format(Format::Mapped, Some(mapping)).expect("a mapping is given");
        let mut builder = EventBuilder::new();
        for record in records(lines) {
            if parser.is_record(&record).expect("its header") {
                parser.parse(&record, Position::default(), &mut builder).expect("an event");
            }
        }
        let batch = builder.finish();
        let ends = |row: usize| (batch.event(row).source().principal(), batch.event(row).destination().principal());
        assert_eq!((ends(0), ends(1)), (("cart", "orders"), ("cart", "stock")));
    }

    #[test]
    fn what_cannot_be_guessed_is_asked_for_and_prose_is_no_table() {
        let text = skeleton(&records("0,1.5,2.5\n1,3.5,4.5\n")).expect("columns");
        assert!(text.contains("no column looks like a time") && text.contains("source = \"{?}\""), "{text}");
        assert_eq!(skeleton(&records("the quick brown fox\njumps\n")), None);
    }
}
