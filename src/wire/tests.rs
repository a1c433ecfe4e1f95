use qualm_scorer::enforce::xds::policy::RESOURCES;

use super::*;
use crate::config::Config;

fn namespace(word: &str) -> Namespace {
    word.parse().expect("a namespace")
}

/// Every text that can be printed.
fn texts(of: &Namespace) -> Vec<(Target, Way, String)> {
    let ways = |target: &Target| [Way::In, Way::Back].map(|way| (*target, way, target.text(way, of)));
    Target::value_variants().iter().flat_map(ways).collect()
}

#[test]
fn every_text_begins_with_what_it_is_what_it_changes_and_how_to_undo_it() {
    for (target, way, text) in texts(&namespace("qualm")) {
        let head: Vec<_> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let head = head.join("\n");
        let what = if way == Way::In { "# What it is:" } else { "# What it does:" };
        for words in [what, "# What it changes:", "# How to undo it:", "Nothing has been"] {
            assert!(head.contains(words), "{target:?} {way:?}: no `{words}` in\n{head}");
        }
        if way == Way::In {
            let undo = format!("qualm wire {} --namespace qualm --remove", target.word());
            assert!(head.contains(&undo), "{target:?}: no `{undo}` in\n{head}");
        }
    }
}

#[test]
fn every_place_is_filled_and_lines_can_be_read_in_a_review() {
    for (target, way, text) in texts(&namespace("security")) {
        let open = text.lines().find(|line| line.matches('@').count() > 1 && !line.contains("@timestamp"));
        assert_eq!(open, None, "{target:?} {way:?}");
        let long = text.lines().find(|line| line.starts_with('#') && line.chars().count() > 120);
        assert_eq!(long, None, "{target:?} {way:?}");
        assert!(!text.lines().any(|line| line.ends_with(' ') || line.contains('\t')), "{target:?} {way:?}");
    }
}

#[test]
fn names_follow_the_namespace() {
    let istio = Target::Istio.text(Way::In, &namespace("security"));
    assert!(istio.contains("outbound|9465||qualm.security.svc.cluster.local"));
    assert!(istio.contains("name: qualm-security-rbac") && !istio.contains("namespace: qualm\n"));
    let kafka = Target::Kafka.text(Way::In, &namespace("qualm-eu"));
    assert!(kafka.contains("--group qualm-eu\n") && kafka.contains("--topic qualm-eu-dead-letters "));
}

#[test]
fn what_is_no_namespace_is_refused() {
    for word in ["", "-a", "a-", "A", "a.b", "a b", "a;b", "@topic@", &"a".repeat(64)] {
        assert_eq!(word.parse::<Namespace>(), Err(InvalidNamespace(word.to_owned())));
    }
    assert_eq!(namespace(&"a".repeat(63)).to_string(), "a".repeat(63));
}

#[test]
fn filters_subscribe_to_what_is_served() {
    for target in [Target::Istio, Target::Envoy] {
        let text = target.text(Way::In, &namespace("qualm"));
        for name in RESOURCES {
            assert!(text.lines().any(|line| line.trim().trim_start_matches("- ") == format!("name: {name}")), "{name}");
        }
    }
}

#[test]
fn what_is_made_is_what_is_removed() {
    let kinds = ["envoyfilter", "telemetry", "destinationrule", "role", "statefulset"];
    let of = namespace("qualm");
    let [made, removed] = [Way::In, Way::Back].map(|way| Target::Istio.text(way, &of));
    // Before the first there are comments alone.
    for document in made.split("\n---\n").skip(1) {
        let value = |key: &str| {
            let line = document.lines().find_map(|line| line.strip_prefix(key));
            line.map(|rest| rest.trim().to_owned()).expect("every document has one")
        };
        let (kind, name) = (value("kind:"), value("  name:"));
        assert!(kinds.contains(&kind.to_lowercase().as_str()), "{kind} is new: is it removed?");
        let lines = removed.to_lowercase();
        assert!(
            lines.lines().any(|line| line.contains(&kind.to_lowercase()) && line.contains(&format!(" {name} ")))
                || kind == "StatefulSet" && lines.contains("kind: statefulset"),
            "{kind} {name} is not removed"
        );
    }
}

#[test]
fn the_lines_for_qualm_s_own_configuration_are_valid() {
    let istio = Target::Istio.text(Way::In, &namespace("qualm"));
    let from = istio.find("#   [listen]").expect("it says what to configure");
    let lines = istio[from..].lines().map_while(|line| line.strip_prefix("#   "));
    let config = Config::parse(&lines.collect::<Vec<_>>().join("\n")).expect("it is valid");
    assert!(config.listen.address.is_some() && config.listen.enforcement_points.len() == 1);
}

#[test]
fn the_lines_for_the_watch_of_pods_are_valid() {
    let text = Target::Kubernetes.text(Way::In, &namespace("qualm"));
    let from = text.find("#   [[kubernetes]]").expect("it says what to configure");
    let lines = text[from..].lines().map_while(|line| line.strip_prefix("#   "));
    let config = Config::parse(&lines.collect::<Vec<_>>().join("\n")).expect("it is valid");
    assert_eq!(config.kubernetes.len(), 1);
}

/// The configuration in `deploy/kubernetes.yaml`.
fn deployed() -> String {
    let text = include_str!("../../deploy/kubernetes.yaml");
    let (_, rest) = text.split_once("  qualm.toml: |\n").expect("a ConfigMap has it");
    let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.map(|line| line.strip_prefix("    ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_deployed_configuration_is_valid_in_shadow_mode_and_with_all_that_its_comments_offer() {
    let config = Config::parse(&deployed()).expect("it is valid");
    assert!(config.listen.address.is_none() && config.kafka.len() == 1);
    assert_eq!(config.enforce, Config::default().enforce, "shadow mode is the default");
    let is_offered = |line: &&str| line.contains(" = ") || *line == "[listen]";
    let text = deployed();
    let lines = text.lines().map(|line| line.strip_prefix("# ").filter(is_offered).unwrap_or(line));
    let config = Config::parse(&lines.collect::<Vec<_>>().join("\n")).expect("what it offers is valid");
    assert!(config.listen.address.is_some() && !config.kafka[0].properties.is_empty());
}
