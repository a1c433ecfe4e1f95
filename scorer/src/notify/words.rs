//! A question's numbers, in words a person reads: `made 41 calls in a minute`, usual `3`.

use qualm_model::{
    detector::{Deviation, Question},
    identity::Hierarchy,
};

use super::{finding::Reason, message::plain};
use crate::familiar::Familiar;

impl Reason {
    /// Puts one question's answer into words. `bits` are its share of the evidence.
    pub fn of(
        question: Question,
        bits: f64,
        (deviation, usual): (&Deviation, Option<(f64, f64)>),
        familiar: Option<Familiar>,
        (destination, operation): (Option<&str>, Option<&str>),
    ) -> Self {
        let (observed, expected) = words(question, deviation, destination, operation);
        let range = usual.map_or_else(String::new, |(low, high)| range(question, low, high));
        Self {
            detector: question.name().to_owned(),
            bits,
            observed,
            expected,
            n: deviation.n,
            range,
            familiar,
            destination: destination.map(str::to_owned),
            operation: operation.map(str::to_owned),
        }
    }
}

fn words(
    question: Question,
    deviation: &Deviation,
    destination: Option<&str>,
    operation: Option<&str>,
) -> (String, String) {
    let whom = destination.map_or("others".to_owned(), |destination| plain(Hierarchy::of(destination).service));
    let what = operation.map_or("an operation".to_owned(), plain);
    let Deviation { observed, expected, .. } = *deviation;
    let usual = number(expected);
    let unusual = |deed: String| (deed, String::new());
    match question {
        Question::RareSource => unusual(format!("called {whom}, though it hardly ever calls anything")),
        Question::RarePeer if observed < 1.0 => unusual(format!("called {whom} for the first time")),
        Question::RarePeer => unusual(format!("called {whom}, which it has called {} before", times(observed))),
        Question::RareDestination => unusual(format!("called {whom}, which hardly anything calls")),
        Question::StrangePeer => {
            unusual(format!("called {whom} for the first time, and it hardly ever calls anybody new"))
        }
        Question::NewOperation => unusual(format!("used {what} at {whom} for the first time")),
        Question::NewCredential => unusual("showed a credential not seen of it before".to_owned()),
        Question::NewFingerprint => unusual("spoke through a TLS client not seen of it before".to_owned()),
        Question::RareOperation => unusual(format!("used {what} at {whom}, which hardly anybody uses")),
        Question::NewNetwork => unusual("called from a network not seen before".to_owned()),
        Question::LoneReplica => (format!("did something new {} from one replica alone", times_done(observed)), usual),
        Question::Failing => (format!("had {} of its calls fail", percent(observed)), percent(expected)),
        Question::Refused => (format!("was refused in {} of its calls", percent(observed)), percent(expected)),
        Question::Rate1m => (format!("made {} in a minute", counted(observed, "call")), usual),
        Question::Rate10m => (format!("made {} in ten minutes", counted(observed, "call")), usual),
        Question::Rate1h => (format!("made {} in an hour", counted(observed, "call")), usual),
        Question::EdgeRate => (format!("made {} to {whom} in ten minutes", counted(observed, "call")), usual),
        Question::OperationRate => {
            (format!("used {what} at {whom} {} in ten minutes", counted(observed, "time")), usual)
        }
        Question::DestinationRate => {
            (format!("called {whom} while that got {} in a minute", counted(observed, "call")), usual)
        }
        Question::Spread10m => (format!("called {} in ten minutes", counted(observed, "new peer")), usual),
        Question::Spread1h => (format!("called {} in an hour", counted(observed, "new peer")), usual),
        Question::FanIn => {
            (format!("called {whom} while that got {} in ten minutes", counted(observed, "new caller")), usual)
        }
        Question::Bigger => (format!("moved {} in one call to {whom}", bytes(observed)), bytes(expected)),
        Question::Oversized => {
            (format!("made {} to {whom} in ten minutes", counted(observed, "unusually big call")), usual)
        }
        Question::Longer => (format!("kept a call to {whom} open for {}", duration(observed)), duration(expected)),
        Question::Silence => (format!("made {} in ten minutes", counted(observed, "call")), usual),
        Question::Lull => (format!("was silent{}", lasting(observed)), format!("at most{}", lasting(expected))),
        Question::Rhythm if observed.is_finite() => unusual(format!(
            "called {whom}, which is new to it and hardly anybody calls, every {}",
            duration(observed * 1e6)
        )),
        Question::Rhythm => unusual(format!("called {whom}, which is new to it and hardly anybody calls, in a rhythm")),
        Question::AfterRevocation => {
            unusual(format!("used a credential at {whom}{} after it was taken back", later(observed)))
        }
        Question::AfterExpiry => unusual(format!("used a credential at {whom}{} after it had ended", later(observed))),
        Question::BeforeIssuance => {
            unusual(format!("used a credential at {whom}{} before it was to be", later(observed)))
        }
        Question::NeverIssued => unusual(format!("used a credential at {whom} that its issuer never gave out")),
        Question::OutsideSharing => {
            unusual(format!("used a credential at {whom} from where none of those who share it are"))
        }
        Question::NoCertificate => unusual(format!("called {whom} without the certificate that all others show")),
        Question::LoginElsewhere => unusual(format!(
            "logged in to {whom} from elsewhere after {}",
            if observed.is_finite() { counted(observed, "failed login") } else { "failed logins".to_owned() }
        )),
        Question::UnlikePeers => unusual(format!(
            "did in ten minutes what lies {} times as far from its usual ten minutes as those of its peers do, calls, peers, \
             operations, failures, sizes and lengths taken together",
            number(observed)
        )),
        Question::Unwitnessed => {
            (format!("made {} to {whom} that only one of the two proxies reported", counted(observed, "call")), usual)
        }
    }
}

/// From where to where, in the unit that the question is asked in.
fn range(question: Question, low: f64, high: f64) -> String {
    let (low, high) = match question {
        Question::Bigger => (bytes(low), bytes(high)),
        Question::Longer => (duration(low), duration(high)),
        Question::Failing | Question::Refused => (percent(low), percent(high)),
        _ => (number(low), number(high)),
    };
    match (low.is_empty() || high.is_empty(), low == high) {
        (true, _) => String::new(),
        (false, true) => low,
        (false, false) => format!("{low} to {high}"),
    }
}

/// A count or mean with no more digits than anybody wants; empty where there is none.
fn number(value: f64) -> String {
    if !value.is_finite() {
        String::new()
    } else if value >= 10.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if value >= 0.1 {
        format!("{value:.1}")
    } else {
        "hardly any".to_owned()
    }
}

/// `1 call`, `2 calls`, `hardly any calls`.
fn counted(count: f64, what: &str) -> String {
    match number(count).as_str() {
        "1" => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

fn times(count: f64) -> String {
    if !count.is_finite() {
        "rarely".to_owned()
    } else if count < 1.5 {
        "only once".to_owned()
    } else {
        format!("only {count:.0} times")
    }
}

/// ` for 12 min`.
fn lasting(seconds: f64) -> String {
    let lasting = later(seconds);
    if lasting.is_empty() { " for longer than usual".to_owned() } else { format!(" for{lasting}") }
}

/// How much later; empty where that is not known.
fn later(seconds: f64) -> String {
    match seconds {
        seconds if !seconds.is_finite() => String::new(),
        seconds if seconds < 120.0 => format!(" {}", scaled(seconds.max(1.0), "s")),
        seconds if seconds < 7200.0 => format!(" {}", scaled(seconds / 60.0, "min")),
        seconds if seconds < 172_800.0 => format!(" {}", scaled(seconds / 3600.0, "h")),
        seconds => format!(" {}", counted(seconds / 86_400.0, "day")),
    }
}

/// `once`, `12 times`.
fn times_done(count: f64) -> String {
    match number(count).as_str() {
        "" => "again and again".to_owned(),
        "1" => "once".to_owned(),
        number => format!("{number} times"),
    }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        value if !value.is_finite() => String::new(),
        value if value > 0.0 && value < 1.0 => "less than 1 %".to_owned(),
        value => format!("{value:.0} %"),
    }
}

fn bytes(value: f64) -> String {
    in_units(value, 1024.0, &["bytes", "KiB", "MiB", "GiB", "TiB"])
}

fn duration(microseconds: f64) -> String {
    if microseconds >= 1e6 { scaled(microseconds / 1e6, "s") } else { in_units(microseconds, 1000.0, &["µs", "ms"]) }
}

fn in_units(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter().copied().peekable();
    let mut unit = units.next().unwrap_or_default();
    while value >= step && units.peek().is_some() {
        value /= step;
        unit = units.next().unwrap_or(unit);
    }
    scaled(value, unit)
}

fn scaled(value: f64, unit: &str) -> String {
    match number(value) {
        one if one == "1" => format!("1 {}", if unit == "bytes" { "byte" } else { unit }),
        number if number.is_empty() => number,
        number => format!("{number} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(question: Question, observed: f64, expected: f64) -> String {
        let deviation = Deviation { x: 2.0, observed, expected, n: 100.0 };
        let reason = Reason::of(
            question,
            9.0,
            (&deviation, None),
            None,
            (Some("spiffe://mesh.test/ns/bank/sa/payments"), Some("GET /cards/{id}")),
        );
        format!("{} | {}", reason.observed, reason.expected)
    }

    #[test]
    fn each_answer_reads_as_a_sentence_after_the_name() {
        assert_eq!(said(Question::RarePeer, 0.0, f64::NAN), "called payments for the first time | ");
        assert_eq!(
            said(Question::RarePeer, 3.2, f64::NAN),
            "called payments, which it has called only 3 times before | "
        );
        assert_eq!(said(Question::NewOperation, 1.0, 0.001), "used GET /cards/{id} at payments for the first time | ");
        assert_eq!(said(Question::Rate1m, 41.0, 2.96), "made 41 calls in a minute | 3.0");
        assert_eq!(said(Question::Spread10m, 7.0, 0.004), "called 7 new peers in ten minutes | hardly any");
        assert_eq!(said(Question::Rate10m, 1.0, 0.004), "made 1 call in ten minutes | hardly any");
        assert_eq!(said(Question::Spread1h, 1.0, 0.2), "called 1 new peer in an hour | 0.2");
        assert_eq!(said(Question::FanIn, 1.0, 0.2), "called payments while that got 1 new caller in ten minutes | 0.2");
        assert_eq!(said(Question::Silence, 0.0, 40.0), "made 0 calls in ten minutes | 40");
        assert_eq!(said(Question::Lull, 10_800.0, 1_800.0), "was silent for 3 h | at most for 30 min");
        assert_eq!(said(Question::Bigger, 1.0, 2.0), "moved 1 byte in one call to payments | 2 bytes");
        assert_eq!(said(Question::Failing, 0.8, 0.002), "had 80 % of its calls fail | less than 1 %");
        assert_eq!(said(Question::Bigger, 734_003_200.0, 20_480.0), "moved 700 MiB in one call to payments | 20 KiB");
        assert_eq!(
            said(Question::AfterExpiry, 3600.0 * 30.0, 0.0),
            "used a credential at payments 30 h after it had ended | "
        );
        assert_eq!(
            said(Question::LoginElsewhere, 4.0, 0.0),
            "logged in to payments from elsewhere after 4 failed logins | "
        );
        assert_eq!(
            said(Question::Rhythm, 23.0, f64::NAN),
            "called payments, which is new to it and hardly anybody calls, every 23 s | "
        );
        assert_eq!(said(Question::Longer, 90e6, 12_500.0), "kept a call to payments open for 90 s | 12 ms");
    }

    #[test]
    fn what_is_usual_has_a_range_in_its_own_unit() {
        assert_eq!(range(Question::Rate1m, 0.0, 12.0), "0 to 12");
        assert_eq!(range(Question::Bigger, 512.0, 20_480.0), "512 bytes to 20 KiB");
        assert_eq!(range(Question::Failing, 0.0, 0.043), "0 % to 4 %");
        assert_eq!(range(Question::Spread1h, 0.0, 0.0), "0");
    }

    #[test]
    fn every_question_has_words_also_where_numbers_are_missing() {
        for question in Question::ALL {
            let none = Deviation { x: 2.0, observed: f64::NAN, expected: f64::NAN, n: 0.0 };
            let reason = Reason::of(question, 1.0, (&none, Some((f64::NAN, f64::NAN))), None, (None, None));
            assert!(!reason.observed.is_empty() && !reason.observed.contains("NaN"), "{question:?}: {reason:?}");
            assert!(!reason.expected.contains("NaN") && reason.range.is_empty(), "{question:?}: {reason:?}");
        }
    }
}
