//! A file of the tree as the rules see it: its text, its code without comments and strings, and which lines are tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: String,
    pub line: usize,
    pub what: String,
}

pub struct Function {
    pub name: String,
    pub first_line: usize,
    pub last_line: usize,
}

pub struct SourceFile {
    /// From the root of the repository, with `/`.
    pub path: String,
    pub text: String,
    /// The text, with every comment and the inside of every string as spaces. Equal to the text when it isn't Rust.
    pub code: String,
    pub functions: Vec<Function>,
    /// Files that this one declares as modules, without extension, from the root of the repository.
    pub modules: BTreeSet<String>,
    test_modules: BTreeSet<String>,
    is_test: Vec<bool>,
    inline_depth: Vec<usize>,
}

pub struct Line<'a> {
    pub number: usize,
    pub text: &'a str,
    pub code: &'a str,
    pub is_test: bool,
    /// How many `mod a { .. }` it stands in.
    pub inline_depth: usize,
}

impl SourceFile {
    fn new(path: &str, text: &str) -> Self {
        let is_rust = Path::new(path).extension().is_some_and(|extension| extension == "rs");
        let code = if is_rust { blank(text) } else { text.to_owned() };
        let lines = text.lines().count() + 1;
        let all_test = !is_shipped(path) || code.contains("#![cfg(test)]");
        let mut file = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            functions: Vec::new(),
            modules: BTreeSet::new(),
            test_modules: BTreeSet::new(),
            is_test: vec![all_test; lines],
            inline_depth: vec![0; lines],
        };
        if is_rust {
            Outline::of(&mut file);
        }
        file
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The crate's own code, or the signer's; not tests, benches or examples.
    pub fn is_shipped(&self) -> bool {
        self.is_rust() && is_shipped(&self.path)
    }

    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.text.lines().zip(self.code.lines()).enumerate().map(|(index, (text, code))| Line {
            number: index + 1,
            text,
            code,
            is_test: self.is_test[index],
            inline_depth: self.inline_depth[index],
        })
    }

    pub fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }

    /// Where the files of its modules are.
    fn module_folder(&self) -> String {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let is_root =
            ["mod.rs", "lib.rs", "main.rs"].contains(&name) || folder == "tests" || folder.ends_with("/tests");
        if is_root { folder.to_owned() } else { format!("{folder}/{}", name.trim_end_matches(".rs")) }
    }
}

fn is_shipped(path: &str) -> bool {
    path.starts_with("src/") || path.starts_with("signer/src/")
}

/// Everything that git tracks or would track, except what is not text.
pub fn tracked_files() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .expect("the rules are about what git tracks: git has to be on PATH");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let paths: BTreeSet<&str> = std::str::from_utf8(&listed.stdout).unwrap().split_terminator('\0').collect();
    let read = |path: &&str| std::fs::read(root.join(path)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let texts: Vec<(&str, String)> = paths.iter().filter_map(|path| Some((*path, read(path)?))).collect();
    tree(&texts.iter().map(|(path, text)| (*path, text.as_str())).collect::<Vec<_>>())
}

/// A tree from memory. A file that is declared as a test module is a test from its first line to its last.
pub fn tree(files: &[(&str, &str)]) -> Vec<SourceFile> {
    let mut files: Vec<SourceFile> = files.iter().map(|(path, text)| SourceFile::new(path, text)).collect();
    let test_modules: Vec<String> = files.iter().flat_map(|file| file.test_modules.clone()).collect();
    for file in &mut files {
        let place = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
        if test_modules.iter().any(|module| place == module || place.starts_with(&format!("{module}/"))) {
            file.is_test.fill(true);
        }
    }
    files
}

/// Replaces comments, and what stands between quotes, by spaces. Lines stay where they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'\'' => char_end(bytes, at),
            _ => at + 1,
        };
        let quoted = matches!(bytes[at], b'"' | b'\'');
        let inside = if quoted { at + 1..end.saturating_sub(1).max(at + 1) } else { at..end };
        if end > at + 1 {
            code[inside].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|window| window == what).map_or(bytes.len(), |offset| from + offset)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let hashes = bytes[..start].iter().rev().take_while(|byte| **byte == b'#').count();
    let before = &bytes[..start - hashes];
    let prefix = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let is_raw = matches!(&before[before.len() - prefix..], b"r" | b"br" | b"cr");
    if is_raw {
        let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
        return find(bytes, start + 1, &close) + 1;
    }
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// A character literal, or one past the quote when it begins a lifetime.
fn char_end(bytes: &[u8], start: usize) -> usize {
    match bytes.get(start + 1) {
        Some(b'\\') => find(bytes, start + 3, b"'") + 1,
        Some(first) => {
            let width = if *first < 0x80 { 1 } else { first.leading_ones() as usize };
            if bytes.get(start + 1 + width) == Some(&b'\'') { start + width + 2 } else { start + 1 }
        }
        None => start + 1,
    }
}

/// Walks the braces of a file, to learn its functions, its modules and which of its lines are tests.
struct Outline {
    blocks: Vec<Block>,
    /// Where the text before the next brace begins.
    head: usize,
    /// Open parentheses and brackets: a semicolon in `[u8; 32]` ends nothing.
    nesting: usize,
}

struct Block {
    head: usize,
    kind: Kind,
    nesting: usize,
}

enum Kind {
    Module(String),
    Function(String),
    Other,
}

impl Outline {
    fn of(file: &mut SourceFile) {
        let code = file.code.clone();
        let starts: BTreeMap<usize, usize> =
            std::iter::once(0).chain(code.match_indices('\n').map(|(at, _)| at + 1)).zip(0..).collect();
        let line_of = |at: usize| starts.range(..=at).next_back().map_or(0, |(_, line)| *line);
        let mut walk = Self { blocks: Vec::new(), head: 0, nesting: 0 };
        for (at, byte) in code.bytes().enumerate() {
            match byte {
                b'(' | b'[' => walk.nesting += 1,
                b')' | b']' => walk.nesting = walk.nesting.saturating_sub(1),
                b';' if walk.nesting == 0 => walk.declaration(file, &code[walk.head..at], at, &line_of),
                b'{' => walk.open(&code[walk.head..at], at),
                b'}' => walk.close(file, &code, at, &line_of),
                _ => {}
            }
        }
    }

    fn declaration(&mut self, file: &mut SourceFile, head: &str, at: usize, line_of: &dyn Fn(usize) -> usize) {
        if let Some(name) = word_after(head, "mod") {
            let mut place = file.module_folder();
            for block in &self.blocks {
                if let Kind::Module(name) = &block.kind {
                    place = format!("{place}/{name}");
                }
            }
            // `blank` keeps every byte in its place, so the text still has what the code lacks.
            let path = file.text[self.head..at].split("#[path = \"").nth(1).and_then(|rest| rest.split(".rs\"").next());
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let module = path.map_or_else(|| format!("{place}/{name}"), |path| format!("{folder}/{path}"));
            if is_test_head(head) {
                file.test_modules.insert(module.clone());
            }
            file.modules.insert(module);
        }
        if is_test_head(head) {
            file.is_test[line_of(self.head)..=line_of(at)].fill(true);
        }
        self.head = at + 1;
    }

    fn open(&mut self, head: &str, at: usize) {
        let kind = match (word_after(head, "fn"), word_after(head, "mod")) {
            (Some(name), _) => Kind::Function(name),
            (None, Some(name)) => Kind::Module(name),
            (None, None) => Kind::Other,
        };
        self.blocks.push(Block { head: self.head, kind, nesting: self.nesting });
        (self.head, self.nesting) = (at + 1, 0);
    }

    fn close(&mut self, file: &mut SourceFile, code: &str, at: usize, line_of: &dyn Fn(usize) -> usize) {
        let Some(block) = self.blocks.pop() else { return };
        let blank = code[block.head..].len() - code[block.head..].trim_start().len();
        let head = &code[block.head..block.head + code[block.head..].find('{').unwrap_or(0)];
        let (first, last) = (line_of(block.head + blank), line_of(at));
        if is_test_head(head) {
            file.is_test[first..=last].fill(true);
        }
        match block.kind {
            Kind::Module(_) => file.inline_depth[first..=last].iter_mut().for_each(|depth| *depth += 1),
            Kind::Function(name) => {
                let keyword = head.find("fn ").map_or(first, |offset| line_of(block.head + offset));
                file.functions.push(Function { name, first_line: keyword + 1, last_line: last + 1 });
            }
            Kind::Other => {}
        }
        (self.head, self.nesting) = (at + 1, block.nesting);
    }
}

fn is_test_head(head: &str) -> bool {
    ["cfg(test)", "cfg(all(test", "#[test]", "::test]", "::test("].iter().any(|mark| head.contains(mark))
}

/// The name after a keyword, in `pub async fn name<..>(..)`.
fn word_after(head: &str, keyword: &str) -> Option<String> {
    let at = words(head).find(|(_, word)| *word == keyword)?.0;
    let rest = head[at + keyword.len()..].strip_prefix(' ')?;
    let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
    (!name.is_empty()).then_some(name)
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of a piece of code, and where each begins.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}
