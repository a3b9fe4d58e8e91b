"""An RGB wallet that is nobody's customer: rgb-lib with keys, coins and an exchange of its own, as a process.

    python wallet.py --dir FOLDER --indexer URL

It reads one call a line, {"id": 1, "method": "address", "params": {}}, and answers each with one line: "result", or "error" with the
library's own words. It ends with its input. Nothing here knows the gateway.
"""

import argparse
import json
import os
import sys
import time

import rgb_lib

NETWORK = rgb_lib.BitcoinNetwork.REGTEST
SCHEMAS = [rgb_lib.AssetSchema.NIA, rgb_lib.AssetSchema.CFA]
MIN_CONFIRMATIONS = 1


class Wallet:
    """The calls. A public method is one."""

    def __init__(self, folder, indexer):
        version = rgb_lib.WitnessVersion.TAPROOT
        keys = rgb_lib.generate_keys(NETWORK, version)
        self._wallet = rgb_lib.Wallet(
            rgb_lib.WalletData(
                data_dir=folder,
                bitcoin_network=NETWORK,
                database_type=rgb_lib.DatabaseType.SQLITE,
                max_allocations_per_utxo=5,
                supported_schemas=SCHEMAS,
            ),
            rgb_lib.SinglesigKeys(
                account_xpub_vanilla=keys.account_xpub_vanilla,
                account_xpub_colored=keys.account_xpub_colored,
                vanilla_keychain=None,
                master_fingerprint=keys.master_fingerprint,
                mnemonic=keys.mnemonic,
                witness_version=version,
            ),
        )
        self._online = self._wallet.go_online(
            rgb_lib.OnlineOptions(indexer_url=indexer, skip_consistency_check=False, vanilla_sync_lookback=20)
        )

    def address(self):
        return self._wallet.get_address()

    def bitcoin(self):
        balance = self._wallet.get_btc_balance(self._online, False)
        return {"vanilla": balance_of(balance.vanilla), "colored": balance_of(balance.colored)}

    def create_utxos(self, num, size, fee_rate):
        return self._wallet.create_utxos(self._online, False, num, size, fee_rate, False)

    def issue_nia(self, ticker, name, precision, amounts):
        return self._wallet.issue_asset_nia(ticker, name, precision, amounts).asset_id

    def blind_receive(self, **wanted):
        return received(self._wallet.blind_receive(*terms(**wanted)))

    def witness_receive(self, **wanted):
        return received(self._wallet.witness_receive(*terms(**wanted)))

    def read_invoice(self, invoice):
        data = rgb_lib.Invoice(invoice).invoice_data()
        return {
            "recipient": data.recipient_id,
            "asset": data.asset_id,
            "amount": amount_of(data.assignment),
            "expires_at": data.expiration_timestamp,
            "endpoints": data.transport_endpoints,
        }

    def send(self, payees, fee_rate, expires_in=3600):
        recipients = {}
        for payee in payees:
            witness = payee.get("witness_sat")
            recipients.setdefault(payee["asset"], []).append(
                rgb_lib.Recipient(
                    recipient_id=payee["recipient"],
                    witness_data=None if witness is None else rgb_lib.WitnessData(amount_sat=witness, blinding=None),
                    assignment=rgb_lib.Assignment.FUNGIBLE(payee["amount"]),
                    transport_endpoints=payee["endpoints"],
                )
            )
        expiry = int(time.time()) + expires_in
        sent = self._wallet.send(self._online, recipients, False, fee_rate, MIN_CONFIRMATIONS, expiry)
        return {"txid": sent.txid, "batch": sent.batch_transfer_idx}

    def refresh(self):
        """Says what has changed: by batch, the new status or what is wrong."""
        changed = self._wallet.refresh(self._online, None, [], False)
        said = {}
        for batch, one in changed.items():
            if one.failure is not None:
                said[str(batch)] = repr(one.failure)
            elif one.updated_status is not None:
                said[str(batch)] = one.updated_status.name
        return said

    def give_up(self, batch):
        return self._wallet.fail_transfers(self._online, batch, False, False)

    def balance(self, asset):
        return balance_of(self._wallet.get_asset_balance(asset))

    def assets(self):
        assets = self._wallet.list_assets(SCHEMAS)
        return [asset.asset_id for asset in [*(assets.nia or []), *(assets.cfa or [])]]

    def transfers(self, asset):
        return [transfer_of(one) for one in self._wallet.list_transfers(asset)]


def terms(endpoints, asset=None, amount=None, expires_in=3600):
    if amount is None:
        assignment = rgb_lib.Assignment.ANY()
    else:
        assignment = rgb_lib.Assignment.FUNGIBLE(amount)
    return asset, assignment, int(time.time()) + expires_in, endpoints, MIN_CONFIRMATIONS


def received(data):
    return {"invoice": data.invoice, "recipient": data.recipient_id, "batch": data.batch_transfer_idx}


def balance_of(balance):
    return {"settled": balance.settled, "future": balance.future, "spendable": balance.spendable}


def amount_of(assignment):
    return assignment.amount if assignment.is_fungible() else None


def transfer_of(transfer):
    return {
        "batch": transfer.batch_transfer_idx,
        "status": transfer.status.name,
        "kind": transfer.kind.name,
        "amounts": [amount_of(one) for one in transfer.assignments],
        "txid": transfer.txid,
        "recipient": transfer.recipient_id,
    }


def answer(wallet, call):
    method = None if call["method"].startswith("_") else getattr(wallet, call["method"], None)
    if method is None:
        return {"id": call["id"], "error": "there is no call " + call["method"]}
    try:
        return {"id": call["id"], "result": method(**call["params"])}
    # Whatever it is, it is the answer to this call, and the next one may go well.
    except Exception as error:
        return {"id": call["id"], "error": repr(error)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--indexer", required=True)
    options = parser.parse_args()
    # What the library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    wallet = Wallet(options.dir, options.indexer)
    for line in sys.stdin:
        print(json.dumps(answer(wallet, json.loads(line))), file=answers)


if __name__ == "__main__":
    main()
