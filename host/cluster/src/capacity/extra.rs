//! The nodes that an autoscaler adds (`POD_EXTRA_CAPACITY`).

use super::amounts::Amounts;
use crate::quantity::whole;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The most pods of a node, by the kubelet's default.
const PODS: u64 = 110;
const MOST_NODES: usize = 1_000;

/// Nodes that are added when pods need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraCapacity {
    nodes: usize,
    /// At most so many with those of the cluster.
    up_to: Option<usize>,
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
        "{0} is not a resource; write nodes, up-to, cpu, memory, ephemeral-storage, pods or a device such as nvidia.com/gpu"
    )]
    UnknownResource(String),
    #[error("{0} is named twice")]
    Twice(String),
    #[error("nodes must be a whole number from 1 to {}", MOST_NODES)]
    Nodes,
    #[error("up-to must be a whole number from 1 to {}", MOST_NODES)]
    UpTo,
}

impl ExtraCapacity {
    /// Of items such as `nodes=3`, `up-to=5`, `cpu=4`, `memory=16Gi`. What is left out is not
    /// limited on these nodes; devices that are left out are not there.
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
        let nodes = amounts.remove("nodes").as_ref().and_then(number_of_nodes);
        if nodes.is_none() {
            errors.push(ExtraCapacityError::Nodes);
        }
        let up_to = amounts.remove("up-to");
        let is_limited = up_to.is_some();
        let up_to = up_to.as_ref().and_then(number_of_nodes);
        if is_limited && up_to.is_none() {
            errors.push(ExtraCapacityError::UpTo);
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
            Some(nodes) if errors.is_empty() => Ok(Self { nodes, up_to, allocatable, pods }),
            _ => Err(errors),
        }
    }

    /// How many nodes may be added to so many of the cluster.
    pub(super) fn nodes_beside(&self, cluster: usize) -> usize {
        self.up_to.map_or(self.nodes, |up_to| up_to.saturating_sub(cluster).min(self.nodes))
    }
}

fn number_of_nodes(quantity: &Quantity) -> Option<usize> {
    let nodes: usize = quantity.0.parse().ok()?;
    (1..=MOST_NODES).contains(&nodes).then_some(nodes)
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
    if !matches!(name, "nodes" | "up-to" | "cpu" | "memory" | "ephemeral-storage" | "pods")
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
        assert_eq!((extra.nodes_beside(0), extra.pods), (3, 110));
        assert_eq!(extra.nodes_beside(1_000), 3);
        let allocatable = &extra.allocatable;
        assert_eq!((allocatable.cpu, allocatable.memory), (4_000, 16 << 30));
        assert_eq!((allocatable.storage, allocatable.device("nvidia.com/gpu")), (u64::MAX, 1));
        let nodes = parse("pods=5,nodes=1").unwrap();
        assert_eq!((nodes.pods, nodes.allocatable.cpu), (5, u64::MAX));
        assert_eq!(nodes.allocatable.device("nvidia.com/gpu"), 0);
        let limited = parse("nodes=3,up-to=5").unwrap();
        assert_eq!(
            [0, 2, 3, 4, 5, 6].map(|cluster| limited.nodes_beside(cluster)),
            [3, 3, 2, 1, 0, 0]
        );
        assert_eq!(limited.allocatable.cpu, u64::MAX, "it is no resource of a node");
    }

    #[test]
    fn everything_that_is_wrong_is_reported() {
        for (text, expected) in [
            ("cpu=4", 1),
            ("nodes=0", 1),
            ("nodes=1001", 1),
            ("nodes=1.5", 1),
            ("nodes=1,up-to=0", 1),
            ("nodes=1,up-to=1001", 1),
            ("nodes=1,up-to=2.5", 1),
            ("nodes=1,up-to=some", 1),
            ("up-to=5", 1),
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
