//! The program as a person at a shell meets it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::str::FromStr as _;

use bitcoin::bip32::{ChildNumber, DerivationPath, Xpub};
use bitcoin::psbt::{Psbt, raw};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Address, Network};
use tempfile::TempDir;

const MNEMONIC: &str = "split capable text loop dream live outside suspect eight carry fine relax";

/// A folder with the public test wallet in the file `wallet`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = run(&folder, "init --file wallet --mnemonic-stdin", MNEMONIC);
    assert!(made.status.success(), "{made:?}");
    folder
}

fn run(folder: &TempDir, arguments: &str, input: &str) -> Output {
    run_with_passphrase(folder, arguments, input, None)
}

fn run_with_passphrase(folder: &TempDir, arguments: &str, input: &str, passphrase: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-signer"));
    command.args(arguments.split(' ')).current_dir(folder).env_remove("SLUICE_SIGNER_PASSPHRASE");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(passphrase) = passphrase {
        command.env("SLUICE_SIGNER_PASSPHRASE", passphrase);
    }
    let mut child = command.spawn().unwrap();
    // A program that refuses its arguments never reads; that the pipe breaks then is no failure of the test.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn xpub_van(folder: &TempDir) -> Xpub {
    let printed = run(folder, "xpubs --file wallet", "");
    let line = stdout(&printed).lines().find_map(|line| line.strip_prefix("xpub-van: ")).unwrap();
    Xpub::from_str(line).unwrap()
}

/// Key vanilla /0/0 as a gateway finds it: from the xpub, without the signer's own derivation.
fn authorization_address(folder: &TempDir) -> (Address, bitcoin::XOnlyPublicKey) {
    let secp = Secp256k1::new();
    let zero = ChildNumber::Normal { index: 0 };
    let internal = xpub_van(folder).derive_pub(&secp, &[zero, zero]).unwrap().to_x_only_pub();
    (Address::p2tr(&secp, internal, None, Network::Regtest), internal)
}

fn message() -> String {
    format!(
        "Sluice spend authorization v1\ngateway: 00112233445566aa\nchain: 0f9188f13cb7b2c7\nwallet: 1122334455667788\n\
         request: 0123456789abcdef0123456789abcdef\nkind: pay\nto: {}\namount: 123456 msat\nmax_fee: 3000 msat\n\
         expires: 2026-01-31T12:00:00Z",
        "ab".repeat(32)
    )
}

fn grant_message() -> String {
    format!(
        "Sluice spending grant v1\ngateway: 00112233445566aa\nchain: 0f9188f13cb7b2c7\nwallet: 1122334455667788\n\
         key: 0123456789ab\nkey_hash: {}\nlimit: 1000000000 msat per day\nper_payment: none\nexpires: 2026-01-31T12:00:00Z",
        "cd".repeat(16)
    )
}

fn authorization(folder: &TempDir) -> Psbt {
    asks_for(folder, &message())
}

fn asks_for(folder: &TempDir, message: &str) -> Psbt {
    let (address, internal) = authorization_address(folder);
    let to_spend = bip322::create_to_spend(&address, message).unwrap();
    let mut psbt = bip322::create_to_sign(&to_spend, None, bip322::LockParams::default()).unwrap();
    let path = DerivationPath::from_str("m/86'/1'/0'/0/0").unwrap();
    let fingerprint = "1f5bd7df".parse().unwrap();
    psbt.inputs[0].non_witness_utxo = Some(to_spend);
    psbt.inputs[0].tap_internal_key = Some(internal);
    psbt.inputs[0].tap_key_origins.insert(internal, (Vec::new(), (fingerprint, path)));
    psbt.unknown.insert(raw::Key { type_value: 9, key: Vec::new() }, message.as_bytes().to_vec());
    psbt
}

/// Refused: says why, fails, and prints nothing that could be taken for a signed PSBT.
fn assert_refused(output: &Output, why: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stdout(output), "");
    assert!(stderr(output).contains(why), "{}", stderr(output));
}

#[test]
fn init_keeps_an_existing_file_and_prints_no_words() {
    let folder = folder();
    let path = Path::new(folder.path()).join("wallet");
    let before = std::fs::read(&path).unwrap();
    assert_refused(&run(&folder, "init --file wallet", ""), "already exists");
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let made = run(&folder, "init --file new --network signet", "");
    assert!(made.status.success(), "{made:?}");
    assert!(stdout(&made).starts_with("xpub-van: tpub"), "{made:?}");
    let file = std::fs::read_to_string(folder.path().join("new")).unwrap();
    let words = file.lines().find_map(|line| line.strip_prefix("mnemonic: ")).unwrap();
    assert_eq!(words.split(' ').count(), 12);
    assert!(!stdout(&made).contains(words) && !stderr(&made).contains(words));
}

#[test]
fn xpubs_come_as_headers_as_json_and_as_a_curl_configuration() {
    let folder = folder();
    let xpub = xpub_van(&folder);
    assert!(stdout(&run(&folder, "xpubs --file wallet", "")).ends_with("\nmaster-fingerprint: 1f5bd7df\n"));
    let json = run(&folder, "xpubs --file wallet --json", "");
    assert!(stdout(&json).starts_with(&format!("{{\"xpub_van\":\"{xpub}\",\"xpub_col\":\"tpub")), "{json:?}");
    assert!(stdout(&json).ends_with(",\"master_fingerprint\":\"1f5bd7df\"}\n"), "{json:?}");
    let curl = run(&folder, "xpubs --file wallet --headers", "");
    assert!(stdout(&curl).starts_with(&format!("header = \"xpub-van: {xpub}\"\nheader = \"xpub-col: ")), "{curl:?}");
}

#[test]
fn an_authorisation_is_shown_and_signed() {
    let folder = folder();
    let asked = format!("  \"{}\"\n", authorization(&folder));
    let shown = run(&folder, "show --file wallet", &asked);
    assert!(shown.status.success(), "{shown:?}");
    assert!(stdout(&shown).contains("amount: 123456 msat"), "{shown:?}");

    let signed = run(&folder, "sign --file wallet --expect-gateway 00112233445566aa --max-amount 124", &asked);
    assert!(signed.status.success(), "{signed:?}");
    assert!(stderr(&signed).contains("amount: 123456 msat"), "{signed:?}");
    assert!(stderr(&signed).contains("it has expired"), "{signed:?}");
    let psbt = Psbt::from_str(stdout(&signed).strip_suffix('\n').unwrap()).unwrap();
    let witness = psbt.inputs[0].final_script_witness.clone().unwrap();
    let verdict = bip322::verify_simple(&authorization_address(&folder).0, message(), witness);
    assert!(matches!(verdict, Ok(bip322::Verification::Valid { .. })), "{verdict:?}");

    let body = run(&folder, "sign --file wallet --json", &asked);
    assert_eq!(stdout(&body), format!("{{\"signed_psbt\":\"{psbt}\"}}\n"));
}

#[test]
fn a_grant_is_signed_by_its_own_command() {
    let folder = folder();
    let asked = asks_for(&folder, &grant_message()).to_string();
    assert_refused(&run(&folder, "sign --file wallet", &asked), "with the command grant");
    assert_refused(&run(&folder, "grant --file wallet", &authorization(&folder).to_string()), "with the command sign");
    for (arguments, why) in [
        ("--expect-gateway ffffffffffffffff", "you expected ffffffffffffffff"),
        ("--expect-key ffffffffffff", "you expected ffffffffffff"),
        ("--max-limit 999999/day", "more than the 999999 sat per day you allow"),
        ("--max-limit 1000000/hour", "more than the 1000000 sat per hour you allow"),
    ] {
        assert_refused(&run(&folder, &format!("grant --file wallet {arguments}"), &asked), why);
    }
    let signed = run(&folder, "grant --file wallet --expect-key 0123456789ab --max-limit 1000000/day", &asked);
    assert!(signed.status.success() && stderr(&signed).contains("without asking you"), "{signed:?}");
    let psbt = Psbt::from_str(stdout(&signed).trim()).unwrap();
    let witness = psbt.inputs[0].final_script_witness.clone().unwrap();
    let verdict = bip322::verify_simple(&authorization_address(&folder).0, grant_message(), witness);
    assert!(matches!(verdict, Ok(bip322::Verification::Valid { .. })), "{verdict:?}");
}

#[test]
fn what_is_not_expected_is_not_signed() {
    let folder = folder();
    let psbt = authorization(&folder);
    for (arguments, why) in [
        ("--expect-gateway ffffffffffffffff", "you expected ffffffffffffffff"),
        ("--expect-to bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "you expected bcrt1q"),
        ("--max-amount 123", "more than the 123 sat you allow"),
        ("--max-fee-sat 2", "higher fee limit"),
    ] {
        let output = run(&folder, &format!("sign --file wallet {arguments}"), &psbt.to_string());
        assert_refused(&output, why);
    }
}

#[test]
fn what_is_not_ours_or_tampered_with_is_not_signed() {
    let folder = folder();
    let psbt = authorization(&folder);
    assert!(run(&folder, "init --file other", "").status.success());
    assert_refused(&run(&folder, "sign --file other", &psbt.to_string()), "no input of this PSBT can be signed");
    assert_refused(&run(&folder, "sign --file wallet --json", "{\"error\":\"x\"}"), "JSON object");

    let mut tampered = psbt;
    let shown = message().replace("123456", "1");
    tampered.unknown.insert(raw::Key { type_value: 9, key: Vec::new() }, shown.into_bytes());
    let tampered = tampered.to_string();
    assert_refused(&run(&folder, "sign --file wallet", &tampered), "does not hash to");
    let show = run(&folder, "show --file wallet", &tampered);
    assert_eq!(show.status.code(), Some(1));
    assert!(!stdout(&show).contains("amount:") && stdout(&show).contains("must not be signed"), "{show:?}");
}

#[test]
fn a_passphrase_belongs_to_the_wallet_but_not_into_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let made = run_with_passphrase(&folder, "init --file wallet", "", Some("hunter2"));
    assert!(made.status.success(), "{made:?}");
    assert!(!std::fs::read_to_string(folder.path().join("wallet")).unwrap().contains("hunter2"));
    assert!(run_with_passphrase(&folder, "xpubs --file wallet", "", Some("hunter2")).status.success());
    assert_refused(&run(&folder, "xpubs --file wallet", ""), "is the passphrase right?");
}
