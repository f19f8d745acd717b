//! The default images policy: an allowlist, which is published.
//!
//! An entry allows one image (`registry/repository:tag`), one digest
//! (`registry/repository@sha256:…`) or a whole repository (`registry/repository`). Images are
//! compared in their complete form: `alpine`, `docker.io/alpine` and
//! `docker.io/library/alpine:latest` are the same image, and the port in `registry:5000/x` is never
//! mistaken for a tag.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit/1.2", world: "images-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{Policy, bindings};
    bindings::export!(Policy with_types_in bindings);
}

mod presets;
mod reference;

use bindings::exports::paygress::policy::images::{self, ImageOffer};
use bindings::exports::paygress::policy::settings;
use bindings::paygress::policy::types::{Context, ImageRef, Order, Problem, Refusal};
use paygress_plugin_settings::{SettingsReader, truncate_message};
use reference::{InvalidReference, MAX_NAME_BYTES, Reference};

/// The image that `cargo xtask images` builds.
const DEFAULT_IMAGE: &str = "paygress.local/ssh:1";
/// The limits of the contract for the list that is published.
const MAX_IMAGES: usize = 64;
const MAX_LIST_BYTES: usize = 16_384;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Image allowlist",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "default": {
      "type": "string", "default": "paygress.local/ssh:1",
      "description": "The image of orders that do not name one; always allowed."
    },
    "allow": {
      "type": "array", "items": {"type": "string"}, "default": [],
      "description": "The images that customers may choose: registry/repository:tag, registry/repository@sha256:… or registry/repository (all its tags and digests)."
    },
    "preset": {
      "enum": ["none", "common"], "default": "none",
      "description": "A list that is allowed besides: common, well-known images of docker.io. They bring no SSH server: set SSH_SERVER_IMAGE."
    }
  }
}"#;

pub struct Policy;

#[derive(Debug, Clone)]
struct Settings {
    default: Reference,
    /// The default as the operator wrote it.
    default_name: String,
    allow: Vec<Entry>,
}

/// An entry of the allowlist.
#[derive(Debug, Clone)]
struct Entry {
    /// As the operator wrote it.
    name: String,
    reference: Reference,
    description: Option<&'static str>,
}

impl Entry {
    fn parse(name: &str, description: Option<&'static str>) -> Result<Self, InvalidReference> {
        let reference = Reference::parse(name)?;
        Ok(Self { name: name.to_owned(), reference, description })
    }

    /// As it is published: customers see which entries are whole repositories.
    fn offer(&self) -> ImageOffer {
        let pattern = if self.reference.is_repository() { ":*" } else { "" };
        ImageOffer {
            reference: format!("{}{pattern}", self.name),
            description: self.description.map(str::to_owned),
        }
    }

    /// Whether it allows this image and no other.
    fn is_only(&self, image: &Reference) -> bool {
        !self.reference.is_repository() && self.reference.clone().complete() == *image
    }
}

paygress_plugin_settings::export_settings!(Policy, Settings, SCHEMA, parse_settings);

impl images::Guest for Policy {
    fn admit(order: Order, _: Context) -> Result<ImageRef, Refusal> {
        let settings = SETTINGS.with_borrow(Clone::clone);
        let Some(settings) = settings else {
            return Err(refuse("the images policy is not configured"));
        };
        let reference = admit(&settings, order.image.as_deref())?.to_string();
        Ok(ImageRef { reference })
    }

    fn catalog(_: Context) -> Vec<ImageOffer> {
        SETTINGS.with_borrow(|settings| settings.as_ref().map(catalog).unwrap_or_default())
    }
}

fn refuse(message: impl std::fmt::Display) -> Refusal {
    let message = truncate_message(&message.to_string());
    Refusal { code: "image_not_allowed".to_owned(), message }
}

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let default_name = reader.string("default", DEFAULT_IMAGE, MAX_NAME_BYTES);
    let default = match Reference::parse(&default_name) {
        Ok(reference) => Some(reference.complete()),
        Err(error) => {
            reader.problem("default", error.to_string());
            None
        }
    };
    let mut allow = Vec::new();
    for (index, name) in reader.strings("allow").unwrap_or_default().iter().enumerate() {
        match Entry::parse(name, None) {
            Ok(entry) => allow.push(entry),
            Err(error) => reader.problem("allow", format!("entry {index}: {error}")),
        }
    }
    match reader.string("preset", "none", MAX_NAME_BYTES).as_str() {
        "none" => {}
        "common" => allow.extend(
            presets::COMMON
                .iter()
                .filter_map(|&(name, description)| Entry::parse(name, Some(description)).ok()),
        ),
        _ => reader.problem("preset", "must be none or common"),
    }
    match default {
        Some(default) => reader.finish(Settings { default, default_name, allow }),
        None => Err(reader.into_problems()),
    }
}

/// The complete reference of the requested image, if it is allowed.
fn admit(settings: &Settings, requested: Option<&str>) -> Result<Reference, Refusal> {
    let Some(requested) = requested else { return Ok(settings.default.clone()) };
    let requested = Reference::parse(requested).map_err(refuse)?.complete();
    if requested == settings.default
        || settings.allow.iter().any(|entry| entry.reference.allows(&requested))
    {
        return Ok(requested);
    }
    // The remedy first: a long name may be cut off.
    Err(refuse(format!(
        "this image is not on the operator's list; leave pod_image out to get {}; requested was {requested}",
        settings.default
    )))
}

/// What is published: the default, and the allowlist as far as the contract's limits go.
fn catalog(settings: &Settings) -> Vec<ImageOffer> {
    let is_default = |entry: &&Entry| entry.is_only(&settings.default);
    let default = ImageOffer {
        reference: settings.default_name.clone(),
        description: settings
            .allow
            .iter()
            .filter(is_default)
            .find_map(|entry| entry.description)
            .map(str::to_owned),
    };
    let mut bytes = 0_usize;
    let mut images: Vec<ImageOffer> = Vec::new();
    let allowed = settings.allow.iter().filter(|entry| !is_default(entry)).map(Entry::offer);
    for image in std::iter::once(default).chain(allowed) {
        // The list may name an image that the preset has too.
        let is_new = images.iter().all(|other| other.reference != image.reference);
        if !is_new || image.reference.len() > MAX_NAME_BYTES {
            continue;
        }
        let description = image.description.as_ref().map_or(0, String::len);
        bytes = bytes.saturating_add(image.reference.len()).saturating_add(description);
        if images.len() == MAX_IMAGES || bytes > MAX_LIST_BYTES {
            break;
        }
        images.push(image);
    }
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(allow: &[&str]) -> Settings {
        parse_settings(
            &serde_json::json!({"default": "example.com:5000/ssh:1", "allow": allow}).to_string(),
        )
        .unwrap()
    }

    #[test]
    fn messages_keep_to_the_limit_of_the_contract() {
        let long = format!("registry.example/{}", "a".repeat(490));
        let settings = parse_settings(&serde_json::json!({"default": long}).to_string()).unwrap();
        let refusal = admit(&settings, Some(&long.replace('a', "b"))).unwrap_err();
        let message = refusal.message;
        assert!(message.len() <= 500 && message.ends_with('…'), "{message}");
        let many: serde_json::Map<_, _> =
            (0..5_000).map(|n| (format!("ü{n}"), serde_json::json!(1))).collect();
        let problems = parse_settings(&serde_json::Value::Object(many).to_string()).unwrap_err();
        assert_eq!(problems.len(), 64);
    }

    #[test]
    fn an_order_without_an_image_gets_the_default() {
        assert_eq!(admit(&settings(&[]), None).unwrap().to_string(), "example.com:5000/ssh:1");
        assert_eq!(admit(&parse_settings("{}").unwrap(), None).unwrap().to_string(), DEFAULT_IMAGE);
    }

    #[test]
    fn an_entry_with_a_tag_allows_that_tag_only() {
        let settings = settings(&["alpine:3.20"]);
        assert_eq!(
            admit(&settings, Some("docker.io/library/alpine:3.20")).unwrap().to_string(),
            "docker.io/library/alpine:3.20"
        );
        let digest = format!("alpine:3.20@sha256:{}", "a".repeat(64));
        for bad in [
            "alpine",
            "alpine:latest",
            "alpine:3.20.1",
            "evil/alpine:3.20",
            "alpine.evil:3.20/x",
            digest.as_str(),
        ] {
            assert!(admit(&settings, Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_repository_entry_allows_its_tags_and_digests() {
        let settings = settings(&["registry.example:5000/team/tools"]);
        let digest = format!("registry.example:5000/team/tools@sha256:{}", "0".repeat(64));
        for good in [
            "registry.example:5000/team/tools",
            "registry.example:5000/team/tools:v1",
            digest.as_str(),
        ] {
            assert!(admit(&settings, Some(good)).is_ok(), "{good}");
        }
        for bad in [
            "registry.example/team/tools",
            "registry.example:5001/team/tools",
            "team/tools",
            "registry.example:5000/team/tools/x",
            "registry.example:5000/team/toolsx",
        ] {
            assert!(admit(&settings, Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_entry_with_a_digest_allows_that_digest_whatever_the_tag() {
        let digest = format!("sha256:{}", "b".repeat(64));
        let settings = settings(&[&format!("alpine@{digest}")]);
        let admitted = admit(&settings, Some(&format!("alpine:any@{digest}"))).unwrap();
        assert_eq!(
            admitted.to_string(),
            format!("docker.io/library/alpine@{digest}"),
            "a tag beside a digest is dropped"
        );
        assert!(admit(&settings, Some(&format!("alpine@sha256:{}", "c".repeat(64)))).is_err());
        assert!(admit(&settings, Some("alpine")).is_err());
    }

    /// The references that are published for these settings.
    fn published(settings: &serde_json::Value) -> Vec<String> {
        let settings = parse_settings(&settings.to_string()).unwrap();
        catalog(&settings).into_iter().map(|image| image.reference).collect()
    }

    #[test]
    fn the_list_has_the_default_first_and_marks_whole_repositories() {
        assert_eq!(published(&serde_json::json!({})), [DEFAULT_IMAGE]);
        let digest = format!("alpine@sha256:{}", "a".repeat(64));
        let settings = serde_json::json!({
            "default": "debian:13",
            "allow": [
                "docker.io/library/debian:13", "python", "python:3", "python:3", digest,
                "registry.example:5000/team/tools",
            ],
        });
        assert_eq!(
            published(&settings),
            [
                "debian:13",
                "python:*",
                "python:3",
                digest.as_str(),
                "registry.example:5000/team/tools:*"
            ]
        );
    }

    #[test]
    fn the_list_keeps_to_the_limits_of_the_contract() {
        let many: Vec<String> = (0..1_000).map(|n| format!("registry.example/{n}:1")).collect();
        let all = published(&serde_json::json!({ "allow": many }));
        assert_eq!((all.len(), all[63].as_str()), (64, "registry.example/62:1"));
        let long = |n| format!("registry.example/{n}/{}", "a".repeat(490));
        let longest: Vec<String> = (10..74).map(long).collect();
        let all = published(&serde_json::json!({ "allow": longest }));
        let bytes: usize = all.iter().map(String::len).sum();
        // With `:*` each has 512 bytes.
        assert_eq!((all.len(), bytes), (32, 20 + 31 * 512));
        let repository = format!("registry.example/{}", "a".repeat(495));
        assert_eq!(published(&serde_json::json!({"allow": [repository]})), [DEFAULT_IMAGE]);
    }

    #[test]
    fn the_preset_is_allowed_besides_the_list_and_published() {
        let json = r#"{"default": "ubuntu:24.04", "allow": ["team/app:1"], "preset": "common"}"#;
        let settings = parse_settings(json).unwrap();
        for (name, _) in presets::COMMON {
            assert!(admit(&settings, Some(name)).is_ok(), "{name}");
        }
        assert!(admit(&settings, Some("team/app:1")).is_ok());
        assert!(admit(&settings, Some("debian:11")).is_err());
        assert!(
            admit(&parse_settings("{}").unwrap(), Some("debian:13")).is_err(),
            "off by default"
        );
        let images = catalog(&settings);
        assert_eq!(images.len(), presets::COMMON.len() + 1, "the default is one of them");
        let shown: Vec<_> =
            images.iter().map(|image| (&*image.reference, image.description.as_deref())).collect();
        assert_eq!(
            shown[..3],
            [
                ("ubuntu:24.04", Some("Ubuntu 24.04 LTS")),
                ("team/app:1", None),
                ("debian:13", Some("Debian 13"))
            ]
        );
    }

    #[test]
    fn all_problems_of_the_settings_are_reported_at_once() {
        let problems = parse_settings(
            r#"{"default": "UPPER", "allow": ["ok", "bad image", 3], "preset": "all", "typo": 1}"#,
        )
        .unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["/default", "/allow/2", "/allow", "/preset", "/typo"]);
        assert!(
            serde_json::from_str::<serde_json::Value>(SCHEMA).unwrap()["properties"]["allow"]
                .is_object()
        );
    }
}
