use super::*;

const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PUBLIC: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

/// A file with these lines above and below the server's section.
fn text(top: &str, bottom: &str) -> String {
    format!(
        "private_key = \"{SECRET}\"\naddresses = [\"10.77.0.2/32\", \"fd77::2/128\"]\n{top}\n\
         [server]\npublic_key = \"{PUBLIC}\"\n\
         endpoints = [\"198.51.100.1:51900\", \"[2001:db8::1]:51900\"]\n{bottom}\n"
    )
}

/// Writes the text to a private file and loads it.
fn load_text(text: &str) -> Result<Settings, Failure> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("client.toml");
    write_with_mode(&path, text, 0o600);
    load(&path, &Typed::default())
}

fn write_with_mode(path: &Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode set");
}

fn complaint(text: &str) -> String {
    let failure = load_text(text).expect_err("refused");
    assert_eq!(failure.exit_code(), 2, "{failure}");
    failure.to_string()
}

#[test]
fn the_smallest_file_gets_the_defaults() {
    let settings = load_text(&text("", "")).expect("accepted");
    assert_eq!(settings.mtu, 1400);
    assert_eq!(settings.modes, Modes::default());
    assert_eq!(settings.routes, Routes::Default);
    assert_eq!(settings.interface, "marline0");
    assert_eq!(settings.endpoints.len(), 2);
    assert_eq!((settings.mark, settings.table), (0x6d61, 0x6d61));
    assert!(settings.dns.is_empty() && settings.roles.is_empty());
}

#[test]
fn a_full_file_is_understood() {
    let settings = load_text(&text(
        "mtu = 1380\nmode = \"redundant\"\nroutes = [\"10.0.0.0/8\", \"2001:db8:5::/48\"]\n\
         dns = [\"10.77.0.1\"]\nignore = [\"tap*\"]\ninterface = \"bond0\"\nfwmark = 7\ntable = 77",
        "[[uplink]]\nname = \"wwan0\"\nrole = \"backup\"\n[[uplink]]\nname = \"eth0\"",
    ))
    .expect("accepted");
    assert_eq!(settings.mtu, 1380);
    assert_eq!(settings.modes, Modes::all(Mode::Redundant));
    let networks = ["10.0.0.0/8", "2001:db8:5::/48"].map(|n| n.parse().expect("a network"));
    assert_eq!(settings.routes, Routes::Networks(networks.to_vec()));
    assert_eq!(settings.dns, [IpAddr::from([10, 77, 0, 1])]);
    assert_eq!(settings.roles["wwan0"], Role::Backup);
    assert_eq!(settings.roles["eth0"], Role::Always);
    assert_eq!((settings.mark, settings.table), (7, 77));
}

#[test]
fn what_was_typed_beats_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("client.toml");
    write_with_mode(&path, &text("mode = \"redundant\"", ""), 0o600);
    let typed = Typed {
        mode: Some(Mode::Handover),
    };
    assert_eq!(
        load(&path, &typed).expect("accepted").modes,
        Modes::all(Mode::Handover)
    );
}

#[test]
fn a_wrong_field_is_named_with_file_and_line() {
    for (top, bottom, line, parts) in [
        ("colour = 1", "", 3, &["colour"][..]),
        ("mtu = 900", "", 3, &["mtu", "1280 to 1500"]),
        ("mode = \"fast\"", "", 3, &["mode", "aggregate", "handover"]),
        (
            "routes = \"some\"",
            "",
            3,
            &["routes", "\"default\"", "list of networks"],
        ),
        (
            "routes = [\"10.1.2.3/8\"]",
            "",
            3,
            &["routes", "10.0.0.0/8"],
        ),
        ("dns = [\"one\"]", "", 3, &["dns"]),
        (
            "interface = \"much-too-long-a-name\"",
            "",
            3,
            &["interface", "1 to 15"],
        ),
        ("table = 254", "", 3, &["table", "254"]),
        ("fwmark = 0", "", 3, &["fwmark"]),
        (
            "",
            "[[uplink]]\nname = \"wwan0\"\nrole = \"sometimes\"",
            9,
            &["role", "backup"],
        ),
        ("", "[[uplink]]\nname = \"wwan0\"\nspeed = 5", 9, &["speed"]),
        (
            "private_key_file = \"key\"",
            "",
            3,
            &["private_key_file", "one of the two"],
        ),
        (
            "",
            "[[uplink]]\nname = \"a\"\n[[uplink]]\nname = \"a\"",
            7,
            &["\"a\"", "twice"],
        ),
        ("", "[[uplink]]\nname = \"marline0\"", 7, &["own interface"]),
    ] {
        let complaint = complaint(&text(top, bottom));
        for part in parts {
            assert!(complaint.contains(part), "{top}{bottom}: {complaint}");
        }
        let place = format!("client.toml:{line}");
        assert!(
            complaint.contains(&place),
            "{top}{bottom} lacks {place}: {complaint}"
        );
    }
}

#[test]
fn two_addresses_of_one_version_are_refused() {
    let twice = text("", "").replace("fd77::2/128", "10.77.0.3/32");
    assert!(complaint(&twice).contains("client.toml:2: addresses: more than one IPv4"));
}

#[test]
fn a_damaged_key_and_a_wrong_endpoint_are_refused_in_their_lines() {
    let key = complaint(&text("", "").replace(PUBLIC, "AAAA"));
    assert!(
        key.contains("client.toml:5") && key.contains("44 characters"),
        "{key}"
    );
    let endpoint = complaint(&text("", "").replace("198.51.100.1:51900", "198.51.100.1"));
    assert!(
        endpoint.contains("client.toml:6") && endpoint.contains("no port"),
        "{endpoint}"
    );
    let none = complaint(&text("", "").replace("private_key", "#"));
    assert!(none.contains("private_key: it is missing"), "{none}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("client.toml");
    write_with_mode(&path, &text("", ""), 0o644);
    let failure = load(&path, &Typed::default()).expect_err("refused");
    assert!(failure.to_string().contains("chmod 600"), "{failure}");

    let outside = text("", "").replace(
        &format!("private_key = \"{SECRET}\""),
        "private_key_file = \"key\"",
    );
    write_with_mode(&path, &outside, 0o644);
    write_with_mode(&dir.path().join("key"), SECRET, 0o640);
    let failure = load(&path, &Typed::default()).expect_err("refused");
    assert!(failure.to_string().contains("0640"), "{failure}");
    write_with_mode(&dir.path().join("key"), SECRET, 0o400);
    let settings = load(&path, &Typed::default()).expect("accepted");
    assert_eq!(key::encode(&settings.secret), SECRET);
}

#[test]
fn a_key_file_that_is_not_there_is_told_with_the_line_that_names_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("client.toml");
    let outside = text("", "").replace(
        &format!("private_key = \"{SECRET}\""),
        "private_key_file = \"key\"",
    );
    write_with_mode(&path, &outside, 0o644);
    let failure = load(&path, &Typed::default()).expect_err("refused");
    assert_eq!(failure.exit_code(), 2);
    let told = failure.to_string();
    let missing = dir.path().join("key").display().to_string();
    for part in [
        "client.toml:1: field `private_key_file`: there is no file",
        &missing,
        "marline keygen",
        "marline join",
    ] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let failure = load(Path::new("/nowhere/client.toml"), &Typed::default()).expect_err("missing");
    assert!(failure.to_string().contains("marline join"), "{failure}");
    assert_eq!(failure.exit_code(), 2);
}

#[test]
fn the_file_made_from_a_join_code_is_accepted() {
    let code = JoinCode {
        expires_unix_s: 1,
        secret: key::decode(SECRET).expect("a key"),
        server: key::decode(PUBLIC).expect("a key"),
        endpoints: vec!["vpn.example.org:51900".parse().expect("an endpoint")],
        v4: Some([10, 77, 0, 2].into()),
        v6: Some("fd77::2".parse().expect("an address")),
        mtu: Some(1390),
    };
    let settings = load_text(&file_from_join_code(&code)).expect("accepted");
    assert_eq!(settings.secret, code.secret);
    assert_eq!(settings.server, code.server);
    assert_eq!(settings.endpoints, code.endpoints);
    assert_eq!(settings.mtu, 1390);
    let addresses = ["10.77.0.2/32", "fd77::2/128"].map(|a| a.parse().expect("an address"));
    assert_eq!(settings.addresses, addresses);
}

#[test]
fn each_class_of_flows_may_have_a_mode_of_its_own() {
    let top = "mode = { realtime = \"redundant\", bulk = \"handover\" }";
    let settings = load_text(&text(top, "")).expect("accepted");
    let expected = Modes {
        realtime: Mode::Redundant,
        interactive: Mode::Aggregate,
        bulk: Mode::Handover,
    };
    assert_eq!(settings.modes, expected);
    let complaint = complaint(&text("mode = { calls = \"redundant\" }", ""));
    assert!(complaint.contains("realtime"), "{complaint}");
}

/// The example that is shipped, as an operator would put it into place: private, beside its key.
fn full_example() -> (String, Settings) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/client-full.toml");
    let text = fs::read_to_string(shipped).expect("it is shipped");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("client.toml");
    write_with_mode(&path, &text, 0o600);
    write_with_mode(&dir.path().join("client.key"), SECRET, 0o600);
    let settings = load(&path, &Typed::default()).expect("accepted");
    (text, settings)
}

#[test]
fn the_full_example_can_be_loaded_and_shows_the_defaults() {
    let (_, full) = full_example();
    let lean = load_text(&text("", "")).expect("accepted");
    assert_eq!((full.mtu, full.modes), (lean.mtu, lean.modes));
    assert_eq!((full.routes, full.dns), (lean.routes, lean.dns));
    assert_eq!((full.interface, full.ignore), (lean.interface, lean.ignore));
    assert_eq!((full.mark, full.table), (lean.mark, lean.table));
    assert_eq!(full.offload, lean.offload);
    assert_eq!(full.roles["wwan0"], Role::Backup);
}

#[test]
fn the_full_example_names_every_field_and_every_word_that_may_stand_in_it() {
    let (example, _) = full_example();
    let places = [
        ("no_such = 1", ""),
        ("", "no_such = 1"),
        ("", "[[uplink]]\nno_such = 1"),
        ("mode = { no_such = 1 }", ""),
        ("mode = \"no_such\"", ""),
        ("offload = \"no_such\"", ""),
        ("", "[[uplink]]\nname = \"a\"\nrole = \"no_such\""),
    ];
    let mut words = 0;
    for (top, bottom) in places {
        let complaint = complaint(&text(top, bottom));
        let (_, allowed) = complaint
            .split_once("expected")
            .expect("the complaint lists what is allowed");
        let allowed = allowed.split('`').skip(1).step_by(2);
        for word in allowed {
            let shown = [
                format!("{word} = "),
                format!("[{word}]"),
                format!("#   {word} "),
            ];
            let is_shown = shown.iter().any(|shown| example.contains(shown));
            assert!(is_shown, "{word} is missing");
            words += 1;
        }
    }
    assert_eq!(words, 32, "every field, class, mode, role and offload");
}
