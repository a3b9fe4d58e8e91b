//! Whoever pays an offer has this gateway speak to a stranger of his choice: not without money, and not for what he may not spend.

use sluice::connectors::fake::Fault;
use sluice::flows::Code;
use sluice::flows::pay_invoice::{self, BeginPay};
use sluice::ports::lightning::{LightningNode, NewOffer};

use crate::harness::lightning::{paying, sat};
use crate::harness::rig::{Client, Rig, on_both};

on_both!(a_wallet_without_money_has_no_stranger_asked, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    let new = |amount| NewOffer { amount, description: "bait".to_owned(), expires_in: None };
    let with_amount = rig.lightning.shop.create_offer(&new(Some(sat(5)))).await.expect("an offer");
    let without = rig.lightning.shop.create_offer(&new(None)).await.expect("an offer");
    // Whoever is asked now does not answer: only what is decided before can be refused.
    rig.lightning.node.set_fault(Fault::Down);
    for (offer, amount) in [(&with_amount, None), (&without, None), (&without, Some(sat(7)))] {
        let wanted = BeginPay { amount, ..paying(offer, None) };
        let refused = pay_invoice::begin(&rig.flows, &client.keys, wanted, None).await.expect_err("there is no money");
        assert_eq!(refused.code(), Code::InsufficientFunds, "{refused}");
    }
    rig.lightning.node.set_fault(None);
    rig.audit().await;
});
