//! Credentials that were seen being issued, so that more is known of them when they are used.

use std::collections::{HashMap, VecDeque};

use qualm_model::time::Timestamp;

/// Credentials that are remembered; the one issued first is forgotten first.
const MAX_CREDENTIALS: usize = 16_384;
/// Longer ids and names are not kept.
const MAX_BYTES: usize = 256;

/// What the record of the issue says of a credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Issue {
    /// Begin of its validity.
    pub(super) not_before: Option<Timestamp>,
    /// End of its validity.
    pub(super) not_after: Option<Timestamp>,
    /// The pod that alone may use it. Empty where it is bound to none.
    pub(super) bound_to: String,
}

/// Issued credentials by their id, within a bound.
#[derive(Debug, Default)]
pub(super) struct IssuedCredentials {
    issues: HashMap<String, Issue>,
    order: VecDeque<String>,
}

impl IssuedCredentials {
    /// Remembers a credential. An id that comes again, as a record read twice does, is what was said last.
    pub(super) fn insert(&mut self, id: &str, issue: Issue) {
        if id.is_empty() || id.len().max(issue.bound_to.len()) > MAX_BYTES {
            return;
        }
        if self.issues.insert(id.to_owned(), issue).is_some() {
            return;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > MAX_CREDENTIALS
            && let Some(oldest) = self.order.pop_front()
        {
            self.issues.remove(&oldest);
        }
    }

    /// What is known of a credential.
    pub(super) fn of(&self, id: &str) -> Option<&Issue> {
        self.issues.get(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credential_issued_first_is_forgotten_first() {
        let mut issued = IssuedCredentials::default();
        for number in 0..=MAX_CREDENTIALS {
            issued.insert(&number.to_string(), Issue::default());
        }
        issued.insert("1", Issue { bound_to: "cart-1".to_owned(), ..Issue::default() });
        assert_eq!((issued.of("0"), issued.of("1").map(|issue| issue.bound_to.as_str())), (None, Some("cart-1")));
        assert_eq!((issued.issues.len(), issued.order.len()), (MAX_CREDENTIALS, MAX_CREDENTIALS));
        issued.insert(&"x".repeat(MAX_BYTES + 1), Issue::default());
        assert_eq!(issued.issues.len(), MAX_CREDENTIALS);
    }
}
