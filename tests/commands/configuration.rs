//! Help, and configurations that are refused at start.

use std::fs;

use crate::place::{LINE, Place};

#[test]
fn help_says_what_each_command_does_and_what_exit_codes_mean() {
    let place = Place::with("");
    let all = place.run(&["--help"]);
    assert_eq!(all.code, Some(0));
    assert!(all.out.contains("Exit codes: 0 done"), "{all:#?}");
    for (command, words) in [
        ("demo", "--seed"),
        ("generate", "--attacks"),
        ("run", "--config"),
        ("backtest", "--mapping"),
        ("check", "certificates"),
        ("explain", "<IDENTITY>"),
        ("reload", "--config"),
        ("wire", "--remove"),
    ] {
        assert!(all.out.contains(&format!("\n  {command} ")), "{command} is not in {all:#?}");
        let help = place.run(&[command, "--help"]);
        assert_eq!((help.code, help.out.contains(words)), (Some(0), true), "{command}: {help:#?}");
    }
    assert_eq!(place.run(&["chek"]).code, Some(2));
    let refused = place.run(&["wire", "istio", "--namespace", "No!"]);
    assert!(refused.code == Some(2) && refused.err.contains("`No!` is no namespace"), "{refused:#?}");
}

#[test]
fn a_wrong_configuration_is_refused_at_start_with_file_key_and_remedy() {
    for (config, words) in [
        ("[budget]\nwatchd_per_day = 3\n", &["qualm.toml", "line 2", "`watched_per_day`"][..]),
        ("[lease]\nquarantined = \"1 fortnight\"\n", &["qualm.toml", "line 2", "\"15m\""]),
        ("[budget]\nthrottled_per_day = -1\n", &["qualm.toml", "[budget] throttled", "above 0"]),
        ("[enforce]\nmode = \"enforced\"\n", &["line 2", "did you mean `enforce`"]),
        ("[[file]]\nformat = \"istio_jsn\"\n", &["line 2", "did you mean `istio_json`"]),
        ("[memory]\nbaselines_mib = \"1 GiB\"\n", &["line 2", "`baselines_mib`", "a whole number without unit"]),
        ("[enforce]\nmax_age = 2\n", &["line 2", "`max_age`", "\"30s\""]),
        ("[enforce]\nmax_age = \"0s\"\n", &["[enforce] max_age", "at least \"1s\""]),
        ("[lease]\nwatched = \"0s\"\n", &["[lease] watched", "at least \"1s\""]),
        ("[log]\nlevel = \"lowd\"\n", &["[log] level", "`lowd` is no level", "write error, warn"]),
        ("[log]\nformat = \"text\"\nformat = \"json\"\n", &["line 3", "`format`", "keep one of the two"]),
        ("[[file]]\npath = \"none.log\"\n", &["[[file]] path = \"none.log\"", "No such file", "correct the path"]),
        ("[[file]]\npath = \".\"\n", &["[[file]] path = \".\"", "is a directory"]),
        ("[[file]]\nfollow = true\n", &["[[file]] path = \"-\"", "standard input cannot be followed"]),
        ("[[file]]\npath = \"log.gz\"\nfollow = true\n", &["\"log.gz\"", "only plain files can be followed"]),
        (
            "[[file]]\npath = \"access.log\"\n[alerts]\nfile = \"none/alerts.jsonl\"\n",
            &["[alerts] file = \"none/alerts.jsonl\"", "its directory", "make it"],
        ),
        ("", &["nothing to read", "[[kafka]]"]),
        ("[[file]]\n[[file]]\n", &["[[file]] path = \"-\"", "stands twice", "keep one"]),
        ("[[kafka]]\ntopics = [{ name = \"a\" }, { name = \"a\" }]\n", &["a stands twice for group qualm"]),
        ("[[file]]\npath = \"access.log\"\nmax_record_bytes = 0\n", &["max_record_bytes", "every record is too long"]),
        ("[[file]]\npath = \"access.log\"\n[state]\ndirectory = \"\"\n", &["[state] directory", "name one"]),
        ("[[file]]\npath = \"access.log\"\n[enforce]\nprotected = [\"\"]\n", &["[enforce] protected", "take it out"]),
        ("[[file]]\npath = \"access.log\"\nmax_level = \"revoked\"\n", &["max_level", "at most \"quarantined\""]),
        (
            "[[file]]\npath = \"access.log\"\n[history]\nfiles = [\"none.zst\"]\n",
            &["[history] files: none.zst", "correct the path"],
        ),
        (
            "[[file]]\npath = \"access.log\"\n[history]\nformat = \"mapped\"\n",
            &["[history] format", "no key for a mapping"],
        ),
        (
            "[listen]\naddress = \"127.0.0.1:9465\"\nplaintext_loopback = true\n[observe]\naddress = \"127.0.0.1:9465\"\n",
            &["[observe] address", "another port"],
        ),
        ("[[file]]\npath = \"access.log\"\nmapping = \"none.toml\"\nformat = \"mapped\"\n", &["none.toml"]),
        ("[[file]]\npath = \"access.log\"\nformat = \"mapped\"\n", &["access.log", "needs a mapping file"]),
        (
            "[listen]\naddress = \"127.0.0.1:0\"\ncertificate = \"none.crt\"\nkey = \"k\"\nclient_roots = \"r\"\n",
            &["listen.certificate", "none.crt", "name a PEM file"],
        ),
        ("[listen]\naddress = \"0.0.0.0:0\"\nplaintext_loopback = true\n", &["plaintext_loopback", "127.0.0.1"]),
    ] {
        let place = Place::with(config);
        fs::write(place.path().join("access.log"), LINE).unwrap();
        fs::write(place.path().join("log.gz"), [0x1f, 0x8b, 8, 0]).unwrap();
        let refused = place.run(&["run"]);
        assert_eq!(refused.code, Some(2), "{config}: {refused:#?}");
        let missing: Vec<_> = words.iter().filter(|word| !refused.err.contains(**word)).collect();
        assert!(missing.is_empty(), "{config}: no {missing:?} in {refused:#?}");
        assert!(
            !place.path().join("qualm-state").exists(),
            "{config}: nothing is made before the configuration is sound"
        );
    }
    let nowhere = Place::with("").run(&["run", "--config", "none.toml"]);
    assert!(nowhere.code == Some(2) && nowhere.err.contains("none.toml: cannot be read"), "{nowhere:#?}");
}
