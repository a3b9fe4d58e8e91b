//! What stands between the node and its peers: of some channels it does not tell that a payment was claimed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{self, BaseMessageHandler, ChannelMessageHandler, MessageSendEvent};
use lightning::ln::types::ChannelId;
use lightning::types::features::{InitFeatures, NodeFeatures};

use crate::types::Manager;

pub struct Muffled {
    manager: Arc<Manager>,
    silent: Mutex<HashSet<ChannelId>>,
}

impl Muffled {
    pub fn new(manager: Arc<Manager>) -> Self {
        Self { manager, silent: Mutex::default() }
    }

    pub fn silence(&self, channel: ChannelId) {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner).insert(channel);
    }
}

impl BaseMessageHandler for Muffled {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.manager.get_and_clear_pending_msg_events();
        all.retain(|event| match event {
            MessageSendEvent::UpdateHTLCs { channel_id, updates, .. } => {
                updates.update_fulfill_htlcs.is_empty() || !silent.contains(channel_id)
            }
            _ => true,
        });
        all
    }

    fn peer_disconnected(&self, node: PublicKey) {
        self.manager.peer_disconnected(node);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        BaseMessageHandler::provided_node_features(&*self.manager)
    }

    fn provided_init_features(&self, node: PublicKey) -> InitFeatures {
        BaseMessageHandler::provided_init_features(&*self.manager, node)
    }

    fn peer_connected(&self, node: PublicKey, init: &msgs::Init, inbound: bool) -> Result<(), ()> {
        self.manager.peer_connected(node, init, inbound)
    }
}

/// What the node hears it hears unchanged.
macro_rules! pass_on {
    ($($name:ident: $message:ty;)*) => {
        $(fn $name(&self, node: PublicKey, message: $message) {
            self.manager.$name(node, message);
        })*
    };
}

impl ChannelMessageHandler for Muffled {
    pass_on! {
        handle_open_channel: &msgs::OpenChannel;
        handle_open_channel_v2: &msgs::OpenChannelV2;
        handle_accept_channel: &msgs::AcceptChannel;
        handle_accept_channel_v2: &msgs::AcceptChannelV2;
        handle_funding_created: &msgs::FundingCreated;
        handle_funding_signed: &msgs::FundingSigned;
        handle_channel_ready: &msgs::ChannelReady;
        handle_peer_storage: msgs::PeerStorage;
        handle_peer_storage_retrieval: msgs::PeerStorageRetrieval;
        handle_shutdown: &msgs::Shutdown;
        handle_closing_signed: &msgs::ClosingSigned;
        handle_stfu: &msgs::Stfu;
        handle_splice_init: &msgs::SpliceInit;
        handle_splice_ack: &msgs::SpliceAck;
        handle_splice_locked: &msgs::SpliceLocked;
        handle_tx_add_input: &msgs::TxAddInput;
        handle_tx_add_output: &msgs::TxAddOutput;
        handle_tx_remove_input: &msgs::TxRemoveInput;
        handle_tx_remove_output: &msgs::TxRemoveOutput;
        handle_tx_complete: &msgs::TxComplete;
        handle_tx_signatures: &msgs::TxSignatures;
        handle_tx_init_rbf: &msgs::TxInitRbf;
        handle_tx_ack_rbf: &msgs::TxAckRbf;
        handle_tx_abort: &msgs::TxAbort;
        handle_update_add_htlc: &msgs::UpdateAddHTLC;
        handle_update_fulfill_htlc: msgs::UpdateFulfillHTLC;
        handle_update_fail_htlc: &msgs::UpdateFailHTLC;
        handle_update_fail_malformed_htlc: &msgs::UpdateFailMalformedHTLC;
        handle_commitment_signed: &msgs::CommitmentSigned;
        handle_revoke_and_ack: &msgs::RevokeAndACK;
        handle_update_fee: &msgs::UpdateFee;
        handle_announcement_signatures: &msgs::AnnouncementSignatures;
        handle_channel_reestablish: &msgs::ChannelReestablish;
        handle_channel_update: &msgs::ChannelUpdate;
        handle_error: &msgs::ErrorMessage;
    }

    fn handle_commitment_signed_batch(&self, node: PublicKey, channel: ChannelId, batch: Vec<msgs::CommitmentSigned>) {
        self.manager.handle_commitment_signed_batch(node, channel, batch);
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        ChannelMessageHandler::get_chain_hashes(&*self.manager)
    }

    fn message_received(&self) {
        ChannelMessageHandler::message_received(&*self.manager);
    }
}
