//! The sentence a person reads first: who did what to whom, how unusual that is, what was done, what to do next.

use std::fmt::Write as _;

use qualm_model::{identity::Hierarchy, level::Level, time::Timestamp};

use super::finding::{Activity, Effect, Finding, Identity, Reason};
use crate::incidents::Shared;

/// So many reasons are put into words; all are in the record.
const TOLD: usize = 3;
/// So many instances are named.
const NAMED: usize = 3;
/// Characters of a text that came from outside.
const LONGEST_TEXT: usize = 200;

/// The finding in one sentence, without a word that only those who know SPIFFE would understand.
pub fn message(finding: &Finding) -> String {
    let parts = [
        who_is_in_it(finding),
        who_did_what(finding),
        how_unusual(finding.rate_per_day),
        what_was_done(finding),
        who_shares_it(finding),
        what_next(finding),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    format!("{}.", parts.join("; "))
}

/// Who it is and where it stands now.
pub(super) fn title(finding: &Finding) -> String {
    let verb = match (finding.activity, finding.effect) {
        (Activity::Close, _) => return format!("{} is {} again", who(finding), finding.level),
        (_, Effect::Enforced) => "is",
        (_, Effect::Shadow | Effect::Held | Effect::Limited) => "would be",
        (_, Effect::Historic) => "would have been",
    };
    format!("{}{} {verb} {}", who(finding), and_others(finding), finding.level)
}

/// ` and 5 more`, where the incident has several identities.
fn and_others(finding: &Finding) -> String {
    match finding.members.len() {
        0 | 1 => String::new(),
        several => format!(" and {} more", several - 1),
    }
}

/// A text from telemetry: one line, bounded, nothing a terminal would obey.
pub fn plain(text: &str) -> String {
    let mut plain: String =
        text.chars().take(LONGEST_TEXT).map(|c| if is_unprintable(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST_TEXT).is_some() {
        plain.push('…');
    }
    plain
}

/// That several identities are one incident, and what they share.
fn who_is_in_it(finding: &Finding) -> Option<String> {
    let several = finding.members.len();
    if several < 2 {
        return None;
    }
    let mut named: Vec<String> = finding.members.iter().take(NAMED).map(|member| short(&member.identity)).collect();
    let more = several - named.len();
    named.extend((more > 0).then(|| format!("{more} more")));
    let last = named.pop()?;
    let shared = finding.shared.as_ref().map(|shared| format!(" ({})", cause(shared))).unwrap_or_default();
    Some(format!("{several} identities are one incident{shared}: {} and {last}", named.join(", ")))
}

/// What the episodes of an incident share, for people.
pub fn cause(shared: &Shared) -> String {
    let of = plain(Hierarchy::of(shared.of()).service);
    match shared {
        Shared::NewPeer(_) => format!("what they do at {of} is new to them"),
        Shared::Dependency(_) => format!("their calls to {of} do not go as ever"),
        Shared::Service(of) => format!("they are one service, {}", plain(of)),
    }
}

/// An identity in as few words as tell it from others.
fn short(identity: &Identity) -> String {
    let name = plain(identity.workload.as_ref().unwrap_or(&identity.service));
    match &identity.cluster {
        Some(cluster) => format!("{name} in {}", plain(cluster)),
        None => name,
    }
}

fn who_did_what(finding: &Finding) -> Option<String> {
    if finding.reasons.is_empty() {
        return Some(format!("{} behaves unlike its past", who(finding)));
    }
    let deeds: Vec<_> = finding.reasons.iter().take(TOLD).map(deed).collect();
    let (last, before) = deeds.split_last()?;
    let deeds = match before {
        [] => last.clone(),
        before => format!("{} and {last}", before.join(", ")),
    };
    let tense = if finding.activity == Activity::Close { " no longer stands out, after it" } else { "" };
    Some(format!("{}{tense} {deeds}", who(finding)))
}

fn who(finding: &Finding) -> String {
    let identity = &finding.identity;
    let mut who = match finding.instances.as_slice() {
        [] => String::new(),
        [one] => format!("instance {} of ", plain(one)),
        many => {
            let named: Vec<_> = many.iter().take(NAMED).map(|instance| plain(instance)).collect();
            let more = many.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("instances {}{more} of ", named.join(", "))
        }
    };
    // `report under default` where several have the identity `default`.
    if let Some(workload) = &identity.workload {
        who.push_str(&plain(workload));
        who.push_str(" under ");
    }
    who.push_str(&plain(&identity.service));
    let place: Vec<_> = [("namespace", &identity.namespace), ("cluster", &identity.cluster)]
        .into_iter()
        .filter_map(|(what, name)| Some(format!("{what} {}", plain(name.as_deref()?))))
        .collect();
    if !place.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(who, " ({})", place.join(", "));
    }
    who
}

fn deed(reason: &Reason) -> String {
    let observed = plain(&reason.observed);
    if reason.expected.is_empty() { observed } else { format!("{observed} (usual: {})", plain(&reason.expected)) }
}

fn how_unusual(rate_per_day: f64) -> Option<String> {
    let days = 1.0 / rate_per_day;
    let often = if !days.is_finite() || days < 0.0 {
        return Some("evidence like this has not come by chance so far".to_owned());
    } else if rate_per_day >= 1.5 {
        format!("about {rate_per_day:.0} times a day")
    } else if days < 1.5 {
        "about once a day".to_owned()
    } else if days < 100.0 {
        format!("about once in {days:.0} days")
    } else if days < 730.0 {
        format!("about once in {:.0} months", days / 30.44)
    } else if days < 365_000.0 {
        format!("about once in {:.0} years", days / 365.25)
    } else {
        "less than once in 1000 years".to_owned()
    };
    Some(format!("evidence like this comes by chance {often}"))
}

fn what_was_done(finding: &Finding) -> Option<String> {
    if finding.activity == Activity::Close {
        return Some(format!("it is {} again", finding.level));
    }
    let until = finding.lease_until.map(|until| format!(" until {}", clock(until, finding.decided)));
    let until = until.unwrap_or_default();
    let done = match (finding.effect, finding.level) {
        (Effect::Historic, _) => "nothing was done, because this was found in history".to_owned(),
        (_, Level::Trusted) => "nothing is cut".to_owned(),
        (_, Level::Watched) => format!("nothing is cut, it is only watched{until}"),
        (Effect::Shadow, level) if finding.is_beyond_scope() => {
            format!("nothing is cut, because it is not enforceable at this scope: it is only noted as {level}{until}")
        }
        (Effect::Shadow, level) => format!("nothing is cut, because in shadow mode it is only noted as {level}{until}"),
        (Effect::Held, level) => format!(
            "nothing is cut although it would be {level}, because the operator protects it or as many are cut off as may \
             be{until}"
        ),
        (Effect::Limited, level) => format!(
            "its calls are limited and not cut although it would be {level}, because that would take away what its service \
             or the mesh cannot spare, or comes while records are missing{until}"
        ),
        (Effect::Enforced, Level::Throttled) => {
            format!("enforcement points are told to limit its calls{until}")
        }
        (Effect::Enforced, Level::Restricted) => {
            format!("enforcement points are told to let through only calls that it is known for{until}")
        }
        (Effect::Enforced, Level::Quarantined) => {
            format!("enforcement points are told to deny its new calls{until}")
        }
        (Effect::Enforced, Level::Revoked) => format!("its credentials are being revoked{until}"),
    };
    Some(done)
}

/// Who else has the identity, where it is not one's own.
fn who_shares_it(finding: &Finding) -> Option<String> {
    let (last, before) = finding.co_owners.split_last()?;
    if finding.activity == Activity::Close {
        return None;
    }
    let mut named: Vec<_> = before.iter().take(NAMED).map(|name| plain(name)).collect();
    let more = before.len().saturating_sub(NAMED);
    named.extend((more > 0).then(|| format!("{more} more")));
    let named = if named.is_empty() { plain(last) } else { format!("{} and {}", named.join(", "), plain(last)) };
    let then = match finding.instances.is_empty() {
        true => "no rule could cut off one of them alone",
        false => "only the instance named is meant",
    };
    Some(format!("the identity is shared by {named}, and {then}"))
}

fn what_next(finding: &Finding) -> Option<String> {
    if !finding.next.is_empty() {
        let next: Vec<_> = finding.next.iter().map(|hint| plain(hint)).collect();
        return Some(next.join(", or "));
    }
    if finding.activity == Activity::Close {
        return None;
    }
    Some(format!("run `qualm explain {}` to see the evidence", quoted(&plain(&name_of(&finding.identity)))))
}

/// What `explain` finds it by.
fn name_of(identity: &Identity) -> String {
    match &identity.workload {
        Some(workload) => crate::workloads::name(&identity.principal, identity.cluster.as_deref(), Some(workload)),
        None => identity.principal.clone(),
    }
}

/// The time of day, with the date where it is another day.
fn clock(at: Timestamp, decided: Timestamp) -> String {
    let same_day = at.window(qualm_model::time::Span::DAY) == decided.window(qualm_model::time::Span::DAY);
    let format = if same_day { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
    match jiff::Timestamp::from_nanosecond(i128::from(at.0)) {
        Ok(time) => time.strftime(format).to_string(),
        Err(_) => format!("{} s after 1970", at.as_seconds()),
    }
}

/// One word for a shell, whatever a log line called itself.
fn quoted(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !word.starts_with('-') && !word.is_empty() && word.chars().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Control characters, and those that turn the direction of text.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::{Member, tests::finding};

    #[test]
    fn several_identities_with_one_cause_are_told_in_one_sentence() {
        let mut incident = finding();
        let member = |name: &str| Member {
            identity: Identity::of(&format!("spiffe://mesh.test/ns/shop/sa/{name}"), None),
            level: Level::Watched,
            evidence_bits: 12.0,
            since: incident.first_seen,
            decision: "d".to_owned(),
            observed: String::new(),
        };
        incident.members = ["cart", "mail", "search", "tax"].map(member).to_vec();
        incident.shared = Some(Shared::Dependency("spiffe://mesh.test/ns/bank/sa/payments".to_owned()));
        let told = message(&incident);
        assert!(
            told.starts_with(
                "4 identities are one incident (their calls to payments do not go as ever): cart, mail, search and 1 \
                 more; cart (namespace shop) called payments"
            ),
            "{told}"
        );
        assert_eq!(title(&incident), "cart (namespace shop) and 3 more is quarantined");
    }

    #[test]
    fn who_shares_an_identity_is_named_and_that_nothing_is_done_to_all_of_them() {
        let mut shared = finding();
        shared.next.clear();
        shared.identity.workload = Some("report".to_owned());
        shared.co_owners = ["cart", "mail", "report"].map(str::to_owned).to_vec();
        shared.effect = Effect::Shadow;
        let told = message(&shared);
        assert!(told.starts_with("report under cart (namespace shop) called payments"), "{told}");
        assert!(told.contains("nothing is cut, because it is not enforceable at this scope"), "{told}");
        assert!(
            told.contains("shared by cart, mail and report, and no rule could cut off one of them alone"),
            "{told}"
        );
        assert!(
            told.ends_with("`qualm explain 'spiffe://mesh.test/ns/shop/sa/cart#report'` to see the evidence."),
            "{told}"
        );
        (shared.instances, shared.effect) = (vec!["10.0.0.7".to_owned()], Effect::Enforced);
        let told = message(&shared);
        assert!(told.starts_with("instance 10.0.0.7 of report under cart"), "{told}");
        assert!(
            told.contains("told to deny its new calls") && told.contains("only the instance named is meant"),
            "{told}"
        );
    }
}
