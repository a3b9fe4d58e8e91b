use proptest::prelude::*;

use super::*;

const IDS: [&str; 3] = [
    "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5",
    "02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
];

fn peer(n: usize) -> PeerAddress {
    format!("{}@10.0.0.{n}:9735", IDS[n]).parse().unwrap()
}

fn sat(n: u64) -> Sat {
    Sat::new(n).unwrap()
}

fn policy() -> LiquidityPolicy {
    LiquidityPolicy {
        peers: vec![peer(0), peer(1)],
        want_outbound_sats: sat(2_000_000),
        want_inbound_sats: sat(500_000),
        keep_onchain_sats: sat(100_000),
        ..LiquidityPolicy::default()
    }
}

/// Everything is well, and something is missing.
fn seen() -> Seen {
    Seen {
        payouts_halted: false,
        node_ready: true,
        chain_synced: true,
        opening_under_way: false,
        withdrawals_wait: false,
        outbound: sat(1_999_999),
        inbound: sat(500_000),
        coins: sat(5_000_000),
        reserve: sat(30_000),
        fee_rate: FeeRate::from_sat_per_vb(5),
        spent_today: Sat::ZERO,
        channels: Vec::new(),
        refused_lately: Vec::new(),
    }
}

fn held_back(change: impl FnOnce(&mut Seen)) -> &'static str {
    let mut seen = seen();
    change(&mut seen);
    match policy().decide(&seen) {
        Decision::HeldBack(why) => why.code(),
        other @ (Decision::Enough | Decision::Open(_)) => panic!("{other:?}"),
    }
}

fn opening(change: impl FnOnce(&mut Seen)) -> Opening {
    let mut seen = seen();
    change(&mut seen);
    match policy().decide(&seen) {
        Decision::Open(opening) => opening,
        other @ (Decision::Enough | Decision::HeldBack(_)) => panic!("{other:?}"),
    }
}

#[test]
fn what_is_missing_is_opened_with_the_first_peer() {
    assert_eq!(opening(|_| ()), Opening { peer: peer(0), amount: sat(1_000_000), fee: sat(2_000) });
    let mut enough = seen();
    enough.outbound = sat(2_000_000);
    assert_eq!(policy().decide(&enough), Decision::Enough);
    assert_eq!((policy().outbound_short(&enough), policy().outbound_short(&seen())), (Sat::ZERO, sat(1)));
}

#[test]
fn nothing_is_opened_while_something_else_comes_first() {
    assert_eq!(held_back(|seen| seen.node_ready = false), "node_not_ready");
    assert_eq!(held_back(|seen| seen.chain_synced = false), "chain_not_synced");
    assert_eq!(held_back(|seen| seen.payouts_halted = true), "payouts_halted");
    assert_eq!(held_back(|seen| seen.opening_under_way = true), "opening_under_way");
    assert_eq!(held_back(|seen| seen.withdrawals_wait = true), "withdrawals_wait");
}

#[test]
fn the_cap_and_the_budget_bind() {
    assert_eq!(held_back(|seen| seen.fee_rate = FeeRate::from_milli_sat_per_vb(20_001)), "fee_rate_too_high");
    assert_eq!(opening(|seen| seen.fee_rate = FeeRate::from_sat_per_vb(20)).fee, sat(8_000));
    assert_eq!(held_back(|seen| seen.spent_today = sat(18_001)), "budget_spent");
    assert_eq!(opening(|seen| seen.spent_today = sat(18_000)).fee, sat(2_000));
}

#[test]
fn what_has_to_stay_on_chain_stays() {
    // The reserve, what is kept, the fee, and the channel.
    let all = 30_000 + 100_000 + 2_000 + 1_000_000;
    assert_eq!(opening(|seen| seen.coins = sat(all)).amount, sat(1_000_000));
    assert_eq!(opening(|seen| seen.coins = sat(all - 1)).amount, sat(999_999), "a smaller one, where there is no more");
    assert_eq!(opening(|seen| seen.coins = sat(332_000)).amount, sat(200_000));
    assert_eq!(held_back(|seen| seen.coins = sat(331_999)), "coins_short");
    assert_eq!(held_back(|seen| seen.coins = Sat::ZERO), "coins_short");
}

#[test]
fn peers_take_turns_and_none_has_too_many() {
    let (one, other, stranger) = (peer(0).id, peer(1).id, peer(2).id);
    assert_eq!(opening(|seen| seen.channels = vec![one]).peer, peer(1));
    assert_eq!(opening(|seen| seen.channels = vec![one, other, stranger]).peer, peer(0));
    assert_eq!(opening(|seen| seen.refused_lately = vec![one]).peer, peer(1));
    assert_eq!(held_back(|seen| seen.refused_lately = vec![one, other]), "peers_refused");
    assert_eq!(held_back(|seen| seen.channels = vec![one, one, other, other]), "peers_full");
    assert_eq!(held_back(|seen| (seen.channels, seen.refused_lately) = (vec![one, one], vec![other])), "peers_refused");
}

#[test]
fn too_little_to_receive_is_said_and_opens_nothing() {
    let mut short = seen();
    short.inbound = sat(499_000);
    short.outbound = sat(2_000_000);
    assert_eq!(policy().inbound_short(&short), sat(1_000));
    assert_eq!(policy().decide(&short), Decision::Enough);
    assert_eq!(policy().inbound_short(&seen()), Sat::ZERO);
}

#[test]
fn one_more_channel_needs_its_share_of_the_reserve() {
    assert_eq!(reserve_with_one_more(sat(30_001), 2), sat(45_002));
    assert_eq!(reserve_with_one_more(sat(30_000), 0), sat(30_000), "nobody knows what one needs");
    assert_eq!(reserve_with_one_more(Sat::ZERO, 3), Sat::ZERO);
    assert_eq!(reserve_with_one_more(Sat::MAX, 1), Sat::MAX);
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_by_the_key() {
    type Change = fn(&mut LiquidityPolicy);
    let bad: [(&str, Change); 9] = [
        ("peers", |p| p.peers = vec![peer(0), peer(0)]),
        ("peers", |p| p.peers = Vec::new()),
        ("max_channels_per_peer", |p| p.max_channels_per_peer = 0),
        ("min_channel_sats", |p| p.min_channel_sats = sat(19_999)),
        ("channel_sats", |p| p.channel_sats = sat(199_999)),
        ("max_fee_rate", |p| p.max_fee_rate = 0),
        ("max_fee_rate", |p| p.max_fee_rate = 1_001),
        ("every_seconds", |p| p.every_seconds = 0),
        ("want_outbound_sats", |p| (p.want_outbound_sats, p.want_inbound_sats) = (Sat::ZERO, Sat::ZERO)),
    ];
    for (key, change) in bad {
        let mut policy = policy();
        change(&mut policy);
        assert_eq!(policy.check().unwrap_err().key, key);
    }
    assert_eq!(policy().check(), Ok(()));
    assert_eq!(LiquidityPolicy::default().check(), Ok(()));
    assert!(!LiquidityPolicy::default().is_on());
}

#[test]
fn a_peer_is_written_as_others_write_it() {
    let text = format!("{}@[2001:db8::1]:9735", IDS[0]);
    assert_eq!(text.parse::<PeerAddress>().unwrap().to_string(), text);
    let bad = ["", "02ab@host:1", "host:9735", &format!("{}@host", IDS[0]), &format!("{}@:9735", IDS[0])];
    for bad in bad.into_iter().chain([&*format!("{}@host:0", IDS[0]), &*format!("{}@host:70000", IDS[0])]) {
        assert!(bad.parse::<PeerAddress>().is_err(), "{bad}");
    }
}

prop_compose! {
    fn any_sat()(n in prop_oneof![0..3_000_000_u64, 0..=Sat::MAX.to_u64()]) -> Sat {
        sat(n)
    }
}

prop_compose! {
    fn any_policy()(
        (want, channel, least, keep, budget) in (any_sat(), any_sat(), any_sat(), any_sat(), any_sat()),
        peers in 0..3_usize,
        max_fee_rate in 1..1_000_u32,
        max_channels_per_peer in 1..4_u32,
    ) -> LiquidityPolicy {
        // Less is refused when the configuration is read.
        let least = least.max(sat(20_000));
        LiquidityPolicy {
            peers: (0..peers).map(peer).collect(),
            max_channels_per_peer,
            want_outbound_sats: want,
            channel_sats: channel.max(least),
            min_channel_sats: least,
            keep_onchain_sats: keep,
            max_fee_rate,
            daily_fee_sats: budget,
            ..LiquidityPolicy::default()
        }
    }
}

prop_compose! {
    fn anything_seen()(
        flags in prop::array::uniform5(prop::bool::weighted(0.1)),
        (outbound, inbound, coins, reserve, spent_today) in (any_sat(), any_sat(), any_sat(), any_sat(), any_sat()),
        rate in prop_oneof![0..200_000_u64, any::<u64>()],
        channels in prop::collection::vec(0..3_usize, 0..6),
        refused in prop::collection::vec(0..3_usize, 0..2),
    ) -> Seen {
        let [payouts_halted, not_ready, not_synced, opening_under_way, withdrawals_wait] = flags;
        Seen {
            payouts_halted,
            node_ready: !not_ready,
            chain_synced: !not_synced,
            opening_under_way,
            withdrawals_wait,
            outbound,
            inbound,
            coins,
            reserve,
            fee_rate: FeeRate::from_milli_sat_per_vb(rate),
            spent_today,
            channels: channels.into_iter().map(|n| peer(n).id).collect(),
            refused_lately: refused.into_iter().map(|n| peer(n).id).collect(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_opened_stays_within_every_bound(policy in any_policy(), seen in anything_seen()) {
        let Decision::Open(opening) = policy.decide(&seen) else { return Ok(()) };
        prop_assert!(seen.outbound < policy.want_outbound_sats);
        prop_assert!(seen.node_ready && seen.chain_synced);
        prop_assert!(!seen.payouts_halted && !seen.opening_under_way && !seen.withdrawals_wait);
        prop_assert!(seen.fee_rate <= FeeRate::from_sat_per_vb(policy.max_fee_rate));
        prop_assert!(Sat::sum([seen.spent_today, opening.fee]).unwrap() <= policy.daily_fee_sats);
        let gone = Sat::sum([opening.amount, opening.fee]).unwrap();
        let left = seen.coins.checked_sub(gone).unwrap();
        prop_assert!(left >= Sat::sum([seen.reserve, policy.keep_onchain_sats]).unwrap());
        prop_assert!(opening.amount >= policy.min_channel_sats && opening.amount <= policy.channel_sats);
        prop_assert!(policy.peers.contains(&opening.peer));
        let has = seen.channels.iter().filter(|of| **of == opening.peer.id).count();
        prop_assert!(has < policy.max_channels_per_peer as usize);
        prop_assert!(!seen.refused_lately.contains(&opening.peer.id));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn opening_again_and_again_comes_to_an_end_within_the_budget(policy in any_policy(), start in anything_seen()) {
        let had = start.channels.len();
        let mut seen = start;
        for _ in 0..50 {
            let Decision::Open(opening) = policy.decide(&seen) else { break };
            seen.coins = seen.coins.checked_sub(Sat::sum([opening.amount, opening.fee]).unwrap()).unwrap();
            seen.spent_today = Sat::sum([seen.spent_today, opening.fee]).unwrap();
            seen.outbound = seen.outbound.checked_add(opening.amount).unwrap_or(Sat::MAX);
            seen.channels.push(opening.peer.id);
            prop_assert!(seen.spent_today <= policy.daily_fee_sats);
            prop_assert!(seen.coins >= policy.keep_onchain_sats);
        }
        let most = policy.peers.len() * policy.max_channels_per_peer as usize;
        prop_assert!(seen.channels.len() <= had + most);
    }
}
