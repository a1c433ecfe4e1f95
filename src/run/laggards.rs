//! When the log says who reports calls and does not enforce: all in one line, after a while, and again when it changes.

use std::collections::BTreeMap;

use qualm_model::time::{Span, Timestamp};
use qualm_scorer::notify::plain;

use super::coverage::Uncovered;

/// A proxy that starts, or comes back, may take so long until it enforces; wall time.
const GRACE: Span = Span::seconds(30);
/// Causes and, of each, proxies that are named.
const NAMED: usize = 5;

/// Proxies that do not enforce, and what was said of them.
#[derive(Debug, Default)]
pub(crate) struct Laggards {
    since: BTreeMap<String, Timestamp>,
    told: BTreeMap<String, String>,
}

/// What the log is to say.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// Somebody does not enforce of whom that was not said before, or for another cause: who, and why.
    More(String),
    /// Fewer than was said.
    Fewer(usize),
}

impl Laggards {
    /// Tells of them where there is news. `uncovered` is everybody who does not enforce now, of `reporting` proxies.
    pub(crate) fn tell(&mut self, uncovered: Vec<Uncovered>, reporting: u32, wall: Timestamp) {
        let not_enforcing = uncovered.len();
        match self.news(uncovered, wall) {
            Some(News::More(who)) => {
                tracing::warn!(not_enforcing, reporting, who, "proxies report calls and are not enforcing");
            }
            Some(News::Fewer(still)) => {
                tracing::info!(not_enforcing = still, reporting, "fewer proxies report calls and are not enforcing");
            }
            None => {}
        }
    }

    fn news(&mut self, uncovered: Vec<Uncovered>, wall: Timestamp) -> Option<News> {
        let before = std::mem::take(&mut self.since);
        let mut late = BTreeMap::new();
        for Uncovered { reporter, why } in uncovered {
            // A clock that was set back begins the wait anew.
            let since = before.get(&reporter).map_or(wall, |since| wall.min(*since));
            self.since.insert(reporter.clone(), since);
            if wall - since >= GRACE {
                late.insert(reporter, why);
            }
        }
        if late == self.told {
            return None;
        }
        let is_known = |(reporter, why): (&String, &String)| self.told.get(reporter) == Some(why);
        let is_more = !late.iter().all(is_known);
        self.told = late;
        Some(if is_more { News::More(self.summary()) } else { News::Fewer(self.told.len()) })
    }

    /// By cause, the most frequent first: how many, some of their names, why.
    fn summary(&self) -> String {
        let mut by_cause: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (reporter, why) in &self.told {
            by_cause.entry(why).or_default().push(reporter);
        }
        let mut causes: Vec<_> = by_cause.into_iter().collect();
        causes.sort_by_key(|(_, reporters)| std::cmp::Reverse(reporters.len()));
        let others = causes.len().saturating_sub(NAMED);
        let mut parts: Vec<String> = causes
            .into_iter()
            .take(NAMED)
            .map(|(why, reporters)| {
                let more = if reporters.len() > NAMED { ", …" } else { "" };
                let names: Vec<String> = reporters.iter().take(NAMED).map(|name| plain(name)).collect();
                format!("{} ({}{more}): {}", reporters.len(), names.join(", "), plain(why))
            })
            .collect();
        if others > 0 {
            parts.push(format!("and {others} other causes"));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uncovered(proxies: &[(&str, &str)]) -> Vec<Uncovered> {
        proxies.iter().map(|(name, why)| Uncovered { reporter: (*name).to_owned(), why: (*why).to_owned() }).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    #[test]
    fn a_proxy_that_enforces_within_the_grace_period_is_never_told_of() {
        let mut laggards = Laggards::default();
        assert_eq!(laggards.news(uncovered(&[("a", "starting")]), at(0)), None);
        assert_eq!(laggards.news(uncovered(&[("a", "starting")]), at(29)), None);
        assert_eq!(laggards.news(Vec::new(), at(30)), None);
        // It has gone and come back: its time begins anew.
        assert_eq!(laggards.news(uncovered(&[("a", "starting")]), at(40)), None);
        assert_eq!(laggards.news(uncovered(&[("a", "starting")]), at(69)), None);
        assert!(laggards.news(uncovered(&[("a", "starting")]), at(70)).is_some());
    }

    #[test]
    fn all_who_lag_are_one_line_by_cause_and_it_comes_again_only_when_that_changes() {
        let mut laggards = Laggards::default();
        let three = [("a", "no cluster"), ("b", "refused"), ("c", "no cluster")];
        assert_eq!(laggards.news(uncovered(&three), at(0)), None);
        let told = laggards.news(uncovered(&three), at(30));
        assert_eq!(told, Some(News::More("2 (a, c): no cluster; 1 (b): refused".to_owned())));
        assert_eq!(laggards.news(uncovered(&three), at(40)), None, "nothing has changed");
        assert_eq!(laggards.news(uncovered(&three[..2]), at(50)), Some(News::Fewer(2)));
        let other_cause = [("a", "no cluster"), ("b", "no cluster")];
        assert_eq!(laggards.news(uncovered(&other_cause), at(60)), Some(News::More("2 (a, b): no cluster".to_owned())));
        assert_eq!(laggards.news(Vec::new(), at(70)), Some(News::Fewer(0)));
    }

    #[test]
    fn a_thousand_proxies_are_a_line_that_can_be_read() {
        let mut laggards = Laggards::default();
        let names: Vec<String> = (0..1000).map(|n| format!("p{n:03}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), "no cluster")).collect();
        laggards.news(uncovered(&all), at(0));
        let told = laggards.news(uncovered(&all), at(31));
        assert_eq!(told, Some(News::More("1000 (p000, p001, p002, p003, p004, …): no cluster".to_owned())));
    }
}
