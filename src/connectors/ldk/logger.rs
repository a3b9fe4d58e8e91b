//! What LDK logs, in our log. It is talkative: its news are our details.

use lightning::util::logger::{Level, Logger, Record};

#[derive(Clone, Copy, Debug, Default)]
pub struct NodeLog;

impl Logger for NodeLog {
    fn log(&self, record: Record) {
        let peer = record.peer_id.map(tracing::field::display);
        let channel = record.channel_id.map(tracing::field::display);
        match record.level {
            Level::Error | Level::Warn => {
                tracing::warn!(target: "ldk", peer, channel, module = record.module_path, "{}", record.args);
            }
            Level::Info => tracing::debug!(target: "ldk", peer, channel, "{}", record.args),
            Level::Debug | Level::Trace => tracing::trace!(target: "ldk", peer, channel, "{}", record.args),
            Level::Gossip => {}
        }
    }
}
