//! What a wallet has on-chain, from its unspent coins: their number does not grow with its history.

use bitcoin::constants::COINBASE_MATURITY;

use super::{Code, Error, Flows};
use crate::domain::wallet::Account;
use crate::ids::WalletId;
use crate::money::{Amount, Sat};
use crate::store::chain::{self, Coin};
use crate::store::standing::{self, Lot, Standing};
use crate::store::{Conn, StoreError, ledger};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// In blocks, and not spent in a block.
    pub settled: Sat,
    /// What it will be once everything that waits has confirmed.
    pub future: Sat,
    /// What a begin could use now.
    pub spendable: Sat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balances {
    pub vanilla: Balance,
    pub colored: Balance,
    /// The chain is still being searched for coins from before the registration.
    pub scanning: bool,
}

/// What the operator owes a wallet, holds included and apart.
///
/// # Errors
/// When the store can't be used.
pub async fn offchain(flows: &Flows, wallet: &WalletId) -> Result<Offchain, Error> {
    let mut conn = flows.store().read().await?;
    let (balance, debt) = ledger::balance_and_debt(&mut conn, wallet).await?;
    let amount =
        |n: i64| Amount::from_bigint(n).map_err(|_| StoreError::Corrupt(format!("a balance of {wallet} is negative")));
    let (total, held) = (amount(balance.total)?, amount(balance.held)?);
    Ok(Offchain { total, held, available: amount(balance.total.saturating_sub(balance.held))?, debt })
}

/// Why off-chain money does not reach: there is less, or what there was is owed.
pub(super) async fn too_little(conn: &mut Conn, wallet: &WalletId, needed: Amount, available: Amount) -> Error {
    let debt = match ledger::debt(conn, wallet).await {
        Ok(debt) => debt,
        Err(error) => return error.into(),
    };
    let mut detail = format!("{needed} msat are needed, and {available} msat are available off-chain");
    if !debt.is_zero() {
        detail.push_str(&format!(
            "; the wallet owes {debt} msat, for a reorganisation took back what it had spent, and what comes in pays that first"
        ));
    }
    Error::refused(Code::InsufficientFunds, detail)
}

/// A wallet's balance in the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offchain {
    pub total: Amount,
    pub held: Amount,
    pub available: Amount,
    /// What it owes the operator after a reorganisation.
    pub debt: Amount,
}

/// # Errors
/// When the store can't be used.
pub async fn balances(flows: &Flows, wallet: &WalletId) -> Result<Balances, Error> {
    let mut conn = flows.store().read().await?;
    let Standing { tip, scanning, lots } = standing::of(&mut conn, wallet).await?;
    let of = |account| balance_of(&lots, account, tip, flows.policy().min_confirmations);
    Ok(Balances { vanilla: of(Account::Vanilla)?, colored: of(Account::Colored)?, scanning })
}

/// Every unspent coin of a wallet, leased and unconfirmed ones included.
///
/// # Errors
/// When the store can't be used.
pub async fn coins(flows: &Flows, wallet: &WalletId) -> Result<Vec<Coin>, Error> {
    let mut conn = flows.store().read().await?;
    let coins = chain::unspent(&mut conn, wallet).await?.into_iter();
    Ok(coins.filter(|coin| coin.spent_by.is_none() && is_shown(&coin.into())).collect())
}

/// What another wallet of this gateway has only promised to send is not there until the network has it.
fn is_shown(lot: &Lot) -> bool {
    lot.own || lot.in_mempool || lot.height.is_some()
}

fn balance_of(lots: &[Lot], account: Account, tip: u32, min_confirmations: u32) -> Result<Balance, StoreError> {
    let sum = |keep: &dyn Fn(&Lot) -> bool| {
        let amounts = lots.iter().filter(|lot| lot.account == account && keep(lot)).map(|lot| lot.amount);
        Sat::sum(amounts).ok_or_else(|| StoreError::Corrupt("coins add up to more than there can be".to_owned()))
    };
    Ok(Balance {
        settled: sum(&|lot| lot.height.is_some())?,
        future: sum(&|lot| !lot.is_spent && is_shown(lot))?,
        spendable: sum(&|lot| !lot.is_leased && is_lot_ripe(lot, tip, min_confirmations))?,
    })
}

/// Whether a coin may be spent now, leases aside: confirmed enough, or change of our own in the mempool.
pub(super) fn is_ripe(coin: &Coin, tip: u32, min_confirmations: u32) -> bool {
    is_lot_ripe(&coin.into(), tip, min_confirmations)
}

fn is_lot_ripe(coin: &Lot, tip: u32, min_confirmations: u32) -> bool {
    if coin.is_spent {
        return false;
    }
    match coin.height {
        Some(height) => {
            let depth = tip.saturating_add(1).saturating_sub(height);
            let needed = if coin.coinbase { COINBASE_MATURITY.max(min_confirmations) } else { min_confirmations };
            depth >= needed.max(1)
        }
        None => coin.in_mempool && (coin.own || min_confirmations == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;

    fn coin(height: Option<u32>) -> Coin {
        Coin {
            outpoint: bitcoin::OutPoint::null(),
            wallet: WalletId::of_triple("a", "b", "c"),
            account: Account::Vanilla,
            index: 0,
            script: bitcoin::ScriptBuf::new(),
            amount: Sat::literal(1_000),
            own: false,
            coinbase: false,
            live: true,
            in_mempool: height.is_none(),
            height,
            spent_by: None,
            spent_height: None,
            leased_by: None,
        }
    }

    #[test]
    fn strangers_coins_wait_and_own_change_does_not() {
        assert!(!is_ripe(&coin(None), 100, 1));
        assert!(is_ripe(&Coin { own: true, ..coin(None) }, 100, 1));
        assert!(
            !is_ripe(&Coin { own: true, in_mempool: false, ..coin(None) }, 100, 1),
            "offered is not in the mempool"
        );
        assert!(is_ripe(&coin(Some(98)), 100, 3));
        assert!(!is_ripe(&coin(Some(99)), 100, 3));
    }

    #[test]
    fn a_coinbase_coin_waits_a_hundred_blocks() {
        let young = Coin { coinbase: true, ..coin(Some(2)) };
        assert!(!is_ripe(&young, 100, 1));
        assert!(is_ripe(&young, 101, 1));
    }

    #[test]
    fn a_balance_tells_confirmed_coming_and_usable_apart() {
        let spent = Coin { spent_by: Some(bitcoin::Txid::all_zeros()), ..coin(Some(1)) };
        let leased = Coin { leased_by: Some(crate::ids::RequestId::fresh()), ..coin(Some(1)) };
        let lots = [coin(Some(1)), spent, leased, coin(None)].map(|coin| Lot::from(&coin));
        let balance = balance_of(&lots, Account::Vanilla, 10, 1).unwrap();
        assert_eq!(balance.settled, Sat::literal(3_000));
        assert_eq!(balance.future, Sat::literal(3_000));
        assert_eq!(balance.spendable, Sat::literal(1_000));
        assert_eq!(balance_of(&lots, Account::Colored, 10, 1).unwrap(), Balance::default());
    }
}
