//! Logins that fail, and then one that succeeds from elsewhere.

use std::net::IpAddr;

use qualm_model::{
    detector::Question,
    event::{Event, Outcome},
    identity::Class,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::{
    Broken,
    custom::{Counted, Custom},
    hashed,
    kept::Kept,
    network,
};

/// Accounts remembered.
const ACCOUNTS: usize = 1 << 14;
/// Failures count for so long, and so many are needed: people mistype a password once or twice.
const RECENT: Span = Span(2 * Span::HOUR.0);
const FAILURES: usize = 3;
/// Failures and networks kept of one account.
const KEPT: usize = 16;
/// What a client does with its own secret: a secret that is exchanged fails until its pods are, and these come back at
/// other addresses.
const OF_CLIENTS: [&str; 4] = ["CLIENT_", "REFRESH_TOKEN", "TOKEN_EXCHANGE", "CODE_TO_TOKEN"];

/// Who logs in with a secret of his own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Logins {
    accounts: Kept<Account, ACCOUNTS>,
    custom: Custom,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Account {
    /// The latest failures.
    failures: Vec<Timestamp>,
    /// Networks from which it has logged in.
    networks: Vec<u64>,
}

impl Logins {
    /// Takes in a login or a failed one. Where the account is not told, or has never logged in before, it cannot be known
    /// what is elsewhere.
    pub(super) fn look(&mut self, event: Event<'_>) -> Option<Broken> {
        let (source, now) = (event.source(), event.report());
        let (account, address) = (source.principal(), source.ip());
        let is_account =
            !account.is_empty() && Class::of(account).carries_trust() && account.parse::<IpAddr>().is_err();
        let is_client = OF_CLIENTS.iter().any(|prefix| event.operation().starts_with(prefix));
        if !is_account || is_client || address.is_empty() {
            return None;
        }
        let known = self.accounts.at(hashed((account, source.cluster())), now);
        if event.outcome() == Outcome::Refused {
            push(&mut known.failures, now);
            return None;
        }
        if event.outcome() != Outcome::Success {
            return None;
        }
        let from = network(address);
        let is_elsewhere = !known.networks.is_empty() && !known.networks.contains(&from);
        let failures = known.failures.iter().filter(|failure| (0..=RECENT.0).contains(&(now - **failure).0)).count();
        self.custom.hold();
        if is_elsewhere && failures >= FAILURES {
            return Some(self.custom.answer(Question::LoginElsewhere, Counted::Now, failures as f64));
        }
        if !known.networks.contains(&from) {
            push(&mut known.networks, from);
        }
        None
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let heap = |account: &Account| 8 * (account.failures.capacity() + account.networks.capacity());
        self.accounts.bytes() + self.accounts.values().map(heap).sum::<usize>()
    }
}

/// Adds to what is kept; the oldest goes.
fn push<T>(kept: &mut Vec<T>, one: T) {
    if kept.len() == KEPT {
        kept.remove(0);
    }
    kept.push(one);
}
