//! The part of the audit that opens the folders of the engine for assets: a copy of each, so that nothing is changed. What is found says
//! which wallet is concerned, and stops nobody else.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::assets::keys;
use super::audit::{Drift, Report};
use super::{Error, Flows};
use crate::ids::WalletId;
use crate::store::wallets;

pub const RULE: &str = "what_a_wallet_has_of_assets_can_be_opened";
/// Wallets that one audit looks at; the next goes on where it left off. Opening one takes some hundredths of a second.
const AT_ONCE: u32 = 100;

/// What was found, and how far the last look came.
#[derive(Debug, Default)]
pub struct Looked {
    broken: Mutex<BTreeMap<String, String>>,
    after: Mutex<String>,
}

impl Looked {
    /// Wallets whose state can't be opened, and why.
    #[must_use]
    pub fn broken(&self) -> BTreeMap<String, String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, wallet: &WalletId, why: Option<String>) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => drop(broken.insert(wallet.to_string(), why)),
            None => drop(broken.remove(&wallet.to_string())),
        }
    }

    fn after(&self) -> String {
        self.after.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn go_on_after(&self, wallet: String) {
        *self.after.lock().unwrap_or_else(PoisonError::into_inner) = wallet;
    }
}

/// Opens some of the folders.
pub(super) async fn audit_assets(flows: &Flows, report: &mut Report) -> Result<(), Error> {
    let Some(side) = flows.asset_side() else { return Ok(()) };
    let mut conn = flows.store().read().await?;
    let wallets = wallets::with_colored_scripts(&mut conn, &side.looked.after(), AT_ONCE).await?;
    drop(conn);
    for wallet in &wallets {
        let keys = keys(flows, wallet).await?;
        let why = side.engine.try_out(&keys).await.err().map(|error| error.to_string());
        side.looked.note(wallet, why);
    }
    let is_all = wallets.len() < usize::try_from(AT_ONCE).unwrap_or(usize::MAX);
    let last = wallets.last().filter(|_| !is_all).map(ToString::to_string);
    side.looked.go_on_after(last.unwrap_or_default());
    report.checked.push((RULE, wallets.len() as u64));
    let broken = side.looked.broken().into_iter();
    report.unopened.extend(broken.map(|(wallet, why)| Drift::new(RULE, format!("{wallet}: {why}"))));
    Ok(())
}
