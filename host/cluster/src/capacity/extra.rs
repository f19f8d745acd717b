//! The nodes that an autoscaler adds (`POD_EXTRA_CAPACITY`).

use super::amounts::Amounts;
use super::quantity::whole;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The most pods of a node, by the kubelet's default.
const PODS: u64 = 110;
const MOST_NODES: u64 = 1_000;

/// Nodes that are added when pods need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraCapacity {
    pub(super) nodes: usize,
    /// What each of them has.
    pub(super) allocatable: Amounts,
    pub(super) pods: u64,
}

/// What is wrong with an item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtraCapacityError {
    #[error("{0} is not like cpu=4; write nodes=3,cpu=4,memory=16Gi")]
    NotAnAmount(String),
    #[error(
        "{0} is not a resource; write nodes, cpu, memory, ephemeral-storage, pods or a device such as nvidia.com/gpu"
    )]
    UnknownResource(String),
    #[error("{0} is named twice")]
    Twice(String),
    #[error("nodes must be a whole number from 1 to {}", MOST_NODES)]
    Nodes,
}

impl ExtraCapacity {
    /// Of items such as `nodes=3`, `cpu=4`, `memory=16Gi`. What is left out is not limited on these
    /// nodes; devices that are left out are not there.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(items: &[String]) -> Result<Self, Vec<ExtraCapacityError>> {
        let mut errors = Vec::new();
        let mut amounts = BTreeMap::new();
        for item in items {
            match amount(item) {
                Ok((name, quantity)) => {
                    if amounts.insert(name.clone(), quantity).is_some() {
                        errors.push(ExtraCapacityError::Twice(name));
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        let nodes = amounts.remove("nodes").and_then(|quantity| quantity.0.parse::<u64>().ok());
        let nodes = nodes.filter(|nodes| (1..=MOST_NODES).contains(nodes));
        let nodes = nodes.and_then(|nodes| usize::try_from(nodes).ok());
        if nodes.is_none() {
            errors.push(ExtraCapacityError::Nodes);
        }
        let pods = amounts.get("pods").and_then(whole).unwrap_or(PODS);
        let mut allocatable = Amounts {
            cpu: u64::MAX,
            memory: u64::MAX,
            storage: u64::MAX,
            devices: BTreeMap::new(),
        };
        allocatable.replace(Some(&amounts));
        match nodes {
            Some(nodes) if errors.is_empty() => Ok(Self { nodes, allocatable, pods }),
            _ => Err(errors),
        }
    }
}

fn amount(item: &str) -> Result<(String, Quantity), ExtraCapacityError> {
    let parts = item.split_once('=').map(|(name, text)| (name.trim(), text.trim()));
    let Some((name, text)) = parts else {
        return Err(ExtraCapacityError::NotAnAmount(item.to_owned()));
    };
    let quantity = Quantity(text.to_owned());
    if whole(&quantity).is_none() {
        return Err(ExtraCapacityError::NotAnAmount(item.to_owned()));
    }
    if !matches!(name, "nodes" | "cpu" | "memory" | "ephemeral-storage" | "pods")
        && !name.contains('/')
    {
        return Err(ExtraCapacityError::UnknownResource(name.to_owned()));
    }
    Ok((name.to_owned(), quantity))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ExtraCapacity, Vec<ExtraCapacityError>> {
        let items: Vec<String> = text.split(',').map(str::to_owned).collect();
        ExtraCapacity::parse(&items)
    }

    #[test]
    fn what_is_left_out_is_not_limited() {
        let extra = parse("nodes=3, cpu=4,memory=16Gi,nvidia.com/gpu=1").unwrap();
        assert_eq!((extra.nodes, extra.pods), (3, 110));
        let allocatable = &extra.allocatable;
        assert_eq!((allocatable.cpu, allocatable.memory), (4_000, 16 << 30));
        assert_eq!((allocatable.storage, allocatable.device("nvidia.com/gpu")), (u64::MAX, 1));
        let nodes = parse("pods=5,nodes=1").unwrap();
        assert_eq!((nodes.pods, nodes.allocatable.cpu), (5, u64::MAX));
        assert_eq!(nodes.allocatable.device("nvidia.com/gpu"), 0);
    }

    #[test]
    fn everything_that_is_wrong_is_reported() {
        for (text, expected) in [
            ("cpu=4", 1),
            ("nodes=0", 1),
            ("nodes=1001", 1),
            ("nodes=1.5", 1),
            ("nodes=1,cpu", 1),
            ("nodes=1,cpu=four", 1),
            ("nodes=1,cpu=4,cpu=5", 1),
            ("nodes=1,disk=4Gi", 1),
            ("disk=4Gi,memory=,cpu=-1", 4),
        ] {
            assert_eq!(parse(text).unwrap_err().len(), expected, "{text}");
        }
    }
}
