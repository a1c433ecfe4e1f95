use super::*;

const TEXT: &str = include_str!("../../qualm.toml");

/// The text with its defaults in force: lines `#key = value`.
fn defaults() -> String {
    let key = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase());
    TEXT.lines().map(|line| line.strip_prefix('#').filter(key).unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The text with its examples in force: lines `#   …`.
fn examples() -> String {
    TEXT.lines().map(|line| line.strip_prefix("#   ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// What may stand where `fragment` says `?`, in serde's own words.
fn known(fragment: &str) -> Vec<String> {
    let error = toml::from_str::<Config>(&fragment.replace('?', "\"no such key\" = 0")).expect_err("no such key");
    let words: Vec<String> = error.message().split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(words[0], "no such key", "{error}");
    words[1..].to_vec()
}

/// Whether `key` stands in a section of the file, as a default or as an example.
fn stands(section: &str, key: &str) -> bool {
    let mut here = String::new();
    TEXT.lines().map(|line| line.trim_start_matches(['#', ' '])).any(|line| {
        if line.starts_with('[') && line.ends_with(']') {
            here = line.trim_matches(['[', ']']).to_owned();
        }
        here == section && line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "))
    })
}

#[test]
fn qualm_toml_has_every_key_and_equals_the_defaults() {
    let config = Config::parse(&defaults()).expect("qualm.toml is valid");
    assert_eq!(config, Config::default());
    let fragments = known("?").into_iter().map(|section| match section.as_str() {
        "hook" | "istio" | "kafka" | "file" | "kubernetes" => (format!("[[{section}]]\n?"), section),
        _ => (format!("[{section}]\n?"), section),
    });
    let within = [("[alerts.kafka]\n?", "alerts.kafka"), ("[[signals.from]]\n?", "signals.from")];
    let within = within.map(|(fragment, section)| (fragment.to_owned(), section.to_owned()));
    for (fragment, section) in fragments.chain(within) {
        for key in known(&fragment) {
            let is_section = TEXT.contains(&format!("[{section}.{key}]"));
            assert!(is_section || stands(&section, &key), "qualm.toml: [{section}] has no {key}");
        }
    }
    for kind in known("[[hook]]\n?").into_iter().filter(|key| TEXT.contains(&format!("[hook.{key}]"))) {
        for key in known(&format!("[[hook]]\n[hook.{kind}]\n?")) {
            assert!(stands(&format!("hook.{kind}"), &key), "qualm.toml: [hook.{kind}] has no {key}");
        }
    }
    for key in known("[[kafka]]\nregistry = { ? }") {
        let is_there = TEXT.contains(&format!("{key} = ")) || TEXT.contains(&format!("`{key}`"));
        assert!(is_there, "qualm.toml: no registry has {key}");
    }
    for key in known("[[kafka]]\ntopics = [{ ? }]") {
        assert!(TEXT.contains(&format!("{key} = ")), "qualm.toml: no topic has {key}");
    }
}

#[test]
fn the_examples_in_qualm_toml_are_valid_and_show_the_defaults_of_inputs() {
    let config = Config::parse(&examples()).expect("its examples are valid");
    assert!(config.listen.address.is_some() && config.alerts.kafka.is_some() && !config.history.files.is_empty());
    let [kafka] = config.kafka.try_into().expect("one example of [[kafka]]");
    let [file] = config.file.try_into().expect("one example of [[file]]");
    let [section] = config.kubernetes.try_into().expect("one example of [[kubernetes]]");
    let [twins] = config.istio.try_into().expect("one example of [[istio]]");
    assert!(twins.cluster == section.cluster && !twins.namespaces.is_empty());
    let kinds = ["blocklist", "opa", "vault", "keycloak", "kubernetes", "aws", "gcp", "azure", "spire", "kafka"];
    assert_eq!(config.hook.iter().map(|hook| hook.name.as_str()).collect::<Vec<_>>(), kinds);
    assert!(section.kubeconfig.is_some() && section.context.is_some() && !section.cluster.is_empty());
    assert!(!kafka.topics.is_empty() && !kafka.properties.is_empty() && file.mapping.is_some());
    let unset = KafkaConfig::default();
    assert!(!kafka.registry.url.is_empty() && kafka.registry.password_file.is_some());
    let expected = KafkaConfig { topics: kafka.topics.clone(), properties: kafka.properties.clone(), ..unset };
    assert_eq!(kafka, KafkaConfig { registry: kafka.registry.clone(), ..expected });
    assert_eq!(FileConfig { mapping: None, max_level: None, ..file }, FileConfig::default());
}

#[test]
fn a_reload_finds_the_levels_of_running_inputs_by_name() {
    let parse = |text: &str| Config::parse(text).expect("it is valid");
    let topic = |name: &str, level: &str| format!("{{ name = \"{name}\", format = \"istio_json\"{level} }}");
    let watched = ", max_level = \"watched\"";
    let running = parse(&format!("[[kafka]]\ntopics = [{}, {}]\n", topic("a", ""), topic("b", "")));
    let reordered = parse(&format!("[[kafka]]\ntopics = [{}, {}]\n", topic("b", watched), topic("c", "")));
    let next = reordered.with_inputs_of(&running);
    assert_eq!(next.max_levels(), [Level::Quarantined, Level::Watched, Level::Quarantined]);
    assert_eq!(next.source_names(), running.source_names());
}

#[test]
fn a_record_stands_for_as_many_calls_as_the_least_sample_says() {
    let calls = |text: &str| Config::parse(text).expect("it is valid").calls_a_record();
    let file = |path: &str, keys: &str| format!("[[file]]\npath = \"{path}\"\n{keys}\n");
    let tenth = "filter = \"sampled\"\nsampled_share = 0.125";
    let (all, sampled, unknown, errors) =
        (file("a", ""), file("b", tenth), file("c", "filter = \"sampled\""), file("d", "filter = \"errors\""));
    assert_eq!(calls(""), 1.0);
    assert_eq!(calls(&all), 1.0);
    assert_eq!(calls(&format!("{all}{sampled}{unknown}")), 8.0);
    assert_eq!(calls(&format!("{all}{errors}")), 1.0);
    assert_eq!(calls(&format!("{errors}{unknown}")), f64::INFINITY);
    for (keys, words) in [
        ("sampled_share = 0.1", "filter = \"sampled\""),
        ("sampled_share = 0", "write 0.1"),
        ("sampled_share = 7.0", "write 0.1"),
    ] {
        let error = Config::parse(&file("a", keys)).expect_err(keys);
        assert!(error.contains("[[file]] a: sampled_share") && error.contains(words), "{error}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    let error = Config::parse("[budget]\nwatchd_per_day = 3\n").expect_err("unknown key");
    assert!(error.contains("line 2") && error.contains("`watched_per_day`"), "{error}");
}

#[test]
fn a_guess_is_made_from_the_begin_of_a_word_or_a_typing_error_and_from_nothing_else() {
    for (text, guess) in [
        ("[budget]\nrestricted = 3\n", Some("did you mean `restricted_per_week`?")),
        ("[[file]]\npath = \"x\"\nformat = \"zeek\"\n", Some("did you mean `zeek_json`?")),
        ("[budget]\nxyz = 3\n", None),
    ] {
        let error = Config::parse(text).expect_err(text);
        match guess {
            Some(guess) => assert!(error.contains(guess), "{error}"),
            None => assert!(!error.contains("did you mean"), "{error}"),
        }
    }
}

#[test]
fn an_address_without_a_port_and_a_budget_are_told_by_what_to_write() {
    let error = Config::parse("[observe]\naddress = \"localhost\"\n").expect_err("no address");
    assert!(error.contains("`address`") && error.contains("127.0.0.1:9464"), "{error}");
    let error = Config::parse("[budget]\nquarantined_per_month = 0\n").expect_err("zero");
    assert!(error.contains("[budget] quarantined_per_month"), "{error}");
    let error = Config::parse("[lease]\nthrottled = \"-5m\"\n").expect_err("negative");
    assert!(error.contains("from \"0s\" to \"400d\""), "{error}");
}

#[test]
fn a_wrong_unit_and_an_absurd_budget_are_refused_with_the_remedy() {
    let error = Config::parse("[lease]\nquarantined = \"1 fortnight\"\n").expect_err("wrong unit");
    assert!(error.contains("\"15m\""), "{error}");
    let error = Config::parse("[budget]\nwatched_per_day = 0\n").expect_err("zero");
    assert!(error.contains("above 0"), "{error}");
    for (text, words) in [
        ("[enforce]\nmax_age = 2\n", &["line 2", "`max_age`", "with its unit", "\"30s\""][..]),
        ("[memory]\nbaselines_mib = \"1GiB\"\n", &["line 2", "`baselines_mib`", "a whole number without unit"]),
        ("[budget]\nwatched_per_day = \"3\"\n", &["line 2", "`watched_per_day`", "a number without unit"]),
    ] {
        let error = Config::parse(text).expect_err(text);
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn a_key_or_a_section_that_stands_twice_is_named() {
    for (text, words) in [
        ("[enforce]\nmode = \"shadow\"\nmode = \"enforce\"\n", ["line 3", "`mode`", "keep one of the two"]),
        ("[budget]\n[log]\n[budget]\n", ["line 3", "`[budget]`", "keep one of the two"]),
    ] {
        let error = Config::parse(text).expect_err(text);
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn a_lease_or_an_age_of_nothing_is_refused_with_what_to_write() {
    for (text, words) in [
        ("[lease]\nthrottled = \"0s\"\n", ["[lease] throttled", "at least \"1s\""]),
        ("[enforce]\nmax_age = \"0m\"\n", ["[enforce] max_age", "mode = \"shadow\""]),
    ] {
        let error = Config::parse(text).expect_err(text);
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn a_level_of_the_log_that_is_none_is_refused_with_the_nearest() {
    for (level, words) in [
        ("inof", "did you mean `info`"),
        ("loud", "write error, warn"),
        ("info,rdkafka=lodu", "write error, warn"),
        ("", "write error, warn"),
    ] {
        let error = Config::parse(&format!("[log]\nlevel = \"{level}\"\n")).expect_err(level);
        assert!(error.contains("[log] level") && error.contains(words), "{error}");
    }
    for level in ["info", "WARN", "off", "info,rdkafka=warn", "info,qualm::run=debug"] {
        assert!(Config::parse(&format!("[log]\nlevel = \"{level}\"\n")).is_ok(), "{level}");
    }
}
