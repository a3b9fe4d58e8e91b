//! The blocks as the engines have read them.

use std::collections::{HashMap, HashSet};

use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Txid};

use crate::money::Sat;

/// Blocks from height 1 up: nobody has a coin in the first of all.
#[derive(Default)]
pub(super) struct Seen {
    blocks: Vec<Block>,
}

impl Seen {
    /// The height of the last block, and its hash; zero and nothing before the first.
    pub(super) fn tip(&self) -> (u32, Option<BlockHash>) {
        let height = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
        (height, self.blocks.last().map(Block::block_hash))
    }

    pub(super) fn pop(&mut self) {
        self.blocks.pop();
    }

    /// A block that does not follow the last one is of a branch that came meanwhile: the next look finds out.
    pub(super) fn push(&mut self, block: Block) {
        if self.tip().1.is_none_or(|tip| block.header.prev_blockhash == tip) {
            self.blocks.push(block);
        }
    }

    /// Confirmations: zero for what is in no block.
    pub(super) fn depth(&self, txid: Txid) -> usize {
        let holds = |block: &Block| block.txdata.iter().any(|tx| tx.compute_txid() == txid);
        let place = self.blocks.iter().rev().position(holds);
        place.map_or(0, |above| above.saturating_add(1))
    }

    /// The unspent outputs to these scripts, oldest first, each with the index of its script.
    pub(super) fn unspent(&self, scripts: &HashMap<ScriptBuf, u32>) -> Vec<(OutPoint, u32, Sat)> {
        let transactions = || self.blocks.iter().flat_map(|block| &block.txdata);
        let spent: HashSet<OutPoint> =
            transactions().flat_map(|tx| &tx.input).map(|input| input.previous_output).collect();
        let mut found = Vec::new();
        for tx in transactions() {
            for (vout, output) in (0..).zip(&tx.output) {
                let (Some(index), Ok(sat)) = (scripts.get(&output.script_pubkey), Sat::try_from(output.value)) else {
                    continue;
                };
                found.push((OutPoint { txid: tx.compute_txid(), vout }, *index, sat));
            }
        }
        found.retain(|(outpoint, ..)| !spent.contains(outpoint));
        found
    }
}
