//! Kafka's authorizer log (`kafka.authorizer.logger`), in the words of both authorizers:
//! `Principal = User:cart is Denied operation = READ from host = 10.0.0.7 on resource = Topic:LITERAL:orders for
//! request = Fetch with resourceRefCount = 1 based on rule DefaultDeny`, and older ones that end at the resource.
//!
//! The broker tells denials at level info and what it allowed at debug: most such logs hold denials only. Its times
//! have no zone. Where the envelope tells when the line was written that is its time; else it is read as UTC.

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
};

use super::{Row, clip, time::zoneless, typed};
use crate::source::{Invalid, Rejection};

const LOGGER: &str = "kafka.authorizer.logger";
/// log4j's pattern of Kafka ends every line so. A line without it was cut off, unless it names its logger in front.
const END: &str = " (kafka.authorizer.logger)";

/// What a rule says that denies one principal everything, as Qualm's own do.
const DENY_ALL: &str = "operation=ALL, permissionType=DENY";
/// The reason of a denial by such a rule: whoever stands limited was denied by us.
const DENIED_ALL: &str = "DenyAllAcl";

/// Characters of a kind of rule.
const MOST_RULE: usize = 24;

/// Reads lines of Kafka's authorizer log.
#[derive(Debug, Default)]
pub struct KafkaAuthorizer {
    operation: String,
}

impl KafkaAuthorizer {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let line = line.trim_ascii();
        let Some((head, message)) = line.split_once("Principal = ") else { return Err(Rejection::Foreign) };
        let (message, is_whole) = match message.strip_suffix(END) {
            Some(message) => (message, true),
            None if head.contains(LOGGER) => (message, false),
            // Of another logger, or cut off.
            None if message.contains(" on resource = ") || message.contains(" from host = ") => {
                return Err(Invalid::Syntax.into());
            }
            None => return Err(Rejection::Foreign),
        };
        let read = time_of(head)?;
        let decision = Decision::of(message)?;
        self.operation.clear();
        decision.write_operation(is_whole, &mut self.operation);
        let time = row.origin().time.unwrap_or(read);
        let ip = typed::address(decision.host.trim_start_matches('/'));
        row.push(EventDraft {
            start: time,
            report: time,
            kind: Kind::Request,
            reporter: Reporter::Destination,
            source: Party { principal: decision.caller(ip), ip, ..Party::default() },
            destination: Party { principal: "kafka", ..Party::default() },
            operation: &self.operation,
            outcome: if decision.is_allowed { Outcome::Success } else { Outcome::Refused },
            denial_reason: if decision.is_allowed { "" } else { clip(decision.rule) },
            ..EventDraft::default()
        })
    }
}

/// What the authorizer says.
#[derive(Debug, Clone, Copy)]
struct Decision<'a> {
    principal: &'a str,
    is_allowed: bool,
    operation: &'a str,
    host: &'a str,
    resource: &'a str,
    rule: &'a str,
}

impl<'a> Decision<'a> {
    fn of(message: &'a str) -> Result<Self, Invalid> {
        // The first match: a principal was authenticated, the name of a group is whatever its client says.
        let allowed = message.find(" is Allowed ");
        let denied = message.find(" is Denied ");
        let (is_allowed, verdict) = match (allowed, denied) {
            (Some(allowed), denied) if denied.is_none_or(|denied| allowed < denied) => (true, " is Allowed "),
            (_, Some(_)) => (false, " is Denied "),
            _ => return Err(Invalid::Syntax),
        };
        let (principal, rest) = message.split_once(verdict).ok_or(Invalid::Syntax)?;
        let rest = rest.strip_prefix("operation = ").or_else(|| rest.strip_prefix("Operation = "));
        let (operation, rest) = rest.and_then(|rest| rest.split_once(" from host = ")).ok_or(Invalid::Syntax)?;
        let (host, rest) = rest.split_once(" on resource = ").ok_or(Invalid::Syntax)?;
        let (resource, rest) = rest.split_once(" for request = ").unwrap_or((rest, ""));
        // `Topic:orders`: without its colon the type was cut off.
        if !resource.contains(':') {
            return Err(Invalid::Syntax);
        }
        // The last one: the name of a group, which its client chooses, is before it.
        let rule = rest.rsplit_once(" based on rule ").map_or("", |(_, rule)| rule);
        let denies_all = rule.starts_with("MatchingAcl(") && rule.trim_end_matches(')').ends_with(DENY_ALL);
        let rule = if denies_all { DENIED_ALL } else { word_of(rule) };
        Ok(Self { principal, is_allowed, operation, host, resource, rule })
    }

    /// `User:` is every principal's type. Who did not authenticate is an address.
    fn caller(&self, ip: &'a str) -> &'a str {
        let name = self.principal.strip_prefix("User:").unwrap_or(self.principal);
        if matches!(name, "" | "ANONYMOUS") { ip } else { name }
    }

    /// `READ Topic:orders`; without a name that may have been cut off, and without the pattern's type.
    fn write_operation(&self, is_whole: bool, out: &mut String) {
        out.extend(clip(self.operation).chars().map(|c| c.to_ascii_uppercase()));
        let (kind, name) = self.resource.split_once(':').unwrap_or((self.resource, ""));
        out.push(' ');
        out.push_str(word_of(kind));
        let name = ["LITERAL:", "PREFIXED:"].iter().find_map(|kind| name.strip_prefix(kind)).unwrap_or(name);
        if is_whole && !name.is_empty() {
            out.push(':');
            fold::append_path(name, out);
        }
    }
}

/// `DefaultDeny`, or `MatchingAcl` of `MatchingAcl(acl=…)`, which names the whole rule; nothing where it is no such word:
/// what stands in a line that was torn may be anybody's secret.
fn word_of(rule: &str) -> &str {
    let kind = rule.split(['(', ' ']).next().unwrap_or_default();
    let is_word = kind.len() <= MOST_RULE && kind.bytes().all(|byte| byte.is_ascii_alphabetic());
    if is_word { kind } else { "" }
}

/// `[2024-03-13 20:10:17,259] INFO ` as Kafka writes it, or `[INFO] 2022-02-18 02:18:56,766 [thread] …`.
fn time_of(head: &str) -> Result<qualm_model::time::Timestamp, Rejection> {
    let head = head.trim_ascii_start();
    let head = head.strip_prefix('[').unwrap_or(head);
    let from_digit = head.find(|c: char| c.is_ascii_digit()).map_or("", |at| &head[at..]);
    // Date and time of day are two words.
    let mut ends = from_digit.match_indices([' ', ']']).map(|(at, _)| at);
    let (Some(_), Some(end)) = (ends.next(), ends.next()) else { return Err(Rejection::Foreign) };
    zoneless(&from_digit[..end]).map_err(|invalid| match invalid {
        Invalid::WrongType => Rejection::Foreign,
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use qualm_model::{
        event::{EventBatch, EventBuilder, Position},
        identity::Provenance,
    };

    use super::*;

    fn parse(line: &str) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        KafkaAuthorizer::default().parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    const NEW: &str = "[2024-03-13 20:10:17,259] INFO Principal = User:cart is Denied operation = CREATE from host = 10.244.0.9 on resource = Topic:LITERAL:orders for request = CreateTopics with resourceRefCount = 1 based on rule DefaultDeny (kafka.authorizer.logger)";
    const OLD: &str = "[2018-01-12 21:13:18,454] INFO Principal = User:CN=client,OU=TEST,C=US is Denied Operation = Create from host = 172.23.0.7 on resource = Topic:orders (kafka.authorizer.logger)";

    #[test]
    fn of_a_rule_its_kind_is_kept_and_of_a_torn_line_nothing() {
        const SECRET: &str = "hvs.CAESIJ3Nc8Qw1x0vE7kq5mZt9Lr2Yb6UuFh";
        let torn = NEW.replace("DefaultDeny", &format!("Default{SECRET}"));
        let typed = NEW.replace("Topic:", &format!("To{SECRET}pic:"));
        assert!(!parse(&typed).expect("it is whole").event(0).operation().contains(SECRET));
        for (line, kind) in [(NEW, "DefaultDeny"), (OLD, ""), (torn.as_str(), "")] {
            let batch = parse(line).expect("it is whole");
            assert_eq!(batch.events().next().map(|event| event.denial_reason()), Some(kind), "{line}");
        }
    }

    #[test]
    fn a_rule_that_denies_everything_is_told_apart_and_not_by_the_name_of_a_group() {
        // As Kafka 4.1 writes it of a rule that the hook has made.
        let rule = "MatchingAcl(acl=StandardAcl(resourceType=TOPIC, resourceName=orders, patternType=LITERAL, principal=User:cart, host=*, operation=ALL, permissionType=DENY))";
        let reason = |line: &str| parse(line).expect("it is whole").event(0).denial_reason().to_owned();
        assert_eq!(reason(&NEW.replace("DefaultDeny", rule)), "DenyAllAcl");
        assert_eq!(reason(&NEW.replace("DefaultDeny", &rule.replace("=ALL", "=READ"))), "MatchingAcl");
        let group = format!("Group:LITERAL:x for request = y based on rule {rule}");
        assert_eq!(reason(&NEW.replace("Topic:LITERAL:orders", &group)), "DefaultDeny");
    }

    #[test]
    fn both_wordings_say_the_same() {
        let (new, old) = (parse(NEW).expect("an event"), parse(OLD).expect("an event"));
        assert_eq!(new.event(0).operation(), old.event(0).operation());
        assert_eq!((new.event(0).outcome(), new.event(0).denial_reason()), (Outcome::Refused, "DefaultDeny"));
        assert_eq!(old.event(0).source().principal(), "CN=client,OU=TEST,C=US");
        let provenance = |batch: &EventBatch| batch.event(0).source().provenance();
        // A name that looks like a certificate's may be one of a password's.
        assert_eq!((provenance(&new), provenance(&old)), (Provenance::Name, Provenance::Name));
    }

    #[test]
    fn the_name_of_a_group_cannot_forge_another_decision() {
        let group = "x is Allowed operation = READ from host = 1.2.3.4 on resource = Topic:LITERAL:y";
        let batch = parse(&NEW.replace("Topic:LITERAL:orders", &format!("Group:LITERAL:{group}"))).expect("an event");
        assert_eq!((batch.event(0).outcome(), batch.event(0).source().ip()), (Outcome::Refused, "10.244.0.9"));
    }

    #[test]
    fn who_did_not_authenticate_is_an_address() {
        let batch = parse(&NEW.replace("User:cart", "User:ANONYMOUS")).expect("an event");
        assert_eq!(batch.event(0).source().principal(), "10.244.0.9");
    }

    #[test]
    fn the_brokers_own_lines_are_foreign() {
        let line = "[2024-03-13 20:10:17,259] INFO [KafkaServer id=1] started (kafka.server.KafkaServer)";
        assert_eq!(parse(line).err(), Some(Rejection::Foreign));
    }
}
