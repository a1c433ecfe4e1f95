//! Labels: what was done when, and by whom.

use std::io::{self, Write};

use crate::calendar::Millis;

/// One attack or honest change, as `qualm backtest --labels` reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// When its first call begins, or the change takes place.
    pub start: Millis,
    /// No call of it begins after this.
    pub end: Millis,
    /// Its kind in snake case.
    pub kind: &'static str,
    /// SPIFFE IDs that act in it.
    pub identities: Vec<String>,
    /// MITRE ATT&CK technique, for an attack.
    pub technique: Option<&'static str>,
    /// Intensity and pace of an attack, 1 being usual.
    pub strength: Option<(f64, f64)>,
}

impl Label {
    /// Appends the label as one JSON line: `start end kind identities`, for an attack also
    /// `technique intensity pace`.
    pub fn push_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"start\":\"");
        self.start.push_rfc3339(out);
        out.extend_from_slice(b"\",\"end\":\"");
        self.end.push_rfc3339(out);
        out.extend_from_slice(b"\",\"kind\":\"");
        out.extend_from_slice(self.kind.as_bytes());
        out.extend_from_slice(b"\",\"identities\":[");
        for (number, identity) in self.identities.iter().enumerate() {
            out.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
            out.extend_from_slice(identity.as_bytes());
            out.push(b'"');
        }
        out.push(b']');
        if let Some(technique) = self.technique {
            out.extend_from_slice(b",\"technique\":\"");
            out.extend_from_slice(technique.as_bytes());
            out.push(b'"');
        }
        if let Some((intensity, pace)) = self.strength {
            out.extend_from_slice(format!(",\"intensity\":{intensity:.3},\"pace\":{pace:.3}").as_bytes());
        }
        out.extend_from_slice(b"}\n");
    }
}

/// Writes labels as JSON lines.
///
/// # Errors
/// Whatever `out` fails with.
pub fn write_labels(labels: &[Label], mut out: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    for label in labels {
        line.clear();
        label.push_json(&mut line);
        out.write_all(&line)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_line_of_json_with_the_keys_of_the_contract() {
        let label = Label {
            start: Millis(0),
            end: Millis(60_000),
            kind: "peer_scan",
            identities: vec!["spiffe://mesh.test/ns/shop/sa/cart".into(), "b".into()],
            technique: Some("T1046"),
            strength: Some((0.5, 2.0)),
        };
        let mut out = Vec::new();
        write_labels(&[label], &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["start"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["end"], "1970-01-01T00:01:00.000Z");
        assert_eq!(value["kind"], "peer_scan");
        assert_eq!(value["identities"][1], "b");
        assert_eq!(value["technique"], "T1046");
        assert_eq!((&value["intensity"], &value["pace"]), (&0.5.into(), &2.0.into()));
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
    }
}
