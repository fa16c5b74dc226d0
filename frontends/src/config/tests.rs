use std::collections::BTreeSet;
use std::ffi::OsString;

use proptest::prelude::*;

use super::rules::{Bytes, Number, Peers, Rule};
use super::*;

fn run(flags: &[&str], variables: &[(&str, &str)], file: &str) -> Result<Configuration, ConfigError> {
    let mut arguments: Vec<OsString> = flags.iter().map(OsString::from).collect();
    if !file.is_empty() {
        arguments.extend(["--config", "conf/node.toml"].map(OsString::from));
    }
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match load(arguments.into_iter(), variables, |_| Ok(file.to_owned()))? {
        Invocation::Run { configuration, .. } => Ok(*configuration),
        Invocation::Print(text) => panic!("nothing was to be printed, but: {text}"),
    }
}

fn message(result: Result<Configuration, ConfigError>) -> String {
    result.expect_err("must be refused").to_string()
}

#[test]
fn the_defaults_go_together_and_describe_a_bare_start() {
    let configuration = Configuration::defaults().unwrap();
    assert!(configuration.is_bare());
    assert_eq!(configuration.endpoints().native, "127.0.0.1:7400".parse().unwrap());
    assert_eq!(configuration.endpoints().admin, "127.0.0.1:7403".parse().unwrap());
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let file = "base_port = 9000\nnode = 1\n[raft]\ndata_groups = 2\n";
    let variables = [("TIDELOG_BASE_PORT", "8000"), ("TIDELOG_NODE", "2")];
    let configuration = run(&["--base-port", "7000"], &variables, file).unwrap();
    assert_eq!(configuration.settings.base_port, 7000);
    assert_eq!(configuration.settings.node, 2);
    assert_eq!(configuration.settings.data_groups, 2);
    assert_eq!(configuration.settings.tick_ms, 25);
    assert_eq!(configuration.origin("base_port"), Origin::Flag("base-port".to_owned()));
    assert_eq!(configuration.origin("node"), Origin::Variable("TIDELOG_NODE".to_owned()));
    assert_eq!(
        configuration.origin("raft.data_groups"),
        Origin::File { path: "conf/node.toml".into(), line: 4 }
    );
    assert_eq!(configuration.origin("raft.tick_ms"), Origin::Default);
}

#[test]
fn a_misspelt_key_is_refused_wherever_it_stands_with_the_name_that_was_meant() {
    let text = message(run(&[], &[], "node = 0\n[raft]\ntikc_ms = 25\n"));
    assert!(text.starts_with("E2201 conf/node.toml line 3: unknown key `raft.tikc_ms`"), "{text}");
    assert!(text.contains("did you mean `raft.tick_ms`?"), "{text}");

    let text = message(run(&[], &[("TIDELOG_BASEPORT", "1")], ""));
    assert!(text.contains("unknown key `TIDELOG_BASEPORT`, did you mean `TIDELOG_BASE_PORT`?"), "{text}");

    let text = message(run(&["--base-prot", "1"], &[], ""));
    assert!(text.contains("--base-prot") && text.contains("--base-port"), "{text}");

    let text = message(run(&[], &[], "[quotas]\nbytes = 5\n"));
    assert!(text.contains("unknown key `quotas`;"), "nothing is near, so nothing is suggested: {text}");
}

#[test]
fn variables_that_others_set_beside_a_service_named_tidelog_are_left_alone() {
    let variables = [
        ("TIDELOG_SERVICE_HOST", "10.0.0.1"),
        ("TIDELOG_PORT", "tcp://10.0.0.1:7400"),
        ("TIDELOG_PORT_7400_UDP_ADDR", "10.0.0.1"),
        ("TIDELOG_PROFILE", "client.toml"),
        ("PATH", "/bin"),
    ];
    run(&[], &variables, "").unwrap();
    for key in KEYS {
        assert!(!key.variable().starts_with("TIDELOG_PORT"), "{} could be set by accident", key.name);
        assert!(!key.variable().starts_with("TIDELOG_SERVICE"), "{} could be set by accident", key.name);
    }
}

#[test]
fn a_bad_value_is_refused_with_key_value_place_and_what_is_allowed() {
    let text = message(run(&[], &[], "\n[logging]\nformat = \"xml\"\n"));
    assert_eq!(
        text,
        "E2204 conf/node.toml line 3: key `logging.format` cannot be `xml`; allowed: one of text, json"
    );
    let text = message(run(&[], &[("TIDELOG_RAFT_DATA_GROUPS", "-1")], ""));
    assert_eq!(
        text,
        "E2204 environment variable TIDELOG_RAFT_DATA_GROUPS: key `raft.data_groups` cannot be `-1`; \
         allowed: a whole number from 1 to 64"
    );
    let text = message(run(&["--limits-batch-bytes", "17MiB"], &[], ""));
    assert!(text.starts_with("E2204 flag --limits-batch-bytes: key `limits.batch_bytes` cannot be `17MiB`"));
    let text = message(run(&[], &[], "node = 1.5\n"));
    assert!(text.contains("key `node` cannot be `1.5`"), "{text}");
    let text = message(run(&[], &[], "peers = [{ node = 0, adress = \"127.0.0.1:1\" }]\n"));
    assert!(text.contains("key `peers`") && text.contains("adress"), "{text}");
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let text = message(run(&[], &[], "node = 0\nbase_port = = 5\n"));
    assert!(text.starts_with("E2203 conf/node.toml line 2: not TOML"), "{text}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let arguments = ["--config", "gone.toml"].map(OsString::from);
    let result =
        load(arguments.into_iter(), std::iter::empty(), |_| Err(io::Error::from(io::ErrorKind::NotFound)));
    let text = result.unwrap_err().to_string();
    assert!(text.starts_with("E2202 gone.toml: cannot read"), "{text}");
}

#[test]
fn paths_of_the_file_count_from_the_file_and_those_of_flags_do_not() {
    let configuration = run(&["--addresses-file", "a.json"], &[], "data_dir = \"data\"\n").unwrap();
    assert_eq!(configuration.settings.data_dir, PathBuf::from("conf/data"));
    assert_eq!(configuration.settings.addresses_file, Some(PathBuf::from("a.json")));
}

#[test]
fn peers_read_the_same_from_a_list_of_tables_of_texts_and_from_one_text() {
    let tls = "[tls]\nca = \"ca\"\ncert = \"c\"\nkey = \"k\"\n";
    let forms = [
        "[{ node = 0, address = \"127.0.0.1:7401\" }, { node = 1, address = \"127.0.0.1:7411\" }]",
        "[\"0=127.0.0.1:7401\", \"1=127.0.0.1:7411\"]",
        "\"0=127.0.0.1:7401, 1=127.0.0.1:7411\"",
    ];
    let read: Vec<_> = forms
        .iter()
        .map(|form| run(&[], &[], &format!("peers = {form}\n{tls}")).unwrap().settings.peers)
        .collect();
    assert_eq!(read[0].len(), 2);
    assert!(read.iter().all(|peers| *peers == read[0]));
}

#[test]
fn a_node_listed_at_another_address_than_its_own_is_refused() {
    let tls = "[tls]\nca = \"ca\"\ncert = \"c\"\nkey = \"k\"\n";
    let text = message(run(&[], &[], &format!("peers = \"0=127.0.0.1:9999,1=127.0.0.1:7411\"\n{tls}")));
    assert!(
        text.contains("E2205") && text.contains("127.0.0.1:9999") && text.contains("127.0.0.1:7401"),
        "{text}"
    );
}

#[test]
fn nothing_is_opened_to_strangers() {
    let text = message(run(&["--host", "10.0.0.1"], &[], ""));
    assert!(text.starts_with("E2206 flag --host: key `host` would open 10.0.0.1:7400"), "{text}");

    let tls = ["--tls-ca", "ca", "--tls-cert", "c", "--tls-key", "k"];
    let text = message(run(&[&tls[..], &["--host", "10.0.0.1"]].concat(), &[], ""));
    assert!(text.contains("E2206") && text.contains("listen.admin"), "{text}");

    let admin = ["--host", "10.0.0.1", "--listen-admin", "127.0.0.1:7403"];
    let configuration = run(&[&tls[..], &admin].concat(), &[], "").unwrap();
    assert!(!configuration.is_bare());

    let text = message(run(&["--listen-admin", "0.0.0.0:1"], &[], ""));
    assert!(text.starts_with("E2206 flag --listen-admin"), "{text}");
}

#[test]
fn a_node_that_listens_everywhere_must_say_where_it_is() {
    let flags = [
        "--tls-ca",
        "ca",
        "--tls-cert",
        "c",
        "--tls-key",
        "k",
        "--host",
        "0.0.0.0",
        "--listen-admin",
        "127.0.0.1:7403",
    ];
    let text = message(run(&flags, &[], ""));
    assert!(text.contains("key `advertise_host` cannot be ``"), "{text}");
    let configuration = run(&[&flags[..], &["--advertise-host", "10.0.0.9"]].concat(), &[], "").unwrap();
    assert_eq!(configuration.advertised(configuration.endpoints().native), "10.0.0.9:7400".parse().unwrap());
}

#[test]
fn peers_without_certificates_and_half_given_certificates_are_refused() {
    let text = message(run(&["--peers", "1=127.0.0.1:7411"], &[], ""));
    assert!(text.contains("E2205") && text.contains("mutual TLS only"), "{text}");
    let text = message(run(&["--tls-ca", "ca", "--tls-key", "k"], &[], ""));
    assert!(text.contains("key `tls.cert` cannot be ``") && text.contains("`tls.ca` is given"), "{text}");
}

#[test]
fn ports_beyond_the_last_and_timings_that_cannot_work_are_refused() {
    let text = message(run(&["--base-port", "65000", "--node", "60"], &[], ""));
    assert!(text.contains("key `base_port` cannot be `65000`") && text.contains("0 to 64932"), "{text}");
    let text = message(run(&["--raft-heartbeat-ticks", "12"], &[], ""));
    assert!(text.contains("raft.election_ticks_min"), "{text}");
    let text = message(run(&["--raft-election-ticks-max", "10"], &[], ""));
    assert!(text.contains("raft.election_ticks_max"), "{text}");
}

#[test]
fn the_printed_configuration_gives_itself_again() {
    let flags =
        ["--node", "3", "--limits-batch-bytes", "3MiB", "--logging-format", "json", "--data-dir", "/d \"x\""];
    let first = run(&flags, &[], "").unwrap();
    let second = run(&[], &[], &first.effective()).unwrap();
    assert_eq!(first.settings, second.settings);
    let arguments = ["--check-config", "--node", "7"].map(OsString::from);
    let printed = load(arguments.into_iter(), std::iter::empty(), |_| Ok(String::new())).unwrap();
    let Invocation::Print(text) = printed else { panic!("--check-config prints") };
    assert!(text.contains("node = 7 # flag --node\n"), "{text}");
}

#[test]
fn each_key_has_a_flag_and_a_variable_of_its_own_and_a_default_that_it_allows() {
    let flags: BTreeSet<_> = KEYS.iter().map(Key::flag).collect();
    let variables: BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
    assert_eq!(flags.len(), KEYS.len());
    assert_eq!(variables.len(), KEYS.len());
    let defaults = Configuration::defaults().unwrap().settings.texts();
    for (key, (name, text)) in KEYS.iter().zip(&defaults) {
        assert_eq!(
            (key.name, key.default),
            (*name, text.as_str()),
            "a default is written as it would be shown"
        );
    }
    sources::command().debug_assert();
}

#[test]
fn the_reference_page_says_what_the_code_says() {
    let page = include_str!("../../../docs/operations/configuration.md");
    assert!(
        page.contains(&reference()),
        "docs/operations/configuration.md must hold the output of `tidelogd --print-config-reference`"
    );
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(content in "[a-z_.=\\[\\]{}\"0-9 \n]{0,200}") {
        let _outcome = run(&[], &[], &content);
    }

    #[test]
    fn what_a_rule_shows_it_reads_again(number in 0u64..1 << 40, nodes in proptest::collection::btree_map(0u64..100, 1u16.., 0..5)) {
        let bytes = Bytes { min: 0, max: u64::MAX };
        prop_assert_eq!(bytes.parse(&bytes.show(&number)), Some(number));
        let count = Number { min: 0, max: u64::MAX };
        prop_assert_eq!(count.parse(&count.show(&number)), Some(number));
        let peers: BTreeMap<_, _> = nodes
            .into_iter()
            .map(|(node, port)| (tidelog_wire::ids::NodeId(node), SocketAddr::from(([127, 0, 0, 1], port))))
            .collect();
        prop_assert_eq!(Peers.parse(&Peers.show(&peers)), Some(peers));
    }

    #[test]
    fn no_value_makes_a_rule_panic(text in ".{0,40}", which in 0usize..KEYS.len()) {
        let flag = format!("--{}", KEYS[which].flag());
        let _outcome = run(&[&flag, &text], &[], "");
    }
}
