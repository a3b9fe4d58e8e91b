//! Words that only some may say, or nobody.

use super::source::{Finding, Line, SourceFile, words};

/// A crate, and the only places that may name it.
const OWNERS: &[(&str, &[&str])] = &[
    // The adapter of rgb-lib reads one row of the library's own database.
    ("sqlx", &["src/store/", "src/assets/rgb/last.rs"]),
    // An adapter that talks to a node; the one that talks to payees' proxies, behind its guard; the one file of the built-in node that asks
    // the rapid gossip sync server of the operator, and bounds what it answers; and the command that asks a running gateway how it is.
    ("reqwest", &["src/chain/bitcoind/", "src/assets/courier/", "src/connectors/ldk/rapid.rs", "src/cli/"]),
];

/// Types that hold a private key. Only the signer has them, and the built-in node, whose money is its own and nobody's wallet.
pub const PRIVATE_KEYS: [&str; 6] = ["Xpriv", "SecretKey", "Keypair", "PrivateKey", "Mnemonic", "TweakedKeypair"];

const NODE_KEYS: &str = "src/connectors/ldk/";

const PRINTERS: [&str; 2] = ["src/cli/", "src/main.rs"];

/// The answer table of the API, beside the machines, is where a forgotten case would be a wrong answer.
const EXHAUSTIVE: &str = "src/http/problem.rs";

pub fn owned_crates(files: &[SourceFile]) -> Vec<Finding> {
    let gateway = files.iter().filter(|file| file.is_rust() && file.path.starts_with("src/"));
    each_line(gateway, |file, line| {
        let owned = |name: &str| OWNERS.iter().find(|(owned, _)| *owned == name);
        words(line.code)
            .filter_map(|(_, word)| owned(word))
            .find(|(_, places)| !places.iter().any(|place| file.path.starts_with(place)))
            .map(|(name, places)| format!("`{name}` belongs to {}", places.join(", ")))
    })
}

pub fn private_keys(files: &[SourceFile]) -> Vec<Finding> {
    let gateway = files.iter().filter(|file| file.is_rust() && file.path.starts_with("src/"));
    each_line(gateway.filter(|file| !file.path.starts_with(NODE_KEYS)), |_, line| {
        let (_, name) = words(line.code).find(|(_, word)| PRIVATE_KEYS.contains(word))?;
        Some(format!("`{name}` is a private key; only signer/ and the built-in node have those"))
    })
}

pub fn unfinished(files: &[SourceFile]) -> Vec<Finding> {
    each_line(rust(files), |_, line| {
        let name = ["todo", "unimplemented", "dbg"].into_iter().find(|name| has_macro(line.code, name))?;
        Some(format!("`{name}!` is for a moment, not for a commit"))
    })
}

pub fn printing(files: &[SourceFile]) -> Vec<Finding> {
    let quiet = rust(files).filter(|file| file.is_shipped() && !file.path.ends_with("/main.rs"));
    each_line(quiet.filter(|file| !PRINTERS.iter().any(|place| file.path.starts_with(place))), |_, line| {
        let name = ["println", "eprintln", "print", "eprint"].into_iter().find(|name| has_macro(line.code, name))?;
        (!line.is_test).then(|| format!("`{name}!` belongs to the command line; a library uses tracing"))
    })
}

pub fn ignored_tests(files: &[SourceFile]) -> Vec<Finding> {
    each_line(rust(files), |_, line| {
        line.code
            .contains("#[ignore")
            .then(|| "a test that is not run proves nothing; make it quick or give it a target".to_owned())
    })
}

/// `unwrap`, `expect`, `panic!` and `unreachable!` in shipped code need a `// proof:` on their line or the one above.
pub fn unproven_panics(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_shipped()) {
        let mut above = "";
        for line in file.lines() {
            let proven = line.text.contains("// proof:") || above.contains("// proof:");
            if let Some(what) = may_panic(line.code).filter(|_| !line.is_test && !proven) {
                findings.push(file.finding(line.number, format!("`{what}` needs a `// proof:` that it can't happen")));
            }
            above = line.text;
        }
    }
    findings
}

fn may_panic(code: &str) -> Option<&'static str> {
    let calls = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("];
    let call = calls.into_iter().find(|call| code.contains(call));
    call.or_else(|| ["panic", "unreachable"].into_iter().find(|name| has_macro(code, name)))
}

/// `use a::*`. Only a test may say `use super::*`, or take a library's prelude, which was made for that.
pub fn glob_imports(files: &[SourceFile]) -> Vec<Finding> {
    each_line(rust(files), |_, line| {
        let is_glob = |(at, _): (usize, &str)| {
            matches!(line.code[at + 3..].trim_start().chars().next(), None | Some(';' | ',' | '}'))
        };
        let excused = line.is_test && (line.code.trim() == "use super::*;" || line.code.contains("::prelude::*;"));
        let found = !excused && line.code.match_indices("::*").any(is_glob);
        found.then(|| "a glob hides where a name comes from, and may take in a new one".to_owned())
    })
}

/// `_ =>`, also in a tuple, in a file that holds a machine or the table of answers. Clippy sees the plain ones in the rest of
/// the domain (`wildcard_enum_match_arm`), and lets a match over a number or a text have its last arm.
pub fn wildcard_arms(files: &[SourceFile]) -> Vec<Finding> {
    let strict = |file: &&SourceFile| {
        let machine = file.path.starts_with("src/domain/") && file.code.contains("impl Machine for ");
        machine || file.path == EXHAUSTIVE
    };
    each_line(rust(files).filter(strict), |_, line| {
        let wild = line.code.match_indices("=>").any(|(at, _)| is_wild(pattern_before(&line.code[..at])));
        (wild && !line.is_test).then(|| "name every case: a new one must not fall into an old answer".to_owned())
    })
}

/// What stands between the last arm, or the brace that begins the match, and an arrow.
fn pattern_before(code: &str) -> &str {
    let mut depth = 0;
    for (at, c) in code.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' => depth -= 1,
            '{' | '}' | ',' if depth == 0 => return &code[at + 1..],
            _ => {}
        }
    }
    code
}

/// `_`, `(_, _)`, and either with a guard.
fn is_wild(pattern: &str) -> bool {
    let pattern = pattern.split(" if ").next().unwrap_or(pattern);
    pattern.contains('_') && pattern.chars().all(|c| "_(), |".contains(c))
}

fn rust(files: &[SourceFile]) -> impl Iterator<Item = &SourceFile> {
    files.iter().filter(|file| file.is_rust())
}

fn each_line<'a>(
    files: impl Iterator<Item = &'a SourceFile>,
    judge: impl Fn(&SourceFile, &Line<'_>) -> Option<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for line in file.lines() {
            if let Some(what) = judge(file, &line) {
                findings.push(file.finding(line.number, what));
            }
        }
    }
    findings
}

/// `name!`, and not `other_name!` or `name != `.
fn has_macro(code: &str, name: &str) -> bool {
    words(code).any(|(at, word)| {
        word == name && code[at + name.len()..].starts_with('!') && !code[at + name.len()..].starts_with("!=")
    })
}
