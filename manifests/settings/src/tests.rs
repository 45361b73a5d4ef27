use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{HEADING, parse_from};

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Verb {
    Run(Run),
    Look,
}

#[derive(Debug, Args)]
struct Run {
    #[arg(long)]
    node: Option<String>,
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = HEADING)]
struct Settings {
    #[arg(long, default_value = "info")]
    log_level: String,
    #[arg(long = "uplinks", alias = "uplink")]
    uplinks: Vec<String>,
    #[arg(long, value_enum, default_value_t = Tunnel::Auto)]
    tunnel: Tunnel,
    #[arg(long, default_value_t = 8472, value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: u16,
    #[arg(long, default_value = "0.0.0.0:1")]
    healthz_bind: std::net::SocketAddr,
    #[arg(long, value_delimiter = ',', num_args = 0..=1, require_equals = true)]
    external_ips: Option<Vec<String>>,
    #[arg(long)]
    quiet: bool,
    #[arg(long, value_name = "JSON")]
    chain: Vec<String>,
    #[arg(long, value_name = "NAME=VALUE[,...]")]
    zones: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tunnel {
    Auto,
    Always,
    Never,
}

/// Reads a file with these words on the command line beside it.
fn read(name: &str, text: &str, words: &[&str]) -> Result<Settings, String> {
    let path = std::env::temp_dir().join(format!("fairlead-settings-{}-{name}.yaml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let line = ["x", "run"].iter().chain(words).map(OsString::from);
    let line = line.chain([OsString::from("--config"), path.clone().into()]);
    let parsed = parse_from::<Line>(line, &["healthz"]);
    std::fs::remove_file(&path).unwrap();
    match parsed.map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))?.command {
        Verb::Run(run) => Ok(run.settings),
        Verb::Look => panic!("another command"),
    }
}

fn error(name: &str, text: &str) -> String {
    read(name, text, &[]).unwrap_err()
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = "logLevel: debug\nuplinks: [eth0, eth1]\nvxlanPort: 4789\nhealthz:\n  bind: 127.0.0.1:2\nquiet: true\n";
    let found = read("order", text, &["--vxlan-port", "7", "--uplink", "eth9"]).unwrap();
    let wanted = Settings {
        log_level: "debug".into(),
        uplinks: vec!["eth9".into()],
        tunnel: Tunnel::Auto,
        vxlan_port: 7,
        healthz_bind: "127.0.0.1:2".parse().unwrap(),
        external_ips: None,
        quiet: true,
        chain: vec![],
        zones: vec![],
    };
    assert_eq!(found, wanted);
    assert_eq!(read("list", "uplinks: [a, b]", &[]).unwrap().uplinks, ["a", "b"]);
}

#[test]
fn a_file_with_nothing_in_it_changes_nothing() {
    let none = read("none", "", &[]).unwrap();
    assert_eq!(read("comments", "# logLevel: debug\n", &[]).unwrap(), none);
    assert_eq!(read("nulls", "logLevel:\nhealthz:\nuplinks: []\n", &[]).unwrap(), none);
}

#[test]
fn an_empty_list_is_not_none_where_that_is_a_difference() {
    let found = |text: &str, words: &[&str]| read("empty", text, words).unwrap().external_ips;
    let list = |values: &[&str]| Some(values.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!((found("", &[]), found("externalIPs:", &[])), (None, None));
    assert_eq!((found("externalIPs: []", &[]), found("", &["--external-ips"])), (list(&[]), list(&[])));
    assert_eq!(found("externalIPs: [a, b]", &[]), list(&["a", "b"]));
    assert_eq!(found("externalIPs: []", &["--external-ips=a,b"]), list(&["a", "b"]));
    assert_eq!(found("externalIPs: [a]", &["--external-ips"]), list(&[]), "flags win");
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    let text = error("unknown", "loglevel: debug\nhealthz:\n  bnd: 1\nzzz: 1\nnode: n\n");
    assert!(text.starts_with("invalid settings file FILE: "), "{text}");
    assert!(text.contains("loglevel: unknown setting; did you mean logLevel?"), "{text}");
    assert!(text.contains("healthz.bnd: unknown setting; did you mean healthz.bind?"), "{text}");
    assert!(text.contains("zzz: unknown setting; known are chain, externalIPs, healthz.bind, logLevel, "), "{text}");
    // Which node it is and the like are no settings of a cluster.
    assert!(text.contains("node: unknown setting"), "{text}");
    assert!(
        error("flat", "healthzBind: 0.0.0.0:1").contains("healthzBind: unknown setting; did you mean healthz.bind?")
    );
}

#[test]
fn every_wrong_value_is_named_with_what_is_allowed() {
    let text = error("values", "tunnel: maybe\nvxlanPort: 70000\nhealthz:\n  bind: here\n");
    assert!(text.contains("tunnel: \"maybe\" is invalid: use one of auto, always, never"), "{text}");
    assert!(text.contains("vxlanPort: 70000 is invalid: 70000 is not in 1..=65535"), "{text}");
    assert!(text.contains("healthz.bind: \"here\" is invalid: invalid socket address syntax"), "{text}");
}

#[test]
fn shapes_are_checked() {
    assert!(error("shape", "uplinks: eth0").contains("uplinks: \"eth0\" is invalid: expected a list"));
    assert!(error("shape2", "tunnel: [auto]").contains("tunnel: takes one value, not a list"));
    assert!(error("shape3", "healthz: 5").contains("healthz: 5 is invalid: write its settings below it"));
    assert!(error("shape4", "quiet: 5").contains("quiet: 5 is invalid: use true or false"));
    assert!(error("shape5", "tunnel: {a: 1}").contains("expected a plain value"));
    assert!(error("shape6", "- a\n").contains("it holds no settings"));
    assert!(error("yaml", "a: [\n").contains("not YAML"));
    assert!(error("twice", "quiet: true\nquiet: false\n").contains("duplicate"));
}

#[test]
fn values_that_are_objects_are_given_as_json() {
    let chain = |text| read("objects", text, &[]).unwrap().chain;
    assert_eq!(
        chain("chain: [{type: tuning, mtu: 1400}, {type: sbr}]"),
        [r#"{"mtu":1400,"type":"tuning"}"#, r#"{"type":"sbr"}"#]
    );
    assert!(error("object", "chain: [tuning]").contains("\"tuning\" is invalid: expected an object"));
    assert!(error("object2", "chain: {type: tuning}").contains("expected a list"));
}

#[test]
fn a_map_is_a_flag_for_each_entry() {
    let zones = |text| read("map", text, &[]).unwrap().zones;
    assert_eq!(
        zones("zones: {a.example: [192.0.2.1, 192.0.2.2], b.example: '192.0.2.3:54'}"),
        ["a.example=192.0.2.1,192.0.2.2", "b.example=192.0.2.3:54"]
    );
    assert_eq!(zones("zones: [a.example=192.0.2.1]"), ["a.example=192.0.2.1"]);
    assert!(zones("zones: {}").is_empty());
    for (name, value) in [("map1", "[]"), ("map2", "{b: c}"), ("map3", "[1]"), ("map4", "null")] {
        let text = error(name, &format!("zones: {{a.example: {value}}}"));
        assert!(
            text.contains("zones: a.example: ") && text.contains("expected a list of texts, such as [a, b]"),
            "{text}"
        );
    }
    assert!(error("map5", "uplinks: {a: [b]}").contains("expected a list"), "only where the flag has names");
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let line = ["x", "run", "--config", "/nonexistent/f.yaml"].map(OsString::from);
    let text = parse_from::<Line>(line, &[]).unwrap_err().to_string();
    assert!(text.contains("/nonexistent/f.yaml can't be read") && text.contains("correct --config"), "{text}");
}

#[test]
fn other_commands_have_no_settings() {
    assert!(matches!(parse_from::<Line>(["x", "look"].map(OsString::from), &[]).unwrap().command, Verb::Look));
    let line = ["x", "run", "--node", "n"].map(OsString::from);
    let Verb::Run(run) = parse_from::<Line>(line, &[]).unwrap().command else { panic!() };
    assert_eq!(run.node.as_deref(), Some("n"));
}
