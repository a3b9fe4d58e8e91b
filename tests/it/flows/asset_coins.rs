//! Coins for assets: what a signer gets to see of the transaction that makes them.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::Psbt;
use sluice::assets::fake::{FakeEngine, World};
use sluice::flows::assets::coins::{self, NewCoins};
use sluice_signer::{Account, Owner};

use crate::harness::assets::side;
use crate::harness::rig::{Client, Rig, amount, on_both};

on_both!(a_signer_sees_that_all_of_it_stays, async |rig: Rig| {
    let owner = Client::number(1);
    rig.funded(&owner, 100_000).await;
    rig.flows.use_assets(side(FakeEngine::new(World::new(rig.clock.clone()), Arc::clone(&rig.chain) as _)));
    let wanted = NewCoins { number: 3, size: amount(2_000), up_to: false, fee_rate: 2, expires_in_seconds: None };
    let first = coins::begin(&rig.flows, &owner.keys, wanted.clone(), None).await.expect("it begins");
    let seen = owner.signer.describe(&Psbt::from_str(&first.psbt).expect("a PSBT"));
    assert_eq!((seen.leaves.to_sat(), seen.refusals.len()), (0, 0), "{seen}");
    let mut colored: Vec<(u64, u32)> = Vec::new();
    let mut change = 0;
    for output in &seen.outputs {
        match output.owner {
            Owner::Own(key) if key.account == Account::Colored => colored.push((output.amount.to_sat(), key.index)),
            Owner::Own(_) => change += 1,
            Owner::Other | Owner::Unknown => panic!("{seen}"),
        }
    }
    colored.sort_unstable();
    assert_eq!((colored, change), (vec![(2_000, 0), (2_000, 1), (2_000, 2)], 1));
    assert_eq!(coins::end(&rig.flows, &owner.keys.id(), &owner.sign(&first.psbt)).await.expect("it ends"), 3);
    rig.mine(1).await;
    rig.audit().await;
});
