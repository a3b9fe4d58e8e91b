//! The lints, proven: a small crate with this project's own settings and one fault for each. A lint without a fault here fails.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// One fault per lint that binds every crate here.
const FAULTS_ANYWHERE: &str = r#"
#[allow(dead_code)]
fn allow_attributes_without_reason() {}
pub fn all(a: u8) -> u8 { return a; }
pub fn cast_possible_truncation(a: u64) -> u32 { a as u32 }
pub fn cast_possible_wrap(a: u64) -> i64 { a as i64 }
pub fn cast_precision_loss(a: u64) -> f64 { a as f64 }
pub fn cast_sign_loss(a: i32) -> u32 { a as u32 }
pub fn exit() { std::process::exit(1) }
pub fn mem_forget(a: String) { std::mem::forget(a) }
pub fn unsafe_code(a: *const u8) -> u8 { unsafe { *a } }
pub fn undocumented_unsafe_blocks(a: *const u8) -> u8 { unsafe { *a } }
"#;

/// One fault per lint that binds the shipped code.
const FAULTS_OF_THE_CRATE: &str = r#"
pub fn unwrap_used(a: Option<u8>) -> u8 { a.unwrap() }
pub fn string_slice(a: &str) -> &str { &a[1..] }
pub fn let_underscore_must_use(a: Result<u8, String>) { let _ = a; }
"#;

/// A room, and one fault per lint that its `mod.rs` turns on.
const FAULTS_OF_ROOMS: [(&str, &str); 3] =
    [("money", FAULTS_OF_THE_CORE), ("ledger", FAULTS_OF_THE_CORE), ("domain", FAULT_OF_MACHINES)];
const FAULTS_OF_THE_CORE: &str = r#"
pub fn arithmetic_side_effects(a: u64, b: u64) -> u64 { a + b }
pub fn wildcard_enum_match_arm(a: std::cmp::Ordering) -> u8 { match a { std::cmp::Ordering::Less => 1, _ => 2 } }
"#;
const FAULT_OF_MACHINES: &str = r#"
pub fn wildcard_enum_match_arm(a: std::cmp::Ordering) -> u8 { match a { std::cmp::Ordering::Less => 1, _ => 2 } }
"#;

/// One fault per entry of clippy.toml.
const FAULTS_OF_CLIPPY_TOML: &str = r#"
#[expect(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "the fault is what it calls")]
pub fn changes_the_environment() { unsafe { std::env::set_var("a", "b"); std::env::remove_var("a"); } }
pub fn blocks_a_thread() { std::thread::sleep(std::time::Duration::ZERO) }
pub fn asks_the_machine() -> Option<std::time::SystemTime> { None }
"#;

#[test]
fn every_lint_reports_its_fault() {
    let folder = tempfile::tempdir().unwrap();
    let Some(reported) = run_clippy(folder.path()) else { return };
    let missing: Vec<String> = wanted().into_iter().filter(|lint| !reported.contains(lint)).collect();
    assert!(missing.is_empty(), "no planted fault is reported for {missing:?}; reported were {reported:#?}");
}

/// What has to be reported: `file:lint` for each lint that is turned on somewhere, and each entry of clippy.toml.
fn wanted() -> BTreeSet<String> {
    let lib =
        FAULTS_OF_ROOMS.iter().flat_map(|(room, _)| lints_of(&inner_attributes(&format!("src/{room}/mod.rs")), room));
    let mut wanted: BTreeSet<String> = lib.chain(lints_of(&inner_attributes("src/lib.rs"), "lib")).collect();
    let levels = workspace_lints();
    let named = levels.lines().filter_map(|line| line.strip_suffix(" = \"deny\""));
    wanted.extend(
        named.map(|lint| if lint == "unsafe_code" { format!("lib:{lint}") } else { format!("lib:clippy::{lint}") }),
    );
    wanted.extend(
        read("clippy.toml").split("path = \"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
    );
    // `all` is a group; one of its members stands for it.
    wanted.insert("lib:clippy::needless_return".to_owned());
    assert!(wanted.len() > 15, "the settings were not found: {wanted:?}");
    wanted
}

fn lints_of(attributes: &str, file: &str) -> Vec<String> {
    let words = attributes.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("clippy::")).map(|lint| format!("{file}:{lint}")).collect()
}

/// `None` when there is no clippy, which is a failure where everything has to be there.
fn run_clippy(folder: &Path) -> Option<BTreeSet<String>> {
    let manifest = format!(
        "[package]\nname = \"planted\"\nedition = \"2024\"\n\n[workspace]\n\n{}\n[lints]\nworkspace = true\n",
        workspace_lints()
    );
    let mut lib =
        format!("{}\n{FAULTS_ANYWHERE}{FAULTS_OF_THE_CRATE}{FAULTS_OF_CLIPPY_TOML}", inner_attributes("src/lib.rs"));
    for (room, faults) in FAULTS_OF_ROOMS {
        lib += &format!("pub mod {room};\n");
        write(
            folder,
            &format!("src/{room}.rs"),
            &format!("{}\n{faults}", inner_attributes(&format!("src/{room}/mod.rs"))),
        );
    }
    write(folder, "src/lib.rs", &lib);
    write(folder, "Cargo.toml", &manifest);
    write(folder, "clippy.toml", &read("clippy.toml"));
    let mut command = Command::new(env!("CARGO"));
    command.args(["clippy", "--offline", "--message-format=json", "--target-dir", "target"]).current_dir(folder);
    let output = command.env_remove("CLIPPY_CONF_DIR").env_remove("RUSTFLAGS").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("no such command") || errors.contains("is not installed") {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "clippy is missing: {errors}");
        eprintln!("SKIPPED: clippy is not installed, so no lint was proven. Run: rustup component add clippy");
        return None;
    }
    let reported: BTreeSet<String> = String::from_utf8_lossy(&output.stdout).lines().filter_map(reported).collect();
    assert!(!reported.is_empty(), "clippy reported nothing: {errors}");
    Some(reported)
}

/// `file:lint` of a line of cargo's output, if it is an error of a lint; of a disallowed path, the path.
fn reported(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let message = &line["message"];
    let lint = message["code"]["code"].as_str().filter(|_| message["level"] == "error")?;
    if lint.starts_with("clippy::disallowed_") {
        return message["message"].as_str()?.split('`').nth(1).map(str::to_owned);
    }
    let file = Path::new(message["spans"][0]["file_name"].as_str()?).file_stem()?.to_str()?;
    Some(format!("{file}:{lint}"))
}

/// The part of the manifest that sets lints.
fn workspace_lints() -> String {
    let manifest = read("Cargo.toml");
    let sections = manifest.split("\n[").filter(|section| section.starts_with("workspace.lints."));
    sections.map(|section| format!("[{section}\n")).collect()
}

fn inner_attributes(path: &str) -> String {
    read(path).lines().filter(|line| line.starts_with("#![")).map(|line| format!("{line}\n")).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A dependency that deny.toml must refuse, as its manifest, and what cargo-deny calls that.
const UNWANTED: [(&str, &str, &str); 4] = [
    ("openssl-sys = { path = \"openssl-sys\", version = \"0.1.0\" }", "MIT", "error[banned]"),
    ("native-tls = { path = \"native-tls\", version = \"0.1.0\" }", "MIT", "error[banned]"),
    ("anything = { path = \"anything\", version = \"*\" }", "MIT", "error[wildcard]"),
    ("copyleft = { path = \"copyleft\", version = \"0.1.0\" }", "GPL-3.0-only", "error[rejected]"),
];

/// Runs where the tool is: `make check` hands it over in CARGO_DENY, and fails there when it can't.
#[test]
fn deny_refuses_what_is_unwanted() {
    let Ok(tool) = std::env::var("CARGO_DENY") else {
        eprintln!("SKIPPED: CARGO_DENY is not set, so deny.toml was not proven. Run: make tidy");
        return;
    };
    assert_eq!(
        deny(&tool, "harmless = { path = \"harmless\", version = \"0.1.0\" }", "MIT"),
        "",
        "a harmless crate is refused"
    );
    for (dependency, license, expected) in UNWANTED {
        let report = deny(&tool, dependency, license);
        assert!(report.contains(expected), "{dependency}, {license}: {report}");
    }
    let repository = git_crate();
    let stray = format!("stray = {{ git = \"file://{}\", version = \"0.1.0\" }}", repository.path().display());
    let report = deny(&tool, &stray, "MIT");
    assert!(report.contains("error[source-not-allowed]"), "{stray}: {report}");
}

/// A git repository with a crate in it, for a dependency that is not from the registry.
fn git_crate() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "Cargo.toml",
        "[package]\nname = \"stray\"\nversion = \"0.1.0\"\nedition = \"2024\"\nlicense = \"MIT\"\n",
    );
    write(folder.path(), "src/lib.rs", "");
    let identity = ["-c", "user.name=planted", "-c", "user.email=planted@example.com", "-c", "commit.gpgsign=false"];
    let commit = [&identity[..], &["commit", "--quiet", "--message", "planted"]].concat();
    for arguments in [&["init", "--quiet"][..], &["add", "."], &commit] {
        assert!(Command::new("git").args(arguments).current_dir(folder.path()).status().unwrap().success());
    }
    folder
}

/// What cargo-deny says against a crate with this one dependency: nothing, or its errors.
fn deny(tool: &str, dependency: &str, license: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let package = |name: &str, license: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\nlicense = \"{license}\"\n")
    };
    let name = dependency.split(' ').next().unwrap();
    write(
        folder.path(),
        "Cargo.toml",
        &format!("{}\n[dependencies]\n{dependency}\n\n[workspace]\n", package("planted", "MIT")),
    );
    write(folder.path(), "src/lib.rs", "");
    write(folder.path(), &format!("{name}/Cargo.toml"), &package(name, license));
    write(folder.path(), &format!("{name}/src/lib.rs"), "");
    write(folder.path(), "deny.toml", &read("deny.toml"));
    let mut command = Command::new(tool);
    command.args(["--color", "never", "check", "bans", "licenses", "sources"]).current_dir(folder.path());
    // Its own cargo home: what a git dependency leaves behind goes with the folder.
    let output = command.env("CARGO_HOME", folder.path().join("home")).output().unwrap();
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { String::new() } else { report }
}
