//! `qualm demo`, the real binary: attackers are found, the gate acknowledges and drops their calls.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn the_demo_finds_attackers_and_really_drops_their_calls() {
    let output = Command::new(env!("CARGO_BIN_EXE_qualm")).arg("demo").output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{said}");
    assert!(!shown.contains('\u{1b}'), "no escape sequences where there is no terminal");

    let acted = |line: &str| ["→ throttled", "→ restricted", "→ quarantined"].iter().any(|step| line.contains(step));
    let first = shown.lines().position(acted).unwrap_or_else(|| panic!("nobody was limited\n{shown}"));
    let after: Vec<&str> = shown.lines().skip(first).collect();
    assert!(after.iter().any(|line| line.contains("acknowledged") && line.contains("version")), "{shown}");
    assert!(after.iter().any(|line| line.contains("403, policy qualm-deny/")), "{shown}");

    let mut attacked = shown.lines().filter(|line| line.starts_with("  attack "));
    assert!(attacked.any(|line| line.contains("found after") && !line.contains(" 0 denied")), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("  honest ") && line.contains("deployment")), "{shown}");
}
