//! A Lightning node on LDK that breaks what a payer trusts in. It keeps nothing: it lives as long as a test.
//!
//! One request is one line, `{"id": 1, "method": "..", "params": {..}}`, and so is its answer: `{"id": 1, "result": ..}` or
//! `{"id": 1, "error": ".."}`. It ends when stdin is closed.

mod calls;
mod crowd;
mod muffled;
mod node;
mod offers;
mod types;

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::node::Hostile;

/// What the program is told on its command line.
#[derive(Clone)]
pub struct Args {
    pub rpc: String,
    pub login: (String, String),
    pub listen: SocketAddr,
    /// The least that it takes over a channel.
    pub htlc_minimum_msat: u64,
}

const USAGE: &str = "hostile-peer --rpc HOST:PORT --rpc-user U --rpc-password P [--dir D] [--listen 127.0.0.1:0] [--htlc-minimum-msat N]";

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut args = Self {
            rpc: String::new(),
            login: Default::default(),
            listen: ([127, 0, 0, 1], 0).into(),
            htlc_minimum_msat: 1,
        };
        while let Some(name) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            match name.as_str() {
                "--rpc" => args.rpc = value,
                "--rpc-user" => args.login.0 = value,
                "--rpc-password" => args.login.1 = value,
                "--listen" => args.listen = value.parse()?,
                "--htlc-minimum-msat" => args.htlc_minimum_msat = value.parse()?,
                // What other peers keep there; this one keeps nothing.
                "--dir" => {}
                _ => return Err(format!("{name}? {USAGE}").into()),
            }
        }
        Ok(args)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let args = Args::parse(std::env::args().skip(1))?;
    let hostile: Arc<Hostile> = node::start(&args, true).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Value = serde_json::from_str(&line)?;
        let id = &request["id"];
        let answer =
            match calls::call(&hostile, request["method"].as_str().unwrap_or_default(), &request["params"]).await {
                Ok(result) => json!({ "id": id, "result": result }),
                Err(error) => json!({ "id": id, "error": error.to_string() }),
            };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
