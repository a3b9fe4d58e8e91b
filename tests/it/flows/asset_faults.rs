//! What must not happen to assets: coins that stay set aside because an answer was lost, an invoice that is paid twice, and a transfer
//! that is given up although its transaction is out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bitcoin::Psbt;
use sluice::assets::fake::{FakeEngine, World};
use sluice::chain::fake::Reorged;
use sluice::domain::asset_receive::{self, AssetReceive};
use sluice::domain::onchain_send::{Door, State};
use sluice::flows::assets::accept::{self, PutOff};
use sluice::flows::assets::coins::{self, NewCoins};
use sluice::flows::assets::receive::{self, NewInvoice, Where};
use sluice::flows::assets::send::{self as asset_send, Fields, NewPayee, NewSend};
use sluice::flows::assets::{deliver, give_up, issue};
use sluice::flows::operator::{self, Stop};
use sluice::flows::send::{self, Begun};
use sluice::flows::values::HaltScope;
use sluice::flows::{Code, Error, audit};
use sluice::money::Amount;
use sluice::ports::PortError;
use sluice::ports::assets::{
    Asset, AssetEngine, AssetError, BegunTransfer, ColoredCoin, Consignment, NewAsset, NewReceive, NewTransfer,
    Receive, Refusal, RgbInvoice, Transfer, TransferStatus, Verdict, WalletKeys,
};
use sluice::ports::chain::ChainBackend;
use sluice::secret::Secret;
use sluice::store::requests;

use crate::harness::assets::side;
use crate::harness::rig::{Client, Rig, amount, on_both, unsigned};

/// An engine that does what it is asked, and whose next answer never arrives when a test says so. Its clock may be wrong.
struct Hushed {
    engine: Arc<FakeEngine>,
    hush: AtomicBool,
    clock_is_back: AtomicBool,
    /// It stumbles over what was signed, each time.
    stumbles: AtomicBool,
}

impl Hushed {
    fn answer<T>(&self, done: Result<T, AssetError>) -> Result<T, AssetError> {
        if !self.hush.swap(false, Ordering::SeqCst) {
            return done;
        }
        Err(PortError::Unreachable { service: "the engine of a test", reason: "its answer was lost".to_owned() }.into())
    }
}

#[async_trait]
impl AssetEngine for Hushed {
    fn read_invoice(&self, text: &str) -> Result<RgbInvoice, Refusal> {
        self.engine.read_invoice(text)
    }

    async fn learn_coins(&self, wallet: &WalletKeys, below: u32) -> Result<(), AssetError> {
        self.engine.learn_coins(wallet, below).await
    }

    async fn next_index(&self, wallet: &WalletKeys) -> Result<u32, AssetError> {
        self.engine.next_index(wallet).await
    }

    async fn coins(&self, wallet: &WalletKeys) -> Result<Vec<ColoredCoin>, AssetError> {
        self.engine.coins(wallet).await
    }

    async fn issue(&self, wallet: &WalletKeys, new: NewAsset) -> Result<Asset, AssetError> {
        self.engine.issue(wallet, new).await
    }

    async fn assets(&self, wallet: &WalletKeys) -> Result<Vec<Asset>, AssetError> {
        self.engine.assets(wallet).await
    }

    async fn receive(&self, wallet: &WalletKeys, new: NewReceive) -> Result<Receive, AssetError> {
        self.answer(self.engine.receive(wallet, new).await)
    }

    async fn accept(&self, wallet: &WalletKeys, recipient: &str, bytes: Vec<u8>) -> Result<Verdict, AssetError> {
        self.engine.accept(wallet, recipient, bytes).await
    }

    async fn begin_transfer(&self, wallet: &WalletKeys, new: NewTransfer) -> Result<BegunTransfer, AssetError> {
        self.answer(self.engine.begin_transfer(wallet, new).await)
    }

    async fn end_transfer(&self, wallet: &WalletKeys, signed: &Psbt) -> Result<Vec<Consignment>, AssetError> {
        if self.stumbles.load(Ordering::SeqCst) {
            return Err(Refusal::Broken.into());
        }
        self.engine.end_transfer(wallet, signed).await
    }

    async fn acknowledged(&self, wallet: &WalletKeys, recipient: &str) -> Result<(), AssetError> {
        self.engine.acknowledged(wallet, recipient).await
    }

    async fn give_up(&self, wallet: &WalletKeys, batch: i32) -> Result<(), AssetError> {
        self.engine.give_up(wallet, batch).await
    }

    async fn refresh(&self, wallet: &WalletKeys) -> Result<(), AssetError> {
        self.engine.refresh(wallet).await
    }

    async fn transfers(&self, wallet: &WalletKeys) -> Result<Vec<Transfer>, AssetError> {
        let mut all = self.engine.transfers(wallet).await?;
        if self.clock_is_back.load(Ordering::SeqCst) {
            all.iter_mut().for_each(|transfer| transfer.updated_at = 0);
        }
        Ok(all)
    }

    async fn export(&self, wallet: &WalletKeys, password: &Secret) -> Result<Vec<u8>, AssetError> {
        self.engine.export(wallet, password).await
    }

    async fn try_out(&self, wallet: &WalletKeys) -> Result<(), AssetError> {
        self.engine.try_out(wallet).await
    }
}

/// Two wallets with coins for assets; the first has issued 120 of one.
struct Desk {
    rig: Rig,
    engine: Arc<Hushed>,
    ann: Client,
    bob: Client,
    asset: String,
}

impl Desk {
    async fn open(rig: Rig) -> Self {
        let (ann, bob) = (Client::number(1), Client::number(2));
        let engine = FakeEngine::new(World::new(rig.clock.clone()), Arc::clone(&rig.chain) as _);
        let engine = Arc::new(Hushed {
            engine,
            hush: AtomicBool::new(false),
            clock_is_back: AtomicBool::new(false),
            stumbles: AtomicBool::new(false),
        });
        rig.flows.use_assets(side(Arc::clone(&engine) as _));
        for client in [&ann, &bob] {
            rig.funded(client, 100_000).await;
            let wanted =
                NewCoins { number: 4, size: amount(5_000), up_to: false, fee_rate: 2, expires_in_seconds: None };
            let begun = coins::begin(&rig.flows, &client.keys, wanted, None).await.expect("it begins");
            coins::end(&rig.flows, &client.keys.id(), &client.sign(&begun.psbt)).await.expect("it ends");
            rig.mine(1).await;
        }
        let gold = NewAsset {
            ticker: "GOLD".to_owned(),
            name: "Gold".to_owned(),
            precision: 0,
            amounts: vec![units(60), units(60)],
        };
        let asset = issue::nia(&rig.flows, &ann.keys, gold, None).await.expect("it is issued").id;
        Self { rig, engine, ann, bob, asset }
    }

    async fn invoice(&self) -> Result<String, Error> {
        let wanted = NewInvoice {
            at: Where::Blind,
            asset: None,
            amount: Some(units(60)),
            min_confirmations: Some(1),
            lifetime: std::time::Duration::from_secs(3_600),
            address: None,
        };
        let opened = receive::open(&self.rig.flows, &self.bob.keys, wanted, None).await?;
        Ok(opened.machine.invoice)
    }

    async fn begin(&self, invoice: &str) -> Result<Begun, Error> {
        let payee =
            NewPayee { invoice: invoice.to_owned(), asset: Some(self.asset.clone()), amount: None, witness: None };
        let wanted = NewSend {
            payees: vec![payee],
            fee_rate: 2,
            min_confirmations: Some(1),
            expires_in_seconds: Some(60),
            reference: None,
            door: Door::AssetSend,
            fields: Fields { invoice: "invoice", asset: "asset_id", amount: "amount", witness: "witness_data" },
        };
        asset_send::begin(&self.rig.flows, &self.ann.keys, wanted, None).await
    }

    async fn end(&self, begun: &Begun) {
        let signed = self.ann.sign(&begun.psbt);
        send::end(&self.rig.flows, &self.ann.keys.id(), Door::AssetSend, &signed).await.expect("it ends");
    }

    /// What the worker does, as long as it does anything new.
    async fn work(&self) {
        let mut put_off = PutOff::default();
        for _ in 0..3 {
            accept::look_at_what_was_brought(&self.rig.flows, &mut put_off).await.expect("it looks");
            deliver::deliver(&self.rig.flows).await.expect("it delivers");
        }
        accept::look_at_the_chain(&self.rig.flows).await.expect("it looks");
        self.rig.settle().await;
    }

    /// What was sent arrives, once.
    async fn comes_through(&self) {
        self.work().await;
        self.rig.mine(1).await;
        self.work().await;
        assert_eq!((self.settled(&self.ann).await, self.settled(&self.bob).await), (60, 60));
    }

    /// How far the invoice is that was made last.
    async fn receipt(&self) -> asset_receive::State {
        let mut conn = self.rig.flows.store().read().await.expect("a connection");
        let last: String = sqlx::query_scalar(
            "SELECT id FROM requests WHERE kind = 'asset_receive' ORDER BY created_at DESC, id DESC LIMIT 1",
        )
        .fetch_one(&mut *conn)
        .await
        .expect("there is one");
        let id = last.parse().expect("an id");
        let receipt = requests::load::<AssetReceive>(&mut conn, id).await.expect("the store answers");
        receipt.expect("it is there").machine.state
    }

    async fn waiting(&self, of: &Client) -> usize {
        let all = self.engine.transfers(&of.keys).await.expect("the engine answers");
        let waits = |status| matches!(status, TransferStatus::Initiated | TransferStatus::WaitingCounterparty);
        all.iter().filter(|transfer| waits(transfer.status)).count()
    }

    async fn settled(&self, of: &Client) -> u64 {
        let assets = self.engine.assets(&of.keys).await.expect("the engine answers");
        let mine = assets.iter().find(|asset| asset.id == self.asset);
        mine.map_or(0, |asset| asset.balance.settled.base_units())
    }

    fn lose_the_next_answer(&self) {
        self.engine.hush.store(true, Ordering::SeqCst);
    }
}

fn units(n: u64) -> Amount {
    Amount::from_asset_units(n).expect("an amount")
}

fn code<T: std::fmt::Debug>(done: Result<T, Error>) -> Code {
    done.expect_err("it is refused").code()
}

// The engine has done it, and nobody was told: what it set aside is free again with the next call.
on_both!(an_answer_that_is_lost_sets_nothing_aside, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    desk.lose_the_next_answer();
    assert_eq!(code(desk.invoice().await), Code::AssetsNotReady);
    assert_eq!(desk.waiting(&desk.bob).await, 1, "the engine has an invoice that nobody knows of");
    let invoice = desk.invoice().await.expect("it opens");
    assert_eq!(desk.waiting(&desk.bob).await, 1, "only the one that was answered");
    desk.lose_the_next_answer();
    assert_eq!(code(desk.begin(&invoice).await), Code::AssetsNotReady);
    let begun = desk.begin(&invoice).await.expect("the coins are free again");
    desk.end(&begun).await;
    desk.comes_through().await;
    desk.rig.audit().await;
});

// The halt is raised after its owner has signed: nothing of it goes out before the halt is cleared.
on_both!(a_transfer_that_was_signed_waits_while_its_wallet_is_stopped, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let invoice = desk.invoice().await.expect("it opens");
    let begun = desk.begin(&invoice).await.expect("it begins");
    desk.end(&begun).await;
    let (scope, name, by) = (HaltScope::Wallet(desk.ann.keys.id()), "operator".to_owned(), "key".to_owned());
    let stop = Stop { scope, name: name.clone(), reason: "ticket 9".to_owned() };
    operator::halt(&desk.rig.flows, stop, by.clone(), None).await.expect("it is raised");
    desk.work().await;
    let txid = unsigned(&begun.psbt).compute_txid();
    assert!(!desk.rig.chain.mempool_ids().contains(&txid), "it has gone out");
    operator::resume(&desk.rig.flows, name, None, by, None).await.expect("it is cleared");
    desk.comes_through().await;
    desk.rig.audit().await;
});

// Also without another call of its owner, by the next block.
on_both!(what_nobody_asks_for_again_is_tidied_up, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let invoice = desk.invoice().await.expect("it opens");
    desk.lose_the_next_answer();
    assert_eq!(code(desk.begin(&invoice).await), Code::AssetsNotReady);
    assert_eq!(desk.waiting(&desk.ann).await, 1);
    accept::tidy_up(&desk.rig.flows).await.expect("it tidies up");
    assert_eq!((desk.waiting(&desk.ann).await, desk.settled(&desk.ann).await), (0, 120));
    desk.rig.audit().await;
});

// The payee's word names the invoice and not the payment: with two of them under way it could let the wrong one out.
on_both!(an_invoice_is_paid_once, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let invoice = desk.invoice().await.expect("it opens");
    let begun = desk.begin(&invoice).await.expect("it begins");
    assert_eq!(code(desk.begin(&invoice).await), Code::PaymentInProgress);
    desk.end(&begun).await;
    assert_eq!(code(desk.begin(&invoice).await), Code::PaymentInProgress);
    desk.work().await;
    assert_eq!(code(desk.begin(&invoice).await), Code::AlreadyPaid);
    desk.rig.mine(1).await;
    desk.work().await;
    assert_eq!(code(desk.begin(&invoice).await), Code::AlreadyPaid);
    assert_eq!((desk.settled(&desk.ann).await, desk.settled(&desk.bob).await), (60, 60));
    desk.rig.audit().await;
});

// Before it is signed its owner takes it back: what it set aside is free, here at once and in the engine with the effect that tells it.
on_both!(what_is_taken_back_unsigned_is_free_again, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let invoice = desk.invoice().await.expect("it opens");
    let begun = desk.begin(&invoice).await.expect("it begins");
    let taken = sluice::flows::cancel::cancel(&desk.rig.flows, &desk.ann.keys.id(), begun.request).await;
    assert!(taken.expect("it is taken back"));
    assert_eq!(desk.rig.state(&desk.ann, begun.request).await, State::Expired);
    desk.rig.wait(60).await;
    assert_eq!(desk.waiting(&desk.ann).await, 0);
    let again = desk.begin(&invoice).await.expect("the coins are free");
    desk.end(&again).await;
    desk.comes_through().await;
    desk.rig.audit().await;
});

// A client that sends its transaction out by itself, in time or not: its asset arrives all the same.
on_both!(what_is_out_is_not_given_up, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let invoice = desk.invoice().await.expect("it opens");
    let begun = desk.begin(&invoice).await.expect("it begins");
    desk.rig.clock.advance(std::time::Duration::from_secs(61));
    sluice::flows::expiry::expire_overdue(&desk.rig.flows).await.expect("it expires");
    assert_eq!(desk.rig.state(&desk.ann, begun.request).await, State::Expired);
    desk.rig.offer(&desk.ann.signed_tx(&begun.psbt)).await;
    assert!(matches!(desk.rig.state(&desk.ann, begun.request).await, State::Broadcast { .. }));
    let batch = desk.engine.transfers(&desk.ann.keys).await.expect("the engine answers").last().expect("one").batch;
    let refused = give_up::batch(&desk.rig.flows, &desk.ann.keys, batch, false).await;
    assert_eq!(code(refused), Code::NotCancellable);
    // Until the effect is due that frees what has expired.
    desk.rig.wait(60).await;
    desk.comes_through().await;
    desk.rig.audit().await;
});

// The engine counts scripts that nobody has written down; coins for assets are made all the same.
on_both!(a_script_that_the_engine_gave_away_keeps_no_coins_from_being_made, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    desk.lose_the_next_answer();
    let wanted = NewInvoice {
        at: Where::Witness,
        asset: None,
        amount: None,
        min_confirmations: Some(1),
        lifetime: std::time::Duration::from_secs(3_600),
        address: None,
    };
    assert_eq!(code(receive::open(&desk.rig.flows, &desk.bob.keys, wanted, None).await), Code::AssetsNotReady);
    let wanted = NewCoins { number: 2, size: amount(5_000), up_to: false, fee_rate: 2, expires_in_seconds: None };
    let begun = coins::begin(&desk.rig.flows, &desk.bob.keys, wanted, None).await.expect("it begins");
    let made = coins::end(&desk.rig.flows, &desk.bob.keys.id(), &desk.bob.sign(&begun.psbt)).await.expect("it ends");
    assert_eq!(made, 2);
    desk.rig.mine(1).await;
    desk.rig.audit().await;
});

// A process died between the engine and the rows; what is made next is written by itself, and what was before it all the same.
on_both!(what_nobody_wrote_down_is_not_hidden_by_what_comes_next, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let (ticker, name) = ("SILVER".to_owned(), "Silver".to_owned());
    let silver = NewAsset { ticker, name, precision: 0, amounts: vec![units(7)] };
    desk.engine.issue(&desk.ann.keys, silver).await.expect("it is issued");
    let wanted = NewInvoice {
        at: Where::Witness,
        asset: None,
        amount: None,
        min_confirmations: Some(1),
        lifetime: std::time::Duration::from_secs(3_600),
        address: None,
    };
    receive::open(&desk.rig.flows, &desk.ann.keys, wanted, None).await.expect("it opens");
    let rows = sluice::flows::assets::transfers(&desk.rig.flows, &desk.ann.keys.id(), None, None, 100).await;
    let rows = rows.expect("the rows");
    assert_eq!(rows.iter().filter(|row| row.kind == "issuance").count(), 2, "{rows:?}");
    desk.rig.audit().await;
});

// The library panics over what was signed: that send has failed, and nothing else has.
on_both!(what_the_engine_stumbles_over_fails_and_frees_its_coins, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let invoice = desk.invoice().await.expect("it opens");
    let begun = desk.begin(&invoice).await.expect("it begins");
    desk.end(&begun).await;
    desk.engine.stumbles.store(true, Ordering::SeqCst);
    desk.work().await;
    assert!(matches!(desk.rig.state(&desk.ann, begun.request).await, State::Failed { .. }));
    assert_eq!(desk.waiting(&desk.ann).await, 0, "its coins are free");
    desk.engine.stumbles.store(false, Ordering::SeqCst);
    let again = desk.begin(&invoice).await.expect("it begins again");
    desk.end(&again).await;
    desk.comes_through().await;
    desk.rig.audit().await;
});

// The engine was put back to before it sent the transaction out, and nobody has looked at the mempool since.
on_both!(what_the_network_has_is_not_given_up, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let invoice = desk.invoice().await.expect("it opens");
    let begun = desk.begin(&invoice).await.expect("it begins");
    desk.end(&begun).await;
    let out = desk.rig.chain.broadcast(&desk.ann.signed_tx(&begun.psbt)).await;
    out.expect("the network takes it");
    let batch = desk.engine.transfers(&desk.ann.keys).await.expect("the engine answers").last().expect("one").batch;
    let refused = give_up::batch(&desk.rig.flows, &desk.ann.keys, batch, false).await;
    assert_eq!(code(refused), Code::NotCancellable);
    assert_eq!(desk.waiting(&desk.ann).await, 1, "its coins are not free");
    desk.comes_through().await;
    desk.rig.audit().await;
});

// A payer who sends out first and brings the consignment later: the block was read before anybody knew that it matters.
on_both!(a_block_that_was_read_before_is_found, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let invoice = desk.invoice().await.expect("it opens");
    let begun = desk.begin(&invoice).await.expect("it begins");
    desk.end(&begun).await;
    desk.rig.offer(&desk.ann.signed_tx(&begun.psbt)).await;
    desk.rig.mine(2).await;
    assert!(matches!(desk.receipt().await, asset_receive::State::Open));
    desk.work().await;
    let height = desk.rig.chain.tip().height - 1;
    let settled = desk.receipt().await;
    assert!(
        matches!(settled, asset_receive::State::Settled { height: Some(at), .. } if at == height),
        "{settled:?}, at {height}"
    );
    desk.rig.audit().await;
    desk.rig.chain.reorg(2, 3, Reorged::Gone).expect("the branch is valid");
    desk.rig.settle().await;
    let undone = desk.receipt().await;
    assert!(matches!(undone, asset_receive::State::Reorged(_)), "{undone:?}");
    desk.rig.audit().await;
});

// What has changed is seen although the machine's clock was set back.
on_both!(a_clock_that_was_set_back_hides_nothing, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let invoice = desk.invoice().await.expect("it opens");
    let begun = desk.begin(&invoice).await.expect("it begins");
    desk.end(&begun).await;
    desk.engine.clock_is_back.store(true, Ordering::SeqCst);
    desk.rig.clock.advance(std::time::Duration::from_secs(3_601));
    deliver::deliver(&desk.rig.flows).await.expect("it delivers");
    assert!(matches!(desk.rig.state(&desk.ann, begun.request).await, State::Failed { .. }));
    desk.rig.wait(60).await;
    desk.rig.audit().await;
    let later = desk.invoice().await.expect("it opens");
    let begun = desk.begin(&later).await.expect("the coins are free again");
    desk.end(&begun).await;
    desk.comes_through().await;
    desk.rig.audit().await;
});

on_both!(the_audit_finds_what_assets_are_said_to_be_otherwise, async |rig: Rig| {
    let desk = Desk::open(rig).await;
    let invoice = desk.invoice().await.expect("it opens");
    let begun = desk.begin(&invoice).await.expect("it begins");
    desk.end(&begun).await;
    desk.work().await;
    desk.rig.mine(1).await;
    desk.work().await;
    desk.invoice().await.expect("it opens");
    let batch = desk.engine.transfers(&desk.bob.keys).await.expect("the engine answers").last().expect("one").batch;
    assert!(give_up::batch(&desk.rig.flows, &desk.bob.keys, batch, false).await.expect("it is given up"));
    // Until nothing is left to be done for it.
    desk.rig.wait(60).await;
    desk.rig.audit().await;
    for (there, back, rule) in [
        (
            "UPDATE asset_transfers SET request_id = request_id || 'x' WHERE kind = 'send'",
            "UPDATE asset_transfers SET request_id = SUBSTR(request_id, 1, LENGTH(request_id) - 1) WHERE kind = 'send'",
            "transfers_of_assets_belong_to_their_requests",
        ),
        (
            "UPDATE asset_transfers SET request_id = request_id || 'x' WHERE kind = 'receive_blind'",
            "UPDATE asset_transfers SET request_id = SUBSTR(request_id, 1, LENGTH(request_id) - 1) WHERE kind = 'receive_blind'",
            "requests_for_assets_have_their_transfers",
        ),
        (
            "UPDATE asset_transfers SET status = 'waiting_counterparty' WHERE status = 'failed'",
            "UPDATE asset_transfers SET status = 'failed' WHERE status = 'waiting_counterparty'",
            "what_is_over_sets_no_asset_aside",
        ),
        (
            "UPDATE asset_transfers SET status = 'waiting_confirmations' WHERE status = 'settled' AND kind = 'receive_blind'",
            "UPDATE asset_transfers SET status = 'settled' WHERE status = 'waiting_confirmations'",
            "receipts_of_assets_stand_as_their_transfers_do",
        ),
        (
            "UPDATE asset_transfers SET height = height + 1000",
            "UPDATE asset_transfers SET height = height - 1000",
            "no_asset_is_in_a_block_above_the_cursor",
        ),
        (
            "INSERT INTO asset_invoices (address_request, request_id) VALUES ('a', 'b')",
            "DELETE FROM asset_invoices WHERE address_request = 'a'",
            "invoices_for_assets_belong_to_their_addresses",
        ),
        (
            "INSERT INTO asset_exports (id, wallet_id, unsigned_txid, message, created_at, expires_at, signed_tx, signed_at) \
             SELECT 'a', MIN(id), 'a', 'a', 1, 2, 'a', 2 FROM wallets",
            "DELETE FROM asset_exports WHERE id = 'a'",
            "exports_were_signed_in_time",
        ),
    ] {
        desk.rig.sql(there).await;
        let report = audit::audit(&desk.rig.flows).await.expect("the audit runs");
        assert!(report.drifts.iter().any(|drift| drift.rule == rule), "{there}: {:?}", report.drifts);
        desk.rig.sql(back).await;
    }
    desk.rig.audit().await;
});
