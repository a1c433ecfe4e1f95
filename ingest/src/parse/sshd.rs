//! sshd's log, in `auth.log` or `secure`: logins, failed ones, and attempts on users that do not exist.
//!
//! RFC 3164's times have neither a year nor a zone. Where the envelope tells when the line was written that is its
//! time. Else it is UTC of the latest year in which it is at most a day ahead of its arrival; where no arrival is known
//! (`backtest`) it is 1972, the first leap year after 1970, and one year more whenever the months begin anew.
//!
//! Who failed to log in to an account that exists is told as that account; a name that nobody has is not one of a
//! caller, who then is an address. An attempt is counted once, though sshd may write several lines of it: `Invalid
//! user` and `Failed password`, or the end of a connection before anybody was authenticated.

use std::collections::{HashSet, VecDeque};

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    time::{Span, Timestamp},
};

use super::{
    Row, clip,
    time::{rfc3339, zoneless},
    typed,
};
use crate::source::{Invalid, Rejection};

/// The first leap year that a timestamp can have: 29 February is a day of it.
const YEAR_UNKNOWN: i32 = 1972;
/// Connections whose attempt has been told; the oldest is forgotten first.
const MAX_CONNECTIONS: usize = 4096;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Base64 of a SHA-256 without padding.
const SHA256_BYTES: usize = 43;
/// An MD5 in pairs of hexadecimal digits, as older releases write it.
const MD5_BYTES: usize = 47;

/// Reads lines of sshd.
#[derive(Debug)]
pub struct Sshd {
    told: HashSet<u64, foldhash::fast::FixedState>,
    order: VecDeque<u64>,
    /// Month and year of the line before, where no arrival is known.
    reached: (usize, i32),
}

impl Default for Sshd {
    fn default() -> Self {
        Self { told: HashSet::default(), order: VecDeque::new(), reached: (0, YEAR_UNKNOWN) }
    }
}

/// The parts of a line of syslog.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    time: &'a str,
    host: &'a str,
    process: &'a str,
    message: &'a str,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Accepted,
    Failed,
    /// For a user that does not exist, before anything was tried.
    Unknown,
    /// The connection ended before anybody was authenticated.
    Left,
}

/// What a line says of an attempt.
#[derive(Debug, Clone, Copy)]
struct Login<'a> {
    attempt: Attempt,
    method: &'a str,
    user: &'a str,
    exists: bool,
    ip: &'a str,
    key: &'a str,
}

impl Sshd {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let line = Line::of(line.trim_ascii()).ok_or(Rejection::Foreign)?;
        let login = Login::of(line.message)?.ok_or(Rejection::Foreign)?;
        let time = match (row.origin().time, line.time.starts_with(|c: char| c.is_ascii_digit())) {
            (_, true) => iso(line.time)?,
            (Some(time), false) => time,
            (None, false) => self.dated(line.time, row.arrival())?,
        };
        if !self.is_news(&line, login) {
            return Err(Rejection::Part);
        }
        row.push(EventDraft {
            start: time,
            report: time,
            kind: Kind::Authentication,
            reporter: Reporter::Destination,
            source: Party {
                principal: if login.exists { login.user } else { login.ip },
                ip: login.ip,
                ..Party::default()
            },
            destination: Party { principal: clip(line.host), ..Party::default() },
            hostname: clip(line.host),
            operation: "ssh",
            outcome: if login.attempt == Attempt::Accepted { Outcome::Success } else { Outcome::Refused },
            denial_reason: login.reason(),
            credential: login.key,
            auth_method: clip(login.method),
            ..EventDraft::default()
        })
    }

    /// Whether the attempt has not been told yet. A second password is a second attempt.
    fn is_news(&mut self, line: &Line<'_>, login: Login<'_>) -> bool {
        use std::hash::BuildHasher as _;
        let connection = foldhash::fast::FixedState::default().hash_one((line.host, line.process));
        match login.attempt {
            Attempt::Accepted => true,
            // The line of the attempt that `Invalid user` began.
            Attempt::Failed if !login.exists => {
                let was_told = self.told.remove(&connection);
                self.tell(connection ^ 1);
                !was_told
            }
            Attempt::Failed | Attempt::Unknown => {
                self.tell(connection);
                true
            }
            Attempt::Left => !self.told.contains(&connection) && !self.told.contains(&(connection ^ 1)),
        }
    }

    fn tell(&mut self, connection: u64) {
        if !self.told.insert(connection) {
            return;
        }
        self.order.push_back(connection);
        if self.order.len() > MAX_CONNECTIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
    }

    /// The instant of `Dec 10 06:55:48`.
    fn dated(&mut self, text: &str, arrival: Option<Timestamp>) -> Result<Timestamp, Rejection> {
        let (month, rest) = text.split_once(' ').ok_or(Rejection::Foreign)?;
        let month = MONTHS.iter().position(|name| *name == month).ok_or(Rejection::Foreign)?;
        let (day, clock) = rest.trim_ascii_start().split_once(' ').ok_or(Rejection::Foreign)?;
        let of_year = |year: i32| zoneless(&format!("{year:04}-{:02}-{day:0>2} {clock}", month + 1));
        let Some(arrival) = arrival else {
            // From December to January, and not back by a line that came late.
            if month + 6 < self.reached.0 {
                self.reached.1 += 1;
            }
            self.reached.0 = month;
            return Ok(of_year(self.reached.1)?);
        };
        let now = jiff::Timestamp::from_nanosecond(arrival.0.into()).map_err(|_| Invalid::ImpossibleTime)?;
        let year = i32::from(now.to_zoned(jiff::tz::TimeZone::UTC).year());
        let latest = arrival + Span::DAY;
        // 29 February of a year that has none is one of the year before, or of none.
        let fits = |year: &i32| of_year(*year).is_ok_and(|time| time <= latest);
        let year = (year - 4..=year + 1).rev().find(fits).unwrap_or(year);
        Ok(of_year(year)?)
    }
}

impl<'a> Line<'a> {
    /// `Dec 10 06:55:48 host sshd[24200]: …`, the same with an ISO time, and RFC 5424's `<86>1 time host sshd 24200 - - …`.
    fn of(line: &'a str) -> Option<Self> {
        let priority = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        let priority = priority.filter(|(digits, _)| !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()));
        let rest = priority.map_or(line, |(_, rest)| rest);
        if let Some(rest) = priority.and_then(|_| rest.strip_prefix("1 ")) {
            let mut fields = rest.splitn(6, ' ');
            let (time, host, program) = (fields.next()?, fields.next()?, fields.next()?);
            let (process, _id, data) = (fields.next()?, fields.next()?, fields.next()?);
            let message = data.strip_prefix("- ").or_else(|| data.split_once("] ").map(|(_, message)| message))?;
            return is_sshd(program).then_some(Self { time, host, process, message });
        }
        let is_iso = rest.as_bytes().first()?.is_ascii_digit();
        let (time, rest) = if is_iso { rest.split_once(' ')? } else { rest.split_at_checked("Dec 10 06:55:48".len())? };
        let (host, rest) = rest.trim_ascii_start().split_once(' ')?;
        let (tag, message) = rest.split_once(": ")?;
        let (program, process) = tag.split_once('[')?;
        is_sshd(program).then_some(Self { time, host, process: process.strip_suffix(']')?, message })
    }
}

impl<'a> Login<'a> {
    /// Nothing where the line is of something else.
    fn of(message: &'a str) -> Result<Option<Self>, Invalid> {
        let (attempt, rest) = if let Some(rest) = message.strip_prefix("Accepted ") {
            (Attempt::Accepted, rest)
        } else if let Some(rest) = message.strip_prefix("Failed ") {
            (Attempt::Failed, rest)
        } else if let Some(rest) = message.strip_prefix("Invalid user ") {
            return Self::unknown(rest).map(Some);
        } else {
            return Ok(Self::left(message));
        };
        let (method, rest) = rest.split_once(" for ").ok_or(Invalid::Syntax)?;
        let (exists, rest) = rest.strip_prefix("invalid user ").map_or((true, rest), |rest| (false, rest));
        // The last match: what stands before it is the name, which is whatever the client says.
        let (head, tail) = rest.rsplit_once(" ssh2").ok_or(Invalid::Syntax)?;
        let (user, ip) = user_and_address(head)?;
        let key = fingerprint(method, tail)?;
        Ok(Some(Self { attempt, method, user, exists, ip, key }))
    }

    /// `webmaster from 173.234.31.186 port 38926`; older releases end at the address.
    fn unknown(rest: &'a str) -> Result<Self, Invalid> {
        let (user, ip) = match user_and_address(rest) {
            Ok(found) => found,
            Err(_) => rest.rsplit_once(" from ").ok_or(Invalid::Syntax)?,
        };
        if typed::address(ip).is_empty() {
            return Err(Invalid::Syntax);
        }
        Ok(Self { attempt: Attempt::Unknown, method: "", user, exists: false, ip, key: "" })
    }

    /// `Connection closed by authenticating user root 10.0.0.7 port 51000 [preauth]`.
    fn left(message: &'a str) -> Option<Self> {
        let rest = message.strip_suffix(" [preauth]")?;
        let begins = ["Connection closed by ", "Connection reset by ", "Disconnected from "];
        let rest = begins.iter().find_map(|begin| rest.strip_prefix(begin))?;
        let (exists, rest) = match rest.strip_prefix("invalid user ") {
            Some(rest) => (false, rest),
            None => (true, rest.strip_prefix("authenticating user ")?),
        };
        let (head, _port) = rest.rsplit_once(" port ")?;
        let (user, ip) = head.rsplit_once(' ')?;
        (!typed::address(ip).is_empty()).then_some(Self {
            attempt: Attempt::Left,
            method: "",
            user,
            exists,
            ip,
            key: "",
        })
    }

    fn reason(&self) -> &'static str {
        match (self.attempt, self.exists) {
            (Attempt::Accepted, _) => "",
            (_, false) => "invalid user",
            (Attempt::Left, true) => "left before authentication",
            (_, true) => "failed",
        }
    }
}

fn is_sshd(program: &str) -> bool {
    matches!(program.rsplit('/').next(), Some("sshd" | "sshd-session" | "sshd-auth"))
}

/// `alice from 10.0.0.7 port 51000`. A port that was cut off is not read.
fn user_and_address(text: &str) -> Result<(&str, &str), Invalid> {
    let (head, port) = text.rsplit_once(" port ").ok_or(Invalid::Syntax)?;
    let (user, ip) = head.rsplit_once(" from ").ok_or(Invalid::Syntax)?;
    let is_port = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
    if user.is_empty() || !is_port || typed::address(ip).is_empty() {
        return Err(Invalid::Syntax);
    }
    Ok((user, ip))
}

/// The fingerprint of `: ED25519 SHA256:…`; of a certificate also that of its authority must be whole.
fn fingerprint<'a>(method: &str, tail: &'a str) -> Result<&'a str, Invalid> {
    let Some(key) = tail.strip_prefix(": ") else {
        // Every release that is still in use names the key.
        let is_key = method == "publickey" || method == "hostbased";
        return if is_key || !tail.is_empty() { Err(Invalid::Syntax) } else { Ok("") };
    };
    let mut words = key.split(' ');
    let (kind, print) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let last = key.rsplit(' ').next().unwrap_or_default();
    let is_whole = |text: &str| match text.strip_prefix("SHA256:") {
        Some(hash) => hash.len() == SHA256_BYTES,
        None => text.strip_prefix("MD5:").unwrap_or(text).len() == MD5_BYTES,
    };
    let names_authority = !kind.ends_with("-CERT") || key.contains(" CA ");
    if is_whole(print) && is_whole(last) && names_authority { Ok(print) } else { Err(Invalid::Syntax) }
}

/// RFC 3339, also with `+0100` as some daemons write the zone.
fn iso(text: &str) -> Result<Timestamp, Rejection> {
    match rfc3339(text) {
        Err(Invalid::WrongType) => {}
        read => return Ok(read?),
    }
    let at = text.len().saturating_sub(2);
    let with_colon = text.is_char_boundary(at).then(|| format!("{}:{}", &text[..at], &text[at..]));
    rfc3339(&with_colon.unwrap_or_default()).map_err(|_| Rejection::Foreign)
}

#[cfg(test)]
mod tests {
    use qualm_model::{
        event::{EventBatch, EventBuilder, Position},
        identity::Provenance,
    };

    use super::*;

    fn parse_at(format: &mut Sshd, line: &str, arrival: Option<&str>) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        let arrival = arrival.map(|time| rfc3339(time).expect("a time"));
        format.parse(line, &mut Row::new(&mut builder, Position::default(), arrival))?;
        Ok(builder.finish())
    }

    fn parse(line: &str) -> Result<EventBatch, Rejection> {
        parse_at(&mut Sshd::default(), line, None)
    }

    const FAILED: &str =
        "Dec 10 06:55:48 LabSZ sshd[24200]: Failed password for root from 173.234.31.186 port 38926 ssh2";
    const KEY: &str = "2026-11-22T02:02:24.122+00:00 web-1 sshd[77]: Accepted publickey for alice from 10.0.0.7 port 51000 ssh2: ED25519 SHA256:AAAAC3NzaC1lZDI1NTE5AAAAIJ0aBcDeFgHiJkLmNoP";

    #[test]
    fn a_login_is_the_hosts_word_and_no_verified_caller_whatever_was_shown() {
        let accepted = KEY.replace("ED25519 SHA256", "ED25519-CERT SHA256");
        let accepted =
            format!("{accepted} ID alice (serial 7) CA RSA SHA256:AAAAC3NzaC1lZDI1NTE5AAAAIJ0aBcDeFgHiJkLmNoP");
        let failed = accepted.replace("Accepted", "Failed");
        for line in [accepted, failed] {
            let batch = parse(&line).expect("an event");
            assert_eq!(batch.event(0).source().provenance(), Provenance::Name, "{line}");
        }
    }

    #[test]
    fn a_year_that_is_not_told_is_the_latest_that_has_been() {
        let year = |arrival| {
            let batch = parse_at(&mut Sshd::default(), FAILED, Some(arrival)).expect("an event");
            jiff::Timestamp::from_nanosecond(batch.event(0).start().0.into()).expect("in range").to_string()
        };
        assert_eq!(year("2026-12-10T07:00:00Z"), "2026-12-10T06:55:48Z");
        assert_eq!(year("2027-01-02T00:00:00Z"), "2026-12-10T06:55:48Z");
        assert_eq!(year("2026-12-10T06:55:00Z"), "2026-12-10T06:55:48Z");
    }

    #[test]
    fn where_no_arrival_is_known_the_years_go_on() {
        let mut format = Sshd::default();
        let mut seconds = |line: &str| {
            let batch = parse_at(&mut format, line, None).expect("an event");
            batch.event(0).start().0 / 1_000_000_000
        };
        let december = seconds(FAILED);
        let january = seconds(&FAILED.replace("Dec 10", "Jan  2"));
        assert_eq!((january - december) / 86_400, 23);
        assert!(parse(&FAILED.replace("Dec 10", "Feb 30")).is_err_and(|why| why == Invalid::ImpossibleTime.into()));
        assert!(parse(&FAILED.replace("Dec 10", "Feb 29")).is_ok());
    }

    #[test]
    fn an_attempt_is_counted_once() {
        let mut format = Sshd::default();
        let mut is_event = |message: &str| {
            let line = format!("Dec 10 06:55:46 LabSZ sshd[1]: {message}");
            match parse_at(&mut format, &line, None) {
                Ok(batch) => batch.len() == 1,
                Err(why) => {
                    assert_eq!(why, Rejection::Part, "{message}");
                    false
                }
            }
        };
        assert!(is_event("Invalid user webmaster from 173.234.31.186"));
        assert!(!is_event("Failed password for invalid user webmaster from 173.234.31.186 port 38926 ssh2"));
        assert!(is_event("Failed password for invalid user webmaster from 173.234.31.186 port 38926 ssh2"));
        assert!(!is_event("Connection closed by invalid user webmaster 173.234.31.186 port 38926 [preauth]"));
    }

    #[test]
    fn a_name_cannot_forge_an_address() {
        let forged = FAILED.replace("for root", "for invalid user root from 9.9.9.9 port 1 ssh2");
        assert_eq!(parse(&forged).expect("an event").event(0).source().ip(), "173.234.31.186");
    }

    #[test]
    fn a_key_is_known_by_its_whole_fingerprint() {
        let batch = parse(KEY).expect("an event");
        assert_eq!((batch.event(0).source().principal(), batch.event(0).credential().len()), ("alice", 50));
        assert_eq!(parse(&KEY[..KEY.len() - 1]).err(), Some(Invalid::Syntax.into()));
        let uncertified = KEY.replace("ED25519 ", "ED25519-CERT ");
        assert_eq!(parse(&uncertified).err(), Some(Invalid::Syntax.into()));
        let certified = format!("{uncertified} ID alice (serial 7) CA ED25519 {}", &KEY[KEY.len() - 50..]);
        assert_eq!(parse(&certified).expect("an event").event(0).source().principal(), "alice");
    }
}
