//! `qualm demo`, the real binary: somebody is denied and acknowledged, the honest deployment costs nothing.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn the_demo_denies_an_attacker_and_leaves_the_deployment_alone() {
    let output = Command::new(env!("CARGO_BIN_EXE_qualm")).arg("demo").output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{said}");
    assert!(!shown.contains('\u{1b}'), "no escape sequences where there is no terminal");

    let quarantined = shown.lines().position(|line| line.contains("→ quarantined"));
    let quarantined = quarantined.unwrap_or_else(|| panic!("nobody was quarantined\n{shown}"));
    let after: Vec<&str> = shown.lines().skip(quarantined).collect();
    assert!(after.iter().any(|line| line.contains("acknowledged") && line.contains("version")), "{shown}");
    assert!(after.iter().any(|line| line.contains("403, policy qualm-deny/")), "{shown}");

    let attacked = shown.lines().filter(|line| line.starts_with("  attack "));
    let denied = attacked.filter(|line| line.contains("quarantined") && !line.contains(" 0 denied"));
    assert!(denied.count() > 0, "{shown}");
    let deployment = shown.lines().find(|line| line.contains("deployment") && line.starts_with("  honest"));
    assert!(deployment.is_some_and(|line| line.contains("it cost nothing")), "{shown}");
}
