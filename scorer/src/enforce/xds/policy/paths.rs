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

/// Whether a request is one of these operations: what the tree of [`only`] answers.
pub(super) fn allows(operations: &Operations, method: &str, path: &str) -> bool {
    let Operations::Only(operations) = operations else { return true };
    let mut is_one = false;
    for operation in operations {
        let Some((of, pattern)) = operation.split_once(' ').filter(|(of, _)| !of.contains('{')) else { return true };
        is_one |= of == method && is_of(pattern, path);
    }
    is_one
}

/// One step of a folded path.
enum Step {
    Letter(char),
    /// One letter or more that are none of these.
    Value(&'static str),
    Anything,
}

/// Whether a path without its query is what was folded into `pattern`: the pattern's places that are reached are followed
/// letter by letter, so that no path takes longer than its length times that of the pattern.
fn is_of(pattern: &str, path: &str) -> bool {
    let (path, steps) = (path.split('?').next().unwrap_or_default(), steps(pattern));
    let mut reached = vec![false; steps.len() + 1];
    reached[0] = true;
    skip(&steps, &mut reached);
    for c in path.chars() {
        let mut next = vec![false; reached.len()];
        for at in (0..reached.len()).filter(|at| reached[*at]) {
            let is_value = |step: &Step| matches!(step, Step::Value(not) if !not.contains(c));
            // A value goes on.
            next[at] |= at > 0 && is_value(&steps[at - 1]);
            match steps.get(at) {
                Some(Step::Letter(letter)) if *letter == c => next[at + 1] = true,
                Some(step) if is_value(step) => next[at + 1] = true,
                Some(Step::Anything) => next[at] = true,
                _ => {}
            }
        }
        skip(&steps, &mut next);
        reached = next;
    }
    reached[steps.len()]
}

/// Anything may be nothing.
fn skip(steps: &[Step], reached: &mut [bool]) {
    for (at, step) in steps.iter().enumerate() {
        if reached[at] && matches!(step, Step::Anything) {
            reached[at + 1] = true;
        }
    }
}

fn steps(pattern: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if c == '{' {
            let Some(end) = rest.find('}') else { break };
            let is_escaped = matches!(&rest[1..end], "text" | "token" | "email");
            steps.push(Step::Value(if is_escaped { "/?#" } else { "/?#%" }));
            rest = &rest[end + 1..];
            continue;
        }
        steps.push(if c == MORE { Step::Anything } else { Step::Letter(c) });
        rest = &rest[c.len_utf8()..];
    }
    steps
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
    let beginnings = prefix(header(":path"), beginnings, otherwise.clone());
    // Envoy refuses a map without a key, and with it all of the resource.
    if literal.is_empty() {
        return beginnings;
    }
    exact(header(":path"), literal.iter().map(|path| ((*path).to_owned(), allow())).collect(), nested(beginnings))
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
    fn a_path_is_of_the_pattern_that_it_was_folded_into_and_of_no_other() {
        let only = |pattern: &str| Operations::Only([format!("GET {pattern}")].into());
        for (pattern, path) in [
            ("/v1/orders/{id}/items", "/v1/orders/8123/items"),
            ("/v1/orders/{id}", "/v1/orders/77?expand=items&x=/admin"),
            ("/v1/orders", "/v1/orders?page=2"),
            ("/files/report-{date}.csv", "/files/report-2026-11-30.csv"),
            ("/v1/{text}/stock", "/v1/caf%C3%A9/stock"),
            ("/search/{text}/…", "/search/shoes/a/b/c"),
            ("/", "/"),
        ] {
            assert!(allows(&only(pattern), "GET", path), "{pattern} {path}");
            assert!(!allows(&only(pattern), "POST", path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/v1/orders/{id}", "/v1/orders/1/2"),
            ("/v1/orders/{id}", "/v1/orders/..%2Fadmin"),
            ("/v1/orders/{id}", "/v1/orders/"),
            ("/v1/orders/{id}", "/v1/ordersX/1"),
            ("/v1/orders", "/v1/orders/"),
            ("/v1/orders", "/"),
            ("/v1/{text}/stock", "/v1/a/b/stock"),
        ] {
            assert!(!allows(&only(pattern), "GET", path), "{pattern} {path}");
        }
        assert!(allows(&Operations::Any, "DELETE", "/admin"));
        assert!(allows(&Operations::Only(["produce".to_owned()].into()), "GET", "/a"), "as the tree leaves it open");
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
