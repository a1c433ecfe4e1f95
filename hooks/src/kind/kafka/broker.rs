//! Brokers over TLS: a connection a call, as calls are a few a minute and certificates are renewed.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs as _},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};
use rustls_pki_types::ServerName;

use super::{
    KafkaConfig,
    wire::{Answered, Refusal, Request, answer_to},
};
use crate::{hook::Failure, pem};

/// Bytes of one answer.
const LARGEST_ANSWER: usize = 4 << 20;
/// The number of a request; each has a connection of its own.
const CORRELATION: i32 = 1;

/// A cluster that is asked. Blocks while it is.
#[derive(Debug)]
pub(super) struct Brokers {
    addresses: Vec<String>,
    roots: Option<PathBuf>,
    certificate: PathBuf,
    key: PathBuf,
    patience: Duration,
}

impl Brokers {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// Which key is wrong, and why.
    pub(super) fn new(of: &KafkaConfig, patience: Duration) -> Result<Self, String> {
        let is_address = |address: &String| {
            let parts = address.rsplit_once(':');
            parts.is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok())
        };
        if !(1..=16).contains(&of.brokers.len()) || !of.brokers.iter().all(is_address) {
            return Err("brokers: 1 to 16 hosts with their ports, as kafka:9093".to_owned());
        }
        let files = [("certificate", &of.certificate), ("key", &of.key)];
        if let Some((key, _)) = files.iter().find(|(_, file)| file.as_os_str().is_empty()) {
            return Err(format!("{key}: a PEM file is needed"));
        }
        Ok(Self {
            addresses: of.brokers.clone(),
            roots: of.ca_file.clone(),
            certificate: of.certificate.clone(),
            key: of.key.clone(),
            patience,
        })
    }

    /// Its addresses.
    pub(super) fn named(&self) -> String {
        self.addresses.join(",")
    }

    /// Asks the first broker that can be reached.
    ///
    /// # Errors
    /// A file cannot be used, or no connection (`Again`); no answer (`Uncertain`); what the broker refuses.
    pub(super) fn call<T>(&self, request: &Request, read: fn(&[u8]) -> Answered<T>) -> Result<T, Failure> {
        // Files that are being renewed may not fit each other for a moment.
        let tls = self.tls().map_err(|why| Failure::again(format!("{why}; it is read anew with every call")))?;
        let tls = Arc::new(tls);
        let mut unreached = Vec::new();
        for address in &self.addresses {
            let until = Instant::now() + self.patience;
            let mut stream = match connect(address, Arc::clone(&tls), until) {
                Ok(stream) => stream,
                Err(error) => {
                    unreached.push(format!("{address}: {error}"));
                    continue;
                }
            };
            let silent = |error: io::Error| Failure::Uncertain(format!("{address}: no answer: {error}"));
            let frame = exchange(&mut stream, request).map_err(silent)?;
            let answer = answer_to(CORRELATION, &frame).and_then(read);
            return match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(refusal)) => Err(refused(address, &refusal)),
                Err(malformed) => Err(Failure::Uncertain(format!("{address} gives {malformed}"))),
            };
        }
        let why = "is it a TLS listener, by a root of ca_file, and does it know our certificate?";
        Err(Failure::again(format!("no broker can be reached: {}; {why}", unreached.join(", "))))
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        let roots = match &self.roots {
            Some(file) => pem::roots("ca_file", file)?,
            None => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        if roots.is_empty() {
            return Err("ca_file: the system has no roots; name a PEM file".to_owned());
        }
        let chain = pem::certificates("certificate", &self.certificate)?;
        let key = pem::private_key("key", &self.key)?;
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("key: {}: {error}", self.key.display()))
    }
}

type Stream = StreamOwned<ClientConnection, Bounded>;

/// Connects, and shakes hands: what fails so far has told nobody anything.
fn connect(address: &str, tls: Arc<ClientConfig>, until: Instant) -> io::Result<Stream> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for place in address.to_socket_addrs()? {
        let connected = left(until).and_then(|left| TcpStream::connect_timeout(&place, left));
        match connected {
            Ok(stream) => {
                let connection = ClientConnection::new(tls, name).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(connection, Bounded { stream, until });
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(stream: &mut Stream, request: &Request) -> io::Result<Vec<u8>> {
    stream.write_all(&request.framed(CORRELATION))?;
    stream.flush()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LARGEST_ANSWER {
        return Err(io::Error::other(format!("it has {length} bytes, at most {LARGEST_ANSWER} are read")));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

/// A connection that ends at a time, however slowly the other writes.
#[derive(Debug)]
struct Bounded {
    stream: TcpStream,
    until: Instant,
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.until)?))?;
        self.stream.read(buffer)
    }
}

impl Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.until)?))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What a broker's code means for whoever asked.
fn refused(address: &str, refusal: &Refusal) -> Failure {
    let Refusal { code, words } = refusal;
    let why = format!("{address} answers {code}: {words}");
    match code {
        // Requests that took too long, brokers that are starting or are not the controller any more.
        -1 | 7 | 8 | 15 | 41 => Failure::again(why),
        29 | 31 => Failure::Refused(format!("{why}; see the rights that docs/hooks.md names")),
        54 => Failure::Refused(format!("{why}; the brokers have no authorizer, and deny nobody anything")),
        _ => Failure::Refused(why),
    }
}
