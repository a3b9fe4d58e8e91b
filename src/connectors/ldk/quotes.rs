//! Searching for ways where it keeps nobody waiting. In a network of many channels a search takes a tenth of a second and more: it runs
//! on threads of its own, a few at a time, and what many ask for is answered from what was found a moment ago.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::hashes::{Hash as _, sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::events::amount as amount_of;
use super::lease::die;
use super::node::{Node, unreachable};
use super::routes::Parsed;
use super::types::lock;
use crate::domain::lightning::Destination;
use crate::money::Amount;
use crate::ports::PortError;
use crate::ports::lightning::Quote;

/// Searches at a time: for payments, and as many for quotes, so that whoever only asks delays nobody who pays.
const SEARCHES: usize = 2;
/// Questions that wait for a search. Who comes then is told to come again.
const MOST_WAITING: usize = 64;
/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(5);
/// Answers that are kept at most.
const MOST_KEPT: usize = 4_096;
/// An answer holds for what has the same highest bits as what was asked: amounts that differ by three hundredths at most.
const BUCKET_BITS: u32 = 6;

pub struct Searches {
    payments: Arc<Semaphore>,
    quotes: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    known: Mutex<HashMap<Question, (Instant, Quote)>>,
}

type Question = (sha256::Hash, u64);

impl Default for Searches {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            payments: semaphore(SEARCHES),
            quotes: semaphore(SEARCHES),
            waiting: semaphore(MOST_WAITING + SEARCHES),
            known: Mutex::default(),
        }
    }
}

impl Searches {
    fn known(&self, question: &Question) -> Option<Quote> {
        let known = lock(&self.known);
        known.get(question).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, quote)| quote.clone())
    }

    fn remember(&self, question: Question, quote: &Quote) {
        let mut known = lock(&self.known);
        if known.len() >= MOST_KEPT {
            known.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if known.len() < MOST_KEPT {
            known.insert(question, (Instant::now(), quote.clone()));
        }
    }
}

impl Node {
    /// Runs a search for a payment beside everything else.
    pub async fn search<T: Send + 'static>(self: &Arc<Self>, work: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        // Nobody closes it, so there is always one in the end.
        let place = Arc::clone(&self.searches.payments).acquire_owned().await.ok();
        beside(Arc::clone(self), place, work).await
    }

    /// What the cheapest way costs now.
    pub async fn quote(self: &Arc<Self>, destination: &Destination, amount: Amount) -> Result<Quote, PortError> {
        let Ok(parsed) = Parsed::of(destination, self.network) else {
            return Ok(Quote::NoRoute { reason: "that can't be paid on this network".to_owned() });
        };
        let question = (parsed.payee(), bucket(amount));
        if let Some(quote) = self.searches.known(&question) {
            return Ok(quote);
        }
        let busy = || unreachable("too many ask for ways at the same time");
        let _waits = Arc::clone(&self.searches.waiting).try_acquire_owned().map_err(|_| busy())?;
        let place = Arc::clone(&self.searches.quotes).acquire_owned().await.map_err(|_| busy())?;
        // Whoever was before us may have asked the same.
        if let Some(quote) = self.searches.known(&question) {
            return Ok(quote);
        }
        let found = beside(Arc::clone(self), Some(place), move |node| node.route(&parsed, amount, None)).await;
        let quote = match found {
            Ok(route) => Quote::Fee(amount_of(route.get_total_fees())),
            Err(reason) => Quote::NoRoute { reason: reason.to_owned() },
        };
        self.searches.remember(question, &quote);
        Ok(quote)
    }
}

/// On a thread that serves nothing else. A panic of LDK ends the process, as it does in the loop.
async fn beside<T: Send + 'static>(
    node: Arc<Node>,
    place: Option<tokio::sync::OwnedSemaphorePermit>,
    work: impl FnOnce(&Node) -> T + Send + 'static,
) -> T {
    let task = tokio::task::spawn_blocking(move || {
        let _held_until_done = place;
        work(&node)
    });
    match task.await {
        Ok(found) => found,
        Err(error) if error.is_panic() => die("a search for a way panicked"),
        // The runtime is going away, and whoever waits with it.
        Err(_) => std::future::pending().await,
    }
}

/// The highest bits of an amount.
fn bucket(amount: Amount) -> u64 {
    let msat = amount.base_units();
    let low = (u64::BITS - msat.leading_zeros()).saturating_sub(BUCKET_BITS);
    msat.checked_shr(low).unwrap_or(0).checked_shl(low).unwrap_or(0)
}

impl Parsed {
    /// Who is paid, and over which hints: all that a way depends on, beside the amount.
    fn payee(&self) -> sha256::Hash {
        let text = match self {
            Self::Bolt11(invoice) => format!("{} {:?}", invoice.get_payee_pub_key(), invoice.route_hints()),
            Self::Bolt12(invoice) => format!("{} {:?}", invoice.signing_pubkey(), invoice.payment_paths()),
            Self::Keysend { to, .. } => format!("{to} keysend"),
        };
        sha256::Hash::hash(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_that_differ_by_a_little_are_one_question() {
        let at = |msat| bucket(Amount::from_msat(msat).unwrap());
        assert_eq!((at(0), at(1), at(15)), (0, 1, 15));
        assert_eq!(at(1_000_000), at(1_010_000));
        assert_ne!(at(1_000_000), at(1_200_000));
        assert_ne!(at(1_000), at(1_000_000));
    }

    #[test]
    fn an_answer_is_good_for_some_seconds() {
        let searches = Searches::default();
        let question = (sha256::Hash::hash(b"payee"), 1);
        searches.remember(question, &Quote::Fee(Amount::ZERO));
        assert_eq!(searches.known(&question), Some(Quote::Fee(Amount::ZERO)));
        lock(&searches.known).get_mut(&question).unwrap().0 -= FRESH;
        assert_eq!(searches.known(&question), None);
    }
}
