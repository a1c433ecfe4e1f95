//! A schema registry for tests: it speaks the documented interface, from what it is told, and notes who asks for what.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary is compiled with all of it and uses a part")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use qualm_ingest::config::RegistryConfig;
use serde_json::{Value, json};

/// What it has, what it was asked, and whether it answers.
#[derive(Debug, Default)]
struct Held {
    answers: Mutex<BTreeMap<String, (u16, String)>>,
    /// Paths, each with the value of `authorization`.
    asked: Mutex<Vec<(String, String)>>,
    is_silent: AtomicBool,
}

#[derive(Debug, Clone)]
pub(crate) struct RecordingRegistry {
    address: SocketAddr,
    scheme: &'static str,
    held: Arc<Held>,
}

impl RecordingRegistry {
    /// One on a port of its own, without TLS.
    pub(crate) fn start() -> Self {
        Self::start_with("http", Ok)
    }

    /// One of which each connection is wrapped first.
    pub(crate) fn start_with<S: Read + Write>(
        scheme: &'static str,
        wrap: impl Fn(TcpStream) -> std::io::Result<S> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, held) = (listener.local_addr().unwrap(), Arc::new(Held::default()));
        let serving = Arc::clone(&held);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if !serving.is_silent.load(Ordering::Relaxed) {
                    // Who goes away in the middle is no matter.
                    let _ = wrap(stream.unwrap()).and_then(|stream| serving.answer(stream));
                }
            }
        });
        Self { address, scheme, held }
    }

    pub(crate) fn config(&self) -> RegistryConfig {
        RegistryConfig { url: format!("{}://{}", self.scheme, self.address), ..RegistryConfig::default() }
    }

    /// Has an answer ready.
    pub(crate) fn say(&self, path: &str, status: u16, body: impl Into<String>) {
        self.held.answers.lock().unwrap().insert(path.to_owned(), (status, body.into()));
    }

    /// Has a schema.
    pub(crate) fn put(&self, id: u32, kind: &str, schema: &str, references: &Value) {
        let body = json!({ "schemaType": kind, "schema": schema, "references": references });
        self.say(&format!("/schemas/ids/{id}"), 200, body.to_string());
    }

    /// Has a version of a subject.
    pub(crate) fn put_version(&self, path: &str, schema: &str, references: &Value) {
        self.say(path, 200, json!({ "schema": schema, "references": references }).to_string());
    }

    /// Lets every question go unanswered, or answers again.
    pub(crate) fn be_silent(&self, is_silent: bool) {
        self.held.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.held.asked.lock().unwrap().clone()
    }
}

impl Held {
    fn answer(&self, mut stream: impl Read + Write) -> std::io::Result<()> {
        let mut reader = BufReader::new(&mut stream);
        let (mut path, mut authorization) = (String::new(), String::new());
        for line in reader.by_ref().lines() {
            let line = line?;
            match line.split_once(' ') {
                Some(("GET", rest)) => path = rest.split(' ').next().unwrap_or_default().to_owned(),
                Some(("authorization:", value)) => authorization = value.to_owned(),
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        self.asked.lock().unwrap().push((path.clone(), authorization));
        let unknown = || (404, json!({ "error_code": 40403, "message": "not found" }).to_string());
        let (status, body) = self.answers.lock().unwrap().get(&path).cloned().unwrap_or_else(unknown);
        let place = if status == 302 { "location: http://127.0.0.1:1/elsewhere\r\n" } else { "" };
        let head = format!("HTTP/1.1 {status} X\r\n{place}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        stream.flush()
    }
}

/// A record with a schema id in front.
pub(crate) fn framed(id: u32, payload: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], payload].concat()
}

/// Envoy's keys as an Avro record.
pub(crate) const ACCESS_AVRO: &str = r#"{"type":"record","name":"Access","fields":[
    {"name":"start_time","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"method","type":["null","string"]},
    {"name":"path","type":"string"},
    {"name":"response_code","type":"int"},
    {"name":"downstream_remote_address","type":"string"}
]}"#;

/// The same as a Protobuf message.
pub(crate) const ACCESS_PROTO: &str = r#"syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Access {
  google.protobuf.Timestamp start_time = 1;
  string method = 2;
  string path = 3;
  int32 response_code = 4;
  string downstream_remote_address = 5;
}"#;

/// The same call as JSON.
pub(crate) const ACCESS_JSON: &str = r#"{"start_time":"2026-11-22T02:02:25.003Z","method":"GET","path":"/PATH","response_code":200,"downstream_remote_address":"10.0.0.7:1"}"#;

/// When it began: seconds, with three milliseconds more.
const BEGUN_S: i64 = 1_795_312_945;

/// The call in Avro.
pub(crate) fn access_avro(path: &str) -> Vec<u8> {
    access_avro_at(BEGUN_S, path)
}

/// The call in Avro, begun at a second of one's own.
pub(crate) fn access_avro_at(begun_s: i64, path: &str) -> Vec<u8> {
    let mut record = Vec::new();
    zigzag(begun_s * 1000 + 3, &mut record);
    zigzag(1, &mut record);
    for text in ["GET", path] {
        avro_text(text, &mut record);
    }
    zigzag(200, &mut record);
    avro_text("10.0.0.7:1", &mut record);
    record
}

/// The call in Protobuf, behind the way to its message.
pub(crate) fn access_proto(path: &str) -> Vec<u8> {
    access_proto_at(BEGUN_S, path)
}

/// The same, begun at a second of one's own.
pub(crate) fn access_proto_at(begun_s: i64, path: &str) -> Vec<u8> {
    let mut record = vec![0];
    let mut time = vec![0x08];
    varint(begun_s.cast_unsigned(), &mut time);
    time.push(0x10);
    varint(3_000_000, &mut time);
    for (tag, bytes) in [(0x0a, time.as_slice()), (0x12, b"GET"), (0x1a, path.as_bytes())] {
        record.extend([tag, u8::try_from(bytes.len()).unwrap()]);
        record.extend(bytes);
    }
    record.push(0x20);
    varint(200, &mut record);
    record.extend([0x2a, 10]);
    record.extend(b"10.0.0.7:1");
    record
}

pub(crate) fn avro_text(text: &str, out: &mut Vec<u8>) {
    zigzag(i64::try_from(text.len()).unwrap(), out);
    out.extend(text.as_bytes());
}

pub(crate) fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}

pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}
