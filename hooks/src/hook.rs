//! A hook: how one system is asked to revoke, and how that is undone.
//!
//! A hook blocks while it asks; it runs on a thread of its own. It keeps nothing: what must survive is what
//! [`Hook::read`] returns, which the outbox has on disk before [`Hook::act`] is called.

use qualm_model::time::Timestamp;
use serde_json::Value;

use crate::order::Order;

/// How one system revokes.
pub trait Hook: Send {
    /// What kind of hook it is, for everybody to know before it acts.
    fn nature(&self) -> Nature;

    /// Looks for what an order is about, and how it is now. Changes nothing.
    ///
    /// # Errors
    /// There was no answer that could be understood.
    fn read(&mut self, order: &Order) -> Result<Found, Failure>;

    /// Brings the effect about. Called again under the same key after a failure, where it may already be in effect.
    ///
    /// # Errors
    /// It is not known to be in effect.
    fn act(&mut self, order: &Order, before: &Value, call: &Call) -> Result<(), Failure>;

    /// Whether it is in effect.
    ///
    /// # Errors
    /// There was no answer that could be understood.
    fn look(&mut self, order: &Order, before: &Value) -> Result<Effect, Failure>;

    /// Puts back what was before, exactly. Called again after a failure.
    ///
    /// # Errors
    /// It is not known to be undone.
    fn undo(&mut self, order: &Order, before: &Value, call: &Call) -> Result<Undone, Failure>;

    /// Asks whether it would be allowed to do all this. Changes nothing; says what it found.
    ///
    /// # Errors
    /// It cannot be reached, or may not, and the remedy.
    fn probe(&mut self) -> Result<String, Failure>;

    /// What survives the effect, and until when, as far as it is known.
    fn survives(&self, order: &Order, before: &Value) -> String;
}

/// What kind of hook it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// From the call to the first denial, as it was measured on the real system; hooks act in this order, fastest first.
    pub latency_ms: u32,
    /// What it cuts.
    pub cuts: &'static str,
    /// Whether it can tell instances of one principal apart.
    pub reach: Reach,
    /// Whether it can be undone.
    pub way_back: WayBack,
    /// What may be done when it is not known whether a call has arrived.
    pub repeat: Repeat,
    /// What is done when the effect has gone by itself.
    pub when_gone: WhenGone,
}

/// Whom an act is about at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All instances of the principal, and all workloads that share it.
    Principal,
    /// One instance, where one is meant.
    Instance,
}

/// Whether an act can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayBack {
    /// Exactly as it was.
    Exact,
    /// Not by Qualm: it needs approval, always.
    None,
}

/// What may be done when it is not known whether a call has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It may be made again: it says how things are to be, or the called knows its key.
    Safe,
    /// It is reported, and a person looks.
    Never,
}

/// What is done when an effect has gone without Qualm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenGone {
    /// The called has lost it, as it does with a restart: it is told again. Looked for every so many seconds.
    TellAgain(u16),
    /// Somebody has taken it back: Qualm says so and does not fight. Looked for every so many seconds.
    Say(u16),
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Something to act on.
    Target {
        /// Its name at the called, the same for every order that means it.
        name: String,
        /// How it is, and everything that undoing needs.
        before: Value,
    },
    /// Nothing, and why.
    Nothing(String),
}

/// Whether something is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It is.
    InPlace,
    /// It is not; things are as they were, or as somebody else has left them.
    Absent,
    /// It is where it was brought about, and something that came later is not covered: it is brought about there too.
    Partial,
    /// The called cannot be asked.
    Unknown,
}

/// What became of undoing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// It is as it was before.
    Restored,
    /// Nothing was left to undo, and why.
    Nothing(String),
    /// Somebody else has changed it meanwhile: it stays as they left it, and how to undo it by hand.
    Foreign(String),
}

/// What goes with every call.
#[derive(Debug, Clone)]
pub struct Call {
    /// The same for every try of the same act, and of no other.
    pub key: String,
    /// Wall time.
    pub now: Timestamp,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was not done, or may safely be done again.
    #[error("{why}")]
    Again {
        /// What happened, and the remedy.
        why: String,
        /// Seconds that the called asks to be left alone.
        after_s: Option<u64>,
    },
    /// It will be refused again until somebody mends something.
    #[error("{0}")]
    Refused(String),
    /// It is not known whether it was done.
    #[error("{0}")]
    Uncertain(String),
}

impl Failure {
    /// It may be done again.
    pub fn again(why: impl Into<String>) -> Self {
        Self::Again { why: why.into(), after_s: None }
    }
}
