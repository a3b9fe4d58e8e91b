use super::*;

const NAME: &str = "c";

fn hash(n: u8) -> PaymentHash {
    PaymentHash([n; 32])
}

fn htlc(n: u8, msat: u64) -> Htlc {
    Htlc { hash: hash(n), msat, id: Some(u64::from(n)), is_claimed: false }
}

fn claimed(n: u8, msat: u64) -> Htlc {
    Htlc { is_claimed: true, ..htlc(n, msat) }
}

fn forward(way_in: &str, number: u64, came: u64, way_out: &str, went: u64) -> Forward {
    let name = format!("{way_in}:{number}");
    let (way_in, way_out) = (way_in.to_owned(), Some(way_out.to_owned()));
    Forward { name, way_in, number: Some(number), came: Some(came), way_out, went }
}

fn closed(local_msat: u64, leaving: Vec<Htlc>, coming: Vec<Htlc>, forwards: &[Forward]) -> ChannelNote {
    let mut noted = ChannelNote { is_outbound: true, ..ChannelNote::default() };
    noted.close(NAME, local_msat, Pending { leaving, coming }, forwards);
    noted
}

/// Paid, claimed, lost, excess, in millisatoshi.
fn outcome(noted: &ChannelNote, paid: u64, claimed: u64, came: u64) -> [u64; 4] {
    let Movement::Resolved { paid, claimed, fee, fraction, excess, .. } =
        noted.resolve(NAME.to_owned(), paid, claimed, came)
    else {
        panic!("a channel is resolved")
    };
    let lost = fee.to_u64() * 1_000 + fraction.base_units();
    [paid, claimed, amount(lost), excess].map(|amount| amount.base_units())
}

/// What the channel held and got is what it gave and lost, so nothing of it stays in the books.
fn is_exact(noted: &ChannelNote, [paid, claimed, lost, excess]: [u64; 4], came: u64) {
    assert_eq!(noted.closed_msat.unwrap() + claimed + excess, came + paid + lost);
}

#[test]
fn a_penalty_is_no_payment() {
    let noted = closed(400_000_000, vec![], vec![], &[]);
    let came = 998_000_000;
    let outcome = outcome(&noted, 0, 0, came);
    assert_eq!(outcome, [0, 0, 0, 598_000_000], "it has no owner until somebody decides");
    is_exact(&noted, outcome, came);
}

#[test]
fn what_others_send_through_and_the_next_peer_claims_on_the_chain_has_left() {
    let mut noted = closed(500_000_000, vec![htlc(1, 50_000_400)], vec![], &[]);
    let through = forward("other", 7, 50_010_000, NAME, 50_000_000);
    assert!(noted.note_forward(NAME, &through));
    assert!(!noted.note_forward(NAME, &through), "it is told twice");
    let came = 448_000_000;
    let outcome = outcome(&noted, 0, 0, came);
    assert_eq!(outcome, [50_000_000, 0, 2_000_000, 0], "the other channel has grown by it");
    is_exact(&noted, outcome, came);
}

#[test]
fn what_others_send_through_and_we_claim_on_the_chain_has_come() {
    let mut noted = closed(500_000_000, vec![], vec![htlc(1, 50_010_000)], &[]);
    assert!(noted.note_forward(NAME, &forward(NAME, 1, 50_010_000, "other", 50_000_000)));
    let came = 549_000_000;
    let outcome = outcome(&noted, 0, 0, came);
    assert_eq!(outcome, [0, 50_010_000, 1_010_000, 0]);
    is_exact(&noted, outcome, came);
}

#[test]
fn a_payment_that_was_claimed_before_our_own_commitment_pays_no_fee_of_it() {
    let noted = closed(100_000_000, vec![], vec![claimed(1, 20_000_700)], &[]);
    let came = 118_000_000;
    let outcome = outcome(&noted, 0, 0, came);
    assert_eq!(outcome, [0, 20_000_700, 2_000_700, 0], "the wallet was credited with all of it");
    is_exact(&noted, outcome, came);
}

#[test]
fn a_claimed_payment_that_is_too_small_for_the_chain_is_lost_by_the_operator() {
    let noted = closed(100_000_000, vec![], vec![claimed(1, 300_001)], &[]);
    let came = 99_000_000;
    let outcome = outcome(&noted, 0, 0, came);
    assert_eq!(outcome, [0, 300_001, 1_300_001, 0]);
    is_exact(&noted, outcome, came);
}

#[test]
fn a_payment_that_was_paid_and_came_back_all_the_same_has_no_owner() {
    let noted = closed(100_000_000, vec![claimed(1, 30_000_000)], vec![], &[]);
    let came = 99_500_000;
    let outcome = outcome(&noted, 0, 0, came);
    assert_eq!(outcome, [30_000_000, 0, 0, 29_500_000]);
    is_exact(&noted, outcome, came);
}

#[test]
fn what_is_not_over_is_asked_for_by_its_hash() {
    let noted = closed(100_000_000, vec![htlc(1, 30_000_000), claimed(2, 5_000_000)], vec![htlc(3, 7_000)], &[]);
    assert_eq!(
        (noted.leaving.as_slice(), noted.coming.as_slice()),
        (&[(hash(1), 30_000_000)][..], &[(hash(3), 7_000)][..])
    );
    assert_eq!(outcome(&noted, 30_000_000, 7_000, 60_000_000)[..2], [35_000_000, 7_000]);
}

#[test]
fn what_went_through_since_the_channel_was_looked_at_is_not_under_way() {
    let heard = [forward("other", 1, 40_000, NAME, 30_000), forward(NAME, 2, 9_000, "other", 8_000)];
    let noted =
        closed(100_000_000, vec![htlc(1, 30_000), htlc(4, 30_000)], vec![htlc(2, 9_000), htlc(5, 9_000)], &heard);
    assert_eq!((noted.went_msat, noted.came_msat), (30_000, 9_000));
    assert_eq!((noted.leaving.len(), noted.coming.len()), (1, 1));
}

#[test]
fn a_note_of_the_version_before_is_read() {
    let old = r#"{"funding":null,"is_outbound":true,"given_msat":0,"is_given":false,"closed_msat":5000,"is_resolved":false,"leaving":[],"coming":[]}"#;
    let noted: ChannelNote = serde_json::from_str(old).expect("it is read");
    assert_eq!(outcome(&noted, 0, 0, 4_000), [0, 0, 1_000, 0]);
}
