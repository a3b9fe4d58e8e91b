//! Stories of the Lightning rail as it is outside: a gateway with its built-in node, in a process that can be killed; a peer of another
//! make; a real bitcoind. Each is told on both databases, and ends in the auditor.

mod asset_crashes;
mod asset_reorgs;
pub mod asset_scene;
mod asset_strangers;
pub mod asset_transfers;
mod assets;
mod between_rails;
mod closing;
mod compose;
mod funding;
mod independent;
mod independent_signer;
mod line;
mod liquidity;
mod public_wallet;
mod scene;
mod stuck;
mod withdrawing;

/// Tells a story on both databases, in a scene of this kind.
macro_rules! on_both {
    ($name:ident, $set:expr, $story:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "a short story may need nothing of its file")]
            use super::*;
            use crate::harness::rig::Database;
            use crate::stories::scene::tell;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                tell(Database::Sqlite, $set, $story).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                tell(Database::Postgres, $set, $story).await;
            }
        }
    };
}
use on_both;
