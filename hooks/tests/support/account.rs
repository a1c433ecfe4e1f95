//! What is asked of every hook at a real server that has something which works until it is cut: a token, an account.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use qualm_hooks::{config::HookConfig, engine::Verb};
use qualm_model::level::Level;

use super::{
    engine::{Killable, Running},
    order, report, until,
};

/// The folder of an outbox of its own.
pub fn outbox(folder: &Path, of: &str) -> PathBuf {
    let folder = folder.join(of);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// With its order `cart` is cut, with the end of that it works again, as many times; both are measured at the server.
/// `meanwhile` is asked each time while it is cut.
pub fn is_cut_and_given_back(
    running: &Running,
    (system, rounds): (&str, usize),
    works: impl Fn() -> bool,
    meanwhile: impl Fn(),
) {
    assert!(works(), "before any order");
    let (mut cut, mut back) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        running.hooks.orders(vec![order("cart", Level::Quarantined)]);
        until("it is cut", || (!works()).then_some(()));
        cut.push(begun.elapsed());
        meanwhile();
        running.comes_to(&["in effect"]);
        let begun = Instant::now();
        running.hooks.orders(Vec::new());
        until("it works again", || works().then_some(()));
        back.push(begun.elapsed());
        running.comes_to(&["undone"]);
    }
    report(&format!("{system}, order to refused"), cut);
    report(&format!("{system}, end of the order to accepted"), back);
}

/// A process of its own cuts `cart`, and is killed with that standing.
pub fn is_cut_by_one_that_is_killed(folder: &Path, hook: &HookConfig, works: impl Fn() -> bool) {
    let child = Killable::start(folder, std::slice::from_ref(hook), &[order("cart", Level::Quarantined)]);
    until("it is cut", || (!works()).then_some(()));
    child.kill();
}

/// The one who is started on what that has left gives it back, once its order is not told any more.
pub fn is_given_back_by_the_next(folder: &Path, hook: HookConfig, works: impl Fn() -> bool) -> Running {
    let running = Running::start(folder, &[hook]);
    running.hooks.orders(Vec::new());
    until("it works again", || works().then_some(()));
    running.comes_to(&["undone"]);
    running
}

/// A second hook finds it cut by somebody else, and leaves it so.
pub fn what_was_cut_before_stays_so(folder: &Path, hook: HookConfig, works: impl Fn() -> bool) {
    let other = Running::start(folder, &[hook]);
    other.hooks.orders(vec![order("cart", Level::Quarantined)]);
    other.comes_to(&["in effect"]);
    other.hooks.orders(Vec::new());
    assert!(other.comes_to(&["undone"]).problem.unwrap().contains("disabled before"));
    assert!(!works());
    other.stop();
}

/// What waits is approved.
pub fn approve(running: &Running) {
    let waiting = running.comes_to(&["awaiting approval"]);
    let word = ("spiffe://mesh.test/ns/soc/sa/paul".to_owned(), "ticket 42".to_owned());
    running.hooks.word(Verb::Approve, waiting.id, word, |became| drop(became.unwrap()));
}
