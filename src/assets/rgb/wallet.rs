//! One wallet of rgb-lib: every call blocks.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;

use bitcoin::{Network, Psbt};
use rgb_lib::utils::script_buf_from_recipient_id;
use rgb_lib::wallet::{
    DatabaseType, Online, OnlineOptions, Recipient as RgbRecipient, RgbWalletOpsOffline, RgbWalletOpsOnline,
    SinglesigKeys, SyncKeychain, SyncOptions, SyncStrategy, Transfer as RgbTransfer, Wallet, WalletData, WitnessData,
};
use rgb_lib::{AssetSchema, Assignment, BitcoinNetwork, Error, TransferStatus as RgbTransferStatus};

use super::export::{self, Draft};
use super::{invoice, last, map, misconfigured, nonsense, reveal, shared};
use crate::money::Sat;
use crate::ports::PortError;
use crate::ports::assets::{
    Account, Asset, AssetError, BegunTransfer, ColoredCoin, Consignment, NewAsset, NewReceive, NewTransfer, Onto,
    Receive, Recipient, Refusal, Transfer, TransferKind, TransferStatus, Verdict, WalletKeys,
};
use crate::secret::Secret;

/// Fungible assets of a fixed supply. Those that can be inflated name an address that would have to be asked.
const SCHEMAS: [AssetSchema; 2] = [AssetSchema::Nia, AssetSchema::Cfa];
/// Assets that may share a coin: the library can't send one of two apart, and stumbles over it once it is signed.
const ALLOCATIONS_PER_COIN: u32 = 1;
/// A kill in the middle of a call leaves it behind, and the library would wait for it to go away.
pub(super) const STALE_LOCK: &str = "rgb_runtime.lock";
const LOG: &str = "log";
const LOG_BYTES: u64 = 1_000_000;
/// The smallest transaction that moves an asset: one coin in, the commitment, a payee and the change.
const LEAST_VBYTES: u64 = 200;
/// Where a copy of a wallet is opened to see whether it can be.
const TRIAL: &str = "trial";
/// The vanilla account is followed by the gateway, not by the engine.
const VANILLA_LOOKBACK: u32 = 0;

/// Where a wallet's state lives: its own folder, because the library tells wallets apart by four bytes only.
pub(super) struct Place {
    pub folder: PathBuf,
    pub network: Network,
}

impl Place {
    pub(super) fn wallet_folder(&self, keys: &WalletKeys) -> PathBuf {
        self.folder.join(keys.fingerprint())
    }

    pub(super) fn exists(&self) -> bool {
        self.folder.exists()
    }

    /// An empty place within this one, to try something out in.
    pub(super) fn trial(&self) -> Result<Self, PortError> {
        let folder = self.folder.join(TRIAL);
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(misconfigured(e)),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir(&folder).map_err(misconfigured)?;
        Ok(Self { folder, network: self.network })
    }
}

pub(super) struct RgbWallet {
    wallet: Wallet,
    indexer: String,
    /// Empty until the indexer was needed: what a wallet has can be told without one.
    online: Option<Online>,
    folder: PathBuf,
    keys: WalletKeys,
    /// The first script that was given to nobody, while the file that counts them has this length.
    next: Option<(u64, u32)>,
}

fn own_network(network: Network) -> BitcoinNetwork {
    match network {
        Network::Bitcoin => BitcoinNetwork::Mainnet,
        Network::Testnet => BitcoinNetwork::Testnet,
        Network::Testnet4 => BitcoinNetwork::Testnet4,
        Network::Signet => BitcoinNetwork::Signet,
        Network::Regtest => BitcoinNetwork::Regtest,
    }
}

/// Opens by the library, which puts a panic hook of its own on top of the one that is there: ours is put back.
fn keeping_the_panic_hook<T>(open: impl FnOnce() -> T) -> T {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let hook = std::panic::take_hook();
    let opened = open();
    drop(std::panic::take_hook());
    std::panic::set_hook(hook);
    opened
}

/// Nobody else has the wallet open: the registry says so.
fn tidy(folder: &Path) -> Result<(), PortError> {
    match fs::remove_file(folder.join(STALE_LOCK)) {
        Ok(()) => tracing::warn!("a call of the RGB engine was cut off by a kill; its lock is removed"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(misconfigured(e)),
    }
    let log = folder.join(LOG);
    if fs::metadata(&log).is_ok_and(|log| log.len() > LOG_BYTES) {
        fs::write(&log, "").map_err(misconfigured)?;
    }
    Ok(())
}

impl RgbWallet {
    pub(super) fn open(place: &Place, keys: &WalletKeys, indexer: &str) -> Result<Self, AssetError> {
        export::clear(&place.folder)?;
        let folder = place.wallet_folder(keys);
        if folder.exists() {
            tidy(&folder)?;
        }
        let data = WalletData {
            data_dir: place.folder.to_str().ok_or_else(|| misconfigured("assets.data_dir is no text"))?.to_owned(),
            bitcoin_network: own_network(place.network),
            database_type: DatabaseType::Sqlite,
            max_allocations_per_utxo: ALLOCATIONS_PER_COIN,
            supported_schemas: SCHEMAS.to_vec(),
        };
        let names = SinglesigKeys {
            account_xpub_vanilla: keys.xpub(Account::Vanilla),
            account_xpub_colored: keys.xpub(Account::Colored),
            vanilla_keychain: Some(0),
            master_fingerprint: keys.fingerprint(),
            mnemonic: None,
            witness_version: rgb_lib::keys::WitnessVersion::Taproot,
        };
        let wallet = keeping_the_panic_hook(|| Wallet::new(data, names)).map_err(map::error)?;
        Ok(Self { wallet, indexer: indexer.to_owned(), online: None, folder, keys: keys.clone(), next: None })
    }

    fn online(&mut self) -> Result<Online, AssetError> {
        if let Some(online) = self.online {
            return Ok(online);
        }
        let options = OnlineOptions {
            indexer_url: self.indexer.clone(),
            skip_consistency_check: true,
            vanilla_sync_lookback: VANILLA_LOOKBACK,
        };
        let online = self.wallet.go_online(options).map_err(map::error)?;
        self.online = Some(online);
        Ok(online)
    }

    pub(super) fn take_in_coins(&mut self) -> Result<(), AssetError> {
        let options = SyncOptions { keychain: SyncKeychain::Colored, strategy: SyncStrategy::FullSync };
        let online = self.online()?;
        self.wallet.sync(online, options).map_err(map::error)
    }

    pub(super) fn coins(&mut self) -> Result<Vec<ColoredCoin>, AssetError> {
        let all = self.wallet.list_unspents(None, false, true).map_err(map::error)?;
        let colored = all.iter().filter(|coin| coin.utxo.colorable && coin.utxo.exists);
        Ok(colored.map(map::coin).collect::<Result<_, _>>()?)
    }

    pub(super) fn issue(&mut self, new: NewAsset) -> Result<Asset, AssetError> {
        let amounts = new.amounts.iter().map(|amount| amount.base_units()).collect();
        let asset = self.wallet.issue_asset_nia(new.ticker, new.name, new.precision, amounts).map_err(map::error)?;
        Ok(map::nia(asset)?)
    }

    pub(super) fn assets(&mut self) -> Result<Vec<Asset>, AssetError> {
        let assets = self.wallet.list_assets(SCHEMAS.to_vec()).map_err(map::error)?;
        Ok(map::assets(assets)?)
    }

    pub(super) fn receive(&mut self, new: &NewReceive) -> Result<Receive, AssetError> {
        let assignment = new.amount.map_or(Assignment::Any, |amount| Assignment::Fungible(amount.base_units()));
        let (asset, until, depth) = (new.asset.clone(), new.expires_at, new.min_confirmations);
        let made = match new.onto {
            Onto::OwnCoin => self.wallet.blind_receive(asset, assignment, until, Vec::new(), depth),
            Onto::NewCoin => self.wallet.witness_receive(asset, assignment, until, Vec::new(), depth),
        };
        let made = made.map_err(map::error)?;
        let invoice = invoice::with_endpoints(&made.invoice, &new.endpoints)?;
        self.count_on(&made.recipient_id)?;
        let transfer = last::transfer(&self.folder, &made, new)?;
        Ok(Receive { invoice, recipient: made.recipient_id, batch: made.batch_transfer_idx, transfer })
    }

    /// The index of the first script that was given to nobody.
    pub(super) fn next_index(&mut self) -> Result<u32, PortError> {
        let file = reveal::file(&self.folder);
        let bytes = fs::metadata(&file).map_err(nonsense)?.len();
        match self.next {
            Some((counted, next)) if counted == bytes => Ok(next),
            Some(_) | None => {
                let next = reveal::next(&file)?;
                self.next = Some((bytes, next));
                Ok(next)
            }
        }
    }

    /// Reading the whole file again for each new script would cost more with each of them.
    fn count_on(&mut self, recipient: &str) -> Result<(), PortError> {
        let Some((_, next)) = self.next else { return Ok(()) };
        let given = script_buf_from_recipient_id(recipient.to_owned()).map_err(nonsense)?;
        let expected = self.keys.scripts(Account::Colored, next..next.saturating_add(1));
        let is_next = expected.first().is_some_and(|derived| Some(&derived.script) == given.as_ref());
        let bytes = fs::metadata(reveal::file(&self.folder)).map_err(nonsense)?.len();
        if is_next {
            self.next = Some((bytes, next.saturating_add(1)));
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, recipient: &str, consignment: &[u8]) -> Result<Verdict, AssetError> {
        match self.verdict(recipient)? {
            None => {}
            Some(Verdict::NotYet) => {
                // The library has the consignment, and looks at the age of its history only when it is asked to.
                if let Some(failure) = self.refresh()? {
                    return Err(failure);
                }
                return Ok(self.verdict(recipient)?.unwrap_or(Verdict::NotYet));
            }
            Some(verdict) => return Ok(verdict),
        }
        let file = self.folder.join("consignment-to-look-at");
        fs::write(&file, consignment).map_err(misconfigured)?;
        let path = file.to_str().ok_or_else(|| misconfigured("assets.data_dir is no text"))?.to_owned();
        let online = self.online()?;
        let looked_at = self.wallet.provide_out_of_band_consignment(online, path, Vec::new());
        fs::remove_file(&file).map_err(misconfigured)?;
        match looked_at {
            Ok(_) => {}
            Err(error @ (Error::CannotProvideOutOfBandConsignment { .. } | Error::InvalidFilePath { .. })) => {
                return Ok(Verdict::Refused { reason: error.to_string() });
            }
            Err(error) => return Err(map::error(error)),
        }
        let verdict = self.verdict(recipient)?;
        Ok(verdict.unwrap_or_else(|| Verdict::Refused { reason: "it pays another recipient".to_owned() }))
    }

    /// What was said of this recipient's consignment; nothing while there was none.
    fn verdict(&mut self, recipient: &str) -> Result<Option<Verdict>, AssetError> {
        let all = self.all_transfers()?;
        let mine = all.into_iter().find(|(_, transfer)| transfer.recipient_id.as_deref() == Some(recipient));
        let Some((_, mine)) = mine else { return Err(Refusal::NoSuchTransfer.into()) };
        Ok(match mine.status {
            RgbTransferStatus::Initiated | RgbTransferStatus::WaitingCounterparty => None,
            RgbTransferStatus::WaitingSafeHeight => Some(Verdict::NotYet),
            RgbTransferStatus::WaitingBroadcast
            | RgbTransferStatus::WaitingConfirmations
            | RgbTransferStatus::Settled => Some(Verdict::Accepted),
            RgbTransferStatus::Failed => Some(Verdict::Refused { reason: "the invoice is no longer open".to_owned() }),
        })
    }

    pub(super) fn begin_transfer(&mut self, new: &NewTransfer) -> Result<BegunTransfer, AssetError> {
        let mut recipients: HashMap<String, Vec<RgbRecipient>> = HashMap::new();
        for recipient in &new.recipients {
            recipients.entry(recipient.asset.clone()).or_default().push(rgb_recipient(recipient));
        }
        let fee_rate = new.fee_rate.milli_sat_per_vb().div_ceil(1_000);
        self.forget_failed_sends(&new.recipients)?;
        let coins = self.coins()?;
        let online = self.online()?;
        let begun = self
            .wallet
            .send_begin(online, recipients, false, fee_rate, new.min_confirmations, new.expires_at, false)
            .map_err(map::error);
        let begun = match begun {
            Err(AssetError::Refused(Refusal::NoFreeCoin)) => return Err(self.why_no_coin(new)),
            begun => begun?,
        };
        let batch = begun.batch_transfer_idx.ok_or_else(|| nonsense("a transfer without a number"))?;
        let psbt = Psbt::from_str(&begun.psbt).map_err(nonsense)?;
        shared::refuse(&coins, &psbt, &new.recipients)?;
        Ok(BegunTransfer { psbt, batch })
    }

    /// The library tells transfers apart by their recipient, and would take the word of a payee for the first that it finds: one that was
    /// given up before would keep the next one from going out.
    fn forget_failed_sends(&mut self, recipients: &[Recipient]) -> Result<(), AssetError> {
        let mut failed: Vec<i32> = self
            .transfers()?
            .into_iter()
            .filter(|of| of.kind == TransferKind::Send && of.status == TransferStatus::Failed)
            .filter(|of| recipients.iter().any(|recipient| of.recipient.as_deref() == Some(recipient.id.as_str())))
            .map(|of| of.batch)
            .collect();
        failed.dedup();
        for batch in failed {
            self.wallet.delete_transfers(Some(batch), false).map_err(map::error)?;
        }
        Ok(())
    }

    /// The library runs out of coins both when they hold too little together and when none is free for what is left of the asset.
    fn why_no_coin(&mut self, new: &NewTransfer) -> AssetError {
        let all = match self.wallet.list_unspents(None, false, true).map_err(map::error) {
            Ok(all) => all,
            Err(error) => return error,
        };
        let colored = all.iter().filter(|coin| coin.utxo.colorable && coin.utxo.exists);
        let available = Sat::new(colored.map(|coin| coin.utxo.btc_amount).sum()).unwrap_or(Sat::MAX);
        let paid = new.recipients.iter().filter_map(|recipient| recipient.witness);
        let needed = Sat::sum(paid.chain(new.fee_rate.fee(LEAST_VBYTES))).unwrap_or(Sat::MAX);
        if needed > available { Refusal::BitcoinLow { needed, available }.into() } else { Refusal::NoFreeCoin.into() }
    }

    pub(super) fn end_transfer(&mut self, signed: &Psbt) -> Result<Vec<Consignment>, AssetError> {
        let txid = signed.unsigned_tx.compute_txid().to_string();
        let known = self.of_transaction(&txid)?;
        if known.is_empty() {
            return Err(Refusal::NoSuchTransfer.into());
        }
        if known.iter().any(|transfer| transfer.status == TransferStatus::Initiated) {
            let online = self.online()?;
            self.wallet.send_end(online, signed.to_string()).map_err(map::error)?;
        }
        let mut assets: Vec<String> = known.into_iter().filter_map(|transfer| transfer.asset).collect();
        assets.sort();
        assets.dedup();
        let read = |asset: String| {
            let path = self.wallet.get_send_consignment_path(&asset, &txid);
            Ok(Consignment { asset, bytes: fs::read(path).map_err(nonsense)? })
        };
        assets.into_iter().map(read).collect()
    }

    fn of_transaction(&mut self, txid: &str) -> Result<Vec<Transfer>, AssetError> {
        let all = self.transfers()?;
        Ok(all.into_iter().filter(|transfer| transfer.txid.is_some_and(|of| of.to_string() == txid)).collect())
    }

    pub(super) fn acknowledged(&mut self, recipient: &str) -> Result<(), AssetError> {
        let all = self.transfers()?;
        let mine = all.iter().find(|transfer| transfer.recipient.as_deref() == Some(recipient));
        let Some(mine) = mine else { return Err(Refusal::NoSuchTransfer.into()) };
        match mine.status {
            TransferStatus::WaitingConfirmations | TransferStatus::Settled => return Ok(()),
            TransferStatus::Initiated | TransferStatus::WaitingCounterparty | TransferStatus::Failed => {}
        }
        let online = self.online()?;
        self.wallet.provide_out_of_band_ack(online, recipient.to_owned()).map_err(map::error)?;
        Ok(())
    }

    pub(super) fn give_up(&mut self, batch: i32) -> Result<(), AssetError> {
        if self.transfers()?.iter().any(|of| of.batch == batch && of.status == TransferStatus::Failed) {
            return Ok(());
        }
        let online = self.online()?;
        self.wallet.fail_transfers(online, Some(batch), false, true).map_err(map::error)?;
        Ok(())
    }

    /// Answers what has kept a transfer from being looked at: what was found about the others is true all the same.
    pub(super) fn refresh(&mut self) -> Result<Option<AssetError>, AssetError> {
        let options = SyncOptions { keychain: SyncKeychain::Colored, strategy: SyncStrategy::FastSync };
        let online = self.online()?;
        self.wallet.sync(online, options).map_err(map::error)?;
        let looked_at = self.wallet.refresh(online, None, Vec::new(), false).map_err(map::error)?;
        Ok(looked_at.into_values().find_map(|one| one.failure).map(map::error))
    }

    pub(super) fn transfers(&mut self) -> Result<Vec<Transfer>, AssetError> {
        let mut all = Vec::new();
        for (asset, transfer) in self.all_transfers()? {
            all.push(map::transfer(transfer, asset)?);
        }
        all.sort_by_key(|transfer| transfer.index);
        Ok(all)
    }

    pub(super) fn export(&mut self, password: &Secret) -> Result<Vec<u8>, AssetError> {
        let place = self.folder.parent().ok_or_else(|| misconfigured("assets.data_dir is no folder"))?;
        let draft = Draft::within(place)?;
        let sealed = draft.sealed();
        let path = sealed.to_str().ok_or_else(|| misconfigured("assets.data_dir is no text"))?;
        self.wallet.backup(path, password.expose()).map_err(map::error)?;
        Ok(draft.read()?)
    }

    /// The library lists those of one asset, or those of which nobody knows the asset yet.
    fn all_transfers(&mut self) -> Result<Vec<(Option<String>, RgbTransfer)>, AssetError> {
        let mut all = Vec::new();
        for asset in self.assets()?.into_iter().map(|asset| Some(asset.id)).chain([None]) {
            let listed = self.wallet.list_transfers(asset.clone()).map_err(map::error)?;
            all.extend(listed.into_iter().map(|transfer| (asset.clone(), transfer)));
        }
        Ok(all)
    }
}

fn rgb_recipient(of: &Recipient) -> RgbRecipient {
    RgbRecipient {
        recipient_id: of.id.clone(),
        witness_data: of.witness.map(|sat| WitnessData { amount_sat: sat.to_u64(), blinding: None }),
        assignment: Assignment::Fungible(of.amount.base_units()),
        transport_endpoints: Vec::new(),
    }
}
