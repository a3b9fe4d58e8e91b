//! What only the gateway itself does to consignments: naming its own recipients, and answering for them.

use async_trait::async_trait;
use sluice::flows::Flows;
use sluice::flows::values::Acknowledged;
use sluice::ids::WalletId;
use sluice::store::{StoreError, Tx, Write, consignments};

use super::rig::Client;

/// What the gateway says, as it does once its engine has looked.
pub async fn own_word(flows: &Flows, recipient: &str, ack: bool) -> Acknowledged {
    let word = OwnWord { recipient: recipient.to_owned(), ack };
    flows.store().write(word).await.expect("it is written")
}

struct OwnWord {
    recipient: String,
    ack: bool,
}

#[async_trait]
impl Write for OwnWord {
    type Output = Acknowledged;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Acknowledged, StoreError> {
        consignments::acknowledge(tx, &self.recipient, self.ack, true).await
    }
}

/// Has a recipient stand in an invoice of this client's; answers whether it is his.
pub async fn own_recipient(flows: &Flows, recipient: &str, client: u32) -> bool {
    let own = OwnRecipient { recipient: recipient.to_owned(), wallet: Client::number(client).keys.id() };
    flows.store().write(own).await.expect("it is written")
}

struct OwnRecipient {
    recipient: String,
    wallet: WalletId,
}

#[async_trait]
impl Write for OwnRecipient {
    type Output = bool;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        consignments::keep(tx, &self.recipient, &self.wallet).await
    }
}
