//! What happens when time is up: addresses and invoices expire, and what nobody signed for gives back what it held.

use async_trait::async_trait;

use super::{Error, Flows};
use crate::crash;
use crate::domain::{address, asset_receive, onchain_send, pay, receive, withdraw};
use crate::store::requests::{self, AnyRequest};
use crate::store::{StoreError, Tx, Write, apply};

/// Requests that one transaction expires.
const BATCH: u32 = 100;

/// Expires what is overdue; answers how many there were.
///
/// # Errors
/// When the store can't be used.
pub async fn expire_overdue(flows: &Flows) -> Result<usize, Error> {
    let expired = flows.store().write(ExpireOverdue).await?;
    if expired > 0 {
        crash::point("expiry.committed");
    }
    Ok(expired)
}

struct ExpireOverdue;

#[async_trait]
impl Write for ExpireOverdue {
    type Output = usize;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<usize, StoreError> {
        let now = tx.now();
        let overdue = requests::overdue(tx.conn(), now, BATCH).await?;
        for request in &overdue {
            match request {
                AnyRequest::Address(request) => {
                    apply::advance::<address::ReceiveAddress>(tx, request.id, &address::Event::TimedOut)
                        .await
                        .map(drop)?;
                }
                AnyRequest::Send(request) => {
                    apply::advance::<onchain_send::OnchainSend>(tx, request.id, &onchain_send::Event::TimedOut)
                        .await
                        .map(drop)?;
                }
                AnyRequest::Receive(request) => {
                    apply::advance::<receive::Receive>(tx, request.id, &receive::Event::TimedOut).await.map(drop)?;
                }
                AnyRequest::Pay(request) => {
                    apply::advance::<pay::Pay>(tx, request.id, &pay::Event::TimedOut).await.map(drop)?;
                }
                AnyRequest::Withdraw(request) => {
                    apply::advance::<withdraw::Withdraw>(tx, request.id, &withdraw::Event::TimedOut).await.map(drop)?;
                }
                AnyRequest::AssetReceive(request) => {
                    let event = asset_receive::Event::TimedOut;
                    apply::advance::<asset_receive::AssetReceive>(tx, request.id, &event).await.map(drop)?;
                }
                // A deposit waits for nobody: it has no time limit.
                AnyRequest::Deposit(_) | AnyRequest::Credit(_) => {}
            }
        }
        Ok(overdue.len())
    }
}
