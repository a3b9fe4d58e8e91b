#!/bin/sh
# Makes a regtest usable: a wallet that mines, 101 blocks at first so that it has coins, and one more at each start. A chain whose last
# block is old, or that has none, counts as not synced. $BITCOIN_CLI says how the node is called.
set -eu

cli() { $BITCOIN_CLI "$@"; }

# Made the first time; loaded when the node has started again; else it is there.
cli createwallet miner >/dev/null 2>&1 || cli loadwallet miner >/dev/null 2>&1 || cli -rpcwallet=miner getwalletinfo >/dev/null

height=$(cli getblockcount)
blocks=1
if [ "$height" -lt 101 ]; then blocks=$((101 - height)); fi
cli -rpcwallet=miner -generate "$blocks" >/dev/null
echo "the chain has $(cli getblockcount) blocks"
