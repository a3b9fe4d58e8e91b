//! What a text that is to be paid is, by how it is written.

use super::starts_with_ignoring_case;

const LIGHTNING: &str = "lightning:";
/// How BOLT 11 begins on each network.
const INVOICES: [&str; 5] = ["lnbcrt", "lnbc", "lntbs", "lntb", "lnsb"];
const OFFER: &str = "lno1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An address or a `bitcoin:` URI.
    Onchain,
    /// BOLT 11.
    Invoice,
    /// BOLT 12.
    Offer,
    Rgb,
    /// LNURL, or a name like a mail address.
    Name,
}

/// What it is, and how it is read on: without the scheme `lightning:`.
#[must_use]
pub fn kind(text: &str) -> (Kind, &str) {
    let bare = without_lightning(text);
    let begins = |prefix: &str| starts_with_ignoring_case(bare, prefix);
    let kind = if INVOICES.into_iter().any(begins) {
        Kind::Invoice
    } else if begins(OFFER) {
        Kind::Offer
    } else if begins("rgb:") {
        Kind::Rgb
    } else if begins("lnurl") || (bare.contains('@') && !begins("bitcoin:")) {
        Kind::Name
    } else if bare.len() < text.trim().len() {
        // Whoever writes the scheme means Lightning: the reader of invoices says what is wrong.
        Kind::Invoice
    } else {
        Kind::Onchain
    };
    (kind, bare)
}

/// An invoice or offer as it is written in links and QR codes, without the scheme.
#[must_use]
pub fn without_lightning(text: &str) -> &str {
    let text = text.trim();
    if starts_with_ignoring_case(text, LIGHTNING) { text.get(LIGHTNING.len()..).unwrap_or_default() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_string_says_what_it_is() {
        for (text, wanted) in [
            ("bcrt1q", Kind::Onchain),
            ("bitcoin:bcrt1q?label=a@b", Kind::Onchain),
            ("", Kind::Onchain),
            (" LNBCRT1P ", Kind::Invoice),
            ("lightning:lnbc1", Kind::Invoice),
            ("LIGHTNING:nonsense", Kind::Invoice),
            ("lno1abc", Kind::Offer),
            ("lightning:LNO1ABC", Kind::Offer),
            ("rgb:x", Kind::Rgb),
            ("LNURL1ABC", Kind::Name),
            ("lightning:lnurl1abc", Kind::Name),
            ("alice@example.com", Kind::Name),
            ("\u{20bf}alice@example.com", Kind::Name),
        ] {
            assert_eq!(kind(text).0, wanted, "{text}");
        }
        assert_eq!(kind("Lightning:lnbc1").1, "lnbc1");
    }
}
