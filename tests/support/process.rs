//! A process of a test: it never outlives the test, and its output is kept for the day it fails.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::wait::{PATIENCE, until};

/// Lines of a process's output shown when its test fails.
const SHOWN: usize = 60;

pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Dropped with us: ends the thread that spawned the child.
    _spawner: mpsc::Sender<()>,
}

impl Process {
    /// Starts `command`; stdout and stderr go to `log`, after what an earlier process of that name wrote there.
    pub(crate) fn spawn(name: &str, mut command: Command, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).expect("the log's folder exists");
        let errors = output.try_clone().expect("a file handle can be doubled");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);

        // A parent-death signal (ours, and the one this Envoy sets itself) is bound to the spawning *thread*: give the
        // child one that lives exactly as long as this value.
        let (spawner, until_dropped) = mpsc::channel::<()>();
        let (started, child) = mpsc::channel();
        thread::Builder::new()
            .name(format!("spawner of {name}"))
            .spawn(move || {
                let _ = started.send(command.spawn());
                let _ = until_dropped.recv();
            })
            .expect("a thread can be started");
        let child = child.recv().expect("the spawner answers").unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), _spawner: spawner }
    }

    /// A command that the kernel kills when the thread that spawned it dies, where `setpriv` (util-linux) is there.
    pub(crate) fn command(program: &Path) -> Command {
        let setpriv = Path::new("/usr/bin/setpriv");
        if !setpriv.exists() {
            return Command::new(program);
        }
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be asked")
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if self.ended().is_none() {
            self.child.kill().expect("our own child can be killed");
            self.child.wait().expect("our own child can be waited for");
        }
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        if self.ended().is_none() {
            self.signal("TERM");
        }
        until(&format!("{} ends after SIGTERM", self.name.clone()), PATIENCE, || self.ended())
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, "--", &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{} takes SIG{signal}", self.name);
    }

    /// Waits until `holds`; fails at once, with the log, when the process ends first.
    pub(crate) fn wait_until(&mut self, what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
        until(&format!("{} {what}", self.name.clone()), limit, || {
            if let Some(status) = self.ended() {
                panic!("{} ended ({status}) before it {what}", self.name);
            }
            holds().then_some(())
        });
    }

    /// Everything it has written so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let output = self.output();
            let lines: Vec<_> = output.lines().collect();
            let tail = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("---- last lines of {} ----\n{}", self.name, tail.join("\n"));
        }
    }
}
