//! Asking the payees of offers. Each question opens onion messages to a stranger and waits for him, so there are a few at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pay_invoice::BeginPay;
use super::{Code, Error, Flows, balance, send};
use crate::domain::offer;
use crate::ids::WalletId;
use crate::money::{Amount, Sat};
use crate::store::ledger;

/// Questions that are out at a time, of one wallet and of all of them.
const MOST_OF_A_WALLET: usize = 4;
const MOST: usize = 64;
/// When it is worth coming again: a payee who does not answer is given up after a little more.
const COME_AGAIN_SECONDS: u32 = 5;

pub(super) struct Fetches {
    all: Arc<Semaphore>,
    wallets: Mutex<HashMap<WalletId, Weak<Semaphore>>>,
}

/// Given back when it is dropped.
pub(super) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_wallet: OwnedSemaphorePermit,
    /// The wallet's places are there as long as one of them is taken.
    _places: Arc<Semaphore>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(MOST)), wallets: Mutex::default() }
    }
}

/// Everything that can be refused before a stranger is asked, and a place to ask him from.
///
/// # Errors
/// When the wallet has not the money or the room for such a payment, or too many payees are being asked.
pub(super) async fn begin(flows: &Flows, wallet: &WalletId, wanted: &BeginPay, offer: &str) -> Result<Place, Error> {
    let mut conn = flows.store().read().await?;
    send::look_for_room(&mut conn, flows, wallet).await?;
    let available = ledger::available(&mut conn, wallet).await?;
    // Who has nothing asks no payee, also where nobody has named an amount yet.
    let least = offered(flows, wanted, offer).unwrap_or(Amount::from_sat(Sat::literal(1)));
    if available < least {
        return Err(balance::too_little(&mut conn, wallet, least, available).await);
    }
    flows.inner.fetches.take(wallet)
}

/// What the payee of an offer will be given at least, where that is known before it is asked.
pub(super) fn offered(flows: &Flows, wanted: &BeginPay, offer: &str) -> Option<Amount> {
    wanted.amount.or_else(|| offer::read(offer, flows.network()).ok()?.amount)
}

impl Fetches {
    /// # Errors
    /// When too many payees are being asked, for this wallet or for all.
    pub(super) fn take(&self, wallet: &WalletId) -> Result<Place, Error> {
        let places = self.of_wallet(wallet);
        let later = |code, detail: String| Error::Later { code, detail, seconds: COME_AGAIN_SECONDS };
        let of_wallet = Arc::clone(&places).try_acquire_owned().map_err(|_| {
            let detail = format!("{MOST_OF_A_WALLET} payees of offers are being asked for this wallet already");
            later(Code::RateLimited, detail)
        })?;
        let of_all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| {
            later(Code::LightningNotReady, format!("{MOST} payees of offers are being asked at this moment"))
        })?;
        Ok(Place { _of_all: of_all, _of_wallet: of_wallet, _places: places })
    }

    fn of_wallet(&self, wallet: &WalletId) -> Arc<Semaphore> {
        let mut wallets = self.wallets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = wallets.get(wallet).and_then(Weak::upgrade) {
            return places;
        }
        wallets.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(MOST_OF_A_WALLET));
        wallets.insert(wallet.clone(), Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wallet(name: &str) -> WalletId {
        WalletId::of_triple(name, "", "")
    }

    #[test]
    fn a_wallet_has_some_places_and_gets_them_back() {
        let fetches = Fetches::default();
        let mut places: Vec<Place> = (0..MOST_OF_A_WALLET).map(|_| fetches.take(&wallet("a")).unwrap()).collect();
        assert_eq!(fetches.take(&wallet("a")).err().unwrap().code(), Code::RateLimited);
        drop(fetches.take(&wallet("b")).unwrap());
        drop(places.pop());
        drop(fetches.take(&wallet("a")).unwrap());
        drop(places);
        assert!(
            (0..MOST_OF_A_WALLET).map(|_| fetches.take(&wallet("a"))).collect::<Vec<_>>().iter().all(Result::is_ok)
        );
    }

    #[test]
    fn many_wallets_together_have_some_places() {
        let fetches = Fetches::default();
        let _places: Vec<Place> = (0..MOST).map(|n| fetches.take(&wallet(&n.to_string())).unwrap()).collect();
        assert_eq!(fetches.take(&wallet("another")).err().unwrap().code(), Code::LightningNotReady);
    }
}
