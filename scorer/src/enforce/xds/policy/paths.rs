//! Operations as a matcher tree: by method, then by the path as it stands, then by the longest beginning that has no
//! placeholder, and only beneath that by patterns. So a request meets a few patterns, however many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use envoy_types::pb::xds::r#type::matcher::v3::{Matcher, matcher::OnMatch};

use super::matcher::{allow, any_of, exact, header, nested, prefix};
use crate::table::Operations;

/// What a placeholder stands for: a part of one segment. None has an escape in it: what decodes to a slash is no part of
/// a segment any more.
const VALUE: &str = "[^/?#%]+";
/// What is always a value that had to be escaped, or may have been.
const ESCAPED: &str = "[^/?#]+";
/// A query, which is no part of an operation.
const QUERY: &str = "(\\?.*)?";
/// Where a path had more segments than are kept.
const MORE: char = '…';

/// Allows these operations and answers `otherwise` to all others; `None` where all are allowed.
pub(super) fn only(operations: &Operations, otherwise: &OnMatch) -> Option<Matcher> {
    let Operations::Only(operations) = operations else { return None };
    let mut by_method: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for operation in operations {
        // Without a method or a path it is not known which requests are meant.
        let (method, path) = operation.split_once(' ').filter(|(method, _)| !method.contains('{'))?;
        by_method.entry(method).or_default().insert(path);
    }
    let of = |(method, paths): (&str, BTreeSet<&str>)| (method.to_owned(), nested(of_paths(&paths, otherwise)));
    Some(exact(header(":method"), by_method.into_iter().map(of).collect(), otherwise.clone()))
}

fn of_paths(paths: &BTreeSet<&str>, otherwise: &OnMatch) -> Matcher {
    let (literal, patterns): (Vec<&str>, Vec<&str>) = paths.iter().partition(|path| !path.contains(['{', MORE]));
    // With a query.
    let mut beginnings: HashMap<String, OnMatch> = literal.iter().map(|path| (format!("{path}?"), allow())).collect();
    let stems: BTreeSet<&str> = patterns.iter().map(|path| stem(path)).collect();
    for beginning in stems {
        // The longest beginning is the only one that is asked: it knows of the shorter ones too.
        let beneath = patterns.iter().filter(|path| beginning.starts_with(stem(path))).map(|path| regex(path));
        beginnings.insert(beginning.to_owned(), nested(any_of(&header(":path"), beneath, &allow(), otherwise.clone())));
    }
    let beginnings = nested(prefix(header(":path"), beginnings, otherwise.clone()));
    exact(header(":path"), literal.iter().map(|path| ((*path).to_owned(), allow())).collect(), beginnings)
}

/// What of a path stands before its first placeholder.
fn stem(path: &str) -> &str {
    &path[..path.find(['{', MORE]).unwrap_or(path.len())]
}

/// The pattern of a folded path.
fn regex(path: &str) -> String {
    let mut regex = String::new();
    let mut rest = path;
    while let Some(at) = rest.find(['{', MORE]) {
        escape(&rest[..at], &mut regex);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(MORE) {
            regex.push_str(".*");
            rest = after;
            continue;
        }
        let Some(end) = rest.find('}') else { break };
        let is_escaped = matches!(&rest[1..end], "text" | "token" | "email");
        regex.push_str(if is_escaped { ESCAPED } else { VALUE });
        rest = &rest[end + 1..];
    }
    escape(rest, &mut regex);
    regex.push_str(QUERY);
    regex
}

fn escape(literal: &str, out: &mut String) {
    for c in literal.chars() {
        if c.is_ascii_punctuation() && !matches!(c, '/' | '-' | '_') {
            out.push('\\');
        }
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folded_path_is_the_pattern_of_what_was_folded_into_it() {
        assert_eq!(regex("/v1/orders/{id}/items"), "/v1/orders/[^/?#%]+/items(\\?.*)?");
        assert_eq!(regex("/files/report-{date}.csv"), "/files/report-[^/?#%]+\\.csv(\\?.*)?");
        assert_eq!(regex("/search/{text}/…"), "/search/[^/?#]+/.*(\\?.*)?");
        assert_eq!(stem("/v1/orders/{id}/items"), "/v1/orders/");
    }

    #[test]
    fn an_operation_that_no_request_could_be_held_against_leaves_all_of_them_open() {
        let only_these = |operations: &[&str]| {
            let operations = Operations::Only(operations.iter().map(|&of| of.to_owned()).collect());
            only(&operations, &allow())
        };
        assert!(only_these(&["GET /a"]).is_some());
        assert!(only_these(&["GET /a", "produce"]).is_none() && only_these(&["{method} /a"]).is_none());
        assert!(only(&Operations::Any, &allow()).is_none());
    }
}
