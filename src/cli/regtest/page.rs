//! What is printed when everything runs: calls to copy and paste, in the order in which they make sense.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::demo::Demo;

/// What curl has to be told about a body.
const JSON: &str = "-H 'Content-Type: application/json'";

pub(super) struct Facts<'a> {
    pub(super) demo: &'a Demo,
    /// Where the merchant takes orders.
    pub(super) merchant: &'a str,
    /// Where the chain is told as an Esplora tells it.
    pub(super) indexer: &'a str,
    pub(super) operator: SocketAddr,
    pub(super) balance: u64,
    /// The file that makes curl the operator.
    pub(super) operator_key: PathBuf,
    /// An address of the private chain's own wallet, for the demo to pay to.
    pub(super) pay_to: String,
    pub(super) block_seconds: u64,
}

impl Facts<'_> {
    fn blocks(&self) -> String {
        match self.block_seconds {
            0 => "No blocks are mined by themselves.".to_owned(),
            seconds => format!("A block is mined every {seconds} s."),
        }
    }

    pub(super) fn page(&self) -> String {
        let Demo { gateway, signer, wallet_file, headers_file, folder, .. } = self.demo;
        let (signer, wallet, headers) = (quoted(&from_here(signer)), quoted(wallet_file), quoted(headers_file));
        let file = |name: &str| quoted(&folder.join(name));
        let [begin, end, send] = ["begin", "end", "send"].map(|name| file(&format!("{name}.json")));
        let [sale, bill, pay] = ["sale", "bill", "pay"].map(|name| file(&format!("{name}.json")));
        let (merchant, indexer) = (self.merchant, self.indexer);
        let (operator, pay_to, balance) = (self.operator, &self.pay_to, self.balance);
        let blocks = self.blocks();
        let json = JSON;
        format!(
            r#"
The gateway runs:    {gateway}  (the API's pages: {gateway}/docs)
Health and metrics:  http://{operator}/health/ready and /metrics
Esplora indexer:     {indexer}  (for wallets that look at this chain: {indexer}/blocks/tip/height)
The demo wallet is registered and holds {balance} sat. {blocks} Ctrl-C stops everything.

Try it: paste these into another terminal, in the folder where this one was started.

  # The balance. The file holds the three headers that name the wallet: public keys, no secret.
  curl -sS -K {headers} -X POST {gateway}/wallet/btcbalance; echo

  # A new address for one customer.
  curl -sS -K {headers} {gateway}/lightning/onchain-receive {json} -d '{{"label":"customer 7"}}'; echo

  # Send 50,000 sat. Begin: the gateway chooses coins and hands out a transaction to sign.
  curl -sS -K {headers} {gateway}/lightning/onchain-send-begin {json} \
    -d '{{"address_or_rgbinvoice":"{pay_to}","amount_sats":50000,"fee_rate":2}}' -o {begin}

  # Sign: your key stays with the signer, which says what it signs.
  {signer} sign --file {wallet} --json --max-amount 50000 < {begin} > {end}

  # End: the gateway checks that it is what it handed out, and broadcasts it.
  curl -sS -K {headers} {gateway}/lightning/onchain-send-end {json} -d @{end} | tee {send}; echo

  # Watch it: BROADCASTED, and CONFIRMED after the next block.
  curl -sS -K {headers} {gateway}/onchain-send/$(sed 's/.*"send_id":"\([^"]*\)".*/\1/' {send}); echo

  # Receive over Lightning: an invoice, and the merchant pays it. Off-chain balances begin at 0, so this comes first.
  curl -sS -K {headers} {gateway}/lightning/create-invoice {json} -d '{{"amount_sats":25000,"description":"order 7"}}' | tee {sale}; echo
  curl -sS {merchant}/pay {json} -d @{sale}; echo
  curl -sS -K {headers} {gateway}/lightning/balance; echo

  # Pay over Lightning: the merchant's invoice; begin, sign what you consent to, end.
  curl -sS {merchant}/invoice {json} -d '{{"amount_sats":5000}}' | tee {bill}; echo
  curl -sS -K {headers} {gateway}/lightning/pay-invoice-begin {json} -d @{bill} -o {begin}
  {signer} sign --file {wallet} --json < {begin} > {end}
  curl -sS -K {headers} {gateway}/lightning/pay-invoice-end {json} -d @{end} | tee {pay}; echo

  # How it went, and what it cost.
  curl -sS -K {headers} {gateway}/lightning/send-request/$(sed 's/.*"id":"\([^"]*\)".*/\1/' {pay}); echo
"#
        ) + &self.between_the_rails()
            + &self.assets()
            + &self.in_the_end()
    }

    fn between_the_rails(&self) -> String {
        let Demo { gateway, signer, wallet_file, headers_file, folder, .. } = self.demo;
        let (signer, wallet, headers) = (quoted(&from_here(signer)), quoted(wallet_file), quoted(headers_file));
        let files = ["begin", "end", "send", "settle"].map(|name| quoted(&folder.join(format!("{name}.json"))));
        let ([begin, end, send, settle], pay_to, json) = (files, &self.pay_to, JSON);
        format!(
            r#"
  # Settle: 200,000 sat of the wallet's own coins become off-chain money. CREDITED after the next block.
  curl -sS -K {headers} {gateway}/lightning/settle-begin {json} -d '{{"amount_sats":200000,"fee_rate":2}}' -o {begin}
  {signer} sign --file {wallet} --json --max-amount 200000 < {begin} > {end}
  curl -sS -K {headers} {gateway}/lightning/settle-end {json} -d @{end} | tee {settle}; echo
  curl -sS -K {headers} {gateway}/lightning/settle/$(sed 's/^{{"id":"\([^"]*\)".*/\1/' {settle}); echo

  # Withdraw: 100,000 sat of off-chain money leave on-chain. What you sign is a consent; the node sends.
  curl -sS -K {headers} {gateway}/lightning/onchain-send-begin {json} \
    -d '{{"address_or_rgbinvoice":"{pay_to}","amount_sats":100000,"fee_rate":2,"source":"offchain"}}' -o {begin}
  {signer} sign --file {wallet} --json < {begin} > {end}
  curl -sS -K {headers} {gateway}/lightning/onchain-send-end {json} -d @{end} | tee {send}; echo
  curl -sS -K {headers} {gateway}/onchain-send/$(sed 's/.*"send_id":"\([^"]*\)".*/\1/' {send}); echo
"#
        )
    }

    /// An asset goes to a second wallet, which is made on the way.
    fn assets(&self) -> String {
        let Demo { gateway, signer, wallet_file, headers_file, folder, .. } = self.demo;
        let (signer, wallet, headers) = (quoted(&from_here(signer)), quoted(wallet_file), quoted(headers_file));
        let files = ["begin", "end", "gold", "bill"].map(|name| quoted(&folder.join(format!("{name}.json"))));
        let ([begin, end, gold, bill], json) = (files, JSON);
        let [shop, shop_headers] = ["shop.wallet", "shop.headers"].map(|name| quoted(&folder.join(name)));
        format!(
            r#"
  # Assets: five coins that can carry one, out of the wallet's own bitcoin. Wait for a block afterwards.
  curl -sS -K {headers} {gateway}/wallet/createutxosbegin {json} -d '{{"num":5,"size":3000,"fee_rate":2}}' -o {begin}
  {signer} sign --file {wallet} --json --max-amount 0 < {begin} > {end}
  curl -sS -K {headers} {gateway}/wallet/createutxosend {json} -d @{end}; echo

  # Issue 1,000 of an asset, and have a second wallet ask for 10 of it.
  curl -sS -K {headers} {gateway}/wallet/issueassetnia {json} -d '{{"ticker":"GOLD","name":"Gold","amounts":[1000]}}' | tee {gold}; echo
  {signer} init --file {shop}
  {signer} xpubs --headers --file {shop} > {shop_headers}
  curl -sS -K {shop_headers} -X POST {gateway}/wallet/register; echo
  curl -sS -K {shop_headers} {gateway}/wallet/witnessreceive {json} -d '{{"amount":10}}' | tee {bill}; echo

  # Pay it: begin, sign, end. It goes out when the second wallet's side has accepted it, and counts after a block.
  ASSET=$(sed 's/.*"asset_id":"\([^"]*\)".*/\1/' {gold}) INVOICE=$(sed 's/.*"invoice":"\([^"]*\)".*/\1/' {bill})
  curl -sS -K {headers} {gateway}/wallet/sendbegin {json} \
    -d '{{"invoice":"'"$INVOICE"'","asset_id":"'"$ASSET"'","fee_rate":2,"min_confirmations":1}}' -o {begin}
  {signer} sign --file {wallet} --json < {begin} > {end}
  curl -sS -K {headers} {gateway}/wallet/sendend {json} -d @{end}; echo
  curl -sS -K {shop_headers} {gateway}/wallet/listtransfers -X POST; echo
"#
        )
    }

    fn in_the_end(&self) -> String {
        let (gateway, headers) = (&self.demo.gateway, quoted(&self.demo.headers_file));
        let operator_key = quoted(&self.operator_key);
        format!(
            r#"
  # What happened to the wallet, in order.
  curl -sS -K {headers} "{gateway}/events?limit=20"; echo

  # As the operator: the books of the gateway, which add up to 0. This file holds a key, which is a secret.
  curl -sS -K {operator_key} {gateway}/admin/trial-balance; echo
"#
        )
    }
}

/// A short path where the program is below the folder that we were started in.
fn from_here(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    below.unwrap_or_else(|| path.to_owned())
}

/// For a shell: as it is where that is safe, in quotes elsewhere.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_below_is_named_from_here() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(from_here(&here.join("target").join("a")), Path::new("target/a"));
        assert_eq!(from_here(Path::new("/usr/bin/a")), Path::new("/usr/bin/a"));
    }

    #[test]
    fn a_path_is_pasted_safely() {
        assert_eq!(quoted(Path::new("data/regtest/demo.wallet")), "data/regtest/demo.wallet");
        assert_eq!(quoted(Path::new("my data/it's")), r"'my data/it'\''s'");
    }
}
