//! Zeek's own text: columns between tabs, named by the header of each file (`#fields`).
//!
//! Through Kafka or a shipper no header comes along: until one is seen, lines are those of `conn.log` with its
//! default columns. More columns may follow those (`community_id`, a label); of a line that ends within them nothing
//! that is read can be cut off.

use super::{Entry, Log, Texts, seconds};
use crate::{
    parse::{
        Row,
        istio_json::whole_number,
        time::{epoch, rfc3339},
    },
    source::{Invalid, Rejection},
};

/// What an unset and what an empty field is.
const UNSET: [&str; 3] = ["-", "(empty)", ""];
/// More columns are not read.
const MAX_COLUMNS: usize = 256;

macro_rules! columns {
    ($($column:ident $name:literal)+) => {
        /// The columns that are read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Column {
            $($column),+
        }

        fn column_of(name: &str) -> Option<Column> {
            match name {
                $($name => Some(Column::$column),)+
                _ => None,
            }
        }

        const COLUMNS: usize = [$($name),+].len();
    };
}

columns! {
    Time "ts"
    Uid "uid"
    Source "id.orig_h"
    SourcePort "id.orig_p"
    Destination "id.resp_h"
    DestinationPort "id.resp_p"
    Proto "proto"
    Service "service"
    Duration "duration"
    SourceBytes "orig_bytes"
    DestinationBytes "resp_bytes"
    State "conn_state"
    TransDepth "trans_depth"
    Method "method"
    Host "host"
    Uri "uri"
    RequestBytes "request_body_len"
    ResponseBytes "response_body_len"
    Status "status_code"
    Version "version"
    ServerName "server_name"
    Established "established"
    AuthSuccess "auth_success"
    Certificates "client_cert_chain_fps"
    Ja3 "ja3"
    Ja4 "ja4"
}

/// The columns of `conn.log` up to the last that is read.
const CONN: [&str; 12] = [
    "ts",
    "uid",
    "id.orig_h",
    "id.orig_p",
    "id.resp_h",
    "id.resp_p",
    "proto",
    "service",
    "duration",
    "orig_bytes",
    "resp_bytes",
    "conn_state",
];

/// Reads Zeek's tab-separated text.
#[derive(Debug, Default)]
pub struct ZeekTsv {
    header: Option<Header>,
    texts: Texts,
}

/// What the head of a file says.
#[derive(Debug, Default)]
struct Header {
    /// `None` where it is a log that is not read.
    log: Option<Log>,
    columns: Vec<Option<Column>>,
}

impl ZeekTsv {
    /// A new file begins: it has a header of its own.
    pub fn begin_input(&mut self) {
        self.header = None;
    }

    /// Whether a line is none of the header's, which are read here.
    pub fn is_record(&mut self, line: &[u8]) -> bool {
        if !line.starts_with(b"#") {
            return true;
        }
        self.read_header(&String::from_utf8_lossy(line));
        false
    }

    /// Reads one line. Those of a header are foreign, where they come as records.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let line = line.trim_end_matches(['\r', '\n']);
        if line.starts_with('#') {
            self.read_header(line);
            return Err(Rejection::Foreign);
        }
        if !line.contains('\t') {
            return Err(Rejection::Foreign);
        }
        let log = match &self.header {
            Some(header) => header.log.ok_or(Rejection::Foreign)?,
            None => Log::Conn,
        };
        let fields = match &self.header {
            Some(header) => named(line, &header.columns)?,
            None => default_columns(line)?,
        };
        entry(&fields, log)?.push(log, &mut self.texts, row)
    }

    fn read_header(&mut self, line: &str) {
        let mut words = line.trim_end_matches(['\r', '\n']).split('\t');
        match words.next() {
            Some("#path") => {
                self.header = Some(Header { log: words.next().and_then(Log::of_path), ..Header::default() });
            }
            Some("#fields") => {
                let columns = words.take(MAX_COLUMNS).map(column_of).collect();
                self.header.get_or_insert_with(|| Header { log: Some(Log::Conn), ..Header::default() }).columns =
                    columns;
            }
            _ => {}
        }
    }
}

type Found<'a> = [&'a str; COLUMNS];

/// The columns of a file with a header: as many as that has.
fn named<'a>(line: &'a str, columns: &[Option<Column>]) -> Result<Found<'a>, Invalid> {
    let mut found = [""; COLUMNS];
    let mut count = 0;
    for text in line.split('\t') {
        if let Some(Some(column)) = columns.get(count) {
            found[*column as usize] = set(text);
        }
        count += 1;
    }
    if count == columns.len() { Ok(found) } else { Err(Invalid::Syntax) }
}

/// Those of `conn.log`, without a header: at least one more must have begun, or the last could be cut off.
fn default_columns(line: &str) -> Result<Found<'_>, Rejection> {
    let mut found = [""; COLUMNS];
    let mut count = 0;
    for text in line.split('\t') {
        if let Some(column) = CONN.get(count).and_then(|name| column_of(name)) {
            found[column as usize] = set(text);
        }
        count += 1;
    }
    // Tabs are common in lines of applications; a time in front of them is not.
    if epoch(found[Column::Time as usize], 0).is_err() && rfc3339(found[Column::Time as usize]).is_err() {
        return Err(Rejection::Foreign);
    }
    if count > CONN.len() { Ok(found) } else { Err(Invalid::Syntax.into()) }
}

fn set(text: &str) -> &str {
    if UNSET.contains(&text) { "" } else { text }
}

fn entry<'a>(found: &Found<'a>, log: Log) -> Result<Entry<'a>, Invalid> {
    let get = |column: Column| found[column as usize];
    let number = |column| match get(column) {
        "" => Ok(None),
        digits => whole_number(digits).map(Some),
    };
    let small = |column| number(column)?.map(u16::try_from).transpose().map_err(|_| Invalid::WrongType);
    let (source_bytes, destination_bytes) = match log {
        Log::Http => (Column::RequestBytes, Column::ResponseBytes),
        _ => (Column::SourceBytes, Column::DestinationBytes),
    };
    let start = match get(Column::Time) {
        "" => return Err(Invalid::MissingField),
        time if time.contains('T') => rfc3339(time)?,
        time => epoch(time, 0)?,
    };
    let success = match get(if log == Log::Ssh { Column::AuthSuccess } else { Column::Established }) {
        "" => None,
        "T" => Some(true),
        "F" => Some(false),
        _ => return Err(Invalid::WrongType),
    };
    Ok(Entry {
        start,
        uid: get(Column::Uid),
        source: get(Column::Source),
        source_port: small(Column::SourcePort)?.unwrap_or_default(),
        destination: get(Column::Destination),
        destination_port: small(Column::DestinationPort)?.unwrap_or_default(),
        proto: get(Column::Proto),
        service: get(Column::Service),
        duration: seconds(get(Column::Duration))?,
        source_bytes: number(source_bytes)?,
        destination_bytes: number(destination_bytes)?,
        state: get(Column::State),
        trans_depth: number(Column::TransDepth)?,
        method: get(Column::Method),
        host: get(Column::Host),
        uri: get(Column::Uri),
        status: small(Column::Status)?,
        version: get(Column::Version),
        server_name: get(Column::ServerName),
        success,
        certificate: get(Column::Certificates).split(',').next().unwrap_or_default(),
        ja3: get(Column::Ja3),
        ja4: get(Column::Ja4),
    })
}
