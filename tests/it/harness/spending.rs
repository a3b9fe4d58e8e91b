//! The rig's keys that may spend: asked for, granted, and paid with.

use sluice::domain::Request;
use sluice::domain::grant::{Limit, read_sum};
use sluice::domain::pay::Pay;
use sluice::flows::grants::{self, Asked, WantedGrant};
use sluice::flows::keys::Scope;
use sluice::flows::pay_invoice::BeginPay;
use sluice::flows::pay_with_key;
use sluice::flows::{Error, Flows};
use sluice::ids::KeyId;
use sluice::money::Amount;

use super::lightning::paying;
use super::process::Site;
use super::rig::{Client, Rig};

const GRANT_DAYS: u64 = 90;

/// A key that may spend so much, as an operator asks for one.
pub fn wanted(flows: &Flows, client: &Client, limits: &[&str], per_payment: Option<&str>) -> WantedGrant {
    let days = std::time::Duration::from_secs(GRANT_DAYS * 24 * 60 * 60);
    WantedGrant {
        name: "a story's".to_owned(),
        scopes: vec![Scope::Read, Scope::Send],
        wallet: client.keys.id(),
        limits: limits.iter().map(|text| text.parse::<Limit>().expect("a limit")).collect(),
        per_payment: per_payment.map(|text| read_sum(text).expect("an amount")),
        expires_at: flows.store().clock().now().after(days),
    }
}

impl Site {
    /// Makes a key that may spend, as an operator does who has stopped his gateway, and answers its secret.
    pub async fn spending_key(&self, client: &Client, limit: &str) -> String {
        let wallet = client.keys.id().to_string();
        let create = ["keys", "create", "--name", "story", "--scope", "send", "--wallet", &wallet, "--limit", limit];
        let secret = self.said(&create).await;
        let id = secret.split('_').nth(1).expect("an id");
        let psbt = self.said(&["keys", "grant-message", id]).await;
        let file = self.folder().join("grant");
        std::fs::write(&file, client.grant(&psbt)).expect("a file");
        self.said(&["keys", "grant", id, "--grant", &file.display().to_string()]).await;
        secret
    }

    /// What a subcommand prints that has to work.
    pub async fn said(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }
}

impl Rig {
    pub async fn ask_grant(&self, client: &Client, limits: &[&str]) -> Asked {
        grants::ask(&self.flows, wanted(&self.flows, client, limits, None)).await.expect("it is asked for")
    }

    /// A key that may spend within these limits, granted by the wallet's owner.
    pub async fn spending_key(&self, client: &Client, limits: &[&str], per_payment: Option<&str>) -> KeyId {
        let asked =
            grants::ask(&self.flows, wanted(&self.flows, client, limits, per_payment)).await.expect("it is asked for");
        grants::give(&self.flows, &asked.key, &client.grant(&asked.psbt)).await.expect("it is given");
        asked.key
    }

    pub async fn pay_with(&self, client: &Client, key: &KeyId, wanted: BeginPay) -> Result<Request<Pay>, Error> {
        pay_with_key::pay(&self.flows, &client.keys, key, wanted, None).await
    }

    /// Pays an invoice with a key.
    pub async fn key_pays(
        &self,
        client: &Client,
        key: &KeyId,
        invoice: &str,
        max_fee: Option<Amount>,
    ) -> Result<Request<Pay>, Error> {
        self.pay_with(client, key, paying(invoice, max_fee)).await
    }

    /// What is used of each limit of a key in the periods that are now, in millisatoshi, shortest period first.
    pub async fn used(&self, client: &Client, key: &KeyId) -> Vec<u64> {
        let granted = grants::of_key(&self.flows, &client.keys.id(), key).await.expect("the store answers");
        granted.expect("the grant is known").budgets.iter().map(|budget| budget.used.base_units()).collect()
    }
}
