//! The default images policy: an allowlist, which is published.
//!
//! An entry allows one image (`registry/repository:tag`), one digest
//! (`registry/repository@sha256:…`) or a whole repository (`registry/repository`). Images are
//! compared in their complete form: `alpine`, `docker.io/alpine` and
//! `docker.io/library/alpine:latest` are the same image, and the port in `registry:5000/x` is never
//! mistaken for a tag.

mod presets;
mod reference;

use paygress_policy_sdk::{
    Context, ImageOffer, ImageRef, Images, MAX_CATALOG_BYTES, MAX_CATALOG_IMAGES, MAX_IMAGE_BYTES,
    Order, Problems, Refusal, RefusalCode,
};
use reference::{InvalidReference, Reference};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// The image that `cargo xtask images` builds.
const DEFAULT_IMAGE: &str = "paygress.local/ssh:1";

/// The settings as the operator writes them.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Image allowlist", description = "")]
struct Written {
    /// The image of orders that do not name one; always allowed.
    default: String,
    /// The images that customers may choose: registry/repository:tag, registry/repository@sha256:… or
    /// registry/repository (all its tags and digests).
    allow: Vec<String>,
    /// A list that is allowed besides: common, well-known images of docker.io. They bring no SSH
    /// server: set SSH_SERVER_IMAGE.
    preset: Preset,
}

impl Default for Written {
    fn default() -> Self {
        Self { default: DEFAULT_IMAGE.to_owned(), allow: Vec::new(), preset: Preset::None }
    }
}

#[derive(Clone, Copy, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
enum Preset {
    None,
    Common,
}

impl Preset {
    fn images(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::None => &[],
            Self::Common => &presets::COMMON,
        }
    }
}

/// The settings with their images parsed: `configure` does it once.
#[derive(Deserialize, JsonSchema)]
#[serde(from = "Written")]
#[schemars(with = "Written", description = "")]
pub struct Settings {
    /// As the operator wrote it.
    default_name: String,
    /// In the complete form.
    default: Result<Reference, InvalidReference>,
    allow: Vec<AllowedImage>,
    /// Entries that are no images, by their index.
    invalid: Vec<(usize, InvalidReference)>,
}

impl From<Written> for Settings {
    fn from(written: Written) -> Self {
        let default = Reference::parse(&written.default).map(Reference::complete);
        let (mut allow, mut invalid) = (Vec::new(), Vec::new());
        for (index, image) in written.allow.iter().enumerate() {
            match AllowedImage::parse(image, None) {
                Ok(entry) => allow.push(entry),
                Err(error) => invalid.push((index, error)),
            }
        }
        let preset = written.preset.images().iter();
        allow.extend(preset.filter_map(|&(image, description)| {
            AllowedImage::parse(image, Some(description)).ok()
        }));
        Self { default_name: written.default, default, allow, invalid }
    }
}

/// An entry of the allowlist.
struct AllowedImage {
    /// As the operator wrote it.
    name: String,
    reference: Reference,
    description: Option<&'static str>,
}

impl AllowedImage {
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

paygress_policy_sdk::export!(Images for Settings);

impl Images for Settings {
    fn check(&self, problems: &mut Problems) {
        if let Err(error) = &self.default {
            problems.add(&["default"], error.to_string());
        }
        for (index, error) in &self.invalid {
            problems.add(&["allow"], format!("entry {index}: {error}"));
        }
    }

    fn admit(&self, order: &Order, _: &Context) -> Result<ImageRef, Refusal> {
        let reference = self.admitted(order.image.as_deref())?.to_string();
        Ok(ImageRef { reference })
    }

    fn catalog(&self, _: &Context) -> Vec<ImageOffer> {
        self.published()
    }
}

fn refuse(message: impl Display) -> Refusal {
    paygress_policy_sdk::refuse(RefusalCode::ImageNotAllowed, message)
}

impl Settings {
    /// The complete reference of the requested image, if it is allowed.
    fn admitted(&self, requested: Option<&str>) -> Result<Reference, Refusal> {
        let default = self.default.as_ref().map_err(refuse)?;
        let Some(requested) = requested else { return Ok(default.clone()) };
        let requested = Reference::parse(requested).map_err(refuse)?.complete();
        if requested == *default
            || self.allow.iter().any(|entry| entry.reference.allows(&requested))
        {
            return Ok(requested);
        }
        // The remedy first: a long name may be cut off.
        Err(refuse(format!(
            "this image is not on the operator's list; leave pod_image out to get {default}; requested was {requested}"
        )))
    }

    /// What is published: the default, and the allowlist as far as the contract's limits go.
    fn published(&self) -> Vec<ImageOffer> {
        let is_default =
            |entry: &&AllowedImage| self.default.as_ref().is_ok_and(|image| entry.is_only(image));
        let description = self.allow.iter().filter(is_default).find_map(|entry| entry.description);
        let default = ImageOffer {
            reference: self.default_name.clone(),
            description: description.map(str::to_owned),
        };
        let mut bytes = 0_usize;
        let mut images: Vec<ImageOffer> = Vec::new();
        let allowed = self.allow.iter().filter(|entry| !is_default(entry)).map(AllowedImage::offer);
        for image in std::iter::once(default).chain(allowed) {
            // The list may name an image that the preset has too.
            let is_new = images.iter().all(|other| other.reference != image.reference);
            if !is_new || image.reference.len() > MAX_IMAGE_BYTES {
                continue;
            }
            let description = image.description.as_ref().map_or(0, String::len);
            bytes = bytes.saturating_add(image.reference.len()).saturating_add(description);
            if images.len() == MAX_CATALOG_IMAGES || bytes > MAX_CATALOG_BYTES {
                break;
            }
            images.push(image);
        }
        images
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_policy_sdk::{parse, schema};

    fn settings(allow: &[&str]) -> Settings {
        parse::<Settings>(
            &serde_json::json!({"default": "example.com:5000/ssh:1", "allow": allow}).to_string(),
        )
        .unwrap()
    }

    #[test]
    fn messages_keep_to_the_limit_of_the_contract() {
        let long = format!("registry.example/{}", "a".repeat(490));
        let settings =
            parse::<Settings>(&serde_json::json!({"default": long}).to_string()).unwrap();
        let refusal = settings.admitted(Some(&long.replace('a', "b"))).unwrap_err();
        let message = refusal.message;
        assert!(message.len() <= 500 && message.ends_with('…'), "{message}");
        let many: serde_json::Map<_, _> =
            (0..5_000).map(|n| (format!("ü{n}"), serde_json::json!(1))).collect();
        let problems =
            parse::<Settings>(&serde_json::Value::Object(many).to_string()).err().unwrap();
        assert_eq!(problems.len(), 64);
    }

    #[test]
    fn an_order_without_an_image_gets_the_default() {
        assert_eq!(settings(&[]).admitted(None).unwrap().to_string(), "example.com:5000/ssh:1");
        assert_eq!(
            parse::<Settings>("{}").unwrap().admitted(None).unwrap().to_string(),
            DEFAULT_IMAGE
        );
    }

    #[test]
    fn an_entry_with_a_tag_allows_that_tag_only() {
        let settings = settings(&["alpine:3.20"]);
        assert_eq!(
            settings.admitted(Some("docker.io/library/alpine:3.20")).unwrap().to_string(),
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
            assert!(settings.admitted(Some(bad)).is_err(), "{bad}");
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
            assert!(settings.admitted(Some(good)).is_ok(), "{good}");
        }
        for bad in [
            "registry.example/team/tools",
            "registry.example:5001/team/tools",
            "team/tools",
            "registry.example:5000/team/tools/x",
            "registry.example:5000/team/toolsx",
        ] {
            assert!(settings.admitted(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_entry_with_a_digest_allows_that_digest_whatever_the_tag() {
        let digest = format!("sha256:{}", "b".repeat(64));
        let settings = settings(&[&format!("alpine@{digest}")]);
        let admitted = settings.admitted(Some(&format!("alpine:any@{digest}"))).unwrap();
        assert_eq!(
            admitted.to_string(),
            format!("docker.io/library/alpine@{digest}"),
            "a tag beside a digest is dropped"
        );
        assert!(settings.admitted(Some(&format!("alpine@sha256:{}", "c".repeat(64)))).is_err());
        assert!(settings.admitted(Some("alpine")).is_err());
    }

    /// The references that are published for these settings.
    fn published(settings: &serde_json::Value) -> Vec<String> {
        let settings = parse::<Settings>(&settings.to_string()).unwrap();
        settings.published().into_iter().map(|image| image.reference).collect()
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
        let settings = parse::<Settings>(json).unwrap();
        for (name, _) in presets::COMMON {
            assert!(settings.admitted(Some(name)).is_ok(), "{name}");
        }
        assert!(settings.admitted(Some("team/app:1")).is_ok());
        assert!(settings.admitted(Some("debian:11")).is_err());
        assert!(
            parse::<Settings>("{}").unwrap().admitted(Some("debian:13")).is_err(),
            "off by default"
        );
        let images = settings.published();
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

    /// As they have been reported, and the schema been published, since before there was an SDK.
    #[test]
    fn problems_and_schema_are_as_they_were() {
        for (json, expected) in [
            (
                r#"{"default": "UPPER", "allow": ["ok", "bad image", 3], "preset": "all", "typo": 1}"#,
                vec![
                    (
                        "/default",
                        "not an image name: the repository may have lower-case letters, digits and single separators . _ -",
                    ),
                    ("/allow/2", "must be a text"),
                    (
                        "/allow",
                        "entry 1: not an image name: the repository may have lower-case letters, digits and single separators . _ -",
                    ),
                    ("/preset", "must be none or common"),
                    ("/typo", "is not a setting; known are: default, allow, preset"),
                ],
            ),
            (
                r#"{"default": 1, "allow": "ok", "preset": null}"#,
                vec![
                    ("/default", "must be a text of 1 to 512 bytes"),
                    ("/allow", "must be a list of texts"),
                    ("/preset", "must be a text of 1 to 512 bytes"),
                ],
            ),
            (
                r#"{"allow": [""]}"#,
                vec![("/allow", "entry 0: an image name must have 1 to 512 bytes")],
            ),
        ] {
            let problems = parse::<Settings>(json).err().unwrap();
            let shown: Vec<_> = problems.iter().map(|it| (&*it.path, &*it.message)).collect();
            assert_eq!(shown, expected, "{json}");
        }
        let before: serde_json::Value =
            serde_json::from_str(include_str!("../schema.json")).unwrap();
        assert_eq!(schema::<Settings>(), before);
    }
}
