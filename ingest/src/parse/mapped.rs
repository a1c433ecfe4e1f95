//! Any CSV or JSON lines, read as a mapping file says.
//!
//! The operator names the column of the identity and vouches for it: [`Provenance::Declared`].

mod columns;
mod mapping;
mod template;

use std::net::IpAddr;

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party},
    fold,
    identity::Provenance,
    time::{Span, Timestamp},
};

pub use self::mapping::{Field, InvalidMapping, Mapping};
use self::{
    columns::{Cell, Columns},
    mapping::{FIELDS, Layout, TimeFormat},
};
use super::{Row, access::host_and_port, clip, time, url::split_url};
use crate::source::{Invalid, Rejection};

/// A header that lacks a column which the mapping names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header has no column `{column}`, which the mapping names; it has: {found}")]
pub struct InvalidHeader {
    column: String,
    found: String,
}

/// Reads records as a [`Mapping`] says.
#[derive(Debug)]
pub struct Mapped {
    mapping: Mapping,
    columns: Columns,
    header_read: bool,
    built: String,
    cells: [Cell; FIELDS],
    operation: String,
    last_time: (String, Timestamp),
}

impl Mapped {
    /// A reader of records that look as `mapping` says.
    pub fn new(mapping: Mapping) -> Self {
        Self {
            columns: Columns::new(&mapping),
            mapping,
            header_read: false,
            built: String::new(),
            cells: [Cell::Absent; FIELDS],
            operation: String::new(),
            last_time: (String::new(), Timestamp::default()),
        }
    }

    /// What it reads by.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Whether the first line of an input is a header.
    pub fn expects_header(&self) -> bool {
        self.mapping.header
    }

    /// The next line may be a header again.
    pub fn begin_input(&mut self) {
        self.header_read = false;
        self.columns.begin_input();
    }

    /// Whether a line is neither comment nor header; a header is read.
    pub fn is_record(&mut self, line: &[u8]) -> Result<bool, InvalidHeader> {
        if self.mapping.comment.as_ref().is_some_and(|comment| line.starts_with(comment.as_bytes())) {
            return Ok(false);
        }
        if self.header_read || !self.mapping.header {
            return Ok(true);
        }
        self.columns.read_header(&String::from_utf8_lossy(line))?;
        self.header_read = true;
        Ok(false)
    }

    /// Reads one record.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        self.built.clear();
        match self.mapping.layout {
            Layout::Csv => self.columns.read_csv(line, &mut self.built)?,
            Layout::JsonLines => self.columns.read_json(line, &mut self.built)?,
        }
        self.build_fields(line);
        let start = self.time(line)?;
        let operation = self.cells[Field::Operation as usize].text(line, &self.built);
        self.operation.clear();
        match operation.split_once(' ').filter(|(method, _)| method.bytes().all(|c| c.is_ascii_uppercase())) {
            Some((method, path)) => fold::operation(method, path_of(path), &mut self.operation),
            None => fold::append_path(operation, &mut self.operation),
        }
        let fields = Fields { cells: &self.cells, line, built: &self.built };
        row.push(fields.draft(start, &self.operation)?)?;
        self.columns.confirm();
        Ok(())
    }

    /// Fills the templates; those of one reference borrow.
    fn build_fields(&mut self, line: &str) {
        for (field, template) in self.mapping.fields.iter().enumerate() {
            self.cells[field] = match template {
                None => Cell::Absent,
                Some(template) => template.fill(line, self.columns.cells(), &mut self.built),
            };
        }
    }

    fn time(&mut self, line: &str) -> Result<Timestamp, Rejection> {
        let text = self.columns.cells()[self.mapping.time].text(line, &self.built);
        if text.is_empty() {
            return Err(Invalid::MissingField.into());
        }
        // Many records of one minute have one text.
        if text == self.last_time.0 {
            return Ok(self.last_time.1);
        }
        let time = match &self.mapping.time_format {
            TimeFormat::Epoch { digits } => time::epoch(text, *digits)?,
            TimeFormat::Rfc3339 => time::rfc3339(text)?,
            TimeFormat::Strptime { format, zone } => strptime(format, zone, text)?,
        };
        self.last_time.0.clear();
        self.last_time.0.push_str(text);
        self.last_time.1 = time;
        Ok(time)
    }
}

/// A local time in `zone`, or one with an offset of its own.
fn strptime(format: &str, zone: &jiff::tz::TimeZone, text: &str) -> Result<Timestamp, Invalid> {
    let looks_like_a_date = text.bytes().any(|c| c.is_ascii_digit());
    let wrong = if looks_like_a_date { Invalid::ImpossibleTime } else { Invalid::WrongType };
    let parts = jiff::fmt::strtime::parse(format, text).map_err(|_| wrong)?;
    if let Ok(time) = parts.to_timestamp() {
        return time::sensible(time.as_nanosecond());
    }
    let civil = parts.to_datetime().map_err(|_| wrong)?;
    let zoned = civil.to_zoned(zone.clone()).map_err(|_| Invalid::ImpossibleTime)?;
    time::sensible(zoned.timestamp().as_nanosecond())
}

/// The path of a request line: `/x HTTP/1.1` and `https://orders.shop:443/x HTTP/2.0` are `/x`.
fn path_of(target: &str) -> &str {
    let target = target.rsplit_once(" HTTP/").map_or(target, |(target, _)| target);
    split_url(target).1
}

/// The address in `192.0.2.7:2817`, whose port is another for every call, and the port. Another text is as it is.
fn address_of(text: &str) -> (&str, u16) {
    if !text.contains(':') {
        return (text, 0);
    }
    match host_and_port(text) {
        (host, port) if port > 0 && host.parse::<IpAddr>().is_ok() => (host, port),
        _ => (text, 0),
    }
}

struct Fields<'a> {
    cells: &'a [Cell; FIELDS],
    line: &'a str,
    built: &'a str,
}

impl<'a> Fields<'a> {
    fn text(&self, field: Field) -> &'a str {
        self.cells[field as usize].text(self.line, self.built)
    }

    fn number<T: std::str::FromStr>(&self, field: Field) -> Result<Option<T>, Invalid> {
        let text = self.text(field);
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| Invalid::WrongType) }
    }

    fn kind(&self) -> Result<Kind, Invalid> {
        match self.text(Field::Kind) {
            "" | "request" => Ok(Kind::Request),
            "connection" => Ok(Kind::Connection),
            "authentication" => Ok(Kind::Authentication),
            _ => Err(Invalid::WrongType),
        }
    }

    fn outcome(&self, status: Option<u16>) -> Result<Outcome, Invalid> {
        match self.text(Field::Outcome) {
            "" => Ok(status.map_or(Outcome::Unknown, |status| Outcome::of_http(status, None))),
            "success" => Ok(Outcome::Success),
            "failure" => Ok(Outcome::Failure),
            "refused" => Ok(Outcome::Refused),
            "unknown" => Ok(Outcome::Unknown),
            _ => Err(Invalid::WrongType),
        }
    }

    fn duration(&self) -> Result<Option<Span>, Invalid> {
        let Some(seconds) = self.number::<f64>(Field::DurationS)? else { return Ok(None) };
        if !(0.0..=1e9).contains(&seconds) {
            return Err(Invalid::WrongType);
        }
        Ok(Some(Span((seconds * 1e9).round() as i64)))
    }

    fn draft(&self, start: Timestamp, operation: &'a str) -> Result<EventDraft<'a>, Invalid> {
        let status = self.number(Field::Status)?;
        let duration = self.duration()?;
        let (source_ip, source_port) = address_of(self.text(Field::SourceIp));
        let (destination_ip, destination_port) = address_of(self.text(Field::DestinationIp));
        let party = |principal, ip, port| Party {
            principal: address_of(principal).0,
            ip,
            port,
            provenance: Provenance::Declared,
            ..Party::default()
        };
        Ok(EventDraft {
            start,
            report: start + duration.unwrap_or_default(),
            kind: self.kind()?,
            record_id: clip(self.text(Field::RecordId)),
            source: party(self.text(Field::Source), source_ip, source_port),
            destination: party(
                self.text(Field::Destination),
                destination_ip,
                self.number(Field::DestinationPort)?.unwrap_or(destination_port),
            ),
            operation,
            status,
            outcome: self.outcome(status)?,
            bytes_in: self.number(Field::BytesIn)?,
            bytes_out: self.number(Field::BytesOut)?,
            duration_ns: duration.map(|duration| duration.0),
            credential: clip(self.text(Field::Credential)),
            auth_method: clip(self.text(Field::AuthMethod)),
            ..EventDraft::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, Position};

    use super::*;

    const CSV: &str = r#"
        format = "csv"
        header = true
        time = { column = "when", format = "%m/%d/%Y-%H:%M", zone = "UTC" }
        [fields]
        kind = "connection"
        source = "{src}"
        destination = "{dst}:{port}"
        destination_port = "{port}"
        duration_s = "{ms}e-3"
        operation = "{2}"
        outcome = "{result}"
    "#;
    const HEADER: &str = "when,src,what,dst,port,ms,result";

    fn csv(record: &str) -> Result<EventBatch, Rejection> {
        let mut mapped = Mapped::new(CSV.parse().expect("a valid mapping"));
        assert_eq!(mapped.is_record(HEADER.as_bytes()), Ok(false));
        assert_eq!(mapped.is_record(record.as_bytes()), Ok(true));
        let mut builder = EventBuilder::new();
        mapped.parse(record, &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    #[test]
    fn templates_make_fields_of_columns() {
        let batch = csv(r#"06/01/1998-07:55,"cart, the ""big"" one",GET /x/17,db,5432,1500,success"#).expect("event");
        let event = batch.event(0);
        assert_eq!(event.source().principal(), r#"cart, the "big" one"#);
        assert_eq!((event.destination().principal(), event.destination().port()), ("db:5432", 5432));
        assert_eq!((event.operation(), event.outcome()), ("GET /x/{id}", Outcome::Success));
        assert_eq!((event.start().as_seconds(), event.duration_ns()), (896_687_700.0, Some(1_500_000_000)));
        assert_eq!(event.source().provenance(), Provenance::Declared);
    }

    #[test]
    fn a_request_line_is_method_and_path_and_a_port_is_no_part_of_whom() {
        for (operation, folded) in [
            ("GET /x/17?a=1 HTTP/1.1", "GET /x/{id}"),
            ("GET https://orders.shop:443/x/17 HTTP/2.0", "GET /x/{id}"),
            ("GET /x HTTP/17", "GET /x"),
            ("login HTTP/1.1", "login HTTP/1.1"),
        ] {
            let batch = csv(&format!("06/01/1998-07:55,192.0.2.7:2817,{operation},db,5432,,")).expect("an event");
            assert_eq!((batch.event(0).source().principal(), batch.event(0).operation()), ("192.0.2.7", folded));
            // A service and its port may be the operator's own name for it.
            assert_eq!(batch.event(0).destination().principal(), "db:5432");
        }
    }

    #[test]
    fn empty_and_dash_are_absent_and_so_is_a_template_over_them() {
        let batch = csv("06/01/1998-07:55,cart,-,db,,,").expect("an event");
        let event = batch.event(0);
        assert_eq!((event.destination().principal(), event.destination().port()), ("", 0));
        assert_eq!((event.duration_ns(), event.operation(), event.outcome()), (None, "", Outcome::Unknown));
        assert_eq!(csv("06/01/1998-07:55,-,-,db,,,").err(), Some(Invalid::MissingIdentity.into()));
    }

    #[test]
    fn records_that_do_not_fit_are_refused_with_the_reason() {
        for (record, why) in [
            ("07/32/1998-07:55,a,b,c,1,1,success", Invalid::ImpossibleTime),
            ("soon,a,b,c,1,1,success", Invalid::WrongType),
            (",a,b,c,1,1,success", Invalid::MissingField),
            ("06/01/1998-07:55,a,b,c,70000,1,success", Invalid::WrongType),
            ("06/01/1998-07:55,a,b,c,1,-1,success", Invalid::WrongType),
            ("06/01/1998-07:55,a,b,c,1,1,won", Invalid::WrongType),
            ("06/01/1998-07:55,a,b,c,1,1", Invalid::Syntax),
            ("06/01/1998-07:55,a,b,c,1,1,success,more", Invalid::Syntax),
            ("06/01/1998-07:55,\"a,b,c,1,1,success", Invalid::Syntax),
        ] {
            assert_eq!(csv(record).err(), Some(why.into()), "{record}");
        }
    }

    #[test]
    fn a_header_without_a_named_column_is_one_clear_error() {
        let mut mapped = Mapped::new(CSV.parse().expect("a valid mapping"));
        let error = mapped.is_record(b"when,src,dst").expect_err("columns are missing").to_string();
        assert!(error.contains("no column `port`") && error.contains("when, src, dst"), "{error}");
    }

    #[test]
    fn json_paths_lead_into_objects_and_to_keys_with_dots() {
        let mapping: Mapping = r##"
            format = "jsonl"
            comment = "#"
            time = { column = "ts", format = "epoch_s" }
            [fields]
            source = "{id.orig_h}"
            destination = "{who.name}"
            status = "{code}"
        "##
        .parse()
        .expect("a valid mapping");
        let mut mapped = Mapped::new(mapping);
        assert_eq!(mapped.is_record(b"# comment"), Ok(false));
        for line in [
            r#"{"ts":1591367999.430166,"id.orig_h":"10.0.0.7","who":{"x":[{}],"name":"b\u00e9"},"code":403}"#,
            r#"{"id":{"orig_h":"10.0.0.7"},"ts":"1591367999.430166","who":{"name":"bé"},"code":"403","more":null}"#,
        ] {
            let mut builder = EventBuilder::new();
            mapped.parse(line, &mut Row::new(&mut builder, Position::default(), None)).expect("an event");
            let batch = builder.finish();
            let event = batch.event(0);
            assert_eq!((event.source().principal(), event.destination().principal()), ("10.0.0.7", "bé"));
            assert_eq!((event.start().0, event.outcome()), (1_591_367_999_430_166_000, Outcome::Refused));
        }
    }

    #[test]
    fn local_times_are_read_in_their_zone() {
        let mapping = r#"
            format = "csv"
            time = { column = 0, format = "%Y-%m-%d %H:%M:%S", zone = "Europe/Berlin" }
            fields = { source = "{1}" }
        "#;
        let mut mapped = Mapped::new(mapping.parse().expect("a valid mapping"));
        let mut builder = EventBuilder::new();
        let mut row = Row::new(&mut builder, Position::default(), None);
        mapped.parse("2026-07-01 12:00:00,a", &mut row).expect("an event");
        assert_eq!(builder.finish().event(0).start(), Timestamp::from_seconds(1_782_900_000));
    }
}
