//! The ledger in the database and the ledger's model, given the same things to do.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use sluice::ids::{RequestId, WalletId};
use sluice::ledger::model::{Balance, Model, Refusal};
use sluice::ledger::{Account, Kind, Posting, PostingId};
use sluice::money::{Amount, AssetId, Money};
use sluice::store::{Store, StoreError, ledger};

use super::{Db, Open, Posts, on_both, until};

const CASES: u32 = 96;
const STEPS: usize = 40;
const CLIENTS: usize = 64;
const MODEST: i64 = 500;
/// Where the debts stand among a case's accounts.
const DEBTS: usize = 4;

on_both!(
    one_of_many_clients_gets_the_last_of_a_balance,
    one_of_many_clients_closes_a_hold,
    transfers_in_both_directions_add_up,
    what_a_hold_lets_go_of_pays_what_is_owed,
    what_does_not_fit_is_refused_and_nothing_is_kept,
);

// ---- random operations beside the model ----

/// One posting, by numbers that `Case` gives a meaning.
#[derive(Clone, Debug)]
struct Op {
    kind: u8,
    debit: usize,
    credit: usize,
    asset: usize,
    amount: i64,
    /// Where it stands in its request: few numbers, so that some come twice.
    step: u8,
    request: usize,
    /// Which earlier posting a close names.
    hold: usize,
    /// Whether a close takes everything but its credit account from what it closes.
    fitting: bool,
}

fn amounts() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => 1i64..200,
        2 => Just(0),
        1 => Just(i64::MAX),
        1 => Just(i64::MAX - 1),
        1 => Just(i64::MAX / 2 + 1),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let debits = prop_oneof![1 => 0..DEBTS, 1 => DEBTS..DEBTS + 2];
    let assets = prop_oneof![3 => Just(0usize), 1 => Just(1usize)];
    let numbers = (0u8..7, debits, 0usize..6, assets, amounts());
    (numbers, 0u8..120, 0usize..2, any::<prop::sample::Index>(), prop::bool::weighted(0.7)).prop_map(
        |((kind, debit, credit, asset, amount), step, request, hold, fitting)| Op {
            kind,
            debit,
            credit,
            asset,
            amount,
            step,
            request,
            hold: hold.index(STEPS),
            fitting,
        },
    )
}

/// Wallets, an asset and requests that no other case has; and bitcoin and the operator's accounts, which all have.
struct Case {
    accounts: [Account; 6],
    assets: [AssetId; 2],
    requests: [RequestId; 2],
}

impl Case {
    async fn new(db: &Db, wallet: &WalletId, number: usize) -> Self {
        let [one, other] = ["one", "other"].map(|name| WalletId::of_triple(name, &number.to_string(), ""));
        Self {
            accounts: [
                Account::Wallet(one.clone()),
                Account::Wallet(other.clone()),
                Account::Channels,
                Account::Capital,
                Account::Debt(one),
                Account::Debt(other),
            ],
            assets: [AssetId::Btc, AssetId::Rgb(format!("rgb:{number}"))],
            requests: [db.request(wallet).await, db.request(wallet).await],
        }
    }

    fn posting(&self, op: &Op, tried: &[Posting], model: &Model) -> Posting {
        let request = self.requests[op.request];
        // Of bitcoin no case may take all that fits on an account: the next ones need it.
        let most = if self.assets[op.asset] == AssetId::Btc { MODEST } else { i64::MAX };
        let mut posting = Posting {
            id: PostingId::of(request, &op.step.to_string()),
            request,
            debit: self.accounts[op.debit].clone(),
            // A debt is paid by what collects it, and by nobody else.
            credit: self.accounts[op.credit % DEBTS].clone(),
            money: Money { asset: self.assets[op.asset].clone(), amount: amount(op.amount.min(most)) },
            kind: Kind::Post,
        };
        let closes = tried.get(op.hold % tried.len().max(1)).filter(|_| op.kind > 3);
        if let Some(hold) = closes.filter(|_| op.fitting) {
            posting = Posting { debit: hold.debit.clone(), money: hold.money.clone(), ..posting };
            posting.id = PostingId::of(hold.request, &op.step.to_string());
            posting.request = hold.request;
        }
        let hold = closes.map_or_else(|| PostingId::of(request, "never"), |hold| hold.id.clone());
        posting.kind = match op.kind {
            0 | 1 => Kind::Post,
            2 | 3 => Kind::Hold,
            4 | 5 => Kind::PostHold(hold),
            _ => Kind::VoidHold(hold),
        };
        owed_last(posting, model)
    }

    /// What other cases have left on the accounts that all of them have.
    async fn model(&self, store: &Store) -> Model {
        let mut conn = store.read().await.expect("a connection");
        let mut model = Model::default();
        for account in &self.accounts {
            let stored = ledger::balance(&mut conn, account, &AssetId::Btc).await.expect("a balance");
            model.balances.insert((account.clone(), AssetId::Btc), stored);
        }
        model
    }

    /// What the wallets owe.
    fn debts(&self, model: &Model) -> i128 {
        let owed =
            |account: &Account| model.balances.get(&(account.clone(), AssetId::Btc)).map_or(0, |debt| debt.total);
        self.accounts[DEBTS..].iter().map(|account| -i128::from(owed(account))).sum()
    }

    async fn compare(&self, store: &Store, model: &Model) -> Result<(), TestCaseError> {
        let mut conn = store.read().await.expect("a connection");
        for account in &self.accounts {
            for asset in &self.assets {
                let stored = ledger::balance(&mut conn, account, asset).await.expect("a balance");
                let wanted = model.balances.get(&(account.clone(), asset.clone())).copied().unwrap_or_default();
                prop_assert_eq!(stored, wanted, "{} {}", account, asset);
            }
        }
        Ok(())
    }
}

/// A wallet owes only what it has not got: as where a credit is taken back, what it has free is taken first.
fn owed_last(posting: Posting, model: &Model) -> Posting {
    let Account::Debt(wallet) = &posting.debit else { return posting };
    if posting.money.asset != AssetId::Btc {
        return posting;
    }
    let own = Account::Wallet(wallet.clone());
    let has = model.balances.get(&(own.clone(), AssetId::Btc)).copied().unwrap_or_default();
    let posting = Posting { kind: Kind::Post, ..posting };
    match has.total - has.held {
        0 => posting,
        free => Posting { debit: own, money: Money { amount: amount(free), ..posting.money }, ..posting },
    }
}

fn amount(units: i64) -> Amount {
    Amount::from_bigint(units).expect("not negative")
}

/// Every step is a transition of one posting or of two, which are taken together or not at all.
async fn run_case(
    db: &Db,
    wallet: &WalletId,
    number: usize,
    steps: Vec<Vec<Op>>,
    collected: &Cell<usize>,
) -> Result<(), TestCaseError> {
    let case = Case::new(db, wallet, number).await;
    let mut model = case.model(&db.store).await;
    let mut tried: Vec<Posting> = Vec::new();
    for step in steps {
        let mut meanwhile = model.clone();
        let first = case.posting(&step[0], &tried, &meanwhile);
        let request = first.request;
        let mut postings = vec![first];
        for op in &step[1..] {
            // A refusal is told below.
            meanwhile.apply(&postings[0]).ok();
            let next = case.posting(op, &tried, &meanwhile);
            // A transition posts for its own request only.
            postings.extend((next.request == request).then_some(next));
        }
        let mut after = model.clone();
        let wanted = after.apply_all(&postings);
        collected.set(collected.get() + usize::from(case.debts(&after) < case.debts(&model)));
        let got = db.store.write(Posts { request, postings: postings.clone() }).await;
        match (&wanted, &got) {
            (Ok(()), Ok(())) => model = after,
            (Err(wanted), Err(StoreError::Ledger(got))) => prop_assert_eq!(got, wanted, "{:?}", postings),
            _ => prop_assert!(false, "{postings:?}: the model says {wanted:?}, the store {got:?}"),
        }
        tried.extend(postings);
        case.compare(&db.store, &model).await?;
    }
    db.audit().await;
    Ok(())
}

fn compare_with_the_model(runtime: &tokio::runtime::Runtime, db: &Db) {
    let wallet = runtime.block_on(db.wallet(1));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (number, collected) = (Cell::new(0), Cell::new(0));
    let steps = prop::collection::vec(prop::collection::vec(op(), 1..=2), 1..STEPS);
    let outcome = runner.run(&steps, |steps| {
        number.set(number.get() + 1);
        runtime.block_on(run_case(db, &wallet, number.get(), steps, &collected))
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, steps)) => panic!("{reason}\nafter the steps {steps:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    assert!(collected.get() * 3 > CASES as usize, "debts were collected {} times only", collected.get());
}

#[test]
fn random_operations_do_what_the_model_does_on_sqlite() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let db = runtime.block_on(Db::sqlite());
    compare_with_the_model(&runtime, &db);
}

#[test]
fn random_operations_do_what_the_model_does_on_postgres() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Some(db) = runtime.block_on(Db::postgres()) {
        compare_with_the_model(&runtime, &db);
    }
}

/// A wallet that holds 600 of 1,000 comes to owe 300; then the hold is freed, or less is used of it.
async fn what_a_hold_lets_go_of_pays_what_is_owed(db: Db) {
    for (number, (used, left, owed)) in [(0, (None, 300, 0)), (1, (Some(100), 200, 0)), (2, (Some(450), 0, -150))] {
        let wallet = db.wallet(number).await;
        let request = db.request(&wallet).await;
        let (own, debt) = (Account::Wallet(wallet.clone()), Account::Debt(wallet));
        let mut model = Model::default();
        let post = |step, debit: &Account, credit: &Account, msat| btc(request, step, debit, credit, msat, Kind::Post);
        let hold = btc(request, "hold", &own, &Account::Channels, 600, Kind::Hold);
        let close = match used {
            None => btc(request, "end", &own, &Account::Channels, 600, Kind::VoidHold(hold.id.clone())),
            Some(msat) => btc(request, "end", &own, &Account::Channels, msat, Kind::PostHold(hold.id.clone())),
        };
        let taken_back =
            vec![post("reversal", &own, &Account::Crossing, 400), post("debt", &debt, &Account::Crossing, 300)];
        let steps = [vec![post("fund", &Account::Crossing, &own, 1_000)], vec![hold], taken_back, vec![close]];
        for postings in steps {
            model.apply_all(&postings).expect("the rules are kept");
            db.store.write(Posts { request, postings }).await.expect("the same");
            for account in [&own, &debt] {
                let wanted = model.balances.get(&(account.clone(), AssetId::Btc)).copied().unwrap_or_default();
                assert_eq!(balance(&db.store, account).await, wanted, "{account}");
            }
        }
        let ends = [Balance { total: left, held: 0 }, Balance { total: owed, held: 0 }];
        assert_eq!([balance(&db.store, &own).await, balance(&db.store, &debt).await], ends);
        db.audit().await;
    }
}

// ---- races ----

fn btc(request: RequestId, step: &str, debit: &Account, credit: &Account, msat: i64, kind: Kind) -> Posting {
    let money = Money::btc(amount(msat));
    Posting { id: PostingId::of(request, step), request, debit: debit.clone(), credit: credit.clone(), money, kind }
}

fn open_with(wallet: &WalletId, posting: impl Fn(RequestId) -> Posting) -> Open {
    let open = Open::new(wallet);
    Open { postings: vec![posting(open.id)], ..open }
}

async fn fund(db: &Db, wallet: &WalletId, msat: i64) {
    let to = Account::Wallet(wallet.clone());
    let post = |request| btc(request, "fund", &Account::Capital, &to, msat, Kind::Post);
    db.store.write(open_with(wallet, post)).await.expect("capital may go below zero");
}

async fn balance(store: &Store, account: &Account) -> Balance {
    let mut conn = store.read().await.expect("a connection");
    ledger::balance(&mut conn, account, &AssetId::Btc).await.expect("a balance")
}

/// Sixty-four clients, on as many stores as there are, want 1,000 of 1,999; half of them hold, half of them post.
async fn spend_at_once(db: &Db, stores: &[Store]) {
    let wallet = db.wallet(1).await;
    let account = Account::Wallet(wallet.clone());
    fund(db, &wallet, 1_999).await;
    let spends = (0..CLIENTS).map(|client| {
        let kind = if client % 2 == 0 { Kind::Post } else { Kind::Hold };
        let spend =
            open_with(&wallet, |request| btc(request, "spend", &account, &Account::InFlight, 1_000, kind.clone()));
        let store = stores[client % stores.len()].clone();
        tokio::spawn(async move { store.write(spend).await })
    });
    let mut won = 0;
    for outcome in futures::future::join_all(spends).await {
        match outcome.expect("no client panics") {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, StoreError::Ledger(Refusal::Insufficient)), "{error}"),
        }
    }
    assert_eq!(won, 1, "exactly one client was paid");
    let Balance { total, held } = balance(&db.store, &account).await;
    assert_eq!(total - held, 999);
    db.audit().await;
}

async fn one_of_many_clients_gets_the_last_of_a_balance(db: Db) {
    let store = db.store.clone();
    spend_at_once(&db, &[store]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_clients_of_two_gateways_gets_the_last_of_a_balance() {
    let Some(db) = Db::postgres().await else { return };
    let stores = [db.store.clone(), db.second_store().await];
    spend_at_once(&db, &stores).await;
}

async fn one_of_many_clients_closes_a_hold(db: Db) {
    let wallet = db.wallet(1).await;
    let account = Account::Wallet(wallet.clone());
    fund(&db, &wallet, 1_000).await;
    let request = db.request(&wallet).await;
    let hold = btc(request, "hold", &account, &Account::InFlight, 1_000, Kind::Hold);
    db.store.write(Posts { request, postings: vec![hold.clone()] }).await.expect("the balance suffices");
    let closes = (0..CLIENTS).map(|client| {
        let kind = if client % 2 == 0 { Kind::PostHold(hold.id.clone()) } else { Kind::VoidHold(hold.id.clone()) };
        let close = btc(request, &format!("close-{client}"), &account, &Account::InFlight, 1_000, kind);
        let store = db.store.clone();
        tokio::spawn(async move { store.write(Posts { request, postings: vec![close] }).await })
    });
    let outcomes = futures::future::join_all(closes).await;
    let won = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Ok(())))).count();
    assert_eq!(won, 1, "a hold is closed once");
    assert_eq!(balance(&db.store, &account).await.held, 0);
    db.audit().await;
}

/// Two wallets pay each other at the same time: nobody waits for a database that finds them in each other's way.
async fn transfers_in_both_directions_add_up(db: Db) {
    const EACH: usize = 32;
    let (a, b) = (db.wallet(1).await, db.wallet(2).await);
    fund(&db, &a, 1_000).await;
    fund(&db, &b, 1_000).await;
    let transfers = (0..2 * EACH).map(|number| {
        let (from, to) = if number % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let (debit, credit) = (Account::Wallet(from.clone()), Account::Wallet(to.clone()));
        let open = Open::new(from);
        let fee = btc(open.id, "fee", &debit, &Account::Capital, 1, Kind::Post);
        let moved = btc(open.id, "move", &debit, &credit, 10, Kind::Post);
        let store = db.store.clone();
        tokio::spawn(async move { store.write(Open { postings: vec![fee, moved], ..open }).await })
    });
    for outcome in futures::future::join_all(transfers).await {
        outcome.expect("no client panics").expect("every transfer is covered");
    }
    for wallet in [a, b] {
        assert_eq!(balance(&db.store, &Account::Wallet(wallet)).await.total, 1_000 - 32);
    }
    db.audit().await;
    assert_eq!(deadlocks(&db).await, 0, "locks are taken in one order");
}

/// How often this test's database had to break a deadlock. It counts them when a connection ends.
async fn deadlocks(db: &Db) -> i64 {
    if db.store.engine() == sluice::store::Engine::Sqlite {
        return 0;
    }
    db.store.close().await;
    let url = db.config.url.expose().to_owned();
    let ask = move |query: &'static str| {
        let url = url.clone();
        async move {
            let mut conn = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.expect("PostgreSQL answers");
            sqlx::query_scalar::<_, i64>(query).fetch_one(&mut conn).await.expect("it counts")
        }
    };
    let others = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    until("the other connections end", || async { ask(others).await == 0 }).await;
    ask("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await
}

async fn what_does_not_fit_is_refused_and_nothing_is_kept(db: Db) {
    let wallet = db.wallet(1).await;
    let account = Account::Wallet(wallet.clone());
    fund(&db, &wallet, i64::MAX).await;
    let request = db.request(&wallet).await;
    let all = |step: &str, debit: &Account, credit: &Account, kind: Kind| Posts {
        request,
        postings: vec![btc(request, step, debit, credit, i64::MAX, kind)],
    };
    let twice_credited = db.store.write(all("credit", &Account::Suspense, &account, Kind::Post)).await;
    let far_below_zero = db.store.write(all("debit", &Account::Capital, &Account::Suspense, Kind::Post)).await;
    db.store.write(all("hold", &account, &Account::InFlight, Kind::Hold)).await.expect("all of it can be held");
    let twice_held = db.store.write(all("again", &account, &Account::InFlight, Kind::Hold)).await;
    for refused in [twice_credited, far_below_zero, twice_held] {
        assert!(matches!(refused, Err(StoreError::Ledger(Refusal::Overflow))), "{refused:?}");
    }
    let all_of_it = Balance { total: i64::MAX, held: i64::MAX };
    assert_eq!(balance(&db.store, &account).await, all_of_it);
    assert_eq!(balance(&db.store, &Account::Suspense).await, Balance::default());
    assert_eq!(db.count("SELECT COUNT(*) FROM postings").await, 2, "the funding and the hold");
    db.audit().await;
}
