use clap::{Args, Command};

use super::server::check_quorum_size;
use super::*;

const SERVER_EXAMPLE: &str = include_str!("../../../../config/server.toml");
const AGENT_EXAMPLE: &str = include_str!("../../../../config/agent.toml");

#[test]
fn the_examples_parse_and_are_complete() {
    let server = toml::from_str::<ServerOptions>(SERVER_EXAMPLE).expect("config/server.toml");
    let server = server.resolve().expect("a complete configuration");
    assert_eq!(server.name, "master-1");
    assert_eq!(server.founders.len(), 3);
    let agent = toml::from_str::<AgentOptions>(AGENT_EXAMPLE).expect("config/agent.toml");
    let agent = agent.resolve().expect("a complete configuration");
    assert_eq!(agent.node_labels, [("topology.kubernetes.io/zone".to_owned(), "a".to_owned())]);
}

#[test]
fn every_flag_has_a_key_in_the_example_and_a_variable() {
    let commands = [
        (ServerArgs::augment_args(Command::new("server")), SERVER_EXAMPLE),
        (AgentArgs::augment_args(Command::new("agent")), AGENT_EXAMPLE),
    ];
    for (command, example) in commands {
        let keys: toml::Table = toml::from_str(example).expect("an example");
        for arg in command.get_arguments() {
            let flag = arg.get_long().expect("a long flag");
            let variable = format!("QUORATE_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|v| v.to_str()), Some(variable.as_str()), "--{flag}");
            assert!(flag == "config" || keys.contains_key(flag), "the example of {} lacks {flag}", command.get_name());
        }
    }
}

#[test]
fn defaults_match_the_example_and_the_help() {
    let mut keys: toml::Table = toml::from_str(SERVER_EXAMPLE).expect("an example");
    let command = ServerArgs::augment_args(Command::new("server"));
    for (key, value) in [("node-monitor-grace", "10s"), ("eviction-after", "10s"), ("retention", "10m")] {
        let shown = keys.remove(key).expect("a key of the example");
        assert_eq!(shown.as_str(), Some(value), "{key}");
        let flag = command.get_arguments().find(|arg| arg.get_long() == Some(key)).expect("a flag");
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.ends_with(&format!("[default: {value}]")), "--{key}: {help}");
    }
    let rest = toml::to_string(&keys).expect("the rest of the example");
    let server = toml::from_str::<ServerOptions>(&rest).expect("options").resolve().expect("a complete configuration");
    let durations = [server.node_monitor_grace, server.eviction_after, server.retention];
    assert_eq!(durations, [10, 10, 600].map(Duration::from_secs));
}

#[test]
fn a_flag_overrides_the_file() {
    let file: ServerOptions = toml::from_str(SERVER_EXAMPLE).expect("config/server.toml");
    let flags = ServerOptions { name: Some("master-2".to_owned()), ..ServerOptions::default() };
    let config = flags.over(file).resolve().expect("a complete configuration");
    assert_eq!(config.founder().map(|founder| founder.id), Some(2));
}

#[test]
fn a_joining_member_needs_no_list_of_founders() {
    let file: ServerOptions = toml::from_str(SERVER_EXAMPLE).expect("config/server.toml");
    let token = Some("000000ab.secret@10.0.0.1:2380".to_owned());
    let flags = ServerOptions { name: Some("master-4".to_owned()), join: token, ..ServerOptions::default() };
    let config = flags.over(file.clone()).resolve().expect("a complete configuration");
    let is_meant = |join: &Join| matches!(join, Join::Peers(token) if token.secret == "secret");
    assert!(config.founders.is_empty() && config.join.as_ref().is_some_and(is_meant));
    let joined = ServerOptions { members: None, name: Some("master-4".to_owned()), ..file.clone() };
    let config = joined.resolve().expect("a joined member needs no list");
    assert!(config.founders.is_empty() && config.founder().is_none());
    let refused = |flags: ServerOptions| flags.over(file.clone()).resolve().expect_err("a refusal").to_string();
    let flags = ServerOptions { join: Some("nonsense".to_owned()), ..ServerOptions::default() };
    assert!(refused(flags).contains("is no token"));
    let flags = ServerOptions { peer_via: Some(vec!["master-2".to_owned()]), ..ServerOptions::default() };
    assert!(refused(flags).contains("not name=host:port"));
}

#[test]
fn certificates_are_issued_when_no_files_are_given() {
    let options = ServerOptions { name: Some("m1".to_owned()), init: Some(true), ..ServerOptions::default() };
    let config = options.clone().resolve().expect("it needs nothing else");
    assert!(config.managed.as_ref().is_some_and(|managed| managed.init));
    assert_eq!(config.tls.cert, PathBuf::from("/var/lib/quorate/server/pki/server.crt"));
    assert_eq!(config.etcd.map(|etcd| etcd.listen.port()), Some(2379));

    let token = format!("{}.{}.{}@10.0.0.1:6443,m2:6443", "0".repeat(8), "1".repeat(32), "2".repeat(64));
    let joining = ServerOptions { init: None, join: Some(token.clone()), ..options.clone() };
    let config = joining.resolve().expect("a token is enough");
    assert!(matches!(config.join, Some(Join::Masters { hosts, .. }) if hosts == ["10.0.0.1:6443", "m2:6443"]));

    let refused = |options: ServerOptions| options.resolve().expect_err("a refusal").to_string();
    assert!(refused(ServerOptions { join: Some(token.clone()), ..options.clone() }).contains("one of the two"));
    let bare = token.split('@').next().map(str::to_owned);
    let bare = ServerOptions { init: None, join: bare, ..options.clone() };
    assert!(refused(bare).contains("TOKEN@HOST:PORT"));
    let own = ServerOptions { tls_cert_file: Some("/x".into()), ..options };
    assert!(refused(own).contains("leave out `tls-cert-file`"));

    let worker = AgentOptions {
        masters: Some(vec!["https://127.0.0.1:6443".to_owned()]),
        token: token.split('@').next().map(str::to_owned),
        ..AgentOptions::default()
    };
    let config = worker.resolve().expect("a token is enough");
    assert_eq!(config.client_tls.key, config.serving_tls.key);
    assert_eq!(config.node_ip, std::net::IpAddr::from([127, 0, 0, 1]));
    assert!(config.managed.is_some_and(|managed| managed.token.is_some()));
}

#[test]
fn hosts_have_one_form_and_no_port() {
    let with = |advertise: &str, names: &[&str]| ServerOptions {
        name: Some("m1".to_owned()),
        init: Some(true),
        advertise: Some(advertise.to_owned()),
        tls_names: Some(names.iter().map(|&name| name.to_owned()).collect()),
        ..ServerOptions::default()
    };
    let config = with("[FD00:0::1]", &["API.Example", "", "0:0::1", "*.example"]).resolve().expect("options");
    let managed = config.managed.expect("certificates are issued");
    assert_eq!(managed.advertise.as_deref(), Some("fd00::1"));
    assert_eq!(managed.tls_names, ["api.example", "::1", "*.example"]);
    for (advertise, names, key) in [
        ("m1:6443", &[][..], "`advertise`"),
        ("*.example", &[], "`advertise`"),
        ("10.0.0.1", &["https://lb"], "`tls-names`"),
    ] {
        let refused = with(advertise, names).resolve().expect_err("a refusal").to_string();
        assert!(refused.contains(key), "{refused}");
    }
}

#[test]
fn useless_quorum_sizes_are_refused_with_the_reason() {
    for size in [1, 3, 5, 7] {
        check_quorum_size(size).expect("a good size");
    }
    for (size, reason) in
        [(0, "at least one"), (2, "survive the loss of 0"), (4, "survive the loss of 1"), (9, "waits")]
    {
        let error = check_quorum_size(size).expect_err("a refusal").to_string();
        assert!(error.contains(reason), "{size}: {error}");
    }
}

#[test]
fn members_with_the_same_id_or_name_are_refused() {
    let options = |second: &str| ServerOptions {
        name: Some("a".to_owned()),
        members: Some(
            ["id=1,name=a,peer=h:1,api=https://h:2", second, "id=3,name=c,peer=h:5,api=https://h:6"]
                .map(|text| text.parse().expect("a member"))
                .to_vec(),
        ),
        ..ServerOptions::default()
    };
    for twin in ["id=1,name=b,peer=h:3,api=https://h:4", "id=2,name=a,peer=h:3,api=https://h:4"] {
        let error = options(twin).resolve().expect_err("a refusal").to_string();
        assert!(error.contains("share an id"), "{error}");
    }
}

#[test]
fn errors_of_malformed_members_name_the_fault() {
    for (text, expected) in [
        ("m1", "not key=value"),
        ("id=0,name=a,peer=h:1,api=u", "not a positive number"),
        ("id=1,name=a,api=u", "`peer` is missing"),
        ("id=1,id=2,name=a,peer=h:1,api=u", "given twice"),
        ("id=1,color=red", "unknown key `color`"),
    ] {
        let error = text.parse::<MemberSpec>().expect_err("a refusal");
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let error = toml::from_str::<ServerOptions>("data-dri = \"/x\"").expect_err("a refusal").to_string();
    assert!(error.contains("data-dri"), "{error}");
}

#[test]
fn service_pools_are_validated_at_resolution() {
    let with = |blocks: &[&str], ports: &str| {
        let file: ServerOptions = toml::from_str(SERVER_EXAMPLE).expect("config/server.toml");
        let options = ServerOptions {
            service_cidr: Some(blocks.iter().map(|block| (*block).to_owned()).collect()),
            service_node_port_range: Some(ports.to_owned()),
            ..ServerOptions::default()
        };
        options.over(file).resolve().map(|config| config.pools).map_err(|error| format!("{error:#}"))
    };
    let both = with(&["10.0.0.0/24", "fd00::/112"], "31000-31999").expect("two families");
    assert_eq!(both.node_ports(), &(31_000..=31_999));
    for (blocks, ports, expected) in [
        (
            &["10.0.0.1/24"][..],
            "1-2",
            "`service-cidr` is not a list of address blocks: 10.0.0.1/24 is not the first address",
        ),
        (
            &["10.0.0.0/24", "10.1.0.0/24"],
            "1-2",
            "`service-cidr` or `service-node-port-range` is not usable: Services have one",
        ),
        (
            &["10.0.0.0/24"],
            "2-1",
            "`service-cidr` or `service-node-port-range` is not usable: the node ports 2-1 are no",
        ),
        (&["10.0.0.0/24"], "many", "`service-node-port-range` is \"many\", which is not first-last"),
    ] {
        let refused = with(blocks, ports).expect_err("an invalid pool");
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[test]
fn labels_that_an_agent_may_not_set_are_refused() {
    let file: AgentOptions = toml::from_str(AGENT_EXAMPLE).expect("config/agent.toml");
    let labels = Some(vec!["node-role.kubernetes.io/control-plane=".to_owned()]);
    let refused = AgentOptions { node_labels: labels, ..AgentOptions::default() }.over(file).resolve();
    let error = refused.expect_err("an agent may not set a role").to_string();
    assert!(error.contains("node-role.kubernetes.io/control-plane") && error.contains("qctl label node"), "{error}");
}
