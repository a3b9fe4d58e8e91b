//! The node that is built in: LDK, with its state in the gateway's store.
