//! Customers by contact lists (NIP-02): the operator's key, those in its list, those in the lists of
//! these, and so on, up to a distance. All of them may order the images that have a name here.
//!
//! A policy has no network: the lists are settings, made from events of kind 3 that the operator
//! has fetched and whose signatures they have checked:
//! `jq '{of: .pubkey, contacts: [.tags[] | select(.[0] == "p") | .[1]]}'`.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/1.2", world: "images-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{WebOfTrust, bindings};
    bindings::export!(WebOfTrust with_types_in bindings);
}

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use bindings::exports::paygress::policy::images::{self, ImageOffer};
use bindings::exports::paygress::policy::settings;
use bindings::paygress::policy::types::{Context, ImageRef, Order, Problem, Refusal};
use paygress_plugin_settings::{SettingsReader, truncate_message};
use std::collections::BTreeSet;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Web of trust",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "root": {"type": "string", "minLength": 1, "maxLength": 64, "description": "The operator's key, an npub or 64 hex digits. If omitted, no customer may order."},
    "distance": {"type": "integer", "minimum": 0, "maximum": 4, "default": 2, "description": "1: the contacts of the root; 2: their contacts too."},
    "lists": {
      "type": "array", "default": [], "description": "The contact lists, that of the root among them.",
      "items": {
        "type": "object", "additionalProperties": false, "required": ["of"],
        "properties": {
          "of": {"type": "string", "minLength": 1, "maxLength": 64, "description": "Whose list it is."},
          "contacts": {"type": "array", "items": {"type": "string"}, "default": []}
        }
      }
    },
    "except": {"type": "array", "items": {"type": "string"}, "default": [], "description": "Keys that may not order, and whose lists do not count."},
    "default": {"type": "string", "minLength": 1, "maxLength": 512, "default": "paygress.local/ssh:1", "description": "The image of orders that name none, in the complete form."},
    "images": {"type": "object", "default": {}, "additionalProperties": {"type": "string"}, "description": "What customers may write, and the image in the complete form: debian is docker.io/library/debian:13."}
  }
}"#;

const PREFIX: Hrp = Hrp::parse_unchecked("npub");
/// The limits of the contract for the list that is published: as many, and of so many bytes.
const MAX_IMAGES: usize = 64;
const MAX_NAME_BYTES: usize = 200;
const MAX_IMAGE_BYTES: usize = 512;

struct WebOfTrust;

/// A public key.
type Key = [u8; 32];

#[derive(Clone, Debug)]
struct ContactList {
    of: Option<Key>,
    contacts: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Settings {
    /// Who may order.
    customers: BTreeSet<Key>,
    default: String,
    /// What customers write, and the image.
    images: Vec<(String, String)>,
}

paygress_plugin_settings::export_settings!(WebOfTrust, Settings, SCHEMA, parse_settings);

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let root = read_key(&mut reader, "root");
    let distance = reader.number("distance", 2, 0..=4);
    let read_list = |list: &mut SettingsReader| {
        let of = read_key(list, "of");
        if of.is_none() {
            list.problem("of", "is missing, or not a public key");
        }
        ContactList { of, contacts: read_keys(list, "contacts") }
    };
    let lists = reader.objects("lists", read_list).unwrap_or_default();
    let except: BTreeSet<Key> = read_keys(&mut reader, "except").into_iter().collect();
    let default = reader.string("default", "paygress.local/ssh:1", MAX_IMAGE_BYTES);
    if !is_image(&default, MAX_IMAGE_BYTES) {
        reader.problem("default", "must be a name of an image in the complete form");
    }
    let images = reader.string_map("images");
    if images.len() >= MAX_IMAGES {
        reader.problem("images", "must have at most 63 entries");
    }
    for (name, image) in &images {
        if !is_image(name, MAX_NAME_BYTES) || !is_image(image, MAX_IMAGE_BYTES) {
            reader.problem("images", format!("{name} is {image}: this is not a name of an image"));
        }
    }
    let customers = reachable(root, distance, &lists, &except);
    reader.finish(Settings { customers, default, images })
}

/// The characters that the contract allows.
fn is_image(text: &str, max_bytes: usize) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._:/@+-".contains(&c);
    (1..=max_bytes).contains(&text.len()) && text.bytes().all(allowed)
}

fn read_key(reader: &mut SettingsReader, name: &'static str) -> Option<Key> {
    let text = reader.string(name, "", 64);
    let key = key(&text);
    if key.is_none() && !text.is_empty() {
        reader.problem(name, "must be a public key: npub1… or 64 hex digits");
    }
    key
}

fn read_keys(reader: &mut SettingsReader, name: &'static str) -> Vec<Key> {
    let texts = reader.strings(name).unwrap_or_default();
    let mut keys = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match key(text) {
            Some(key) => keys.push(key),
            None => {
                let message =
                    format!("entry {index} must be a public key: npub1… or 64 hex digits");
                reader.problem(name, message);
            }
        }
    }
    keys
}

/// Reads an npub (NIP-19), or hex.
fn key(text: &str) -> Option<Key> {
    let mut key = [0; 32];
    if text.starts_with("npub1") {
        let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
        let mut bytes = checked.byte_iter();
        for byte in &mut key {
            *byte = bytes.next()?;
        }
        return (checked.hrp() == PREFIX && bytes.next().is_none()).then_some(key);
    }
    if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

/// The root, and who is in a list of somebody nearer than `distance` to it.
fn reachable(
    root: Option<Key>,
    distance: u64,
    lists: &[ContactList],
    except: &BTreeSet<Key>,
) -> BTreeSet<Key> {
    let mut reached: BTreeSet<Key> = root.into_iter().collect();
    for _ in 0..distance {
        let nearer = reached.clone();
        let counted = lists.iter().filter(|list| list.of.is_some_and(|of| nearer.contains(&of)));
        let contacts = counted.flat_map(|list| &list.contacts);
        reached.extend(contacts.filter(|contact| !except.contains(*contact)));
    }
    reached
}

impl images::Guest for WebOfTrust {
    fn admit(order: Order, _: Context) -> Result<ImageRef, Refusal> {
        SETTINGS.with_borrow(|settings| match settings {
            Some(settings) => settings.admit(&order).map(|reference| ImageRef { reference }),
            None => Err(refuse("the images policy is not configured")),
        })
    }

    fn catalog(_: Context) -> Vec<ImageOffer> {
        SETTINGS
            .with_borrow(|settings| settings.as_ref().map(Settings::catalog).unwrap_or_default())
    }
}

fn refuse(message: &str) -> Refusal {
    Refusal { code: "image_not_allowed".to_owned(), message: truncate_message(message) }
}

impl Settings {
    fn admit(&self, order: &Order) -> Result<String, Refusal> {
        // `bearer:…` and the empty customer are no public keys.
        let is_known = key(&order.customer).is_some_and(|key| self.customers.contains(&key));
        if !is_known {
            return Err(refuse(
                "this service is for people whom its operator knows by contact lists, and your key is not among them",
            ));
        }
        let Some(requested) = &order.image else { return Ok(self.default.clone()) };
        let known = self.images.iter().find(|(name, _)| name == requested);
        match known {
            Some((_, image)) => Ok(image.clone()),
            None if *requested == self.default => Ok(self.default.clone()),
            None => {
                let names: Vec<&str> = self.images.iter().map(|(name, _)| name.as_str()).collect();
                let message = format!(
                    "there is no such image; leave pod_image out, or choose one of: {}",
                    names.join(", ")
                );
                Err(refuse(&message))
            }
        }
    }

    /// At most 64 names of 200 bytes, and the default.
    fn catalog(&self) -> Vec<ImageOffer> {
        let default = std::iter::once(&self.default);
        let others = self.images.iter().map(|(name, _)| name);
        let names = default.chain(others.filter(|name| **name != self.default));
        names.map(|name| ImageOffer { reference: name.clone(), description: None }).collect()
    }
}
