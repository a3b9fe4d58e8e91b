//! Connections to peers: taken, made, and made again while there is a channel.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::SocketAddress;
use lightning::routing::gossip::NodeId;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::node::Node;
use super::types::lock;
use crate::domain::public_address::is_public;
use crate::ports::lightning::{Asked, Peer};
use crate::store::node::Step;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const HANDSHAKE_POLL: Duration = Duration::from_millis(5);
/// How often we look for channels whose peer is away.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A peer that is not reached is tried again after this, then after twice as long, and so on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Takes connections. None is taken unless we are certain to be the node.
pub async fn listen(node: Arc<Node>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = node.draining() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(HANDSHAKE_POLL).await;
                continue;
            }
        };
        if !node.lease.holds().await || !node.is_running() {
            continue;
        }
        match ready(stream) {
            Ok(stream) => {
                let peers = Arc::clone(&node.peers);
                drop(tokio::spawn(async move { lightning_net_tokio::setup_inbound(peers, stream).await }));
            }
            Err(error) => tracing::debug!(%error, "a connection could not be taken"),
        }
    }
}

/// A payment is many small messages: none of them waits for more to come.
fn ready(stream: TcpStream) -> std::io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    stream.into_std()
}

/// Connects, and comes back when the peer has shown who it is.
///
/// # Errors
/// Why not.
pub async fn dial(node: &Arc<Node>, id: PublicKey, address: &str) -> Result<(), String> {
    if node.peers.peer_by_node_id(&id).is_some() {
        return Ok(());
    }
    if !node.is_running() {
        return Err("the node is stopping".to_owned());
    }
    if !node.lease.holds().await {
        return Err("nobody can say now that this process runs the node".to_owned());
    }
    let connecting = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address));
    let stream = connecting.await.map_err(|_| "it did not answer".to_owned())?.map_err(|error| error.to_string())?;
    let stream = ready(stream).map_err(|error| error.to_string())?;
    let connection = lightning_net_tokio::setup_outbound(Arc::clone(&node.peers), id, stream);
    let mut connection = tokio::spawn(connection);
    let deadline = Instant::now() + HANDSHAKE_WITHIN;
    while node.peers.peer_by_node_id(&id).is_none() {
        if Instant::now() > deadline {
            return Err("it did not finish its greeting".to_owned());
        }
        tokio::select! {
            () = tokio::time::sleep(HANDSHAKE_POLL) => {}
            _ended = &mut connection => {
                return if node.peers.peer_by_node_id(&id).is_some() { Ok(()) } else { Err("it hung up: perhaps it is another node".to_owned()) };
            }
        }
    }
    lock(&node.paying).room = true;
    node.stage.wake();
    Ok(())
}

/// Tries every address that LDK has for a node that it needs to talk to.
pub async fn reach(node: Arc<Node>, id: PublicKey, addresses: Vec<SocketAddress>) {
    for address in addresses {
        if let Ok(address) = announced(node.network, &address.to_string()).await
            && dial(&node, id, &address.to_string()).await.is_ok()
        {
            return;
        }
    }
    tracing::debug!(peer = %id, "a node that is needed can't be reached");
}

/// Where a node is that says so itself. Whoever announces an address has us call it: it may be none beside this gateway. On a private
/// chain everybody is.
///
/// # Errors
/// Why it is not called.
async fn announced(network: Network, address: &str) -> Result<SocketAddr, String> {
    let found = tokio::time::timeout(CONNECT_WITHIN, tokio::net::lookup_host(address)).await;
    let found = found.map_err(|_| "nobody knew its name in time".to_owned())?.map_err(|error| error.to_string())?;
    let mut usable = found.filter(|address| network == Network::Regtest || is_public(address.ip()));
    usable.next().ok_or_else(|| "it is no address of the public network".to_owned())
}

struct Pause {
    until: Instant,
    next: Duration,
}

/// Connects again to whom we have a channel with.
pub async fn keep_connected(node: Arc<Node>) {
    let mut pauses: HashMap<PublicKey, Pause> = HashMap::new();
    while node.is_running() {
        for id in missing(&node) {
            let now = Instant::now();
            let pause = pauses.entry(id).or_insert(Pause { until: now, next: FIRST_PAUSE });
            if pause.until > now {
                continue;
            }
            pause.until = now + pause.next;
            pause.next = (pause.next * 2).min(LONGEST_PAUSE);
            drop(tokio::spawn(dial_known(Arc::clone(&node), id)));
        }
        pauses.retain(|id, _| node.peers.peer_by_node_id(id).is_none());
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = node.draining() => return,
        }
    }
}

fn missing(node: &Node) -> Vec<PublicKey> {
    let mut peers: Vec<PublicKey> =
        node.manager.list_channels().iter().map(|channel| channel.counterparty.node_id).collect();
    peers.sort_unstable();
    peers.dedup();
    peers.retain(|peer| node.peers.peer_by_node_id(peer).is_none());
    peers
}

async fn dial_known(node: Arc<Node>, id: PublicKey) {
    let ours = lock(&node.addresses).get(&id).cloned();
    let heard = {
        let graph = node.graph.read_only();
        let info = graph.node(&NodeId::from_pubkey(&id)).and_then(|info| info.announcement_info.as_ref());
        info.map(|info| info.addresses().to_vec()).unwrap_or_default()
    };
    if let Some(address) = ours
        && try_known(&node, id, &address, Ok(address.clone())).await
    {
        return;
    }
    for address in heard {
        let address = address.to_string();
        let usable = announced(node.network, &address).await.map(|address| address.to_string());
        if try_known(&node, id, &address, usable).await {
            return;
        }
    }
}

async fn try_known(node: &Arc<Node>, id: PublicKey, name: &str, address: Result<String, String>) -> bool {
    let dialed = match address {
        Ok(address) => dial(node, id, &address).await,
        Err(why) => Err(why),
    };
    match dialed {
        Ok(()) => true,
        Err(why) => {
            tracing::debug!(peer = %id, address = name, why, "a peer is not reached");
            false
        }
    }
}

impl Node {
    pub async fn dial(self: Arc<Self>, id: PublicKey, address: String) -> Asked<()> {
        if let Err(reason) = dial(&self, id, &address).await {
            return Asked::Refused { reason };
        }
        lock(&self.addresses).insert(id, address.clone());
        self.stage.push(Step::Peer { id: id.to_string(), address });
        match self.committed().await {
            Ok(()) => Asked::Done(()),
            Err(error) => Asked::Refused { reason: error.to_string() },
        }
    }

    pub fn list_peers(&self) -> Vec<Peer> {
        let connected: Vec<PublicKey> = self.peers.list_peers().iter().map(|peer| peer.counterparty_node_id).collect();
        let addresses = lock(&self.addresses).clone();
        let mut known: Vec<PublicKey> = connected.iter().copied().chain(missing(self)).collect();
        known.sort_unstable();
        known.dedup();
        let peer = |id| Peer { id, address: addresses.get(&id).cloned(), connected: connected.contains(&id) };
        known.into_iter().map(peer).collect()
    }

    /// Tells the network our name and where we are; LDK keeps it to itself while there is no public channel.
    pub fn announce(&self) {
        let addresses: Vec<SocketAddress> =
            self.config.announce_addresses.iter().filter_map(|address| address.parse().ok()).collect();
        if addresses.is_empty() {
            return;
        }
        let mut alias = [0; 32];
        for (slot, byte) in alias.iter_mut().zip(self.config.alias.bytes()) {
            *slot = byte;
        }
        self.peers.broadcast_node_announcement([0; 3], alias, addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_announces_an_address_beside_us_is_not_called() {
        for beside in
            ["127.0.0.1:9735", "10.0.0.1:22", "169.254.169.254:80", "[::1]:8332", "[::ffff:10.0.0.1]:1", "localhost:1"]
        {
            assert!(announced(Network::Bitcoin, beside).await.is_err(), "{beside}");
            assert!(announced(Network::Signet, beside).await.is_err(), "{beside}");
        }
        assert_eq!(announced(Network::Bitcoin, "8.8.8.8:9735").await, Ok("8.8.8.8:9735".parse().unwrap()));
        assert!(announced(Network::Bitcoin, "[2001:4860:4860::8888]:9735").await.is_ok());
        assert!(announced(Network::Regtest, "127.0.0.1:9735").await.is_ok());
    }
}
