//! Registering a wallet: its keys are claimed, its first scripts derived, and a search for coins from before is asked for.

use async_trait::async_trait;

use super::{Code, Error, Flows, address, balance};
use crate::crash;
use crate::domain::Fact;
use crate::domain::address::{Event, ReceiveAddress};
use crate::domain::event::payloads::Nothing;
use crate::domain::wallet::{Account, DerivedScript, WalletKeys};
use crate::ids::{KeyId, WalletId};
use crate::store::requests::{self, Filter};
use crate::store::wallets::WalletRow;
use crate::store::{self, StoreError, Tx, Write, apply, keys, wallets};

#[derive(Clone, Debug)]
pub struct Registered {
    pub address: String,
    pub balances: balance::Balances,
    /// False when the wallet was registered before.
    pub is_new: bool,
}

/// Registers a wallet. Doing it again changes nothing and answers the same.
///
/// # Errors
/// `keychain_in_use` when one of the keys belongs to another wallet, `invalid_keys` when another one has the id of these keys.
pub async fn register(flows: &Flows, keys: &WalletKeys, bind_to: Option<KeyId>) -> Result<Registered, Error> {
    let is_new = !is_known(flows, keys).await?;
    if is_new {
        let lookahead = flows.policy().lookahead;
        let for_deriving = keys.clone();
        // 0.1 ms a script: too long for a thread that serves others, and not on all of them at once.
        let _turn = flows.may_derive().await;
        let scripts = tokio::task::spawn_blocking(move || {
            Account::ALL.map(|account| (account, for_deriving.scripts(account, 0..lookahead)))
        })
        .await
        .map_err(|error| Error::panicked("deriving scripts", &error))?;
        let most = flows.policy().max_wallets_per_key;
        flows.store().write(Register { keys: keys.clone(), scripts, lookahead, bind_to, most }).await?;
        crash::point("register.committed");
    } else if let Some(key) = bind_to {
        // Knowing a wallet's public keys is no right to it: another caller's wallet is not bound to this key.
        require_bound(flows, &key, &keys.id()).await?;
    }
    let address = address::current(flows, keys).await?.machine.address;
    let balances = balance::balances(flows, &keys.id()).await?;
    Ok(Registered { address, balances, is_new })
}

/// Whether these keys name a registered wallet.
///
/// # Errors
/// When the store can't be used.
pub async fn is_known(flows: &Flows, keys: &WalletKeys) -> Result<bool, Error> {
    Ok(find(flows, keys).await?.is_some())
}

/// The registered wallet that these keys name. What it answers for has these very keys: whoever checks a consent with them afterwards
/// checks it with those of the row.
///
/// # Errors
/// `wallet_not_registered` when there is none, `invalid_keys` when another wallet has the id of these.
pub async fn require(flows: &Flows, keys: &WalletKeys) -> Result<WalletRow, Error> {
    find(flows, keys).await?.ok_or_else(|| {
        Error::refused(Code::WalletNotRegistered, "this wallet is not registered; POST /wallet/register first")
    })
}

async fn find(flows: &Flows, keys: &WalletKeys) -> Result<Option<WalletRow>, Error> {
    let mut conn = flows.store().read().await?;
    let row = wallets::find(&mut conn, &keys.id()).await?;
    if let Some(row) = &row {
        require_same(row, keys)?;
    }
    Ok(row.filter(|row| row.released_at.is_none()))
}

/// An id is 64 bits of a hash, and other keys with the same id can be searched for. So the id finds the row, and the row says who it is.
fn require_same(row: &WalletRow, keys: &WalletKeys) -> Result<(), Error> {
    let headers = [
        ("xpub-van", row.xpub_van == keys.xpub(Account::Vanilla)),
        ("xpub-col", row.xpub_col == keys.xpub(Account::Colored)),
        ("master-fingerprint", row.fingerprint == keys.fingerprint()),
    ];
    match headers.into_iter().find(|(_, is_same)| !is_same) {
        None => Ok(()),
        Some((field, _)) => Err(Error::Field {
            code: Code::InvalidKeys,
            field,
            reason: "is not that of the wallet which is registered under this id; make other keys".to_owned(),
        }),
    }
}

async fn require_bound(flows: &Flows, key: &KeyId, wallet: &WalletId) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    if keys::is_bound(&mut conn, key, wallet).await? {
        return Ok(());
    }
    Err(not_bound())
}

fn not_bound() -> Error {
    Error::refused(Code::Forbidden, "this wallet is registered, and this key is not bound to it")
}

struct Register {
    keys: WalletKeys,
    scripts: [(Account, Vec<DerivedScript>); 2],
    lookahead: u32,
    bind_to: Option<KeyId>,
    /// Wallets that one key may have registered.
    most: u32,
}

#[async_trait]
impl Write for Register {
    type Output = ();
    type Error = Error;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        let wallet = self.keys.id();
        if let Some(row) = wallets::find(tx.conn(), &wallet).await? {
            require_same(&row, &self.keys)?;
        }
        for account in Account::ALL {
            let user = wallets::user_of_key(tx.conn(), &self.keys.key_material(account)).await?;
            if user.is_some_and(|user| user != wallet) {
                return Err(in_use(account));
            }
        }
        if !wallets::insert(tx, &self.keys).await? {
            return self.require_bound(tx).await;
        }
        expire_open_addresses(tx, &wallet).await?;
        for (account, scripts) in &self.scripts {
            wallets::add_scripts(tx, &wallet, *account, scripts).await?;
            // A wallet that was released goes on where it stopped, which may lie beyond the first scripts.
            let next = wallets::keychain(tx.conn(), &wallet, *account).await?.next_index;
            address::extend_lookahead(tx, &self.keys, *account, next, self.lookahead).await?;
        }
        if let Some(key) = &self.bind_to {
            if keys::wallets_in_use(tx.conn(), key).await? >= u64::from(self.most) {
                return Err(Error::refused(
                    Code::TooManyWallets,
                    format!("this key has registered {} wallets, and may not register more", self.most),
                ));
            }
            keys::bind_wallet(tx, key, &wallet).await?;
        }
        store::events::append(tx, Some(&wallet), None, &Fact::WalletRegistered(Nothing {})).await?;
        Ok(())
    }
}

impl Register {
    /// Somebody else was first: whoever he is, his wallet is not given to another key.
    async fn require_bound(&self, tx: &mut Tx<'_>) -> Result<(), Error> {
        let Some(key) = &self.bind_to else { return Ok(()) };
        if keys::is_bound(tx.conn(), key, &self.keys.id()).await? { Ok(()) } else { Err(not_bound()) }
    }
}

/// A released wallet's addresses were not watched for a while: none of them is offered as unused any more.
async fn expire_open_addresses(tx: &mut Tx<'_>, wallet: &WalletId) -> Result<(), StoreError> {
    const PAGE: u32 = 500;
    let open = Filter { state: Some("open".to_owned()), ..Filter::default() };
    loop {
        let page = requests::page::<ReceiveAddress>(tx.conn(), wallet, &open, None, PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        for request in page {
            apply::advance::<ReceiveAddress>(tx, request.id, &Event::TimedOut).await?;
        }
    }
}

fn in_use(account: Account) -> Error {
    let field = match account {
        Account::Vanilla => "xpub-van",
        Account::Colored => "xpub-col",
    };
    Error::Field {
        code: Code::KeychainInUse,
        field,
        reason: "this key belongs to another registered wallet".to_owned(),
    }
}
