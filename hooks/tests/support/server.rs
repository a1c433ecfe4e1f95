//! An HTTP server that records what it is asked, and answers, hangs or talks garbage as it is told.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    Status(u16, String),
    /// With a header.
    Header(u16, &'static str, String),
    /// Nothing, for as long as the other waits.
    Hang,
    /// What is no HTTP.
    Garbage,
}

pub fn ok(body: impl Into<String>) -> Reply {
    Reply::Status(200, body.into())
}

pub fn status(status: u16) -> Reply {
    Reply::Status(status, "{}".to_owned())
}

/// The server; it ends with the process.
pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts one. `answer` is given the request and how many came before it.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, answer) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::new(answer));
        let record = Arc::clone(&seen);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
                thread::spawn(move || serve(connection, &record, answer.as_ref()));
            }
        });
        Self { url, seen }
    }

    /// Everything that was asked.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Everything that was asked by a method.
    pub fn asked(&self, method: &str) -> Vec<Request> {
        self.seen().into_iter().filter(|request| request.method == method).collect()
    }
}

fn serve(
    connection: TcpStream,
    record: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request, usize) -> Reply + Send + Sync),
) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut connection = connection;
    loop {
        let request = read(&mut reader)?;
        let before = {
            let mut record = record.lock().unwrap();
            record.push(request.clone());
            record.len() - 1
        };
        let (status, header, body) = match answer(&request, before) {
            Reply::Status(status, body) => (status, String::new(), body),
            Reply::Header(status, name, value) => (status, format!("{name}: {value}\r\n"), String::new()),
            Reply::Garbage => {
                connection.write_all(b"\x00\xff what is this\r\n\r\n").ok()?;
                return None;
            }
            Reply::Hang => {
                // Until the other has had enough.
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest).ok()?;
                return None;
            }
        };
        let length =
            if status == 204 || status == 304 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let body = if length.is_empty() { String::new() } else { body };
        connection.write_all(format!("HTTP/1.1 {status} X\r\n{header}{length}\r\n{body}").as_bytes()).ok()?;
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body: String::from_utf8(body).ok()? })
}
