//! A signer that nobody here wrote (`tests/peers/embit-signer`): a Python program over the library that several hardware signers are built on.
//!
//! The environment's `EMBIT` names a Python that has embit; `scripts/ensure-embit` makes one.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::bitcoind::skip;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/embit-signer/sign.py");
/// A signature is made in plain Python: a tenth of a second, on a busy machine more.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Embit {
    python: PathBuf,
    mnemonic: String,
}

impl Embit {
    /// Signs for this mnemonic. `None`, after saying so, where there is no such Python.
    pub fn of(mnemonic: &str) -> Option<Self> {
        let Some(python) = std::env::var_os("EMBIT").filter(|path| !path.is_empty()) else {
            skip("EMBIT names no Python with embit (see scripts/ensure-embit)");
            return None;
        };
        Some(Self { python: python.into(), mnemonic: mnemonic.to_owned() })
    }

    /// What it makes of a PSBT, as text in and text out.
    pub async fn sign(&self, psbt: &str) -> String {
        let mut command = Command::new(&self.python);
        command.arg(PROGRAM).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("EMBIT runs");
        let asked = format!("{}\n", json!({ "mnemonic": self.mnemonic, "psbt": psbt }));
        let mut stdin = process.stdin.take().expect("piped");
        stdin.write_all(asked.as_bytes()).await.expect("it listens");
        drop(stdin);
        let output = tokio::time::timeout(PATIENCE, process.wait_with_output()).await.expect("in time");
        let output = output.expect("it ends");
        assert!(output.status.success(), "embit: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }
}
