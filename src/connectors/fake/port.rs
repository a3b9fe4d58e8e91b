//! The port itself: each call reaches the node, does its work on the state at once, and may lose its answer.

use async_trait::async_trait;
use bitcoin::Address;
use bitcoin::secp256k1::PublicKey;
use tokio::sync::broadcast;

use super::state::{NodeState, Receive, State};
use super::{FakeNode, Fault, misconfigured, texts, unreachable};
use crate::ids::RequestId;
use crate::money::{Amount, FeeRate, Sat};
use crate::ports::PortError;
use crate::ports::lightning::{
    Asked, Capabilities, Channel, ClaimOutcome, CloseHow, Destination, Fetched, ForwardingFees, Incoming,
    LightningNode, Movement, NewChannel, NewInvoice, NewOffer, NodeBalance, NodeEvent, NodeInfo, OnchainOrder,
    OnchainQuote, Outgoing, PayOutcome, Payment, PaymentHash, PaymentId, Peer, Preimage, Quote, SentOnchain, Told,
};

impl FakeNode {
    /// What was done was done; who asked for it may not hear of it.
    fn answer<T>(&self, state: &State, answer: T) -> Result<T, PortError> {
        match state.nodes[self.index].fault {
            Some(Fault::AnswerLost) => Err(unreachable("the answer was lost")),
            Some(
                Fault::Down
                | Fault::Hang(_)
                | Fault::PaymentLost
                | Fault::PaymentOnlyInMemory
                | Fault::EventsLost
                | Fault::EventsTwice,
            )
            | None => Ok(answer),
        }
    }

    fn able(&self, state: &State, can: impl Fn(&Capabilities) -> bool) -> Result<(), PortError> {
        if can(&state.nodes[self.index].capabilities) { Ok(()) } else { Err(misconfigured("this node can't do that")) }
    }
}

#[async_trait]
impl LightningNode for FakeNode {
    fn capabilities(&self) -> Capabilities {
        self.lock().nodes[self.index].capabilities
    }

    async fn info(&self) -> Result<NodeInfo, PortError> {
        let state = self.reach().await?;
        Ok(NodeInfo {
            id: self.id,
            height: state.nodes[self.index].wallet.height.unwrap_or(state.height),
            ready: true,
            listens: vec![self.address()],
        })
    }

    fn events(&self) -> broadcast::Receiver<NodeEvent> {
        self.lock().nodes[self.index].events.subscribe()
    }

    async fn create_invoice(&self, invoice: &NewInvoice) -> Result<String, PortError> {
        let mut state = self.reach().await?;
        let made = self.register(&mut state, invoice, None).map_err(|error| misconfigured(&error))?;
        self.answer(&state, made)
    }

    async fn cancel_invoice(&self, hash: PaymentHash) -> Result<(), PortError> {
        let mut state = self.reach().await?;
        state.nodes[self.index].receives.entry(hash).or_default().cancelled = true;
        state.fail(self.index, hash);
        self.answer(&state, ())
    }

    async fn incoming(&self, hash: PaymentHash) -> Result<Incoming, PortError> {
        Ok(self.reach().await?.incoming(self.index, hash))
    }

    async fn held(&self) -> Result<Vec<PaymentHash>, PortError> {
        Ok(self.reach().await?.held_hashes(self.index))
    }

    async fn claim(&self, hash: PaymentHash, preimage: Option<Preimage>) -> Result<ClaimOutcome, PortError> {
        let mut state = self.reach().await?;
        let outcome = state.claim(self.index, hash, preimage).map_err(|error| misconfigured(&error))?;
        self.answer(&state, outcome)
    }

    async fn fail(&self, hash: PaymentHash) -> Result<(), PortError> {
        let mut state = self.reach().await?;
        state.fail(self.index, hash);
        self.answer(&state, ())
    }

    async fn pay(&self, payment: &Payment) -> PayOutcome {
        let unknown = |reason: &str| PayOutcome::Unknown { reason: reason.to_owned() };
        let mut state = match self.reach().await {
            Ok(state) => state,
            Err(error) => return unknown(&error.to_string()),
        };
        let NodeState { fault, sent, only_in_memory, .. } = &mut state.nodes[self.index];
        match fault {
            Some(Fault::PaymentLost) => return unknown("the answer was lost"),
            Some(Fault::PaymentOnlyInMemory) => {
                if sent.contains_key(&payment.id) {
                    return unknown("the answer was lost");
                }
                sent.insert(payment.id, PayOutcome::Pending);
                only_in_memory.push(payment.clone());
                return unknown("the answer was lost");
            }
            Some(Fault::Down | Fault::Hang(_) | Fault::AnswerLost | Fault::EventsLost | Fault::EventsTwice) | None => {}
        }
        let outcome = state.pay(self.index, payment);
        self.answer(&state, outcome).unwrap_or_else(|error| unknown(&error.to_string()))
    }

    async fn outgoing(&self, id: PaymentId, _hash: PaymentHash) -> Result<Outgoing, PortError> {
        let state = self.reach().await?;
        Ok(state.nodes[self.index].sent.get(&id).cloned().map_or(Outgoing::Nothing, Outgoing::Known))
    }

    async fn quote(&self, destination: &Destination, amount: Amount) -> Result<Quote, PortError> {
        let state = self.reach().await?;
        self.able(&state, |can| can.quotes)?;
        Ok(match state.quote(self.index, destination, amount.base_units()) {
            Ok(fee) => Quote::Fee(fee),
            Err(reason) => Quote::NoRoute { reason },
        })
    }

    async fn create_offer(&self, offer: &NewOffer) -> Result<String, PortError> {
        let mut state = self.reach().await?;
        self.able(&state, |can| can.bolt12)?;
        let made = texts::make_offer(&state, self.index, offer).map_err(|error| misconfigured(&error))?;
        state.nodes[self.index].offers.insert(made.clone());
        self.answer(&state, made)
    }

    async fn fetch_invoice(
        &self,
        offer: &str,
        amount: Option<Amount>,
        note: Option<&str>,
    ) -> Result<Fetched, PortError> {
        let mut state = self.reach().await?;
        self.able(&state, |can| can.bolt12)?;
        match texts::fetch(&mut state, self.index, offer, amount, note) {
            Err(reason) => Ok(Fetched::Refused { reason }),
            Ok(texts::Answered { payee, preimage, offer, fetched }) => {
                let receive = Receive { preimage: Some(preimage), offer: Some(offer), cancelled: false };
                state.nodes[payee].receives.insert(preimage.hash(), receive);
                self.answer(&state, fetched)
            }
        }
    }

    async fn balance(&self) -> Result<NodeBalance, PortError> {
        Ok(self.reach().await?.balance_of(self.index))
    }

    async fn told(&self) -> Result<Told, PortError> {
        Ok(self.reach().await?.told_of(self.index))
    }

    async fn movements(&self, after: i64, most: u32) -> Result<Vec<(i64, Movement)>, PortError> {
        let state = self.reach().await?;
        let all = (1..).zip(state.nodes[self.index].movements.iter().cloned());
        Ok(all.filter(|(number, _)| *number > after).take(most as usize).collect())
    }

    async fn channels(&self) -> Result<Vec<Channel>, PortError> {
        let state = self.reach().await?;
        self.able(&state, |can| can.channels)?;
        Ok(state.channels_of(self.index))
    }

    async fn open_channel(&self, channel: &NewChannel) -> Result<Asked<String>, PortError> {
        let mut state = self.reach().await?;
        self.able(&state, |can| can.channels)?;
        let asked = state.open(self.index, channel);
        self.answer(&state, asked)
    }

    async fn close_channel(&self, id: &str, how: CloseHow) -> Result<Asked<()>, PortError> {
        let mut state = self.reach().await?;
        self.able(&state, |can| can.channels)?;
        let asked = state.close(self.index, id, how);
        self.answer(&state, asked)
    }

    async fn set_fees(&self, id: &str, fees: ForwardingFees) -> Result<Asked<()>, PortError> {
        let mut state = self.reach().await?;
        self.able(&state, |can| can.channels)?;
        let asked = state.set_fees(self.index, id, fees);
        self.answer(&state, asked)
    }

    async fn peers(&self) -> Result<Vec<Peer>, PortError> {
        let state = self.reach().await?;
        self.able(&state, |can| can.channels)?;
        let others = (0..state.nodes.len()).filter(|other| *other != self.index);
        let known = others.filter(|other| {
            state.nodes[self.index].connected.contains(other) || state.are_connected(self.index, *other)
        });
        let peer = |other: usize| Peer {
            id: state.nodes[other].id,
            address: Some(super::controls::address_of(other)),
            connected: state.are_connected(self.index, other),
        };
        Ok(known.map(peer).collect())
    }

    async fn connect(&self, id: PublicKey, _address: &str) -> Result<Asked<()>, PortError> {
        let mut state = self.reach().await?;
        self.able(&state, |can| can.channels)?;
        let found = state.index_of(id).filter(|other| *other != self.index && state.is_up(*other));
        let asked = match found {
            None => Asked::Refused { reason: "nobody answers there".to_owned() },
            Some(other) => {
                state.nodes[self.index].connected.insert(other);
                Asked::Done(())
            }
        };
        self.answer(&state, asked)
    }

    async fn onchain_address(&self) -> Result<Address, PortError> {
        let mut state = self.reach().await?;
        self.able(&state, |can| can.onchain)?;
        Ok(state.fresh_address(self.index))
    }

    async fn onchain_quote(&self, to: &Address, amount: Sat, fee_rate: FeeRate) -> Result<OnchainQuote, PortError> {
        let state = self.reach().await?;
        self.able(&state, |can| can.onchain)?;
        let quoted = state.quote_coins(self.index, to, amount, fee_rate);
        self.answer(&state, quoted)
    }

    async fn onchain_send(&self, order: &OnchainOrder) -> Result<Asked<SentOnchain>, PortError> {
        let (door, answer) = {
            let mut state = self.reach().await?;
            self.able(&state, |can| can.onchain)?;
            let mut asked = state.send_coins(self.index, order);
            let node = &mut state.nodes[self.index];
            node.sends_asked += 1;
            if node.denies_sends {
                asked = Asked::Refused { reason: "it says that it has not that much".to_owned() };
            }
            (node.gates.pop_front(), self.answer(&state, asked))
        };
        if let Some(door) = door {
            // Whoever made the gate may have gone away: then it is open.
            let _nobody = door.reached.send(());
            drop(door.opened.await);
        }
        answer
    }

    async fn onchain_bump(&self, id: RequestId, fee_rate: FeeRate) -> Result<Asked<SentOnchain>, PortError> {
        let mut state = self.reach().await?;
        self.able(&state, |can| can.onchain)?;
        let asked = state.bump_coins(self.index, id, fee_rate);
        self.answer(&state, asked)
    }
}
