//! The product itself as a process: `qualm run` with a config of the test's own.

use std::{
    fs,
    io::{self, BufReader, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    caller::{Response, read_response},
    process::Process,
    wait::PATIENCE,
};

pub(crate) struct Qualm {
    folder: PathBuf,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    http: u16,
    process: Process,
}

impl Qualm {
    /// Writes `config` to `qualm.toml` under `folder`, starts `qualm run` there and waits until `/readyz` answers 200
    /// on port `http`.
    pub(crate) fn start(folder: &Path, config: &str, http: u16) -> Self {
        let folder = folder.join("qualm");
        fs::create_dir_all(&folder).expect("the test's folder can be written to");
        fs::write(folder.join("qualm.toml"), config).expect("the test's folder can be written to");
        let process = spawn(&folder);
        let mut qualm = Self { folder, http, process };
        qualm.wait_until_ready();
        qualm
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub(crate) fn stop(&mut self) {
        let status = self.process.terminate();
        assert!(status.success(), "a stop that was asked for is not an error: {status}");
    }

    /// Starts it again with the same config and whatever state lies in its folder.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(&self.folder);
        self.wait_until_ready();
    }

    /// Asks it to read its config again (SIGHUP).
    pub(crate) fn reload(&self, config: &str) {
        fs::write(self.folder.join("qualm.toml"), config).expect("the test's folder can be written to");
        self.process.signal("HUP");
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// stdout and stderr of all its lives.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// GETs a page of its own HTTP server.
    pub(crate) fn page(&self, path: &str) -> io::Result<Response> {
        page(self.http, path)
    }

    /// The value of a metric's sample, `name` or `name{label="value"}` as on the page.
    pub(crate) fn metric(&self, sample: &str) -> Option<f64> {
        let page = self.page("/metrics").ok()?;
        page.body.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until `holds`; fails at once, with its output, when it ends first.
    pub(crate) fn wait_until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        self.process.wait_until(what, PATIENCE, &mut holds);
    }

    fn wait_until_ready(&mut self) {
        let http = self.http;
        self.process.wait_until("is ready", PATIENCE, || page(http, "/readyz").is_ok_and(|page| page.status == 200));
    }
}

fn spawn(folder: &Path) -> Process {
    let mut command = Process::command(Path::new(env!("CARGO_BIN_EXE_qualm")));
    command.args(["run", "--config", "qualm.toml"]).current_dir(folder).env("RUST_BACKTRACE", "1");
    Process::spawn("qualm", command, &folder.join("qualm.log"))
}

/// GETs a page over plain HTTP from `port` of 127.0.0.1.
pub(crate) fn page(port: u16, path: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").as_bytes())?;
    read_response(&mut BufReader::new(stream))
}
