# A bitcoind for regtest, from Debian: of its suites only sid has one.
FROM debian:sid-slim
RUN apt-get update && \
    apt-get install -y --no-install-recommends bitcoin-knots && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --system --uid 10002 --home-dir /var/lib/bitcoind --create-home bitcoind && \
    # Made here, so that the volume belongs to the user and not to root.
    install -d -o bitcoind -g bitcoind /var/lib/bitcoind/data
COPY start-chain.sh /usr/local/bin/start-chain.sh
USER bitcoind
VOLUME /var/lib/bitcoind/data
ENTRYPOINT ["bitcoind", "-datadir=/var/lib/bitcoind/data", "-printtoconsole=1"]
