//! The ledger's rules in the smallest form that is still all of them. Tests run the store beside it and compare.

use std::collections::BTreeMap;

use super::{Account, HoldId, Kind, Posting, PostingId};
use crate::money::AssetId;

/// Why the ledger does not take a posting. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("an amount of zero moves nothing")]
    Zero,
    #[error("debit and credit are the same account")]
    SameAccount,
    #[error("the account does not have that much available")]
    Insufficient,
    #[error("there is no such open hold")]
    NoSuchHold,
    /// It is of another request, account or asset, or of another amount.
    #[error("the posting does not fit the hold it closes")]
    HoldMismatch,
    #[error("a posting of this id exists")]
    Duplicate,
    #[error("the balance would not fit")]
    Overflow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Credits less debits.
    pub total: i64,
    /// Set aside by open holds.
    pub held: i64,
}

impl Balance {
    /// The balance after so much was added to it and so much more is held.
    ///
    /// # Errors
    /// When it would not fit, or would leave less than is held on an account where that is guarded.
    pub fn shifted(self, total: i64, held: i64, guarded: bool) -> Result<Self, Refusal> {
        let total = self.total.checked_add(total).ok_or(Refusal::Overflow)?;
        let held = self.held.checked_add(held).ok_or(Refusal::Overflow)?;
        if guarded && total < held { Err(Refusal::Insufficient) } else { Ok(Self { total, held }) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub balances: BTreeMap<(Account, AssetId), Balance>,
    holds: BTreeMap<HoldId, Posting>,
    seen: std::collections::BTreeSet<PostingId>,
}

impl Model {
    /// # Errors
    /// When the posting breaks a rule; the model is as it was.
    pub fn apply(&mut self, posting: &Posting) -> Result<(), Refusal> {
        let mut after = self.clone();
        after.try_apply(posting)?;
        *self = after;
        Ok(())
    }

    /// Applies the postings of one transition, all or none, and then has wallets that owe pay with what these gave them.
    ///
    /// # Errors
    /// When one of the postings breaks a rule; the model is as it was.
    pub fn apply_all(&mut self, postings: &[Posting]) -> Result<(), Refusal> {
        let mut after = self.clone();
        postings.iter().try_for_each(|posting| after.try_apply(posting))?;
        postings.iter().try_for_each(|posting| after.collect_debt(posting))?;
        *self = after;
        Ok(())
    }

    /// Debts are in bitcoin. A wallet that owes has nothing free: what comes to it, and what a hold of it lets go of, is not its own. What
    /// one wallet pays another uses up its hold.
    fn collect_debt(&mut self, posting: &Posting) -> Result<(), Refusal> {
        let gained = match (&posting.kind, &posting.debit, &posting.credit) {
            (Kind::Post | Kind::PostHold(_), _, Account::Wallet(wallet))
            | (Kind::PostHold(_) | Kind::VoidHold(_), Account::Wallet(wallet), _) => wallet,
            _ => return Ok(()),
        };
        if posting.money.asset != AssetId::Btc {
            return Ok(());
        }
        let key = |account: Account| (account, AssetId::Btc);
        let of = |account: &(Account, AssetId)| self.balances.get(account).copied().unwrap_or_default();
        let (own, debt) = (key(Account::Wallet(gained.clone())), key(Account::Debt(gained.clone())));
        let (before, owed) = (of(&own), of(&debt));
        let free = before.total.checked_sub(before.held).ok_or(Refusal::Overflow)?;
        let paid = owed.total.checked_neg().ok_or(Refusal::Overflow)?.min(free);
        if paid > 0 {
            let given = paid.checked_neg().ok_or(Refusal::Overflow)?;
            self.balances.insert(own, before.shifted(given, 0, true)?);
            self.balances.insert(debt, owed.shifted(paid, 0, false)?);
        }
        Ok(())
    }

    fn try_apply(&mut self, posting: &Posting) -> Result<(), Refusal> {
        check_form(posting)?;
        if !self.seen.insert(posting.id.clone()) {
            return Err(Refusal::Duplicate);
        }
        let amount = posting.money.amount.as_bigint();
        match &posting.kind {
            Kind::Post => self.shift(posting, amount, 0),
            Kind::Hold => {
                self.holds.insert(posting.id.clone(), posting.clone());
                self.shift(posting, 0, amount)
            }
            Kind::PostHold(hold) => {
                let held = self.take_hold(hold, posting)?;
                if held < amount {
                    return Err(Refusal::HoldMismatch);
                }
                self.shift(posting, amount, held.checked_neg().ok_or(Refusal::Overflow)?)
            }
            Kind::VoidHold(hold) => {
                let held = self.take_hold(hold, posting)?;
                if held != amount {
                    return Err(Refusal::HoldMismatch);
                }
                self.shift(posting, 0, held.checked_neg().ok_or(Refusal::Overflow)?)
            }
        }
    }

    fn take_hold(&mut self, hold: &HoldId, posting: &Posting) -> Result<i64, Refusal> {
        let held = self.holds.remove(hold).ok_or(Refusal::NoSuchHold)?;
        let same =
            held.request == posting.request && held.debit == posting.debit && held.money.asset == posting.money.asset;
        if same { Ok(held.money.amount.as_bigint()) } else { Err(Refusal::HoldMismatch) }
    }

    fn shift(&mut self, posting: &Posting, moved: i64, held: i64) -> Result<(), Refusal> {
        let asset = &posting.money.asset;
        let debit = self.balances.entry((posting.debit.clone(), asset.clone())).or_default();
        let taken = moved.checked_neg().ok_or(Refusal::Overflow)?;
        *debit = debit.shifted(taken, held, posting.debit.is_guarded())?;
        let credit = self.balances.entry((posting.credit.clone(), asset.clone())).or_default();
        *credit = credit.shifted(moved, 0, posting.credit.is_guarded())?;
        Ok(())
    }
}

/// What can be wrong with a posting before any balance is looked at.
///
/// # Errors
/// When the amount is zero or the two accounts are one.
pub fn check_form(posting: &Posting) -> Result<(), Refusal> {
    if posting.money.amount.is_zero() {
        return Err(Refusal::Zero);
    }
    if posting.debit == posting.credit {
        return Err(Refusal::SameAccount);
    }
    Ok(())
}
