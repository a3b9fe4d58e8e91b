"""Signs one PSBT as a wallet that is built on embit does. Reads a line of JSON from standard input, with the mnemonic and the PSBT in
base64, and writes the PSBT with its signatures, in base64. It knows nothing of the gateway, and believes what the PSBT says.
"""

import json
import sys

from embit import bip32, bip39
from embit.networks import NETWORKS
from embit.psbt import PSBT


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    seed = bip39.mnemonic_to_seed(asked["mnemonic"])
    root = bip32.HDKey.from_seed(seed, version=NETWORKS["regtest"]["xprv"])
    psbt = PSBT.from_string(asked["psbt"])
    if psbt.sign_with(root) != len(psbt.inputs):
        raise SystemExit("not every input is this wallet's")
    print(psbt.to_string())


if __name__ == "__main__":
    main()
