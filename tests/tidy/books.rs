//! What has to agree with something else: lists with files, documents with the tree, text with every reader's machine.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::source::{Finding, SourceFile, is_word};

/// Longer than a page is not read before it is needed, and then it is too late.
const DECISION_LINES: usize = 60;
const DECISION_PARTS: [&str; 4] = ["## Status", "## Context", "## Decision", "## Consequences"];

/// Beyond ASCII: an ellipsis, an arrow, dashes, the signs of arithmetic, and the marks of a table. Quotes are straight, spaces are spaces.
const TYPOGRAPHY: &str =
    "\u{2026}\u{2192}\u{2013}\u{2014}\u{2264}\u{2265}\u{d7}\u{b1}\u{b5}\u{b7}\u{2020}\u{2713}\u{2717}";

/// Folders that name somebody's machine.
const MACHINE_FOLDERS: [&str; 5] = ["home", "root", "work", "Users", "mnt"];

/// Whom text may name. A name without a dot is a service of a compose file; `example` and `test` belong to nobody.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "0.0.0.0",
    "github.com",
    "rustup.rs",
    "crates.io",
    "docs.rs",
    "spec.openapis.org",
    "json-schema.org",
    "www.rfc-editor.org",
];
const NOBODY: &[&str] = &[".example", ".test", ".invalid", "example.com", "example.org"];

pub fn migrations(files: &[SourceFile]) -> Vec<Finding> {
    const LIST: &str = "src/store/migrate.rs";
    let Some(list) = files.iter().find(|file| file.path == LIST) else { return Vec::new() };
    let there = |path: &str| files.iter().any(|file| file.path == path);
    let is_migration = |file: &&SourceFile| file.path.starts_with("migrations/") && file.path.ends_with(".sql");
    let unlisted = files.iter().filter(is_migration).filter(|file| !list.text.contains(&format!("/{}\"", file.path)));
    let mut findings: Vec<Finding> =
        unlisted.map(|file| file.finding(1, format!("{LIST} does not apply it"))).collect();
    for line in list.lines() {
        for (at, _) in line.text.match_indices("migrations/") {
            let path = line.text[at..].split('"').next().unwrap_or_default();
            if path.ends_with(".sql") && !there(path) {
                findings.push(list.finding(line.number, format!("{path} is not there")));
            }
        }
    }
    findings
}

/// Every variant of `Code` stands in the table of answers, once there is one. That the match names them all, the compiler knows;
/// that nobody falls into a last arm, `wildcard_arms` knows; this one is for a table that is not a match.
pub fn codes(files: &[SourceFile]) -> Vec<Finding> {
    let find = |path: &str| files.iter().find(|file| file.path == path);
    let (Some(codes), Some(table)) = (find("src/flows/error.rs"), find("src/http/problem.rs")) else {
        return Vec::new();
    };
    let Some(body) = codes.code.split("pub enum Code {").nth(1).and_then(|rest| rest.split('}').next()) else {
        return vec![codes.finding(1, "there is no `pub enum Code`")];
    };
    let named: BTreeSet<&str> = table.code.split(|c| !is_word(c)).collect();
    let variants = body.split(',').map(str::trim).filter(|name| !name.is_empty());
    let missing = variants.filter(|name| !named.contains(name));
    missing.map(|name| table.finding(1, format!("`Code::{name}` has no answer"))).collect()
}

/// docs/adr/NNNN-name.md: numbered from 1 without a gap, at most a page, with all its parts, and something in each.
pub fn decisions(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let decisions = files.iter().filter(|file| file.path.starts_with("docs/adr/") && file.path.ends_with(".md"));
    for (file, expected) in decisions.zip(1u32..) {
        let name = file.path.trim_start_matches("docs/adr/");
        if !name.starts_with(&format!("{expected:04}-")) {
            findings.push(file.finding(1, format!("decision {expected:04} was expected here")));
        }
        let title = format!("# {expected:04} ");
        if !file.text.lines().next().is_some_and(|line| line.starts_with(&title) && line.len() > title.len()) {
            findings.push(file.finding(1, format!("the first line is `{title}` and what was decided")));
        }
        for part in DECISION_PARTS {
            let body = file.text.split(&format!("\n{part}\n")).nth(1).and_then(|rest| rest.split("\n## ").next());
            if body.is_none_or(|body| body.trim().is_empty()) {
                findings.push(file.finding(1, format!("`{part}` is missing or empty")));
            }
        }
        if file.text.lines().count() > DECISION_LINES {
            findings.push(file.finding(DECISION_LINES, "longer than a page"));
        }
    }
    findings
}

/// Links of documents, and paths between backticks that begin with a folder of ours.
pub fn links(files: &[SourceFile]) -> Vec<Finding> {
    let there: BTreeSet<&str> = files.iter().flat_map(|file| ancestors(&file.path)).collect();
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        let mut in_block = false;
        for line in file.lines() {
            in_block ^= line.text.trim_start().starts_with("```");
            if in_block {
                continue;
            }
            let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
            let mut targets: Vec<PathBuf> = link_targets(line.text).map(|target| folder.join(target)).collect();
            targets.extend(quoted_paths(line.text).map(PathBuf::from));
            for target in targets {
                let target = resolve(&target);
                if !there.contains(target.as_str()) {
                    findings.push(file.finding(line.number, format!("{target} is not there")));
                }
            }
        }
    }
    findings
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain([path, ""])
}

fn link_targets(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets
        .filter(|target| !target.contains("://") && !target.starts_with(['#', '/']) && !target.starts_with("mailto:"));
    local.filter_map(|target| target.split('#').next())
}

fn quoted_paths(text: &str) -> impl Iterator<Item = &str> {
    const FOLDERS: [&str; 8] = ["src/", "tests/", "docs/", "migrations/", "scripts/", "signer/", "openapi/", "docker/"];
    let quoted = text.split('`').skip(1).step_by(2);
    let is_path = |text: &&str| FOLDERS.iter().any(|folder| text.starts_with(folder));
    quoted.filter(is_path).filter(|text| text.chars().all(|c| is_word(c) || "/.-".contains(c)))
}

fn resolve(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.push(name.to_str().unwrap_or_default()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

/// Invisible and look-alike characters make text say something else than it shows.
pub fn plain_text(files: &[SourceFile]) -> Vec<Finding> {
    each_text_line(files, |text| {
        let odd = text.chars().find(|c| !c.is_ascii_graphic() && !" \t".contains(*c) && !TYPOGRAPHY.contains(*c))?;
        Some(format!("the character U+{:04X}", u32::from(odd)))
    })
}

pub fn machine_paths(files: &[SourceFile]) -> Vec<Finding> {
    each_text_line(files, |text| {
        let named = |folder: &&&str| {
            text.match_indices(&format!("/{folder}/"))
                .any(|(at, _)| !text[..at].ends_with(|c| is_word(c) || "./}~*-".contains(c)))
        };
        let folder = MACHINE_FOLDERS.iter().find(named)?;
        Some(format!("/{folder} is a folder of one machine"))
    })
}

pub fn hosts(files: &[SourceFile]) -> Vec<Finding> {
    each_text_line(files, |text| {
        let named = text.split("://").skip(1).map(|rest| {
            let authority =
                rest.split(|c: char| !(c.is_ascii_alphanumeric() || ".-:@_".contains(c))).next().unwrap_or_default();
            authority.rsplit('@').next().unwrap_or(authority).split(':').next().unwrap_or(authority)
        });
        let known = |host: &&str| {
            !host.contains('.') || HOSTS.contains(host) || NOBODY.iter().any(|ending| host.ends_with(ending))
        };
        let host = { named }.find(|host| !known(host))?;
        Some(format!("{host} is not a host that this repository may depend on"))
    })
}

/// docs/THREATS.md: every row of its tables names, in its last cell, the tests that show it, as `room::file::test` below tests/it.
pub fn threats(files: &[SourceFile]) -> Vec<Finding> {
    let Some(page) = files.iter().find(|file| file.path == "docs/THREATS.md") else { return Vec::new() };
    let mut findings = Vec::new();
    for line in page.lines().filter(|line| line.text.starts_with('|')) {
        let shown_by = line.text.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let is_head = shown_by.trim() == "Shown by" || shown_by.trim().chars().all(|c| "-:".contains(c));
        if is_head {
            continue;
        }
        let tests: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            findings.push(page.finding(line.number, "no test shows it".to_owned()));
        }
        let missing = tests.into_iter().filter(|test| !is_test(files, test));
        findings.extend(missing.map(|test| page.finding(line.number, format!("there is no test {test}"))));
    }
    findings
}

fn is_test(files: &[SourceFile], test: &str) -> bool {
    let Some((module, name)) = test.rsplit_once("::") else { return false };
    let path = format!("tests/it/{}.rs", module.replace("::", "/"));
    files.iter().filter(|file| file.path == path).any(|file| file.code.split(|c| !is_word(c)).any(|word| word == name))
}

fn each_text_line(files: &[SourceFile], judge: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !is_picture(&file.path)) {
        for (number, text) in (1..).zip(file.text.split('\n')) {
            if let Some(what) = judge(text) {
                findings.push(file.finding(number, what));
            }
        }
    }
    findings
}

fn is_picture(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "png" || extension == "ico")
}
