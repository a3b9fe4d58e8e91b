//! An invoice of this gateway is paid in its books: whose it is, whether it takes money, and both sides of the transfer at once.

use super::{Code, Error};
use crate::clock::Timestamp;
use crate::domain::lightning::PaymentHash;
use crate::domain::pay::{Book, Event, Pay};
use crate::domain::receive::{self, Receive};
use crate::domain::{Machine, Request};
use crate::ids::WalletId;
use crate::store::{Conn, StoreError, Tx, apply, requests};

/// Whose invoice it is, when it is one of this gateway's: then the books pay it.
pub(super) async fn book(
    conn: &mut Conn,
    wallet: &WalletId,
    hash: PaymentHash,
    now: Timestamp,
) -> Result<Option<Book>, Error> {
    let Some(request) = requests::receive_of(conn, hash).await? else { return Ok(None) };
    if request.wallet == *wallet {
        return Err(Error::refused(Code::SelfPayment, "this is an invoice of this very wallet"));
    }
    takes_money(&request, now)?;
    Ok(Some(Book { receive: request.id, wallet: request.wallet }))
}

/// Only an open invoice is paid in the books. One that is being claimed has a payer already, who may yet give up.
pub(super) fn takes_money(request: &Request<Receive>, now: Timestamp) -> Result<(), Error> {
    let is_late = request.expires_at.is_some_and(|at| at <= now);
    match request.machine.state {
        receive::State::Open if !is_late => Ok(()),
        receive::State::Open | receive::State::Expired => {
            Err(Error::refused(Code::InvoiceExpired, "this invoice has expired; ask the payee for another"))
        }
        receive::State::Claiming { .. } => {
            Err(Error::refused(Code::PaymentInProgress, "this invoice is being paid by somebody else"))
        }
        receive::State::Settled { .. } => Err(Error::refused(Code::AlreadyPaid, "this invoice was paid")),
        receive::State::Cancelled => {
            Err(Error::refused(Code::InvoiceExpired, "the payee has withdrawn this invoice; ask for another"))
        }
    }
}

/// Settles the payer's request and the payee's.
pub(super) async fn transfer(
    tx: &mut Tx<'_>,
    before: Request<Pay>,
    theirs: Request<Receive>,
) -> Result<Request<Pay>, StoreError> {
    let now = tx.now();
    let (amount, preimage) = (before.machine.terms.amount, theirs.machine.preimage);
    let credited = theirs.machine.apply(&receive::Event::BookPaid { amount }, now)?;
    let debited = before.machine.apply(&Event::Booked { preimage }, now)?;
    let paid = apply::apply(tx, before, debited).await?;
    apply::apply(tx, theirs, credited).await?;
    Ok(paid)
}
