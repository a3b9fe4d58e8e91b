//! Walks every machine through every pair of state and event: writes docs/STATES.md, and tests what holds for all of them.

mod assets;
mod rails;
mod receives;

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use proptest::prelude::*;

use self::assets::{asset_receive_event, asset_receive_events, asset_receives};
use self::rails::{credit_event, credit_events, credits, withdraw_event, withdraw_events, withdraws};
use self::receives::{receive_event, receive_events, receive_in, receives};
use super::address::{self, ReceiveAddress};
use super::asset_receive::AssetReceive;
use super::credit::Credit;
use super::deposit::{self, Deposit};
use super::lightning::{Destination, Paid, PayFailure, Preimage};
use super::onchain_send::{self as send, Door, OnchainSend, Role, Terms};
use super::pay::{self, Pay};
use super::receive::{self, Rail, Receive};
use super::withdraw::{self, Withdraw};
use super::{Effect, Leases, Machine};
use crate::clock::Timestamp;
use crate::ids::{RequestId, WalletId};
use crate::ledger::model::{Balance, Model};
use crate::ledger::{Account, Kind};
use crate::money::{Amount, AssetId, FeeRate, Sat};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/STATES.md");
/// Set it to write the file instead of comparing with it: `make states`.
const WRITE: &str = "SLUICE_WRITE_STATES";

const NOW: Timestamp = Timestamp::from_millis(0);
const HEIGHT: u32 = 100;

fn txid(n: u8) -> Txid {
    Txid::from_byte_array([n; 32])
}

/// The version that stands for the request, another version of it, and two strangers.
fn ours() -> Txid {
    txid(1)
}
fn other() -> Txid {
    txid(2)
}
fn stranger() -> Txid {
    txid(3)
}

// --- every state and every event, by hand; the matches below do not compile when one is new ---

fn addresses() -> Vec<ReceiveAddress> {
    let of = |state| ReceiveAddress { address: "bcrt1".to_owned(), index: 0, state };
    vec![
        of(address::State::Open),
        of(address::State::Used),
        of(address::State::UsedBefore),
        of(address::State::Expired),
    ]
}

fn address_events() -> Vec<address::Event> {
    let outpoint = OutPoint::null();
    vec![address::Event::Paid { outpoint }, address::Event::FoundUsed { outpoint }, address::Event::TimedOut]
}

fn address_event(event: &address::Event) -> &'static str {
    match event {
        address::Event::Paid { .. } => "an output pays it",
        address::Event::FoundUsed { .. } => "the first scan finds a coin on it",
        address::Event::TimedOut => "its time is over",
    }
}

fn deposits() -> Vec<Deposit> {
    use deposit::State::{Confirmed, Evicted, Mined, Own, Reorged, Replaced, Seen};
    let of = |state| Deposit {
        outpoint: OutPoint::null(),
        address: "bcrt1".to_owned(),
        amount: Sat::literal(1),
        address_request: None,
        state,
    };
    let (mined, confirmed) = (Mined { height: HEIGHT }, Confirmed { height: HEIGHT });
    [Seen, mined, confirmed, Replaced { by: stranger() }, Evicted, Reorged, Own].map(of).into()
}

fn deposit_events() -> Vec<deposit::Event> {
    use deposit::Event::{Deep, Evicted, FromItself, InMempool, Mined, Replaced, Revived, Unmined};
    let mined = |height| Mined { height };
    vec![
        InMempool,
        mined(HEIGHT),
        mined(HEIGHT + 1),
        Deep,
        Unmined,
        Replaced { by: stranger() },
        Evicted,
        Revived,
        FromItself,
    ]
}

fn deposit_event(event: &deposit::Event) -> &'static str {
    match event {
        deposit::Event::InMempool => "its transaction is in the mempool",
        deposit::Event::Mined { height: HEIGHT } => "is in a block",
        deposit::Event::Mined { .. } => "is in another block",
        deposit::Event::Deep => "the block is deep enough",
        deposit::Event::Unmined => "the block is disconnected",
        deposit::Event::Replaced { .. } => "another transaction spent its inputs",
        deposit::Event::Evicted => "it left the mempool",
        deposit::Event::Revived => "it is offered again",
        deposit::Event::FromItself => "it spends a coin of the wallet",
    }
}

fn send_in(state: send::State) -> OnchainSend {
    let terms = Terms {
        to: "bcrt1".to_owned(),
        amount_requested: Sat::literal(1_000),
        amount_sent: Sat::literal(1_000),
        fee_rate: FeeRate::from_sat_per_vb(1),
        deduct_fee: false,
        door: Door::OnchainSend,
        assets: None,
    };
    OnchainSend { terms, state }
}

fn sends() -> Vec<OnchainSend> {
    use send::State::{
        AwaitingSignature, Broadcast, Cancelled, Confirmed, Conflicted, Expired, Failed, Seen, WaitingAck,
    };
    let states = [
        AwaitingSignature,
        WaitingAck { txid: ours() },
        Broadcast { txid: ours(), last_error: None },
        Seen { txid: ours(), height: HEIGHT, role: Role::Original },
        Confirmed { txid: ours(), height: HEIGHT },
        Cancelled { txid: ours(), height: HEIGHT },
        Conflicted { by: stranger(), signed: Some(ours()) },
        Expired,
        Failed { reason: "refused".to_owned() },
    ];
    states.map(send_in).into()
}

/// States that show as the same word and act differently; they are walked, and left out of the page.
fn more_sends() -> Vec<OnchainSend> {
    use send::State::{Broadcast, Conflicted, Seen};
    let states = [
        Broadcast { txid: ours(), last_error: Some("too low a fee".to_owned()) },
        Seen { txid: ours(), height: HEIGHT, role: Role::Bump },
        Seen { txid: other(), height: HEIGHT, role: Role::Cancel },
        Conflicted { by: stranger(), signed: None },
    ];
    let of_assets = sends().into_iter().map(assets::moving_an_asset);
    sends().into_iter().chain(states.map(send_in)).chain(of_assets).collect()
}

fn send_events() -> Vec<send::Event> {
    use send::Event as E;
    vec![
        E::Signed { txid: ours() },
        E::Signed { txid: other() },
        E::TimedOut,
        E::Acknowledged { txid: ours() },
        E::GivenUp { reason: "refused".to_owned() },
        E::Accepted { txid: ours() },
        E::Refused { txid: ours(), reason: "no".to_owned() },
        E::InMempool { txid: ours() },
        E::InMempool { txid: other() },
        E::Mined { txid: ours(), height: HEIGHT, role: Role::Original },
        E::Mined { txid: other(), height: HEIGHT, role: Role::Bump },
        E::Deep,
        E::Unmined { txid: ours() },
        E::InputSpent { by: stranger(), mined: false },
        E::InputSpent { by: stranger(), mined: true },
        E::InputFreed { by: stranger() },
    ]
}

fn send_event(event: &send::Event) -> &'static str {
    use send::Event as E;
    let is_ours = |txid: &Txid| *txid == ours();
    match event {
        E::Signed { txid } if is_ours(txid) => "`end` took a signature",
        E::Signed { .. } => "`end` took a signature of another version",
        E::TimedOut => "the time for the signature is over, or its owner takes it back",
        E::Acknowledged { .. } => "every payee of an asset has accepted",
        E::GivenUp { .. } => "a payee refused, or time was over, or the owner gave it up",
        E::Accepted { .. } => "a node took it",
        E::Refused { .. } => "a node refused it",
        E::InMempool { txid } if is_ours(txid) => "it is in the mempool",
        E::InMempool { .. } => "another version is in the mempool",
        E::Mined { txid, .. } if is_ours(txid) => "it is in a block",
        E::Mined { .. } => "another version is in a block",
        E::Deep => "the block is deep enough",
        E::Unmined { .. } => "the block is disconnected",
        E::InputSpent { mined: false, .. } => "a stranger's transaction spends its coin, in the mempool",
        E::InputSpent { mined: true, .. } => "the same, in a block",
        E::InputFreed { .. } => "the stranger's transaction is gone",
    }
}

const PREIMAGE: Preimage = Preimage([7; 32]);

fn msat(n: u64) -> Amount {
    Amount::from_msat(n).unwrap()
}

fn request() -> RequestId {
    RequestId::from_bytes([5; 16])
}

fn wallet() -> WalletId {
    WalletId::of_triple("a", "b", "c")
}

fn pay_in(state: pay::State) -> Pay {
    let terms = pay::Terms {
        destination: Destination::Bolt11("lnbcrt1".to_owned()),
        hash: PREIMAGE.hash(),
        amount: msat(1_000),
        max_fee: msat(10),
        estimate: None,
        payee: None,
        book: None,
        door: pay::Door::PayInvoice,
        key: None,
    };
    Pay { request: request(), wallet: wallet(), terms, state }
}

fn pays() -> Vec<Pay> {
    use pay::State::{AwaitingSignature, Expired, Failed, Paying, Succeeded};
    let succeeded = Succeeded { fee: msat(3), preimage: PREIMAGE, by: Rail::Channel };
    [AwaitingSignature, Paying, succeeded, Failed { why: PayFailure::NoLiquidity }, Expired].map(pay_in).into()
}

fn pay_events() -> Vec<pay::Event> {
    use pay::Event::{Booked, Failed, Paid as HasPaid, Signed, TimedOut};
    let paid = |fee| HasPaid(Paid { preimage: PREIMAGE, fee: msat(fee) });
    let failed = Failed { why: PayFailure::NoLiquidity };
    vec![Signed, Booked { preimage: PREIMAGE }, TimedOut, paid(3), paid(11), failed]
}

fn pay_event(event: &pay::Event) -> &'static str {
    use pay::Event as E;
    match event {
        E::Signed => "`end` took the consent",
        E::Booked { .. } => "`end` took it, and the books have paid",
        E::TimedOut => "the time for the consent is over, or its owner takes it back",
        E::Paid(paid) if paid.fee <= msat(10) => "the node has paid",
        E::Paid(_) => "the node has paid more than it was allowed",
        E::Failed { .. } => "the node says that it failed for good",
    }
}

// --- the page ---

fn cell<M: Machine>(before: &M, event: &M::Event) -> String {
    let Ok(transition) = before.apply(event, NOW) else { return "✗".to_owned() };
    if transition.is_unchanged(before) {
        return "·".to_owned();
    }
    let same_state = transition.next.state() == before.state();
    let mut text = if same_state { format!("{}*", before.state()) } else { transition.next.state().to_owned() };
    for effect in &transition.effects {
        text.push_str(match effect {
            Effect::Broadcast(_) => ", offered",
            Effect::Pay(_) => ", the node pays",
            Effect::Claim(_) => ", the node claims",
            Effect::Withdraw(_) => ", the node sends",
            Effect::GiveUp(_) => ", the engine gives up",
        });
    }
    for posting in &transition.postings {
        text.push_str(match (&posting.kind, &posting.debit) {
            (Kind::Hold, _) => ", held",
            (Kind::Post, Account::Suspense) => ", loss posted",
            (Kind::Post, Account::Wallet(_)) => ", taken back",
            (Kind::Post, Account::Debt(_)) => ", the rest owed",
            (Kind::Post, _) => ", credited",
            (Kind::PostHold(_), _) => ", debited",
            (Kind::VoidHold(_), _) => ", released",
        });
    }
    match transition.leases {
        Leases::Keep => {}
        Leases::Release => text.push_str(", coins released"),
        Leases::Retake => text.push_str(", coins retaken"),
    }
    text
}

fn table<M: Machine>(states: &[M], events: &[M::Event], name: impl Fn(&M::Event) -> &'static str) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let heads = states.iter().map(|state| {
        let mark = if state.is_open() { "" } else { " †" };
        format!("{}{mark}", state.state())
    });
    let mut text = row(std::iter::once("event".to_owned()).chain(heads).collect());
    text.push_str(&row(vec!["---".to_owned(); states.len() + 1]));
    for event in events {
        let cells = states.iter().map(|state| cell(state, event));
        text.push_str(&row(std::iter::once(name(event).to_owned()).chain(cells).collect()));
    }
    text
}

fn page() -> String {
    format!(
        "# States\n\n\
         Generated from the machines in `src/domain` by `make states`; a test compares. A column is a state, a row an event, a cell what \
         the request becomes.\n\n\
         `·` nothing changes · `✗` can't happen: a fault of this program if it does · `*` the same state with other details · `†` nothing is \
         waited for any more, though the chain may still move it · *offered*: the signed transaction is offered to the network.\n\n\
         ## {send_kind}: a send of the client's own coins\n\n\
         The version that stands for the request is \"it\"; a bump or a cancellation is another version. What ends a send that was signed is a \
         block, never a node's word. No state is left out of the watch: a version that shows up moves even an expired or conflicted send.\n\n\
         A send of assets is kept back until its payees accept: `end` makes it `waiting_ack`.\n\n\
         {sends}\n\
         When a block with a cancelling version is deep enough, the send is `cancelled` instead of `confirmed`.\n\n\
         ## {deposit_kind}: an output to an address that was handed out\n\n{deposits}\n\
         ## {credit_kind}: an output to an address of the node that is bound to a wallet\n\n{credits}\n\
         ## {address_kind}: an address that was handed out\n\n{addresses}\n\
         An address is watched for ever, in every state.\n\n\
         ## {receive_kind}: an invoice\n\n\
         What the node has claimed is credited whatever became of the invoice meanwhile, and once. What it holds for an invoice that takes \
         no money goes back.\n\n{receives}\n\
         ## {pay_kind}: a payment over Lightning\n\n\
         The amount and the ceiling are held from the begin on. Only a definite word of the node ends a payment that was consented to; not \
         knowing moves nothing. What a node pays beyond the ceiling, or after it called the payment failed, is posted to suspense and stops \
         payouts.\n\n{pays}\n\
         ## {withdraw_kind}: off-chain money that leaves on-chain\n\n\
         The amount and the ceiling are held from the begin on; the wallet pays what it really cost. What the node has been given can't be \
         taken back; what it has put off can.\n\n{withdraws}\n\
         ## {asset_receive_kind}: an invoice for an asset\n\n\
         Its payer sends only what was accepted. The engine counts blocks by itself and keeps its word when one is undone; the gateway does \
         not.\n\n{asset_receives}",
        asset_receive_kind = AssetReceive::KIND,
        asset_receives = table(&asset_receives(), &asset_receive_events(), asset_receive_event),
        withdraw_kind = Withdraw::KIND,
        withdraws = table(&withdraws(), &withdraw_events(), withdraw_event),
        receive_kind = Receive::KIND,
        pay_kind = Pay::KIND,
        receives = table(&receives(), &receive_events(), receive_event),
        pays = table(&pays(), &pay_events(), pay_event),
        send_kind = OnchainSend::KIND,
        deposit_kind = Deposit::KIND,
        credit_kind = Credit::KIND,
        credits = table(&credits(), &credit_events(), credit_event),
        address_kind = ReceiveAddress::KIND,
        sends = table(&sends(), &send_events(), send_event),
        deposits = table(&deposits(), &deposit_events(), deposit_event),
        addresses = table(&addresses(), &address_events(), address_event),
    )
}

#[test]
fn the_page_of_states_is_what_the_machines_do() {
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(FILE, page()).unwrap();
    }
    let committed = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(committed == page(), "docs/STATES.md is not what the machines do; if the change is meant: make states");
}

// --- what holds for every machine ---

fn repeats_change_nothing<M: Machine + std::fmt::Debug>(states: &[M], events: &[M::Event])
where
    M::Event: std::fmt::Debug,
{
    for state in states {
        for event in events {
            let Ok(first) = state.apply(event, NOW) else { continue };
            let again = first.next.apply(event, NOW);
            let changes_nothing = again.is_ok_and(|again| again.is_unchanged(&first.next));
            assert!(changes_nothing, "{event:?} changes {:?}, which it led to from {state:?}", first.next);
        }
    }
}

#[test]
fn an_event_that_is_told_twice_changes_nothing_the_second_time() {
    repeats_change_nothing(&addresses(), &address_events());
    repeats_change_nothing(&deposits(), &deposit_events());
    repeats_change_nothing(&credits(), &credit_events());
    repeats_change_nothing(&more_sends(), &send_events());
    repeats_change_nothing(&pays(), &pay_events());
    // Each taking is an attempt of its own: that is what it is for.
    let mut told = withdraw_events();
    told.retain(|event| !matches!(event, withdraw::Event::Taken { .. }));
    repeats_change_nothing(&withdraws(), &told);
    repeats_change_nothing(&asset_receives(), &asset_receive_events());
}

fn is_read_back<M: Machine + std::fmt::Debug>(states: &[M]) {
    for state in states {
        let text = serde_json::to_string(state).unwrap();
        assert_eq!(serde_json::from_str::<M>(&text).unwrap(), *state, "{text}");
    }
}

#[test]
fn every_state_is_read_back_as_it_was_written() {
    is_read_back(&addresses());
    is_read_back(&deposits());
    is_read_back(&credits());
    is_read_back(&more_sends());
    is_read_back(&receives());
    is_read_back(&pays());
    is_read_back(&withdraws());
    is_read_back(&asset_receives());
}

#[test]
fn a_version_that_shows_up_takes_back_every_failure() {
    use send::State as S;
    for failed in more_sends() {
        let has_failed = match failed.state {
            S::Conflicted { .. } | S::Expired | S::Failed { .. } => true,
            S::AwaitingSignature
            | S::WaitingAck { .. }
            | S::Broadcast { .. }
            | S::Seen { .. }
            | S::Confirmed { .. }
            | S::Cancelled { .. } => false,
        };
        if !has_failed {
            continue;
        }
        for version in [ours(), other()] {
            let seen = failed.apply(&send::Event::InMempool { txid: version }, NOW).unwrap();
            assert_eq!(
                (seen.next.state(), seen.next.txid(), seen.leases),
                ("broadcast", Some(version), Leases::Retake)
            );
            let mined = send::Event::Mined { txid: version, height: HEIGHT, role: Role::Original };
            let mined = failed.apply(&mined, NOW).unwrap();
            assert_eq!((mined.next.state(), mined.next.txid()), ("seen", Some(version)));
        }
    }
}

/// Told in any order, nothing panics; what is refused is a value, and a repeat changes nothing wherever it comes.
fn survives<M: Machine>(mut machine: M, told: &[M::Event]) -> Result<(), TestCaseError> {
    for event in told {
        let Ok(transition) = machine.apply(event, NOW) else { continue };
        machine = transition.next;
        let again = machine.apply(event, NOW).map_err(|illegal| TestCaseError::fail(illegal.to_string()))?;
        prop_assert!(again.is_unchanged(&machine));
    }
    Ok(())
}

fn any_of<T: Clone + std::fmt::Debug + 'static>(events: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(proptest::sample::select(events), 0..40)
}

proptest! {
    #[test]
    fn a_send_survives_any_history(told in any_of(send_events())) {
        survives(send_in(send::State::AwaitingSignature), &told)?;
    }

    #[test]
    fn a_send_of_assets_survives_any_history(told in any_of(send_events())) {
        survives(assets::moving_an_asset(send_in(send::State::AwaitingSignature)), &told)?;
    }

    #[test]
    fn an_assets_receipt_survives_any_history(told in any_of(asset_receive_events())) {
        survives(asset_receives().swap_remove(0), &told)?;
    }

    #[test]
    fn a_deposit_survives_any_history(told in any_of(deposit_events()), start in 0usize..6) {
        survives(deposits().swap_remove(start), &told)?;
    }

    #[test]
    fn an_address_survives_any_history(told in any_of(address_events())) {
        survives(addresses().swap_remove(0), &told)?;
    }

    /// Whatever the node says, how often and in which order: what was credited is what the state says, and never twice.
    #[test]
    fn a_receive_is_credited_once(told in any_of(receive_events())) {
        let mut machine = receive_in(receive::State::Open);
        let mut credited = Vec::new();
        for event in &told {
            if let Ok(transition) = machine.apply(event, NOW) {
                credited.extend(transition.postings);
                machine = transition.next;
            }
        }
        let (surplus, credited): (Vec<_>, Vec<_>) = credited.into_iter().partition(|posting| posting.credit == Account::Suspense);
        let by_channel = matches!(machine.state, receive::State::Settled { by: Rail::Channel, .. });
        prop_assert_eq!(credited.len(), usize::from(by_channel));
        // What the node has claimed in all is what was credited and what waits in suspense.
        let claimed = told.iter().filter_map(|event| {
            if let receive::Event::Claimed { amount } = event { Some(amount.base_units()) } else { None }
        });
        let booked = surplus.iter().chain(&credited).map(|posting| posting.money.amount.base_units()).sum::<u64>();
        prop_assert_eq!(booked, claimed.max().unwrap_or(0));
    }

    /// The same for a payment, with the model of the ledger as the judge: the hold is closed once, and no wallet pays beyond it.
    #[test]
    fn a_payment_is_debited_once(told in any_of(pay_events())) {
        let mut machine = pay_in(pay::State::AwaitingSignature);
        let mut ledger = Model::default();
        let funds = (Account::Wallet(wallet()), AssetId::Btc);
        ledger.balances.insert(funds.clone(), Balance { total: 2_000, held: 0 });
        let mut postings = machine.begin().unwrap().postings;
        for event in &told {
            for posting in postings.drain(..) {
                prop_assert_eq!(ledger.apply(&posting), Ok(()));
            }
            if let Ok(transition) = machine.apply(event, NOW) {
                postings = transition.postings;
                machine = transition.next;
            }
        }
        for posting in postings {
            prop_assert_eq!(ledger.apply(&posting), Ok(()));
        }
        let balance = ledger.balances[&funds];
        let is_waiting = machine.is_open();
        prop_assert_eq!(balance.held, if is_waiting { 1_010 } else { 0 });
        let spent = 2_000 - balance.total;
        let may_have_paid = match machine.state {
            pay::State::Succeeded { .. } => (1_000..=1_010).contains(&spent) || spent == 0,
            pay::State::AwaitingSignature | pay::State::Paying | pay::State::Failed { .. } | pay::State::Expired => {
                spent == 0
            }
        };
        prop_assert!(may_have_paid, "{} spent in {:?}", spent, machine.state);
    }

    /// Once a signature was taken, only a block of it or of a conflict ends a send.
    #[test]
    fn no_word_of_a_node_ends_a_signed_send(told in any_of(send_events())) {
        let mut machine = send_in(send::State::Broadcast { txid: ours(), last_error: None });
        let is_of_a_block = |event: &send::Event| match event {
            send::Event::Mined { .. } | send::Event::InputSpent { mined: true, .. } => true,
            send::Event::Signed { .. }
            | send::Event::TimedOut
            | send::Event::Acknowledged { .. }
            | send::Event::GivenUp { .. }
            | send::Event::Accepted { .. }
            | send::Event::Refused { .. }
            | send::Event::InMempool { .. }
            | send::Event::Deep
            | send::Event::Unmined { .. }
            | send::Event::InputSpent { mined: false, .. }
            | send::Event::InputFreed { .. } => false,
        };
        for event in told.iter().filter(|event| !is_of_a_block(event)) {
            if let Ok(transition) = machine.apply(event, NOW) {
                machine = transition.next;
            }
            prop_assert_eq!(machine.state(), "broadcast");
        }
    }
}
