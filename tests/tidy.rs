//! The rules of the house, as tests. Each rule is a pure function over the files of the tree, and each is proven here by
//! one planted fault that it must report and one clean tree on which it must be silent.
//!
//! `docs/STYLE.md` gives the reasons. Text is enough for these rules: what needs types is a lint (`clippy.toml`,
//! `[workspace.lints]`), and `tidy/lints.rs` plants a fault for each of those too.

mod tidy {
    pub mod books;
    pub mod lints;
    pub mod rooms;
    pub mod shape;
    pub mod source;
    pub mod words;
}

use std::fmt::Write;

use tidy::source::{Finding, SourceFile, tracked_files, tree};
use tidy::{books, rooms, shape, words};

type Rule = fn(&[SourceFile]) -> Vec<Finding>;

const RULES: &[(&str, Rule)] = &[
    ("a room imports only what the table says", rooms::imports),
    ("the map shows the same arrows", rooms::map),
    ("only the store speaks SQL, only the chain speaks HTTP to others", words::owned_crates),
    ("no private key has a type in the gateway", words::private_keys),
    ("nothing is left to be done", words::unfinished),
    ("only the command line prints", words::printing),
    ("no test is ignored", words::ignored_tests),
    ("what can panic says why it doesn't", words::unproven_panics),
    ("names are imported one by one", words::glob_imports),
    ("a machine names every case", words::wildcard_arms),
    ("a function fits on a screen", shape::function_length),
    ("a file can be read in one go", shape::file_length),
    ("every file is a module", shape::undeclared_modules),
    ("every migration is applied", books::migrations),
    ("every code has an answer", books::codes),
    ("a decision says what, why and what follows", books::decisions),
    ("links and paths in documents lead somewhere", books::links),
    ("every threat is shown by a test", books::threats),
    ("text is plain", books::plain_text),
    ("no path of one machine", books::machine_paths),
    ("no host that we don't know", books::hosts),
];

#[test]
fn the_tree_keeps_the_rules() {
    let files = tracked_files();
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the tree was not found");
    let mut report = String::new();
    for (name, rule) in RULES {
        let findings = rule(&files);
        if !findings.is_empty() {
            writeln!(report, "\n{name}:").unwrap();
        }
        for Finding { path, line, what } in findings {
            writeln!(report, "  {path}:{line}: {what}").unwrap();
        }
    }
    assert!(report.is_empty(), "{report}\ndocs/STYLE.md has the reasons\n");
}

/// The rule reports the fault, in the first file of the faulty tree, and is silent about the clean one.
fn prove(rule: Rule, faulty: &[(&str, &str)], clean: &[(&str, &str)]) {
    let found = rule(&tree(faulty));
    let blamed = faulty.first().map(|(path, _)| *path);
    assert!(found.iter().any(|finding| Some(finding.path.as_str()) == blamed), "not reported: {found:?}");
    assert_eq!(rule(&tree(clean)), [], "reported what is clean");
}

#[test]
fn rooms_are_kept_apart() {
    let clean = [
        (
            "src/flows/send.rs",
            "use crate::{ids::RequestId, store::Store};\nuse super::Error;\n// crate::http is a comment\n",
        ),
        ("src/chain/bitcoind/map.rs", "use super::super::Config;\nconst A: &str = \"crate::http\";"),
        (
            "src/http/mod.rs",
            "fn a() { crate::flows::send::begin() }\n#[cfg(test)]\nmod tests { use crate::store::Store; }",
        ),
        ("src/main.rs", "fn main() { sluice::cli::run() }"),
        ("src/domain/x.rs", "fn a() { crate::crash::point(\"a\"); }"),
    ];
    prove(rooms::imports, &[("src/http/mod.rs", "use crate::store::Store;")], &clean);
    prove(rooms::imports, &[("src/http/a/b.rs", "use crate::{flows::Error, money::Sat, chain::Fake};")], &clean);
    prove(rooms::imports, &[("src/domain/a.rs", "fn a() -> crate::flows::Error { todo() }")], &clean);
    prove(rooms::imports, &[("src/domain/a.rs", "use super::super::flows::Error;")], &clean);
    prove(rooms::imports, &[("src/ids.rs", "use super::money::Sat;")], &clean);
    prove(rooms::imports, &[("src/main.rs", "fn main() { sluice::store::open() }")], &clean);
    prove(rooms::imports, &[("src/attic/mod.rs", "")], &clean);
}

#[test]
fn the_map_is_true() {
    let map = |imports: &str| {
        format!(
            "| Room | What | Imports |\n|---|---|---|\n| `ids`, `clock` | a | nothing |\n| `ledger` | b | {imports} |\n\n| x | y | z |"
        )
    };
    prove(
        rooms::map,
        &[("docs/ARCHITECTURE.md", &map("money, ids, store"))],
        &[("docs/ARCHITECTURE.md", &map("ids, money"))],
    );
    prove(rooms::map, &[("docs/ARCHITECTURE.md", &map("money"))], &[]);
}

#[test]
fn crates_have_owners() {
    let clean = [
        ("src/store/mod.rs", "use sqlx::Row;"),
        ("src/chain/bitcoind/client.rs", "use reqwest::Client;"),
        ("src/a.rs", "// sqlx"),
    ];
    prove(words::owned_crates, &[("src/flows/mod.rs", "use sqlx::Row;")], &clean);
    prove(words::owned_crates, &[("src/chain/fake/mod.rs", "fn a() { reqwest::get(1) }")], &clean);
    prove(words::owned_crates, &[("src/connectors/ldk/peers.rs", "use reqwest::Client;")], &clean);
}

#[test]
fn private_keys_stay_with_the_signer() {
    let clean =
        [("signer/src/keys.rs", "use bitcoin::bip32::Xpriv;"), ("src/a.rs", "fn a(key: Xpub) {} // not an Xpriv")];
    for name in words::PRIVATE_KEYS {
        prove(words::private_keys, &[("src/domain/wallet.rs", &format!("fn a(key: {name}) {{}}"))], &clean);
    }
}

#[test]
fn nothing_is_unfinished() {
    let clean = [("src/a.rs", "fn a() { /* todo!() */ b(\"dbg!\") }")];
    for word in ["todo!()", "unimplemented!()", "dbg!(1)"] {
        prove(words::unfinished, &[("src/a.rs", &format!("fn a() {{ {word} }}"))], &clean);
    }
}

#[test]
fn libraries_do_not_print() {
    let clean = [
        ("src/cli/keys.rs", "fn a() { println!(); }"),
        ("src/main.rs", "fn main() { eprintln!(); }"),
        ("tests/it/main.rs", "fn a() { eprintln!(); }"),
        ("src/a.rs", "#[cfg(test)]\nmod tests {\n fn a() { println!(); }\n}"),
    ];
    for word in ["println!", "eprintln!", "print!", "eprint!"] {
        prove(words::printing, &[("src/flows/mod.rs", &format!("fn a() {{ {word}(); }}"))], &clean);
    }
}

#[test]
fn no_test_sleeps_unseen() {
    prove(
        words::ignored_tests,
        &[("tests/it/a.rs", "#[test]\n#[ignore]\nfn a() {}")],
        &[("src/a.rs", "#[test]\nfn ignored() {}")],
    );
    prove(words::ignored_tests, &[("src/a.rs", "#[ignore = \"slow\"]\nfn a() {}")], &[]);
}

#[test]
fn panics_are_proven_impossible() {
    let clean = [
        (
            "src/a.rs",
            "fn a() {\n    // proof: it was inserted above\n    b.expect(\"inserted\");\n    c.unwrap_or(1);\n}",
        ),
        ("src/b.rs", "#[cfg(test)]\nmod tests;\n"),
        ("src/b/tests.rs", "fn a() { b.unwrap() }"),
        ("tests/it/a.rs", "fn a() { b.unwrap() }"),
    ];
    for word in [".unwrap()", ".expect(\"b\")", ".unwrap_err()"] {
        prove(words::unproven_panics, &[("src/a.rs", &format!("fn a() {{ b{word}; }}"))], &clean);
    }
    for word in ["panic!()", "unreachable!()"] {
        prove(words::unproven_panics, &[("signer/src/a.rs", &format!("fn a() {{ {word} }}"))], &clean);
    }
}

#[test]
fn imports_are_named() {
    let clean = [(
        "src/a.rs",
        "use b::{c, d};\nfn a() { 2 * 3 }\n#[cfg(test)]\nmod tests {\n    use super::*;\n    use c::prelude::*;\n}",
    )];
    prove(words::glob_imports, &[("src/a.rs", "use b::*;")], &clean);
    prove(words::glob_imports, &[("src/a.rs", "use b::{c::*, d};")], &clean);
    prove(words::glob_imports, &[("src/a.rs", "use super::*;")], &clean);
    prove(words::glob_imports, &[("tests/it/a.rs", "use crate::harness::*;")], &clean);
}

#[test]
fn machines_name_every_case() {
    let machine = |arm: &str| format!("impl Machine for Send {{ fn a() {{ match b {{ C => 1, {arm} => 2 }} }} }}");
    let clean =
        [("src/domain/send.rs", &*machine("D { .. }")), ("src/domain/psbt.rs", "fn a() { match 65 { _ => 1 } }")];
    prove(words::wildcard_arms, &[("src/domain/send.rs", &machine("_"))], &clean);
    prove(words::wildcard_arms, &[("src/domain/send.rs", &machine("(_, _)"))], &clean);
    prove(words::wildcard_arms, &[("src/domain/send.rs", &machine("_ if e"))], &clean);
    prove(words::wildcard_arms, &[("src/http/problem.rs", "fn a() { match code { _ => 500 } }")], &clean);
}

#[test]
fn functions_fit_on_a_screen() {
    let function = |lines: usize| format!("fn a(b: [u8; 2]) {{\n{}}}\n", "    b();\n".repeat(lines - 2));
    prove(shape::function_length, &[("src/a.rs", &function(71))], &[("src/a.rs", &function(70))]);
}

#[test]
fn files_are_short() {
    let file = |lines: usize| "// a\n".repeat(lines);
    prove(shape::file_length, &[("src/a.rs", &file(601))], &[("src/a.rs", &file(600)), ("tests/it/a.rs", &file(800))]);
    prove(shape::file_length, &[("tests/it/a.rs", &file(801))], &[]);
}

#[test]
fn files_are_modules() {
    let clean = [
        ("src/lib.rs", "pub mod a;"),
        ("src/a/mod.rs", "mod b;\n#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;"),
        ("src/a/b.rs", "mod c;"),
        ("src/a/b/c.rs", ""),
        ("src/a/a_tests.rs", ""),
        ("tests/it/main.rs", "mod d;"),
        ("tests/it/d.rs", ""),
        ("tests/e.rs", "mod e {\n    pub mod f;\n}"),
        ("tests/e/f.rs", ""),
    ];
    prove(
        shape::undeclared_modules,
        &[("src/a/b.rs", ""), ("src/a/mod.rs", "// mod b;"), ("src/lib.rs", "mod a;")],
        &clean,
    );
}

#[test]
fn migrations_are_listed() {
    let listed = ("src/store/migrate.rs", "include_str!(\"../../migrations/0001_a.sql\")");
    let clean = [listed, ("migrations/0001_a.sql", "")];
    prove(books::migrations, &[("migrations/0002_b.sql", ""), ("migrations/0001_a.sql", ""), listed], &clean);
    prove(books::migrations, &[listed], &clean);
}

#[test]
fn codes_are_answered() {
    let codes = ("src/flows/error.rs", "pub enum Code {\n    /// Why.\n    NotFound,\n    Timeout,\n}\n");
    let clean = [codes, ("src/http/problem.rs", "match code {\n Code::NotFound => 404,\n Code::Timeout => 504 }")];
    prove(books::codes, &[("src/http/problem.rs", "match code { Code::NotFound => 404 }"), codes], &clean);
    prove(
        books::codes,
        &[("src/http/problem.rs", "match code { Code::NotFound => 404, Code::TimeoutLong => 1 }"), codes],
        &[codes],
    );
}

#[test]
fn decisions_are_complete() {
    let whole =
        "# 0001 A title\n\n## Status\n\nAccepted.\n\n## Context\n\na\n\n## Decision\n\nb\n\n## Consequences\n\nc\n";
    let clean = [("docs/adr/0001-a-title.md", whole)];
    for part in ["# 0001 A title", "## Status", "## Context", "## Decision", "## Consequences"] {
        prove(books::decisions, &[("docs/adr/0001-a-title.md", &whole.replace(part, "text"))], &clean);
    }
    prove(books::decisions, &[("docs/adr/0001-a-title.md", &whole.replace("b\n", ""))], &clean);
    prove(books::decisions, &[("docs/adr/0001-a-title.md", &format!("{whole}{}", "d\n".repeat(60)))], &clean);
    prove(books::decisions, &[("docs/adr/0002-a-title.md", &whole.replace("0001", "0002"))], &clean);
    prove(books::decisions, &[("docs/adr/notes.md", whole)], &clean);
}

#[test]
fn links_lead_somewhere() {
    let clean = [
        (
            "README.md",
            "[a](docs/A.md#part) [b](docs/) [c](https://github.com/x) [d](#here) `src/lib.rs` `src/*.rs`\n```\n[x](y)\n```",
        ),
        ("docs/A.md", "[back](../README.md)"),
        ("src/lib.rs", ""),
    ];
    prove(books::links, &[("README.md", "see [this](docs/B.md)")], &clean);
    prove(books::links, &[("docs/A.md", "see [this](README.md)"), ("README.md", "")], &clean);
    prove(books::links, &[("docs/A.md", "as in `src/gone.rs`")], &clean);
}

#[test]
fn threats_are_shown_by_tests() {
    let page = |row: &str| format!("# Threats\n\n| Who | Wants | Shown by |\n|---|---|---|\n{row}\n");
    let story = ("tests/it/attacks/door.rs", "async fn a_stranger_knocks() {}");
    let clean = [("docs/THREATS.md", &*page("| a | b | `attacks::door::a_stranger_knocks` |")), story];
    prove(books::threats, &[("docs/THREATS.md", &page("| a | b | nothing |")), story], &clean);
    prove(books::threats, &[("docs/THREATS.md", &page("| a | b | `attacks::door::a_stranger` |")), story], &clean);
    prove(
        books::threats,
        &[("docs/THREATS.md", &page("| a | b | `attacks::gone::a_stranger_knocks` |")), story],
        &clean,
    );
}

#[test]
fn text_has_no_surprises() {
    let clean = [("src/a.rs", "// \u{2026} \u{2192} \u{2264}\n"), ("a.png", "\u{fffd}")];
    prove(books::plain_text, &[("src/a.rs", "// zero\u{200b}width")], &clean);
    prove(books::plain_text, &[("README.md", "\u{201c}quoted\u{201d}")], &clean);
    prove(books::plain_text, &[("README.md", "a\r\nb")], &clean);
}

#[test]
fn machines_are_not_named() {
    let clean = [("scripts/a", "cd \"$HOME/work\" /var/lib/sluice src/home/a.rs")];
    for folder in ["home", "root", "work", "Users", "mnt"] {
        prove(books::machine_paths, &[("README.md", &format!("look at /{folder}/me"))], &clean);
    }
}

#[test]
fn hosts_are_known() {
    let clean = [(
        "README.md",
        "http://127.0.0.1:3000/a http://bitcoind:18443 https://github.com/a https://a.example/ http://$HOST",
    )];
    let url = |host: &str| format!("get https://{host}/simple");
    prove(books::hosts, &[("scripts/a", &url("packages.corp.internal"))], &clean);
    prove(books::hosts, &[("src/a.rs", &url("cdn.jsdelivr.net"))], &clean);
    prove(books::hosts, &[("Cargo.lock", &url("github.com.evil.net"))], &clean);
}
