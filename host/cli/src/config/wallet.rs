//! The wallet: its mnemonic, and where its earnings go.

use super::Payout;
use super::reader::Reader;
use paygress_cashu::{Seed, is_valid_lightning_address};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;

impl Reader {
    /// The mnemonic, if given. It is not quoted.
    pub(super) fn mnemonic(&mut self, database: Option<&Secret>) -> Option<Secret> {
        let mnemonic = self.text("WALLET_MNEMONIC").map(Secret::new);
        match &mnemonic {
            Some(given) if Seed::from_mnemonic(given.expose()).is_err() => {
                self.problem("WALLET_MNEMONIC: needs 12 to 24 words of the English BIP-39 list, the last of which is a checksum");
            }
            None if database.is_some() => {
                self.problem("WALLET_MNEMONIC is missing: replicas that share a DATABASE_URL share one wallet, and need the same 12 to 24 words");
            }
            Some(_) | None => {}
        }
        mnemonic
    }

    /// Both settings or neither.
    pub(super) fn payout(&mut self) -> Option<Payout> {
        let address = self.text("PAYOUT_ADDRESS");
        let above = self.number("PAYOUT_ABOVE_SATS", 100..=2_100_000_000_000_000);
        match (address, above) {
            (Some(address), Some(above)) if is_valid_lightning_address(&address) => {
                return Some(Payout { address, above: Sat(above) });
            }
            (Some(_), Some(_)) => {
                self.problem("PAYOUT_ADDRESS: must be a Lightning address, name@domain");
            }
            (None, None) => {}
            _ => self.problem("PAYOUT_ADDRESS and PAYOUT_ABOVE_SATS: set both or neither"),
        }
        None
    }
}
