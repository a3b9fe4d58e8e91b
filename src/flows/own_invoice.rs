//! An invoice of this gateway is paid in its books: whose it is, whether it takes money, and both sides of the transfer at once.

use super::{Code, Error};
use crate::clock::Timestamp;
use crate::domain::lightning::{Destination, PaymentHash};
use crate::domain::pay::{Book, Event, Pay, Terms};
use crate::domain::receive::{self, Receive};
use crate::domain::{Machine, Request};
use crate::ids::WalletId;
use crate::money::Amount;
use crate::store::{Conn, StoreError, Tx, apply, requests};

/// Whose invoice it is, when it is one of this gateway's: then the books pay it.
///
/// Whoever has seen an invoice knows its hash, and can sign any text over it. So only the payee's own text is its invoice, and
/// another one with its hash is nobody's: not the channels', either.
pub(super) async fn book(
    conn: &mut Conn,
    wallet: &WalletId,
    asked: &Asked<'_>,
    field: &'static str,
    now: Timestamp,
) -> Result<Option<Book>, Error> {
    let Some(theirs) = requests::receive_of(conn, asked.hash).await? else { return Ok(None) };
    if !asked.is_text_of(&theirs.machine) {
        return Err(Error::Field { code: Code::InvalidInvoice, field, reason: NOT_THEIRS.to_owned() });
    }
    if theirs.wallet == *wallet {
        return Err(Error::refused(Code::SelfPayment, "this is an invoice of this very wallet"));
    }
    takes_money(&theirs, asked, now)?;
    Ok(Some(Book { receive: theirs.id, wallet: theirs.wallet }))
}

pub(super) const NOT_THEIRS: &str = "an invoice of this gateway has this payment hash, and its text is another one";

/// What a payer wants to pay.
pub(super) struct Asked<'a> {
    pub destination: &'a Destination,
    pub hash: PaymentHash,
    pub amount: Amount,
}

impl<'a> Asked<'a> {
    pub(super) fn of(terms: &'a Terms) -> Self {
        Self { destination: &terms.destination, hash: terms.hash, amount: terms.amount }
    }

    /// Both are in the one spelling of an invoice. No offer is answered with the hash of one, and nothing else has its hash by right.
    fn is_text_of(&self, theirs: &Receive) -> bool {
        match self.destination {
            Destination::Bolt11(text) => *text == theirs.invoice,
            Destination::Bolt12(_) | Destination::Keysend { .. } => false,
        }
    }
}

/// Only an open invoice is paid in the books, by its own text and in full. One that is being claimed has a payer already, who may yet
/// give up.
pub(super) fn takes_money(request: &Request<Receive>, asked: &Asked<'_>, now: Timestamp) -> Result<(), Error> {
    if !asked.is_text_of(&request.machine) {
        return Err(Error::refused(Code::InvalidInvoice, NOT_THEIRS));
    }
    if request.machine.amount.is_some_and(|least| asked.amount < least) {
        return Err(Error::refused(Code::InvalidInvoice, "this is less than the invoice asks for"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lightning::Preimage;
    use crate::ids::RequestId;

    fn theirs(amount: Option<Amount>) -> Request<Receive> {
        let preimage = Preimage([7; 32]);
        let (id, wallet, now) =
            (RequestId::from_bytes([1; 16]), WalletId::of_triple("a", "b", "c"), Timestamp::from_millis(0));
        let machine = Receive {
            request: id,
            wallet: wallet.clone(),
            invoice: "lnbcrt1theirs".to_owned(),
            hash: preimage.hash(),
            preimage,
            amount,
            description: None,
            attempts: 0,
            surplus: Amount::ZERO,
            state: receive::State::Open,
        };
        let (created_at, updated_at) = (now, now);
        Request {
            id,
            wallet,
            reference: None,
            label: None,
            created_at,
            updated_at,
            expires_at: None,
            version: 1,
            machine,
        }
    }

    fn answer(destination: &Destination, asked: u64, least: Option<u64>) -> Option<Code> {
        let msat = |n| Amount::from_msat(n).unwrap();
        let request = theirs(least.map(msat));
        let asked = Asked { destination, hash: request.machine.hash, amount: msat(asked) };
        takes_money(&request, &asked, Timestamp::from_millis(0)).err().map(|error| error.code())
    }

    #[test]
    fn an_invoice_is_paid_by_its_own_text_and_in_full() {
        let its_own = Destination::Bolt11("lnbcrt1theirs".to_owned());
        assert_eq!(answer(&its_own, 1_000, Some(1_000)), None);
        assert_eq!(answer(&its_own, 1, None), None, "the payer says how much");
        assert_eq!(answer(&its_own, 999, Some(1_000)), Some(Code::InvalidInvoice));
        for other in [Destination::Bolt11("lnbcrt1other".to_owned()), Destination::Bolt12("lnbcrt1theirs".to_owned())] {
            assert_eq!(answer(&other, 1_000, Some(1_000)), Some(Code::InvalidInvoice), "{other:?}");
        }
    }
}
