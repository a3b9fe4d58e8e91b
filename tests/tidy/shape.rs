//! How long things may be, and that nothing lies around.

use std::collections::BTreeSet;

use super::source::{Finding, SourceFile};

/// A function is read without scrolling.
const FUNCTION_LINES: usize = 70;
/// A file is read in one go. Beyond that it is two subjects.
const FILE_LINES: usize = 600;
/// Tests are read one by one.
const TEST_FILE_LINES: usize = 800;

pub fn function_length(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for function in &file.functions {
            let lines = function.last_line - function.first_line + 1;
            if lines > FUNCTION_LINES {
                let what = format!("`{}` has {lines} lines; {FUNCTION_LINES} are allowed", function.name);
                findings.push(file.finding(function.first_line, what));
            }
        }
    }
    findings
}

pub fn file_length(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let most = if file.is_shipped() { FILE_LINES } else { TEST_FILE_LINES };
        let lines = file.text.lines().count();
        if lines > most {
            findings.push(file.finding(most + 1, format!("{lines} lines; {most} are allowed")));
        }
    }
    findings
}

/// A file that no `mod` names is not compiled, not tested and not read.
pub fn undeclared_modules(files: &[SourceFile]) -> Vec<Finding> {
    let declared: BTreeSet<&String> = files.iter().flat_map(|file| &file.modules).collect();
    let module = |path: &str| path.trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
    let lost =
        files.iter().filter(|file| file.is_rust() && !is_root(&file.path) && !declared.contains(&module(&file.path)));
    lost.map(|file| file.finding(1, "no `mod` declares this file")).collect()
}

/// What cargo builds by itself.
fn is_root(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder_name = folder.rsplit('/').next().unwrap_or(folder);
    let is_main = name == "lib.rs" || name == "main.rs" || path == "build.rs";
    is_main || ["bin", "tests", "benches", "examples"].contains(&folder_name) && !folder.starts_with("tests/")
}
