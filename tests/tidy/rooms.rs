//! The arrow rule: who may import whom.

use std::collections::BTreeSet;

use super::source::{Finding, Line, SourceFile, is_word};

/// A room, and the rooms it may import. The same table as in docs/ARCHITECTURE.md; a new arrow is an ADR.
const ROOMS: &[(&str, &[&str])] = &[
    // What everything stands on.
    ("ids", &[]),
    ("clock", &[]),
    ("secret", &[]),
    ("crash", &[]),
    ("money", &[]),
    // The pure core.
    ("ledger", &["money", "ids"]),
    ("domain", &["money", "ids", "clock", "ledger"]),
    // What the core asks of the world, and the world.
    ("ports", &["money", "ids", "domain"]),
    ("store", &["money", "ids", "clock", "ledger", "domain"]),
    ("chain", &["ports", "money", "ids", "domain"]),
    ("connectors", &["ports", "store", "money", "ids", "clock", "domain"]),
    ("assets", &["ports", "money", "ids", "clock", "domain"]),
    // Use cases, and those who call them. Neither a facade nor a command sees a database or a node.
    ("flows", &["domain", "ledger", "ports", "store", "money", "ids", "clock"]),
    ("workers", &["flows", "ports", "store", "ids", "clock"]),
    ("http", &["flows", "money", "ids", "clock"]),
    // The shell. Only `app` points everywhere.
    ("config", &["flows", "workers", "http", "store", "chain", "connectors", "assets", "money"]),
    (
        "app",
        &[
            "config",
            "http",
            "workers",
            "flows",
            "chain",
            "connectors",
            "assets",
            "store",
            "ports",
            "domain",
            "ledger",
            "money",
            "ids",
            "clock",
        ],
    ),
    ("cli", &["app", "config", "http", "flows", "ports", "money", "ids", "clock"]),
    ("main", &["cli", "config", "app"]),
    ("lib", &[]),
];

/// Imported by all: a crash point may be anywhere, and a secret is a secret in every hand.
const BY_ALL: [&str; 2] = ["crash", "secret"];

/// Paths to another room that the table does not allow, in shipped code: `crate::x`, `crate::{x, y}`, `sluice::x` in a
/// binary, and `super::` chains that leave the room. A unit test may import any room.
pub fn imports(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let Some(place) = file.path.strip_prefix("src/") else { continue };
        let room = room_of(place);
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            findings.push(file.finding(1, format!("the room `{room}` is not in the table")));
            continue;
        };
        for target in targets(file) {
            let ok = target.room == room || BY_ALL.contains(&&*target.room) || allowed.contains(&&*target.room);
            if !ok {
                findings.push(file.finding(target.line, format!("`{room}` may not import `{}`", target.room)));
            }
        }
        let depth = place.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
        let escapes = |line: &Line<'_>| !line.is_test && longest_super_chain(line.code) >= depth + line.inline_depth;
        for line in file.lines().filter(|line| !["main", "lib"].contains(&room) && escapes(line)) {
            findings.push(file.finding(line.number, "`super::` leaves the room: write crate::"));
        }
    }
    findings
}

const MAP: &str = "docs/ARCHITECTURE.md";

/// The table above, and the one that people read, say the same: `| a, b | what they are | c, d |`. The map may leave out rooms
/// that are still empty, and calls the two that see everything `all`.
pub fn map(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(map) = files.iter().find(|file| file.path == MAP) else { return findings };
    let table = map.lines().skip_while(|line| !line.text.starts_with("| Room |")).skip(2);
    for line in table.take_while(|line| line.text.starts_with('|')) {
        let cells: Vec<&str> = line.text.trim_matches('|').split('|').map(str::trim).collect();
        let [rooms, _, imports] = cells[..] else { continue };
        if imports == "all" {
            continue;
        }
        let drawn: BTreeSet<&str> = imports.split(", ").filter(|name| *name != "nothing").collect();
        for room in rooms.split(", ").map(|name| name.trim_matches('`')) {
            let allowed = ROOMS.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, allowed)| allowed);
            if drawn != allowed.iter().copied().collect() {
                findings.push(map.finding(line.number, format!("`{room}` may import {}", allowed.join(", "))));
            }
        }
    }
    findings
}

fn room_of(place: &str) -> &str {
    match place.split_once('/') {
        Some(("bin", _)) => "main",
        Some((room, _)) => room,
        None => place.trim_end_matches(".rs"),
    }
}

struct Target {
    line: usize,
    room: String,
}

/// Every room that is named after `crate::`, also in a group and over several lines.
fn targets(file: &SourceFile) -> Vec<Target> {
    let is_test: Vec<bool> = file.lines().map(|line| line.is_test).collect();
    let mut found = Vec::new();
    for root in ["crate::", "sluice::"] {
        for (at, _) in file.code.match_indices(root) {
            if file.code[..at].ends_with(is_word) || file.code[..at].ends_with('$') {
                continue;
            }
            let line = file.code[..at].matches('\n').count();
            if is_test.get(line).copied().unwrap_or(false) {
                continue;
            }
            let rest = &file.code[at + root.len()..];
            found.extend(first_segments(rest).into_iter().map(|room| Target { line: line + 1, room }));
        }
    }
    found
}

/// `a::b` gives a; `{a::b, c::{d, e}, f}` gives a, c and f.
fn first_segments(path: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| is_word(*c)).collect::<String>();
    if !path.starts_with('{') {
        return vec![word(path)];
    }
    let mut segments = vec![word(&path[1..])];
    let mut depth = 0;
    for (at, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => segments.push(word(&path[at + 1..])),
            _ => {}
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

fn longest_super_chain(code: &str) -> usize {
    let mut longest = 0;
    let mut rest = code;
    while let Some(at) = rest.find("super::") {
        let chain = &rest[at..];
        let length = chain.split("::").take_while(|segment| *segment == "super").count();
        longest = longest.max(length);
        rest = &chain[length * "super::".len()..];
    }
    longest
}
