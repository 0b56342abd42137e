//! docs/security.md can be looked up: every file and every test that it names is there, its links lead somewhere, and
//! its tables say the same of each control. docs/access.md says of every scope what it opens.

use clap::CommandFactory;
use statusledger::access::scope::{Permission, Role, Scope};
use statusledger::cli::Cli;
use statusledger::http::needs::NEEDS;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const PAGE: &str = include_str!("../docs/security.md");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Controls there are.
const CONTROLS: u8 = 30;

/// What stands between backticks in the text, but for blocks of code.
fn spans(text: &str) -> Vec<&str> {
    let mut block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            block = !block;
        } else if !block {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

/// Whether it is written like a path of the repository.
fn is_path(text: &str) -> bool {
    const BELOW: [&str; 8] =
        ["src/", "keys/", "verifier/", "simulator/", "migrations/", "tests/", "docs/", ".ci/"];
    let at_the_root = !text.contains(['/', ' '])
        && ([".md", ".toml", ".lock"].iter().any(|end| text.ends_with(end)) || text.starts_with("LICENSE-"));
    at_the_root || BELOW.iter().any(|beginning| text.starts_with(beginning))
}

/// Whether `name` is a test in this source, and one that runs.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let heads = [format!("fn {name}("), format!("async fn {name}(")];
    lines.iter().enumerate().any(|(at, line)| {
        let above: Vec<&str> = lines[..at]
            .iter()
            .rev()
            .copied()
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .collect();
        let has = |attribute: &str| above.iter().any(|line| line.starts_with(attribute));
        heads.iter().any(|head| line.starts_with(head.as_str()))
            && (has("#[test]") || has("#[tokio::test"))
            && !has("#[ignore")
    })
}

/// What is wrong with what is named: `path`, or `path::test`. Nothing is, where it is no path.
fn fault(named: &str) -> Option<String> {
    let (path, test) = match named.split_once("::") {
        Some((path, test)) => (path, Some(test)),
        None => (named, None),
    };
    if !is_path(path) {
        return None;
    }
    let file = Path::new(ROOT).join(path);
    match test {
        None if file.exists() => None,
        None => Some(format!("{path} does not exist")),
        Some(test) => match std::fs::read_to_string(&file) {
            Ok(source) if is_test(&source, test) => None,
            Ok(_) => Some(format!("{path} has no test {test}")),
            Err(e) => Some(format!("{path}: {e}")),
        },
    }
}

/// The rows of the table under a heading, by the number that each begins with.
///
/// # Panics
/// If there is no such heading, or a number stands there twice.
fn rows<'a>(page: &'a str, heading: &str) -> BTreeMap<u8, &'a str> {
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let mut found = BTreeMap::new();
    for line in section.lines().take_while(|line| !line.starts_with('#')) {
        let Some((number, rest)) = line.strip_prefix("| ").and_then(|row| row.split_once(" | ")) else {
            continue;
        };
        if let Ok(number) = number.parse() {
            assert!(found.insert(number, rest).is_none(), "{heading}: {number} stands there twice");
        }
    }
    found
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// What is wrong with a link of the page; nothing is with one that leads out of the repository.
fn dead(link: &str) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let file = if path.is_empty() { "security.md" } else { path };
    let Ok(text) = std::fs::read_to_string(Path::new(ROOT).join("docs").join(file)) else {
        return Some(format!("{link}: no such file"));
    };
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    let there = fragment.is_empty() || headings.map(str::trim).any(|heading| anchor(heading) == fragment);
    (!there).then(|| format!("{link}: no such heading"))
}

#[test]
fn every_file_and_test_that_the_security_page_names_exists() {
    let named = spans(PAGE);
    let faults: Vec<String> = named.iter().filter_map(|named| fault(named)).collect();
    assert_eq!(faults, Vec::<String>::new());
    let tests = named.iter().filter(|named| named.contains("::") && is_path(named)).count();
    assert!(tests > 80, "only {tests} tests are named");
    let links: Vec<&str> =
        PAGE.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link)).collect();
    let dead: Vec<String> = links.iter().filter_map(|link| dead(link)).collect();
    assert_eq!(dead, Vec::<String>::new());
    assert!(links.len() > 10, "only {} links", links.len());
}

#[test]
fn the_security_page_says_of_every_control_how_it_stands() {
    let controls = rows(PAGE, "## Controls");
    let (tests, missing) = (rows(PAGE, "### Tests"), rows(PAGE, "### Missing"));
    assert_eq!(controls.keys().copied().collect::<Vec<_>>(), (1..=CONTROLS).collect::<Vec<_>>());
    for (number, row) in &controls {
        let state = row.split(" | ").nth(1).unwrap_or_default();
        let shown = tests.get(number).is_some_and(|row| spans(row).iter().any(|s| s.contains("::")));
        let lacks = missing.contains_key(number);
        let placed = spans(row).into_iter().any(is_path);
        let holds = match state {
            "held" => placed && shown && !lacks,
            "partly" => placed && lacks,
            "not yet" => !tests.contains_key(number) && !lacks,
            other => panic!("{number}: \"{other}\" is no state"),
        };
        assert!(holds, "{number} is {state}; place: {placed}, tests: {shown}, something missing: {lacks}");
    }
    for number in tests.keys().chain(missing.keys()) {
        assert!(controls.contains_key(number), "there is no control {number}");
    }
}

#[test]
fn what_is_not_there_is_found() {
    assert_eq!(fault("tests/documents.rs::what_is_not_there_is_found"), None);
    assert_eq!(fault("src/access"), None);
    assert_eq!(fault("sl_invite_"), None, "no path");
    for wrong in [
        "src/access/nothing.rs",
        "NOTHING.md",
        "tests/nothing.rs::a_test",
        "tests/documents.rs::what_is_not_there",
        // Functions, but no tests.
        "tests/documents.rs::fault",
        "src/access/key.rs::mint",
    ] {
        assert!(fault(wrong).is_some(), "{wrong}");
    }
    assert!(is_test("    #[test]\n    fn it() {}", "it"));
    assert!(is_test("#[tokio::test]\n// why\n#[allow(x)]\nasync fn it() {}", "it"));
    assert!(!is_test("#[test]\n#[ignore = \"slow\"]\nfn it() {}", "it"));
    assert!(!is_test("#[test]\nfn other() {}\n\nfn it() {}", "it"));
    assert!(
        dead("nothing.md").is_some() && dead("#nothing").is_some() && dead("receipt.md#nothing").is_some()
    );
    assert_eq!(dead("receipt.md#key-manifest"), None);
    assert_eq!(rows("\n## A\n| # | b |\n|--:|---|\n| 1 | x | y |\n# B\n| 2 | z |\n", "## A")[&1], "x | y |");
}

const ACCESS: &str = include_str!("../docs/access.md");
/// Where the commands begin that ask an instance; the others work on its database, or make one.
const ASKING: [&str; 13] = [
    "api-keys",
    "apply",
    "audit",
    "destinations",
    "export",
    "history",
    "members",
    "openings",
    "people",
    "sources",
    "status",
    "tail",
    "workspaces",
];

/// The rows of the table of docs/access.md that begins with this head: each cell's spans.
fn table(head: &str) -> Vec<Vec<Vec<&'static str>>> {
    let (_, rest) = ACCESS.split_once(head).unwrap_or_else(|| panic!("no table {head}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(spans).collect()).collect()
}

#[test]
fn the_access_page_says_what_every_scope_opens() {
    let short = |route: &str| route.replace("/v1/workspaces/{workspace}", "…");
    let opens = |of: Option<Scope>| -> BTreeSet<String> {
        let fits = |permission: &Permission| {
            let scopes = permission.scopes();
            of.map_or(scopes.is_empty(), |scope| scopes.contains(&scope))
        };
        NEEDS.iter().filter(|(_, permission)| fits(permission)).map(|(route, _)| short(route)).collect()
    };
    let rows = table("| scope | routes");
    let mut listed = BTreeSet::new();
    let mut commands: Vec<&str> = Vec::new();
    for row in &rows {
        let scope = row[0].first().map(|name| name.parse::<Scope>().unwrap());
        let routes: BTreeSet<String> = row[1].iter().map(|route| (*route).to_owned()).collect();
        assert_eq!(routes, opens(scope), "{:?}", row[0]);
        listed.extend(routes);
        commands.extend(&row[2]);
    }
    assert_eq!(listed, NEEDS.iter().map(|(route, _)| short(route)).collect());
    let granting = |(scope, _): (Scope, &'static str)| (!opens(Some(scope)).is_empty()).then(|| scope.name());
    let narrow: Vec<&str> = Scope::all().filter_map(granting).collect();
    assert_eq!(rows.iter().filter_map(|row| row[0].first().copied()).collect::<Vec<_>>(), narrow);
    // Each command stands there: where the scope is that it asks for.
    let parser = Cli::command();
    let mut known = BTreeSet::new();
    for command in parser.get_subcommands().filter(|command| ASKING.contains(&command.get_name())) {
        let name = command.get_name();
        let below: Vec<&str> = command.get_subcommands().map(|c| c.get_name()).collect();
        known.extend(below.iter().filter(|below| **below != "help").map(|below| format!("{name} {below}")));
        if below.is_empty() {
            known.insert(name.to_owned());
        }
    }
    assert_eq!(commands.iter().map(|c| (*c).to_owned()).collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_access_page_says_what_every_role_has() {
    let has = |role: Role| -> Vec<&str> {
        let within = |scope: &Scope| role.grants().covers(scope.grants());
        Scope::all().map(|(scope, _)| scope).filter(within).map(Scope::name).collect()
    };
    let expected: Vec<_> = Role::ALL.iter().map(|role| (role.name(), has(*role))).collect();
    let (_, rest) = ACCESS.split_once("| role | scopes |\n|---|---|\n").unwrap();
    let rows = rest.lines().take_while(|line| line.starts_with('|'));
    let said: Vec<_> = rows
        .map(|row| {
            let (role, scopes) = row.trim_matches('|').split_once('|').unwrap();
            (role.trim(), spans(scopes))
        })
        .collect();
    assert_eq!(said, expected);
}

#[test]
fn the_access_page_says_which_scope_contains_which() {
    let seen = "workspace:read".parse::<Scope>().unwrap().grants();
    let mut expected = BTreeMap::new();
    for (scope, _) in Scope::all() {
        let within = |other: &Scope| {
            *other != scope && scope.grants().covers(other.grants()) && !seen.covers(other.grants())
        };
        let others: Vec<&str> =
            Scope::all().map(|(other, _)| other).filter(within).map(Scope::name).collect();
        if !others.is_empty() {
            expected.insert(scope.name(), others);
        }
    }
    let rows = table("| scope | contains");
    let said: BTreeMap<&str, Vec<&str>> = rows.iter().map(|row| (row[0][0], row[1].clone())).collect();
    assert_eq!(said, expected);
}
