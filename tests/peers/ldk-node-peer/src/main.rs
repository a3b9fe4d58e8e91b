//! A Lightning node for tests that shares no code and no version with the one that is tested: ldk-node, over stdin and stdout.
//!
//! One request is one line, `{"id": 1, "method": "..", "params": {..}}`, and so is its answer: `{"id": 1, "result": ..}` or
//! `{"id": 1, "error": ".."}`. The node ends when stdin is closed. What it keeps lies in `--dir`; started there again, it goes on.

mod args;
mod calls;
mod node;
mod payments;

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::args::Args;
use crate::node::Peer;

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let args = Args::parse(std::env::args().skip(1))?;
    let peer = Arc::new(Peer::start(&args)?);
    let listener = Arc::clone(&peer);
    std::thread::spawn(move || listener.follow_events());

    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let id = &request["id"];
        let method = request["method"].as_str().unwrap_or_default();
        if method == "stop" {
            break;
        }
        let answer = match calls::call(&peer, method, &request["params"]) {
            Ok(result) => json!({ "id": id, "result": result }),
            Err(error) => json!({ "id": id, "error": error.to_string() }),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(peer.stop()?)
}
