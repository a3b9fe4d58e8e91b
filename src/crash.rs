//! Named points at which a test kills the process, to prove that nothing is lost there. Compiled out of release builds.

/// The environment variable that names the point to die at. `point:3` dies at the third visit.
pub const VARIABLE: &str = "SLUICE_CRASH_AT";

/// Every point there is. The crash tests walk this list.
pub const POINTS: &[&str] = &[
    "store.before_commit",
    "store.after_commit",
    "register.committed",
    "address.committed",
    "begin.committed",
    "end.committed",
    "end.broadcast",
    "bump.committed",
    "bump_end.committed",
    "effects.claimed",
    "effects.offered",
    "expiry.committed",
    "follow.first_block_committed",
    "follow.block_committed",
    "follow.block_disconnected",
    "follow.mempool_committed",
    "scan.widened",
    "scan.committed",
    "role.acquired",
    "events.numbered",
];

/// The same for what needs a Lightning node.
pub const LIGHTNING_POINTS: &[&str] = &[
    "invoice.made",
    "invoice.committed",
    "pay_begin.committed",
    "pay_end.committed",
    "pay_with_key.committed",
    "node.payment_staged",
    "node.before_commit",
    "node.after_commit",
    "node.sent",
    "node.pay_ordered",
    "node.pay_concluded",
    "node.claimable",
    "node.claiming",
    "node.claim_ordered",
    "node.claimed",
    "node.credited",
];

/// The same for what moves money between the chain and the node's channels.
pub const RAIL_POINTS: &[&str] = &[
    "settle.bound",
    "withdraw_begin.committed",
    "withdraw_end.committed",
    "node.send_held",
    "withdraw.sent",
    "withdraw.concluded",
    "withdraw.cancelled",
];

/// Points that a gateway passes when a channel is closed for a withdrawal.
pub const CLOSING_POINTS: &[&str] =
    &["withdraw.close_begun", "withdraw.close_asked", "withdraw.close_mined", "withdraw.swept"];

/// The same for what needs an engine for assets.
pub const ASSET_POINTS: &[&str] = &["issue.committed", "issue.done"];

/// Points that a gateway passes while an asset goes from one of its wallets to another.
pub const TRANSFER_POINTS: &[&str] = &[
    "asset_receive.made",
    "asset_receive.committed",
    "asset_send.made",
    "asset_send.committed",
    "asset_send.ended",
    "asset_send.brought",
    "asset_receive.looked_at",
    "asset_receive.answered",
    "asset_send.sent_out",
    "asset_send.out_committed",
];

/// Dies here, at once and without clean-up, when a test asked for it.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let wanted = std::env::var(VARIABLE).ok()?;
        let (name, visit) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some((name.to_owned(), visit.parse().unwrap_or(1)))
    });
    static VISITS: AtomicU64 = AtomicU64::new(0);

    let Some((wanted, visit)) = &*WANTED else { return };
    if wanted == name && VISITS.fetch_add(1, Ordering::SeqCst) + 1 == *visit {
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub const fn point(_name: &str) {}
