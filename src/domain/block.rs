use bitcoin::BlockHash;

/// A block by its place and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    pub height: u32,
    pub hash: BlockHash,
}
