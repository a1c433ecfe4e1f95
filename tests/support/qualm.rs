//! The product itself as a process: `qualm run` with a config of the test's own.

use std::{
    fs,
    io::{self, BufReader, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
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
    /// [Launches](Self::launch) it and waits until `/readyz` answers 200.
    pub(crate) fn start(folder: &Path, config: &str, http: u16) -> Self {
        let mut qualm = Self::launch(folder, config, http);
        qualm.wait_until_ready();
        qualm
    }

    /// Writes `config` to `qualm.toml` under `folder` and starts `qualm run` there; `http` is the port of its pages.
    pub(crate) fn launch(folder: &Path, config: &str, http: u16) -> Self {
        let folder = folder.join("qualm");
        fs::create_dir_all(&folder).expect("the test's folder can be written to");
        fs::write(folder.join("qualm.toml"), config).expect("the test's folder can be written to");
        let process = spawn(&folder);
        Self { folder, http, process }
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

    /// Starts it again with the same config and whatever state lies in its folder, and waits until it is ready.
    pub(crate) fn start_again(&mut self) {
        self.launch_again();
        self.wait_until_ready();
    }

    /// Starts it again.
    pub(crate) fn launch_again(&mut self) {
        self.process = spawn(&self.folder);
    }

    /// Asks it to read its config again (SIGHUP).
    pub(crate) fn reload(&self, config: &str) {
        fs::write(self.folder.join("qualm.toml"), config).expect("the test's folder can be written to");
        self.process.signal("HUP");
    }

    /// The port of its pages.
    pub(crate) fn http(&self) -> u16 {
        self.http
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
        self::sample(self.http, sample)
    }

    /// `promtool check metrics` accepts its page as it is now; nothing is asked where there is no promtool.
    pub(crate) fn check_metrics(&self) {
        let Some(promtool) = super::parts::promtool() else { return };
        let page = self.page("/metrics").expect("the page is served").body;
        let mut command = std::process::Command::new(promtool);
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut checker = command.spawn().expect("promtool can be started");
        checker.stdin.take().expect("it is piped").write_all(page.as_bytes()).expect("promtool reads it all");
        let output = checker.wait_with_output().expect("promtool ends");
        assert!(output.status.success(), "{}\n{page}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits until `holds`; fails at once, with its output, when it ends first.
    pub(crate) fn wait_until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        self.process.wait_until(what, PATIENCE, &mut holds);
    }

    /// Waits until a snapshot is written that was begun after now.
    pub(crate) fn wait_until_next_snapshot(&mut self) {
        let http = self.http;
        let written = || sample(http, "qualm_snapshots_total").unwrap_or(0.0);
        // The next one may have been on its way already.
        let enough = written() + 2.0;
        self.process.wait_until("writes a snapshot", PATIENCE, || written() >= enough);
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits until its pages are served: it is alive, and may still read its past.
    pub(crate) fn wait_until_pages(&mut self) {
        let http = self.http;
        self.process.wait_until("serves its pages", PATIENCE, || page(http, "/healthz").is_ok());
    }

    pub(crate) fn wait_until_ready(&mut self) {
        let http = self.http;
        self.process.wait_until("is ready", PATIENCE, || page(http, "/readyz").is_ok_and(|page| page.status == 200));
    }
}

/// The value of a sample on the page of metrics at `http`.
pub(crate) fn sample(http: u16, name: &str) -> Option<f64> {
    let page = page(http, "/metrics").ok()?;
    page.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn spawn(folder: &Path) -> Process {
    let mut command = Process::command(Path::new(env!("CARGO_BIN_EXE_qualm")));
    command.args(["run", "--config", "qualm.toml"]).current_dir(folder).env("RUST_BACKTRACE", "1");
    Process::spawn("qualm", command, &folder.join("qualm.log"))
}

/// What `qualm check` says of the configuration under `folder`, and of the state that it names.
pub(crate) fn check(folder: &Path) -> String {
    asked(folder, &["check"])
}

/// What `qualm explain` says of an identity, by the state under `folder`.
pub(crate) fn explain(folder: &Path, identity: &str) -> String {
    asked(folder, &["explain", identity])
}

/// Every record of its journal as a line of JSON.
pub(crate) fn journal(folder: &Path) -> String {
    told(folder, &["journal", "export", "state/journal"])
}

fn asked(folder: &Path, arguments: &[&str]) -> String {
    told(folder, &[arguments, &["--config", "qualm.toml"]].concat())
}

fn told(folder: &Path, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_qualm"));
    command.args(arguments).current_dir(folder);
    let output = command.output().expect("the product can be started");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// GETs a page over plain HTTP from `port` of 127.0.0.1.
pub(crate) fn page(port: u16, path: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").as_bytes())?;
    read_response(&mut BufReader::new(stream))
}
