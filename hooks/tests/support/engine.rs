//! The engine, in this process, or in one that is killed in the middle.

use std::{
    env,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use prometheus::Registry;
use qualm_hooks::{
    config::HookConfig,
    effect::{State, Stored},
    engine::{Hooks, Setting},
    ledger::Told,
    metrics::HookMetrics,
    order::Order,
    policy::ResponseConfig,
};
use qualm_model::time::Clock;

use super::{PATIENCE, now, until};

/// By this a child knows what to do.
const CHILD: &str = "QUALM_HOOKS_CHILD";

/// A running engine.
pub struct Running {
    pub hooks: Hooks,
    pub told: Arc<Mutex<Vec<Told>>>,
}

impl Running {
    /// Starts one in `folder`.
    pub fn start(folder: &Path, hooks: &[HookConfig]) -> Self {
        let told = Arc::<Mutex<Vec<Told>>>::default();
        let hears = Arc::clone(&told);
        let setting = || Setting {
            clock: Clock::new(now),
            jitter: Box::new(|| 0.5),
            told: {
                let hears = Arc::clone(&hears);
                Box::new(move |told| hears.lock().unwrap().push(told))
            },
            policy_told: Box::new(|_| {}),
            metrics: HookMetrics::register(&Registry::new()).unwrap(),
        };
        // One that was stopped or killed lets go of its file a little later.
        let hooks =
            until("the outbox is free", || Hooks::start(hooks, &ResponseConfig::default(), folder, setting()).ok());
        Self { hooks, told }
    }

    /// The only effect, once it is in one of these states.
    pub fn comes_to(&self, states: &[&str]) -> Stored {
        let begun = Instant::now();
        loop {
            let effects = self.hooks.view().effects;
            if let Some(found) = effects.iter().find(|effect| states.contains(&effect.state.as_str())) {
                return found.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "no effect is {states:?} within {PATIENCE:?}: {effects:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn stop(self) {
        self.hooks.stop();
    }

    /// What it was, in its order, with how long each took that was measured.
    pub fn states(&self) -> Vec<&'static str> {
        self.told.lock().unwrap().iter().map(|told| told.state).collect()
    }

    /// Milliseconds from call to effect, as they were told.
    pub fn took_ms(&self) -> Option<u64> {
        self.told.lock().unwrap().iter().rev().find_map(|told| told.took_ms)
    }
}

/// Whether nothing of it can be in effect any more.
pub fn is_over(effect: &Stored) -> bool {
    matches!(effect.state, State::Ended(_))
}

/// Runs an engine with one order in a process of its own, until it is killed. The test binary has a test `child` that
/// calls [`run_child`].
pub struct Killable(Child);

impl Killable {
    pub fn start(folder: &Path, hooks: &[HookConfig], orders: &[Order]) -> Self {
        let what = serde_json::json!({ "folder": folder, "hooks": hooks, "orders": orders });
        let child = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture"])
            .env(CHILD, what.to_string())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a child does: it never ends by itself.
pub fn run_child() {
    let Ok(what) = env::var(CHILD) else { return };
    let what: serde_json::Value = serde_json::from_str(&what).unwrap();
    let folder = what["folder"].as_str().unwrap();
    let hooks: Vec<HookConfig> = serde_json::from_value(what["hooks"].clone()).unwrap();
    let orders: Vec<Order> = serde_json::from_value(what["orders"].clone()).unwrap();
    let running = Running::start(Path::new(folder), &hooks);
    running.hooks.orders(orders);
    // Its parent may have died first.
    std::thread::sleep(PATIENCE * 2);
}
