//! Every row of docs/THREATS.md about those who are here has an act, or a reason why it has none.

use std::collections::BTreeSet;

use super::acts::ACTS;

const PLAYED_HERE: [&str; 3] = ["A caller, and a tenant", "A payer, a payee and a peer", "A stranger"];
const ACT: &str = "attacks::world::acts::";

/// What a row contains that is played elsewhere only, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("`attacks::hostile_peers::", "it needs a node that lies, which is another program than the second gateway's"),
    ("`attacks::closes::", "it needs a peer that breaks the protocol of channels, which is another program"),
    ("`attacks::unfunded::", "it needs a peer that never funds what it opens, which is another program"),
    ("`conformance::rapid_gossip::", "it needs a server of snapshots, and a node that hears of the network from it"),
    ("`attacks::poison::", "it needs a row that no call writes: the story puts it into the database"),
    (
        "`attacks::node_rows::",
        "it needs a node that has done what its gateway never asked for, or a part that its payee lets go",
    ),
    ("`attacks::strangers_rows::", "a day has to pass"),
    (
        "`attacks::reversals::",
        "it needs a miner who takes a block back for good and two transactions that wait for each other",
    ),
    ("`attacks::node_audit::an_announced_fortune", "it needs a peer that announces a channel and never funds it"),
    ("`attacks::asset_addresses::", "it needs an engine for assets"),
    ("`attacks::assets_side_by_side::", "it needs an engine for assets"),
    ("`attacks::consignments::files_for_an_invoice_that_is_over", "it needs an invoice for an asset of ours"),
    ("`attacks::consignments::slow_uploads", "it needs an invoice for an asset of ours"),
];

/// The rows of the sections that are played here.
fn rows() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/THREATS.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let mut rows = Vec::new();
    let mut sections = 0;
    for section in page.split("\n## ").skip(1) {
        let (title, text) = section.split_once('\n').expect("a title");
        if !PLAYED_HERE.iter().any(|played| title.starts_with(played)) {
            continue;
        }
        sections += 1;
        let table = text.lines().filter(|line| line.starts_with('|'));
        rows.extend(table.skip(2).map(str::to_owned));
    }
    assert_eq!(sections, PLAYED_HERE.len(), "a section has another name");
    rows
}

fn is_elsewhere(row: &str) -> bool {
    ELSEWHERE.iter().any(|(text, _)| row.contains(text))
}

#[test]
fn every_row_about_those_who_are_here_has_an_act() {
    let rows = rows();
    for row in &rows {
        assert!(row.contains(ACT) || is_elsewhere(row), "neither an act nor a reason why there is none: {row}");
    }
    for (text, why) in ELSEWHERE {
        assert!(rows.iter().any(|row| row.contains(text)), "no row needs what is excused with: {why}");
    }
}

#[test]
fn every_act_is_in_the_page() {
    let rows = rows();
    let named: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .filter(|test| test.starts_with(ACT))
        .filter_map(|test| test.rsplit("::").next())
        .collect();
    let played: BTreeSet<&str> = ACTS.iter().map(|act| act.name).collect();
    assert_eq!(named, played);
}
