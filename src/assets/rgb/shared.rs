//! Coins with several assets. New ones are not made: the library signs for one that it then can't send apart. Those that are there can be
//! sent together.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Psbt;

use crate::money::Amount;
use crate::ports::assets::{ColoredCoin, Recipient, Refusal};

/// Refuses what would leave an asset behind that is on a coin of the transaction, or put two on one.
pub(super) fn refuse(coins: &[ColoredCoin], psbt: &Psbt, recipients: &[Recipient]) -> Result<(), Refusal> {
    let inputs: BTreeSet<_> = psbt.unsigned_tx.input.iter().map(|input| input.previous_output).collect();
    let spent: Vec<&ColoredCoin> = coins.iter().filter(|coin| inputs.contains(&coin.outpoint)).collect();
    let sent = sums(recipients.iter().map(|recipient| (recipient.asset.as_str(), recipient.amount)));
    let there = sums(spent.iter().flat_map(|coin| on(coin)));
    let left_out: Vec<String> =
        there.keys().filter(|asset| !sent.contains_key(*asset)).map(|asset| (*asset).to_owned()).collect();
    if !left_out.is_empty() {
        return Err(Refusal::SharedCoin { assets: left_out });
    }
    let is_left = |asset: &&&str| there.get(**asset) != sent.get(**asset);
    let left: Vec<String> = there.keys().filter(is_left).map(|asset| (*asset).to_owned()).collect();
    let is_shared = |coin: &&&ColoredCoin| sums(on(coin)).len() > 1;
    if left.len() > 1 && !spent.iter().any(|coin| is_shared(&coin)) {
        return Err(Refusal::WouldShareCoin { assets: left });
    }
    Ok(())
}

fn on(coin: &ColoredCoin) -> impl Iterator<Item = (&str, Amount)> {
    coin.allocations.iter().filter_map(|on| on.asset.as_deref().map(|asset| (asset, on.amount)))
}

fn sums<'a>(of: impl Iterator<Item = (&'a str, Amount)>) -> BTreeMap<&'a str, Amount> {
    let mut sums = BTreeMap::new();
    for (asset, amount) in of {
        let sum: &mut Amount = sums.entry(asset).or_insert(Amount::ZERO);
        *sum = sum.checked_add(amount).unwrap_or(Amount::MAX);
    }
    sums
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{OutPoint, Transaction, TxIn, Txid, absolute};

    use super::*;
    use crate::ports::assets::Allocation;

    fn outpoint(vout: u32) -> OutPoint {
        OutPoint { txid: Txid::all_zeros(), vout }
    }

    fn coin(vout: u32, on: &[(&str, u64)]) -> ColoredCoin {
        let allocation = |(asset, units): &(&str, u64)| Allocation {
            asset: Some((*asset).to_owned()),
            amount: Amount::from_asset_units(*units).unwrap(),
            settled: true,
        };
        ColoredCoin { outpoint: outpoint(vout), allocations: on.iter().map(allocation).collect(), promised: 0 }
    }

    fn spends(coins: &[u32]) -> Psbt {
        let input = |vout: &u32| TxIn { previous_output: outpoint(*vout), ..TxIn::default() };
        let input = coins.iter().map(input).collect();
        let tx = Transaction { version: Version::TWO, lock_time: absolute::LockTime::ZERO, input, output: Vec::new() };
        Psbt::from_unsigned_tx(tx).unwrap()
    }

    fn to(asset: &str, units: u64) -> Recipient {
        let amount = Amount::from_asset_units(units).unwrap();
        Recipient { asset: asset.to_owned(), id: "somebody".to_owned(), amount, witness: None }
    }

    #[test]
    fn one_of_two_assets_on_a_coin_is_not_sent_apart() {
        let coins = [coin(0, &[("gold", 10), ("silver", 5)]), coin(1, &[("gold", 3)])];
        let alone = refuse(&coins, &spends(&[0]), &[to("gold", 4)]).unwrap_err();
        assert_eq!(alone, Refusal::SharedCoin { assets: vec!["silver".to_owned()] });
        refuse(&coins, &spends(&[0]), &[to("gold", 4), to("silver", 1)]).unwrap();
        refuse(&coins, &spends(&[1]), &[to("gold", 2)]).unwrap();
    }

    #[test]
    fn what_is_left_of_two_assets_is_not_put_on_one_coin() {
        let coins = [coin(0, &[("gold", 10)]), coin(1, &[("silver", 5)]), coin(2, &[])];
        let both = refuse(&coins, &spends(&[0, 1, 2]), &[to("gold", 4), to("silver", 1)]).unwrap_err();
        assert_eq!(both, Refusal::WouldShareCoin { assets: vec!["gold".to_owned(), "silver".to_owned()] });
        refuse(&coins, &spends(&[0, 1]), &[to("gold", 4), to("silver", 5)]).unwrap();
    }
}
