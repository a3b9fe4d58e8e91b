//! Peers and channels.

use axum::Json;
use axum::extract::State;
use bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::flows::node_admin::{self, Opening};
use crate::flows::values::{Channel, CloseHow, ForwardingFees, NewChannel, Peer};
use crate::flows::{Code, Error};
use crate::http::HttpState;
use crate::http::api::examples;
use crate::http::auth::{Operator, ToAdminister, ToLook};
use crate::http::extract::{AnyId, MaybePosted, Posted};
use crate::http::problem::Problem;
use crate::money::{Amount, Sat};

/// Text of an address of a peer is not longer.
const ADDRESS_MAX: usize = 255;

/// Somebody whom the node knows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "id": examples::NODE, "address": "203.0.113.9:9735", "connected": true }))]
pub struct PeerView {
    /// The peer's public key, as hex.
    pub id: String,
    /// Where it was reached.
    pub address: Option<String>,
    pub connected: bool,
}

impl From<Peer> for PeerView {
    fn from(peer: Peer) -> Self {
        let Peer { id, address, connected } = peer;
        Self { id: id.to_string(), address, connected }
    }
}

/// Everybody whom the node knows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "peers": [{ "id": examples::NODE, "address": "203.0.113.9:9735", "connected": true }] }))]
pub struct PeersResponse {
    pub peers: Vec<PeerView>,
}

/// A node to connect to.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "peer": examples::NODE, "address": "203.0.113.9:9735" }))]
pub struct ConnectRequestModel {
    /// Its public key, as hex.
    #[schema(pattern = "^0[23][0-9a-f]{64}$")]
    pub peer: String,
    /// Host and port.
    #[schema(min_length = 1, max_length = 255)]
    pub address: String,
}

/// Peers
///
/// Everybody whom the node is connected to, has a channel with, or has been told of.
#[utoipa::path(get, path = "/admin/peers", operation_id = "adminPeers", tag = "operator",
    responses((status = 200, description = "The peers", body = PeersResponse)))]
pub async fn peers(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
) -> Result<Json<PeersResponse>, Problem> {
    all_peers(&state).await
}

async fn all_peers(state: &HttpState) -> Result<Json<PeersResponse>, Problem> {
    let peers = node_admin::peers(&state.flows).await?;
    Ok(Json(PeersResponse { peers: peers.into_iter().map(Into::into).collect() }))
}

/// Connect to a peer
///
/// Connects now, and again by itself while there is a channel with the peer. Answers all peers.
#[utoipa::path(post, path = "/admin/peers", operation_id = "adminConnect", tag = "operator",
    request_body = ConnectRequestModel,
    responses((status = 200, description = "The peers", body = PeersResponse)))]
pub async fn connect(
    State(state): State<HttpState>,
    _operator: Operator<ToAdminister>,
    posted: Posted<ConnectRequestModel>,
) -> Result<Json<PeersResponse>, Problem> {
    let ConnectRequestModel { peer, address } = posted.value;
    let id = public_key("peer", &peer)?;
    if address.is_empty() || address.len() > ADDRESS_MAX || address.chars().any(char::is_control) {
        return Err(Problem::field(Code::InvalidRequest, "address", "address: must be a host and a port"));
    }
    node_admin::connect(&state.flows, id, &address).await?;
    all_peers(&state).await
}

/// A channel of the node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": examples::HASH, "peer": examples::NODE, "funding_txid": examples::TXID, "funding_vout": 0, "capacity_sats": 1_000_000,
    "can_send_msat": 600_000_000, "can_receive_msat": 380_000_000, "usable": true, "announced": false, "is_outbound": true,
    "fee_base_msat": 1_000, "fee_parts_per_million": 100,
}))]
pub struct ChannelView {
    pub id: String,
    pub peer: String,
    pub funding_txid: Option<String>,
    pub funding_vout: Option<u32>,
    pub capacity_sats: u64,
    pub can_send_msat: u64,
    pub can_receive_msat: u64,
    /// Confirmed, connected, and in use.
    pub usable: bool,
    pub announced: bool,
    /// The node has opened it.
    pub is_outbound: bool,
    /// What is taken for forwarding over it.
    pub fee_base_msat: Option<u64>,
    pub fee_parts_per_million: Option<u32>,
}

impl From<Channel> for ChannelView {
    fn from(channel: Channel) -> Self {
        Self {
            id: channel.id,
            peer: channel.peer.to_string(),
            funding_txid: channel.funding.map(|funding| funding.txid.to_string()),
            funding_vout: channel.funding.map(|funding| funding.vout),
            capacity_sats: channel.capacity.to_u64(),
            can_send_msat: channel.can_send.base_units(),
            can_receive_msat: channel.can_receive.base_units(),
            usable: channel.usable,
            announced: channel.announced,
            is_outbound: channel.is_outbound,
            fee_base_msat: channel.fees.map(|fees| fees.base.base_units()),
            fee_parts_per_million: channel.fees.map(|fees| fees.parts_per_million),
        }
    }
}

/// The channels of the node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "channels": [{
    "id": examples::HASH, "peer": examples::NODE, "funding_txid": examples::TXID, "funding_vout": 0, "capacity_sats": 1_000_000,
    "can_send_msat": 600_000_000, "can_receive_msat": 380_000_000, "usable": true, "announced": false, "is_outbound": true,
    "fee_base_msat": 1_000, "fee_parts_per_million": 100,
}] }))]
pub struct ChannelsResponse {
    pub channels: Vec<ChannelView>,
}

/// Channels
///
/// Every channel that is open or about to be.
#[utoipa::path(get, path = "/admin/channels", operation_id = "adminChannels", tag = "operator",
    responses((status = 200, description = "The channels", body = ChannelsResponse)))]
pub async fn list(
    State(state): State<HttpState>,
    _operator: Operator<ToLook>,
) -> Result<Json<ChannelsResponse>, Problem> {
    let channels = node_admin::channels(&state.flows).await?;
    Ok(Json(ChannelsResponse { channels: channels.into_iter().map(Into::into).collect() }))
}

/// A channel that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "peer": examples::NODE, "amount_sats": 1_000_000, "push_msat": 0, "announced": false }))]
pub struct OpenChannelRequestModel {
    /// Whom to open it with. It must be connected.
    #[schema(pattern = "^0[23][0-9a-f]{64}$")]
    pub peer: String,
    /// What goes into it.
    #[schema(value_type = u64, minimum = 1, maximum = 2_100_000_000_000_000_u64)]
    pub amount_sats: Sat,
    /// What of that is given to the peer, for ever; nothing unless given.
    #[schema(maximum = 2_100_000_000_000_000_000_u64)]
    pub push_msat: Option<u64>,
    /// Whether the network is told of it; not unless given.
    pub announced: Option<bool>,
}

/// A channel that the node has begun to open.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "id": examples::HASH }))]
pub struct OpeningResponse {
    /// The id that it has now. Once the peer has agreed it has another one, in the list of channels.
    pub id: String,
}

/// Open a channel
///
/// Begins to open a channel with a connected peer, from the node's own coins above the reserve. It can be used once its
/// transaction is confirmed. The same `Idempotency-Key` opens one channel.
#[utoipa::path(post, path = "/admin/channels", operation_id = "adminOpenChannel", tag = "operator",
    request_body = OpenChannelRequestModel,
    responses((status = 200, description = "It is being opened", body = OpeningResponse)))]
pub async fn open(
    State(state): State<HttpState>,
    _operator: Operator<ToAdminister>,
    posted: Posted<OpenChannelRequestModel>,
) -> Result<Json<OpeningResponse>, Problem> {
    let OpenChannelRequestModel { peer, amount_sats, push_msat, announced } = posted.value;
    let peer = public_key("peer", &peer)?;
    if amount_sats == Sat::ZERO {
        return Err(Error::field("amount_sats", "must be at least 1").into());
    }
    let push = Amount::from_msat(push_msat.unwrap_or(0)).ok().filter(|push| *push <= Amount::from_sat(amount_sats));
    let push = push.ok_or_else(|| Error::field("push_msat", "must not be more than the channel holds"))?;
    let new = NewChannel { peer, amount: amount_sats, push, announced: announced.unwrap_or(false) };
    let Opening { id } = node_admin::open(&state.flows, new, posted.idempotency).await?;
    Ok(Json(OpeningResponse { id }))
}

/// How a channel is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(example = json!("cooperative"))]
pub enum How {
    /// With the peer, which must be connected.
    #[default]
    Cooperative,
    /// Without the peer: the coins are locked for some time, and it costs more.
    Force,
}

/// How to close a channel.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({ "how": "cooperative" }))]
pub struct CloseChannelRequestModel {
    /// With the peer unless said otherwise.
    pub how: Option<How>,
}

/// What the node has been told.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "id": examples::HASH }))]
pub struct ChannelToldResponse {
    pub id: String,
}

/// Close a channel
///
/// Begins to close a channel. What is the node's comes back to its own coins after some blocks.
#[utoipa::path(post, path = "/admin/channels/{id}/close", operation_id = "adminCloseChannel", tag = "operator",
    params(("id" = String, Path, description = "The channel")),
    request_body = CloseChannelRequestModel,
    responses((status = 200, description = "It is being closed", body = ChannelToldResponse)))]
pub async fn close(
    State(state): State<HttpState>,
    _operator: Operator<ToAdminister>,
    id: AnyId,
    posted: MaybePosted<CloseChannelRequestModel>,
) -> Result<Json<ChannelToldResponse>, Problem> {
    let how = match posted.value.how.unwrap_or_default() {
        How::Cooperative => CloseHow::Cooperative,
        How::Force => CloseHow::Force,
    };
    node_admin::close(&state.flows, &id.0, how).await?;
    Ok(Json(ChannelToldResponse { id: id.0 }))
}

/// What is taken for forwarding.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "base_msat": 1_000, "parts_per_million": 100 }))]
pub struct ChannelFeesRequestModel {
    /// For each payment.
    pub base_msat: u32,
    /// Of the amount.
    pub parts_per_million: u32,
}

/// Set a channel's fees
///
/// What the node takes for forwarding over this channel from now on. Payments of wallets of this gateway are not concerned.
#[utoipa::path(post, path = "/admin/channels/{id}/fees", operation_id = "adminChannelFees", tag = "operator",
    params(("id" = String, Path, description = "The channel")),
    request_body = ChannelFeesRequestModel,
    responses((status = 200, description = "They are in force", body = ChannelToldResponse)))]
pub async fn set_fees(
    State(state): State<HttpState>,
    _operator: Operator<ToAdminister>,
    id: AnyId,
    posted: Posted<ChannelFeesRequestModel>,
) -> Result<Json<ChannelToldResponse>, Problem> {
    let ChannelFeesRequestModel { base_msat, parts_per_million } = posted.value;
    let base = Amount::from_msat(u64::from(base_msat)).map_err(|_| Error::field("base_msat", "is too much"))?;
    node_admin::set_fees(&state.flows, &id.0, ForwardingFees { base, parts_per_million }).await?;
    Ok(Json(ChannelToldResponse { id: id.0 }))
}

fn public_key(field: &'static str, text: &str) -> Result<PublicKey, Problem> {
    let detail = format!("{field}: must be a public key of 66 hexadecimal digits");
    text.parse().map_err(|_| Problem::field(Code::InvalidRequest, field, detail))
}
