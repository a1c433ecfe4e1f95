//! What an operator decides by hand, while it runs: a level for a time, the end of what stands, a pause of everything.
//!
//! An [`Instruction`] enters the loop as a journalled command at a stated event time, so that verdicts stay
//! deterministic. What it sets is kept apart from where evidence has led: it has a lease and is renewed by nobody, it
//! feeds no curve and no budget, and evidence goes on being counted beside it. Of both, whatever is highest is in force.
//!
//! # Layout
//! - [`orders`]: what was set and stands, holds, the pause, and which calls were answered
//! - [`announced`]: deployments that were announced
//! - [`accepted`]: odd behaviour that was accepted
//! - `obey`: an instruction carried out, or refused
//! - [`rehearsed`]: what a level would have denied
//! - [`look`]: who stands where and why, for people
//!
//! **Invariant:** no entry of an operator outlives its lease, and none is wider than what was asked for.

pub mod accepted;
pub mod announced;
pub mod look;
mod obey;
pub mod orders;
pub mod rehearsed;

pub use self::obey::Obeyed;
use qualm_model::{
    detector::Question,
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The shortest and the longest time for which a level can be set.
pub const LEASES: (Span, Span) = (Span::seconds(10), Span(7 * Span::DAY.0));
/// The shortest and the longest pause of all enforcement.
pub const PAUSES: (Span, Span) = (Span::seconds(10), Span::DAY);
/// The shortest and the longest time for which a deployment can be announced: long enough for a slow rollout, and too short
/// to be left standing.
pub const ANNOUNCED: (Span, Span) = (Span::MINUTE, Span(6 * Span::HOUR.0));
/// The longest time for which an identity enters no level on behaviour.
pub const LONGEST_HOLD: Span = Span(30 * Span::DAY.0);
/// Characters of a reason.
pub const LONGEST_REASON: usize = 500;
/// Characters of an idempotency key.
pub const LONGEST_KEY: usize = 64;
/// Bytes of an identity's name.
pub const LONGEST_NAME: usize = 512;

/// One call of an operator that changes something, as it is journalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// The caller's verified SPIFFE ID.
    pub by: String,
    /// Why, in the caller's words.
    pub why: String,
    /// Tells a call that comes again from a new one; the caller's own.
    pub key: String,
    /// When it entered the loop, wall time.
    pub at: Timestamp,
    /// When it entered the loop, event time.
    pub event: Timestamp,
    /// What is to be done.
    pub ask: Ask,
}

/// What an operator may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "call")]
pub enum Ask {
    /// A level for a time.
    Set {
        /// Full name of the identity.
        identity: String,
        /// Its one instance that is meant, by its address; `None` is every instance.
        instance: Option<String>,
        /// The level.
        level: Level,
        /// For how long.
        lease: Span,
        /// Whether it acts also where the mode is shadow.
        in_shadow: InShadow,
        /// What it disregards.
        overrides: Vec<Override>,
    },
    /// The end of what stands for an identity.
    Lift {
        /// Full name of the identity.
        identity: String,
        /// Only what is about this instance.
        instance: Option<String>,
        /// For so long it enters no level on behaviour.
        hold: Option<Span>,
    },
    /// A shadow of everything, for a time.
    Pause {
        /// For how long.
        lease: Span,
    },
    /// The end of the pause.
    Resume,
    /// A deployment: tolerance for a time for what one service does anew.
    Announce {
        /// `namespace/service`.
        service: String,
        /// Only in this cluster; everywhere, where none is named.
        cluster: Option<String>,
        /// For how long, event time.
        lasts: Span,
    },
    /// What was too odd to be learned of one identity counts no more, up to what was seen.
    Accept {
        /// Full name of the identity.
        identity: String,
        /// Only this question.
        question: Option<Question>,
        /// Only what it does to this destination.
        object: Option<String>,
        /// For how long, event time; `None` takes an acceptance back.
        lasts: Option<Span>,
        /// What that is; filled in when it enters the loop.
        parts: Vec<accepted::Part>,
    },
}

/// Whether an operator's entry acts where the mode of the configuration is shadow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InShadow {
    /// It is marked, as all others are.
    #[default]
    Marks,
    /// It acts.
    Acts,
}

/// What an entry may disregard, where an admin says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Override {
    /// That the configuration protects the identity.
    Protected,
    /// That as many identities are denied already as may be.
    MaxShare,
}

/// Why an instruction is not carried out; says what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What was said is not well said.
    #[error("{0}")]
    Invalid(String),
    /// Nobody is called so.
    #[error(
        "`{0}` is not known: it has made no call that was read, and nothing stands about it; give the full name as `qualm list` or `qualm explain` write it"
    )]
    Unknown(String),
    /// It is an address, a probe or somebody outside.
    #[error(
        "`{0}` carries no trust: addresses outside the mesh and probes have no principal that could be denied; name the workload or credential"
    )]
    CarriesNoTrust(String),
    /// It is protected.
    #[error(
        "`{0}` is protected by [enforce] `protected` of the configuration; take it out of there, or let an admin say so explicitly (override `protected`)"
    )]
    Protected(String),
    /// Several workloads have the principal, and no instance is named.
    #[error(
        "`{0}` shares its principal, and proxies cannot tell it from the others but by address: name one instance (`instance`), or the principal, which is all of them"
    )]
    Shared(String),
    /// Too many are denied.
    #[error(
        "{denied} of at most {most} identities are denied already ([enforce] `max_share`); lift one of them, raise `max_share`, or let an admin say so explicitly (override `max_share`)"
    )]
    BlastRadius {
        /// Identities that are denied.
        denied: usize,
        /// How many may be.
        most: usize,
    },
    /// There is nothing to lift.
    #[error(
        "nothing stands for `{0}`: it is trusted already; to keep it so whatever it does, say for how long (`hold`)"
    )]
    NothingStands(String),
    /// There is nothing to accept.
    #[error(
        "nothing was withheld from the baseline of `{0}` about that in the last 21 days; leave question and object out to see all of it"
    )]
    NothingWithheld(String),
    /// There is no such acceptance.
    #[error(
        "nothing is accepted of `{0}` about that; `list` shows what is, name question and object as they stand there"
    )]
    NothingAccepted(String),
    /// There is no pause.
    #[error("enforcement is not paused; `list` says what is in force")]
    NotPaused,
    /// The table is full.
    #[error("{0} entries of operators stand, and no more can; lift some that are no longer needed")]
    TooMany(usize),
    /// The key has been used.
    #[error("the idempotency key `{0}` was used for another call; give each call a key of its own")]
    KeyUsed(String),
}

impl Ask {
    /// The call's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Set { .. } => "set",
            Self::Lift { .. } => "lift",
            Self::Pause { .. } => "pause",
            Self::Resume => "resume",
            Self::Announce { .. } => "announce",
            Self::Accept { .. } => "accept",
        }
    }

    /// Whom it is about; `None` where it is about all.
    pub fn identity(&self) -> Option<&str> {
        match self {
            Self::Set { identity, .. } | Self::Lift { identity, .. } | Self::Accept { identity, .. } => Some(identity),
            Self::Pause { .. } | Self::Resume | Self::Announce { .. } => None,
        }
    }
}

impl Instruction {
    /// Checks what can be checked without knowing anybody: lengths, and times.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], with what is wrong and what may stand there.
    pub fn check(&self) -> Result<(), Refusal> {
        reason(&self.why)?;
        key(&self.key)?;
        if let Some(identity) = self.ask.identity() {
            name(identity)?;
        }
        match &self.ask {
            Ask::Set { instance, level, lease, .. } => {
                address(instance.as_deref())?;
                if !Level::BY_BEHAVIOUR.contains(level) {
                    let remedy = match level {
                        Level::Trusted => "to give trust back, lift what stands",
                        _ => "revoking credentials is the issuer's",
                    };
                    return invalid(format!(
                        "`{level}` cannot be set: one of watched, throttled, restricted, quarantined; {remedy}"
                    ));
                }
                within("the lease", *lease, LEASES)
            }
            Ask::Lift { instance, hold, .. } => {
                address(instance.as_deref())?;
                match (hold, instance) {
                    (Some(_), Some(_)) => {
                        invalid("a hold is about the whole identity; leave the instance or the hold out".to_owned())
                    }
                    (Some(hold), None) => within("the hold", *hold, (LEASES.0, LONGEST_HOLD)),
                    (None, _) => Ok(()),
                }
            }
            Ask::Pause { lease } => within("the pause", *lease, PAUSES),
            Ask::Resume => Ok(()),
            Ask::Announce { service: of, cluster, lasts } => {
                service(of)?;
                cluster.as_deref().map_or(Ok(()), name)?;
                within("what is announced", *lasts, ANNOUNCED)
            }
            Ask::Accept { question, object, lasts, .. } => {
                accepted::check(*question)?;
                object.as_deref().map_or(Ok(()), name)?;
                lasts.map_or(Ok(()), |lasts| within("the acceptance", lasts, accepted::LASTS))
            }
        }
    }

    /// What a call under the same key must be to be the same call.
    pub(crate) fn digest(&self) -> [u8; 16] {
        let mut ask = self.ask.clone();
        if let Ask::Accept { parts, .. } = &mut ask {
            // What was withheld meanwhile makes no other call of it.
            parts.clear();
        }
        let said = serde_json::to_vec(&(&ask, &self.why)).expect("an instruction is plain JSON");
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(said)[..16]);
        digest
    }
}

fn invalid(problem: String) -> Result<(), Refusal> {
    Err(Refusal::Invalid(problem))
}

fn reason(text: &str) -> Result<(), Refusal> {
    let characters = text.chars().count();
    if text.trim().is_empty() {
        return invalid("a reason is missing: say in a few words why, it is kept in the journal".to_owned());
    }
    if characters > LONGEST_REASON {
        return invalid(format!(
            "the reason has {characters} characters, at most {LONGEST_REASON} are kept; shorten it"
        ));
    }
    if text.chars().any(char::is_control) {
        return invalid("the reason must stand on one line, without control characters".to_owned());
    }
    Ok(())
}

fn key(text: &str) -> Result<(), Refusal> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > LONGEST_KEY || !text.bytes().all(is_plain) {
        return invalid(format!(
            "the idempotency key must be 1 to {LONGEST_KEY} letters, digits, `-`, `_` or `.`; make a new one for each call"
        ));
    }
    Ok(())
}

fn name(text: &str) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > LONGEST_NAME || text.chars().any(char::is_control) {
        return invalid(format!(
            "an identity has a name of 1 to {LONGEST_NAME} bytes on one line; give it as `list` does"
        ));
    }
    Ok(())
}

fn service(text: &str) -> Result<(), Refusal> {
    name(text)?;
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [namespace, service] if !namespace.is_empty() && !service.is_empty() => Ok(()),
        _ => invalid(format!(
            "`{text}` is no service: name it by its namespace too, as `shop/cart` (`-/cart` without one)"
        )),
    }
}

fn address(text: Option<&str>) -> Result<(), Refusal> {
    let Some(text) = text else { return Ok(()) };
    match text.parse::<std::net::IpAddr>() {
        Ok(address) if address.to_string() == text => Ok(()),
        _ => invalid(
            "an instance is meant by its IP address, as 10.1.2.3 or fd00::7; `show` lists those of an identity"
                .to_owned(),
        ),
    }
}

fn within(what: &str, span: Span, (least, most): (Span, Span)) -> Result<(), Refusal> {
    if (least..=most).contains(&span) {
        return Ok(());
    }
    invalid(format!("{what} must be from {} to {}; this would be {}", length(least), length(most), length(span)))
}

/// A length of time for people.
pub(crate) fn length(span: Span) -> String {
    match span.as_seconds() {
        seconds if seconds.abs() < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds.abs() < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds.abs() < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        seconds => format!("{:.0} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(lease: Span, why: &str) -> Instruction {
        Instruction {
            by: "spiffe://mesh.test/ns/soc/sa/ann".to_owned(),
            why: why.to_owned(),
            key: "k-1".to_owned(),
            at: Timestamp(0),
            event: Timestamp(0),
            ask: Ask::Set {
                identity: "spiffe://mesh.test/ns/shop/sa/cart".to_owned(),
                instance: None,
                level: Level::Quarantined,
                lease,
                in_shadow: InShadow::Marks,
                overrides: Vec::new(),
            },
        }
    }

    fn refused(instruction: &Instruction) -> String {
        instruction.check().expect_err("it is refused").to_string()
    }

    #[test]
    fn a_lease_is_neither_nothing_nor_for_ever() {
        assert_eq!(set(Span::HOUR, "why").check(), Ok(()));
        for lease in [Span(0), Span(-1), Span::seconds(9), Span(8 * Span::DAY.0), Span(i64::MAX)] {
            let said = refused(&set(lease, "why"));
            assert!(said.contains("from 10 s to 7 days"), "{said}");
        }
    }

    #[test]
    fn a_reason_is_there_bounded_and_on_one_line() {
        assert!(refused(&set(Span::HOUR, " ")).contains("is missing"));
        assert!(refused(&set(Span::HOUR, &"x".repeat(501))).contains("501 characters, at most 500"));
        assert!(refused(&set(Span::HOUR, "a\nb")).contains("one line"));
        assert_eq!(set(Span::HOUR, &"é".repeat(500)).check(), Ok(()));
    }

    #[test]
    fn what_is_no_address_no_level_or_no_key_is_told_so() {
        let with = |change: fn(&mut Instruction)| {
            let mut instruction = set(Span::HOUR, "why");
            change(&mut instruction);
            refused(&instruction)
        };
        let said = with(|of| {
            if let Ask::Set { instance, .. } = &mut of.ask {
                *instance = Some("cart-0".to_owned());
            }
        });
        assert!(said.contains("by its IP address"), "{said}");
        for level in [Level::Trusted, Level::Revoked] {
            let mut instruction = set(Span::HOUR, "why");
            if let Ask::Set { level: of, .. } = &mut instruction.ask {
                *of = level;
            }
            assert!(refused(&instruction).contains("cannot be set"));
        }
        assert!(with(|of| of.key = "a b".to_owned()).contains("idempotency key"));
        assert!(with(|of| of.key = String::new()).contains("idempotency key"));
    }
}
