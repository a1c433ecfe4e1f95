//! An effect: one hook, one subject, from the order that asks for it to its end.

use qualm_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::order::{Order, Subject};

/// The version of the form in which effects are stored; a newer one is refused.
pub const VERSION: u32 = 1;

/// Which effect: there is one of each hook for each subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The hook's name in the configuration.
    pub hook: String,
    /// Whom it is about.
    pub subject: Subject,
}

impl Key {
    /// The short id by which people name it: of hook, subject and decision, 12 hex digits.
    pub fn id(&self, decision: &str) -> String {
        let subject = self.subject.to_string();
        let mut hash = Sha256::new();
        for part in [self.hook.as_str(), &subject, decision] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        const_hex::encode(&hash.finalize()[..6])
    }
}

/// Where an effect is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for an approver.
    Awaiting,
    /// As many acts as may be were done within the window; it waits.
    Capped,
    /// It is to be read how things are.
    Reading,
    /// How things were is stored; it is to be acted.
    Acting,
    /// It was acted, and seen to be in effect.
    InEffect,
    /// It is to be undone.
    Undoing,
    /// Nothing is done: the hook is in dry run. What would be done is told.
    Dry,
    /// It is over.
    Ended(End),
}

/// How an effect has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The order ended before anything was done.
    Lapsed,
    /// An approver has said no.
    Rejected,
    /// There was nothing to act on.
    NothingThere,
    /// It would have acted on others: the order is about less than the hook can tell apart.
    BeyondScope,
    /// It is not known whether it was done, and must not be done twice: a person has to look.
    Uncertain,
    /// Undone exactly.
    Undone,
    /// Somebody else has changed it meanwhile; it is as they left it.
    Foreign,
    /// It was done and cannot be undone.
    Final,
    /// Another effect on the same thing stands and will undo both.
    HandedOver,
}

impl State {
    /// Its word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Awaiting => "awaiting approval",
            Self::Capped => "waiting: cap reached",
            Self::Reading => "reading",
            Self::Acting => "acting",
            Self::InEffect => "in effect",
            Self::Undoing => "undoing",
            Self::Dry => "dry run",
            Self::Ended(end) => end.as_str(),
        }
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }

    /// Whether something may be changed at the called.
    pub fn may_be_in_effect(&self) -> bool {
        matches!(self, Self::Acting | Self::InEffect | Self::Undoing)
    }
}

impl End {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lapsed => "lapsed",
            Self::Rejected => "rejected",
            Self::NothingThere => "nothing there",
            Self::BeyondScope => "beyond scope",
            Self::Uncertain => "uncertain",
            Self::Undone => "undone",
            Self::Foreign => "changed by others",
            Self::Final => "done, no way back",
            Self::HandedOver => "handed over",
        }
    }
}

/// Who has let it be done, or undone, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// The SPIFFE ID.
    pub by: String,
    /// In their words.
    pub why: String,
    /// When, wall time.
    pub at: Timestamp,
}

/// When what happened, wall time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// First asked for.
    pub wanted: Timestamp,
    /// First sent.
    pub sent: Option<Timestamp>,
    /// Seen to be in effect.
    pub effective: Option<Timestamp>,
    /// Over.
    pub ended: Option<Timestamp>,
}

/// One effect, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// [`VERSION`].
    pub v: u32,
    /// Which.
    pub key: Key,
    /// Its short id.
    pub id: String,
    /// What asks for it now.
    pub order: Order,
    /// When it is to be undone, whatever the order says.
    pub until: Timestamp,
    /// Where it is.
    pub state: State,
    /// Its name at the called.
    #[serde(default)]
    pub target: Option<String>,
    /// How things were before, and what undoing needs. Stored before anything is done, and never again while it may be
    /// in effect.
    #[serde(default)]
    pub before: Option<Value>,
    /// Why it needs approval, where it does.
    #[serde(default)]
    pub needs: Option<String>,
    /// Who may approve; empty means every approver.
    #[serde(default)]
    pub approvers: Vec<String>,
    /// Who has approved, rejected or asked to undo it.
    #[serde(default)]
    pub word: Option<Word>,
    /// It was sent, and it is not known whether it arrived.
    #[serde(default)]
    pub unsure: bool,
    /// Tries of what is to be done now.
    #[serde(default)]
    pub tries: u32,
    /// Not to be tried before.
    #[serde(default)]
    pub next: Timestamp,
    /// What was wrong the last time.
    #[serde(default)]
    pub problem: Option<String>,
    /// When what happened.
    pub times: Times,
    /// What survives, and until when.
    #[serde(default)]
    pub survives: String,
}

impl Stored {
    /// A new one.
    pub fn new(key: Key, order: Order, until: Timestamp, now: Timestamp) -> Self {
        let id = key.id(&order.decision);
        Self {
            v: VERSION,
            key,
            id,
            order,
            until,
            state: State::Reading,
            target: None,
            before: None,
            needs: None,
            approvers: Vec::new(),
            word: None,
            unsure: false,
            tries: 0,
            next: now,
            problem: None,
            times: Times { wanted: now, ..Times::default() },
            survives: String::new(),
        }
    }

    /// The idempotency key of its act, and of its undoing.
    pub fn call_key(&self) -> String {
        let undo = if self.state == State::Undoing { "-undo" } else { "" };
        format!("{}-{}{undo}", self.order.decision, self.id)
    }
}
