//! The audit's questions to the database. Each finds rows that break a rule, and counts what it looked at. It writes nothing.

use bitcoin::OutPoint;
use sqlx::any::AnyRow;

use super::row::Columns;
use super::{Conn, StoreError};
use crate::ids::{RequestId, WalletId};

/// A rule as two queries: how many rows it is about, and which of them break it (a text each). What breaks a rule about the chain, or about
/// one wallet's own requests, names the wallet beside it: that is what a wallet may bring about, and it concerns nobody else.
pub struct Rule {
    pub name: &'static str,
    pub count: &'static str,
    pub broken: &'static str,
}

/// Rules that the database can check on its own.
pub const RULES: &[Rule] = &[
    Rule {
        name: "balances_are_the_fold_of_postings",
        count: "SELECT COUNT(*) AS n FROM balances",
        // One pass over the postings. What is summed are the upper and the lower halves of the numbers: no sum of them overflows.
        broken: "SELECT b.account || ' ' || b.asset AS what FROM balances b LEFT JOIN \
                 (SELECT account, asset, CAST(SUM(amount / 4294967296) AS BIGINT) AS upper, CAST(SUM(amount % 4294967296) AS BIGINT) AS lower FROM \
                  (SELECT credit AS account, asset, amount FROM postings WHERE kind IN ('post', 'post_hold') UNION ALL \
                   SELECT debit, asset, -amount FROM postings WHERE kind IN ('post', 'post_hold')) legs GROUP BY account, asset) f \
                 ON f.account = b.account AND f.asset = b.asset \
                 WHERE (COALESCE(f.lower, 0) - b.total % 4294967296) % 4294967296 <> 0 \
                 OR COALESCE(f.upper, 0) + (COALESCE(f.lower, 0) - b.total % 4294967296) / 4294967296 <> b.total / 4294967296 \
                 OR b.held <> (SELECT CAST(COALESCE(SUM(h.amount), 0) AS BIGINT) FROM holds h WHERE h.debit = b.account AND h.asset = b.asset)",
    },
    Rule {
        name: "every_account_posted_to_has_a_balance",
        count: "SELECT COUNT(*) AS n FROM postings",
        broken: "SELECT p.id AS what FROM postings p WHERE NOT EXISTS (SELECT 1 FROM balances b WHERE b.account = p.debit AND b.asset = p.asset) \
                 OR (p.kind IN ('post', 'post_hold') AND NOT EXISTS (SELECT 1 FROM balances b WHERE b.account = p.credit AND b.asset = p.asset))",
    },
    Rule {
        name: "the_ledger_sums_to_zero",
        count: "SELECT COUNT(DISTINCT asset) AS n FROM balances",
        broken: "SELECT asset AS what FROM (SELECT asset, CAST(SUM(total / 4294967296) AS BIGINT) AS upper, \
                 CAST(SUM(total % 4294967296) AS BIGINT) AS lower FROM balances GROUP BY asset) s \
                 WHERE lower % 4294967296 <> 0 OR upper + lower / 4294967296 <> 0",
    },
    Rule {
        name: "postings_belong_to_requests_or_entries",
        count: "SELECT COUNT(*) AS n FROM postings",
        broken: "SELECT p.id AS what FROM postings p LEFT JOIN requests r ON r.id = p.request_id \
                 LEFT JOIN book_entries e ON e.id = p.request_id WHERE r.id IS NULL AND e.id IS NULL",
    },
    Rule {
        name: "holds_are_open_postings_of_open_requests",
        count: "SELECT COUNT(*) AS n FROM holds",
        broken: "SELECT h.id AS what FROM holds h LEFT JOIN postings p ON p.id = h.id AND p.kind = 'hold' AND p.amount = h.amount \
                 WHERE p.id IS NULL OR EXISTS (SELECT 1 FROM postings c WHERE c.hold_id = h.id) \
                 OR EXISTS (SELECT 1 FROM requests r WHERE r.id = h.request_id AND r.is_open = 0)",
    },
    Rule {
        name: "every_hold_posting_is_open_or_closed",
        count: "SELECT COUNT(*) AS n FROM postings WHERE kind = 'hold'",
        broken: "SELECT p.id AS what FROM postings p WHERE p.kind = 'hold' AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.id = p.id) \
                 AND NOT EXISTS (SELECT 1 FROM postings c WHERE c.hold_id = p.id)",
    },
    Rule {
        name: "events_are_numbered_without_gaps",
        count: "SELECT COUNT(*) AS n FROM events",
        broken: "SELECT 'counts differ' AS what FROM (SELECT (SELECT COUNT(*) FROM event_order) AS ordered, \
                 (SELECT COALESCE(MAX(seq), 0) FROM event_order) AS last, (SELECT COUNT(*) FROM events_unnumbered) AS waiting, \
                 (SELECT COUNT(*) FROM events) AS written) c WHERE ordered <> last OR ordered + waiting <> written",
    },
    Rule {
        name: "leases_belong_to_open_sends",
        count: "SELECT COUNT(*) AS n FROM leases",
        broken: "SELECT l.outpoint AS what, l.wallet_id AS wallet FROM leases l LEFT JOIN requests r ON r.id = l.request_id AND r.wallet_id = l.wallet_id \
                 WHERE r.id IS NULL OR r.kind <> 'onchain_send' OR r.is_open = 0",
    },
    Rule {
        name: "sends_have_an_original_transaction",
        count: "SELECT COUNT(*) AS n FROM requests WHERE kind = 'onchain_send'",
        broken: "SELECT r.id AS what, r.wallet_id AS wallet FROM requests r WHERE r.kind = 'onchain_send' AND \
                 (SELECT COUNT(*) FROM request_txs t WHERE t.request_id = r.id AND t.role = 'original' AND t.wallet_id = r.wallet_id) <> 1",
    },
    Rule {
        name: "issued_transactions_belong_to_sends",
        count: "SELECT COUNT(*) AS n FROM request_txs",
        broken: "SELECT t.unsigned_txid AS what FROM request_txs t LEFT JOIN requests r ON r.id = t.request_id \
                 WHERE r.id IS NULL OR r.kind <> 'onchain_send' OR r.wallet_id <> t.wallet_id",
    },
    Rule {
        name: "payment_lines_copy_their_requests",
        count: "SELECT COUNT(*) AS n FROM payments",
        broken: "SELECT r.id AS what FROM requests r LEFT JOIN payments p ON p.request_id = r.id \
                 WHERE r.kind IN ('lightning_receive', 'lightning_pay') AND (p.request_id IS NULL OR p.wallet_id <> r.wallet_id \
                 OR p.created_at <> r.created_at OR p.updated_at <> r.updated_at OR p.inbound <> CASE r.kind WHEN 'lightning_receive' THEN 1 ELSE 0 END \
                 OR p.status <> CASE r.state WHEN 'awaiting_signature' THEN 'waiting' WHEN 'open' THEN 'pending' WHEN 'claiming' THEN 'pending' \
                 WHEN 'paying' THEN 'pending' WHEN 'settled' THEN 'succeeded' WHEN 'succeeded' THEN 'succeeded' \
                 WHEN 'expired' THEN CASE r.kind WHEN 'lightning_pay' THEN 'void' ELSE 'failed' END ELSE 'failed' END) \
                 UNION ALL SELECT p.request_id FROM payments p LEFT JOIN requests r ON r.id = p.request_id \
                 WHERE r.id IS NULL OR r.kind NOT IN ('lightning_receive', 'lightning_pay')",
    },
    Rule {
        name: "payments_have_an_authorization_that_was_signed_before_they_were_paid",
        count: "SELECT COUNT(*) AS n FROM requests WHERE kind IN ('lightning_pay', 'withdraw')",
        broken: "SELECT r.id AS what FROM requests r LEFT JOIN authorizations a ON a.request_id = r.id AND a.wallet_id = r.wallet_id \
                 WHERE r.kind IN ('lightning_pay', 'withdraw') AND (a.request_id IS NULL OR (a.signed_tx IS NULL \
                 AND r.state IN ('paying', 'succeeded', 'requested', 'queued', 'closing_channels', 'waiting_close', 'sweeping', 'broadcast', 'seen', 'confirmed'))) \
                 AND NOT EXISTS (SELECT 1 FROM key_payments k WHERE k.request_id = r.id)",
    },
    Rule {
        name: "payments_by_keys_were_granted",
        count: "SELECT COUNT(*) AS n FROM key_payments",
        // The owner has signed, the time was not over, and no other consent stands beside the grant.
        broken: "SELECT k.request_id AS what FROM key_payments k LEFT JOIN requests r ON r.id = k.request_id AND r.wallet_id = k.wallet_id \
                 LEFT JOIN spending_grants g ON g.key_id = k.key_id AND g.wallet_id = k.wallet_id \
                 WHERE r.id IS NULL OR g.signed_at IS NULL OR k.held_at >= g.expires_at \
                 OR EXISTS (SELECT 1 FROM authorizations a WHERE a.request_id = k.request_id)",
    },
    Rule {
        name: "payments_by_keys_count_what_is_held_or_was_paid",
        count: "SELECT COUNT(*) AS n FROM key_payments",
        broken: "SELECT k.request_id AS what FROM key_payments k WHERE k.amount <> \
                 COALESCE((SELECT h.amount FROM holds h WHERE h.request_id = k.request_id AND h.asset = k.asset), \
                 (SELECT p.amount FROM postings p WHERE p.request_id = k.request_id AND p.kind = 'post_hold' AND p.asset = k.asset), 0)",
    },
    Rule {
        name: "budgets_of_keys_are_the_fold_of_their_payments",
        count: "SELECT COUNT(*) AS n FROM spending_budgets",
        broken: "SELECT b.key_id || ' ' || b.asset || ' per ' || b.period AS what FROM spending_budgets b \
                 LEFT JOIN spending_limits l ON l.key_id = b.key_id AND l.asset = b.asset AND l.period = b.period \
                 WHERE l.key_id IS NULL OR b.used > l.amount OR b.used <> (SELECT CAST(COALESCE(SUM(k.amount), 0) AS BIGINT) FROM key_payments k \
                 WHERE k.key_id = b.key_id AND k.asset = b.asset AND k.held_at >= b.starts_at AND k.held_at < b.ends_at)",
    },
    Rule {
        name: "every_payment_by_a_key_is_in_a_budget_of_each_limit",
        count: "SELECT COUNT(*) AS n FROM key_payments",
        broken: "SELECT k.request_id AS what FROM key_payments k WHERE NOT EXISTS \
                 (SELECT 1 FROM spending_limits l WHERE l.key_id = k.key_id AND l.asset = k.asset) OR EXISTS \
                 (SELECT 1 FROM spending_limits l WHERE l.key_id = k.key_id AND l.asset = k.asset AND \
                 (SELECT COUNT(*) FROM spending_budgets b WHERE b.key_id = l.key_id AND b.asset = l.asset AND b.period = l.period \
                  AND b.starts_at <= k.held_at AND b.ends_at > k.held_at) <> 1)",
    },
    Rule {
        name: "grants_that_were_given_made_one_key",
        count: "SELECT COUNT(*) AS n FROM spending_grants WHERE signed_at IS NOT NULL",
        broken: "SELECT g.key_id AS what FROM spending_grants g LEFT JOIN api_keys k ON k.id = g.key_id AND k.hash = g.key_hash \
                 AND k.scopes = g.scopes AND k.expires_at = g.expires_at AND k.created_at = g.signed_at \
                 WHERE (g.signed_at IS NULL) <> (k.id IS NULL) OR NOT EXISTS (SELECT 1 FROM spending_limits l WHERE l.key_id = g.key_id)",
    },
    Rule {
        name: "what_is_settled_was_credited_and_nothing_else",
        count: "SELECT COUNT(*) AS n FROM requests WHERE kind = 'lightning_receive' AND state = 'settled'",
        // A transfer in the books is one posting of the payer's request, for the same hash.
        broken: "SELECT r.id AS what FROM requests r JOIN payments p ON p.request_id = r.id WHERE r.kind = 'lightning_receive' \
                 AND CASE r.state WHEN 'settled' THEN 1 ELSE 0 END <> \
                 (SELECT COUNT(*) FROM postings c WHERE c.request_id = r.id AND c.kind = 'post' AND c.amount = p.amount_msat \
                  AND c.credit = 'wallet:' || r.wallet_id) + \
                 (SELECT COUNT(*) FROM payments q JOIN postings c ON c.request_id = q.request_id AND c.kind = 'post_hold' AND c.amount = p.amount_msat \
                  AND c.credit = 'wallet:' || r.wallet_id WHERE q.payment_hash = p.payment_hash AND q.inbound = 0)",
    },
    Rule {
        name: "what_the_books_settled_was_paid_in_full",
        count: "SELECT COUNT(*) AS n FROM payments WHERE inbound = 1 AND status = 'succeeded'",
        // What the channels brought was looked at when it was held; a transfer is the payer's posting for the same hash.
        broken: "SELECT p.request_id AS what FROM payments p WHERE p.inbound = 1 AND p.status = 'succeeded' AND p.amount_msat < p.asked_msat \
                 AND EXISTS (SELECT 1 FROM payments q JOIN postings c ON c.request_id = q.request_id AND c.kind = 'post_hold' \
                 AND c.credit = 'wallet:' || p.wallet_id WHERE q.payment_hash = p.payment_hash AND q.inbound = 0)",
    },
    Rule {
        name: "a_payment_holds_until_it_is_over_and_is_debited_once",
        count: "SELECT COUNT(*) AS n FROM requests WHERE kind = 'lightning_pay'",
        broken: "SELECT r.id AS what FROM requests r WHERE r.kind = 'lightning_pay' AND ( \
                 (SELECT COUNT(*) FROM holds h WHERE h.request_id = r.id) <> r.is_open \
                 OR (SELECT COUNT(*) FROM postings c WHERE c.request_id = r.id AND c.kind = 'hold') <> 1 \
                 OR (r.state IN ('failed', 'expired') AND NOT EXISTS (SELECT 1 FROM postings c WHERE c.request_id = r.id AND c.kind = 'void_hold')) \
                 OR (r.state = 'succeeded' AND NOT EXISTS (SELECT 1 FROM postings c WHERE c.request_id = r.id AND (c.kind = 'post_hold' OR c.debit = 'operator:suspense'))))",
    },
    Rule {
        name: "a_credit_is_posted_while_it_stands",
        count: "SELECT COUNT(*) AS n FROM requests WHERE kind = 'settle_credit'",
        broken: "SELECT r.id AS what FROM requests r LEFT JOIN credits c ON c.request_id = r.id AND c.wallet_id = r.wallet_id \
                 WHERE r.kind = 'settle_credit' AND (c.request_id IS NULL OR \
                 (SELECT CAST(COALESCE(SUM(p.amount), 0) AS BIGINT) FROM postings p WHERE p.request_id = r.id AND p.debit = 'node:crossing' \
                  AND p.credit = 'wallet:' || r.wallet_id) - \
                 (SELECT CAST(COALESCE(SUM(p.amount), 0) AS BIGINT) FROM postings p WHERE p.request_id = r.id AND p.credit = 'node:crossing' \
                  AND p.debit IN ('wallet:' || r.wallet_id, 'debt:' || r.wallet_id)) \
                 <> CASE r.state WHEN 'credited' THEN c.amount_sat * 1000 ELSE 0 END)",
    },
    Rule {
        name: "credits_stand_as_their_transactions_do",
        count: "SELECT COUNT(*) AS n FROM credits",
        broken: "SELECT c.outpoint AS what, c.wallet_id AS wallet FROM credits c JOIN requests r ON r.id = c.request_id LEFT JOIN txs t ON t.txid = c.txid \
                 WHERE t.txid IS NULL OR (t.status = 'mined') <> (r.state IN ('mined', 'credited')) OR (t.status = 'evicted') <> (r.state = 'evicted') \
                 OR (t.status = 'replaced') <> (r.state = 'replaced')",
    },
    Rule {
        name: "only_who_has_nothing_left_is_in_debt",
        count: "SELECT COUNT(*) AS n FROM balances WHERE account LIKE 'debt:%'",
        // Nothing but bitcoin is ever owed.
        broken: "SELECT d.account AS what, SUBSTR(d.account, 6) AS wallet FROM balances d JOIN balances w ON w.account = 'wallet:' || SUBSTR(d.account, 6) AND w.asset = d.asset \
                 WHERE d.account LIKE 'debt:%' AND d.asset = 'btc' AND d.total < 0 AND w.total > w.held",
    },
    Rule {
        name: "a_withdrawal_holds_until_it_is_sent_and_is_debited_once",
        count: "SELECT COUNT(*) AS n FROM requests WHERE kind = 'withdraw'",
        broken: "SELECT r.id AS what FROM requests r WHERE r.kind = 'withdraw' AND ( \
                 (SELECT COUNT(*) FROM holds h WHERE h.request_id = r.id) <> CASE WHEN r.state IN ('awaiting_signature', 'requested', 'queued', 'closing_channels', 'waiting_close', 'sweeping') THEN 1 ELSE 0 END \
                 OR (SELECT COUNT(*) FROM postings c WHERE c.request_id = r.id AND c.kind = 'hold') <> 1 \
                 OR (SELECT COUNT(*) FROM postings c WHERE c.request_id = r.id AND (c.kind = 'void_hold' OR (c.kind = 'post_hold' AND c.credit = 'node:crossing'))) <> \
                 CASE WHEN r.state IN ('broadcast', 'seen', 'confirmed', 'cancelled', 'expired') THEN 1 ELSE 0 END \
                 OR (r.state IN ('cancelled', 'expired') AND NOT EXISTS (SELECT 1 FROM postings c WHERE c.request_id = r.id AND c.kind = 'void_hold')) \
                 OR (r.state IN ('broadcast', 'seen', 'confirmed') AND NOT EXISTS (SELECT 1 FROM postings c WHERE c.request_id = r.id AND c.credit = 'node:crossing' \
                 AND (c.kind = 'post_hold' OR (c.kind = 'post' AND c.debit = 'operator:suspense')))))",
    },
    Rule {
        name: "withdrawals_stand_as_their_blocks_do",
        count: "SELECT COUNT(*) AS n FROM withdrawals",
        broken: "SELECT w.txid AS what, w.wallet_id AS wallet FROM withdrawals w LEFT JOIN requests r ON r.id = w.request_id AND r.wallet_id = w.wallet_id AND r.kind = 'withdraw' \
                 WHERE r.id IS NULL OR (w.height IS NOT NULL) <> (r.state IN ('seen', 'confirmed')) \
                 UNION ALL SELECT r.id, r.wallet_id FROM requests r WHERE r.kind = 'withdraw' AND r.state IN ('broadcast', 'seen', 'confirmed') \
                 AND NOT EXISTS (SELECT 1 FROM withdrawals w WHERE w.request_id = r.id)",
    },
    Rule {
        name: "what_waits_for_the_node_has_an_effect",
        count: "SELECT COUNT(*) AS n FROM requests WHERE state IN ('paying', 'claiming', 'requested', 'queued', 'closing_channels', 'waiting_close', 'sweeping')",
        broken: "SELECT r.id AS what, r.wallet_id AS wallet FROM requests r WHERE r.state IN ('paying', 'claiming', 'requested', 'queued', 'closing_channels', 'waiting_close', 'sweeping') AND NOT EXISTS \
                 (SELECT 1 FROM effects e WHERE e.request_id = r.id AND e.done_at IS NULL)",
    },
    Rule {
        name: "every_index_up_to_the_last_derived_has_a_script",
        count: "SELECT COUNT(*) AS n FROM keychains WHERE released_at IS NULL",
        broken: "SELECT k.wallet_id || ' ' || k.account AS what, k.wallet_id AS wallet FROM keychains k WHERE k.released_at IS NULL AND (k.next_index > k.derived_to \
                 OR k.derived_to <> (SELECT COUNT(*) FROM scripts s WHERE s.wallet_id = k.wallet_id AND s.account = k.account))",
    },
    Rule {
        name: "issued_scripts_belong_to_requests",
        count: "SELECT COUNT(*) AS n FROM scripts WHERE purpose IS NOT NULL",
        broken: "SELECT s.script AS what, s.wallet_id AS wallet FROM scripts s JOIN keychains k ON k.wallet_id = s.wallet_id AND k.account = s.account \
                 LEFT JOIN requests r ON r.id = s.request_id WHERE s.purpose IS NOT NULL AND (s.idx >= k.next_index OR r.id IS NULL \
                 OR r.wallet_id <> s.wallet_id OR r.kind NOT IN ('onchain_receive', 'onchain_send', 'asset_receive') \
                 OR (s.purpose = 'receive') <> (r.kind = 'onchain_receive'))",
    },
    Rule {
        name: "an_address_is_handed_out_once",
        count: "SELECT COUNT(*) AS n FROM requests WHERE kind = 'onchain_receive'",
        broken: "SELECT r.id AS what, r.wallet_id AS wallet FROM requests r JOIN wallets w ON w.id = r.wallet_id AND w.released_at IS NULL \
                 WHERE r.kind = 'onchain_receive' AND r.created_at >= w.created_at AND \
                 (SELECT COUNT(*) FROM scripts s WHERE s.request_id = r.id AND s.purpose = 'receive') > 1",
    },
    Rule {
        name: "deposits_are_coins_on_receive_scripts",
        count: "SELECT COUNT(*) AS n FROM deposits",
        broken: "SELECT d.outpoint AS what, d.wallet_id AS wallet FROM deposits d JOIN wallets w ON w.id = d.wallet_id AND w.released_at IS NULL \
                 JOIN requests r ON r.id = d.request_id AND r.created_at >= w.created_at LEFT JOIN coins c ON c.outpoint = d.outpoint LEFT JOIN scripts s ON s.script = c.script \
                 WHERE c.outpoint IS NULL OR c.amount_sat <> d.amount_sat OR c.wallet_id <> d.wallet_id OR s.purpose IS NULL OR s.purpose <> 'receive' \
                 OR (r.state <> 'own') = EXISTS (SELECT 1 FROM spends x JOIN coins o ON o.outpoint = x.outpoint WHERE x.txid = d.txid AND o.wallet_id = d.wallet_id)",
    },
    Rule {
        name: "every_payment_to_a_receive_script_is_a_deposit",
        count: "SELECT COUNT(*) AS n FROM coins c JOIN scripts s ON s.script = c.script WHERE s.purpose = 'receive'",
        broken: "SELECT c.outpoint AS what, c.wallet_id AS wallet FROM coins c JOIN scripts s ON s.script = c.script JOIN txs t ON t.txid = c.txid \
                 JOIN requests r ON r.id = s.request_id AND r.state <> 'used_before' \
                 WHERE s.purpose = 'receive' AND t.status IN ('mempool', 'mined') AND NOT EXISTS (SELECT 1 FROM deposits d WHERE d.outpoint = c.outpoint) \
                 AND NOT EXISTS (SELECT 1 FROM spends x JOIN coins o ON o.outpoint = x.outpoint WHERE x.txid = c.txid AND o.wallet_id = c.wallet_id)",
    },
    Rule {
        name: "deposits_stand_as_their_transactions_do",
        count: "SELECT COUNT(*) AS n FROM deposits",
        broken: "SELECT d.outpoint AS what, d.wallet_id AS wallet FROM deposits d JOIN wallets w ON w.id = d.wallet_id AND w.released_at IS NULL \
                 JOIN requests r ON r.id = d.request_id AND r.created_at >= w.created_at JOIN txs t ON t.txid = d.txid \
                 WHERE r.state <> 'own' AND ((t.status = 'mined') <> (r.state IN ('mined', 'confirmed')) OR (t.status = 'evicted') <> (r.state = 'evicted') \
                 OR (t.status = 'replaced') <> (r.state = 'replaced'))",
    },
    Rule {
        name: "coins_copy_their_transactions",
        count: "SELECT COUNT(*) AS n FROM coins",
        broken: "SELECT c.outpoint AS what, c.wallet_id AS wallet FROM coins c LEFT JOIN txs t ON t.txid = c.txid WHERE t.txid IS NULL OR t.status <> c.status \
                 OR COALESCE(t.height, -1) <> COALESCE(c.height, -1)",
    },
    Rule {
        name: "spent_coins_name_a_live_spender",
        count: "SELECT COUNT(*) AS n FROM coins WHERE spent_by IS NOT NULL",
        broken: "SELECT c.outpoint AS what, c.wallet_id AS wallet FROM coins c LEFT JOIN txs t ON t.txid = c.spent_by WHERE c.spent_by IS NOT NULL AND \
                 (t.txid IS NULL OR t.status NOT IN ('offered', 'mempool', 'mined') OR COALESCE(t.height, -1) <> COALESCE(c.spent_height, -1))",
    },
    Rule {
        name: "no_live_spender_is_forgotten",
        count: "SELECT COUNT(*) AS n FROM spends",
        broken: "SELECT s.outpoint AS what, c.wallet_id AS wallet FROM spends s JOIN txs t ON t.txid = s.txid JOIN coins c ON c.outpoint = s.outpoint \
                 WHERE t.status IN ('offered', 'mempool', 'mined') AND c.spent_by IS NULL",
    },
    Rule {
        name: "no_coin_has_two_mined_spenders",
        count: "SELECT COUNT(*) AS n FROM spends",
        broken: "SELECT s.outpoint AS what FROM spends s JOIN txs t ON t.txid = s.txid WHERE t.status = 'mined' GROUP BY s.outpoint HAVING COUNT(*) > 1",
    },
    Rule {
        name: "nothing_is_mined_above_the_cursor",
        count: "SELECT COUNT(*) AS n FROM txs WHERE height IS NOT NULL",
        broken: "SELECT t.txid AS what FROM txs t WHERE t.height > (SELECT COALESCE(MAX(height), -1) FROM chain_cursor)",
    },
    Rule {
        name: "the_cursor_is_a_remembered_block",
        count: "SELECT COUNT(*) AS n FROM chain_cursor",
        broken: "SELECT c.hash AS what FROM chain_cursor c LEFT JOIN chain_blocks b ON b.height = c.height AND b.hash = c.hash WHERE b.hash IS NULL",
    },
    Rule {
        name: "unfinished_effects_belong_to_requests",
        count: "SELECT COUNT(*) AS n FROM effects WHERE done_at IS NULL",
        broken: "SELECT e.key AS what FROM effects e LEFT JOIN requests r ON r.id = e.request_id WHERE e.done_at IS NULL AND r.id IS NULL",
    },
    Rule {
        name: "idempotency_keys_name_requests",
        count: "SELECT COUNT(*) AS n FROM idempotency",
        broken: "SELECT i.id AS what FROM idempotency i LEFT JOIN requests r ON r.id = i.request_id AND r.wallet_id = i.wallet_id \
                 LEFT JOIN asset_issues a ON a.id = i.request_id AND a.wallet_id = i.wallet_id WHERE r.id IS NULL AND a.id IS NULL",
    },
    Rule {
        name: "transfers_of_assets_belong_to_their_requests",
        count: "SELECT COUNT(*) AS n FROM asset_transfers WHERE request_id IS NOT NULL",
        broken: "SELECT t.wallet_id || ' ' || t.idx AS what, t.wallet_id AS wallet FROM asset_transfers t LEFT JOIN requests r ON r.id = t.request_id AND r.wallet_id = t.wallet_id \
                 WHERE t.request_id IS NOT NULL AND (r.id IS NULL \
                 OR r.kind <> CASE t.kind WHEN 'send' THEN 'onchain_send' WHEN 'receive_blind' THEN 'asset_receive' WHEN 'receive_witness' THEN 'asset_receive' ELSE '' END)",
    },
    Rule {
        name: "requests_for_assets_have_their_transfers",
        count: "SELECT COUNT(*) AS n FROM requests WHERE kind = 'asset_receive' OR state = 'waiting_ack'",
        broken: "SELECT r.id AS what, r.wallet_id AS wallet FROM requests r WHERE (r.kind = 'asset_receive' AND (SELECT COUNT(*) FROM asset_transfers t WHERE t.request_id = r.id) <> 1) \
                 OR (r.state = 'waiting_ack' AND NOT EXISTS (SELECT 1 FROM asset_transfers t WHERE t.request_id = r.id))",
    },
    Rule {
        name: "what_is_over_sets_no_asset_aside",
        count: "SELECT COUNT(*) AS n FROM asset_transfers WHERE status IN ('initiated', 'waiting_counterparty')",
        // Until it is freed, an effect or an intent says that it will be.
        broken: "SELECT t.wallet_id || ' ' || t.idx AS what, t.wallet_id AS wallet FROM asset_transfers t LEFT JOIN requests r ON r.id = t.request_id \
                 WHERE t.status IN ('initiated', 'waiting_counterparty') AND t.kind IN ('send', 'receive_blind', 'receive_witness') \
                 AND (r.id IS NULL OR r.state IN ('expired', 'failed', 'cancelled', 'conflicted')) \
                 AND NOT EXISTS (SELECT 1 FROM effects e WHERE e.key = 'give_up:' || r.id AND e.done_at IS NULL) \
                 AND NOT EXISTS (SELECT 1 FROM asset_intents i WHERE i.wallet_id = t.wallet_id)",
    },
    Rule {
        name: "receipts_of_assets_stand_as_their_transfers_do",
        count: "SELECT COUNT(*) AS n FROM requests WHERE kind = 'asset_receive'",
        broken: "SELECT r.id AS what, r.wallet_id AS wallet FROM requests r JOIN asset_transfers t ON t.request_id = r.id WHERE r.kind = 'asset_receive' AND ( \
                 (r.state IN ('arriving', 'seen', 'reorged') AND t.status NOT IN ('waiting_confirmations', 'settled')) \
                 OR (r.state = 'settled' AND t.status <> 'settled') \
                 OR (r.state = 'seen' AND t.height IS NULL) OR (r.state = 'reorged' AND t.height IS NOT NULL))",
    },
    Rule {
        name: "no_asset_is_in_a_block_above_the_cursor",
        count: "SELECT COUNT(*) AS n FROM asset_transfers WHERE height IS NOT NULL",
        broken: "SELECT t.wallet_id || ' ' || t.idx AS what FROM asset_transfers t WHERE t.height > (SELECT COALESCE(MAX(height), -1) FROM chain_cursor)",
    },
    Rule {
        name: "invoices_for_assets_belong_to_their_addresses",
        count: "SELECT COUNT(*) AS n FROM asset_invoices",
        broken: "SELECT i.address_request AS what FROM asset_invoices i LEFT JOIN requests a ON a.id = i.address_request AND a.kind = 'onchain_receive' \
                 LEFT JOIN requests r ON r.id = i.request_id AND r.kind = 'asset_receive' AND r.wallet_id = a.wallet_id WHERE r.id IS NULL",
    },
    Rule {
        name: "exports_were_signed_in_time",
        count: "SELECT COUNT(*) AS n FROM asset_exports WHERE signed_at IS NOT NULL",
        broken: "SELECT id AS what, wallet_id AS wallet FROM asset_exports WHERE signed_at >= expires_at OR signed_at < created_at",
    },
];

/// Rows that one rule names at most: enough to begin looking.
const NAMED: usize = 20;

/// Checks one rule: how many rows it is about, and some that break it.
///
/// # Errors
/// When the database can't answer.
pub async fn check(conn: &mut Conn, rule: &Rule) -> Result<(u64, Vec<Broken>), StoreError> {
    let count = sqlx::query(rule.count).fetch_one(&mut *conn).await?.number("n")?;
    let rows = sqlx::query(rule.broken).fetch_all(conn).await?;
    // A rule that more wallets break than are named is no matter of a wallet.
    let is_of_wallets = rows.len() <= NAMED && rule.broken.contains(" AS wallet ");
    let read = |row: &AnyRow| {
        let wallet = if is_of_wallets { Some(row.parsed("wallet")?) } else { None };
        Ok(Broken { what: row.take("what")?, wallet })
    };
    let broken = rows.iter().take(NAMED).map(read).collect::<Result<_, StoreError>>()?;
    Ok((count, broken))
}

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub what: String,
    /// Whom alone it concerns; empty where it may concern anybody.
    pub wallet: Option<WalletId>,
}

/// Sends that wait for a signature, for a look into their PSBTs.
///
/// # Errors
/// When the database can't answer.
pub async fn waiting_sends(conn: &mut Conn) -> Result<Vec<RequestId>, StoreError> {
    let rows = sqlx::query(
        "SELECT id FROM requests WHERE kind = 'onchain_send' AND state = 'awaiting_signature' AND is_open = 1",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.parsed("id")).collect()
}

/// Confirmed coins that nothing spends, after an outpoint, in order.
///
/// # Errors
/// When the database can't answer.
pub async fn confirmed_unspent(conn: &mut Conn, after: &str, limit: u32) -> Result<Vec<OutPoint>, StoreError> {
    let rows = sqlx::query(
        "SELECT outpoint FROM coins WHERE status = 'mined' AND spent_height IS NULL AND outpoint > $1 ORDER BY outpoint LIMIT $2",
    )
    .bind(after.to_owned())
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.parsed("outpoint")).collect()
}
