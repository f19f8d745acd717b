use super::keys::{BESIDE, ENVIRONMENT_ONLY, KEYS, Key, deployed};
use super::*;
use paygress_core::model::access::AccessMode;
use paygress_oci::{CredentialHelpers, SignatureMode};

fn read(file: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
    Config::read(
        Some(file),
        environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
    )
}

const KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const MNEMONIC: &str =
    "legal winner thank year wave sausage worth useful legal winner thank yellow";

fn good() -> String {
    format!(
        "nostr_private_key = \"{KEY}\"\nnostr_relays = [\"wss://a.example\", \"wss://b.example\"]\nwhitelisted_mints = \"https://m.example\"\nssh_host = \"h.example\"\n"
    )
}

#[test]
fn the_example_is_valid_except_for_the_secret_key() {
    let example = include_str!("../../../../examples/paygress.toml");
    let config = read(example, &[("NOSTR_PRIVATE_KEY", KEY)])
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.policy_settings["pricing"]["minimum_sat"], 1);
}

// long: one line for each key that has a problem
#[test]
fn all_problems_are_reported_at_once_without_the_key() {
    let file = "run_mode = \"carrier pigeon\"\nbind_addr = \"here\"\npublic_url = \"example.com\"\noperator_token = \"short\"\ntrusted_proxies = \"x\"\ncors_origins = \"*\"\nnostr_private_key = \"hunter2\"\nnostr_relays = \"http://x\"\nssh_port = 0\nenable_cleanup_task = \"maybe\"\nrefund_fees = \"nobody\"\nssh_port_range_start = 40000\nssh_port_range_end = 39999\notlp_endpoint = \"collector\"\npod_extra_capacity = \"cpu=four\"\nssh_server_image = \"a b\"\nssh_server_volume = \"link\"\npod_root = \"always\"\npod_run_image = \"perhaps\"\npod_probe = \"perhaps\"\nreply_from_pod = \"never\"\nreceipts = \"perhaps\"\ngateway_ssh_listen = \"here\"\ngateway_ssh_host = \"a b\"\ngateway_iroh = \"maybe\"\ngateway_iroh_bind = \"4433\"\ngateway_iroh_relays = \"relay.example\"\ngateway_pod_network = \"any\"\nssh_host_from = \"pod\"\nnode_lost_seconds = 9\naccess = \"tunnel\"\nmax_leases = 0\ntypo = 1\n[policy.prices]\n";
    let Err(Problems(problems)) = read(file, &[]) else { panic!("accepted") };
    let text = problems.join("\n");
    for expected in [
        "RUN_MODE",
        "BIND_ADDR",
        "PUBLIC_URL",
        "OPERATOR_TOKEN",
        "TRUSTED_PROXIES",
        "CORS_ORIGINS",
        "NOSTR_PRIVATE_KEY",
        "NOSTR_RELAYS",
        "WHITELISTED_MINTS",
        "SSH_HOST",
        "SSH_PORT:",
        "ENABLE_CLEANUP_TASK",
        "REFUND_FEES: must be operator or customer",
        "SSH_PORT_RANGE_END",
        "OTLP_ENDPOINT",
        "POD_EXTRA_CAPACITY: cpu=four",
        "POD_EXTRA_CAPACITY: nodes",
        "SSH_SERVER_IMAGE: must be one image",
        "SSH_SERVER_VOLUME: must be auto or copy or image",
        "POD_ROOT: must be auto or never",
        "POD_RUN_IMAGE: must be true or false",
        "POD_PROBE: must be true or false",
        "REPLY_FROM_POD: must be true or false",
        "RECEIPTS: must be true or false",
        "SSH_HOST_FROM: must be setting or node",
        "NODE_LOST_SECONDS: must be a whole number from 10 to 86400",
        "GATEWAY_SSH_LISTEN",
        "GATEWAY_SSH_HOST",
        "GATEWAY_IROH: must be true or false",
        "GATEWAY_IROH_BIND: 4433",
        "GATEWAY_IROH_RELAYS: relay.example",
        "GATEWAY_POD_NETWORK: must be auto or pod-network or port-forward",
        "ACCESS: must be host-port, node-port or gateway",
        "MAX_LEASES: must be a whole number",
        "typo",
        "policy.prices",
    ] {
        assert!(text.contains(expected), "{expected} is not reported:\n{text}");
    }
    assert_eq!(problems.len(), 36, "{text}");
    assert!(!text.contains("hunter2"));
    let Err(Problems(broken)) = read("x = 1\nnostr_private_key = \"hunter2", &[]) else {
        panic!("accepted")
    };
    assert!(broken[0].contains("line 2") && !broken[0].contains("hunter2"), "{broken:?}");
}

#[test]
fn a_proxy_that_cannot_be_used_is_a_problem_of_its_variable() {
    let socks = |variable, scheme| {
        format!("{variable}: {scheme} proxies are not supported here: use one of http or https")
    };
    let secret = "socks5://user:hunter2@p.example:1080";
    for (environment, expected) in [
        (&[("HTTPS_PROXY", secret)][..], vec![socks("HTTPS_PROXY", "socks5")]),
        (&[("http_proxy", "socks4a://p.example")], vec![socks("http_proxy", "socks4a")]),
        (&[("ALL_PROXY", "socks5h://p.example:1080")], vec![socks("ALL_PROXY", "socks5h")]),
        (
            &[("HTTPS_PROXY", secret), ("HTTP_PROXY", "socks://p"), ("SSH_PORT", "0")],
            vec![
                "SSH_PORT: must be a whole number from 1 to 65535".to_owned(),
                socks("HTTPS_PROXY", "socks5"),
                socks("HTTP_PROXY", "socks"),
            ],
        ),
        // The last is not used.
        (&[("HTTPS_PROXY", "p:3128"), ("HTTP_PROXY", "https://p"), ("ALL_PROXY", secret)], vec![]),
    ] {
        let problems = read(&good(), environment).err().map_or_else(Vec::new, |found| found.0);
        assert_eq!(problems, expected, "{environment:?}");
    }
}

#[test]
fn a_part_is_read_by_itself() {
    let file = "ssh_port = 0\nadmin_socket = \"here.sock\"\npod_devices = [\"nvidia.com/gpu\"]\n";
    let read = |environment: &[(&str, &str)]| {
        let environment =
            environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        part(Some(file), environment, |reader| {
            (reader.admin_socket(), reader.allowed().devices, reader.trust().mode())
        })
    };
    assert_eq!(
        read(&[]),
        Ok(("here.sock".into(), vec!["nvidia.com/gpu".to_owned()], SignatureMode::Off))
    );
    assert_eq!(read(&[("POLICY_SIGNATURES", "perhaps")]).unwrap_err().0.len(), 2);
    assert!(part(Some("x"), [], Reader::admin_socket).unwrap_err().to_string().contains("line 1"));
}

#[test]
fn each_transport_requires_its_own_settings() {
    let alone = format!(
        "run_mode = \"http\"\nnostr_private_key = \"{KEY}\"\nwhitelisted_mints = \"https://m.example\"\nssh_host = \"h\"\n"
    );
    let config = read(
        &alone,
        &[("PUBLIC_URL", "https://a.example/"), ("TRUSTED_PROXIES", "10.0.0.1,10.1.0.0/16")],
    );
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    let http = config.http.unwrap();
    assert!(!config.nostr && http.trusted_proxies.len() == 2 && http.operator_token.is_none());
    assert_eq!(http.public_url.as_deref(), Some("https://a.example"));
    assert!(read(&good(), &[]).is_ok_and(|config| config.nostr && config.http.is_none()));
    assert!(
        read(&good(), &[("RUN_MODE", "both")])
            .is_ok_and(|config| config.nostr && config.http.is_some())
    );
}

#[test]
fn the_operator_bears_the_fees_of_a_fault_unless_they_say_otherwise() {
    let fees = |environment: &[(&str, &str)]| {
        let config = read(&good(), environment).unwrap_or_else(|problems| panic!("{problems}"));
        config.refund_fees
    };
    assert_eq!(fees(&[]), RefundFees::Operator);
    assert_eq!(fees(&[("REFUND_FEES", "operator")]), RefundFees::Operator);
    assert_eq!(fees(&[("REFUND_FEES", "customer")]), RefundFees::Customer);
}

#[test]
fn pods_are_probed_and_customers_may_be_root_unless_the_operator_says_otherwise() {
    let pods = |environment: &[(&str, &str)]| {
        let config = read(&good(), environment).unwrap_or_else(|problems| panic!("{problems}"));
        (config.ssh_server_image, config.root, config.probe)
    };
    assert_eq!(pods(&[]), (None, PodRoot::Auto, true));
    let image = "registry.example/ssh:1";
    let set = [("SSH_SERVER_IMAGE", image), ("POD_ROOT", "never"), ("POD_PROBE", "false")];
    assert_eq!(pods(&set), (Some(image.to_owned()), PodRoot::Never, false));
    // As `k8s/overlays/cluster/config.env` leaves it out.
    assert_eq!(pods(&[("SSH_SERVER_IMAGE", "")]), (None, PodRoot::Auto, true));
}

#[test]
fn the_ssh_server_comes_as_a_probe_pod_shows_unless_the_operator_says_otherwise() {
    let volume = |environment: &[(&str, &str)]| {
        read(&good(), environment).map(|config| config.ssh_server_volume)
    };
    assert_eq!(volume(&[]), Ok(SshServerVolume::Auto));
    assert_eq!(volume(&[("SSH_SERVER_VOLUME", "copy")]), Ok(SshServerVolume::Copy));
    assert_eq!(volume(&[("SSH_SERVER_VOLUME", "image")]), Ok(SshServerVolume::Image));
}

#[test]
fn customers_log_in_at_one_host_unless_the_operator_says_otherwise() {
    let from = |environment: &[(&str, &str)]| {
        read(&good(), environment).map(|config| config.ssh_host_from)
    };
    assert_eq!(from(&[]), Ok(SshHostFrom::Setting));
    assert_eq!(from(&[("SSH_HOST_FROM", "setting")]), Ok(SshHostFrom::Setting));
    assert_eq!(from(&[("SSH_HOST_FROM", "node")]), Ok(SshHostFrom::Node));
}

#[test]
fn images_own_programs_are_run_only_if_the_operator_says_so_and_beside_a_server() {
    let run = |environment: &[(&str, &str)]| read(&good(), environment).map(|it| it.run_image);
    let image = ("SSH_SERVER_IMAGE", "registry.example/ssh:1");
    assert_eq!(run(&[image]), Ok(RunImage::Never));
    assert_eq!(run(&[image, ("POD_RUN_IMAGE", "true")]), Ok(RunImage::Allowed));
    let Err(Problems(problems)) = run(&[("POD_RUN_IMAGE", "true")]) else { panic!("accepted") };
    assert!(
        problems.len() == 1 && problems[0].starts_with("POD_RUN_IMAGE: needs SSH_SERVER_IMAGE"),
        "{problems:?}"
    );
}

#[test]
fn pods_write_to_their_customers_where_there_is_nostr_and_a_program_for_it() {
    let (replies, image) = (("REPLY_FROM_POD", "true"), ("SSH_SERVER_IMAGE", "r.example/ssh:1"));
    let transport = "REPLY_FROM_POD: needs the Nostr transport; set RUN_MODE to nostr or both";
    let program = "REPLY_FROM_POD: needs SSH_SERVER_IMAGE, which has the program for it";
    for (environment, expected) in [
        (&[replies][..], vec![program]),
        (&[replies, ("RUN_MODE", "http")], vec![transport, program]),
        (&[replies, ("RUN_MODE", "http"), image], vec![transport]),
        (&[("RUN_MODE", "http")], vec![]),
    ] {
        let problems = read(&good(), environment).err().map_or_else(Vec::new, |found| found.0);
        assert_eq!(problems, expected, "{environment:?}");
    }
    let is_on = |environment: &[(&str, &str)]| {
        read(&good(), environment).unwrap_or_else(|problems| panic!("{problems}")).reply_from_pod
    };
    assert!(!is_on(&[]) && !is_on(&[image]), "not unless the operator says so");
    assert!(is_on(&[replies, image]) && is_on(&[replies, image, ("RUN_MODE", "both")]));
}

#[test]
fn notices_are_ten_minutes_and_one_minute_before_the_end_unless_the_operator_says_otherwise() {
    let notices = |environment: &[(&str, &str)]| {
        let config = read(&good(), environment).unwrap_or_else(|problems| panic!("{problems}"));
        config.end_notices.iter().map(|before| before.0).collect::<Vec<_>>()
    };
    assert_eq!(notices(&[]), [600, 60]);
    assert_eq!(notices(&[("END_NOTICES", "30")]), [30]);
    assert_eq!(notices(&[("END_NOTICES", "none")]), [0; 0]);
    let file = format!("{}end_notices = \"\"\n", good());
    assert!(read(&file, &[]).is_ok_and(|config| config.end_notices.is_empty()));
    for wrong in ["0", "soon", "600,none", "86401", "1,2,3,4,5,6,7,8,9"] {
        let Err(Problems(problems)) = read(&good(), &[("END_NOTICES", wrong)]) else {
            panic!("{wrong} is accepted")
        };
        assert!(problems.len() == 1 && problems[0].starts_with("END_NOTICES: "), "{problems:?}");
    }
}

#[test]
fn overcommit_is_a_whole_number_and_there_is_none_unless_it_is_set() {
    let (cpu, memory) = ("POD_CPU_OVERCOMMIT", "POD_MEMORY_OVERCOMMIT");
    let overcommit = |environment: &[(&str, &str)]| {
        let config = read(&good(), environment).unwrap_or_else(|problems| panic!("{problems}"));
        let overcommit = config.allowed.overcommit;
        (overcommit.cpu.get(), overcommit.memory.get())
    };
    assert_eq!(overcommit(&[]), (1, 1));
    assert_eq!(overcommit(&[(cpu, "4")]), (4, 1));
    assert_eq!(overcommit(&[(cpu, "1"), (memory, "100")]), (1, 100));
    for wrong in ["0", "101", "1.5", "-4", "four"] {
        let Err(Problems(problems)) = read(&good(), &[(cpu, wrong), (memory, wrong)]) else {
            panic!("{wrong} is accepted")
        };
        let expected =
            [cpu, memory].map(|key| format!("{key}: must be a whole number from 1 to 100"));
        assert_eq!(problems, expected, "{wrong}");
    }
}

#[test]
fn each_mint_is_a_url() {
    let mints = |mints| read(&good(), &[("WHITELISTED_MINTS", mints)]);
    let local = mints("https://m.example/Bitcoin, http://127.0.0.1:3338");
    let local = local.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(local.mints.len(), 2);
    let Err(Problems(problems)) = mints("mint.example.com,https://m.example,ftp://m.example")
    else {
        panic!("accepted")
    };
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("WHITELISTED_MINTS: mint.example.com is not the URL of a mint")
    );
}

#[test]
fn what_egress_rules_leave_out_are_networks() {
    let except = |networks| read(&good(), &[("POD_EGRESS_EXCEPT", networks)]);
    let config = except("203.0.113.7/32, 2001:db8:1::/48");
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    let networks: Vec<String> =
        config.allowed.egress_except.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["203.0.113.7/32", "2001:db8:1::/48"]);
    let many = ["192.0.2.7/32"; 33].join(",");
    let Err(Problems(problems)) = except(&format!("203.0.113.7,203.0.113.7/24,0.0.0.0/0,{many}"))
    else {
        panic!("accepted")
    };
    let expected = ["at most 32", "203.0.113.7 is", "203.0.113.7/24 is", "0.0.0.0/0 is"];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (problem, expected) in problems.iter().zip(expected) {
        let is_it = problem.starts_with("POD_EGRESS_EXCEPT: ") && problem.contains(expected);
        assert!(is_it, "{problem}");
    }
}

#[test]
fn credential_helpers_are_run_if_the_operator_says_so() {
    let helpers = |environment: &[(&str, &str)]| {
        let config = read(&good(), environment).unwrap_or_else(|problems| panic!("{problems}"));
        config.registries.credential_helpers
    };
    assert_eq!(helpers(&[]), CredentialHelpers::Refuse);
    assert_eq!(helpers(&[("REGISTRY_CREDENTIAL_HELPERS", "true")]), CredentialHelpers::Run);
}

#[test]
fn registries_without_tls_are_named_one_by_one() {
    let plain_http = |hosts| read(&good(), &[("REGISTRY_PLAIN_HTTP", hosts)]);
    let named = plain_http("registry.svc:5000, [FD00::1]:5000");
    let named = named.unwrap_or_else(|problems| panic!("{problems}")).registries.plain_http;
    let named: Vec<String> = named.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["[fd00::1]:5000", "registry.svc:5000"]);
    let Err(Problems(problems)) = plain_http("http://registry.svc,registry.svc/team,a.example")
    else {
        panic!("accepted")
    };
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("REGISTRY_PLAIN_HTTP: \"http://registry.svc\" is not a registry")
    );
}

#[test]
fn the_environment_wins_and_stands_for_policy_settings() {
    let config = read(
        &good(),
        &[
            ("SSH_HOST", "other.example"),
            ("PAYMENT_RATE_SATS_PER_HOUR", "120"),
            ("SSH_BASE_IMAGE", "a/b:1"),
        ],
    );
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.ssh_host.as_str(), config.relays.len()), ("other.example", 2));
    assert_eq!(config.policy_settings["pricing"]["sats_per_hour"], 120);
    assert_eq!(config.policy_settings["images"]["default"], "a/b:1");
    let twice =
        format!("{}payment_rate_sats_per_hour = 1\n[policy.pricing]\nsats_per_hour = 2\n", good());
    assert!(read(&twice, &[]).err().unwrap().to_string().contains("the same setting"));
}

#[test]
fn a_mnemonic_or_payout_that_would_fail_later_is_a_problem_and_the_mnemonic_is_not_shown() {
    assert!(read(&good(), &[("WALLET_MNEMONIC", MNEMONIC)]).is_ok());
    for wrong in ["hunter2", &MNEMONIC.replace("yellow", "hunter2"), &MNEMONIC[6..]] {
        let problems = read(&good(), &[("WALLET_MNEMONIC", wrong)]).err().unwrap().to_string();
        assert!(problems.contains("WALLET_MNEMONIC: needs 12 to 24"), "{problems}");
        assert!(!problems.contains("hunter2") && !problems.contains("sausage"), "{problems}");
    }
    let payout = |to| read(&good(), &[("PAYOUT_ADDRESS", to), ("PAYOUT_ABOVE_SATS", "1000")]);
    assert!(payout("a.b+c@pay.example").is_ok());
    for wrong in ["pay.example", "@pay.example", "a@", "a@b@c", "a@https://pay.example"] {
        let problems = payout(wrong).err().unwrap().to_string();
        assert!(problems.contains("PAYOUT_ADDRESS: must be a Lightning address"), "{problems}");
    }
}

#[test]
fn the_gateway_is_off_until_one_of_its_ways_is_on() {
    let gateway = |more: &[(&str, &str)]| read(&good(), more).map(|config| config.gateway);
    assert!(gateway(&[("GATEWAY_SSH_HOST", "g.example")]).unwrap().is_none());
    let listen = ("GATEWAY_SSH_LISTEN", "[::]:2222");
    let jump_host = gateway(&[listen]).unwrap().unwrap().jump_host.unwrap();
    assert_eq!((jump_host.host, jump_host.port), (None, None));
    let iroh = gateway(&[("GATEWAY_IROH", "true"), ("GATEWAY_IROH_BIND", "0.0.0.0:4433")]);
    let iroh = iroh.unwrap().unwrap();
    assert_eq!(iroh.process, GatewayProcess::Service);
    assert!(iroh.jump_host.is_none() && iroh.iroh.unwrap().bind.len() == 1);
    let elsewhere = [("GATEWAY_IROH", "true"), ("GATEWAY_IN_SERVICE", "false")];
    let problems = gateway(&elsewhere).err().unwrap().to_string();
    for expected in ["GATEWAY_IROH_EXTERNAL or GATEWAY_IROH_RELAYS", "needs DATABASE_URL"] {
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn a_gateway_in_a_process_of_its_own_has_health_and_metrics_where_it_listens() {
    let token = ("OPERATOR_TOKEN", "a token of the operator of this test");
    let own = [
        ("GATEWAY_SSH_LISTEN", "[::]:2222"),
        ("GATEWAY_IN_SERVICE", "false"),
        ("DATABASE_URL", "postgres://db.example/paygress"),
        ("WALLET_MNEMONIC", MNEMONIC),
        token,
    ];
    let gateway = |more: &[(&str, &str)]| {
        let settings: Vec<_> = own.iter().chain(more).copied().collect();
        read(&good(), &settings).map(|config| config.gateway.unwrap().http)
    };
    assert!(gateway(&[]).unwrap().is_none());
    let http = gateway(&[("GATEWAY_HTTP_LISTEN", "[::]:8080")]).unwrap().unwrap();
    assert_eq!((http.listen.port(), http.operator_token.is_some()), (8_080, true));
    for more in [
        &[("GATEWAY_HTTP_LISTEN", "8080")][..],
        &[("GATEWAY_HTTP_LISTEN", "[::]:8080"), ("GATEWAY_IN_SERVICE", "true")],
    ] {
        let problems = gateway(more).err().unwrap().to_string();
        assert!(problems.contains("GATEWAY_HTTP_LISTEN: "), "{problems}");
    }
}

#[test]
fn pods_have_names_of_their_own_below_a_domain_that_the_service_is_not_in() {
    let both = ("RUN_MODE", "both");
    let with = |domain: &str, more: &[(&str, &str)]| {
        let settings: Vec<_> = [("APPS_DOMAIN", domain)].iter().chain(more).copied().collect();
        read(&good(), &settings).map(|config| config.http.and_then(|http| http.apps_domain))
    };
    assert!(read(&good(), &[both]).unwrap().http.unwrap().apps_domain.is_none());
    let beside = [both, ("PUBLIC_URL", "https://pods.example:8443")];
    let domain = with("Apps.Example", &beside).unwrap().unwrap();
    assert_eq!(domain.as_str(), "apps.example");
    for (domain, settings, expected) in [
        ("apps.example", &[][..], "needs the HTTP transport"),
        ("*.apps.example", &[both], "without *."),
        ("pods.example", &beside, "must not be the host of PUBLIC_URL"),
        ("apps.example", &[both, ("PUBLIC_URL", "https://a.apps.example")], "must not be the host"),
    ] {
        let problems = with(domain, settings).err().unwrap().to_string();
        assert!(problems.contains("APPS_DOMAIN: ") && problems.contains(expected), "{problems}");
    }
}

#[test]
fn pods_have_ports_unless_the_gateway_alone_is_sold() {
    let iroh = ("GATEWAY_IROH", "true");
    let access = |access: &str| read(&good(), &[("ACCESS", access), iroh]).unwrap().access;
    let by_default = read(&good(), &[]).unwrap().access;
    assert!(by_default.modes().is_default() && by_default.ports().is_some());
    let gateway = access("gateway");
    assert_eq!((gateway.ports(), gateway.max_leases()), (None, 100));
    let both = access("gateway, host-port");
    assert!(both.ports().is_some() && both.modes().contains(AccessMode::Gateway));
    assert!(!both.modes().contains(AccessMode::NodePort));
    let limited = read(&good(), &[("ACCESS", "gateway"), ("MAX_LEASES", "7"), iroh]).unwrap();
    assert_eq!(limited.access.max_leases(), 7);
    let unused = read(&good(), &[("MAX_LEASES", "7")]).err().unwrap().to_string();
    assert!(unused.contains("MAX_LEASES: is for ACCESS=gateway"), "{unused}");
    let without = read(&good(), &[("ACCESS", "gateway")]).err().unwrap().to_string();
    assert!(without.contains("ACCESS: names gateway, and there is none"), "{without}");
}

#[test]
fn every_key_of_the_table_is_read_and_documented() {
    let documented = include_str!("../../../../docs/operating.md");
    let mut reader = Reader::new(Some(&good()), []);
    Config::from_reader(&mut reader);
    for Key { name, default, about } in KEYS {
        let is_read = reader.keys_read.contains(name);
        assert_eq!(is_read, !ENVIRONMENT_ONLY.contains(name), "{name} is not read");
        assert!(!about.is_empty() && !about.ends_with('.'), "{name}: {about}");
        let row = documented.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/operating.md has no row for {name}"));
        if let Some(default) = default {
            assert!(row.contains(&format!("| `{default}` |")), "{name}: the default in {row}");
        }
    }
    let rows = documented.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for name in rows.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')) {
        assert!(KEYS.iter().any(|key| key.name == name), "{name} is documented and not read");
    }
}

#[test]
fn the_settings_of_the_overlays_have_names_that_the_chart_takes() {
    let known = deployed();
    for file in [
        include_str!("../../../../k8s/overlays/cluster/config.env"),
        include_str!("../../../../k8s/overlays/gateway/gateway.env"),
        include_str!("../../../../k8s/overlays/gateway-process/gateway.env"),
    ] {
        let names = file.lines().filter(|line| !line.starts_with('#'));
        for (name, _) in names.filter_map(|line| line.split_once('=')) {
            assert!(known.contains(name), "{name}");
        }
    }
    assert!(BESIDE.iter().all(|name| !KEYS.iter().any(|key| key.name == *name)));
}
