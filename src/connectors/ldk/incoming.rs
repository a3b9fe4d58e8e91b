//! What arrives: held until somebody decides, claimed, or failed back. The rows are the record; LDK lists nothing.

use std::sync::Arc;

use bitcoin::hashes::{Hash as _, sha256};
use lightning::ln::channelmanager::Bolt11InvoiceParameters;
use lightning::types::payment::{PaymentHash as LdkHash, PaymentPreimage};
use lightning_invoice::{Bolt11InvoiceDescription, Description as TextDescription, Sha256};

use super::node::{Node, refused};
use super::offers;
use super::types::lock;
use crate::domain::lightning::{PaymentHash, Preimage};
use crate::ports::PortError;
use crate::ports::lightning::{ClaimOutcome, Description, Held, Incoming, NewInvoice, NodeEvent};
use crate::store::StoreError;
use crate::store::node::{self, ReceiptRow, Step};

/// How long a cancelled invoice is remembered: longer than any invoice lives.
pub const CANCELLED_FOR_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

impl Node {
    /// Nothing of it is stored: what arrives proves by its secret that the invoice was ours.
    pub fn make_invoice(&self, invoice: &NewInvoice) -> Result<String, PortError> {
        let description = match &invoice.description {
            Description::Text(text) => {
                let text = TextDescription::new(text.clone()).map_err(|error| refused(error.to_string()))?;
                Bolt11InvoiceDescription::Direct(text)
            }
            Description::Hash(hash) => Bolt11InvoiceDescription::Hash(Sha256(sha256::Hash::from_byte_array(*hash))),
        };
        let made = self.manager.create_bolt11_invoice(Bolt11InvoiceParameters {
            amount_msats: invoice.amount.map(|amount| amount.base_units()),
            description,
            invoice_expiry_delta_secs: Some(u32::try_from(invoice.expires_in.as_secs()).unwrap_or(u32::MAX)),
            payment_hash: Some(LdkHash(invoice.hash.0)),
            ..Bolt11InvoiceParameters::default()
        });
        made.map(|invoice| invoice.to_string()).map_err(|error| refused(format!("no invoice could be made: {error}")))
    }

    pub async fn cancel(&self, hash: PaymentHash) -> Result<(), PortError> {
        lock(&self.cancelled).insert(hash);
        self.stage.push(Step::Cancelled(hash));
        self.fail_held(hash).await
    }

    async fn receipts(&self, hash: PaymentHash) -> Result<Vec<ReceiptRow>, PortError> {
        let mut conn = self.store.read().await?;
        Ok(node::receipts(&mut conn, hash).await?)
    }

    pub async fn what_arrived(&self, hash: PaymentHash) -> Result<Incoming, PortError> {
        let rows = self.receipts(hash).await?;
        let mut incoming = Incoming::default();
        for row in rows {
            if row.state == "claimed" {
                let sum = incoming.claimed.unwrap_or_default().checked_add(row.amount);
                incoming.claimed = Some(sum.ok_or_else(|| StoreError::Corrupt(format!("claims of {hash}")))?);
            } else if is_held(&row) {
                let offer = match &row.offer {
                    Some(id) => self.offer_text(id).await?,
                    None => None,
                };
                incoming.held = Some(Held { amount: row.amount, claim_before: row.claim_before, offer });
            }
        }
        Ok(incoming)
    }

    async fn offer_text(&self, id: &str) -> Result<Option<String>, PortError> {
        let mut conn = self.store.read().await?;
        let text = node::value(&mut conn, offers::OFFERS, id).await?;
        Ok(text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub async fn all_held(&self) -> Result<Vec<PaymentHash>, PortError> {
        let mut conn = self.store.read().await?;
        let rows = node::open_receipts(&mut conn).await?;
        Ok(rows.iter().filter(|row| is_held(row)).map(|row| row.hash).collect())
    }

    /// The order to claim is a row before it is given, so that it is given again after a crash.
    pub async fn claim_held(&self, hash: PaymentHash, preimage: Option<Preimage>) -> Result<ClaimOutcome, PortError> {
        let rows = self.receipts(hash).await?;
        let claimed = rows.iter().any(|row| row.state == "claimed");
        let Some(row) = rows.iter().find(|row| is_held(row)) else {
            return Ok(if claimed { ClaimOutcome::Claiming } else { ClaimOutcome::NothingHeld });
        };
        if claimed && row.state == "held" {
            // An invoice is paid once: who pays it again gets it back.
            self.fail_held(hash).await?;
            return Ok(ClaimOutcome::Claiming);
        }
        if self.is_gone(row) {
            self.stage.push(Step::Gone(hash));
            self.committed().await?;
            return Ok(ClaimOutcome::NothingHeld);
        }
        let preimage = preimage.or(row.preimage).ok_or_else(|| refused("the preimage is needed"))?;
        if preimage.hash() != hash {
            return Err(refused("the preimage belongs to another hash"));
        }
        self.stage.push(Step::Claiming { hash, preimage });
        self.manager.claim_funds(PaymentPreimage(preimage.0));
        self.committed().await?;
        Ok(ClaimOutcome::Claiming)
    }

    /// The row says `failing` until a manager is stored that has let go of it.
    pub async fn fail_held(&self, hash: PaymentHash) -> Result<(), PortError> {
        self.stage.push(Step::Failing(hash));
        self.manager.fail_htlc_backwards(&LdkHash(hash.0));
        // The first commit may have begun before LDK knew. The second one has the manager that knows.
        self.committed().await?;
        if self.receipts(hash).await?.iter().any(|row| row.state == "failing") {
            self.stage.push(Step::Failed(hash));
            self.committed().await?;
        }
        Ok(())
    }

    /// Orders that were given before the process died are given again. LDK does nothing about those it has carried out.
    pub fn resume_receipts(self: &Arc<Self>) {
        let node = Arc::clone(self);
        drop(tokio::spawn(async move {
            if let Err(error) = node.resume().await {
                tracing::error!(%error, "what was being claimed or failed could not be gone on with");
            }
        }));
    }

    async fn resume(&self) -> Result<(), PortError> {
        let mut conn = self.store.read().await?;
        let rows = node::open_receipts(&mut conn).await?;
        drop(conn);
        for row in rows {
            match (row.state.as_str(), row.preimage) {
                ("claiming", Some(preimage)) => self.manager.claim_funds(PaymentPreimage(preimage.0)),
                ("failing", _) => self.fail_held(row.hash).await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A part of what came for a hash was turned away. That may have been another one than what is held.
    pub fn look_at_suspects(&self) {
        let suspects: Vec<PaymentHash> = lock(&self.suspects).iter().copied().collect();
        if suspects.is_empty() {
            return;
        }
        for hash in suspects.into_iter().filter(|hash| !self.is_in_a_channel(*hash)) {
            lock(&self.suspects).remove(&hash);
            self.stage.push(Step::Gone(hash));
            self.stage.hint(NodeEvent::Incoming(hash));
        }
    }

    fn is_gone(&self, row: &ReceiptRow) -> bool {
        let late = row.claim_before.is_some_and(|height| self.manager.current_best_block().height >= height);
        let suspect = lock(&self.suspects).contains(&row.hash);
        (late || suspect) && !self.is_in_a_channel(row.hash)
    }

    fn is_in_a_channel(&self, hash: PaymentHash) -> bool {
        let channels = self.manager.list_channels();
        let mut inbound = channels.iter().flat_map(|channel| &channel.pending_inbound_htlcs);
        inbound.any(|htlc| htlc.payment_hash.0 == hash.0)
    }
}

/// An order to claim may be repeated until it is carried out.
fn is_held(row: &ReceiptRow) -> bool {
    row.state == "held" || row.state == "claiming"
}
