//! Lines of JSON: one object a line, absent fields left out.

use std::borrow::Cow;

use qualm_model::time::Timestamp;
use serde::Deserialize;

use super::{Entry, Log, Texts, span};
use crate::{
    parse::{
        Row,
        number::{self, Whole},
        time::{epoch, rfc3339, sensible},
        typed,
    },
    source::{Invalid, Rejection},
};

/// Reads Zeek's JSON.
#[derive(Debug, Default)]
pub struct ZeekJson {
    texts: Texts,
}

type Text<'a> = Option<Cow<'a, str>>;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, rename = "_path")]
    path: Text<'a>,
    #[serde(borrow)]
    ts: Option<Time<'a>>,
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow, rename = "id.orig_h")]
    source: Text<'a>,
    #[serde(rename = "id.orig_p")]
    source_port: Option<u16>,
    #[serde(borrow, rename = "id.resp_h")]
    destination: Text<'a>,
    #[serde(rename = "id.resp_p")]
    destination_port: Option<u16>,
    #[serde(borrow)]
    proto: Text<'a>,
    #[serde(borrow)]
    service: Text<'a>,
    duration: Option<f64>,
    orig_bytes: Option<u64>,
    resp_bytes: Option<u64>,
    request_body_len: Option<u64>,
    response_body_len: Option<u64>,
    #[serde(borrow)]
    conn_state: Text<'a>,
    trans_depth: Option<u64>,
    #[serde(borrow)]
    method: Text<'a>,
    #[serde(borrow)]
    host: Text<'a>,
    #[serde(borrow)]
    uri: Text<'a>,
    #[serde(borrow)]
    status_code: Option<Whole<'a>>,
    #[serde(borrow)]
    server_name: Text<'a>,
    #[serde(borrow)]
    cipher: Text<'a>,
    #[serde(borrow)]
    version: Option<Version<'a>>,
    established: Option<bool>,
    auth_success: Option<bool>,
    auth_attempts: Option<u64>,
    #[serde(borrow)]
    client_cert_chain_fps: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    ja3: Text<'a>,
    #[serde(borrow)]
    ja4: Text<'a>,
}

/// Seconds since 1970, or as `LogAscii::json_timestamps` has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time<'a> {
    Number(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

/// `"TLSv12"` of TLS, `2` of SSH.
#[derive(Deserialize)]
#[serde(untagged)]
enum Version<'a> {
    Number(#[expect(dead_code, reason = "of SSH; only that it may be a number counts")] u64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl ZeekJson {
    /// Reads one line. JSON without `id.orig_h` is no log of connections.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        if memchr::memmem::find(line.as_bytes(), b"\"id.orig_h\"").is_none() {
            return Err(Rejection::Foreign);
        }
        let line: Line<'_> = typed::object(line)?;
        let log = line.log().ok_or(Rejection::Foreign)?;
        line.entry(log)?.push(log, &mut self.texts, row)
    }
}

impl Line<'_> {
    fn log(&self) -> Option<Log> {
        if let Some(path) = &self.path {
            return Log::of_path(path);
        }
        let signs = [
            (Log::Conn, self.conn_state.is_some()),
            (Log::Http, self.trans_depth.is_some() && (self.method.is_some() || self.status_code.is_some())),
            (Log::Ssh, self.auth_attempts.is_some() || self.auth_success.is_some()),
            (Log::Ssl, self.established.is_some() || self.cipher.is_some()),
        ];
        signs.into_iter().find(|(_, is_there)| *is_there).map(|(log, _)| log)
    }

    fn entry(&self, log: Log) -> Result<Entry<'_>, Invalid> {
        let chain = self.client_cert_chain_fps.as_deref().unwrap_or_default();
        Ok(Entry {
            start: self.ts.as_ref().ok_or(Invalid::MissingField)?.instant()?,
            uid: text(&self.uid),
            source: text(&self.source),
            source_port: self.source_port.unwrap_or_default(),
            destination: text(&self.destination),
            destination_port: self.destination_port.unwrap_or_default(),
            proto: text(&self.proto),
            service: text(&self.service),
            duration: self.duration.map(span).transpose()?,
            source_bytes: self.orig_bytes.or(self.request_body_len),
            destination_bytes: self.resp_bytes.or(self.response_body_len),
            state: text(&self.conn_state),
            trans_depth: self.trans_depth,
            method: text(&self.method),
            host: text(&self.host),
            uri: text(&self.uri),
            status: number::status(self.status_code.as_ref())?,
            version: match &self.version {
                Some(Version::Text(version)) => version,
                _ => "",
            },
            server_name: text(&self.server_name),
            success: if log == Log::Ssh { self.auth_success } else { self.established },
            certificate: chain.first().map_or("", AsRef::as_ref),
            ja3: text(&self.ja3),
            ja4: text(&self.ja4),
        })
    }
}

impl Time<'_> {
    fn instant(&self) -> Result<Timestamp, Invalid> {
        match self {
            // Zeek's clock has microseconds; a double holds them for centuries.
            Self::Number(seconds) => sensible((seconds * 1e6).round() as i128 * 1000),
            Self::Text(text) if text.contains('T') => rfc3339(text),
            Self::Text(text) => epoch(text, 0),
        }
    }
}

fn text<'a>(field: &'a Text<'_>) -> &'a str {
    field.as_deref().filter(|text| *text != "-").unwrap_or_default()
}
