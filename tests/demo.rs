//! `qualm demo`, the real binary: attackers are found, the gate acknowledges and drops their calls.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn the_demo_finds_attackers_really_drops_their_calls_and_leaves_an_honest_deployment_alone() {
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

    let attacks: Vec<&str> = shown.lines().filter(|line| line.starts_with("  attack ")).collect();
    assert_eq!(attacks.len(), 5, "{shown}");
    for attack in &attacks {
        assert!(attack.contains("found after") && !attack.contains(" 0 denied"), "{attack}\n{shown}");
    }
    let goes_on = |attack: &&str| attack.contains("restricted after") || attack.contains("quarantined after");
    assert!(attacks.iter().any(goes_on), "who goes on is limited further\n{shown}");
    let honest = shown.lines().find(|line| line.starts_with("  honest ") && line.contains("deployment"));
    assert!(honest.is_some_and(|line| line.contains("never above watched")), "{shown}");
}
