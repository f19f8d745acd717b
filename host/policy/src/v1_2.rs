//! What contract 1.2 adds to 1.1, converted into the types of `paygress-core`.

use crate::bindings::images_1_2::exports::paygress::policy::images as wit;
use crate::bindings::pod_template_1_2::exports::paygress::policy::pod_template;
use crate::v1_0::{checked_rendered, invalid, text};
use paygress_core::backend::policy::{
    EgressRule, FaultKind, ImageOffer, PortRange, Protocol, Rendered,
};
use paygress_core::model::access::{AccessMode, AccessModes};

const IMAGES: usize = 64;
/// All images together: a relay takes the offers and them in one event.
const IMAGES_BYTES: usize = 16_384;
const EGRESS_RULES: usize = 8;
/// Of all rules together; an API server and a network plugin take more.
const EGRESS_ENTRIES: usize = 32;
/// The longest network of IPv6.
const CIDR_BYTES: usize = 43;
/// At the end of a reference that stands for all images of a repository.
const PATTERN: &str = ":*";

pub(crate) fn checked_images(images: Vec<wit::ImageOffer>) -> Result<Vec<ImageOffer>, FaultKind> {
    if images.len() > IMAGES {
        return invalid(format!("a list of {} images", images.len()));
    }
    let size = |image: &wit::ImageOffer| {
        image.reference.len().saturating_add(image.description.as_ref().map_or(0, String::len))
    };
    let bytes = images.iter().map(size).fold(0, usize::saturating_add);
    if bytes > IMAGES_BYTES {
        return invalid(format!("a list of images of {bytes} bytes"));
    }
    images.into_iter().map(checked_image).collect()
}

pub(crate) fn access(modes: &AccessModes) -> Vec<pod_template::AccessMode> {
    let mode = |mode| match mode {
        AccessMode::HostPort => pod_template::AccessMode::HostPort,
        AccessMode::NodePort => pod_template::AccessMode::NodePort,
        AccessMode::Gateway => pod_template::AccessMode::Gateway,
    };
    modes.modes().map(mode).collect()
}

pub(crate) fn checked_pod(pod: pod_template::RenderedPod) -> Result<Rendered, FaultKind> {
    let rendered = checked_rendered(pod.objects)?;
    Ok(Rendered { egress: pod.egress.map(checked_egress).transpose()?, ..rendered })
}

fn checked_egress(rules: Vec<pod_template::EgressRule>) -> Result<Vec<EgressRule>, FaultKind> {
    let total = |count: fn(&pod_template::EgressRule) -> usize| {
        rules.iter().map(count).fold(0, usize::saturating_add)
    };
    let (cidrs, ports) = (total(|rule| rule.cidrs.len()), total(|rule| rule.ports.len()));
    if rules.len() > EGRESS_RULES || cidrs > EGRESS_ENTRIES || ports > EGRESS_ENTRIES {
        return invalid(format!(
            "{} egress rules with {cidrs} networks and {ports} ranges of ports",
            rules.len()
        ));
    }
    let rule = |rule: pod_template::EgressRule| {
        let cidr = |cidr| text("a network of an egress rule", cidr, 1, CIDR_BYTES);
        Ok(EgressRule {
            cidrs: rule.cidrs.into_iter().map(cidr).collect::<Result<_, _>>()?,
            ports: rule.ports.into_iter().map(checked_ports).collect::<Result<_, _>>()?,
        })
    };
    rules.into_iter().map(rule).collect()
}

fn checked_ports(ports: pod_template::PortRange) -> Result<PortRange, FaultKind> {
    let pod_template::PortRange { protocol, first, last } = ports;
    if first == 0 || first > last {
        return invalid(format!("an egress rule with the ports from {first} to {last}"));
    }
    let protocol = match protocol {
        pod_template::Protocol::Tcp => Protocol::Tcp,
        pod_template::Protocol::Udp => Protocol::Udp,
    };
    Ok(PortRange { protocol, first, last })
}

fn checked_image(image: wit::ImageOffer) -> Result<ImageOffer, FaultKind> {
    let reference = text("an image of the list", image.reference, 1, 512)?;
    let name = reference.strip_suffix(PATTERN).unwrap_or(&reference);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@+".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_allowed) {
        return invalid("an image of the list that is not an image name");
    }
    let description = image
        .description
        .map(|description| text("an image's description", description, 1, 100))
        .transpose()?;
    Ok(ImageOffer { reference, description })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(reference: &str, description: Option<&str>) -> wit::ImageOffer {
        wit::ImageOffer {
            reference: reference.to_owned(),
            description: description.map(str::to_owned),
        }
    }

    #[test]
    fn a_list_within_the_ranges_of_the_contract_is_published_as_it_is() {
        let longest = format!("registry.example/{}", "a".repeat(495));
        let good = ["debian:13", "registry.example:5000/team/tools:*", longest.as_str()];
        let checked = checked_images(good.map(|name| image(name, Some("An image."))).to_vec());
        let expected = good.map(|name| ImageOffer {
            reference: name.to_owned(),
            description: Some("An image.".to_owned()),
        });
        assert_eq!(checked, Ok(expected.to_vec()));
        assert_eq!(checked_images(Vec::new()), Ok(Vec::new()));
        assert!(checked_images(vec![image("alpine:3", None); 64]).is_ok());
    }

    #[test]
    fn what_is_outside_of_them_is_a_fault() {
        let long = "a".repeat(513);
        for bad in
            ["", ":*", "a:*:*", "a*", "a b", "a\n", "\u{1b}[2J", "$(id)", "a;b", "ä", long.as_str()]
        {
            let checked = checked_images(vec![image(bad, None)]);
            assert!(matches!(checked, Err(FaultKind::InvalidOutput(_))), "{bad:?}: {checked:?}");
        }
        for bad in ["", "two\nlines", &long[..101]] {
            let checked = checked_images(vec![image("alpine:3", Some(bad))]);
            assert!(matches!(checked, Err(FaultKind::InvalidOutput(_))), "{bad:?}: {checked:?}");
        }
        assert!(checked_images(vec![image("alpine:3", None); 65]).is_err());
        assert!(checked_images(vec![image(&long[..512], None); 32]).is_ok(), "16 384 bytes");
        let more = [vec![image(&long[..512], None); 32], vec![image("a", None)]].concat();
        assert!(checked_images(more).is_err());
    }

    fn rule(cidrs: &[&str], ports: &[(u16, u16)]) -> pod_template::EgressRule {
        let range = |(first, last): &(u16, u16)| pod_template::PortRange {
            protocol: pod_template::Protocol::Udp,
            first: *first,
            last: *last,
        };
        pod_template::EgressRule {
            cidrs: cidrs.iter().map(|cidr| (*cidr).to_owned()).collect(),
            ports: ports.iter().map(range).collect(),
        }
    }

    #[test]
    fn egress_rules_within_the_ranges_of_the_contract_are_taken_as_they_are() {
        assert_eq!(checked_egress(Vec::new()), Ok(Vec::new()));
        let longest = "2001:0db8:0000:0000:0000:0000:0000:0000/128";
        assert_eq!(longest.len(), CIDR_BYTES);
        let checked = checked_egress(vec![rule(&["192.0.2.0/24", longest], &[(1, 65_535)])]);
        let ports = vec![PortRange { protocol: Protocol::Udp, first: 1, last: 65_535 }];
        let cidrs = vec!["192.0.2.0/24".to_owned(), longest.to_owned()];
        assert_eq!(checked, Ok(vec![EgressRule { cidrs, ports }]));
        assert!(checked_egress(vec![rule(&["192.0.2.0/24"; 4], &[(1, 1); 4]); 8]).is_ok());
    }

    #[test]
    fn egress_rules_outside_of_them_are_a_fault() {
        let long = "2".repeat(44);
        for bad in [
            vec![rule(&[], &[]); 9],
            vec![rule(&["192.0.2.0/24"; 33], &[])],
            vec![rule(&["192.0.2.0/24"; 16], &[]), rule(&["192.0.2.0/24"; 17], &[])],
            vec![rule(&[], &[(1, 1); 33])],
            vec![rule(&[], &[(0, 1)])],
            vec![rule(&[], &[(2, 1)])],
            vec![rule(&[""], &[])],
            vec![rule(&["192.0.2.0/24\n"], &[])],
            vec![rule(&[&long], &[])],
        ] {
            let checked = checked_egress(bad);
            assert!(matches!(checked, Err(FaultKind::InvalidOutput(_))), "{checked:?}");
        }
    }
}
