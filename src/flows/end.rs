//! Ending a version of a send: the client's signatures are checked, and the transaction is promised to go out.

use async_trait::async_trait;
use bitcoin::{Transaction, Txid};

use super::history::{self, Send};
use super::{Code, Error, Flows, bump, effects, ingest, send};
use crate::clock::Timestamp;
use crate::crash;
use crate::domain::onchain_send::{Event, OnchainSend, Role, State};
use crate::domain::{Machine, Request, psbt};
use crate::ids::WalletId;
use crate::store::chain::{self, Coin};
use crate::store::issued::{self, IssuedTx};
use crate::store::{StoreError, Tx, Write, apply, leases, requests};

/// Ends whichever version of a request the PSBT is, if it is one that this endpoint may end.
pub(super) async fn version(
    flows: &Flows,
    wallet: &WalletId,
    signed_psbt: &str,
    is_right: impl Fn(&IssuedTx, &Request<OnchainSend>) -> bool,
) -> Result<Send, Error> {
    let signed = psbt::parse(signed_psbt)?;
    let txid = signed.unsigned_tx.compute_txid();
    let issued = find_issued(flows, wallet, txid, is_right).await?;
    let transaction = psbt::finish(&issued.parse_psbt()?, &signed)?;
    if issued.signed_tx.is_none() {
        // What was signed before is only answered: no halt makes it unsaid.
        send::refuse_while_halted(flows, wallet).await?;
    }
    let committed = match issued.role {
        Role::Original => "end.committed",
        Role::Bump | Role::Cancel => "bump_end.committed",
    };
    let end = End { issued, transaction: transaction.clone() };
    let request = flows.store().write(end).await?;
    crash::point(committed);
    if matches!(&request.machine.state, State::WaitingAck { .. }) {
        flows.wake_assets();
    }
    if matches!(&request.machine.state, State::Broadcast { txid: current, .. } if *current == txid) {
        effects::offer(flows, request.id, &transaction).await?;
    }
    let send = history::send(flows, wallet, request.id).await?;
    send.ok_or_else(|| StoreError::Corrupt(format!("request {} is gone", request.id)).into())
}

async fn find_issued(
    flows: &Flows,
    wallet: &WalletId,
    txid: Txid,
    is_right: impl Fn(&IssuedTx, &Request<OnchainSend>) -> bool,
) -> Result<IssuedTx, Error> {
    let unknown = || Error::Field {
        code: Code::PsbtUnknown,
        field: "signed_psbt",
        reason: "no transaction of this wallet that this endpoint could end was issued with these inputs and outputs"
            .to_owned(),
    };
    let mut conn = flows.store().read().await?;
    let issued = issued::by_txid(&mut conn, txid).await?.ok_or_else(unknown)?;
    let request = requests::load::<OnchainSend>(&mut conn, issued.request).await?.ok_or_else(unknown)?;
    if issued.wallet == *wallet && is_right(&issued, &request) { Ok(issued) } else { Err(unknown()) }
}

struct End {
    issued: IssuedTx,
    transaction: Transaction,
}

#[async_trait]
impl Write for End {
    type Output = Request<OnchainSend>;
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Request<OnchainSend>, Error> {
        chain::write_beside_others(tx).await?;
        let before = requests::load::<OnchainSend>(tx.conn(), self.issued.request)
            .await?
            .ok_or_else(|| StoreError::Corrupt(format!("request {} is gone", self.issued.request)))?;
        let txid = self.issued.unsigned_txid;
        let stored = issued::by_txid(tx.conn(), txid).await?;
        let known = stored.is_some_and(|stored| stored.signed_tx.is_some());
        match (&before.machine.state, self.issued.role) {
            // Said before, or already out: the state is the answer.
            _ if known => return Ok(before),
            (State::Broadcast { txid: current, .. }, _) if *current == txid => {}
            (State::Broadcast { .. }, Role::Bump | Role::Cancel) | (State::AwaitingSignature, Role::Original) => {
                self.require_in_time(tx.now())?;
                self.require_unspent(tx).await?;
                if let State::Broadcast { txid: current, .. } = before.machine.state {
                    self.supersede(tx, current).await?;
                }
            }
            (
                State::WaitingAck { .. } | State::Seen { .. } | State::Confirmed { .. } | State::Cancelled { .. },
                Role::Original,
            ) => return Ok(before),
            (State::Seen { .. } | State::Confirmed { .. } | State::Cancelled { .. }, Role::Bump | Role::Cancel) => {
                return Err(Error::refused(
                    Code::AlreadyConfirmed,
                    "another version of this send is in a block already",
                ));
            }
            (State::Conflicted { .. }, _) => return Err(spent_error()),
            (State::Expired, _) => return Err(send::expired_error()),
            (State::Failed { reason }, _) => {
                return Err(Error::refused(Code::RequestExpired, format!("this send was given up: {reason}")));
            }
            (State::Broadcast { .. }, Role::Original)
            | (State::AwaitingSignature | State::WaitingAck { .. }, Role::Bump | Role::Cancel) => {
                return Err(Error::refused(Code::NotBroadcast, "this version can't be ended as the request stands"));
            }
        }
        let now = tx.now();
        issued::keep_signed(tx.conn(), txid, &self.transaction, now).await?;
        if before.machine.terms.assets.is_none() {
            record_offered(tx, &self.issued, &self.transaction).await?;
        }
        let transition = before.machine.apply(&Event::Signed { txid }, now).map_err(StoreError::from)?;
        Ok(apply::apply(tx, before, transition).await?)
    }
}

fn spent_error() -> Error {
    Error::refused(Code::InputsSpent, "another transaction spends a coin of this one; begin again")
}

impl End {
    fn require_in_time(&self, now: Timestamp) -> Result<(), Error> {
        if self.issued.expires_at > now { Ok(()) } else { Err(send::expired_error()) }
    }

    /// Takes the place of the version that stands for the request: it must pay more, and nothing may build on what it undoes.
    async fn supersede(&self, tx: &mut Tx<'_>, current: Txid) -> Result<(), Error> {
        let versions = issued::of_request(tx.conn(), self.issued.request).await?;
        if versions.iter().any(|version| version.unsigned_txid == current && version.fee >= self.issued.fee) {
            return Err(Error::Field {
                code: Code::BumpTooSmall,
                field: "signed_psbt",
                reason: "the version that is out pays as much by now; bump that one".to_owned(),
            });
        }
        for version in versions {
            for coin in chain::coins_made_by(tx.conn(), version.unsigned_txid).await? {
                bump::require_untouched(&coin, self.issued.request)?;
                if coin.wallet == self.issued.wallet && coin.leased_by.is_none() {
                    // Nobody may begin with change that is about to vanish.
                    leases::take(tx, self.issued.request, &self.issued.wallet, &[coin.outpoint]).await?;
                }
            }
        }
        Ok(())
    }

    /// Every input is still there, and spent by nobody but another version of this request.
    async fn require_unspent(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        let inputs: Vec<_> = self.transaction.input.iter().map(|input| input.previous_output).collect();
        let coins = chain::coins_among(tx.conn(), &inputs).await?;
        let versions: Vec<Txid> = issued::of_request(tx.conn(), self.issued.request)
            .await?
            .iter()
            .map(|version| version.unsigned_txid)
            .collect();
        let ours = |coin: &Coin| coin.live && coin.spent_by.is_none_or(|by| versions.contains(&by));
        if coins.len() == inputs.len() && coins.iter().all(ours) { Ok(()) } else { Err(spent_error()) }
    }
}

/// Writes down what the signed transaction will do to the wallet's coins, as soon as it is promised to go out.
///
/// A version that competes with one that is out already waits for the network to take it: until then its change is not real.
async fn record_offered(tx: &mut Tx<'_>, issued: &IssuedTx, transaction: &Transaction) -> Result<(), StoreError> {
    if issued.role != Role::Original || chain::find_tx(tx.conn(), issued.unsigned_txid).await?.is_some() {
        return Ok(());
    }
    ingest::record(tx, transaction, ingest::Sighting::offered()).await.map(drop)
}
