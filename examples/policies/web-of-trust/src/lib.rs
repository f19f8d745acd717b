//! Customers by contact lists (NIP-02): the operator's key, those in its list, those in the lists of
//! these, and so on, up to a distance. All of them may order the images that have a name here.
//!
//! A policy has no network: the lists are settings, made from events of kind 3 that the operator
//! has fetched and whose signatures they have checked:
//! `jq '{of: .pubkey, contacts: [.tags[] | select(.[0] == "p") | .[1]]}'`.

mod key;

use key::{Key, PublicKey};
use paygress_policy_sdk::{
    Context, ImageOffer, ImageRef, Images, MAX_CATALOG_IMAGES, MAX_IMAGE_BYTES, Order, Problems,
    Refusal, RefusalCode,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// As many as may be published, of this length, are within the contract's limit for their text.
const MAX_NAME_BYTES: usize = 200;

// The settings as the operator writes them. Without doc comments: they would be part of the schema.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Web of trust")]
struct Written {
    /// The operator's key, an npub or 64 hex digits. If omitted, no customer may order.
    #[schemars(length(min = 1, max = 64))]
    root: Option<Key>,
    /// 1: the contacts of the root; 2: their contacts too.
    #[schemars(range(min = 0, max = 4))]
    distance: u64,
    /// The contact lists, that of the root among them.
    lists: Vec<ContactList>,
    /// Keys that may not order, and whose lists do not count.
    except: Vec<Key>,
    /// The image of orders that name none, in the complete form.
    default: String,
    /// What customers may write, and the image in the complete form: debian is
    /// docker.io/library/debian:13.
    images: BTreeMap<String, String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ContactList {
    /// Whose list it is.
    #[schemars(length(min = 1, max = 64))]
    of: Key,
    #[serde(default)]
    contacts: Vec<Key>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            root: None,
            distance: 2,
            lists: Vec::new(),
            except: Vec::new(),
            default: "paygress.local/ssh:1".to_owned(),
            images: BTreeMap::new(),
        }
    }
}

/// With those who may order: `configure` finds them once.
#[derive(Deserialize, JsonSchema)]
#[serde(from = "Written")]
#[schemars(with = "Written", description = "")]
pub struct Settings {
    customers: BTreeSet<PublicKey>,
    written: Written,
}

impl From<Written> for Settings {
    fn from(written: Written) -> Self {
        Self { customers: written.customers(), written }
    }
}

impl Written {
    /// The root, and who is in a list of somebody nearer than `distance` to it.
    fn customers(&self) -> BTreeSet<PublicKey> {
        let except: BTreeSet<PublicKey> = self.except.iter().filter_map(Key::bytes).collect();
        let mut reached: BTreeSet<PublicKey> = self.root.iter().filter_map(Key::bytes).collect();
        for _ in 0..self.distance {
            let nearer = reached.clone();
            let is_nearer =
                |list: &&ContactList| list.of.bytes().is_some_and(|of| nearer.contains(&of));
            let contacts = self.lists.iter().filter(is_nearer).flat_map(|list| &list.contacts);
            let contacts = contacts.filter_map(Key::bytes);
            reached.extend(contacts.filter(|contact| !except.contains(contact)));
        }
        reached
    }

    fn check_keys(&self, problems: &mut Problems) {
        key::check(self.root.as_ref(), &["root"], problems);
        key::check_list(&self.except, &["except"], problems);
        for (index, list) in self.lists.iter().enumerate() {
            let index = index.to_string();
            key::check(Some(&list.of), &["lists", &index, "of"], problems);
            key::check_list(&list.contacts, &["lists", &index, "contacts"], problems);
        }
    }
}

paygress_policy_sdk::export!(Images for Settings);

impl Images for Settings {
    fn check(&self, problems: &mut Problems) {
        let Written { default, images, .. } = &self.written;
        self.written.check_keys(problems);
        if !is_image(default, MAX_IMAGE_BYTES) {
            problems.add(&["default"], "must be a name of an image in the complete form");
        }
        if images.len() >= MAX_CATALOG_IMAGES {
            problems.add(&["images"], "must have at most 63 entries");
        }
        for (name, image) in images {
            if !is_image(name, MAX_NAME_BYTES) || !is_image(image, MAX_IMAGE_BYTES) {
                let message = format!("{name} is {image}: this is not a name of an image");
                problems.add(&["images"], message);
            }
        }
    }

    fn admit(&self, order: &Order, _: &Context) -> Result<ImageRef, Refusal> {
        // `bearer:…` and the empty customer are no public keys.
        let is_known = key::parse(&order.customer).is_some_and(|key| self.customers.contains(&key));
        if !is_known {
            return Err(refuse(
                "this service is for people whom its operator knows by contact lists, and your key is not among them",
            ));
        }
        let reference = self.image(order.image.as_deref())?.to_owned();
        Ok(ImageRef { reference })
    }

    /// At most 64 names of 200 bytes, and the default.
    fn catalog(&self, _: &Context) -> Vec<ImageOffer> {
        let Written { default, images, .. } = &self.written;
        let names = std::iter::once(default).chain(images.keys().filter(|name| *name != default));
        names.map(|name| ImageOffer { reference: name.clone(), description: None }).collect()
    }
}

/// The characters that the contract allows.
fn is_image(text: &str, max_bytes: usize) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._:/@+-".contains(&c);
    (1..=max_bytes).contains(&text.len()) && text.bytes().all(allowed)
}

fn refuse(message: &str) -> Refusal {
    paygress_policy_sdk::refuse(RefusalCode::ImageNotAllowed, message)
}

impl Settings {
    fn image(&self, requested: Option<&str>) -> Result<&str, Refusal> {
        let Written { default, images, .. } = &self.written;
        let Some(requested) = requested else { return Ok(default) };
        match images.get(requested) {
            Some(image) => Ok(image),
            None if requested == default => Ok(default),
            None => {
                let names: Vec<&str> = images.keys().map(String::as_str).collect();
                let names = names.join(", ");
                Err(refuse(&format!(
                    "there is no such image; leave pod_image out, or choose one of: {names}"
                )))
            }
        }
    }
}
