//! Which mint a keyset is of.
//!
//! Secrets and counters are derived from the seed and the keyset (NUT-13), whatever mint it is of,
//! and a mint's public keys are public: another mint can list them as its own, and pass every
//! request on. Its restore would find the first mint's coins, and its tokens would give them away.
//! So the first mint that is known to have a keyset owns it, on disk, and no other mint's is used.

use crate::error::KeysetConflict;
use crate::tables::{self, OwnedKeyset, Result};
use crate::wallet_store::WalletStore;
use cdk::nuts::Id;
use cdk::nuts::nut02::KeySetVersion;
use paygress_core::model::ids::MintUrl;
use paygress_store::db::Transaction;
use std::collections::{HashMap, HashSet};
use tokio::sync::Mutex;

/// Keysets of one mint, in sat. A mint that rotates its keys each week has so many after 19 years.
pub(crate) const MAX_KEYSETS: usize = 1_000;

/// How the secrets of a keyset are derived from the seed (NUT-13): two of the same derivation have
/// the same secrets. Ids of version 00 are shortened to 31 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum KeysetDerivation {
    Index(u32),
    Keyset(Id),
}

impl KeysetDerivation {
    fn of(keyset: Id) -> Self {
        match keyset.get_version() {
            KeySetVersion::Version00 => Self::Index(u32::from(keyset)),
            KeySetVersion::Version01 => Self::Keyset(keyset),
        }
    }
}

/// A keyset that a mint says is its own.
pub(crate) struct ListedKeyset {
    pub(crate) mint: MintUrl,
    pub(crate) keyset: Id,
}

/// The owner of each derivation that is in use.
struct Owners(HashMap<KeysetDerivation, OwnedKeyset>);

impl Owners {
    fn read(transaction: &mut dyn Transaction) -> Result<Self> {
        let all = tables::owned_keysets(transaction)?;
        Ok(Self(all.into_iter().map(|owned| (KeysetDerivation::of(owned.keyset), owned)).collect()))
    }

    fn has_room(&self, mint: &MintUrl) -> bool {
        self.0.values().filter(|owned| owned.mint == *mint).count() < MAX_KEYSETS
    }

    fn conflict(&self, listed: &ListedKeyset) -> Option<KeysetConflict> {
        let (keyset, mint) = (listed.keyset, listed.mint.clone());
        let Some(owned) = self.0.get(&KeysetDerivation::of(listed.keyset)) else {
            return Some(KeysetConflict::TooMany { keyset, mint });
        };
        match &owned.rival {
            Some(rival) => {
                let other = if mint == owned.mint { rival } else { &owned.mint };
                Some(KeysetConflict::Contested { keyset, mint, other: other.clone() })
            }
            None if mint == owned.mint && listed.keyset == owned.keyset => None,
            None => Some(KeysetConflict::Owned { keyset, mint, owner: owned.mint.clone() }),
        }
    }
}

impl WalletStore {
    /// Makes each mint the owner of the keysets that it lists, unless another mint owns one
    /// already. A keyset that several of these mints list for the first time gets no owner. Returns
    /// the conflicts.
    pub(crate) async fn claim_keysets(
        &self,
        listed: Vec<ListedKeyset>,
    ) -> Result<Vec<KeysetConflict>> {
        let mut mints: HashMap<KeysetDerivation, Vec<MintUrl>> = HashMap::new();
        for one in &listed {
            let of_derivation = mints.entry(KeysetDerivation::of(one.keyset)).or_default();
            if !of_derivation.contains(&one.mint) {
                of_derivation.push(one.mint.clone());
            }
        }
        self.transact(move |transaction| {
            let mut owners = Owners::read(transaction)?;
            for one in &listed {
                let derivation = KeysetDerivation::of(one.keyset);
                if owners.0.contains_key(&derivation) || !owners.has_room(&one.mint) {
                    continue;
                }
                let rival = mints
                    .get(&derivation)
                    .and_then(|mints| mints.iter().find(|mint| **mint != one.mint).cloned());
                let owned = OwnedKeyset { keyset: one.keyset, mint: one.mint.clone(), rival };
                tables::insert_owned_keyset(transaction, &owned)?;
                owners.0.insert(derivation, owned);
            }
            Ok(listed.iter().filter_map(|one| owners.conflict(one)).collect())
        })
        .await
    }

    /// Gives up what mints own that are accepted no more, if nothing was made with it: so the
    /// operator decides a conflict.
    pub(crate) async fn release_keysets(&self, accepted: Vec<MintUrl>) -> Result<()> {
        self.transact(move |transaction| {
            for owned in tables::owned_keysets(transaction)? {
                let is_accepted = |mint: &MintUrl| accepted.contains(mint);
                let is_released = match &owned.rival {
                    Some(rival) => !is_accepted(&owned.mint) || !is_accepted(rival),
                    None => {
                        !is_accepted(&owned.mint)
                            && tables::next_counter(transaction, owned.keyset)? == 0
                    }
                };
                if is_released {
                    tables::delete_owned_keyset(transaction, owned.keyset)?;
                }
            }
            Ok(())
        })
        .await
    }
}

/// What one mint's wallet knows of its keysets.
pub(crate) struct KeysetOwners {
    mint: MintUrl,
    store: WalletStore,
    /// Claimed before. It does not change while the process runs.
    known: Mutex<HashMap<Id, Option<KeysetConflict>>>,
}

impl KeysetOwners {
    pub(crate) fn new(mint: MintUrl, store: WalletStore) -> Self {
        Self { mint, store, known: Mutex::default() }
    }

    /// Which of these keysets may not be used, and why. Those that nobody owns yet become this
    /// mint's.
    pub(crate) async fn conflicts(
        &self,
        keysets: impl Iterator<Item = Id> + Send,
    ) -> Result<HashMap<Id, KeysetConflict>> {
        let keysets: HashSet<Id> = keysets.collect();
        let mut known = self.known.lock().await;
        if keysets.iter().any(|keyset| !known.contains_key(keyset)) {
            if known.len() > MAX_KEYSETS {
                // The mint invents them.
                known.clear();
            }
            let listed = keysets
                .iter()
                .map(|keyset| ListedKeyset { mint: self.mint.clone(), keyset: *keyset });
            let conflicts = self.store.claim_keysets(listed.collect()).await?;
            known.extend(keysets.iter().map(|keyset| (*keyset, None)));
            for conflict in conflicts {
                tracing::error!(%conflict, "keyset is not used");
                known.insert(conflict.keyset(), Some(conflict));
            }
        }
        let conflict = |keyset: &Id| Some((*keyset, known.get(keyset)?.clone()?));
        Ok(keysets.iter().filter_map(conflict).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// As version 00 ids, these differ by 2^31 - 1.
    const COLLIDING: [&str; 2] = ["0000000000000005", "0000000080000004"];
    const OTHER: &str = "009a1f293253e41e";

    fn mint(name: &str) -> MintUrl {
        MintUrl::parse(format!("https://{name}.example")).unwrap()
    }

    fn listed(name: &str, keyset: &str) -> ListedKeyset {
        ListedKeyset { mint: mint(name), keyset: keyset.parse().unwrap() }
    }

    async fn store(directory: &Path) -> WalletStore {
        WalletStore::sqlite(&directory.join("wallet.sqlite")).await.unwrap()
    }

    #[tokio::test]
    async fn a_keyset_is_of_the_mint_that_listed_it_first_and_so_are_those_with_its_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let first = store(directory.path()).await;
        assert_eq!(first.claim_keysets(vec![listed("h", COLLIDING[0])]).await.unwrap(), []);
        drop(first);
        let store = store(directory.path()).await;
        for keyset in COLLIDING {
            let conflicts = store.claim_keysets(vec![listed("e", keyset)]).await.unwrap();
            let text = conflicts.iter().map(ToString::to_string).collect::<String>();
            assert!(text.contains("h.example") && text.contains("e.example"), "{text}");
        }
        // Nor may a mint have the same secrets twice.
        let own = store.claim_keysets(vec![listed("h", COLLIDING[1])]).await.unwrap();
        assert!(matches!(own.as_slice(), [KeysetConflict::Owned { .. }]), "{own:?}");
        let all = vec![listed("h", COLLIDING[0]), listed("e", OTHER)];
        assert_eq!(store.claim_keysets(all).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_two_mints_list_first_is_nobodys_until_the_operator_has_removed_one() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path()).await;
        let both = || vec![listed("h", OTHER), listed("e", OTHER)];
        for _ in 0..2 {
            let conflicts = store.claim_keysets(both()).await.unwrap();
            assert!(
                matches!(
                    conflicts.as_slice(),
                    [KeysetConflict::Contested { .. }, KeysetConflict::Contested { .. }]
                ),
                "{conflicts:?}"
            );
        }
        store.release_keysets(vec![mint("h"), mint("e")]).await.unwrap();
        assert_eq!(store.claim_keysets(vec![listed("h", OTHER)]).await.unwrap().len(), 1);
        store.release_keysets(vec![mint("h")]).await.unwrap();
        assert_eq!(store.claim_keysets(vec![listed("h", OTHER)]).await.unwrap(), []);
        assert_eq!(store.claim_keysets(both()).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_mint_that_invents_keysets_does_not_fill_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path()).await;
        let owners = KeysetOwners::new(mint("e"), store.clone());
        for (round, refused) in [(0, 0), (1, 200), (2, 600)] {
            let invented = (0..600_u32).map(|n| format!("00{round:07x}{n:07x}").parse().unwrap());
            let conflicts = owners.conflicts(invented).await.unwrap();
            assert_eq!(conflicts.len(), refused);
        }
        assert_eq!(store.claim_keysets(vec![listed("h", OTHER)]).await.unwrap(), []);
    }

    #[tokio::test]
    async fn keysets_of_a_wallet_of_version_0_1_0_are_those_of_the_mints_that_it_used() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/tests/fixtures/v0.1.0");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("wallet.sqlite");
        std::fs::copy(fixtures.join("wallet.sqlite"), file).unwrap();
        let store = store(directory.path()).await;
        for (keyset, owner) in [
            (
                "010ceaac6eabdc9587757cd9c7d63e3c9d7918ef136d951561f8e359f15301323d",
                "http://127.0.0.1:9",
            ),
            (
                "01979766408c898e532d0f35d30582b1913dc702b7778803e0cec90d1df7f952ed",
                "http://127.0.0.1:13",
            ),
        ] {
            let owner = MintUrl::parse(owner).unwrap();
            store.release_keysets(Vec::new()).await.unwrap();
            let conflicts = store.claim_keysets(vec![listed("e", keyset)]).await.unwrap();
            let mint = mint("e");
            let keyset = keyset.parse().unwrap();
            assert_eq!(conflicts, [KeysetConflict::Owned { keyset, mint, owner }]);
        }
    }
}
