//! Memory as the system counts it.

use std::{env, fs, path::PathBuf, process::Command, thread};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{flood::Flood, state::Shape};

const TASK: &str = "QUALM_MEMORY_TASK";
const ANSWER: &str = "ANSWER: ";

/// What is measured in a process of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Task {
    State { shape: Shape, log: PathBuf },
    Flood(Flood),
}

impl Task {
    fn run(self) -> String {
        match self {
            Self::State { shape, log } => serde_json::to_string(&shape.measure(&log)),
            Self::Flood(flood) => serde_json::to_string(&flood.measure()),
        }
        .unwrap()
    }
}

/// Resident bytes now.
pub(crate) fn resident() -> u64 {
    status("VmRSS:")
}

/// The most that was resident since the last [`forget_peak`].
pub(crate) fn peak() -> u64 {
    status("VmHWM:")
}

/// What is resident now is the peak from here on.
pub(crate) fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Takes what the allocator has of its own, so that what is allocated from here on is taken from the system.
pub(crate) fn fill_what_is_free() -> Vec<Vec<u8>> {
    let sizes = [64 << 10, 16 << 10, 4096, 1024, 256, 64];
    sizes.into_iter().flat_map(|size| (0..(16 << 20) / size).map(move |_| vec![1; size])).collect()
}

/// Runs the task for which this process was started by [`apart`], if it was.
pub(crate) fn run_task() {
    if let Ok(task) = env::var(TASK) {
        println!("{ANSWER}{}", serde_json::from_str::<Task>(&task).unwrap().run());
        std::process::exit(0);
    }
}

/// The answer of `task` from a process in which nothing else has happened: the test that asks, which must begin with
/// [`run_task`], is started again for it.
pub(crate) fn apart<T: DeserializeOwned>(task: &Task) -> T {
    let test = thread::current().name().unwrap().to_owned();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(TASK, serde_json::to_string(task).unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = text.lines().find_map(|line| line.split_once(ANSWER)).map(|(_, answer)| answer);
    let answer = answer.unwrap_or_else(|| panic!("{task:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(answer).unwrap()
}
